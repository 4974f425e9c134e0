"""How far a network is from its nearest parent: a copy of a parent is not a generation.

Filters have no order, so distances are taken after matching them layer by layer, as in weight matching
(Ainsworth, Hayase and Srinivasa, "Git Re-Basin", 2023), here greedily: layer 1 first, by linear assignment,
then each layer with its inputs in the order of the one before. The result is a distance that some reordering
of the parent attains, hence at least the true distance over all reorderings. Biases and dense layers are left
out.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported when they are used

from kernelgan.types import Params

Kernels = Sequence[np.ndarray]
"""Of each layer, kernels ``(M, H, W, I, O)`` of stacked networks."""

_YARDSTICK_PARENTS = 64
_DIGITS = 9
_PRINTS = 16
_HEARD = 1e-6  # of the mean energy with which the next layer hears a filter
_SAME = 1e-5  # relative to a network's size


@dataclasses.dataclass(frozen=True)
class Novelty:
    """Distances of networks to their nearest parents, see `novelty`.

    Attributes:
      distance: float64 ``(M,)``: L2 distance to the nearest parent.
      nearest: int64 ``(M,)``: which parent that is.
      relative_to_nearest: float64 ``(M,)``: `distance` over the median distance of a parent to ITS nearest
        fellow parent, the fairer yardstick: both are nearest of many. 1 is as new as a new parent would be.
    """

    distance: np.ndarray
    nearest: np.ndarray
    relative_to_nearest: np.ndarray


class Parents(NamedTuple):
    """Candidates for the nearest parent, see `compare_parents`.

    Attributes:
      kernels: of each layer, float64 ``(K, H, W, I, O)``, of `unit_filters`.
      typical_nearest: median distance of a parent to its nearest fellow parent.
    """

    kernels: Kernels
    typical_nearest: float


def matched_distances(networks: Kernels, parents: Kernels) -> np.ndarray:
    """L2 distances between networks' kernels after each parent's filters are matched to the network's.

    Args:
      networks: of each layer, float ``(M, H, W, I, O)``, such as ``(M, 5, 5, 3, 6)`` and
        ``(M, 5, 5, 6, 16)``: the inputs of a layer are the filters of the one before.
      parents: the same of ``K`` networks.

    Returns:
      float64 ``(M, K)``, over all layers.

    Raises:
      ValueError: shapes disagree or a kernel is not finite.
    """
    networks, parents = _checked(networks, "network"), _checked(parents, "parent")
    shapes = [[kernel.shape[1:] for kernel in kernels] for kernels in (networks, parents)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"networks {shapes[0]} and parents {shapes[1]} must have kernels of the same shape")
    others = [_by_channel(kernel) for kernel in parents]
    parent = np.arange(len(parents[0]))[:, None]
    result = np.empty((len(networks[0]), len(parents[0])))
    for m in range(len(result)):
        squares: np.ndarray | float = 0.0
        order: np.ndarray | None = None
        scale = np.ones((len(parent), networks[0].shape[3]))
        for kernel, theirs in zip(networks, others, strict=True):
            own = _by_channel(kernel[m : m + 1])[0]
            # Whole filters are copied by these indices: `take_along_axis` would copy number by number.
            matched = theirs if order is None else theirs[parent, order]
            matched, scale = _rescaled(matched, scale)
            order = best_orders(np.einsum("ifd,kigd->kfg", own, matched, optimize=True))
            matched = matched[parent[:, None], np.arange(len(own))[:, None], order[:, None]]
            heard = own.any(axis=(0, 2))  # a parent with a filter silenced is a copy of it
            scale = scale[parent, order] * heard
            squares += np.sum((own - matched * heard[:, None]) ** 2, axis=(1, 2, 3))
        result[m] = np.sqrt(squares)
    return result


def _by_channel(kernels: np.ndarray) -> np.ndarray:
    """Kernels ``(K, H, W, I, O)`` as ``(K, I, O, H * W)``: what is permuted leads."""
    count, height, width, inputs, filters = kernels.shape
    return np.moveaxis(kernels, (3, 4), (1, 2)).reshape(count, inputs, filters, height * width)


def _rescaled(kernels: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernels of parents ``(K, I, O, H * W)`` whose inputs are so many times as large, of unchanged norms.

    Args:
      kernels: of a layer.
      scale: of its inputs, ``(K, I)``.

    Returns:
      The kernels, and by how much their filters' maps are now too small, ``(K, O)``.
    """
    if (scale == 1).all():
        return kernels, np.ones((len(kernels), kernels.shape[2]))
    norms = np.sqrt(np.sum(kernels**2, axis=(1, 3)))
    kept = kernels * scale[:, :, None, None]
    left = np.sqrt(np.sum(kept**2, axis=(1, 3)))
    factor = norms / np.where(left > 0, left, 1)
    return kept * factor[:, None, :, None], left / np.where(norms > 0, norms, 1)


