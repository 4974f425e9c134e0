"""Tests for kernelgan.compare: what is read and refused, and that chance is not called clear."""

import csv
import dataclasses
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import method, run_of, statistic

from kernelgan import compare, results
from kernelgan.evaluation import comparison
from kernelgan.report import prose
from kernelgan.report.terminal import WIDTH
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
KINDS = {"random": "null", "average": "merge", "cyclegan_b2a": "generated", "and_ensemble": "two nets"}
MEANS = {"random": 0.48, "average": 0.60, "cyclegan_b2a": 0.55, "and_ensemble": 0.72}
TEST = {"a&o": 20, "a&!o": 21, "!a&o": 22, "!a&!o": 23}
SPREAD = 0.02
"""Of the replicates."""


def pair_result(means, title="black cat", test=TEST, source="rendered"):
    attribute, thing = title.split()
    methods = {}
    for name, mean in means.items():
        methods[name] = method(
            KINDS.get(name, "merge"), mean, 0.04, balanced_accuracy=statistic(mean / 2, 0.04)
        )
        methods[name] |= {"auroc": {"worst": statistic(mean, 0.04)}, "recovered": {"mean": mean - 0.1}}
        methods[name]["novelty"] = None
    data = {"source": source, "test": test, "leaked": 0}
    return {"pair": {"attribute": attribute, "object": thing}, "data": data, "methods": methods}


def write(path, pairs=None, seed=0, epochs=15, noise=None, versions=None, **means):
    """A run; `noise` seeds what its replicates have of their own, beside what the run's seed gives them."""
    pairs = pairs or [pair_result(MEANS | means)]
    arrays = {}
    for pair in pairs:
        for number, (name, row) in enumerate(pair["methods"].items()):
            shared = np.random.default_rng([seed, number]).normal(size=400)
            own = np.random.default_rng([noise or 0, number, 7]).normal(size=400)
            drawn = row["auroc"]["worst"]["mean"] + SPREAD * (shared + 0.1 * own)
            arrays[f"{'_'.join(pair['pair'].values())}/replicates/{name}"] = drawn.astype(np.float32)
    document = {
        "name": "x",
        "config": {"name": "x", "seed": seed, "device": "cpu", "zoo": {"epochs": epochs, "filters": [6, 16]}},
        "versions": versions or {"jax": "0.10.0"},
        "seed": seed,
        "device": "cpu (2 devices)",
    }
    results.write_results(path, run_of(*pairs, **document), None if noise is None else arrays)
    return path


def pairs_of(*titles, **more):
    """Pairs of which each is 0.1 above the pair before."""
    return [
        pair_result({name: mean + 0.1 * number + more.get(name, 0) for name, mean in MEANS.items()}, title)
        for number, title in enumerate(titles)
    ]


def lines_of(text, word):
    return [line for line in text.splitlines() if word in line]


def table_of(runs, metric="auroc.worst"):
    return {row.method: row for row in compare.rows(runs, compare.shared_pairs(runs), metric)}


def p_value(runs, row, second=1):
    gap = row.values[second].mean - row.values[0].mean
    return compare.p_value(runs[0], runs[second], row, gap, "auroc.worst")


# What is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("runs/a", "runs/b"), ["a", "b"]),
        (("runs/a/black_cat", "runs/b/black_cat"), ["a", "b"]),
        (("runs/a", "runs/a/b"), ["a", "a/b"]),
        (("x/s0/m", "x/s1/m", "y/s0/m"), ["x/s0", "x/s1", "y/s0"]),
        (("runs/" + "a" * 30, "runs/b"), ["run 1", "run 2"]),
    ],
)
def test_names_are_the_shortest_that_differ(paths, names):
    assert compare.short_names([Path(path) for path in paths]) == names


@pytest.mark.parametrize("paths", [[], ["a"], ["a", "b/../a"]])
def test_fewer_than_two_different_runs_are_refused(paths, tmp_path):
    with pytest.raises(UserError, match="at least two different work directories"):
        compare.read([tmp_path / path for path in paths])


