"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from kernelgan.types import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LONGEST_NAME = 255
"""Bytes of a file's name, on all usual file systems."""


def given_path(given: str | Path, what: str) -> Path:
    """A path that a person gave, with ``~`` replaced: the one rule for all paths.

    Args:
      given: the path.
      what: the flag, field or argument, for the message.

    Raises:
      UserError: it is a URL, a name in it is too long, or of an unknown user.
    """
    if _URL.match(str(given)):
        raise UserError(
            f"{what} is {str(given)!r}, a URL; expected a path of this machine. Copy the files here, or "
            "mount the bucket."
        )
    longest = max((len(os.fsencode(part)) for part in Path(given).parts), default=0)
    if longest > _LONGEST_NAME or "\0" in str(given):
        raise UserError(
            f"{what} is {given!s:.60}..., with a name of {longest} bytes; expected at most {_LONGEST_NAME}, "
            "and no null. Give a shorter path."
        )
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise UserError(f"{what} is {str(given)!r}: {error}. Give the path in full.") from None


def nearest(given: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`` The nearest to cats is cat.``, for the end of a message; "" where nothing is spelt alike."""
    found = difflib.get_close_matches(given, known, n=1, cutoff=cutoff)
    return f" The nearest to {given} is {found[0]}." if found else ""


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Writes a file so that neither a reader nor a crash ever sees half of it."""
    path = Path(path)
    with replacing(path) as file:
        file.write(content)
    return path


def is_writable(directory: Path) -> bool:
    """Whether files can be made in a directory; so too where it is not there yet."""
    return not directory.is_dir() or os.access(directory, os.W_OK)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is complete and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)


def stamp(path: Path, below: str = "") -> str:
    """Digest of names, sizes and dates of a file, or of the files of a directory, without reading them.

    Args:
      path: names count from here on.
      below: only what is in this directory of it.

    Returns:
      A digest; "" if there are no files.
    """
    root = path / below
    stats = {file: file.stat() for file in sorted((root, *root.rglob("*"))) if file.is_file()}
    described = [(file.relative_to(path).as_posix(), s.st_size, s.st_mtime_ns) for file, s in stats.items()]
    return hashlib.sha256(repr(described).encode()).hexdigest() if described else ""