def unit_filters(kernels: Kernels) -> list[np.ndarray]:
    """The same kernels with filters of norm 1, so that a rescaled copy is seen to be a copy.

    A filter times c with the next layer's weights on it times 1 / c is the same function of a ReLU network. A
    filter that the next layer hardly hears is a filter of zeros.

    Args:
      kernels: of each layer, float ``(M, H, W, I, O)``.

    Returns:
      The same in float64; a filter of zeros stays one.
    """
    made: list[np.ndarray] = []
    norms: np.ndarray | float = 1.0
    for kernel in kernels:
        kernel = np.asarray(kernel, np.float64) * norms
        scale = np.sqrt(np.sum(kernel**2, axis=(1, 2, 3), keepdims=True))
        made.append(kernel / np.where(scale > 0, scale, 1))
        norms = np.moveaxis(scale, -1, -2)
    for layer, following in itertools.pairwise(made):
        energy = np.sum(following**2, axis=(1, 2, 4))
        heard = (energy > _HEARD * energy.mean(axis=1, keepdims=True))[:, None, None]
        layer *= heard[:, :, :, None]
        following *= heard[..., None]
    return made


def compare_parents(parents: Kernels) -> Parents:
    """Distances of parents to each other, which `novelty` compares with: of 64 spread evenly over them.

    Args:
      parents: of each layer, float ``(K, H, W, I, O)`` with ``K >= 2``: the candidates for nearest, of one or
        both zoos.

    Returns:
      The `Parents`.

    Raises:
      ValueError: see `matched_distances`; or fewer than two parents, or parents that are copies of each
        other, so that there is no distance to compare with.
    """
    count = len(parents[0])
    if count < 2:
        raise ValueError(f"need at least 2 parents to compare distances with, got {count}")
    kernels = unit_filters(_checked(parents, "parent"))
    spread = np.linspace(0, count - 1, min(count, _YARDSTICK_PARENTS)).astype(int)
    some = [kernel[spread] for kernel in kernels]
    between = matched_distances(some, some).round(_DIGITS)
    np.fill_diagonal(between, np.inf)
    typical_nearest = float(np.median(between.min(axis=1)))
    if typical_nearest <= 0:
        raise ValueError("most parents are exact copies of another: there is no distance to compare with")
    return Parents(kernels, typical_nearest)


def novelty(networks: Kernels, parents: Parents) -> Novelty:
    """Distance of each network to its nearest parent, by itself and against the parents' own distances.

    Args:
      networks: of each layer, float ``(M, H, W, I, O)``; distances are of `unit_filters`.
      parents: from `compare_parents`.

    Returns:
      A `Novelty`.

    Raises:
      ValueError: see `matched_distances`.
    """
    own = unit_filters(_checked(networks, "network"))
    # Rounded: the last bits depend on where arrays lie in memory, and a resumed run ends in the same figures.
    distances = np.round(matched_distances(own, parents.kernels), _DIGITS)
    distance = distances.min(axis=1)
    return Novelty(
        distance=distance,
        nearest=distances.argmin(axis=1),
        relative_to_nearest=distance / parents.typical_nearest,
    )


