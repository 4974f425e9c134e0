"""The matched null: could the best, or the mean, of generated networks come from random ones?

A best of n must be compared with bests of n. Comparing it with bests of n drawn from a FINITE pool of null
networks is not enough: the best of 64 networks beats all 256 of a pool in one case of five by chance alone
(64 / 320), and no draw from that pool ever beats it. `best_of` therefore pools both populations, which is
exact for any two sizes. It follows that its p-value is never below n / (n + K): a null pool must hold
19 networks for every candidate before 0.05 can be reached, or the mean be tested instead. Where a few are
picked by one figure and then judged by another (tuned per network, say), `picked` repeats both steps.

All tests are over networks, given the images: they say nothing of other images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used

from kernelgan.baselines import FLOOR
from kernelgan.evaluation import scores as scores_lib

_ROUNDING = 1e-12
_AT_ONCE = 512
"""Permutations drawn at a time."""
_UNHEARD_OF = 1e-9
_OF_PICKED: dict[str, Callable[[np.ndarray], Any]] = {"best": np.max, "mean": np.mean}


def best_of(generated: np.ndarray, null: np.ndarray, *, statistic: str = "") -> dict[str, Any]:
    """Permutation test of the best of n candidates (Fisher, 1935), computed exactly, without draws.

    Under the null hypothesis the candidates are any n of the ``n + K`` networks. The p-value is the share
    of all choices of n whose best is at least the observed one: ``1 - C(b, n) / C(n + K, n)``, where b
    networks are below it.

    Args:
      generated: float ``(n,)``, the statistic of every candidate that the best was picked from.
      null: float ``(K,)``, the statistic of null networks, which went through the same picking otherwise.
      statistic: its name, for the record.

    Returns:
      ``statistic``; ``candidates`` n; ``null_networks`` K; ``observed``, the best candidate's; ``null_mean``,
      the expected best of n draws from the null networks; ``p_value``; ``smallest_p``, the least that
      `p_value` can be for these n and K; ``share_of_null_draws``, the share of n-candidate draws (with
      replacement) from the null networks alone whose best is at least `observed`: the p-value for an
      infinite pool, too small for a finite one, not to be quoted unless K is many times n.

    Raises:
      ValueError: an input is not 1-D, empty or not finite.
    """
    generated, null = _checked(generated, "generated"), _checked(null, "null")
    n, total = generated.size, generated.size + null.size
    observed = generated.max()
    below = int(np.sum(generated < observed) + np.sum(null < observed))
    steps = np.arange(n)
    none_as_good = float(np.prod(np.maximum(below - steps, 0) / (total - steps)))
    ranked = np.sort(null)
    at_most = (np.arange(null.size + 1) / null.size) ** n
    return {
        "statistic": statistic,
        "candidates": n,
        "null_networks": int(null.size),
        "observed": float(observed),
        "null_mean": float(ranked @ np.diff(at_most)),
        "p_value": 1 - none_as_good,
        "smallest_p": n / total,
        "share_of_null_draws": 1 - float(np.mean(null < observed)) ** n,
    }


def mean_test(
    generated: np.ndarray, null: np.ndarray, *, resamples: int = 20_000, seed: int = 0
) -> dict[str, float]:
    """One-sided tests that generated networks are better than null ones on average; no picking is involved.

    Args:
      generated: float ``(n,)``.
      null: float ``(K,)``.
      resamples: permutations, at least one; all are enumerated where there are no more than these.
      seed: of the permutations.

    Returns:
      ``mean``; ``null_mean``; ``p_value`` of the difference of means by permutation of Welch's t, which holds
      where the two spread differently (Janssen, 1997), at least ``1 / (resamples + 1)`` when they are drawn;
      ``superiority``, the chance that a generated network beats a null one, half for a tie (the statistic of
      Mann and Whitney, 1947).

    Raises:
      ValueError: an input is not 1-D, empty or not finite.
    """
    generated, null = _checked(generated, "generated"), _checked(null, "null")
    test = {"mean": float(generated.mean()), "null_mean": float(null.mean())}
    if np.ptp(np.concatenate([generated, null])) == 0:
        return test | {"p_value": 1.0, "superiority": 0.5}
    wins = scipy.stats.mannwhitneyu(generated, null).statistic
    return test | {
        "p_value": _permutation_p(generated, null, resamples=resamples, seed=seed),
        "superiority": float(wins / (generated.size * null.size)),
    }


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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, each corrected for all of them (Holm, 1979), in the order given."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values))))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected.tolist()


def judging_order(screened: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The order that `picked` picks in, ``(T,)``: from the best down, equals as drawn with ``seed``."""
    shuffled = np.random.default_rng(seed).permutation(len(screened))
    return shuffled[np.argsort(-np.asarray(screened)[shuffled], kind="stable")]


