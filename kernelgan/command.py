"""The command lines that take a config: how flags are parsed, and how what is wrong with them is told."""

from __future__ import annotations

import re
import sys
from typing import NoReturn

from absl import flags


def parse_flags(argv: list[str], fields: str = "python -m kernelgan.config") -> list[str]:
    """Parses flags, of which one is ``--config``; what is wrong with them is told in one line.

    Args:
      argv: the command line.
      fields: what lists every field of the config, for the message.
    """
    try:
        rest = flags.FLAGS(argv)
        flags.FLAGS.config.name  # noqa: B018  (a config file that cannot be loaded says so only when it is read)
    except (flags.Error, OSError) as error:
        # Of a config file that raised, the last line is its own message; a traceback precedes it.
        if "takes 0 positional arguments" in str(error):
            fail("this config has no variants: nothing may follow its name")
        missing = re.search(r"No such file or directory: '([^']*)'", str(error))
        if missing:
            fail(f"there is no config {missing[1]}; expected a file such as configs/black_cat.py")
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        own = re.sub(r"^\w+Error: ", "", lines[-1])
        fail(own if any("Traceback" in line for line in lines) else " ".join(lines))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason: object = error
        while isinstance(reason, BaseException) and reason.args:
            reason = reason.args[0]
        words = " ".join(str(reason).split())
        fail(f"the config has no such field: {words} ({fields} lists all fields; a tuple is set as a whole)")
    if len(rest) > 1:
        fail(f"unexpected arguments {' '.join(rest[1:])}; fields are set like --config.zoo.models=64")
    return rest


def fail(message: str) -> NoReturn:
    """Ends the program as for any error that the user can mend."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
