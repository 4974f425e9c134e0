"""Are the gradients of a training step right?

They are compared, not the parameters: Adam divides each gradient by its own size, so that rounding of a
gradient near zero may reverse a whole step, and parameters of two right programs differ.

Gradients have jumps: of two pixels that are equal but for rounding, one wins the pooling. A gradient that
differs from the reference's is therefore compared also with the reference's at parameters that differ by
rounding, some draws of them: it must equal one of those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.contest import TOLERANCES
from kernelgan.types import Params

_DRAWS, _NUDGE = 32, 1e-6
"""How often parameters are drawn anew, and by which share of their size they then differ."""


class Keeper:
    """An `engine.Saver` that keeps the states after the first two calls in memory."""

    last_good = "none"

    def __init__(self) -> None:
        self.leaves: list[list[np.ndarray]] = []

    def restore(self) -> None:
        """Nothing to go on from."""

    def is_due(self) -> bool:
        """Whether another is kept."""
        return len(self.leaves) < 2

    def save(self, tree: dict[str, Any], step: int) -> None:
        """Keeps a copy."""
        del step
        self.leaves.append([np.array(tree["state"][name]) for name in sorted(tree["state"])])

    def states(self, structure: Any) -> list[Any]:  # noqa: ANN401
        """Them, in a structure that JAX gives."""
        return [jax.tree.unflatten(structure, leaves) for leaves in self.leaves]


def between(before: Params, after: Params, decay: float) -> Params:
    """The gradients of one step of Adam, read off its first moment before and after; ``decay`` is beta 1."""

    def of_leaf(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return (np.asarray(new, np.float64) - decay * np.asarray(old, np.float64)) / (1 - decay)

    return jax.tree.map(of_leaf, before, after)


def relative_error(found: Any, expected: Any) -> float:  # noqa: ANN401
    """Largest difference of two trees, relative to the largest entry of the array's layer.

    A layer is what lies beside an array, such as a bias beside its kernel: a bias's gradient is a sum whose
    terms may cancel each other, so that its own size says nothing about rounding.
    """
    structures: list[Any] = [jax.tree.structure(tree) for tree in (found, expected)]
    if structures[0] != structures[1]:
        return float("inf")
    layers: dict[Any, tuple[float, float]] = {}
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, right), left in zip(leaves, jax.tree.leaves(found), strict=True):
        left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
        if left.shape != right.shape:
            return float("inf")
        difference, scale = layers.get(path[:-1], (0.0, 0.0))
        layers[path[:-1]] = (
            float(np.maximum(difference, np.abs(left - right).max(initial=0.0))),  # keeps a NaN
            max(scale, float(np.abs(right).max(initial=0.0))),
        )
    return float(np.max([difference / (scale or 1.0) for difference, scale in layers.values()]))


def member_of(params: Params, member: int | np.ndarray) -> Params:
    """One member of stacked parameters, or some."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[member], params)


Gradients = Callable[[Params, int], Params]
"""The reference: ``(parameters of one member, its number) -> its gradients``."""


def gradient_error(found: Params, params: Params, gradients: Gradients) -> float:
    """The largest error of stacked gradients, each member's against the nearest of the reference's draws."""
    rng = np.random.default_rng(0)

    def nudged(leaf: np.ndarray) -> np.ndarray:
        return (leaf * (1 + _NUDGE * rng.uniform(-1, 1, leaf.shape))).astype(leaf.dtype)

    errors = []
    for member in range(len(jax.tree.leaves(params)[0])):
        own, given = member_of(found, member), member_of(params, member)
        error = relative_error(own, jax.device_get(gradients(given, member)))
        for _ in range(_DRAWS):
            if error <= TOLERANCES["float32"]:
                break
            other = jax.device_get(gradients(jax.tree.map(nudged, given), member))
            error = min(error, relative_error(own, other))
        errors.append(error)
    return float(np.max(errors))  # keeps a NaN
