"""What a run leaves: `results.json` (figures, tests and verdicts, typed below) and `arrays.npz`.

Both are written atomically, `results.json` last: where it is, the run is complete. It is `Run` as JSON, field
by field; what was not measured is left out or ``null``. Methods are in the order of every table.

`arrays.npz` has a ``contact_sheet`` (rows, columns, H, W, 3) uint8 and, under ``<attribute>_<object>/`` for
each pair, any of them absent::

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
from kernelgan.records import from_json, to_json
from kernelgan.types import Quadrant, UserError

SCHEMA = 3
RESULTS_FILE = "results.json"
ARRAYS_FILE = "arrays.npz"

QUADRANTS = tuple(quadrant.label for quadrant in Quadrant)
"""The quadrants in the order of the numbers in ``test_quadrant`` and ``embedding_quadrant``."""

KINDS = ("null", "parent", "merge", "generated", "trained apart", "same size", "two nets", "reference")
"""Kinds of methods, in the order of every table."""

ANSWERS = ("yes", "no", "cannot tell")
SHARES = ("auroc", "balanced_accuracy", "average_precision", "accuracy", "precision", "recall")
"""Fields of a `Row` that lie between 0 and 1."""

Record = TypeVar("Record", bound="Measured")

_AGAIN = "Delete it and run again; it resumes."


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

    def as_share(self) -> Statistic:
        """The same of what lies between 0 and 1: an interval that reaches further is cut there."""
        if self.ci95 is None:
            return self
        low, high = (min(max(end, 0.0), 1.0) if math.isfinite(end) else end for end in self.ci95)
        return dataclasses.replace(self, ci95=(low, high))

    def text(self) -> str:
        """``0.573 [0.541, 0.602]``, or the mean alone, or ``-``."""
        ends = f" [{self.low:.3f}, {self.high:.3f}]" if self.bounded else ""
        return f"{self.mean:.3f}{ends}" if self.known else "-"


NOTHING = Statistic()


@dataclass(frozen=True)
class Test:
    """A two-sided test of the difference of two methods' figures of merit.

    ``p_adjusted`` is corrected for picking the best generated method and, for a pair, over pairs (Holm).
    ``detectable`` is the smallest true difference that is found with 80% power after these corrections.
    """

    difference: Statistic = NOTHING
    p_value: float = math.nan
    p_adjusted: float = math.nan
    error: float = math.nan  # standard error of the difference
    freedom: float = math.nan  # degrees of freedom of Student's t; NaN: the normal distribution
    detectable: float = math.nan


@dataclass(frozen=True)
class Against(Test):
    """A method over all pairs against the yardstick; a test confirms the clear wins and losses."""

    rival: str = ""
    wins: int = 0
    losses: int = 0
    clear_wins: int = 0
    clear_losses: int = 0


@dataclass(frozen=True)
class Clustering:
    """Scores of one clusterer by the standard definitions, and as the original prints them."""

    accuracy: Statistic = NOTHING
    precision: Statistic = NOTHING
    recall: Statistic = NOTHING
    cluster_entropy: Statistic = NOTHING
    cluster_purity: Statistic = NOTHING
    as_printed: dict[str, Statistic] = field(default_factory=dict)


@dataclass(frozen=True)
class Placebo:
    """A generated method with one side's parents exchanged, see `generators.placebo`.

    The difference tested is half of the method's gain over 0.5 minus the placebo's gain: above zero, the gain
    falls by more than half.
    """

    parents: str  # what stands in for the side's parents, in words
    auroc: Statistic = NOTHING  # figure of merit of the placebo's networks
    test: Test = Test()


@dataclass(frozen=True)
class Behind:
    """Everything behind a generator's networks, checked by content, see `data.leakage.Behind`."""

    name: str = ""  # the fold, or the pair; "" over all pairs, where the numbers are the largest
    held_out: int = 0  # pairs whose conjunctions nothing behind the networks read
    learnt: int = 0  # pairs that the generator learnt from; 0: from the pair's own parents alone
    readers: int = 0  # zoos and sets of probes
    images: int = 0  # different training images that these read
    leaked: int = 0  # conjunction images among them


