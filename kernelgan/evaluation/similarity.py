"""Cosine similarity of features within and between quadrants, from sums of unit vectors: O(N F) a network."""

from __future__ import annotations

import dataclasses

import numpy as np

from kernelgan.evaluation import scores as scores_lib


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Mean cosine similarities; ``Q`` are the quadrants that have an image, in ascending order.

    Attributes:
      within: float64 ``(M,)``: between different images of the conjunction.
      across: float64 ``(M,)``: between the conjunction and every other image.
      margin: float64 ``(M,)``: `within` less `across`.
      matrix: float64 ``(M, Q, Q)``: between quadrants; on the diagonal between different images, NaN for a
        quadrant of one image.
    """

    within: np.ndarray
    across: np.ndarray
    margin: np.ndarray
    matrix: np.ndarray


def cosine_similarity(features: np.ndarray, quadrant: np.ndarray) -> Similarity:
    """Mean cosine similarity of the features of pairs of different images.

    The sum of cosines over all pairs of two sets is the product of their summed unit vectors; a set with
    itself also counts each image with itself, which is taken off. An image whose features are all zero has
    no direction: its cosine with any image is taken as 0, and it counts in the means.

    Args:
      features: float ``(M, N, F)``.
      quadrant: int ``(N,)``, see `scores`.

    Returns:
      A `Similarity`.

    Raises:
      ValueError: shapes disagree, features of some network are not finite, or the conjunction has fewer
        than two images.
    """
    from kernelgan.evaluation import loops  # numba takes a while to import

    quadrant = scores_lib.check_quadrant(quadrant)
    features = np.asarray(features)
    if features.ndim != 3 or features.shape[1] != quadrant.size or 0 in features.shape:
        raise ValueError(f"features must be (M, N, F) with N = {quadrant.size} images, got {features.shape}")
    quadrants = np.unique(quadrant)
    member = quadrant == quadrants[:, None]
    sizes = member.sum(axis=1)
    if sizes[0] < 2:
        raise ValueError("the conjunction has one image: need two to compare it with itself")

    sums = np.empty((len(features), quadrants.size, features.shape[2]))
    peaks = np.empty(features.shape[:2], features.dtype)

    def work(networks: slice) -> None:
        for m in range(networks.start, networks.stop):
            # By the largest entry first, so that no square overflows or vanishes.
            one = features[m]
            peaks[m] = np.maximum(one.max(axis=1), -one.min(axis=1))
            if not np.isfinite(peaks[m]).all():
                continue  # it is named below
            unit = one / np.where(peaks[m] > 0, peaks[m], 1)[:, None]
            length = np.maximum(np.sqrt(np.einsum("nf,nf->n", unit, unit)), 1)
            sums[m] = (member / length).astype(unit.dtype) @ unit

    loops.by_networks(work, len(features))
    scores_lib.check_finite(peaks, "features")
    alive = (peaks > 0) @ member.T.astype(np.float64)

    totals = np.einsum("mqf,mrf->mqr", sums, sums)
    pairs = np.outer(sizes, sizes).astype(np.float64)
    diagonal = np.arange(quadrants.size)
    totals[:, diagonal, diagonal] -= alive
    pairs[diagonal, diagonal] = np.where(sizes > 1, sizes * (sizes - 1), np.nan)
    matrix = totals / pairs
    within = matrix[:, 0, 0]
    across = totals[:, 0, 1:].sum(axis=1) / pairs[0, 1:].sum()
    return Similarity(within, across, within - across, matrix)
