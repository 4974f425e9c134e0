"""Tests for kernelgan.compare: what is read and refused, what is marked, and that chance is not."""

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
from synthetic_runs import run_of

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


def statistic(mean):
    return {"mean": mean, "ci95": [mean - 0.04, mean + 0.04], "sd": 0.03, "best": mean + 0.1}


def pair_result(means, title="black cat", test=TEST, source="procedural"):
    attribute, thing = title.split()
    methods = {
        name: {
            "kind": KINDS.get(name, "merge"),
            "networks": 8,
            "auroc": {"worst": statistic(mean)},
            "balanced_accuracy": statistic(mean / 2),
            "recovered": {"mean": mean - 0.1},
        }
        for name, mean in means.items()
    }
    data = {"source": source, "test": test, "leaked": 0}
    return {"pair": {"attribute": attribute, "object": thing}, "data": data, "methods": methods}


def write(path, pairs=None, seed=0, epochs=15, noise=None, versions=None, **means):
    """A run; `noise` seeds what its replicates have of their own, beside what the run's seed gives them."""
    pairs = pairs or [pair_result(MEANS | means)]
    arrays = {}
    for pair in pairs:
        for number, (name, method) in enumerate(pair["methods"].items()):
            shared = np.random.default_rng([seed, number]).normal(size=400)
            own = np.random.default_rng([noise or 0, number, 7]).normal(size=400)
            mean = method["auroc"]["worst"]["mean"]
            drawn = mean + SPREAD * (shared + 0.1 * own)
            arrays[f"{results.pair_key(pair)}/replicates/{name}"] = drawn.astype(np.float32)
    document = {
        "name": "x",
        "config": {"name": "x", "seed": seed, "device": "cpu", "zoo": {"epochs": epochs, "filters": [6, 16]}},
        "versions": versions or {"jax": "0.10.0"},
        "seed": seed,
        "device": "cpu (2 devices)",
        "data": {"source": "procedural"},
    }
    results.write_results(path, run_of(*pairs, **document), None if noise is None else arrays)
    return path


def lines_of(text, word):
    return [line for line in text.splitlines() if word in line]


def table_of(runs):
    return compare.rows(runs, compare.shared_pairs(runs), "auroc.worst")


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
def test_names_are_the_shortest_that_tell_runs_apart(paths, names):
    assert compare.short_names([Path(path) for path in paths]) == names


@pytest.mark.parametrize("paths", [[], ["a"]])
def test_fewer_than_two_runs_are_an_error_that_says_so(paths, tmp_path):
    with pytest.raises(UserError, match="expected at least two work directories"):
        compare.read([write(tmp_path / path) for path in paths])


def test_one_run_twice_is_refused_under_whatever_path(tmp_path):
    run = write(tmp_path / "a")
    with pytest.raises(UserError, match="is given twice"):
        compare.read([run, tmp_path / "b" / ".." / "a"])


def test_all_unfinished_and_damaged_runs_are_named_at_once(tmp_path):
    paths = [write(tmp_path / "good"), tmp_path / "unfinished", tmp_path / "damaged", tmp_path / "absent"]
    for path in paths[1:3]:
        path.mkdir()
    (paths[2] / "results.json").write_text('{"schema": 1,')
    with pytest.raises(UserError) as caught:
        compare.read(paths)
    first, *problems = str(caught.value).splitlines()
    assert first == "3 of 4 runs cannot be compared:"
    for path, problem, words in zip(
        paths[1:], problems, ("has not finished", "not valid JSON", "is not a directory"), strict=True
    ):
        assert str(path) in problem
        assert words in problem


def test_a_run_without_arrays_is_compared_without_p_values(tmp_path):
    runs = compare.read([write(tmp_path / "a"), write(tmp_path / "b", cyclegan_b2a=0.95)])
    shown = compare.text(runs)
    assert "+0.400" in shown
    assert "no p-value" in shown
    assert " p " not in "".join(lines_of(shown, "+0.400"))
    assert "*" not in shown


