"""The one model of a table: a template renders it as HTML, rich on the terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernelgan.report.prose import p_text
from kernelgan.results import Statistic, Test


@dataclass(frozen=True)
class Cell:
    """A place in a table; plain text, escaped where it is rendered."""

    text: str = "-"  # what is missing is a dash
    small: str = ""  # follows in small print, such as an interval
    short: str = ""  # on the terminal instead of both
    strong: bool = False
    tone: str = ""  # "yes", "no" or "cannot": its colour
    href: str = ""  # where it leads, on a page


@dataclass(frozen=True)
class Column:
    """A column."""

    title: str
    align: str = "right"  # or "left"
    group: str = ""  # heading over several neighbouring columns
    short: str = ""  # its heading on the terminal instead of the title
    where: str = ""  # "page" or "terminal" where only that shows it


@dataclass(frozen=True)
class Line:
    """A row: its cells, the heading above it ("": none), and "best", "mark" or "" to tint it."""

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
        """Headings over the columns, each with how many it spans; empty where no column has any."""
        grouped = itertools.groupby(column.group for column in self.columns)
        spans = [(title, len(list(columns))) for title, columns in grouped]
        return spans if any(title for title, _ in spans) else []

    @property
    def blocks(self) -> list[tuple[str, list[Line]]]:
        """The rows by the heading above them, in order."""
        return [(key, list(rows)) for key, rows in itertools.groupby(self.rows, key=lambda row: row.group)]

    def on(self, medium: str) -> Table:
        """The table with the columns that a medium shows, "page" or "terminal"."""
        shown = [place for place, column in enumerate(self.columns) if column.where in ("", medium)]
        rows = (replace(row, cells=tuple(row.cells[place] for place in shown)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[place] for place in shown), rows=tuple(rows))


def table(
    columns: Sequence[str | Column], rows: Sequence[Sequence[str | Cell]], title: str = "", caption: str = ""
) -> Table:
    """A table without groups; the first column is aligned left, other plain titles right."""
    heads = tuple(
        Column(column, "right" if place else "left") if isinstance(column, str) else column
        for place, column in enumerate(columns)
    )
    lines = tuple(Line(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row)) for row in rows)
    return Table(heads, lines, title, caption)


def statistic(
    value: Statistic, digits: int = 3, *, strong: bool = False, brief: bool = False, short: bool = False
) -> Cell:
    """A mean with its interval; `brief` leaves the interval out, `short` only on the terminal."""
    if not value.known:
        return Cell()
    mean = number(value.mean, digits).text
    ends = f"[{value.low:.{digits}f}, {value.high:.{digits}f}]" if value.bounded and not brief else ""
    return Cell(mean, ends, f"{value.mean:.2f}" if short else "", strong)


def number(value: float, digits: int = 3) -> Cell:
    """A number; NaN is missing."""
    return Cell(f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-")


def count(value: int | None) -> Cell:
    """A whole number."""
    return Cell("-" if value is None else f"{value:,}")


def difference(test: Test | None, interval: bool = False) -> Cell:
    """A difference with its corrected p-value, or with its interval."""
    if test is None or not test.difference.known:
        return Cell()
    gap, p_value = test.difference, p_text(test.p_adjusted)
    ends = f"[{gap.low:+.3f}, {gap.high:+.3f}]" if gap.bounded else ""
    bare = p_cell(test.p_adjusted).text.replace(" ", "")
    return Cell(f"{gap.mean:+.3f}", ends if interval else p_value, f"{gap.mean:+.3f} {bare:>6}")


def p_cell(p_value: float, strong: bool = False) -> Cell:
    """A p-value alone: ``0.012`` or ``< 0.001``."""
    return Cell(p_text(p_value, "-").removeprefix("p ").removeprefix("= "), strong=strong)
