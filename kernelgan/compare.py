"""The same table across runs: a sweep over methods, settings or seeds, side by side.

``python -m kernelgan.compare runs/a runs/b runs/c``

The p-value of a difference between two runs is a normal one, ``2 P(Z > |difference| / spread)``, from the
resampled means that each run keeps (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter
13). With the same seed and test images both drew the same resamples, and the spread is that of the resampled
differences; else the spreads add as of independent samples, which is cautious. Over several pairs it is
Student's t of the pairs' differences (`evaluation.comparison`). No p-value covers another seed.
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
from kernelgan.files import given_path, write_atomically
from kernelgan.report import prose, terminal
from kernelgan.report.tables import Cell, Column, Line, Table
from kernelgan.results import KINDS, NOTHING, SHARES, Pair, Run, Statistic, read_results, statistics
from kernelgan.stopping import outlast_readers
from kernelgan.types import UserError

CSV_COLUMNS = ("run", "pair", "method", "kind", "metric", "mean", "low", "high")

_LONGEST_NAME = 21
_DRAWINGS = 1000
_NO_SPREAD = 1e-9
_OF_IMAGES = ("data.image_size", "data.rendered.test", "data.maximum_test", "data.tfds.name", "data.folder")
"""Config fields that choose the test images, beside the seed."""

_P_VALUES = (
    "p: normal approximation from resampled networks and images, paired where seed and test images are the "
    "same; over several pairs Student's t from drawn attributes and objects. Corrected over all differences "
    "of a table (Holm). It does not cover another seed: see whether a difference outlives several seeds."
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
    def recorded(self) -> dict[str, Any]:
        """What decides its figures, by name: config fields, ``seed``, versions, ``device``."""
        flat = dict(config_lib.flatten(self.run.config))
        config = config_lib.with_defaults(flat) if flat else {}
        decides = {name: value for name, value in config.items() if not name.startswith(config_lib.HARMLESS)}
        versions = {f"version of {name}": value for name, value in self.run.versions.items()}
        return {**decides, **versions, "seed": self.run.seed, "device": self.run.device}

    @functools.cached_property
    def pairs(self) -> dict[str, Pair]:
        """Its pairs by title, such as ``black cat``."""
        return {pair.title: pair for pair in self.run.pairs}

    def figure(self, title: str, method: str, metric: str) -> Statistic:
        """A statistic of a method on a pair; empty where it was not measured."""
        return statistics(self.pairs[title].methods.get(method)).get(metric, NOTHING)


@dataclass(frozen=True)
class Row:
    """One method in every run: its figures, over the pairs where no run that has the method lacks it."""

    method: str
    kind: str
    pairs: tuple[str, ...]
    values: tuple[Statistic, ...]


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
    """The paths without what all begin and all end with; ``run 1``, ... where these are too long."""
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
    if metric is None:
        merits = sorted({f"auroc.{pair.merit}" for pair in pairs})
        if len(merits) > 1:
            raise UserError(f"the runs differ in their figure of merit ({', '.join(merits)}); give --metric.")
        return merits[0]
    known = dict.fromkeys(path for pair in pairs for row in pair.methods.values() for path in statistics(row))
    if len(titles) > 1:
        known.pop("recovered", None)  # a mean of ratios over pairs would hang on hopeless pairs
    if metric not in known:
        raise UserError(
            f"--metric={metric} is no statistic of these runs; expected one of {', '.join(known)}."
        )
    return metric


def differing(runs: Sequence[Compared]) -> dict[str, list[Any]]:
    """What is `recorded` of the runs and not the same in all, by name, with the value in each run."""
    names = dict.fromkeys(name for run in runs for name in run.recorded)
    values = {name: [run.recorded.get(name, "absent") for run in runs] for name in names}
    return {name: given for name, given in values.items() if any(value != given[0] for value in given)}


def is_seed_sweep(runs: Sequence[Compared]) -> bool:
    """Whether the runs differ in their seeds, all of them, and in nothing else that is computed."""
    seeds = {run.run.seed for run in runs}
    return len(seeds) == len(runs) and not differing(runs).keys() - {"seed", "name", "device"}


def other_images(a: Compared, b: Compared, title: str) -> str:
    """Why two runs were not tested on the same images of a pair; "" where nothing says that they were not."""

    def known(run: Compared) -> dict[str, Any]:
        data = run.pairs[title].data
        settings = {name: run.recorded.get(name) for name in _OF_IMAGES}
        return {"sources": data.source or run.run.data.source, "numbers": data.test, "settings": settings}

    ours, theirs = known(a), known(b)
    for name in ours:
        if ours[name] != theirs[name]:
            return f"their {name} differ, {ours[name]} and {theirs[name]}"
    mine, other = (run.run.arrays.get(f"{run.pairs[title].key}/test_images") for run in (a, b))
    same = mine is None or other is None or np.array_equal(mine, other)
    return "" if same else "their pixels differ"


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
    means = [run.figure(title, method, metric).mean for title in titles]
    over = _drawings(run, titles).statistic(np.array(means))
    found = Statistic(over["mean"], tuple(over["ci95"]))
    return found.as_share() if metric.partition(".")[0] in SHARES else found


def _drawings(run: Compared, titles: Sequence[str]) -> comparison.Drawings:
    """Attributes and objects of these pairs, drawn as for ``overall``."""
    concepts = [(run.pairs[title].pair.attribute, run.pairs[title].pair.object) for title in titles]
    return comparison.Drawings(concepts, resamples=_DRAWINGS, seed=0)


def p_value(a: Compared, b: Compared, row: Row, gap: float, metric: str) -> float:
    """Of the difference `gap` of a row's method between two runs; NaN where nothing is known of its error.

    Of one pair only the figure of merit has replicates.
    """
    title = row.pairs[0] if row.pairs else ""
    if not math.isfinite(gap):
        return math.nan
    if len(row.pairs) > 1:
        figures = [[run.figure(title, row.method, metric).mean for title in row.pairs] for run in (a, b)]
        test = _drawings(a, row.pairs).test(np.subtract(figures[1], figures[0]))
        return test["p_value"] if test else math.nan
    drawn = [run.run.arrays_under(run.pairs[title], "replicates") for run in (a, b)]
    ours, theirs = (replicates.get(row.method) for replicates in drawn)
    if ours is None or theirs is None or metric != f"auroc.{a.pairs[title].merit}":
        return math.nan
    if gap == 0:
        return 1.0
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    alike = a.run.seed == b.run.seed and ours.shape == theirs.shape and not other_images(a, b, title)
    spread = math.hypot(*(drawn.std(ddof=1) for drawn in ([theirs - ours] if alike else [ours, theirs])))
    return math.erfc(abs(gap) / spread / math.sqrt(2)) if spread > _NO_SPREAD else math.nan


def differences(
    runs: Sequence[Compared], table: Sequence[Row], metric: str
) -> list[list[tuple[float, float]]]:
    """Each row's differences to the first run with p-values, corrected over the table; between seeds NaN."""
    gaps = np.array([[value.mean - row.values[0].mean for value in row.values[1:]] for row in table])
    p_values = np.full(gaps.shape, math.nan)
    if not is_seed_sweep(runs):
        for (line, number), gap in np.ndenumerate(gaps):
            p_values[line, number] = p_value(runs[0], runs[number + 1], table[line], gap, metric)
    known = np.isfinite(p_values)
    p_values[known] = null_test.holm(p_values[known]) if known.any() else []
    return [list(zip(*line, strict=True)) for line in zip(gaps.tolist(), p_values.tolist(), strict=True)]


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
    parts += [terminal.text(_table(runs, titles, path)) for titles in groups]
    parts.append(terminal.wrapped([_SEEDS if is_seed_sweep(runs) else _P_VALUES]))
    verdicts = [f"{each.name}: {prose.answer(each.run)[0]}" for each in runs]
    return "\n\n".join([*parts, f"The verdict of each run\n{terminal.wrapped(verdicts)}"])


