"""Convolutions written as dense matrix products, for populations of small networks.

A convolution inside ``scan`` or ``map`` is many times slower on a CPU than the products below (jax issue
12868), and mapping over kernels turns it into a grouped convolution (jax issue 13800). Images are kept
batch-minor, ``(C, H, W, B)``, so that every product has the batch as its long, contiguous axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

PRECISION = lax.Precision.HIGHEST
"""Float32 products stay float32 on every device (NVIDIA would run them in TF32)."""


def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Valid 2-D cross-correlation as one product for each row of the kernel.

    Args:
      images: ``(I, H, W, B)``, batch-minor.
      kernel: ``(h, w, I, O)``.

    Returns:
      ``(O, H - h + 1, W - w + 1, B)``.
    """
    h, w, inputs, outputs = kernel.shape
    _, height, width, batch = images.shape
    rows, columns = height - h + 1, width - w + 1
    shifted = jnp.concatenate([images[:, :, j : j + columns] for j in range(w)], axis=0)
    taps = kernel.transpose(0, 3, 1, 2).reshape(h, outputs, w * inputs)
    products = [
        jnp.matmul(taps[i], shifted[:, i : i + rows].reshape(w * inputs, -1), precision=PRECISION)
        for i in range(h)
    ]
    return sum(products[1:], products[0]).reshape(outputs, rows, columns, batch)


def max_pool(images: jax.Array) -> jax.Array:
    """2 x 2 max-pooling with stride 2 of ``(C, H, W, B)``, by slices; an odd last row is dropped."""
    height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    rows = jnp.maximum(images[:, 0:height:2, :width], images[:, 1:height:2, :width])
    return jnp.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


def conv_general_dilated_3d(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvDimensionNumbers | None = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A 3-D "SAME" convolution as one product, for ``flax.linen.Conv(conv_general_dilated=...)``.

    With few input channels the neighbourhoods are gathered and multiplied once; with few output channels the
    product comes first and its columns are shifted and summed. Either way the one product has the same
    arithmetic as the convolution, and nothing wider than the hidden channels is stored.

    Args:
      lhs: ``(B, D, H, W, I)``.
      rhs: ``(d, h, w, I, O)``, odd sizes.
      window_strides: all 1.
      padding: ``"SAME"``.
      lhs_dilation: none.
      rhs_dilation: none.
      dimension_numbers: channels last, as Flax gives them.
      feature_group_count: 1.
      precision: of the product; ``None`` is `PRECISION`.

    Returns:
      ``(B, D, H, W, O)``.

    Raises:
      ValueError: for a stride, dilation, padding or grouping other than the above.
    """
    del dimension_numbers
    plain = all(step == 1 for step in (*window_strides, *(lhs_dilation or ()), *(rhs_dilation or ())))
    if not plain or padding != "SAME" or feature_group_count != 1:
        raise ValueError(
            f"only stride 1, no dilation, padding 'SAME' and one group are supported; got strides "
            f"{window_strides}, dilations {lhs_dilation}, {rhs_dilation}, padding {padding!r}, "
            f"{feature_group_count} groups"
        )
    precision = PRECISION if precision is None else precision
    *window, inputs, outputs = rhs.shape
    _, *space, _ = lhs.shape
    margins = ((0, 0), *((size // 2, size // 2) for size in window), (0, 0))
    offsets = [(i, j, k) for i in range(window[0]) for j in range(window[1]) for k in range(window[2])]

    def shift(volume: jax.Array, offset: tuple[int, int, int]) -> jax.Array:
        i, j, k = offset
        return volume[:, i : i + space[0], j : j + space[1], k : k + space[2]]

    if inputs <= outputs:
        padded = jnp.pad(lhs, margins)
        patches = jnp.concatenate([shift(padded, offset) for offset in offsets], axis=-1)
        return jnp.matmul(patches, rhs.reshape(-1, outputs), precision=precision)
    columns = rhs.transpose(3, 0, 1, 2, 4).reshape(inputs, -1)
    products = jnp.pad(jnp.matmul(lhs, columns, precision=precision), margins)
    parts = [
        shift(products[..., n * outputs : (n + 1) * outputs], offset) for n, offset in enumerate(offsets)
    ]
    return sum(parts[1:], parts[0])
