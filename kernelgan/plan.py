"""What a run will do, worked out before anything trains: pairs, zoos that serve them, who reads what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kernelgan import config as config_lib
from kernelgan import splits as splits_lib
from kernelgan import zoo
from kernelgan.data import leakage as leakage_lib
from kernelgan.data import quadrants
from kernelgan.data.images import Source
from kernelgan.population import Training
from kernelgan.types import LEFT_OUT, Config, PairName, Quadrant, UserError

_LISTED_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class PairTask:
    """One pair.

    Attributes:
      number: its place among the run's pairs.
      split: the quadrant of each image.
      attribute_zoo: number of the zoo that serves it.
      object_zoo: likewise.
      has_reference: whether the training images hold enough of the conjunction to train the reference on.
      leakage: what the gate found.
      fold: number of the fold of ``pairs.splits`` that holds it out; 0 without such a file.
      sealed: whether only registered runs may open its test images; None without such a file.
    """

    number: int
    split: quadrants.PairSplit
    attribute_zoo: int
    object_zoo: int
    has_reference: bool
    leakage: leakage_lib.LeakageReport
    fold: int = 0
    sealed: bool | None = None

    @property
    def names(self) -> tuple[str, str]:
        """The attribute and the object."""
        return self.split.attribute, self.split.object_name

    @property
    def scored(self) -> np.ndarray:
        """Indices of the test images that the pair is scored on."""
        return np.flatnonzero(self.split.test != LEFT_OUT)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before anything trains.

    Attributes:
      source: the images.
      digest: of all images' content and labels, so that a resumed run can tell whether they are the same.
      zoos: each distinct zoo, once.
      pairs: what is composed.
      part: the images by content, for the gate of joint generators.
      skipped: attribute, object and reason of each pair that has too few images.
      splits: SHA-256 of the content of ``pairs.splits``; "" without such a file.
    """

    source: Source
    digest: str
    zoos: tuple[zoo.ZooTask, ...]
    pairs: tuple[PairTask, ...]
    part: quadrants.Partition
    skipped: tuple[tuple[str, str, str], ...] = ()
    splits: str = ""

    def folds(self, generator: str, *, probes: bool = False) -> tuple[leakage_lib.Fold, ...]:
        """Folds for a joint generator: those of ``pairs.splits``, else diagonals of the matrix.

        Every pair is held out in exactly one.

        Args:
          generator: its name, for errors.
          probes: whether it is handed images of each pair's seen quadrants.

        Raises:
          UserError: there is only one fold's worth of pairs.
          LeakageError: something behind a fold's networks reads a conjunction that the fold holds out.
        """
        attributes = list(dict.fromkeys(pair.names[0] for pair in self.pairs))
        objects = list(dict.fromkeys(pair.names[1] for pair in self.pairs))
        count = max(len(attributes), len(objects))
        fold_of = {
            pair.names: pair.fold
            or 1 + (attributes.index(pair.names[0]) + objects.index(pair.names[1])) % count
            for pair in self.pairs
        }
        held_out = sorted(set(fold_of.values()))
        if len(held_out) < 2:
            raise UserError(
                f"the generator {generator} is joint: it learns from some pairs and is judged on others, but "
                f"this run has {len(self.pairs)} pair(s) of one fold. Name more in pairs.attributes and "
                "pairs.objects."
            )
        folds = tuple(
            leakage_lib.Fold(
                f"fold {number}", {names: float(fold != number) for names, fold in fold_of.items()}
            )
            for number in held_out
        )
        leakage_lib.check_folds(self.part, folds, *self._readers(probes=probes))
        return folds

    def behind(self, folds: Sequence[leakage_lib.Fold], *, probes: bool) -> list[leakage_lib.Behind]:
        """What is behind a generator's networks of each pair, checked against all that is held out there.

        Args:
          folds: of a joint generator; none of another, whose networks rest on the pair's own parents.
          probes: whether it is handed images of the seen quadrants.

        Raises:
          LeakageError: something reads a conjunction that is held out.
        """
        served, read = self._readers(probes=probes)
        if not folds:
            return [
                leakage_lib.check_behind(
                    self.part,
                    pair.split.name,
                    [pair.names],
                    {name: read[name] for name in served[pair.names]},
                )
                for pair in self.pairs
            ]
        found = leakage_lib.check_folds(self.part, folds, served, read)
        by_pair = {names: each for fold, each in zip(folds, found, strict=True) for names in fold.held_out}
        return [by_pair[pair.names] for pair in self.pairs]

    def _readers(self, *, probes: bool) -> tuple[dict[PairName, list[str]], dict[str, np.ndarray]]:
        """By pair, names of all that reads images for it; and by name, the images."""
        labels = [task.label.removeprefix("the ") for task in self.zoos]
        names = [f"{label} ({number + 1})" for number, label in enumerate(labels)]
        read = {name: task.groups.read() for name, task in zip(names, self.zoos, strict=True)}
        served: dict[PairName, list[str]] = {}
        for pair in self.pairs:
            served[pair.names] = [names[pair.attribute_zoo], names[pair.object_zoo]]
            if probes:
                name = f"probes of {pair.split.name}"
                served[pair.names].append(name)
                read[name] = quadrants.distilled_groups(pair.split).read()
        return served, read

    def words(self) -> list[str]:
        """The test images of each pair, or of many pairs how many there are; line by line, for a terminal."""
        if len(self.pairs) > _LISTED_PAIRS:
            fewest = min(self.pairs, key=_conjunctions)
            lines = [
                f"{len(self.pairs)} pairs and {len(self.zoos)} zoos; fewest test images of a conjunction: "
                f"{_conjunctions(fewest)} of {fewest.split.name}"
            ]
        else:
            lines = []
            for pair in self.pairs:
                found = quadrants.counts(pair.split.test)
                names = _quadrant_words(pair.split)
                counted = ", ".join(f"{n} of {names[key]}" for key, n in found.items())
                lines.append(f"{pair.split.name}, test images: {counted}")
        if self.skipped:
            first = " ".join(self.skipped[0][:2])
            more = f" and {len(self.skipped) - 1} more" if len(self.skipped) > 1 else ""
            lines.append(f"left out for too few images: {first}{more}; the report lists them")
        return lines


