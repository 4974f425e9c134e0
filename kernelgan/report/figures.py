"""The figures of a report, each drawn from a run's saved results only.

A new figure is a function and an entry in `FIGURES`. The function takes the run (and a pair, and a part) and
gives a matplotlib figure. Colours are Okabe and Ito's, or cividis; a marker or a symbol says the same.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.evaluate.verdict import COPY
from kernelgan.report import metrics, prose
from kernelgan.report.labels import label_points
from kernelgan.results import KINDS, QUADRANTS, Measured, Pair, Run, Statistic

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
_QUADRANT_STYLE = ((VERMILLION, "D"), (BLUE, "s"), (ORANGE, "^"), (GREY, "o"), (PURPLE, "x"))
_CLUSTER_STYLE = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"), (BLACK, "x"), (SKY, "v"))
_LINES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (ORANGE, ":"), (PURPLE, (0, (5, 1))), (SKY, "-"))

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


# Of a pair ------------------------------------------------------------------------------------------------


def distributions(run: Run, pair: Pair) -> Figure:
    """Figure of merit of every network, method by method, over the range of the random networks."""
    every = {name: _finite(values) for name, values in run.arrays_under(pair, "worst").items()}
    every = every if pair.merit == "worst" else {}
    rows = [row for row in pair.methods.values() if pair.figure(row.name).known]
    if not rows:
        raise MissingError(f"no method has a {prose.merit_title(pair)}")
    figure = new(WIDTH, 1.0 + 0.36 * len(rows))
    axes = figure.add_subplot()
    floor, null = pair.verdict.floor, every.get(pair.verdict.floor, np.zeros(0))
    if null.size > 1:
        low, high = np.percentile(null, [2.5, 97.5])
        axes.axvspan(low, high, color=GREY, alpha=0.18, lw=0, label="95% of random networks")
    if pair.figure(floor).known:
        axes.axvline(pair.figure(floor).mean, color=GREY, lw=1, ls="--", label="mean of random networks")
    for y, row in enumerate(rows):
        values = every.get(row.name, np.zeros(0))
        _strip(axes, y, row.kind, values, pair.figure(row.name), alpha=0.45)
        if values.size > 3:
            first, middle, third = np.percentile(values, [25, 50, 75])
            color = KIND_STYLE[row.kind][0]
            box = {"facecolor": "none", "edgecolor": color, "lw": 1.1, "zorder": 3}
            axes.add_patch(_rectangle(first, y - 0.3, third - first, 0.6, **box))
            axes.plot([middle, middle], [y - 0.3, y + 0.3], color=color, lw=1.6, zorder=3)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    what = f"{prose.merit_title(pair)}: one mark a network; large mark and bar: mean, 95% interval"
    _strip_axes(axes, len(rows), what)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderpad=0)
    return figure


def novelty(run: Run, pair: Pair) -> Figure:
    """Figure of merit against distance from the nearest parent, of networks (faint) and their means."""
    worst = run.arrays_under(pair, "worst") if pair.merit == "worst" else {}
    clouds = {}
    for name, values in run.arrays_under(pair, "novelty").items():
        far, scores = values.ravel(), worst.get(name, np.zeros(0)).ravel()
        shown = min(far.size, scores.size, _SHOWN_NETWORKS)
        clouds[name] = (far[:shown], scores[:shown])
    return _novelty(pair, clouds)


def answering_method(run: Run, pair: Pair) -> list[str]:
    """The method whose answers are shown: the best generated one, another, or the first that has any."""
    saved = _in_order(pair, run.arrays_under(pair, "answers"))
    wanted = [pair.verdict.best, *(row.name for row in pair.of_kind("generated")), *saved]
    return [name for name in wanted if name in saved][:1]


def answers(run: Run, pair: Pair, method: str, columns: int = 12) -> Figure:
    """Test images with the answers of a method's FIRST network; which images: the first of each quadrant."""
    images, quadrants = run.array(pair, "test_images"), run.array(pair, "test_quadrant")
    scores = run.array(pair, f"answers/{method}")
    if images is None or quadrants is None or scores is None:
        raise MissingError(f"arrays.npz has no test_images, test_quadrant or answers/{method}")
    rows = [number for number in range(len(QUADRANTS)) if (quadrants == number).any()]
    figure = new(WIDTH, 0.93 * len(rows) + 0.25)
    axes = figure.add_subplot()
    for y, number in enumerate(rows):
        members = np.flatnonzero(quadrants == number)
        right, known = (scores[members] >= 0.5) == (number == 0), np.isfinite(scores[members])
        told = f"{_quadrant_names(pair)[number]}\n{right[known].sum()} of {known.sum()} right"
        axes.text(-0.12, y + 0.42, told, ha="right", va="center", fontsize=8.5)
        for x, index in enumerate(members[:columns]):
            axes.imshow(images[index], extent=(x, x + 0.86, y + 0.86, y), interpolation="nearest")
            color, symbol, dashes = (BLUE, "✓", "-") if right[x] else (VERMILLION, "✗", "--")
            edge = {"facecolor": "none", "edgecolor": color, "lw": 2.0, "ls": dashes}
            axes.add_patch(_rectangle(x, y, 0.86, 0.86, **edge))
            text = f"{symbol} {scores[index]:.2f}" if known[x] else "\N{EN DASH}"
            box = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
            axes.text(x + 0.05, y + 0.81, text, color="white", fontsize=7, ha="left", va="bottom", bbox=box)
    axes.set(xlim=(-0.05, columns), ylim=(len(rows), -0.05), aspect="equal")
    axes.axis("off")
    return figure


