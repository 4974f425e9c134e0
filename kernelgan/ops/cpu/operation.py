"""The layer as a differentiable JAX operation, and images in blocks and out of them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from numba import carray

from kernelgan.ops.cpu import custom_call, layer
from kernelgan.ops.cpu.custom_call import argument, bytes_at, data, floats_at, is_question, result, size
from kernelgan.ops.cpu.microkernels import LANES

_FORWARD, _BACKWARD = "kernelgan_direct_forward", "kernelgan_direct_backward"
_MIXTURES = "kernelgan_direct_mixtures"


def to_blocks(images: jax.Array) -> jax.Array:
    """Images ``(B, H, W, C)`` to ``(K, C, H, W, LANES)``; the last block is filled up with zeros."""
    count = images.shape[0]
    blocks = -(-count // LANES)
    filled = jnp.pad(images, ((0, blocks * LANES - count), (0, 0), (0, 0), (0, 0)))
    return filled.reshape(blocks, LANES, *images.shape[1:]).transpose(0, 4, 2, 3, 1)


def from_blocks(blocks: jax.Array, count: int) -> jax.Array:
    """Pooled blocks ``(K, O, P, Q, LANES)`` to features ``(B, O * P * Q)`` of the first ``count`` images."""
    return blocks.transpose(0, 4, 1, 2, 3).reshape(blocks.shape[0] * LANES, -1)[:count]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def convolve_pool_relu(images: jax.Array, kernel: jax.Array, bias: jax.Array, first: bool) -> jax.Array:
    """Valid convolution, bias, 2 x 2 max-pooling with stride 2 and ReLU.

    Args:
      images: float32 ``(K, I, H, W, LANES)``, see `to_blocks`.
      kernel: float32 ``(h, k, I, O)``.
      bias: float32 ``(O,)``.
      first: whether nothing is asked for the images' gradient, which is then given as zeros.

    Returns:
      float32 ``(K, O, (H - h + 1) // 2, (W - k + 1) // 2, LANES)``.
    """
    del first
    return forward(images, kernel, bias)[0]


def forward(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What `convolve_pool_relu` gives, and the place that each comes from: uint8, 4 where ReLU cut it."""
    register()
    blocks, _, height, width, _ = images.shape
    tall, wide, _, outputs = kernel.shape
    shape = (blocks, outputs, (height - tall + 1) // 2, (width - wide + 1) // 2, LANES)
    call = jax.ffi.ffi_call(
        _FORWARD,
        (jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape, jnp.uint8)),
        vmap_method="sequential",
    )
    pooled, code = call(images, kernel, bias)
    return pooled, code


def transpose(images: jax.Array, kernel: jax.Array, code: jax.Array, slope: jax.Array) -> jax.Array:
    """The images' gradient, from that of what `forward` gave and its places."""
    return _gradients(images, kernel, code, slope, (0, *kernel.shape[1:]), images.shape)[2]


def mixtures(images: jax.Array, kernels: jax.Array, code: jax.Array, slope: jax.Array) -> jax.Array:
    """Each image's kernel gradient, multiplied by other kernels.

    Args:
      images: float32 ``(K, I, H, W, LANES)``, see `to_blocks`.
      kernels: ``(h, k, I, C)``.
      code: of what `forward` gave, ``(K, O, P, Q, LANES)``.
      slope: the gradient of what it gave, of the same shape.

    Returns:
      float32 ``(K, O, C, LANES)``.
    """
    register_mixtures()
    shape = (*slope.shape[:2], kernels.shape[-1], LANES)
    call = jax.ffi.ffi_call(_MIXTURES, jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential")
    return call(slope, code, images, kernels)


def _gradients(
    images: jax.Array,
    kernel: jax.Array,
    code: jax.Array,
    slope: jax.Array,
    of_kernel: tuple[int, ...],
    of_images: tuple[int, ...],
) -> list[jax.Array]:
    """Of kernel, bias and images, in these shapes; of kernel and images empty where no length is wanted."""
    shapes = (of_kernel, kernel.shape[-1:], of_images)
    call = jax.ffi.ffi_call(
        _BACKWARD, [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes], vmap_method="sequential"
    )
    return list(call(slope, code, images, kernel))


def _forward(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, first: bool
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    del first
    pooled, code = forward(images, kernel, bias)
    return pooled, (code, images, kernel)


def _backward(
    first: bool, kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    code, images, kernel = kept
    shape = (0 if first else images.shape[0], *images.shape[1:])
    of_kernel, of_bias, of_images = _gradients(images, kernel, code, slope, kernel.shape, shape)
    return (jnp.zeros_like(images) if first else of_images), of_kernel, of_bias


convolve_pool_relu.defvjp(_forward, _backward)


def _answer_forward(frame: int) -> int:
    if is_question(frame):
        return 0
    x, w = argument(frame, 0), argument(frame, 1)
    y = result(frame, 0)
    blocks, inputs, height, width = size(x, 0), size(x, 1), size(x, 2), size(x, 3)
    tall, wide, outputs = size(w, 0), size(w, 1), size(w, 3)
    pooled = (blocks, outputs, size(y, 2), size(y, 3), LANES)
    layer.forward(
        carray(floats_at(data(x)), (blocks, inputs, height, width, LANES)),
        carray(floats_at(data(w)), (tall, wide, inputs, outputs)),
        carray(floats_at(data(argument(frame, 2))), (outputs,)),
        carray(floats_at(data(y)), pooled),
        carray(bytes_at(data(result(frame, 1))), pooled),
    )
    return 0


def _answer_backward(frame: int) -> int:
    if is_question(frame):
        return 0
    dy, x, w = argument(frame, 0), argument(frame, 2), argument(frame, 3)
    dw, dx = result(frame, 0), result(frame, 2)
    blocks, inputs, height, width = size(x, 0), size(x, 1), size(x, 2), size(x, 3)
    tall, wide, outputs = size(w, 0), size(w, 1), size(w, 3)
    pooled = (blocks, outputs, size(dy, 2), size(dy, 3), LANES)
    layer.backward(
        carray(floats_at(data(dy)), pooled),
        carray(bytes_at(data(argument(frame, 1))), pooled),
        carray(floats_at(data(x)), (blocks, inputs, height, width, LANES)),
        carray(floats_at(data(w)), (tall, wide, inputs, outputs)),
        carray(floats_at(data(dw)), (size(dw, 0), wide, inputs, outputs)),
        carray(floats_at(data(result(frame, 1))), (outputs,)),
        carray(floats_at(data(dx)), (size(dx, 0), inputs, height, width, LANES)),
    )
    return 0


def _answer_mixtures(frame: int) -> int:
    if is_question(frame):
        return 0
    dy, x, w = argument(frame, 0), argument(frame, 2), argument(frame, 3)
    blocks, inputs, height, width = size(x, 0), size(x, 1), size(x, 2), size(x, 3)
    tall, wide, candidates, outputs = size(w, 0), size(w, 1), size(w, 3), size(dy, 1)
    pooled = (blocks, outputs, size(dy, 2), size(dy, 3), LANES)
    layer.mixtures(
        carray(floats_at(data(dy)), pooled),
        carray(bytes_at(data(argument(frame, 1))), pooled),
        carray(floats_at(data(x)), (blocks, inputs, height, width, LANES)),
        carray(floats_at(data(w)), (tall, wide, inputs, candidates)),
        carray(floats_at(data(result(frame, 0))), (blocks, outputs, candidates, LANES)),
    )
    return 0


@custom_call.once
def register() -> None:
    """Compiles both calls, or finds them on disk, and tells XLA of them."""
    custom_call.register(_FORWARD, _answer_forward)
    custom_call.register(_BACKWARD, _answer_backward)


@custom_call.once
def register_mixtures() -> None:
    """The same for the call of `mixtures`, which few programs have."""
    custom_call.register(_MIXTURES, _answer_mixtures)
