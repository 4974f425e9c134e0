"""A layer with the places that its maps come from, and its transpose while these stay.

While each pooling window passes on the same pre-activation, or none, a layer without its bias is a linear
map. On CPUs it is `kernelgan.ops.cpu`'s, elsewhere products; maps are as `models.ConvNet.lay_out` lays them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernelgan.ops import cpu, products

OFF = 4
"""The place of a map that is 0; the others are 0 to 3, row by row of a pooling window."""


def _direct() -> bool:
    return jax.default_backend() == "cpu" and cpu.is_available()


def run(maps: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Convolution, bias, 2 x 2 max-pooling and ReLU.

    Args:
      maps: of the layer before, laid out.
      kernel: ``(k, k, I, O)``.
      bias: ``(O,)``.

    Returns:
      Maps and, uint8 of the same shape, the place that each comes from.
    """
    if _direct():
        from kernelgan.ops.cpu import operation  # numba takes a second to import

        return operation.forward(maps, kernel, bias)
    windows = products.convolve_windows(maps, kernel) + bias[:, None, None, None]
    top = jnp.maximum(windows.max(axis=0), 0)
    return top, jnp.where(top > 0, jnp.argmax(windows, axis=0), OFF).astype(jnp.uint8)


def transpose(maps: jax.Array, kernel: jax.Array, places: jax.Array, slopes: jax.Array) -> jax.Array:
    """What a unit of each map that a layer reads adds, by what one of each that it gives adds.

    Args:
      maps: that it reads, laid out.
      kernel: ``(k, k, I, O)``.
      places: see `run`.
      slopes: what a unit of each map that it gives adds, of the shape of ``places``.

    Returns:
      Of the shape of `maps`.
    """
    if _direct():
        from kernelgan.ops.cpu import operation

        return operation.transpose(maps, kernel, places, slopes)
    side, (height, width) = kernel.shape[0], maps.shape[1:3]
    passed = jnp.where(places == jnp.arange(OFF)[:, None, None, None, None], slopes, 0)
    whole = _opened(passed)
    # Products give an even number of rows: the last is cut off where it is one too many.
    margins = [
        (side - 1, length + length % 2 - found)
        for length, found in zip((height, width), whole.shape[1:3], strict=True)
    ]
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    found = products.convolve_windows(jnp.pad(whole, ((0, 0), *margins, (0, 0))), turned)
    return _opened(found)[:, :height, :width]


def by_image(maps: jax.Array) -> jax.Array:
    """Laid-out maps, or their places, as ``(B, C, H * W)``."""
    if maps.ndim == 4:
        return maps.transpose(3, 0, 1, 2).reshape(maps.shape[-1], len(maps), -1)
    return maps.transpose(0, 4, 1, 2, 3).reshape(-1, maps.shape[1], maps.shape[2] * maps.shape[3])


def _opened(windows: jax.Array) -> jax.Array:
    """``(4, C, h, w, B)``, four of each window of two by two, as ``(C, 2 h, 2 w, B)``."""
    _, channels, height, width, batch = windows.shape
    found = windows.reshape(2, 2, channels, height, width, batch).transpose(2, 3, 0, 4, 1, 5)
    return found.reshape(channels, 2 * height, 2 * width, batch)