def test_all_unfinished_and_damaged_runs_are_named_at_once(tmp_path):
    paths = [write(tmp_path / "good"), tmp_path / "unfinished", tmp_path / "damaged"]
    for path in paths[1:]:
        path.mkdir()
    (paths[2] / "results.json").write_text('{"schema": 1,')
    with pytest.raises(UserError, match="2 of 3 runs") as caught:
        compare.read(paths)
    assert all(str(path / "results.json") in str(caught.value) for path in paths[1:])


def test_runs_without_a_common_pair_are_refused(tmp_path):
    paths = [write(tmp_path / name, pairs_of(title)) for name, title in (("a", "red dog"), ("b", "red cat"))]
    with pytest.raises(UserError, match="a has red dog; b has red cat"):
        compare.text(compare.read(paths))


# In what they differ --------------------------------------------------------------------------------------


def test_what_differs_is_said_and_what_changes_nothing_is_not(tmp_path):
    paths = [write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", epochs=5, seed=3)]
    run = results.read_results(paths[1])
    config = run.config | {"device": "gpu"}
    changed = dataclasses.replace(run, config=config, device="H100", versions={"jax": "0.11.0"})
    results.write_results(paths[1], changed)
    runs = compare.read(paths)
    assert compare.differing(runs) == {
        "zoo.epochs": [15, 15, 5],
        "seed": [0, 0, 3],
        "version of jax": ["0.10.0", "0.11.0", "0.10.0"],
        "device": ["cpu (2 devices)", "H100", "cpu (2 devices)"],
    }
    assert "zoo.epochs: 15, 15, 5" in compare.text(runs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"source": "cifar10"}, "sources differ"), ({"test": TEST | {"a&o": 9}}, "numbers differ")],
)
def test_other_images_are_warned_of_and_are_never_paired(tmp_path, change, reason):
    other = [pair_result(MEANS | {"random": 0.5}, **change)]
    paths = [write(tmp_path / "a", noise=1), write(tmp_path / "b", other, noise=2)]
    runs = compare.read([*paths, write(tmp_path / "c", random=0.5, noise=2)])
    assert reason in compare.other_images(runs[0], runs[1], "black cat")
    assert reason in " ".join(compare.text(runs).split())
    row = table_of(runs)["random"]
    assert p_value(runs, row, 1) > 0.3 > 0.001 > p_value(runs, row, 2)


def test_as_many_images_that_are_others_are_known_by_their_pixels(tmp_path):
    paths = [write(tmp_path / name) for name in "ab"]
    for value, path in enumerate(paths):
        images = np.full((2, 4, 4, 3), value, np.uint8)
        results.write_results(path, results.read_results(path), {"black_cat/test_images": images})
    assert "pixels differ" in compare.other_images(*compare.read(paths), "black cat")


# Pairs and methods ----------------------------------------------------------------------------------------


def test_only_shared_pairs_are_averaged_and_the_others_are_listed(tmp_path):
    a = write(tmp_path / "a", pairs_of("black cat", "red dog", "blue bird"))
    b = write(tmp_path / "b", pairs_of("black cat", "red dog", "green frog", average=0.05))
    runs = compare.read([a, b])
    assert compare.shared_pairs(runs) == ["black cat", "red dog"]
    row = table_of(runs)["average"]
    assert [value.mean for value in row.values] == pytest.approx([0.65, 0.70])
    assert row.values[0].high - row.values[0].low > 0.5  # over two pairs, not the pairs' own
    shown = compare.text(runs)
    for extra in ("pairs of a: blue bird", "pairs of b: green frog"):
        assert extra in shown
    assert "black cat, mean" not in shown
    by_pair = compare.text(runs, pair_by_pair=True)
    assert all(f"{title}, mean" in by_pair for title in ("black cat", "red dog"))
    assert "0.700 [0.660, 0.740]" in by_pair  # average on red dog, by its own interval


