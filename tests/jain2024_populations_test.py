"""Tests for studies.jain2024.populations: generated networks by hand, the nulls, and PyTorch's own."""

import dataclasses

import jax
import numpy as np
import pytest
from jain2024_archive import REFERENCE, generate_by_hand, make_arrays, needs_reference, silent, write_archive

from kernelgan import assemble, interop
from kernelgan.evaluation import features
from studies.jain2024 import data, populations

LAYERS = ("conv1", "conv2")
DRAWN = 200


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def reference(archive):
    return data.load(archive, silent)


def _pytorch(params, layer):
    """Kernels of stacked networks as ``(M, O, I, h, w)``."""
    return np.asarray(params[layer]["kernel"]).transpose(0, 4, 3, 1, 2)


def _has_no_bias(params):
    return all(not np.any(params[layer]["bias"]) for layer in LAYERS)


@pytest.mark.parametrize("domain", ["A", "B"])
def test_generated_networks_are_those_computed_by_hand(reference, domain):
    zoos, generators = make_arrays()
    found = populations.generate(reference, domain, 3)
    assert _has_no_bias(found)
    for number in range(3):
        weights = generate_by_hand(zoos, generators, domain, number)
        for layer, weight in zip(LAYERS, weights, strict=True):
            np.testing.assert_allclose(_pytorch(found, layer)[number], weight, atol=1e-5)


@pytest.mark.parametrize("domain", ["A", "B"])
def test_networks_carry_the_heads_of_both_parents_of_their_number(reference, domain):
    pairs = reference.pairs
    for make in (populations.generate, populations.untranslated):
        found = make(reference, domain, pairs)
        for name in ("kernel", "bias"):
            expected = [reference.black["dense"][name][:pairs], reference.cat["dense"][name]]
            np.testing.assert_array_equal(found["dense"][name], np.concatenate(expected, axis=-1))


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


@needs_reference
@pytest.mark.parametrize("name", ["A229", "B229"])
def test_the_originals_networks_are_those_that_pytorch_computed(name):
    """Kernels and features of the original's own weights, within rounding."""
    real = data.load(REFERENCE, silent)
    checks = interop.read_arrays(REFERENCE / "reference_features.npz")
    order = [list(map(str, checks["files"])).index(file) for file in real.names]
    assert real.pairs == 1749
    black, cat = (assemble.take_members(zoo, np.array([int(name[1:])])) for zoo in (real.black, real.cat))
    params = populations.generate(dataclasses.replace(real, black=black, cat=cat), name[0], 1)
    for layer in LAYERS:
        ours = _pytorch(params, layer)[0]
        np.testing.assert_allclose(ours, checks[f"{name}/{layer}"], rtol=0, atol=1e-4)
    ((_, _, ours),) = features.population_outputs(data.NETWORK, params, real.images, chunk_size=1)
    np.testing.assert_allclose(ours[0], checks[f"{name}/features"][order], rtol=0, atol=1e-4)
