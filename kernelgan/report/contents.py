"""The tables of a report, built from a typed run: what is in each, in which words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from kernelgan import results
from kernelgan.evaluation.verdict import SIGNIFICANCE, TIERS
from kernelgan.report import figures, metrics, prose, tables
from kernelgan.report.metrics import METRICS
from kernelgan.report.tables import Cell, Column, Line, Table, count, difference, p_cell, statistic, table
from kernelgan.results import NOTHING, QUADRANTS, Against, Images, Measured, Overall, Pair, Row, Run, Test

_BESIDE = ("worst_of_means", "worst_calibrated")
_SCORES = ("balanced_accuracy", "recall", "average_precision")
_CLUSTER_FIGURES = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")
_QUADRANT_WORDS = ("both", "attribute only", "object only", "neither", "not the conjunction")
_GOALS = ("two nets", "reference")  # kinds that generation should come up to; the leaderboard marks them


# Methods of a pair ----------------------------------------------------------------------------------------


def methods(pair: Pair, brief: bool = False) -> Table:
    """All methods of a pair by kind: figure of merit, its parts, other scores, share recovered, size.

    On the terminal also the best generated method minus each; on a page `tests` has that. Brief, for pages of
    many pairs, it has intervals of the figure of merit only, and no caption.
    """
    parts = [part for part in metrics.PARTS if any(part in row.auroc for row in pair.methods.values())]
    beside = _beside(pair)
    columns = [
        Column("method", "left"),
        Column(prose.merit_title(pair), short=f"{METRICS[f'auroc.{pair.merit}'].short} [95%]"),
        *(Column(METRICS[f"auroc.{key}"].title, where="page") for key in beside),
        *(Column(METRICS[f"auroc.{part}"].title, short=METRICS[f"auroc.{part}"].short) for part in parts),
        Column("best generated minus this", short="best-this, p", where="terminal"),
        *(Column(METRICS[score].title, where="page") for score in _SCORES),
        Column("recovered", short="recov"),
        Column("networks", where="page"),
        Column("parameters", where="page"),
    ]
    marked = prose.marks(pair)
    lines = []
    for row in pair.methods.values():
        best = row.name == pair.verdict.best
        cells = (
            Cell(row.name),
            _with_mark(statistic(pair.figure(row.name), strong=True), marked.get(row.name, "")),
            *(statistic(row.auroc.get(key, NOTHING), brief=True) for key in beside),
            *(statistic(row.auroc.get(part, NOTHING), brief=brief, short=True) for part in parts),
            Cell("the best") if best else difference(_to_best(pair, row.name)),
            *(statistic(getattr(row, score), brief=brief) for score in _SCORES),
            tables.number(row.recovered.mean, 2),
            count(row.networks),
            count(row.parameters),
        )
        lines.append(Line(cells, row.kind, "best" if best else ""))
    return Table(tuple(columns), tuple(lines), caption="" if brief else methods_note(pair))


def _to_best(pair: Pair, rival: str) -> Test:
    """The test of the best generated method against another one, with the verdict's p-value."""
    best = pair.verdict.best
    test = pair.tests.get(best, {}).get(rival, Test())
    return replace(test, p_adjusted=prose.p_value(pair, best, rival))


def _with_mark(cell: Cell, mark: str) -> Cell:
    """A figure with a word of warning beside it."""
    return replace(cell, small=f"{cell.small} {mark}".strip()) if mark else cell


def _beside(record: Measured) -> list[str]:
    """The AUROCs beside the figure of merit that any method has."""
    return [key for key in _BESIDE if any(key in row.auroc for row in record.methods.values())]


def methods_note(pair: Pair) -> str:
    """What the columns of `methods` are, for a reader new to them; the verdict explains the first."""
    paths = (*(f"auroc.{key}" for key in _beside(pair)), "recovered", *_SCORES)
    explained = [metrics.explained(path, pair.data.test) for path in paths]
    explained += [prose.sizes(pair), marks_note(pair)]
    return (
        f"{' '.join(filter(None, explained))} Means over all networks of a method, with 95% intervals. The "
        "best generated method is tinted; every test allows for its having been picked."
    )


