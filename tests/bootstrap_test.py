import json

import numpy as np
import pytest

from kernelgan import environment
from kernelgan.evaluation import bootstrap
from kernelgan.evaluation import scores as scores_lib


def _problem(seed=0, networks=4, images=90, decimals=1):
    rng = np.random.default_rng(seed)
    quadrant = rng.permutation(np.arange(images) % 4)
    scores = rng.normal(size=(networks, images)) + 0.6 * (quadrant == 0)
    return np.round(scores, decimals).astype(np.float32), quadrant


def _intervals(scores, quadrant, **options):
    return bootstrap.intervals_and_replicates(scores, quadrant, **options)[0]


def test_image_weights_keep_the_size_of_each_quadrant():
    _, quadrant = _problem()
    weights = bootstrap.image_weights(quadrant, resamples=300, seed=1)
    assert weights.shape == (90, 300)
    for value in range(4):
        members = weights[quadrant == value]
        np.testing.assert_array_equal(members.sum(axis=0), len(members))
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.25)
    np.testing.assert_array_equal(weights, bootstrap.image_weights(quadrant, resamples=300, seed=1))
    assert not np.array_equal(weights, bootstrap.image_weights(quadrant, resamples=300, seed=2))


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_resampled_figures_equal_those_of_the_repeated_images(decimals):
    scores, quadrant = _problem(decimals=decimals)
    weights = bootstrap.image_weights(quadrant, resamples=6, seed=0)
    auroc = bootstrap.resampled_auroc(scores, quadrant, weights)
    precision = bootstrap.resampled_average_precision(scores, quadrant, weights)
    answered = bootstrap.resampled_zero_shot(scores, quadrant, weights, threshold=0.3)
    for r in range(6):
        index = np.repeat(np.arange(quadrant.size), weights[:, r].astype(int))
        drawn = scores[:, index], quadrant[index]
        expected = scores_lib.auroc_by_quadrant(*drawn)
        assert list(auroc) == list(expected)
        for key in expected:
            np.testing.assert_allclose(auroc[key][:, r], expected[key], atol=1e-6)
        np.testing.assert_allclose(precision[:, r], scores_lib.average_precision(*drawn), atol=1e-6)
        expected = scores_lib.zero_shot(*drawn, threshold=0.3)
        for key in expected:
            np.testing.assert_allclose(answered[key][:, r], expected[key], atol=1e-6)


def test_neither_blocks_of_resamples_nor_tasks_nor_cores_show(monkeypatch):
    scores, quadrant = _problem(networks=40)
    weights = bootstrap.image_weights(quadrant, resamples=300, seed=0)

    def figures(some, counts):
        auroc = bootstrap.resampled_auroc(some, quadrant, counts)
        return np.stack([*auroc.values(), bootstrap.resampled_average_precision(some, quadrant, counts)])

    monkeypatch.setattr(environment, "cores", lambda: 3)
    whole = figures(scores, weights)
    assert whole.shape == (5, 40, 300)
    monkeypatch.setattr(environment, "cores", lambda: 1)
    np.testing.assert_array_equal(figures(scores[17:19], weights[:, 120:130]), whole[:, 17:19, 120:130])


def test_pairs_are_counted_exactly_where_float32_could_not():
    quadrant = np.repeat([0, 4], 5001)
    weights = np.ones((quadrant.size, 1), np.float32)
    scores = np.arange(quadrant.size)[None].astype(float)  # all 5,001 x 5,001 pairs are lost
    scores[0, 5000] = scores[0, -1] + 1  # but those of one image
    auroc = bootstrap.resampled_auroc(scores, quadrant, weights)["vs_rest"]
    assert auroc.dtype == np.float32
    assert auroc[0, 0] == np.float32(1 - 5000 * 5001 / 5001**2)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    covered = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        quadrant = np.repeat([0, 4], 60)
        shared = rng.normal(size=120) + (quadrant == 0)  # what all networks see in an image
        scores = shared + 0.5 * rng.normal(size=(6, 120))
        low, high = _intervals(scores, quadrant, resamples=200)["auroc"]["vs_rest"]["ci95"]
        covered.append(low <= 0.7365 <= high)  # Phi(1 / sqrt(2 * 1.25))
    assert 0.86 <= np.mean(covered) <= 1