def test_methods_that_a_run_lacks_are_dashes_and_keep_their_place(tmp_path):
    few = {name: mean for name, mean in MEANS.items() if name != "average"} | {"novel": 0.5}
    runs = compare.read([write(tmp_path / "a", [pair_result(few)], noise=1), write(tmp_path / "b", noise=2)])
    assert list(table_of(runs)) == ["random", "average", "novel", "cyclegan_b2a", "and_ensemble"]
    (line,) = lines_of(compare.text(runs), "  average ")
    assert line.split() == ["average", "-", "0.600", "[0.560,", "0.640]", "-"]


@pytest.mark.parametrize("lacking", [{0: 1}, {0: 1, 1: 0}])
def test_a_method_counts_on_the_pairs_where_all_runs_have_it(tmp_path, lacking):
    paths = []
    for number in (0, 1):
        pairs = pairs_of("black cat", "red dog")
        if number in lacking:
            del pairs[lacking[number]]["methods"]["average"]
        paths.append(write(tmp_path / f"s{number}", pairs))
    runs = compare.read(paths)
    row = table_of(runs)["average"]
    counted = 2 - len(lacking)
    assert row.pairs == ("black cat",)[:counted]
    assert [value.known for value in row.values] == [bool(counted)] * 2
    assert f"average {counted}" in " ".join(compare.text(runs).split())


# Differences ----------------------------------------------------------------------------------------------


def test_pairing_uses_what_both_runs_drew_alike(tmp_path):
    """0.01 is far outside what resampled differences do, and well inside what two independent runs do."""
    a = write(tmp_path / "a", noise=1)
    same = write(tmp_path / "b", noise=2, random=0.49)
    other = write(tmp_path / "c", seed=1, noise=2, random=0.49)
    runs = compare.read([a, same, other])
    row = table_of(runs)["random"]
    paired, apart = (p_value(runs, row, number) for number in (1, 2))
    drawn = [run.run.arrays["black_cat/replicates/random"].astype(float) for run in runs]
    for p, spread in (
        (paired, np.std(drawn[1] - drawn[0], ddof=1)),
        (apart, np.sqrt(np.var(drawn[0], ddof=1) + np.var(drawn[2], ddof=1))),
    ):
        upper = 0.5 * (1 + math.erf(0.01 / spread / math.sqrt(2)))
        assert p == pytest.approx(2 * (1 - upper), abs=1e-9)
    assert paired < 0.001 < 0.5 < apart


def test_chance_is_clear_at_most_as_often_as_stated():
    """Of runs with the same truth, whose means and replicates follow the same normal law."""
    rng = np.random.default_rng(0)
    clear, trials = 0, 400
    for _ in range(trials):
        runs = []
        for number in range(2):
            means = {name: mean + SPREAD * rng.normal() for name, mean in MEANS.items()}
            arrays = {
                f"black_cat/replicates/{name}": mean + SPREAD * rng.normal(size=200)
                for name, mean in means.items()
            }
            run = dataclasses.replace(run_of(pair_result(means), seed=0), arrays=arrays)
            runs.append(compare.Compared(str(number), Path(str(number)), run))
        tests = compare.differences(runs, list(table_of(runs).values()), "auroc.worst")
        clear += min(p for ((_, p),) in tests) < 0.05
    assert clear / trials == pytest.approx(0.05, abs=0.03)  # over the rows together


