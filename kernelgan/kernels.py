"""Kernel sets: what a kernel-space translator sees of a network, and the way back.

A kernel set is one layer's kernel, ``(h, w, I, O)``, seen as a volume ``(O, h, w, I)``: filters are depth,
input channels are channels, as in the reference (its PyTorch layout is ``(I, O, h, w)``). Biases and the
dense head are not part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from kernelgan.types import Array, Params

NORMALISATIONS = ("none", "standard", "range")


def to_volume(kernel: Array) -> Array:
    """``(..., h, w, I, O)`` to ``(..., O, h, w, I)``."""
    axes = tuple(range(kernel.ndim - 4))
    n = kernel.ndim
    return kernel.transpose(*axes, n - 1, n - 4, n - 3, n - 2)


def from_volume(volume: Array) -> Array:
    """The inverse of `to_volume`: ``(..., O, h, w, I)`` to ``(..., h, w, I, O)``."""
    axes = tuple(range(volume.ndim - 4))
    n = volume.ndim
    return volume.transpose(*axes, n - 3, n - 2, n - 1, n - 4)


def extract(params: Params, layers: Sequence[str]) -> dict[str, Array]:
    """Kernel sets of (stacked) networks by layer: ``{"conv1": (M, O, h, w, I), ...}``."""
    return {layer: to_volume(params[layer]["kernel"]) for layer in layers}


def insert(params: Params, volumes: Mapping[str, Array]) -> Params:
    """The inverse of `extract`: the same parameters with these kernel sets in place of their own."""
    replaced = {layer: {**params[layer], "kernel": from_volume(volume)} for layer, volume in volumes.items()}
    return {**params, **replaced}


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """An affine map of one layer's kernel sets of one zoo, and its inverse."""

    shift: Array | float
    scale: Array | float

    def apply(self, volumes: Array) -> Array:
        """Network weights to what the translator sees."""
        return (volumes - self.shift) / self.scale

    def invert(self, volumes: Array) -> Array:
        """What the translator gives, as network weights."""
        return volumes * self.scale + self.shift


def fit_normaliser(volumes: Array, kind: str) -> Normaliser:
    """Fits a normaliser to a zoo's kernel sets of one layer.

    Args:
      volumes: ``(M, O, h, w, I)``.
      kind: ``"none"`` (the identity, as the reference), ``"standard"`` (zero mean, and three standard
        deviations become 1, so that the generator's tanh reaches nearly all weights) or ``"range"`` (the
        largest weight becomes 1).

    Raises:
      ValueError: another kind.
    """
    if kind == "none":
        return Normaliser(0.0, 1.0)
    xp: Any = np if isinstance(volumes, np.ndarray) else jnp
    if kind == "standard":
        return Normaliser(xp.mean(volumes), _or_one(3.0 * xp.std(volumes), xp))
    if kind == "range":
        return Normaliser(0.0, _or_one(xp.max(xp.abs(volumes)), xp))
    raise ValueError(f"unknown normalisation {kind!r}; known are {', '.join(NORMALISATIONS)}")


def _or_one(scale: Array, xp: Any) -> Array:  # noqa: ANN401
    """A scale that can be divided by: 1 where all weights are alike."""
    return xp.where(scale > 0, scale, xp.ones_like(scale))
