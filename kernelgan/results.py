"""What a run leaves: `results.json` (figures, tests and verdicts, typed below) and `arrays.npz`.

Both files are written atomically, `results.json` last: where it is, the run is complete. `results.json` is
`Run` as JSON, field by field; what is empty or was not measured is left out or ``null``. Methods are in the
order of every table. The evaluation gives plain nested dicts of the same shape, see `from_document`.

`arrays.npz` has, under ``<attribute>_<object>/`` for each pair, any of them absent::

    test_images            (N, 32, 32, 3) uint8       a sample of the test images
    test_quadrant          (N,) int8                  the quadrant of each, an index into QUADRANTS
    answers/<method>       (N,) float32, [0, 1]       the FIRST network's answers to them
    worst/<method>         (M,)                       figure of merit of every network
    replicates/<method>    (R,)                       its mean over networks, resampled: networks and images
    novelty/<method>       (m,)                       distance to the nearest parent, first networks
    embedding/<method>     (N, 2)                     UMAP of the first network's features
    embedding_quadrant     (N,)                       as test_quadrant, for the embedded images
    cluster/<method>       (N,) int                   K-means label of the embedded images
    cosine/<method>        (4, 4)                     mean cosine similarity between quadrants
    kernels/<layer>/<role> (M, H, W, I, O)            role: a method, or a name such as attribute_parent
    history/zoo_<attribute|object>/<measure>  (M, E)  train_loss, validation_loss, ...
    history/<family>/<layer>/<loss>           (S,)    of a generator's training

and, without a prefix, ``contact_sheet`` (rows, columns, H, W, 3) uint8.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kernelgan.files import replacing, write_atomically
from kernelgan.records import from_json, plain, to_json
from kernelgan.types import Quadrant, UserError

SCHEMA = 2
RESULTS_FILE = "results.json"
ARRAYS_FILE = "arrays.npz"

QUADRANTS = tuple(quadrant.label for quadrant in Quadrant)
"""The quadrants in the order of the numbers in ``test_quadrant`` and ``embedding_quadrant``."""

KINDS = ("null", "parent", "merge", "generated", "trained apart", "same size", "two nets", "ceiling")
"""Kinds of methods, in the order of every table."""

ANSWERS = ("yes", "no", "cannot tell")


@dataclass(frozen=True)
class Statistic:
    """A mean over networks (or pairs), its 95% interval and spread; NaN and None where there is none."""

    mean: float = math.nan
    ci95: tuple[float, float] | None = None
    sd: float = math.nan
    best: float = math.nan
    networks: int | None = None

    @property
    def low(self) -> float:
        """Lower end of the interval, or NaN."""
        return self.ci95[0] if self.ci95 else math.nan

    @property
    def high(self) -> float:
        """Upper end of the interval, or NaN."""
        return self.ci95[1] if self.ci95 else math.nan

    @property
    def known(self) -> bool:
        """Whether there is a mean."""
        return math.isfinite(self.mean)

    @property
    def bounded(self) -> bool:
        """Whether there are a mean and both ends of its interval."""
        return self.known and math.isfinite(self.low) and math.isfinite(self.high)

    def text(self, digits: int = 3, missing: str = "-") -> str:
        """``0.573 [0.541, 0.602]``, or the mean alone, or `missing`."""
        if not self.known:
            return missing
        mean = f"{self.mean:.{digits}f}"
        return f"{mean} [{self.low:.{digits}f}, {self.high:.{digits}f}]" if self.bounded else mean


@dataclass(frozen=True)
class Test:
    """A two-sided test of the difference of two methods' figures of merit.

    ``p_adjusted`` is corrected for picking the best generated method and, for a pair, over pairs (Holm).
    """

    difference: Statistic = Statistic()
    p_value: float = math.nan
    p_adjusted: float = math.nan


@dataclass(frozen=True)
class Against(Test):
    """A method over all pairs against the yardstick; the clear wins and losses are those a test confirms."""

    rival: str = ""
    wins: int = 0
    losses: int = 0
    clear_wins: int = 0
    clear_losses: int = 0


@dataclass(frozen=True)
class Clustering:
    """Scores of one clusterer by the standard definitions, and as the original prints them."""

    accuracy: Statistic = Statistic()
    precision: Statistic = Statistic()
    recall: Statistic = Statistic()
    cluster_entropy: Statistic = Statistic()
    cluster_purity: Statistic = Statistic()
    as_printed: dict[str, Statistic] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One method's measurements, on one pair or over all.

    Attributes:
      name: its key; not stored twice.
      kind: one of `KINDS`.
      label: what it is, for a reader who knows no names; ``{attribute}`` and ``{object}`` are filled in.
      description: how it is made, in one line.
      family: the generator family, "" for a baseline.
      tier: what it reads, "W", "S", "U" or "G"; "" where that is not recorded.
      networks: how many were measured.
      parameters: of one network (of both, where two run).
      auroc: ``vs_attribute_only``, ``vs_object_only``, ``vs_neither`` and ``worst``, or ``vs_rest``.
      clustering: by clusterer.
      cosine_similarity: ``within``, ``across``, ``margin``.
      recovered: share of the way from random networks to the ceiling.
      novelty: ``distance`` from the nearest parent and ``error_overlap``.
      pairs: over all pairs, how many have it.
      against: over all pairs, its record against the yardstick.
    """

    name: str = field(metadata={"stored": False})
    kind: str
    label: str = ""
    description: str = ""
    family: str = ""
    tier: str = ""
    networks: int | None = None
    parameters: int | None = None
    auroc: dict[str, Statistic] = field(default_factory=dict)
    balanced_accuracy: Statistic = Statistic()
    average_precision: Statistic = Statistic()
    accuracy: Statistic = Statistic()
    precision: Statistic = Statistic()
    recall: Statistic = Statistic()
    clustering: dict[str, Clustering] = field(default_factory=dict)
    cosine_similarity: dict[str, Statistic] = field(default_factory=dict)
    recovered: Statistic = Statistic()
    novelty: dict[str, Statistic] = field(default_factory=dict)
    pairs: int | None = None
    against: Against | None = None


