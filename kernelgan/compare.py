"""The same table across runs: a sweep over methods, settings or seeds, side by side.

``python -m kernelgan.compare runs/a runs/b runs/c``

The p-value of a difference between two runs is a normal one, ``2 P(Z > |difference| / spread)``, from the
resampled means that each run keeps (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter
13). With the same seed and the same test images both runs drew the same resamples, so the spread is that of
the resampled differences (see `evaluate.bootstrap`); else the spreads of the two add as of independent
samples, which is cautious where the images are the same. Over several pairs it is that of the pairs'
differences, attributes and objects being drawn (`evaluate.comparison`). Those of a table of differences are
corrected together (Holm). Another seed is not covered: only runs of several seeds show what a seed does, and
between such runs no p-value is given.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from kernelgan import config as config_lib
from kernelgan import results as results_lib
from kernelgan.evaluate import comparison, null_test
from kernelgan.evaluate.comparison import CEILING, FLOOR
from kernelgan.report.terminal import WIDTH, wrapped
from kernelgan.results import Interval
from kernelgan.types import UserError

CSV_COLUMNS = ("run", "pair", "method", "kind", "metric", "mean", "low", "high")

_NAME_WIDTH = 24
_LONGEST_HEAD = 21
_MARK = "*"
_DRAWINGS = 1000
_NO_SPREAD = 1e-9
_OF_IMAGES = (
    *("data.image_size", "data.rendered.test", "data.maximum_test", "data.tfds.name", "data.folder"),
)
"""Config fields that choose the test images, beside the seed."""

_P_VALUES = (
    "p: normal approximation from resampled networks and images, over several pairs Student's t from drawn "
    "attributes and objects; corrected over all differences of a table (Holm). It does not cover another "
    "seed: see that a difference outlives several seeds."
)

_NO_P_BETWEEN_SEEDS = (
    "No p-values between seeds: one of resampled networks and images does not cover what a seed changes, so "
    "it would call chance clear. The sd between runs does."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of several.

    Attributes:
      name: the shortest part of its path that tells it from the others, or ``run 2``.
      path: its directory.
      results: what it left, of the arrays ``replicates`` and ``test_images`` only.
    """

    name: str
    path: Path
    results: results_lib.Results

    @property
    def document(self) -> dict[str, Any]:
        """`results.json`."""
        return self.results.document

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config's fields by their dotted names."""
        return dict(config_lib.flatten(self.document.get("config") or {}))

    @property
    def seed(self) -> object:
        """Its seed; None where none is recorded."""
        return self.document.get("seed", self.config.get("seed"))

    @functools.cached_property
    def pairs(self) -> dict[str, dict[str, Any]]:
        """The result of each concept pair by its title, such as ``black cat``."""
        return {results_lib.pair_title(pair): pair for pair in self.results.pairs()}


