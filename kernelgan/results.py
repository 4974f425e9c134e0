"""What a run leaves behind: `results.json` and `arrays.npz`, and the verdict on them in words.

`results.json` has the numbers, `arrays.npz` what figures need.
Both files are written atomically, `results.json` last: where it is, the run is complete.

`results.json`, schema 1. A *statistic* is ``{"mean": x, "ci95": [low, high], "sd": s, "best": b}``; only the
mean is always there, and a number that could not be computed is ``null``::

    {"schema": 1, "name": "black_cat", "config": {...}, "versions": {"jax": "0.10.0", ...}, "seed": 0,
     "device": "cpu (2 devices)", "command": "python launch.py ...",
     "data": {"source": "procedural", "notes": [str, ...],
              "contact_sheet": {"rows": [str, ...], "columns": [str, ...]}},
     "timings": {"zoo": seconds, ...},
     "pairs": [PAIR, ...],
     "skipped": [{"attribute": str, "object": str, "reason": str}, ...],
     "overall": null or {"pairs": n,
         "attributes": n, "objects": n, "merit": "worst",
         "methods": {"random": {"kind": ..., "pairs": n, "parameters": n,
             "auroc": {"worst": statistic over pairs},
             "recovered": statistic or null,
             "novelty": {"distance": statistic, "error_overlap": statistic} or null,
             "against": {"rival": "and_ensemble", "difference": statistic, "wins": n, "losses": n,
                         "clear_wins": n, "clear_losses": n, "p_value": p, "p_adjusted": p} or null},
             ...},
         "tests": TESTS}}

    PAIR = {"pair": {"attribute": "black", "object": "cat"},
      "data": {"source": str, "train": {"a&o": n, "a&!o": n, "!a&o": n, "!a&!o": n}, "validation": {...},
               "test": {..., "rest": n}, "leaked": 0, "duplicates": n, "near_duplicates": n},
      "zoo": {"attribute": {"balanced_accuracy": statistic, "auroc": statistic}, "object": {...}},
      "methods": {"random": {"kind": one of KINDS, "networks": n, "parameters": n, "description": str,
          "auroc": {"vs_attribute_only": statistic, "vs_object_only": ..., "vs_neither": ..., "worst": ...}
                   or {"vs_rest": statistic},
          "balanced_accuracy": statistic, "average_precision": ..., "accuracy": ..., "precision": ...,
          "recall": ...,
          "clustering": {"kmeans": {"accuracy": ..., "precision": ..., "recall": ..., "cluster_entropy": ...,
              "cluster_purity": ..., "as_printed": {"precision": ..., ...}}, "dbscan": ..., ...} or null,
          "cosine_similarity": {"within": statistic, "across": ..., "margin": ...},
          "recovered": {"mean": x} or null,
          "novelty": {"distance": statistic, "error_overlap": statistic} or null}, ...},
      "tests": TESTS,
      "null_test": {"statistic": "auroc.worst", "method": "cyclegan_b2a", "candidates": n, "observed": x,
          "null_mean": x, "p_value": p, "p_adjusted": p,
          "by_method": {"cyclegan_a2b": {"mean_p_value": p, "best_p_value": p}, ...}}}

    TESTS = {"cyclegan_b2a": {"random": {"difference": statistic, "p_value": p, "p_adjusted": p}, ...}, ...}

`TESTS` compares methods with each other on the figure of merit, on the same images and parents: every
generated method with every other, and every method with ``and_ensemble``. The p-value is two-sided;
``p_adjusted`` is it times the number of generated methods where one of these is tested (the best of them is
reported), and for a pair corrected over the run's pairs (Holm). ``overall`` is there where a run has several
pairs with one figure of merit; its statistics and tests are over pairs, attributes and objects being drawn.

A run of exactly one pair has that pair's keys at top level too, its ``data`` merged into the run's. A file
with the top-level keys only is read just as well: `Results.pairs` is the same list either way.

`arrays.npz` has, under ``<attribute>_<object>/`` for each pair, any of them absent::

    test_images            (N, 32, 32, 3) uint8       a sample of the test images
    test_quadrant          (N,) int8                  of each an index into QUADRANTS
    answers/<method>       (N,) float32, [0, 1]       the FIRST network's answers to them
    worst/<method>         (M,)                       figure of merit of every network
    replicates/<method>    (R,)                       its mean over networks, resampled: networks and images
    novelty/<method>       (m,)                       distance to the nearest parent, first networks
    embedding/<method>     (N, 2)                     UMAP of the first network's features
    embedding_quadrant     (N,)                       as test_quadrant, for the embedded images
    cluster/<method>       (N,) int                   K-means label of the embedded images
    cosine/<method>        (4, 4)                     mean cosine similarity between quadrants
    kernels/<layer>/<role> (M, H, W, I, O)            role: attribute_parent, object_parent,
                                                      cyclegan_a2b or cyclegan_b2a
    history/zoo_<attribute|object>/<measure>  (M, E)  train_loss, validation_loss, ...
    history/cyclegan/<layer>/<loss>           (S,)

and, without a prefix, ``contact_sheet`` (rows, columns, H, W, 3) uint8.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kernelgan.types import Quadrant, UserError

SCHEMA = 1
RESULTS_FILE = "results.json"
ARRAYS_FILE = "arrays.npz"

QUADRANTS = tuple(quadrant.label for quadrant in Quadrant)
"""The quadrants in the order of the numbers in ``test_quadrant`` and ``embedding_quadrant``."""

KINDS = ("null", "parent", "merge", "generated", "trained apart", "same size", "two nets", "ceiling")
"""Kinds of methods, in the order of every table."""

METHODS = (
    *("random", "gaussian", "pixels", "colour_histogram"),
    *("attribute_only", "object_only"),
    *("average", "rebasin_average", "concatenate", "zipit", "noise_a2b", "noise_b2a"),
    *("cyclegan_a2b", "cyclegan_b2a"),
    *("distilled", "half_width_pair", "and_ensemble", "trained_on_conjunction"),
)
"""Known methods, in the order of every table; others follow, within their kind, in the order of the file."""

WORDS = {
    "random": "random networks",
    "gaussian": "random networks with the parents' means and spreads",
    "pixels": "linear classifiers of the pixels",
    "colour_histogram": "linear classifiers of the colours",
    "attribute_only": "the {attribute} parents alone",
    "object_only": "the {object} parents alone",
    "average": "the average of both parents' weights",
    "rebasin_average": "the average of weights after matching filters",
    "concatenate": "a network of half the filters of each parent",
    "zipit": "a merge of both parents' correlated filters",
    "noise_a2b": "the {attribute} parents with noise",
    "noise_b2a": "the {object} parents with noise",
    "cyclegan_a2b": "{attribute} kernels translated",
    "cyclegan_b2a": "{object} kernels translated",
    "distilled": "one network trained to imitate both parents",
    "half_width_pair": "two parents of half the width side by side",
    "and_ensemble": "both parents run side by side",
    "trained_on_conjunction": "networks trained on the conjunction itself",
}
"""What known methods are, for a reader who knows none of the names."""

MERIT_EXPLAINED = {
    "auroc.worst": (
        "Worst-quadrant AUROC: how often a network scores an image of the conjunction above one of the "
        "attribute alone, of the object alone, or of neither, whichever of these three tests is the hardest. "
        "Chance is 0.5 in each, and less in the hardest of the three, as random networks show; 1 is perfect. "
        "Knowing one of the two concepts alone fails in one of them."
    ),
    "auroc.vs_rest": (
        "AUROC against the rest: how often a network scores an image of the conjunction above any other "
        "image; 0.5 is chance, 1 is perfect. The quadrants of the other images are not known, so a detector "
        "of one concept alone can score well; only the comparison with the parents speaks of composition."
    ),
}
"""The figure of merit by its path, explained in plain words."""

RECOVERED_EXPLAINED = (
    "Recovered is the share of the way from random networks (0) to networks trained on the conjunction "
    "itself (1) in that figure."
)

SIGNIFICANCE = 0.05

COPY = 0.25
"""Networks nearer to a parent than this are copies; 1 is the distance of a parent to its nearest fellow."""

_PAIR_KEYS = ("pair", "data", "zoo", "methods", "tests", "null_test")


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and its 95% confidence interval; NaN where there is none.

    Attributes:
      mean: over the networks of a method.
      low: lower end of the interval.
      high: upper end of the interval.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is a mean."""
        return math.isfinite(self.mean)

    @property
    def bounded(self) -> bool:
        """Whether there is a mean and both ends."""
        return self.known and math.isfinite(self.low) and math.isfinite(self.high)

    def text(self, digits: int = 3, missing: str = "-") -> str:
        """``0.573 [0.541, 0.602]``, or the mean alone, or `missing`."""
        if not self.known:
            return missing
        if not self.bounded:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How the generated networks stand against one other method.

    Attributes:
      rival: the other method.
      interval: the other method's figure of merit.
      outcome: "above", "below", "cannot tell" or "not measured".
      required: whether a "yes" needs the generated networks to be above it.
      difference: of the figures of merit, generated minus other.
      p_value: of that difference, corrected; of random networks the matched null's where that is what counts.
    """

    rival: str
    interval: Interval
    outcome: str
    required: bool
    difference: Interval = Interval()
    p_value: float = math.nan


@dataclasses.dataclass(frozen=True)
class Results:
    """What one run left.

    Attributes:
      document: `results.json`, normalised.
      arrays: `arrays.npz`; empty where the file is missing.
    """

    document: dict[str, Any]
    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def pairs(self) -> list[dict[str, Any]]:
        """The result of each concept pair, whichever of the two shapes the file had."""
        return self.document["pairs"]

    def array(self, pair_result: Mapping[str, Any], name: str) -> np.ndarray | None:
        """One array of a pair, or None where the run did not leave it."""
        return self.arrays.get(f"{pair_key(pair_result)}/{name}")

    def arrays_under(self, pair_result: Mapping[str, Any], folder: str) -> dict[str, np.ndarray]:
        """The arrays of a pair whose names start with `folder` and a slash, by the rest of their names."""
        prefix = f"{pair_key(pair_result)}/{folder}/"
        return {
            key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)
        }


def pair_title(pair_result: Mapping[str, Any]) -> str:
    """``black cat``."""
    return f"{pair_result['pair']['attribute']} {pair_result['pair']['object']}"


def pair_key(pair_result: Mapping[str, Any]) -> str:
    """``black_cat``: the prefix of the pair's arrays."""
    return f"{pair_result['pair']['attribute']}_{pair_result['pair']['object']}"


