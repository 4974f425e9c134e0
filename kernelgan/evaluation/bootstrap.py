"""95% percentile intervals (Efron, 1979) of means over networks, from resampled networks AND images.

An image is drawn with replacement within its quadrant, so an image resample is a vector of counts that sums
to each quadrant's size. Statistics are recomputed under these counts, exactly, for every network and every
resample; networks are then drawn on top. All networks are used, there is no cap. Of M networks M - 1 are
drawn (Rao and Wu, 1988), for M of M would understate the variance of their mean, by half where M is 2.

The image resamples depend on `seed` and `quadrant` only, the networks drawn on `seed` and M: resampled means
of two methods scored with the same of these may be subtracted pairwise. With equal M that pairs network i of
the one with network i of the other, which come from the same parents (see `methods`).

The percentile interval of ``worst`` lies somewhat low about its mean with few images: the smallest of
several noisy figures is smaller the noisier they are, and a resample is noisier than the sample. That of
average precision lies somewhat high: an image drawn twice is tied with itself.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from kernelgan.evaluation import scores as scores_lib
from kernelgan.types import Quadrant


def image_weights(quadrant: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each of ``R`` resamples, stratified by quadrant ``(N,)``.

    Returns:
      float32 ``(N, R)``; the columns sum to each quadrant's size within each quadrant.

    Raises:
      ValueError: `resamples` < 1, or see `scores.check_quadrant`.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    quadrant = scores_lib.check_quadrant(quadrant)
    rng = np.random.default_rng([seed, 0])
    weights = np.empty((quadrant.size, resamples), np.float32)
    for value in np.unique(quadrant):
        members = np.flatnonzero(quadrant == value)
        n = members.size
        drawn = rng.integers(n, size=(n, resamples)) * resamples + np.arange(resamples)
        weights[members] = np.bincount(drawn.ravel(), minlength=n * resamples).reshape(n, resamples)
    return weights


def resampled_auroc(scores: np.ndarray, quadrant: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """`scores.auroc_by_quadrant` under image counts.

    The conjunction's counts are summed in ascending order of scores; each other image loses to those below
    it (half to those at its own score). ``O(N R)`` a network, networks on all cores.

    Args:
      scores: float ``(M, N)``.
      quadrant: int ``(N,)``.
      weights: float32 ``(N, R)`` from `image_weights`.

    Returns:
      float32 ``(M, R)`` under each key of `scores.auroc_by_quadrant`.

    Raises:
      ValueError: see `scores.check_scores`.
    """
    from kernelgan.evaluation import loops  # numba takes a while to import

    scores, quadrant = scores_lib.check_scores(scores, quadrant)
    weights = _check_weights(weights, quadrant)
    versus = scores_lib.versus_present(quadrant)
    kind = np.full(5, loops.POSITIVE)
    kind[list(versus.values())] = np.arange(len(versus))
    kind = kind[quadrant]
    pairs = np.bincount(kind[kind != loops.POSITIVE]) * float(np.sum(kind == loops.POSITIVE))
    lanes = loops.in_lanes(weights)

    def work(networks: slice) -> np.ndarray:
        order = np.argsort(scores[networks], axis=1)
        ranked = np.take_along_axis(scores[networks], order, axis=1)
        lost = np.zeros((len(order), len(versus), len(lanes), loops.LANES))
        loops.lost_pairs(ranked, order, kind, lanes, lost)
        lost = lost.reshape(*lost.shape[:2], -1)[..., : weights.shape[1]]
        return (1 - lost / pairs[:, None]).astype(np.float32)

    drawn = np.concatenate(loops.by_networks(work, len(scores)))
    result = {key: drawn[:, number] for number, key in enumerate(versus)}
    result["worst"] = drawn.min(axis=1)
    return result


def resampled_average_precision(scores: np.ndarray, quadrant: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`scores.average_precision` under image counts, float32 ``(M, R)``; arguments as `resampled_auroc`."""
    from kernelgan.evaluation import loops  # numba takes a while to import

    scores, quadrant = scores_lib.check_scores(scores, quadrant)
    weights = _check_weights(weights, quadrant)
    kind = np.where(quadrant == Quadrant.CONJUNCTION, loops.POSITIVE, 0)
    lanes = loops.in_lanes(weights)

    def work(networks: slice) -> np.ndarray:
        order = np.argsort(scores[networks], axis=1)
        ranked = np.take_along_axis(scores[networks], order, axis=1)
        total = np.zeros((len(order), len(lanes), loops.LANES))
        loops.summed_precisions(ranked, order, kind, lanes, total)
        total = total.reshape(len(order), -1)[:, : weights.shape[1]]
        return (total / np.sum(kind == loops.POSITIVE)).astype(np.float32)

    return np.concatenate(loops.by_networks(work, len(scores)))


def resampled_zero_shot(
    scores: np.ndarray, quadrant: np.ndarray, weights: np.ndarray, *, threshold: float | np.ndarray
) -> dict[str, np.ndarray]:
    """`scores.zero_shot` under image counts, float32 ``(M, R)`` each; arguments as `resampled_auroc`."""
    scores, quadrant = scores_lib.check_scores(scores, quadrant)
    weights = _check_weights(weights, quadrant)
    yes = scores_lib.answers(scores, threshold)
    said_yes, sizes = {}, {}
    for value in np.unique(quadrant).tolist():
        members = quadrant == value
        sizes[value] = int(members.sum())
        said_yes[value] = yes[:, members].astype(np.float32) @ weights[members]
    right = {
        value: count if value == Quadrant.CONJUNCTION else sizes[value] - count
        for value, count in said_yes.items()
    }
    hits = said_yes[Quadrant.CONJUNCTION]
    return {
        "balanced_accuracy": np.mean([right[value] / sizes[value] for value in right], axis=0),
        "accuracy": sum(right.values()) / quadrant.size,
        "precision": hits / np.maximum(sum(said_yes.values()), 1),
        "recall": hits / sizes[Quadrant.CONJUNCTION],
    }


