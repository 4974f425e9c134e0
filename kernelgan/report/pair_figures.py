"""The figures of one pair, each drawn from what the run saved only."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.report import prose
from kernelgan.report.drawing import (
    _COLUMNS_OF_KERNELS,
    _EMBEDDINGS,
    _MAPS,
    _SHOWN_NETWORKS,
    BLUE,
    CLUSTER_STYLE,
    GREY,
    KIND_STYLE,
    LINES,
    QUADRANT_STYLE,
    VERMILLION,
    WIDTH,
    MissingError,
    bare,
    finite,
    heat_maps,
    new,
    novelty_plot,
    rectangle,
    strip,
    strip_axes,
    thinned,
)
from kernelgan.results import QUADRANTS, Pair, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def distributions(run: Run, pair: Pair) -> Figure:
    """Figure of merit of every network, method by method, over the range of the random networks."""
    every = {name: finite(values) for name, values in run.arrays_under(pair, "worst").items()}
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
        strip(axes, y, row.kind, values, pair.figure(row.name), alpha=0.45)
        if values.size > 3:
            first, middle, third = np.percentile(values, [25, 50, 75])
            color = KIND_STYLE[row.kind][0]
            box = {"facecolor": "none", "edgecolor": color, "lw": 1.1, "zorder": 3}
            axes.add_patch(rectangle(first, y - 0.3, third - first, 0.6, **box))
            axes.plot([middle, middle], [y - 0.3, y + 0.3], color=color, lw=1.6, zorder=3)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    what = f"{prose.merit_title(pair)}: one mark a network; large mark and bar: mean, 95% interval"
    strip_axes(axes, len(rows), what)
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
    return novelty_plot(pair, clouds)


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
            axes.add_patch(rectangle(x, y, 0.86, 0.86, **edge))
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
        bare(axes)
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
            color, dashes = LINES[index % len(LINES)]
            steps, window = np.arange(1, values.size + 1), max(1, values.size // 50)
            smooth = np.convolve(values, np.full(window, 1 / window), "valid")
            middle = steps[window // 2 : window // 2 + smooth.size]
            some, few = thinned(values.size, 600), thinned(smooth.size, 300)
            axes.plot(steps[some], values[some], color=color, lw=0.6, alpha=0.25)
            axes.plot(middle[few], smooth[few], color=color, ls=dashes, lw=1.5, label=loss.replace("_", " "))
        everything = np.concatenate([finite(values) for _, values in losses])
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
    low = min(0.99, *(finite(values).min(initial=1.0) for values in found.values()))
    columns = min(4, len(found))
    names = _quadrant_names(pair)[:4]
    figure = new(WIDTH * columns / 4 + 0.9, 2.35 * math.ceil(len(found) / columns) + 0.4)
    heat_maps(figure, found, columns, names, names, (low, 1.0))
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
    by_quadrant = [(number, _quadrant_names(pair)[number], QUADRANT_STYLE[number]) for number in numbers]
    for (above, below), name in zip(panels.T, names, strict=True):
        clusters = run.array(pair, f"cluster/{name}")
        clusters = np.zeros_like(quadrants) if clusters is None else clusters
        by_cluster = zip(np.unique(clusters), CLUSTER_STYLE, strict=False)
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
    bare(axes, frame=True)


def _in_order(pair: Pair, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays named after methods, in the order of the tables, others last."""
    names = [
        *(name for name in pair.methods if name in arrays),
        *(n for n in arrays if n not in pair.methods),
    ]
    return {name: arrays[name] for name in names}
