"""The same table across runs: a sweep over methods, settings or seeds, side by side.

``python -m kernelgan.compare runs/a runs/b runs/c``

The p-value of a difference between two runs is a normal one, ``2 P(Z > |difference| / spread)``, from the
resampled means that each run keeps (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter
13). With the same seed and the same test images both runs drew the same resamples, so the spread is that of
the resampled differences (see `evaluation.bootstrap`); else the spreads of the two add as of independent
samples, which is cautious where the images are the same. Over several pairs it is that of the pairs'
differences, attributes and objects being drawn (`evaluation.comparison`). Those of a table are corrected
together (Holm). Another seed is not covered: only runs of several seeds show what a seed does, and between
such runs no p-value is given.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernelgan import config as config_lib
from kernelgan.evaluation import comparison, null_test
from kernelgan.files import write_atomically
from kernelgan.report import prose, terminal
from kernelgan.report.tables import MISSING, Cell, Column, Line, Table
from kernelgan.results import KINDS, NOTHING, Pair, Run, Statistic, read_results, statistics
from kernelgan.types import UserError

CSV_COLUMNS = ("run", "pair", "method", "kind", "metric", "mean", "low", "high")

_LONGEST_NAME = 21
_DRAWINGS = 1000
_NO_SPREAD = 1e-9
_OF_IMAGES = ("data.image_size", "data.rendered.test", "data.maximum_test", "data.tfds.name", "data.folder")
"""Config fields that choose the test images, beside the seed."""

_P_VALUES = (
    "p: normal approximation from resampled networks and images, over several pairs Student's t from drawn "
    "attributes and objects; corrected over all differences of a table (Holm). It does not cover another "
    "seed: see whether a difference outlives several seeds."
)
_SEEDS = (
    "The runs differ in the seed only: the sd between them is the error bar that covers another seed. No "
    "p-values between seeds: resampled networks and images do not cover what a seed changes."
)


@dataclass(frozen=True)
class Compared:
    """One run of several: a short name, its directory, and what it left."""

    name: str
    path: Path
    run: Run

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config's fields by their dotted names."""
        return dict(config_lib.flatten(self.run.config))

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
        return self._statistics.get((title, method), {}).get(metric, NOTHING)


@dataclass(frozen=True)
class Row:
    """One method in every run: its figures, over the pairs where no run that has the method lacks it."""

    method: str
    kind: str
    pairs: tuple[str, ...]
    values: tuple[Statistic, ...]


@dataclass(frozen=True)
class Difference:
    """The second run's figure minus the first's, its p-value, and whether both were resampled alike."""

    mean: float
    p_value: float = math.nan
    paired: bool = False


def read(paths: Sequence[Path]) -> list[Compared]:
    """Reads runs and names them.

    Raises:
      UserError: fewer than two, one twice, or some that are unfinished or damaged, all of which are named.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        given = ", ".join(map(str, paths)) or "no run"
        raise UserError(f"{given} given; expected at least two different work directories.")
    runs, problems = [], []
    for path in paths:
        try:
            runs.append(read_results(path))
        except UserError as error:
            problems.append(f"\n  {error}")
    if problems:
        raise UserError(f"{len(problems)} of {len(paths)} runs cannot be compared:{''.join(problems)}")
    return [Compared(*each) for each in zip(short_names(paths), paths, runs, strict=True)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The paths without the parts that all begin and all end with; ``run 1``, ... where these are too long."""
    parts = [path.resolve().parts for path in paths]
    for end, cut in ((-1, slice(None, -1)), (0, slice(1, None))):
        while min(map(len, parts)) > 1 and len({each[end] for each in parts}) == 1:
            parts = [each[cut] for each in parts]
    names = ["/".join(each) for each in parts]
    if max(map(len, names)) > _LONGEST_NAME:
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
        raise UserError(f"the runs have no concept pair in common ({had}); name runs that share a pair.")
    return shared