def make_plan(config: Config, source: Source) -> Plan:
    """Splits the images, assigns zoos, and refuses leaks and whatever does not fit.

    Raises:
      UserError: too few images, a leak, or equal images with unequal labels.
    """
    data = config.data
    limits = quadrants.Limits(data.minimum_train, data.minimum_test, data.maximum_train, data.maximum_test)
    part = quadrants.partition(
        source, validation_share=data.validation_share, limits=limits, seed=config.seed
    )
    splits, tasks, skipped = _divided(config, part)
    zoos, served = zoo.shared(tasks)
    caps = [zoo.cap_note(task, zoo_training(config, task.kind)) for task in zoos]
    source = dataclasses.replace(source, notes=(*source.notes, *filter(None, caps)))
    leakage = leakage_lib.check_leakage(part, _readers(part, zoos, served, splits))
    quadrants.check_labels(part)
    folds = splits_lib.of_config(config)
    pairs = []
    for number, split in enumerate(splits):
        names = (split.attribute, split.object_name)
        pairs.append(
            PairTask(
                number,
                split,
                served[2 * number],
                served[2 * number + 1],
                quadrants.has_reference(part, split),
                leakage[names],
                folds.fold(names) if folds else 0,
                folds.is_sealed(names) if folds else None,
            )
        )
    digest = folds.sha256 if folds else ""
    return Plan(source, quadrants.digest(part), tuple(zoos), tuple(pairs), part, tuple(skipped), digest)


