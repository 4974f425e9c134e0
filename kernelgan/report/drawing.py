"""What the figures share: colours, marks, rows of methods, heat maps, the plot of utility and novelty."""

from __future__ import annotations

import io
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.evaluation.verdict import COPY
from kernelgan.report import prose
from kernelgan.results import KINDS, NOTHING, Measured, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8F98"
INK, FAINT = "#1f2933", "#d5dae1"

_COLORS = (GREY, SKY, PURPLE, VERMILLION, BLUE, GREEN, ORANGE, BLACK)
KIND_STYLE = dict(zip(KINDS, zip(_COLORS, "os^Dv<PX", strict=True), strict=True))
QUADRANT_STYLE = ((VERMILLION, "D"), (BLUE, "s"), (ORANGE, "^"), (GREY, "o"), (PURPLE, "x"))
CLUSTER_STYLE = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"), (BLACK, "x"), (SKY, "v"))
LINES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (ORANGE, ":"), (PURPLE, (0, (5, 1))), (SKY, "-"))

_RC: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e9ecf0",
    "legend.frameon": False,
    "legend.fontsize": 8,
}
WIDTH = 9.0  # inches


class MissingError(LookupError):
    """The run did not leave what a figure needs; the message says what."""


def png(draw: Callable[[], Figure]) -> bytes:
    """Draws a figure and gives it as a PNG file."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns that it builds its cache
    try:
        import matplotlib
    except ValueError:  # MPLBACKEND is of no backend; none is used here
        del os.environ["MPLBACKEND"]
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own matplotlibrc asks for, such as text.usetex
        matplotlib.rcParams.update(_RC)
        figure, stream = draw(), io.BytesIO()
        options: dict[str, Any] = {"dpi": 140, "bbox_inches": "tight", "metadata": {"Software": None}}
        options["pil_kwargs"] = {"compress_level": 0}  # it is packed with its palette below
        figure.savefig(stream, format="png", pad_inches=0.08, **options)
    return _fewer_colors(stream)


def _fewer_colors(stream: io.BytesIO) -> bytes:
    """The picture with a palette, a third of its size; rare colours, such as a single mark's, are kept."""
    from PIL import Image

    few, picture = io.BytesIO(), Image.open(stream).convert("RGB")
    picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(few, "png", optimize=True)
    return few.getvalue()


def new(width: float, height: float) -> Figure:
    """A figure outside pyplot's global state; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def trial() -> Figure:
    """A figure with text, to see whether figures can be drawn."""
    figure = new(1, 1)
    figure.add_subplot().set_title("$x^2$")
    return figure


def strips(
    record: Measured, rows: Sequence[Row], values: Mapping[str, np.ndarray], what: str, band: bool = False
) -> Figure:
    """A row for each method: its values scattered, its mean with its interval, and that as text.

    Args:
      record: with the figures of merit; the yardstick and the reference become lines.
      rows: the methods, from the top.
      values: by method, any shape.
      what: is along x.
      band: whether to shade where 95% of the floor's values lie.
    """
    if not rows:
        raise MissingError(f"no method has a {prose.merit_title(record)}")
    figure = new(WIDTH, 1.15 + 0.32 * len(rows))
    axes = figure.add_subplot()
    _draw_goals(record, axes.axvline)
    null = finite(values.get(record.verdict.floor, np.zeros(0)))
    if band and null.size > 1:
        axes.axvspan(*np.percentile(null, [2.5, 97.5]), color=GREY, alpha=0.18, lw=0)
    for y, row in enumerate(rows):
        color, marker = KIND_STYLE[row.kind]
        spots, mean = finite(values.get(row.name, np.zeros(0))), record.figure(row.name)
        jitter = (np.arange(spots.size) * 0.61803 % 1 - 0.5) * 0.5
        axes.scatter(spots, y + jitter, s=7, color=color, alpha=0.35, marker=marker, lw=0, zorder=2)
        axes.plot([mean.low, mean.high], [y, y], color=INK, lw=2.2, zorder=4)
        mark_mean(axes, mean.mean, y, row.kind)
        weight = "bold" if row.kind == "generated" else "normal"
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axes.text(1.012, y, mean.text(), weight=weight, **place)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"{what}; large mark and bar: mean, 95% interval")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", zorder=0)
    for kind in dict.fromkeys(row.kind for row in rows):
        color, marker = KIND_STYLE[kind]
        axes.plot([], [], color=color, marker=marker, ls="", ms=6, mec=INK, mew=0.5, label=kind)
    figure.legend(loc="outside upper center", ncols=5)
    return figure


def _draw_goals(record: Measured, line: Callable[..., Any]) -> None:
    """What a generated network should come up to, as lines with labels."""
    for name, dashes in ((record.verdict.yardstick, "--"), (record.verdict.reference, ":")):
        if record.figure(name).known:
            color, row = KIND_STYLE[record.methods[name].kind][0], record.methods[name]
            line(record.figure(name).mean, color=color, ls=dashes, lw=1.4, label=row.label or name, zorder=1)


def mark_mean(axes: Axes, x: float, y: float, kind: str) -> None:
    """The large mark of a mean, in the colour and shape of the method's kind."""
    color, marker = KIND_STYLE[kind]
    edge = "white" if color == BLACK else INK
    axes.plot(x, y, marker=marker, ms=7, ls="", zorder=5, mfc=color, mec=edge, mew=0.8)