# In what they differ --------------------------------------------------------------------------------------


def test_what_differs_is_said_first_and_what_changes_nothing_is_not(tmp_path):
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
    shown = compare.text(runs)
    assert "zoo.epochs: 15 (a, b); 5 (c)" in shown
    assert shown.index("zoo.epochs") < shown.index("auroc.worst")


def test_runs_that_differ_in_nothing_say_so_and_do_not_differ(tmp_path):
    runs = compare.read([write(tmp_path / name, noise=1) for name in "ab"])
    shown = compare.text(runs)
    assert "They differ in nothing that is recorded" in shown
    assert "Beware" not in shown
    assert {compare.difference(runs, 0, 1, row, "auroc.worst").p_value for row in table_of(runs)} == {1.0}


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"source": "cifar10"}, "source", "different sources: procedural (a); cifar10 (b)"),
        ({"test": TEST | {"a&o": 9}}, "number", "a&o 9, a&!o 21"),
    ],
)
def test_other_images_are_warned_of_and_are_never_paired(tmp_path, change, reason, words):
    other = [pair_result(MEANS | {"random": 0.5}, **change)]
    runs = compare.read([write(tmp_path / "a", noise=1), write(tmp_path / "b", other, noise=2)])
    assert compare.other_images(*runs, "black cat") == reason
    shown = " ".join(compare.text(runs).split())
    assert "Beware, not comparable" in shown
    assert words in shown
    assert {compare.difference(runs, 0, 1, row, "auroc.worst").paired for row in table_of(runs)} == {False}


def test_as_many_images_that_are_others_are_found_by_their_pixels(tmp_path):
    paths = [write(tmp_path / name) for name in "ab"]
    for value, path in enumerate(paths):
        images = np.full((2, 4, 4, 3), value, np.uint8)
        results.write_results(path, results.read_results(path), {"black_cat/test_images": images})
    runs = compare.read(paths)
    assert compare.other_images(*runs, "black cat") == "pixels"
    assert "though as many" in compare.text(runs)


# Pairs and methods ----------------------------------------------------------------------------------------


def pairs_of(*titles, **more):
    """Pairs of which each is 0.1 above the one before."""
    return [
        pair_result({name: mean + 0.1 * number + more.get(name, 0) for name, mean in MEANS.items()}, title)
        for number, title in enumerate(titles)
    ]


def test_only_shared_pairs_are_averaged_and_the_others_are_listed(tmp_path):
    a = write(tmp_path / "a", pairs_of("black cat", "red dog", "blue bird"))
    b = write(tmp_path / "b", pairs_of("black cat", "red dog", "green frog", average=0.05))
    runs = compare.read([a, b])
    assert compare.shared_pairs(runs) == ["black cat", "red dog"]
    row = next(row for row in table_of(runs) if row.method == "average")
    assert [value.mean for value in row.values] == pytest.approx([0.65, 0.70])
    assert row.values[0].high - row.values[0].low > 0.5  # over two pairs, not the pairs' own
    shown = compare.text(runs)
    assert lines_of(shown, "blue bird")[0].startswith("Beware: these pairs of a are left out")
    assert lines_of(shown, "green frog")[0].startswith("Beware: these pairs of b are left out")
    assert "black cat: auroc.worst" not in shown
    by_pair = compare.text(runs, pair_by_pair=True)
    for title in ("black cat", "red dog"):
        assert f"{title}: auroc.worst" in by_pair
    assert "0.700 [0.660, 0.740]" in by_pair  # average on red dog, by its own interval


def test_runs_without_a_common_pair_are_refused(tmp_path):
    paths = [write(tmp_path / name, pairs_of(title)) for name, title in (("a", "red dog"), ("b", "red cat"))]
    with pytest.raises(UserError, match="a has red dog; b has red cat"):
        compare.text(compare.read(paths))


