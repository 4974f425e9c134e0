"""How far a network is from its nearest parent: a copy of a parent is not a generation.

Filters have no order, so distances are taken after matching them layer by layer, as in weight matching
(Ainsworth, Hayase and Srinivasa, "Git Re-Basin", 2023), here greedily: layer 1 first, by linear assignment,
then layer 2 with its inputs in layer 1's order. The result is a distance that some reordering of the parent
attains, hence at least the true distance over all reorderings. Biases and dense layers are left out.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from kernelgan.types import Params

_YARDSTICK_PARENTS = 64
_DIGITS = 9
_PRINTS = 16
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
      conv1: float64 ``(K, H, W, I, O)``, of `unit_filters`.
      conv2: float64 ``(K, H, W, O, P)``, of `unit_filters`.
      typical_nearest: median distance of a parent to its nearest fellow parent.
    """

    conv1: np.ndarray
    conv2: np.ndarray
    typical_nearest: float


def matched_distances(
    conv1: np.ndarray, conv2: np.ndarray, parents1: np.ndarray, parents2: np.ndarray
) -> np.ndarray:
    """L2 distances between networks' kernels after each parent's filters are matched to the network's.

    Args:
      conv1: float ``(M, H, W, I, O)``, such as ``(M, 5, 5, 3, 6)``.
      conv2: float ``(M, H, W, O, P)``, such as ``(M, 5, 5, 6, 16)``: its inputs are layer 1's filters.
      parents1: float ``(K, H, W, I, O)``.
      parents2: float ``(K, H, W, O, P)``.

    Returns:
      float64 ``(M, K)``, over both layers.

    Raises:
      ValueError: shapes disagree or a kernel is not finite.
    """
    own1, own2 = _checked(conv1, conv2, "network")
    other1, other2 = _checked(parents1, parents2, "parent")
    if own1.shape[1:] != other1.shape[1:] or own2.shape[1:] != other2.shape[1:]:
        raise ValueError(
            f"networks {own1.shape[1:]}, {own2.shape[1:]} and parents {other1.shape[1:]}, {other2.shape[1:]} "
            "must have kernels of the same shape"
        )
    filters1, filters2 = own1.shape[-1], own2.shape[-1]
    # (K, O, H*W*I) and (K, O, P, H*W): what is permuted leads.
    parents_first = np.moveaxis(other1, -1, 1).reshape(len(other1), filters1, -1)
    parents_second = np.moveaxis(other2, (3, 4), (1, 2)).reshape(len(other2), filters1, filters2, -1)
    result = np.empty((len(own1), len(other1)))
    # Whole filters are copied by these indices: `take_along_axis` would copy number by number.
    parent, channel = np.arange(len(other1))[:, None], np.arange(filters1)[:, None]
    for m in range(len(own1)):
        first = np.moveaxis(own1[m], -1, 0).reshape(filters1, -1)
        second = np.moveaxis(own2[m], (2, 3), (0, 1)).reshape(filters1, filters2, -1)
        order1 = best_orders(np.einsum("fd,kgd->kfg", first, parents_first, optimize=True))
        matched_first = parents_first[parent, order1]
        matched_second = parents_second[parent, order1]
        order2 = best_orders(np.einsum("ifd,kigd->kfg", second, matched_second, optimize=True))
        matched_second = matched_second[parent[:, None], channel, order2[:, None]]
        silent = ~first.any(axis=1)
        if silent.any():
            matched_first[:, silent] = 0
            matched_second = _without(matched_second, silent)
        result[m] = np.sqrt(
            np.sum((first - matched_first) ** 2, axis=(1, 2))
            + np.sum((second - matched_second) ** 2, axis=(1, 2, 3))
        )
    return result


def _without(second: np.ndarray, silent: np.ndarray) -> np.ndarray:
    """Layer 2 of parents ``(K, O, P, H*W)`` without these inputs, its filters of the norms that they had.

    A parent with a filter silenced is a copy of it: what the network has silenced does not count.
    """
    norms = np.sqrt(np.sum(second**2, axis=(1, 3), keepdims=True))
    kept = np.where(silent[:, None, None], 0, second)
    left = np.sqrt(np.sum(kept**2, axis=(1, 3), keepdims=True))
    return kept * norms / np.where(left > 0, left, 1)