def metric_of(runs: Sequence[Compared], titles: Sequence[str], metric: str | None = None) -> str:
    """The path of the statistic that is compared: the given one, else the figure of merit.

    Raises:
      UserError: no run has such a statistic, or the runs have different figures of merit.
    """
    pairs = [run.pairs[title] for run in runs for title in titles]
    merits = sorted({f"auroc.{pair.merit}" for pair in pairs})
    known = dict.fromkeys(path for pair in pairs for row in pair.methods.values() for path in statistics(row))
    if len(titles) > 1:
        known.pop("recovered", None)  # a mean of ratios over pairs would hang on hopeless pairs
    if metric is None and len(merits) > 1:
        raise UserError(f"the runs differ in their figure of merit ({', '.join(merits)}); give --metric.")
    if metric is not None and metric not in known:
        raise UserError(
            f"--metric={metric} is no statistic of these runs; expected one of {', '.join(known)}."
        )
    return metric or merits[0]


def differing(runs: Sequence[Compared]) -> dict[str, list[Any]]:
    """What is not the same in all runs, by its name: config fields, ``seed``, versions, ``device``.

    Config fields that change nothing that is computed are left out, as in `config.differences`.
    """
    recorded = [
        {
            **{
                name: value for name, value in each.config.items() if not name.startswith(config_lib.HARMLESS)
            },
            "seed": each.run.seed,
            **{f"version of {name}": value for name, value in each.run.versions.items()},
            "device": each.run.device,
        }
        for each in runs
    ]
    names = dict.fromkeys(name for each in recorded for name in each)
    values = {name: [each.get(name, "absent") for each in recorded] for name in names}
    return {name: given for name, given in values.items() if any(value != given[0] for value in given)}


def is_seed_sweep(runs: Sequence[Compared]) -> bool:
    """Whether the runs differ in their seeds, all of them, and in nothing else that is computed."""
    seeds = {run.run.seed for run in runs}
    return len(seeds) == len(runs) and not differing(runs).keys() - {"seed", "name", "device"}


def other_images(a: Compared, b: Compared, title: str) -> str:
    """Why two runs were not tested on the same images of a pair; "" where nothing says that they were not."""
    images = [each.run.array(each.pairs[title], "test_images") for each in (a, b)]
    reasons = {
        "their sources differ": [each.pairs[title].data.source or each.run.data.source for each in (a, b)],
        "their numbers differ": [each.pairs[title].data.test for each in (a, b)],
        "their settings differ": [[each.config.get(field) for field in _OF_IMAGES] for each in (a, b)],
    }
    for reason, (ours, theirs) in reasons.items():
        if ours != theirs:
            return f"{reason}, {ours} and {theirs}"
    known = images[0] is not None and images[1] is not None
    return "their pixels differ" if known and not np.array_equal(*images) else ""


def _preamble(runs: Sequence[Compared], shared: Sequence[str]) -> list[str]:
    """The runs, in what they differ, and what stands in the way of comparing them."""
    lines = [f"{len(runs)} runs: {', '.join(f'{run.name} ({run.path})' for run in runs)}."]
    changes = differing(runs)
    lines.append("They differ in" if changes else "Config, seed, versions and device are the same.")
    lines += [f"  {name}: {', '.join(map(repr, values))}" for name, values in changes.items()]
    for run in runs:
        extra = [title for title in run.pairs if title not in shared]
        if extra:
            lines.append(f"Beware: only some runs have these pairs of {run.name}: {', '.join(extra)}.")
        reasons = {title: other_images(runs[0], run, title) for title in shared}
        for reason in dict.fromkeys(filter(None, reasons.values())):
            titles = ", ".join(title for title in shared if reasons[title] == reason)
            lines.append(
                f"Beware, not comparable image by image: the test images of {titles} are not the same in "
                f"{runs[0].name} and {run.name}: {reason}."
            )
    return lines


def rows(runs: Sequence[Compared], titles: Sequence[str], metric: str) -> list[Row]:
    """Every method that any run has on these pairs, in the order of every table."""
    kinds: dict[str, str] = {}
    for run in runs:
        for title in titles:
            kinds = {name: row.kind for name, row in run.pairs[title].methods.items()} | kinds
    table = []
    for name, kind in sorted(kinds.items(), key=lambda item: KINDS.index(item[1])):
        having = [{title for title in titles if run.figure(title, name, metric).known} for run in runs]
        count = tuple(title for title in titles if all(title in of_run for of_run in having if of_run))
        values = [
            _over_pairs(run, count, name, metric) if of_run else NOTHING
            for run, of_run in zip(runs, having, strict=True)
        ]
        if any(having):
            table.append(Row(name, kind, count, tuple(values)))
    return table