def marks_note(record: Measured) -> str:
    """What the words of warning beside figures mean; "" where there is none."""
    words = dict.fromkeys(prose.marks(record).values())
    return " ".join(f"“{word}”: {prose.MARKED[word]}." for word in words)


def descriptions(rows: Sequence[Row]) -> Table | None:
    """What each method is, its family and what it reads; None where no method says."""
    columns = [Column(title, "left") for title in ("method", "what it is", "family", "reads")]
    cells = [
        [row.name, row.description, row.family or "-", row.tier or "-"] for row in rows if row.description
    ]
    return table(columns, cells) if cells else None


def tests(record: Measured) -> Table | None:
    """Every generated method against every other, difference and corrected p; None without tests."""
    generated = [row.name for row in record.of_kind("generated") if row.name in record.tests]
    lines = []
    for rival in record.methods:
        against = {name: record.tests[name].get(rival, Test()) for name in generated}
        if any(test.difference.known for test in against.values()):
            cells = [Cell(rival)]
            for name, test in against.items():
                p_value = prose.p_value(record, name, rival)
                cells += [difference(test, interval=True), p_cell(p_value, p_value < SIGNIFICANCE)]
            lines.append(cells)
    head = ["minus", *(title for name in generated for title in (name, "p"))]
    caption = (
        "Difference of the figures of merit with its 95% interval; above zero the generated networks are "
        "better. Two-sided p-values, bold below 0.05, corrected for having picked the best generated method "
        "and, in a run of several pairs, for the number of pairs. Those of the best generated method are the "
        "verdict's: a rival that is ahead and must be beaten is corrected for the number of these too, and "
        "random networks are also tested by permutation."
    )
    return table(head, lines, "Generated methods against every other", caption) if lines else None


def placebos(record: Measured) -> Table | None:
    """Generated methods with either side's parents exchanged; None where none was."""
    rows = [
        [
            Cell(row.name),
            Cell(prose.in_words(None, name.replace("_", ": "), [placebo.parents])),
            statistic(record.figure(row.name)),
            statistic(placebo.auroc),
            difference(placebo.test, interval=True),
            p_cell(placebo.test.p_adjusted, placebo.test.p_adjusted < SIGNIFICANCE),
        ]
        for row in record.of_kind("generated")
        for name, placebo in row.placebos.items()
    ]
    caption = (
        "The same generator with one side's zoo exchanged for untrained networks, for networks that answer "
        "the opposite, or for the zoo of another concept of that kind. What is made from both parents falls. "
        "The difference is half of the method's gain over 0.5 minus the placebo's gain; it must be above "
        "zero, by a test."
    )
    head = ["method", "exchanged", "with its parents", "with the placebo", "difference", "p"]
    return table(head, rows, "Placebo parents", caption) if rows else None


def making(rows: Sequence[Row], seconds: Mapping[str, float]) -> Table | None:
    """How generated networks were made: tier, images, steps, trainings, seconds and digest."""
    generated = [row for row in rows if row.kind == "generated" and row.digest]
    lines = []
    for row in generated:
        time = seconds.get(f"generate/{row.family}", math.nan)
        cells = [Cell(row.name), Cell(row.tier or "-"), count(row.images), count(row.steps)]
        behind = row.behind.images if row.behind else None
        cells += [count(len(row.trainings) or None), count(behind)]
        lines.append([*cells, tables.number(time, 1), Cell(row.digest[:12])])
    head = ["method", "tier", "images read", "training steps", "trainings", "images behind"]
    head += ["seconds to generate", "digest"]
    tiers = "; ".join(f"{tier}: {words}" for tier, words in TIERS.items() if tier)
    caption = (
        f"Tiers, by what is read: {tiers}. Images behind are those of every zoo and probe that "
        "the networks rest on, checked by content against all that is held out. Seconds are those of the "
        "generator's networks on all pairs, compilation included. The digest of the networks was kept before "
        "they were scored."
    )
    return table(head, lines, "How the networks were made", caption) if lines else None


