"""The training curves of a finished run, for other programs: as CSV, or for TensorBoard by tensorboardX.

``python -m kernelgan.curves runs/black_cat --csv=curves``
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kernelgan.files import given_path, write_atomically
from kernelgan.results import Run, read_results
from kernelgan.stopping import outlast_readers
from kernelgan.types import UserError

COLUMNS = ("pair", "training", "metric", "network", "step", "value")


def curves(run: Run) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Each curve: its pair, training (``zoo_attribute``, a family), metric, and values ``(M, S)``."""
    for pair in run.pairs:
        for name, values in sorted(run.arrays_under(pair, "history").items()):
            training, _, metric = name.partition("/")
            yield pair.key, training, metric, np.atleast_2d(values)


def write_csv(run: Run, file: Path) -> int:
    """Writes a line for each value, of `COLUMNS`, steps counted from 1; gives the number of lines."""
    text, count = io.StringIO(), 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for pair, training, metric, values in curves(run):
        for (network, step), value in np.ndenumerate(values):
            writer.writerow([pair, training, metric, network, step + 1, f"{value:.6g}"])
            count += 1
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.getvalue().encode())
    return count


def write_tensorboard(run: Run, folder: Path) -> int:
    """Writes TensorBoard's files: of a zoo the median network; gives the number of values.

    Raises:
      UserError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs tensorboardX, which is not installed. Run pip install tensorboardX, "
            "or use --csv."
        ) from error
    count = 0
    with SummaryWriter(str(folder)) as writer:
        for pair, training, metric, values in curves(run):
            for step, value in enumerate(np.median(values, axis=0), start=1):
                writer.add_scalar(f"{pair}/{training}/{metric}", float(value), step)
                count += 1
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kernelgan.curves", description="Training curves of a run."
    )
    parser.add_argument("run", metavar="RUN", help="a work directory, such as runs/black_cat")
    parser.add_argument("--csv", metavar="FILE", help="a file to write, a line for each value")
    parser.add_argument("--tensorboard", metavar="DIR", help="a directory for TensorBoard's event files")
    given = parser.parse_args(argv)
    try:
        if not (given.csv or given.tensorboard):
            raise UserError("neither --csv nor --tensorboard is given; expected where to write.")
        run = read_results(given_path(given.run, "RUN"))
        if given.csv:
            path = given_path(given.csv, "--csv")
            print(f"{path}: {write_csv(run, path):,} values")
        if given.tensorboard:
            path = given_path(given.tensorboard, "--tensorboard")
            print(f"{path}: {write_tensorboard(run, path):,} values")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
