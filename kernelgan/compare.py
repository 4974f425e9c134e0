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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kernelgan import config as config_lib
from kernelgan.baselines import CEILING, FLOOR
from kernelgan.evaluation import comparison, null_test
from kernelgan.evaluation.verdict import SIGNIFICANCE
from kernelgan.files import write_atomically
from kernelgan.report import prose, terminal
from kernelgan.report.tables import DASH, Cell, Column, Line, Table
from kernelgan.results import KINDS, Pair, Run, Statistic, read_results, statistics
from kernelgan.types import UserError

CSV_COLUMNS = ("run", "pair", "method", "kind", "metric", "mean", "low", "high")

_LONGEST_HEAD = 21
_MARK, _NO_MARK = "*", "\N{NO-BREAK SPACE}"
_DRAWINGS = 1000
_NO_SPREAD = 1e-9
_OF_IMAGES = ("data.image_size", "data.rendered.test", "data.maximum_test", "data.tfds.name", "data.folder")
"""Config fields that choose the test images, beside the seed."""

_P_VALUES = (
    "p: normal approximation from resampled networks and images, over several pairs Student's t from drawn "
    "attributes and objects; corrected over all differences of a table (Holm). It does not cover another "
    "seed: see that a difference outlives several seeds."
)
_NO_P_BETWEEN_SEEDS = (
    "No p-values between seeds: a p-value of resampled networks and images does not cover what a seed "
    "changes, so it would call chance clear. The sd between runs does."
)


@dataclass(frozen=True)
class Compared:
    """One run of several: a short name, its directory, and what it left, trimmed to what is compared."""

    name: str
    path: Path
    run: Run

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config's fields by their dotted names."""
        return dict(config_lib.flatten(self.run.config))

    @property
    def seed(self) -> int | None:
        """Its seed; None where none is recorded."""
        return self.run.config.get("seed") if self.run.seed is None else self.run.seed

    @functools.cached_property
    def pairs(self) -> dict[str, Pair]:
        """Its pairs by title, such as ``black cat``."""
        return {pair.title: pair for pair in self.run.pairs}

    @functools.cached_property
    def _statistics(self) -> dict[tuple[str, str], dict[str, Statistic]]:
        rows = ((title, row) for title, pair in self.pairs.items() for row in pair.methods.values())
        return {(title, row.name): statistics(row) for title, row in rows}

    def figure(self, title: str, method: str, metric: str) -> Statistic:
        """A statistic of a method on a pair; empty where it was not measured."""
        return self._statistics.get((title, method), {}).get(metric, Statistic())


@dataclass(frozen=True)
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
    values: tuple[Statistic, ...]


@dataclass(frozen=True)
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


