"""How methods stand to each other: tests of differences within a pair, and over all pairs of a run.

Within a pair, two methods are compared on the same resampled images, and network by network where they are
equally many (see `bootstrap`); the standard error of their difference is its bootstrap standard deviation,
and the test and the interval are the normal ones (Efron and Tibshirani, "An introduction to the bootstrap",
1993, chapter 13), whose p-values are not bounded by the number of resamples. They are conservative: noise
that is neither an image's nor a network's own counts in both drawings (Owen, "The pigeonhole bootstrap",
2007). Not so where nearly all noise is between a method's few networks. With fewer than `FEW` networks the
test is Student's t, with Satterthwaite's degrees of freedom ("An approximate distribution of estimates of
variance components", 1946): the networks' share of the variance has few, the images' share many.

Over pairs, rows and columns of the matrix are drawn: a pair counts as often as its attribute and its object
together are (Owen, 2007, again conservative), for pairs with a concept in common are not independent: tests
that take them so are wrong up to a third of the time at a level of 0.05. A mean over pairs is tested by its
standard error from these drawings and Student's t with the fewer concepts minus one degrees of freedom.

All of this is given the parents' training; repeat a run with other seeds for that (`kernelgan.compare`). The
training of a generator is a random unit: where it was trained several times, the variance between trainings
is added to that of a difference, with its own degrees of freedom. With one training it is not covered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used

from kernelgan.baselines import CHANCE, FLOOR, LEAST_WAY, REFERENCE, YARDSTICK
from kernelgan.evaluation import bootstrap, null_test, scores, verdict
from kernelgan.evaluation.verdict import SIGNIFICANCE

BESIDE = (scores.WORST_OF_MEANS, "worst_calibrated")
"""AUROCs that are shown beside the figure of merit."""

FEW = 8
"""With fewer networks than these of either method, a difference on a pair is tested by Student's t."""

FEW_RESAMPLES = 200
"""With fewer, a standard error has no more degrees of freedom than resamples, less one."""

POWER = 0.8
"""With which a difference of the size `Test.detectable` is found."""

Record = dict[str, Any]
Tests = dict[str, dict[str, Record]]


def difference(
    mean: float,
    other: float,
    replicates: np.ndarray,
    others: np.ndarray,
    networks: Sequence[np.ndarray] = (),
) -> Record:
    """Tests whether two methods differ on one pair.

    Args:
      mean: of the one method over its networks.
      other: of the other.
      replicates: float ``(R,)``, the one's mean on each resample, see `bootstrap.intervals_and_replicates`.
      others: ``(R,)``, the other's on the same ones.
      networks: the figure of each network, ``(M,)`` of each method; without them the test is a normal one.

    Returns:
      ``difference``, a statistic ``{"mean", "ci95"}``, the two-sided ``p_value``, and ``error`` and
      ``freedom``, see `results.Test`.

    Raises:
      ValueError: the two were not resampled equally often.
    """
    replicates, others = np.asarray(replicates, np.float64), np.asarray(others, np.float64)
    if replicates.shape != others.shape or replicates.ndim != 1 or replicates.size < 2:
        raise ValueError(
            f"need as many resamples of both, at least 2, got {replicates.shape} and {others.shape}"
        )
    found, error = mean - other, float(np.std(replicates - others, ddof=1))
    freedom = min(_freedom(error, networks), _of_resamples(replicates.size))
    reach = float(scipy.stats.t.ppf(0.975, freedom)) * error
    certain = 1.0 if found == 0 else 0.0
    p_value = float(2 * scipy.stats.t.sf(abs(found) / error, freedom)) if error > 0 else certain
    return {
        "difference": {"mean": found, "ci95": [found - reach, found + reach]},
        "p_value": p_value,
        "error": error,
        "freedom": freedom,
    }


