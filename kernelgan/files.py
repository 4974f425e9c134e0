"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Writes a file so that neither a reader nor a crash ever sees half of it."""
    path = Path(path)
    with replacing(path) as file:
        file.write(content)
    return path


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


def stamp(path: Path) -> list[tuple[str, int, int]]:
    """Name below the path, size and time of change of a file, or of each file of a directory."""
    found = [(file, file.stat()) for file in sorted((path, *path.rglob("*"))) if file.is_file()]
    return [(file.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns) for file, stat in found]
