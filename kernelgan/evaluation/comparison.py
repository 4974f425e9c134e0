"""How methods stand to each other: tests of differences within a pair, and over all pairs of a run.

Within a pair, two methods are compared on the same resampled images, and network by network where they are
equally many (see `bootstrap`); the standard error of their difference is its bootstrap standard deviation,
and the test and the interval are the normal ones (Efron and Tibshirani, "An introduction to the bootstrap",
1993, chapter 13), whose p-values are not bounded by the number of resamples. They are conservative: noise
that is neither an image's nor a network's own counts in both drawings (Owen, "The pigeonhole bootstrap",
2007). Not so where nearly all noise is between a method's few networks: of four, a normal tail is optimistic.

Over pairs, rows and columns of the matrix are drawn: a pair counts as often as its attribute and its object
together are (Owen, 2007, again conservative), for pairs with a concept in common are not independent: tests
that take them so are wrong up to a third of the time at a level of 0.05. A mean over pairs is tested by its
standard error from these drawings and Student's t with the fewer concepts minus one degrees of freedom.

All of this is given the networks' training. Those of a generated method come from one translator, so that
another training of it is not covered; repeat a run with other seeds for that (`kernelgan.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kernelgan.baselines import CHANCE, FLOOR, REFERENCE, YARDSTICK
from kernelgan.evaluation import bootstrap, null_test, scores
from kernelgan.evaluation.verdict import SIGNIFICANCE

BESIDE = (scores.WORST_OF_MEANS, "worst_calibrated")
"""AUROCs that are shown beside the figure of merit."""

Record = dict[str, Any]
Tests = dict[str, dict[str, Record]]


def difference(mean: float, other: float, replicates: np.ndarray, others: np.ndarray) -> Record:
    """Tests whether two methods differ on one pair.

    Args:
      mean: of the one method over its networks.
      other: of the other.
      replicates: float ``(R,)``, the one's mean on each resample, see `bootstrap.intervals_and_replicates`.
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


def overall(pairs: Sequence[Record], *, merit: str, resamples: int, seed: int) -> Record | None:
    """Every method over all pairs: means, share recovered, novelty, wins, and tests of its differences.

    Args:
      pairs: records with ``pair``, ``methods`` and adjusted ``tests``.
      merit: which AUROC is the figure of merit.
      resamples: drawings of attributes and objects.
      seed: of the draws.

    Returns:
      The record ``overall`` of `results`; None for fewer than two pairs.
    """
    if len(pairs) < 2:
        return None
    board = _Board(pairs, merit, resamples, seed)
    generated = [name for name in board.place if board.kind(name) == "generated"]
    tests: Tests = {}
    for name in board.place:
        picked = max(1, len(generated)) if name in generated else 1
        for rival in board.place:
            if rival != name and (name in generated or rival == YARDSTICK):
                test = board.test(name, rival)
                if test is not None:
                    test["p_adjusted"] = min(1.0, picked * test["p_value"])
                    tests.setdefault(name, {})[rival] = test
    methods = {name: board.row(name, tests.get(name, {})) for name in board.place}
    attributes, objects = board.drawings.levels
    return {
        "pairs": len(pairs),
        "attributes": attributes,
        "objects": objects,
        "merit": merit,
        "methods": methods,
        "tests": tests,
    }


class Drawings:
    """Attributes and objects drawn with replacement, for means over the pairs of a matrix with holes.

    Attributes:
      levels: how many attributes and how many objects there are.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, resamples: int, seed: int) -> None:
        """Draws.

        Args:
          pairs: attribute and object of each, ``P`` of at least two.
          resamples: drawings ``R``.
          seed: of the draws.
        """
        self.levels: list[int] = []
        self._shares = np.ones((resamples, len(pairs)))
        for stream, side in enumerate(zip(*pairs, strict=True)):
            concepts, which = np.unique(side, return_inverse=True)
            self.levels.append(len(concepts))
            if len(concepts) > 1:
                self._shares *= bootstrap.network_shares(
                    len(concepts), resamples=resamples, seed=2 * seed + stream
                )[:, which]
        self._freedom = min(levels for levels in self.levels if levels > 1) - 1

    def means(self, values: np.ndarray) -> np.ndarray:
        """Of values ``(P,)``, NaN where there is none, over each drawing: ``(R,)``, NaN if it is empty."""
        here = np.isfinite(values)
        weight = self._shares[:, here].sum(axis=1)
        total = self._shares[:, here] @ values[here]
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)

    def error(self, values: np.ndarray) -> float:
        """Standard error of the mean of values ``(P,)``."""
        return float(np.nanstd(self.means(values), ddof=1))

    def statistic(self, values: np.ndarray) -> Record:
        """The mean of values ``(P,)`` with its interval, Student's as the test is."""
        here = values[np.isfinite(values)]
        mean = float(here.mean())
        reach = float(stats.t.ppf(0.975, self._freedom)) * self.error(values)
        spread = float(np.std(here, ddof=1)) if here.size > 1 else None
        return {"mean": mean, "ci95": [mean - reach, mean + reach], "sd": spread}

    def test(self, differences: np.ndarray) -> Record | None:
        """Student's test of the mean of differences ``(P,)``, as `difference`; None for fewer than two."""
        if np.isfinite(differences).sum() < 2:
            return None
        statistic, error = self.statistic(differences), self.error(differences)
        if not error > 0:  # of pairs that all differ by the same, nothing is known of the error
            return {"difference": statistic, "p_value": 1.0}
        p_value = float(2 * stats.t.sf(abs(statistic["mean"]) / error, self._freedom))
        return {"difference": statistic, "p_value": p_value}