def _freedom(error: float, networks: Sequence[np.ndarray]) -> float:
    """Degrees of freedom of a difference's standard error; infinite for `FEW` networks or more of each.

    A method of a single network, such as a readout, has no variance between networks.
    """
    several = [values for values in networks if len(values) > 1]
    if not several or min(map(len, several)) >= FEW:
        return math.inf
    shares = [(float(np.var(values, ddof=1)) / len(values), len(values) - 1) for values in several]
    spread = sum(variance**2 / freedom for variance, freedom in shares)
    fewest = float(min(freedom for _, freedom in shares))
    return max(fewest, error**4 / spread) if spread > 0 else fewest


def _of_resamples(count: int) -> float:
    """Degrees of freedom of a standard deviation over so many resamples; infinite for many."""
    return math.inf if count >= FEW_RESAMPLES else count - 1


def detectable(error: float, freedom: float, times: float) -> float:
    """The smallest true difference that a test finds with a power of `POWER`.

    Args:
      error: standard error of the difference.
      freedom: degrees of freedom of the test.
      times: what its p-value is multiplied by.
    """
    least = scipy.stats.t.ppf(1 - SIGNIFICANCE / (2 * times), freedom) + scipy.stats.t.ppf(POWER, freedom)
    return float(least * error)


def pair_tests(
    means: Mapping[str, float],
    replicates: Mapping[str, np.ndarray],
    generated: Sequence[str],
    networks: Mapping[str, np.ndarray] | None = None,
) -> Tests:
    """Every generated method against every other, and every method against `YARDSTICK`.

    Args:
      means: figure of merit of each method.
      replicates: ``(R,)`` of each.
      generated: which of them are generated.
      networks: ``(M,)`` of each, the figure of merit of every network.

    Returns:
      method -> rival -> what `difference` gives. Of a generated method with one network nothing is known of
      the spread between networks, and every p-value is 1.
    """
    networks = networks or {}
    tests: Tests = {name: {} for name in means}
    for name in means:
        for rival in means:
            if rival == name or not (name in generated or rival == YARDSTICK):
                continue
            both = [networks[each] for each in (name, rival) if each in networks]
            test = difference(means[name], means[rival], replicates[name], replicates[rival], both)
            if name in generated and len(networks.get(name, (0, 0))) < 2:
                test["p_value"] = 1.0
            tests[name][rival] = test
    return tests


def adjust(pairs: Sequence[Record], attempts: Mapping[str, int] | None = None) -> None:
    """Adds ``p_adjusted`` and ``detectable`` to the tests of a run's pairs, in place.

    A generated method's p-values are multiplied by how many generated methods there are, for it is the best
    of them that is reported (Bonferroni; the null test has that in already), and by the registered attempts
    of its family. Then each comparison, a placebo's among them, is corrected over the pairs (Holm, 1979).

    Args:
      pairs: the records of the run's pairs.
      attempts: by family, see `kernelgan.attempts`.
    """
    families: dict[tuple[str, str], list[tuple[Record, int]]] = {}
    for pair in pairs:
        for name, rivals in pair["tests"].items():
            times = _times(pair["methods"], name, attempts)
            named = {f"placebo {key}": each["test"] for key, each in _placebos(pair, name).items()}
            for rival, test in (rivals | named).items():
                families.setdefault((name, rival), []).append((test, times))
        if pair.get("null_test"):
            of_best = pair["methods"].get(pair["null_test"].get("method"), {}).get("family", "")
            tried = (attempts or {}).get(of_best, 1)
            families.setdefault(("", ""), []).append((pair["null_test"], tried))
    for family in families.values():
        corrected = null_test.holm([min(1.0, times * test["p_value"]) for test, times in family])
        for (test, times), p_value in zip(family, corrected, strict=True):
            test["p_adjusted"] = p_value
            if "error" in test:
                test["detectable"] = detectable(test["error"], test["freedom"], times * len(family))


def add_trainings(pair: Record) -> None:
    """Adds the variance between trainings of a generator to the tests of a pair, in place.

    Args:
      pair: its record; generated methods may have ``trainings``, the figure of merit of each.
    """
    for name, rivals in pair["tests"].items():
        for test in rivals.values():
            _retrained(test, pair["methods"][name].get("trainings") or ())


