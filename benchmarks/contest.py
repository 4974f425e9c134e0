"""Contenders of one section: each is compiled, then checked, and only the right ones are timed, in turn."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import limit, rows, stopwatch
from benchmarks.rows import Row


class LeftOutError(Exception):
    """This contender cannot run here; the message says why."""


@dataclasses.dataclass
class Prepared:
    """A contender, ready to run.

    Attributes:
      work: what is timed.
      compile_s: what getting ready took of compilation.
      check: the error of its result, see `benchmarks.check`; called before anything is timed.
      details: for the JSON.
    """

    work: stopwatch.Work
    compile_s: float | None = None
    check: Callable[[], float] | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who takes part.

    Attributes:
      name: in the table.
      prepare: compiles it. Raises `LeftOutError` if it cannot run here.
      unit: what is counted.
      gflop: arithmetic of a unit.
      tolerance: of its check.
      precision: of its products.
    """

    name: str
    prepare: Callable[[], Prepared]
    unit: str
    gflop: float | None
    tolerance: float
    precision: str = "float32"


def hold(
    section: str, mode: str, contenders: Sequence[Contender], *, rounds: int, lap: float, matrix: int
) -> list[Row]:
    """Prepares, checks and times.

    Args:
      section: of the rows.
      mode: one of those in `benchmarks.rows`.
      contenders: in the order of the table.
      rounds: of timing.
      lap: seconds of a lap.
      matrix: side of the matrices whose product is the limit; it is timed in the same rounds.

    Returns:
      A row for each contender, whatever became of it.
    """
    found, works = [], []
    for contender in contenders:
        row = Row(
            section,
            contender.name,
            mode,
            contender.unit,
            precision=contender.precision,
            gflop=contender.gflop,
            tolerance=contender.tolerance,
        )
        found.append(row)
        begin = time.perf_counter()
        work = _prepared(row, contender)
        if work is not None:
            works.append((row, work))
        taken = time.perf_counter() - begin
        stopwatch.say(f"  {row.name}: {row.status}{_because(row)} ({taken:.1f} s to compile and check)")
    limits = limit.works(mode, matrix)
    times = stopwatch.take_turns(
        [work for _, work in works] + [one.work for one in limits], rounds=rounds, lap=lap
    )
    for row, work in works:
        row.take(times[work.name])
        row.limit = limit.rate(limits, times, mode, row.precision)
    return found


def _because(row: Row) -> str:
    if row.reason:
        return f", {row.reason}"
    return "" if row.error is None else f", error {row.error:.1e}"


def _prepared(row: Row, contender: Contender) -> stopwatch.Work | None:
    """What is to be timed, or None; the row says why not."""
    try:
        prepared = contender.prepare()
        if prepared.check is not None:
            row.judge(prepared.check(), contender.tolerance)
        row.compile_s, row.details = prepared.compile_s, prepared.details
    except LeftOutError as error:
        row.status, row.reason = rows.LEFT_OUT, str(error)
        return None
    except Exception as error:  # the others go on
        row.status, row.reason = rows.FAILED, stopwatch.words(error)
        return None
    if row.status == rows.WRONG:  # the time of a wrong result is no time
        row.reason = (
            f"its result differs by {row.error:.1e}, allowed are {contender.tolerance:.0e}; not timed"
        )
        prepared.work.close()
        return None
    prepared.work.name = row.name
    return prepared.work
