"""The command ``kernelgan``, the same as ``launch.py``: its flags, their errors, and its exit status.

JAX is imported when a run begins, so that ``--help`` need not wait for it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from kernelgan import stopping
from kernelgan.progress import STAGES

_NO_NUMBER = re.compile(r"invalid literal for int\(\) with base 10: .*|could not convert string to float: .*")


def main() -> None:
    """Defines the flags, runs the experiment and exits."""
    stopping.outlast_readers()
    _define_flags()
    app.run(_run, flags_parser=parse_flags)


def _define_flags() -> None:
    own = set(flags.FLAGS)
    config_flags.DEFINE_config_file(
        "config",
        None,
        "The experiment, such as configs/black_cat.py or configs/black_cat.py:photos; a file, or one of the "
        "installed configs.",
        lock_config=True,
    )
    flags.DEFINE_string(
        "workdir", None, "Where checkpoints, results and the report go; default runs/<config name>."
    )
    flags.DEFINE_enum("stage", "report", STAGES, "Run what is missing up to this stage, then stop.")
    flags.DEFINE_multi_string(
        "generator",
        [],
        "A generator beside the config's: your own .py file, or a family. May be repeated.",
    )
    flags.DEFINE_list(
        "keep",
        [],
        "Stages, such as zoo,generate/reduce, whose results are used although code has changed since. That "
        "this changed no number is your word; the report says so.",
    )
    flags.DEFINE_list(
        "seeds",
        [],
        "Several runs, one for each of these seeds, such as 0,1,2; then their table side by side.",
    )
    flags.DEFINE_bool(
        "distributed", False, "This is one of several processes that Slurm or Open MPI started for one run."
    )
    flags.DEFINE_string(
        "coordinator", "", "The same without Slurm: HOST:PORT of process 0, with --processes and --process."
    )
    flags.DEFINE_integer("processes", 0, "With --coordinator: how many processes there are.")
    flags.DEFINE_integer("process", -1, "With --coordinator: which of them this is, from 0.")
    flags.mark_flag_as_required("config")
    for name in set(flags.FLAGS) - own:  # what --help of the main program shows
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def _run(argv: list[str]) -> int:
    """Calls the pipeline; gives the exit status."""
    given = flags.FLAGS
    if not given["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax reports every file at INFO
    from kernelgan import distributed, environment, files
    from kernelgan.pipeline import run
    from kernelgan.types import UserError

    program = ["python", argv[0]] if argv[0].endswith(".py") else [Path(argv[0]).name]
    name = f"{given.config.name}_seeds" if given.seeds else str(given.config.name)
    workdir = Path(given.workdir or Path("runs") / name)
    try:
        workdir = files.given_path(workdir if given.workdir is None else given.workdir, "--workdir")
        if not given.coordinator and (given.processes or given.process >= 0):
            raise UserError("--processes and --process go with --coordinator=HOST:PORT, which was not given.")
        if given.distributed or given.coordinator:
            environment.configure(given.config.device)
            distributed.join(given.coordinator, given.processes, given.process)
        stopping.listen()
        command = _quoted([*program, *sys.argv[1:]])
        with distributed.silent_unless_first():
            if given.seeds:
                _sweep(given, workdir, program)
            else:
                how = {"stage": given.stage, "generators": given.generator, "keep": given.keep}
                run(given.config, workdir, command=command, **how)
        status = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        print(
            f"error: {error}; what was finished is kept, and the same command continues ({workdir})",
            file=sys.stderr,
        )
        status = 2
    except stopping.Terminated:
        print(f"terminated; the same command continues the run ({workdir})", file=sys.stderr)
        status = stopping.STATUS
    except KeyboardInterrupt:
        print(f"interrupted; the same command continues the run ({workdir})", file=sys.stderr)
        status = 130
    except Exception:
        traceback.print_exc()
        status = 1
    distributed.abandon(status)
    return status


def _quoted(words: Sequence[str]) -> str:
    """A command line to paste; a tuple's quotes stay legible, ``"--config.pairs.objects=('cat',)"``."""
    return " ".join(
        f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word) for word in words
    )