def _divided(
    config: Config, part: quadrants.Partition
) -> tuple[list[quadrants.PairSplit], list[zoo.ZooTask], list[tuple[str, str, str]]]:
    """The pairs' quadrants, two zoos for each, and the pairs that are skipped, if that is asked for."""
    splits: list[quadrants.PairSplit] = []
    skipped = []
    for attribute, object_name in splits_lib.pairs_of(config):
        try:
            splits.append(quadrants.split(part, attribute, object_name))
        except quadrants.TooFewError as error:
            if not config.pairs.skip_rare:
                raise
            skipped.append((attribute, object_name, error.shortage))
    if not splits:
        first = " ".join(skipped[0][:2])
        raise UserError(
            f"every pair has too few images; {first}: {skipped[0][2]}. Add images, name other concepts, or "
            "lower data.minimum_test or data.minimum_train."
        )
    kept, tasks = [], []
    for split in splits:
        try:
            tasks += _zoo_tasks(config, part, split, splits)
            kept.append(split)
        except quadrants.TooFewError as error:
            if not config.pairs.skip_rare or len(splits) == 1:
                raise
            skipped.append((split.attribute, split.object_name, error.shortage))
    return kept, tasks, skipped


def _conjunctions(pair: PairTask) -> int:
    return int((pair.split.test == Quadrant.CONJUNCTION).sum())


def _quadrant_words(split: quadrants.PairSplit) -> dict[str, str]:
    """The quadrants of `quadrants.counts` in words."""
    attribute, thing = split.attribute, split.object_name
    words = (split.name, f"{attribute} alone", f"{thing} alone", "neither", "anything else")
    return {quadrant.label: word for quadrant, word in zip(Quadrant, words, strict=True)}


def zoo_training(config: Config, kind: str) -> Training:
    """How the zoos of attributes, or of objects, are trained."""
    images = dict(zip(("attribute", "object"), config_lib.images_per_epoch(config), strict=True))
    return Training(
        epochs=config.zoo.epochs,
        images_per_epoch=images[kind],
        batch_size=config.zoo.batch_size,
        learning_rate=config.zoo.learning_rate,
        shares=(),
        decay=config.zoo.decay,
    )


def _excluded(config: Config, own: str, others: Sequence[str]) -> tuple[str, ...]:
    """What a zoo excludes of the other kind, its own pair's concept among it.

    Args:
      config: of the run.
      own: the pair's.
      others: all that the zoo's concept is paired with, in the config's order.
    """
    if config.pairs.exclude == "all":
        return tuple(others)
    size = config.pairs.group if config.pairs.exclude == "groups" else 1
    start = others.index(own) // size * size
    return tuple(others[start : start + size])


def _zoo_tasks(
    config: Config,
    part: quadrants.Partition,
    split: quadrants.PairSplit,
    splits: Sequence[quadrants.PairSplit],
) -> list[zoo.ZooTask]:
    row = [other.object_name for other in splits if other.attribute == split.attribute]
    column = [other.attribute for other in splits if other.object_name == split.object_name]
    objects = _excluded(config, split.object_name, row)
    attributes = _excluded(config, split.attribute, column)
    of_attribute, of_object = config_lib.zoo_models(config)
    return [
        zoo.ZooTask(
            "attribute",
            split.attribute,
            objects,
            quadrants.zoo_groups(part, "attribute", split.attribute, objects),
            of_attribute,
        ),
        zoo.ZooTask(
            "object",
            split.object_name,
            attributes,
            quadrants.zoo_groups(part, "object", split.object_name, attributes),
            of_object,
        ),
    ]


def _readers(
    part: quadrants.Partition,
    zoos: list[zoo.ZooTask],
    served: list[int],
    splits: list[quadrants.PairSplit],
) -> list[leakage_lib.Reader]:
    """Everything that reads images, with the pairs whose conjunction it must not have seen."""
    readers = [
        leakage_lib.Reader(
            task.label.removeprefix("the "),
            task.groups,
            tuple(splits[place // 2] for place, of in enumerate(served) if of == number),
        )
        for number, task in enumerate(zoos)
    ]
    return readers + [reader for split in splits for reader in leakage_lib.pair_readers(part, split)]