def test_pairs_that_disagree_widen_the_spread_of_their_mean(tmp_path):
    """+0.08 and -0.02 are clear on each pair; that their mean is above 0 is not."""
    mixed = pairs_of("black cat", "red dog")
    for pair, change in zip(mixed, (0.08, -0.02), strict=True):
        pair["methods"]["average"]["auroc"]["worst"]["mean"] += change
    a = write(tmp_path / "a", pairs_of("black cat", "red dog"), noise=1)
    runs = compare.read([a, write(tmp_path / "b", mixed, noise=2)])
    row = table_of(runs)["average"]
    assert p_value(runs, row) > 2 * 0.27  # one standard error is 0.05
    for title in row.pairs:
        each = next(row for row in compare.rows(runs, [title], "auroc.worst") if row.method == "average")
        assert p_value(runs, each) < 0.001


def test_figures_over_all_pairs_are_those_of_the_runs_own_record(tmp_path):
    titles = ("black cat", "red dog", "blue bird")
    pairs = pairs_of(*titles)
    runs = compare.read([write(tmp_path / name, pairs, noise=1, seed=3) for name in "ab"])
    for made, pair in zip(pairs, runs[0].run.pairs, strict=True):
        means = {name: pair.figure(name).mean for name in pair.methods}
        replicates = runs[0].run.arrays_under(pair, "replicates")
        made["tests"] = comparison.pair_tests(means, replicates, ["cyclegan_b2a"])
    comparison.adjust(pairs)
    overall = comparison.overall(pairs, merit="worst", resamples=1000, seed=0)
    own = run_of(*pairs, overall=overall).overall
    for name, row in table_of(runs).items():
        assert row.values[0].mean == pytest.approx(own.figure(name).mean)
        assert row.values[0].ci95 == pytest.approx(own.figure(name).ci95)


def test_p_values_are_corrected_over_all_differences_of_a_table(tmp_path):
    """The smallest p-value is times all of them, not times those of its own run only."""
    paths = [write(tmp_path / "a", noise=1)]
    for number, change in ((2, 0.009), (3, 0.0), (4, 0.0)):
        paths.append(write(tmp_path / f"b{number}", epochs=number, noise=number, random=0.48 + change))
    runs = compare.read(paths)
    table = table_of(runs)
    smallest = p_value(runs, table["random"])
    tests = compare.differences(runs, list(table.values()), "auroc.worst")
    assert tests[0][0][1] == pytest.approx(3 * len(table) * smallest)
    assert {p for line in tests for gap, p in line if gap == 0} == {1.0}


# Seeds ----------------------------------------------------------------------------------------------------


def test_a_sweep_over_seeds_has_the_sd_between_runs_and_no_p_values(tmp_path):
    values = (0.50, 0.56, 0.62)
    paths = [
        write(tmp_path / f"s{seed}", seed=seed, noise=seed, random=value) for seed, value in enumerate(values)
    ]
    runs = compare.read(paths)
    assert compare.is_seed_sweep(runs)
    shown = compare.text(runs)
    assert "0.560 sd 0.060" in " ".join(lines_of(shown, "  random"))
    assert "+0.060" in shown
    assert not re.search(r"\bp [=<]", shown)


@pytest.mark.parametrize(
    "second", [{"seed": 0}, {"seed": 1, "epochs": 5}, {"seed": 1, "versions": {"jax": "0.11.0"}}]
)
def test_what_differs_in_more_or_less_than_the_seed_is_no_sweep_over_seeds(tmp_path, second):
    runs = compare.read([write(tmp_path / "a"), write(tmp_path / "b", **second)])
    assert not compare.is_seed_sweep(runs)
    assert "sd 0" not in compare.text(runs)


# Metrics, layout, CSV, command ----------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "noise"), [("balanced_accuracy", 1), ("recovered", 1), (None, None)])
def test_without_replicates_there_are_no_p_values(tmp_path, metric, noise):
    runs = compare.read([write(tmp_path / "a", noise=noise), write(tmp_path / "b", noise=noise, average=0.9)])
    shown = compare.text(runs, metric=metric)
    assert {"balanced_accuracy": "0.450 [0.410, 0.490]", "recovered": "0.800"}.get(metric, "0.900") in shown
    assert not re.search(r"\d p [=<]", shown)


