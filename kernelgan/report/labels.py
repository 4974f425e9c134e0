"""Labels of points in a plot, where no two overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.results import Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADII = (10.0, 16.0, 26.0, 38.0, 52.0, 70.0)  # points
_ANGLES = np.deg2rad((0, 180, 90, 270, 35, 145, 215, 325, 65, 115, 245, 295))


def label_points(axes: Axes, points: Sequence[tuple[str, bool, Statistic, Statistic]]) -> None:
    """Labels means where the text meets no other label, mean or interval, nor a text already there.

    Each takes the first free place about its mean, nearest first, or the place that meets least; a label that
    is not next to its mean gets a leader.

    Args:
      axes: with its limits set; its figure's layout is run here, so nothing may be added later.
      points: the label, whether it is bold, and the statistics along x and y.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke

    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    scale, frame = figure.dpi / 72, axes.get_window_extent(renderer)
    taken = [text.get_window_extent(renderer).padded(2) for text in axes.texts]
    for _, _, x, y in points:
        taken += _marks(axes, x, y, scale)
    places = axes.transData.transform([(x.mean, y.mean) for _, _, x, y in points])
    for (name, bold, x, y), place in sorted(zip(points, places, strict=True), key=lambda one: -one[1][1]):
        style: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 8,
            "weight": "bold" if bold else "normal",
            "zorder": 6,
            "path_effects": [withStroke(linewidth=2, foreground="white", alpha=0.8)],
        }
        text = axes.annotate(name, (x.mean, y.mean), (0, 0), **style)
        extent = text.get_window_extent(renderer)
        text.remove()
        box, radius = _free_place(place, extent.width, extent.height, taken, frame, scale)
        taken.append(box)
        leader = {"arrowstyle": "-", "color": "#8A8F98", "lw": 0.7, "shrinkA": 0, "shrinkB": 5}
        style |= {"va": "bottom", "arrowprops": leader if radius > _RADII[0] else None}
        axes.annotate(
            name, (x.mean, y.mean), ((box.x0 - place[0]) / scale, (box.y0 - place[1]) / scale), **style
        )


def _free_place(
    place: np.ndarray,
    width: float,
    height: float,
    taken: Sequence[Any],
    frame: Any,  # noqa: ANN401
    scale: float,
) -> tuple[Any, float]:
    """The box about a point that meets least of what is taken, the first where several do, and its radius."""
    best: tuple[float, Any, float] = (math.inf, None, 0.0)
    for radius in _RADII:
        for angle in _ANGLES:
            across, up = math.cos(angle), math.sin(angle)
            left = place[0] + radius * scale * across - width * (1 - across) / 2
            bottom = place[1] + radius * scale * up - height * (1 - up) / 2
            box = _box(left, bottom, width, height)
            met = sum(_shared(box, other) for other in taken)
            met += 10 * (width * height - _shared(box, frame))  # beyond the frame is worst
            if met < best[0] - 1e-6:
                best = (met, box, radius)
        if best[0] < 1e-6:
            break
    return best[1], best[2]


def _marks(axes: Axes, x: Statistic, y: Statistic, scale: float) -> list[Any]:
    """The boxes of a mean's mark and its intervals."""
    across, up = axes.transData.transform((x.mean, y.mean))
    boxes = [_box(across - 5 * scale, up - 5 * scale, 10 * scale, 10 * scale)]
    if x.bounded and y.bounded:
        first, last = axes.transData.transform([(x.low, y.low), (x.high, y.high)])
        boxes.append(_box(first[0], up - scale, last[0] - first[0], 2 * scale))
        boxes.append(_box(across - scale, first[1], 2 * scale, last[1] - first[1]))
    return boxes


def _box(left: float, bottom: float, width: float, height: float) -> Any:  # noqa: ANN401
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(left, bottom, width, height)


def _shared(first: Any, second: Any) -> float:  # noqa: ANN401
    """The area that two boxes share, in square pixels."""
    across = min(first.x1, second.x1) - max(first.x0, second.x0)
    up = min(first.y1, second.y1) - max(first.y0, second.y0)
    return max(across, 0.0) * max(up, 0.0)
