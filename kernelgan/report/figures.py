"""The table of the report's figures: a new figure is a function and an entry here.

The function takes the run (and a pair, and a part) and gives a matplotlib figure, or raises
`drawing.MissingError` where the run did not leave what it takes. Colours are Okabe and Ito's, or cividis; a
marker or a symbol says the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernelgan.report import pair_figures, run_figures
from kernelgan.results import Pair, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Entry:
    """A figure of the report.

    Attributes:
      draw: gives it: of a pair ``draw(run, pair)`` or ``draw(run, pair, part)``, else ``draw(run)``.
      section: of the page, by its heading.
      caption: plain text; ``{attribute}``, ``{object}``, ``{part}`` and ``{best}`` are filled in.
      of: "pair", "pairs" (a run of several) or "run".
      needs: the folder of arrays without which it is left out.
      parts: which of it are drawn, one figure each, such as layers.
      rank: 0 is in every page, 1 in pages of a few pairs, 2 of several pairs is a file only.
    """

    draw: Callable[..., Figure]
    section: str
    caption: str
    of: str = "pair"
    needs: str = ""
    parts: Callable[[Run, Pair], list[str]] | None = None
    rank: int = 0


def layers(run: Run, pair: Pair) -> list[str]:
    """The layers whose kernels were saved."""
    return sorted({name.split("/")[0] for name in run.arrays_under(pair, "kernels")})


_NOVELTY = (
    "How well a network does (up) against how far it is from the nearest parent (right; 1 is as far as a "
    "parent is from its nearest fellow). Faint: one mark a {}; large: the mean with its 95% intervals. In "
    "the shaded band a network is a copy of a parent."
)

FIGURES = {
    "leaderboard": Entry(
        run_figures.leaderboard,
        "Leaderboard",
        "Every method over all pairs, best first: mean and 95% interval over pairs, one small mark a pair.",
        of="pairs",
    ),
    "distributions": Entry(
        pair_figures.distributions,
        "Against the null and every other method",
        "Each small mark is one network, boxes hold the middle half, the large mark is the mean with its 95% "
        "interval. The shaded band is where 95% of the networks with random kernels lie: a single network "
        "inside it shows nothing.",
    ),
    "novelty": Entry(pair_figures.novelty, "Utility and novelty", _NOVELTY.format("network")),
    "novelty_overall": Entry(
        run_figures.novelty_overall, "Utility and novelty", _NOVELTY.format("pair's mean"), of="pairs"
    ),
    "matrix": Entry(
        run_figures.matrix,
        "Every attribute with every object",
        "Mean figure of merit for every attribute (row) and object (column); one scale for all methods, a "
        "pair that was not run is blank.",
        of="pairs",
    ),
    "matrix_differences": Entry(
        run_figures.differences,
        "Every attribute with every object",
        "{best} minus the best merge over all pairs and minus both parents run side by side: orange where "
        "the generated networks are behind, purple where they are ahead.",
        of="pairs",
    ),
    "matrix_others": Entry(
        run_figures.matrix_others,
        "Every attribute with every object",
        "All other methods.",
        of="pairs",
        rank=2,
    ),
    "answers": Entry(
        pair_figures.answers,
        "Answers on test images",
        "Answers of {part}: its first network, not its best; the first images of each quadrant, not chosen. "
        "The number is its probability of the conjunction; ✓ and a solid frame: right at threshold 1/2; ✗ "
        "and a dashed frame: wrong.",
        needs="answers",
        parts=pair_figures.answering_method,
        rank=1,
    ),
    "kernels": Entry(
        pair_figures.kernels,
        "Kernels of parents and generated networks",
        "{part}: the first networks, not chosen; a column for each parent zoo and generated method. Inside a "
        "panel one column a filter; three input channels are shown as red, green and blue (grey is zero), "
        "otherwise one row an input channel. Each panel has its own scale.",
        needs="kernels",
        parts=layers,
        rank=2,
    ),
    "zoo_curves": Entry(
        pair_figures.zoo_curves,
        "Training",
        "The parents' zoos: median network and middle 80%.",
        rank=2,
    ),
    "generator_curves": Entry(
        pair_figures.generator_curves,
        "Training",
        "Losses of the generator {part} by step, one panel a layer.",
        needs="history",
        parts=pair_figures.families,
        rank=2,
    ),
    "cosine": Entry(
        pair_figures.cosine,
        "Feature space",
        "Mean cosine similarity of the features of images in one quadrant with those in another.",
        needs="cosine",
        rank=2,
    ),
    "embeddings": Entry(
        pair_figures.embeddings,
        "Feature space",
        "UMAP of the first network's features on the test images: the true quadrants above, the clusters of "
        "K-means below.",
        needs="embedding",
        rank=2,
    ),
    "contact_sheet": Entry(
        run_figures.contact_sheet, "Data", "A sample of the images, as the networks see them.", of="run"
    ),
}
"""Every figure of the report by the name of its file, in the order of the page."""
