"""The report's figures: a new figure is a function and an entry here.

A function takes the run (and a pair, and a part) and gives a matplotlib figure, or raises
`drawing.MissingError` where the run did not leave what it takes. Colours are Okabe and Ito's, or cividis; a
marker or a symbol says the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kernelgan.report import pair_figures, run_figures
from kernelgan.results import Pair, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Entry(NamedTuple):
    """How a figure is drawn, its caption with ``{part}`` to fill in, and its parts, such as layers."""

    draw: Callable[..., Figure]
    caption: str
    parts: Callable[[Run, Pair], list[str]] | None = None


_NOVELTY = (
    "Figure of merit (up) against the distance from the nearest parent (right; 1 is the distance of a parent "
    "from its nearest fellow). Faint: one mark a {}; large: the mean with its 95% intervals."
)

OF_RUN = {
    "leaderboard": Entry(
        run_figures.leaderboard,
        "Every method over all pairs, best first: mean and 95% interval over pairs, one small mark a pair.",
    ),
    "novelty_overall": Entry(run_figures.novelty_overall, _NOVELTY.format("pair's mean")),
    "matrix": Entry(
        run_figures.matrix,
        "Mean figure of merit for every attribute (row) and object (column); one scale for all methods, a "
        "pair that was not run is blank.",
    ),
    "matrix_differences": Entry(
        run_figures.differences,
        "The best generated method minus the best merge and minus both parents run side by side: orange "
        "where the generated networks are behind, purple where they are ahead. Where the pairs were not "
        "compared together it is each pair's best, picked on that pair's test images, which flatters it.",
    ),
    "contact_sheet": Entry(run_figures.contact_sheet, "A sample of the images, as the networks see them."),
}
"""Figures of a run, by the names of their files."""

OF_PAIR = {
    "distributions": Entry(
        pair_figures.distributions,
        "Each small mark is one network, the large mark the mean with its 95% interval. 95% of the networks "
        "with random kernels lie in the shaded band: a single network inside it shows nothing.",
    ),
    "novelty": Entry(pair_figures.novelty, _NOVELTY.format("network")),
    "answers": Entry(
        pair_figures.answers,
        "Answers of {part}: its first network, not its best; the first images of each quadrant, not chosen. "
        "The number is its probability of the conjunction; ✓ and a solid frame: right at threshold 1/2; ✗ "
        "and a dashed frame: wrong.",
        pair_figures.answering_method,
    ),
    "kernels": Entry(
        pair_figures.kernels,
        "{part}: the first networks, not chosen; a column for each parent zoo and generated method. Inside a "
        "panel a column is a filter; three input channels are shown as red, green and blue (grey is zero), "
        "otherwise a row is an input channel. Each panel has its own scale.",
        pair_figures.layers,
    ),
    "zoo_curves": Entry(pair_figures.zoo_curves, "The parents' zoos: median network and middle 80%."),
    "generator_curves": Entry(
        pair_figures.generator_curves,
        "Losses of the generator {part} by step, a panel for each layer.",
        pair_figures.families,
    ),
    "cosine": Entry(
        pair_figures.cosine,
        "Mean cosine similarity of the features of images in one quadrant with those in another.",
    ),
    "embeddings": Entry(
        pair_figures.embeddings,
        "UMAP of the first network's features on the test images: the true quadrants above, the clusters of "
        "K-means below.",
    ),
}
"""Figures of a pair, by the names of their files."""
