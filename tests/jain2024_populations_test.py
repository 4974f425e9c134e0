"""Tests for studies.jain2024.populations: generated networks by hand, and the nulls."""

import dataclasses

import jax
import numpy as np
import pytest
from reference_data_test import (
    BLACK,
    CAT,
    REFERENCE,
    features_by_hand,
    generate_by_hand,
    make_arrays,
    needs_reference,
    preprocess_by_hand,
    silent,
    write_archive,
)

from kernelgan import assemble
from kernelgan.evaluate import features
from studies.jain2024 import data, populations

LAYERS = ("conv1", "conv2")
DRAWN = 200


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def reference(archive):
    return data.load(archive, silent)


def _pytorch(params, layer):
    """Kernels of stacked networks as ``(M, O, I, h, w)``."""
    return np.asarray(params[layer]["kernel"]).transpose(0, 4, 3, 1, 2)


def _has_no_bias(params):
    return all(not np.any(params[layer]["bias"]) for layer in LAYERS)


@pytest.mark.parametrize("domain", ["A", "B"])
def test_generated_networks_are_those_computed_by_hand(archive, reference, domain):
    zoos, generators = make_arrays()
    found = populations.generate(reference, domain, 3)
    assert _has_no_bias(found)
    for number in range(3):
        weights = generate_by_hand(zoos, generators, domain, number)
        for layer, weight in zip(LAYERS, weights, strict=True):
            np.testing.assert_allclose(_pytorch(found, layer)[number], weight, atol=1e-5)
    chosen = assemble.take_members(found, np.array([2]))
    ((_, _, ours),) = features.population_outputs(data.NETWORK, chosen, reference.images, chunk_size=1)
    images = preprocess_by_hand(archive / "test_images", reference.names)
    np.testing.assert_allclose(ours[0], features_by_hand(weights, images), atol=1e-4)


@pytest.mark.parametrize("domain", ["A", "B"])
def test_networks_carry_the_heads_of_both_parents_of_their_number(reference, domain):
    pairs = populations.pairs_of(reference)
    assert pairs == min(BLACK, CAT)
    heads = [
        np.concatenate([reference.black["dense"][n][:pairs], reference.cat["dense"][n]], axis=-1)
        for n in ("kernel", "bias")
    ]
    for make in (populations.generate, populations.untranslated):
        found = make(reference, domain, pairs)
        for name, expected in zip(("kernel", "bias"), heads, strict=True):
            np.testing.assert_array_equal(found["dense"][name], expected)


def test_untranslated_networks_are_a_zoo_s_without_its_biases(reference):
    for domain, zoo in (("A", reference.black), ("B", reference.cat)):
        found = populations.untranslated(reference, domain, 3)
        assert _has_no_bias(found)
        for layer in LAYERS:
            np.testing.assert_array_equal(found[layer]["kernel"], zoo[layer]["kernel"][:3])


@pytest.mark.parametrize("make", [populations.random, populations.gaussian])
def test_drawn_networks_are_the_key_s_and_have_parents_heads(reference, make, assert_trees_equal):
    found = make(reference, DRAWN, jax.random.key(3))
    assert_trees_equal(make(reference, DRAWN, jax.random.key(3)), found)
    other = make(reference, DRAWN, jax.random.key(4))
    assert _has_no_bias(found)
    for layer in LAYERS:
        assert found[layer]["kernel"].dtype == np.float32
        assert np.mean(found[layer]["kernel"] == other[layer]["kernel"]) < 0.001
    # Counted round: the fifth has the first cat's, for there are four.
    np.testing.assert_array_equal(found["dense"]["bias"][4, 2:], reference.cat["dense"]["bias"][0])
    np.testing.assert_array_equal(found["dense"]["bias"][4, :2], reference.black["dense"]["bias"][4])


def test_random_kernels_are_uniform_as_the_initialiser_s(reference):
    found = populations.random(reference, DRAWN, jax.random.key(0))
    for layer, fan_in in (("conv1", 75), ("conv2", 150)):
        scaled = found[layer]["kernel"] * np.sqrt(fan_in)
        assert 0.999 < np.abs(scaled).max() <= 1
        assert scaled.mean() == pytest.approx(0, abs=0.01)
        assert scaled.var() == pytest.approx(1 / 3, abs=0.01)


def test_gaussian_kernels_have_each_parameter_s_mean_and_spread_black_and_cat_in_turn(reference):
    found = populations.gaussian(reference, 400, jax.random.key(0))
    for side, zoo in ((0, reference.black), (1, reference.cat)):
        for layer in LAYERS:
            theirs, ours = zoo[layer]["kernel"], found[layer]["kernel"][side::2]
            mean, sd = theirs.mean(axis=0), theirs.std(axis=0)
            # 200 draws: means within 5.5 standard errors everywhere, spreads within 8%, on average.
            assert np.abs((ours.mean(axis=0) - mean) / sd).max() < 5.5 / np.sqrt(200)
            np.testing.assert_allclose(np.mean(ours.std(axis=0) / sd), 1, atol=0.01)
            assert np.std(ours.std(axis=0) / sd) < 0.08


def test_similarity_with_the_sources(reference):
    generated = {domain: populations.untranslated(reference, domain, 3) for domain in ("A", "B")}
    swapped = {"A": generated["B"], "B": generated["A"]}  # domain A is made from cat
    same = populations.source_similarity(reference, swapped)
    assert same == pytest.approx({"conv1": 1, "conv2": 1})
    negative = jax.tree.map(lambda leaf: -2 * leaf, swapped)
    assert populations.source_similarity(reference, negative) == pytest.approx({"conv1": -1, "conv2": -1})
    found = populations.source_similarity(reference, generated)
    for layer in LAYERS:
        black, cat = (zoo[layer]["kernel"][:3].reshape(3, -1) for zoo in (reference.black, reference.cat))
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(black, cat, strict=True)]
        assert found[layer] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_difference_from_an_independent_computation(reference):
    check = next(check for check in reference.checks if (check.domain, check.model) == ("A", 3))
    params = assemble.take_members(populations.generate(reference, "A", 4), 3)
    assert populations.kernel_difference(params, check) < 1e-5
    for layer in LAYERS:
        kernels = {name: kernel.copy() for name, kernel in check.kernels.items()}
        kernels[layer][0, 1, 2, 3] += 0.25
        changed = dataclasses.replace(check, kernels=kernels)
        assert populations.kernel_difference(params, changed) == pytest.approx(0.25, abs=1e-4)
        kernels[layer][0, 1, 2, 3] = np.nan
        assert populations.kernel_difference(params, changed) == np.inf
        kernels[layer] = kernels[layer][:, :, 1:]
        assert populations.kernel_difference(params, changed) == np.inf


# The reference's own --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return data.load(REFERENCE, silent)


@needs_reference
@pytest.mark.parametrize("name", ["A229", "A1234", "B229"])
def test_the_references_networks_are_assembled_as_pytorch_did(real, name):
    number = int(name[1:])
    assert populations.pairs_of(real) == 1749
    black, cat = (assemble.take_members(zoo, np.array([number])) for zoo in (real.black, real.cat))
    params = populations.generate(dataclasses.replace(real, black=black, cat=cat), name[0], 1)
    check = next(one for one in real.checks if (one.domain, one.model) == (name[0], number))
    assert populations.kernel_difference(assemble.take_members(params, 0), check) <= 1e-4
    ((_, _, found),) = features.population_outputs(data.NETWORK, params, real.images, chunk_size=1)
    np.testing.assert_allclose(found[0], check.features, rtol=0, atol=1e-4)
