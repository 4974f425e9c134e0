import copy
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kernelgan.evaluation import bootstrap, comparison, null_test


def _record(means, kinds=None, pair=("a", "b")):
    kinds = kinds or {}
    return {
        "pair": dict(zip(("attribute", "object"), pair, strict=True)),
        "methods": {
            name: {"kind": kinds.get(name, "merge"), "auroc": {"worst": {"mean": mean}}}
            for name, mean in means.items()
        },
    }


# Two methods on one pair.


def test_a_difference_is_the_normal_test_of_the_replicates():
    rng = np.random.default_rng(0)
    one, other = 0.7 + 0.02 * rng.normal(size=500), 0.6 + 0.03 * rng.normal(size=500)
    found = comparison.difference(0.7, 0.6, one, other)
    error = np.std(one - other, ddof=1)
    assert found["difference"]["mean"] == pytest.approx(0.1)
    assert found["p_value"] == pytest.approx(2 * stats.norm.sf(0.1 / error))
    np.testing.assert_allclose(
        found["difference"]["ci95"], [0.1 - 1.96 * error, 0.1 + 1.96 * error], rtol=1e-3
    )
    turned = comparison.difference(0.6, 0.7, other, one)
    assert turned["difference"]["mean"] == pytest.approx(-0.1)
    assert turned["p_value"] == pytest.approx(found["p_value"])


@pytest.mark.parametrize(("other", "p_value"), [(0.7, 1.0), (0.6, 0.0)])
def test_methods_without_spread(other, p_value):
    found = comparison.difference(0.7, other, np.full(9, 0.7), np.full(9, other))
    assert found["p_value"] == p_value


@pytest.mark.parametrize("count", [1, 8])
def test_replicates_that_do_not_fit_are_refused(count):
    with pytest.raises(ValueError, match="resamples"):
        comparison.difference(0.5, 0.5, np.zeros(9), np.zeros(count))


def test_p_values_hold_their_promise_where_there_is_no_difference():
    """Two populations from one distribution, on the same images: few p-values are small."""
    quadrant, p_values = np.repeat([0, 1, 2, 3], 30), []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=120)
        # Networks differ in skill, and in what they see in an image.
        skill = [0.5 + 0.3 * rng.normal(size=(6, 1)) for _ in range(2)]
        scores = [shared + own * (quadrant == 0) + rng.normal(size=(6, 120)) for own in skill]
        outcomes = [
            bootstrap.intervals_and_replicates(one, quadrant, resamples=200, seed=seed) for one in scores
        ]
        (first, of_first), (second, of_second) = outcomes
        means = [record["auroc"]["worst"]["mean"] for record in (first, second)]
        p_values.append(comparison.difference(*means, of_first, of_second)["p_value"])
    assert np.mean(np.array(p_values) < 0.05) <= 0.07
    assert 0.15 <= np.mean(np.array(p_values) < 0.5) <= 0.6  # conservative, as the module says, not useless


def test_who_is_compared_with_whom():
    means = {"random": 0.4, "and_ensemble": 0.7, "average": 0.5, "cyclegan_a2b": 0.45}
    replicates = {name: mean + np.linspace(-0.1, 0.1, 5) for name, mean in means.items()}
    found = comparison.pair_tests(means, replicates, ["cyclegan_a2b"])
    assert set(found["cyclegan_a2b"]) == {"random", "and_ensemble", "average"}
    assert set(found["average"]) == {"and_ensemble"}
    assert found["and_ensemble"] == {}
    assert found["average"]["and_ensemble"]["difference"]["mean"] == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("sizes", "between", "expected"),
    [
        ((8, 8), 0.05, np.inf),
        ((4, 40), 0.05, 3),  # nearly all from the four
        ((4, 4), 0.05, 6),
        ((1, 4), 0.05, 3),  # a readout has no networks
        ((1, 1), 0.05, np.inf),
    ],
)
def test_few_networks_have_few_degrees_of_freedom(sizes, between, expected):
    values = [0.7 + between * np.linspace(-1, 1, size) for size in sizes]
    error = np.sqrt(sum(np.var(one, ddof=1) / len(one) for one in values if len(one) > 1) or 1e-4)
    replicates = error * np.random.default_rng(0).normal(size=100_000)
    found = comparison.difference(0.72, 0.7, replicates, 0 * replicates, values)
    assert found["freedom"] == pytest.approx(expected, rel=0.35)
    assert found["freedom"] >= min(size - 1 for size in sizes if size > 1) if max(sizes) > 1 else True
    expected_p = 2 * stats.t.sf(0.02 / found["error"], found["freedom"])
    assert found["p_value"] == pytest.approx(expected_p)


