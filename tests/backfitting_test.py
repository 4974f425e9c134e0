"""Tests for kernelgan.generators.backfitting: derivatives, planted networks, free scales, degenerate ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import models, refit
from kernelgan.generators import backfitting

NETWORK = models.ConvNet(filters=(2, 3), kernel_size=3)
LAYERS = models.layer_names(NETWORK.filters)
CONCEPTS = 2


def _layer(rng, inputs, filters):
    shapes = {"kernel": (3, 3, inputs, filters), "bias": (filters,)}
    return {name: jnp.asarray(0.4 * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def made():
    """A network whose filters are mixtures of five candidates a layer."""
    rng = np.random.default_rng(0)
    layers, candidates = [], []
    for inputs, filters in ((3, 2), (2, 3)):
        candidates.append(_layer(rng, inputs, 5))
        mixture = jnp.asarray(rng.normal(size=(5, filters)), jnp.float32)
        layers.append(jax.tree.map(lambda leaf, mixture=mixture: leaf @ mixture, candidates[-1]))
    weights = jnp.asarray(rng.normal(size=(12, CONCEPTS)), jnp.float32)
    return backfitting.Made(tuple(layers), tuple(candidates), weights, jnp.asarray([0.3, -0.2]))


@pytest.fixture(scope="module")
def shown():
    rng = np.random.default_rng(1)
    means = rng.integers(40, 216, (512, 1, 1, 3))
    return jnp.asarray(np.clip(means + rng.normal(0, 60, (512, 16, 16, 3)), 0, 255), jnp.uint8)[:, :14, :14]


@jax.jit
def _answers(made, images):
    """``(K, N)``, with XLA's own convolution."""
    hidden = models.normalise_images(images).transpose(3, 1, 2, 0)
    for layer in made.layers:
        hidden = models.ConvPool(layer["bias"].size, 3, "plain").apply({"params": layer}, hidden)
    return made.weights.T @ hidden.reshape(len(made.weights), -1) + made.intercepts[:, None]


def _moved(made, number, change):
    """A layer with so much of each candidate, and of a constant, added: ``(F, C + 1)``."""
    added = jax.tree.map(lambda leaf: leaf @ change[:, :-1].T, made.candidates[number])
    added["bias"] += change[:, -1]
    layers = list(made.layers)
    layers[number] = jax.tree.map(jnp.add, layers[number], added)
    return made._replace(layers=tuple(layers))


def _wanted(images, values):
    return backfitting.Answers(NETWORK.lay_out(models.normalise_images(images)), values)


@jax.jit
def _backfitted(made, images, values):
    wanted = _wanted(images, values)
    return backfitting.backfit(made, wanted, wanted, wanted, 1)


def _lost(made, images, values):
    return np.square(_answers(made, images) - values).mean() / np.asarray(values).var()


@pytest.mark.parametrize("number", [0, 1])
def test_slopes_are_the_derivatives_of_the_answers(made, shown, number):
    images = shown[:128]
    filters = NETWORK.filters[number]
    slopes_of = jax.jit(jax.jacrev(lambda change: _answers(_moved(made, number, change), images)))
    wanted = slopes_of(jnp.zeros((filters, 6)))

    @jax.jit
    def slopes(made, images):
        inputs = NETWORK.lay_out(models.normalise_images(images))
        for layer in made.layers[:number]:
            inputs = refit.run_layer(layer, inputs)
        return backfitting._slopes(made, inputs, number)

    found, answers = slopes(made, images)
    np.testing.assert_allclose(answers, _answers(made, images), atol=1e-4)
    np.testing.assert_allclose(found.transpose(2, 3, 0, 1), wanted, atol=1e-3)


@pytest.mark.parametrize("number", [0, 1])
def test_a_planted_change_of_a_layer_is_mostly_taken_back(made, shown, number):
    change = 0.2 * np.random.default_rng(2).normal(size=(NETWORK.filters[number], 6))
    values = _answers(_moved(made, number, jnp.asarray(change, jnp.float32)), shown)
    before, after = (_lost(one, shown, values) for one in (made, _backfitted(made, shown, values)))
    hidden = NETWORK.lay_out(models.normalise_images(shown))
    for layer in made.layers:
        hidden = refit.run_layer(layer, hidden)
    features = backfitting._flat(hidden, values)
    heads_alone = _lost(jax.jit(backfitting._refitted)(made, features, values), shown, values)
    assert before > 0.02
    assert after < 0.3 * before
    assert after < 0.6 * heads_alone