def _over_pairs(run: Compared, titles: Sequence[str], method: str, metric: str) -> Statistic:
    """The mean over pairs and its interval, as in ``overall`` of `results`; of one pair, what it has."""
    if len(titles) < 2:
        return run.figure(titles[0], method, metric) if titles else NOTHING
    values = np.array([run.figure(title, method, metric).mean for title in titles])
    over = _drawings(run, titles).statistic(values)
    return Statistic(over["mean"], tuple(over["ci95"]))


def _drawings(run: Compared, titles: Sequence[str]) -> comparison.Drawings:
    """Attributes and objects of these pairs, drawn as for ``overall``."""
    pairs = [run.pairs[title].pair for title in titles]
    concepts = [(pair.attribute, pair.object) for pair in pairs]
    return comparison.Drawings(concepts, resamples=_DRAWINGS, seed=0)


def difference(a: Compared, b: Compared, row: Row, gap: float, metric: str) -> Difference:
    """How far a method of run `b` is above that of run `a`, over the row's pairs.

    Args:
      a: the one.
      b: the other.
      row: of `rows` of these runs.
      gap: of their figures in the row.
      metric: path of the statistic; for one pair only the figure of merit has replicates.
    """
    paired = a.run.seed == b.run.seed and not any(other_images(a, b, title) for title in row.pairs)
    if not math.isfinite(gap):
        return Difference(gap)
    if len(row.pairs) > 1:
        figures = [[run.figure(title, row.method, metric).mean for title in row.pairs] for run in (a, b)]
        test = _drawings(a, row.pairs).test(np.subtract(figures[1], figures[0]))
        return Difference(gap, test["p_value"] if test else math.nan, paired)
    drawn = [run.run.array(run.pairs[row.pairs[0]], f"replicates/{row.method}") for run in (a, b)]
    if f"auroc.{a.pairs[row.pairs[0]].merit}" != metric or drawn[0] is None or drawn[1] is None:
        return Difference(gap)
    ours, theirs = (np.asarray(each, np.float64) for each in drawn)
    paired = paired and ours.shape == theirs.shape
    if gap == 0:
        return Difference(gap, 1.0, paired)
    spread = math.hypot(*(each.std(ddof=1) for each in ([theirs - ours] if paired else [ours, theirs])))
    if not spread > _NO_SPREAD:  # nothing was drawn that could differ, so nothing is known of the error
        return Difference(gap)
    return Difference(gap, math.erfc(abs(gap) / spread / math.sqrt(2)), paired)


def differences(runs: Sequence[Compared], table: Sequence[Row], metric: str) -> list[list[Difference]]:
    """Of each row and run to the first run; p-values corrected over the whole table, between seeds none."""
    seeds = is_seed_sweep(runs)
    each = [
        difference(runs[0], run, row, value.mean - row.values[0].mean, metric)
        for row in table
        for run, value in zip(runs[1:], row.values[1:], strict=True)
    ]
    known = [test.p_value for test in each if math.isfinite(test.p_value) and not seeds]
    corrected = iter(null_test.holm(known) if known else [])
    tests = [
        Difference(test.mean, next(corrected), test.paired)
        if math.isfinite(test.p_value) and not seeds
        else Difference(test.mean)
        for test in each
    ]
    width = len(runs) - 1
    return [tests[start : start + width] for start in range(0, len(tests), width)]


