"""The tables as text."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import rows, stopwatch
from benchmarks.rows import Row

HEADINGS = {
    rows.ONE_CORE: "one pinned core; compared by CPU time",
    rows.ALL_CORES: "all cores; compared by the clock",
    rows.DEVICES: "all cores, each a JAX device of its own; compared by the clock",
    rows.GPU: "GPU; compared by the clock",
}


def figure(value: float | None, unit: str = "") -> str:
    """Three digits that say something, or a dash."""
    if value is None:
        return "-"
    if value != value:
        return "NaN"
    digits = 0 if abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2 if abs(value) >= 0.0995 else 4
    return f"{value:,.{digits}f}{unit}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.0f}%"


def duration(seconds: float | None) -> str:
    """Such as ``2 h 10 min``."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return figure(seconds, " s")
    minutes = round(seconds / 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def columns(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Aligned: the first column to the left, the others to the right."""
    everything = [head, *lines]
    widths = [max(len(line[n]) for line in everything) for n in range(len(head))]
    text = []
    for first, *others in everything:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        text.append("  ".join([first.ljust(widths[0]), *cells]))
    text.insert(1, "-" * len(text[0]))
    return "\n".join(line.rstrip() for line in text)


def _check(row: Row) -> str:
    if row.status == rows.RIGHT and row.error is not None:
        return f"right ({row.error:.0e})"
    return row.status


def _contest(found: Sequence[Row]) -> Iterator[str]:
    """Rows of one section and mode: times, limit, ratios, check."""
    ratios = list(dict.fromkeys(name for row in found for name in row.ratios))
    cpu, zoo = found[0].mode != rows.GPU, any("whole_zoo_s" in row.details for row in found)
    head = ["", *(["ms CPU"] if cpu else []), "ms wall", "GFLOP/s", "of limit", *ratios]
    head += [*(["whole zoo"] if zoo else []), "compiled in", "result"]
    lines, reasons = [], []
    for row in found:
        if row.reason:
            reasons.append(f"  {row.name}: {row.status}, {row.reason}")
        if parts := row.details.get("seconds_of"):
            words = [f"{part} {figure(seconds, ' s')}" for part, seconds in parts.items()]
            reasons.append(f"  {row.name}: {', '.join(words)}")
        lines.append(
            [
                row.name,
                *([figure(stopwatch.median(row.cpu_rounds))] if cpu else []),
                figure(stopwatch.median(row.wall_rounds)),
                figure(row.gflop_per_s),
                percent(row.limit_share),
                *(figure(row.ratios.get(name)) for name in ratios),
                *([duration(row.details.get("whole_zoo_s"))] if zoo else []),
                figure(row.compile_s, " s"),
                _check(row),
            ]
        )
    yield f"milliseconds a {found[0].unit}; {HEADINGS[found[0].mode]}"
    yield columns(head, lines)
    yield from reasons


def _gigabytes(row: Row, name: str) -> str:
    return figure(row.details[name] / 1e9, " GB") if name in row.details else "-"


def _growth(found: Sequence[Row]) -> Iterator[str]:
    """Seconds and memory against each quantity; compilation against the number of models."""
    quantities = list(dict.fromkeys(row.details.get("quantity", "") for row in found))
    for quantity in quantities:
        of_it = [row for row in found if row.details.get("quantity", "") == quantity]
        if quantity == "compilation":
            few = min(of_it, key=lambda row: row.details["size"])
            lines = [
                [
                    f"{row.details['size']:,} models",
                    figure((stopwatch.median(row.wall_rounds) or 0) / 1e3, " s"),
                    figure(stopwatch.ratio(row.wall_rounds, few.wall_rounds)),
                ]
                for row in of_it
            ]
            yield columns(["compilation alone", "seconds", "times the first"], lines) + "\n"
            continue
        lines = [
            [
                f"{row.details['size']:,}" if quantity else row.name,
                figure(row.details.get("seconds"), " s"),
                _gigabytes(row, "peak_bytes"),
                _gigabytes(row, "peak_bytes_before"),
                figure(row.compile_s, " s"),
                row.reason or "",
            ]
            for row in of_it
        ]
        yield (
            columns(
                [quantity or "failed", "a step of all", "peak memory", "before", "compiled in", ""], lines
            )
            + "\n"
        )


def _start(found: Sequence[Row]) -> Iterator[str]:
    lines = [
        [
            row.name,
            figure(None if not row.wall_rounds else (stopwatch.median(row.wall_rounds) or 0) / 1e3, " s"),
            figure(row.details.get("python_s"), " s"),
            figure(row.details.get("import_s"), " s"),
            figure(row.compile_s, " s"),
            figure(row.details.get("first_step_s"), " s"),
            row.reason or str(len(row.wall_rounds)),
        ]
        for row in found
    ]
    head = ["start", "to the first step", "python", "imports", "compilation", "the step itself", "starts"]
    yield columns(head, lines)


def section(name: str, found: Sequence[Row]) -> str:
    """A section's tables, one for each mode."""
    parts = [f"== {name} " + "=" * max(0, 100 - len(name))]
    for mode in dict.fromkeys(row.mode for row in found):
        in_mode = [row for row in found if row.mode == mode]
        if name == "growth":
            parts += list(_growth(in_mode))
        elif name == "start":
            parts += list(_start(in_mode))
        else:
            for unit in dict.fromkeys(row.unit for row in in_mode):
                parts += [*_contest([row for row in in_mode if row.unit == unit]), ""]
    return "\n".join(parts).rstrip() + "\n"


def goals(judged: Sequence[dict[str, Any]]) -> str:
    """The goals and whether they are met."""
    lines = [
        [
            goal["goal"],
            f"{'at most' if goal['at_most'] else 'at least'} {figure(goal['target'], ' ' + goal['unit'])}",
            figure(goal["figure"], " " + goal["unit"]),
            goal["verdict"],
        ]
        for goal in judged
    ]
    return "== goals " + "=" * 95 + "\n" + columns(["", "goal", "here", ""], lines) + "\n"


def head(described: dict[str, Any], suite: str, quick: bool) -> str:
    """What the figures belong to."""
    machine, versions = described["machine"], described["versions"]
    bits = f", {machine['vector_bits']}-bit vectors" if machine["vector_bits"] else ""
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    words = [
        f"kernelgan benchmarks, suite {suite}{' (quick: the figures mean nothing)' if quick else ''},"
        f" {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        f"{machine['cpu']}, {machine['cores']} cores{bits}{gpu}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        "float32 unless a row says TF32; ratios are medians of the rounds', and above 1 is faster",
    ]
    return "\n".join(words) + "\n"
