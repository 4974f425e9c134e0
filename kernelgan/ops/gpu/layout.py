"""What one kernel is compiled for: the sizes of a network, their limits, and the parameters as flat rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp

from kernelgan import losses, models
from kernelgan.types import Array, Params

THREADS = 256
"""Of a block."""

GROUPS = (8, 4, 2)
"""Images that a block may have in shared memory at a time; as many as fit."""

MOST_SHARED = 227 * 1024
"""Bytes of shared memory that a block can have on Hopper; other GPUs have less, see `compiler`."""

_HALF_SHARED = 113 * 1024  # so that two blocks share a multiprocessor
_SQUARED = {losses.cross_entropy: False, losses.squared_error: True}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes that the kernel is compiled for; two networks of one layout share it.

    Attributes:
      size: pixels a side of an image.
      kernel_size: pixels a side of both kernels.
      filters: output channels of the two convolutions.
      outputs: logits.
      squared: whether the loss is `losses.squared_error`, not `losses.cross_entropy`.
      group: images in shared memory at a time.
    """

    size: int
    kernel_size: int
    filters: tuple[int, int]
    outputs: int
    squared: bool
    group: int = GROUPS[0]

    @property
    def pooled(self) -> tuple[int, int]:
        """Pixels a side of the two layers' pooled maps."""
        first = (self.size - self.kernel_size + 1) // 2
        return first, (first - self.kernel_size + 1) // 2

    @property
    def features(self) -> int:
        """Inputs of the dense layer."""
        return self.filters[1] * self.pooled[1] ** 2

    @property
    def shapes(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Of the parameters, in the order of a flat row."""
        side, (first, second) = self.kernel_size, self.filters
        return {
            ("conv1", "kernel"): (side, side, 3, first),
            ("conv1", "bias"): (first,),
            ("conv2", "kernel"): (side, side, first, second),
            ("conv2", "bias"): (second,),
            ("dense", "kernel"): (self.features, self.outputs),
            ("dense", "bias"): (self.outputs,),
        }

    @property
    def parameters(self) -> int:
        """Numbers of a flat row."""
        return sum(_product(shape) for shape in self.shapes.values())

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block; the same sum as in ``epoch.cu``, which a test compares."""
        (first, second), (pooled1, pooled2) = self.filters, self.pooled
        taps, windows, pairs = self.kernel_size**2, pooled2**2, (pooled1 + 1) // 2
        weights = 3 * taps * _up(first, 4) + first * taps * _up(second, 8)
        weights += self.features * self.outputs + first + second + self.outputs
        maps = _pitched(first * pooled1 * 2 * pairs, 2 * pooled2 % 32)
        words = _up(weights, 4) + _up(self.parameters, 4) + _up(self.group * maps + 8, 4)
        of_features = self.group * _pitched(self.features, windows % 32)
        words += _up(max(of_features, 3 * taps * first), 4)
        words = _up(words + self.group * (self.outputs + 1) + 2, 4)
        words += _up(self.group * 3 * self.size * (self.size // 4) + 4, 4)
        codes = _up(self.group * first * pooled1 * pairs, 16) + _up(self.group // 2 * self.features, 16)
        return 4 * words + codes

    @property
    def macros(self) -> dict[str, int]:
        """What ``epoch.cu`` is compiled with."""
        return {
            "SIZE": self.size,
            "KERNEL": self.kernel_size,
            "FILTERS1": self.filters[0],
            "FILTERS2": self.filters[1],
            "OUTPUTS": self.outputs,
            "SQUARED": int(self.squared),
            "THREADS": THREADS,
            "GROUP": self.group,
            "BLOCKS": 2 if self.shared_bytes <= _HALF_SHARED else 1,
        }

    def pack(self, params: Params) -> Array:
        """Stacked parameters ``{layer: {name: (M, ...)}}`` to rows ``(M, parameters)``."""
        leaves = [params[layer][name] for layer, name in self.shapes]
        return jnp.concatenate([jnp.reshape(leaf, (leaf.shape[0], -1)) for leaf in leaves], axis=1)

    def unpack(self, rows: Array) -> Params:
        """The inverse of `pack`."""
        params: Params = {}
        for layer, name, begin, shape in self._places():
            leaf = rows[:, begin : begin + _product(shape)]
            params.setdefault(layer, {})[name] = jnp.reshape(leaf, (rows.shape[0], *shape))
        return params

    def _places(self) -> Iterator[tuple[str, str, int, tuple[int, ...]]]:
        begin = 0
        for (layer, name), shape in self.shapes.items():
            yield layer, name, begin, shape
            begin += _product(shape)


def layout_of(
    network: models.ConvNet, image_size: int, loss: Callable[..., Any], most_shared: int = MOST_SHARED
) -> Layout | None:
    """The layout of a network on square images trained with a loss, or None if the kernel cannot have it.

    Args:
      network: any form of it; the kernel computes what all of them mean.
      image_size: pixels a side; a multiple of 4.
      loss: one of `losses`.
      most_shared: bytes of shared memory that a block can have.
    """
    if loss not in _SQUARED or len(network.filters) != 2:
        return None
    first, second = network.filters
    layout = Layout(image_size, network.kernel_size, (first, second), network.outputs, _SQUARED[loss])
    by_group = [dataclasses.replace(layout, group=group) for group in GROUPS]
    fits = (
        image_size % 4 == 0
        and 1 <= network.kernel_size <= 5  # a larger one's sums do not fit the registers
        and 1 <= first <= 8
        and second >= 1
        and first * second <= THREADS
        and 1 <= network.outputs <= 8
        and layout.pooled[1] >= 1
        and network.kernel_size - 1 <= 2 * layout.pooled[1]
    )
    return next((each for each in by_group if fits and each.shared_bytes <= most_shared), None)


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for length in shape:
        result *= length
    return result


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _pitched(least: int, rest: int) -> int:
    return least + (rest - least) % 32
