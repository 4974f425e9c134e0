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
     "pairs": [PAIR, ...]}

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
      "null_test": {"statistic": "auroc.worst", "method": "cyclegan_b2a", "candidates": n, "observed": x,
          "null_mean": x, "p_value": p,
          "by_method": {"cyclegan_a2b": {"mean_p_value": p, "best_p_value": p}, ...}}}

A run of exactly one pair has that pair's keys at top level too, its ``data`` merged into the run's. A file
with the top-level keys only is read just as well: `Results.pairs` is the same list either way.

`arrays.npz` has, under ``<attribute>_<object>/`` for each pair, any of them absent::

    test_images            (N, 32, 32, 3) uint8       a sample of the test images
    test_quadrant          (N,) int8                  of each an index into QUADRANTS
    answers/<method>       (N,) float32, [0, 1]       the FIRST network's answers to them
    worst/<method>         (M,)                       worst-quadrant AUROC of every network
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

from kernelgan.types import UserError

SCHEMA = 1
RESULTS_FILE = "results.json"
ARRAYS_FILE = "arrays.npz"

QUADRANTS = ("a&o", "a&!o", "!a&o", "!a&!o", "rest")
"""The quadrants in the order of the numbers in ``test_quadrant`` and ``embedding_quadrant``."""

KINDS = ("null", "parent", "merge", "generated", "trained apart", "same size", "two nets", "ceiling")
"""Kinds of methods, in the order of every table."""

METHODS = (
    *("random", "gaussian", "random_gaussian", "pixels", "colour_histogram"),
    *("attribute_only", "object_only"),
    *("average", "rebasin_average", "concatenate", "noise"),
    *("cyclegan_a2b", "cyclegan_b2a"),
    *("distilled", "half_width_pair", "and_ensemble", "trained_on_conjunction"),
)
"""Known methods, in the order of every table; others follow, within their kind, in the order of the file."""

SIGNIFICANCE = 0.05