def test_a_right_network_stays(made, shown):
    same = _backfitted(made, shown, _answers(made, shown))
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old, atol=2e-3), same.layers, made.layers)


def test_what_helps_on_its_images_only_is_not_taken(made, shown):
    noise = jnp.asarray(np.random.default_rng(3).normal(size=(CONCEPTS, len(shown))), jnp.float32)
    few, true = (_wanted(shown, values) for values in (noise, _answers(made, shown)))
    backfit = jax.jit(backfitting.backfit, static_argnums=4)
    kept, changed = (backfit(made, few, few, others, 1) for others in (true, few))
    jax.tree.map(np.testing.assert_array_equal, kept.layers, made.layers)
    assert np.abs(changed.layers[0]["kernel"] - made.layers[0]["kernel"]).max() > 1e-3


def test_each_part_has_its_use(made, shown):
    """The first changes all layers, the second the last one too; heads are fitted to all three."""
    rng = np.random.default_rng(4)
    values = _answers(_moved(made, 0, 0.2 * jnp.ones((2, 6))), shown)
    wanted = _wanted(shown, values)
    noisy, near = (
        _wanted(shown, values + scale * jnp.asarray(rng.normal(size=values.shape), jnp.float32))
        for scale in (10, 0.1)
    )
    backfit = jax.jit(backfitting.backfit, static_argnums=4)
    found = backfit(made, wanted, wanted, wanted, 1)
    other_first, other_second, other_third = (
        backfit(made, *parts, 1)
        for parts in ((noisy, wanted, wanted), (wanted, noisy, wanted), (wanted, wanted, near))
    )
    layers = [
        [layer["kernel"] for layer in one.layers] for one in (found, other_first, other_second, other_third)
    ]
    assert np.abs(layers[0][0] - layers[1][0]).max() > 1e-3
    np.testing.assert_array_equal(layers[0][0], layers[2][0])
    assert np.abs(layers[0][1] - layers[2][1]).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, layers[0], layers[3])
    for other in (other_first, other_second, other_third):
        assert np.abs(other.weights - found.weights).max() > 1e-4


@pytest.mark.parametrize("count", [2, 3, 64, 100, 193, 1000, 4608])
def test_no_two_parts_share_a_probe(count):
    parts = backfitting.in_parts(count)
    assert all(len(part) % backfitting.BLOCK == 0 for part in parts)
    different = [set(part.tolist()) for part in parts]
    assert set.union(*different) == set(range(count))
    if count >= backfitting.PARTS:
        assert sum(map(len, different)) == count
        assert max(map(len, different)) - min(map(len, different)) <= 1


def test_the_scale_of_a_candidate_does_not_matter(made, shown):
    values = _answers(_moved(made, 0, 0.2 * jnp.ones((2, 6))), shown)
    scaled = jax.tree.map(lambda leaf: leaf * jnp.asarray([1e-2, 1, 1e2, 1, 10.0]), made.candidates[0])
    found, other = (
        _backfitted(made._replace(candidates=(first, made.candidates[1])), shown, values)
        for first in (made.candidates[0], scaled)
    )
    np.testing.assert_allclose(_answers(found, shown), _answers(other, shown), atol=0.02)


@pytest.mark.parametrize("spoil", ["dead", "constant", "alike"])
def test_degenerate_networks_and_answers_give_finite_ones(made, shown, spoil):
    values = _answers(made, shown) + 1
    if spoil == "dead":
        dead = {"kernel": 0 * made.layers[0]["kernel"], "bias": made.layers[0]["bias"] * 0 - 1}
        made = made._replace(layers=(dead, made.layers[1]))
    elif spoil == "constant":
        values = values.at[1].set(0.3)
    else:
        shown = jnp.broadcast_to(shown[:1], shown.shape)
    for leaf in jax.tree.leaves(_backfitted(made, shown, values)):
        assert np.isfinite(leaf).all()