def test_four_networks_against_four_hold_their_promise():
    """Where nearly all noise is between networks; a normal test is wrong in about one of ten."""
    outcomes = []
    for seed in range(600):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(2, 4))
        drawn = [
            bootstrap.network_shares(4, resamples=200, seed=2 * seed + side) @ one
            for side, one in enumerate(values)
        ]
        means = values.mean(axis=1)
        outcomes.append(
            [comparison.difference(*means, *drawn, given)["p_value"] < 0.05 for given in (values, ())]
        )
    student, normal = np.mean(outcomes, axis=0)
    assert 0.03 <= student <= 0.065
    assert normal > 0.08


def test_one_network_of_a_generated_method_supports_no_claim():
    replicates = {name: mean + 0.001 * np.arange(5) for name, mean in (("one", 0.9), ("other", 0.5))}
    means = {"one": 0.9, "other": 0.5}
    networks = {"one": np.array([0.9]), "other": np.full(8, 0.5)}
    assert comparison.pair_tests(means, replicates, ["one"], networks)["one"]["other"]["p_value"] == 1


@pytest.mark.parametrize("freedom", [np.inf, 4.0])
def test_the_detectable_gain_is_found_with_the_power_that_is_meant(freedom):
    rng = np.random.default_rng(0)
    gain = comparison.detectable(0.02, freedom, 6)
    chi = 1.0 if np.isinf(freedom) else np.sqrt(rng.chisquare(freedom, 200_000) / freedom)
    found = np.abs(gain / 0.02 + rng.normal(size=200_000)) / chi
    power = np.mean(6 * 2 * stats.t.sf(found, freedom) < 0.05)
    assert power == pytest.approx(0.8, abs=0.06)


# Corrections.


def test_p_values_are_corrected_for_the_pick_and_over_the_pairs():
    kinds = {"one": "generated", "two": "generated"}
    pairs = []
    for p_value in (0.001, 0.02, 0.4):
        pair = _record({"one": 0.5, "two": 0.5, "other": 0.5}, kinds)
        pair["tests"] = {"one": {"other": {"p_value": p_value}}, "other": {"two": {"p_value": p_value}}}
        pair["null_test"] = {"p_value": p_value}
        pairs.append(pair)
    comparison.adjust(pairs)
    found = [pair["tests"]["one"]["other"]["p_adjusted"] for pair in pairs]
    np.testing.assert_allclose(found, null_test.holm([0.002, 0.04, 0.8]))
    found = [pair["tests"]["other"]["two"]["p_adjusted"] for pair in pairs]
    np.testing.assert_allclose(found, null_test.holm([0.001, 0.02, 0.4]))
    found = [pair["null_test"]["p_adjusted"] for pair in pairs]
    np.testing.assert_allclose(found, null_test.holm([0.001, 0.02, 0.4]))


# Over pairs.


@pytest.fixture(scope="module")
def board():
    """5 x 6 pairs; `better` gains 0.1 on and_ensemble, `same` nothing on average; two lack a reference."""
    rng = np.random.default_rng(0)
    kinds = {"better": "generated", "and_ensemble": "two nets", "random": "null"}
    pairs = []
    for number in range(30):
        base = rng.uniform(0.5, 0.8)
        means = {
            "random": 0.4 + 0.2 * (number % 2),
            "and_ensemble": base,
            "better": base + 0.1 + 0.02 * rng.normal(),
            "same": base + 0.02 * rng.normal(),
            "trained_on_conjunction": 0.9,
        }
        if number < 2:
            del means["trained_on_conjunction"]
        found = {name: mean - 0.01 + 0.01 * rng.normal(size=300) for name, mean in means.items()}
        pair = _record(means, kinds, (f"attribute {number // 6}", f"object {number % 6}"))
        pair["tests"] = comparison.pair_tests(means, found, ["better"])
        pairs.append(pair)
    comparison.adjust(pairs)
    return pairs, comparison.overall(pairs, merit="worst", resamples=400, seed=0)