def _sweep(given: flags.FlagValues, workdir: Path, program: list[str]) -> None:
    """A run for each seed, in directories of their own, and how they compare.

    Raises:
      UserError: the seeds are not different whole numbers, or several processes were asked for.
    """
    from kernelgan import compare
    from kernelgan.pipeline import run
    from kernelgan.types import UserError

    words = [word.strip() for word in given.seeds]
    if not all(word.isdecimal() for word in words) or not 1 < len({*map(int, words)}) == len(words):
        raise UserError(
            f"--seeds={','.join(words)} given; expected two or more different whole numbers, such as 0,1,2."
        )
    if given.distributed or given.coordinator:
        raise UserError("--seeds runs in one process; with several give --config.seed, seed by seed.")
    swept = ("--seeds", "-seeds", "--workdir", "-workdir")
    pairs = zip(["", *sys.argv[1:]], sys.argv[1:], strict=False)
    rest = [word for before, word in pairs if word.partition("=")[0] not in swept and before not in swept]
    folders = [workdir / f"seed{int(word)}" for word in words]
    for word, folder in zip(words, folders, strict=True):
        own = given.config.copy_and_resolve_references()
        own.seed = int(word)
        command = _quoted([*program, *rest, f"--config.seed={int(word)}", f"--workdir={folder}"])
        run(own, folder, stage=given.stage, command=command, generators=given.generator, keep=given.keep)
    if given.stage == "report":
        print("\n" + compare.text(compare.read(folders)))


def _with_installed_configs(argv: list[str]) -> list[str]:
    """A command line in which a config that is not here, but installed, is named in full."""
    package = importlib.util.find_spec("configs")
    folders = list(package.submodule_search_locations or ()) if package else []

    def full(config: str) -> str:
        path, colon, variant = config.partition(":")
        if path.startswith("~"):  # a shell leaves it in --config=~/mine.py
            return os.path.expanduser(path) + colon + variant  # noqa: PTH111  (an unknown user is no error)
        if not Path(path).exists() and Path(path).parent in (Path(), Path("configs")):
            for file in (Path(folder) / Path(path).name for folder in folders):
                if file.is_file():
                    return f"{file}{colon}{variant}"
        return config

    full_names = []
    for previous, argument in zip(["", *argv], argv, strict=False):
        flag, equals, value = argument.partition("=")
        if equals and flag in ("--config", "-config"):
            argument = f"{flag}={full(value)}"
        elif previous in ("--config", "-config"):
            argument = full(argument)
        full_names.append(argument)
    return full_names


def parse_flags(argv: list[str], fields: str = "python -m kernelgan.config") -> list[str]:
    """Parses flags, of which one is ``--config``; what is wrong with them is told in one line.

    Args:
      argv: the command line.
      fields: what lists every field of the config, for the message.
    """
    try:
        rest = flags.FLAGS(_with_installed_configs(argv))
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
        lines = [_NO_NUMBER.sub("expected a number, a whole one for most fields", line) for line in lines]
        fail(own if any("Traceback" in line for line in lines) else " ".join(lines))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason: object = error
        while isinstance(reason, BaseException) and reason.args:
            reason = reason.args[0]
        words = " ".join(str(reason).split())
        fail(
            f"the config has no such field: {words} ({fields} lists all fields; a tuple is set as a whole; a "
            "family of generators has fields only where the config names it, see kernelgan.config.default)"
        )
    if len(rest) > 1:
        fail(f"unexpected arguments {' '.join(rest[1:])}; fields are set like --config.zoo.models=64")
    return rest


def fail(message: str) -> NoReturn:
    """Ends the program as for any error that the user can mend."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