def unit_filters(conv1: np.ndarray, conv2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same kernels with filters of norm 1, so that a rescaled copy is seen to be a copy.

    A filter of layer 1 times c with layer 2's weights on it times 1 / c is the same function of a ReLU
    network, and so is a filter of layer 2 times c with its dense weights times 1 / c.

    Args:
      conv1: float ``(M, H, W, I, O)``.
      conv2: float ``(M, H, W, O, P)``.

    Returns:
      Both, float64; a filter of zeros stays one.
    """
    conv1, conv2 = np.asarray(conv1, np.float64), np.asarray(conv2, np.float64)
    scale1 = np.sqrt(np.sum(conv1**2, axis=(1, 2, 3), keepdims=True))
    conv2 = conv2 * np.moveaxis(scale1, -1, -2)
    scale2 = np.sqrt(np.sum(conv2**2, axis=(1, 2, 3), keepdims=True))
    return conv1 / np.where(scale1 > 0, scale1, 1), conv2 / np.where(scale2 > 0, scale2, 1)


def compare_parents(parents1: np.ndarray, parents2: np.ndarray) -> Parents:
    """Distances of parents to each other, which `novelty` compares with: of 64 spread evenly over them.

    Args:
      parents1: float ``(K, H, W, I, O)`` with ``K >= 2``: the candidates for nearest, of one or both zoos.
      parents2: float ``(K, H, W, O, P)``.

    Returns:
      The `Parents`.

    Raises:
      ValueError: see `matched_distances`; or fewer than two parents, or parents that are copies of each
        other, so that there is no distance to compare with.
    """
    if len(parents1) < 2:
        raise ValueError(f"need at least 2 parents to compare distances with, got {len(parents1)}")
    parents1, parents2 = unit_filters(*_checked(parents1, parents2, "parent"))
    some = np.linspace(0, len(parents1) - 1, min(len(parents1), _YARDSTICK_PARENTS)).astype(int)
    between = matched_distances(parents1[some], parents2[some], parents1[some], parents2[some]).round(_DIGITS)
    np.fill_diagonal(between, np.inf)
    typical_nearest = float(np.median(between.min(axis=1)))
    if typical_nearest <= 0:
        raise ValueError("most parents are exact copies of another: there is no distance to compare with")
    return Parents(parents1, parents2, typical_nearest)


def novelty(conv1: np.ndarray, conv2: np.ndarray, parents: Parents) -> Novelty:
    """Distance of each network to its nearest parent, by itself and against the parents' own distances.

    Args:
      conv1: float ``(M, H, W, I, O)``; distances are of `unit_filters`.
      conv2: float ``(M, H, W, O, P)``.
      parents: from `compare_parents`.

    Returns:
      A `Novelty`.

    Raises:
      ValueError: see `matched_distances`.
    """
    own = unit_filters(*_checked(conv1, conv2, "network"))
    # Rounded: the last bits depend on where arrays lie in memory, and a resumed run ends in the same figures.
    distances = np.round(matched_distances(*own, parents.conv1, parents.conv2), _DIGITS)
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
    ranks = stats.rankdata(scores, axis=1)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt(np.sum(ranks**2, axis=1, keepdims=True))
    return ranks / np.where(norms > 0, norms, 1)


def error_overlap(errors: np.ndarray, parent_errors: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard, 1901) of a network's errors with its nearest parent's.

    Args:
      errors: bool ``(M, N)``: the network answers this image wrongly.
      parent_errors: bool ``(K, N)``: the parent does.
      nearest: int ``(M,)`` from `novelty`.

    Returns:
      float64 ``(M,)``: 1 where both err on the same images, or neither on any.

    Raises:
      ValueError: shapes disagree, errors are not bool, or `nearest` names no parent.
    """
    errors, parent_errors, nearest = np.asarray(errors), np.asarray(parent_errors), np.asarray(nearest)
    if errors.dtype != bool or parent_errors.dtype != bool:
        raise ValueError(f"errors must be bool, got {errors.dtype} and {parent_errors.dtype}")
    if errors.ndim != 2 or parent_errors.ndim != 2 or errors.shape[1] != parent_errors.shape[1]:
        raise ValueError(f"need errors (M, N) and (K, N), got {errors.shape} and {parent_errors.shape}")
    if nearest.shape != errors.shape[:1] or nearest.min() < 0 or nearest.max() >= len(parent_errors):
        raise ValueError(f"nearest must be (M,) indices of {len(parent_errors)} parents, got {nearest}")
    theirs = parent_errors[nearest]
    union = np.sum(errors | theirs, axis=1)
    return np.where(union > 0, np.sum(errors & theirs, axis=1) / np.maximum(union, 1), 1.0)


def error_overlaps(errors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of the errors of networks, bool ``(M, N)``, with others', bool ``(K, N)``.

    Returns:
      float64 ``(M, K)``, see `error_overlap`.
    """
    mine, theirs = np.asarray(errors, np.float64), np.asarray(others, np.float64)
    both = mine @ theirs.T
    union = mine.sum(axis=1)[:, None] + theirs.sum(axis=1) - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def _checked(conv1: np.ndarray, conv2: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    conv1, conv2 = np.asarray(conv1, np.float64), np.asarray(conv2, np.float64)
    if (
        conv1.ndim != 5
        or conv2.ndim != 5
        or len(conv1) != len(conv2)
        or len(conv1) == 0
        or conv1.shape[4] != conv2.shape[3]
    ):
        raise ValueError(
            f"{name} kernels must be (M, H, W, I, O) and (M, H, W, O, P), got {conv1.shape}, {conv2.shape}"
        )
    if not (np.isfinite(conv1).all() and np.isfinite(conv2).all()):
        raise ValueError(f"{name} kernels are not finite")
    return conv1, conv2


def best_orders(products: np.ndarray) -> np.ndarray:
    """For each own filter the other network's filter matched to it, by linear assignment.

    Args:
      products: float ``(K, O, O)``, inner products, own filter by the other's; the sum of squared distances
        is smallest where the sum of these is largest.

    Returns:
      int64 ``(K, O)``.
    """
    return np.stack([optimize.linear_sum_assignment(one, maximize=True)[1] for one in products])
