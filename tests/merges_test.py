import functools
import itertools

import jax
import numpy as np
import pytest

from kernelgan import models
from kernelgan.baselines import merges
from kernelgan.evaluation import features

IMAGE_SIZE = 16
LAYERS = ("conv1", "conv2")


@functools.cache
def _made(network, count, seed, size=IMAGE_SIZE):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.device_get(jax.jit(jax.vmap(lambda key: models.initialise_convnet(network, size, key)))(keys))


@pytest.fixture(scope="module")
def network():
    """Odd numbers of filters."""
    return models.ConvNet(filters=(3, 5), kernel_size=3)


@pytest.fixture(scope="module")
def parents(network):
    """Three pairs."""
    return _made(network, 3, seed=1), _made(network, 3, seed=2)


@pytest.fixture(scope="module")
def merge(images):
    """Every merge of two parents, by name."""
    return {
        "average": merges.average,
        "rebasin_average": merges.rebasin_average,
        "concatenate": merges.concatenate,
        "zipit": lambda attribute, objects: merges.zipit(attribute, objects, images),
    }


NAMES = ("average", "rebasin_average", "concatenate", "zipit")


def _logits(network, params, images):
    return features.population_logits(network, params, images, chunk_size=8)


def _both(network, attribute, objects, images):
    return np.concatenate([_logits(network, params, images) for params in (attribute, objects)], axis=-1)


def _reordered(params, orders):
    """The same functions with filters in these orders, `(M, O)` by layer."""
    found = {layer: dict(params[layer]) for layer in (*LAYERS, "dense")}
    for m, (first, second) in enumerate(zip(orders["conv1"], orders["conv2"], strict=True)):
        for layer, order in (("conv1", first), ("conv2", second)):
            for name in ("kernel", "bias"):
                found[layer][name] = found[layer][name].copy()
                found[layer][name][m] = found[layer][name][m][..., order]
        found["conv2"]["kernel"][m] = found["conv2"]["kernel"][m][:, :, first]
        dense = params["dense"]["kernel"][m]
        found["dense"]["kernel"] = found["dense"]["kernel"].copy()
        found["dense"]["kernel"][m] = dense.reshape(len(second), -1, 2)[second].reshape(dense.shape)
    return found