def test_an_unknown_statistic_is_refused_with_those_that_there_are(tmp_path):
    runs = compare.read([write(tmp_path / name) for name in "ab"])
    with pytest.raises(UserError, match=r"expected one of auroc\.worst, balanced_accuracy, recovered\."):
        compare.text(runs, metric="auroc.vs_all")


def test_runs_of_different_figures_of_merit_need_a_metric(tmp_path):
    rest = pair_result(MEANS)
    for row in rest["methods"].values():
        row["auroc"] = {"vs_rest": row["auroc"]["worst"]}
    results.write_results(tmp_path / "b", run_of(rest))
    runs = compare.read([write(tmp_path / "a"), tmp_path / "b"])
    with pytest.raises(UserError, match=r"auroc\.vs_rest, auroc\.worst.*--metric"):
        compare.text(runs)
    assert "0.300 [" in compare.text(runs, metric="balanced_accuracy")


@pytest.mark.parametrize("count", [2, 7])
def test_no_line_is_too_wide_and_every_run_has_its_verdict(tmp_path, count):
    more = {"trained_on_conjunction": 0.9, "a_method_of_a_very_long_name_indeed": 0.4}
    paths = [write(tmp_path / f"a_run_of_a_name_{n:04d}", seed=n, noise=n, **more) for n in range(count)]
    runs = compare.read(paths)
    shown = compare.text(runs)
    assert max(map(len, shown.splitlines())) <= WIDTH
    words = " ".join(shown.split())
    for run in runs:
        assert f"{run.name}: {prose.summary(run.run)[0]}" in words


def test_the_csv_reads_back_to_the_last_bit_and_has_every_pair(tmp_path):
    runs = compare.read(
        [write(tmp_path / "a", pairs_of("black cat", "red dog")), write(tmp_path / "b", random=1 / 3)]
    )
    read = list(csv.DictReader(io.StringIO(compare.long_form(runs, "auroc.worst"))))
    assert tuple(read[0]) == compare.CSV_COLUMNS
    assert len(read) == 3 * len(MEANS)
    for line in read:
        run = next(run for run in runs if run.name == line["run"])
        own = run.figure(line["pair"], line["method"], "auroc.worst")
        assert [float(line[key]) for key in ("mean", "low", "high")] == [own.mean, own.low, own.high]


def test_the_command_prints_writes_and_gives_a_status(tmp_path, capsys):
    paths = [str(write(tmp_path / name, noise=1)) for name in "ab"]
    assert compare.main([*paths, "--metric=auroc.worst", f"--csv={tmp_path / 'all.csv'}"]) == 0
    assert (tmp_path / "all.csv").read_text().count("\n") == 1 + 2 * len(MEANS)
    for wrong, words in (
        ([paths[0]], "at least two"),
        ([*paths, "--metric=none"], "--metric=none"),
        ([*paths, f"--csv={tmp_path / 'absent' / 'all.csv'}"], "absent"),
    ):
        assert compare.main(wrong) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error


def test_it_is_a_command_of_its_own():
    command = [sys.executable, "-m", "kernelgan.compare", "no_such_run"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.startswith("error: no_such_run")) == (2, True)


def test_a_difference_over_pairs_is_tested_by_how_the_pairs_differ(tmp_path):
    titles = [
        f"{colour} {thing}" for colour in ("black", "red", "blue", "white") for thing in ("cat", "dog", "car")
    ]
    better, rng = pairs_of(*titles), np.random.default_rng(0)
    for pair in better:
        pair["methods"]["average"]["auroc"]["worst"]["mean"] += 0.03 + 0.004 * rng.normal()
    runs = compare.read([write(tmp_path / "a", pairs_of(*titles)), write(tmp_path / "b", better)])
    row = table_of(runs)["average"]
    assert row.values[1].mean - row.values[0].mean == pytest.approx(0.03, abs=0.004)
    assert p_value(runs, row) < 0.01
