"""Tests for studies.jain2024.evidence: records from made-up figures."""

import json

import numpy as np
import pytest
from scipy import stats

from studies.jain2024 import evidence, picking
from studies.jain2024.data import ReportedRow
from studies.jain2024.protocol import CLUSTERERS, FIGURES

PRINTED = {"precision": 0.1, "recall": 0.2, "entropy": 0.3, "purity": 0.4}
SIZES = {"generated_b": 30, "generated_a": 30, "random": 70, "black": 40, "cat": 40, "gaussian": 12}
KMEANS = 3
BOTH = {"generated_a", "generated_b"}
COMPARED = {
    "random": (BOTH, "random"),
    "black": (BOTH, "black"),
    "source_a": ({"generated_a"}, "cat"),  # domain A is made from cat
    "source_b": ({"generated_b"}, "black"),
}


def _row(clusterer, model, domain, accuracy):
    return ReportedRow(clusterer, model, domain, {"accuracy": accuracy, **PRINTED})


def _figures(*shape):
    """Figures in steps, as those of few photographs are, ``(*shape, 7)``."""
    return np.round(20 * np.random.default_rng(0).random((*shape, len(FIGURES)))) / 20


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


@pytest.mark.parametrize("lead", [(4,), (3, 4)])
@pytest.mark.parametrize("kmeans", [1, KMEANS])
def test_kmeans_and_dbscan_are_at_their_best_for_each_network_and_umap_seed(lead, kmeans):
    figures = _figures(*lead, kmeans + 1 + 5)
    found = evidence.by_clusterer(figures, kmeans)
    assert found.shape == (*lead, 3, 7)
    for place in np.ndindex(*lead):
        choices = figures[place]
        parts = choices[:kmeans], choices[kmeans : kmeans + 1], choices[kmeans + 1 :]
        for ours, part in zip(found[place], parts, strict=True):
            best = max(range(len(part)), key=lambda i: (part[i, 0], -i))  # the first of equally good ones
            np.testing.assert_array_equal(ours, part[best])


def test_the_tail_and_its_p_value_by_a_table_of_hand():
    accuracy = {
        "generated_b": np.array([0.9, 0.8, 0.5, 0.4]),
        "generated_a": np.array([0.8, 0.7, 0.6]),
        "random": np.array([0.9, 0.5, 0.4, 0.3, 0.2, 0.1]),
        "cat": np.array([0.8, 0.8]),
    }
    found = evidence.tail(accuracy, 2)
    # The second best of the seven generated is 0.8, which three reach.
    assert (found["threshold"], found["best"], found["mean"]) == pytest.approx((0.8, 0.9, 4.7 / 7))
    shares = found["shares"]
    assert set(shares) == {"generated", "random", "cat"}
    assert shares["generated"] == {"networks": 7, "share": 3 / 7, "p_value": None}
    assert (shares["random"]["networks"], shares["random"]["share"]) == (6, 1 / 6)
    # Of 13 networks 4 are that good; 3 or 4 of them among the 7 generated.
    by_hand = sum(stats.hypergeom.pmf(k, 13, 4, 7) for k in (3, 4))
    assert shares["random"]["p_value"] == pytest.approx(by_hand)


@pytest.mark.parametrize("better", [0, 1, -1])  # generated networks, so that a side's picks are far down
def test_those_that_can_be_picked_are_all_that_the_tests_need(populations, better):
    whose, screened, judged = populations
    screened = {n: values + better * np.isin(whose, tuple(BOTH)) for n, values in screened.items()}
    chosen = evidence.can_be_picked(whose, screened, count=3, seed=5)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) < np.sum(whose != "gaussian")
    assert "gaussian" not in whose[chosen]
    known = {name: np.full(len(whose), np.nan) for name in CLUSTERERS}
    for name in CLUSTERERS:
        known[name][chosen] = judged[name][chosen]
    found, _ = evidence.picked_tests(whose, screened, known, count=3, draws=400, seed=5)
    whole, _ = evidence.picked_tests(whose, screened, judged, count=3, draws=400, seed=5)
    for comparison in COMPARED:
        for clusterer in CLUSTERERS:
            ours, theirs = found[comparison][clusterer], whole[comparison][clusterer]
            for name in ("best", "mean"):
                for side in ("generated", "null"):
                    assert ours[name][side] == theirs[name][side]
                assert ours[name]["p_value"] == pytest.approx(theirs[name]["p_value"], abs=0.12)


