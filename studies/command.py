"""How a study runs as a command: its exit status, errors in words, where its results go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernelgan.stopping import STATUS, Terminated, listen


def status(work: Callable[[], None], kept: str = "") -> int:
    """Does a study's work; gives the exit status, and says in a line what ended it early.

    Args:
      work: what is done.
      kept: what is not lost when it ends early, in words.
    """
    from kernelgan.types import UserError  # here, so that --help need not wait for JAX

    after = f"; {kept}" if kept else ""
    try:
        listen()
        work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}{after}", file=sys.stderr)
        return 2
    except Terminated:
        print(f"terminated{after}", file=sys.stderr)
        return STATUS
    except KeyboardInterrupt:
        print(f"interrupted{after}", file=sys.stderr)
        return 130
    return 0


def places(run: str, out: str) -> tuple[Path, Path]:
    """The directory of the run that is read, and the file of results, which is not in it.

    Raises:
      UserError: it is; or see `file`.
    """
    from kernelgan.files import given_path
    from kernelgan.types import UserError

    read, written = given_path(run, "--run"), file(out)
    if read.resolve() in written.resolve().parents:
        raise UserError(f"--out={written} is in the run, which is only read; expected another place.")
    return read, written


def file(out: str) -> Path:
    """The file of results.

    Raises:
      UserError: a directory is there, or no name is given.
    """
    from kernelgan.files import given_path
    from kernelgan.types import UserError

    written = given_path(out, "--out")
    if not out or written.is_dir():
        raise UserError(f"--out={out} is no file; expected the name of one, such as results.json.")
    return written


def write(file: Path, results: dict[str, Any]) -> None:
    """Writes results as JSON, with the commit that made them and whether nothing was changed since."""
    from kernelgan import environment
    from kernelgan.files import write_atomically

    file.parent.mkdir(parents=True, exist_ok=True)
    checkout = environment.checkout()
    text = json.dumps({**results, "commit": checkout.commit, "clean": checkout.clean}, indent=1)
    write_atomically(file, f"{text}\n".encode())
