"""One temperature for each head of a network with two concepts, so that both are as sure as they are right.

The score of two concepts is the product of two probabilities: a head that is too sure of itself rules it.
Each head's logits are divided by a number that is fitted on seen validation images (Guo et al., "On
calibration of modern neural networks", arXiv:1706.04599).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernelgan.data.quadrants import Groups
from kernelgan.types import Quadrant
from kernelgan.zoo import some_of_each

MOST_IMAGES = 126
"""Validation images that temperatures are fitted on, equally many of each seen quadrant: one number each
needs no more, and they are a single batch."""

LIMIT = 100.0
"""Temperatures are between 1 / LIMIT and LIMIT; a head that knows nothing has the largest."""

_HALVINGS = 40
_POSITIVES = (Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY)  # of the first head and of the second


class SeenImages(NamedTuple):
    """Validation images of the three seen quadrants.

    Attributes:
      images: uint8 ``(N, H, W, C)``.
      quadrant: int8 ``(N,)``, a `Quadrant` of each, never the conjunction.
    """

    images: np.ndarray
    quadrant: np.ndarray


def seen_validation(images: np.ndarray, seen: Groups, seed: int) -> SeenImages | None:
    """The images that temperatures are fitted on; None where a seen quadrant has no validation image.

    Args:
      images: training images, uint8 ``(N, H, W, C)``; only what ``seen.validation`` names is read.
      seen: the three seen quadrants of a pair.
      seed: chooses among them.
    """
    chosen = some_of_each(seen.validation, MOST_IMAGES, seed, "temperature")
    if not all(len(indices) for indices in chosen):
        return None
    quadrant = np.repeat(np.array(seen.quadrants, np.int8), [len(indices) for indices in chosen])
    return SeenImages(images[np.concatenate(chosen)], quadrant)


def temperatures(logits: np.ndarray, quadrant: np.ndarray) -> np.ndarray:
    """The temperature of each head that gives the least cross-entropy, both answers of equal weight.

    The cross-entropy is convex in the inverse temperature: bisection of its slope.

    Args:
      logits: ``(M, N, 4)``: attribute no, yes, object no, yes.
      quadrant: int ``(N,)``, the three seen quadrants, each with an image.

    Returns:
      float64 ``(M, 2)``, of the attribute's and of the object's head.

    Raises:
      ValueError: there are not four logits, or the quadrants are not the three seen ones.
    """
    if logits.shape[-1] != 4 or set(np.unique(quadrant)) != {*_POSITIVES, Quadrant.NEITHER}:
        raise ValueError(
            "need 4 logits of images of the three seen quadrants, got "
            f"{logits.shape[-1]} and quadrants {np.unique(quadrant)}"
        )
    share = 1 / np.bincount(quadrant, minlength=len(Quadrant))[quadrant]
    differences = (logits[..., 1::2] - logits[..., 0::2]).astype(np.float64)
    is_positive = np.stack([quadrant == positive for positive in _POSITIVES], axis=-1)
    signed = np.where(is_positive, differences, -differences)  # (M, N, 2)
    weight = np.where(is_positive, 2, 1) * share[:, None]  # there are two quadrants of negatives
    low, high = (np.full((len(logits), 2), end * np.log(LIMIT)) for end in (-1, 1))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2  # the log of the inverse temperature
        doubt = np.exp(-np.logaddexp(0, np.exp(middle)[:, None] * signed))
        is_too_small = np.sum(weight * signed * doubt, axis=1) > 0
        low, high = np.where(is_too_small, middle, low), np.where(is_too_small, high, middle)
    return np.exp(-(low + high) / 2)


def cooled(logits: np.ndarray, by_head: np.ndarray) -> np.ndarray:
    """Logits ``(M, N, 4)`` divided by their heads' temperatures ``(M, 2)``."""
    return (logits / np.repeat(by_head, 2, axis=1)[:, None]).astype(logits.dtype)