_PAIR_KEYS = ("pair", "data", "zoo", "methods", "null_test")


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
      outcome: "above", "below", "cannot tell" (the intervals overlap) or "not measured".
      required: whether a "yes" needs the generated networks to be above it.
    """

    rival: str
    interval: Interval
    outcome: str
    required: bool


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
    """The p-value of the best generated method; NaN where the null test is missing or of another method."""
    test = pair_result.get("null_test") or {}
    if test.get("method") not in (None, best_generated(pair_result)):
        return math.nan
    return number(test.get("p_value"))


def comparisons(pair_result: Mapping[str, Any]) -> list[Comparison]:
    """The best generated method against random, the parents, the merge, and what it should come up to.

    A method is "above" or "below" another only where the two 95% intervals are apart; above random also needs
    a p-value under 0.05 in the matched null test. Empty where no generated method was scored.
    """
    best = best_generated(pair_result)
    if best is None:
        return []
    mine = merit(pair_result, best)
    found = []
    for rival in ("random", "attribute_only", "object_only", "average", *_YARDSTICKS):
        theirs = merit(pair_result, rival)
        outcome = _compare(mine, theirs)
        if rival == "random" and outcome == "above" and not null_p_value(pair_result) < SIGNIFICANCE:
            outcome = "cannot tell"
        always = rival in ("random", "attribute_only", "object_only")
        required = always or (rival == "average" and theirs.known)
        if theirs.known or always or rival in ("average", "and_ensemble", "trained_on_conjunction"):
            found.append(Comparison(rival, theirs, outcome, required))
    return found


def answer(pair_result: Mapping[str, Any]) -> str:
    """Does the generated network compose? "yes", "no" or "cannot tell".

    Yes: it is above random networks (with the matched null), above both parents and above their average. No:
    one of these is above it. Anything else, test images that leaked into training included: cannot tell.
    """
    outcomes = [comparison.outcome for comparison in comparisons(pair_result) if comparison.required]
    if not outcomes or number((pair_result.get("data") or {}).get("leaked")) > 0:
        return "cannot tell"
    if "below" in outcomes:
        return "no"
    return "yes" if all(outcome == "above" for outcome in outcomes) else "cannot tell"


def verdict(pair_result: Mapping[str, Any]) -> list[str]:
    """The verdict on one pair in plain words, the answer first; one sentence or two a line."""
    attribute, thing = pair_result["pair"]["attribute"], pair_result["pair"]["object"]
    found = comparisons(pair_result)
    best = best_generated(pair_result)
    given = answer(pair_result)
    leaked = number((pair_result.get("data") or {}).get("leaked"))
    if best is None:
        return [f"Cannot tell: no generated network was scored on {attribute} {thing}."]

    lines = [_headline(given, attribute, thing, found, leaked)]
    mine = merit(pair_result, best)
    networks = number(pair_result["methods"][best].get("networks"))
    over = f", over {networks:.0f} networks" if math.isfinite(networks) else ""
    lines.append(f"Best generated direction: {best}, mean {merit_name(pair_result)} {mine.text()}{over}.")
    if merit_path(pair_result) == "auroc.vs_rest":
        lines.append(
            "The quadrants of the other test images are not known, so a detector of one concept alone can "
            "score well here; only the comparison with the parents speaks of composition."
        )
    lines += [_line(comparison, pair_result) for comparison in found]
    recovered = number((pair_result["methods"][best].get("recovered") or {}).get("mean"))
    if math.isfinite(recovered):
        lines.append(f"It recovers {round(100 * recovered)}% of the way from random to the ceiling.")
    ceiling, floor = merit(pair_result, "trained_on_conjunction"), merit(pair_result, "random")
    if ceiling.known and floor.known and _compare(ceiling, floor) != "above":
        lines.append(
            "Beware: even the networks trained on the conjunction are not clearly above random, so this test "
            "can hardly tell anything apart."
        )
    return lines


def summary(results: Results) -> list[str]:
    """The verdict on the whole run in plain words: that of its only pair, or the count over its pairs."""
    pairs = results.pairs()
    if len(pairs) == 1:
        return verdict(pairs[0])
    answers = {given: [pair_title(pair) for pair in pairs if answer(pair) == given] for given in _ANSWERS}
    lines = [
        f"Of {len(pairs)} pairs: yes on {len(answers['yes'])}, no on {len(answers['no'])}, "
        f"cannot tell on {len(answers['cannot tell'])}."
    ]
    lines += [f"{_ANSWERS[given]}: {', '.join(titles)}." for given, titles in answers.items() if titles]
    if len(answers["yes"]) and len(pairs) >= 1 / SIGNIFICANCE:
        lines.append(
            f"With {len(pairs)} pairs, a few pass p < {SIGNIFICANCE} by luck; read each p-value as such."
        )
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


_YARDSTICKS = ("distilled", "and_ensemble", "trained_on_conjunction")
_ANSWERS = {"yes": "Yes", "no": "No", "cannot tell": "Cannot tell"}
_WORDS = {
    "random": "random networks",
    "attribute_only": "the attribute parent alone",
    "object_only": "the object parent alone",
    "average": "the plain average of both parents' weights",
    "distilled": "one network distilled by gradient from both parents",
    "and_ensemble": "both parents run side by side, at twice the parameters",
    "trained_on_conjunction": "the ceiling, trained on the conjunction itself",
}
_OUTCOMES = {
    "above": "Above {}.",
    "below": "Below {}.",
    "cannot tell": "Cannot be told from {}.",
    "not measured": "Not compared with {}: that was not measured.",
}


def _generated(pair_result: Mapping[str, Any]) -> list[str]:
    return [name for name, method in methods_in_order(pair_result) if method.get("kind") == "generated"]


def _compare(mine: Interval, theirs: Interval) -> str:
    """How one interval lies to another."""
    if not theirs.known or not mine.known:
        return "not measured"
    if not mine.bounded or not theirs.bounded:
        return "cannot tell"
    if mine.low > theirs.high:
        return "above"
    return "below" if mine.high < theirs.low else "cannot tell"


def _headline(given: str, attribute: str, thing: str, found: list[Comparison], leaked: float) -> str:
    required = [comparison for comparison in found if comparison.required]
    if leaked > 0:
        return (
            f"Cannot tell: {leaked:.0f} images of the conjunction were read, so none of these figures "
            "counts. Mend the data first."
        )
    if given == "yes":
        names = _and([_WORDS[comparison.rival] for comparison in required])
        return f"Yes: the generated networks compose {attribute} and {thing}. They are above {names}."
    if given == "no":
        names = _and([_WORDS[comparison.rival] for comparison in required if comparison.outcome == "below"])
        return f"No: the generated networks do not compose {attribute} and {thing}. They are below {names}."
    open_ones = [_WORDS[comparison.rival] for comparison in required if comparison.outcome == "cannot tell"]
    if not open_ones:
        missing = [
            _WORDS[comparison.rival] for comparison in required if comparison.outcome == "not measured"
        ]
        return (
            f"Cannot tell whether the generated networks compose {attribute} and {thing}: not measured: "
            + (f"{_and(missing)}.")
        )
    return (
        f"Cannot tell whether the generated networks compose {attribute} and {thing}: "
        f"they cannot be told from {_and(open_ones, 'or')}."
    )


def _line(comparison: Comparison, pair_result: Mapping[str, Any]) -> str:
    rival = f"{_WORDS[comparison.rival]} ({comparison.rival}"
    rival += f" {comparison.interval.text()})" if comparison.interval.known else ")"
    text = _OUTCOMES[comparison.outcome].format(rival)
    return text + (f" {_null_words(pair_result)}" if comparison.rival == "random" else "")


def _null_words(pair_result: Mapping[str, Any]) -> str:
    """What the matched null says, and that the choice of a direction is in it."""
    test = pair_result.get("null_test") or {}
    p_value = null_p_value(pair_result)
    directions = len(_generated(pair_result))
    picking = (
        f"multiplied by {directions}, for it is the better of {directions} directions"
        if directions > 1
        else "one direction, so nothing was picked"
    )
    if math.isfinite(p_value):
        return f"{p_text(p_value)} by permutation against them, {picking}."
    if test.get("method") not in (None, best_generated(pair_result)):
        return f"The null test is of {test['method']}, so there is no p-value for this one, and no claim."
    return "Without a matched null test (no p-value) no claim is made."


def p_text(p_value: float) -> str:
    """``p = 0.012``, ``p < 0.001`` or ``p = -``."""
    if not math.isfinite(p_value):
        return "p = -"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _and(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


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
