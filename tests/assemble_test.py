import jax
import numpy as np
import pytest

from kernelgan import assemble, kernels

LAYERS = ("conv1", "conv2")


@pytest.fixture(scope="module")
def parents(make_parents):
    """Three networks of the attribute's zoo, five of the object's."""
    return make_parents(3, seed=1), make_parents(5, seed=2)


def test_heads_are_counted_round_in_each_zoo(parents):
    found = assemble.heads_for(np.arange(7), *parents)
    for i in range(7):
        np.testing.assert_array_equal(found["bias"][i, :2], parents[0]["dense"]["bias"][i % 3])
        np.testing.assert_array_equal(found["kernel"][i, :, 2:], parents[1]["dense"]["kernel"][i % 5])


@pytest.mark.parametrize("bias", assemble.BIASES)
def test_networks_have_the_kernels_and_head_given_and_the_bias_asked_for(parents, bias):
    volumes = kernels.extract(parents[1], LAYERS)
    head = assemble.heads_for(np.arange(5), *parents)
    found = assemble.assemble(parents[1], volumes, head, bias=bias, layers=LAYERS)
    assert set(found) == {*LAYERS, "dense"}
    for layer in LAYERS:
        np.testing.assert_array_equal(found[layer]["kernel"], parents[1][layer]["kernel"])
        own = parents[1][layer]["bias"]
        np.testing.assert_array_equal(found[layer]["bias"], own if bias == "parent" else np.zeros_like(own))
    np.testing.assert_array_equal(found["dense"]["kernel"], head["kernel"])


def test_traced_arrays_are_assembled_as_numpy_ones_are(parents, assert_trees_equal):
    def make(first, second):
        volumes = kernels.extract(first, LAYERS)
        head = assemble.heads_for(np.arange(3), first, second)
        return assemble.assemble(first, volumes, head, bias="zero", layers=LAYERS)

    assert_trees_equal(jax.device_get(jax.jit(make)(*parents)), make(*parents))