@dataclass(frozen=True)
class NullOfMethod:
    """P-values of one generated method's mean and best network against random networks."""

    mean_p_value: float = math.nan
    superiority: float = math.nan
    best_p_value: float = math.nan
    smallest_best_p_value: float = math.nan


@dataclass(frozen=True)
class NullTest:
    """The best generated method against as carefully picked random networks."""

    statistic: str = ""
    method: str = ""
    candidates: int | None = None
    observed: float = math.nan
    null_mean: float = math.nan
    p_value: float = math.nan
    p_adjusted: float = math.nan
    by_method: dict[str, NullOfMethod] = field(default_factory=dict)
    best_network: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """How the best generated method does against one other.

    Attributes:
      rival: the other method.
      outcome: "above", "below", "cannot tell" or "not measured".
      required: whether a "yes" needs it to be above.
      difference: of the figures of merit, generated minus other.
      p_value: of that difference, corrected; NaN where there is none.
    """

    rival: str
    outcome: str
    required: bool
    difference: Statistic = Statistic()
    p_value: float = math.nan


@dataclass(frozen=True)
class Verdict:
    """What `evaluate.verdict` concluded; readers never work it out again.

    Attributes:
      answer: one of `ANSWERS`: do the generated networks compose?
      best: the generated method with the highest mean figure of merit; "" where none was scored.
      comparisons: of it with every other method.
      copies: whether its networks are copies of a parent.
      unfit: why it cannot be said to compose however well it does: "shape", "size" or ``no <kind>``.
      null_p_value: of it in the matched null test; NaN where there is none, or of another method only.
      floor: the method of random networks.
      yardstick: the method of both parents run side by side.
      ceiling: the method that was trained on the conjunction.
    """

    answer: str = "cannot tell"
    best: str = ""
    comparisons: tuple[Comparison, ...] = ()
    copies: bool = False
    unfit: str = ""
    null_p_value: float = math.nan
    floor: str = ""
    yardstick: str = ""
    ceiling: str = ""


@dataclass(frozen=True)
class Images:
    """Images of a pair: their source, how many are in each quadrant of each split, and the leakage check."""

    source: str = ""
    train: dict[str, int] = field(default_factory=dict)
    validation: dict[str, int] = field(default_factory=dict)
    test: dict[str, int] = field(default_factory=dict)
    leaked: int | None = None
    duplicates: int | None = None
    near_duplicates: int | None = None


