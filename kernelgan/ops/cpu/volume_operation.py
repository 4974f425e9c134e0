"""The two-layer networks of kernel space as a differentiable JAX operation on blocks of kernel sets."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numba import carray

from kernelgan.ops.cpu import custom_call, volume
from kernelgan.ops.cpu.compiler import compiled
from kernelgan.ops.cpu.custom_call import argument, data, floats_at, is_question, result, size
from kernelgan.ops.cpu.microkernels import WIDTH

_GATHER, _SCATTER = "kernelgan_volume_gather", "kernelgan_volume_scatter"
_GRADIENT = "kernelgan_volume_gradient"


def to_blocks(volumes: jax.Array) -> jax.Array:
    """Kernel sets ``(B, O, H, W, I)`` to ``(K, G, O, H, W, S, WIDTH)``, see `volume`; zeros fill it up."""
    count, *space, channels = volumes.shape
    blocks, groups, members = -(-count // WIDTH), *_grouped(channels)
    margins = ((0, blocks * WIDTH - count), (0, 0), (0, 0), (0, 0), (0, groups * members - channels))
    filled = jnp.pad(volumes, margins).reshape(blocks, WIDTH, *space, groups, members)
    return filled.transpose(0, 5, 2, 3, 4, 6, 1)


def from_blocks(blocks: jax.Array, count: int, channels: int) -> jax.Array:
    """``(K, G, O, H, W, S, WIDTH)`` to the first ``count`` kernel sets ``(B, O, H, W, channels)``."""
    space = blocks.shape[2:5]
    return blocks.transpose(0, 6, 2, 3, 4, 1, 5).reshape(-1, *space, blocks.shape[1] * blocks.shape[5])[
        :count, ..., :channels
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def encode_decode(
    volumes: jax.Array,
    encode: tuple[jax.Array, jax.Array],
    decode: tuple[jax.Array, jax.Array],
    slope: float,
) -> jax.Array:
    """Two 3-D convolutions of unchanged size (zeros around), a leaky ReLU between them.

    Args:
      volumes: float32 ``(K, G, O, H, W, S, WIDTH)``, see `to_blocks`.
      encode: the first one's kernel, float32 ``(d, h, w, I, C)``, odd sizes, and bias ``(C,)``.
      decode: the second one's, ``(d, h, w, C, I')`` and ``(I',)``.
      slope: of the leaky ReLU below zero; 0 for ReLU.

    Returns:
      ``(K, G', O, H, W, S', WIDTH)``.
    """
    return _forward(volumes, encode, decode, slope)[0]


def _forward(
    volumes: jax.Array,
    encode: tuple[jax.Array, jax.Array],
    decode: tuple[jax.Array, jax.Array],
    slope: float,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    hidden = _gather(volumes, *encode, jnp.zeros((0,) * 5), slope, turned=False)
    found = _scatter(hidden, *decode, volumes.shape[2:5], turned=False)
    return found, (volumes, hidden, encode[0], decode[0])


def _backward(
    slope: float, kept: tuple[jax.Array, ...], of_found: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """Each gradient in a call of its own: XLA leaves out those that nothing asks for."""
    volumes, hidden, encode, decode = kept
    of_hidden = _gather(of_found, decode, jnp.zeros(decode.shape[3]), hidden, slope, turned=True)
    space = volumes.shape[2:5]
    of_volumes = _scatter(of_hidden, encode, jnp.zeros(encode.shape[3]), space, turned=True)
    of_encode = _gradient(of_hidden, volumes, encode, of_many=False)
    return of_volumes, of_encode, _gradient(hidden, of_found, decode, of_many=True)


encode_decode.defvjp(_forward, _backward)


def _grouped(channels: int) -> tuple[int, int]:
    """Groups of channels, and channels in each."""
    members = volume.group_size(channels)
    return -(-channels // members), members


def _call(name: str, shapes: Sequence[tuple[int, ...]], *arguments: jax.Array) -> Sequence[jax.Array]:
    register()
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.ffi.ffi_call(name, results, vmap_method="sequential")(*arguments)


def _gather(
    volumes: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    reference: jax.Array,
    slope: float,
    *,
    turned: bool,
) -> jax.Array:
    groups, members = _grouped(len(bias))
    shape = (volumes.shape[0], groups, volume.hidden_places(volumes.shape[2:5]), members, WIDTH)
    settings = jnp.array([turned, slope], jnp.float32)
    filled = jnp.pad(bias, (0, groups * members - len(bias)))
    return _call(_GATHER, [shape], volumes, kernel, filled, reference, settings)[0]


def _scatter(
    hidden: jax.Array, kernel: jax.Array, bias: jax.Array, space: tuple[int, ...], *, turned: bool
) -> jax.Array:
    groups, members = _grouped(len(bias))
    shape = (hidden.shape[0], groups, *space, members, WIDTH)
    filled = jnp.pad(bias, (0, groups * members - len(bias)))
    return _call(_SCATTER, [shape], hidden, kernel, filled, jnp.array([turned], jnp.float32))[0]


def _gradient(
    hidden: jax.Array, volumes: jax.Array, kernel: jax.Array, *, of_many: bool
) -> tuple[jax.Array, jax.Array]:
    settings = jnp.array([of_many], jnp.float32)
    of_kernel, of_bias = _call(_GRADIENT, [kernel.shape, kernel.shape[-1:]], hidden, volumes, settings)
    return of_kernel, of_bias


@compiled
def _volumes(buffer: int) -> np.ndarray:
    groups, deep, high, wide = size(buffer, 1), size(buffer, 2), size(buffer, 3), size(buffer, 4)
    shape = (size(buffer, 0), groups, deep, high, wide, size(buffer, 5), WIDTH)
    return carray(floats_at(data(buffer)), shape)


@compiled
def _hidden(buffer: int) -> np.ndarray:
    shape = (size(buffer, 0), size(buffer, 1), size(buffer, 2), size(buffer, 3), WIDTH)
    return carray(floats_at(data(buffer)), shape)


@compiled
def _kernel(buffer: int) -> np.ndarray:
    shape = (size(buffer, 0), size(buffer, 1), size(buffer, 2), size(buffer, 3), size(buffer, 4))
    return carray(floats_at(data(buffer)), shape)


@compiled
def _floats(buffer: int) -> np.ndarray:
    return carray(floats_at(data(buffer)), (size(buffer, 0),))


def _answer_gather(frame: int) -> int:
    if is_question(frame):
        return 0
    settings = _floats(argument(frame, 4))
    volume.gather(
        _volumes(argument(frame, 0)),
        _kernel(argument(frame, 1)),
        _floats(argument(frame, 2)),
        _hidden(argument(frame, 3)),
        settings[1],
        settings[0] != 0,
        _hidden(result(frame, 0)),
    )
    return 0


def _answer_scatter(frame: int) -> int:
    if is_question(frame):
        return 0
    volume.scatter(
        _hidden(argument(frame, 0)),
        _kernel(argument(frame, 1)),
        _floats(argument(frame, 2)),
        _floats(argument(frame, 3))[0] != 0,
        _volumes(result(frame, 0)),
    )
    return 0


def _answer_gradient(frame: int) -> int:
    if is_question(frame):
        return 0
    volume.gradient(
        _hidden(argument(frame, 0)),
        _volumes(argument(frame, 1)),
        _floats(argument(frame, 2))[0] != 0,
        _kernel(result(frame, 0)),
        _floats(result(frame, 1)),
    )
    return 0


@custom_call.once
def register() -> None:
    """Compiles all calls, or finds them on disk, and tells XLA of them."""
    custom_call.register(_GATHER, _answer_gather)
    custom_call.register(_SCATTER, _answer_scatter)
    custom_call.register(_GRADIENT, _answer_gradient)
