"""What a stage leaves on disk: its state while it runs, and its result; the only file that imports Orbax.

A stage's directory has a directory for each key that it ran with, so that going back to an earlier config
brings the earlier result back::

    zoo/3f9a0c51d2e7/key.json             every part of the key, to say what changed since
                     state/5/...          states, while it runs
                     state/sha256-5.json  the digest of the content, and the sum of each of its files
                     result/0/...         the result
                     result/sha256-0.json
                     damaged-result-0/    what was damaged

A step without its sums was not finished and does not count. A step that does not fit its sums is damaged: it
is named in a warning and moved aside. What cannot be read is an error, and stays as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from absl import logging

from kernelgan import stopping
from kernelgan.files import write_atomically
from kernelgan.keys import StageKey, damaged_name, in_words, of_arrays, unreadable, unwritable
from kernelgan.types import UserError

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

KEPT_STATES = 2
KEY_FILE = "key.json"
_RESULT = 0  # the number of a result's only step


class _DamagedError(Exception):
    """The files of a step are not what was saved."""


class _Steps:
    """Numbered nested dicts of numpy arrays in one directory, each with its sums."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self._keep = keep

    def _open(self) -> ocp.CheckpointManager:
        import orbax.checkpoint as ocp  # half as long to import as JAX

        here = jax.process_index()  # of several processes the one that writes; it waits for no other
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(here, active_processes={here}),
        )
        return ocp.CheckpointManager(self.directory.absolute(), options=options)

    def _restore(self, step: int) -> dict[str, Any]:
        import orbax.checkpoint as ocp

        with self._open() as manager:
            return manager.restore(step, args=ocp.args.StandardRestore())

    def sums_file(self, step: int) -> Path:
        return self.directory / f"sha256-{step}.json"

    def save(self, step: int, tree: dict[str, Any]) -> str:
        """Writes a step, reads it back, and only then writes its sums; gives its content's digest."""
        import orbax.checkpoint as ocp

        path, content = self.directory / str(step), of_arrays(tree)
        with _writing(path):
            self.directory.mkdir(parents=True, exist_ok=True)
            for number in self._numbers():
                if number >= step:  # of a training that starts over
                    self._drop(number)
            with stopping.put_off(), self._open() as manager:
                manager.save(step, args=ocp.args.StandardSave(tree), force=True)
        with _reading(path):
            back = of_arrays(self._restore(step))
        if back != content:
            raise UserError(
                f"the checkpoint {path} was written, but what is read back is not what was saved. Check the "
                "disk, or give another --workdir."
            )
        with _writing(path):
            files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*"))}
            sums = {name: _sum(file) for name, file in files.items() if file.is_file()}
            text = json.dumps({"content": content, "files": sums}, indent=1)
            write_atomically(self.sums_file(step), text.encode())
            for number in self._numbers():
                if not (self.directory / str(number)).exists():  # Orbax keeps the latest
                    self._drop(number)
        return content

    def _drop(self, step: int) -> None:
        self.sums_file(step).unlink(missing_ok=True)
        shutil.rmtree(self.directory / str(step), ignore_errors=True)

    def _numbers(self) -> list[int]:
        """Of all steps that have files, sums or both; ascending."""
        paths = self.directory.iterdir() if self.directory.is_dir() else ()
        numbers = {path.name.removeprefix("sha256-").removesuffix(".json") for path in paths}
        return sorted(int(number) for number in numbers if number.isdecimal())

    def read(self, step: int) -> tuple[dict[str, Any], str]:
        """A step and its content's digest.

        Raises:
          _DamagedError: it is not what was saved.
          UserError: it cannot be read.
        """
        path, sums = self.directory / str(step), self.sums_file(step)
        with _reading(path):
            try:
                listed = json.loads(sums.read_text())
                content, files = str(listed["content"]), dict(listed["files"])
            except (ValueError, TypeError, KeyError):
                raise _DamagedError(f"{sums.name} is not a list of sums") from None
            for name, expected in files.items():
                try:
                    same = _sum(path / name) == expected
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    raise _DamagedError(f"{name} is missing") from None
                if not same:
                    raise _DamagedError(f"{name} is not what was saved")
            if not files:
                raise _DamagedError(f"{sums.name} lists no files")
            tree = self._restore(step)
            if of_arrays(tree) != content:
                raise _DamagedError("its arrays are not what was saved")
        return tree, content

    def latest(self) -> tuple[int, dict[str, Any], str] | None:
        """Number, content and digest of the last whole step; damaged steps on the way are moved aside."""
        with _reading(self.directory):
            finished = [(step, self.sums_file(step).exists()) for step in reversed(self._numbers())]
        for step, has_sums in finished:
            if not has_sums:  # the process ended between the save and its sums
                self._drop(step)
                continue
            try:
                return step, *self.read(step)
            except _DamagedError as error:
                self._move_aside(step, error)
        return None

    def _move_aside(self, step: int, error: _DamagedError) -> None:
        path = self.directory / str(step)
        aside = damaged_name(self.directory.parent, f"{self.directory.name}-{step}")
        with _writing(aside):
            aside.mkdir()
            for part in (path, self.sums_file(step)):
                if part.exists():
                    part.rename(aside / part.name)
        logging.warning("checkpoint %s is damaged (%s); it is not used, and kept as %s", path, error, aside)


