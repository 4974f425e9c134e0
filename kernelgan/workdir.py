"""The directory of one run: whose it is, what it was started with, and where each stage keeps its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernelgan import config as config_lib
from kernelgan.files import write_atomically
from kernelgan.progress import Progress
from kernelgan.results import RESULTS_FILE
from kernelgan.types import Config, UserError

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
IMAGES_FILE = "images.sha256"
TIMINGS_FILE = "timings.json"
PLAN_FILE = "plan.json"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation"

_EVERYTHING = (CHECKPOINTS, EVALUATION, IMAGES_FILE, RESULTS_FILE)
_MEASURED = (EVALUATION, RESULTS_FILE)
_TRANSLATED = ("checkpoints/cyclegan", "checkpoints/generate", *_MEASURED)
_AFFECTED = {
    "cyclegan.": _TRANSLATED,
    "kernels.": _TRANSLATED,
    "assemble.": ("checkpoints/generate", *_MEASURED),
    "opponents.": (
        *("checkpoints/distilled", "checkpoints/half_width*"),
        *("checkpoints/trained_on_conjunction", *_MEASURED),
    ),
    "evaluate.": _MEASURED,
}
"""What must not be there yet for a field of this section to be changed; for other fields: anything.

They are patterns, for a stage may be in parts, such as ``half_width-0``.
"""


def _is_ours(name: str) -> bool:
    """Whether a run that died before its config was whole left this."""
    return name == LOCK_FILE or (name.startswith(f".{CONFIG_FILE}.") and name.endswith(".tmp"))


@contextlib.contextmanager
def claimed(workdir: Path, config: Config) -> Iterator[None]:
    """Makes a work directory this config's and, while the context lasts, this process's.

    Raises:
      UserError: it cannot be written, holds something else, is of another config or is at work.
    """
    ours = config_lib.to_json(config)
    file = workdir / CONFIG_FILE
    try:
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir={workdir} is a file; expected a directory, or a name that is free.")
        if workdir.is_dir() and not file.exists() and any(not _is_ours(p.name) for p in workdir.iterdir()):
            raise UserError(
                f"--workdir={workdir} holds files that are not of a kernelgan run; expected an empty or new "
                "directory. Give another --workdir."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({error.strerror}); expected a directory that can be. "
            "Give another --workdir."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another run is at work in {workdir}; wait for it, or give another --workdir."
            ) from None
        changed: list[str] = []
        if file.exists():
            try:
                theirs = json.loads(file.read_text())
                if not isinstance(theirs, dict):
                    raise ValueError
            except ValueError:
                raise UserError(f"{file} is damaged; give another --workdir, or delete {workdir}.") from None
            changed = config_lib.differences(ours, theirs)
            built = _built_on(changed, workdir)
            if built:
                raise UserError(
                    f"{workdir} was made with another config:\n  "
                    + "\n  ".join(changed)
                    + f"\nGive another --workdir, or the old values; or delete {', '.join(built)} in it."
                )
        if not file.exists() or changed:
            write_atomically(file, json.dumps(ours, indent=1).encode())
        yield


def _built_on(changed: list[str], workdir: Path) -> list[str]:
    """What is in a work directory that was made with the old values of the changed fields."""
    sections = [field.partition(":")[0].partition(".")[0] + "." for field in changed]
    patterns = [pattern for section in sections for pattern in _AFFECTED.get(section, _EVERYTHING)]
    found = [path for pattern in patterns for path in sorted(workdir.glob(pattern))]
    return list(dict.fromkeys(path.relative_to(workdir).as_posix() for path in found))


def check_images(workdir: Path, digest: str) -> None:
    """Refuses to resume on other images than the run was started with.

    Raises:
      UserError: they differ.
    """
    file = workdir / IMAGES_FILE
    if file.exists() and file.read_text().strip() != digest:
        raise UserError(
            f"the data are not those that {workdir} was started with. Bring the old ones back, or give "
            "another --workdir."
        )
    write_atomically(file, f"{digest}\n".encode())


def check_disk(workdir: Path, needed: int) -> None:
    """Refuses to start what cannot be kept.

    Args:
      workdir: of the run.
      needed: bytes.

    Raises:
      UserError: less is free.
    """
    kept = sum(file.stat().st_size for file in (workdir / CHECKPOINTS).rglob("*") if file.is_file())
    needed -= min(kept, needed)
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise UserError(
            f"the checkpoints of this run need about {needed / 2**20:.0f} MiB and the disk of {workdir} has "
            f"{free / 2**20:.0f} MiB free. Free some, or give another --workdir."
        )


def write_plan(workdir: Path, plan: dict[str, Any]) -> None:
    """Keeps which concept each zoo is of, and which networks are of which pair.

    Args:
      workdir: of the run.
      plan: ``{"layers": [name, ...], "zoos": [{"kind", "concept", "excluded": [name, ...], "checkpoint":
        [stage, key]}, ...], "pairs": [{"attribute", "object", "attribute_zoo": number, "object_zoo": number,
        "has_ceiling"}, ...]}``.
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
            f"{workdir} has no {PLAN_FILE}; expected the work directory of a run that has begun to train "
            "(one that repeats the reference trains nothing). Give another; or, of a run of an earlier "
            f"version, delete {RESULTS_FILE} and give its command again: nothing is trained again."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged; give the run's command again, it is written anew.") from error


def timings(workdir: Path) -> dict[str, float]:
    """Seconds that each stage has taken, over all attempts."""
    try:
        return json.loads((workdir / TIMINGS_FILE).read_text())
    except (OSError, ValueError):
        return {}


def add_timing(workdir: Path, stage: str, seconds: float) -> None:
    """Adds to the seconds of a stage."""
    found = timings(workdir)
    found[stage] = found.get(stage, 0.0) + seconds
    write_atomically(workdir / TIMINGS_FILE, json.dumps(found).encode())


@contextlib.contextmanager
def staged(workdir: Path, name: str, stage: str = "") -> Iterator[Progress]:
    """Shows and times a stage of a run; the seconds of all attempts add up.

    Args:
      workdir: of the run.
      name: as it is shown.
      stage: what its seconds are kept under; "": its name.
    """
    progress = Progress(name)
    outcome = "stopped"
    try:
        yield progress
        outcome = "done"
    finally:
        seconds = progress.close(outcome)
        add_timing(workdir, stage or name, seconds)
