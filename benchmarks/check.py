"""Is a step of training right? Its gradients, its moments and its new parameters, each against its formula.

After a few steps Adam has divided each gradient by its own size, so that rounding of a gradient near zero may
turn a whole step of the learning rate round: parameters of two right programs differ. What is compared with
the reference is therefore the gradient, read off Adam's first moment; that the parameters follow from that
gradient is checked against Adam's own formula (Kingma and Ba, arXiv:1412.6980) in float64.

Gradients have jumps: of two pixels that are equal but for rounding, one wins the pooling, and among the
150,000 windows of a batch there are such. A gradient that differs from the reference's is therefore compared
also with the reference's at parameters that differ by rounding, some draws of them: it must be one of those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kernelgan.types import Params

FLOAT32_TOLERANCE = 1e-4
TF32_TOLERANCE = 3e-2
"""TF32 keeps 10 bits of a factor: 5e-4 of each, and now and then another pixel wins a pooling."""

EPSILON = 1e-8
DRAWS, NUDGE = 32, 1e-6
"""How often parameters are drawn anew, and by which share of their size they then differ."""


@dataclasses.dataclass
class Snapshot:
    """Parameters and Adam's state at one time, stacked for some members; numpy arrays of one structure.

    Attributes:
      params: the parameters.
      first: Adam's first moment.
      second: Adam's second moment.
      steps: how many steps were taken.
    """

    params: Params
    first: Params
    second: Params
    steps: int


def start(params: Params) -> Snapshot:
    """Before the first step."""
    params = jax.device_get(params)
    zeros = jax.tree.map(np.zeros_like, params)
    return Snapshot(params, zeros, zeros, 0)


def relative_error(found: Any, expected: Any) -> float:  # noqa: ANN401
    """Largest difference of two trees, relative to the largest entry of the array's layer.

    A layer is what lies beside an array, such as a bias beside its kernel: a bias's gradient is a sum whose
    terms may cancel each other, so that its own size says nothing about rounding.
    """
    structures: list[Any] = [jax.tree.structure(found), jax.tree.structure(expected)]
    if structures[0] != structures[1]:
        return float("inf")
    differences: dict[Any, float] = {}
    scales: dict[Any, float] = {}
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, right), left in zip(leaves, jax.tree.leaves(found), strict=True):
        left, right, layer = np.asarray(left, np.float64), np.asarray(right, np.float64), path[:-1]
        if left.shape != right.shape:
            return float("inf")
        difference, scale = np.abs(left - right).max(initial=0.0), np.abs(right).max(initial=0.0)
        differences[layer] = float(np.maximum(differences.get(layer, 0.0), difference))  # keeps a NaN
        scales[layer] = max(scales.get(layer, 0.0), float(scale))
    return float(np.max([differences[layer] / (scales[layer] or 1.0) for layer in differences]))


def member_of(params: Params, member: int) -> Params:
    """One member of stacked parameters."""
    return jax.tree.map(lambda leaf: leaf[member], params)


Gradients = Callable[[Params, int], Params]
"""The reference: ``(parameters of one member, its number) -> its gradients``."""


def gradient_error(found: Params, params: Params, gradients: Gradients, tolerance: float) -> float:
    """The largest error of stacked gradients, each member's against the nearest of the reference's draws."""
    rng = np.random.default_rng(0)

    def nudged(leaf: np.ndarray) -> np.ndarray:
        return (leaf * (1 + NUDGE * rng.uniform(-1, 1, leaf.shape))).astype(leaf.dtype)

    errors = []
    for member in range(len(jax.tree.leaves(params)[0])):
        own, given = member_of(found, member), member_of(params, member)
        error = relative_error(own, jax.device_get(gradients(given, member)))
        for _ in range(DRAWS):
            if error <= tolerance:
                break
            other = relative_error(own, jax.device_get(gradients(jax.tree.map(nudged, given), member)))
            error = min(error, other)
        errors.append(error)
    return float(np.max(errors))


def step_error(
    before: Snapshot,
    after: Snapshot,
    gradients: Gradients,
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    tolerance: float = FLOAT32_TOLERANCE,
) -> float:
    """The largest error of one step of Adam.

    Args:
      before: the state that the step began with.
      after: the state after it.
      gradients: the reference.
      learning_rate: of Adam.
      betas: of Adam.
      tolerance: from which on a gradient is compared with more draws of the reference.

    Returns:
      The largest of: the gradients' error, relative to each layer's largest gradient; the second moments',
      likewise; the new parameters', relative to the learning rate. Infinity if no single step lies between.
    """
    if after.steps != before.steps + 1:
        return float("inf")
    b1, b2 = betas

    def moment(beta: float, old: Params, new: Params) -> Params:
        """What was averaged into a moment."""
        return jax.tree.map(
            lambda a, b: (np.asarray(b, np.float64) - beta * np.asarray(a, np.float64)) / (1 - beta), old, new
        )

    gradient = moment(b1, before.first, after.first)

    def follows(old: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        mean = np.asarray(first, np.float64) / (1 - b1**after.steps)
        square = np.asarray(second, np.float64) / (1 - b2**after.steps)
        return old - learning_rate * mean / (np.sqrt(np.maximum(square, 0)) + EPSILON)

    def second(old: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        return b2 * np.asarray(old, np.float64) + (1 - b2) * np.square(gradient)

    expected = jax.tree.map(follows, before.params, after.first, after.second)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() / learning_rate, expected, after.params)
    return float(
        np.max(  # which keeps a NaN
            [
                gradient_error(gradient, before.params, gradients, tolerance),
                relative_error(after.second, jax.tree.map(second, before.second, gradient)),
                *jax.tree.leaves(moved),
            ]
        )
    )
