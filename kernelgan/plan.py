"""What a run will do, worked out before anything trains: pairs, zoos that serve them, who reads what."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from kernelgan import config as config_lib
from kernelgan import zoo
from kernelgan.data import leakage as leakage_lib
from kernelgan.data import quadrants
from kernelgan.data.images import Source
from kernelgan.population import Training
from kernelgan.types import LEFT_OUT, Config, Quadrant, UserError

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
    """

    number: int
    split: quadrants.PairSplit
    attribute_zoo: int
    object_zoo: int
    has_reference: bool
    leakage: leakage_lib.LeakageReport

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
    """

    source: Source
    digest: str
    zoos: tuple[zoo.ZooTask, ...]
    pairs: tuple[PairTask, ...]
    part: quadrants.Partition
    skipped: tuple[tuple[str, str, str], ...] = ()

    def folds(self, generator: str, *, probes: bool = False) -> tuple[leakage_lib.Fold, ...]:
        """Folds for a joint generator: every pair is held out in exactly one, a diagonal of the matrix.

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

        def fold_of(pair: PairTask) -> int:
            return (attributes.index(pair.names[0]) + objects.index(pair.names[1])) % count

        held_out = sorted({fold_of(pair) for pair in self.pairs})
        if len(held_out) < 2:
            raise UserError(
                f"the generator {generator} is joint: it learns from some pairs and is judged on others, but "
                f"this run has {len(self.pairs)} pair(s). Name more in pairs.attributes and pairs.objects."
            )
        folds = tuple(
            leakage_lib.Fold(
                f"fold {number + 1}", {pair.names: float(fold_of(pair) != number) for pair in self.pairs}
            )
            for number in held_out
        )
        labels = [task.label.removeprefix("the ") for task in self.zoos]
        served: dict[leakage_lib.PairName, list[str]] = {}
        names = [f"{label} ({number + 1})" for number, label in enumerate(labels)]
        read = {name: task.groups.read() for name, task in zip(names, self.zoos, strict=True)}
        for pair in self.pairs:
            served[pair.names] = [names[pair.attribute_zoo], names[pair.object_zoo]]
            if probes:
                name = f"probes of {pair.split.name}"
                served[pair.names].append(name)
                read[name] = quadrants.distilled_groups(pair.split).read()
        leakage_lib.check_folds(self.part, folds, served, read)
        return folds

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
    pairs = tuple(
        PairTask(
            number,
            split,
            served[2 * number],
            served[2 * number + 1],
            quadrants.has_reference(part, split),
            leakage[split.attribute, split.object_name],
        )
        for number, split in enumerate(splits)
    )
    return Plan(source, quadrants.digest(part), tuple(zoos), pairs, part, tuple(skipped))


def _divided(
    config: Config, part: quadrants.Partition
) -> tuple[list[quadrants.PairSplit], list[zoo.ZooTask], list[tuple[str, str, str]]]:
    """The pairs' quadrants, two zoos for each, and the pairs that are skipped, if that is asked for."""
    splits: list[quadrants.PairSplit] = []
    skipped = []
    for attribute, object_name in itertools.product(config.pairs.attributes, config.pairs.objects):
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
    words = (split.name, f"other {attribute} things", f"other {thing}s", "neither", "anything else")
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
