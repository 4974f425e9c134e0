"""The figure of how seconds, memory and compilation grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import stopwatch
from benchmarks.rows import BAD, Row

SECONDS, MEMORY = "seconds for a step of all", "peak memory, GB"
QUANTITIES = {
    "models": "models",
    "pairs": "pairs of zoos",
    "images": "images in the data set",
    "chunk size": "models in a chunk",
    "compilation": "models",
}


def points(found: Sequence[Row], quantity: str) -> dict[str, list[tuple[float, float]]]:
    """``(size, value)`` of each curve of a quantity, by the curve's label."""
    of_it = [row for row in found if row.details.get("quantity") == quantity and row.status not in BAD]
    of_it.sort(key=lambda row: row.details["size"])
    if quantity == "compilation":
        values = [(row.details["size"], stopwatch.median(row.wall_rounds)) for row in of_it]
        return {"seconds to compile": [(size, ms / 1e3) for size, ms in values if ms]}
    return {
        SECONDS: [(row.details["size"], row.details["seconds"]) for row in of_it],
        MEMORY: [(row.details["size"], row.details["peak_bytes"] / 1e9) for row in of_it],
    }


def draw(found: Sequence[Row], path: Path) -> None:
    """Draws a panel for each quantity, both axes logarithmic, and lines of slope 1 for comparison.

    Args:
      found: rows of the section ``growth``.
      path: where to; its suffix says how.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(
        1, len(QUANTITIES), figsize=(3.2 * len(QUANTITIES), 3.6), layout="constrained"
    )
    for panel, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        panel.set(xscale="log", yscale="log", xlabel=label)
        for number, (name, curve) in enumerate(points(found, quantity).items()):
            if not curve:
                continue
            sizes, values = zip(*curve, strict=True)
            colour = "tab:blue" if name != MEMORY else "tab:orange"
            panel.plot(sizes, values, marker="o", markersize=4, color=colour, label=name)
            straight = [values[0] * size / sizes[0] for size in sizes]
            slope = "slope 1" if number == 0 else None
            panel.plot(sizes, straight, color="0.6", linestyle=":", linewidth=1, label=slope)
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_title(quantity)
        panel.tick_params(axis="x", labelsize=7, which="both")
        panel.grid(alpha=0.3)
        if panel.has_data():
            panel.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
