import itertools

import jax
import numpy as np
import pytest

from kernelgan.evaluation import novelty

DEPTHS = pytest.mark.parametrize("filters", [(6,), (6, 16), (4, 5, 6)])


def _networks(seed, count, filters=(6, 16)):
    rng = np.random.default_rng(seed)
    channels = itertools.pairwise((3, *filters))
    return [rng.normal(size=(count, 5, 5, *pair)).astype(np.float32) for pair in channels]


def _novelty(networks, parents):
    return novelty.novelty(networks, novelty.compare_parents(parents))


def _reordered(kernels, seed):
    rng = np.random.default_rng(seed)
    made, order = [], np.arange(kernels[0].shape[3])
    for kernel in kernels:
        kernel, order = kernel[..., order, :], rng.permutation(kernel.shape[-1])
        made.append(kernel[..., order])
    return made


@DEPTHS
def test_a_reordered_copy_is_at_distance_zero(filters):
    parents = _networks(0, 5, filters)
    copies = _reordered([layer[3:4] for layer in parents], seed=1)
    assert np.linalg.norm(copies[-1] - parents[-1][3:4]) > 1
    found = _novelty(copies, parents)
    assert found.nearest.tolist() == [3]
    assert found.distance[0] == pytest.approx(0, abs=1e-12)
    assert found.relative_to_nearest[0] == pytest.approx(0, abs=1e-12)


@DEPTHS
def test_noise_on_a_reordered_copy_is_its_distance(filters):
    parents = _networks(0, 5, filters)
    rng = np.random.default_rng(2)
    noise = [0.05 * rng.normal(size=layer[1:2].shape) for layer in parents]
    noisy = _reordered([layer[1:2] + one for layer, one in zip(parents, noise, strict=True)], seed=1)
    found = novelty.matched_distances(noisy, parents)
    assert found.argmin(axis=1).tolist() == [1]
    assert found[0, 1] == pytest.approx(np.sqrt(sum(np.sum(n**2) for n in noise)))
    assert _novelty(noisy, parents).relative_to_nearest[0] < 0.1


@DEPTHS
def test_a_rescaled_copy_is_at_distance_zero(filters):
    parents = _networks(0, 5, filters)
    rng, copies, before = np.random.default_rng(3), [], np.ones(3)
    for layer in parents:
        factor = rng.uniform(0.2, 5, layer.shape[-1])
        copies.append(layer[2:3] * factor / before[:, None])
        before = factor
    found = _novelty(copies, parents)
    assert found.nearest.tolist() == [2]
    assert found.distance[0] == pytest.approx(0, abs=1e-6)


def test_layer_by_layer_matching_agrees_with_trying_every_order():
    own, other = _networks(3, 2, filters=(3, 4)), _networks(4, 3, filters=(3, 4))
    found = novelty.matched_distances(own, other)
    assert found.shape == (2, 3)
    for m, k in itertools.product(range(2), range(3)):
        first = min(
            (np.sum((own[0][m] - other[0][k][..., list(order)]) ** 2.0), order)
            for order in itertools.permutations(range(3))
        )
        matched = other[1][k][:, :, list(first[1]), :]
        second = min(
            np.sum((own[1][m] - matched[..., list(order)]) ** 2.0)
            for order in itertools.permutations(range(4))
        )
        assert found[m, k] == pytest.approx(np.sqrt(first[0] + second), rel=1e-6)
    np.testing.assert_allclose(novelty.matched_distances(other, own), found.T, rtol=1e-6)


@DEPTHS
def test_a_new_network_is_as_far_as_parents_are_from_each_other(filters):
    found = _novelty(_networks(1, 20, filters), _networks(0, 12, filters))
    np.testing.assert_allclose(found.relative_to_nearest, 1, atol=0.08)


def test_error_overlaps_with_every_parent():
    parents = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
    errors = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    expected = [[1, 0], [1 / 3, 0], [0, 0], [0, 1]]
    np.testing.assert_allclose(novelty.error_overlaps(errors, parents), expected)


@pytest.mark.parametrize(("layer", "factor"), [(0, 0), (0, 1e-12), (1, 0), (1, 1e-12), (2, 0)])
def test_filters_that_are_hardly_heard_or_silenced_are_no_novelty(layer, factor):
    kernels = _networks(0, 6, (5, 6, 7))
    silent = [kernel.copy() for kernel in kernels]
    silent[layer][..., 1:3] *= factor
    found = _novelty(silent, kernels)
    np.testing.assert_allclose(found.distance, 0, atol=1e-6)
    np.testing.assert_array_equal(found.nearest, np.arange(6))


def test_failures():
    own, parents = _networks(0, 2), _networks(1, 3)
    with pytest.raises(ValueError, match="at least 2 parents"):
        novelty.compare_parents([layer[:1] for layer in parents])
    with pytest.raises(ValueError, match="exact copies"):
        novelty.compare_parents([np.repeat(layer[:1], 3, axis=0) for layer in parents])
    with pytest.raises(ValueError, match="network kernels must be"):
        _novelty([own[0], own[1][:1]], parents)
    with pytest.raises(ValueError, match=r"the inputs of the next, got \(2, 5, 5, 3, 6\), \(2, 5, 5, 3, 6\)"):
        _novelty([own[0], own[0]], parents)
    with pytest.raises(ValueError, match="got none"):
        _novelty([], parents)
    with pytest.raises(ValueError, match="kernels of the same shape"):
        _novelty(_networks(0, 2, filters=(6, 8)), parents)
    with pytest.raises(ValueError, match="parent kernels are not finite"):
        novelty.compare_parents([parents[0] * np.nan, parents[1]])


def test_networks_that_are_one_function_count_once(make_parents):
    """The order of filters and positive factors between layers make no other network; a bias does."""
    params = jax.tree.map(np.copy, make_parents(5, seed=3))
    first, second = params["conv1"], params["conv2"]
    for layer in params.values():  # network 3 is network 1
        for leaf in layer.values():
            leaf[3] = leaf[1]
    order = np.array([1, 0])
    first["kernel"][3], first["bias"][3] = 7 * first["kernel"][1][..., order], 7 * first["bias"][1][order]
    second["kernel"][3] = second["kernel"][1][:, :, order] / 7
    order = np.array([2, 0, 1])
    second["kernel"][3], second["bias"][3] = second["kernel"][3][..., order], second["bias"][1][order]
    rows = params["dense"]["kernel"][1].reshape(3, -1, 2)
    params["dense"]["kernel"][3] = rows[order].reshape(-1, 2)
    np.testing.assert_array_equal(novelty.distinct(params), [0, 1, 2, 4])
    second["bias"][3] += 0.01
    np.testing.assert_array_equal(novelty.distinct(params), np.arange(5))