def test_methods_that_a_run_lacks_are_dashes_and_keep_their_place(tmp_path):
    few = {name: mean for name, mean in MEANS.items() if name != "average"} | {"novel": 0.5}
    runs = compare.read([write(tmp_path / "a", [pair_result(few)], noise=1), write(tmp_path / "b", noise=2)])
    assert [row.method for row in table_of(runs)] == [
        *("random", "average", "novel", "cyclegan_b2a", "and_ensemble")
    ]
    missing, difference = lines_of(compare.text(runs), "  average ")
    assert re.fullmatch(r"  average +- +0\.600 \[0\.560, 0\.640\]", missing.rstrip(" *"))
    assert difference.split() == ["average", "-"]


def test_a_method_counts_on_the_pairs_where_all_runs_have_it(tmp_path):
    without = pairs_of("black cat", "red dog")
    del without[1]["methods"]["average"]
    runs = compare.read(
        [write(tmp_path / "a", without), write(tmp_path / "b", pairs_of("black cat", "red dog"))]
    )
    row = next(row for row in table_of(runs) if row.method == "average")
    assert row.pairs == ("black cat",)
    assert [value.mean for value in row.values] == [0.60, 0.60]
    assert "average: over 1 of the 2 pairs" in compare.text(runs)


def test_a_method_that_no_pair_has_in_all_runs_is_dashes(tmp_path):
    paths = []
    for number, lacking in enumerate((1, 0)):
        pairs = pairs_of("black cat", "red dog")
        del pairs[lacking]["methods"]["average"]
        paths.append(write(tmp_path / f"s{number}", pairs, seed=number, noise=number))
    runs = compare.read(paths)
    assert compare.clearly_best(runs, table_of(runs), "auroc.worst") == [None] * len(MEANS)
    assert lines_of(compare.text(runs), "  average ")[0].split() == ["average", "-", "-", "-"]


# Differences ----------------------------------------------------------------------------------------------


def test_a_planted_difference_is_marked_and_a_chance_one_is_not(tmp_path):
    a = write(tmp_path / "a", noise=1)
    b = write(tmp_path / "b", epochs=5, noise=2, cyclegan_b2a=0.60, average=0.601)
    runs = compare.read([a, b])
    table = table_of(runs)
    marked = dict(
        zip([row.method for row in table], compare.clearly_best(runs, table, "auroc.worst"), strict=True)
    )
    assert marked == {"random": None, "average": None, "cyclegan_b2a": 1, "and_ensemble": None}
    shown = compare.text(runs)
    assert [line.split()[0] for line in lines_of(shown, "]*")] == ["cyclegan_b2a"]
    assert "+0.050 p < 0.001" in shown
    assert "b: paired, for seed and test images are the same." in shown


def test_pairing_uses_what_both_runs_drew_alike(tmp_path):
    """0.01 is far outside what resampled differences do, and well inside what two independent runs do."""
    a = write(tmp_path / "a", noise=1)
    same = write(tmp_path / "b", noise=2, random=0.49)
    other = write(tmp_path / "c", seed=1, noise=2, random=0.49)
    runs = compare.read([a, same, other])
    row = table_of(runs)[0]
    paired, apart = (compare.difference(runs, 0, number, row, "auroc.worst") for number in (1, 2))
    drawn = [run.run.arrays["black_cat/replicates/random"].astype(float) for run in runs]
    for found, spread in (
        (paired, np.std(drawn[1] - drawn[0], ddof=1)),
        (apart, np.sqrt(np.var(drawn[0], ddof=1) + np.var(drawn[2], ddof=1))),
    ):
        upper = 0.5 * (1 + math.erf(0.01 / spread / math.sqrt(2)))
        assert found.mean == pytest.approx(0.01)
        assert found.p_value == pytest.approx(2 * (1 - upper), abs=1e-9)
    assert (paired.paired, apart.paired) == (True, False)
    assert paired.p_value < 0.001 < 0.5 < apart.p_value


