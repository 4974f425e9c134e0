"""Tests for kernelgan.compose: it is `reduce_noise`, and what it refuses; `reduce_test` has what is made."""

import functools

import jax
import numpy as np
import pytest
from tiny_runs import small_config

import kernelgan
from kernelgan import generators, models, pipeline, probes
from kernelgan.generators import Parents
from kernelgan.types import UserError


@pytest.fixture
def pair(make_parents):
    return Parents(make_parents(2, seed=1), make_parents(2, seed=2))


def test_compose_is_the_family_s_network_of_single_or_stacked_parents(make_parents, images):
    """Stacked ones of several are in `reduce_test`, where three concepts are composed."""
    pair = Parents(make_parents(1, seed=1), make_parents(1, seed=2))
    size = models.image_size_of(pair.attribute)
    assert size == 14  # 16 pixels a side would do too, and leave a row out
    settings = {"images": 64, "rounds": 0, "sweeps": 0}  # three concepts, there, have all
    generator = generators.make("reduce_noise", models.network_of(pair.attribute), **settings)
    expected = generator.generate(jax.random.key(0), {}, pair, probes.noise(64, size=size))[""]
    assert_near = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, atol=1e-5))
    zoos = [models.Zoo(zoo, models.network_of(zoo)) for zoo in pair]
    assert_near(kernelgan.compose(*zoos, **settings), expected)
    first = [jax.tree.map(lambda leaf: leaf[0], zoo) for zoo in pair]
    alone = kernelgan.compose(*first, **settings)
    assert alone["dense"]["bias"].shape == (4,)
    assert_near(alone, jax.tree.map(lambda leaf: leaf[0], expected))
    own = kernelgan.compose(*first, probes=images[:, :size, :size], **settings)
    assert np.abs(own["dense"]["kernel"] - alone["dense"]["kernel"]).max() > 1e-3


def test_more_parents_than_a_zoo_has_are_refused_by_compose_and_by_a_run(pair, tmp_path):
    with pytest.raises(UserError, match="parents is 3, but the smaller zoo has 2 networks"):
        kernelgan.compose(*pair, parents=3)
    with pytest.raises(UserError, match="--generator=reduce_zoo: parents is 4, but the smaller zoo has 2"):
        pipeline.run(small_config({"zoo.models": 2}), tmp_path / "run", generators=["reduce_zoo"])
    assert not (tmp_path / "run").exists()


def _wider(zoo, layer):
    return {**zoo, layer: jax.tree.map(lambda leaf: np.concatenate([leaf, leaf], axis=-1), zoo[layer])}


def _poisoned(zoo):
    made = jax.tree.map(np.copy, zoo)
    made["conv2"]["bias"][1, 0] = np.nan
    return made


def _as_torch(zoo):
    return {
        name: {**layer, "kernel": layer["kernel"].transpose(0, 4, 3, 1, 2)} if "conv" in name else layer
        for name, layer in zoo.items()
    }


def _narrower(zoo, layer):
    """Of one wrong leaf: of the first layer nothing else says so many filters."""
    return {**zoo, layer: {**zoo[layer], "bias": zoo[layer]["bias"][:, 1:]}}


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (lambda a, b: [a], ["two concepts or more"]),
        (lambda a, b: [Parents(a, b)], ["Parents", "compose(*parents)"]),
        (lambda a, b: [a, None], ["zoo 2 of 2", "nothing", "conv1.kernel"]),
        (lambda a, b: [a, {"conv_1": b["conv1"]}], ["zoo 2 of 2", "conv1.kernel", "conv_1"]),
        (lambda a, b: [a, {**b, "norm": b["conv1"]}], ["zoo 2 of 2", "norm"]),
        (lambda a, b: [a, {**b, "conv2": jax.tree.map(lambda x: x[0], b["conv2"])}], ["conv2.kernel (3, 3"]),
        (lambda a, b: [a, a, _poisoned(b)], ["zoo 3 of 3", "conv2.bias", "network 1"]),
        (lambda a, b: [a, _wider(b, "dense")], ["zoo 2 of 2", "4 logits"]),
        (lambda a, b: [a, "zoo.safetensors"], ["zoo 2 of 2", "the path 'zoo.safetensors'", "load_zoo"]),
        (lambda a, b: [a, _narrower(b, "conv1")], ["zoo 2 of 2", "conv1.bias"]),
        (lambda a, b: [a, _narrower(b, "conv2")], ["zoo 2 of 2", "conv2.kernel"]),
        (lambda a, b: [a, _as_torch(b)], ["zoo 2 of 2", "conv1.kernel", "expected (2, 3, 3, 3, 2)"]),
    ],
)
def test_what_cannot_be_composed_is_refused(pair, given, facts):
    with pytest.raises(UserError) as caught:
        kernelgan.compose(*given(*pair))
    assert [fact for fact in facts if fact not in str(caught.value)] == []


def test_images_given_as_a_number_are_told_from_it(pair, images):
    with pytest.raises(UserError, match="probes="):
        kernelgan.compose(*pair, images=images)


@pytest.mark.parametrize("filters", [(2, 4), (2,), (2, 3, 1)])
def test_compose_names_the_first_leaf_of_other_shape(pair, filters):
    module, size = models.ConvNet(filters, kernel_size=3), 40
    shapes = jax.eval_shape(lambda key: models.initialise_convnet(module, size, key), jax.random.key(0))
    other = jax.tree.map(lambda leaf: np.zeros((1, *leaf.shape), leaf.dtype), shapes)
    name = {2: "conv2.kernel", 1: "conv2.kernel", 3: "dense.kernel"}[len(filters)]
    with pytest.raises(UserError, match=name):
        kernelgan.compose(pair.attribute, other)


@pytest.mark.parametrize(
    ("spoil", "given"),
    [
        (lambda images: images / np.float32(255), "float32 (64, 16, 16, 3)"),
        (lambda images: images[:1], "(1, 16, 16, 3)"),
        (lambda images: images[0], "(16, 16, 3)"),
        (lambda images: images.transpose(0, 3, 1, 2), "(64, 3, 16, 16)"),
        (lambda images: images[:, :13, :13], "(64, 13, 13, 3)"),
        (list, "list"),
    ],
)
def test_probes_that_do_not_fit_are_refused(pair, images, spoil, given):
    with pytest.raises(UserError) as caught:
        kernelgan.compose(*pair, probes=spoil(images))
    for fact in ("probes", given, "uint8 (N, 14, 14, 3)", "17"):
        assert fact in str(caught.value)


def test_compose_refuses_a_setting_out_of_range(pair):
    with pytest.raises(UserError, match=r"reduce_noise\.images"):
        kernelgan.compose(*pair, images=0)