def test_the_board_has_means_over_pairs(board):
    pairs, overall = board
    assert (overall["pairs"], overall["attributes"], overall["objects"]) == (30, 5, 6)
    for name, method in overall["methods"].items():
        means = [pair["methods"][name]["auroc"]["worst"]["mean"] for pair in pairs if name in pair["methods"]]
        found = method["auroc"]["worst"]
        assert method["pairs"] == len(means)
        assert found["mean"] == pytest.approx(np.mean(means))
        assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
        assert np.mean(found["ci95"]) == pytest.approx(found["mean"])


def test_the_figures_beside_the_merit_are_means_over_the_pairs_that_have_them(board):
    pairs = [{**pair, "methods": {**pair["methods"]}} for pair in board[0]]
    for number, pair in enumerate(pairs):
        better = pair["methods"]["better"]
        beside = {"worst_of_means": {"mean": 0.7}}
        if number % 2:
            beside["worst_calibrated"] = {"mean": number / 100}
        pair["methods"]["better"] = {**better, "auroc": {**better["auroc"], **beside}}
    found = comparison.overall(pairs, merit="worst", resamples=50, seed=0)["methods"]
    assert found["better"]["auroc"]["worst_of_means"]["mean"] == pytest.approx(0.7)
    assert found["better"]["auroc"]["worst_calibrated"]["mean"] == pytest.approx(
        np.mean(range(1, 30, 2)) / 100
    )
    assert set(found["and_ensemble"]["auroc"]) == {"worst"}


def test_a_better_method_wins_clearly_and_an_equal_one_does_not(board):
    _, overall = board
    against = overall["methods"]["better"]["against"]
    assert (against["wins"], against["losses"], against["clear_losses"]) == (30, 0, 0)
    assert against["clear_wins"] >= 28
    assert against["p_value"] < 0.001
    assert overall["tests"]["better"]["and_ensemble"]["p_adjusted"] == against["p_adjusted"]
    assert overall["methods"]["and_ensemble"]["against"] is None
    equal = overall["methods"]["same"]["against"]
    assert equal["wins"] + equal["losses"] == 30
    assert equal["p_value"] > 0.05


def test_the_share_recovered_is_of_the_pairs_that_have_a_reference(board):
    pairs, overall = board
    whole = [pair["methods"] for pair in pairs if "trained_on_conjunction" in pair["methods"]]
    mine = np.mean([methods["better"]["auroc"]["worst"]["mean"] for methods in whole])
    recovered = overall["methods"]["better"]["recovered"]
    floor = np.mean([max(0.5, methods["random"]["auroc"]["worst"]["mean"]) for methods in whole])
    assert recovered["mean"] == pytest.approx((mine - floor) / (0.9 - floor))
    assert recovered["ci95"][0] < recovered["mean"] < recovered["ci95"][1]
    assert overall["methods"]["random"]["recovered"]["mean"] == pytest.approx((0.5 - floor) / (0.9 - floor))
    assert overall["methods"]["trained_on_conjunction"]["recovered"]["mean"] == pytest.approx(1)


@pytest.mark.parametrize(("reference", "known"), [(0.54, False), (0.56, True)])
def test_no_share_is_given_of_hardly_any_way(reference, known):
    means = {"random": 0.4, "x": 0.52, "and_ensemble": 0.6, "trained_on_conjunction": reference}
    pairs = [_record(means, {"x": "generated"}, (f"a{n}", f"o{n}")) for n in range(3)]
    for pair in pairs:
        pair["tests"] = comparison.pair_tests(means, {name: np.zeros(3) for name in means}, ["x"])
    comparison.adjust(pairs)
    found = comparison.overall(pairs, merit="worst", resamples=50, seed=0)
    assert (found["methods"]["x"]["recovered"] is not None) == known


def _matrix(differences):
    """Pairs ``(A, O)`` on which `one` is above and_ensemble by these."""
    pairs = []
    for (row, column), value in np.ndenumerate(differences):
        means = {"one": 0.5 + value, "and_ensemble": 0.5}
        pair = _record(means, {"one": "generated"}, (f"a{row}", f"o{column}"))
        pair["tests"] = comparison.pair_tests(means, {name: np.zeros(3) for name in means}, ["one"])
        pairs.append(pair)
    comparison.adjust(pairs)
    return comparison.overall(pairs, merit="worst", resamples=400, seed=0)


