"""The one model of a table: rendered as HTML by a template, on the terminal by rich, and as Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernelgan.report.prose import p_text
from kernelgan.results import Statistic, Test

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One place in a table; plain text throughout, escaped where it is rendered.

    Attributes:
      text: what is shown.
      small: what follows in small print, such as an interval.
      short: shown instead of both on the terminal; "": the same.
      strong: bold.
      tone: "yes", "no" or "cannot": its colour.
      href: where it leads, on a page.
      bar: on a page, a statistic and a reference mean drawn on the scale from 0 to 1.
      value: to sort by; NaN comes last.
    """

    text: str = ""
    small: str = ""
    short: str = ""
    strong: bool = False
    tone: str = ""
    href: str = ""
    bar: tuple[Statistic, float] | None = None
    value: float = math.nan


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
      title: its heading.
      align: "left" or "right".
      unit: shown behind the title, in brackets.
      group: heading over several neighbouring columns.
      short: its heading on the terminal; "": the same.
      digits: on the terminal its value alone, with so many digits; None: the text.
      where: "page" or "terminal" where only that shows it; "": both.
    """

    title: str
    align: str = "right"
    unit: str = ""
    group: str = ""
    short: str = ""
    digits: int | None = None
    where: str = ""

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Line:
    """A row: its cells, the heading it stands under ("": none), and "best", "mark" or "" to tint it."""

    cells: tuple[Cell, ...]
    group: str = ""
    emphasis: str = ""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading. ``caption`` explains it, in one paragraph."""

    columns: tuple[Column, ...]
    rows: tuple[Line, ...]
    title: str = ""
    caption: str = ""

    @property
    def head_groups(self) -> list[tuple[str, int]]:
        """Headings over the columns, each with how many it spans; empty where no column has one."""
        spans = [(key, len(list(each))) for key, each in itertools.groupby(one.group for one in self.columns)]
        return spans if any(key for key, _ in spans) else []

    @property
    def blocks(self) -> list[tuple[str, list[Line]]]:
        """The rows by the heading they stand under, in order."""
        return [(key, list(rows)) for key, rows in itertools.groupby(self.rows, key=lambda row: row.group)]

    def on(self, medium: str) -> Table:
        """The table with the columns that a medium shows, "page" or "terminal"."""
        places = [place for place, one in enumerate(self.columns) if one.where in ("", medium)]
        rows = (replace(row, cells=tuple(row.cells[place] for place in places)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[place] for place in places), rows=tuple(rows))

    def ordered(self, column: int) -> Table:
        """The rows by the value in a column, the largest first, those without a value last."""

        def key(row: Line) -> float:
            value = row.cells[column].value
            return -value if math.isfinite(value) else math.inf

        return replace(self, rows=tuple(sorted(self.rows, key=key)))


def table(
    columns: Sequence[str | Column],
    rows: Sequence[Sequence[str | Cell]],
    title: str = "",
    caption: str = "",
) -> Table:
    """A table without groups; the first column is aligned left, others right unless they say else."""
    made = [Column(one, "left" if place == 0 else "right") if isinstance(one, str) else one
            for place, one in enumerate(columns)]  # fmt: skip
    lines = tuple(Line(tuple(Cell(one) if isinstance(one, str) else one for one in row)) for row in rows)
    return Table(tuple(made), lines, title, caption)


def markdown(shown: Table) -> str:
    """A table as GitHub's Markdown, without its caption; pipes are escaped."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    lines = [line([one.heading for one in shown.columns])]
    lines.append(line([":---" if one.align == "left" else "---:" for one in shown.columns]))
    for row in shown.rows:
        texts = [f"{cell.text} {cell.small}".strip() for cell in row.cells]
        lines.append(
            line(
                [f"**{text}**" if cell.strong else text for text, cell in zip(texts, row.cells, strict=True)]
            )
        )
    return "\n".join(lines) + "\n"


# Cells ----------------------------------------------------------------------------------------------------


def statistic(value: Statistic, digits: int = 3, strong: bool = False, brief: bool = False) -> Cell:
    """A mean and, not where `brief`, its interval."""
    if not value.known:
        return Cell(DASH)
    ends = f"[{value.low:.{digits}f}, {value.high:.{digits}f}]" if value.bounded and not brief else ""
    return replace(number(value.mean, digits), small=ends, strong=strong)


def number(value: float, digits: int = 3) -> Cell:
    """A number, or a dash for NaN."""
    if not math.isfinite(value):
        return Cell(DASH)
    return Cell(f"{round(value, digits) + 0.0:.{digits}f}", value=value)


def count(value: int | None) -> Cell:
    """A whole number, or a dash for None."""
    return Cell(DASH) if value is None else Cell(f"{value:,}", value=value)


def difference(test: Test | None, interval: bool = False) -> Cell:
    """A difference with its corrected p-value, or with its interval; a dash where there is none."""
    if test is None or not test.difference.known:
        return Cell(DASH)
    found, p_value = test.difference, p_text(test.p_adjusted)
    ends = f"[{found.low:+.3f}, {found.high:+.3f}]" if found.bounded else ""
    bare = p_text(test.p_adjusted, "").replace("p = ", "").replace("p < ", "<")
    short = f"{found.mean:+.3f} {bare:>6}"
    return Cell(f"{found.mean:+.3f}", ends if interval else p_value, short, value=found.mean)


def p_cell(p_value: float, strong: bool = False) -> Cell:
    """A p-value alone: ``0.012`` or ``< 0.001``."""
    text = p_text(p_value, DASH).removeprefix("p ").removeprefix("= ")
    return Cell(text, strong=strong, value=p_value)


def seconds(value: float) -> Cell:
    """A duration; a dash for NaN."""
    if not math.isfinite(value):
        return Cell(DASH)
    text = f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"
    return Cell(text, value=value)
