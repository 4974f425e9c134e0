"""Labels of points in a plot, where no two overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.results import Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADII = (10.0, 16.0, 26.0, 38.0, 52.0, 70.0)  # points
_ANGLES = np.deg2rad((0, 180, 90, 270, 35, 145, 215, 325, 65, 115, 245, 295))
_AROUND = [(radius, radius * np.cos(angle), radius * np.sin(angle)) for radius in _RADII for angle in _ANGLES]


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
    from matplotlib.transforms import Bbox

    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    scale, frame = figure.dpi / 72, axes.get_window_extent(renderer)
    taken = [text.get_window_extent(renderer).padded(2) for text in axes.texts]
    for _, _, x, y in points:
        ends = [(x.mean, y.mean), (x.low, y.mean), (x.high, y.mean), (x.mean, y.low), (x.mean, y.high)]
        mean, *ends = axes.transData.transform(ends)
        taken.append(Bbox([mean, mean]).padded(5 * scale))
        if x.bounded and y.bounded:
            taken += [Bbox(ends[:2]).padded(scale), Bbox(ends[2:]).padded(scale)]
    for name, bold, x, y in sorted(points, key=lambda point: -point[3].mean):
        style: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 8,
            "weight": "bold" if bold else "normal",
            "zorder": 6,
            "path_effects": [withStroke(linewidth=2, foreground="white", alpha=0.8)],
        }
        text = axes.annotate(name, (x.mean, y.mean), (0, 0), **style)
        width, height = text.get_window_extent(renderer).size
        text.remove()
        place = axes.transData.transform((x.mean, y.mean))
        boxes = []
        for radius, across, up in _AROUND:
            left = place[0] + scale * across - width * (1 - across / radius) / 2
            bottom = place[1] + scale * up - height * (1 - up / radius) / 2
            boxes.append(Bbox.from_bounds(left, bottom, width, height))
        outside = [not (frame.contains(*box.min) and frame.contains(*box.max)) for box in boxes]
        met = [box.count_overlaps(taken) + 100 * beyond for box, beyond in zip(boxes, outside, strict=True)]
        best = int(np.argmin(met))
        taken.append(boxes[best])
        leader = {"arrowstyle": "-", "color": "#8A8F98", "lw": 0.7, "shrinkA": 0, "shrinkB": 5}
        style |= {"va": "bottom", "arrowprops": leader if _AROUND[best][0] > _RADII[0] else None}
        axes.annotate(name, (x.mean, y.mean), tuple((boxes[best].min - place) / scale), **style)
