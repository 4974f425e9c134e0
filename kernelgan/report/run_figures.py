"""The figures of all pairs of a run, each drawn from what the run saved only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from kernelgan.report import prose
from kernelgan.report.drawing import WIDTH, MissingError, bare, heat_maps, new, novelty_plot, strips
from kernelgan.results import NOTHING, Measured, Pair, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def leaderboard(run: Run) -> Figure:
    """Every method over all pairs, best first: mean and 95% interval; small marks are single pairs."""
    assert run.overall is not None
    rows = run.overall.ranked()
    values = {row.name: np.array([pair.figure(row.name).mean for pair in run.pairs]) for row in rows}
    return strips(run.overall, rows, values, f"{prose.merit_title(run.overall)}: one small mark a pair")


def novelty_overall(run: Run) -> Figure:
    """As `pair_figures.novelty`, over all pairs: large marks are means over pairs, faint marks pairs."""
    assert run.overall is not None
    clouds = {}
    for row in run.overall.ranked():
        having = [pair for pair in run.pairs if row.name in pair.methods]
        far = [pair.methods[row.name].novelty.get("distance", NOTHING).mean for pair in having]
        clouds[row.name] = (np.array(far), np.array([pair.figure(row.name).mean for pair in having]))
    return novelty_plot(run.overall, clouds)


def matrix(run: Run) -> Figure:
    """Mean figure of merit for every attribute and object, a heat map for each method."""
    record: Measured = run.overall or run.pairs[0]
    maps = {name: {pair.key: pair.figure(name).mean for pair in run.pairs} for name in record.methods}
    return _maps(run, maps, diverging=False)


def differences(run: Run) -> Figure:
    """Figure of merit of the best generated method minus the best merge's and minus the yardstick's.

    It is the best over all pairs, or each pair's own where the run has no record of them together.
    """
    record: Measured = run.overall or run.pairs[0]
    merges = [row.name for row in record.ranked() if row.kind == "merge"]
    rivals = [*merges[:1], record.verdict.yardstick]

    def gap(pair: Pair, rival: str) -> float:
        best = run.overall.verdict.best if run.overall else pair.verdict.best
        return pair.figure(best).mean - pair.figure(rival).mean

    best = run.overall.verdict.best if run.overall else "best of each pair"
    maps = {f"{best} minus {rival}": {pair.key: gap(pair, rival) for pair in run.pairs} for rival in rivals}
    return _maps(run, maps, diverging=True)


def contact_sheet(run: Run) -> Figure:
    """A sample of the data, row by row."""
    if "contact_sheet" not in run.arrays:
        raise MissingError("arrays.npz has no contact_sheet")
    sheet = run.arrays["contact_sheet"]
    rows, columns, height, width = sheet.shape[:4]
    gap = max(1, height // 16)
    padded = np.pad(sheet, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    canvas = padded.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), 3)[:-gap, :-gap]
    figure = new(WIDTH, min(12.0, WIDTH * canvas.shape[0] / canvas.shape[1]) + 0.3)
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    bare(axes)
    told = run.data.contact_sheet
    if told.get("rows"):
        axes.set_yticks(np.arange(rows) * (height + gap) + height / 2, told["rows"])
    if told.get("columns"):
        axes.set_xticks(np.arange(columns) * (width + gap) + width / 2, told["columns"], rotation=40)
        axes.xaxis.tick_top()
    axes.tick_params(length=0)
    return figure


def _maps(run: Run, figures: Mapping[str, Mapping[str, float]], diverging: bool) -> Figure:
    """Heat maps of attributes by objects on one scale, of figures by title and the pairs' keys."""
    attributes = sorted({pair.pair.attribute for pair in run.pairs})
    objects = sorted({pair.pair.object for pair in run.pairs})
    maps = {}
    for title, values in figures.items():
        filled = np.full((len(attributes), len(objects)), np.nan)
        for pair in run.pairs:
            filled[attributes.index(pair.pair.attribute), objects.index(pair.pair.object)] = values[pair.key]
        if np.isfinite(filled).any():
            maps[title] = filled
    if not maps:
        raise MissingError("no pair has a figure of merit of these methods")
    every = np.array(list(maps.values()))
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    largest = max(abs(low), abs(high), 1e-6)
    columns = min(len(maps), 4 if len(objects) <= 4 else 3)
    height = math.ceil(len(maps) / columns) * (0.3 * len(attributes) + 0.9)
    figure = new(WIDTH * max(columns, 2) / 3 if columns < 3 else WIDTH, height + 0.4)
    ends = (-largest, largest) if diverging else (low, max(high, low + 1e-6))
    heat_maps(figure, maps, columns, (attributes, objects), ends, diverging)
    return figure
