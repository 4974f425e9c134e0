"""One fresh process: `python -m benchmarks.worker REQUEST OUT`, started by `python -m benchmarks`.

The core is pinned before anything is imported that starts threads; what was measured is written to a file, so
that whatever a library prints can do no harm.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import cases, contest


def describe() -> dict[str, Any]:
    """The machine and the versions that figures belong to; starts JAX on its device.

    Raises:
      SystemExit: there is no such device.
    """
    import jax

    from kernelgan import environment

    try:
        device = jax.local_devices()[0]
    except (RuntimeError, AssertionError):  # the latter where no plugin of the platform is installed
        raise SystemExit(f"JAX finds no {os.environ.get('JAX_PLATFORMS', 'device')} device here") from None
    versions = environment.versions()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["torch"] = importlib.metadata.version("torch")
    words = [f"{processor()}, {environment.cores()} cores"]
    if device.platform != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        words.append(device.device_kind)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words.append(subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip())
    return {"machine": "; ".join(words), "platform": device.platform, "versions": versions}


def processor() -> str:
    """Its model, and the widest vectors that it has."""
    path = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in path.read_text().splitlines()] if path.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    flags = fields.get("flags", fields.get("Features", "")).split()
    widest = [flag for flag in ("avx512f", "avx2", "asimd") if flag in flags][:1]
    return ", ".join([fields.get("model name", platform.processor() or platform.machine()), *widest])


def main(arguments: list[str]) -> None:
    """Measures, and writes the rows; without a section, describes the machine."""
    asked: dict[str, Any] = json.loads(arguments[0])
    if not asked["section"]:
        Path(arguments[1]).write_text(json.dumps(describe()))
        return
    section, mode, alone = asked["section"], asked["mode"], asked["alone"]
    if mode == cases.ONE_CORE and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settings = cases.Settings(**asked["settings"])
    of_mode = [case for case in cases.cases(settings) if case.section == section and mode in case.modes]
    chosen = [case for case in of_mode if (case.name == alone if alone else not case.processes)]
    if any("torch" in case.make for case in chosen):
        from benchmarks import torch_loops

        with contextlib.suppress(contest.LeftOutError):
            torch_loops.torch().set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows = [row.document() for row in contest.hold(chosen, settings, mode)]
    Path(arguments[1]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