def _retrained(test: Record, trainings: Sequence[float]) -> Record:
    """A test with the variance between trainings in its error, freedom, p-value and interval.

    The p-value is the mean of Student's with either variance's freedom, weighted by the variances, and so is
    the interval's t (Cochran, "Approximate significance levels of the Behrens-Fisher test", 1964):
    Satterthwaite's freedom, which ``detectable`` uses, finds 7.5% at 5% with three trainings.
    """
    between = float(np.var(trainings, ddof=1)) / len(trainings) if len(trainings) > 1 else 0.0
    if between > 0:
        within, mean, freedoms = test["error"] ** 2, test["difference"]["mean"], len(trainings) - 1
        total = within + between
        error = math.sqrt(total)
        share = between / total
        sides = ((1 - share, test["freedom"]), (share, freedoms))
        p_value = sum(part * 2 * scipy.stats.t.sf(abs(mean) / error, freedom) for part, freedom in sides)
        reach = error * sum(part * scipy.stats.t.ppf(0.975, freedom) for part, freedom in sides)
        freedom = total**2 / (within**2 / test["freedom"] + between**2 / freedoms)
        test |= {"p_value": max(test["p_value"], float(p_value)), "error": error, "freedom": freedom}
        test["difference"]["ci95"] = [float(mean - reach), float(mean + reach)]
    return test


def _times(methods: Record, name: str, attempts: Mapping[str, int] | None) -> int:
    """How often the p-values of a method count: see `adjust`."""
    if methods[name]["kind"] != "generated":
        return 1
    picked = sum(method["kind"] == "generated" for method in methods.values())
    return picked * (attempts or {}).get(methods[name].get("family", ""), 1)


def _placebos(pair: Record, name: str) -> Record:
    return pair["methods"].get(name, {}).get("placebos") or {}


def overall(
    pairs: Sequence[Record],
    *,
    merit: str,
    resamples: int,
    seed: int,
    attempts: Mapping[str, int] | None = None,
) -> Record | None:
    """Every method over all pairs: means, share recovered, novelty, wins, and tests of its differences.

    A generated method scores 0 on a pair that it does not answer. Its size is the largest over pairs, and
    ``copies`` counts the pairs on which it copies a parent.

    Args:
      pairs: records with ``pair``, ``methods`` and adjusted ``tests``.
      merit: which AUROC is the figure of merit.
      resamples: drawings of attributes and objects.
      seed: of the draws.
      attempts: see `adjust`.

    Returns:
      The record ``overall`` of `results`; None for fewer than two pairs.
    """
    if len(pairs) < 2:
        return None
    board = _Board(pairs, merit, resamples, seed)
    generated = [name for name in board.place if board.kinds[name]["kind"] == "generated"]
    tests: Tests = {}
    for name in board.place:
        times = _times(board.kinds, name, attempts)
        for rival in board.place:
            if rival != name and (name in generated or rival == YARDSTICK):
                test = board.test(name, rival)
                if test is not None:
                    test = _retrained(test, board.trainings(name))
                    tests.setdefault(name, {})[rival] = _corrected(test, times)
    methods = {
        name: board.row(name, tests.get(name, {}), _times(board.kinds, name, attempts))
        for name in board.place
    }
    attributes, objects = board.drawings.levels
    return {
        "pairs": len(pairs),
        "attributes": attributes,
        "objects": objects,
        "merit": merit,
        "methods": methods,
        "tests": tests,
    }


def _copies(record: Record) -> bool:
    """Whether a method's networks are copies of a parent, on one pair."""
    novelty = record.get("novelty") or {}
    means = {figure: (novelty.get(figure) or {}).get("mean") for figure in ("distance", "answers")}
    return verdict.is_copy(**{figure: math.nan if mean is None else mean for figure, mean in means.items()})


def _corrected(test: Record, times: int) -> Record:
    test["p_adjusted"] = min(1.0, times * test["p_value"])
    test["detectable"] = detectable(test["error"], test["freedom"], times)
    return test


