"""A population trained by one GPU kernel: one network a thread block, a whole epoch in one launch.

As XLA compiles it, a step of these small networks writes every activation to the GPU's memory and reads it
back, about 184 KB an image, and a convolution of many kernels at once becomes a grouped convolution, which is
slow. Here a network's weights, gradients and activations stay in a multiprocessor's shared memory and
registers for the whole epoch, and images are read as bytes where they lie. float32 multiply-adds, not TF32;
the same bits in every run. CUDA C++, compiled by NVRTC at first use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from kernelgan import models
from kernelgan.ops.gpu.operation import train_epoch

__all__ = ["is_available", "supports", "train_epoch"]


@functools.cache
def is_available() -> bool:
    """Whether JAX has an NVIDIA GPU, and the driver's library and NVRTC are here. Raises nothing."""
    try:
        import jax

        from kernelgan.ops.gpu import compiler

        return bool(jax.devices("cuda")) and bool(compiler.driver()) and bool(compiler.nvrtc())
    except Exception:  # whatever is broken, there is another way to train
        return False


def supports(network: models.ConvNet, image_size: int, loss: Callable[..., Any]) -> bool:
    """Whether the kernel can train such a network on square images of ``image_size`` pixels a side."""
    from kernelgan.ops.gpu import compiler
    from kernelgan.ops.gpu.layout import layout_of

    return layout_of(network, image_size, loss, compiler.most_shared_bytes()) is not None
