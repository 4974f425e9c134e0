"""The table that a run prints: plain text, at most 110 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from kernelgan import results as results_lib
from kernelgan.report import tables

WIDTH = 110

_NAME_WIDTH = 24
_SCREEN = 24  # lines


def table(results: results_lib.Results) -> str:
    """The results as text: the answer in words, methods with 95% intervals, and what the answer rests on.

    One pair has its methods by kind; several have a leaderboard over all and a line each. The answer comes
    first and, where that has left the screen, again last.

    Args:
      results: as `results.read_results` gives them.

    Returns:
      Lines of at most `WIDTH` characters, joined; no trailing newline. A dash is what was not measured.
    """
    pairs = results.pairs()
    first, *rest = results_lib.summary(results)
    lines = [*wrapped([first]), ""]
    if len(pairs) == 1:
        lines += _pair_table(pairs[0])
    else:
        overall = results.document.get("overall")
        lines += [*_leaderboard(overall), ""] if overall else []
        lines += _pairs_table(pairs)
    lines += ["", *wrapped([first, *rest] if len(lines) > _SCREEN else rest)]
    skipped = results.document.get("skipped") or ()
    if skipped:
        lines += wrapped([_skipped(skipped)])
    return "\n".join(line.rstrip() for line in lines)


def wrapped(sentences: Sequence[str]) -> list[str]:
    """Sentences folded to `WIDTH`, what runs over indented."""
    return [line for text in sentences for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ") or [""]]


def _pair_table(pair: Mapping[str, Any]) -> list[str]:
    path = results_lib.merit_path(pair)
    worst = path == "auroc.worst"
    best = results_lib.best_generated(pair)
    tests = (pair.get("tests") or {}).get(best) or {}
    head = ["params", "worst AUROC [95%]" if worst else "AUROC vs rest [95%]"]
    head += ["attr", "obj", "none"] if worst else []
    head += ["right", "found", "recov", "best gen. -"]
    rows: list[tuple[str, list[str]]] = [("method", head)]
    kind: object = ""
    for name, method in results_lib.methods_in_order(pair):
        if method.get("kind") != kind:
            kind = method.get("kind")
            rows.append((str(kind or "other"), []))
        rows.append((f"{'>' if name == best else ' '} {name}", _cells(method, path, tests.get(name))))
    title = f"{results_lib.pair_title(pair)}: mean over {_networks(pair)}networks [95%], on the test images"
    note = (
        (
            "attr, obj, none: AUROC against images of the attribute alone, the object alone, neither; the "
            "lowest counts. "
            if worst
            else ""
        )
        + "right: share answered rightly, the four quadrants counting the same: always answering no gets "
        "0.75. found: share of the conjunction's images answered yes. recov (recovered): share of the way "
        "from random (0) to trained_on_conjunction (1). best gen. -: the best generated method (>) minus "
        "this one, with its corrected p."
    )
    return [*textwrap.wrap(title, WIDTH), *_aligned(rows), *wrapped([note])]


def _networks(pair: Mapping[str, Any]) -> str:
    """``8 `` or ``8 to 16 ``: how many networks a method had; "" where that is not known."""
    counts = [results_lib.number(method.get("networks")) for method in pair["methods"].values()]
    counts = [count for count in counts if count > 1]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low:.0f} " if low == high else f"{low:.0f} to {high:.0f} "


def _cells(method: Mapping[str, Any], path: str, test: object) -> list[str]:
    def mean(where: str, digits: int = 3) -> str:
        return _decimal(results_lib.interval(method, where).mean, digits)

    parts = ("vs_attribute_only", "vs_object_only", "vs_neither") if path == "auroc.worst" else ()
    return [
        _count(method.get("parameters")),
        results_lib.interval(method, path).text(),
        *(mean(f"auroc.{part}", 2) for part in parts),
        mean("balanced_accuracy", 2),
        mean("recall", 2),
        mean("recovered", 2),
        _difference(test),
    ]


def _difference(test: object) -> str:
    """``-0.107 p<0.001``."""
    difference = results_lib.interval(test, "difference")
    if not difference.known or not isinstance(test, Mapping):
        return "-"
    return f"{difference.mean:+.3f} {_p(test.get('p_adjusted')):<7}".rstrip()


def _p(value: object, missing: str = "") -> str:
    """``p<0.001``."""
    return results_lib.p_text(results_lib.number(value), missing).replace(" ", "")


def _leaderboard(overall: Mapping[str, Any]) -> list[str]:
    """Every method over all pairs, best first."""
    path = results_lib.merit_path(overall)
    head = ["kind", "worst AUROC [95%]" if path == "auroc.worst" else "AUROC vs rest [95%]"]
    rows = [("method", [*head, "recovered", "won", "lost", "p", "new"])]
    total = results_lib.number(overall.get("pairs"))
    fewer = []
    for name, method in results_lib.ranked(overall):
        against, kind = method.get("against") or {}, str(method.get("kind") or "other")
        mark = {"generated": ">", "two nets": "=", "ceiling": "="}.get(kind, " ")
        cells = [
            f"{kind:<13}",
            results_lib.interval(method, path).text(),
            _percent(results_lib.interval(method, "recovered")),
            _of_them(against, "wins"),
            _of_them(against, "losses"),
            _p(against.get("p_adjusted", against.get("p_value")), "-").removeprefix("p").removeprefix("="),
            _decimal(results_lib.interval(method, "novelty.distance").mean, digits=2),
        ]
        rows.append((f"{mark} {name}", cells))
        count = results_lib.number(method.get("pairs"))
        if math.isfinite(count) and count != total:
            fewer.append(f"{name} {count:.0f}")
    note = (
        ">: generated; =: what it should come up to. won, lost: pairs in which it is above or below both "
        "parents run side by side (and_ensemble), in brackets those that are clear after correction for the "
        "number of pairs; p: of the difference over all pairs, for generated methods times their number, as "
        "the best of them is reported. "
        f"{tables.TRAINED_ONCE} recovered: % of the way from random to trained_on_conjunction. new "
        "(novelty): distance from the nearest parent, 1 is as far as a parent is from its nearest fellow, "
        f"under {results_lib.COPY} a copy."
    )
    if fewer:
        note += f" Not measured on all pairs: {', '.join(fewer)}."
    return [
        f"Over {total:.0f} pairs, best first [95% interval over pairs]",
        *_aligned(rows),
        *wrapped([note]),
    ]


def _pairs_table(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each pair."""
    rows = [("pair", ["images", "composes?", "best generated", "", "and_ensemble", "ceiling"])]
    for pair in pairs:
        best = results_lib.best_generated(pair)
        test = (pair.get("data") or {}).get("test") or {}
        cells = [
            _count(test.get("a&o")),
            results_lib.answer(pair),
            _cut(best or "-"),
            _decimal(results_lib.merit(pair, best).mean) if best else "-",
            _decimal(results_lib.merit(pair, "and_ensemble").mean),
            _decimal(results_lib.merit(pair, "trained_on_conjunction").mean),
        ]
        rows.append((results_lib.pair_title(pair), cells))
    note = (
        f"images: of the conjunction, in the test set. Figures: mean {results_lib.merit_name(pairs[0])}. All "
        "that was measured on each pair is in the report."
    )
    return [*_aligned(rows), *wrapped([note])]


