"""What does each part of `reduce` buy? `python -m studies.parts --run=DIR`.

See docs/generators.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from kernelgan.stopping import outlast_readers
from studies import command


def table(rows: dict[str, Any]) -> str:
    """The figures of `study.evaluate`, as Markdown."""
    from studies import finished
    from studies.ladder.study import by_pair
    from studies.parts import study

    words = finished.by_drawn_concepts(rows["and_ensemble"])
    both = by_pair(rows, "and_ensemble")
    lines = [
        "| probes | part | AUROC | minus mixed | minus both parents run | correlation |",
        "| --- " * 6 + "|",
    ]
    labels = {row: label for row, (label, _) in study.PARTS.items()} | study.NULLS
    for kind in study.PROBES:
        mixed = by_pair(rows, f"{kind}_mixed")
        for row, label in labels.items():
            own = by_pair(rows, f"{kind}_{row}")
            cells = [kind, label, words(own, ".3f"), "" if row == "mixed" else words(own - mixed, "+.3f")]
            cells += [
                words(own - both, "+.3f"),
                f"{by_pair(rows, f'{kind}_{row}', 'correlation').mean():.3f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| | both parents run (and_ensemble) | {words(both, '.3f')} | | | |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.parts", description=__doc__)
    parser.add_argument("--run", required=True, help="a run of configs/pair_matrix.py:photos")
    parser.add_argument("--models", type=int, default=4, help="networks of each pair (%(default)s)")
    parser.add_argument("--out", default="runs/parts.json", help="results (%(default)s)")
    given = parser.parse_args(argv)
    return command.status(lambda: _work(given))


def _work(given: argparse.Namespace) -> None:
    from kernelgan import environment  # here, so that --help need not wait for JAX
    from kernelgan.types import UserError

    if given.models < 1:
        raise UserError(f"--models={given.models}; expected a network or more.")
    run, out = command.places(given.run, given.out)
    environment.configure("auto")
    from studies import finished
    from studies.ladder import study as ladder
    from studies.parts import study

    settings, plan = finished.read_run(run)
    environment.select_device(settings.device)
    part, pairs = ladder.load(run, settings, plan, given.models)
    rows = study.evaluate(part, pairs)
    command.write(out, {"run": run.name, "models": given.models, "rows": rows})
    print(f"{table(rows)}\n{out}")


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