def null_test(pair: Pair) -> Table | None:
    """The matched null test, method by method."""
    test = pair.null_test
    if test is None:
        return None
    rows = []
    for name, p_values in test.by_method.items():
        p_of = {key: p_cell(value) for key, value in p_values.items()}
        least = f"(at least {p_of.get('smallest_best_p_value', Cell()).text})"
        best = replace(p_of.get("best_p_value", Cell()), small=least)
        mean = p_of.get("mean_p_value", Cell())
        rows.append([Cell(name), mean, tables.number(pair.figure(name).best), best])
    caption = (
        f"A permutation test of the means with random networks (mean {test.null_mean:.3f}); the "
        f"verdict uses it times the {count(test.candidates).text} methods that the best was picked from. The "
        "best network of a method is tested against the best of as many networks drawn from its own and the "
        "random networks together."
    )
    head = ("method", "p of the mean", "best of its networks", "p of the best")
    return table(head, rows, "Against random networks", caption)


def zoos(pair: Pair) -> Table | None:
    """How well the parents know their own concepts, on validation images; None where that was not saved."""
    paths = ("balanced_accuracy", "auroc")
    rows = [
        [Cell(getattr(pair.pair, side)), *(statistic(scores.get(path, NOTHING)) for path in paths)]
        for side, scores in pair.zoo.items()
    ]
    caption = (
        "On validation images, none of which shows the conjunction; images with and without the concept "
        "count the same. 0.5 is chance in both scores."
    )
    head = ("own concept", "balanced accuracy", "AUROC")
    return table(head, rows, "The parents", caption) if rows else None


def kernels(run: Run, pair: Pair) -> Table | None:
    """What each generator did to the kernels: size, smoothness and likeness to the parents' first layer."""
    saved: dict[str, dict[str, np.ndarray]] = {}
    for name, values in run.arrays_under(pair, "kernels").items():
        layer, _, role = name.partition("/")
        if values.ndim != 5:  # damaged
            continue
        saved.setdefault(layer, {})[role] = values
    first = next(iter(saved.values()), {})
    columns = [Column("kernels of", "left")]
    rows = [[Cell(figures.role_in_words(pair, role))] for role in first]
    for layer, by_role in saved.items():
        columns += [Column("size", group=layer), Column("smoothness", group=layer)]
        for cells, role in zip(rows, first, strict=True):
            values = by_role.get(role, np.zeros((0, 1, 1, 1, 1)))
            cells += [tables.number(each, 2) for each in _size_and_smoothness(values)]
        for side in ("attribute", "object") if by_role is first else ():
            columns.append(Column(f"like {getattr(pair.pair, side)}", group=layer))
            for cells, role in zip(rows, first, strict=True):
                cells.append(tables.number(_likeness(first, role, f"{side}_parent"), 2))
    caption = (
        "Of the first networks. Size: root mean square of the weights. Smoothness: correlation of weights "
        "with their right and lower neighbours; 0 in random kernels. Like: mean over the filters of the "
        "highest cosine with any filter of the parent with the same number (first layer only; deeper "
        "filters depend on the order of those before)."
    )
    return table(columns, rows, "The kernels in numbers", caption) if rows else None


def _size_and_smoothness(kernels: np.ndarray) -> tuple[float, float]:
    """Root mean square, and correlation of neighbours, of kernels ``(M, H, W, I, O)``."""
    kernels = kernels.astype(np.float64)
    square = float(np.square(kernels).mean()) if kernels.size else math.nan
    below, beside = kernels[:, 1:] * kernels[:, :-1], kernels[:, :, 1:] * kernels[:, :, :-1]
    products = np.concatenate([below.ravel(), beside.ravel()])
    return math.sqrt(square), products.mean() / square if square > 0 and products.size else math.nan


def _likeness(kernels: Mapping[str, np.ndarray], role: str, parents: str) -> float:
    """Mean over filters of the highest cosine with a filter of the same parent; NaN of itself."""
    own, theirs = kernels[role], kernels.get(parents)
    if role == parents or theirs is None or own.shape[1:4] != theirs.shape[1:4]:
        return math.nan
    count = min(len(own), len(theirs))
    flat = [each[:count].reshape(count, -1, each.shape[-1]).astype(np.float64) for each in (own, theirs)]
    units = [each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in flat]
    return float(np.einsum("mfa,mfb->mab", *units).max(axis=2).mean())


