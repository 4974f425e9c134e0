"""The figures of all pairs of a run, each drawn from what the run saved only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.report import metrics, prose
from kernelgan.report.drawing import (
    INK,
    KIND_STYLE,
    WIDTH,
    MissingError,
    bare,
    finite,
    heat_maps,
    new,
    novelty_plot,
    strip,
    strip_axes,
    yardsticks,
)
from kernelgan.results import KINDS, Measured, Run, Statistic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def leaderboard(run: Run) -> Figure:
    """Every method over all pairs, best first: mean and 95% interval; small marks are single pairs.

    The dashed line is both parents run side by side, the dotted line the ceiling.
    """
    overall, rows = run.overall, run.overall.ranked() if run.overall else []
    if overall is None or not rows:
        raise MissingError("results.json has no overall figures of merit")
    figure = new(WIDTH, 1.15 + 0.3 * len(rows))
    axes = figure.add_subplot()
    for name, color, dashes, height in yardsticks(overall):
        axes.axvline(height, color=color, ls=dashes, lw=1.3, label=overall.methods[name].label or name)
    chance = metrics.chance(f"auroc.{overall.merit}", {})
    axes.axvline(chance, color=INK, lw=0.8, alpha=0.5)
    for y, row in enumerate(rows):
        generated = row.kind == "generated"
        if generated:
            axes.axhspan(y - 0.5, y + 0.5, color=KIND_STYLE[row.kind][0], alpha=0.10, lw=0, zorder=0)
        singles = finite(np.array([pair.figure(row.name).mean for pair in run.pairs]))
        strip(axes, y, row.kind, singles, overall.figure(row.name), alpha=0.28, strong=generated)
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axes.text(
            -0.012, y, prose.in_words(row), ha="right", weight="bold" if generated else "normal", **place
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    what = f"{prose.merit_title(overall)}, mean over {overall.pairs} pairs with 95% interval"
    strip_axes(axes, len(rows), f"{what} ({chance:g}: chance); one small mark a pair")
    for kind in (kind for kind in KINDS if any(row.kind == kind for row in rows)):
        color, marker = KIND_STYLE[kind]
        axes.plot([], [], color=color, marker=marker, ls="", ms=6, mec=INK, mew=0.5, label=kind)
    figure.legend(loc="outside upper center", ncols=5)
    return figure


def novelty_overall(run: Run) -> Figure:
    """As `novelty`, over all pairs: a large mark is a method's mean over pairs, a faint mark a pair."""
    if run.overall is None:
        raise MissingError("results.json has no overall figures of merit")
    clouds = {}
    for row in run.overall.ranked():
        having = [pair for pair in run.pairs if row.name in pair.methods]
        far = [pair.methods[row.name].novelty.get("distance", Statistic()).mean for pair in having]
        clouds[row.name] = (np.array(far), np.array([pair.figure(row.name).mean for pair in having]))
    return novelty_plot(run.overall, clouds)


def matrix_methods(run: Run) -> list[str]:
    """The methods whose matrix is in the page: the floor, the best of some kinds, and what to come up to."""
    record: Measured = run.overall or run.pairs[0]
    best = [row.name for kind in ("merge", "generated", "trained apart") for row in _best_of(record, kind)]
    roles = record.verdict
    wanted = {roles.floor, roles.yardstick, roles.ceiling, *best}
    return [name for name in record.methods if name in wanted]


def matrix(run: Run) -> Figure:
    """Mean figure of merit for every attribute and object, one heat map a method; pairs not run are blank."""
    return _matrix(run, matrix_methods(run))


def matrix_others(run: Run) -> Figure:
    """The same of all other methods."""
    shown = matrix_methods(run)
    return _matrix(run, [name for name in (run.overall or run.pairs[0]).methods if name not in shown])


