"""The table that a run prints: plain text, at most 110 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kernelgan import results as results_lib
from kernelgan.report import reference

WIDTH = 110

_COLUMNS = ("nets", "params", "", "vs attr", "vs obj", "vs neither", "bal.acc", "recovered")
_NAME_WIDTH = 26


def table(results: results_lib.Results) -> str:
    """The results as text: for each pair its methods with 95% intervals, then the verdict.

    Args:
      results: as `results.read_results` gives them.

    Returns:
      Lines of at most `WIDTH` characters, joined; no trailing newline. A dash is what was not measured.
    """
    if reference.is_reference(results):
        return "\n".join([*wrapped(reference.finding(results)), "", *reference.lines(results)])
    lines: list[str] = []
    for pair in results.pairs():
        lines += [*_pair_table(pair), "", *wrapped(results_lib.verdict(pair)), ""]
    if len(results.pairs()) > 1:
        lines += [*_leaderboard(results), "", *wrapped(results_lib.summary(results)), ""]
    return "\n".join(line.rstrip() for line in lines[:-1])


def wrapped(sentences: Sequence[str]) -> list[str]:
    """Sentences folded to `WIDTH`, what runs over indented."""
    return [line for text in sentences for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ") or [""]]


def _pair_table(pair: Mapping[str, Any]) -> list[str]:
    path = results_lib.merit_path(pair)
    title = f"{results_lib.pair_title(pair)}: mean over networks [95% interval] on the test images"
    figure = "worst AUROC [95%]" if path == "auroc.worst" else "AUROC vs rest [95%]"
    rows = [("method", tuple(name or figure for name in _COLUMNS))]
    kind: object = ""
    for name, method in results_lib.methods_in_order(pair):
        if method.get("kind") != kind:
            kind = method.get("kind")
            rows.append((str(kind or "other"), ()))
        rows.append((f"  {name}", _cells(method, path)))
    widths = [max(len(cells[i]) for _, cells in rows if cells) for i in range(len(_COLUMNS))]
    lines = textwrap.wrap(title, WIDTH)
    for name, cells in rows:
        cells_text = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=False))
        lines.append(f"{_cut(name):<{_NAME_WIDTH}}{cells_text}")
    rule = "-" * max(len(line) for line in lines)
    return [lines[0], rule, lines[1], rule, *lines[2:], rule]


def _cells(method: Mapping[str, Any], path: str) -> tuple[str, ...]:
    def mean(where: str) -> str:
        return _decimal(results_lib.interval(method, where).mean)

    return (
        _count(method.get("networks")),
        _count(method.get("parameters")),
        results_lib.interval(method, path).text(),
        mean("auroc.vs_attribute_only"),
        mean("auroc.vs_object_only"),
        mean("auroc.vs_neither"),
        mean("balanced_accuracy"),
        _decimal(results_lib.interval(method, "recovered").mean, digits=2),
    )


def _leaderboard(results: results_lib.Results) -> list[str]:
    lines = [f"{'All pairs':<{_NAME_WIDTH}}{'kind':<15}{'mean of worst AUROC':>20}{'pairs':>7}"]
    for name, kind, mean, count in leaderboard(results):
        lines.append(f"{_cut('  ' + name):<{_NAME_WIDTH}}{kind:<15}{_decimal(mean):>20}{count:>7}")
    return lines


def leaderboard(results: results_lib.Results) -> list[tuple[str, str, float, int]]:
    """Every method's figure of merit averaged over the pairs, best first: (name, kind, mean, pairs)."""
    rows: dict[str, tuple[str, list[float]]] = {}
    for pair in results.pairs():
        for name, method in results_lib.methods_in_order(pair):
            means = rows.setdefault(name, (str(method.get("kind") or "other"), []))[1]
            value = results_lib.merit(pair, name)
            if value.known:
                means.append(value.mean)
    board = [
        (name, kind, sum(means) / len(means) if means else math.nan, len(means))
        for name, (kind, means) in rows.items()
    ]
    return sorted(board, key=lambda row: -row[2] if math.isfinite(row[2]) else math.inf)


def _count(value: object) -> str:
    value = results_lib.number(value)
    return f"{value:.0f}" if math.isfinite(value) else "-"


def _decimal(value: float, digits: int = 3) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-"


def _cut(name: str) -> str:
    return name if len(name) < _NAME_WIDTH else f"{name[: _NAME_WIDTH - 2]}~"
