"""Tests for kernelgan.ops.gated: against XLA's convolution and JAX's derivatives, on both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import models
from kernelgan.ops import cpu, gated


@pytest.fixture(params=["direct", "tiles"])
def form(request, monkeypatch):
    if request.param == "direct" and not cpu.is_available():
        pytest.skip("no vector code on this machine")
    monkeypatch.setattr(gated, "_direct", lambda: request.param == "direct")
    return request.param


def _textbook(images, kernel, bias):
    """Maps ``(B, C, q)`` of images ``(B, H, W, C)``."""
    found = models.ConvPool(kernel.shape[-1], kernel.shape[0], "plain").apply(
        {"params": {"kernel": kernel, "bias": bias}}, images.transpose(3, 1, 2, 0)
    )
    return gated.by_image(found)


def _drawn(*shapes):
    rng = np.random.default_rng(sum(shapes[0]))
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


@pytest.mark.parametrize(("size", "side"), [(12, 5), (11, 5), (10, 3), (9, 2), (10, 2)])
def test_a_layer_and_its_transpose(form, size, side):
    given = _drawn((128, size, size, 3), (side, side, 3, 4), (4,))

    @jax.jit
    def both(images, kernel, bias):
        laid_out = models.ConvNet(form=form).lay_out(images)
        maps, places = gated.run(laid_out, kernel, bias)
        slopes = jax.random.normal(jax.random.key(0), maps.shape)
        found = gated.by_image(gated.transpose(laid_out, kernel, places, slopes))
        expected, pull = jax.vjp(lambda images: _textbook(images, kernel, bias), images)
        (wanted,) = pull(gated.by_image(slopes))
        return maps, places, expected, found, wanted.transpose(0, 3, 1, 2).reshape(128, 3, -1)

    maps, places, expected, found, wanted = both(*given)
    np.testing.assert_allclose(gated.by_image(maps), expected, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(places) == gated.OFF, np.asarray(maps) == 0)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "side", "filters", "candidates"), [(12, 5, 4, 7), (11, 5, 13, 1), (9, 2, 8, 12), (6, 3, 1, 3)]
)
def test_slopes_of_mixtures_are_derivatives_image_by_image(form, size, side, filters, candidates):
    """Also of several blocks of images, and of filters and taps that vectors do not divide."""
    given = _drawn(
        (128, size, size, 3), (side, side, 3, filters), (filters,), (side, side, 3, candidates), (candidates,)
    )

    @jax.jit
    def both(images, kernel, bias, others, biases):
        laid_out = models.ConvNet(form=form).lay_out(images)
        maps, places = gated.run(laid_out, kernel, bias)
        slopes = jax.random.normal(jax.random.key(0), maps.shape)

        def answer(change):  # (F, C + 1)
            changed = kernel + jnp.einsum("hwic,fc->hwif", others, change[:, :-1])
            found = _textbook(images, changed, bias + change[:, :-1] @ biases + change[:, -1])
            return jnp.sum(found * gated.by_image(slopes), axis=(1, 2))

        wanted = jax.jacfwd(answer)(jnp.zeros((filters, candidates + 1)))
        return gated.mixtures(laid_out, others, biases, places, slopes), wanted

    found, wanted = both(*given)
    np.testing.assert_allclose(found.transpose(2, 0, 1), wanted, atol=2e-3)