def _skipped(skipped: Sequence[Mapping[str, Any]], most: int = 3) -> str:
    """How many pairs were skipped, and the first reasons."""
    named = [
        f"{pair.get('attribute')} {pair.get('object')} ({pair.get('reason') or 'no reason given'})"
        for pair in skipped[:most]
    ]
    more = f", and {len(skipped) - most} more in the report" if len(skipped) > most else ""
    return f"Skipped {len(skipped)}: {', '.join(named)}{more}."


def _aligned(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Rows with their cells right-aligned, between rules; the first is the head, a lone name a group."""
    count = max(len(cells) for _, cells in rows)
    widths = [max(len(cells[i]) for _, cells in rows if cells) for i in range(count)]
    gap = "  " if _NAME_WIDTH + sum(widths) + 2 * count <= WIDTH else " "
    lines = []
    for name, cells in rows:
        text = gap.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=False))
        lines.append(f"{_cut(name):<{_NAME_WIDTH}}{gap}{text}".rstrip())
    rule = "-" * max(len(line) for line in lines)
    return [rule, lines[0], rule, *lines[1:], rule]


def _of_them(against: Mapping[str, Any], what: str) -> str:
    """``31 (12)``: so many, and how many of them clear."""
    count = _count(against.get(what))
    return count if count == "-" else f"{count} ({_count(against.get(f'clear_{what}'))})"


def _percent(share: results_lib.Interval) -> str:
    """``31% [22, 40]``."""
    if not share.known:
        return "-"
    ends = f" [{100 * share.low:.0f}, {100 * share.high:.0f}]" if share.bounded else ""
    return f"{100 * share.mean:.0f}%{ends}"


def _count(value: object) -> str:
    value = results_lib.number(value)
    return f"{value:.0f}" if math.isfinite(value) else "-"


def _decimal(value: float, digits: int = 3) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else "-"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}~"
