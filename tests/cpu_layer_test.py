"""Tests for kernelgan.ops.cpu: against XLA's own convolution, in every shape and vector width."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import models
from kernelgan.ops import cpu

pytestmark = pytest.mark.skipif(not cpu.is_available(), reason="numba or jaxlib's headers are not here")

ROOT = Path(__file__).parents[1]
SHAPES = [  # batch, image size, filters, kernel size
    (64, 16, (6, 16), 5),  # whole blocks, the reference's filters
    (70, 17, (5, 7), 3),  # a block and a bit; an odd row and column that no pooling reaches
    (5, 20, (8, 9), 4),  # less than a block; every number of filters at once
    (2, 12, (1, 13), 3),
]


def _network(filters, size, form):
    return models.ConvNet(filters, size, form=form)


def _loss(network, images, weights):
    def loss(params):
        logits, features = models.run_convnet(network, params, images)
        return jnp.sum(features * weights) + jnp.sum(logits**2)

    return loss


@pytest.mark.parametrize(("batch", "size", "filters", "kernel"), SHAPES)
def test_features_and_gradients_equal_xla_s(batch, size, filters, kernel, assert_trees_close):
    plain, ours = (_network(filters, kernel, form) for form in ("plain", "direct"))
    keys = jax.random.split(jax.random.key(0), 3)
    params, same = (
        jax.jit(lambda key, form=form: models.initialise_convnet(form, size, key))(keys[0])
        for form in (plain, ours)
    )
    assert_trees_close(same, params, rtol=0, atol=0)
    images = jax.random.uniform(keys[1], (batch, size, size, 3), minval=-1)
    run = jax.jit(models.run_convnet, static_argnums=0)
    expected, found = (run(form, params, images)[1] for form in (plain, ours))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    weights = jax.random.normal(keys[2], expected.shape)
    truth, gradients = (jax.jit(jax.grad(_loss(form, images, weights)))(params) for form in (plain, ours))
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_the_gradient_of_the_images_is_there_where_it_is_asked_for():
    from kernelgan.ops.cpu import operation

    keys = jax.random.split(jax.random.key(0), 4)
    images = jax.random.normal(keys[0], (5, 11, 12, 3))
    kernel, bias = jax.random.normal(keys[1], (3, 4, 3, 7)), jax.random.normal(keys[2], (7,))
    weights = jax.random.normal(keys[3], (5, 7 * 4 * 4))

    def ours(images, first):
        pooled = operation.convolve_pool_relu(operation.to_blocks(images), kernel, bias, first)
        return jnp.sum(operation.from_blocks(pooled, 5) * weights)

    def plain(images):
        found = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        window = (1, 2, 2, 1)
        pooled = jax.lax.reduce_window(found + bias, -jnp.inf, jax.lax.max, window, window, "VALID")
        return jnp.sum(jax.nn.relu(pooled).transpose(0, 3, 1, 2).reshape(5, -1) * weights)

    expected = jax.jit(jax.grad(plain))(images)
    gradient = jax.jit(jax.grad(ours), static_argnums=1)
    np.testing.assert_allclose(gradient(images, False), expected, rtol=1e-4, atol=1e-4)
    assert not np.any(gradient(images, True))


def test_it_can_be_mapped_scanned_and_sharded():
    ours = _network((2, 3), 3, "direct")
    images = jax.random.uniform(jax.random.key(1), (4, 10, 10, 3))
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.jit(jax.vmap(lambda key: models.initialise_convnet(ours, 10, key)))(keys)

    def step(params, image):
        value, slope = jax.value_and_grad(lambda p: jnp.sum(models.run_convnet(ours, p, images + image)[0]))(
            params
        )
        return jax.tree.map(lambda p, s: p - 0.01 * s, params, slope), value

    def run(params):
        return jax.lax.scan(step, params, jnp.arange(3.0))[1]

    one_by_one = jnp.stack([jax.jit(run)(jax.tree.map(lambda p, m=m: p[m], params)) for m in range(3)])
    np.testing.assert_array_equal(jax.jit(lambda p: jax.lax.map(run, p))(params), one_by_one)
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(params), one_by_one)


def test_a_weight_that_is_not_a_number_is_not_hidden():
    ours = _network((2, 3), 3, "direct")
    params = models.initialise_convnet(ours, 10, jax.random.key(0))
    params["conv1"]["kernel"] = params["conv1"]["kernel"].at[0, 0, 0, 0].set(jnp.nan)
    logits, _ = models.run_convnet(ours, params, jnp.ones((2, 10, 10, 3)))
    assert np.isnan(logits).all()


_PROGRAM = """
import hashlib, sys, jax, jax.numpy as jnp, numpy as np
from kernelgan import models
from kernelgan.ops import gated
from kernelgan.ops.cpu import microkernels
forms = sys.argv[1:]
images = jax.random.uniform(jax.random.key(1), (37, 14, 14, 3))
volumes = jax.random.uniform(jax.random.key(2), (19, 3, 5, 5, 3), minval=-1)
def layers(params, form):
    return jnp.sum(jnp.sin(models.run_convnet(models.ConvNet((6, 7), 3, form=form), params, images)[0]))