def kernels(run: Run, pair: Pair, layer: str) -> Figure:
    """Kernels of one layer, a column for each parent and generated method, for the first networks."""
    found = {
        role: values
        for role, values in run.arrays_under(pair, f"kernels/{layer}").items()
        if values.ndim == 5
    }
    found = {role: values for role, values in found.items() if values.size}
    if not found:
        raise MissingError(f"arrays.npz has no kernels/{layer}")
    colour = next(iter(found.values())).shape[3] == 3
    networks = min(3 if colour else 2, max(map(len, found.values())))
    columns = min(_COLUMNS_OF_KERNELS, len(found))
    bands = math.ceil(len(found) / columns)
    shape = _kernel_picture(next(iter(found.values()))[0])[0].shape
    height = min(WIDTH / (columns + 0.1) * shape[0] / shape[1], 2.6) + 0.3
    figure = new(WIDTH, height * networks * bands + 0.3)
    panels = np.asarray(figure.subplots(networks * bands, columns, squeeze=False))
    for axes in panels.flat:
        _bare(axes)
    for place, (role, values) in enumerate(found.items()):
        for number, kernel in enumerate(values[:networks]):
            axes = panels[place // columns * networks + number, place % columns]
            picture, largest = _kernel_picture(kernel)
            axes.imshow(picture, cmap="cividis", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_xlabel(f"|w| ≤ {largest:.2g}", fontsize=7.5, labelpad=2)
            if number == 0:
                axes.set_title(role if role in pair.methods else role.replace("_", " "), fontsize=8.5)
            if place % columns == 0:
                axes.set_ylabel(f"network {number}", fontsize=8)
    return figure


def zoo_curves(run: Run, pair: Pair) -> Figure:
    """Losses and scores of both zoos by epoch: median over the networks and the middle 80%."""
    panels_of: dict[str, list[tuple[str, str, np.ndarray]]] = {}
    for side in ("attribute", "object"):
        for name, values in sorted(run.arrays_under(pair, f"history/zoo_{side}").items()):
            panel = "loss" if name.endswith("loss") else name.removeprefix("validation_").replace("_", " ")
            if values.ndim == 2 and values.size:
                panels_of.setdefault(panel, []).append((side, name, values))
    if not panels_of:
        raise MissingError("arrays.npz has no history/zoo_attribute or history/zoo_object")
    order = sorted(panels_of, key=lambda panel: (panel != "loss", "auroc" in panel, panel))[:4]
    figure = new(WIDTH, 2.7)
    for axes, panel in zip(figure.subplots(1, len(order), squeeze=False)[0], order, strict=True):
        for side, name, values in panels_of[panel]:
            color, marker = (BLUE, "s") if side == "attribute" else (VERMILLION, "^")
            epochs, training = np.arange(1, values.shape[1] + 1), name.startswith("train")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # an epoch without any finite value
                finite = np.where(np.isfinite(values), values, np.nan)
                low, middle, high = np.nanpercentile(finite, [10, 50, 90], axis=0)
            told = f"{getattr(pair.pair, side)}, {'training' if training else 'validation'}"
            style = "--" if training else "-"
            axes.plot(epochs, middle, style, color=color, marker=marker, ms=3.5, lw=1.4, label=told)
            axes.fill_between(epochs, low, high, color=color, alpha=0.13, lw=0)
        axes.set(title=panel.replace("auroc", "AUROC"), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        axes.legend(fontsize=7)
    return figure


def families(run: Run, pair: Pair) -> list[str]:
    """The generator families whose training was saved."""
    found = dict.fromkeys(name.split("/")[0] for name in run.arrays_under(pair, "history"))
    return [name for name in found if not name.startswith("zoo_")]


def generator_curves(run: Run, pair: Pair, family: str) -> Figure:
    """Losses of a generator by step, one panel a layer: as they are, and smoothed."""
    layers: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in sorted(run.arrays_under(pair, f"history/{family}").items()):
        layer, _, loss = name.rpartition("/")
        if values.ndim == 1 and values.size:
            layers.setdefault(layer or family, []).append((loss, values.astype(float)))
    if not layers:
        raise MissingError(f"arrays.npz has no history/{family}")
    figure = new(WIDTH, 3.2)
    for axes, (layer, losses) in zip(
        figure.subplots(1, len(layers), squeeze=False)[0], layers.items(), strict=True
    ):
        for index, (loss, values) in enumerate(losses):
            color, dashes = _LINES[index % len(_LINES)]
            steps, window = np.arange(1, values.size + 1), max(1, values.size // 50)
            smooth = np.convolve(values, np.full(window, 1 / window), "valid")
            middle = steps[window // 2 : window // 2 + smooth.size]
            some, few = _thinned(values.size, 600), _thinned(smooth.size, 300)
            axes.plot(steps[some], values[some], color=color, lw=0.6, alpha=0.25)
            axes.plot(middle[few], smooth[few], color=color, ls=dashes, lw=1.5, label=loss.replace("_", " "))
        everything = np.concatenate([_finite(values) for _, values in losses])
        if everything.size and everything.min() > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:.2g}")
        axes.set(title=layer, xlabel="step")
        axes.grid(axis="y")
        axes.legend(ncols=2, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def cosine(run: Run, pair: Pair) -> Figure:
    """Mean cosine similarity of features between quadrants, one heat map a method."""
    found = _in_order(pair, run.arrays_under(pair, "cosine"))
    found = dict(list({name: one for name, one in found.items() if one.shape == (4, 4)}.items())[:_MAPS])
    if not found:
        raise MissingError("arrays.npz has no cosine/<method>")
    low = min(0.99, *(_finite(values).min(initial=1.0) for values in found.values()))
    columns = min(4, len(found))
    names = _quadrant_names(pair)[:4]
    figure = new(WIDTH * columns / 4 + 0.9, 2.35 * math.ceil(len(found) / columns) + 0.4)
    _heat_maps(figure, found, columns, names, names, (low, 1.0))
    return figure


def embeddings(run: Run, pair: Pair) -> Figure:
    """UMAP of the features: above by true quadrant, below by cluster of K-means."""
    quadrants = run.array(pair, "embedding_quadrant")
    found = _in_order(pair, run.arrays_under(pair, "embedding"))
    found = {
        name: xy for name, xy in found.items() if quadrants is not None and xy.shape == (len(quadrants), 2)
    }
    if quadrants is None or not found:
        raise MissingError("arrays.npz has no embedding_quadrant or no embedding/<method>")
    wanted = [row.name for kind in ("generated", "parent") for row in pair.of_kind(kind)]
    wanted = [pair.verdict.best, pair.verdict.floor, *wanted, pair.verdict.ceiling, *found]
    names = list(dict.fromkeys(name for name in wanted if name in found))[:_EMBEDDINGS]
    figure = new(WIDTH, 2 * WIDTH / max(len(names), 3) + 0.6)
    panels = np.asarray(figure.subplots(2, len(names), squeeze=False))
    numbers = range(len(QUADRANTS))
    by_quadrant = [(number, _quadrant_names(pair)[number], _QUADRANT_STYLE[number]) for number in numbers]
    for (above, below), name in zip(panels.T, names, strict=True):
        clusters = run.array(pair, f"cluster/{name}")
        clusters = np.zeros_like(quadrants) if clusters is None else clusters
        by_cluster = zip(np.unique(clusters), _CLUSTER_STYLE, strict=False)
        _scatter(above, found[name], quadrants, by_quadrant)
        _scatter(below, found[name], clusters, [(one, f"cluster {one}", style) for one, style in by_cluster])
        above.set_title(name, fontsize=8.5)
    panels[0, 0].set_ylabel("by quadrant")
    panels[1, 0].set_ylabel("by K-means cluster")
    for row, y in ((0, 0.0), (1, -0.045)):
        handles, told = panels[row, 0].get_legend_handles_labels()
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, y), "ncols": 5}
        figure.legend(handles, told, markerscale=1.6, **place)
    return figure


# Of all pairs ---------------------------------------------------------------------------------------------


def leaderboard(run: Run) -> Figure:
    """Every method over all pairs, best first: mean and 95% interval; small marks are single pairs.

    The dashed line is both parents run side by side, the dotted line the ceiling.
    """
    overall, rows = run.overall, run.overall.ranked() if run.overall else []
    if overall is None or not rows:
        raise MissingError("results.json has no overall figures of merit")
    figure = new(WIDTH, 1.15 + 0.3 * len(rows))
    axes = figure.add_subplot()
    for name, color, dashes, height in _yardsticks(overall):
        axes.axvline(height, color=color, ls=dashes, lw=1.3, label=overall.methods[name].label or name)
    chance = metrics.chance(f"auroc.{overall.merit}", {})
    axes.axvline(chance, color=INK, lw=0.8, alpha=0.5)
    for y, row in enumerate(rows):
        generated = row.kind == "generated"
        if generated:
            axes.axhspan(y - 0.5, y + 0.5, color=KIND_STYLE[row.kind][0], alpha=0.10, lw=0, zorder=0)
        singles = _finite(np.array([pair.figure(row.name).mean for pair in run.pairs]))
        _strip(axes, y, row.kind, singles, overall.figure(row.name), alpha=0.28, strong=generated)
        place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axes.text(
            -0.012, y, prose.in_words(row), ha="right", weight="bold" if generated else "normal", **place
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    what = f"{prose.merit_title(overall)}, mean over {overall.pairs} pairs with 95% interval"
    _strip_axes(axes, len(rows), f"{what} ({chance:g}: chance); one small mark a pair")
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
    return _novelty(run.overall, clouds)


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
    _bare(axes)
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


# The table of figures -------------------------------------------------------------------------------------


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
        leaderboard,
        "Leaderboard",
        "Every method over all pairs, best first: mean and 95% interval over pairs, one small mark a pair.",
        of="pairs",
    ),
    "distributions": Entry(
        distributions,
        "Against the null and every other method",
        "Each small mark is one network, boxes hold the middle half, the large mark is the mean with its 95% "
        "interval. The shaded band is where 95% of the networks with random kernels lie: a single network "
        "inside it shows nothing.",
    ),
    "novelty": Entry(novelty, "Utility and novelty", _NOVELTY.format("network")),
    "novelty_overall": Entry(
        novelty_overall, "Utility and novelty", _NOVELTY.format("pair's mean"), of="pairs"
    ),
    "matrix": Entry(
        matrix,
        "Every attribute with every object",
        "Mean figure of merit for every attribute (row) and object (column); one scale for all methods, a "
        "pair that was not run is blank.",
        of="pairs",
    ),
    "matrix_differences": Entry(
        differences,
        "Every attribute with every object",
        "{best} minus the best merge over all pairs and minus both parents run side by side: orange where "
        "the generated networks are behind, purple where they are ahead.",
        of="pairs",
    ),
    "matrix_others": Entry(
        matrix_others, "Every attribute with every object", "All other methods.", of="pairs", rank=2
    ),
    "answers": Entry(
        answers,
        "Answers on test images",
        "Answers of {part}: its first network, not its best; the first images of each quadrant, not chosen. "
        "The number is its probability of the conjunction; ✓ and a solid frame: right at threshold 1/2; ✗ "
        "and a dashed frame: wrong.",
        needs="answers",
        parts=answering_method,
        rank=1,
    ),
    "kernels": Entry(
        kernels,
        "Kernels of parents and generated networks",
        "{part}: the first networks, not chosen; a column for each parent zoo and generated method. Inside a "
        "panel one column a filter; three input channels are shown as red, green and blue (grey is zero), "
        "otherwise one row an input channel. Each panel has its own scale.",
        needs="kernels",
        parts=layers,
        rank=2,
    ),
    "zoo_curves": Entry(
        zoo_curves, "Training", "The parents' zoos: median network and middle 80%, by epoch.", rank=2
    ),
    "generator_curves": Entry(
        generator_curves,
        "Training",
        "Losses of the generator {part} by step, one panel a layer.",
        needs="history",
        parts=families,
        rank=2,
    ),
    "cosine": Entry(
        cosine,
        "Feature space",
        "Mean cosine similarity of the features of images in one quadrant with those in another.",
        needs="cosine",
        rank=2,
    ),
    "embeddings": Entry(
        embeddings,
        "Feature space",
        "UMAP of the first network's features on the test images: the true quadrants above, the clusters of "
        "K-means below.",
        needs="embedding",
        rank=2,
    ),
    "contact_sheet": Entry(
        contact_sheet, "Data", "A sample of the images, as the networks see them.", of="run"
    ),
}
"""Every figure of the report by the name of its file, in the order of the page."""


# Shared ---------------------------------------------------------------------------------------------------


def _strip(
    axes: Axes, y: int, kind: str, values: np.ndarray, mean: Statistic, alpha: float, strong: bool = False
) -> None:
    """One method's row: its values scattered, its mean with its interval, and that as text."""
    color, marker = KIND_STYLE[kind]
    values = values[_thinned(values.size, 300)]
    jitter = (np.arange(values.size) * 0.61803 % 1 - 0.5) * 0.5
    axes.scatter(values, y + jitter, s=7, color=color, alpha=alpha, marker=marker, lw=0, zorder=2)
    if mean.bounded:
        axes.plot([mean.low, mean.high], [y, y], color=INK, lw=2.2, zorder=4)
    _mean(axes, mean.mean, y, kind)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
    axes.text(1.012, y, mean.text(), weight="bold" if strong else "normal", **place)


def _mean(axes: Axes, x: float, y: float, kind: str) -> None:
    color, marker = KIND_STYLE[kind]
    edge = "white" if color == BLACK else INK
    axes.plot(x, y, marker=marker, ms=7, ls="", zorder=5, mfc=color, mec=edge, mew=0.8)


def _strip_axes(axes: Axes, rows: int, what: str) -> None:
    axes.set(ylim=(rows - 0.4, -0.6), xlabel=what)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", zorder=0)


def _novelty(record: Measured, clouds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
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
        _mean(axes, far.mean, score.mean, row.kind)
    lines = _yardsticks(record)
    for _, color, dashes, height in lines:
        axes.axhline(height, color=color, ls=dashes, lw=1.4, zorder=1)
    ends = np.array([point for _, far, _ in rows for point in (far.mean, far.high)])
    ends = np.concatenate([_finite(ends), *(_finite(far) for far, _ in clouds.values())])
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


def _yardsticks(record: Measured) -> list[tuple[str, str, str, float]]:
    """What a generated network should come up to, as lines: name, colour, dashes, figure of merit."""
    roles = ((record.verdict.yardstick, "--"), (record.verdict.ceiling, ":"))
    known = [(name, dashes) for name, dashes in roles if record.figure(name).known]
    return [
        (name, KIND_STYLE[record.methods[name].kind][0], dashes, record.figure(name).mean)
        for name, dashes in known
    ]


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
    _heat_maps(figure, maps, columns, attributes, objects, ends, diverging)
    return figure


def _heat_maps(
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


def _scatter(
    axes: Axes, points: np.ndarray, numbers: np.ndarray, groups: Iterable[tuple[Any, str, tuple[str, str]]]
) -> None:
    """Points by group, in the group's colour and marker."""
    for number, told, (color, marker) in groups:
        here = points[numbers == number]
        if len(here):
            width = 0.7 if marker == "x" else 0
            axes.scatter(
                here[:, 0], here[:, 1], s=11, color=color, marker=marker, alpha=0.75, lw=width, label=told
            )
    _bare(axes, frame=True)


def _kernel_picture(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """One layer's kernels (H, W, I, O) laid out as one picture, and the largest magnitude in it.

    Three input channels make colour pictures in one row; other counts a grid of I rows and O columns with
    values in [-1, 1], NaN between them.
    """
    height, width, inputs, outputs = kernel.shape
    finite = np.nan_to_num(kernel.astype(np.float64), posinf=0.0, neginf=0.0)
    largest = float(np.abs(finite).max(initial=0.0))
    scaled = finite / largest if largest > 0 else finite
    if inputs == 3:
        padded = np.pad(0.5 + 0.5 * scaled, ((0, 1), (0, 1), (0, 0), (0, 0)), constant_values=1.0)
        return padded.transpose(0, 3, 1, 2).reshape(height + 1, outputs * (width + 1), 3)[:-1, :-1], largest
    padded = np.pad(scaled, ((0, 1), (0, 1), (0, 0), (0, 0)), constant_values=np.nan)
    grid = padded.transpose(2, 0, 3, 1).reshape(inputs * (height + 1), outputs * (width + 1))
    return grid[:-1, :-1], largest


def _quadrant_names(pair: Pair) -> tuple[str, ...]:
    """The quadrants in words, in the order of `results.QUADRANTS`."""
    attribute, thing = pair.pair.attribute, pair.pair.object
    return (pair.title, f"{attribute}, not {thing}", f"{thing}, not {attribute}", "neither", "the rest")


def _rectangle(x: float, y: float, width: float, height: float, **style: Any) -> Any:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, **style)


def _bare(axes: Axes, frame: bool = False) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(frame)


def _thinned(size: int, most: int) -> np.ndarray:
    """At most so many of `size` indices, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(int)) if size else np.arange(0)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64).ravel()
    return values[np.isfinite(values)]


def _in_order(pair: Pair, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays named after methods, in the order of the tables, others last."""
    names = [
        *(name for name in pair.methods if name in arrays),
        *(n for n in arrays if n not in pair.methods),
    ]
    return {name: arrays[name] for name in names}