def number(value: object) -> float:
    """A value as a float; NaN where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def interval(record: object, path: str = "") -> Interval:
    """The statistic at a dotted path, such as ``auroc.worst``, of a method or any other part of the file.

    Args:
      record: a mapping, or anything at all: what is not there gives an `Interval` of NaNs.
      path: keys joined by dots; "": `record` itself is the statistic.
    """
    for key in path.split(".") if path else ():
        record = record.get(key) if isinstance(record, Mapping) else None
    if not isinstance(record, Mapping):
        return Interval(number(record))
    ends = record.get("ci95")
    low, high = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
    return Interval(number(record.get("mean")), number(low), number(high))


def in_words(name: str, pair_result: Mapping[str, Any] | None = None) -> str:
    """``both parents run side by side (and_ensemble)``; the name alone where it is of no known method.

    Args:
      name: of a method.
      pair_result: whose attribute and object to name; of none, they are called that.
    """
    pair = (pair_result or {}).get("pair") or {"attribute": "attribute", "object": "object"}
    if name not in WORDS:
        return name
    words = WORDS[name].format(attribute=pair["attribute"], object=pair["object"])
    return f"{words} ({name})"


def methods_in_order(pair_result: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The methods of a pair, grouped by kind, in the protocol's order."""
    methods = list((pair_result.get("methods") or {}).items())

    def rank(item: tuple[int, tuple[str, dict[str, Any]]]) -> tuple[int, int, int]:
        position, (name, method) = item
        kind = method.get("kind")
        return (
            KINDS.index(kind) if kind in KINDS else len(KINDS),
            METHODS.index(name) if name in METHODS else len(METHODS),
            position,
        )

    return [item for _, item in sorted(enumerate(methods), key=rank)]


