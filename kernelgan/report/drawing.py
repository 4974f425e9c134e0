"""What the figures share: colours, marks, rows of methods, heat maps, the plot of utility and novelty."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.evaluation.verdict import COPY
from kernelgan.report import prose
from kernelgan.report.labels import label_points
from kernelgan.results import KINDS, Measured, Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8F98"
INK, FAINT = "#1f2933", "#d5dae1"

_STYLES = (
    (GREY, "o"),
    (SKY, "s"),
    (PURPLE, "^"),
    (VERMILLION, "D"),
    (BLUE, "v"),
    (GREEN, "<"),
    (ORANGE, "P"),
)
KIND_STYLE = dict(zip(KINDS, (*_STYLES, (BLACK, "X")), strict=True))
QUADRANT_STYLE = ((VERMILLION, "D"), (BLUE, "s"), (ORANGE, "^"), (GREY, "o"), (PURPLE, "x"))
CLUSTER_STYLE = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"), (BLACK, "x"), (SKY, "v"))
LINES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (ORANGE, ":"), (PURPLE, (0, (5, 1))), (SKY, "-"))

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
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
_DPI = 140
_SHOWN_NETWORKS = 60
_MAPS, _EMBEDDINGS, _COLUMNS_OF_KERNELS = 24, 4, 4


class MissingError(LookupError):
    """The run did not leave what a figure needs; the message says what."""


def png(draw: Callable[[], Figure]) -> bytes:
    """Draws a figure and gives it as a PNG file.

    Raises:
      MissingError: as the figure does.
    """
    import matplotlib

    with matplotlib.rc_context(_RC):
        figure, stream = draw(), io.BytesIO()
        figure.savefig(
            stream, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None}
        )
    return stream.getvalue()


def new(width: float, height: float) -> Figure:
    """A figure outside pyplot's global state; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def strip(
    axes: Axes, y: int, kind: str, values: np.ndarray, mean: Statistic, alpha: float, strong: bool = False
) -> None:
    """One method's row: its values scattered, its mean with its interval, and that as text."""
    color, marker = KIND_STYLE[kind]
    values = values[thinned(values.size, 300)]
    jitter = (np.arange(values.size) * 0.61803 % 1 - 0.5) * 0.5
    axes.scatter(values, y + jitter, s=7, color=color, alpha=alpha, marker=marker, lw=0, zorder=2)
    if mean.bounded:
        axes.plot([mean.low, mean.high], [y, y], color=INK, lw=2.2, zorder=4)
    mark_mean(axes, mean.mean, y, kind)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
    axes.text(1.012, y, mean.text(), weight="bold" if strong else "normal", **place)


def mark_mean(axes: Axes, x: float, y: float, kind: str) -> None:
    """The large mark of a mean, in the style of its kind."""
    color, marker = KIND_STYLE[kind]
    edge = "white" if color == BLACK else INK
    axes.plot(x, y, marker=marker, ms=7, ls="", zorder=5, mfc=color, mec=edge, mew=0.8)


def strip_axes(axes: Axes, rows: int, what: str) -> None:
    """Finishes the axes of so many `strip` rows; `what` is along x."""
    axes.set(ylim=(rows - 0.4, -0.6), xlabel=what)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", zorder=0)


