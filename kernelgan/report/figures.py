"""The figures of a report, each drawn from saved results only.

A function takes the results (and a pair) and gives a matplotlib figure, or raises `MissingError` where the
run did not leave what it needs. Colours are Okabe and Ito's, or cividis; a marker or a symbol says the same.
"""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan import results as results_lib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pair = Mapping[str, Any]

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8F98"
INK, FAINT = "#1f2933", "#d5dae1"

KIND_STYLE = {
    "null": (GREY, "o"),
    "parent": (SKY, "s"),
    "merge": (PURPLE, "^"),
    "generated": (VERMILLION, "D"),
    "trained apart": (BLUE, "v"),
    "same size": (GREEN, "<"),
    "two nets": (ORANGE, "P"),
    "ceiling": (BLACK, "X"),
}
QUADRANT_STYLE = ((VERMILLION, "D"), (BLUE, "s"), (ORANGE, "^"), (GREY, "o"), (PURPLE, "x"))
LINES = (
    (BLUE, "-"),
    (VERMILLION, "--"),
    (GREEN, "-."),
    (ORANGE, ":"),
    (PURPLE, (0, (5, 1))),
    (SKY, (0, (3, 1, 1, 1))),
    (BLACK, (0, (1, 1))),
    (GREY, "-"),
)

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e9ecf0",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
}
WIDTH = 9.0  # inches
_DPI = 140


class MissingError(LookupError):
    """What a figure needs is not among the saved results; the message says what."""


def png(draw: Callable[[], Figure]) -> bytes:
    """Draws a figure and gives it as a PNG file.

    Args:
      draw: makes the figure.

    Raises:
      MissingError: as the figure does.
    """
    import matplotlib

    with matplotlib.rc_context(_RC):
        figure = draw()
        stream = io.BytesIO()
        figure.savefig(
            stream, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.08, metadata={"Software": None}
        )
    return stream.getvalue()


def quadrant_names(pair: Pair) -> tuple[str, ...]:
    """The quadrants in words, in the order of `results.QUADRANTS`."""
    attribute, thing = str(pair["pair"]["attribute"]), str(pair["pair"]["object"])
    return (
        f"{attribute} {thing}",
        f"{attribute}, not {thing}",
        f"{thing}, not {attribute}",
        "neither",
        "the rest",
    )


def distributions(results: results_lib.Results, pair: Pair) -> Figure:
    """Figure of merit of every network, method by method, over the range of the random ones."""
    worst = results.arrays_under(pair, "worst") if results_lib.merit_path(pair) == "auroc.worst" else {}
    rows = [
        (name, method, _finite(worst.get(name)), results_lib.merit(pair, name))
        for name, method in results_lib.methods_in_order(pair)
    ]
    rows = [row for row in rows if row[2].size or row[3].known]
    if not rows:
        raise MissingError(f"no method has a {results_lib.merit_name(pair)}")
    figure = new(WIDTH, 1.0 + 0.36 * len(rows))
    axes = figure.add_subplot()
    null = _finite(worst.get("random"))
    if null.size > 1:
        low, high = np.percentile(null, [2.5, 97.5])
        axes.axvspan(low, high, color=GREY, alpha=0.18, lw=0, label="95% of random networks")
    random = results_lib.merit(pair, "random")
    if random.known:
        axes.axvline(random.mean, color=GREY, lw=1, ls="--", label="mean of random networks")
    for y, (_, method, values, interval) in enumerate(rows):
        color, marker = KIND_STYLE.get(str(method.get("kind")), (GREY, "o"))
        if values.size:
            values = values[np.linspace(0, values.size - 1, min(values.size, 300)).astype(int)]
            jitter = (np.arange(values.size) * 0.61803 % 1 - 0.5) * 0.5
            axes.scatter(values, y + jitter, s=7, color=color, alpha=0.45, marker=marker, lw=0, zorder=2)
        if values.size > 3:
            first, middle, third = np.percentile(values, [25, 50, 75])
            box = {"facecolor": "none", "edgecolor": color, "lw": 1.1, "zorder": 3}
            axes.add_patch(_rectangle(first, y - 0.3, third - first, 0.6, **box))
            axes.plot([middle, middle], [y - 0.3, y + 0.3], color=color, lw=1.6, zorder=3)
        if interval.bounded:
            axes.plot([interval.low, interval.high], [y, y], color=INK, lw=2.2, zorder=4)
        if interval.known:
            style: dict[str, Any] = {"mfc": color, "mec": "white" if color == BLACK else INK, "mew": 0.8}
            axes.plot(interval.mean, y, marker=marker, ms=7, ls="", zorder=5, **style)
            text: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
            axes.text(1.012, y, interval.text(), **text)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel(
        f"{results_lib.merit_name(pair)}: one mark a network; large mark and bar: mean, 95% interval"
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderpad=0)
    return figure


