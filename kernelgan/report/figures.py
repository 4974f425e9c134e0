"""The report's figures, drawn from what the run saved only: a new figure is a function and an entry below.

A function takes the run (and a pair, and a part) and gives a matplotlib figure, or raises
`drawing.MissingError` where the run did not leave what it takes. Colours are Okabe and Ito's, or cividis; a
marker or a symbol says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kernelgan.report import drawing, metrics, prose
from kernelgan.report.drawing import BLUE, VERMILLION, WIDTH, MissingError, bare, finite, heat_maps, new
from kernelgan.results import NOTHING, QUADRANTS, Measured, Pair, Row, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_NETWORKS = 60
_EMBEDDINGS = 4
_COSINES = 8
_ANSWERING_FAMILIES = 3
_ANSWER_HEIGHT = 0.27  # of an image's width


def distributions(run: Run, pair: Pair) -> Figure:
    """Figure of merit of every network, method by method, over the range of the random networks."""
    every = run.arrays_under(pair, "worst") if pair.merit == "worst" else {}
    rows = [row for row in pair.methods.values() if pair.figure(row.name).known]
    return drawing.strips(pair, rows, every, f"{prose.merit_title(pair)}: one mark a network", band=True)


def novelty(run: Run, pair: Pair) -> Figure:
    """Figure of merit against distance from the nearest parent, of networks (faint) and their means."""
    worst = run.arrays_under(pair, "worst") if pair.merit == "worst" else {}
    clouds = {}
    for name, far in run.arrays_under(pair, "novelty").items():
        merit = worst.get(name, np.zeros(0))
        shown = min(far.size, merit.size, _SHOWN_NETWORKS)
        clouds[name] = (far[:shown], merit[:shown])
    return drawing.novelty_plot(pair, clouds)


def answering(run: Run, pair: Pair) -> list[str]:
    """The methods whose answers are shown: the best generated and its rivals, those with answers only."""
    generated: list[Row] = []
    merges: list[Row] = []
    saved = run.arrays_under(pair, "answers")
    for row in pair.ranked():
        if row.kind == "generated" and row.family not in [each.family for each in generated]:
            generated.append(row)
        elif row.kind == "merge":
            merges.append(row)
    rivals = [row.name for row in (*generated[:_ANSWERING_FAMILIES], *merges[:1])]
    verdict = pair.verdict
    wanted = dict.fromkeys([verdict.best, *rivals, verdict.floor, verdict.yardstick, verdict.reference])
    return [name for name in wanted if name in saved] or list(saved)[:1]


def answers(run: Run, pair: Pair, columns: int = 12) -> Figure:
    """Test images, the first of each quadrant, and below each the answers of several methods."""
    methods = answering(run, pair)
    if not methods:
        raise MissingError("arrays.npz has no answers")
    images, quadrants = run.arrays[f"{pair.key}/test_images"], run.arrays[f"{pair.key}/test_quadrant"]
    rows = [number for number in range(len(QUADRANTS)) if (quadrants == number).any()]
    height = 0.86 + _ANSWER_HEIGHT * len(methods) + 0.25
    figure = new(WIDTH, 0.66 * height * len(rows) + 0.1)
    axes = figure.add_subplot()
    for row, number in enumerate(rows):
        y, members = row * height, np.flatnonzero(quadrants == number)
        axes.text(-0.12, y + 0.43, _quadrant_names(pair)[number], ha="right", va="center", weight="bold")
        for x, index in enumerate(members[:columns]):
            axes.imshow(images[index], extent=(x, x + 0.96, y + 0.86, y), interpolation="nearest")
        for line, method in enumerate(methods):
            scores = run.arrays[f"{pair.key}/answers/{method}"][members]
            right = (scores >= 0.5) == (number == 0)
            top = y + 0.9 + _ANSWER_HEIGHT * line
            middle: dict[str, Any] = {"va": "center", "fontsize": 7}
            told = f"{method}: {right.sum()} of {right.size}"
            axes.text(-0.12, top + _ANSWER_HEIGHT / 2, told, ha="right", **middle)
            for color, symbol, chosen in ((BLUE, "✓", right), (VERMILLION, "✗", ~right)):
                places = np.flatnonzero(chosen[:columns]).tolist()
                spans = [(x, 0.96) for x in places]
                axes.broken_barh(spans, (top, 0.9 * _ANSWER_HEIGHT), color=color, lw=0)
                for x in places:
                    place = (x + 0.48, top + 0.45 * _ANSWER_HEIGHT)
                    axes.text(*place, f"{symbol} {scores[x]:.2f}", color="white", ha="center", **middle)
    axes.set(xlim=(-0.05, columns), ylim=(height * len(rows) - 0.2, -0.05), aspect="equal")
    axes.axis("off")
    return figure


def quadrant_figures(run: Run, pair: Pair) -> Figure:
    """AUROC of every method against each of the other quadrants, side by side."""
    del run
    shown = [key for key in metrics.PARTS if any(row.auroc.get(key, NOTHING).known for row in pair.ranked())]
    if not shown:
        raise MissingError("no method was scored against a single quadrant")
    rows, names = pair.ranked(), dict(zip(metrics.PARTS, _quadrant_names(pair)[1:4], strict=True))
    figure = new(WIDTH, 0.9 + 0.22 * len(rows))
    for axes, key in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        axes.axvline(0.5, color=drawing.GREY, lw=1, ls="--", zorder=1)
        for y, row in enumerate(rows):
            against = row.auroc.get(key, NOTHING)
            axes.plot([against.low, against.high], [y, y], color=drawing.INK, lw=1.6, zorder=4)
            drawing.mark_mean(axes, against.mean, y, row.kind)
        axes.set_title(f"against {names[key]}")
        axes.set(xlabel="AUROC", xlim=(-0.02, 1.02), ylim=(len(rows) - 0.4, -0.6))
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(zorder=0)
    return figure


def layers(run: Run, pair: Pair) -> list[str]:
    """The layers whose kernels were saved."""
    return sorted({name.split("/")[0] for name in run.arrays_under(pair, "kernels")})


def kernels(run: Run, pair: Pair, layer: str) -> Figure:
    """Kernels of one layer, a column for each parent and generated method, for the first networks."""
    saved = run.arrays_under(pair, f"kernels/{layer}")
    first = next(iter(saved.values()))
    networks = min(3 if first.shape[3] == 3 else 2, len(first))
    columns = min(4, len(saved))
    bands = math.ceil(len(saved) / columns)
    shape = _kernel_picture(first[0])[0].shape
    height = min(WIDTH / (columns + 0.1) * shape[0] / shape[1], 2.6) + 0.3
    figure = new(WIDTH, height * networks * bands + 0.3)
    panels = np.asarray(figure.subplots(networks * bands, columns, squeeze=False))
    for axes in panels.flat:
        bare(axes)
    for place, (role, values) in enumerate(saved.items()):
        for number, kernel in enumerate(values[:networks]):
            axes = panels[place // columns * networks + number, place % columns]
            picture, largest = _kernel_picture(kernel)
            axes.imshow(picture, cmap="cividis", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_xlabel(f"|w| ≤ {largest:.2g}", fontsize=7.5, labelpad=2)
            if number == 0:
                axes.set_title(role_in_words(pair, role), fontsize=8.5)
            if place % columns == 0:
                axes.set_ylabel(f"network {number}", fontsize=8)
    return figure


def role_in_words(pair: Pair, role: str) -> str:
    """``black parents``, or the name of a method."""
    side = role.removesuffix("_parent")
    return f"{getattr(pair.pair, side)} parents" if side != role else role


def zoo_curves(run: Run, pair: Pair) -> Figure:
    """Losses and scores of both zoos by epoch: median over the networks and the middle 80%."""
    panels_of: dict[str, list[tuple[str, str, np.ndarray]]] = {}
    for side in ("attribute", "object"):
        for name, values in sorted(run.arrays_under(pair, f"history/zoo_{side}").items()):
            panel = "loss" if name.endswith("loss") else name.removeprefix("validation_").replace("_", " ")
            panels_of.setdefault(panel, []).append((side, name, values))
    if not panels_of:
        raise MissingError("arrays.npz has no history/zoo_attribute or history/zoo_object")
    order = sorted(panels_of, key=lambda panel: (panel != "loss", "auroc" in panel, panel))
    figure = new(WIDTH, 2.7)
    for axes, panel in zip(figure.subplots(1, len(order), squeeze=False)[0], order, strict=True):
        for side, name, values in panels_of[panel]:
            color, marker = (BLUE, "s") if side == "attribute" else (VERMILLION, "^")
            epochs, training = np.arange(1, values.shape[1] + 1), name.startswith("train")
            low, middle, high = np.percentile(values, [10, 50, 90], axis=0)
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
    names = dict.fromkeys(name.split("/")[0] for name in run.arrays_under(pair, "history"))
    return [name for name in names if not name.startswith("zoo_")]


def generator_curves(run: Run, pair: Pair, family: str) -> Figure:
    """Losses of a generator by step, a panel for each layer: as they are, and smoothed."""
    layers: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in sorted(run.arrays_under(pair, f"history/{family}").items()):
        layer, _, loss = name.rpartition("/")
        layers.setdefault(layer or family, []).append((loss, values.astype(float)))
    figure = new(WIDTH, 3.2)
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for axes, (layer, losses) in zip(panels, layers.items(), strict=True):
        for index, (loss, values) in enumerate(losses):
            color, dashes = drawing.LINES[index % len(drawing.LINES)]
            steps, window = np.arange(1, values.size + 1), max(1, values.size // 50)
            smooth = np.convolve(values, np.full(window, 1 / window), "valid")
            middle = steps[window // 2 : window // 2 + smooth.size]
            axes.plot(steps, values, color=color, lw=0.6, alpha=0.25)
            axes.plot(middle, smooth, color=color, ls=dashes, lw=1.5, label=loss.replace("_", " "))
        if min(finite(values).min(initial=np.inf) for _, values in losses) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:.2g}")
        axes.set(title=layer, xlabel="step")
        axes.grid(axis="y")
        axes.legend(ncols=2, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def cosine(run: Run, pair: Pair) -> Figure:
    """Mean cosine similarity of features between quadrants, a heat map for each method."""
    saved = run.arrays_under(pair, "cosine")
    wanted = [row.name for kind in ("generated", "parent") for row in pair.of_kind(kind)]
    wanted += [pair.verdict.floor, pair.verdict.yardstick, pair.verdict.reference]
    maps = {name: saved[name] for name in [*wanted, *saved] if name in saved}
    maps = dict(list(maps.items())[:_COSINES])
    if not maps:
        raise MissingError("arrays.npz has no cosine")
    low = min(0.99, *(finite(values).min(initial=1.0) for values in maps.values()))
    columns, names = min(4, len(maps)), _quadrant_names(pair)[:4]
    figure = new(WIDTH * columns / 4 + 0.9, 2.35 * math.ceil(len(maps) / columns) + 0.4)
    heat_maps(figure, maps, columns, (names, names), (low, 1.0))
    return figure


def embeddings(run: Run, pair: Pair) -> Figure:
    """UMAP of the features: above by true quadrant, below by cluster of K-means."""
    saved = run.arrays_under(pair, "embedding")
    if not saved:
        raise MissingError("arrays.npz has no embedding")
    wanted = [row.name for kind in ("generated", "parent") for row in pair.of_kind(kind)]
    wanted = [pair.verdict.best, pair.verdict.floor, *wanted, pair.verdict.reference, *saved]
    names = [name for name in dict.fromkeys(wanted) if name in saved][:_EMBEDDINGS]
    quadrants = run.arrays[f"{pair.key}/embedding_quadrant"]
    figure = new(WIDTH, 2 * WIDTH / max(len(names), 3) + 0.6)
    panels = np.asarray(figure.subplots(2, len(names), squeeze=False))
    for (above, below), name in zip(panels.T, names, strict=True):
        clusters = run.arrays[f"{pair.key}/cluster/{name}"]
        told = [(each, f"cluster {each}") for each in np.unique(clusters)]
        _scatter(above, saved[name], quadrants, enumerate(_quadrant_names(pair)), drawing.QUADRANT_STYLE)
        _scatter(below, saved[name], clusters, told, drawing.CLUSTER_STYLE)
        above.set_title(name, fontsize=8.5)
    panels[0, 0].set_ylabel("by quadrant")
    panels[1, 0].set_ylabel("by K-means cluster")
    for row, y in ((0, 0.0), (1, -0.045)):
        named = panels[row, 0].get_legend_handles_labels()
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, y), "ncols": 5}
        figure.legend(*named, markerscale=1.6, **place)
    return figure


def _kernel_picture(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """One layer's kernels (H, W, I, O) laid out as one picture, and the largest magnitude in it.

    Three input channels make colour pictures in one row; other counts a grid of I rows and O columns with
    values in [-1, 1], NaN between them.
    """
    height, width, inputs, outputs = kernel.shape
    largest = float(np.abs(kernel).max())
    scaled = kernel / largest if largest > 0 else kernel
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


def _scatter(
    axes: Axes,
    points: np.ndarray,
    numbers: np.ndarray,
    groups: Iterable[tuple[int, str]],
    styles: tuple[tuple[str, str], ...],
) -> None:
    """Points by group, each in a colour and marker."""
    for (number, told), (color, marker) in zip(groups, styles, strict=False):
        here = points[numbers == number]
        if len(here):
            width = 0.7 if marker == "x" else 0
            axes.scatter(
                here[:, 0], here[:, 1], s=11, color=color, marker=marker, alpha=0.75, lw=width, label=told
            )
    bare(axes, frame=True)


# All pairs ------------------------------------------------------------------------------------------------


def leaderboard(run: Run) -> Figure:
    """Every method over all pairs, best first: mean and 95% interval; small marks are single pairs."""
    assert run.overall is not None
    rows = run.overall.ranked()
    values = {row.name: np.array([pair.figure(row.name).mean for pair in run.pairs]) for row in rows}
    return drawing.strips(
        run.overall, rows, values, f"{prose.merit_title(run.overall)}: one small mark a pair"
    )


def novelty_overall(run: Run) -> Figure:
    """As `novelty`, over all pairs: large marks are means over pairs, faint marks pairs."""
    assert run.overall is not None
    clouds = {}
    for row in run.overall.ranked():
        having = [pair for pair in run.pairs if row.name in pair.methods]
        far = [pair.methods[row.name].novelty.get("distance", NOTHING).mean for pair in having]
        clouds[row.name] = (np.array(far), np.array([pair.figure(row.name).mean for pair in having]))
    return drawing.novelty_plot(run.overall, clouds)


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
    title = run.overall.verdict.best if run.overall else "best of each pair"
    maps = {}
    for rival in (*merges[:1], record.verdict.yardstick):
        gaps = {}
        for pair in run.pairs:
            best = run.overall.verdict.best if run.overall else pair.verdict.best
            gaps[pair.key] = pair.figure(best).mean - pair.figure(rival).mean
        maps[f"{title} minus {rival}"] = gaps
    return _maps(run, maps, diverging=True)


def contact_sheet(run: Run) -> Figure:
    """A sample of the data, row by row."""
    if "contact_sheet" not in run.arrays:
        raise MissingError("arrays.npz has no contact_sheet")
    sheet = run.arrays["contact_sheet"]
    rows, columns, tall, wide = sheet.shape[:4]
    gap = max(1, tall // 16)
    padded = np.pad(sheet, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    canvas = padded.swapaxes(1, 2).reshape(rows * (tall + gap), columns * (wide + gap), 3)[:-gap, :-gap]
    width = 0.7 * WIDTH
    figure = new(width, min(12.0, width * canvas.shape[0] / canvas.shape[1]) + 0.3)
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    bare(axes)
    told = run.data.contact_sheet
    if told.get("rows"):
        axes.set_yticks(np.arange(rows) * (tall + gap) + tall / 2, told["rows"])
    if told.get("columns"):
        axes.set_xticks(np.arange(columns) * (wide + gap) + wide / 2, told["columns"], rotation=40)
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


# The table of figures -------------------------------------------------------------------------------------


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
        leaderboard,
        "Every method over all pairs, best first: mean and 95% interval over pairs, one small mark a pair.",
    ),
    "novelty_overall": Entry(novelty_overall, _NOVELTY.format("pair's mean")),
    "matrix": Entry(
        matrix,
        "Mean figure of merit for every attribute (row) and object (column); one scale for all methods, a "
        "pair that was not run is blank.",
    ),
    "matrix_differences": Entry(
        differences,
        "The best generated method minus the best merge and minus both parents run side by side: orange "
        "where the generated networks are behind, purple where they are ahead. Where the pairs were not "
        "compared together it is each pair's best, picked on that pair's test images, which flatters it.",
    ),
    "contact_sheet": Entry(contact_sheet, "A sample of the images, as the networks see them."),
}
"""Figures of a run, by the names of their files."""

OF_PAIR = {
    "distributions": Entry(
        distributions,
        "Each small mark is one network, the large mark the mean with its 95% interval. 95% of the networks "
        "with random kernels lie in the shaded band: a single network inside it shows nothing.",
    ),
    "novelty": Entry(novelty, _NOVELTY.format("network")),
    "quadrants": Entry(
        quadrant_figures,
        "AUROC against each of the other quadrants, the best method at the top: mean and 95% interval. The "
        "dashed line is chance. What knows only one of the two concepts fails in one of the panels.",
    ),
    "answers": Entry(
        answers,
        "The first images of each quadrant, not chosen, and the answers of each method's first network, not "
        "its best. The number is its probability of the conjunction; ✓ on blue: right at threshold 1/2; ✗ on "
        "orange: wrong. Right of all images shown is said beside the name.",
    ),
    "kernels": Entry(
        kernels,
        "{part}: the first networks, not chosen, of the parents, of each generator, and random kernels. "
        "Inside a panel a column is a filter; three input channels are shown as red, green and blue (grey is "
        "zero), otherwise a row is an input channel. Each panel has its own scale.",
        layers,
    ),
    "zoo_curves": Entry(zoo_curves, "The parents' zoos: median network and middle 80%."),
    "generator_curves": Entry(
        generator_curves, "Losses of the generator {part} by step, a panel for each layer.", families
    ),
    "cosine": Entry(
        cosine, "Mean cosine similarity of the features of images in one quadrant with those in another."
    ),
    "embeddings": Entry(
        embeddings,
        "UMAP of the first network's features on the test images: the true quadrants above, the clusters of "
        "K-means below.",
    ),
}
"""Figures of a pair, by the names of their files."""
