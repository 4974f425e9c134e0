"""Can a generator be learned by gradient? `python -m studies.learned`.

See docs/learned.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelgan.stopping import outlast_readers
from studies import command
from studies.learned import CELLS, DESIGNS


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
    parser = argparse.ArgumentParser(prog="python -m studies.learned", description=__doc__)
    known = "; ".join(f"{name}, {what}" for name, what in DESIGNS.items())
    parser.add_argument("--design", choices=DESIGNS, default="probes", help=f"{known} (%(default)s)")
    parser.add_argument("--block", default="black,white:airplane,dog", help="held out (%(default)s)")
    parser.add_argument("--concepts", type=int, default=96, help="of a side, to learn from (%(default)s)")
    parser.add_argument("--cells", default="", help=f"some of {', '.join(CELLS)}; all")
    parser.add_argument("--steps", type=int, default=1200, help="of training, a multiple of 25 (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each cell (%(default)s)")
    parser.add_argument("--out", default="", help="results (runs/learned_DESIGN.json)")
    given = parser.parse_args(argv)
    return command.status(lambda: _work(given), "what was trained is kept, and the same command continues")


def _work(given: argparse.Namespace) -> None:
    from kernelgan.types import UserError  # here, so that --help need not wait for JAX

    if given.steps < 25 or given.steps % 25 or given.seeds < 1 or given.concepts < 1:
        raise UserError(
            f"--steps={given.steps} --seeds={given.seeds} --concepts={given.concepts}; expected steps that "
            "are a multiple of 25, a seed or more, and a concept or more."
        )
    named = [cell.strip() for cell in given.cells.split(",") if cell.strip()]
    cells = list(dict.fromkeys(named)) or list(CELLS)
    for cell in cells:
        if cell not in CELLS:
            raise UserError(f"--cells: there is no {cell}; expected some of {', '.join(CELLS)}.")
    out = command.file(given.out or f"runs/learned_{given.design}.json")

    from configs import pair_matrix
    from kernelgan import config, environment, keys, models
    from kernelgan.checkpoint import Stage
    from kernelgan.stages import CODE

    environment.configure("auto")
    from studies.learned import study
    from studies.learned.design import of_name

    settings = config.parse(pair_matrix.get_config("photos"))
    environment.select_device(settings.device)
    part, held_out = study.read(settings, given.block)
    training = study.Training(steps=given.steps)
    block, digest = study.load(
        settings, part, held_out, given.concepts, training, out.with_name("learned_networks")
    )
    network = models.network_of(block.networks)
    design = of_name(given.design, network, training.probes)
    drawn = study.draws(block, cells, given.seeds)
    key = keys.StageKey(
        {
            "networks": digest,
            "images": keys.of_arrays({"train": part.source.train.images}),
            "draws": keys.of_arrays({"probes": block.probes, **drawn}),
            "settings": keys.of_values([design, training]),
            "arithmetic": models.arithmetic(network.form),
            "code": keys.of_source(
                "studies.learned.study", "studies.learned.loss", "kernelgan.refit", *design.code, *CODE["zoo"]
            ),
        }
    )
    stage = Stage(out.with_name(f"{out.stem}_state"), key, seconds=20.0)
    found = stage.result()
    if found is None:
        names = [f"{cell}, seed {seed}" for cell in cells for seed in range(given.seeds)]
        found = study.train(block, design, drawn, training, stage, names)
        stage.finish(found)
    rows = study.evaluate(block, design, found["weights"], cells, given.seeds)
    said = {name: getattr(given, name) for name in ("design", "block", "concepts", "steps", "seeds")}
    how = {name: getattr(design, name) for name in ("pairs", "rate")} | dataclasses.asdict(training)
    losses = {"losses": found["lost"].round(4).tolist()}
    command.write(out, {**said, **how, "cells": cells, **losses, "rows": rows})
    print(f"{table(rows, CELLS)}\n{out}")


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