class Drawings:
    """Attributes and objects drawn with replacement, for means over the pairs of a matrix with holes.

    Attributes:
      levels: how many attributes and how many objects there are.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], *, resamples: int, seed: int) -> None:
        """Draws ``R`` times from the attribute and object of each of ``P`` pairs, at least two."""
        self._sides = [np.unique(side, return_inverse=True)[1] for side in zip(*pairs, strict=True)]
        self.levels = [int(side.max()) + 1 for side in self._sides]
        self._shares = np.ones((resamples, len(pairs)))
        for stream, (side, count) in enumerate(zip(self._sides, self.levels, strict=True)):
            if count > 1:
                drawn = bootstrap.network_shares(count, resamples=resamples, seed=2 * seed + stream)
                self._shares *= drawn[:, side]

    def means(self, values: np.ndarray) -> np.ndarray:
        """Of values ``(P,)``, NaN where there is none, over each drawing: ``(R,)``, NaN if it is empty."""
        here = np.isfinite(values)
        weight = self._shares[:, here].sum(axis=1)
        total = self._shares[:, here] @ values[here]
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)

    def error(self, values: np.ndarray) -> float:
        """Standard error of the mean of values ``(P,)``."""
        return float(np.nanstd(self.means(values), ddof=1))

    def freedom(self, values: np.ndarray) -> float:
        """Degrees of freedom of the mean of values ``(P,)``: of the concepts of the pairs that have one."""
        levels = [len(np.unique(side[np.isfinite(values)])) for side in self._sides]
        of_concepts = min((count for count in levels if count > 1), default=2) - 1
        return float(min(of_concepts, _of_resamples(len(self._shares))))

    def statistic(self, values: np.ndarray) -> Record:
        """The mean of values ``(P,)`` with its interval, Student's as the test is."""
        here = values[np.isfinite(values)]
        mean = float(here.mean())
        reach = float(scipy.stats.t.ppf(0.975, self.freedom(values))) * self.error(values)
        spread = float(np.std(here, ddof=1)) if here.size > 1 else None
        return {"mean": mean, "ci95": [mean - reach, mean + reach], "sd": spread}

    def test(self, differences: np.ndarray) -> Record | None:
        """Student's test of the mean of differences ``(P,)``, as `difference`; None for fewer than two."""
        if np.isfinite(differences).sum() < 2:
            return None
        statistic, error = self.statistic(differences), self.error(differences)
        freedom = self.freedom(differences)
        test = {"difference": statistic, "p_value": 1.0, "error": error, "freedom": freedom}
        if error > 0:  # of pairs that all differ by the same, nothing is known of the error
            test["p_value"] = float(2 * scipy.stats.t.sf(abs(statistic["mean"]) / error, freedom))
        return test


