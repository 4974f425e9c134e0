"""A layer with the places that its maps come from, and its transpose while these stay.

While each pooling window passes on the same pre-activation, or none, a layer without its bias is a linear
map. On CPUs it is `kernelgan.ops.cpu`'s, elsewhere products; maps are laid out for a `models.ConvNet` of no
particular form.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from kernelgan.ops import cpu, products

OFF = 4
"""The place of a map that is 0; the others are 0 to 3, row by row of a pooling window."""

_BLOCK = 64  # images whose windows are in memory at once, where they are products


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


def mixtures(
    maps: jax.Array, kernels: jax.Array, biases: jax.Array, places: jax.Array, slopes: jax.Array
) -> jax.Array:
    """What a unit of each candidate in each filter adds, by what one of each map that the layer gives adds.

    Args:
      maps: that the layer reads, laid out.
      kernels: of the candidates, ``(k, k, I, C)``.
      biases: ``(C,)``.
      places: see `run`.
      slopes: see `transpose`.

    Returns:
      Of each image ``(F, C + 1, B)``; the last candidate is a constant, 1.
    """
    passed = jnp.where(places == OFF, 0, slopes)
    if _direct():
        from kernelgan.ops.cpu import operation

        found = operation.mixtures(maps, kernels, places, slopes)  # (b, F, C, LANES)
        constant = passed.sum(axis=(2, 3))[:, :, None]
        found = jnp.concatenate([found + biases[:, None] * constant, constant], axis=2)
        return found.transpose(1, 2, 0, 3).reshape(*found.shape[1:3], -1)
    constant = passed.sum(axis=(1, 2))[:, None]

    def block(of: tuple[jax.Array, ...]) -> jax.Array:
        maps, places, slopes = of
        windows = products.convolve_windows(maps, kernels)  # (4, C, P, Q, m)
        windows = windows.reshape(*windows.shape[:2], -1, windows.shape[-1]).transpose(0, 3, 2, 1)
        found = jnp.zeros(())
        for place, window in enumerate(windows):
            there = by_image(jnp.where(places == place, slopes, 0))
            found += jnp.matmul(there, window, precision=products.PRECISION)
        return found

    found = lax.map(block, tuple(_in_blocks(array) for array in (maps, places, slopes)))  # (b, m, F, C)
    found = found.reshape(-1, *found.shape[2:]).transpose(1, 2, 0)
    return jnp.concatenate([found + biases[:, None] * constant, constant], axis=1)


def _in_blocks(images: jax.Array) -> jax.Array:
    """``(..., B)`` as ``(b, ..., m)``: `_BLOCK` images at once if these make whole blocks, else all."""
    count = images.shape[-1]
    each = count if count % _BLOCK else _BLOCK
    return jnp.moveaxis(images.reshape(*images.shape[:-1], -1, each), -2, 0)


def joined(maps: Sequence[jax.Array]) -> jax.Array:
    """Laid-out maps of several sets of images as those of one; sets of whole blocks."""
    return jnp.concatenate(maps, axis=0 if maps[0].ndim == 5 else -1)


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
