"""Tests for studies.jain2024.evidence: records from made-up figures."""

import json

import numpy as np
import pytest
from scipy import stats

from kernelgan.evaluate import null_test
from studies.jain2024 import evidence
from studies.jain2024.data import DOMAINS, ReportedRow
from studies.jain2024.protocol import CLUSTERERS, FIGURES

PRINTED = {"precision": 0.1, "recall": 0.2, "entropy": 0.3, "purity": 0.4}
SIZES = {
    "cyclegan_a2b": 30,
    "cyclegan_b2a": 30,
    "random": 70,
    "attribute_only": 40,
    "object_only": 40,
    "gaussian": 12,  # which nobody is compared with
}
KMEANS = 3
BOTH = {"cyclegan_a2b", "cyclegan_b2a"}
COMPARED = {
    "random": (BOTH, {"random"}),
    "black": (BOTH, {"attribute_only"}),
    "source_a": ({"cyclegan_b2a"}, {"object_only"}),  # domain A is made from cat
    "source_b": ({"cyclegan_a2b"}, {"attribute_only"}),
}


def _row(clusterer, model, domain, accuracy):
    return ReportedRow(clusterer, model, domain, {"accuracy": accuracy, **PRINTED})


def _figures(rng, *shape):
    """Figures in steps, as those of few photographs are, ``(*shape, 7)``."""
    return np.round(20 * rng.random((*shape, len(FIGURES)))) / 20


@pytest.fixture
def populations():
    """Which population each network is of, and its accuracies, screened and judged, by clusterer."""
    rng = np.random.default_rng(0)
    whose = np.repeat(list(SIZES), list(SIZES.values()))
    screened = {
        name: np.round(30 * rng.random(len(whose))) / 30 + 9 * (whose == "gaussian") for name in CLUSTERERS
    }
    judged = {name: values + np.round(10 * rng.random(len(whose))) / 90 for name, values in screened.items()}
    return whose, screened, judged


@pytest.mark.parametrize("lead", [(4,), (3, 4), (2, 0)])
@pytest.mark.parametrize("kmeans", [1, KMEANS])
def test_kmeans_and_dbscan_are_at_their_best_for_each_network_and_umap_seed(lead, kmeans):
    figures = _figures(np.random.default_rng(0), *lead, kmeans + 1 + 5)
    found = evidence.by_clusterer(figures, kmeans)
    assert found.shape == (*lead, 3, 7)
    for place in np.ndindex(*lead):
        choices = figures[place]
        parts = choices[:kmeans], choices[kmeans : kmeans + 1], choices[kmeans + 1 :]
        for ours, part in zip(found[place], parts, strict=True):
            best = max(range(len(part)), key=lambda i: (part[i, 0], -i))  # the first of equally good ones
            np.testing.assert_array_equal(ours, part[best])


def test_what_was_not_measured_stays_unknown():
    figures = _figures(np.random.default_rng(0), 3, 2, KMEANS + 1 + 5)
    figures[1] = np.nan
    np.testing.assert_array_equal(
        np.isnan(evidence.by_clusterer(figures, KMEANS)).all(axis=(1, 2, 3)), [False, True, False]
    )


def test_one_network_under_all_seeds_is_tuned_in_its_radii_alone():
    figures = _figures(np.random.default_rng(0), 4, KMEANS + 1 + 5)
    found = {name: evidence.spread(figures, name, KMEANS) for name in CLUSTERERS}
    pairs = [figures[umap, seed] for umap in range(4) for seed in range(KMEANS)]
    np.testing.assert_array_equal(found["kmeans"], pairs)  # the first is of the first seeds
    np.testing.assert_array_equal(found["one_class_svm"], figures[:, KMEANS])
    np.testing.assert_array_equal(found["dbscan"], evidence.by_clusterer(figures, KMEANS)[:, 2])
    np.testing.assert_array_equal(found["dbscan"][:, 0], figures[:, KMEANS + 1 :, 0].max(axis=1))


def test_records_of_a_population():
    fixed = _figures(np.random.default_rng(0), 9, 3)
    found = evidence.clusterings(fixed, seed=0)
    assert tuple(found) == CLUSTERERS
    for place, clusterer in enumerate(CLUSTERERS):
        own = dict(zip(FIGURES, fixed[:, place].T, strict=True))
        record = found[clusterer]
        for name in FIGURES[:5]:
            assert record[name]["mean"] == pytest.approx(own[name].mean())
            low, high = record[name]["ci95"]
            assert own[name].min() <= low <= record[name]["mean"] <= high <= own[name].max()
        printed = {name: statistic["mean"] for name, statistic in record["as_printed"].items()}
        assert printed == pytest.approx(
            {
                "precision": own["recall"].mean(),
                "recall": own["precision"].mean(),
                "cluster_entropy": own["entropy_as_printed"].mean(),
                "cluster_purity": own["purity_as_printed"].mean(),
            }
        )


