"""The directory of one run: whose it is, the config it last had, its timings and its plan."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from absl import logging

from kernelgan import config as config_lib
from kernelgan import distributed
from kernelgan.files import write_atomically
from kernelgan.progress import Progress, named
from kernelgan.types import Config, UserError

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
TIMINGS_FILE = "timings.json"
NETWORKS_FILE = "networks.json"
PLAN_FILE = "plan.json"
RECIPE_FILE = "recipe.sha256"
"""Of a finished run: digests of what it was made from, so that it is shown without loading the images."""
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation"

_FIELDS = {"name", "seed", "device", "checkpoint"}
"""Top-level fields of every config here: a `config.json` without them belongs to another program."""


@contextlib.contextmanager
def claimed(workdir: Path, config: Config) -> Iterator[None]:
    """Keeps the config in a work directory and, while the context lasts, keeps other runs out.

    Another config than before is no obstacle: each stage's key decides what is made again. The fields that
    changed are named on stderr.

    Raises:
      UserError: it cannot be written, holds something else or is at work.
    """
    ours = config_lib.to_json(config)
    if set("*?[") & set(str(workdir.absolute())):
        raise UserError(
            f"--workdir={workdir}: the path {workdir.absolute()} has *, ? or [ in it, and checkpoints under "
            "such a path are lost (Orbax takes it for a pattern). Give another --workdir."
        )
    try:
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir={workdir} is a file; expected a directory, or a name that is free.")
        theirs = _last_config(workdir)
        made = [path for path in (workdir, *workdir.parents) if not path.exists()]
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK_FILE).open("w")
    except OSError as error:
        raise _unwritable(workdir, error) from error
    with lock:
        _lock(lock, workdir)
        changed = config_lib.differences(ours, theirs) if theirs else []
        if changed:
            print(
                "\n  ".join([f"{workdir}: the config changed since the last command:", *changed]),
                file=sys.stderr,
            )
        if ours != theirs:
            try:
                write_atomically(workdir / CONFIG_FILE, json.dumps(ours, indent=1).encode())
            except OSError as error:
                raise _unwritable(workdir, error) from error
        try:
            yield
        except UserError:
            if made:
                _clear_failed_start(made)
            raise


def _clear_failed_start(made: list[Path]) -> None:
    """Removes directories that this process made, the work directory first, where nothing was finished."""
    workdir = made[0]
    if {path.name for path in workdir.iterdir()} <= {CONFIG_FILE, LOCK_FILE, TIMINGS_FILE}:
        for path in workdir.iterdir():
            path.unlink()
        for folder in made:
            with contextlib.suppress(OSError):  # others are at work there
                folder.rmdir()


def _unwritable(workdir: Path, error: OSError) -> UserError:
    report = workdir / "report.html"
    left = f" The report of an earlier command is {report}." if report.is_file() else ""
    return UserError(
        f"--workdir={workdir} cannot be written ({error.strerror}); expected a directory that can be. "
        f"Give another --workdir.{left}"
    )


def _last_config(workdir: Path) -> dict[str, Any] | None:
    """The config of the last command; None in a new directory, or where it is damaged.

    Raises:
      UserError: the directory is not a run's.
      OSError: it cannot be read.
    """
    if not workdir.is_dir():
        return None
    foreign = UserError(
        f"--workdir={workdir} holds files that are not of a kernelgan run; expected an empty or new "
        "directory. Give another --workdir."
    )
    file = workdir / CONFIG_FILE
    if not file.exists():
        left = (LOCK_FILE, f".{CONFIG_FILE}.")  # by a run that died before its config was whole
        if not all(path.name.startswith(left) for path in workdir.iterdir()):
            raise foreign
        return None
    try:
        theirs = json.loads(file.read_text())
    except ValueError:
        theirs = None
    if isinstance(theirs, dict) and theirs.keys() >= _FIELDS:
        return theirs
    if not (workdir / LOCK_FILE).exists():
        raise foreign
    logging.warning("%s is damaged; it is written anew", file)
    return None


def _lock(lock: IO[str], workdir: Path) -> None:
    """Holds the lock until the file is closed.

    Raises:
      UserError: another process holds it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise UserError(
                f"another run is at work in {workdir}; wait for it, or give another --workdir."
            ) from None
        logging.warning(
            "the file system of %s has no locks (%s); start only one run in it at a time",
            *(workdir, error.strerror),
        )