@dataclass(frozen=True)
class Row:
    """One method's measurements, on one pair or over all."""

    name: str = field(metadata={"stored": False})  # its key; not stored twice
    kind: str  # one of `KINDS`
    label: str = ""  # in words; ``{attribute}`` and ``{object}`` are filled in
    description: str = ""  # how it is made, in one line
    family: str = ""  # the generator family, "" for a baseline
    tier: str = ""  # what it reads, "W", "S", "U" or "G"; "" where that is not recorded
    networks: int | None = None  # how many were measured
    parameters: int | None = None  # of one network (of both, where two run)
    auroc: dict[str, Statistic] = field(default_factory=dict)  # against each quadrant, ``worst``, and more:
    # ``worst_of_means`` and ``worst_calibrated``, with one temperature a head (its interval: networks only)
    balanced_accuracy: Statistic = NOTHING
    average_precision: Statistic = NOTHING
    accuracy: Statistic = NOTHING
    precision: Statistic = NOTHING
    recall: Statistic = NOTHING
    clustering: dict[str, Clustering] = field(default_factory=dict)  # by clusterer
    cosine_similarity: dict[str, Statistic] = field(default_factory=dict)  # within, across, margin
    recovered: Statistic = NOTHING  # share of the way from max(0.5, random) to the reference
    novelty: dict[str, Statistic] = field(default_factory=dict)  # distance, answers, error_overlap
    made: int | None = None  # where some are the same network, how many there are; each is measured once
    not_finite: int | None = None  # networks with answers that are not finite: they score 0
    images: int | None = None  # that its generator is handed for a pair
    steps: int | None = None  # of its generator's training
    trainings: tuple[float, ...] = ()  # where it is trained, the figure of merit of each training's networks
    behind: Behind | None = None  # of a generated method; None where zoos were trained elsewhere
    digest: str = ""  # of its networks, kept before they were measured
    placebos: dict[str, Placebo] = field(default_factory=dict)  # by a name of `placebo.NAMES`
    copies: int | None = None  # over all pairs, on how many its networks are copies of a parent
    pairs: int | None = None  # over all pairs, how many have it
    against: Against | None = None  # over all pairs, its record against the yardstick

    def __post_init__(self) -> None:
        """Cuts the intervals of `SHARES`; Student's reach beyond 0 and 1."""
        for name in SHARES:
            value = getattr(self, name)
            if isinstance(value, Statistic):
                object.__setattr__(self, name, value.as_share())
            else:
                object.__setattr__(self, name, {key: each.as_share() for key, each in value.items()})


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
    by_method: dict[str, dict[str, float]] = field(default_factory=dict)
    best_network: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """What the figure of merit of a pair hangs on, see `evaluation.binding`."""

    quadrants: dict[str, str] = field(default_factory=dict)  # by method, the AUROC that is the lowest
    free: tuple[str, ...] = ()  # "attribute" or "object" where telling that apart costs nothing


@dataclass(frozen=True)
class Comparison:
    """The best generated method against another."""

    rival: str  # the other method
    outcome: str  # "above", "below", "cannot tell" or "not measured"
    required: bool  # whether a "yes" needs "above"
    difference: Statistic = NOTHING  # of the figures of merit, generated minus other
    p_value: float = math.nan  # of that difference, corrected; NaN where there is none


