"""Which ingredient do CycleGANs in kernel space miss? `python -m studies.repaired_cyclegan --run=DIR`.

See docs/repaired_cyclegan.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernelgan.stopping import outlast_readers
from studies import command

PAIRS = "black:cat,white:airplane,red:automobile,green:frog"

STEPS = {
    "as_it_is": "CycleGAN as it is",
    "heads": "+ heads refitted",
    "biases": "+ the parent's biases",
    "canonical": "+ canonical order and scale",
    "joint": "+ all layers jointly",
    "function": "+ function loss",
    "alone": "function loss alone, no CycleGAN",
}
"""Rows of which each has what the one before has, but for the last."""

OTHERS = {
    "function_placebo": "+ function loss, fed random kernels",
    "alone_placebo": "function loss alone, fed random kernels",
    "random_refit": "random kernels, heads refitted",
    "attribute_refit": "attribute's own kernels, heads refitted",
    "object_refit": "object's own kernels, heads refitted",
    "reduce": "reduce",
    "and_ensemble": "both parents run (and_ensemble)",
}

ROWS = {**STEPS, **OTHERS}


def table(rows: dict[str, Any], new: int) -> str:
    """The figures of `study.evaluate` in words."""
    from studies import finished
    from studies.repaired_cyclegan import study

    lines = [
        "Worst-quadrant AUROC on test images, parents new to the translators: mean, 95% interval over pairs,",
        "gain over the row before; parents learned from; correlation with both parents' logits (new parents)",
    ]
    before = None
    for row, label in ROWS.items():
        values = study.by_pair(rows, row, new)
        mean, low, high = finished.interval(values)
        cells = [f"{label:42s}{mean:6.3f} [{low:.3f}, {high:.3f}]"]
        gain = ""
        if row in STEPS and before is not None:
            gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*finished.interval(values - before))
        before = values
        cells.append(f"{gain:26s}{study.by_pair(rows, row, new, fresh=False).mean():6.3f}")
        if row != "and_ensemble":
            cells.append(f"{study.by_pair(rows, row, new, 'correlation').mean():6.3f}")
        lines.append("   ".join(cells))
    return "\n".join(lines)


def draw(rows: dict[str, Any], new: int, file: Path) -> None:
    """The figure: a dot for each pair, a bar at each row's mean."""
    from studies import dots
    from studies.repaired_cyclegan import study

    values = {row: study.by_pair(rows, row, new) for row in ROWS}
    colours = dict.fromkeys(STEPS, "tab:red") | {"alone": "tab:orange"}
    dots.draw(values, ROWS, file, colours=colours, lines=("random_refit", "reduce"), rule=len(STEPS))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.repaired_cyclegan", description=__doc__)
    parser.add_argument("--run", required=True, help="a run of configs/pair_matrix.py:photos")
    parser.add_argument("--pairs", default=PAIRS, help="attribute:object, none of them sealed (%(default)s)")
    parser.add_argument("--new", type=int, default=4, help="networks of a zoo not learned from (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of training, a multiple of 25 (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each pair (%(default)s)")
    parser.add_argument(
        "--out", default="runs/repaired_cyclegan.json", help="results; the figure beside (%(default)s)"
    )
    given = parser.parse_args(argv)
    return command.status(lambda: _work(given))


def _work(given: argparse.Namespace) -> None:
    from kernelgan import environment  # here, so that --help need not wait for JAX
    from kernelgan.types import UserError

    if given.steps < 25 or given.steps % 25 or given.seeds < 1 or given.new < 1:
        raise UserError(
            f"--steps={given.steps} --seeds={given.seeds} --new={given.new}; expected steps that are a "
            "multiple of 25, a seed or more and a new network or more."
        )
    pairs = [tuple(name.strip() for name in pair.split(":")) for pair in given.pairs.split(",")]
    run, out = command.places(given.run, given.out)
    environment.configure("auto")
    from studies import finished
    from studies.repaired_cyclegan import study
    from studies.repaired_cyclegan.translators import Training

    settings, plan = finished.read_run(run)
    environment.select_device(settings.device)
    loaded = study.load(run, settings, plan, pairs, given.new)
    training = Training(steps=given.steps)
    trained, losses = {}, {}
    for name, what in study.TRAINED.items():
        trained[name], history = study.train(loaded, what, training, given.new, given.seeds, name)
        losses[name] = {term: values.mean(axis=0).round(4).tolist() for term, values in history.items()}
    rows = study.evaluate(loaded, trained, training, given.new, given.seeds)
    command.write(out, {**vars(given), "losses": losses, "rows": rows})
    draw(rows, given.new, out.with_suffix(".png"))
    print(f"{table(rows, given.new)}\n{out}")


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