def test_chance_is_marked_at_most_as_often_as_stated():
    """Of runs of one truth, whose means and replicates are drawn from the same normal law, few are marked."""
    rng = np.random.default_rng(0)
    marked = {2: 0, 4: 0}
    trials = 400
    for count in marked:
        for _ in range(trials):
            runs = []
            for number in range(count):
                means = {name: mean + SPREAD * rng.normal() for name, mean in MEANS.items()}
                run = run_of(pair_result(means), seed=number)
                arrays = {
                    f"black_cat/replicates/{name}": mean + SPREAD * rng.normal(size=200)
                    for name, mean in means.items()
                }
                run = dataclasses.replace(run, arrays=arrays)
                runs.append(compare.Compared(str(number), Path(str(number)), run))
            best = compare.clearly_best(runs, table_of(runs), "auroc.worst")
            marked[count] += any(number is not None for number in best)
    assert marked[2] / trials == pytest.approx(0.05, abs=0.03)  # over the rows together
    assert marked[4] / trials < 0.05


def test_a_difference_over_pairs_is_tested_by_how_the_pairs_differ(tmp_path):
    titles = [
        f"{colour} {thing}" for colour in ("black", "red", "blue", "white") for thing in ("cat", "dog", "car")
    ]
    better, rng = pairs_of(*titles), np.random.default_rng(0)
    for pair in better:
        pair["methods"]["average"]["auroc"]["worst"]["mean"] += 0.03 + 0.004 * rng.normal()
    runs = compare.read([write(tmp_path / "a", pairs_of(*titles)), write(tmp_path / "b", better)])
    row = next(row for row in table_of(runs) if row.method == "average")
    found = compare.difference(runs, 0, 1, row, "auroc.worst")
    assert found.mean == pytest.approx(0.03, abs=0.004)
    assert found.paired
    assert found.p_value < 0.01


def test_pairs_that_disagree_widen_the_spread_of_their_mean(tmp_path):
    """+0.08 and -0.02 are clear on each pair; that their mean is above 0 is not."""
    mixed = pairs_of("black cat", "red dog")
    for pair, change in zip(mixed, (0.08, -0.02), strict=True):
        pair["methods"]["average"]["auroc"]["worst"]["mean"] += change
    a = write(tmp_path / "a", pairs_of("black cat", "red dog"), noise=1)
    runs = compare.read([a, write(tmp_path / "b", mixed, noise=2)])
    row = next(row for row in table_of(runs) if row.method == "average")
    found = compare.difference(runs, 0, 1, row, "auroc.worst")
    assert found.mean == pytest.approx(0.03)
    assert found.p_value > 2 * 0.27  # one standard error is 0.05
    for title in row.pairs:
        one = next(row for row in compare.rows(runs, [title], "auroc.worst") if row.method == "average")
        assert compare.difference(runs, 0, 1, one, "auroc.worst").p_value < 0.001


def test_over_all_pairs_figures_are_those_of_the_runs_own_record(tmp_path):
    titles = ("black cat", "red dog", "blue bird")
    pairs = pairs_of(*titles)
    for number, pair in enumerate(pairs):  # on the second, the ceiling is no better than random
        mean = 0.5 if number == 1 else 0.9
        pair["methods"]["trained_on_conjunction"] = {
            "kind": "ceiling",
            "auroc": {"worst": statistic(mean)},
            "recovered": None,
            "novelty": None,
        }
    runs = compare.read([write(tmp_path / name, pairs, noise=1, seed=3) for name in "ab"])
    run = runs[0].run
    for made, pair in zip(pairs, run.pairs, strict=True):
        means = {name: pair.figure(name).mean for name in pair.methods}
        made["tests"] = comparison.pair_tests(means, run.arrays_under(pair, "replicates"), ["cyclegan_b2a"])
    comparison.adjust(pairs)
    overall = comparison.overall(pairs, merit="worst", resamples=1000, seed=0)
    own = run_of(*pairs, overall=overall).overall.methods
    for metric in ("auroc.worst", "recovered"):
        for row in compare.rows(runs, titles, metric):
            expected = results.statistics(own[row.method]).get(metric)
            assert row.pairs == titles
            assert row.values[0].mean == pytest.approx(expected.mean)
            if metric == "auroc.worst":
                assert (row.values[0].low, row.values[0].high) == pytest.approx((expected.low, expected.high))


