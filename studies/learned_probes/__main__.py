"""Train probes for a block of held-out pairs: `python -m studies.learned_probes --run=DIR`.

See docs/generators.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from kernelgan.stopping import STATUS, Terminated, listen, outlast_readers

ROWS = {
    "and_ensemble": "both parents run (and_ensemble)",
    "reduce": "reduce, seen images",
    "learned": "learned probes",
    "start": "the rendered probes they started from",
    "reduce_rendered": "reduce_rendered",
    "reduce_noise": "reduce_noise",
}


def table(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The figures of `study.evaluate` in words."""
    pairs = list(rows["learned"])
    lines = ["Worst-quadrant AUROC on test images; correlation with the parents' logits on validation images"]
    lines.append(f"{'':40s}" + "".join(f"{name:>18s}" for name in (*pairs, "mean", "correlation")))
    for row, label in ROWS.items():
        worst = [sum(rows[row][pair]["worst"]) / len(rows[row][pair]["worst"]) for pair in pairs]
        mean = sum(rows[row][pair]["correlation"] for pair in pairs) / len(pairs)
        figures = (*worst, sum(worst) / len(worst), mean)
        lines.append(f"{label:40s}" + "".join(f"{value:18.3f}" for value in figures))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.learned_probes", description=__doc__)
    parser.add_argument("--run", required=True, help="a run of configs/pair_matrix.py:photos")
    parser.add_argument("--block", default="black:cat", help="attributes:objects held out (%(default)s)")
    parser.add_argument("--probes", type=int, default=1024, help="a multiple of 64 (%(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="of training (%(default)s)")
    parser.add_argument("--networks", type=int, default=3, help="evaluated of each pair (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (%(default)s)")
    parser.add_argument(
        "--out",
        default="runs/learned_probes.json",
        help="results, the training's state beside (%(default)s)",
    )
    given = parser.parse_args(argv)
    from kernelgan import environment  # here, so that --help need not wait for JAX
    from kernelgan.files import given_path, write_atomically
    from kernelgan.types import UserError

    try:
        listen()
        if given.probes < 64 or given.probes % 64 or given.steps < 1:
            raise UserError(
                f"--probes={given.probes} --steps={given.steps}; expected a multiple of 64, and a step."
            )
        run, out = given_path(given.run, "--run"), given_path(given.out, "--out")
        if run.resolve() in out.resolve().parents:
            raise UserError(f"--out={out} is in the run, which is only read; expected another place.")
        environment.configure("auto")
        from studies import finished
        from studies.learned_probes import study

        settings, plan = finished.read_run(run)
        environment.select_device(settings.device)
        block = study.load(run, settings, plan, given.block, given.networks)
        learned_from = [" ".join(block.zoos[number][:2]) for number in block.learned_from]
        print(f"pairs held out: {', '.join(map(' '.join, block.pairs))}", file=sys.stderr)
        print(f"learns from the zoos of: {', '.join(learned_from)}", file=sys.stderr)
        out.parent.mkdir(parents=True, exist_ok=True)
        state = out.with_suffix(".state.npz")
        probes, losses = study.train(block, given.probes, given.steps, given.seed, state)
        rows = study.evaluate(block, probes, settings, f"learned_probes {given.block}", given.networks)
        results = {**vars(given), "learned_from": learned_from, "losses": losses.tolist(), "rows": rows}
        results["commit"] = environment.checkout().commit
        write_atomically(out, json.dumps(results, indent=1).encode())
        print(f"{table(rows)}\n{out}")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Terminated:
        print("terminated; the same command continues", file=sys.stderr)
        return STATUS
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    outlast_readers()
    sys.exit(main())
