"""What one process measures: each case is compiled, then checked; only those that are right are timed."""

from __future__ import annotations

import importlib
import resource
import sys
from collections.abc import Mapping, Sequence

from benchmarks import rows, stopwatch
from benchmarks.cases import GPU, ONE_CORE, Case, Settings
from benchmarks.rows import Row
from benchmarks.stopwatch import Prepared, Times, median

TOLERANCES = {"float32": 1e-4, "TF32": 0.15}
"""Of a check. TF32 keeps 10 bits of a factor: 5e-4 of each, so now and then another pixel wins a pooling, and
an image's whole share of a gradient moves: XLA's own convolutions differ by 0.06 on an H100."""


class LeftOutError(Exception):
    """This case cannot run here; the message says why."""


def hold(cases: Sequence[Case], settings: Settings, mode: str) -> list[Row]:
    """Prepares, checks and times the cases of a section.

    Returns:
      A row for each case, whatever became of it. Where arithmetic is counted, matrix products are timed in
      the same rounds: the limit.
    """
    found = [Row(c.section, c.name, mode, c.unit, c.precision, gflop=c.gflop) for c in cases]
    works = {}
    for row, case in zip(found, cases, strict=True):
        prepared = _prepared(row, case)
        if prepared is not None:
            works[case.name] = prepared
        stopwatch.say(f"  {row.name}: {row.status} {row.reason}")
    limits = products(mode, settings.matrix) if any(case.gflop for case in cases) else {}
    times = stopwatch.take_turns(works | limits, rounds=settings.rounds, lap=settings.lap)
    for row, case in zip(found, cases, strict=True):
        if case.name in works:
            row.take(times[case.name])
            row.limit = fastest_product(times, mode, row.precision)
        if case.processes:
            row.details["peak_bytes"] = peak_memory(mode)
    return found


def _prepared(row: Row, case: Case) -> Prepared | None:
    """What is to be timed, or None; the row says why not."""
    module, function = case.make.split(":")
    make = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    try:
        prepared: Prepared = make(**case.options)
        if prepared.check is not None:
            row.judge(prepared.check(), TOLERANCES[case.precision])
    except LeftOutError as error:
        row.status, row.reason = rows.LEFT_OUT, str(error)
        return None
    except Exception as error:  # the others go on
        row.status, row.reason = rows.FAILED, stopwatch.words(error)
        return None
    row.compile_s = prepared.compile_s
    row.details = case.options | prepared.details
    if row.status == rows.WRONG:  # the time of a wrong result is no time
        row.reason = f"its result differs by {row.error:.1e}, allowed are {row.tolerance:.0e}; not timed"
        prepared.close()
        return None
    return prepared


def products(mode: str, side: int) -> dict[str, Prepared]:
    """Products of square matrices by name, a GFLOP a unit: NumPy's and XLA's; with TF32 too on a GPU."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(side, side)).astype(np.float32) for _ in range(2))

    def of_xla(precision: jax.lax.Precision) -> Prepared:
        product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
        a, b = jax.device_put((left, right))

        def run(repetitions: int) -> None:
            for _ in range(repetitions):
                result = product(a, b)
            result.block_until_ready()

        return Prepared(run, 2e-9 * side**3)

    def run(repetitions: int) -> None:
        for _ in range(repetitions):
            left @ right

    found = {"limit, float32, XLA": of_xla(jax.lax.Precision.HIGHEST)}
    if mode == GPU:
        return found | {"limit, TF32, XLA": of_xla(jax.lax.Precision.DEFAULT)}
    return found | {"limit, float32, NumPy": Prepared(run, 2e-9 * side**3)}


def fastest_product(times: Mapping[str, Times], mode: str, precision: str) -> float | None:
    """GFLOP/s of the fastest product of a precision: a second of CPU on one core, else of the clock."""
    found = [took for name, took in times.items() if name.startswith(f"limit, {precision}, ")]
    medians = [median(took.cpu if mode == ONE_CORE else took.wall) for took in found]
    return max((1e3 / ms for ms in medians if ms), default=None)


def peak_memory(mode: str) -> float:
    """Bytes: of this process, or of the device on a GPU (where the host's are of no interest)."""
    if mode == GPU:
        import jax

        return float((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", float("nan")))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
