"""Tests for kernelgan.reference.evidence: records from made-up figures."""

import json

import numpy as np
import pytest
from scipy import stats

from kernelgan.evaluate import null_test
from kernelgan.reference import evidence
from kernelgan.reference.data import ReportedRow
from kernelgan.reference.protocol import CLUSTERERS, FIGURES

PRINTED = {"precision": 0.1, "recall": 0.2, "entropy": 0.3, "purity": 0.4}
SIZES = {
    "cyclegan_a2b": 30,
    "cyclegan_b2a": 30,
    "random": 70,
    "attribute_only": 40,
    "object_only": 40,
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
    screened = {name: np.round(30 * rng.random(len(whose))) / 30 for name in CLUSTERERS}
    judged = {name: values + np.round(10 * rng.random(len(whose))) / 90 for name, values in screened.items()}
    return whose, screened, judged


@pytest.mark.parametrize("lead", [(4,), (3, 4), (2, 0)])
def test_dbscan_is_at_its_best_for_each_network_and_seed(lead):
    figures = _figures(np.random.default_rng(0), *lead, 2 + 5)
    found = evidence.by_clusterer(figures)
    assert found.shape == (*lead, 3, 7)
    np.testing.assert_array_equal(found[..., :2, :], figures[..., :2, :])
    for place in np.ndindex(*lead):
        choices = figures[place][2:]
        best = max(range(5), key=lambda i: (choices[i, 0], -i))  # the first of equally good ones
        np.testing.assert_array_equal(found[place][2], choices[best])


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


def test_pools_hold_the_generated_networks_and_a_null():
    whose = np.array([*SIZES, "gaussian"])
    assert set(whose[evidence.in_pool(whose, "random")]) == {"cyclegan_a2b", "cyclegan_b2a", "random"}
    assert set(whose[evidence.in_pool(whose, "untranslated")]) == set(SIZES) - {"random"}


@pytest.mark.parametrize("better", ["neither", "generated", "others"])
def test_those_that_can_be_picked_are_all_that_the_tests_need(populations, better):
    whose, screened, judged = populations
    generated = np.isin(whose, ("cyclegan_a2b", "cyclegan_b2a"))
    if better != "neither":  # so that the other side's picks are far down
        screened = {
            name: values + (generated == (better == "generated")) for name, values in screened.items()
        }
    chosen = evidence.can_be_picked(whose, screened, count=3, seed=5)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) < len(whose)
    known = {name: np.full(len(whose), np.nan) for name in CLUSTERERS}
    for name in CLUSTERERS:
        known[name][chosen] = judged[name][chosen]
    given = {"count": 3, "draws": 400, "seed": 5}
    found, _ = evidence.picked_tests(whose, screened, known, **given)
    whole, _ = evidence.picked_tests(whose, screened, judged, **given)
    for null in evidence.NULLS:
        for clusterer in CLUSTERERS:
            ours, theirs = found[null][clusterer], whole[null][clusterer]
            for name in ("best", "mean"):
                assert [ours[name][side] for side in ("generated", "null")] == [
                    theirs[name][side] for side in ("generated", "null")
                ]
                assert ours[name]["p_value"] == pytest.approx(theirs[name]["p_value"], abs=0.12)
    # And no fewer: without the network that is picked first there is no test.
    for name in CLUSTERERS:
        pool = np.flatnonzero(evidence.in_pool(whose, "random"))
        first = pool[null_test.judging_order(screened[name][pool], seed=5)[0]]
        assert first in chosen
        lacking = known | {name: np.where(np.arange(len(whose)) == first, np.nan, known[name])}
        with pytest.raises(ValueError, match="a picked network was not judged"):
            evidence.picked_tests(whose, screened, lacking, **given)


def test_picked_tests_compare_with_each_null(populations):
    whose, screened, judged = populations
    found, relabelled = evidence.picked_tests(whose, screened, judged, count=4, draws=300, seed=0)
    assert tuple(found) == tuple(evidence.NULLS) == ("random", "untranslated")
    names = {
        f"{null}/{name}/{what}" for null in evidence.NULLS for name in CLUSTERERS for what in ("best", "mean")
    }
    assert set(relabelled) == names
    generated = np.isin(whose, ("cyclegan_a2b", "cyclegan_b2a"))
    for null in evidence.NULLS:
        pool = generated | np.isin(whose, evidence.NULLS[null])
        for name in CLUSTERERS:
            record = found[null][name]
            assert (record["candidates"], record["null_networks"]) == (60, pool.sum() - 60)
            expected = null_test.picked(
                screened[name][pool], judged[name][pool], generated[pool], count=4, draws=300, seed=0
            )
            for what in ("best", "mean"):
                np.testing.assert_array_equal(
                    relabelled[f"{null}/{name}/{what}"], expected["differences"][what]
                )
                assert record[what] == expected[what]
    assert json.loads(json.dumps(found)) == found


def test_the_best_reported_row_of_each_clusterer():
    rows = [_row("kmeans", 5, "A", 0.7), _row("kmeans", 9, "B", 0.8), _row("dbscan", 5, "A", 0.9)]
    assert evidence.reported_best(rows) == {
        "kmeans": {"best": 0.8, "rows": 2, "model": 9, "domain": "B"},
        "dbscan": {"best": 0.9, "rows": 1, "model": 5, "domain": "A"},
    }
    assert evidence.reported_best([]) == {}


def test_rows_beside_ours():
    rng = np.random.default_rng(0)
    measured = {("cyclegan_b2a", 5): _figures(rng, 4, 3), ("cyclegan_a2b", 5): _figures(rng, 1, 3)}
    rows = [_row("dbscan", 5, "A", 0.7), _row("one_class_svm", 5, "B", 0.6)]
    found = evidence.rows_beside(rows, measured)
    assert [(one["clusterer"], one["model"], one["domain"]) for one in found] == [
        ("dbscan", 5, "A"),
        ("one_class_svm", 5, "B"),
    ]
    assert found[0]["reported"] == {"accuracy": 0.7, "as_printed": PRINTED}
    ours = measured["cyclegan_b2a", 5][:, 2]
    for place, name in enumerate(FIGURES):
        column = ours[:, place]
        assert found[0]["found"][name] == pytest.approx(
            {
                "mean": column.mean(),
                "sd": np.sqrt(np.sum((column - column.mean()) ** 2) / 3),
                "low": column.min(),
                "high": column.max(),
                "first_seed": column[0],
            }
        )
    only = found[1]["found"]["recall"]
    assert only["sd"] is None
    assert only["mean"] == only["low"] == only["high"] == measured["cyclegan_a2b", 5][0, 1, 2]
    assert evidence.rows_beside([], {}) == []
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
