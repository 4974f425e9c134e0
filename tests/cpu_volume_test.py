"""Tests for kernelgan.ops.cpu's volumes: against XLA's own convolution, in every shape and vector width."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from kernelgan import models
from kernelgan.generators import cyclegan
from kernelgan.ops import cpu

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="numba or jaxlib's headers are not here")

ROOT = Path(__file__).parents[1]
SHAPES = [  # kernel sets, volume, channels, hidden, outputs, window, slope
    (16, (6, 5, 5), 3, 64, 3, (3, 3, 3), 0.0),  # the reference's generator and discriminator
    (32, (16, 5, 5), 6, 64, 1, (3, 3, 3), 0.2),
    (1, (6, 5, 5), 3, 8, 1, (3, 3, 3), 0.2),  # less than a vector
    (19, (3, 4, 2), 5, 9, 7, (3, 3, 3), 0.2),  # a vector and a bit, channels that leave some over
    (5, (2, 3, 4), 1, 2, 13, (1, 3, 5), 0.2),  # more outputs than hidden, windows that are no cubes
    (17, (1, 3, 4), 11, 17, 2, (3, 1, 5), 0.0),  # taps that meet nothing but zeros
]


def _plain(volumes, encode, decode, slope):
    def convolve(volumes, kernel, bias):
        found = lax.conv_general_dilated(
            volumes,
            kernel,
            (1, 1, 1),
            "SAME",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
            precision=lax.Precision.HIGHEST,
        )
        return found + bias

    hidden = convolve(volumes, *encode)
    return convolve(jnp.where(hidden > 0, hidden, slope * hidden), *decode)


def _ours(volumes, encode, decode, slope):
    from kernelgan.ops.cpu import volume_operation

    found = volume_operation.encode_decode(volume_operation.to_blocks(volumes), encode, decode, slope)
    return volume_operation.from_blocks(found, len(volumes), len(decode[1]))


def _arguments(count, space, channels, hidden, outputs, window):
    keys = jax.random.split(jax.random.key(0), 6)
    volumes = jax.random.uniform(keys[0], (count, *space, channels), minval=-1)
    encode = jax.random.normal(keys[1], (*window, channels, hidden)), jax.random.normal(keys[2], (hidden,))
    decode = jax.random.normal(keys[3], (*window, hidden, outputs)), jax.random.normal(keys[4], (outputs,))
    return (volumes, encode, decode), jax.random.normal(keys[5], (count, *space, outputs))


def _value_and_gradients(function, slope, weights):
    def loss(*given):
        found = function(*given, slope)
        return jnp.sum(found * weights), found

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


@pytest.mark.parametrize(("count", "space", "channels", "hidden", "outputs", "window", "slope"), SHAPES)
def test_values_and_gradients_equal_xla_s(count, space, channels, hidden, outputs, window, slope):
    given, weights = _arguments(count, space, channels, hidden, outputs, window)
    found, expected = (_value_and_gradients(form, slope, weights)(*given) for form in (_ours, _plain))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_a_kernel_set_does_not_depend_on_those_beside_it():
    (volumes, *weights), _ = _arguments(19, (3, 4, 2), 3, 8, 3, (3, 3, 3))
    run = jax.jit(_ours, static_argnums=3)
    beside = run(volumes, *weights, 0.2)
    np.testing.assert_array_equal(run(volumes[:2], *weights, 0.2), beside[:2])
    np.testing.assert_array_equal(run(volumes.at[1:].set(jnp.nan), *weights, 0.2)[0], beside[0])


def _train(state, batches):
    """Losses of some steps, and what they end in."""

    def advance(state, batch):
        return cyclegan.step(state, *batch, 1e-3, cyclegan.Config(hidden=4))

    return lax.scan(advance, state, batches)


def _pairs():
    volumes = jax.random.uniform(
        jax.random.key(1), (2, 2, 3, 5, 3, 3, 3, 2), minval=-1
    )  # pairs, domains, steps
    make = jax.vmap(lambda key: cyclegan.initialise(4, volumes[0, 0, 0], 1e-3, key))
    return jax.jit(make)(jax.random.split(jax.random.key(0))), (volumes[:, 0], volumes[:, 1])


def test_pairs_can_be_mapped_and_sharded_and_do_not_depend_on_each_other(monkeypatch, assert_trees_equal):
    monkeypatch.setattr(models, "form_here", lambda _: "direct")
    states, batches = _pairs()
    pairs = [jax.tree.map(lambda leaf, n=n: leaf[n], (states, batches)) for n in range(2)]
    one_by_one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(jax.jit(_train)(*pair) for pair in pairs))

    def mapped(states, batches):
        return lax.map(lambda pair: _train(*pair), (states, batches))

    assert_trees_equal(jax.jit(mapped)(states, batches), one_by_one)
    axis = PartitionSpec("pair")
    mesh = Mesh(np.array(jax.devices()[:1]), ("pair",))
    sharded = jax.shard_map(mapped, mesh=mesh, in_specs=(axis, axis), out_specs=axis, check_vma=False)
    assert_trees_equal(jax.jit(sharded)(states, batches), one_by_one)
    given = pairs[0][0]["generators"], batches[0][:, 0]

    def generate(params, volumes):
        return models.generate_volumes(4, params["a2b"], volumes, "direct")

    both = jax.jit(jax.vmap(generate, in_axes=(None, 0)))(*given)
    np.testing.assert_array_equal(both[1], jax.jit(generate)(given[0], given[1][1]))


def test_auto_is_direct_on_cpus_and_a_form_that_is_asked_for_is_used():
    assert models.form_here("auto") == ("direct" if jax.default_backend() == "cpu" else "tiles")
    volumes = jnp.ones((2, 3, 3, 3, 2))
    for form in models.FORMS:
        network = models.KernelDiscriminator(4, form)
        params = network.init(jax.random.key(0), volumes)
        text = jax.jit(network.apply).lower(params, volumes).as_text()
        assert ("kernelgan_volume_gather" in text) == (models.form_here(form) == "direct")


def test_what_is_not_a_number_is_not_hidden():
    network = models.KernelGenerator(4, "direct")
    volumes = jnp.ones((3, 3, 3, 3, 2))
    params = network.init(jax.random.key(0), volumes)
    poisoned = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), params)
    assert np.isnan(network.apply(poisoned, volumes)).all(axis=(0, 4)).any()
    found = network.apply(params, volumes.at[1, 1, 1, 1, 0].set(jnp.nan))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[jnp.array([0, 2])]).all()
