"""How methods stand to each other: tests of differences within a pair, and over all pairs of a run.

Within a pair, two methods are compared on the same resampled images, and network by network where they are
equally many (see `bootstrap`); the standard error of their difference is its bootstrap standard deviation,
and the test and the interval are the normal ones (Efron and Tibshirani, "An introduction to the bootstrap",
1993, chapter 13), whose p-values are not bounded by the number of resamples. They are conservative: noise
that is neither an image's nor a network's own counts in both drawings (Owen, "The pigeonhole bootstrap",
2007).

Over pairs, each pair is one observation (Wilcoxon, 1945). Pairs share concepts and images, so these are not
quite independent; read a p-value near 0.05 as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kernelgan.evaluate import bootstrap, null_test

Record = dict[str, Any]
Tests = dict[str, dict[str, Record]]

YARDSTICK = "and_ensemble"
"""What every method is compared with: both parents run, at twice the parameters."""
FLOOR, CEILING = "random", "trained_on_conjunction"


def difference(mean: float, other: float, replicates: np.ndarray, others: np.ndarray) -> Record:
    """Tests whether two methods differ on one pair.

    Args:
      mean: of the one method over its networks.
      other: of the other.
      replicates: float ``(R,)``, the one's mean on each resample, see `bootstrap.score_intervals`.
      others: ``(R,)``, the other's on the same ones.

    Returns:
      ``difference``, a statistic ``{"mean", "ci95"}``, and the two-sided ``p_value``.

    Raises:
      ValueError: the two were not resampled equally often.
    """
    replicates, others = np.asarray(replicates, np.float64), np.asarray(others, np.float64)
    if replicates.shape != others.shape or replicates.ndim != 1 or replicates.size < 2:
        raise ValueError(
            f"need as many resamples of both, at least 2, got {replicates.shape} and {others.shape}"
        )
    found, error = mean - other, float(np.std(replicates - others, ddof=1))
    reach = float(stats.norm.ppf(0.975)) * error
    certain = 1.0 if found == 0 else 0.0
    p_value = float(2 * stats.norm.sf(abs(found) / error)) if error > 0 else certain
    return {"difference": {"mean": found, "ci95": [found - reach, found + reach]}, "p_value": p_value}


def pair_tests(
    means: Mapping[str, float], replicates: Mapping[str, np.ndarray], generated: Sequence[str]
) -> Tests:
    """Every generated method against every other, and every method against `YARDSTICK`.

    Args:
      means: figure of merit of each method.
      replicates: ``(R,)`` of each.
      generated: which of them are generated.

    Returns:
      method -> rival -> what `difference` gives.
    """
    return {
        name: {
            rival: difference(means[name], means[rival], replicates[name], replicates[rival])
            for rival in means
            if rival != name and (name in generated or rival == YARDSTICK)
        }
        for name in means
    }


def adjust(pairs: Sequence[Record]) -> None:
    """Adds ``p_adjusted`` to the tests and null tests of a run's pairs, in place.

    A generated method's p-values are multiplied by how many generated methods there are, for it is the best
    of them that is reported (Bonferroni; the null test has that in already). Then each comparison is
    corrected over the pairs (Holm, 1979).
    """
    families: dict[tuple[str, str], list[tuple[Record, float]]] = {}
    for pair in pairs:
        picked = max(1, len(generated_methods(pair)))
        for name, rivals in pair["tests"].items():
            times = picked if pair["methods"][name]["kind"] == "generated" else 1
            for rival, test in rivals.items():
                p_value = min(1.0, times * test["p_value"])
                families.setdefault((name, rival), []).append((test, p_value))
        if pair.get("null_test"):
            families.setdefault(("", ""), []).append((pair["null_test"], pair["null_test"]["p_value"]))
    for family in families.values():
        corrected = null_test.holm([p_value for _, p_value in family])
        for (test, _), p_value in zip(family, corrected, strict=True):
            test["p_adjusted"] = p_value


def generated_methods(pair: Record) -> list[str]:
    """The generated methods of a pair's record."""
    return [name for name, method in pair["methods"].items() if method["kind"] == "generated"]


def overall(
    pairs: Sequence[Record], replicates: Sequence[Mapping[str, np.ndarray]], *, merit: str, seed: int
) -> Record | None:
    """Every method over all pairs: means, share recovered, novelty, wins, and tests of its differences.

    Intervals are over pairs, drawn with replacement, and within each over its networks and images.

    Args:
      pairs: records with ``methods`` and adjusted ``tests``.
      replicates: of each pair, ``(R,)`` of each method.
      merit: which AUROC is the figure of merit.
      seed: of the draws.

    Returns:
      The record ``overall`` of `results`; None for fewer than two pairs.
    """
    if len(pairs) < 2:
        return None
    board = _Board(pairs, replicates, merit, seed)
    names = list(dict.fromkeys(name for pair in pairs for name in pair["methods"]))
    methods = {name: board.row(name) for name in names}
    generated = [name for name in names if methods[name]["kind"] == "generated"]
    tests: Tests = {}
    for name in names:
        picked = max(1, len(generated)) if name in generated else 1
        for rival in names:
            if rival != name and (name in generated or rival == YARDSTICK):
                test = board.test(name, rival)
                if test is not None:
                    test["p_adjusted"] = min(1.0, picked * test["p_value"])
                    tests.setdefault(name, {})[rival] = test
    return {"pairs": len(pairs), "merit": merit, "methods": methods, "tests": tests}


