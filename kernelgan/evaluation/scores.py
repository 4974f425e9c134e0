"""How well scores tell the conjunction from each other quadrant; exact, ties included, all networks at once.

`scores` are float ``(M, N)``, larger meaning more of the conjunction; `quadrant` is int ``(N,)``, see
`Quadrant`. See ``PROTOCOL.md``, "Metrics".
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts are imported when they are used

from kernelgan.types import Quadrant

VERSUS = {
    "vs_attribute_only": Quadrant.ATTRIBUTE_ONLY,
    "vs_object_only": Quadrant.OBJECT_ONLY,
    "vs_neither": Quadrant.NEITHER,
    "vs_rest": Quadrant.REST,
}
"""Key of an AUROC -> the quadrant that the conjunction is told from."""

WORST_OF_MEANS = "worst_of_means"
"""Key of the smallest over quadrants of the mean AUROC. ``worst`` is the mean of each network's smallest, and
lower the more networks differ."""


def check_quadrant(quadrant: np.ndarray) -> np.ndarray:
    """Returns `quadrant` as int64 ``(N,)`` once it is fit to be scored.

    Raises:
      ValueError: it is not 1-D, holds an unknown value, or lacks the conjunction or everything else.
    """
    quadrant = np.asarray(quadrant)
    if quadrant.ndim != 1 or not np.issubdtype(quadrant.dtype, np.integer):
        raise ValueError(f"quadrant must be integers (N,), got {quadrant.dtype} {quadrant.shape}")
    unknown = sorted(set(np.unique(quadrant).tolist()) - set(Quadrant))
    if unknown:
        raise ValueError(
            f"quadrant must be 0 (conjunction) to 4 (rest), got also {unknown}: leave such images out"
        )
    positives = int(np.sum(quadrant == Quadrant.CONJUNCTION))
    if positives in (0, quadrant.size):
        raise ValueError(
            f"{positives} of {quadrant.size} images are the conjunction: need some and need others"
        )
    return quadrant.astype(np.int64)


def check_scores(scores: np.ndarray, quadrant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `scores` ``(M, N)`` and `quadrant` int64 ``(N,)`` once they fit each other.

    Raises:
      ValueError: shapes disagree, a score is not finite (the message names the networks), or see
        `check_quadrant`.
    """
    scores, quadrant = np.asarray(scores), check_quadrant(quadrant)
    if scores.ndim != 2 or scores.shape[0] == 0 or scores.shape[1] != quadrant.size:
        raise ValueError(
            f"scores must be (M, N) with M >= 1 and N = {quadrant.size} images, got {scores.shape}"
        )
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    check_finite(scores, "scores")
    return scores, quadrant


def check_finite(values: np.ndarray, name: str) -> None:
    """Raises ValueError naming the first networks of `values` ``(M, ...)`` that hold a NaN or an infinity."""
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        more = f" and {bad.size - 5} more" if bad.size > 5 else ""
        raise ValueError(f"{name} of network {', '.join(map(str, bad[:5]))}{more} are not finite")


def versus_present(quadrant: np.ndarray) -> dict[str, int]:
    """The part of `VERSUS` whose quadrant has an image in `quadrant` ``(N,)``."""
    return {key: value for key, value in VERSUS.items() if np.any(quadrant == value)}


def auroc_by_quadrant(scores: np.ndarray, quadrant: np.ndarray) -> dict[str, np.ndarray]:
    """Area under the ROC curve of the conjunction against each other quadrant.

    The Mann-Whitney statistic with midranks over the number of pairs (Hanley and McNeil, 1982): the
    chance that a conjunction image scores higher than another, half a win for a tie.

    Returns:
      float64 ``(M,)`` each: ``vs_attribute_only``, ``vs_object_only``, ``vs_neither``, ``vs_rest``, those
      whose quadrant has an image; and ``worst``, the smallest of them per network.

    Raises:
      ValueError: see `check_scores`.
    """
    scores, quadrant = check_scores(scores, quadrant)
    positive = scores[:, quadrant == Quadrant.CONJUNCTION]
    n = positive.shape[1]
    result = {}
    for key, value in versus_present(quadrant).items():
        other = scores[:, quadrant == value]
        ranks = scipy.stats.rankdata(np.concatenate([positive, other], axis=1), axis=1)
        wins = ranks[:, :n].sum(axis=1) - n * (n + 1) / 2
        result[key] = wins / (n * other.shape[1])
    result["worst"] = np.min(list(result.values()), axis=0)
    return result


def average_precision(scores: np.ndarray, quadrant: np.ndarray) -> np.ndarray:
    """Average precision of the conjunction among all images, ``sum_t (R_t - R_{t-1}) P_t``.

    Summed over distinct thresholds, not interpolated, as in scikit-learn: tied images share one threshold,
    so the mean over conjunction images of the precision at their own score, float64 ``(M,)``.

    Raises:
      ValueError: see `check_scores`.
    """
    scores, quadrant = check_scores(scores, quadrant)
    is_positive = quadrant == Quadrant.CONJUNCTION
    # With "max" ranks of the negated score, a rank counts the images that score at least as high.
    at_least = scipy.stats.rankdata(-scores, method="max", axis=1)[:, is_positive]
    positives_at_least = scipy.stats.rankdata(-scores[:, is_positive], method="max", axis=1)
    return (positives_at_least / at_least).mean(axis=1)


def answers(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Bool ``(M, N)``: the network says "conjunction", that is, its score is above (not at) the threshold.

    Raises:
      ValueError: `threshold` is not one for all, nor ``(M,)``, or not finite.
    """
    threshold = np.asarray(threshold, dtype=np.float64)
    if threshold.shape not in ((), (len(scores),)) or not np.isfinite(threshold).all():
        raise ValueError(
            f"threshold must be a finite number or ({len(scores)},) of them, got shape {threshold.shape}"
        )
    return scores > np.broadcast_to(threshold, (len(scores),))[:, None]


def zero_shot(
    scores: np.ndarray, quadrant: np.ndarray, *, threshold: float | np.ndarray
) -> dict[str, np.ndarray]:
    """The classifier at its own threshold (see `answers`), never one chosen on these images.

    Returns:
      float64 ``(M,)`` each: ``balanced_accuracy`` (mean over the quadrants present of the share answered
      rightly: yes for the conjunction, no for the others), ``accuracy``, ``precision`` (0 for a network that
      never says yes) and ``recall``.

    Raises:
      ValueError: see `check_scores` and `answers`.
    """
    scores, quadrant = check_scores(scores, quadrant)
    yes = answers(scores, threshold)
    is_positive = quadrant == Quadrant.CONJUNCTION
    right = yes == is_positive
    per_quadrant = [right[:, quadrant == value].mean(axis=1) for value in np.unique(quadrant)]
    hits = yes[:, is_positive].sum(axis=1)
    return {
        "balanced_accuracy": np.mean(per_quadrant, axis=0),
        "accuracy": right.mean(axis=1),
        "precision": hits / np.maximum(yes.sum(axis=1), 1),
        "recall": hits / is_positive.sum(),
    }