class _Board:
    """Means of methods over pairs, and over drawings of attributes and objects.

    A pair that lacks a method is left out of its means.
    """

    def __init__(self, pairs: Sequence[Record], merit: str, resamples: int, seed: int) -> None:
        self.pairs, self.merit = pairs, merit
        names = list(dict.fromkeys(name for pair in pairs for name in pair["methods"]))
        self.place = {name: place for place, name in enumerate(names)}
        self.means = np.full((len(pairs), len(names)), np.nan)
        for number, pair in enumerate(pairs):
            for name, method in pair["methods"].items():
                self.means[number, self.place[name]] = method["auroc"][merit]["mean"]
        concepts = [(pair["pair"]["attribute"], pair["pair"]["object"]) for pair in pairs]
        self.drawings = Drawings(concepts, resamples=resamples, seed=seed)

    def kind(self, name: str) -> str:
        return next(pair["methods"][name]["kind"] for pair in self.pairs if name in pair["methods"])

    def row(self, name: str, tests: dict[str, Record]) -> Record:
        means = self.means[:, self.place[name]]
        parameters = [
            pair["methods"][name].get("parameters") for pair in self.pairs if name in pair["methods"]
        ]
        record = next(pair["methods"][name] for pair in self.pairs if name in pair["methods"])
        told = ("kind", "label", "description", "family", "tier")
        return {
            **{key: record[key] for key in told if key in record},
            "pairs": int(np.isfinite(means).sum()),
            "parameters": parameters[0],
            "auroc": {self.merit: self.drawings.statistic(means), **self._beside(name)},
            "recovered": self._recovered(name),
            "novelty": self._novelty(name),
            "against": self._against(name, tests.get(YARDSTICK)),
        }

    def test(self, name: str, rival: str) -> Record | None:
        """Of the pairs that have both."""
        return self.drawings.test(self.means[:, self.place[name]] - self.means[:, self.place[rival]])

    def _recovered(self, name: str) -> Record | None:
        """The ratio of mean gains over the pairs: a mean of ratios would hang on hopeless pairs."""
        if FLOOR not in self.place or REFERENCE not in self.place:
            return None
        columns = [self.place[each] for each in (name, FLOOR, REFERENCE)]
        values = self.means[:, columns]
        values = np.where(np.isfinite(values).all(axis=1)[:, None], values, np.nan)
        if not np.isfinite(values).any():
            return None
        values[:, 1] = np.maximum(values[:, 1], CHANCE)  # of each pair; a NaN stays
        mine, low, high = np.nanmean(values, axis=0)
        if high <= low:
            return None
        drawn, floor, reference = (self.drawings.means(column) for column in values.T)
        gain = reference - floor
        ratio = np.divide(drawn - floor, gain, out=np.full_like(gain, np.nan), where=gain > 0)
        return {"mean": (mine - low) / (high - low), "ci95": np.nanpercentile(ratio, [2.5, 97.5]).tolist()}

    def _beside(self, name: str) -> Record:
        """The other AUROCs that stand beside the figure of merit."""
        found = {}
        for key in BESIDE:
            of_pairs = [pair["methods"].get(name, {}).get("auroc", {}).get(key) for pair in self.pairs]
            means = np.array([one["mean"] if one else np.nan for one in of_pairs])
            if np.isfinite(means).any():
                found[key] = self.drawings.statistic(means)
        return found

    def _novelty(self, name: str) -> Record | None:
        found = [pair["methods"].get(name, {}).get("novelty") for pair in self.pairs]
        if not any(found):
            return None
        return {
            figure: self.drawings.statistic(
                np.array([one[figure]["mean"] if one else np.nan for one in found])
            )
            for figure in next(one for one in found if one)
        }

    def _against(self, name: str, test: Record | None) -> Record | None:
        if test is None:
            return None
        tests = [
            pair["tests"][name][YARDSTICK] for pair in self.pairs if YARDSTICK in pair["tests"].get(name, {})
        ]
        signs = np.array([np.sign(one["difference"]["mean"]) for one in tests])
        clear = np.array([one["p_adjusted"] < SIGNIFICANCE for one in tests])
        return {
            "rival": YARDSTICK,
            **test,
            "wins": int(np.sum(signs > 0)),
            "losses": int(np.sum(signs < 0)),
            "clear_wins": int(np.sum((signs > 0) & clear)),
            "clear_losses": int(np.sum((signs < 0) & clear)),
        }