@dataclasses.dataclass(frozen=True)
class Row:
    """One method in every run.

    Attributes:
      method: its name.
      kind: its kind.
      pairs: titles of the pairs that count: those where no run that has the method lacks the figure.
      values: the figure in each run; where several pairs count, the mean over them.
    """

    method: str
    kind: str
    pairs: tuple[str, ...]
    values: tuple[Interval, ...]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one method between two runs.

    Attributes:
      mean: the second run's figure minus the first's; NaN where either is missing.
      p_value: two-sided; NaN where a run has no replicates of this figure.
      paired: whether both were resampled alike; None without a p-value.
    """

    mean: float
    p_value: float = math.nan
    paired: bool | None = None


# What is read ---------------------------------------------------------------------------------------------


def read(paths: Sequence[Path]) -> list[Run]:
    """Reads runs and names them.

    Args:
      paths: their directories, at least two.

    Raises:
      UserError: fewer than two, one twice, or some that are unfinished or damaged, all of which are named.
    """
    if len(paths) < 2:
        given = f"only {paths[0]} is given" if paths else "no run is given"
        raise UserError(f"{given}; expected at least two work directories, such as runs/a runs/b.")
    whole = [path.resolve() for path in paths]
    for number, path in enumerate(whole):
        if path in whole[:number]:
            raise UserError(f"{paths[number]} is given twice; expected different runs.")
    found, problems = [], []
    for path in paths:
        try:
            if not path.is_dir():
                raise UserError(f"{path} is not a directory; expected a run's work directory.")
            found.append(_trimmed(results_lib.read_results(path)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{len(problems)} of {len(paths)} runs cannot be compared:\n  " + "\n  ".join(problems)
        )
    return [Run(*one) for one in zip(short_names(paths), paths, found, strict=True)]


def _trimmed(results: results_lib.Results) -> results_lib.Results:
    kept = {
        name: array
        for name, array in results.arrays.items()
        if "/replicates/" in name or name.endswith("/test_images")
    }
    return results_lib.Results(results.document, kept)


def short_names(paths: Sequence[Path]) -> list[str]:
    """What of each path tells it from the others: without the parts that all begin and all end with.

    Names too long for the head of a column are ``run 1``, ``run 2``, ... instead, all of them.
    """
    parts = [path.resolve().parts for path in paths]
    while min(map(len, parts)) > 1 and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    while min(map(len, parts)) > 1 and len({one[0] for one in parts}) == 1:
        parts = [one[1:] for one in parts]
    names = ["/".join(one) for one in parts]
    if max(map(len, names)) > _LONGEST_HEAD:
        return [f"run {number}" for number in range(1, len(paths) + 1)]
    return names


def shared_pairs(runs: Sequence[Run]) -> list[str]:
    """Titles of the pairs that every run has, in the first run's order.

    Raises:
      UserError: there are none.
    """
    shared = [title for title in runs[0].pairs if all(title in run.pairs for run in runs)]
    if not shared:
        had = "; ".join(f"{run.name} has {', '.join(run.pairs)}" for run in runs)
        raise UserError(f"the runs have no concept pair in common ({had}); name runs that share one.")
    return shared


def metric_of(runs: Sequence[Run], titles: Sequence[str], metric: str | None = None) -> str:
    """The path of the statistic that is compared.

    Args:
      runs: as `read` gives them.
      titles: of pairs.
      metric: the path that is asked for; None: the figure of merit.

    Raises:
      UserError: nobody has such a statistic, or the runs have different figures of merit.
    """
    pairs = [run.pairs[title] for run in runs for title in titles]
    if metric is None:
        found = sorted({results_lib.merit_path(pair) for pair in pairs})
        if len(found) > 1:
            raise UserError(
                f"the runs have different figures of merit ({', '.join(found)}); name one that they share, "
                "such as --metric=average_precision."
            )
        return found[0]
    methods = [method for pair in pairs for method in pair["methods"].values()]
    if not any(results_lib.interval(method, metric).known for method in methods):
        known = dict.fromkeys(path for method in methods for path in _statistics(method))
        raise UserError(
            f"--metric={metric} is no statistic of these runs; expected one of {', '.join(known) or 'none'}."
        )
    return metric


def _statistics(record: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted paths of a method's statistics."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            if results_lib.interval(value).known:
                yield f"{prefix}{key}"
            else:
                yield from _statistics(value, f"{prefix}{key}.")


# In what the runs differ ----------------------------------------------------------------------------------


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What is not the same in all runs, by its name: config fields, ``seed``, versions, ``device``.

    Config fields that change nothing that is computed are left out, as in `config.differences`.
    """
    told = [
        {
            **{name: value for name, value in run.config.items() if not name.startswith(config_lib.HARMLESS)},
            "seed": run.seed,
            **{f"version of {name}": value for name, value in (run.document.get("versions") or {}).items()},
            "device": run.document.get("device"),
        }
        for run in runs
    ]
    names = dict.fromkeys(name for one in told for name in one)
    values = {name: [one.get(name, "absent") for one in told] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def is_seed_sweep(runs: Sequence[Run]) -> bool:
    """Whether the runs differ in their seeds, all of them, and in nothing else that is computed."""
    found = differing(runs)
    seeds = [repr(run.seed) for run in runs]
    return len(set(seeds)) == len(runs) and not found.keys() - {"seed", "name", "device"}


def other_images(a: Run, b: Run, title: str) -> str:
    """Why two runs were not tested on the same images of a pair; "" where nothing says that they were not."""
    one, two = ((run.pairs[title].get("data") or {}) for run in (a, b))
    if _source(a, title) != _source(b, title):
        return "source"
    if one.get("test") != two.get("test"):
        return "number"
    if any(a.config.get(field) != b.config.get(field) for field in _OF_IMAGES):
        return "settings"
    ours, theirs = (run.results.array(run.pairs[title], "test_images") for run in (a, b))
    if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
        return "pixels"
    return ""


def _source(run: Run, title: str) -> object:
    own = (run.pairs[title].get("data") or {}).get("source")
    return own or (run.document.get("data") or {}).get("source")


def _preamble(runs: Sequence[Run], shared: Sequence[str]) -> list[str]:
    """Who is compared, in what they differ, and what stands in the way."""
    lines = [f"{len(runs)} runs: {', '.join(f'{run.name} ({run.path})' for run in runs)}."]
    found = differing(runs)
    if not found:
        lines.append(
            "They differ in nothing that is recorded: config, seed, versions and device are the same."
        )
    else:
        lines.append("They differ in")
        lines += [f"  {name}: {_grouped(runs, [repr(v) for v in vs])}" for name, vs in found.items()]
    for run in runs:
        extra = [title for title in run.pairs if title not in shared]
        if extra:
            lines.append(
                f"Beware: these pairs of {run.name} are left out, for not all runs have them: "
                f"{', '.join(extra)}."
            )
    return lines + _warnings(runs, shared)


def _grouped(runs: Sequence[Run], values: Sequence[str]) -> str:
    """``15 (a, b); 5 (c)``."""
    who: dict[str, list[str]] = {}
    for run, value in zip(runs, values, strict=True):
        who.setdefault(value, []).append(run.name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in who.items())


def _warnings(runs: Sequence[Run], shared: Sequence[str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for title in shared:
        found = {other_images(runs[0], run, title) for run in runs[1:]}
        for reason in ("source", "number", "settings", "pixels"):
            if reason in found:
                reasons.setdefault(reason, []).append(title)
                break
    lines = []
    for reason, titles in reasons.items():
        on = titles[0] if len(titles) == 1 else f"{len(titles)} pairs, such as {titles[0]},"
        if reason == "source":
            sources = _grouped(runs, [str(_source(run, titles[0])) for run in runs])
            lines.append(f"Beware, not comparable: on {on} the images are of different sources: {sources}.")
        elif reason == "number":
            tests = [(run.pairs[titles[0]].get("data") or {}).get("test") or {} for run in runs]
            words = [
                ", ".join(f"{key} {count}" for key, count in test.items()) or "unknown" for test in tests
            ]
            lines.append(
                f"Beware, not comparable image by image: on {on} the test images are others: "
                f"{_grouped(runs, words)}."
            )
        else:
            lines.append(
                f"Beware, not comparable image by image: on {on} the test images are others, though as many."
            )
    return lines


# The figures ----------------------------------------------------------------------------------------------


def rows(runs: Sequence[Run], titles: Sequence[str], metric: str) -> list[Row]:
    """Every method that any run has on these pairs, in the order of every table.

    Args:
      runs: as `read` gives them.
      titles: of pairs that all have.
      metric: path of a statistic.
    """
    methods: dict[str, Any] = {}
    for run in runs:
        for title in titles:
            methods = {**run.pairs[title]["methods"], **methods}
    found = []
    for name, method in results_lib.methods_in_order({"methods": methods}):
        having = [{title for title in titles if _is_known(run, titles, title, name, metric)} for run in runs]
        count = tuple(title for title in titles if all(title in of_run for of_run in having if of_run))
        if any(having):
            values = tuple(
                _over_pairs(run, count, name, metric) if of_run else Interval()
                for run, of_run in zip(runs, having, strict=True)
            )
            found.append(Row(name, str(method.get("kind") or "other"), count, values))
    return found


def _figure(run: Run, title: str, method: str, metric: str) -> Interval:
    return results_lib.interval(run.pairs[title]["methods"].get(method), metric)


def _is_known(run: Run, titles: Sequence[str], title: str, method: str, metric: str) -> bool:
    """Whether a pair counts; for the share recovered over several also a hopeless one does."""
    if metric != "recovered" or len(titles) == 1:
        return _figure(run, title, method, metric).known
    return all(results_lib.merit(run.pairs[title], name).known for name in (method, FLOOR, CEILING))


def _over_pairs(run: Run, titles: Sequence[str], method: str, metric: str) -> Interval:
    """The mean over pairs and its interval, as in ``overall`` of `results`; of one pair, what it has."""
    values = [_figure(run, title, method, metric) for title in titles]
    if len(values) == 1:
        return values[0]
    if not values:
        return Interval()
    if metric == "recovered":
        return _recovered(run, titles, method)
    found = _drawings(run, titles).statistic(np.array([value.mean for value in values]))
    return Interval(found["mean"], *found["ci95"])


def _drawings(run: Run, titles: Sequence[str]) -> comparison.Drawings:
    """Attributes and objects of these pairs, drawn as for ``overall``."""
    pairs = [run.pairs[title]["pair"] for title in titles]
    concepts = [(str(pair["attribute"]), str(pair["object"])) for pair in pairs]
    return comparison.Drawings(concepts, resamples=_DRAWINGS, seed=0)


def _recovered(run: Run, titles: Sequence[str], method: str) -> Interval:
    """The ratio of mean gains over the pairs: a mean of ratios would hang on hopeless pairs."""
    mine, low, high = (
        np.mean([results_lib.merit(run.pairs[title], name).mean for title in titles])
        for name in (method, FLOOR, CEILING)
    )
    return Interval(float((mine - low) / (high - low))) if high > low else Interval()


def difference(runs: Sequence[Run], first: int, second: int, row: Row, metric: str) -> Difference:
    """How far one method of a run is above that of another, over the row's pairs.

    Args:
      runs: as `read` gives them.
      first: number of the one.
      second: number of the other.
      row: of `rows` of these runs.
      metric: path of the statistic; only the figure of merit has replicates.
    """
    gap = row.values[second].mean - row.values[first].mean
    a, b = runs[first], runs[second]
    paired = (
        a.seed is not None and a.seed == b.seed and not any(other_images(a, b, title) for title in row.pairs)
    )
    if len(row.pairs) > 1 and metric != "recovered":
        gaps = [
            _figure(b, title, row.method, metric).mean - _figure(a, title, row.method, metric).mean
            for title in row.pairs
        ]
        test = _drawings(a, row.pairs).test(np.array(gaps))
        return Difference(gap, test["p_value"] if test else math.nan, paired)
    drawn = [_replicates(run, row.pairs, row.method, metric) for run in (a, b)]
    if not math.isfinite(gap) or any(one is None for one in drawn):
        return Difference(gap)
    ours, theirs = (one.mean(axis=0) for one in drawn if one is not None)
    paired = paired and ours.shape == theirs.shape
    if gap == 0:
        return Difference(gap, 1.0, paired)
    spread = math.hypot(*(one.std(ddof=1) for one in ([theirs - ours] if paired else [ours, theirs])))
    if spread < _NO_SPREAD:  # nothing was drawn that could differ, so nothing is known of the error
        return Difference(gap)
    return Difference(gap, math.erfc(abs(gap) / spread / math.sqrt(2)), paired)


def _replicates(run: Run, titles: Sequence[str], method: str, metric: str) -> np.ndarray | None:
    """Resampled means on each pair, ``(P, R)``; None where they are missing or of another figure."""
    found = [run.results.array(run.pairs[title], f"replicates/{method}") for title in titles]
    arrays = [np.asarray(array, np.float64) for array in found if array is not None]
    if any(results_lib.merit_path(run.pairs[title]) != metric for title in titles):
        return None
    if not arrays or len(arrays) < len(found) or len({array.shape for array in arrays}) > 1:
        return None
    drawn = np.stack(arrays)
    return drawn if drawn.ndim == 2 and drawn.shape[1] > 1 and np.isfinite(drawn).all() else None


def _corrected(p_values: Sequence[float]) -> list[float]:
    """Holm's, over those that there are."""
    known = [p_value for p_value in p_values if math.isfinite(p_value)]
    corrected = iter(null_test.holm(known) if known else [])
    return [next(corrected) if math.isfinite(p_value) else math.nan for p_value in p_values]


def clearly_best(runs: Sequence[Run], table: Sequence[Row], metric: str) -> list[int | None]:
    """For each row the number of the run whose figure is clearly above that of EVERY other, else None.

    The largest of a row's p-values, best against each other run, is corrected over the rows (Holm). That the
    best was picked needs no more: it must pass all of the tests.
    """
    best, p_values = [], []
    for row in table:
        known = [number for number, value in enumerate(row.values) if value.known]
        first = max(known, key=lambda number: row.values[number].mean, default=0)
        others = [difference(runs, n, first, row, metric).p_value for n in known if n != first]
        best.append(first)
        p_values.append(float(np.max(others)) if others else math.nan)  # NaN where one is
    corrected = _corrected(p_values)
    return [
        number if p < results_lib.SIGNIFICANCE else None for number, p in zip(best, corrected, strict=True)
    ]


# How they are shown ---------------------------------------------------------------------------------------


def text(runs: Sequence[Run], *, metric: str | None = None, pair_by_pair: bool = False) -> str:
    """What several runs have in common and where they differ, in at most `WIDTH` columns.

    Args:
      runs: as `read` gives them.
      metric: path of a statistic, such as ``balanced_accuracy``; None: the figure of merit.
      pair_by_pair: where the runs share several pairs, also a table for each.

    Raises:
      UserError: see `shared_pairs` and `metric_of`.
    """
    shared = shared_pairs(runs)
    path = metric_of(runs, shared, metric)
    lines = [*wrapped(_preamble(runs, shared)), "", *_section(runs, shared, path)]
    if pair_by_pair and len(shared) > 1:
        for title in shared:
            lines += ["", *_section(runs, [title], path)]
    if any(" p " in line for line in lines):
        lines += ["", *wrapped([_P_VALUES])]
    lines += ["", "What each run says of itself"]
    lines += wrapped([f"{run.name}: {_verdict(run)}" for run in runs])
    return "\n".join(line.rstrip() for line in lines)


def _verdict(run: Run) -> str:
    return results_lib.summary(run.results)[0]


def _section(runs: Sequence[Run], titles: Sequence[str], metric: str) -> list[str]:
    """The table of some pairs, the differences under it, and what both can be trusted with."""
    table = rows(runs, titles, metric)
    if not table:
        return [f"{', '.join(titles)}: no run has {metric} here."]
    seeds = is_seed_sweep(runs)
    best = [None] * len(table) if seeds else clearly_best(runs, table, metric)  # a best seed is no finding
    many = len(titles) > 1
    over = (
        f"mean over {len(titles)} shared pairs [95% interval over pairs]" if many else "mean [95% interval]"
    )
    lines = wrapped([f"{'' if many else f'{titles[0]}: '}{metric}, {over}"])
    columns = [
        (
            f"{run.name} ",
            [
                f"{row.values[number].text()}{_MARK if mark == number else ' '}"
                for row, mark in zip(table, best, strict=True)
            ],
        )
        for number, run in enumerate(runs)
    ]
    if seeds:
        columns.append(("mean over runs", [_between_runs(row) for row in table]))
    lines += _blocks(table, columns)
    notes = [
        f"{row.method}: over {len(row.pairs)} of the {len(titles)} pairs, where every run that has it has it."
        for row in table
        if len(row.pairs) < len(titles)
    ]
    if any(mark is not None for mark in best):
        notes.append(f"{_MARK} above every other run, p < {results_lib.SIGNIFICANCE} each (Holm, over rows).")
    if seeds:
        notes.append(
            "The runs differ in the seed only: the sd between them is the error bar that covers another "
            "seed. No best run is marked, for that would be a pick."
        )
    return [*lines, *wrapped(notes), "", *_differences(runs, table, metric)]


def _between_runs(row: Row) -> str:
    means = [value.mean for value in row.values if value.known]
    mean = f"{np.mean(means):.3f}" if means else "-"
    return f"{mean} sd {np.std(means, ddof=1):.3f}" if len(means) > 1 else mean


def _differences(runs: Sequence[Run], table: Sequence[Row], metric: str) -> list[str]:
    """How each run stands to the first, with p-values corrected over the whole table; between seeds none."""
    found = [[difference(runs, 0, number, row, metric) for row in table] for number in range(1, len(runs))]
    lines = [f"Difference to {runs[0].name}"]
    if is_seed_sweep(runs):
        columns = [
            (run.name, [_gap_text(one) for one in column])
            for run, column in zip(runs[1:], found, strict=True)
        ]
        return [*lines, *_blocks(table, columns), *wrapped([_NO_P_BETWEEN_SEEDS])]
    corrected = iter(_corrected([one.p_value for column in found for one in column]))
    columns = []
    notes: dict[str, list[str]] = {}
    for run, column in zip(runs[1:], found, strict=True):
        columns.append((run.name, [_difference_text(one, next(corrected)) for one in column]))
        notes.setdefault(_how(column), []).append(run.name)
    said = wrapped([f"{', '.join(names)}: {how}." for how, names in notes.items()])
    return [*lines, *_blocks(table, columns), *said]


def _gap_text(found: Difference) -> str:
    return f"{round(found.mean, 3) + 0.0:+.3f}" if math.isfinite(found.mean) else "-"


def _difference_text(found: Difference, p_value: float) -> str:
    if not math.isfinite(found.mean):
        return "-"
    words = results_lib.p_text(p_value) if math.isfinite(p_value) else " " * len("p = 0.000")
    return f"{_gap_text(found)} {words}"


def _how(found: Sequence[Difference]) -> str:
    kinds = {one.paired for one in found if one.paired is not None}
    if not kinds:
        return "no p-value, for replicates of this figure are not there in both runs"
    words = {
        True: "paired, for seed and test images are the same",
        False: "as independent samples, for the seed or the test images are others",
    }
    return words[kinds.pop()] if len(kinds) == 1 else "paired where seed and test images are the same"


def _blocks(table: Sequence[Row], columns: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Columns beside the methods, grouped by kind; what is too wide goes on below, methods repeated."""
    blocks: list[list[tuple[int, str, list[str]]]] = []
    room = 0
    for head, cells in columns:
        width = max(len(text) for text in (head, *cells))
        if 2 + width > room:
            blocks.append([])
            room = WIDTH - _NAME_WIDTH
        blocks[-1].append((width, head, cells))
        room -= 2 + width
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        rule = "-" * (_NAME_WIDTH + sum(2 + width for width, _, _ in block))
        lines += [
            rule,
            f"{'method':<{_NAME_WIDTH}}" + "".join(f"  {head:>{width}}" for width, head, _ in block),
        ]
        lines.append(rule)
        kind = ""
        for number, row in enumerate(table):
            if row.kind != kind:
                kind = row.kind
                lines.append(kind)
            name = f"  {row.method}"
            name = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}~"
            cells_text = "".join(f"  {cells[number]:>{width}}" for width, _, cells in block)
            lines.append(f"{name:<{_NAME_WIDTH}}{cells_text}")
        lines.append(rule)
    return lines


def long_form(runs: Sequence[Run], metric: str) -> str:
    """CSV with a line for each run, pair and method that has the statistic; every pair, shared or not.

    Args:
      runs: as `read` gives them.
      metric: path of the statistic.

    Returns:
      Lines of `CSV_COLUMNS` below a heading; an end of an interval that is not there is empty.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for run in runs:
        for title, pair in run.pairs.items():
            for name, method in results_lib.methods_in_order(pair):
                value = results_lib.interval(method, metric)
                if value.known:
                    ends = [repr(end) if math.isfinite(end) else "" for end in (value.low, value.high)]
                    kind = method.get("kind") or "other"
                    writer.writerow([run.name, title, name, kind, metric, repr(value.mean), *ends])
    return file.getvalue()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Told in one line, as every other error."""
        raise UserError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = _Parser(prog="python -m kernelgan.compare", description="The same table across runs.")
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="work directories, at least two")
    parser.add_argument(
        "--metric", metavar="PATH", help="a statistic such as balanced_accuracy; default the figure of merit"
    )
    parser.add_argument("--pairs", action="store_true", help="also a table for each pair that all runs have")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures there too, one a line")
    try:
        given = parser.parse_args(argv)
        runs = read(given.runs)
        print(text(runs, metric=given.metric, pair_by_pair=given.pairs))
        if given.csv is not None:
            lines = long_form(runs, metric_of(runs, shared_pairs(runs), given.metric))
            try:
                results_lib.write_atomically(given.csv, lines.encode())
            except OSError as error:
                raise UserError(f"--csv={given.csv} cannot be written: {error.strerror}.") from error
            print(f"\n{given.csv}: {lines.count(chr(10)) - 1} figures")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave an accelerator to others
    sys.exit(main())
