"""A row of the tables: what was timed, whether it is right, what follows from its times; and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import cases, stopwatch

RIGHT, WRONG, UNCHECKED, LEFT_OUT, FAILED = "right", "WRONG", "unchecked", "left out", "FAILED"
BAD = (WRONG, FAILED)

BASELINES = {
    "zoo": {
        "x PyTorch": "PyTorch loop",
        "x torch.vmap": "torch.func.vmap",
        "x first vmap": "first-written vmap",
        "x tiles": "engine, tiles form",
    },
    "translators": {"x PyTorch": "PyTorch loop"},
    "evaluation": {"x PyTorch": "PyTorch loop"},
}
"""By section, what a ratio is called, and the beginning of its baseline's name."""

WHOLE_ZOO_PASSES = 140.7e6
"""Images that the reference's 4,498 networks train on, epoch by epoch, in all."""


@dataclasses.dataclass
class Row:
    """One case in one mode.

    Attributes:
      section: which table.
      name: of the case.
      mode: see `cases.ONE_CORE` and the others.
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
        return self.cpu_rounds if self.mode == cases.ONE_CORE else self.wall_rounds

    @property
    def ms(self) -> float | None:
        """Median of `rounds`, milliseconds a unit; None if the result is wrong or there is none."""
        return None if self.status in BAD else stopwatch.median(self.rounds)

    @property
    def gflop_per_s(self) -> float | None:
        """Useful arithmetic a second: that of the formula, not what a formulation adds to it."""
        return None if self.gflop is None or not self.ms else 1e3 * self.gflop / self.ms

    @property
    def limit_share(self) -> float | None:
        """`gflop_per_s` over the limit."""
        rate = self.gflop_per_s
        return None if rate is None or not self.limit else rate / self.limit

    @property
    def whole_zoo_s(self) -> float | None:
        """Seconds that the reference's whole zoo would take at this speed."""
        if self.section != "zoo" or not self.ms or self.gflop is None:
            return None
        return WHOLE_ZOO_PASSES * cases.ZOO_MFLOP / 1e3 / self.gflop * self.ms / 1e3

    def take(self, times: stopwatch.Times) -> None:
        """Fills in the times."""
        self.wall_rounds = times.wall
        self.cpu_rounds = [] if self.mode == cases.GPU else times.cpu
        if times.reason:
            self.status, self.reason = FAILED, times.reason

    def judge(self, error: float, tolerance: float) -> None:
        """Right if the error is within the tolerance; a NaN is not."""
        self.error, self.tolerance = error, tolerance
        self.status = RIGHT if error <= tolerance else WRONG

    def document(self) -> dict[str, Any]:
        """As JSON, with what is computed."""
        return dataclasses.asdict(self) | {
            "wall_ms": stopwatch.median(self.wall_rounds),
            "cpu_ms": stopwatch.median(self.cpu_rounds),
            "gflop_per_s": self.gflop_per_s,
            "limit_share": self.limit_share,
            "whole_zoo_s": self.whole_zoo_s,
        }


def from_document(document: Mapping[str, Any]) -> Row:
    """The inverse of `Row.document`."""
    return Row(**{field.name: document[field.name] for field in dataclasses.fields(Row)})


def merge(found: list[Row], more: Sequence[Row]) -> None:
    """Adds rows; the rounds of another process of the same case are added to its row."""
    for row in more:
        for old in found:
            if (old.name, old.mode, old.status) == (row.name, row.mode, row.status):
                old.wall_rounds += row.wall_rounds
                old.cpu_rounds += row.cpu_rounds
                break
        else:
            found.append(row)


def compare(found: Sequence[Row]) -> None:
    """Writes into each row of a section how many times faster it is than the baselines of its mode.

    Of several baselines whose name begins alike, that is the fastest of the row's precision, or else of
    float32. A baseline must be right and have times.
    """
    for row in found:
        for name, prefix in BASELINES.get(row.section, {}).items():
            beside = [b for b in found if b.mode == row.mode and b.name.startswith(prefix) and b.ms]
            alike = [b for b in beside if b.precision == row.precision]
            alike = alike or [b for b in beside if b.precision == "float32"]
            if row.ms and alike:
                baseline = min(alike, key=lambda b: b.ms or 0.0)
                ratio = stopwatch.ratio(baseline.rounds, row.rounds)
                if ratio is not None:
                    row.ratios[name] = ratio


# As text --------------------------------------------------------------------------------------------------


def figure(value: float | None, unit: str = "") -> str:
    """Three digits that say something, or a dash."""
    if value is None:
        return "-"
    if value != value:
        return "NaN"
    digits = 0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2 if abs(value) >= 0.0995 else 4
    return f"{value:,.{digits}f}{unit}"


def columns(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned, without the columns that hold nothing; the first to the left, the others to the right."""
    kept = [n for n in range(len(head)) if n == 0 or any(line[n] != "-" for line in lines)]
    everything = [[line[n] for n in kept] for line in (head, *lines)]
    widths = [max(len(line[n]) for line in everything) for n in range(len(kept))]
    text = []
    for first, *others in everything:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        text.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    text.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def _cells(row: Row) -> list[str]:
    share, peak = row.limit_share, row.details.get("peak_bytes")
    return [
        row.name,
        figure(stopwatch.median(row.cpu_rounds)),
        figure(stopwatch.median(row.wall_rounds)),
        figure(row.gflop_per_s),
        "-" if share is None else f"{100 * share:.0f}%",
        *(figure(row.ratios.get(name)) for name in BASELINES["zoo"]),
        figure(row.whole_zoo_s, " s"),
        figure(None if peak is None else peak / 1e9, " GB"),
        figure(row.compile_s, " s"),
        row.status if row.error is None else f"{row.status} ({row.error:.0e})",
    ]


_HEAD = ["", "ms CPU", "ms wall", "GFLOP/s", "of limit", *BASELINES["zoo"]]
_HEAD += ["whole zoo", "peak memory", "compiled in", "result"]


def section(name: str, found: Sequence[Row]) -> str:
    """A section's tables, one for each mode and unit."""

    def parts() -> Iterator[str]:
        yield f"== {name} " + "=" * max(0, 100 - len(name))
        for mode, unit in dict.fromkeys((row.mode, row.unit) for row in found):
            alike = [row for row in found if (row.mode, row.unit) == (mode, unit)]
            by = "CPU time" if mode == cases.ONE_CORE else "the clock"
            yield f"milliseconds a {unit}; {mode}, compared by {by}"
            yield columns(_HEAD, [_cells(row) for row in alike])
            yield from (f"  {row.name}: {row.status}, {row.reason}" for row in alike if row.reason)
            yield ""

    return "\n".join(parts())