def kernels(given, form):
    return jnp.sum(jnp.sin(models.KernelGenerator(9, form).apply(*given)))
network = models.initialise_convnet(models.ConvNet((6, 7), 3), 14, jax.random.key(0))
generator = models.KernelGenerator(9, "plain").init(jax.random.key(0), volumes)
found = b""
for loss, given in ((layers, network), (kernels, (generator, volumes))):
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    ours, *plain = (jax.tree.leaves(gradient(given, form)) for form in forms)
    found += b"".join(np.asarray(a).tobytes() for a in ours)
    for a, b in zip(ours, *plain) if plain else ():
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))
laid_out = models.ConvNet(form="direct").lay_out(images[:32])
run = gated.run(laid_out, network["conv1"]["kernel"], network["conv1"]["bias"])
slopes = {}
for gated._direct in (lambda: True, lambda: False)[: len(forms)]:
    maps, others = (laid_out, run) if gated._direct() else tuple(
        jax.tree.map(lambda of: of.transpose(1, 2, 3, 0, 4).reshape(*of.shape[1:4], -1), (laid_out, run)))
    kernels = jnp.concatenate([network["conv1"]["kernel"]] * 2, axis=-1)
    slopes[gated._direct()] = gated.mixtures(maps, kernels, jnp.ones(12), others[1], others[0])
np.testing.assert_allclose(slopes[True], slopes.get(False, slopes[True]), rtol=1e-4, atol=1e-4)
found += np.asarray(slopes[True]).tobytes()
print(microkernels.WIDTH, hashlib.sha256(found).hexdigest())
"""


def _at_width(width, cache, *forms):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *forms],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "KERNELGAN_VECTOR_WIDTH": width},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_another_vector_width_gives_the_same_and_code_found_on_disk_the_same_bits(tmp_path):
    """Of the networks' layers, and of the convolutions over kernels."""
    from kernelgan.ops.cpu import microkernels

    width = "8" if microkernels.WIDTH == 4 else "4"
    fresh = _at_width(width, tmp_path, "direct", "plain")
    assert fresh[0] == width
    assert any(tmp_path.rglob("*.nbc"))
    assert _at_width(width, tmp_path, "direct") == fresh


def test_a_form_that_is_asked_for_is_used():
    network = _network((2, 3), 3, "direct")
    params = models.initialise_convnet(network, 10, jax.random.key(0))
    lowered = jax.jit(models.run_convnet, static_argnums=0).lower(network, params, jnp.ones((2, 10, 10, 3)))
    assert "kernelgan_direct_forward" in lowered.as_text()