def differences(run: Run) -> Figure:
    """Figure of merit of the best generated method minus the best merge's and minus the yardstick's.

    It is the best over all pairs, the same in each: a best of each pair would be picked on its test images.
    That is what is shown without a record of all pairs. The scale is about zero: orange where the generated
    networks are behind, purple where they are ahead.
    """
    record: Measured = run.overall or run.pairs[0]
    rivals = [*(row.name for row in _best_of(record, "merge")), record.verdict.yardstick]
    maps = {}
    for rival in rivals:
        gaps = {
            pair.key: pair.figure(best_over_pairs(run) or pair.verdict.best).mean - pair.figure(rival).mean
            for pair in run.pairs
        }
        maps[f"{best_over_pairs(run) or 'best of each pair'} minus {rival}"] = _pair_map(run, gaps)
    maps = {title: values for title, values in maps.items() if np.isfinite(values).any()}
    if not maps:
        raise MissingError("no pair has a generated method and one to compare it with")
    largest = max(float(np.nanmax(np.abs(values))) for values in maps.values()) or 1.0
    return _maps(run, maps, (-largest, largest), diverging=True)


def best_over_pairs(run: Run) -> str:
    """The generated method that is best over all pairs; "" where the run has no record of them together."""
    return run.overall.verdict.best if run.overall else ""


def contact_sheet(run: Run) -> Figure:
    """A sample of the data, row by row."""
    sheet = run.arrays.get("contact_sheet")
    if sheet is None or sheet.ndim != 5 or not sheet.size:
        raise MissingError("arrays.npz has no contact_sheet")
    rows, columns, height, width = sheet.shape[:4]
    gap = max(1, height // 16)
    padded = np.pad(sheet, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    canvas = padded.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), 3)[:-gap, :-gap]
    figure = new(WIDTH, min(12.0, WIDTH * canvas.shape[0] / canvas.shape[1]) + 0.3)
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    bare(axes)
    told = run.data.contact_sheet
    if len(told.rows) == rows:
        axes.set_yticks(np.arange(rows) * (height + gap) + height / 2, told.rows)
    if len(told.columns) == columns:
        axes.set_xticks(np.arange(columns) * (width + gap) + width / 2, told.columns)
        axes.xaxis.tick_top()
        if max(map(len, told.columns)) > 90 / columns:
            axes.tick_params(axis="x", rotation=40)
    axes.tick_params(length=0)
    return figure


def _best_of(record: Measured, kind: str) -> list[Any]:
    return [row for row in record.ranked() if row.kind == kind][:1]


def _matrix(run: Run, methods: Sequence[str]) -> Figure:
    maps = {
        name: _pair_map(run, {pair.key: pair.figure(name).mean for pair in run.pairs}) for name in methods
    }
    maps = {name: values for name, values in maps.items() if np.isfinite(values).any()}
    if not maps:
        raise MissingError("no pair has a figure of merit of these methods")
    low = min(float(np.nanmin(values)) for values in maps.values())
    high = max(float(np.nanmax(values)) for values in maps.values())
    return _maps(run, maps, (low, max(high, low + 1e-6)))


def _places(run: Run) -> tuple[list[str], list[str]]:
    """The attributes and the objects of a run, each sorted by name."""
    return (
        sorted({pair.pair.attribute for pair in run.pairs}),
        sorted({pair.pair.object for pair in run.pairs}),
    )


def _pair_map(run: Run, values: Mapping[str, float]) -> np.ndarray:
    """``(attributes, objects)``: a number of every pair, by its key; NaN where there was no such pair."""
    attributes, objects = _places(run)
    found = np.full((len(attributes), len(objects)), np.nan)
    for pair in run.pairs:
        found[attributes.index(pair.pair.attribute), objects.index(pair.pair.object)] = values[pair.key]
    return found


def _maps(
    run: Run, maps: Mapping[str, np.ndarray], ends: tuple[float, float], diverging: bool = False
) -> Figure:
    """Heat maps of attributes by objects on one scale."""
    attributes, objects = _places(run)
    most = 4 if len(objects) <= 4 else 3 if len(objects) <= 8 else 2
    columns = min(range(min(most, len(maps)), 0, -1), key=lambda each: (-len(maps) % each, -each))
    columns = columns if columns > 1 else min(most, len(maps))
    cell = min(max(WIDTH / columns / (len(objects) + 1.5), 0.24), 0.32)
    height = math.ceil(len(maps) / columns) * (cell * len(attributes) + 0.4) + 0.6
    figure = new(WIDTH if columns > 1 else WIDTH / max(1, min(most, 2)), height)
    heat_maps(figure, maps, columns, attributes, objects, ends, diverging)
    return figure