@dataclass(frozen=True)
class ZooScores:
    """How well the parents of one side know their own concept, on validation images."""

    balanced_accuracy: Statistic = Statistic()
    auroc: Statistic = Statistic()


@dataclass(frozen=True)
class Concepts:
    """The two concepts of a pair."""

    attribute: str
    object: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Methods measured together: on one pair, or over all.

    Attributes:
      methods: by name, in the order of every table.
      merit: which AUROC is the figure of merit, ``worst``, or ``vs_rest`` where quadrants are not known.
      tests: method -> rival -> test of their difference.
      verdict: what follows.
    """

    methods: dict[str, Row]
    merit: str = ""
    tests: dict[str, dict[str, Test]] = field(default_factory=dict)
    verdict: Verdict = Verdict()

    def figure(self, method: str) -> Statistic:
        """The figure of merit of a method; empty where it was not measured."""
        row = self.methods.get(method)
        return row.auroc.get(self.merit, Statistic()) if row else Statistic()

    def ranked(self) -> list[Row]:
        """The methods that have a figure of merit, the highest mean first."""
        scored = [row for row in self.methods.values() if self.figure(row.name).known]
        return sorted(scored, key=lambda row: -self.figure(row.name).mean)

    def of_kind(self, kind: str) -> list[Row]:
        """The methods of a kind, in order."""
        return [row for row in self.methods.values() if row.kind == kind]


@dataclass(frozen=True, kw_only=True)
class Pair(Measured):
    """Everything measured on one pair; ``zoo`` is by side, ``attribute`` and ``object``."""

    pair: Concepts
    data: Images = Images()
    zoo: dict[str, ZooScores] = field(default_factory=dict)
    null_test: NullTest | None = None

    @property
    def title(self) -> str:
        """``black cat``."""
        return f"{self.pair.attribute} {self.pair.object}"

    @property
    def key(self) -> str:
        """``black_cat``: the prefix of the pair's arrays."""
        return f"{self.pair.attribute}_{self.pair.object}"


@dataclass(frozen=True, kw_only=True)
class Overall(Measured):
    """The methods over all pairs: statistics and tests with attributes and objects drawn at random."""

    pairs: int
    attributes: int | None = None
    objects: int | None = None


@dataclass(frozen=True)
class Sheet:
    """Labels of the contact sheet."""

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where the images of a run come from."""

    source: str = ""
    notes: tuple[str, ...] = ()
    contact_sheet: Sheet = Sheet()


@dataclass(frozen=True)
class Skipped:
    """A pair that was not run."""

    attribute: str
    object: str
    reason: str = "no reason given"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run left.

    Attributes:
      config: as `config.to_json` gives it.
      timings: seconds by stage.
      overall: None for one pair, or where the pairs have different figures of merit.
      study: what a study beside the library keeps of its own; nothing here reads it.
      arrays: `arrays.npz`, empty where the file is missing.
    """

    pairs: tuple[Pair, ...]
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    device: str = ""
    command: str = ""
    data: Source = Source()
    timings: dict[str, float] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    overall: Overall | None = None
    study: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(
        default_factory=dict, repr=False, compare=False, metadata={"stored": False}
    )

    @property
    def verdict(self) -> Verdict:
        """That of its only pair, or over all pairs; empty where these were not compared together."""
        if len(self.pairs) == 1:
            return self.pairs[0].verdict
        return self.overall.verdict if self.overall else Verdict()

    def array(self, pair: Pair, name: str) -> np.ndarray | None:
        """One array of a pair, or None where the run did not leave it."""
        return self.arrays.get(f"{pair.key}/{name}")

    def arrays_under(self, pair: Pair, folder: str) -> dict[str, np.ndarray]:
        """The arrays of a pair whose names start with `folder` and a slash, by the rest of their names."""
        prefix = f"{pair.key}/{folder}/"
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}


def statistics(value: object, prefix: str = "") -> dict[str, Statistic]:
    """The known statistics in a row, or in any other part of a run, by dotted path (``auroc.worst``)."""
    if isinstance(value, Statistic):
        return {prefix: value} if value.known else {}
    if dataclasses.is_dataclass(value):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if not isinstance(value, Mapping):
        return {}
    inner = (statistics(item, f"{prefix}.{key}" if prefix else key) for key, item in value.items())
    return {path: found for one in inner for path, found in one.items()}


