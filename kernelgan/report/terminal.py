"""What a run prints: the verdict and the tables of the page, by rich, in 80 columns whether piped or not."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Literal

from kernelgan.report import contents, prose
from kernelgan.report.tables import DASH, Cell, Column, Table
from kernelgan.results import Run

WIDTH = 80
_NAME_WIDTH = 24
_SCREEN = 24  # lines


def table(run: Run, color: bool = False) -> str:
    """The results as text: the answer in words, methods with 95% intervals, and what the answer rests on.

    One pair has its methods by kind; several have a leaderboard over all and a line each. The answer comes
    first and, where that has left the screen, again last.

    Args:
      run: with its verdicts.
      color: whether to use a terminal's bold and colours.

    Returns:
      Lines of at most `WIDTH` characters, joined; no trailing newline.
    """
    first, *rest = prose.summary(run)
    parts = [wrapped([first]), ""]
    if len(run.pairs) == 1:
        parts.append(text(contents.methods(run.pairs[0], terse=True), color))
    else:
        parts += [text(contents.leaderboard(run.overall), color), ""] if run.overall else []
        parts.append(text(contents.pairs(run.pairs), color))
    lines = "\n".join(parts).splitlines()
    lines += ["", *wrapped([first, *rest] if len(lines) > _SCREEN else rest).splitlines()]
    lines += wrapped([contents.skipped_words(run.skipped)]).splitlines() if run.skipped else []
    return "\n".join(lines)


def wrapped(sentences: Sequence[str]) -> str:
    """Sentences folded to `WIDTH`, what runs over indented."""
    return "\n".join(textwrap.fill(one, WIDTH, subsequent_indent="  ") for one in sentences)


def text(shown: Table, color: bool = False) -> str:
    """A table as lines of at most `WIDTH`; columns that do not fit follow below, row headings repeated."""
    shown = shown.on("terminal")
    cells = [
        [_text(cell, column) for cell, column in zip(row.cells, shown.columns, strict=True)]
        for row in shown.rows
    ]
    cells = [
        [("  " if row.group else "") + first, *rest]
        for row, (first, *rest) in zip(shown.rows, cells, strict=True)
    ]
    heads = [column.short or column.heading for column in shown.columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    widths[0] = min(widths[0], _NAME_WIDTH)
    parts: list[list[int]] = [[0]]
    for place in range(1, len(heads)):
        if sum(widths[one] + 1 for one in parts[-1]) + widths[place] > WIDTH and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    lines = [shown.title] if shown.title else []
    for part in parts:
        drawn = _drawn(shown, heads, cells, part, widths, color)
        lines += [*drawn, "─" * (sum(widths[place] + 1 for place in part) - 1)]
    return "\n".join([*lines, *([wrapped([shown.caption])] if shown.caption else [])])


def _drawn(
    shown: Table,
    heads: Sequence[str],
    cells: Sequence[Sequence[str]],
    places: Sequence[int],
    widths: Sequence[int],
    color: bool,
) -> list[str]:
    """Some columns of a table, as rich draws them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.HORIZONTALS, padding=0, show_edge=False)
    for place in places:
        justify: Literal["left", "right"] = "right" if shown.columns[place].align == "right" else "left"
        drawn.add_column(
            Text(heads[place]), justify=justify, overflow="ellipsis", no_wrap=True, width=widths[place]
        )
    group = ""
    for row, texts in zip(shown.rows, cells, strict=True):
        if row.group != group:
            group = row.group
            drawn.add_row(Text(group, "dim"))
        drawn.add_row(*(Text(texts[place], "bold" if row.emphasis else "") for place in places))
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, force_terminal=color, no_color=not color, highlight=False).print(drawn)
    return [
        line.replace("\N{NO-BREAK SPACE}", " ").rstrip()
        for line in stream.getvalue().rstrip("\n").split("\n")
    ]


def _text(cell: Cell, column: Column) -> str:
    """What the terminal shows of a cell."""
    if column.digits is not None:
        return f"{cell.value:.{column.digits}f}" if math.isfinite(cell.value) else "-"
    return (cell.short or f"{cell.text} {cell.small}".strip()).replace(DASH, "-")
