"""The registry of runs that opened sealed test images: a CSV file in which every attempt counts.

Of many attempts one is above chance by luck. So each run on sealed images adds a line for each family of
generators before it scores them, and p-values are multiplied by the attempts of the family. The same networks
evaluated again are the same attempt. `FIELDS` are the columns; the file is meant to be committed.
"""

from __future__ import annotations

import csv
import datetime
import fcntl
import io
from collections.abc import Mapping
from pathlib import Path

from kernelgan import environment
from kernelgan.files import write_atomically
from kernelgan.types import UserError

FIELDS = ("date", "commit", "clean", "run", "family", "networks", "figure")
"""Date (UTC), commit and state of the checkout, name of the run, family, digest of its networks, and the mean
figure of merit of its best row, "" until it is known."""


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a registry; none where there is no file.

    Raises:
      UserError: it cannot be read, or has other columns.
    """
    if not path.exists():
        return []
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"registry={path} cannot be read ({error}); expected a CSV file.") from error
    if any(set(line) != set(FIELDS) for line in lines):
        raise UserError(f"registry={path} has other columns; expected {', '.join(FIELDS)}.")
    return lines


def register(
    path: Path, run: str, networks: Mapping[str, str], figures: Mapping[str, float]
) -> dict[str, int]:
    """Adds a run's attempts, or the figures of attempts that are there, and counts those of each family.

    Args:
      path: of the registry; the file is made where there is none.
      run: its name.
      networks: by family, a digest of the networks that are scored.
      figures: by family, the figure of merit, where it is known.

    Returns:
      By family, how many different networks were scored, these included.

    Raises:
      UserError: the file cannot be read or written, or has other columns.
    """
    checkout = environment.checkout()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be at it
            lines = read(path)
            for family, digest in networks.items():
                same = [line for line in lines if (line["family"], line["networks"]) == (family, digest)]
                if not same:
                    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
                    state = {True: "yes", False: "no", None: ""}[checkout.clean]
                    values = (now, checkout.commit, state, run, family, digest, "")
                    same = [dict(zip(FIELDS, values, strict=True))]
                    lines += same
                if family in figures:
                    same[0]["figure"] = f"{figures[family]:.4f}"
            text = io.StringIO()
            writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
            write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise UserError(f"registry={path} cannot be written ({error.strerror}).") from error
    return {
        family: len({line["networks"] for line in lines if line["family"] == family}) for family in networks
    }
