"""Can a network generate networks from weights? `python -m studies.hypernetwork --run=DIR`.

See docs/learned.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelgan.stopping import outlast_readers
from studies import command


def table(rows: dict[str, Any], cells: dict[str, str]) -> str:
    """The figures of `study.evaluate`, as Markdown."""
    pairs = list(rows["and_ensemble"])
    lines = [
        f"| generator | {' | '.join(pairs)} | of the way | correlation |",
        "| --- " * (len(pairs) + 3) + "|",
    ]
    worst = {row: [float(np.mean(given[pair]["worst"])) for pair in pairs] for row, given in rows.items()}
    for row, given in rows.items():
        way = (np.mean(worst[row]) - 0.5) / (np.mean(worst["and_ensemble"]) - 0.5)
        cells_of_row = [cells.get(row, row), *(f"{value:.3f}" for value in worst[row]), f"{way:.2f}"]
        of_all = [np.mean(given[pair]["correlation"]) for pair in pairs if "correlation" in given[pair]]
        lines.append(f"| {' | '.join([*cells_of_row, f'{np.mean(of_all):.3f}' if of_all else ''])} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.hypernetwork", description=__doc__)
    parser.add_argument("--run", required=True, help="a run of configs/pair_matrix.py:photos")
    parser.add_argument("--block", default="black:cat", help="pairs held out, not sealed (%(default)s)")
    parser.add_argument("--cells", default="", help="some of parents, pair, object, attribute, both; all")
    parser.add_argument("--steps", type=int, default=1500, help="of training, a multiple of 25 (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each cell (%(default)s)")
    parser.add_argument("--out", default="runs/hypernetwork.json", help="results (%(default)s)")
    given = parser.parse_args(argv)
    return command.status(lambda: _work(given), "what was trained is kept, and the same command continues")


def _work(given: argparse.Namespace) -> None:
    from kernelgan import environment, keys  # here, so that --help need not wait for JAX
    from kernelgan.checkpoint import Stage
    from kernelgan.types import UserError

    if given.steps < 25 or given.steps % 25 or given.seeds < 1:
        raise UserError(
            f"--steps={given.steps} --seeds={given.seeds}; expected steps that are a multiple of 25, and a "
            "seed or more."
        )
    run, out = command.places(given.run, given.out)
    held_out = [
        (pair.partition(":")[0].strip(), pair.partition(":")[2].strip()) for pair in given.block.split(",")
    ]
    environment.configure("auto")
    from studies import finished
    from studies.hypernetwork import model, study

    cells = [cell.strip() for cell in given.cells.split(",") if cell.strip()] or list(study.CELLS)
    for cell in cells:
        if cell not in study.CELLS:
            raise UserError(f"--cells: there is no {cell}; expected some of {', '.join(study.CELLS)}.")
    settings, plan = finished.read_run(run)
    environment.select_device(settings.device)
    size, training = model.Size(), study.Training(steps=given.steps)
    block = study.load(run, settings, plan, held_out, training)
    key = keys.StageKey(
        {
            "zoos": keys.of_arrays(block.zoos),
            "settings": keys.of_values([size, training, cells, given.seeds, held_out]),
            "code": keys.of_source("studies.hypernetwork", "kernelgan.models", "kernelgan.refit"),
        }
    )
    saver = Stage(out.with_name(f"{out.stem}_state"), key, seconds=20.0)
    trained, losses = study.train(block, cells, given.seeds, size, training, saver)
    rows = study.evaluate(block, trained, cells, given.seeds, size, training)
    settings_of = {"block": given.block, "cells": cells, "steps": given.steps, "seeds": given.seeds}
    command.write(out, {"run": run.name, **settings_of, "losses": losses.round(4).tolist(), "rows": rows})
    print(f"{table(rows, study.CELLS)}\n{out}")


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
