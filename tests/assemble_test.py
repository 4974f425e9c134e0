import jax
import numpy as np
import pytest

from kernelgan import assemble, kernels

LAYERS = ("conv1", "conv2")


@pytest.fixture(scope="module")
def parents(make_parents):
    """Three networks of the attribute's zoo, five of the object's."""
    return make_parents(3, seed=1), make_parents(5, seed=2)


def test_a_head_holds_the_attributes_logits_and_then_the_objects():
    attribute = {"kernel": np.full((2, 12, 2), 1.0), "bias": np.array([[1.0, 2.0], [3.0, 4.0]])}
    objects = {"kernel": np.full((2, 12, 2), 5.0), "bias": np.array([[6.0, 7.0], [8.0, 9.0]])}
    found = assemble.two_concept_head(attribute, objects)
    np.testing.assert_array_equal(found["kernel"], np.broadcast_to([1.0, 1.0, 5.0, 5.0], (2, 12, 4)))
    np.testing.assert_array_equal(found["bias"], [[1, 2, 6, 7], [3, 4, 8, 9]])


def test_heads_are_counted_round_in_each_zoo(parents):
    found = assemble.heads_for(np.arange(7), *parents)
    for i in range(7):
        np.testing.assert_array_equal(found["bias"][i, :2], parents[0]["dense"]["bias"][i % 3])
        np.testing.assert_array_equal(found["kernel"][i, :, 2:], parents[1]["dense"]["kernel"][i % 5])


def test_members_are_taken_in_the_order_asked(parents):
    found = assemble.take_members(parents[0], np.array([2, 0, 2]))
    np.testing.assert_array_equal(found["conv1"]["kernel"], parents[0]["conv1"]["kernel"][[2, 0, 2]])


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


def test_an_unknown_bias_is_refused(parents):
    with pytest.raises(ValueError, match="unknown bias 'mean'; known are zero, parent"):
        assemble.assemble(parents[0], {}, {}, bias="mean", layers=LAYERS)


def test_traced_arrays_are_assembled_as_numpy_ones_are(parents, assert_trees_equal):
    def make(first, second):
        volumes = kernels.extract(first, LAYERS)
        head = assemble.heads_for(np.arange(3), first, second)
        return assemble.assemble(first, volumes, head, bias="zero", layers=LAYERS)

    assert_trees_equal(jax.device_get(jax.jit(make)(*parents)), make(*parents))
