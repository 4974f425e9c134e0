import numpy as np
import pytest
from sklearn import metrics

from kernelgan.evaluation import scores as scores_lib


def _problem(seed=0, networks=5, images=120, decimals=1):
    rng = np.random.default_rng(seed)
    quadrant = rng.integers(0, 4, images).astype(np.int8)
    scores = rng.normal(size=(networks, images)) + 0.6 * (quadrant == 0)
    return np.round(scores, decimals).astype(np.float32), quadrant


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_auroc_agrees_with_sklearn_with_and_without_ties(decimals):
    scores, quadrant = _problem(decimals=decimals)
    found = scores_lib.auroc_by_quadrant(scores, quadrant)
    assert list(found) == ["vs_attribute_only", "vs_object_only", "vs_neither", "worst"]
    for key, value in (("vs_attribute_only", 1), ("vs_object_only", 2), ("vs_neither", 3)):
        mask = (quadrant == 0) | (quadrant == value)
        expected = [metrics.roc_auc_score(quadrant[mask] == 0, row[mask]) for row in scores]
        np.testing.assert_allclose(found[key], expected, rtol=1e-12)
    parts = [found[key] for key in found if key != "worst"]
    np.testing.assert_array_equal(found["worst"], np.min(parts, axis=0))


def test_auroc_of_rest_images_has_its_own_key():
    scores, quadrant = _problem()
    rest = np.where(quadrant == 0, 0, 4)
    found = scores_lib.auroc_by_quadrant(scores, rest)
    assert list(found) == ["vs_rest", "worst"]
    expected = [metrics.roc_auc_score(rest == 0, row) for row in scores]
    np.testing.assert_allclose(found["vs_rest"], expected, rtol=1e-12)
    np.testing.assert_array_equal(found["worst"], found["vs_rest"])


def test_auroc_leaves_out_a_quadrant_without_images():
    scores, quadrant = _problem()
    keep = quadrant != 2
    found = scores_lib.auroc_by_quadrant(scores[:, keep], quadrant[keep])
    assert list(found) == ["vs_attribute_only", "vs_neither", "worst"]


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_average_precision_agrees_with_sklearn(decimals):
    scores, quadrant = _problem(decimals=decimals)
    expected = [metrics.average_precision_score(quadrant == 0, row) for row in scores]
    np.testing.assert_allclose(scores_lib.average_precision(scores, quadrant), expected, rtol=1e-12)


def test_zero_shot_agrees_with_sklearn():
    scores, quadrant = _problem()
    threshold = np.linspace(-0.5, 0.5, len(scores))
    found = scores_lib.zero_shot(scores, quadrant, threshold=threshold)
    truth = quadrant == 0
    for m, row in enumerate(scores):
        yes = row > threshold[m]
        assert found["accuracy"][m] == pytest.approx(metrics.accuracy_score(truth, yes))
        assert found["precision"][m] == pytest.approx(metrics.precision_score(truth, yes))
        assert found["recall"][m] == pytest.approx(metrics.recall_score(truth, yes))
        shares = [np.mean((yes == truth)[quadrant == value]) for value in range(4)]
        assert found["balanced_accuracy"][m] == pytest.approx(np.mean(shares))


def test_zero_shot_of_constant_answers():
    quadrant = np.array([0, 1, 2, 3, 3])
    scores = np.array([[-1] * 5, [1] * 5, [0] * 5], np.float32)
    found = scores_lib.zero_shot(scores, quadrant, threshold=0)
    np.testing.assert_array_equal(found["balanced_accuracy"], [0.75, 0.25, 0.75])  # at the threshold is "no"
    np.testing.assert_array_equal(found["precision"], [0, 0.2, 0])
    np.testing.assert_array_equal(found["recall"], [0, 1, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_name_the_network(bad):
    scores, quadrant = _problem()
    scores[3, 7] = bad
    for function in (scores_lib.auroc_by_quadrant, scores_lib.average_precision):
        with pytest.raises(ValueError, match="scores of network 3 are not finite"):
            function(scores, quadrant)


@pytest.mark.parametrize(
    ("quadrant", "message"),
    [
        ([1, 2, 3], "0 of 3 images are the conjunction"),
        ([0, 0, 0], "3 of 3 images are the conjunction"),
        ([0, 1, 7], r"got also \[7\]"),
        ([0, 1, -1], r"got also \[-1\]: leave such images out"),
        ([0.0, 1.0, 2.0], "must be integers"),
        ([[0, 1, 2]], "must be integers"),
    ],
)
def test_quadrants_that_cannot_be_scored(quadrant, message):
    with pytest.raises(ValueError, match=message):
        scores_lib.auroc_by_quadrant(np.zeros((2, 3), np.float32), np.array(quadrant))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (0, 3), (1, 2, 3)])
def test_scores_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"scores must be \(M, N\)"):
        scores_lib.auroc_by_quadrant(np.zeros(shape, np.float32), np.array([0, 1, 2]))


@pytest.mark.parametrize("threshold", [np.zeros(3), np.nan])
def test_thresholds_that_do_not_fit(threshold):
    with pytest.raises(ValueError, match="threshold"):
        scores_lib.zero_shot(np.zeros((2, 3), np.float32), np.array([0, 1, 2]), threshold=threshold)