def features(pair: Pair) -> Table | None:
    """Cosine similarity and novelty; None where neither was saved."""
    known = {}
    for row in pair.methods.values():
        measured = {"cosine_similarity": row.cosine_similarity, "novelty": row.novelty}
        known[row.name] = results.statistics(measured)
    paths = list(dict.fromkeys(path for found in known.values() for path in found))
    rows = []
    for name, found in known.items():
        rows += [[Cell(name), *(statistic(found.get(path, NOTHING)) for path in paths)]] if found else []
    novelty = [metrics.explained(path, {}) for path in METRICS if path.startswith("novelty.")]
    caption = (
        "Cosine similarity of features within the conjunction, across to the other quadrants, and the margin "
        f"between them. {' '.join(novelty)}"
    )
    return table(["method", *map(metrics.title, paths)], rows, caption=caption) if rows else None


def clustering(pair: Pair, brief: bool = False) -> Table | None:
    """Clustering scores by the standard definitions and, apart unless brief, as the original prints them."""
    names = [key.removeprefix("cluster_") for key in _CLUSTER_FIGURES]
    columns = [Column("method", "left"), Column("clusterer", "left"), Column("networks")]
    columns += [Column(name, group="standard definitions") for name in names]
    printed = () if brief else _CLUSTER_FIGURES[1:]
    columns += [Column(f"“{name}”", group="as printed by the original") for name in names[1:] if printed]
    rows = []
    for row in pair.methods.values():
        for clusterer, scores in row.clustering.items():
            cells = [Cell(row.name), Cell(clusterer), count(scores.accuracy.networks)]
            cells += [statistic(getattr(scores, key), brief=brief) for key in _CLUSTER_FIGURES]
            rows.append([*cells, *(statistic(scores.as_printed.get(key, NOTHING)) for key in printed)])
    caption = (
        "Equally many images of each quadrant; UMAP and what follows it on the first networks of each method "
        "only: an interval over so few says little. As printed: the original calls recall “precision” and "
        "precision “recall”; its “entropy” and “purity” are of cluster labels within each true "
        "class, not of classes within each cluster. They are for parity only."
    )
    title = "Clustering of the features"
    return table(columns, rows, title, "" if brief else caption) if rows else None


def images(data: Images) -> Table | None:
    """Images in each quadrant and split, and whether any leaked."""
    splits = {name: getattr(data, name) for name in ("train", "validation", "test") if getattr(data, name)}
    present = [key for key in QUADRANTS if any(key in split for split in splits.values())]
    words = dict(zip(QUADRANTS, _QUADRANT_WORDS, strict=True))
    rows = [[Cell(name), *(count(split.get(key)) for key in present)] for name, split in splits.items()]
    caption = "The images were not checked for leaks."
    if data.leaked is not None:
        leak = f"✗ {data.leaked} images of the conjunction were read in training"
        caption = (
            f"{leak if data.leaked else '✓ Only networks trained on the conjunction read images of it'}, by "
            f"content hash. Of the test images, {count(data.duplicates).text} are exact and "
            f"{count(data.near_duplicates).text} near duplicates of training or validation images."
        )
    return table(["images", *(words[key] for key in present)], rows, caption=caption) if rows else None


# All pairs ------------------------------------------------------------------------------------------------