# Seeds ----------------------------------------------------------------------------------------------------


def test_a_sweep_over_seeds_has_the_sd_between_runs_and_no_best_run(tmp_path):
    values = (0.50, 0.56, 0.62)
    paths = [
        write(tmp_path / f"s{seed}", seed=seed, noise=seed, random=value, average=0.3 + 0.3 * (seed == 2))
        for seed, value in enumerate(values)
    ]
    runs = compare.read(paths)
    assert compare.is_seed_sweep(runs)
    shown = compare.text(runs)
    assert "0.560 sd 0.060" in " ".join(lines_of(shown, "  random"))
    assert "]*" not in shown
    assert lines_of(shown, "  average")[-1].split() == ["average", "+0.000", "+0.300"]
    assert not re.search(r"\bp [=<]", shown)
    assert "No p-values between seeds" in shown
    assert 2 in compare.clearly_best(runs, table_of(runs), "auroc.worst")  # so it is not for want of one


def test_p_values_are_corrected_over_all_differences_of_a_table(tmp_path):
    """The smallest p-value is times all of them, not times those of its own run only."""
    runs = compare.read(
        [write(tmp_path / "a", noise=1)]
        + [
            write(tmp_path / f"b{number}", epochs=number, noise=number, **{"random": 0.48 + change})
            for number, change in ((2, 0.009), (3, 0.0), (4, 0.0))
        ]
    )
    table = table_of(runs)
    found = [compare.difference(runs, 0, number, row, "auroc.worst") for row in table for number in (1, 2, 3)]
    (smallest,) = (one.p_value for one in found if one.mean != 0)
    assert all(one.p_value == 1 for one in found if one.mean == 0)
    shown = "".join(lines_of(compare.text(runs), "  random"))
    assert f"p = {min(1.0, len(found) * smallest):.3f}" in shown
    assert f"p = {len(table) * smallest:.3f}" not in shown
    assert 0.001 < len(table) * smallest < len(found) * smallest < 1


@pytest.mark.parametrize(
    "second", [{"seed": 0}, {"seed": 1, "epochs": 5}, {"seed": 1, "versions": {"jax": "0.11.0"}}]
)
def test_what_differs_in_more_or_less_than_the_seed_is_no_sweep_over_seeds(tmp_path, second):
    runs = compare.read([write(tmp_path / "a"), write(tmp_path / "b", **second)])
    assert not compare.is_seed_sweep(runs)
    assert " sd " not in compare.text(runs)


# Metrics, layout, CSV, command ----------------------------------------------------------------------------


def test_another_statistic_is_shown_without_p_values_for_replicates_are_not_of_it(tmp_path):
    runs = compare.read([write(tmp_path / "a", noise=1), write(tmp_path / "b", noise=2, average=0.9)])
    shown = compare.text(runs, metric="balanced_accuracy")
    assert "0.450 [0.410, 0.490]" in shown
    assert "no p-value" in shown
    assert "]*" not in shown
    assert "0.800" in lines_of(compare.text(runs, metric="recovered"), "  average")[0]


def test_an_unknown_statistic_is_refused_with_those_that_there_are(tmp_path):
    runs = compare.read([write(tmp_path / name) for name in "ab"])
    with pytest.raises(UserError, match=r"expected one of auroc\.worst, balanced_accuracy, recovered\."):
        compare.text(runs, metric="auroc.vs_all")