def test_the_tail_and_its_p_value_by_a_table_of_hand():
    accuracy = {
        "cyclegan_a2b": [0.9, 0.8, 0.5, 0.4],
        "cyclegan_b2a": [0.8, 0.7, 0.6],
        "random": [0.9, 0.5, 0.4, 0.3, 0.2, 0.1],
        "object_only": [0.8, 0.8],
    }
    fixed = {name: np.zeros((len(values), 3, 7)) for name, values in accuracy.items()}
    for name, values in accuracy.items():
        fixed[name][:, 1, 0] = values
    found = evidence.fixed_tests(fixed, count=2, seed=0)
    record = found["one_class_svm"]
    # The second best of the seven generated is 0.8, which three reach.
    assert record["tail"]["threshold"] == 0.8
    shares = record["tail"]["shares"]
    assert set(shares) == {"generated", "random", "object_only"}
    assert shares["generated"] == {"networks": 7, "share": 3 / 7, "p_value": None}
    assert (shares["random"]["networks"], shares["random"]["share"]) == (6, 1 / 6)
    # Of 13 networks 4 are that good; 3 or 4 of them among the 7 generated.
    by_hand = sum(stats.hypergeom.pmf(k, 13, 4, 7) for k in (3, 4))
    assert shares["random"]["p_value"] == pytest.approx(by_hand)
    expected = stats.fisher_exact([[3, 4], [2, 0]], alternative="greater").pvalue
    assert shares["object_only"]["p_value"] == pytest.approx(expected)
    generated, random = np.array([0.9, 0.8, 0.5, 0.4, 0.8, 0.7, 0.6]), np.array(accuracy["random"])
    assert record["best"] == null_test.best_of(generated, random)
    assert record["mean"]["mean"] == pytest.approx(generated.mean())
    assert record["mean"]["null_mean"] == pytest.approx(random.mean())
    assert found["kmeans"]["mean"]["p_value"] == 1  # all alike
    assert json.loads(json.dumps(found)) == found


def test_domains_are_compared_with_the_kernels_that_they_were_made_from():
    found = {name: (set(one.generated), set(one.others)) for name, one in evidence.COMPARISONS.items()}
    assert found == COMPARED
    for domain, name in evidence.GENERATED.items():
        assert name == f"cyclegan_{DOMAINS[domain]}"


@pytest.mark.parametrize("better", ["neither", "generated", "others"])
def test_those_that_can_be_picked_are_all_that_the_tests_need(populations, better):
    whose, screened, judged = populations
    generated = np.isin(whose, tuple(BOTH))
    if better != "neither":  # so that the other side's picks are far down
        screened = {
            name: values + (generated == (better == "generated")) for name, values in screened.items()
        }
    chosen = evidence.can_be_picked(whose, screened, count=3, seed=5)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) < np.sum(whose != "gaussian")
    assert "gaussian" not in whose[chosen]
    known = {name: np.full(len(whose), np.nan) for name in CLUSTERERS}
    for name in CLUSTERERS:
        known[name][chosen] = judged[name][chosen]
    given = {"count": 3, "draws": 400, "seed": 5}
    found, _ = evidence.picked_tests(whose, screened, known, **given)
    whole, _ = evidence.picked_tests(whose, screened, judged, **given)
    for comparison, sides in COMPARED.items():
        pool = np.flatnonzero(np.isin(whose, [*sides[0], *sides[1]]))
        for clusterer in CLUSTERERS:
            ours, theirs = found[comparison][clusterer], whole[comparison][clusterer]
            for name in ("best", "mean"):
                assert [ours[name][side] for side in ("generated", "null")] == [
                    theirs[name][side] for side in ("generated", "null")
                ]
                assert ours[name]["p_value"] == pytest.approx(theirs[name]["p_value"], abs=0.12)
            # And no fewer: without the network that is picked first there is no test.
            first = pool[null_test.judging_order(screened[clusterer][pool], seed=5)[0]]
            assert first in chosen
            lacking = np.where(np.arange(len(whose)) == first, np.nan, known[clusterer])
            with pytest.raises(ValueError, match="judged"):
                evidence.picked_tests(whose, screened, known | {clusterer: lacking}, **given)


def test_picked_tests_compare_each_side_with_its_others(populations):
    whose, screened, judged = populations
    found, relabelled = evidence.picked_tests(whose, screened, judged, count=4, draws=300, seed=0)
    assert tuple(found) == tuple(COMPARED)
    names = {
        f"{comparison}/{name}/{what}"
        for comparison in COMPARED
        for name in CLUSTERERS
        for what in ("best", "mean")
    }
    assert set(relabelled) == names
    for comparison, (ours, theirs) in COMPARED.items():
        generated, others = (np.isin(whose, tuple(side)) for side in (ours, theirs))
        pool = generated | others
        assert tuple(found[comparison]) == CLUSTERERS
        for name in CLUSTERERS:
            record = found[comparison][name]
            assert (record["candidates"], record["null_networks"]) == (generated.sum(), others.sum())
            expected = null_test.picked(
                screened[name][pool], judged[name][pool], generated[pool], count=4, draws=300, seed=0
            )
            for what in ("best", "mean"):
                np.testing.assert_array_equal(
                    relabelled[f"{comparison}/{name}/{what}"], expected["differences"][what]
                )
                assert record[what].items() >= expected[what].items()
                assert set(record[what]) == {*expected[what], "holm_p_value"}
    assert json.loads(json.dumps(found)) == found


