"""What can be had with no network: linear readouts of the pixels and of a colour histogram.

A readout is a description of an image and one dense layer a concept, a logistic regression fitted on the
images that the concept's parents train on. Two side by side (`kernelgan.assemble.two_concept_head`) answer
zero-shot as a network with two concepts does, and no image of the conjunction is read.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import jax
import numpy as np
import threadpoolctl

from kernelgan import parallel
from kernelgan.data import colour, quadrants
from kernelgan.evaluation import clustering
from kernelgan.evaluation.features import Outputs
from kernelgan.types import Params
from kernelgan.zoo import some_of_each

Describe = Callable[[np.ndarray], np.ndarray]
"""Images uint8 ``(N, H, W, 3)`` to float32 ``(N, F)``, each image on its own."""

SIDE = 16
"""Pixels a side of the images that `pixels` describes. On validation images of 32 x 32, photographs
and drawings, 16 x 16 are read as well as all of them, in a quarter of the time; 8 x 8 lose shapes."""

LEVELS = 6
"""Bins of each channel in `colour_histogram`; 216 colours in all."""

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's ``C``, the inverse of the L2 penalty, among which `fit` chooses; the strictest first."""

CERTAIN = 0.999
"""The probability of a colour where `colour_rule` holds, and 1 minus that of it where the image lacks it."""

_STEPS = 200  # of L-BFGS
_TOLERANCE = 1e-3
_PIXELS_AT_ONCE = 2**20


def pixels(images: np.ndarray) -> np.ndarray:
    """The pixels, averaged down to at most `SIDE` x `SIDE`, in [-1, 1].

    Args:
      images: uint8 ``(N, H, W, 3)``. A side that `SIDE` does not divide is cut as evenly as whole pixels go.

    Returns:
      float32 ``(N, F)``, ``F = min(H, SIDE) min(W, SIDE) 3``.
    """
    pooled = images.astype(np.float32)
    for axis in (1, 2):
        length = images.shape[axis]
        edges = np.arange(min(length, SIDE) + 1) * length // min(length, SIDE)
        place = np.arange(length)
        within = ((edges[:-1, None] <= place) & (place < edges[1:, None])).astype(np.float32)
        leading = pooled.shape[:axis]
        cells = within @ pooled.reshape(*leading, length, -1)
        pooled = (cells / np.diff(edges).astype(np.float32)[:, None]).reshape(
            *leading, len(within), *pooled.shape[axis + 1 :]
        )
    return (pooled / np.float32(127.5) - 1).reshape(len(images), -1)


def colour_histogram(images: np.ndarray) -> np.ndarray:
    """The square root of the share of pixels in each of `LEVELS` cubed colours, wherever they stand.

    The joint histogram of the three channels (Swain and Ballard, "Color indexing", 1991). Distances between
    square roots are Hellinger's, so that a linear readout is not ruled by the few largest bins.

    Args:
      images: uint8 ``(N, H, W, 3)``.

    Returns:
      float32 ``(N, LEVELS ** 3)``, each row of length 1.
    """
    bins = LEVELS**3
    shares = np.empty((len(images), bins), np.float32)
    at_once = max(1, _PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), at_once):
        block = images[start : start + at_once]
        red, green, blue = np.moveaxis(block.astype(np.int32) * LEVELS >> 8, -1, 0)
        colour = ((red * LEVELS + green) * LEVELS + blue).reshape(len(block), -1)
        colour += bins * np.arange(len(block), dtype=np.int32)[:, None]
        counts = np.bincount(colour.ravel(), minlength=bins * len(block))
        shares[start : start + at_once] = counts.reshape(-1, bins) / colour.shape[1]
    return np.sqrt(shares)