def _sum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever cannot be read is an error that the user is told; it is not damage."""
    try:
        yield
    except (UserError, _DamagedError):
        raise
    except Exception as error:
        named = error.filename if isinstance(error, OSError) and error.filename else path
        raise unreadable(named, error, path) from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        # Tensorstore says by a ValueError that the disk is full.
        if isinstance(error, ValueError) and "writing" not in str(error):
            raise
        raise unwritable(path, error) from error


def _finished(directory: Path) -> list[Path]:
    """The directories of a stage that have a result, one for each key; the latest last."""
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    sums = [
        _Steps(path / "result", 1).sums_file(_RESULT)
        for path in (directory, *paths)
        if not path.name.startswith("damaged-") and path.is_dir()
    ]
    dated = [(file.stat().st_mtime_ns, file.parent.parent) for file in sums if file.exists()]
    return [path for _, path in sorted(dated)]


class Stage:
    """The saved state and result of one stage that runs with one key."""

    def __init__(self, directory: Path, key: StageKey, *, seconds: float) -> None:
        """Opens a stage; nothing is created before the first save.

        Args:
          directory: of this stage alone, whatever its key.
          key: what the result is made from.
          seconds: least time between two saves of the state.
        """
        self._directory = directory
        self._key = key
        self._path = directory / key.digest[:12]
        self._seconds = seconds
        self._states = _Steps(self._path / "state", KEPT_STATES)
        self._result = _Steps(self._path / "result", 1)
        self._last_save = time.monotonic()
        self._last_step: int | None = None
        self._digest: str | None = None
        self._damaged = False

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved whole with this key, or None.

        Raises:
          UserError: it cannot be read.
        """
        found = self._states.latest()
        if found is None:
            return None
        self._last_step = found[0]
        print(f"resuming from {self.last_good}", file=sys.stderr)
        return found[1]

    def is_due(self) -> bool:
        """Whether the last save is ``seconds`` ago."""
        return time.monotonic() - self._last_save >= self._seconds

    def save(self, tree: dict[str, Any], step: int) -> None:
        """Saves the state.

        Args:
          tree: nested dicts of numpy arrays.
          step: a number that grows.

        Raises:
          UserError: it cannot be written, or what is read back differs.
        """
        self._write_key()
        self._states.save(step, tree)
        self._last_step = step
        self._last_save = time.monotonic()

    @property
    def last_good(self) -> str:
        """The last whole state, for messages."""
        return "none yet" if self._last_step is None else str(self._states.directory / str(self._last_step))

    def result(self) -> dict[str, Any] | None:
        """What the stage ended in with this key; None if it did not end, or its result is damaged.

        Raises:
          UserError: it cannot be read.
        """
        with _reading(self._path):
            started = self._result.sums_file(_RESULT).exists()
        found = self._result.latest()
        if found is None:
            self._damaged = started
            return None
        self._digest = found[2]
        return found[1]

    def accept(self, free: Collection[str]) -> dict[str, Any] | None:
        """The latest whole result that differs in no part of its key but `free`, which then is this stage's.

        To be asked after `result` gave None.

        Raises:
          UserError: it cannot be read.
        """
        for path in reversed([path for path in _finished(self._directory) if path != self._path]):
            try:
                changes = self._key.changes(json.loads((path / KEY_FILE).read_text()))
            except (OSError, ValueError, AttributeError):
                continue  # a damaged key.json
            if set(changes) <= set(free):
                result = _Steps(path / "result", 1)
                with _reading(path):
                    found = result.latest()
                if found is not None:
                    self._path, self._result, self._digest = path, result, found[2]
                    return found[1]
        return None

    @property
    def digest(self) -> str:
        """Of the result's content, for the keys of later stages; known after `result` or `finish`."""
        if self._digest is None:
            raise RuntimeError(f"{self._directory} has no result yet")
        return self._digest

    def why(self) -> str:
        """Why no earlier result is used, such as ``"its config changed since"``; ``""`` if there is none.

        To be asked after `result`.
        """
        if self._digest is not None:
            return ""
        if self._damaged:
            return "it is damaged"
        with contextlib.suppress(OSError, ValueError, AttributeError):  # of a damaged key.json
            others = [path for path in _finished(self._directory) if path != self._path]
            if others:
                return in_words(self._key.changes(json.loads((others[-1] / KEY_FILE).read_text())))
        return ""

    def finish(self, tree: dict[str, Any]) -> None:
        """Saves the result, then drops the states that led to it.

        Raises:
          UserError: it cannot be written, or what is read back differs.
        """
        self._write_key()
        self._digest = self._result.save(_RESULT, tree)
        shutil.rmtree(self._states.directory, ignore_errors=True)

    def _write_key(self) -> None:
        with _writing(self._path / KEY_FILE):
            self._path.mkdir(parents=True, exist_ok=True)
            parts = json.dumps(dict(self._key.parts), indent=1, sort_keys=True)
            write_atomically(self._path / KEY_FILE, parts.encode())


def has_result(directory: Path) -> bool:
    """Whether there is something to read for `read_result`; it may be damaged.

    Raises:
      UserError: the directory cannot be read.
    """
    with _reading(directory):
        return bool(_finished(directory))


def read_result(directory: Path) -> dict[str, Any]:
    """The result in a stage's directory, for readers beside the run; nothing is written, moved or deleted.

    Args:
      directory: of the stage, whose latest result is read; or the one in it of one key.

    Raises:
      UserError: there is none, or it is damaged or cannot be read.
    """
    with _reading(directory):
        paths = _finished(directory)
    if not paths:
        raise UserError(
            f"{directory} has no result; expected a stage that has finished. Let the run finish it."
        )
    try:
        return _Steps(paths[-1] / "result", 1).read(_RESULT)[0]
    except _DamagedError as error:
        raise UserError(
            f"{paths[-1]} is damaged ({error}). Give the run's command again: what is damaged is made again."
        ) from error