class _Board:
    """Means of methods over pairs, and over drawings of attributes and objects.

    A pair that lacks a method is left out of its means; a generated method scores 0 there.
    """

    def __init__(self, pairs: Sequence[Record], merit: str, resamples: int, seed: int) -> None:
        self.pairs, self.merit = pairs, merit
        names = list(dict.fromkeys(name for pair in pairs for name in pair["methods"]))
        self.place = {name: place for place, name in enumerate(names)}
        self.means = np.full((len(pairs), len(names)), np.nan)
        for number, pair in enumerate(pairs):
            for name, method in pair["methods"].items():
                self.means[number, self.place[name]] = method["auroc"][merit]["mean"]
        self.kinds = {name: self._records(name)[0] for name in names}
        self.answered = np.isfinite(self.means)
        generated = [self.place[name] for name in names if self.kinds[name]["kind"] == "generated"]
        self.means[:, generated] = np.nan_to_num(self.means[:, generated], nan=0.0)
        concepts = [(pair["pair"]["attribute"], pair["pair"]["object"]) for pair in pairs]
        self.drawings = Drawings(concepts, resamples=resamples, seed=seed)

    def _records(self, name: str) -> list[Record]:
        return [pair["methods"][name] for pair in self.pairs if name in pair["methods"]]

    def row(self, name: str, tests: dict[str, Record], times: int) -> Record:
        """A method's record over all pairs, see `overall`."""
        means = self.means[:, self.place[name]]
        records = self._records(name)
        told = ("kind", "label", "description", "family", "tier", "images", "steps")
        not_finite = [record.get("not_finite") or 0 for record in records]
        sizes = [record["parameters"] for record in records if record.get("parameters") is not None]
        return {
            **{key: records[0][key] for key in told if key in records[0]},
            "pairs": int(self.answered[:, self.place[name]].sum()),
            "parameters": max(sizes, default=None),
            "not_finite": sum(not_finite) or None,
            "copies": sum(_copies(record) for record in records),
            "trainings": self.trainings(name),
            "behind": self._behind(name),
            "placebos": self._placebos(name, times),
            "auroc": {self.merit: self.drawings.statistic(means), **self._beside(name)},
            "recovered": self._recovered(name),
            "novelty": self._novelty(name),
            "against": self._against(name, tests.get(YARDSTICK)),
        }

    def trainings(self, name: str) -> list[float]:
        """The mean over pairs of the figure of merit of each training; of the fewest that a pair has."""
        found = [record.get("trainings") or [] for record in self._records(name)]
        fewest = min(map(len, found))
        return [float(np.mean([each[number] for each in found])) for number in range(fewest)]

    def _behind(self, name: str) -> Record | None:
        """The largest numbers of any pair; None where a pair has none."""
        records = self._records(name)
        found = [record["behind"] for record in records if record.get("behind")]
        if len(found) < len(records):
            return None
        return {key: max(each[key] for each in found) for key in found[0] if key != "name"}

    def _placebos(self, name: str, times: int) -> Record:
        """Each placebo over the pairs; one that was not measured on a pair keeps the method's whole gain."""
        found = [_placebos(pair, name) for pair in self.pairs]
        gains = self.means[:, self.place[name]] - 0.5
        placebos = {}
        for key in dict.fromkeys(key for one in found for key in one):
            known = [one.get(key) for one in found]
            falls = [
                each["test"]["difference"]["mean"] if each else -abs(gain) / 2
                for each, gain in zip(known, gains, strict=True)
            ]
            means = np.array([each["auroc"]["mean"] if each else np.nan for each in known])
            test = self.drawings.test(np.array(falls))
            words = {each["parents"] for each in known if each}
            assert test is not None
            placebos[key] = {
                "parents": words.pop() if len(words) == 1 else "those of another concept",
                "auroc": self.drawings.statistic(means),
                "test": _corrected(test, times),
            }
        return placebos

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
        if high < low + LEAST_WAY:
            return None
        drawn, floor, reference = (self.drawings.means(column) for column in values.T)
        gain = reference - floor
        ratio = np.divide(drawn - floor, gain, out=np.full_like(gain, np.nan), where=gain > 0)
        return {"mean": (mine - low) / (high - low), "ci95": np.nanpercentile(ratio, [2.5, 97.5]).tolist()}

    def _beside(self, name: str) -> Record:
        """The other AUROCs that stand beside the figure of merit."""
        found = {key: self._means(name, "auroc", key) for key in BESIDE}
        return {
            key: self.drawings.statistic(means) for key, means in found.items() if np.isfinite(means).any()
        }

    def _novelty(self, name: str) -> Record | None:
        figures = dict.fromkeys(key for record in self._records(name) for key in record.get("novelty") or ())
        return {key: self.drawings.statistic(self._means(name, "novelty", key)) for key in figures} or None

    def _means(self, name: str, group: str, figure: str) -> np.ndarray:
        """Of a figure such as an AUROC on each pair ``(P,)``, NaN where it was not measured."""
        found = [(pair["methods"].get(name, {}).get(group) or {}).get(figure) for pair in self.pairs]
        return np.array([one["mean"] if one else np.nan for one in found])

    def _against(self, name: str, test: Record | None) -> Record | None:
        if test is None:
            return None
        rivals = [pair["tests"].get(name, {}) for pair in self.pairs]
        tests = [each[YARDSTICK] for each in rivals if YARDSTICK in each]
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