def fit(describe: Describe, images: np.ndarray, groups: quadrants.Groups, *, most: int, seed: int) -> Params:
    """One concept's readout: a logistic regression with an L2 penalty, both sides of equal weight.

    The penalty is the one of `STRENGTHS` with the least cross-entropy on the validation images, both sides
    of equal weight there too: two readouts answer by the product of their probabilities, and AUROC, which
    knows only the order, ties where a concept is easy. It acts on standardised features; their scaling is
    then folded into the weights.

    Args:
      describe: `pixels`, `colour_histogram` or the like.
      images: uint8 ``(N, H, W, 3)``; only those in `groups` are read.
      groups: what the concept's parents read, positives first.
      most: at most so many images of each side are trained on, and as many validated on.
      seed: chooses them.

    Returns:
      A dense layer ``{"kernel": (F, 2), "bias": (2,)}``, float32, of logits (no, yes). Their difference is
      the regression's.

    Raises:
      ValueError: a side has no image.
    """
    from sklearn.exceptions import ConvergenceWarning  # as long to import as JAX
    from sklearn.linear_model import LogisticRegression

    sides = [some_of_each(part, 2 * most, seed, "readout") for part in (groups.train, groups.validation)]
    if not all(len(indices) for part in sides for indices in part):
        counts = [[len(indices) for indices in part] for part in sides]
        raise ValueError(
            "need positives and negatives to train and to validate on, got "
            f"{counts[0]} training and {counts[1]} validation images"
        )
    (trained, labels), (validated, truth) = (
        (describe(images[np.concatenate(part)]), np.repeat([1, 0], [len(indices) for indices in part]))
        for part in sides
    )
    mean, scale = trained.mean(axis=0, dtype=np.float64), trained.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1  # a feature that never varies is 0, and its weight stays 0
    standard = (trained - mean) / scale
    found = []
    # One thread, so that sums are in one order however many cores there are.
    with threadpoolctl.threadpool_limits(1), clustering.ALONE, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit cut short is one more candidate
        model = LogisticRegression(class_weight="balanced", warm_start=True, tol=_TOLERANCE, max_iter=_STEPS)
        for strength in STRENGTHS:
            model.set_params(C=strength).fit(standard, labels)
            weights = model.coef_[0] / scale
            dense = _two_logits(weights, model.intercept_[0] - weights @ mean)
            no, yes = _dense(validated, dense).T
            found.append((_cross_entropy(yes - no, truth), dense))
    return min(found, key=lambda one: one[0])[1]


def constant() -> Readouts:
    """One score for every image: a population of one, that describes nothing."""
    dense = {"kernel": np.zeros((1, 0, 2), np.float32), "bias": np.zeros((1, 2), np.float32)}
    return Readouts(lambda images: np.zeros((len(images), 0), np.float32), {"dense": dense})


def colour_rule(term: str, count: int) -> Readouts:
    """The rule of `kernelgan.data.colour` that labels a colour, as a concept's logits: nothing is learnt.

    Half way between "lacks it" and "has it" the probability is 1/2, and it is `CERTAIN` where the rule says
    that the image has the colour.

    Args:
      term: one of `colour.TERMS`.
      count: members ``M``, all the same.
    """

    def covered(images: np.ndarray) -> np.ndarray:
        return colour.coverage(images)[term][:, None]

    middle = (colour.HOLDS_OVER + colour.LACKS_UNDER) / 2
    slope = np.log(CERTAIN / (1 - CERTAIN)) / (colour.HOLDS_OVER - middle)
    dense = _two_logits(np.array([slope]), -slope * middle)
    return Readouts(covered, {"dense": jax.tree.map(lambda leaf: np.stack([leaf] * count), dense)})


@dataclasses.dataclass(frozen=True)
class Readouts:
    """A population of readouts, for `kernelgan.baselines.methods`; its features are the description.

    Attributes:
      describe: see `Describe`.
      params: ``{"dense": {"kernel": (M, F, K), "bias": (M, K)}}``.
    """

    describe: Describe
    params: Params

    def outputs(self, images: np.ndarray, *, chunk_size: int | None = None) -> Outputs:
        """See `features.population_outputs`; None: all members at a time."""
        found = self.describe(images)
        count = len(self.params["dense"]["bias"])
        for chunk in parallel.chunks(count, chunk_size or count):
            members = np.unique(chunk)  # the last chunk repeats its last member
            answers = _dense(found, jax.tree.map(lambda leaf, rows=members: leaf[rows], self.params["dense"]))
            yield members, answers, np.broadcast_to(found, (len(answers), *found.shape))


def _dense(features: np.ndarray, dense: Params) -> np.ndarray:
    return features @ dense["kernel"] + dense["bias"][..., None, :]


def _cross_entropy(difference: np.ndarray, truth: np.ndarray) -> float:
    """Of logits' differences ``(N,)`` with labels 0 or 1 ``(N,)``, the mean of both sides' means."""
    losses = np.logaddexp(0, np.where(truth == 1, -difference, difference))
    return float(losses[truth == 1].mean() + losses[truth == 0].mean()) / 2


def _two_logits(weights: np.ndarray, bias: float) -> Params:
    """Logits (no, yes), one the negative of the other, whose difference is ``features @ weights + bias``."""
    halves = np.array([-0.5, 0.5])
    return {
        "kernel": np.outer(weights, halves).astype(np.float32),
        "bias": (bias * halves).astype(np.float32),
    }