def interval(observed: np.ndarray, resampled: np.ndarray, *, seed: int) -> dict[str, Any]:
    """Mean over networks with its interval over networks and images.

    Args:
      observed: float ``(M,)``, the statistic on the images as they are.
      resampled: float ``(M, R)``, on each resample of the images.
      seed: of the draws of networks; with one network the interval is over images only.

    Returns:
      ``mean``; ``ci95`` [low, high]; ``sd`` between networks (``None`` for one); ``best``, the largest;
      ``networks``.

    """
    observed = np.asarray(observed, np.float64)
    return {**_spread(observed), "ci95": _percentiles(resampled_mean(resampled, seed=seed))}


@functools.lru_cache(maxsize=32)
def network_shares(networks: int, *, resamples: int, seed: int) -> np.ndarray:
    """Each of ``M`` networks' (or concepts') share of each of ``R`` resamples.

    Returns:
      float64 ``(R, M)``; rows sum to 1. The same read-only array for the same arguments.
    """
    rng = np.random.default_rng([seed, 1, networks])
    drawn = max(1, networks - 1)
    shares = rng.multinomial(drawn, np.full(networks, 1 / networks), size=resamples) / drawn
    shares.flags.writeable = False
    return shares


def resampled_mean(resampled: np.ndarray, *, seed: int) -> np.ndarray:
    """Means ``(R,)`` over networks drawn with replacement, of a statistic on each resample ``(M, R)``."""
    networks, resamples = resampled.shape
    shares = network_shares(networks, resamples=resamples, seed=seed)
    return np.einsum("mr,rm->r", resampled, shares)


def summary(values: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Mean of values ``(M,)`` with its interval over networks alone, for what has no image resamples.

    Returns:
      As `interval`; ``ci95`` is ``None`` for one network, of which nothing can be said.

    Raises:
      ValueError: a value is not finite.
    """
    values = np.asarray(values, np.float64)
    scores_lib.check_finite(values, "values")
    if values.size == 1:
        return {**_spread(values), "ci95": None}
    means = network_shares(values.size, resamples=resamples, seed=seed) @ values
    return {**_spread(values), "ci95": _percentiles(means)}


def intervals_and_replicates(
    scores: np.ndarray,
    quadrant: np.ndarray,
    *,
    threshold: float | np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Every figure that scores give, each as `interval` returns it, and what tests of differences need.

    Args:
      scores: float ``(M, N)``.
      quadrant: int ``(N,)``.
      threshold: of the zero-shot classifier, one for all or ``(M,)``; ``None`` leaves its figures out.
      resamples: ``R``.
      seed: of the draws of images and networks.
      weights: `image_weights` of the same quadrants, ``resamples`` and ``seed``, where they are at hand.

    Returns:
      ``auroc`` (a dict by key of `scores.auroc_by_quadrant`, and `scores.WORST_OF_MEANS`),
      ``average_precision``, and with a threshold ``balanced_accuracy``, ``accuracy``, ``precision``,
      ``recall``; and float32 ``(R,)``, the mean ``worst`` on each resample.

    Raises:
      ValueError: see `scores.check_scores` and `scores.answers`.
    """
    if weights is None:
        weights = image_weights(quadrant, resamples=resamples, seed=seed)
    auroc = scores_lib.auroc_by_quadrant(scores, quadrant)
    drawn = resampled_auroc(scores, quadrant, weights)
    intervals = {key: interval(auroc[key], drawn[key], seed=seed) for key in auroc}
    intervals[scores_lib.WORST_OF_MEANS] = _worst_of_means(auroc, drawn, seed)
    precision = scores_lib.average_precision(scores, quadrant)
    resampled = resampled_average_precision(scores, quadrant, weights)
    result: dict[str, Any] = {
        "auroc": intervals,
        "average_precision": interval(precision, resampled, seed=seed),
    }
    if threshold is not None:
        observed = scores_lib.zero_shot(scores, quadrant, threshold=threshold)
        answered = resampled_zero_shot(scores, quadrant, weights, threshold=threshold)
        result |= {key: interval(observed[key], answered[key], seed=seed) for key in observed}
    return result, resampled_mean(drawn["worst"], seed=seed).astype(np.float32)


def _worst_of_means(auroc: dict[str, np.ndarray], drawn: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """The smallest of the quadrants' means over networks, with its interval; it is no network's own."""
    quadrants = [key for key in auroc if key != "worst"]
    means = np.min([resampled_mean(drawn[key], seed=seed) for key in quadrants], axis=0)
    smallest = min(float(auroc[key].mean()) for key in quadrants)
    return {"mean": smallest, "ci95": _percentiles(means), "networks": len(auroc["worst"])}


def _check_weights(weights: np.ndarray, quadrant: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float32)
    if weights.ndim != 2 or weights.shape[0] != quadrant.size or weights.shape[1] == 0:
        raise ValueError(f"weights must be (N, R) with N = {quadrant.size} images, got {weights.shape}")
    return weights


def _percentiles(means: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def _spread(values: np.ndarray) -> dict[str, Any]:
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if values.size > 1 else None,
        "best": float(values.max()),
        "networks": int(values.size),
    }