def novelty_plot(record: Measured, clouds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """The plot of utility and novelty of one pair, or of all; names stand to the right, in order."""
    points = [(row, row.novelty.get("distance", NOTHING), record.figure(row.name)) for row in record.ranked()]
    points = [point for point in points if point[1].known]
    if not points:
        raise MissingError("no method has both a novelty and a figure of merit")
    figure = new(WIDTH, 5.2)
    axes = figure.add_subplot()
    axes.axvspan(-9, COPY, color=GREY, alpha=0.18, lw=0, zorder=0, label="copy of a parent")
    _draw_goals(record, axes.axhline)
    for row, far, score in points:
        color, marker = KIND_STYLE[row.kind]
        if row.name in clouds:
            axes.scatter(*clouds[row.name], s=9, color=color, marker=marker, alpha=0.22, lw=0, zorder=2)
        axes.plot([far.low, far.high], [score.mean] * 2, color=INK, lw=1.1, zorder=4)
        axes.plot([far.mean] * 2, [score.low, score.high], color=INK, lw=1.1, zorder=4)
        mark_mean(axes, far.mean, score.mean, row.kind)
    ends = np.concatenate([[far.mean for _, far, _ in points], *(finite(far) for far, _ in clouds.values())])
    right = max(1.25, 1.06 * ends.max())
    axes.set(xlim=(-0.06, right), ylabel=prose.merit_title(record))
    axes.set_xlabel("distance from the nearest parent (1: a parent's distance from its nearest fellow)")
    axes.axvline(1.0, color=FAINT, lw=1, zorder=0)
    axes.grid(axis="y", zorder=0)
    low, high = axes.get_ylim()
    step, place = (high - low) / max(24, len(points)), high
    for left, (row, far, score) in enumerate(points):
        place = max(min(place - step, score.mean), low + step * (len(points) - 1 - left))
        axes.annotate(
            row.name,
            (far.mean, score.mean),
            (1.03 * right, place),
            fontsize=8,
            weight="bold" if row.kind == "generated" else "normal",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkB": 4, "relpos": (0, 0.5)},
        )
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def heat_maps(
    figure: Figure,
    maps: Mapping[str, np.ndarray],
    columns: int,
    labels: tuple[Sequence[str], Sequence[str]],
    ends: tuple[float, float],
    diverging: bool = False,
) -> None:
    """Heat maps with their numbers written in; a place without a number is blank.

    Args:
      figure: to draw in.
      maps: by title.
      columns: of maps.
      labels: of the rows and of the columns of each map.
      ends: of the common scale.
      diverging: whether the scale is about zero.
    """
    low, high = ends
    panels = np.asarray(figure.subplots(math.ceil(len(maps) / columns), columns, squeeze=False))
    for axes in panels.flat[len(maps) :]:
        axes.set_visible(False)
    for axes, (name, values) in zip(panels.flat, maps.items(), strict=False):
        axes.imshow(values, cmap="PuOr" if diverging else "cividis", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                share = (value - low) / (high - low)
                # cividis is mid-grey halfway up; PuOr is dark at both ends.
                dark = abs(share - 0.5) > 0.36 if diverging else share < 0.48
                text = f"{value + 0.0:{'+' if diverging else ''}.2f}"
                style: dict[str, Any] = {"color": "white" if dark else "black", "fontsize": 7.5}
                axes.text(column, row, text, ha="center", va="center", **style)
        axes.set_title(name, fontsize=8.5)
        axes.set_yticks(range(len(labels[0])), labels[0], fontsize=7.5)
        turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor", "fontsize": 7.5}
        axes.set_xticks(range(len(labels[1])), labels[1], **turned)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)


def bare(axes: Axes, frame: bool = False) -> None:
    """Takes ticks and, unless told otherwise, the frame off axes."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(frame)


def finite(values: np.ndarray) -> np.ndarray:
    """The finite values, flat, as float64."""
    values = np.asarray(values, np.float64).ravel()
    return values[np.isfinite(values)]
