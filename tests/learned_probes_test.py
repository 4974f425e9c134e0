"""Tests for studies.learned_probes.learned: the fit's reference, invariances, and gradients of the probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import models
from studies.learned_probes import learned

SETTINGS = learned.Settings(patches=2)


@pytest.fixture(scope="module")
def valued(network):
    """``valued(probes, attribute, object, images)``: the loss and its gradient by the probes."""
    return jax.jit(jax.value_and_grad(lambda probes, *given: learned.loss(network, probes, *given, SETTINGS)))


@pytest.fixture
def given(make_parents, images):
    """Probes, two parents and images."""
    pixels = np.asarray(models.normalise_images(images))
    drawn = np.random.default_rng(0).integers(len(pixels), size=64)
    parents = [jax.tree.map(lambda leaf: leaf[0], make_parents(1, seed=seed)) for seed in (1, 2)]
    return 0.5 * pixels[drawn], *parents, pixels[:32]


def test_a_fit_shrinks_towards_the_weights_given():
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(6, 40)), rng.normal(size=(2, 40))
    towards, ridge = rng.normal(size=(6, 2)), 0.3
    scale = np.repeat(1 / np.sqrt(features.var(axis=1).reshape(3, 2).mean(axis=1)), 2)
    x = (features - features.mean(axis=1, keepdims=True)) * scale[:, None]
    y = targets - targets.mean(axis=1, keepdims=True)
    rows = np.concatenate([x.T / np.sqrt(40), np.sqrt(ridge) * np.eye(6)])
    wanted = np.concatenate([y.T / np.sqrt(40), np.sqrt(ridge) * towards / scale[:, None]])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0] * scale[:, None]
    weights, intercepts = learned._fit(
        *(jnp.float32(array) for array in (features, targets)), 3, ridge, jnp.float32(towards)
    )
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    np.testing.assert_allclose(intercepts, targets.mean(axis=1) - features.mean(axis=1) @ expected, atol=1e-4)


def test_order_and_scale_of_a_parents_filters_change_nothing(valued, given):
    probes, attribute, objects, images = given
    size = attribute["conv1"]["bias"].size
    order, scales = np.arange(size)[::-1], 2.0 ** np.arange(size)
    first, second = attribute["conv1"], attribute["conv2"]
    moved = {
        **attribute,
        "conv1": {"kernel": (first["kernel"] * scales)[..., order], "bias": (first["bias"] * scales)[order]},
        "conv2": {**second, "kernel": (second["kernel"] / scales[:, None])[:, :, order]},
    }
    before, after = (float(valued(probes, one, objects, images)[0]) for one in (attribute, moved))
    assert after == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize("dead", ["filters", "head", "everything"])
def test_gradients_are_finite_with_degenerate_parents(valued, given, dead):
    probes, attribute, objects, images = given
    silent = jax.tree.map(np.zeros_like, attribute)
    if dead == "filters":
        silent = {**silent, "dense": attribute["dense"]}
    elif dead == "head":
        silent = {**attribute, "dense": silent["dense"]}
    value, gradient = valued(probes, silent, objects, images)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_probes_that_follow_the_gradient_lose_less(valued, given):
    probes, *rest = given
    first, _ = valued(probes, *rest)
    for _ in range(4):
        value, gradient = valued(probes, *rest)
        probes = probes - 0.02 * gradient / (jnp.abs(gradient).max() + 1e-9)
    value, _ = valued(probes, *rest)
    assert value < 0.99 * first
