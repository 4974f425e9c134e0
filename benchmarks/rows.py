"""A row of the tables: what was timed, whether its result is right, and what follows from its times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import stopwatch

RIGHT, WRONG, UNCHECKED, LEFT_OUT, FAILED = "right", "WRONG", "unchecked", "left out", "FAILED"
BAD = (WRONG, FAILED)

ONE_CORE, ALL_CORES, DEVICES, GPU = "one core", "all cores", "a device a core", "gpu"
"""Modes: one pinned core, whose CPU-seconds are told; the clock on all cores, as one CPU device or as one for
each core; a GPU."""


@dataclasses.dataclass
class Row:
    """One contender in one mode.

    Attributes:
      section: which table.
      name: of the contender.
      mode: see `ONE_CORE` and the others.
      unit: what the milliseconds are of.
      precision: of its products.
      status: `RIGHT`, `WRONG` (its result is not the reference's), `UNCHECKED` (nothing to compare it with),
        `LEFT_OUT` (it cannot run here) or `FAILED` (it raised).
      reason: for the last two.
      wall_rounds: milliseconds a unit, round by round, on the clock.
      cpu_rounds: the same in CPU time; empty on a GPU.
      compile_s: seconds of compilation, not in the rounds.
      error: the largest difference from the reference, relative; see `benchmarks.check`.
      tolerance: what it may be.
      gflop: arithmetic of one unit, counted by hand.
      limit: GFLOP/s of this machine's matrix product in the same mode and precision, in the same rounds.
      ratios: by the baseline's name, how many times faster than that.
      details: anything else, for the JSON.
    """

    section: str
    name: str
    mode: str
    unit: str
    precision: str = "float32"
    status: str = UNCHECKED
    reason: str = ""
    wall_rounds: list[float] = dataclasses.field(default_factory=list)
    cpu_rounds: list[float] = dataclasses.field(default_factory=list)
    compile_s: float | None = None
    error: float | None = None
    tolerance: float | None = None
    gflop: float | None = None
    limit: float | None = None
    ratios: dict[str, float] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def rounds(self) -> list[float]:
        """The rounds that are compared: CPU time on one core, else the clock."""
        return self.cpu_rounds if self.mode == ONE_CORE else self.wall_rounds

    @property
    def ms(self) -> float | None:
        """Median of `rounds`, milliseconds a unit."""
        return stopwatch.median(self.rounds)

    @property
    def gflop_per_s(self) -> float | None:
        """Useful arithmetic a second: that of the formula, not what a formulation adds to it."""
        return None if self.gflop is None or not self.ms else 1e3 * self.gflop / self.ms

    @property
    def limit_share(self) -> float | None:
        """`gflop_per_s` over the limit."""
        rate = self.gflop_per_s
        return None if rate is None or not self.limit else rate / self.limit

    def take(self, times: stopwatch.Times) -> None:
        """Fills in the times."""
        self.wall_rounds = times.wall
        self.cpu_rounds = [] if self.mode == GPU else times.cpu
        if times.reason:
            self.status, self.reason = FAILED, times.reason

    def judge(self, error: float, tolerance: float) -> None:
        """Right if the error is within the tolerance; a NaN is not."""
        self.error, self.tolerance = error, tolerance
        self.status = RIGHT if error <= tolerance else WRONG

    def document(self) -> dict[str, Any]:
        """As JSON, with what is computed."""
        found = dataclasses.asdict(self)
        return found | {
            "wall_ms": stopwatch.median(self.wall_rounds),
            "cpu_ms": stopwatch.median(self.cpu_rounds),
            "gflop_per_s": self.gflop_per_s,
            "limit_share": self.limit_share,
        }


def from_document(document: Mapping[str, Any]) -> Row:
    """The inverse of `Row.document`."""
    names = [field.name for field in dataclasses.fields(Row)]
    return Row(**{name: document[name] for name in names})


def fastest(rows: Sequence[Row], prefix: str, precision: str = "float32") -> Row | None:
    """Of the right rows whose name begins so, the fastest; in float32 if none is as asked."""
    found = [row for row in rows if row.name.startswith(prefix) and row.ms and row.status not in BAD]
    alike = [row for row in found if row.precision == precision]
    alike = alike or [row for row in found if row.precision == "float32"]
    return min(alike, key=lambda row: row.ms or 0.0, default=None)


def compare(rows: Sequence[Row], baselines: Mapping[str, str]) -> None:
    """Writes into each row how many times faster it is than the baselines of its mode.

    Args:
      rows: of one section.
      baselines: what a ratio is called, and the beginning of its baseline's name; of several, the fastest of
        the row's precision, if there is one of it.
    """
    for row in rows:
        beside = [other for other in rows if other.mode == row.mode]
        for name, prefix in baselines.items():
            baseline = fastest(beside, prefix, row.precision)
            found = None if baseline is None else stopwatch.ratio(baseline.rounds, row.rounds)
            if found is not None:
                row.ratios[name] = found