def test_sign_and_p_value_are_of_the_same_mean():
    """A little below on most pairs and far above on a few: no finding either way."""
    differences = np.full((9, 6), -0.01)
    differences[np.arange(5), np.arange(5)] = 0.3
    test = _matrix(differences)["tests"]["one"]["and_ensemble"]
    assert test["difference"]["mean"] > 0
    low, high = test["difference"]["ci95"]
    assert low < 0 < high
    assert test["p_value"] > 0.05


def test_pairs_that_share_concepts_are_not_taken_for_independent():
    """No difference but those of rows and columns, on a matrix with holes: p-values hold their promise."""
    p_values = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        cells = rng.normal(size=(9, 10)) + rng.normal(size=(9, 1)) + rng.normal(size=10)
        there = rng.random(cells.shape) <= 0.6
        drawings = comparison.Drawings(np.argwhere(there).tolist(), resamples=400, seed=0)
        p_values.append(drawings.test(cells[there])["p_value"])
    assert np.mean(np.array(p_values) < 0.05) <= 0.07
    assert np.mean(np.array(p_values) < 0.5) >= 0.3


def test_one_attribute_with_several_objects_has_a_board_too():
    overall = _matrix(np.array([[0.1, 0.11, 0.12, 0.1, 0.09, 0.1]]))
    assert overall["tests"]["one"]["and_ensemble"]["p_value"] < 0.001


def test_one_pair_has_no_board(board):
    assert comparison.overall(board[0][:1], merit="worst", resamples=10, seed=0) is None


# Trainings of a generator ---------------------------------------------------------------------------------


def _pair_of(difference, error, trainings):
    test = {
        "difference": {"mean": difference, "ci95": [0.0, 0.0]},
        "p_value": float(2 * stats.norm.sf(abs(difference) / error)),
        "error": error,
        "freedom": math.inf,
    }
    return {"methods": {"mine": {"trainings": trainings}}, "tests": {"mine": {"zipit": test}}}


@pytest.mark.parametrize("trainings", [(), (0.75,), (0.75, 0.75, 0.75)])
def test_trainings_that_do_not_differ_change_no_test(trainings):
    pair = _pair_of(0.05, 0.01, trainings)
    expected = copy.deepcopy(pair)
    comparison.add_trainings(pair)
    assert pair == expected


def test_a_training_is_a_random_unit():
    """Generators of which each training draws an offset: no more than the level is called different."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        offsets = 0.1 * rng.normal(size=3)
        pair = _pair_of(offsets.mean() + 0.02 * rng.normal(), 0.02, tuple(0.7 + offsets))
        comparison.add_trainings(pair)
        found.append(pair["tests"]["mine"]["zipit"]["p_value"] < 0.05)
    assert np.mean(found) < 0.065


def test_over_pairs_trainings_that_disagree_have_few_degrees_of_freedom():
    pairs = []
    for number, (attribute, thing) in enumerate(itertools.product("abcd", "wxyz")):
        mean = 0.7 + 0.001 * number
        methods = {
            "mine": {"kind": "generated", "auroc": {"worst": {"mean": mean}}, "steps": 9},
            "zipit": {"kind": "merge", "auroc": {"worst": {"mean": mean - 0.05 - 0.0001 * number}}},
        }
        pairs.append({"pair": {"attribute": attribute, "object": thing}, "methods": methods, "tests": {}})
    settings = {"merit": "worst", "resamples": 200, "seed": 0}
    surely = comparison.overall(pairs, **settings)["tests"]["mine"]["zipit"]
    for pair in pairs:
        mean = pair["methods"]["mine"]["auroc"]["worst"]["mean"]
        pair["methods"]["mine"]["trainings"] = [mean - 0.04, mean, mean + 0.04]
    record = comparison.overall(pairs, **settings)
    found = record["tests"]["mine"]["zipit"]
    assert np.diff(record["methods"]["mine"]["trainings"]) == pytest.approx([0.04, 0.04])
    assert found["error"] == pytest.approx(math.hypot(surely["error"], 0.04 / math.sqrt(3)))
    assert found["freedom"] == pytest.approx(2, abs=0.1)
    assert surely["p_adjusted"] < 0.05 < found["p_adjusted"]
