"""What a run will do, worked out before anything trains: pairs, zoos that serve them, who reads what."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np

from kernelgan import config as config_lib
from kernelgan import zoo
from kernelgan.data import quadrants
from kernelgan.data.images import Source
from kernelgan.population import Training
from kernelgan.types import Config


@dataclasses.dataclass(frozen=True)
class PairTask:
    """One pair.

    Attributes:
      number: its place among the run's pairs.
      split: the quadrant of each image.
      attribute_zoo: number of the zoo that serves it.
      object_zoo: likewise.
      has_ceiling: whether the training images hold enough of the conjunction to train the ceiling on.
      leakage: what the gate found.
    """

    number: int
    split: quadrants.PairSplit
    attribute_zoo: int
    object_zoo: int
    has_ceiling: bool
    leakage: quadrants.LeakageReport


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before anything trains.

    Attributes:
      source: the images.
      digest: of all images' content and labels, so that a resumed run can tell whether they are the same.
      zoos: each distinct zoo, once.
      pairs: what is composed.
    """

    source: Source
    digest: str
    zoos: tuple[zoo.ZooTask, ...]
    pairs: tuple[PairTask, ...]


def make_plan(config: Config, source: Source) -> Plan:
    """Splits the images, assigns zoos, and refuses leaks and whatever does not fit.

    Raises:
      UserError: too few images, a batch or an epoch that does not fit, or a leak.
    """
    data = config.data
    limits = quadrants.Limits(data.minimum_train, data.minimum_test, data.maximum_train, data.maximum_test)
    part = quadrants.partition(
        source, validation_share=data.validation_share, limits=limits, seed=config.seed
    )
    splits = [
        quadrants.split(part, attribute, object_name)
        for attribute, object_name in itertools.product(config.pairs.attributes, config.pairs.objects)
    ]
    zoos, served = zoo.shared([task for split in splits for task in _zoo_tasks(config, part, split)])
    for task in zoos:
        zoo.check_fits(task, zoo_training(config, task.kind))
    ceilings = [quadrants.has_ceiling(part, split) for split in splits]
    leakage = quadrants.check_leakage(part, _readers(zoos, served, splits, ceilings))
    pairs = tuple(
        PairTask(
            number,
            split,
            served[2 * number],
            served[2 * number + 1],
            ceilings[number],
            leakage[split.attribute, split.object_name],
        )
        for number, split in enumerate(splits)
    )
    return Plan(source, _digest(part), tuple(zoos), pairs)


def _digest(part: quadrants.Partition) -> str:
    """Of the content and the labels of all images."""
    digest = hashlib.sha256("".join((*part.train_hashes, *part.test_hashes)).encode())
    for images in (part.source.train, part.source.test):
        for labels in (*images.attributes.values(), *images.objects.values(), images.rest):
            digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


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


def _zoo_tasks(config: Config, part: quadrants.Partition, split: quadrants.PairSplit) -> list[zoo.ZooTask]:
    pairs = config.pairs
    shared = pairs.exclude == "all"
    objects = tuple(pairs.objects) if shared else (split.object_name,)
    attributes = tuple(pairs.attributes) if shared else (split.attribute,)
    of_attribute, of_object = config_lib.zoo_models(config)
    return [
        zoo.ZooTask(
            "attribute",
            split.attribute,
            objects,
            quadrants.attribute_groups(part, split.attribute, objects),
            of_attribute,
        ),
        zoo.ZooTask(
            "object",
            split.object_name,
            attributes,
            quadrants.object_groups(part, split.object_name, attributes),
            of_object,
        ),
    ]


def _readers(
    zoos: list[zoo.ZooTask], served: list[int], splits: list[quadrants.PairSplit], ceilings: list[bool]
) -> list[quadrants.Reader]:
    """Everyone who reads images, with the pairs whose conjunction they must not have seen."""
    readers = [
        quadrants.Reader(
            task.label.removeprefix("the "),
            task.groups,
            tuple(splits[place // 2] for place, of in enumerate(served) if of == number),
        )
        for number, task in enumerate(zoos)
    ]
    for split, ceiling in zip(splits, ceilings, strict=True):
        readers.append(
            quadrants.Reader(f"distillation for {split.name}", quadrants.distilled_groups(split), (split,))
        )
        if ceiling:
            groups = quadrants.ceiling_groups(split)
            readers.append(quadrants.Reader(f"ceiling of {split.name}", groups, (split,), is_ceiling=True))
    return readers