def leaderboard(overall: Overall, brief: bool = False) -> Table:
    """Every method over all pairs, best first, with its record against both parents run side by side.

    Args:
      overall: of a run.
      brief: whether only what the terminal shows is explained.
    """
    yardstick, beside = overall.verdict.yardstick, _beside(overall)
    columns = (
        Column("method", "left"),
        Column("kind", "left", where="page"),
        Column(prose.merit_title(overall), short=f"{METRICS[f'auroc.{overall.merit}'].short} [95%]"),
        *(Column(METRICS[f"auroc.{key}"].title, where="page") for key in beside),
        Column("recovered", short="recov"),
        Column(f"minus {yardstick}", where="page"),
        Column("pairs won (clearly)", short="won"),
        Column("pairs lost (clearly)", short="lost"),
        Column("p", where="terminal"),
        Column(METRICS["novelty.distance"].title, short=METRICS["novelty.distance"].short),
        Column(METRICS["novelty.error_overlap"].title, where="page"),
        Column("pairs", where="page"),
    )
    lines, marked = [], prose.marks(overall)
    for row in overall.ranked():
        against = row.against or Against()
        p_value = against.p_adjusted if math.isfinite(against.p_adjusted) else against.p_value
        tint = "best" if row.kind == "generated" else "mark" if row.kind in _GOALS else ""
        won = f"{against.wins} ({against.clear_wins})" if row.against else "-"
        lost = f"{against.losses} ({against.clear_losses})" if row.against else "-"
        cells = (
            Cell(prose.in_words(row), short=f"{ {'best': '>', 'mark': '='}.get(tint, ' ') } {row.name}"),
            Cell(row.kind),
            _with_mark(statistic(overall.figure(row.name), strong=True), marked.get(row.name, "")),
            *(statistic(row.auroc.get(key, NOTHING), brief=True) for key in beside),
            statistic(row.recovered, 2, short=True),
            difference(replace(against, p_adjusted=p_value)),
            Cell(won),
            Cell(lost),
            p_cell(p_value),
            statistic(row.novelty.get("distance", NOTHING), 2, brief=True),
            statistic(row.novelty.get("error_overlap", NOTHING), 2, brief=True),
            count(row.pairs),
        )
        lines.append(Line(cells, emphasis=tint))
    title = f"Over {overall.pairs} pairs, best first [95% interval over pairs]"
    return Table(columns, tuple(lines), title, _leaderboard_note(overall, brief))


def _leaderboard_note(overall: Overall, brief: bool) -> str:
    yardstick = prose.in_words(overall.methods.get(overall.verdict.yardstick), overall.verdict.yardstick)
    fewer = [f"{row.name} {row.pairs}" for row in overall.ranked() if row.pairs not in (None, overall.pairs)]
    beside = [f"auroc.{key}" for key in _beside(overall)]
    of_page = () if brief else (*beside, "novelty.error_overlap")
    paths = ("recovered", "novelty.distance", *of_page)
    return (
        f"Tinted or >: generated; bold or =: the goals. Won, lost and p: against {yardstick}, by the mean of "
        "each pair; in brackets the pairs that a test confirms after correction for their number. The "
        "p-value of a generated method is times the number of generated methods. "
        + " ".join(metrics.explained(path, {}) for path in paths)
        + f" {prose.sizes(overall)}".rstrip()
        + f" {marks_note(overall)}".rstrip()
        + (f" Not measured on all pairs: {', '.join(fewer)}." if fewer else "")
    )


def pairs(records: Sequence[Pair]) -> Table:
    """A line for each pair: its answer and main figures, with a link to its section."""
    roles = ("floor", "yardstick", "reference")
    others = {role: getattr(records[0].verdict, role) for role in roles}
    columns = [
        Column("pair", "left"),
        Column("test images of both", short="images"),
        Column("composes?", "left"),
        Column("best generated", "left"),
        Column("its AUROC", short="AUROC"),
        *(Column(name, short=role) for role, name in others.items()),
    ]
    rows = [
        [
            Cell(pair.title, href=f"#{pair.key}"),
            count(pair.data.test.get("a&o")),
            Cell(prose.MARKS[pair.verdict.answer], short=pair.verdict.answer, tone=prose.tone(pair.verdict)),
            Cell(pair.verdict.best or "-"),
            replace(tables.number(pair.figure(pair.verdict.best).mean), strong=True),
            *(tables.number(pair.figure(name).mean) for name in others.values()),
        ]
        for pair in records
    ]
    named = "; ".join(f"{role}: {name}" for role, name in others.items())
    caption = f"Figures: {prose.merit_title(records[0])}, means over networks. {named}."
    return table(columns, rows, caption=caption)