def test_picked_tests_compare_each_side_with_its_others(populations):
    whose, screened, judged = populations
    # Domain A does better, so that p-values are of all sizes.
    judged = {name: values + 0.2 * (whose == "generated_a") for name, values in judged.items()}
    found, relabelled = evidence.picked_tests(whose, screened, judged, count=4, draws=300, seed=0)
    assert json.loads(json.dumps(found)) == found
    for comparison, (ours, other) in COMPARED.items():
        generated = np.isin(whose, tuple(ours))
        pool = generated | (whose == other)
        assert tuple(found[comparison]) == CLUSTERERS
        tests = []
        for name, record in found[comparison].items():
            expected = picking.picked(
                screened[name][pool], judged[name][pool], generated[pool], count=4, draws=300, seed=0
            )
            for what in ("best", "mean"):
                drawn = relabelled[f"{comparison}/{name}/{what}"]
                np.testing.assert_array_equal(drawn, expected["differences"][what])
                assert record[what].items() >= expected[what].items()
                tests.append(record[what])
        p = sorted(test["p_value"] for test in tests)  # Holm's over the six of a comparison
        for test in tests:
            smaller = zip(p[: p.index(test["p_value"]) + 1], range(6, 0, -1), strict=False)
            assert test["holm_p_value"] == pytest.approx(min(1, max(one * times for one, times in smaller)))


def test_the_reported_rows_beside_ours():
    rows = [_row("dbscan", 5, "A", 0.7), _row("kmeans", 5, "A", 0.8), _row("one_class_svm", 5, "B", 0.6)]
    best = evidence.reported_best([*rows, _row("kmeans", 9, "B", 0.9)])
    assert best["kmeans"] == {"best": 0.9, "rows": 2, "network": "B9"}
    assert evidence.reported_best([]) == {}
    measured = {("A", 5): _figures(4, KMEANS + 1 + 2), ("B", 5): _figures(1, KMEANS + 1 + 2)}
    found = evidence.rows_beside(rows, measured, KMEANS, 100)
    for row, clusterer in zip(found, ("dbscan", "kmeans", "one_class_svm"), strict=True):
        accuracy, reported = row["ours"]["accuracy"], row["reported"]["accuracy"]  # give or take a photograph
        assert row["within"] == (accuracy["min"] - 0.011 <= reported <= accuracy["max"] + 0.011), clusterer
    assert [(row["clusterer"], row["network"]) for row in found] == [
        *(("dbscan", "A5"), ("kmeans", "A5"), ("one_class_svm", "B5")),
    ]
    assert found[0]["reported"] == {"accuracy": 0.7, **PRINTED}
    ours = measured["A", 5][:, :KMEANS].reshape(-1, 7)
    for place, name in enumerate(FIGURES):
        column, record = ours[:, place], found[1]["ours"][name]
        assert record["mean"] == pytest.approx(column.mean())
        assert record["sd"] == pytest.approx(np.sqrt(np.sum((column - column.mean()) ** 2) / 11))
        assert (record["min"], record["max"]) == (column.min(), column.max())
        assert record["first_seed"] == column[0]
    only = found[2]["ours"]["recall"]
    assert only["sd"] is None
    assert only["mean"] == measured["B", 5][0, KMEANS, 2]


def test_central_brightness():
    images = np.full((4, 32, 32, 3), 255, np.uint8)  # the borders tell nothing
    for image, level in zip(images, (10, 200, 90, 30), strict=True):
        image[8:24, 8:24] = level
    assert evidence.central_brightness(images, np.array([True, False, False, True])) == 1
    assert evidence.central_brightness(images, np.array([True, False, True, False])) == 0.75
    # Where dark says nothing, the best is to call none, or all, a black cat.
    assert evidence.central_brightness(images, np.array([False, True, False, False])) == 0.75