def pair_key(record: Mapping[str, Any]) -> str:
    """`Pair.key` of a pair's record that is not typed yet."""
    return f"{record['pair']['attribute']}_{record['pair']['object']}"


# Reading and writing -------------------------------------------------------------------------------------


def from_document(document: Mapping[str, Any]) -> Run:
    """The typed run of a plain nested dict, checked: methods in order, labels filled in, merit worked out.

    Args:
      document: of the shape of `Run`; NumPy values, tuples, paths and ConfigDicts are welcome.

    Raises:
      ValueError: a field is unknown, missing or of another type; the message has its path.
      TypeError: it holds something that JSON cannot; the message has its path.
    """
    run = from_json(Run, plain(document, "results"), "results")
    if not run.pairs:
        raise ValueError("results.pairs is empty; expected at least one pair")
    pairs = tuple(_in_order(pair, pair.pair.attribute, pair.pair.object) for pair in run.pairs)
    overall = _in_order(run.overall, "attribute", "object") if run.overall else None
    return dataclasses.replace(run, pairs=pairs, overall=overall)


M = TypeVar("M", bound=Measured)


def _in_order(record: M, attribute: str, thing: str) -> M:
    unknown = [
        f"{row.name} has kind {row.kind!r}" for row in record.methods.values() if row.kind not in KINDS
    ]
    if unknown:
        raise ValueError(f"{'; '.join(unknown)}; expected one of {', '.join(KINDS)}")
    rows = sorted(record.methods.values(), key=lambda row: KINDS.index(row.kind))
    methods = {
        row.name: dataclasses.replace(
            row, label=row.label.replace("{attribute}", attribute).replace("{object}", thing)
        )
        for row in rows
    }
    known = (path for path in ("worst", "vs_rest") for row in rows if path in row.auroc)
    return dataclasses.replace(record, methods=methods, merit=record.merit or next(known, "worst"))


def write_results(workdir: str | Path, run: Run, arrays: Mapping[str, Any] | None = None) -> Path:
    """Writes `arrays.npz` (where given), then `results.json`; each appears complete or not at all.

    Args:
      workdir: the run's directory; made where it is missing.
      run: with its verdicts.
      arrays: as described above.

    Returns:
      The path of `results.json`.
    """
    workdir = Path(workdir)
    document = {"schema": SCHEMA, **to_json(run)}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    workdir.mkdir(parents=True, exist_ok=True)
    if arrays is not None:
        # Not np.savez: there, an array named "file" would clash with its own argument.
        with (
            replacing(workdir / ARRAYS_FILE) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)
    return write_atomically(workdir / RESULTS_FILE, text.encode())


def is_complete(workdir: str | Path) -> bool:
    """Whether a run has left all that it leaves."""
    return all((Path(workdir) / name).exists() for name in (RESULTS_FILE, ARRAYS_FILE))


def read_results(workdir: str | Path) -> Run:
    """Reads what a run left; without arrays where there is no `arrays.npz`.

    Raises:
      UserError: `results.json` is missing, either file is damaged, or the schema is another.
    """
    path = Path(workdir) / RESULTS_FILE
    again = "Delete it and run again; it resumes."
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: the run has not finished. Run it again; it resumes."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). {again}") from error
    schema = document.pop("schema", None) if isinstance(document, dict) else None
    if schema != SCHEMA:
        old = isinstance(schema, int) and schema < SCHEMA
        command = f": {document['command']}" if old and document.get("command") else ""
        remedy = (
            f"Delete it and run the same command again{command}" if old else "Read it with a newer version"
        )
        raise UserError(
            f"{path} has schema {schema!r}; this version of kernelgan reads schema {SCHEMA}. {remedy}."
        )
    try:
        run = from_json(Run, document, "results")
    except ValueError as error:
        raise UserError(f"{path} is not a results file: {error}. {again}") from error
    return dataclasses.replace(run, arrays=_read_arrays(Path(workdir) / ARRAYS_FILE))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it and run again; it resumes.") from error
