"""Where a few networks are picked by one figure and then judged by another: a null that repeats both steps.

The test is over networks, given the images: it says nothing of other images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from kernelgan.evaluation import scores as scores_lib

_ROUNDING = 1e-12
_UNHEARD_OF = 1e-9
_OF_PICKED: dict[str, Callable[[np.ndarray], Any]] = {"best": np.max, "mean": np.mean}


def picked(
    screened: np.ndarray,
    judged: np.ndarray,
    is_generated: np.ndarray,
    *,
    count: int,
    draws: int = 10_000,
    seed: int = 0,
    statistic: str = "",
) -> dict[str, Any]:
    """Permutation test of a picking in two steps: the best by one figure are picked, then judged by another.

    The statistic is the difference of the two sides' picks: one side's own best alone would be among the
    relabelled bests half of the time, however good it is. Whatever a network's second figure is tuned over is
    the network's own matter; the picking is repeated on every drawn relabelling of generated and null
    networks (Fisher, 1935). Only those near the top by the
    first figure can ever be picked, so only they need the second: the first `reach` in `judging_order`,
    and each side's own picks.

    Args:
      screened: float ``(T,)``, the first figure of all networks, generated and null.
      judged: float ``(T,)``, the second figure; NaN where it is not known.
      is_generated: bool ``(T,)``.
      count: how many of each side are picked.
      draws: relabellings.
      seed: of the draws and of the order of equals.
      statistic: its name, for the record.

    Returns:
      ``statistic``; ``candidates``, the generated networks; ``null_networks``; ``picked``; ``draws``; and for
      ``best`` and ``mean`` of the picks each ``generated``, ``null`` and their ``difference``,
      ``relabelled_ci95`` of the difference over the relabellings, and the one-sided ``p_value``, the share of
      relabellings whose difference is at least the observed one; ``differences``, those themselves, by the
      same names, float ``(draws,)``.

    Raises:
      ValueError: shapes disagree, a side has fewer than `count` networks, or a pick was not judged.
    """
    screened, judged = np.asarray(screened, np.float64), np.asarray(judged, np.float64)
    is_generated = np.asarray(is_generated, bool)
    if not screened.shape == judged.shape == is_generated.shape or screened.ndim != 1:
        raise ValueError(
            "need one value a network of each, got shapes "
            f"{screened.shape}, {judged.shape} and {is_generated.shape}"
        )
    scores_lib.check_finite(screened, "screened")
    sizes = int(is_generated.sum()), int((~is_generated).sum())
    if min(sizes) < count or count < 1:
        raise ValueError(f"cannot pick {count} of {sizes[0]} generated and {sizes[1]} null networks")
    order = judging_order(screened, seed=seed)
    own = [judged[order[is_generated[order] == side][:count]] for side in (True, False)]
    if any(np.isnan(values).any() for values in own):
        raise ValueError("a picked network was not judged")
    known = ~np.isnan(judged[order])
    leading = len(order) if known.all() else int(np.argmin(known))
    rng = np.random.default_rng(seed)
    differences = np.empty((draws, len(_OF_PICKED)))
    top = judged[order[:leading]]
    for draw in range(draws):
        labels = _relabelled(rng, leading, sizes)
        chosen = top[labels][:count], top[~labels][:count]
        if min(len(values) for values in chosen) < count:
            raise ValueError(
                f"only the {leading} leading networks were judged, too few to pick {count} from in every draw"
            )
        differences[draw] = [take(chosen[0]) - take(chosen[1]) for take in _OF_PICKED.values()]
    found: dict[str, Any] = {"statistic": statistic, "candidates": sizes[0], "null_networks": sizes[1]}
    found |= {"picked": count, "draws": draws}
    for column, (name, take) in zip(differences.T, _OF_PICKED.items(), strict=True):
        generated, null = (float(take(values)) for values in own)
        found[name] = {
            "generated": generated,
            "null": null,
            "difference": generated - null,
            "relabelled_ci95": np.quantile(column, (0.025, 0.975)).tolist(),
            "p_value": (1 + int(np.sum(column >= generated - null - _ROUNDING))) / (draws + 1),
        }
    return found | {"differences": dict(zip(_OF_PICKED, differences.T, strict=True))}


def judging_order(screened: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The order that `picked` picks in, ``(T,)``: from the best down, equals as drawn with ``seed``."""
    shuffled = np.random.default_rng(seed).permutation(len(screened))
    return shuffled[np.argsort(-np.asarray(screened)[shuffled], kind="stable")]


def reach(generated: int, null: int, count: int) -> int:
    """How many leading networks `picked` needs judged: too few for either side in one of 1e9 draws."""
    leading = np.arange(count, generated + null + 1)
    rarer = min(generated, null)
    short = stats.hypergeom.cdf(count - 1, generated + null, rarer, leading)
    return int(leading[np.argmax(short < _UNHEARD_OF)]) if (short < _UNHEARD_OF).any() else int(leading[-1])


def _relabelled(rng: np.random.Generator, leading: int, sizes: tuple[int, int]) -> np.ndarray:
    """Which of the leading networks are generated in one relabelling of all, bool ``(leading,)``."""
    return rng.permutation(np.arange(leading) < rng.hypergeometric(*sizes, leading))
