"""The report's tables, as HTML; every text from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from kernelgan import results as results_lib

DASH = "&ndash;"
ANSWERS = {"yes": "✓ Yes", "no": "✗ No", "cannot tell": "? Cannot tell"}
TRAINED_ONCE = (
    "P-values treat all networks of a direction as independent; they come from one trained translator a "
    "pair, so another training of it is not covered."
)
"""What no p-value covers."""

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


def methods(pair: Mapping[str, Any], brief: bool = False) -> str:
    """All methods, grouped by kind: figure of merit, its parts, the best generated minus each, other scores.

    Args:
      pair: see there.
      brief: only the figure of merit with its interval, and no bar: for pages of many pairs.
    """
    path = results_lib.merit_path(pair)
    quadrants = _AUROCS if path == "auroc.worst" else ()
    head = ["method", results_lib.merit_name(pair), *([] if brief else [""])]
    head += [label for _, label in quadrants]
    head += ["best generated minus this", "right by quadrant", "conjunction found", "average precision"]
    head += ["recovered", "networks", "parameters"]
    best = results_lib.best_generated(pair)
    null = results_lib.merit(pair, "random")
    tests = (pair.get("tests") or {}).get(best) or {}
    rows = []
    kind: object = ""
    for name, method in results_lib.methods_in_order(pair):
        if method.get("kind") != kind:
            kind = method.get("kind")
            rows.append(
                f'<tr class="kind"><th colspan="{len(head)}">{escape(str(kind or "other"))}</th></tr>'
            )
        value = results_lib.interval(method, path)
        means = [f"auroc.{key}" for key, _ in quadrants]
        scores = ["balanced_accuracy", "recall", "average_precision"]
        cells = [
            _stat(method, path, strong=True),
            *([] if brief else [_bar(value, null)]),
            *(_stat(method, score, brief=brief) for score in means),
            _difference(tests.get(name)),
            *(_stat(method, score, brief=brief) for score in scores),
            number(results_lib.interval(method, "recovered").mean, digits=2),
            _count(method.get("networks")),
            _count(method.get("parameters")),
        ]
        mark = ' class="best"' if name == best else ""
        rows.append(f"<tr{mark}><th>{escape(name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{escape(label)}</th>" for label in head)
    table = (
        f'<div class="scroll"><table class="wide"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return table if brief else table + methods_note(pair)


def merit_note(record: Mapping[str, Any]) -> str:
    """What the figure of merit and the share recovered are.

    Args:
      record: of one pair, or the record ``overall`` of many.
    """
    explained = escape(results_lib.MERIT_EXPLAINED[results_lib.merit_path(record)])
    return f'<p class="note">{explained} {escape(results_lib.RECOVERED_EXPLAINED)}</p>'


def methods_note(pair: Mapping[str, Any], brief: bool = False) -> str:
    """What the columns of `methods` are, for a reader new to them; `brief` as there."""
    bar = (
        ""
        if brief
        else "A bar runs from 0 to 1: a dot for the mean, a line for the interval, a tick at the mean of the "
        "random networks. "
    )
    return merit_note(pair) + (
        f'<p class="note">Means over all networks, with 95% intervals. {bar}Best generated minus this: the '
        "difference in the figure of merit and its corrected p-value. Right by quadrant: the share of images "
        "answered rightly, each of the four quadrants counting the same (balanced accuracy), so that always "
        "answering “no” scores 0.75; conjunction found: the share of its images answered “yes” (recall), 0 "
        "for that answer. The tinted row is the best generated method; that it was picked is part of every "
        "test.</p>"
    )


def _difference(test: object) -> str:
    """A difference with its p-value under it; a dash where it was not tested."""
    difference = results_lib.interval(test, "difference")
    if not difference.known or not isinstance(test, Mapping):
        return DASH
    p_value = results_lib.number(test.get("p_adjusted"))
    return f"{difference.mean:+.3f} <small>{escape(results_lib.p_text(p_value))}</small>"


def tests(record: Mapping[str, Any]) -> str:
    """Every generated method against every other: difference, its interval, corrected p; "" without tests.

    Args:
      record: of one pair, or the record ``overall`` of many.
    """
    methods = results_lib.methods_in_order(record)
    found = record.get("tests") or {}
    generated = [name for name, method in methods if method.get("kind") == "generated" and name in found]
    if not generated:
        return ""
    rows = []
    for rival, _ in methods:
        cells = []
        for name in generated:
            test = found[name].get(rival) or {}
            difference, p_value = results_lib.interval(test, "difference"), test.get("p_adjusted")
            if not difference.known:
                cells += [DASH, DASH]
                continue
            ends = f" <small>[{difference.low:+.3f}, {difference.high:+.3f}]</small>"
            clear = results_lib.number(p_value) < results_lib.SIGNIFICANCE
            text = _p(p_value)
            cells += [
                f"{difference.mean:+.3f}{ends if difference.bounded else ''}",
                f"<strong>{text}</strong>" if clear else text,
            ]
        if any(cell != DASH for cell in cells):
            rows.append((escape(rival), *cells))
    head = ["minus"]
    for name in generated:
        head += [name, "p"]
    return (
        "<h3>Generated methods against every other</h3>"
        + plain(head, rows, "counts")
        + '<p class="note">Difference of the figures of merit with its 95% interval; above zero the '
        "generated networks are better. Two-sided p-values, corrected for having picked the best generated "
        "method and, in a run of several pairs, for their number; bold: under 0.05.</p>"
    )


def leaderboard(overall: Mapping[str, Any]) -> str:
    """Every method over all pairs, best first, with its record against both parents run side by side."""
    rows = []
    for name, method in results_lib.ranked(overall):
        against = method.get("against") or {}
        cells = [
            escape(str(method.get("kind") or "other")),
            _stat(method, results_lib.merit_path(overall), strong=True),
            _stat(method, "recovered", digits=2),
            _difference({"p_adjusted": against.get("p_value"), **against}),
            _of_them(against, "wins"),
            _of_them(against, "losses"),
            _stat(method, "novelty.distance", brief=True, digits=2),
            _stat(method, "novelty.error_overlap", brief=True, digits=2),
            _count(method.get("pairs")),
        ]
        kind = method.get("kind")
        style = "best" if kind == "generated" else "mark" if kind in ("two nets", "ceiling") else ""
        columns = f'<td class="text">{cells[0]}</td>' + "".join(f"<td>{cell}</td>" for cell in cells[1:])
        rows.append(f'<tr class="{style}"><th>{escape(results_lib.in_words(name))}</th>{columns}</tr>')
    if not rows:
        return '<p class="note">There is no record over all pairs.</p>'
    head = ["kind", f"{results_lib.merit_name(overall)}, mean over pairs", "recovered"]
    head += ["minus and_ensemble", "pairs won (clearly)", "pairs lost (clearly)"]
    head += ["novelty: distance", "errors shared", "pairs"]
    heads = '<th class="text">kind</th>' + "".join(f"<th>{escape(label)}</th>" for label in head[1:])
    return (
        f'<div class="scroll"><table class="wide named"><thead><tr><th>method</th>{heads}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table></div><p class="note">Best first, intervals over pairs; '
        "tinted: generated; bold: what these should come up to, both parents run side by side (and_ensemble) "
        "and the ceiling. Won and lost are counted against and_ensemble by the mean of each pair, in "
        "brackets those that a test confirms after correction for the number of pairs. Minus and_ensemble: "
        "the p-value of a generated method is times the number of generated methods, for the best of them is "
        f"reported. {TRAINED_ONCE} Novelty: distance in weights "
        "from the nearest parent, where 1 is as far as a parent is from its nearest fellow and under "
        f"{results_lib.COPY} counts as a copy; errors shared: of the images that it or that parent gets "
        "wrong, the share that both do.</p>"
    )


def _of_them(against: Mapping[str, Any], what: str) -> str:
    """``31 (12)``: so many, and how many of them clear."""
    count = _count(against.get(what))
    return count if count == DASH else f"{count} ({_count(against.get(f'clear_{what}'))})"


def pairs(records: Sequence[Mapping[str, Any]]) -> str:
    """A line for each pair: its answer and main figures, with a link to its section."""
    rows = []
    for pair in records:
        best = results_lib.best_generated(pair)
        given = results_lib.answer(pair)
        key = escape(results_lib.pair_key(pair), quote=True)
        test = (pair.get("data") or {}).get("test") or {}
        mine = results_lib.merit(pair, best) if best else results_lib.Interval()
        others = [
            number(results_lib.merit(pair, name).mean)
            for name in ("random", "and_ensemble", "trained_on_conjunction")
        ]
        cells = [
            escape(str(pair["pair"]["object"])),
            _count(test.get("a&o")),
            f'<span class="{given.split()[0]} answer">{ANSWERS[given]}</span>',
            escape(best or "") or DASH,
            f"<strong>{number(mine.mean)}</strong>",
            *others,
        ]
        styles = [' class="text"', "", ' class="text"', ' class="text"', "", "", "", ""]
        columns = "".join(f"<td{style}>{cell}</td>" for style, cell in zip(styles, cells, strict=True))
        attribute = escape(str(pair["pair"]["attribute"]))
        rows.append(f'<tr><th><a href="#{key}">{attribute}</a></th>{columns}</tr>')
    heads = (
        '<th>attribute</th><th class="text">object</th><th>test images of both</th><th class="text">composes?'
        '</th><th class="text">best generated</th><th>its AUROC</th><th>random</th>'
        "<th>both parents (and_ensemble)</th><th>ceiling</th>"
    )
    return (
        f'<div class="scroll"><table class="wide"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="note">Figures: {escape(results_lib.merit_name(records[0]))}, means over networks. An '
        "attribute leads to all that was measured on its pair.</p>"
    )


def skipped(records: Sequence[Mapping[str, Any]], fold: int = 5) -> str:
    """The pairs that were not run and why, folded away where they are more than `fold`; "" for none."""
    lines = "".join(
        f"<li>{escape(str(record.get('attribute')))} {escape(str(record.get('object')))}: "
        f"{escape(str(record.get('reason') or 'no reason given'))}</li>"
        for record in records
    )
    if not lines:
        return ""
    shown = "" if len(records) > fold else " open"
    count = "1 pair was" if len(records) == 1 else f"{len(records)} pairs were"
    return f"<details{shown}><summary>{count} skipped</summary><ul>{lines}</ul></details>"


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


def descriptions(pair: Mapping[str, Any], fold: bool = True) -> str:
    """What each method is, folded away unless `fold` is False; "" where no method says."""
    rows = [
        f'<tr><th>{escape(name)}</th><td class="prose">{escape(str(method["description"]))}</td></tr>'
        for name, method in results_lib.methods_in_order(pair)
        if method.get("description")
    ]
    if not rows:
        return ""
    table = f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>'
    return f"<details><summary>What each method is</summary>{table}</details>" if fold else table


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
        f"<strong>p {_p(test.get('p_value'), '= ')}</strong>{_corrected(test)}. It is a permutation test of "
        f"the means, times the {_count(test.get('candidates'))} methods that the best one was picked from. "
        "The best network of each method is tested against the best of as many drawn from all of its "
        "networks and the random ones."
    )
    content = f"<h3>Matched null</h3><p>{text}</p>"
    if rows:
        head = ("method", "mean", "p of the mean", "best of its networks", "p of the best")
        content += plain(head, rows, "counts")
        content += '<p class="note">A best network is shown only beside the p-value of the same picking.</p>'
    return content


def _corrected(test: Mapping[str, Any]) -> str:
    """The p-value corrected over pairs, where there is one."""
    p_value = results_lib.number(test.get("p_adjusted"))
    if not math.isfinite(p_value) or p_value == results_lib.number(test.get("p_value")):
        return ""
    return f", corrected for the number of pairs {_p(p_value, '= ')}"


def zoos(pair: Mapping[str, Any]) -> str:
    """How well the parents know their own concepts, on validation images; "" where that was not saved."""
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
    head = ("parents, each on its own concept", "balanced accuracy", "AUROC")
    return (
        "<h3>The parents</h3>"
        + plain(head, rows, "counts")
        + '<p class="note">On validation images, none of which shows the conjunction. Balanced accuracy '
        "here: the mean of the shares of images with and without the concept answered rightly; 0.5 is "
        "chance.</p>"
    )


def features(pair: Mapping[str, Any], brief: bool = False) -> str:
    """Cosine similarity and novelty; nothing where neither was saved.

    Args:
      pair: see there.
      brief: means only, and no note.
    """
    novelty_keys = list(
        dict.fromkeys(
            path
            for _, method in results_lib.methods_in_order(pair)
            for path in _statistics(method.get("novelty"))
        )
    )
    rows = []
    for name, method in results_lib.methods_in_order(pair):
        paths = [f"cosine_similarity.{key}" for key in ("within", "across", "margin")]
        paths += [f"novelty.{key}" for key in novelty_keys]
        cells = [_stat(method, path, brief=brief) for path in paths]
        if any(cell != DASH for cell in cells):
            rows.append((escape(name), *cells))
    if not rows:
        return ""
    head = ["method", "cosine within", "cosine across", "margin"]
    head += [f"novelty: {key.replace('.', ' ').replace('_', ' ')}" for key in novelty_keys]
    table = plain(head, rows, "wide")
    return (
        table
        if brief
        else (
            table
            + '<p class="note">Cosine similarity of features within the conjunction, across to the other '
            "quadrants, and the margin between them."
            + (
                " Novelty: distance in weights to the nearest parent, where 1 is as far as a parent is from "
                "its nearest fellow, and overlap of errors with it; a copy of a parent is not a "
                "generation.</p>"
                if novelty_keys
                else "</p>"
            )
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


def clustering(pair: Mapping[str, Any], sample: str = _SAMPLE, brief: bool = False) -> str:
    """Clustering scores by the standard definitions and, apart, by the reference's own.

    Args:
      pair: see there.
      sample: in words, which networks and images were clustered.
      brief: means by the standard definitions only, and no note.
    """
    if brief:
        return _clustering_means(pair)
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


def _clustering_means(pair: Mapping[str, Any]) -> str:
    """Mean clustering scores by the standard definitions; "" where there are none."""
    rows = [
        [f"{escape(name)}, {escape(str(clusterer))}", *_means(scores, _CLUSTER_MEASURES)]
        for name, method in results_lib.methods_in_order(pair)
        for clusterer, scores in (method.get("clustering") or {}).items()
        if isinstance(scores, Mapping)
    ]
    names = [key.replace("cluster_", "") for key in _CLUSTER_MEASURES]
    return plain(("clustering of the features", *names), rows, "counts") if rows else ""


def _means(record: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    return [_stat(record, path, brief=True) for path in paths]


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


def _stat(record: object, path: str, strong: bool = False, brief: bool = False, digits: int = 3) -> str:
    """A statistic as HTML: its mean, and under it (not where brief) its interval in small print."""
    value = results_lib.interval(record, path)
    if not value.known:
        return DASH
    mean = f"<strong>{value.mean:.{digits}f}</strong>" if strong else f"{value.mean:.{digits}f}"
    if brief or not value.bounded:
        return mean
    return f"{mean} <small>[{value.low:.{digits}f}, {value.high:.{digits}f}]</small>"


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
