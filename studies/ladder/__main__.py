"""What must the images show that a generator looks at? `python -m studies.ladder --run=DIR`.

See docs/generators.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernelgan.stopping import outlast_readers
from studies import command

OTHERS = {"and_ensemble": "both parents run (and_ensemble)"}


def table(rows: dict[str, Any]) -> str:
    """The figures of `study.evaluate`, as Markdown."""
    from studies import finished
    from studies.ladder import study

    words = finished.by_drawn_concepts(rows["noise"])
    nothing, everything, both = (study.by_pair(rows, row) for row in ("noise", "seen", "and_ensemble"))
    lines = [
        "| images | AUROC | minus noise | minus the pair's own | correlation | null |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row, rung in study.RUNGS.items():
        own = study.by_pair(rows, row)
        cells = [rung.label, words(own, ".3f")]
        for base, other in (("noise", nothing), ("seen", everything)):
            cells.append("" if row == base else words(own - other, "+.3f"))
        cells.append(f"{study.by_pair(rows, row, 'correlation').mean():.3f}")
        cells.append(f"{study.by_pair(rows, f'{row}_{study.NULL}').mean():.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(
        f"| {OTHERS['and_ensemble']} | {words(both, '.3f')} | {words(both - nothing, '+.3f')} | | | |"
    )
    return "\n".join(lines)


def draw(rows: dict[str, Any], file: Path) -> None:
    """The figure: a dot for each pair, a bar at each rung's mean."""
    from studies import dots
    from studies.ladder import study

    labels = {row: rung.label for row, rung in study.RUNGS.items()}
    labels |= {f"seen_{study.NULL}": "random kernels, heads refitted on these", **OTHERS}
    values = {row: study.by_pair(rows, row) for row in labels}
    colours = dict.fromkeys(study.RUNGS, "tab:blue")
    dots.draw(values, labels, file, colours=colours, lines=("noise", "and_ensemble"), rule=len(study.RUNGS))


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.ladder", description=__doc__)
    parser.add_argument("--run", required=True, help="a run of configs/pair_matrix.py:photos")
    parser.add_argument("--models", type=int, default=4, help="networks of each pair (%(default)s)")
    parser.add_argument("--images", type=int, default=1536, help="that are looked at (%(default)s)")
    parser.add_argument("--out", default="runs/ladder.json", help="results; the figure beside (%(default)s)")
    given = parser.parse_args(argv)
    return command.status(lambda: _work(given))


def _work(given: argparse.Namespace) -> None:
    from kernelgan import environment  # here, so that --help need not wait for JAX
    from kernelgan.types import UserError

    if given.models < 1 or given.images < 2:
        raise UserError(
            f"--models={given.models} --images={given.images}; expected a network or more, and two images or "
            "more."
        )
    run, out = command.places(given.run, given.out)
    environment.configure("auto")
    from studies import finished
    from studies.ladder import study

    settings, plan = finished.read_run(run)
    environment.select_device(settings.device)
    part, pairs = study.load(run, settings, plan, given.models)
    rows = study.evaluate(part, pairs, given.images)
    command.write(out, {"run": run.name, "models": given.models, "images": given.images, "rows": rows})
    draw(rows, out.with_suffix(".png"))
    print(f"{table(rows)}\n{out}")


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
