"""The arithmetic of layers: as matrix products, as vector code for CPUs, as a fused kernel for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelgan import models
    from kernelgan.losses import Loss

TrainEpoch = Callable[..., Any]
"""Trains many networks at once for an epoch: see `gpu.train_epoch`."""


def epoch_kernel(network: models.ConvNet, image_size: int, loss: Loss) -> TrainEpoch | None:
    """The fused kernel where it is there and can train such networks; None: `population`'s own step does.

    Args:
      network: the module; only the form "auto" leaves the choice.
      image_size: pixels a side.
      loss: see `losses`.
    """
    from kernelgan.ops import gpu

    if network.form == "auto" and gpu.is_available() and gpu.supports(network, image_size, loss):
        return gpu.train_epoch
    return None