def test_runs_of_different_figures_of_merit_are_asked_for_one(tmp_path):
    rest = pair_result(MEANS)
    for method in rest["methods"].values():
        method["auroc"] = {"vs_rest": method["auroc"]["worst"]}
    results.write_results(tmp_path / "b", run_of(rest))
    runs = compare.read([write(tmp_path / "a"), tmp_path / "b"])
    with pytest.raises(UserError, match=r"auroc\.vs_rest, auroc\.worst.*--metric"):
        compare.text(runs)
    assert "0.300 [" in compare.text(runs, metric="balanced_accuracy")


@pytest.mark.parametrize("count", [2, 3, 7])
def test_no_line_is_too_wide_and_two_runs_stand_side_by_side(tmp_path, count):
    more = {"trained_on_conjunction": 0.9, "a_method_of_a_very_long_name_indeed": 0.4}
    paths = [write(tmp_path / f"a_run_of_a_name_{n:04d}", seed=n, noise=n, **more) for n in range(count)]
    shown = compare.text(compare.read(paths), pair_by_pair=True)
    assert max(map(len, shown.splitlines())) <= WIDTH
    heads = [line for line in lines_of(shown, "method ") if line.startswith("method ")]
    for number in range(count):
        assert any(f"a_run_of_a_name_{number:04d}" in line for line in heads)
    if count == 2:
        assert all(f"a_run_of_a_name_{number:04d}" in heads[0] for number in range(2))
    assert "mean over runs" in shown


def test_the_verdict_of_each_run_is_under_the_table(tmp_path):
    paths = [write(tmp_path / name) for name in "ab"]
    shown = compare.text(compare.read(paths))
    said = " ".join(shown.partition("What each run says of itself\n")[2].split())
    a, b = (prose.summary(results.read_results(path))[0] for path in paths)
    assert said == f"a: {a} b: {b}"


def test_csv_reads_back_to_the_last_bit_and_has_every_pair(tmp_path):
    a = write(tmp_path / "a", pairs_of("black cat", "red dog"))
    b = write(tmp_path / "b", random=1 / 3)
    runs = compare.read([a, b])
    for metric in ("auroc.worst", "recovered"):
        read = list(csv.DictReader(io.StringIO(compare.long_form(runs, metric))))
        assert tuple(read[0]) == compare.CSV_COLUMNS
        assert len(read) == 3 * len(MEANS)
        for line in read:
            run = next(run for run in runs if run.name == line["run"])
            row = run.pairs[line["pair"]].methods[line["method"]]
            ends = [float(line[key] or "nan") for key in ("mean", "low", "high")]
            own = results.statistics(row)[metric]
            np.testing.assert_equal(ends, [own.mean, own.low, own.high])
            assert (line["kind"], line["metric"]) == (row.kind, metric)


def test_the_command_prints_writes_and_gives_a_status(tmp_path, capsys):
    paths = [str(write(tmp_path / name, noise=1)) for name in "ab"]
    assert compare.main([*paths, "--metric=auroc.worst", f"--csv={tmp_path / 'all.csv'}"]) == 0
    assert f"{tmp_path / 'all.csv'}: {2 * len(MEANS)} figures" in capsys.readouterr().out
    assert (tmp_path / "all.csv").read_text().startswith(",".join(compare.CSV_COLUMNS) + "\n")
    for wrong, words in (
        ([paths[0]], "at least two"),
        ([*paths, "--metric=none"], "--metric=none"),
        ([*paths, "--unknown"], "unrecognized arguments"),
        ([*paths, f"--csv={tmp_path / 'absent' / 'all.csv'}"], "cannot be written: No such file"),
    ):
        assert compare.main(wrong) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error


def test_it_is_a_command_of_its_own():
    command = [sys.executable, "-m", "kernelgan.compare"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        "error: no run is given; expected at least two work directories, such as runs/a runs/b.\n"
    )
