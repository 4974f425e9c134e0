"""Convolutions written as dense matrix products, for populations of small networks.

A convolution inside ``scan`` or ``map`` is many times slower on a CPU than the products below (jax issue
12868), and mapping over kernels turns it into a grouped convolution (jax issue 13800). Images are kept
batch-minor, ``(C, H, W, B)``, so that every product has the batch as its long, contiguous axis.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

PRECISION = lax.Precision.HIGHEST
"""Float32 products stay float32 on every device (NVIDIA would run them in TF32)."""


def convolve_and_pool(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Valid 2-D cross-correlation, then 2 x 2 max-pooling with stride 2, as ONE matrix product.

    A row of the product holds a whole tile of outputs (up to 4 x 4 pixels of every filter), computed from the
    tile's neighbourhood (8 x 8 for a 5 x 5 kernel) by the kernel's copies at each offset, zero elsewhere. For
    about twice the arithmetic, the gathered images are 4 times their size instead of 25, the product is wide
    enough to run near its peak, and a tile's pooling is a maximum over leading axes.

    Args:
      images: ``(I, H, W, B)``, batch-minor.
      kernel: ``(h, w, I, O)``.

    Returns:
      ``(O, (H - h + 1) // 2, (W - w + 1) // 2, B)``; an odd last row or column is not computed.
    """
    tiles = _tiles(images, kernel)
    pooled = jnp.maximum(tiles[0::2], tiles[1::2])
    pooled = jnp.maximum(pooled[:, 0::2], pooled[:, 1::2])
    return _untiled(pooled)


def convolve_windows(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """What `convolve_and_pool` takes the maximum of: ``(4, O, (H - h + 1) // 2, (W - w + 1) // 2, B)``."""
    tiles = _tiles(images, kernel)
    return jnp.stack([_untiled(tiles[row::2, column::2]) for row in (0, 1) for column in (0, 1)])


def _tiles(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The product: outputs ``(tall, wide, O, down, across, B)`` of tiles ``tall`` by ``wide``."""
    h, w, inputs, outputs = kernel.shape
    _, height, width, batch = images.shape
    rows, columns = (height - h + 1) // 2 * 2, (width - w + 1) // 2 * 2
    tall, wide = _tile(rows, inputs), _tile(columns, inputs)
    down, across = rows // tall, columns // wide
    gathered = jnp.concatenate([images[:, i : i + rows - tall + 1 : tall] for i in range(tall + h - 1)])
    gathered = jnp.concatenate(
        [gathered[:, :, j : j + columns - wide + 1 : wide] for j in range(wide + w - 1)]
    )
    placed = [
        jnp.pad(kernel, ((a, tall - 1 - a), (c, wide - 1 - c), (0, 0), (0, 0)))
        for a in range(tall)
        for c in range(wide)
    ]
    # The gathering order: columns of the neighbourhood, then rows, then input channels.
    taps = jnp.stack(placed).transpose(0, 4, 2, 1, 3).reshape(tall * wide * outputs, -1)
    product = jnp.matmul(taps, gathered.reshape(taps.shape[1], -1), precision=PRECISION)
    return product.reshape(tall, wide, outputs, down, across, batch)


def _untiled(tiles: jax.Array) -> jax.Array:
    """``(tall, wide, O, down, across, B)`` as ``(O, down * tall, across * wide, B)``."""
    tall, wide, outputs, down, across, batch = tiles.shape
    return tiles.transpose(2, 3, 0, 4, 1, 5).reshape(outputs, down * tall, across * wide, batch)


def floats_on_the_way(size: int, inputs: int, kernel_size: int, filters: int) -> int:
    """Numbers that `convolve_and_pool` stores for one square image: what it gathers, and the product."""
    outputs = (size - kernel_size + 1) // 2 * 2
    tile = _tile(outputs, inputs)
    return (tile + kernel_size - 1) ** 2 * inputs * (outputs // tile) ** 2 + filters * outputs**2


def _tile(size: int, inputs: int) -> int:
    """Outputs of a tile along one side: 4 where few inputs make the product narrow, else 2."""
    return 4 if size % 4 == 0 and inputs < 6 else 2


def convolve_volume(volumes: jax.Array, kernel: jax.Array) -> jax.Array:
    """3-D cross-correlation of unchanged size (zeros around), as one matrix product.

    With few input channels neighbourhoods are gathered and multiplied; with few output channels the product
    comes first and its parts are shifted and summed. Nothing wider than that is stored.

    Args:
      volumes: ``(I, D, H, W, B)``, batch-minor.
      kernel: ``(d, h, w, I, O)``, odd sizes.

    Returns:
      ``(O, D, H, W, B)``.
    """
    *window, inputs, outputs = kernel.shape
    _, *space, batch = volumes.shape
    margins = ((0, 0), *((size // 2, size // 2) for size in window), (0, 0))

    def shifts(padded: jax.Array, axis: int) -> list[jax.Array]:
        size = space[axis - 1]
        return [lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(window[axis - 1])]

    # One axis after the other: a few slices for each instead of one for each tap.
    if inputs <= outputs:
        gathered = jnp.pad(volumes, margins)
        for axis in (1, 2, 3):
            gathered = jnp.concatenate(shifts(gathered, axis))
        taps = kernel.transpose(2, 1, 0, 3, 4).reshape(-1, outputs).T
        product = jnp.matmul(taps, gathered.reshape(taps.shape[1], -1), precision=PRECISION)
        return product.reshape(outputs, *space, batch)
    taps = kernel.transpose(2, 1, 0, 4, 3).reshape(-1, inputs)
    product = jnp.matmul(taps, volumes.reshape(inputs, -1), precision=PRECISION)
    summed = jnp.pad(product.reshape(-1, *space, batch), margins)
    for axis in (3, 2, 1):
        parts = jnp.split(summed, window[axis - 1])
        summed = functools.reduce(
            jnp.add,
            (lax.slice_in_dim(part, i, i + space[axis - 1], axis=axis) for i, part in enumerate(parts)),
        )
    return summed