def test_images_widen_the_interval_of_networks():
    rng = np.random.default_rng(0)
    quadrant = np.repeat([0, 1, 2, 3], 25)
    scores = np.repeat(rng.normal(size=(1, 100)) + (quadrant == 0), 8, axis=0)
    observed = scores_lib.auroc_by_quadrant(scores, quadrant)["vs_neither"]
    low, high = _intervals(scores, quadrant)["auroc"]["vs_neither"]["ci95"]
    assert high - low > 0.1
    low, high = bootstrap.summary(observed)["ci95"]
    assert high - low < 1e-12


def test_score_intervals_are_the_protocol_s_record_and_deterministic():
    scores, quadrant = _problem()
    record = _intervals(scores, quadrant, threshold=0.0, resamples=100, seed=3)
    assert record == _intervals(scores, quadrant, threshold=0.0, resamples=100, seed=3)
    assert record != _intervals(scores, quadrant, threshold=0.0, resamples=100, seed=4)
    assert json.loads(json.dumps(record)) == record
    assert list(record["auroc"]) == [*scores_lib.versus_present(quadrant), "worst", "worst_of_means"]
    observed = scores_lib.auroc_by_quadrant(scores, quadrant)["worst"]
    worst = record["auroc"]["worst"]
    assert worst["mean"] == pytest.approx(observed.mean())
    assert worst["best"] == pytest.approx(observed.max())
    assert worst["sd"] == pytest.approx(observed.std(ddof=1))
    assert worst["networks"] == 4
    assert worst["ci95"][0] < worst["ci95"][1]
    assert set(record) == {
        "auroc",
        "average_precision",
        "balanced_accuracy",
        "accuracy",
        "precision",
        "recall",
    }
    assert "balanced_accuracy" not in _intervals(scores, quadrant, resamples=10)


def test_the_lowest_mean_is_the_smallest_of_the_quadrants_means_in_every_resample():
    scores, quadrant = _problem(networks=30)
    record = _intervals(scores, quadrant, resamples=300, seed=0)["auroc"]
    weights = bootstrap.image_weights(quadrant, resamples=300, seed=0)
    shares = bootstrap.network_shares(30, resamples=300, seed=0)
    drawn = bootstrap.resampled_auroc(scores, quadrant, weights)
    means = np.stack([(shares.T * drawn[key]).sum(axis=0) for key in scores_lib.versus_present(quadrant)])
    found = record["worst_of_means"]
    np.testing.assert_allclose(found["ci95"], np.percentile(means.min(axis=0), [2.5, 97.5]), rtol=1e-5)
    assert found["mean"] == min(record[key]["mean"] for key in scores_lib.versus_present(quadrant))
    assert found["mean"] > record["worst"]["mean"]


def test_one_network_has_an_interval_over_images_only():
    scores, quadrant = _problem(networks=1)
    weights = bootstrap.image_weights(quadrant, resamples=200, seed=0)
    drawn = bootstrap.resampled_auroc(scores, quadrant, weights)["worst"]
    record = _intervals(scores, quadrant, resamples=200, seed=0)["auroc"]["worst"]
    np.testing.assert_allclose(record["ci95"], np.percentile(drawn, [2.5, 97.5]), rtol=1e-6)
    assert record["sd"] is None
    assert record["networks"] == 1


def test_summary():
    values = np.random.default_rng(0).normal(size=200)
    found = bootstrap.summary(values, seed=1)
    assert found == bootstrap.summary(values, seed=1)
    half = (found["ci95"][1] - found["ci95"][0]) / 2
    assert half == pytest.approx(1.96 * values.std() / np.sqrt(200), rel=0.15)
    assert bootstrap.summary(np.array([0.5])) == {
        "mean": 0.5, "sd": None, "best": 0.5, "networks": 1, "ci95": None
    }  # fmt: skip


def test_failures():
    scores, quadrant = _problem()
    with pytest.raises(ValueError, match="values of network 1 are not finite"):
        bootstrap.summary(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        bootstrap.image_weights(quadrant, resamples=0, seed=0)
    with pytest.raises(ValueError, match=r"weights must be \(N, R\)"):
        bootstrap.resampled_auroc(scores, quadrant, np.ones((3, 4), np.float32))
    scores[2, 0] = np.nan
    with pytest.raises(ValueError, match="scores of network 2 are not finite"):
        _intervals(scores, quadrant)
