"""The tables of a report, built from a typed run: what is in each, in which words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from kernelgan.evaluation.verdict import COPY
from kernelgan.report import metrics, prose
from kernelgan.report.metrics import METRICS
from kernelgan.report.tables import (
    DASH,
    Cell,
    Column,
    Line,
    Table,
    count,
    difference,
    number,
    p_cell,
    seconds,
    statistic,
    table,
)
from kernelgan.results import (
    QUADRANTS,
    Against,
    Clustering,
    Images,
    Measured,
    Overall,
    Pair,
    Row,
    Run,
    Skipped,
    Statistic,
    Test,
    statistics,
)

_PARTS = ("vs_attribute_only", "vs_object_only", "vs_neither")
_SCORES = ("balanced_accuracy", "recall", "average_precision")
_CLUSTER_FIGURES = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")
_QUADRANT_WORDS = ("both", "attribute only", "object only", "neither", "not the conjunction")
_SET_OFF = {"two nets", "ceiling"}  # kinds that the leaderboard sets off: what generation should come up to
_SAMPLE = (
    "Equally many images of each quadrant; UMAP and what follows it on the first networks of each method "
    "only, and of so few an interval says little."
)


# Methods of a pair ----------------------------------------------------------------------------------------


def methods(pair: Pair, terse: bool = False, bars: bool = True) -> Table:
    """All methods of a pair by kind: figure of merit, its parts, the best generated minus each, other scores.

    Args:
      pair: with its verdict.
      terse: for the terminal, with its own title and caption.
      bars: whether to draw each figure of merit; pages of many pairs do without, and without a caption.
    """
    parts = [part for part in _PARTS if any(part in row.auroc for row in pair.methods.values())]
    columns = [
        Column("method", "left"),
        Column(prose.merit_title(pair), short=f"{METRICS[f'auroc.{pair.merit}'].short} [95%]"),
        *([Column("", "left", where="page")] if bars else []),
        *(_metric_column(f"auroc.{part}", digits=2) for part in parts),
        Column("best generated minus this", short="best-this, p"),
        *(Column(METRICS[score].title, where="page") for score in _SCORES),
        Column("recovered", short="recov", digits=2),
        Column("networks", where="page"),
        Column("parameters", where="page"),
    ]
    tests = pair.tests.get(pair.verdict.best, {})
    floor = pair.figure(pair.verdict.floor).mean
    lines = []
    for row in pair.methods.values():
        merit, best = pair.figure(row.name), row.name == pair.verdict.best
        cells = [
            Cell(row.name),
            statistic(merit, strong=True),
            *([Cell(bar=(merit, floor))] if bars else []),
            *(statistic(row.auroc.get(part, Statistic()), brief=not bars) for part in parts),
            Cell(DASH, short="the best") if best else difference(tests.get(row.name)),
            *(statistic(getattr(row, score), brief=not bars) for score in _SCORES),
            number(row.recovered.mean, 2),
            count(row.networks),
            count(row.parameters),
        ]
        lines.append(Line(tuple(cells), row.kind, "best" if best else ""))
    title = f"{pair.title}: mean over {_networks(pair)}networks [95%], on the test images" if terse else ""
    caption = _terse_note(pair, parts) if terse else methods_note(pair) if bars else ""
    return Table(tuple(columns), tuple(lines), title, caption)


def methods_note(pair: Pair, bars: bool = True) -> str:
    """What the columns of `methods` are, for a reader new to them."""
    bar = (
        "A bar runs from 0 to 1: a dot for the mean, a line for the interval, a tick at the mean of the "
        "random networks. "
    )
    explained = [
        metrics.explained(path, pair.data.test, COPY)
        for path in (f"auroc.{pair.merit}", "recovered", *_SCORES)
    ]
    return (
        f"{' '.join(one for one in explained if one)} Means over all networks, with 95% intervals. "
        f"{bar if bars else ''}Best generated minus this: the difference in the figure of merit and its "
        "corrected p-value. The tinted row is the best generated method; that it was picked is part of every "
        "test."
    )


def _terse_note(pair: Pair, parts: Sequence[str]) -> str:
    told = (
        "attr, obj, none: AUROC against images of the attribute alone, the object alone, neither; the lowest "
        "counts. "
        if parts
        else ""
    )
    floor, ceiling = pair.verdict.floor, pair.verdict.ceiling
    return (
        f"{told}best-this: the best generated method minus this one, with its corrected p. recov: share of "
        f"the way from {floor} (0) to {ceiling} (1). More scores of each method are in the report."
    )


def _networks(pair: Pair) -> str:
    """``8 `` or ``8 to 16 ``: how many networks a method had; "" where that is not known."""
    counts = [row.networks for row in pair.methods.values() if row.networks and row.networks > 1]
    if not counts:
        return ""
    return f"{counts[0]} " if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)} "


def _metric_column(path: str, digits: int | None = None) -> Column:
    return Column(METRICS[path].title, short=METRICS[path].short, digits=digits)


def descriptions(rows: Sequence[Row]) -> Table | None:
    """What each method is, who it belongs to and what it reads; None where no method says."""
    described = [row for row in rows if row.description]
    if not described:
        return None
    told = any(row.family or row.tier for row in described)
    columns = [Column("method", "left"), Column("what it is", "left")]
    columns += [Column("family", "left"), Column("reads", "left")] if told else []
    return table(
        columns,
        [
            [row.name, row.description, *([row.family or DASH, row.tier or DASH] if told else [])]
            for row in described
        ],
    )


def tests(record: Measured) -> Table | None:
    """Every generated method against every other, difference and corrected p; None without tests."""
    generated = [row.name for row in record.of_kind("generated") if row.name in record.tests]
    lines = []
    for rival in record.methods:
        found = [record.tests[name].get(rival, Test()) for name in generated]
        if any(one.difference.known for one in found):
            cells = [Cell(rival)]
            for one in found:
                cells += [difference(one, interval=True), p_cell(one.p_adjusted, prose.clear(one.p_adjusted))]
            lines.append(cells)
    head = ["minus", *(title for name in generated for title in (name, "p"))]
    caption = (
        "Difference of the figures of merit with its 95% interval; above zero the generated networks are "
        f"better. Two-sided p-values; bold: clear. {prose.PICKED}"
    )
    return table(head, lines, "Generated methods against every other", caption) if lines else None


def null_words(pair: Pair) -> str:
    """The matched null test in words."""
    test = pair.null_test
    if test is None:
        return "No matched null test was run, so no claim is made against chance."
    corrected = (
        f", corrected for the number of pairs {prose.p_text(test.p_adjusted)}"
        if math.isfinite(test.p_adjusted) and test.p_adjusted != test.p_value
        else ""
    )
    return (
        f"{test.method or 'The method'} on {test.statistic or 'its score'}: mean "
        f"{number(test.observed).text}; random networks {number(test.null_mean).text}; "
        f"{prose.p_text(test.p_value)}{corrected}. It is a permutation test of the means, times the "
        f"{count(test.candidates).text} methods that the best was picked from. The best network of each "
        "method is tested against the best of as many drawn "
        "from all of its networks and the random networks."
    )


def null_test(pair: Pair) -> Table | None:
    """P-values of the matched null, method by method."""
    rows = []
    for name, found in (pair.null_test.by_method if pair.null_test else {}).items():
        merit = pair.figure(name)
        least = f"(at least {p_cell(found.smallest_best_p_value).text})"
        best = replace(p_cell(found.best_p_value), small=least)
        rows.append([Cell(name), statistic(merit), p_cell(found.mean_p_value), number(merit.best), best])
    head = ("method", "mean", "p of the mean", "best of its networks", "p of the best")
    caption = "A best network is shown only beside the p-value of the same picking."
    return table(head, rows, caption=caption) if rows else None


def zoos(pair: Pair) -> Table | None:
    """How well the parents know their own concepts, on validation images; None where that was not saved."""
    rows = [
        [
            Cell(f"{getattr(pair.pair, side)} ({side})"),
            statistic(scores.balanced_accuracy),
            statistic(scores.auroc),
        ]
        for side, scores in pair.zoo.items()
    ]
    chance = metrics.chance("balanced_accuracy", {"with": 1, "without": 1})
    caption = (
        "On validation images, none of which shows the conjunction. Balanced accuracy here: the mean of the "
        f"shares of images with and without the concept answered rightly; {chance:g} is chance."
    )
    head = ("parents, each on its own concept", "balanced accuracy", "AUROC")
    return table(head, rows, "The parents", caption) if rows else None


def features(pair: Pair) -> Table | None:
    """Cosine similarity and novelty; None where neither was saved."""
    paths = list(
        dict.fromkeys(
            path
            for row in pair.methods.values()
            for path in statistics({"cosine_similarity": row.cosine_similarity, "novelty": row.novelty})
        )
    )
    rows = []
    for row in pair.methods.values():
        known = statistics(row)
        if any(path in known for path in paths):
            rows.append([Cell(row.name), *(statistic(known.get(path, Statistic())) for path in paths)])
    explained = (metrics.explained(f"novelty.{key}", {}, COPY) for key in ("distance", "error_overlap"))
    caption = (
        "Cosine similarity of features within the conjunction, across to the other quadrants, and the margin "
        f"between them. {' '.join(explained)}"
    )
    return table(["method", *map(metrics.title, paths)], rows, caption=caption) if rows else None


def clustering(pair: Pair, sample: str = _SAMPLE, brief: bool = False) -> Table | None:
    """Clustering scores by the standard definitions and, apart, as the original prints them.

    Args:
      pair: whose methods.
      sample: in words, which networks and images were clustered.
      brief: means by the standard definitions only.
    """
    names = [key.removeprefix("cluster_") for key in _CLUSTER_FIGURES]
    group, printed = "standard definitions", "as printed by the original"
    columns = [Column("method", "left"), Column("clusterer", "left"), Column("networks")]
    columns += [Column(name, group=group) for name in names]
    columns += [] if brief else [Column(f"“{name}”", group=printed) for name in names[1:]]
    rows = []
    for row in pair.methods.values():
        for clusterer, scores in row.clustering.items():
            cells = [Cell(row.name), Cell(clusterer), count(scores.accuracy.networks)]
            rows.append([*cells, *_cluster_cells(scores, brief)])
    caption = (
        f"{sample} As printed: what the original calls “precision” is recall and its “recall” is precision; "
        "its “entropy” and “purity” are of cluster labels within each true class, not of classes within each "
        "cluster. They are here for parity only; read the standard definitions."
    )
    title = "Clustering of the features"
    return table(columns, rows, title, "" if brief else caption) if rows else None


def _cluster_cells(scores: Clustering, brief: bool) -> list[Cell]:
    cells = [statistic(getattr(scores, key), brief=brief) for key in _CLUSTER_FIGURES]
    if not brief:
        cells += [statistic(scores.as_printed.get(key, Statistic())) for key in _CLUSTER_FIGURES[1:]]
    return cells


# Images and how the run was made --------------------------------------------------------------------------


def counts(data: Images) -> Table | None:
    """Images in each quadrant and split."""
    splits = {name: getattr(data, name) for name in ("train", "validation", "test") if getattr(data, name)}
    present = [key for key in QUADRANTS if any(key in one for one in splits.values())]
    words = dict(zip(QUADRANTS, _QUADRANT_WORDS, strict=True))
    rows = [[Cell(name), *(count(one.get(key)) for key in present)] for name, one in splits.items()]
    return table(["images", *(words[key] for key in present)], rows) if rows else None


def leakage_words(data: Images) -> str:
    """Whether anything leaked; "" where that was not checked."""
    if data.leaked is None:
        return ""
    state = (
        f"✗ {data.leaked} images of the conjunction were read"
        if data.leaked
        else "✓ No image of the conjunction was read by anything but the ceiling"
    )
    return (
        f"{state}, by content hash. Of the test images, {count(data.duplicates).text} are exact and "
        f"{count(data.near_duplicates).text} near duplicates of images that something trained or validated "
        f"on."
    )


def timings(run: Run) -> Table | None:
    """Seconds by stage, and together."""
    rows = [[Cell(name), seconds(value)] for name, value in run.timings.items()]
    total = sum(value for value in run.timings.values() if math.isfinite(value))
    return table(("stage", "time"), [*rows, [Cell("together"), seconds(total)]]) if rows else None


def versions(run: Run) -> Table | None:
    """The packages that made it."""
    rows = [[name, value] for name, value in run.versions.items()]
    return table(("package", "version"), rows) if rows else None


# All pairs ------------------------------------------------------------------------------------------------


def leaderboard(overall: Overall) -> Table:
    """Every method over all pairs, best first, with its record against both parents run side by side."""
    yardstick = overall.verdict.yardstick
    merit = f"{prose.merit_title(overall)}, mean over pairs"
    columns = (
        Column("method", "left"),
        Column("kind", "left", where="page"),
        Column(merit, short=f"{METRICS[f'auroc.{overall.merit}'].short} [95%]"),
        Column("recovered", short="recov", digits=2),
        Column(f"minus {yardstick}", where="page"),
        Column("pairs won (clearly)", short="won"),
        Column("pairs lost (clearly)", short="lost"),
        Column("p", where="terminal"),
        _metric_column("novelty.distance", digits=2),
        Column(METRICS["novelty.error_overlap"].title, where="page"),
        Column("pairs", where="page"),
    )
    marks = {"generated": ">"} | dict.fromkeys(_SET_OFF, "=")
    lines = []
    for row in overall.ranked():
        against = row.against or Against()
        p_value = against.p_adjusted if math.isfinite(against.p_adjusted) else against.p_value
        cells = (
            Cell(prose.in_words(row), short=f"{marks.get(row.kind, ' ')} {row.name}"),
            Cell(row.kind),
            statistic(overall.figure(row.name), strong=True),
            statistic(row.recovered, 2),
            difference(replace(against, p_adjusted=p_value)),
            _of_them(row.against, "wins"),
            _of_them(row.against, "losses"),
            p_cell(p_value),
            statistic(row.novelty.get("distance", Statistic()), 2, brief=True),
            statistic(row.novelty.get("error_overlap", Statistic()), 2, brief=True),
            count(row.pairs),
        )
        tint = "best" if row.kind == "generated" else "mark" if row.kind in _SET_OFF else ""
        lines.append(Line(cells, emphasis=tint))
    title = f"Over {overall.pairs} pairs, best first [95% interval over pairs]"
    return Table(columns, tuple(lines), title, _leaderboard_note(overall)).ordered(2)


def _leaderboard_note(overall: Overall) -> str:
    yardstick = prose.in_words(overall.methods.get(overall.verdict.yardstick), overall.verdict.yardstick)
    fewer = [f"{row.name} {row.pairs}" for row in overall.ranked() if row.pairs not in (None, overall.pairs)]
    paths = ("recovered", "novelty.distance", "novelty.error_overlap")
    return (
        "Tinted or >: generated; bold or =: what these should come up to. Won, lost and p: "
        f"against {yardstick}, by the mean of each pair, in brackets the pairs that a test "
        "confirms after correction for their number. The p-value of a generated method is times the number "
        f"of generated methods, for the best of them is reported. {prose.TRAINED_ONCE} "
        + " ".join(metrics.explained(path, {}, COPY) for path in paths)
        + (f" Not measured on all pairs: {', '.join(fewer)}." if fewer else "")
    )


def _of_them(against: Against | None, what: str) -> Cell:
    """``31 (12)``: so many, and how many of them are clear."""
    if against is None:
        return Cell(DASH)
    number = getattr(against, what)
    return Cell(f"{number} ({getattr(against, f'clear_{what}')})", value=number)


def pairs(records: Sequence[Pair]) -> Table:
    """A line for each pair: its answer and main figures, with a link to its section."""
    verdict = records[0].verdict
    others = {"floor": verdict.floor, "yardstick": verdict.yardstick, "ceiling": verdict.ceiling}
    columns = [
        Column("pair", "left"),
        Column("test images of both", short="images"),
        Column("composes?", "left"),
        Column("best generated", "left"),
        Column("its AUROC", short="AUROC"),
        *(Column(name, short=role) for role, name in others.items()),
    ]
    rows = []
    for pair in records:
        found = pair.verdict
        answer = Cell(prose.MARKS[found.answer], short=found.answer, tone=found.answer.split()[0])
        rows.append(
            [
                Cell(pair.title, href=f"#{pair.key}"),
                count(pair.data.test.get("a&o")),
                answer,
                Cell(found.best or DASH),
                replace(number(pair.figure(found.best).mean), strong=True),
                *(number(pair.figure(name).mean) for name in others.values()),
            ]
        )
    caption = (
        f"Figures: {prose.merit_title(records[0])}, means over networks. Floor: {verdict.floor}; "
        f"yardstick: {verdict.yardstick}; ceiling: {verdict.ceiling}. All measurements of each pair are in "
        "the report."
    )
    return table(columns, rows, caption=caption)


def skipped_words(skipped: Sequence[Skipped], most: int = 3) -> str:
    """How many pairs were skipped, and the first reasons."""
    named = [f"{one.attribute} {one.object} ({one.reason})" for one in skipped[:most]]
    more = f", and {len(skipped) - most} more in the report" if len(skipped) > most else ""
    return f"Skipped {len(skipped)}: {', '.join(named)}{more}."
