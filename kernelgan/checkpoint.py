"""What a stage leaves on disk: its state while it runs and its result; the only file that imports orbax.

Every saved step is followed by a list of its files' SHA-256 sums. A step without that list was not finished
and does not count; a step that no longer fits it is damaged, is named in a warning and does not count
either, so that the one before it, or the stage before it, is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from kernelgan.files import write_atomically
from kernelgan.types import UserError

KEPT_STATES = 2


class _Steps:
    """Numbered pytrees of numpy arrays in one directory, each with its list of sums."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory = directory
        self._keep = keep
        self._manager: ocp.CheckpointManager | None = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            here = jax.process_index()  # of several processes the one that writes; it waits for no other
            options = ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
                enable_async_checkpointing=False,
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(here, active_processes={here}),
            )
            self._manager = ocp.CheckpointManager(self.directory.absolute(), options=options)
        return self._manager

    def _sums_file(self, step: int) -> Path:
        return self.directory / f"sha256-{step}.json"

    def _sums(self, step: int) -> dict[str, str]:
        root = self.directory / str(step)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def save(self, step: int, tree: dict[str, Any]) -> None:
        manager = self._open()
        if step in manager.all_steps():
            manager.delete(step)
        try:
            manager.save(step, args=ocp.args.StandardSave(tree), force=True)
            manager.wait_until_finished()
            write_atomically(self._sums_file(step), json.dumps(self._sums(step)).encode())
        except (OSError, ValueError) as error:
            # Tensorstore says by a ValueError that the disk is full.
            if isinstance(error, ValueError) and "writing" not in str(error):
                raise
            raise UserError(
                f"could not write the checkpoint {self.directory / str(step)} ({_first_line(error)}). "
                "Make room on the disk; the same command then goes on where it was."
            ) from error
        for stale in self.directory.glob("sha256-*.json"):
            if not (self.directory / stale.stem.removeprefix("sha256-")).exists():
                stale.unlink()

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """The last whole step, dropping on the way every one that is not."""
        if not self.directory.is_dir():
            return None
        for step in sorted(self._open().all_steps(), reverse=True):
            sums = self._sums_file(step)
            if not sums.exists():  # the process ended between the save and its sums
                self._open().delete(step)
                continue
            try:
                if json.loads(sums.read_text()) != self._sums(step):
                    raise ValueError("its files are not those that were saved")
                return step, self._open().restore(step, args=ocp.args.StandardRestore())
            except Exception as error:  # whatever a broken file makes orbax raise
                logging.warning(
                    "checkpoint %s is damaged (%s); it is not used",
                    self.directory / str(step),
                    _first_line(error),
                )
                shutil.rmtree(self.directory / str(step), ignore_errors=True)
                sums.unlink()
                self.close()
        return None

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()
            self._manager = None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class StageCheckpoint:
    """The saved state and result of one stage.

    Attributes:
      directory: where they are kept.
    """

    def __init__(self, directory: Path, *, seconds: float) -> None:
        """Opens the stage's directory; nothing is created before the first save.

        Args:
          directory: of this stage alone.
          seconds: least time between two saves of the state.
        """
        self.directory = directory
        self._seconds = seconds
        self._states = _Steps(directory / "state", KEPT_STATES)
        self._result = _Steps(directory / "result", 1)
        self._last_save = time.monotonic()
        self._last_step: int | None = None

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved whole, or None."""
        found = self._states.latest()
        if found is None:
            return None
        self._last_step = found[0]
        print(f"resuming from {self.last_good}", file=sys.stderr)
        return found[1]

    def save(self, make_tree: Callable[[], dict[str, Any]], step: int) -> None:
        """Saves the state, if the last save is ``seconds`` ago.

        Args:
          make_tree: called only if it is time; nested dicts of numpy arrays.
          step: a number that grows.
        """
        if time.monotonic() - self._last_save < self._seconds:
            return
        self._states.save(step, make_tree())
        self._last_step = step
        self._last_save = time.monotonic()

    @property
    def last_good(self) -> str:
        """The last whole state, for messages."""
        if self._last_step is None:
            return "none yet"
        return str(self._states.directory / str(self._last_step))

    def result(self) -> dict[str, Any] | None:
        """What the stage ended in, or None if it has not, or that is damaged."""
        found = self._result.latest()
        return None if found is None else found[1]

    def finish(self, tree: dict[str, Any]) -> None:
        """Saves the result, then drops the states that led to it."""
        self._result.save(0, tree)
        self._states.remove()

    def close(self) -> None:
        """Waits for whatever is being written."""
        self._states.close()
        self._result.close()