def novelty_plot(record: Measured, clouds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """The plot of utility and novelty of one pair, or of all."""
    rows = [
        (row, row.novelty.get("distance", Statistic()), record.figure(row.name))
        for row in record.methods.values()
    ]
    rows = [one for one in rows if one[1].known and one[2].known]
    if not rows:
        raise MissingError("no method has both a novelty and a figure of merit")
    figure = new(WIDTH, 5.2)
    axes = figure.add_subplot()
    axes.axvspan(-9, COPY, color=GREY, alpha=0.18, lw=0, zorder=0)
    for row, far, score in rows:
        color, marker = KIND_STYLE[row.kind]
        if row.name in clouds:
            axes.scatter(*clouds[row.name], s=9, color=color, marker=marker, alpha=0.22, lw=0, zorder=2)
        if far.bounded:
            axes.plot([far.low, far.high], [score.mean] * 2, color=INK, lw=1.1, zorder=4)
        if score.bounded:
            axes.plot([far.mean] * 2, [score.low, score.high], color=INK, lw=1.1, zorder=4)
        mark_mean(axes, far.mean, score.mean, row.kind)
    lines = yardsticks(record)
    for _, color, dashes, height in lines:
        axes.axhline(height, color=color, ls=dashes, lw=1.4, zorder=1)
    ends = np.array([point for _, far, _ in rows for point in (far.mean, far.high)])
    ends = np.concatenate([finite(ends), *(finite(far) for far, _ in clouds.values())])
    low, high = axes.get_ylim()
    axes.set(xlim=(-0.06, max(1.25, 1.06 * ends.max())), ylim=(low, high + 0.05 * (high - low)))
    axes.axvline(1.0, color=FAINT, lw=1, zorder=0)
    axes.grid(axis="y", zorder=0)
    axes.set_xlabel("distance from the nearest parent (1: as far as a parent is from its nearest fellow)")
    axes.set_ylabel(prose.merit_title(record))
    corner: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": 8, "color": "#4a525c"}
    axes.text(COPY / 2, 0.985, "copy of a parent", ha="center", va="top", **corner)
    top = max((height for *_, height in lines), default=0.0)
    for name, _, _, height in lines:
        # The lower of the two has its label below its line, for they may be close.
        side, offset = ("bottom", (6, 2)) if height == top else ("top", (6, -2))
        style: dict[str, Any] = {"textcoords": "offset points", "va": side, "fontsize": 7.5}
        axes.annotate(prose.in_words(record.methods[name]), (COPY, height), offset, **style)
    named = {name for name, *_ in lines}
    label_points(
        axes,
        [
            (row.name, row.kind == "generated", far, score)
            for row, far, score in rows
            if row.name not in named
        ],
    )
    return figure


def yardsticks(record: Measured) -> list[tuple[str, str, str, float]]:
    """What a generated network should come up to, as lines: name, colour, dashes, figure of merit."""
    roles = ((record.verdict.yardstick, "--"), (record.verdict.ceiling, ":"))
    known = [(name, dashes) for name, dashes in roles if record.figure(name).known]
    return [
        (name, KIND_STYLE[record.methods[name].kind][0], dashes, record.figure(name).mean)
        for name, dashes in known
    ]


def heat_maps(
    figure: Figure,
    maps: Mapping[str, np.ndarray],
    columns: int,
    rows_named: Sequence[str],
    columns_named: Sequence[str],
    ends: tuple[float, float],
    diverging: bool = False,
) -> None:
    """Heat maps with their numbers written in; a place without a number is blank."""
    low, high = ends
    rows = math.ceil(len(maps) / columns)
    panels = np.asarray(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True))
    for index in range(len(maps), panels.size):  # left over: hidden, and the panel above keeps its labels
        panels.flat[index].set_visible(False)
        panels.flat[index - columns].tick_params(labelbottom=True)
    for axes, (name, values) in zip(panels.flat, maps.items(), strict=False):
        axes.imshow(values, cmap="PuOr" if diverging else "cividis", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                text = f"{value:{'+' if diverging else ''}.2f}".replace("-0.00", "+0.00")
                share = (value - low) / (high - low)
                # cividis is mid-grey halfway up; PuOr is dark at both ends.
                dark = abs(share - 0.5) > 0.36 if diverging else share < 0.48
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5}
                axes.text(column, row, text, color="white" if dark else "black", **place)
        axes.set_title(name, fontsize=8.5)
        axes.set_yticks(range(len(rows_named)), rows_named, fontsize=7.5)
        turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor", "fontsize": 7.5}
        axes.set_xticks(range(len(columns_named)), columns_named, **turned)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)


def rectangle(x: float, y: float, width: float, height: float, **style: Any) -> Any:  # noqa: ANN401
    """A rectangle to add to axes."""
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, **style)


def bare(axes: Axes, frame: bool = False) -> None:
    """Takes ticks and, unless told otherwise, the frame off axes."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(frame)


def thinned(size: int, most: int) -> np.ndarray:
    """At most so many of `size` indices, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(int)) if size else np.arange(0)


def finite(values: np.ndarray) -> np.ndarray:
    """The finite values, flat, as float64."""
    values = np.asarray(values, np.float64).ravel()
    return values[np.isfinite(values)]
