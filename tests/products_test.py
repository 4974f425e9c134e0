import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kernelgan.ops import products

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def _textbook_convolve_and_pool(images, kernel):
    convolved = lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        "VALID",
        dimension_numbers=("CHWN", "HWIO", "CHWN"),
        precision=lax.Precision.HIGHEST,
    )
    return lax.reduce_window(convolved, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _value_and_gradients(function, inputs, kernel, cotangent):
    value = function(inputs, kernel)
    gradients = jax.grad(lambda *given: jnp.sum(function(*given) * cotangent), argnums=(0, 1))(inputs, kernel)
    return value, *gradients


def _compare(function, reference, inputs, kernel, output_shape):
    keys = jax.random.split(jax.random.key(1), 3)
    given = (
        jax.random.normal(keys[0], inputs),
        jax.random.normal(keys[1], kernel),
        jax.random.normal(keys[2], output_shape),
    )
    ours, theirs = (
        jax.jit(_value_and_gradients, static_argnums=0)(form, *given) for form in (function, reference)
    )
    assert ours[0].shape == output_shape
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("size", "window", "inputs", "outputs"),
    [
        ((16, 16), 5, 3, 6),  # tiles of 4
        ((14, 14), 5, 6, 4),  # many inputs: tiles of 2
        ((9, 9), 3, 7, 2),  # an odd number of outputs: the last is not computed
        ((13, 8), 5, 1, 3),  # one input, not square
        ((6, 6), 5, 2, 1),  # a single output pixel
    ],
)
def test_convolve_and_pool_and_its_gradients_equal_the_textbook(size, window, inputs, outputs):
    pooled = tuple((side - window + 1) // 2 for side in size)
    _compare(
        products.convolve_and_pool,
        _textbook_convolve_and_pool,
        (inputs, *size, 5),
        (window, window, inputs, outputs),
        (outputs, *pooled, 5),
    )


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3), (4, 4), (1, 2)])
def test_convolve_volume_and_its_gradients_equal_flax(inputs, outputs):
    def of_flax(volumes, kernel):
        layer = nn.Conv(outputs, (3, 3, 3), use_bias=False, precision=lax.Precision.HIGHEST)
        return layer.apply({"params": {"kernel": kernel}}, volumes.transpose(4, 1, 2, 3, 0)).transpose(
            4, 1, 2, 3, 0
        )

    space = (6, 5, 4)
    _compare(
        products.convolve_volume,
        of_flax,
        (inputs, *space, 2),
        (3, 3, 3, inputs, outputs),
        (outputs, *space, 2),
    )


def test_convolve_volume_takes_windows_that_are_no_cubes():
    def of_flax(volumes, kernel):
        layer = nn.Conv(2, (1, 3, 5), use_bias=False, precision=lax.Precision.HIGHEST)
        moved = layer.apply({"params": {"kernel": kernel}}, volumes.transpose(4, 1, 2, 3, 0))
        return moved.transpose(4, 1, 2, 3, 0)

    for inputs in (1, 3):  # gathered, and summed
        _compare(
            products.convolve_volume, of_flax, (inputs, 4, 5, 6, 2), (1, 3, 5, inputs, 2), (2, 4, 5, 6, 2)
        )
