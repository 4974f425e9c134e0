"""The matched null: could the best, or the mean, of generated networks come from random ones?

A best of n must be compared with bests of n. Comparing it with bests of n drawn from a FINITE pool of null
networks is not enough: the best of 64 networks beats all 256 of a pool in one case of five by chance alone
(64 / 320), and no draw from that pool ever beats it. `best_of` therefore pools both populations, which is
exact for any two sizes. It follows that its p-value is never below n / (n + K): a null pool must hold
19 networks for every candidate before 0.05 can be reached, or the mean be tested instead.

All tests are over networks, given the images: they say nothing of other images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used

from kernelgan.baselines import FLOOR
from kernelgan.evaluation import scores as scores_lib

_ROUNDING = 1e-12
_AT_ONCE = 512
"""Permutations drawn at a time."""


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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, each corrected for all of them (Holm, 1979), in the order given."""
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(np.asarray(p_values)[order] * (len(p_values) - np.arange(len(p_values))))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected.tolist()


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
