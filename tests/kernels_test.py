import numpy as np
import pytest

from kernelgan import kernels


def _params(*leading):
    rng = np.random.default_rng(0)
    shapes = {"conv1": (5, 5, 3, 6), "conv2": (5, 5, 6, 16)}
    layers = {
        layer: {
            "kernel": rng.normal(size=(*leading, *shape)).astype(np.float32),
            "bias": rng.normal(size=(*leading, shape[-1])).astype(np.float32),
        }
        for layer, shape in shapes.items()
    }
    dense = {"kernel": rng.normal(size=(*leading, 400, 2)), "bias": rng.normal(size=(*leading, 2))}
    return {**layers, "dense": dense}


def test_a_volume_is_the_references_kernel_set_with_its_channels_last():
    """PyTorch: ``weight`` (O, I, h, w), its first two axes swapped, seen as (channels I, depth O, h, w)."""
    weight = np.random.default_rng(0).normal(size=(6, 3, 5, 5))
    reference = weight.swapaxes(0, 1)
    ours = kernels.to_volume(weight.transpose(2, 3, 1, 0))  # OIHW as HWIO
    np.testing.assert_array_equal(ours.transpose(3, 0, 1, 2), reference)


def test_extract_and_insert_are_inverses():
    params = _params(4)
    volumes = kernels.extract(params, ("conv1", "conv2"))
    assert {layer: volume.shape for layer, volume in volumes.items()} == {
        "conv1": (4, 6, 5, 5, 3),
        "conv2": (4, 16, 5, 5, 6),
    }
    again = kernels.insert(params, volumes)
    for layer, leaves in params.items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(again[layer][name], leaf)


def test_insert_replaces_the_kernels_of_its_layers_alone_and_leaves_its_input():
    params = _params(4)
    before = params["conv1"]["kernel"].copy()
    found = kernels.insert(params, {"conv1": np.zeros((4, 6, 5, 5, 3))})
    assert not found["conv1"]["kernel"].any()
    assert found["conv1"]["bias"] is params["conv1"]["bias"]
    assert found["conv2"] is params["conv2"]
    assert found["dense"] is params["dense"]
    np.testing.assert_array_equal(params["conv1"]["kernel"], before)


@pytest.fixture
def volumes():
    return np.random.default_rng(0).normal(0.7, 3.0, (5, 6, 5, 5, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", kernels.NORMALISATIONS)
def test_normalisers_invert(kind, volumes):
    normaliser = kernels.fit_normaliser(volumes, kind)
    np.testing.assert_allclose(normaliser.invert(normaliser.apply(volumes)), volumes, rtol=1e-5, atol=1e-5)


def test_none_leaves_weights_as_they_are(volumes):
    np.testing.assert_array_equal(kernels.fit_normaliser(volumes, "none").apply(volumes), volumes)


def test_standard_gives_zero_mean_and_three_deviations_become_one(volumes):
    found = kernels.fit_normaliser(volumes, "standard").apply(volumes)
    assert found.mean() == pytest.approx(0, abs=1e-5)
    assert 3 * found.std() == pytest.approx(1, rel=1e-5)


def test_range_reaches_one_and_keeps_the_sign(volumes):
    found = kernels.fit_normaliser(volumes, "range").apply(volumes)
    assert np.abs(found).max() == pytest.approx(1, rel=1e-6)
    np.testing.assert_array_equal(np.sign(found), np.sign(volumes))


@pytest.mark.parametrize("kind", kernels.NORMALISATIONS)
def test_a_zoo_of_zeros_stays_finite(kind):
    zeros = np.zeros((2, 6, 5, 5, 3), np.float32)
    np.testing.assert_array_equal(kernels.fit_normaliser(zeros, kind).apply(zeros), zeros)