@dataclass(frozen=True)
class Verdict:
    """What `evaluation.verdict` concluded; readers never work it out again."""

    answer: str = "cannot tell"  # one of `ANSWERS`: do the generated networks compose?
    best: str = ""  # the generated method with the highest mean figure of merit; "" where none was scored
    comparisons: tuple[Comparison, ...] = ()  # the best with every other method
    copies: bool = False  # whether its networks are copies of a parent
    broken: tuple[str, ...] = ()  # names of the rules that it breaks, see `evaluation.verdict.RULES`
    detectable: float = math.nan  # the gain over each required rival that is found with 80% power
    tiers: dict[str, str] = field(default_factory=dict)  # the answer within each, where there are several
    null_p_value: float = math.nan  # of the best in the matched null test; NaN where there is none
    floor: str = ""  # the method of random networks
    yardstick: str = ""  # the method of both parents run side by side
    reference: str = ""  # the method trained on the conjunction


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
class Concepts:
    """The two concepts of a pair."""

    attribute: str
    object: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Methods measured together: on one pair, or over all."""

    methods: dict[str, Row]  # by name, in the order of every table
    merit: str = ""  # the AUROC to judge by: ``worst``, or ``vs_rest`` where quadrants are not known
    tests: dict[str, dict[str, Test]] = field(default_factory=dict)  # by method, then rival
    verdict: Verdict = Verdict()  # what follows

    def figure(self, method: str) -> Statistic:
        """The figure of merit of a method; empty where it was not measured."""
        row = self.methods.get(method)
        return row.auroc.get(self.merit, NOTHING) if row else NOTHING

    def ranked(self) -> list[Row]:
        """The methods that have a figure of merit, the highest mean first."""
        scored = [row for row in self.methods.values() if self.figure(row.name).known]
        return sorted(scored, key=lambda row: -self.figure(row.name).mean)

    def of_kind(self, kind: str) -> list[Row]:
        """The methods of a kind, in order."""
        return [row for row in self.methods.values() if row.kind == kind]


@dataclass(frozen=True, kw_only=True)
class Pair(Measured):
    """Everything measured on one pair; ``zoo`` has the parents' own scores by side and metric."""

    pair: Concepts
    data: Images = Images()
    zoo: dict[str, dict[str, Statistic]] = field(default_factory=dict)
    null_test: NullTest | None = None
    binding: Binding | None = None  # None where quadrants or the methods to judge by were not measured
    fold: int | None = None  # of ``pairs.splits``, that holds the pair out; None without such a file
    sealed: bool | None = None  # whether only registered runs open its test images

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

    @property
    def title(self) -> str:
        """``55 pairs``."""
        return f"{self.pairs} pairs"


@dataclass(frozen=True)
class Source:
    """Where the images of a run come from."""

    source: str = ""
    notes: tuple[str, ...] = ()
    parents: str = ""  # of zoos that know their concepts only in part
    splits: str = ""  # SHA-256 of the content of ``pairs.splits``; "" without such a file
    contact_sheet: dict[str, tuple[str, ...]] = field(default_factory=dict)  # labels of its rows and columns