def distinct(params: Params) -> np.ndarray:
    """Which networks differ: the first of each group that are one function by their parameters.

    Two are the same if they differ by the order of filters, or by positive factors that cancel between
    layers: ReLU and max-pooling keep both.

    Args:
      params: stacked parameters ``(M, ...)``: convolutional layers in order, then ``dense``.

    Returns:
      int64, ascending.
    """
    rng = np.random.default_rng(0)
    scale = np.ones((len(params["dense"]["bias"]), 1))
    order = np.zeros(scale.shape, int)
    flat: list[np.ndarray] = []
    for name in (name for name in params if name != "dense"):
        kernel, bias = (np.asarray(params[name][part], np.float64) for part in ("kernel", "bias"))
        if flat:
            kernel = np.take_along_axis(kernel, order[:, None, None, :, None], axis=3)
            kernel = kernel * scale[:, None, None, :, None]
        norms = np.sqrt(np.sum(kernel**2, axis=(1, 2, 3)))
        norms = np.where(norms > 0, norms, 1)
        filters = np.concatenate([kernel.reshape(len(kernel), -1, kernel.shape[-1]), bias[:, None]], axis=1)
        filters = filters / norms[:, None]
        order = np.argsort(np.einsum("mdo,d->mo", filters, rng.normal(size=filters.shape[1])), axis=1)
        flat.append(np.take_along_axis(filters, order[:, None], axis=2))
        scale = np.take_along_axis(norms, order, axis=1)
    head = np.asarray(params["dense"]["kernel"], np.float64)
    rows = head.reshape(len(head), scale.shape[1], -1)  # features are CHW
    rows = np.take_along_axis(rows, order[:, :, None], axis=1) * scale[:, :, None]
    flat += [rows, np.asarray(params["dense"]["bias"], np.float64)]
    whole = np.concatenate([part.reshape(len(part), -1) for part in flat], axis=1)
    prints = whole @ rng.normal(size=(whole.shape[1], _PRINTS))
    sizes = np.sqrt(np.sum(whole**2, axis=1))
    gaps = np.abs(prints[:, None] - prints[None]).max(axis=2)
    same = gaps <= _SAME * np.maximum(sizes[:, None], sizes)
    return np.flatnonzero(same.argmax(axis=1) == np.arange(len(same)))


def standard_ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks ``(M, N)`` whose products are rank correlations (Spearman, 1904); 0 for constant scores."""
    ranks = scipy.stats.rankdata(scores, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.sum(ranks**2, axis=1, keepdims=True))
    return ranks / np.where(norms > 0, norms, 1)


def error_overlaps(errors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard, 1901) of networks' errors, bool ``(M, N)``, with others' ``(K, N)``.

    Returns:
      float64 ``(M, K)``: 1 where both err on the same images, or neither on any.
    """
    mine, theirs = np.asarray(errors, np.float64), np.asarray(others, np.float64)
    both = mine @ theirs.T
    union = mine.sum(axis=1)[:, None] + theirs.sum(axis=1) - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _checked(kernels: Kernels, name: str) -> list[np.ndarray]:
    kernels = [np.asarray(kernel, np.float64) for kernel in kernels]
    shapes = [kernel.shape for kernel in kernels]
    if (
        not shapes
        or any(len(shape) != 5 or shape[0] != shapes[0][0] or shape[0] == 0 for shape in shapes)
        or any(before[4] != after[3] for before, after in itertools.pairwise(shapes))
    ):
        raise ValueError(
            f"{name} kernels must be (M, H, W, I, O), the filters of each layer the inputs of the next, got "
            f"{', '.join(map(str, shapes)) or 'none'}"
        )
    if not all(np.isfinite(kernel).all() for kernel in kernels):
        raise ValueError(f"{name} kernels are not finite")
    return kernels


def best_orders(products: np.ndarray) -> np.ndarray:
    """For each own filter the other network's filter matched to it, by linear assignment.

    Args:
      products: float ``(K, O, O)``, inner products, own filter by the other's; the sum of squared distances
        is smallest where the sum of these is largest.

    Returns:
      int64 ``(K, O)``.
    """
    return np.stack([scipy.optimize.linear_sum_assignment(one, maximize=True)[1] for one in products])