def kernels(results: results_lib.Results, pair: Pair, layer: str) -> Figure:
    """Kernels of one layer before and after translation, for the first networks."""
    found = results.arrays_under(pair, f"kernels/{layer}")
    found = {role: values for role, values in found.items() if values.ndim == 5 and values.size}
    directions = [
        (side, (f"{side}_parent", translated))
        for side, translated in (("attribute", "cyclegan_a2b"), ("object", "cyclegan_b2a"))
        if f"{side}_parent" in found or translated in found
    ]
    if not directions:
        raise MissingError(f"arrays.npz has no kernels/{layer}")
    colour = next(iter(found.values())).shape[3] == 3
    rows = [
        (f"{pair['pair'][side]}\nnetwork {number}", [(found.get(role), number) for role in roles])
        for side, roles in directions
        for number in range(min(3 if colour else 2, max(len(found.get(role, ())) for role in roles)))
    ]
    first = _kernel_picture(next(iter(found.values()))[0])[0]
    height = min(WIDTH / 2.15 * first.shape[0] / first.shape[1], 2.6) + 0.3
    figure = new(WIDTH, height * len(rows) + 0.3)
    figure.set_layout_engine("constrained", wspace=0.05, hspace=0.02)
    panels = np.asarray(figure.subplots(len(rows), 2, squeeze=False))
    for row, (label, members) in enumerate(rows):
        for column, (values, number) in enumerate(members):
            axes = panels[row, column]
            _bare(axes)
            if values is None or number >= len(values):
                axes.text(0.5, 0.5, "not saved", ha="center", va="center", transform=axes.transAxes)
                continue
            picture, largest = _kernel_picture(values[number])
            axes.imshow(picture, cmap="cividis", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_xlabel(f"|w| ≤ {largest:.2g}", fontsize=7.5, labelpad=2)
        panels[row, 0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")
    panels[0, 0].set_title("parent")
    panels[0, 1].set_title("→ translated")
    return figure


def kernel_layers(results: results_lib.Results, pair: Pair) -> list[str]:
    """The layers whose kernels were saved."""
    return sorted({name.split("/")[0] for name in results.arrays_under(pair, "kernels") if "/" in name})


def zoo_curves(results: results_lib.Results, pair: Pair) -> Figure:
    """Losses and scores of both zoos by epoch: median over the networks and the middle 80%."""
    measures: dict[str, list[tuple[str, str, np.ndarray]]] = {}
    for side in ("attribute", "object"):
        for name, values in sorted(results.arrays_under(pair, f"history/zoo_{side}").items()):
            panel = "loss" if name.endswith("loss") else name.removeprefix("validation_").replace("_", " ")
            style = "--" if name.startswith("train") else "-"
            if values.ndim == 2 and values.size:
                measures.setdefault(panel, []).append((side, style, values))
    if not measures:
        raise MissingError("arrays.npz has no history/zoo_attribute or history/zoo_object")
    order = sorted(measures, key=lambda panel: (panel != "loss", "auroc" in panel, panel))[:4]
    figure = new(WIDTH, 2.7)
    for axes, panel in zip(figure.subplots(1, len(order), squeeze=False)[0], order, strict=True):
        for side, style, values in measures[panel]:
            color, marker = (BLUE, "s") if side == "attribute" else (VERMILLION, "^")
            epochs = np.arange(1, values.shape[1] + 1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # an epoch without any finite value
                low, middle, high = np.nanpercentile(
                    np.where(np.isfinite(values), values, np.nan), [10, 50, 90], axis=0
                )
            name = str(pair["pair"][side])
            label = f"{name}, {'training' if style == '--' else 'validation'}"
            axes.plot(epochs, middle, style, color=color, marker=marker, ms=3.5, lw=1.4, label=label)
            axes.fill_between(epochs, low, high, color=color, alpha=0.13, lw=0)
        axes.set_title(panel.replace("auroc", "AUROC"))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        axes.legend(fontsize=7)
    return figure


def cyclegan_curves(results: results_lib.Results, pair: Pair) -> Figure:
    """Losses of the translators by step, one panel a layer: as they are, and smoothed."""
    from matplotlib.ticker import LogLocator, NullFormatter

    layers: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, values in sorted(results.arrays_under(pair, "history/cyclegan").items()):
        layer, _, loss = name.partition("/")
        if values.ndim == 1 and values.size and loss:
            layers.setdefault(layer, []).append((loss, values.astype(float)))
    if not layers:
        raise MissingError("arrays.npz has no history/cyclegan")
    figure = new(WIDTH, 3.2)
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for axes, (layer, losses) in zip(panels, layers.items(), strict=True):
        for index, (loss, values) in enumerate(losses):
            color, style = LINES[index % len(LINES)]
            steps = np.arange(1, values.size + 1)
            shown = np.unique(np.linspace(0, values.size - 1, min(values.size, 600)).astype(int))
            axes.plot(steps[shown], values[shown], color=color, lw=0.6, alpha=0.25)
            window = max(1, values.size // 50)
            smooth = np.convolve(values, np.full(window, 1 / window), "valid")
            middle = steps[window // 2 : window // 2 + smooth.size]
            shown = np.unique(np.linspace(0, smooth.size - 1, min(smooth.size, 300)).astype(int))
            axes.plot(
                middle[shown], smooth[shown], color=color, ls=style, lw=1.5, label=loss.replace("_", " ")
            )
        everything = np.concatenate([_finite(values) for _, values in losses])
        if everything.size and everything.min() > 0:
            axes.set_yscale("log")
            wide = everything.max() > 50 * everything.min()
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(layer)
        axes.set_xlabel("step")
        axes.grid(axis="y")
        axes.legend(ncols=2, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def cosine(results: results_lib.Results, pair: Pair, limit: int = 24) -> Figure:
    """Mean cosine similarity of features between quadrants, one heat map a method."""
    found = _ordered(pair, results.arrays_under(pair, "cosine"), limit)
    found = {name: values for name, values in found.items() if values.shape == (4, 4)}
    if not found:
        raise MissingError("arrays.npz has no cosine/<method>")
    low = min((_finite(values).min(initial=1.0) for values in found.values()), default=0.0)
    columns = min(4, len(found))
    rows = math.ceil(len(found) / columns)
    figure = new(WIDTH * columns / 4 + 0.9, 2.35 * rows + 0.4)
    panels = np.asarray(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True))
    names = quadrant_names(pair)[:4]
    _hide(panels, len(found))
    for axes, (name, values) in zip(panels.flat, found.items(), strict=False):
        _heat_map(axes, values, min(low, 0.99), 1.0, digits=2)
        axes.set_title(name, fontsize=8)
        axes.set_yticks(range(4), names, fontsize=7)
        axes.set_xticks(range(4), names, fontsize=7, rotation=35, ha="right", rotation_mode="anchor")
    return figure


def embeddings(results: results_lib.Results, pair: Pair, limit: int = 4) -> Figure:
    """UMAP of the features: above by true quadrant, below by cluster of K-means."""
    quadrants = results.array(pair, "embedding_quadrant")
    if quadrants is None:
        raise MissingError("arrays.npz has no embedding_quadrant")
    found = {
        name: points
        for name, points in results.arrays_under(pair, "embedding").items()
        if points.shape == (len(quadrants), 2)
    }
    if not found:
        raise MissingError("arrays.npz has no embedding/<method>")
    first = [name for name, method in results_lib.methods_in_order(pair) if method.get("kind") == "generated"]
    wanted = [*first, "random", "attribute_only", "object_only", "trained_on_conjunction", *found]
    names = list(dict.fromkeys(name for name in wanted if name in found))[:limit]
    names = list(_ordered(pair, {name: found[name] for name in names}, limit))
    figure = new(WIDTH, 2 * WIDTH / max(len(names), 3) + 0.6)
    panels = np.asarray(figure.subplots(2, len(names), squeeze=False))
    for column, name in enumerate(names):
        above, below = panels[:, column]
        points = found[name]
        for number, (label, (color, marker)) in enumerate(
            zip(quadrant_names(pair), QUADRANT_STYLE, strict=True)
        ):
            here = points[quadrants == number]
            if len(here):
                above.scatter(
                    *here.T,
                    s=11,
                    color=color,
                    marker=marker,
                    alpha=0.75,
                    lw=0.7 if marker == "x" else 0,
                    label=label,
                )
        clusters = results.array(pair, f"cluster/{name}")
        if clusters is not None and clusters.shape == quadrants.shape:
            for number, (color, marker) in zip(np.unique(clusters), LINES_MARKERS, strict=False):
                here = points[clusters == number]
                below.scatter(
                    *here.T, s=11, color=color, marker=marker, alpha=0.7, lw=0, label=f"cluster {number}"
                )
        else:
            below.text(0.5, 0.5, "no clusters saved", ha="center", va="center", transform=below.transAxes)
        above.set_title(name, fontsize=8.5)
        for axes in (above, below):
            _bare(axes, frame=True)
    panels[0, 0].set_ylabel("by quadrant")
    panels[1, 0].set_ylabel("by K-means cluster")
    for row, y in ((0, 0.0), (1, -0.045)):
        handles, labels = panels[row, 0].get_legend_handles_labels()
        if handles:
            figure.legend(
                handles, labels, loc="upper center", bbox_to_anchor=(0.5, y), ncols=5, markerscale=1.6
            )
    return figure


LINES_MARKERS = ((BLUE, "o"), (ORANGE, "^"), (GREEN, "s"), (PURPLE, "D"), (BLACK, "x"), (SKY, "v"))


def answers(results: results_lib.Results, pair: Pair, method: str, columns: int = 12) -> Figure:
    """Test images with the answers of a method's FIRST network; which images: the first of each quadrant."""
    images, quadrants = results.array(pair, "test_images"), results.array(pair, "test_quadrant")
    scores = results.array(pair, f"answers/{method}")
    if images is None or quadrants is None or scores is None:
        raise MissingError(f"arrays.npz has no test_images, test_quadrant or answers/{method}")
    if images.ndim != 4 or not len(images) == len(quadrants) == len(scores):
        raise MissingError(f"test_images, test_quadrant and answers/{method} do not fit each other")
    rows = [number for number in range(len(results_lib.QUADRANTS)) if (quadrants == number).any()]
    figure = new(WIDTH, 0.93 * len(rows) + 0.25)
    axes = figure.add_subplot()
    for y, number in enumerate(rows):
        members = np.flatnonzero(quadrants == number)
        right = (scores[members] >= 0.5) == (number == 0)
        known = np.isfinite(scores[members])
        label = f"{quadrant_names(pair)[number]}\n{right[known].sum()} of {known.sum()} right"
        axes.text(-0.12, y + 0.42, label, ha="right", va="center", fontsize=8.5)
        for x, index in enumerate(members[:columns]):
            axes.imshow(images[index], extent=(x, x + 0.86, y + 0.86, y), interpolation="nearest")
            correct = (scores[index] >= 0.5) == (number == 0)
            color, symbol = (BLUE, "✓") if correct else (VERMILLION, "✗")
            edge = {"facecolor": "none", "edgecolor": color, "lw": 2.0, "ls": "-" if correct else "--"}
            axes.add_patch(_rectangle(x, y, 0.86, 0.86, **edge))
            text = f"{symbol} {scores[index]:.2f}" if np.isfinite(scores[index]) else "\N{EN DASH}"
            box = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
            style: dict[str, Any] = {
                "color": "white",
                "fontsize": 7,
                "ha": "left",
                "va": "bottom",
                "bbox": box,
            }
            axes.text(x + 0.05, y + 0.81, text, **style)
    axes.set_xlim(-0.05, columns)
    axes.set_ylim(len(rows), -0.05)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def answering_method(results: results_lib.Results, pair: Pair) -> str | None:
    """The method whose answers are shown: the best generated direction, or the first that has any."""
    saved = _ordered(pair, results.arrays_under(pair, "answers"), 1000)
    best = results_lib.best_generated(pair)
    generated = [name for name in saved if (pair["methods"].get(name) or {}).get("kind") == "generated"]
    return next((name for name in (best, *generated, *saved) if name in saved), None)


def contact_sheet(results: results_lib.Results) -> Figure:
    """A sample of the data, row by row."""
    sheet = results.arrays.get("contact_sheet")
    if sheet is None or sheet.ndim != 5 or not sheet.size:
        raise MissingError("arrays.npz has no contact_sheet")
    labels = (results.document.get("data") or {}).get("contact_sheet") or {}
    rows, columns, height, width = sheet.shape[:4]
    gap = max(1, height // 16)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            canvas[top : top + height, left : left + width] = sheet[row, column]
    figure = new(WIDTH, min(12.0, WIDTH * canvas.shape[0] / canvas.shape[1]) + 0.3)
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    _bare(axes)
    names = [str(name) for name in labels.get("rows") or ()]
    if len(names) == rows:
        axes.set_yticks(np.arange(rows) * (height + gap) + height / 2, names)
    names = [str(name) for name in labels.get("columns") or ()]
    if len(names) == columns:
        axes.set_xticks(np.arange(columns) * (width + gap) + width / 2, names)
        axes.xaxis.tick_top()
        if max(map(len, names)) > 90 / columns:
            axes.tick_params(axis="x", rotation=40)
    axes.tick_params(length=0)
    return figure


def matrix(results: results_lib.Results, methods: Sequence[str]) -> Figure:
    """Mean figure of merit for every attribute and object, one heat map a method; pairs not run are blank."""
    maps = {method: _pair_map(results, functools.partial(_mean, method=method)) for method in methods}
    maps = {method: values for method, values in maps.items() if np.isfinite(values).any()}
    if not maps:
        raise MissingError("no pair has a figure of merit")
    low = min(float(np.nanmin(values)) for values in maps.values())
    high = max(float(np.nanmax(values)) for values in maps.values())
    return _maps(results, maps, low, max(high, low + 1e-6))


def differences(results: results_lib.Results, rivals: Sequence[str]) -> Figure:
    """Figure of merit of the best generated method minus that of others, one heat map each.

    It is the best over all pairs, the same in each, for a best of each pair would be picked on its test
    images; that is what is shown without a record of all pairs. The scale is about zero: orange where the
    generated networks are behind, purple where they are ahead.
    """
    best_of_all = best_over_pairs(results)

    def behind(pair: Pair, rival: str) -> float:
        best = best_of_all or results_lib.best_generated(pair)
        return _mean(pair, best) - _mean(pair, rival) if best else math.nan

    name = best_of_all or "each pair's best generated"
    maps = {
        f"{name} minus {rival}": _pair_map(results, functools.partial(behind, rival=rival))
        for rival in rivals
    }
    maps = {title: values for title, values in maps.items() if np.isfinite(values).any()}
    if not maps:
        raise MissingError("no pair has a generated method and one to compare it with")
    largest = max(float(np.nanmax(np.abs(values))) for values in maps.values()) or 1.0
    return _maps(results, maps, -largest, largest, diverging=True)


def best_over_pairs(results: results_lib.Results) -> str | None:
    """The generated method that is best over all pairs; None where the run has no record of one."""
    overall = results.document.get("overall")
    return results_lib.best_generated(overall) if overall else None


def _mean(pair: Pair, method: str) -> float:
    return results_lib.merit(pair, method).mean


def _places(results: results_lib.Results) -> tuple[list[str], list[str]]:
    """The attributes and the objects of a run, each sorted by name."""
    pairs = [pair["pair"] for pair in results.pairs()]
    return (
        sorted({str(pair["attribute"]) for pair in pairs}),
        sorted({str(pair["object"]) for pair in pairs}),
    )


def _pair_map(results: results_lib.Results, value: Callable[[Pair], float]) -> np.ndarray:
    """``(attributes, objects)``: a number of every pair; NaN where there was no such pair."""
    attributes, objects = _places(results)
    values = np.full((len(attributes), len(objects)), np.nan)
    for pair in results.pairs():
        place = attributes.index(str(pair["pair"]["attribute"])), objects.index(str(pair["pair"]["object"]))
        values[place] = value(pair)
    return values


def _maps(
    results: results_lib.Results,
    maps: Mapping[str, np.ndarray],
    low: float,
    high: float,
    diverging: bool = False,
) -> Figure:
    """Heat maps of attributes by objects on one scale."""
    attributes, objects = _places(results)
    most = 4 if len(objects) <= 4 else 3 if len(objects) <= 8 else 2
    columns = min(range(min(most, len(maps)), 0, -1), key=lambda count: (-len(maps) % count, -count))
    columns = columns if columns > 1 else min(most, len(maps))
    rows = math.ceil(len(maps) / columns)
    cell = min(max(WIDTH / columns / (len(objects) + 1.5), 0.24), 0.5)
    figure = new(WIDTH * max(columns, min(most, 2)) / max(most, 2) if columns == 1 else WIDTH, 0.0)
    figure.set_figheight(rows * (min(cell, 0.32) * len(attributes) + 0.4) + 0.6)
    panels = np.asarray(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True))
    _hide(panels, len(maps))
    for axes, (name, values) in zip(panels.flat, maps.items(), strict=False):
        _heat_map(axes, values, low, high, digits=2, diverging=diverging, blank=True)
        axes.set_title(name, fontsize=8.5)
        axes.set_xticks(
            range(len(objects)), objects, fontsize=8, rotation=35, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(attributes)), attributes, fontsize=8)
    return figure


def leaderboard(results: results_lib.Results) -> Figure:
    """Every method over all pairs, best first: mean and 95% interval; small marks are single pairs.

    From ``overall``; the dashed line is both parents run side by side, the dotted one the ceiling.
    """
    overall = results.document.get("overall") or {}
    rows = results_lib.ranked(overall)
    if not rows:
        raise MissingError("results.json has no overall figures of merit")
    figure = new(WIDTH, 1.15 + 0.3 * len(rows))
    axes = figure.add_subplot()
    for name, color, dashes, height in _yardsticks(overall):
        axes.axvline(height, color=color, ls=dashes, lw=1.3, label=results_lib.WORDS[name])
    axes.axvline(0.5, color=INK, lw=0.8, alpha=0.5)
    for y, (name, method) in enumerate(rows):
        kind = str(method.get("kind"))
        color, marker = KIND_STYLE.get(kind, (GREY, "o"))
        if kind == "generated":
            axes.axhspan(y - 0.5, y + 0.5, color=color, alpha=0.10, lw=0, zorder=0)
        singles = _finite(np.array([_mean(pair, name) for pair in results.pairs()]))
        jitter = (np.arange(singles.size) * 0.61803 % 1 - 0.5) * 0.5
        axes.scatter(singles, y + jitter, s=6, color=color, alpha=0.28, marker="o", lw=0, zorder=2)
        value = results_lib.merit(overall, name)
        if value.bounded:
            axes.plot([value.low, value.high], [y, y], color=INK, lw=2.2, zorder=4)
        style: dict[str, Any] = {"mfc": color, "mec": "white" if color == BLACK else INK, "mew": 0.8}
        axes.plot(value.mean, y, marker=marker, ms=7, ls="", zorder=5, **style)
        text: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        weight = "bold" if kind == "generated" else "normal"
        axes.text(1.012, y, value.text(), weight=weight, **text)
        axes.text(-0.012, y, results_lib.in_words(name), ha="right", weight=weight, **text)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", zorder=0)
    axes.set_axisbelow(True)
    pairs = results_lib.number(overall.get("pairs"))
    axes.set_xlabel(
        f"{results_lib.merit_name(overall)}, mean over {pairs:.0f} pairs with 95% interval (0.5: chance); "
        "one small mark a pair"
    )
    kinds = [kind for kind in KIND_STYLE if any(method.get("kind") == kind for _, method in rows)]
    for kind in kinds:
        color, marker = KIND_STYLE[kind]
        axes.plot([], [], color=color, marker=marker, ls="", ms=6, mec=INK, mew=0.5, label=kind)
    figure.legend(loc="outside upper center", ncols=5)
    return figure


def novelty(results: results_lib.Results, pair: Pair) -> Figure:
    """Figure of merit against distance from the nearest parent, of networks (faint) and their means."""
    distances, worst = results.arrays_under(pair, "novelty"), results.arrays_under(pair, "worst")
    clouds = {}
    for name, values in distances.items():
        scores = np.asarray(worst.get(name, np.zeros(0)), np.float64).ravel()
        far = np.asarray(values, np.float64).ravel()
        count = min(far.size, scores.size, 60)
        clouds[name] = (far[:count], scores[:count])
    if results_lib.merit_path(pair) != "auroc.worst":
        clouds = {}
    return _novelty(pair, clouds)


def novelty_overall(results: results_lib.Results) -> Figure:
    """As `novelty`, over all pairs: a large mark is a method's mean over pairs, a faint one a single pair."""
    overall = results.document.get("overall") or {}
    clouds = {}
    for name, _ in results_lib.ranked(overall):
        points = [
            (results_lib.interval(pair["methods"].get(name), "novelty.distance").mean, _mean(pair, name))
            for pair in results.pairs()
        ]
        far, scores = np.asarray(points, np.float64).reshape(-1, 2).T
        clouds[name] = (far, scores)
    return _novelty(overall, clouds)


def _novelty(record: Pair, clouds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """The plot of utility and novelty of one pair, or of ``overall``."""
    rows = []
    for name, method in results_lib.methods_in_order(record):
        far, score = results_lib.interval(method, "novelty.distance"), results_lib.merit(record, name)
        if far.known and score.known:
            rows.append((name, str(method.get("kind")), far, score))
    if not rows:
        raise MissingError("no method has both a novelty and a figure of merit")
    figure = new(WIDTH, 5.2)
    axes = figure.add_subplot()
    axes.axvspan(-9, results_lib.COPY, color=GREY, alpha=0.18, lw=0, zorder=0)
    for name, kind, far, score in rows:
        color, marker = KIND_STYLE.get(kind, (GREY, "o"))
        if name in clouds:
            axes.scatter(*clouds[name], s=9, color=color, marker=marker, alpha=0.22, lw=0, zorder=2)
        if far.bounded:
            axes.plot([far.low, far.high], [score.mean] * 2, color=INK, lw=1.1, zorder=4)
        if score.bounded:
            axes.plot([far.mean] * 2, [score.low, score.high], color=INK, lw=1.1, zorder=4)
        style: dict[str, Any] = {"mfc": color, "mec": "white" if color == BLACK else INK, "mew": 0.8}
        axes.plot(far.mean, score.mean, marker=marker, ms=8, ls="", zorder=5, **style)
    for _, color, dashes, height in _yardsticks(record):
        axes.axhline(height, color=color, ls=dashes, lw=1.4, zorder=1)
    far_ends = [point for _, _, far, _ in rows for point in (far.mean, far.high) if math.isfinite(point)]
    for far_values, _ in clouds.values():
        far_ends += list(_finite(far_values))
    axes.set_xlim(-0.06, max(1.25, 1.06 * max(far_ends)))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.05 * (high - low))
    axes.axvline(1.0, color=FAINT, lw=1, zorder=0)
    axes.grid(axis="y", zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel("distance from the nearest parent (1: as far as a parent is from its nearest fellow)")
    axes.set_ylabel(results_lib.merit_name(record))
    corner: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "fontsize": 8, "color": "#4a525c"}
    axes.text(results_lib.COPY / 2, 0.985, "copy of a parent", ha="center", va="top", **corner)
    lines = _yardsticks(record)
    top = max((height for *_, height in lines), default=0.0)
    for name, _, _, height in lines:
        text, place = results_lib.in_words(name, record), (results_lib.COPY, height)
        above = height == top  # the other goes below its line, for the two may be close
        side = "bottom" if above else "top"
        offset = (6, 2 if above else -2)
        axes.annotate(text, place, offset, textcoords="offset points", va=side, fontsize=7.5)
    named = {name for name, *_ in lines}
    _label_points(axes, [row for row in rows if row[0] not in named])
    return figure


def _yardsticks(record: Pair) -> list[tuple[str, str, str, float]]:
    """What a generated network should come up to, as lines: name, colour, dashes, figure of merit."""
    methods = record.get("methods") or {}
    lines = []
    for name, dashes in (("and_ensemble", "--"), ("trained_on_conjunction", ":")):
        value = results_lib.merit(record, name)
        if value.known:
            color = KIND_STYLE.get(str(methods[name].get("kind")), (GREY, "o"))[0]
            lines.append((name, color, dashes, value.mean))
    return lines


def _label_points(
    axes: Axes, rows: Sequence[tuple[str, str, results_lib.Interval, results_lib.Interval]]
) -> None:
    """Labels means where the text meets no other label, mean or interval, nor a text already there.

    Each takes the first free place about its mean, nearest first, or the one that meets least; one that is
    not next to its mean gets a leader.

    Args:
      axes: with its limits set; its figure's layout is run here, so nothing may be added later.
      rows: name, kind (generated ones are bold), and the intervals along x and y.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patheffects import withStroke

    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    taken = [text.get_window_extent(renderer).padded(2) for text in axes.texts]
    places = axes.transData.transform([(x.mean, y.mean) for _, _, x, y in rows])
    for (_, _, x, y), (across, up) in zip(rows, places, strict=True):
        taken.append(_box(across - 5 * scale, up - 5 * scale, 10 * scale, 10 * scale))
        if x.bounded and y.bounded:
            first, last = axes.transData.transform([(x.low, y.low), (x.high, y.high)])
            taken.append(_box(first[0], up - scale, last[0] - first[0], 2 * scale))
            taken.append(_box(across - scale, first[1], 2 * scale, last[1] - first[1]))
    angles = np.deg2rad((0, 180, 90, 270, 35, 145, 215, 325, 65, 115, 245, 295))
    for (name, kind, x, y), place in sorted(
        zip(rows, places, strict=True), key=lambda item: -float(item[1][1])
    ):
        style: dict[str, Any] = {
            "textcoords": "offset points",
            "fontsize": 8,
            "weight": "bold" if kind == "generated" else "normal",
            "zorder": 6,
            "path_effects": [withStroke(linewidth=2, foreground="white", alpha=0.8)],
        }
        text = axes.annotate(name, (x.mean, y.mean), (0, 0), **style)
        extent = text.get_window_extent(renderer)
        text.remove()
        width, height = extent.width, extent.height
        best = (math.inf, 0.0, 0.0, 0.0)
        for radius in (10.0, 16.0, 26.0, 38.0, 52.0, 70.0):
            for angle in angles:
                across, up = math.cos(angle), math.sin(angle)
                left = place[0] + radius * scale * across - width * (1 - across) / 2
                bottom = place[1] + radius * scale * up - height * (1 - up) / 2
                box = _box(left, bottom, width, height)
                met = sum(_shared(box, other) for other in taken)
                met += 10 * (width * height - _shared(box, frame))  # beyond the frame is worst
                if met < best[0] - 1e-6:
                    best = (met, left, bottom, radius)
            if best[0] < 1e-6:
                break
        _, left, bottom, radius = best
        taken.append(_box(left, bottom, width, height))
        offset = ((left - place[0]) / scale, (bottom - place[1]) / scale)
        leader = {"arrowstyle": "-", "color": GREY, "lw": 0.7, "shrinkA": 0, "shrinkB": 5}
        style |= {"va": "bottom", "arrowprops": leader if radius > 10 else None}
        axes.annotate(name, (x.mean, y.mean), offset, **style)


def _box(left: float, bottom: float, width: float, height: float) -> Any:  # noqa: ANN401
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(left, bottom, width, height)


def _shared(first: Any, second: Any) -> float:  # noqa: ANN401
    """The area that two boxes share, in square pixels."""
    across = min(first.x1, second.x1) - max(first.x0, second.x0)
    up = min(first.y1, second.y1) - max(first.y0, second.y0)
    return max(across, 0.0) * max(up, 0.0)


def _hide(panels: np.ndarray, used: int) -> None:
    """Hides the panels left over, and has the one above each keep its tick labels."""
    columns = panels.shape[1]
    for index in range(used, panels.size):
        panels.flat[index].set_visible(False)
        if index >= columns:
            panels.flat[index - columns].tick_params(labelbottom=True)


def new(width: float, height: float) -> Figure:
    """A figure of its own, outside pyplot's global state; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _rectangle(x: float, y: float, width: float, height: float, **style: Any) -> Any:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, **style)


def _heat_map(
    axes: Axes,
    values: np.ndarray,
    low: float,
    high: float,
    digits: int,
    diverging: bool = False,
    blank: bool = False,
) -> None:
    """A heat map with its numbers written into it; `blank` leaves places without a number empty."""
    axes.imshow(values, cmap="PuOr" if diverging else "cividis", vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if blank and not np.isfinite(value):
            continue
        text = (
            f"{value:{'+' if diverging else ''}.{digits}f}".replace("-0.00", "+0.00")
            if np.isfinite(value)
            else "\N{EN DASH}"
        )
        share = (value - low) / (high - low)
        # cividis is as light as mid-grey halfway up: white to there, black beyond. PuOr is dark at both ends.
        dark = abs(share - 0.5) > 0.36 if diverging else share < 0.48
        color = "white" if np.isfinite(value) and dark else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _kernel_picture(kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """One layer's kernels (H, W, I, O) laid out as one picture, and the largest magnitude in it.

    Three input channels make colour pictures in one row; other counts a grid of I rows and O columns with
    values in [-1, 1].
    """
    height, width, inputs, outputs = kernel.shape
    finite = np.nan_to_num(kernel.astype(np.float64), posinf=0.0, neginf=0.0)
    largest = float(np.abs(finite).max(initial=0.0))
    scaled = finite / largest if largest > 0 else finite
    colour = inputs == 3
    rows, columns = 1 if colour else inputs, outputs
    shape = (rows * (height + 1) - 1, columns * (width + 1) - 1)
    picture = np.ones((*shape, 3)) if colour else np.full(shape, np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + 1), column * (width + 1)
            window = np.s_[top : top + height, left : left + width]
            picture[window] = 0.5 + 0.5 * scaled[:, :, :, column] if colour else scaled[:, :, row, column]
    return picture, largest


def _bare(axes: Axes, frame: bool = False) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame)


def _finite(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        return np.zeros(0)
    values = np.asarray(values, np.float64).ravel()
    return values[np.isfinite(values)]


def _ordered(pair: Pair, arrays: Mapping[str, np.ndarray], limit: int) -> dict[str, np.ndarray]:
    """The first arrays named after methods, in the order of the tables."""
    names = [name for name, _ in results_lib.methods_in_order(pair) if name in arrays]
    names += [name for name in arrays if name not in names]
    return {name: arrays[name] for name in names[:limit]}
