import dataclasses

import jax
import numpy as np
import pytest

from kernelgan import assemble, models
from kernelgan.evaluate import features, methods


@pytest.fixture(scope="module")
def context(network, make_parents):
    """Four parents of the attribute, three of the object."""
    return methods.Context(
        network=network,
        image_size=16,
        attribute=make_parents(4, seed=1),
        objects=make_parents(3, seed=2),
        generated={"a2b": make_parents(4, seed=3, outputs=4), "b2a": make_parents(3, seed=4, outputs=4)},
        opponents={
            "distilled": make_parents(2, seed=5, outputs=4),
            "trained_on_conjunction": make_parents(2, seed=6),
        },
        random_networks=5,
        bias="zero",
        key=jax.random.key(0),
    )


NETWORKS = {
    "random": 5,
    "attribute_only": 4,
    "object_only": 3,
    "average": 3,
    "cyclegan_a2b": 4,
    "cyclegan_b2a": 3,
    "distilled": 2,
    "and_ensemble": 3,
    "trained_on_conjunction": 2,
}


def test_the_table_is_known():
    assert set(methods.METHODS) == set(NETWORKS)


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_gives_networks_that_answer(name, context, images):
    populations = methods.METHODS[name].networks(context)
    logits = np.concatenate(
        [
            features.population_logits(context.network, params, images[:4], chunk_size=8)
            for params in populations
        ],
        axis=-1,
    )
    found, _ = features.score(logits)
    assert found.shape == (NETWORKS[name], 4)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["distilled", "trained_on_conjunction"])
def test_an_opponent_that_was_not_trained_is_missing(name, context):
    assert methods.METHODS[name].networks(dataclasses.replace(context, opponents={})) is None


def _random(context, **changes):
    (params,) = methods.random(dataclasses.replace(context, **changes))
    return params


def test_random_networks_are_the_keys(context, assert_trees_equal):
    first = _random(context)
    assert_trees_equal(_random(context), first)
    other = _random(context, key=jax.random.key(1))
    for layer in ("conv1", "conv2"):
        kernel = first[layer]["kernel"]
        assert (other[layer]["kernel"] != kernel).any()
        assert len(np.unique(kernel.reshape(5, -1), axis=0)) == 5


def test_random_networks_have_the_initialisers_kernels_and_the_parents_heads(context):
    found = _random(context)
    for layer, fan_in in (("conv1", 27), ("conv2", 18)):
        assert 0.9 * fan_in**-0.5 < np.abs(found[layer]["kernel"]).max() <= fan_in**-0.5
    heads = assemble.heads_for(np.arange(5), context.attribute, context.objects)
    np.testing.assert_array_equal(found["dense"]["kernel"], heads["kernel"])
    np.testing.assert_array_equal(found["dense"]["bias"], heads["bias"])


@pytest.mark.parametrize("bias", assemble.BIASES)
def test_random_networks_have_biases_if_generated_ones_have(context, bias):
    found = _random(context, bias=bias)
    for layer in ("conv1", "conv2"):
        assert found[layer]["bias"].any() == (bias == "parent")


def test_the_average_is_of_both_parents_weights_with_both_heads(context):
    (found,) = methods.average(context)
    for layer in ("conv1", "conv2"):
        for name in ("kernel", "bias"):
            expected = (context.attribute[layer][name][:3] + context.objects[layer][name]) / 2
            np.testing.assert_allclose(found[layer][name], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["dense"]["kernel"][..., :2], context.attribute["dense"]["kernel"][:3])
    np.testing.assert_array_equal(found["dense"]["kernel"][..., 2:], context.objects["dense"]["kernel"])


def test_the_average_of_twins_is_the_parent(context):
    (found,) = methods.average(dataclasses.replace(context, objects=context.attribute))
    for layer in ("conv1", "conv2"):
        np.testing.assert_array_equal(found[layer]["kernel"], context.attribute[layer]["kernel"])
        np.testing.assert_array_equal(found[layer]["bias"], context.attribute[layer]["bias"])


def test_the_and_ensemble_answers_as_both_parents(context, images):
    def logits(params):
        return features.population_logits(context.network, params, images[:6], chunk_size=8)

    both = np.concatenate([logits(params) for params in methods.and_ensemble(context)], axis=-1)
    np.testing.assert_allclose(both[..., :2], logits(context.attribute)[:3], atol=1e-6)
    np.testing.assert_allclose(both[..., 2:], logits(context.objects), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"), [("attribute_only", 3674), ("average", 4476), ("and_ensemble", 7348)]
)
def test_parameters_of_one_network_of_the_references_size(context, name, parameters):
    network = models.ConvNet()
    shapes = jax.eval_shape(lambda key: models.initialise_convnet(network, 32, key), jax.random.key(0))
    zoo = jax.tree.map(lambda leaf: np.zeros((3, *leaf.shape), leaf.dtype), shapes)
    whole = dataclasses.replace(context, network=network, image_size=32, attribute=zoo, objects=zoo)
    assert methods.parameter_count(methods.METHODS[name].networks(whole)) == parameters