def check_disk(workdir: Path, needed: int) -> None:
    """Refuses to start what cannot be kept.

    Args:
      workdir: of the run.
      needed: bytes.

    Raises:
      UserError: less is free.
    """
    kept = 0
    for stage in (workdir / CHECKPOINTS).glob("*"):
        kept += max(map(_size, stage.glob("*")), default=0)  # of results of several keys one at most counts
    needed -= min(kept, needed)
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise UserError(
            f"the checkpoints of this run need about {needed / 2**20:.0f} MiB and the disk of {workdir} has "
            f"{free / 2**20:.0f} MiB free. Free some, or give another --workdir."
        )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def write_plan(workdir: Path, plan: dict[str, Any]) -> None:
    """Keeps which concept each zoo is of, and which networks are of which pair.

    Args:
      workdir: of the run.
      plan: ``{"layers": [name, ...], "zoos": [{"kind", "concept", "excluded": [name, ...], "checkpoint":
        [stage, key], "half_width": [stage, key]}, ...], "pairs": [{"attribute", "object", "attribute_zoo":
        number, "object_zoo": number, "has_reference"}, ...]}``.
    """
    write_atomically(workdir / PLAN_FILE, json.dumps(plan, indent=1).encode())


def read_plan(workdir: Path) -> dict[str, Any]:
    """What `write_plan` kept.

    Raises:
      UserError: it is not there, or damaged.
    """
    file = workdir / PLAN_FILE
    try:
        plan = json.loads(file.read_text())
        if not isinstance(plan, dict) or not {"layers", "zoos", "pairs"} <= set(plan):
            raise ValueError
        return plan
    except FileNotFoundError:
        raise UserError(
            f"{workdir} has no {PLAN_FILE}; expected the work directory of a run that has begun to train. "
            "Give another, or give the run's command again."
        ) from None
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}). Mend its permissions or the disk, and try again."
        ) from error
    except ValueError as error:
        raise UserError(f"{file} is damaged; give the run's command again, it is written anew.") from error


def write_networks(workdir: Path, digests: dict[str, dict[str, str]]) -> None:
    """Keeps the digests of generated networks, by pair and row, before they are measured."""
    write_atomically(workdir / NETWORKS_FILE, json.dumps(digests, indent=1).encode())


def read_networks(workdir: Path) -> dict[str, dict[str, str]]:
    """See `write_networks`; empty where the file is missing or damaged."""
    try:
        return json.loads((workdir / NETWORKS_FILE).read_text())
    except (OSError, ValueError):
        return {}


def timings(workdir: Path) -> dict[str, float]:
    """Seconds that each stage has taken, over all attempts; empty where they are damaged."""
    try:
        return json.loads((workdir / TIMINGS_FILE).read_text())
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def staged(workdir: Path, name: str, stage: str = "") -> Iterator[Progress]:
    """Shows and times a stage of a run; the seconds of all attempts add up, and process 0 keeps them.

    Args:
      workdir: of the run.
      name: of the stage, or of a part of it.
      stage: what its seconds are kept under; "": its name.
    """
    progress = Progress(named(name, stage))
    progress.begin()
    try:
        yield progress
    except BaseException:
        seconds = progress.close("stopped")
        if distributed.is_first():  # the other processes may be elsewhere
            with contextlib.suppress(OSError):
                _add_timing(workdir, stage or name, seconds)
        raise
    seconds = progress.close("done")
    distributed.first(lambda: _add_timing(workdir, stage or name, seconds))


def _add_timing(workdir: Path, stage: str, seconds: float) -> None:
    found = timings(workdir)
    found[stage] = found.get(stage, 0.0) + seconds
    write_atomically(workdir / TIMINGS_FILE, json.dumps(found).encode())
