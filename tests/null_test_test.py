import itertools
import json

import numpy as np
import pytest
from scipy import stats

from kernelgan.evaluation import null_test


def test_best_of_equals_trying_every_split():
    generated, null = np.array([3.0, 5.0, 1.0]), np.array([2.0, 5.0, 4.0, 0.0, 6.0])
    found = null_test.best_of(generated, null, statistic="auroc.worst")
    pooled = np.concatenate([generated, null])
    splits = [max(pooled[list(split)]) >= 5 for split in itertools.combinations(range(8), 3)]
    assert found["p_value"] == pytest.approx(np.mean(splits))
    draws = [max(split) for split in itertools.product(null, repeat=3)]
    assert found["null_mean"] == pytest.approx(np.mean(draws))
    assert found["share_of_null_draws"] == pytest.approx(np.mean(np.array(draws) >= 5))
    assert found["smallest_p"] == 3 / 8
    assert (found["statistic"], found["candidates"], found["null_networks"]) == ("auroc.worst", 3, 5)
    assert found["observed"] == 5
    assert json.loads(json.dumps(found)) == found


def test_best_of_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    found = [null_test.best_of(rng.normal(size=4), rng.normal(size=400)) for _ in range(1500)]
    p = np.array([one["p_value"] for one in found])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_the_best_of_many_null_networks_is_no_discovery_however_small_the_pool():
    """Draws from the null pool alone call it one, in one case of five."""
    rng = np.random.default_rng(0)
    found = [null_test.best_of(rng.normal(size=64), rng.normal(size=256)) for _ in range(500)]
    assert min(one["p_value"] for one in found) >= 0.2 - 1e-12
    assert np.mean([one["share_of_null_draws"] <= 0.01 for one in found]) == pytest.approx(0.2, abs=0.06)


def test_a_better_population_is_found():
    rng = np.random.default_rng(0)
    generated, null = rng.normal(size=8) + 4, rng.normal(size=800)
    best = null_test.best_of(generated, null)
    assert best["p_value"] == pytest.approx(best["smallest_p"]) == pytest.approx(8 / 808)
    mean = null_test.mean_test(generated, null, seed=0)
    assert mean["p_value"] < 0.001
    assert mean["superiority"] > 0.98


def test_mean_test_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    found = [null_test.mean_test(rng.random(10), rng.random(30), resamples=199, seed=i) for i in range(300)]
    assert stats.kstest([one["p_value"] for one in found], "uniform").pvalue > 0.01


def test_mean_test_agrees_with_every_split_and_repeats_itself():
    generated, null = np.array([3.0, 5.0, 1.0]), np.array([2.0, 0.0, 1.5])
    found = null_test.mean_test(generated, null)
    pooled = np.concatenate([generated, null])
    splits = [sum(pooled[list(split)]) >= 9 for split in itertools.combinations(range(6), 3)]
    assert found["p_value"] == pytest.approx(np.mean(splits))
    assert found["superiority"] == pytest.approx(np.mean(generated[:, None] > null))
    assert (found["mean"], found["null_mean"]) == (3, pytest.approx(3.5 / 3))
    rng = np.random.default_rng(0)
    big = rng.normal(size=40), rng.normal(size=50)
    assert null_test.mean_test(*big, seed=1) == null_test.mean_test(*big, seed=1)
    assert json.loads(json.dumps(found)) == found


def test_mean_test_of_constants_finds_nothing():
    found = null_test.mean_test(np.full(5, 0.5), np.full(9, 0.5))
    assert (found["p_value"], found["superiority"]) == (1, 0.5)


@pytest.mark.parametrize("function", [null_test.best_of, null_test.mean_test])
def test_failures(function):
    good = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match="generated must hold one value a network"):
        function(np.array([]), good)
    with pytest.raises(ValueError, match="null must hold one value a network"):
        function(good, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="null of network 1 are not finite"):
        function(good, np.array([0.1, np.nan]))


# Several tests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        # Times 6, 5, 4, 3, 2, 1 from the least on, never falling, at most 1.
        ([0.01, 0.5, 0.3, 0.02, 0.9, 0.011], [0.06, 1, 0.9, 0.08, 1, 0.06]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.2], [0.2]),
        ([1.0, 0.6], [1, 1]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, expected):
    found = null_test.holm(p_values)
    assert found == pytest.approx(expected)
    assert json.loads(json.dumps(found)) == found


def test_a_single_network_is_tested_by_its_place_among_the_null_s():
    null = np.arange(19, dtype=float)
    assert null_test.mean_test(np.array([18.5]), null)["p_value"] == pytest.approx(1 / 20)
    assert null_test.mean_test(np.array([9.5]), null)["p_value"] == pytest.approx(10 / 20)
    assert null_test.mean_test(np.array([-1.0]), null)["p_value"] == 1
