"""Tests for studies.jain2024.picking."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from studies.jain2024 import picking


def _populations(rng, generated, null, effect=0.0):
    """Two figures of each network that agree somewhat, in steps as accuracies are; generated ones better."""
    is_generated = rng.permutation(np.arange(generated + null) < generated)
    quality = rng.normal(size=is_generated.size) + effect * is_generated
    screened, judged = (np.round(4 * (quality + 0.7 * rng.normal(size=quality.size))) / 4 for _ in range(2))
    return screened, judged, is_generated


def test_picked_equals_every_relabelling():
    screened = np.array([5, 3, 3, 9, 1, 7, 3.0])
    judged = np.array([2, 8, 4, 5, 9, 3, 1.0])
    is_generated = np.array([True, False, True, False, True, False, False])
    found = picking.picked(screened, judged, is_generated, count=2, draws=6000, seed=3, statistic="accuracy")
    order = picking.judging_order(screened, seed=3)
    assert sorted(order) == list(range(7))
    assert sorted(screened, reverse=True) == screened[order].tolist()

    def picks(side):
        return [judged[i] for i in order if i in side][:2]

    best, mean = [], []
    for side in itertools.combinations(range(7), 3):
        chosen = picks(side), picks(set(range(7)) - set(side))
        best.append(max(chosen[0]) - max(chosen[1]))
        mean.append((sum(chosen[0]) - sum(chosen[1])) / 2)
    ours, theirs = picks((0, 2, 4)), picks((1, 3, 5, 6))
    for name, relabelled, take in (("best", best, np.max), ("mean", mean, np.mean)):
        record, drawn = found[name], found["differences"][name]
        assert (record["generated"], record["null"]) == (take(ours), take(theirs))
        assert record["difference"] == take(ours) - take(theirs)
        at_least = np.mean(np.array(relabelled) >= record["difference"])
        assert record["p_value"] == pytest.approx(at_least, abs=0.03)
        assert record["p_value"] == (1 + np.sum(drawn >= record["difference"])) / 6001
        assert drawn.shape == (6000,)
        assert set(drawn) == set(relabelled)
        assert record["relabelled_ci95"] == np.quantile(drawn, (0.025, 0.975)).tolist()
    assert (found["candidates"], found["null_networks"], found["picked"], found["draws"]) == (3, 4, 2, 6000)
    assert found["statistic"] == "accuracy"
    again = picking.picked(screened, judged, is_generated, count=2, draws=6000, seed=3)
    np.testing.assert_equal(again.pop("differences"), found.pop("differences"))
    assert json.loads(json.dumps(again)) == again == found | {"statistic": ""}


def test_picked_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(0)
    p = {"best": [], "mean": []}
    for trial in range(200):
        given = _populations(rng, 10, 60)
        found = picking.picked(*given, count=3, draws=99, seed=trial)
        for name, values in p.items():
            values.append(found[name]["p_value"])
    # A best is the same network in many relabellings: its p-values come in steps, and may not be too small.
    assert stats.kstest(p["mean"], "uniform").pvalue > 0.01
    for values in p.values():
        for level in (0.05, 0.1, 0.2, 0.5):
            assert np.mean(np.array(values) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 200)


def test_picked_finds_better_networks_and_not_the_picking():
    rng = np.random.default_rng(0)
    better = [picking.picked(*_populations(rng, 20, 200, effect=2.0), count=5, draws=199) for _ in range(20)]
    assert np.mean([one["mean"]["p_value"] <= 0.05 for one in better]) >= 0.8
    # However many are picked from, if they are picked alike on both sides.
    same = [picking.picked(*_populations(rng, 300, 20), count=5, draws=199) for _ in range(20)]
    assert np.median([one["best"]["difference"] for one in same]) > 0
    assert np.mean([one["best"]["p_value"] <= 0.05 for one in same]) <= 0.1


def test_only_the_leading_networks_need_be_judged():
    rng = np.random.default_rng(0)
    screened, judged, is_generated = _populations(rng, 300, 500)
    whole = picking.picked(screened, judged, is_generated, count=4, draws=4000, seed=1)
    order = picking.judging_order(screened, seed=1)
    leading = picking.reach(300, 500, 4)
    assert leading < 100
    needed = [order[:leading], *(order[side[order]][:4] for side in (is_generated, ~is_generated))]
    known = np.full(800, np.nan)
    known[np.concatenate(needed)] = judged[np.concatenate(needed)]
    found = picking.picked(screened, known, is_generated, count=4, draws=4000, seed=1)
    for name in ("best", "mean"):
        for side in ("generated", "null"):
            assert found[name][side] == whole[name][side]
        assert found[name]["p_value"] == pytest.approx(whole[name]["p_value"], abs=0.04)


@pytest.mark.parametrize(("generated", "null", "count"), [(30, 40, 3), (200, 100, 5), (5, 500, 2), (4, 4, 4)])
def test_reach_is_the_least_that_is_never_too_few(generated, null, count):
    def too_few(leading):
        """The chance that fewer than ``count`` of the rarer side are among the leading."""
        rare, other = sorted((generated, null))
        ways = sum(math.comb(rare, k) * math.comb(other, leading - k) for k in range(count))
        return ways / math.comb(generated + null, leading)

    found = picking.reach(generated, null, count)
    assert too_few(found) < 1e-9
    assert found == count or too_few(found - 1) >= 1e-9


def test_equals_are_ordered_by_the_seed_alone():
    screened = np.array([1.0, 2.0, 1.0, 2.0] * 10)
    orders = [picking.judging_order(screened, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    for order in orders:
        assert (screened[order][:20] == 2).all()
    # Neither side is favoured by its place in the file.
    firsts = [picking.judging_order(np.zeros(10), seed=seed)[0] for seed in range(200)]
    assert np.mean(np.array(firsts) < 5) == pytest.approx(0.5, abs=0.12)


def test_picked_failures():
    good, sides = np.arange(6.0), np.arange(6) < 3
    with pytest.raises(
        ValueError, match=r"one value a network of each, got shapes \(6,\), \(5,\) and \(6,\)"
    ):
        picking.picked(good, good[:5], sides, count=1)
    with pytest.raises(ValueError, match="one value a network"):
        picking.picked(good[None], good[None], sides[None], count=1)
    with pytest.raises(ValueError, match="screened"):
        picking.picked(np.where(good == 2, np.nan, good), good, sides, count=1)
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"cannot pick {count} of 3 generated and 3 null networks"):
            picking.picked(good, good, sides, count=count)
    for unknown in (5, 2):  # the best of either side
        with pytest.raises(ValueError, match="a picked network was not judged"):
            picking.picked(good, np.where(good == unknown, np.nan, good), sides, count=1)
    good, sides = np.arange(8.0), np.isin(np.arange(8), (7, 6, 1, 0))
    judged = np.where(good >= 4, good, np.nan)  # the picks of both sides, and no more
    with pytest.raises(
        ValueError, match="only the 4 leading networks were judged, too few to pick 2 from in"
    ):
        picking.picked(good, judged, sides, count=2, draws=500)
