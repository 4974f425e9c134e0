"""The study's report: the finding in words, and one page with its tables and figures."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgan.evaluation.verdict import SIGNIFICANCE
from studies.jain2024.evidence import COMPARISONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("report.html")
CLUSTERERS = {"kmeans": "K-means", "one_class_svm": "one-class SVM", "dbscan": "DBSCAN"}
POPULATIONS = {
    "random": "random kernels",
    "gaussian": "Gaussian kernels",
    "black": "black zoo's own kernels",
    "cat": "cat zoo's own kernels",
    "generated_a": "generated (A)",
    "generated_b": "generated (B)",
}
ASKED = POPULATIONS | {
    "black": "the black zoo as trained",
    "cat": "the cat zoo as trained",
    "both": "both parents side by side",
    "composed_noise": "one network composed of both parents, with dead leaves",
    "composed_rendered": "one network composed of both parents, with rendered images",
    "refit_noise": "random kernels with heads fitted alike, with dead leaves",
    "refit_rendered": "random kernels with heads fitted alike, with rendered images",
}
SIDES = {  # of each of `COMPARISONS`
    "random": ("generated networks of both domains", "random kernels"),
    "black": ("generated networks of both domains", "the black zoo's own kernels, untranslated"),
    "source_a": ("generated networks of domain A", "the cat kernels that they were made from"),
    "source_b": ("generated networks of domain B", "the black kernels that they were made from"),
}
DECIDING = ("random", "black")
"""What a network that knows black cats must beat: no training at all, and networks that know black alone."""
_MOST = 0.8  # of the reported figures within our range: "its figures repeat"
_GREY, _BLUE, _RED, _INK = "#8A8F98", "#56B4E9", "#D55E00", "#1f2933"
_COLORS = {"random": _GREY, "gaussian": _GREY, "black": _BLUE, "cat": _BLUE}

Record = Mapping[str, Any]


def p_text(p_value: float) -> str:
    """``p = 0.012`` or ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def interval(statistic: Record) -> str:
    """``0.620 [0.570, 0.670]``, without brackets where there is no interval."""
    ends = statistic.get("ci95")
    return f"{statistic['mean']:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def beaten(document: Record) -> dict[str, list[str]]:
    """For each comparison, the clusterers by which generated networks beat the others, in best or mean."""
    return {
        name: [
            words
            for clusterer, words in CLUSTERERS.items()
            if min(document["picked"][name][clusterer][what]["holm_p_value"] for what in ("best", "mean"))
            < SIGNIFICANCE
        ]
        for name in COMPARISONS
    }


def finding(document: Record) -> list[str]:
    """What was claimed, what repeats, and what does not follow; in plain words, the answer first."""
    beats, rows, reported = beaten(document), document["rows"], document["reported"]
    config, trivial, populations = document["config"], document["trivial"], document["populations"]
    within = sum(row["within"] for row in rows)
    repeat = "Its figures repeat" + ("" if within >= _MOST * len(rows) else " in part")
    if not rows:
        repeat = "Its networks are assembled again (its own figures were not given)"
    lost = " or ".join(SIDES[name][1] for name in DECIDING if not beats[name])
    claim = (
        "but that networks for black cats were generated does not follow" if lost else "and its claim stands"
    )
    how = f"they are not shown to beat {lost}" if lost else "they beat random kernels and the black zoo's own"
    lines = [f"{repeat}, {claim}: picked and tuned in the same way, {how}."]
    if reported:
        best = [f"{CLUSTERERS[name]} {e['best']:.3f} ({e['network']})" for name, e in reported.items()]
        lines += [
            "Claimed: networks generated without a black cat tell black cats with 88% accuracy. Best of the "
            f"{max(e['rows'] for e in reported.values())} networks that it lists: {', '.join(best)}.",
            f"What repeats: of its {len(rows)} reported accuracies {within} lie within what "
            f"{len(config['seeds'])} seeds of UMAP and {len(config['kmeans_seeds'])} of K-means give here, "
            f"give or take one photograph ({sum(row['first'] for row in rows)} at the notebook's own seeds).",
        ]
    won = [
        f"{SIDES[name][0]} beat {SIDES[name][1]} (by {' and '.join(by)})" for name, by in beats.items() if by
    ]
    tail = document["tail"]["kmeans"]
    often = [f"{POPULATIONS.get(name, name)} {100 * e['share']:.1f}%" for name, e in tail["shares"].items()]
    kmeans = {name: entry["clustering"]["kmeans"]["accuracy"] for name, entry in populations.items()}
    means = [f"{words} {kmeans[name]['mean']:.3f}" for name, words in POPULATIONS.items()]
    asked = [
        f"{ASKED[name]} {interval(e['auroc'])}" for name, e in document["asked"].items() if name != "gaussian"
    ]
    lines += [
        f"What they do beat: {'; '.join(won)}." if won else "They are not shown to beat anything here.",
        "How often a network is as good as the worst of the picked, before tuning (K-means, accuracy "
        f"{tail['threshold']:.3f}): {', '.join(often)}.",
        f"No network picked, mean accuracy of K-means under the fixed protocol: {', '.join(means)}, always "
        f"answering no {trivial['always_other']:.3f}, dark in the middle, at its best threshold "
        f"{trivial['central_brightness']:.3f}.",
        "Asked directly, which the original does not do (both parents' heads, no cluster named by test "
        f"labels), AUROC of black cats against the rest: {', '.join(asked)}.",
    ]
    taken, there = populations["generated_a"]["networks"], min(document["zoos"].values())
    if taken < there:
        lines.append(
            f"Only {taken:,} of {there:,} generated networks in each direction were measured: too few to "
            "tell small differences, so what is not shown here may be there."
        )
    return [
        *lines,
        "That this could be checked at all is owed to the authors, who published every weight and "
        "photograph. P-values are over networks, given these photographs; they say nothing of others.",
    ]


