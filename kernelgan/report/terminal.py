"""What a run prints: the verdict and the tables of the page, by rich, in 80 columns whether piped or not."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kernelgan.report import contents, prose
from kernelgan.report.tables import Table
from kernelgan.results import Pair, Record, Run

WIDTH = 80
_NAME_WIDTH = 24
_MORE = (
    "The report has all {} methods and says what else this rests on: every test, what was read, its limits."
)


def table(run: Run, color: bool = False, *, report: bool = True) -> str:
    """The results as text: the methods to look at first, what the answer rests on, and the answer.

    One pair has a table of its methods; several have a leaderboard over all and a line each. The answer comes
    last, where it stays on the screen.

    Args:
      run: with its verdicts.
      color: whether to use a terminal's bold and colours.
      report: whether there is a report, which has the rest of the words; without one they are here.
    """
    if len(run.pairs) == 1:
        tables = [_methods(_few(run.pairs[0]))]
    else:
        tables = [contents.leaderboard(_few(run.overall), brief=True)] if run.overall else []
        tables.append(contents.pairs(run.pairs))
    told = prose.evidence(run, brief=report)
    if run.skipped:
        told.append(f"Skipped pairs: {len(run.skipped)}; the report has the reasons.")
    count = len((run.record or run.pairs[0]).methods)
    told.append(
        f"All {count} methods: `pair.methods` of the evaluation." if not report else _MORE.format(count)
    )
    return "\n\n".join([*(text(each, color) for each in tables), wrapped(told), wrapped(prose.answer(run))])


def _few(record: Record) -> Record:
    """The record with the methods to look at first, the best first.

    These are the generated ones, the parents, those that the verdict names, and the best of every other kind.
    """
    ranked, verdict = record.ranked(), record.verdict
    best = {row.kind: row.name for row in reversed(ranked)}
    roles = {verdict.floor, verdict.yardstick, verdict.reference}
    named = {*best.values(), *roles, *prose.named(record)}
    few = [row for row in ranked if row.kind in ("generated", "parent") or row.name in named]
    return replace(record, methods={row.name: row for row in few})


def _methods(pair: Pair) -> Table:
    counts = sorted({row.networks for row in pair.methods.values() if row.networks and row.networks > 1})
    networks = f"{' to '.join(map(str, dict.fromkeys(counts[:1] + counts[-1:])))} networks".strip()
    caption = (
        ">: generated. attr, obj, none: AUROC against images of the attribute alone, the object alone, "
        "neither; the lowest counts. best-this: the best generated method minus this method, with its "
        f"corrected p. {_share(pair)} {contents.marks_note(pair)}".rstrip()
    )
    shown, lines = contents.methods(pair), []
    for row in shown.rows:
        name = replace(row.cells[0], short=f"{'>' if row.group == 'generated' else ' '} {row.cells[0].text}")
        lines.append(replace(row, group="", cells=(name, *row.cells[1:])))
    title = f"{pair.title}: mean over {networks} [95%], on the test images"
    return replace(shown, rows=tuple(lines), title=title, caption=caption)


def _share(pair: Pair) -> str:
    """What the column of shares is, or why it is empty."""
    floor, reference = pair.verdict.floor, pair.verdict.reference
    if any(math.isfinite(row.recovered.mean) for row in pair.methods.values()):
        return f"recov: share of the way from {floor}, at least 0.5, (0) to {reference} (1)."
    if pair.figure(reference).known:
        return f"recov: not known, for {reference} is hardly above chance."
    return f"recov: not known without {reference}."


def wrapped(sentences: Sequence[str]) -> str:
    """Sentences folded to `WIDTH`, what runs over indented."""
    return "\n".join(textwrap.fill(sentence, WIDTH, subsequent_indent="  ") for sentence in sentences)


def text(shown: Table, color: bool = False) -> str:
    """A table as lines of at most `WIDTH`; columns that do not fit follow below, row headings repeated."""
    shown = shown.on("terminal")
    cells = [[cell.short or f"{cell.text} {cell.small}".strip() for cell in row.cells] for row in shown.rows]
    for row, line in zip(shown.rows, cells, strict=True):
        line[0] = f"  {line[0]}" if row.group else line[0]
    heads = [column.short or column.title for column in shown.columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    widths[0] = min(widths[0], _NAME_WIDTH)
    parts: list[list[int]] = [[0]]
    for place in range(1, len(heads)):
        if sum(widths[each] + 1 for each in parts[-1]) + widths[place] > WIDTH and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(place)
    lines = [shown.title] if shown.title else []
    for part in parts:
        columns = [
            {"header": heads[at], "justify": shown.columns[at].align, "width": widths[at]} for at in part
        ]
        lines += _drawn(shown, columns, [[line[at] for at in part] for line in cells], color)
        lines.append("─" * (sum(widths[at] + 1 for at in part) - 1))
    return "\n".join([*lines, *([wrapped([shown.caption])] if shown.caption else [])])


def _drawn(
    shown: Table, columns: Sequence[dict[str, Any]], cells: Sequence[Sequence[str]], color: bool
) -> list[str]:
    """Some columns of a table, as rich draws them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.HORIZONTALS, padding=0, show_edge=False)
    for column in columns:
        drawn.add_column(overflow="ellipsis", no_wrap=True, **column | {"header": Text(column["header"])})
    group = ""
    for row, line in zip(shown.rows, cells, strict=True):
        if row.group != group:
            group = row.group
            drawn.add_row(Text(group, "dim"))
        drawn.add_row(*(Text(cell, "bold" if row.emphasis else "") for cell in line))
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, force_terminal=color, no_color=not color, highlight=False).print(drawn)
    return [line.rstrip() for line in stream.getvalue().rstrip("\n").split("\n")]