def _random_orders(params, seed):
    rng = np.random.default_rng(seed)
    return {layer: rng.permuted(np.indices(params[layer]["bias"].shape)[1], axis=1) for layer in LAYERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_merge_is_of_its_own_pair_alone_and_leaves_it_as_it_was(merge, name, parents, assert_trees_close):
    before = jax.tree.map(np.array, parents)
    whole = merge[name](*parents)
    jax.tree.map(np.testing.assert_array_equal, parents, before)
    for m in range(3):
        one = merge[name](*jax.tree.map(lambda leaf, m=m: leaf[m : m + 1], parents))
        assert_trees_close(one, jax.tree.map(lambda leaf, m=m: leaf[m : m + 1], whole), atol=1e-6)


def test_the_average_is_the_mean_with_both_heads(parents):
    found = merges.average(*parents)
    for layer, name in itertools.product(LAYERS, ("kernel", "bias")):
        expected = (parents[0][layer][name] + parents[1][layer][name]) / 2
        np.testing.assert_array_equal(found[layer][name], expected)
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(found["dense"][name][..., :2], parents[0]["dense"][name])
        np.testing.assert_array_equal(found["dense"][name][..., 2:], parents[1]["dense"][name])


@pytest.mark.parametrize("name", ["rebasin_average", "zipit"])
def test_a_parent_and_its_reordered_copy_with_another_head_are_merged_without_loss(
    merge, name, network, parents, images
):
    attribute, other = parents
    copy = {**attribute, "dense": other["dense"]}
    objects = _reordered(copy, _random_orders(copy, seed=3))
    expected = _both(network, attribute, copy, images)
    np.testing.assert_allclose(_logits(network, merge[name](attribute, objects), images), expected, atol=1e-5)
    naive = _logits(network, merges.average(attribute, objects), images)
    assert np.abs(naive - expected).max() > 1e-2


def _agreement(attribute, objects):
    """Inner products `(M,)` of two populations' kernels and biases, heads left out."""
    return sum(
        np.sum(a.astype(float) * b, axis=tuple(range(1, a.ndim)))
        for layer in LAYERS
        for a, b in zip(jax.tree.leaves(attribute[layer]), jax.tree.leaves(objects[layer]), strict=True)
    )


@pytest.mark.parametrize(("scale", "share"), [(1, 0.9), (0.1, 0.7)])
def test_no_other_order_of_one_layer_agrees_better_than_the_matched(scale, share):
    """With a small first layer the second has its say in how the first is matched."""
    network = models.ConvNet(filters=(3, 4), kernel_size=3)
    attribute, objects = _made(network, 12, seed=1), _made(network, 12, seed=2)
    for params in (attribute, objects):
        params["conv1"] = jax.tree.map(lambda leaf: leaf * np.float32(scale), params["conv1"])
    orders = merges.match_weights(attribute, objects)
    found = _agreement(attribute, _reordered(objects, orders))
    for layer, filters in zip(LAYERS, network.filters, strict=True):
        for order in itertools.permutations(range(filters)):
            other = {**orders, layer: np.tile(order, (12, 1))}
            assert (_agreement(attribute, _reordered(objects, other)) <= found + 1e-6).all()
    everything = itertools.product(*(itertools.permutations(range(n)) for n in network.filters))
    best = np.max(
        [
            _agreement(
                attribute,
                _reordered(objects, {"conv1": np.tile(a, (12, 1)), "conv2": np.tile(b, (12, 1))}),
            )
            for a, b in everything
        ],
        axis=0,
    )
    assert (found <= best + 1e-6).all()
    assert found.sum() > share * best.sum()  # one start of coordinate descent, not every order


def _without(params, dropped, seed):
    """Some filters of each layer, `dropped` of them in each network, are zero."""
    rng = np.random.default_rng(seed)
    found = {**params}
    for layer in LAYERS:
        members, filters = params[layer]["bias"].shape
        kept = np.argsort(rng.random((members, filters)), axis=1) >= dropped[layer]
        found[layer] = {
            "kernel": params[layer]["kernel"] * kept[:, None, None, None],
            "bias": params[layer]["bias"] * kept,
        }
    return found


def test_parents_of_half_their_filters_are_concatenated_without_loss(network, parents, images):
    # Of 3 and 5 filters the attribute's parent keeps 2 and 3, the object's 1 and 2.
    attribute = _without(parents[0], {"conv1": 1, "conv2": 2}, seed=0)
    objects = _without(parents[1], {"conv1": 2, "conv2": 3}, seed=1)
    found = merges.concatenate(attribute, objects)
    expected = _both(network, attribute, objects, images)
    np.testing.assert_allclose(_logits(network, found, images), expected, atol=1e-5)
    np.testing.assert_array_equal(found["conv2"]["kernel"][..., :2, 3:], 0)
    np.testing.assert_array_equal(found["conv2"]["kernel"][..., 2:, :3], 0)
    heads = found["dense"]["kernel"].reshape(3, 5, -1, 4)
    np.testing.assert_array_equal(heads[:, 3:, :, :2], 0)
    np.testing.assert_array_equal(heads[:, :3, :, 2:], 0)


def test_the_filters_of_largest_norm_over_kept_inputs_are_concatenated(parents):
    attribute, objects = jax.tree.map(np.copy, parents)
    for params in (attribute, objects):
        params["conv1"]["kernel"] = np.sign(params["conv1"]["kernel"]) * np.float32([2, 1, 3])
        params["conv2"]["kernel"] = np.sign(params["conv2"]["kernel"]) * np.float32([1, 5, 3, 2, 4])
        params["conv2"]["kernel"][:, :, :, 1, 0] = 1000  # reads a filter that both drop
    found = merges.concatenate(attribute, objects)
    np.testing.assert_array_equal(
        found["conv1"]["kernel"][..., :2], attribute["conv1"]["kernel"][..., [0, 2]]
    )
    np.testing.assert_array_equal(found["conv1"]["kernel"][..., 2:], objects["conv1"]["kernel"][..., [2]])
    of_attribute = attribute["conv2"]["kernel"][:, :, :, [0, 2]][..., [1, 2, 4]]
    np.testing.assert_array_equal(found["conv2"]["kernel"][..., :2, :3], of_attribute)
    of_objects = objects["conv2"]["kernel"][:, :, :, [2]][..., [1, 4]]
    np.testing.assert_array_equal(found["conv2"]["kernel"][..., 2:, 3:], of_objects)
    bias = np.concatenate([attribute["conv2"]["bias"][:, [1, 2, 4]], objects["conv2"]["bias"][:, [1, 4]]], 1)
    np.testing.assert_array_equal(found["conv2"]["bias"], bias)


def _slow_features(params, images):
    """Features of one network of 1 x 1 kernels by layer, `(N, H, W, O)`, pixel by pixel."""
    found, hidden = [], (images / 255 - 0.5) / 0.5
    for layer in LAYERS:
        activated = np.maximum(hidden @ params[layer]["kernel"][0, 0] + params[layer]["bias"], 0)
        n, h, w, filters = activated.shape
        hidden = activated.reshape(n, h // 2, 2, w // 2, 2, filters).max(axis=(2, 4))
        found.append(hidden)
    return found


def _slow_zip(attribute, objects, images):
    """One pair of networks of 1 x 1 kernels by explicit matrices: weights `M (W_A (+) W_B) U`."""
    pair, found = (attribute, objects), {}
    unmerge = np.concatenate([np.eye(3)] * 2)
    activations = [_slow_features(params, images) for params in pair]
    for number, layer in enumerate(LAYERS):
        joint = np.concatenate([of_parent[number] for of_parent in activations], axis=-1)
        count = joint.shape[-1]
        correlation = np.corrcoef(joint.reshape(-1, count).T)
        free, chosen = set(range(count)), []
        for pair_of in sorted(itertools.combinations(range(count), 2), key=lambda p: -correlation[p]):
            if free.issuperset(pair_of):
                free -= set(pair_of)
                chosen.append(pair_of)
        into = np.zeros((count, count // 2))
        for column, pair_of in enumerate(sorted(chosen)):
            into[list(pair_of), column] = 1
        a, b = (params[layer]["kernel"][0, 0].T for params in pair)
        weights = np.block([[a, np.zeros_like(a)], [np.zeros_like(b), b]])
        merge = into.T / into.sum(axis=0)[:, None]
        bias = merge @ np.concatenate([params[layer]["bias"] for params in pair])
        found[layer] = {"kernel": (merge @ weights @ unmerge).T[None, None], "bias": bias}
        unmerge = into
    filters = len(unmerge) // 2
    heads = []
    for side, params in enumerate(pair):
        own = unmerge[side * filters : (side + 1) * filters]
        positions = len(params["dense"]["kernel"]) // filters
        heads.append(np.kron(own, np.eye(positions)).T @ params["dense"]["kernel"])
    bias = np.concatenate([params["dense"]["bias"] for params in pair])
    found["dense"] = {"kernel": np.concatenate(heads, axis=1), "bias": bias}
    return found


def test_zipping_is_the_papers_algebra(images, assert_trees_close):
    network = models.ConvNet(filters=(6, 5), kernel_size=1)
    attribute, objects = _made(network, 3, seed=7, size=8), _made(network, 3, seed=8, size=8)
    for params, layer in itertools.product((attribute, objects), LAYERS):  # no feature is always zero
        params[layer] = {**params[layer], "bias": 0.4 + np.abs(params[layer]["bias"])}
    small = images[:20, 4:12, 4:12]
    found = merges.zipit(attribute, objects, small)
    for m in range(3):
        pair = [jax.tree.map(lambda leaf, m=m: leaf[m], params) for params in (attribute, objects)]
        expected = _slow_zip(*pair, small)
        assert_trees_close(jax.tree.map(lambda leaf, m=m: leaf[m], found), expected, atol=1e-5)


def test_correlations_are_of_all_images_however_many_at_once(parents, images, monkeypatch):
    whole = merges.feature_correlations(*parents, images[:20])
    monkeypatch.setattr(merges, "_IMAGES_AT_ONCE", 7)
    monkeypatch.setattr(merges, "_PAIRS_AT_ONCE", 2)
    parts = merges.feature_correlations(*parents, images[:20])
    for layer, filters in zip(LAYERS, (3, 5), strict=True):
        assert whole[layer].shape == (3, 2 * filters, 2 * filters)
        np.testing.assert_allclose(parts[layer], whole[layer], atol=1e-4)


def test_a_feature_that_does_not_vary_correlates_with_none(parents, images):
    dead = jax.tree.map(np.copy, parents[0])
    dead["conv1"]["bias"][:, 1] = -100
    dead["conv1"]["kernel"][..., 2] = 0  # constant
    dead["conv1"]["bias"][:, 2] = 0.7
    found = merges.feature_correlations(dead, parents[1], images)["conv1"]
    np.testing.assert_array_equal(found[:, 1:3], 0)
    np.testing.assert_allclose(found[:, 0, 0], 1)
    assert np.isfinite(jax.tree.leaves(merges.zipit(dead, parents[1], images))[0]).all()


@pytest.fixture(scope="module")
def translated(network):
    return _made(network.clone(outputs=4), 3, seed=9)


def test_noise_is_of_the_translations_size_and_the_rest_is_the_translations(parents, translated):
    found = merges.noise(parents[0], translated, seed=0)
    for layer in LAYERS:
        before, after = parents[0][layer]["kernel"], translated[layer]["kernel"]
        sizes = [
            np.linalg.norm((kernel - before).reshape(3, -1), axis=1)
            for kernel in (found[layer]["kernel"], after)
        ]
        np.testing.assert_allclose(*sizes, rtol=1e-5)
        assert len(set(sizes[1])) == 3
        np.testing.assert_array_equal(found[layer]["bias"], translated[layer]["bias"])
        cosine = np.sum((found[layer]["kernel"] - before) * (after - before)) / np.sum(sizes[0] * sizes[1])
        assert abs(cosine) < 0.3
        assert found[layer]["kernel"].dtype == np.float32
    np.testing.assert_array_equal(found["dense"]["kernel"], translated["dense"]["kernel"])
    np.testing.assert_array_equal(found["dense"]["bias"], translated["dense"]["bias"])
    of_layers = [(found[name]["kernel"] - parents[0][name]["kernel"])[0].ravel()[:81] for name in LAYERS]
    assert np.corrcoef(of_layers)[0, 1] < 0.5


def test_noise_is_the_seeds_and_the_networks(parents, translated, assert_trees_equal):
    found = merges.noise(parents[0], translated, seed=0)
    assert_trees_equal(merges.noise(parents[0], translated, seed=0), found)
    first = jax.tree.map(lambda leaf: leaf[:2], (parents[0], translated))
    assert_trees_equal(merges.noise(*first, seed=0), jax.tree.map(lambda leaf: leaf[:2], found))
    twins = jax.tree.map(lambda leaf: leaf[[0, 0]], (parents[0], translated))
    for layer in LAYERS:
        assert (merges.noise(parents[0], translated, seed=1)[layer]["kernel"] != found[layer]["kernel"]).any()
        kernels = merges.noise(*twins, seed=0)[layer]["kernel"]
        assert (kernels[0] != kernels[1]).any()


def test_a_translation_that_changes_nothing_gets_no_noise(parents, translated):
    same = {**parents[0], "dense": translated["dense"]}
    found = merges.noise(parents[0], same, seed=0)
    for layer in LAYERS:
        np.testing.assert_array_equal(found[layer]["kernel"], parents[0][layer]["kernel"])


@pytest.mark.parametrize("name", NAMES)
def test_parents_that_cannot_be_merged_are_refused(merge, name, parents):
    attribute, objects = parents
    with pytest.raises(ValueError, match="same shapes"):
        merge[name](attribute, jax.tree.map(lambda leaf: leaf[:2], objects))
    objects = jax.tree.map(np.copy, objects)
    objects["conv2"]["bias"][0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        merge[name](attribute, objects)