def test_p_values_are_corrected_over_the_six_of_their_comparison_alone(populations):
    whose, screened, judged = populations
    # Domain A does better, so that p-values are of all sizes.
    judged = {name: values + 0.2 * (whose == "cyclegan_b2a") for name, values in judged.items()}
    found, _ = evidence.picked_tests(whose, screened, judged, count=4, draws=300, seed=0)
    corrections = set()
    for comparison in found.values():
        tests = [test[what] for test in comparison.values() for what in ("best", "mean")]
        p = sorted(test["p_value"] for test in tests)
        for test in tests:
            smaller = (p[: p.index(test["p_value"]) + 1], range(6, 0, -1))
            worst = max(one * times for one, times in zip(*smaller, strict=False))
            assert test["holm_p_value"] == pytest.approx(min(1, worst))
            corrections.add(test["holm_p_value"])
    assert min(corrections) < 0.05
    assert max(corrections) == 1


def test_the_best_reported_row_of_each_clusterer():
    rows = [_row("kmeans", 5, "A", 0.7), _row("kmeans", 9, "B", 0.8), _row("dbscan", 5, "A", 0.9)]
    assert evidence.reported_best(rows) == {
        "kmeans": {"best": 0.8, "rows": 2, "model": 9, "domain": "B"},
        "dbscan": {"best": 0.9, "rows": 1, "model": 5, "domain": "A"},
    }
    assert evidence.reported_best([]) == {}


def test_rows_beside_ours():
    rng = np.random.default_rng(0)
    measured = {
        ("cyclegan_b2a", 5): _figures(rng, 4, KMEANS + 1 + 2),
        ("cyclegan_a2b", 5): _figures(rng, 1, KMEANS + 1 + 2),
    }
    rows = [_row("dbscan", 5, "A", 0.7), _row("kmeans", 5, "A", 0.8), _row("one_class_svm", 5, "B", 0.6)]
    found = evidence.rows_beside(rows, measured, kmeans=KMEANS)
    assert [(one["clusterer"], one["model"], one["domain"]) for one in found] == [
        ("dbscan", 5, "A"),
        ("kmeans", 5, "A"),
        ("one_class_svm", 5, "B"),
    ]
    assert found[0]["reported"] == {"accuracy": 0.7, "as_printed": PRINTED}
    figures = measured["cyclegan_b2a", 5]
    dbscan = evidence.by_clusterer(figures, KMEANS)[:, 2]
    for record, ours in ((found[0], dbscan), (found[1], figures[:, :KMEANS].reshape(-1, 7))):
        for place, name in enumerate(FIGURES):
            column = ours[:, place]
            assert record["found"][name] == pytest.approx(
                {
                    "mean": column.mean(),
                    "sd": np.sqrt(np.sum((column - column.mean()) ** 2) / (len(column) - 1)),
                    "low": column.min(),
                    "high": column.max(),
                    "first_seed": column[0],
                }
            )
    assert found[1]["found"]["accuracy"]["first_seed"] == figures[0, 0, 0]
    only = found[2]["found"]["recall"]
    assert only["sd"] is None
    assert only["mean"] == only["low"] == only["high"] == measured["cyclegan_a2b", 5][0, KMEANS, 2]
    assert evidence.rows_beside([], {}, kmeans=KMEANS) == []
    assert json.loads(json.dumps(found)) == found


def test_central_brightness():
    images = np.full((4, 32, 32, 3), 255, np.uint8)  # the borders tell nothing
    for image, level in zip(images, (10, 200, 90, 30), strict=True):
        image[8:24, 8:24] = level
    assert evidence.central_brightness(images, np.array([True, False, False, True])) == 1
    assert evidence.central_brightness(images, np.array([True, False, True, False])) == 0.75
    # Where dark says nothing, the best is to call none, or all, a black cat.
    assert evidence.central_brightness(images, np.array([False, True, False, False])) == 0.75
    assert evidence.central_brightness(images, np.array([False, True, True, True])) == 0.75


def test_central_brightness_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    images, positive = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8), rng.random(20) < 0.4
    middle = images[:, 2:6, 2:6].reshape(20, -1).mean(axis=1)
    best = max(np.mean((middle <= at) == positive) for at in np.linspace(-1, 256, 20_000))
    assert evidence.central_brightness(images, positive) == pytest.approx(best)