@dataclass(frozen=True)
class Skipped:
    """A pair that was not run."""

    attribute: str
    object: str
    reason: str = "no reason given"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run left."""

    pairs: tuple[Pair, ...]
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # as `config.to_json` gives it
    versions: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    device: str = ""
    command: str = ""
    commit: str = ""  # of the package's git checkout; "" outside one
    clean: bool | None = None  # whether the checkout had no other changes
    date: str = ""  # when the results were written, UTC, such as 2026-01-31T12:00:00+00:00
    attempts: dict[str, int] = field(default_factory=dict)  # by family, registered runs on sealed images
    data: Source = Source()
    timings: dict[str, float] = field(default_factory=dict)  # seconds by stage, without the report
    skipped: tuple[Skipped, ...] = ()
    overall: Overall | None = None  # None for one pair, or where the pairs have different figures of merit
    study: dict[str, Any] = field(default_factory=dict)  # of a study beside the library; not read here
    arrays: dict[str, np.ndarray] = field(  # `arrays.npz`, empty where the file is missing
        default_factory=dict, repr=False, compare=False, metadata={"stored": False}
    )

    @property
    def record(self) -> Pair | Overall | None:
        """Its only pair, or all pairs; None where these were not compared together."""
        return self.pairs[0] if len(self.pairs) == 1 else self.overall

    @property
    def verdict(self) -> Verdict:
        """That of its `record`; empty where there is none."""
        return self.record.verdict if self.record else Verdict()

    def arrays_under(self, pair: Pair, folder: str) -> dict[str, np.ndarray]:
        """The arrays of a pair whose names start with `folder` and a slash, by the rest of their names."""
        prefix = f"{pair.key}/{folder}/"
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}


def statistics(value: object, prefix: str = "") -> dict[str, Statistic]:
    """The known statistics in a row, or in any other part of a run, by dotted path (``auroc.worst``)."""
    if isinstance(value, Statistic):
        return {prefix: value} if value.known else {}
    if isinstance(value, Placebo):  # no figure of the method itself
        return {}
    if dataclasses.is_dataclass(value):
        value = vars(value)
    found: dict[str, Statistic] = {}
    for key, item in value.items() if isinstance(value, Mapping) else ():
        found |= statistics(item, f"{prefix}.{key}" if prefix else key)
    return found


def from_document(document: Mapping[str, Any]) -> Run:
    """The typed run of nested dicts of the shape of `Run`, or of what `records.to_json` makes such ones of.

    Methods are put in order, labels filled in, and the figure of merit is worked out.

    Raises:
      ValueError: a field is unknown, missing or of another type; the message has its path.
      TypeError: it holds something that JSON cannot; the message has its path.
    """
    run = from_json(Run, to_json(document, "results"), "results")
    if not run.pairs:
        raise ValueError("results.pairs is empty; expected at least one pair")
    pairs = tuple(_in_order(pair, pair.pair.attribute, pair.pair.object) for pair in run.pairs)
    overall = _in_order(run.overall, "attribute", "object") if run.overall else None
    return dataclasses.replace(run, pairs=pairs, overall=overall)


def _in_order(record: Record, attribute: str, thing: str) -> Record:
    """A `Pair` or an `Overall` with its methods by kind, their labels filled in, and its figure of merit."""
    rows = record.methods.values()
    unknown = [f"{row.name} has kind {row.kind!r}" for row in rows if row.kind not in KINDS]
    if unknown:
        raise ValueError(f"{'; '.join(unknown)}; expected one of {', '.join(KINDS)}")
    methods = {}
    for row in sorted(rows, key=lambda row: KINDS.index(row.kind)):
        label = row.label.replace("{attribute}", attribute).replace("{object}", thing)
        methods[row.name] = dataclasses.replace(row, label=label)
    known = (merit for merit in ("worst", "vs_rest") for row in rows if merit in row.auroc)
    return dataclasses.replace(record, methods=methods, merit=record.merit or next(known, "worst"))


def write_results(workdir: str | Path, run: Run, arrays: Mapping[str, Any] | None = None) -> Path:
    """Writes `arrays.npz` (where given), then `results.json`; each appears complete or not at all.

    Returns:
      The path of `results.json`.
    """
    workdir = Path(workdir)
    document = {"schema": SCHEMA, **to_json(run)}
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    workdir.mkdir(parents=True, exist_ok=True)
    if arrays is not None:
        # Not np.savez: there, an array named "file" would clash with its own argument.
        target = replacing(workdir / ARRAYS_FILE)
        with target as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)
    return write_atomically(workdir / RESULTS_FILE, text.encode())


def read_results(workdir: str | Path) -> Run:
    """Reads what a run left; without arrays where there is no `arrays.npz`.

    Raises:
      UserError: `results.json` is missing, either file is damaged, or the schema is another.
    """
    path = Path(workdir) / RESULTS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the run has not finished. Run again; it resumes.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). {_AGAIN}") from error
    schema = document.pop("schema", None) if isinstance(document, dict) else None
    if schema != SCHEMA:
        remedy = "Read it with a newer version"
        if isinstance(schema, int) and schema < SCHEMA:
            remedy = f"Delete it and run the same command again: {document.get('command', 'not recorded')}"
        raise UserError(f"{path} has schema {schema!r}; this version reads schema {SCHEMA}. {remedy}.")
    try:
        run = from_json(Run, document, "results")
    except ValueError as error:
        raise UserError(f"{path} is not a results file: {error}. {_AGAIN}") from error
    return dataclasses.replace(run, arrays=_read_arrays(Path(workdir) / ARRAYS_FILE))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}). {_AGAIN}") from error