def reach(generated: int, null: int, count: int) -> int:
    """How many leading networks `picked` needs judged: too few for either side in one of 1e9 draws."""
    leading = np.arange(count, generated + null + 1)
    rarer = min(generated, null)
    short = scipy.stats.hypergeom.cdf(count - 1, generated + null, rarer, leading)
    return int(leading[np.argmax(short < _UNHEARD_OF)]) if (short < _UNHEARD_OF).any() else int(leading[-1])


def _relabelled(rng: np.random.Generator, leading: int, sizes: tuple[int, int]) -> np.ndarray:
    """Which of the leading networks are generated in one relabelling of all, bool ``(leading,)``."""
    return rng.permutation(np.arange(leading) < rng.hypergeometric(*sizes, leading))


def _permutation_p(generated: np.ndarray, null: np.ndarray, *, resamples: int, seed: int) -> float:
    if generated.size == 1:  # which scipy refuses: the one's place among all
        return float(np.mean(np.concatenate([generated, null]) >= generated[0]))
    if scipy.special.comb(generated.size + null.size, generated.size) <= resamples:  # all of them
        exact = scipy.stats.permutation_test(
            (generated, null), _welch, vectorized=True, alternative="greater", n_resamples=resamples
        )
        return float(exact.pvalue)
    rng, pool = np.random.default_rng(seed), np.concatenate([generated, null])
    observed, as_good = float(_welch(generated, null, 0)), 0
    for first in range(0, resamples, _AT_ONCE):
        drawn = rng.permuted(np.tile(pool, (min(_AT_ONCE, resamples - first), 1)), axis=1)
        values = _welch(drawn[:, : generated.size], drawn[:, generated.size :], 1)
        as_good += int(np.sum(values >= observed - _ROUNDING * abs(observed)))
    return (1 + as_good) / (resamples + 1)


def _welch(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """Welch's t; where neither spreads, as large as a difference of means can make it."""
    error = np.sqrt(
        np.var(x, axis=axis, ddof=1) / x.shape[axis] + np.var(y, axis=axis, ddof=1) / y.shape[axis]
    )
    return (np.mean(x, axis=axis) - np.mean(y, axis=axis)) / np.maximum(error, _ROUNDING)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must hold one value a network, got shape {values.shape}")
    scores_lib.check_finite(values, name)
    return values


def matched(
    worst_by_method: dict[str, np.ndarray],
    generated: list[str],
    seed: int,
    *,
    statistic: str = "auroc.worst",
) -> dict[str, Any] | None:
    """The generated networks against as carefully picked random ones.

    The mean of each generated method is tested against random networks by permutation; reporting the best of
    them is picking, and its p-value is multiplied by their number (Bonferroni). The best single network of
    all is tested against the best of as many random ones.

    Args:
      worst_by_method: figure of merit ``(M,)`` of the random networks and of the generated ones.
      generated: which methods are generated.
      seed: of the permutations.
      statistic: the figure's name.

    Returns:
      The record ``null_test``, or None if there are no generated networks.
    """
    candidates = [name for name in generated if name in worst_by_method]
    if not candidates or FLOOR not in worst_by_method:
        return None
    null = worst_by_method[FLOOR]
    by_method, means = {}, {}
    for name in candidates:
        of_mean = mean_test(worst_by_method[name], null, seed=seed)
        of_best = best_of(worst_by_method[name], null)
        means[name] = of_mean
        by_method[name] = {
            "mean_p_value": of_mean["p_value"],
            "superiority": of_mean["superiority"],
            "best_p_value": of_best["p_value"],
            "smallest_best_p_value": of_best["smallest_p"],
        }
    method = max(candidates, key=lambda name: means[name]["mean"])
    return {
        "statistic": statistic,
        "method": method,
        "candidates": len(candidates),
        "observed": means[method]["mean"],
        "null_mean": means[method]["null_mean"],
        "p_value": min(1.0, len(candidates) * by_method[method]["mean_p_value"]),
        "by_method": by_method,
        "best_network": best_of(
            np.concatenate([worst_by_method[name] for name in candidates]), null, statistic=statistic
        ),
    }
