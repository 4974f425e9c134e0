"""Tests for studies.repaired_cyclegan.translators: order and scale, the function loss, heads."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kernelgan import refit
from kernelgan.baselines import merges
from kernelgan.evaluation import features
from kernelgan.generators import cyclegan
from studies.repaired_cyclegan import translators
from studies.repaired_cyclegan.translators import Ingredients, Training

TRAINING = Training(batch=2, hidden=4, units=8, fitted=48, judged=16)


@pytest.fixture
def zoos(make_parents):
    return make_parents(3, seed=1), make_parents(3, seed=2)


def test_order_and_scale_change_no_function(network, zoos, images):
    for before, after in zip(zoos, translators.canonical(*zoos), strict=True):
        expected, found = (features.population_logits(network, zoo, images) for zoo in (before, after))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        for name in ("conv1", "conv2"):
            norms = np.sum(after[name]["kernel"] ** 2, axis=(1, 2, 3)) + after[name]["bias"] ** 2
            np.testing.assert_allclose(norms, 1, rtol=1e-4)


def test_a_reordered_and_rescaled_network_is_brought_back(zoos):
    zoo, _ = zoos
    twin = jax.tree.map(lambda leaf: leaf[[0, 0, 0]], zoo)
    orders = {
        "conv1": np.array([[0, 1], [1, 0], [1, 0]]),
        "conv2": np.array([[0, 1, 2], [2, 0, 1], [1, 0, 2]]),
    }
    moved = merges.reordered(twin, orders)
    moved["conv2"] = jax.tree.map(lambda leaf: 3 * leaf, moved["conv2"])
    for leaf in jax.tree.leaves(translators.canonical(moved, zoo)[0]["conv2"]):
        np.testing.assert_allclose(leaf, leaf[[0, 0, 0]], atol=1e-5)


def test_heads_are_those_of_refit(network, zoos, images):
    trunk = {name: zoos[0][name] for name in ("conv1", "conv2")}
    expected = refit.refit_heads(zoos[0], refit.answers(zoos, images), images)["dense"]
    answers = [features.population_logits(network, zoo, images)[0] for zoo in zoos]
    wanted = jnp.stack([logits[:, 1] - logits[:, 0] for logits in answers])

    @jax.jit
    def fitted(trunk):
        read = translators.features(network, jax.tree.map(lambda leaf: leaf[0], trunk), images)
        return refit.concepts_head(*translators.head(network, read, wanted, refit.HEAD_RIDGE))

    found = fitted(trunk)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y[0], atol=1e-4), found, expected)


def test_losses_of_separate_layers_are_those_of_the_package(network, zoos, images):
    what, key = Ingredients(), jax.random.key(0)
    view = translators.view(*zoos, 2, what, np.zeros((2, 3, 64), np.float32), images)
    players = jax.jit(lambda key: translators.initialise(key, view, what, TRAINING))(key)
    losses = jax.jit(lambda players: translators.losses(network, players, key, view, 2, what, TRAINING))
    total, terms = losses(players)
    config = cyclegan.Config(hidden=TRAINING.hidden)
    expected = []
    for layer in ("conv1", "conv2"):
        state = {kind: {n: own[layer] for n, own in sides.items()} for kind, sides in players.items()}
        real = [view.trunks[side][layer]["kernel"][:2] for side in "ab"]
        expected.append(jax.jit(lambda *given: cyclegan.losses_of(*given, config))(state, *real))
    assert float(total) == pytest.approx(sum(float(one[0] + one[1]) for one in expected), rel=1e-4)
    assert float(terms["cycle"]) == pytest.approx(sum(float(one[2]["cycle"]) for one in expected), rel=1e-4)


def test_following_the_gradient_lowers_the_function_loss(network, zoos, images):
    what, key = Ingredients(canonical=True, joint=True, function=1.0, cyclegan=False), jax.random.key(0)
    colours = np.random.default_rng(0).integers(0, 256, (64, 1, 1, 3)).astype(np.uint8)
    answers = [np.tile(colours[:, 0, 0, channel] / 64 - 2, (3, 1)).astype(np.float32) for channel in (0, 2)]
    view = translators.view(*zoos, 2, what, answers, np.broadcast_to(colours, images.shape))
    players = jax.jit(lambda key: translators.initialise(key, view, what, TRAINING))(key)
    gradient = jax.jit(
        jax.value_and_grad(lambda own: translators.losses(network, own, key, view, 2, what, TRAINING)[0])
    )
    values = []
    for _ in range(8):
        value, slope = gradient(players)
        values.append(float(value))
        length = optax.global_norm(slope)
        players = jax.tree.map(lambda leaf, by, length=length: leaf - 0.3 * by / length, players, slope)
    assert values[-1] < 0.9 * values[0], values