def ranked(pair_result: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The methods that have a figure of merit, the highest mean first.

    Args:
      pair_result: of one pair, or the record ``overall`` of many.
    """
    scored = [item for item in methods_in_order(pair_result) if merit(pair_result, item[0]).known]
    return sorted(scored, key=lambda item: -merit(pair_result, item[0]).mean)


def merit_path(pair_result: Mapping[str, Any]) -> str:
    """The path of the figure of merit: ``auroc.worst``, or ``auroc.vs_rest`` where no quadrants are known."""
    methods = (pair_result.get("methods") or {}).values()
    if any(interval(method, "auroc.worst").known for method in methods):
        return "auroc.worst"
    if any(interval(method, "auroc.vs_rest").known for method in methods):
        return "auroc.vs_rest"
    return "auroc.worst"


def merit_name(pair_result: Mapping[str, Any]) -> str:
    """The figure of merit in words."""
    return "worst-quadrant AUROC" if merit_path(pair_result) == "auroc.worst" else "AUROC against the rest"


def merit(pair_result: Mapping[str, Any], method: str) -> Interval:
    """The figure of merit of one method; NaNs where it was not measured."""
    return interval((pair_result.get("methods") or {}).get(method), merit_path(pair_result))


def best_generated(pair_result: Mapping[str, Any]) -> str | None:
    """The generated method with the highest MEAN figure of merit; None where there is none.

    This is a choice made on the test set; the null test repeats it on random networks.
    """
    scored = [name for name in _generated(pair_result) if merit(pair_result, name).known]
    return max(scored, key=lambda name: merit(pair_result, name).mean, default=None)


def null_p_value(pair_result: Mapping[str, Any]) -> float:
    """The p-value of the best generated method; NaN where the null test is missing or of another method.

    That is the corrected one, where the run has several pairs.
    """
    test = pair_result.get("null_test") or {}
    if test.get("method") not in (None, best_generated(pair_result)):
        return math.nan
    return number(test.get("p_adjusted", test.get("p_value")))


def comparisons(pair_result: Mapping[str, Any]) -> list[Comparison]:
    """The best generated method against every other: nulls, parents, merges, and what it should come up to.

    A method is "above" or "below" another where the test of their difference gives a corrected p under 0.05.
    Above random also needs that of the matched null test, where there is one. Below one of those that must be
    beaten is corrected for their number too (Holm), for one of them is enough for a "no". Empty where no
    generated method was scored.

    Args:
      pair_result: of one pair, or the record ``overall`` of many.
    """
    best = best_generated(pair_result)
    if best is None:
        return []
    tests = (pair_result.get("tests") or {}).get(best) or {}
    methods = methods_in_order(pair_result)
    rivals = [name for name, method in methods if method.get("kind") != "generated"]
    rivals += [name for name in (*_ALWAYS, *_YARDSTICKS) if name not in rivals]
    kinds = {name: method.get("kind") for name, method in methods}
    found = []
    for rival in rivals:
        theirs, test = merit(pair_result, rival), tests.get(rival) or {}
        difference, p_value = interval(test, "difference"), number(test.get("p_adjusted"))
        outcome = _outcome(merit(pair_result, best), theirs, difference, p_value)
        if rival == "random" and outcome == "above" and "pair" in pair_result:
            matched = null_p_value(pair_result)
            if not matched < SIGNIFICANCE:
                outcome, p_value = "cannot tell", matched
        required = rival in _ALWAYS or kinds.get(rival) in _REQUIRED
        found.append(Comparison(rival, theirs, outcome, required, difference, p_value))
    return _corrected_below(found)


def _corrected_below(found: list[Comparison]) -> list[Comparison]:
    """The comparisons, with the p-values of those lost among the required corrected for their number."""
    from kernelgan.evaluate.null_test import holm  # scipy takes a second to import

    tested = [one for one in found if one.required and math.isfinite(one.p_value)]
    corrected = dict(zip((one.rival for one in tested), holm([one.p_value for one in tested]), strict=True))
    result = []
    for one in found:
        if one.rival in corrected and one.difference.mean < 0:
            p_value = corrected[one.rival]
            outcome = one.outcome if one.outcome != "below" or p_value < SIGNIFICANCE else "cannot tell"
            one = dataclasses.replace(one, p_value=p_value, outcome=outcome)
        result.append(one)
    return result


def unfit(pair_result: Mapping[str, Any]) -> str | None:
    """Why the best generated method cannot be said to compose, however well it scores; None if it can.

    It must be one network of the parents' shape, or whether it is a copy of them cannot be said, and no
    larger than one with two heads, or running both parents would do. And there must be something of each
    kind that has to be beaten.

    Args:
      pair_result: of one pair, or the record ``overall`` of many.
    """
    methods = pair_result.get("methods") or {}
    method = methods.get(best_generated(pair_result) or "") or {}
    if not interval(method, "novelty.distance").known:
        return "it is not one network of the parents' shape, so whether it copies them cannot be said"
    size, largest = (number((one or {}).get("parameters")) for one in (method, methods.get("random")))
    if size > largest:
        return f"it has more parameters ({size:.0f}) than one network with two heads ({largest:.0f})"
    missing = [kind for kind in _REQUIRED if kind not in {one.get("kind") for one in methods.values()}]
    return f"no {missing[0]} was measured" if missing else None


def copies(pair_result: Mapping[str, Any]) -> str | None:
    """Of the best generated method, what makes its networks copies of parents; None if they are not.

    They are where their mean distance to the nearest parent is under `COPY` of what lies between parents.

    Args:
      pair_result: of one pair, or the record ``overall`` of many.
    """
    method = (pair_result.get("methods") or {}).get(best_generated(pair_result) or "") or {}
    distance = interval(method, "novelty.distance")
    if not distance.mean < COPY:
        return None
    overlap = interval(method, "novelty.error_overlap").mean
    shared = (
        f", and {100 * overlap:.0f}% of the images that either gets wrong both get wrong"
        if math.isfinite(overlap)
        else ""
    )
    return (
        f"They are copies of a parent: their weights lie at {distance.mean:.2f} of the distance between a "
        f"parent and its nearest fellow{shared}."
    )


def answer(pair_result: Mapping[str, Any]) -> str:
    """Does the generated network compose? "yes", "no" or "cannot tell".

    Yes: it is above every null (on one pair in the matched null test too), above both parents and above
    every merge, and fit to be said so (`unfit`). No: one of these is above it, or it is a copy of a parent.
    Anything else, images that leaked into training included: cannot tell.

    Args:
      pair_result: of one pair, or the record ``overall`` of many.
    """
    outcomes = [comparison.outcome for comparison in comparisons(pair_result) if comparison.required]
    if not outcomes or number((pair_result.get("data") or {}).get("leaked")) > 0:
        return "cannot tell"
    if "below" in outcomes or copies(pair_result):
        return "no"
    above = all(outcome == "above" for outcome in outcomes)
    return "yes" if above and not unfit(pair_result) else "cannot tell"


def run_answer(results: Results) -> str:
    """The answer of the whole run: that of its only pair, or over all its pairs.

    "cannot tell" where there is no record over pairs, or where images leaked into the training of any.
    """
    pairs = results.pairs()
    if len(pairs) == 1:
        return answer(pairs[0])
    overall = results.document.get("overall")
    return "cannot tell" if not overall or _leaky(pairs) else answer(overall)


def verdict(pair_result: Mapping[str, Any]) -> list[str]:
    """The verdict on one pair, or on ``overall``, in plain words, the answer first, line by line."""
    found = comparisons(pair_result)
    best = best_generated(pair_result)
    if best is None:
        return [f"Cannot tell: no generated network was scored on {_what(pair_result)}."]
    lines = [_headline(pair_result, found)]
    if "pair" not in pair_result:
        lines.append(
            "Asked: can networks made from networks for an attribute (such as black) and networks for an "
            "object (such as cat) tell images of both, though none of these was ever shown one?"
        )
    else:
        attribute, thing = pair_result["pair"]["attribute"], pair_result["pair"]["object"]
        lines.append(
            f"Asked: can networks made from networks for {attribute} and networks for {thing} tell a "
            f"{attribute} {thing}, though none of these was ever shown one?"
        )
    figure = f"mean {merit_name(pair_result)} {merit(pair_result, best).text()}{_over(pair_result, best)}"
    lines.append(f"Best generated method: {in_words(best, pair_result)}, {figure}.")
    lines.append(MERIT_EXPLAINED[merit_path(pair_result)])
    copied = copies(pair_result)
    if copied:
        lines.append(copied)
    lines += [_required_words(found), *_yardstick_words(pair_result, found)]
    lines += _chance_lines(pair_result)
    lines.append(_scope(pair_result))
    return [line for line in lines if line]


def summary(results: Results) -> list[str]:
    """The verdict on the whole run in plain words: that of its only pair, or over its pairs."""
    pairs = results.pairs()
    if len(pairs) == 1:
        return verdict(pairs[0])
    overall = results.document.get("overall")
    if not overall:
        lines = [
            f"Cannot tell over the {len(pairs)} pairs: they were not compared together (no "
            '"overall" in results.json).'
        ]
    else:
        lines = verdict(overall)
    leaky = _leaky(pairs)
    if leaky:
        lines = [
            f"Cannot tell: images of the conjunction were read in training on {_and(leaky)}, so no figure "
            "over all pairs counts. Mend the data first.",
            *lines[1:],
        ]
    answers = {given: [pair_title(pair) for pair in pairs if answer(pair) == given] for given in _ANSWERS}
    lines.append(
        f"Pair by pair, of {len(pairs)}: yes on {len(answers['yes'])}, no on {len(answers['no'])}, "
        f"cannot tell on {len(answers['cannot tell'])} (p-values corrected for {len(pairs)} pairs, Holm)."
    )
    if answers["yes"]:
        lines.append(f"Yes: {', '.join(answers['yes'])}.")
    return lines


def normalised(document: Mapping[str, Any]) -> dict[str, Any]:
    """A results document with both readings: ``pairs`` always, and a lone pair's keys at top level too.

    Args:
      document: with ``pairs``, or with one pair's keys at top level.

    Raises:
      ValueError: it is neither, or a pair lacks its names or its methods.
    """
    document = dict(document)
    if "pairs" not in document and "pair" in document:
        document["pairs"] = [{key: document[key] for key in _PAIR_KEYS if key in document}]
    pairs = document.get("pairs")
    if not isinstance(pairs, list | tuple) or not pairs:
        raise ValueError('there is neither a "pair" nor a list of "pairs" in it')
    for index, pair in enumerate(pairs):
        names = pair.get("pair") if isinstance(pair, Mapping) else None
        if not isinstance(names, Mapping) or not {"attribute", "object"} <= set(names):
            raise ValueError(f'"pairs"[{index}] does not name its "attribute" and "object"')
        methods = pair.get("methods")
        if not isinstance(methods, Mapping) or not all(
            isinstance(method, Mapping) for method in methods.values()
        ):
            raise ValueError(f'"pairs"[{index}] has no "methods", or one that is no table of figures')
    document["pairs"] = list(pairs)
    if len(pairs) == 1:
        data = {**(document.get("data") or {}), **(pairs[0].get("data") or {})}
        document |= {key: pairs[0][key] for key in _PAIR_KEYS if key in pairs[0]}
        document["data"] = data
    return document


def write_results(
    workdir: str | Path, document: Mapping[str, Any], arrays: Mapping[str, Any] | None = None
) -> Path:
    """Writes `arrays.npz` (where given), then `results.json`; each appears complete or not at all.

    Args:
      workdir: the run's directory; made where it is missing.
      document: as described above; ``schema`` is added. NumPy numbers, tuples, paths and ConfigDicts are
        turned into plain JSON, numbers that are not finite into null.
      arrays: as described above.

    Returns:
      The path of `results.json`.

    Raises:
      ValueError: the document is not of the described shape.
      TypeError: it holds something that JSON cannot.
    """
    workdir = Path(workdir)
    plain = normalised(_plain({"schema": SCHEMA, **document}, "results"))
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    workdir.mkdir(parents=True, exist_ok=True)
    if arrays is not None:
        # Not np.savez: there, an array named "file" would clash with its own argument.
        with (
            _replacing(workdir / ARRAYS_FILE) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)
    return write_atomically(workdir / RESULTS_FILE, text.encode())


def is_complete(workdir: str | Path) -> bool:
    """Whether a run has left all that it leaves."""
    return all((Path(workdir) / name).exists() for name in (RESULTS_FILE, ARRAYS_FILE))


def read_results(workdir: str | Path) -> Results:
    """Reads what a run left.

    Args:
      workdir: the run's directory.

    Returns:
      The results; without arrays where there is no `arrays.npz`.

    Raises:
      UserError: `results.json` is missing, either file is damaged, or the schema is a later one.
    """
    path = Path(workdir) / RESULTS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: the run has not finished. Run it again; it resumes."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}). Delete it and run again; it resumes."
        ) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise UserError(f"{path} has schema {schema!r}; this version of kernelgan reads schema {SCHEMA}.")
    try:
        document = normalised(document)
    except ValueError as error:
        raise UserError(f"{path} is not a results file: {error}. Delete it and run again.") from error
    return Results(document, _read_arrays(Path(workdir) / ARRAYS_FILE))


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Writes a file so that a reader, or a crash, never sees half of it."""
    path = Path(path)
    with _replacing(path) as file:
        file.write(content)
    return path


_FEW_CONCEPTS = 5
_ALWAYS = ("random", "attribute_only", "object_only")
_YARDSTICKS = ("and_ensemble", "trained_on_conjunction")
_REQUIRED = ("null", "parent", "merge")
_ANSWERS = ("yes", "no", "cannot tell")
_OUTCOMES = {
    "above": "above",
    "below": "below",
    "cannot tell": "not to be told from",
    "not measured": "not compared with",
}


def _generated(pair_result: Mapping[str, Any]) -> list[str]:
    return [name for name, method in methods_in_order(pair_result) if method.get("kind") == "generated"]


def _leaky(pairs: list[dict[str, Any]]) -> list[str]:
    """The pairs that saw images of their conjunction in training."""
    return [pair_title(pair) for pair in pairs if number((pair.get("data") or {}).get("leaked")) > 0]


def _what(pair_result: Mapping[str, Any]) -> str:
    """``black cat``, or ``55 pairs``."""
    return pair_title(pair_result) if "pair" in pair_result else f"{pair_result.get('pairs')} pairs"


def _over(pair_result: Mapping[str, Any], method: str) -> str:
    if "pair" not in pair_result:
        return f", over {_what(pair_result)}"
    networks = number(pair_result["methods"][method].get("networks"))
    return f", over {networks:.0f} networks" if math.isfinite(networks) else ""


def _outcome(mine: Interval, theirs: Interval, difference: Interval, p_value: float) -> str:
    """How one method stands to another, by the test of their difference."""
    if not (theirs.known and mine.known and difference.known and math.isfinite(p_value)):
        return "not measured"
    if not p_value < SIGNIFICANCE:
        return "cannot tell"
    return "above" if difference.mean > 0 else "below"


def _headline(pair_result: Mapping[str, Any], found: list[Comparison]) -> str:
    """The answer and what it rests on, in one or two sentences."""
    required = [comparison for comparison in found if comparison.required]
    given = answer(pair_result)
    leaked = number((pair_result.get("data") or {}).get("leaked"))
    if leaked > 0:
        return (
            f"Cannot tell: {leaked:.0f} images of the conjunction were read in training, so none of these "
            "figures counts. Mend the data first."
        )
    does = (
        f"compose {pair_result['pair']['attribute']} and {pair_result['pair']['object']}"
        if "pair" in pair_result
        else f"compose, over {_what(pair_result)}"
    )
    groups = {
        outcome: sorted(
            (comparison for comparison in required if comparison.outcome == outcome),
            key=lambda comparison: comparison.difference.mean if comparison.difference.known else 0.0,
        )
        for outcome in _OUTCOMES
    }
    if given == "yes":
        largest = max(comparison.p_value for comparison in required)
        return (
            f"Yes: the generated networks {does}. They are above all {len(required)} that they must beat: "
            f"random networks, the parents alone and every merge of two ({_largest(largest)})."
        )
    if given == "no":
        below = _few(pair_result, groups["below"])
        reason = f"are below {below}" if below else "are copies of a parent"
        against = _against_random(pair_result, required)
        return f"No: the generated networks do not {does}. They {against}{reason}."
    told, missing = groups["cannot tell"], groups["not measured"]
    if told:
        reason = f"they cannot be told from {_few(pair_result, told, 'or')}"
    elif missing:
        reason = f"they were not compared with {_few(pair_result, missing, 'or')}"
    else:
        reason = f"they are above all that they must beat, but {unfit(pair_result)}"
    return f"Cannot tell whether the generated networks {does}: {reason}."


def _against_random(pair_result: Mapping[str, Any], required: list[Comparison]) -> str:
    """``cannot be told from random networks (0.40 against 0.42) and ``; "" where they can."""
    random = next((one for one in required if one.rival == "random" and one.outcome == "cannot tell"), None)
    if random is None:
        return ""
    mine = merit(pair_result, best_generated(pair_result) or "")
    return f"cannot be told from random networks ({mine.mean:.3f} against {random.interval.mean:.3f}) and "


def _scope(pair_result: Mapping[str, Any]) -> str:
    """What the p-values do not cover."""
    levels = [number(pair_result.get(side)) for side in ("attributes", "objects")]
    few = (
        f"With {levels[0]:.0f} attribute(s) and {levels[1]:.0f} object(s), only very large differences can "
        "be told. "
        if min(levels) < _FEW_CONCEPTS
        else ""
    )
    return few + "P-values cover other images and networks of these trainings, not another training (seed)."


def _largest(p_value: float) -> str:
    return f"{'all ' if p_value < 0.001 else 'largest '}{p_text(p_value)}"


def _few(pair_result: Mapping[str, Any], group: list[Comparison], word: str = "and", most: int = 3) -> str:
    """The first of some rivals in words, each with its p-value, and how many more there are."""
    words = [_with(in_words(item.rival, pair_result), p_text(item.p_value, "")) for item in group[:most]]
    return _and([*words, f"{len(group) - most} more"] if len(group) > most else words, word)


def _with(words: str, more: str) -> str:
    """``words (name, more)``: within the brackets there are, or in its own."""
    if not more:
        return words
    return f"{words[:-1]}, {more})" if words.endswith(")") else f"{words} ({more})"


def _required_words(found: list[Comparison]) -> str:
    """How many of the methods that must be beaten were, which were not."""
    required = [comparison for comparison in found if comparison.required]
    words = []
    for outcome, said in _OUTCOMES.items():
        names = [comparison.rival for comparison in required if comparison.outcome == outcome]
        if names:
            words.append(f"{said} {_and(names)}")
    return f"Of the {len(required)} that it must beat (nulls, parents and merges) it is {'; '.join(words)}."


def _yardstick_words(pair_result: Mapping[str, Any], found: list[Comparison]) -> list[str]:
    """Where it stands to what it should come up to, each with the difference and its p-value."""
    words = []
    for comparison in found:
        if comparison.required or comparison.outcome == "not measured":
            continue
        more = [f"{comparison.difference.mean:+.3f}", p_text(comparison.p_value)]
        rival = _with(in_words(comparison.rival, pair_result), ", ".join(more))
        words.append(f"{_OUTCOMES[comparison.outcome]} {rival}")
    return [f"What it should come up to: it is {'; '.join(words)}."] if words else []


def _chance_lines(pair_result: Mapping[str, Any]) -> list[str]:
    """The matched null, the share recovered, and whether the test can tell anything."""
    lines = []
    best = best_generated(pair_result)
    if "pair" in pair_result:
        lines.append(_null_words(pair_result))
    recovered = interval(pair_result["methods"][best or ""].get("recovered")).mean
    ceiling, floor = merit(pair_result, "trained_on_conjunction"), merit(pair_result, "random")
    hopeless = ceiling.bounded and floor.bounded and not ceiling.low > floor.high
    if math.isfinite(recovered) and not hopeless:
        share = round(100 * recovered)
        much = f"{share}%" if share > 0 else f"nothing ({share}%)"
        lines.append(
            f"It recovers {much} of the way from random networks to networks trained on the conjunction "
            "itself, which are the ceiling."
        )
    if hopeless:
        lines.append(
            "Beware: even the networks trained on the conjunction are not clearly above random, so this test "
            "can hardly tell anything apart."
        )
    return lines


def _null_words(pair_result: Mapping[str, Any]) -> str:
    """What the matched null says, and that the choice of a method is in it."""
    test = pair_result.get("null_test") or {}
    p_value = null_p_value(pair_result)
    picked = len(_generated(pair_result))
    picking = (
        f"times {picked}, for it is the best of {picked} generated methods"
        if picked > 1
        else "of one method, so nothing was picked"
    )
    if math.isfinite(p_value):
        return f"Against chance: {p_text(p_value)} by permutation with random networks, {picking}."
    if test.get("method") not in (None, best_generated(pair_result)):
        return f"The test against chance is of {test['method']}: no p-value for this one, and no claim."
    return "Without a test against chance (no p-value) no claim is made."


def p_text(p_value: float, missing: str = "p = -") -> str:
    """``p = 0.012``, ``p < 0.001``, or `missing`."""
    if not math.isfinite(p_value):
        return missing
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _and(names: list[str], word: str = "and") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and run again; it resumes.") from error


def _plain(value: Any, where: str) -> Any:  # noqa: ANN401
    """A value as what JSON has; `where` names it in an error."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "to_dict"):  # a ConfigDict
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return _plain(value.tolist(), where)
    raise TypeError(f"{where} is a {type(value).__name__}, which results.json cannot hold.")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is complete and on disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)
