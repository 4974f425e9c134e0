"""One fresh process: `python -m benchmarks.worker REQUEST OUT`, started by `python -m benchmarks`.

The core is pinned before anything is imported that starts threads; what was measured is written to a file, so
that whatever a library prints can do no harm.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import cases, contest, machine


def main(arguments: list[str]) -> None:
    """Measures, and writes the rows; without a section, describes the machine."""
    asked: dict[str, Any] = json.loads(arguments[0])
    if not asked["section"]:
        Path(arguments[1]).write_text(json.dumps(machine.describe()))
        return
    if asked["mode"] == cases.ONE_CORE:
        machine.pin()
    settings = cases.Settings(**asked["settings"])
    chosen = cases.of_process(settings, asked["section"], asked["mode"], asked["name"])
    if any("torch" in case.make for case in chosen):
        _use_threads()
    rows = [row.document() for row in contest.hold(chosen, settings, asked["mode"])]
    Path(arguments[1]).write_text(json.dumps({"rows": rows, "flags": machine.flags()}))


def _use_threads() -> None:
    """PyTorch, if it is here, computes with as many threads as the other libraries."""
    from benchmarks import torch_loops

    try:
        torch_loops.torch().set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    except contest.LeftOutError:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