def text(runs: Sequence[Compared], *, metric: str | None = None, pair_by_pair: bool = False) -> str:
    """What several runs have in common and where they differ, in at most `terminal.WIDTH` columns.

    Args:
      runs: as `read` gives them.
      metric: path of a statistic, such as ``balanced_accuracy``; None: the figure of merit.
      pair_by_pair: where the runs share several pairs, also the tables of each.

    Raises:
      UserError: see `shared_pairs` and `metric_of`.
    """
    shared = shared_pairs(runs)
    path = metric_of(runs, shared, metric)
    groups = [shared] + ([[title] for title in shared] if pair_by_pair and len(shared) > 1 else [])
    parts = [terminal.wrapped(_preamble(runs, shared))]
    for titles in groups:
        table = rows(runs, titles, path)
        over = f"mean over {len(titles)} shared pairs" if len(titles) > 1 else f"{titles[0]}, mean"
        parts.append(
            terminal.text(_figures_table(runs, table, f"{path}, {over} [95% interval]", len(titles)))
        )
        parts.append(terminal.text(_differences_table(runs, table, path)))
    parts.append(terminal.wrapped([_SEEDS if is_seed_sweep(runs) else _P_VALUES]))
    verdicts = [f"{each.name}: {prose.summary(each.run)[0]}" for each in runs]
    return "\n\n".join([*parts, f"The verdict of each run\n{terminal.wrapped(verdicts)}"])


def _figures_table(runs: Sequence[Compared], table: Sequence[Row], title: str, pairs: int) -> Table:
    """Each method's figure in each run; between seeds also the mean and sd over runs."""
    seeds = is_seed_sweep(runs)
    cells = [
        [value.text() for value in row.values] + ([_between_runs(row)] if seeds else []) for row in table
    ]
    fewer = [f"{row.method} {len(row.pairs)}" for row in table if len(row.pairs) < pairs]
    caption = (
        f"Over fewer pairs, those where every run that has it has it: {', '.join(fewer)}." if fewer else ""
    )
    return _table(table, [run.name for run in runs] + ["mean over runs"] * seeds, cells, title, caption)


def _between_runs(row: Row) -> str:
    means = [value.mean for value in row.values if value.known]
    return f"{np.mean(means):.3f} sd {np.std(means, ddof=1):.3f}" if len(means) > 1 else MISSING


def _differences_table(runs: Sequence[Compared], table: Sequence[Row], metric: str) -> Table:
    """How each run differs from the first."""
    tests = differences(runs, table, metric)
    cells = [[_difference_text(test) for test in line] for line in tests]
    paired = [
        run.name for run, *column in zip(runs[1:], *tests, strict=True) if any(t.paired for t in column)
    ]
    caption = f"Paired, for seed and test images are the same: {', '.join(paired)}." if paired else ""
    return _table(table, [run.name for run in runs[1:]], cells, f"Difference to {runs[0].name}", caption)


def _difference_text(test: Difference) -> str:
    if not math.isfinite(test.mean):
        return MISSING
    return f"{round(test.mean, 3) + 0.0:+.3f} {prose.p_text(test.p_value, '')}".strip()


def _table(
    table: Sequence[Row], heads: Sequence[str], cells: Sequence[Sequence[str]], title: str, caption: str
) -> Table:
    lines = [
        Line((Cell(row.method), *map(Cell, line)), row.kind) for row, line in zip(table, cells, strict=True)
    ]
    return Table((Column("method", "left"), *map(Column, heads)), tuple(lines), title, caption)


def long_form(runs: Sequence[Compared], metric: str) -> str:
    """CSV, `CSV_COLUMNS`, a line for each run, pair and method that has the statistic; missing ends are nan."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for run in runs:
        for title, pair in run.pairs.items():
            for name, row in pair.methods.items():
                value = run.figure(title, name, metric)
                if value.known:
                    writer.writerow(
                        [run.name, title, name, row.kind, metric, value.mean, value.low, value.high]
                    )
    return file.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kernelgan.compare", description="The same table across runs."
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="work directories, at least two")
    parser.add_argument("--metric", help="a statistic such as balanced_accuracy; default the figure of merit")
    parser.add_argument("--pairs", action="store_true", help="also tables for each pair that all runs have")
    parser.add_argument("--csv", type=Path, help="a file to write the figures to, one a line")
    given = parser.parse_args(argv)
    try:
        runs = read(given.runs)
        print(text(runs, metric=given.metric, pair_by_pair=given.pairs))
        if given.csv is not None:
            lines = long_form(runs, metric_of(runs, shared_pairs(runs), given.metric))
            write_atomically(given.csv, lines.encode())
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave an accelerator to others
    sys.exit(main())
