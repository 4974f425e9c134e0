"""A figure of rows over pairs: a dot for each pair, a bar at each row's mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt


def draw(
    values: Mapping[str, np.ndarray],
    labels: Mapping[str, str],
    file: Path,
    *,
    colours: Mapping[str, str],
    lines: Sequence[str] = (),
    rule: int | None = None,
) -> None:
    """Draws worst-quadrant AUROC by row.

    Args:
      values: of each row, a number for each pair.
      labels: of each row, in words.
      file: a PNG.
      colours: of rows; the others are grey.
      lines: rows at whose mean a dotted line stands.
      rule: number of rows above a horizontal line.
    """
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.29 * len(values)), layout="constrained")
    across = axes.get_yaxis_transform()
    for place, (row, own) in enumerate(values.items()):
        colour = colours.get(row, "tab:gray")
        axes.plot(own, [place] * len(own), "o", color=colour, alpha=0.5, markersize=5, markeredgewidth=0)
        axes.plot([own.mean()], [place], "|", color=colour, markersize=18, markeredgewidth=2.5)
        axes.text(1.01, place, f"{own.mean():.3f}", transform=across, va="center")
        axes.text(-0.01, place, labels[row], transform=across, va="center", ha="right")
    if rule is not None:
        axes.axhline(rule - 0.5, color="0.7", linewidth=0.8)
    for row in lines:
        axes.axvline(values[row].mean(), color="0.7", linestyle=":", linewidth=1)
    axes.set(yticks=[], ylim=(len(values) - 0.4, -0.6), xlabel="worst-quadrant AUROC on test images, by pair")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)
