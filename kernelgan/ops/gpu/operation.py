"""One epoch of a population as a JAX operation."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kernelgan import models
from kernelgan.ops.gpu import compiler, custom_call
from kernelgan.ops.gpu.layout import Layout, layout_of
from kernelgan.types import Array, Params, UserError

_IMAGES, _INDEX = 0, 1  # among the arguments
_STATE = 5  # the first of the arguments that are also results: parameters, means, squares, counts

Launch = Callable[[int | None, int, list[Any]], None]
"""``(stream, blocks, the kernel's arguments)``, see `compiler.Kernel.launch`."""


def train_epoch(
    state: Params,
    images: Array,
    index: Array,
    targets: Array,
    weights: Array,
    *,
    network: models.ConvNet,
    loss: Callable[..., Any],
    learning_rate: float | jax.Array,
) -> tuple[Params, jax.Array]:
    """Trains every network of a population for ``S`` steps of Adam, on a GPU, in one launch.

    What `population.program` does with its own step, in float32 throughout; sums are taken in another order,
    always the same one. An index outside the images is taken as the nearest inside.

    Args:
      state: ``{"params": ..., "optimizer": the state of optax.adam}``, every leaf with a leading ``M``.
      images: uint8 ``(N, H, H, 3)``.
      index: int32 ``(M, S, B)``, images of each network, step and place.
      targets: int32 labels ``(M, S, B)``, or float32 ``(M, S, B, outputs)`` for squared errors.
      weights: float32 ``(S, B)``, of the places of a batch.
      network: the module that all of them share; its form does not matter.
      loss: one of `losses`.
      learning_rate: of Adam, with optax's other defaults; a scalar, which may be traced.

    Returns:
      The new state, and float32 ``(M, S)``: each step's weighted mean loss times its sum of weights.

    Raises:
      UserError: the network, images or loss are not supported, or there is no GPU or compiler for it.
    """
    layout = layout_of(network, images.shape[1], loss, compiler.most_shared_bytes())
    if layout is None or images.shape[1:] != (layout.size, layout.size, 3):
        raise UserError(
            f"the fused kernel has no place for filters {tuple(network.filters)}, kernel_size "
            f"{network.kernel_size}, {network.outputs} outputs, the loss {getattr(loss, '__name__', loss)} "
            f"and images {tuple(images.shape[1:])}; ask ops.gpu.supports first."
        )
    adam, *rest = state["optimizer"]
    rows = [layout.pack(tree) for tree in (state["params"], adam.mu, adam.nu)]
    models_count, steps, batch = index.shape
    arguments = [
        jnp.asarray(images),
        jnp.asarray(index, jnp.int32),
        jnp.asarray(targets, jnp.float32 if layout.squared else jnp.int32),
        jnp.asarray(weights, jnp.float32),
        jnp.full((1,), learning_rate, jnp.float32),
        *rows,
        jnp.asarray(adam.count, jnp.int32),
    ]
    expected = {
        "images": (images.shape[0], layout.size, layout.size, 3),
        "index": (models_count, steps, batch),
        "targets": (models_count, steps, batch, *([layout.outputs] if layout.squared else [])),
        "weights": (steps, batch),
        "learning_rate": (1,),
        "params": (models_count, layout.parameters),
        "optimizer.mu": (models_count, layout.parameters),
        "optimizer.nu": (models_count, layout.parameters),
        "optimizer.count": (models_count,),
    }
    for argument, (name, shape) in zip(arguments, expected.items(), strict=True):
        if argument.shape != shape:
            raise ValueError(f"{name} has shape {argument.shape}, and {shape} was expected")
    if arguments[_IMAGES].dtype != jnp.uint8:
        raise ValueError(f"images are {arguments[_IMAGES].dtype}, and uint8 was expected")
    of_state = arguments[_STATE:]
    results = [jax.ShapeDtypeStruct(argument.shape, argument.dtype) for argument in of_state]
    call = jax.ffi.ffi_call(
        _target(layout),
        [*results, jax.ShapeDtypeStruct((models_count, steps), jnp.float32)],
        input_output_aliases={_STATE + k: k for k in range(len(of_state))},
    )
    params, means, squares, counts, losses = call(*arguments)
    adam = adam._replace(count=counts, mu=layout.unpack(means), nu=layout.unpack(squares))
    return {"params": layout.unpack(params), "optimizer": (adam, *rest)}, losses


def answer_with(launch: Launch) -> custom_call.Answer:
    """What answers XLA's call: reads the sizes of its buffers and launches."""

    def answer(stream: int | None, arguments: list[Any], results: list[Any]) -> None:
        blocks, steps, batch = arguments[_INDEX].dims[:3]
        if blocks == 0:
            return
        pointers: list[Any] = [ctypes.c_void_p(buffer.data) for buffer in [*arguments, *results]]
        pointers.insert(_IMAGES + 1, ctypes.c_int(arguments[_IMAGES].dims[0]))
        launch(stream, blocks, [*pointers, ctypes.c_int(steps), ctypes.c_int(batch)])

    return answer


def name_of(layout: Layout) -> str:
    """The name that XLA calls a layout's kernel by."""
    return f"kernelgan_fused_{hashlib.sha256(repr(layout).encode()).hexdigest()[:16]}"


@functools.cache
def _target(layout: Layout) -> str:
    """Compiles the kernel, or finds it on disk, and tells XLA of it."""
    try:
        devices = jax.devices("cuda")
    except RuntimeError as error:
        raise UserError(
            f"the fused training kernel runs on NVIDIA GPUs, and JAX has only {jax.default_backend()} here; "
            "install JAX's CUDA wheels, or train without the fused kernel."
        ) from error
    major, minor = (int(number) for number in str(devices[0].compute_capability).split("."))
    code = compiler.compile_for(layout, (major, minor))
    kernel = compiler.Kernel(code, layout.shared_bytes)
    custom_call.register(name_of(layout), answer_with(kernel.launch))
    return name_of(layout)