class _Board:
    """Means of methods over pairs and their resamples; a pair that lacks a method is left out of its mean."""

    def __init__(
        self, pairs: Sequence[Record], replicates: Sequence[Mapping[str, np.ndarray]], merit: str, seed: int
    ) -> None:
        self.pairs, self.merit, self.seed = pairs, merit, seed
        names = list(dict.fromkeys(name for pair in pairs for name in pair["methods"]))
        resamples = len(next(iter(replicates[0].values())))
        self.place = {name: place for place, name in enumerate(names)}
        self.means = np.full((len(pairs), len(names)), np.nan)
        self.drawn = np.full((len(pairs), len(names), resamples), np.nan)
        for number, (pair, found) in enumerate(zip(pairs, replicates, strict=True)):
            for name, method in pair["methods"].items():
                mean = method["auroc"][merit]["mean"]
                self.means[number, self.place[name]] = mean
                # Moved to the observed mean: the smallest of several resampled figures lies low.
                self.drawn[number, self.place[name]] = mean + found[name] - np.mean(found[name])
        self.shares = bootstrap.network_shares(len(pairs), resamples=resamples, seed=seed)

    def row(self, name: str) -> Record:
        column = self.place[name]
        here = np.isfinite(self.means[:, column])
        kind = next(pair["methods"][name]["kind"] for pair in self.pairs if name in pair["methods"])
        return {
            "kind": kind,
            "pairs": int(here.sum()),
            "auroc": {self.merit: self._statistic(self.means[:, column], self.drawn[:, column])},
            "recovered": self._recovered(name),
            "novelty": self._novelty(name),
            "against": self._against(name),
        }

    def test(self, name: str, rival: str) -> Record | None:
        """Wilcoxon's signed-rank test of the pairs' differences, and their mean."""
        one, other = self.place[name], self.place[rival]
        found = self.means[:, one] - self.means[:, other]
        if np.isfinite(found).sum() < 2:
            return None
        statistic = self._statistic(found, self.drawn[:, one] - self.drawn[:, other])
        found = found[np.isfinite(found)]
        p_value = float(stats.wilcoxon(found).pvalue) if np.any(found != 0) else 1.0
        return {"difference": statistic, "p_value": p_value}

    def _average(self, drawn: np.ndarray) -> np.ndarray:
        """``(P, R)`` to ``(R,)``: means over the pairs drawn."""
        here = np.isfinite(drawn).all(axis=1)
        shares = self.shares[:, here]
        weight = shares.sum(axis=1)
        total = np.einsum("pr,rp->r", drawn[here], shares)
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)

    def _statistic(self, means: np.ndarray, drawn: np.ndarray) -> Record:
        here = np.isfinite(means)
        ends = np.nanpercentile(self._average(drawn), [2.5, 97.5])
        spread = float(np.std(means[here], ddof=1)) if here.sum() > 1 else None
        return {"mean": float(means[here].mean()), "ci95": ends.tolist(), "sd": spread}

    def _recovered(self, name: str) -> Record | None:
        """The ratio of mean gains over the pairs: a mean of ratios would hang on hopeless pairs."""
        if FLOOR not in self.place or CEILING not in self.place:
            return None
        columns = [self.place[each] for each in (name, FLOOR, CEILING)]
        here = np.isfinite(self.means[:, columns]).all(axis=1)
        if not here.any():
            return None
        mine, low, high = self.means[here][:, columns].mean(axis=0)
        if high <= low:
            return None
        masked = np.where(here[:, None], 1.0, np.nan)
        drawn = [self._average(self.drawn[:, column] * masked) for column in columns]
        gain = drawn[2] - drawn[1]
        ratio = np.divide(drawn[0] - drawn[1], gain, out=np.full_like(gain, np.nan), where=gain > 0)
        return {"mean": (mine - low) / (high - low), "ci95": np.nanpercentile(ratio, [2.5, 97.5]).tolist()}

    def _novelty(self, name: str) -> Record | None:
        found = [pair["methods"].get(name, {}).get("novelty") for pair in self.pairs]
        found = [one for one in found if one]
        if not found:
            return None
        return {
            figure: bootstrap.summary(np.array([one[figure]["mean"] for one in found]), seed=self.seed)
            for figure in found[0]
        }

    def _against(self, name: str) -> Record | None:
        test = self.test(name, YARDSTICK) if YARDSTICK in self.place and name != YARDSTICK else None
        if test is None:
            return None
        tests = [
            pair["tests"][name][YARDSTICK] for pair in self.pairs if YARDSTICK in pair["tests"].get(name, {})
        ]
        signs = np.array([np.sign(one["difference"]["mean"]) for one in tests])
        clear = np.array([one["p_adjusted"] < null_test.SIGNIFICANCE for one in tests])
        return {
            "rival": YARDSTICK,
            **test,
            "wins": int(np.sum(signs > 0)),
            "losses": int(np.sum(signs < 0)),
            "clear_wins": int(np.sum((signs > 0) & clear)),
            "clear_losses": int(np.sum((signs < 0) & clear)),
        }