def page(document: Record, arrays: Mapping[str, np.ndarray]) -> str:
    """The whole report as HTML, figures included."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"p": p_text, "interval": interval, "number": "{:.3f}".format}
    return environment.from_string(TEMPLATE.read_text()).render(
        **document,
        stands=all(beaten(document)[name] for name in DECIDING),
        figures={draw.__name__: _png(draw(document, arrays)) for draw in (relabelled, accuracies, planes)},
        words={"clusterers": CLUSTERERS, "populations": POPULATIONS, "asked": ASKED, "sides": SIDES},
        settings=json.dumps(document["config"], indent=1),
    )


def _png(figure: Figure) -> str:
    """A figure as base64; one legend below serves all of its panels."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode()


def _panels(rows: int, columns: int, height: float) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def accuracies(document: Record, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy of every network under the fixed protocol, and what was reported."""
    figure, panels = _panels(1, len(CLUSTERERS), 3.6)
    for axes, (clusterer, words) in zip(panels[0], CLUSTERERS.items(), strict=True):
        for y, name in enumerate(POPULATIONS):
            values, color = arrays[f"accuracy/{clusterer}/{name}"], _COLORS.get(name, _RED)
            # Accuracies are whole photographs: one bar a level, as high as the share of networks there.
            levels, counts = np.unique(values, return_counts=True)
            axes.bar(levels, -0.8 * counts / counts.max(), 0.009, y + 0.4, color=color, alpha=0.75)
            axes.plot(values.mean(), y + 0.4, "D", color=color, mec=_INK, ms=6)
        if clusterer in document["reported"]:
            best = document["reported"][clusterer]["best"]
            axes.axvline(best, color=_RED, lw=1.4, ls="--", label="best reported")
        axes.axvline(document["trivial"]["always_other"], color=_GREY, ls=":", label="always answering no")
        names = list(POPULATIONS.values()) if axes is panels[0, 0] else []
        axes.set_yticks(range(len(names)), names)
        axes.set(title=words, xlabel="accuracy", ylim=(len(POPULATIONS) - 0.45, -0.6))
    return figure


def relabelled(document: Record, arrays: Mapping[str, np.ndarray]) -> Figure:
    """How far apart the picked of two sides are, on average: in every relabelling, and as observed."""
    figure, panels = _panels(len(COMPARISONS), len(CLUSTERERS), 7.6)
    for row, name in zip(panels, COMPARISONS, strict=True):
        for axes, (clusterer, words) in zip(row, CLUSTERERS.items(), strict=True):
            test = document["picked"][name][clusterer]["mean"]
            values = arrays[f"relabelled/{name}/{clusterer}/mean"]
            axes.hist(values, bins=40, color=_GREY, alpha=0.6, label="relabelled")
            axes.axvline(test["difference"], color=_RED, lw=1.8, label="observed")
            axes.axvline(0, color=_INK, lw=0.8, ls=":")
            axes.set(title=f"{words}, {p_text(test['holm_p_value'])} (Holm's)", yticks=[])
            axes.locator_params(axis="x", nbins=4)
        row[0].set_ylabel(name)
    figure.supxlabel("generated less the others")
    return figure


def planes(document: Record, arrays: Mapping[str, np.ndarray]) -> Figure:
    """UMAP planes of the reported best, and of the best of each side under the fixed protocol."""
    del document
    positive = arrays["positive"] > 0
    shown = {name.partition("/")[2]: points for name, points in arrays.items() if name[:9] == "embedding"}
    figure, panels = _panels(1, len(shown), 3.2)
    for axes, (title, points) in zip(panels[0], shown.items(), strict=True):
        for mask, marker, color, label in (
            (~positive, "x", _GREY, "others"),
            (positive, "o", "k", "black cats"),
        ):
            axes.scatter(*points[mask].T, s=16, color=color, marker=marker, lw=0.8, label=label, alpha=0.8)
        axes.set(title=title, xticks=[], yticks=[])
    return figure