def _table(runs: Sequence[Compared], titles: Sequence[str], metric: str) -> Table:
    """Each method's figure in each run, between seeds their mean and sd, and the differences to the first."""
    table, seeds = rows(runs, titles, metric), is_seed_sweep(runs)
    lines = []
    for row, tests in zip(table, differences(runs, table, metric), strict=True):
        cells = [row.method, *(value.text() for value in row.values)]
        if seeds:
            means = [value.mean for value in row.values if value.known]
            sd = f" sd {np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
            cells.append(f"{np.mean(means):.3f}{sd}" if means else "-")
        for gap, p in tests:
            shown = f"{round(gap, 3) + 0.0:+.3f} {prose.p_text(p, '')}".strip()
            cells.append(shown if math.isfinite(gap) else "-")
        lines.append(Line(tuple(map(Cell, cells)), row.kind))
    heads = [run.name for run in runs] + ["mean over runs"] * seeds + [f"Δ {run.name}" for run in runs[1:]]
    fewer = [f"{row.method} {len(row.pairs)}" for row in table if len(row.pairs) < len(titles)]
    caption = f"Δ: minus {runs[0].name}."
    caption += (
        f" Over fewer pairs, those of all runs that have the method: {', '.join(fewer)}." if fewer else ""
    )
    over = f"mean over {len(titles)} shared pairs" if len(titles) > 1 else f"{titles[0]}, mean"
    columns = (Column("method", "left"), *map(Column, heads))
    return Table(columns, tuple(lines), f"{metric}, {over} [95% interval]", caption)


def long_form(runs: Sequence[Compared], metric: str) -> str:
    """CSV of `CSV_COLUMNS`, a line for each run, pair and method that has the statistic."""
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
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work directories, at least two")
    parser.add_argument("--metric", help="a statistic such as balanced_accuracy; default the figure of merit")
    parser.add_argument("--pairs", action="store_true", help="also tables for each pair that all runs have")
    parser.add_argument("--csv", help="a file to write the figures to")
    given = parser.parse_args(argv)
    try:
        runs = read([given_path(run, "RUN") for run in given.runs])
        print(text(runs, metric=given.metric, pair_by_pair=given.pairs))
        if given.csv is not None:
            lines = long_form(runs, metric_of(runs, shared_pairs(runs), given.metric))
            write_atomically(given_path(given.csv, "--csv"), lines.encode())
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    outlast_readers()
    import jax

    jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave an accelerator to others
    sys.exit(main())
