"""How new networks are: how far they are from the nearest parent, in weights, answers and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kernelgan.baselines.methods import Networks
from kernelgan.evaluation import measurement, scores
from kernelgan.evaluation import novelty as novelty_lib
from kernelgan.types import Params, Quadrant

_MATCHED = 32
_DIGITS, _LEAST = 9, 1e-6


class Parentage(NamedTuple):
    """What the novelty of every method of a pair is taken against; see `parentage`.

    Attributes:
      layers: names of the convolutional layers.
      distances: their kernels, those of both zoos, and how far they usually are from each other.
      wrong: bool ``(K, N)``: which images they answer wrongly.
      ranks: float ``(K, N)``: `novelty.standard_ranks` of their scores.
      typical_answers: how far answers usually are from the nearest parent's, one minus the rank correlation:
        those of a parent from its fellow's, or those of both parents together, whichever is nearer.
      typical_errors: median overlap of a parent's errors with those of its nearest fellow.
    """

    layers: tuple[str, ...]
    distances: novelty_lib.Parents
    wrong: np.ndarray
    ranks: np.ndarray
    typical_answers: float
    typical_errors: float


def parentage(
    parents: tuple[Params, Params], rivals: Sequence[measurement.Arrays], quadrant: np.ndarray
) -> Parentage:
    """The networks of both zoos as candidates for the nearest parent.

    Args:
      parents: of the attribute's and the object's zoo.
      rivals: both zoos' arrays from `measurement.evaluate_method`.
      quadrant: int8 ``(N,)``.
    """
    layers = tuple(name for name in parents[0] if name != "dense")
    kernels = [np.concatenate([zoo[layer]["kernel"] for zoo in parents]) for layer in layers]
    wrong = [_wrong(rival, quadrant) for rival in rivals]
    overlaps = _of_nearest_fellows([novelty_lib.error_overlaps(zoo, zoo) for zoo in wrong])
    ranks = [novelty_lib.standard_ranks(rival["scores"]) for rival in rivals]
    fellows = _of_nearest_fellows([zoo @ zoo.T for zoo in ranks])
    few = min(len(zoo) for zoo in ranks)
    attribute, objects = (np.logaddexp(0, -rival["scores"][:few].astype(np.float64)) for rival in rivals)
    together = -(attribute + objects)
    everyone = np.concatenate(ranks)
    nearest = (novelty_lib.standard_ranks(together) @ everyone.T).max(axis=1)
    typical = 1 - max(float(np.median(fellows)), float(nearest.mean()))
    return Parentage(
        layers,
        novelty_lib.compare_parents(kernels),
        np.concatenate(wrong),
        everyone,
        typical,
        float(np.median(overlaps)),
    )


def _of_nearest_fellows(alike: Sequence[np.ndarray]) -> np.ndarray:
    """The most that each parent has in common with another of its zoo, from ``(K, K)`` of each zoo."""
    others = [np.where(np.eye(len(zoo), dtype=bool), -1.0, zoo) for zoo in alike]
    return np.concatenate([zoo.max(axis=1) for zoo in others])


def novelty(
    networks: Networks,
    parents: Parentage,
    answers: measurement.Arrays,
    quadrant: np.ndarray,
    settings: measurement.Settings,
) -> tuple[measurement.Record, np.ndarray] | None:
    """How new networks are: distance to, and errors in common with, the nearest parent.

    Args:
      networks: what a method made; the first 32 are looked at.
      parents: from `parentage`.
      answers: the networks' arrays from `measurement.evaluate_method`.
      quadrant: int8 ``(N,)``.
      settings: see there.

    Returns:
      Summaries ``distance`` (1: as far as a parent is from its nearest fellow; 0: a copy), ``answers`` (the
      same of rank correlations between scores, see `Parentage.typical_answers`), ``error_overlap``
      (intersection over union with the parent nearest by weights; 1: the same errors),
      ``error_overlap_nearest`` (with the parent that shares most) and ``error_overlap_parents`` (of a parent
      with its nearest fellow); and the distances ``(m,)``. None for what is not one network with kernels of
      the parents' shape.
    """
    if len(networks) != 1 or any(layer not in networks[0].params for layer in parents.layers):
        return None
    own = [networks[0].params[layer]["kernel"][:_MATCHED] for layer in parents.layers]
    theirs = parents.distances.kernels
    if [kernel.shape[1:] for kernel in own] != [kernel.shape[1:] for kernel in theirs]:
        return None
    found = novelty_lib.novelty(own, parents.distances)
    shared = novelty_lib.error_overlaps(_wrong(answers, quadrant)[:_MATCHED], parents.wrong)
    ranks = novelty_lib.standard_ranks(answers["scores"][:_MATCHED])
    apart = (1 - (ranks @ parents.ranks.T).max(axis=1)).round(_DIGITS) / max(parents.typical_answers, _LEAST)
    record = {
        "distance": measurement.summary(found.relative_to_nearest, settings),
        "answers": measurement.summary(apart, settings),
        "error_overlap": measurement.summary(shared[np.arange(len(shared)), found.nearest], settings),
        "error_overlap_nearest": measurement.summary(shared.max(axis=1), settings),
        "error_overlap_parents": {"mean": parents.typical_errors},
    }
    return record, found.relative_to_nearest


def _wrong(answers: measurement.Arrays, quadrant: np.ndarray) -> np.ndarray:
    """Bool ``(M, N)``: which images are answered wrongly."""
    return scores.answers(answers["scores"], float(answers["threshold"])) != (
        quadrant == Quadrant.CONJUNCTION
    )