def read(paths: Sequence[Path]) -> list[Compared]:
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
            found.append(_trimmed(read_results(path)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(
            f"{len(problems)} of {len(paths)} runs cannot be compared:\n  " + "\n  ".join(problems)
        )
    return [Compared(*one) for one in zip(short_names(paths), paths, found, strict=True)]


def _trimmed(run: Run) -> Run:
    kept = {name: one for name, one in run.arrays.items() if "/replicates/" in name or "/test_images" in name}
    return dataclasses.replace(run, arrays=kept)


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells each path from the others: without the parts that all begin and all end with.

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


def shared_pairs(runs: Sequence[Compared]) -> list[str]:
    """Titles of the pairs that every run has, in the first run's order.

    Raises:
      UserError: there are none.
    """
    shared = [title for title in runs[0].pairs if all(title in run.pairs for run in runs)]
    if not shared:
        had = "; ".join(f"{run.name} has {', '.join(run.pairs)}" for run in runs)
        raise UserError(f"the runs have no concept pair in common ({had}); name runs that share one.")
    return shared


def metric_of(runs: Sequence[Compared], titles: Sequence[str], metric: str | None = None) -> str:
    """The path of the statistic that is compared.

    Args:
      runs: as `read` gives them.
      titles: of pairs.
      metric: the path that is asked for; None: the figure of merit.

    Raises:
      UserError: no run has such a statistic, or the runs have different figures of merit.
    """
    pairs = [run.pairs[title] for run in runs for title in titles]
    if metric is None:
        found = sorted({f"auroc.{pair.merit}" for pair in pairs})
        if len(found) > 1:
            raise UserError(
                f"the runs have different figures of merit ({', '.join(found)}); name a metric that they "
                "share, such as --metric=average_precision."
            )
        return found[0]
    known = dict.fromkeys(path for pair in pairs for row in pair.methods.values() for path in statistics(row))
    if metric not in known:
        raise UserError(
            f"--metric={metric} is no statistic of these runs; expected one of {', '.join(known) or 'none'}."
        )
    return metric


# In what the runs differ ----------------------------------------------------------------------------------


def differing(runs: Sequence[Compared]) -> dict[str, list[Any]]:
    """What is not the same in all runs, by its name: config fields, ``seed``, versions, ``device``.

    Config fields that change nothing that is computed are left out, as in `config.differences`.
    """
    told = [
        {
            **{name: value for name, value in one.config.items() if not name.startswith(config_lib.HARMLESS)},
            "seed": one.seed,
            **{f"version of {name}": value for name, value in one.run.versions.items()},
            "device": one.run.device,
        }
        for one in runs
    ]
    names = dict.fromkeys(name for one in told for name in one)
    values = {name: [one.get(name, "absent") for one in told] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def is_seed_sweep(runs: Sequence[Compared]) -> bool:
    """Whether the runs differ in their seeds, all of them, and in nothing else that is computed."""
    seeds = {repr(run.seed) for run in runs}
    return len(seeds) == len(runs) and not differing(runs).keys() - {"seed", "name", "device"}


def other_images(a: Compared, b: Compared, title: str) -> str:
    """Why two runs were not tested on the same images of a pair; "" where nothing says that they were not."""
    one, two = a.pairs[title], b.pairs[title]
    if _source(a, title) != _source(b, title):
        return "source"
    if one.data.test != two.data.test:
        return "number"
    if any(a.config.get(field) != b.config.get(field) for field in _OF_IMAGES):
        return "settings"
    ours, theirs = a.run.array(one, "test_images"), b.run.array(two, "test_images")
    if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
        return "pixels"
    return ""


def _source(run: Compared, title: str) -> str:
    return run.pairs[title].data.source or run.run.data.source


def _preamble(runs: Sequence[Compared], shared: Sequence[str]) -> list[str]:
    """Who is compared, in what they differ, and what stands in the way."""
    lines = [f"{len(runs)} runs: {', '.join(f'{run.name} ({run.path})' for run in runs)}."]
    found = differing(runs)
    lines.append(
        "They differ in"
        if found
        else "They differ in nothing that is recorded: config, seed, versions and device are the same."
    )
    lines += [f"  {name}: {_grouped(runs, [repr(v) for v in vs])}" for name, vs in found.items()]
    for run in runs:
        extra = [title for title in run.pairs if title not in shared]
        if extra:
            lines.append(
                f"Beware: these pairs of {run.name} are left out, for not all runs have them: "
                f"{', '.join(extra)}."
            )
    return lines + _warnings(runs, shared)


def _grouped(runs: Sequence[Compared], values: Sequence[str]) -> str:
    """``15 (a, b); 5 (c)``."""
    who: dict[str, list[str]] = {}
    for run, value in zip(runs, values, strict=True):
        who.setdefault(value, []).append(run.name)
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in who.items())


def _warnings(runs: Sequence[Compared], shared: Sequence[str]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for title in shared:
        found = {other_images(runs[0], run, title) for run in runs[1:]} - {""}
        worst = next((one for one in ("source", "number", "settings", "pixels") if one in found), "")
        if worst:
            reasons.setdefault(worst, []).append(title)
    lines = []
    for reason, titles in reasons.items():
        on = titles[0] if len(titles) == 1 else f"{len(titles)} pairs, such as {titles[0]},"
        if reason == "source":
            sources = _grouped(runs, [_source(run, titles[0]) for run in runs])
            lines.append(f"Beware, not comparable: on {on} the images are of different sources: {sources}.")
            continue
        tests = [run.pairs[titles[0]].data.test for run in runs]
        words = [", ".join(f"{key} {count}" for key, count in test.items()) or "unknown" for test in tests]
        how = f": {_grouped(runs, words)}" if reason == "number" else ", though as many"
        lines.append(f"Beware, not comparable image by image: on {on} the test images are others{how}.")
    return lines


# The figures ----------------------------------------------------------------------------------------------


def rows(runs: Sequence[Compared], titles: Sequence[str], metric: str) -> list[Row]:
    """Every method that any run has on these pairs, in the order of every table.

    Args:
      runs: as `read` gives them.
      titles: of pairs that all have.
      metric: path of a statistic.
    """
    kinds: dict[str, str] = {}
    for run in runs:
        for title in titles:
            of_run = {name: row.kind for name, row in run.pairs[title].methods.items()}
            kinds = {**of_run, **kinds}
    found = []
    for name, kind in sorted(kinds.items(), key=lambda item: KINDS.index(item[1])):
        having = [{title for title in titles if _is_known(run, titles, title, name, metric)} for run in runs]
        count = tuple(title for title in titles if all(title in of_run for of_run in having if of_run))
        if any(having):
            values = tuple(
                _over_pairs(run, count, name, metric) if of_run else Statistic()
                for run, of_run in zip(runs, having, strict=True)
            )
            found.append(Row(name, kind, count, values))
    return found


def _is_known(run: Compared, titles: Sequence[str], title: str, method: str, metric: str) -> bool:
    """Whether a pair counts; for the share recovered over several pairs also a hopeless pair does."""
    if metric != "recovered" or len(titles) == 1:
        return run.figure(title, method, metric).known
    return all(run.pairs[title].figure(name).known for name in (method, FLOOR, CEILING))


def _over_pairs(run: Compared, titles: Sequence[str], method: str, metric: str) -> Statistic:
    """The mean over pairs and its interval, as in ``overall`` of `results`; of one pair, what it has."""
    if len(titles) < 2:
        return run.figure(titles[0], method, metric) if titles else Statistic()
    if metric == "recovered":
        return _recovered(run, titles, method)
    values = np.array([run.figure(title, method, metric).mean for title in titles])
    found = _drawings(run, titles).statistic(values)
    return Statistic(found["mean"], tuple(found["ci95"]))


def _drawings(run: Compared, titles: Sequence[str]) -> comparison.Drawings:
    """Attributes and objects of these pairs, drawn as for ``overall``."""
    pairs = [run.pairs[title].pair for title in titles]
    concepts = [(pair.attribute, pair.object) for pair in pairs]
    return comparison.Drawings(concepts, resamples=_DRAWINGS, seed=0)


def _recovered(run: Compared, titles: Sequence[str], method: str) -> Statistic:
    """The ratio of mean gains over the pairs: a mean of ratios would hang on hopeless pairs."""
    mine, low, high = (
        np.mean([run.pairs[title].figure(name).mean for title in titles]) for name in (method, FLOOR, CEILING)
    )
    return Statistic(float((mine - low) / (high - low))) if high > low else Statistic()


def difference(runs: Sequence[Compared], first: int, second: int, row: Row, metric: str) -> Difference:
    """How far a method of one run is above that of another, over the row's pairs.

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
            b.figure(title, row.method, metric).mean - a.figure(title, row.method, metric).mean
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


def _replicates(run: Compared, titles: Sequence[str], method: str, metric: str) -> np.ndarray | None:
    """Resampled means on each pair, ``(P, R)``; None where they are missing or of another figure."""
    pairs = [run.pairs[title] for title in titles]
    found = [run.run.array(pair, f"replicates/{method}") for pair in pairs]
    arrays = [np.asarray(array, np.float64) for array in found if array is not None]
    if any(f"auroc.{pair.merit}" != metric for pair in pairs):
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


def clearly_best(runs: Sequence[Compared], table: Sequence[Row], metric: str) -> list[int | None]:
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
    return [
        number if p < SIGNIFICANCE else None for number, p in zip(best, _corrected(p_values), strict=True)
    ]


# How they are shown ---------------------------------------------------------------------------------------


def text(runs: Sequence[Compared], *, metric: str | None = None, pair_by_pair: bool = False) -> str:
    """What several runs have in common and where they differ, in at most `terminal.WIDTH` columns.

    Args:
      runs: as `read` gives them.
      metric: path of a statistic, such as ``balanced_accuracy``; None: the figure of merit.
      pair_by_pair: where the runs share several pairs, also a table for each.

    Raises:
      UserError: see `shared_pairs` and `metric_of`.
    """
    shared = shared_pairs(runs)
    path = metric_of(runs, shared, metric)
    parts = [terminal.wrapped(_preamble(runs, shared)), _section(runs, shared, path)]
    if pair_by_pair and len(shared) > 1:
        parts += [_section(runs, [title], path) for title in shared]
    if any(" p " in part for part in parts):
        parts.append(terminal.wrapped([_P_VALUES]))
    verdicts = [f"{one.name}: {prose.summary(one.run)[0]}" for one in runs]
    parts.append(f"What each run says of itself\n{terminal.wrapped(verdicts)}")
    return "\n\n".join(parts)


def _section(runs: Sequence[Compared], titles: Sequence[str], metric: str) -> str:
    """The table of some pairs, the differences under it, and what both can be trusted with."""
    table = rows(runs, titles, metric)
    if not table:
        return f"{', '.join(titles)}: no run has {metric} here."
    return "\n\n".join(
        terminal.text(shown)
        for shown in (figures_table(runs, table, titles, metric), differences_table(runs, table, metric))
    )


def figures_table(
    runs: Sequence[Compared], table: Sequence[Row], titles: Sequence[str], metric: str
) -> Table:
    """Each method's figure in each run; between seeds also the mean and sd over runs."""
    seeds = is_seed_sweep(runs)
    best = [None] * len(table) if seeds else clearly_best(runs, table, metric)  # a best seed is no finding
    cells = [
        [
            *(
                Cell(f"{value.text()}{_MARK if mark == n else _NO_MARK}")
                for n, value in enumerate(row.values)
            ),
            *([_between_runs(row)] if seeds else []),
        ]
        for row, mark in zip(table, best, strict=True)
    ]
    many = len(titles) > 1
    over = (
        f"mean over {len(titles)} shared pairs [95% interval over pairs]" if many else "mean [95% interval]"
    )
    notes = [
        f"{row.method}: over {len(row.pairs)} of the {len(titles)} pairs, where every run that has it has it."
        for row in table
        if len(row.pairs) < len(titles)
    ]
    if any(mark is not None for mark in best):
        notes.append(f"{_MARK} above every other run, p < {SIGNIFICANCE} each (Holm, over rows).")
    if seeds:
        notes.append(
            "The runs differ in the seed only: the sd between them is the error bar that covers another "
            "seed. No best run is marked, for that would be a pick."
        )
    heads = [*(f"{run.name}{_NO_MARK}" for run in runs), *(["mean over runs"] if seeds else [])]
    title = f"{'' if many else f'{titles[0]}: '}{metric}, {over}"
    return _table(table, heads, cells, title, " ".join(notes))


def _between_runs(row: Row) -> Cell:
    means = [value.mean for value in row.values if value.known]
    mean = f"{np.mean(means):.3f}" if means else DASH
    return Cell(f"{mean} sd {np.std(means, ddof=1):.3f}" if len(means) > 1 else mean)


def differences_table(runs: Sequence[Compared], table: Sequence[Row], metric: str) -> Table:
    """How each run differs from the first, p-values corrected over the whole table; between seeds none."""
    found = [[difference(runs, 0, number, row, metric) for number in range(1, len(runs))] for row in table]
    seeds = is_seed_sweep(runs)
    flat = [math.nan if seeds else one.p_value for line in found for one in line]
    corrected = iter(_corrected(flat))
    cells = [[_difference_cell(one, next(corrected)) for one in line] for line in found]
    notes: dict[str, list[str]] = {}
    for run, column in zip(runs[1:], zip(*found, strict=True), strict=True):
        notes.setdefault(_how(column), []).append(run.name)
    caption = " ".join(f"{', '.join(names)}: {how}." for how, names in notes.items())
    heads = [run.name for run in runs[1:]]
    return _table(
        table, heads, cells, f"Difference to {runs[0].name}", _NO_P_BETWEEN_SEEDS if seeds else caption
    )


def _table(
    table: Sequence[Row], heads: Sequence[str], cells: Sequence[Sequence[Cell]], title: str, caption: str
) -> Table:
    lines = tuple(Line((Cell(row.method), *line), row.kind) for row, line in zip(table, cells, strict=True))
    return Table((Column("method", "left"), *(Column(head) for head in heads)), lines, title, caption)


def _difference_cell(found: Difference, p_value: float) -> Cell:
    if not math.isfinite(found.mean):
        return Cell(DASH)
    gap = f"{round(found.mean, 3) + 0.0:+.3f}"
    return Cell(f"{gap} {prose.p_text(p_value, '')}".strip(), value=found.mean)


def _how(found: Sequence[Difference]) -> str:
    kinds = {one.paired for one in found if one.paired is not None}
    if not kinds:
        return "no p-value, for replicates of this figure are not there in both runs"
    words = {
        True: "paired, for seed and test images are the same",
        False: "as independent samples, for the seed or the test images are others",
    }
    return words[kinds.pop()] if len(kinds) == 1 else "paired where seed and test images are the same"


def long_form(runs: Sequence[Compared], metric: str) -> str:
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
            for name, row in pair.methods.items():
                value = run.figure(title, name, metric)
                if value.known:
                    ends = [repr(end) if math.isfinite(end) else "" for end in (value.low, value.high)]
                    writer.writerow([run.name, title, name, row.kind, metric, repr(value.mean), *ends])
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
                write_atomically(given.csv, lines.encode())
            except OSError as error:
                raise UserError(f"--csv={given.csv} cannot be written: {error.strerror}.") from error
            print(f"\n{given.csv}: {lines.count(chr(10)) - 1} figures")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave an accelerator to others
    sys.exit(main())
