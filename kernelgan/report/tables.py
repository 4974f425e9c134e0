"""The report's tables, as HTML; every text from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from kernelgan import results as results_lib

DASH = "&ndash;"

_AUROCS = (
    ("vs_attribute_only", "vs attribute only"),
    ("vs_object_only", "vs object only"),
    ("vs_neither", "vs neither"),
)
_SAMPLE = (
    "Equally many images of each quadrant; UMAP and what follows it on the first networks of each method "
    "only, and of so few an interval says little."
)
_CLUSTER_MEASURES = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")


def methods(pair: Mapping[str, Any]) -> str:
    """All methods, grouped by kind: figure of merit, its parts, and the other scores."""
    path = results_lib.merit_path(pair)
    quadrants = _AUROCS if path == "auroc.worst" else ()
    head = ["method", results_lib.merit_name(pair), ""]
    head += [label for _, label in quadrants]
    head += ["balanced accuracy", "average precision", "recovered", "networks", "parameters"]
    best = results_lib.best_generated(pair)
    null = results_lib.merit(pair, "random")
    rows = []
    kind: object = ""
    for name, method in results_lib.methods_in_order(pair):
        if method.get("kind") != kind:
            kind = method.get("kind")
            rows.append(
                f'<tr class="kind"><th colspan="{len(head)}">{escape(str(kind or "other"))}</th></tr>'
            )
        value = results_lib.interval(method, path)
        cells = [
            _stat(method, path, strong=True),
            _bar(value, null),
            *(_stat(method, f"auroc.{key}") for key, _ in quadrants),
            _stat(method, "balanced_accuracy"),
            _stat(method, "average_precision"),
            number(results_lib.interval(method, "recovered").mean, digits=2),
            _count(method.get("networks")),
            _count(method.get("parameters")),
        ]
        mark = ' class="best"' if name == best else ""
        rows.append(f"<tr{mark}><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{escape(label)}</th>" for label in head)
    return (
        f'<div class="scroll"><table class="wide"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">Means over all networks, with 95% intervals. The bar runs from 0 to 1: a dot for '
        "the mean, a line for the interval, a tick at the mean of the random networks. Recovered: share of "
        "the way from random to the ceiling. The tinted row is the better generated direction; picking it is "
        "part of the null test.</p>"
    )


def _bar(value: results_lib.Interval, null: results_lib.Interval, width: int = 90) -> str:
    """An interval on the scale from 0 to 1, drawn in the page itself."""
    if not value.known:
        return ""

    def at(x: float) -> float:
        return round(3 + min(max(x, 0.0), 1.0) * (width - 6), 1)

    def line(first: float, last: float, top: int, bottom: int, style: str) -> str:
        return f'<line x1="{first}" x2="{last}" y1="{top}" y2="{bottom}" {style}/>'

    marks = [line(3, width - 3, 9, 9, 'stroke="#dde2e8"')]
    if null.known:
        marks.append(line(at(null.mean), at(null.mean), 1, 17, 'stroke="#8a8f98" stroke-dasharray="3 2"'))
    if value.bounded:
        marks.append(line(at(value.low), at(value.high), 9, 9, 'stroke="#0072b2" stroke-width="3"'))
    marks.append(f'<circle cx="{at(value.mean)}" cy="9" r="3.5" fill="#0072b2" stroke="#fff"/>')
    label = f'role="img" aria-label="{value.text()}"'
    return f'<svg width="{width}" height="18" {label}>{"".join(marks)}</svg>'


def descriptions(pair: Mapping[str, Any]) -> str:
    """What each method is, folded away; nothing where no method says."""
    rows = [
        f'<tr><th>{escape(name)}</th><td class="prose">{escape(str(method["description"]))}</td></tr>'
        for name, method in results_lib.methods_in_order(pair)
        if method.get("description")
    ]
    if not rows:
        return ""
    return (
        "<details><summary>What each method is</summary>"
        f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div></details>'
    )


def null_test(pair: Mapping[str, Any]) -> str:
    """The matched null in words, and its p-values method by method."""
    test = pair.get("null_test") or {}
    if not test:
        return '<p class="note">No matched null test was run, so no claim is made against chance.</p>'
    rows = []
    for name, entry in (test.get("by_method") or {}).items():
        entry = entry if isinstance(entry, Mapping) else {}
        method = pair["methods"].get(name) or {}
        best = (method.get("auroc") or {}).get(results_lib.merit_path(pair).partition(".")[2]) or {}
        rows.append(
            (
                escape(str(name)),
                _stat(method, results_lib.merit_path(pair)),
                _p(entry.get("mean_p_value")),
                number(results_lib.number(best.get("best"))),
                f"{_p(entry.get('best_p_value'))} <small>(at least "
                f"{_p(entry.get('smallest_best_p_value'))})</small>",
            )
        )
    observed = number(results_lib.number(test.get("observed")))
    null_mean = number(results_lib.number(test.get("null_mean")))
    text = (
        f"{escape(str(test.get('method') or 'The method'))} on "
        f"{escape(str(test.get('statistic') or 'its score'))}: mean {observed}; random networks {null_mean}; "
        f"<strong>p {_p(test.get('p_value'), '= ')}</strong>. It is a permutation test of the means, times "
        f"the {_count(test.get('candidates'))} directions that the better one was picked from. The best "
        "network of each direction is tested against the best of as many drawn from all of them and the "
        "random ones."
    )
    content = f"<h3>Matched null</h3><p>{text}</p>"
    if rows:
        head = ("method", "mean", "p of the mean", "best of its networks", "p of the best")
        content += plain(head, rows, "counts")
        content += '<p class="note">A best network is shown only beside the p-value of the same picking.</p>'
    return content


def zoos(pair: Mapping[str, Any]) -> str:
    """How well the parents know their concepts; nothing where that was not saved."""
    zoo = pair.get("zoo") or {}
    rows = [
        (
            f"{escape(str(pair['pair'][side]))} ({side})",
            _stat(zoo.get(side), "balanced_accuracy"),
            _stat(zoo.get(side), "auroc"),
        )
        for side in ("attribute", "object")
        if isinstance(zoo.get(side), Mapping)
    ]
    if not rows:
        return ""
    head = ("zoo, on validation images", "balanced accuracy", "AUROC")
    return plain(head, rows, "counts")


def features(pair: Mapping[str, Any]) -> str:
    """Cosine similarity and novelty; nothing where neither was saved."""
    novelty_keys = list(
        dict.fromkeys(
            path
            for _, method in results_lib.methods_in_order(pair)
            for path in _statistics(method.get("novelty"))
        )
    )
    rows = []
    for name, method in results_lib.methods_in_order(pair):
        cells = [_stat(method, f"cosine_similarity.{key}") for key in ("within", "across", "margin")]
        cells += [_stat(method, f"novelty.{key}") for key in novelty_keys]
        if any(cell != DASH for cell in cells):
            rows.append((escape(name), *cells))
    if not rows:
        return ""
    head = ["method", "cosine within", "cosine across", "margin"]
    head += [f"novelty: {key.replace('.', ' ').replace('_', ' ')}" for key in novelty_keys]
    return (
        plain(head, rows, "wide")
        + '<p class="note">Cosine similarity of features within the conjunction, across to the other '
        "quadrants, and the margin between them."
        + (
            " Novelty: distance in weights to the nearest parent, and overlap of errors with it; a copy of "
            "a parent is not a generation.</p>"
            if novelty_keys
            else "</p>"
        )
    )


def _statistics(record: object, prefix: str = "") -> list[str]:
    """The dotted paths of the statistics in a part of the file."""
    if not isinstance(record, Mapping):
        return [prefix] if prefix and math.isfinite(results_lib.number(record)) else []
    if "mean" in record:
        return [prefix] if prefix else []
    return [
        path
        for key, item in record.items()
        for path in _statistics(item, f"{prefix}.{key}" if prefix else str(key))
    ]


def clustering(pair: Mapping[str, Any], sample: str = _SAMPLE) -> str:
    """Clustering scores by the standard definitions and, apart, by the reference's own.

    Args:
      pair: see there.
      sample: in words, which networks and images were clustered.
    """
    rows = []
    for name, method in results_lib.methods_in_order(pair):
        for clusterer, scores in (method.get("clustering") or {}).items():
            if isinstance(scores, Mapping):
                networks = (scores.get("accuracy") or {}).get("networks")
                cells = [escape(str(clusterer)), _count(networks)]
                cells += [_stat(scores, key) for key in _CLUSTER_MEASURES]
                cells += [_stat(scores, f"as_printed.{key}") for key in _CLUSTER_MEASURES[1:]]
                rows.append((name, cells))
    if not rows:
        return '<p class="note">No clustering was scored.</p>'
    body, last = [], None
    for name, cells in rows:
        marks = ['class="text"', *[""] * 6, 'class="divide"', *[""] * 3]
        columns = "".join(f"<td {mark}>{cell}</td>" for mark, cell in zip(marks, cells, strict=True))
        body.append(f"<tr><th>{escape(name) if name != last else ''}</th>{columns}</tr>")
        last = name
    names = [key.replace("cluster_", "") for key in _CLUSTER_MEASURES]
    heads = "".join(f"<th>{name}</th>" for name in names) + '<th class="divide">“precision”</th>'
    heads += "".join(f"<th>“{name}”</th>" for name in names[2:])
    return (
        '<h3>Clustering of the features, as the reference scores them</h3><div class="scroll">'
        '<table class="wide"><thead><tr><th class="group"></th><th class="group"></th>'
        '<th class="group"></th><th class="group" colspan="5">standard definitions</th>'
        '<th class="group divide" colspan="4">as printed by the reference</th></tr>'
        f'<tr><th>method</th><th class="text">clusterer</th><th>networks</th>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="note">{escape(sample)} As printed: what the reference '
        "calls “precision” is recall and its “recall” is precision; its “entropy” and “purity” are of "
        "cluster labels within each true class, not of classes within each cluster. They are here for parity "
        "only; read the standard ones.</p>"
    )


def counts(data: Mapping[str, Any]) -> str:
    """Images in each quadrant and split, and whether anything leaked."""
    splits = [name for name in ("train", "validation", "test") if isinstance(data.get(name), Mapping)]
    quadrants = [key for key in results_lib.QUADRANTS if any(key in data[split] for split in splits)]
    labels = {
        "a&o": "both",
        "a&!o": "attribute only",
        "!a&o": "object only",
        "!a&!o": "neither",
        "rest": "not the conjunction",
    }
    rows = [(split, *(_count(data[split].get(key)) for key in quadrants)) for split in splits]
    content = plain(("images", *(labels[key] for key in quadrants)), rows, "counts") if rows else ""
    leaked = results_lib.number(data.get("leaked"))
    if math.isfinite(leaked):
        state = (
            "✓ No image of the conjunction was read by anything but the ceiling"
            if leaked == 0
            else f"✗ {leaked:.0f} images of the conjunction were read"
        )
        content += (
            f"<p><strong>{state}</strong>, by content hash. Of the test images, "
            f"{_count(data.get('duplicates'))} are exact and {_count(data.get('near_duplicates'))} near "
            "duplicates of images that something trained or validated on.</p>"
        )
    return content


def plain(head: Sequence[str], rows: Iterable[Sequence[str]], style: str) -> str:
    """A table of cells that are HTML already; the first of each row is its heading."""
    heads = "".join(f"<th>{escape(label)}</th>" for label in head)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>" for first, *rest in rows
    )
    table = f'<table class="{style}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _stat(record: object, path: str, strong: bool = False) -> str:
    """A statistic as HTML: its mean, and under it its interval in small print."""
    value = results_lib.interval(record, path)
    if not value.known:
        return DASH
    mean = f"<strong>{value.mean:.3f}</strong>" if strong else f"{value.mean:.3f}"
    if not value.bounded:
        return mean
    return f"{mean} <small>[{value.low:.3f}, {value.high:.3f}]</small>"


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash for NaN."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if math.isfinite(value) else DASH


def _count(value: object) -> str:
    value = results_lib.number(value)
    return f"{value:,.0f}" if math.isfinite(value) else DASH


def _p(value: object, prefix: str = "") -> str:
    """A p-value; `prefix` goes before one that has no sign of its own."""
    text = results_lib.p_text(results_lib.number(value)).removeprefix("p ").removeprefix("= ")
    if text == "-":
        return prefix + DASH
    return escape(text if text.startswith("<") else prefix + text)


def seconds(value: float) -> str:
    """A duration; a dash for NaN."""
    if not math.isfinite(value):
        return DASH
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"
