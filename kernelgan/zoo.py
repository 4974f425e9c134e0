"""Zoos: a population of networks for each concept, all trained together.

A zoo knows its concept and what it must not see. Two pairs that ask for the same images share one zoo.
"""

from __future__ import annotations

import dataclasses
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from kernelgan import models
from kernelgan.data.pairs import ConceptImages
from kernelgan.data.quadrants import Groups
from kernelgan.engine import NOWHERE, Report, Saver, silent
from kernelgan.fields import whole
from kernelgan.losses import cross_entropy
from kernelgan.models import Zoo
from kernelgan.population import Population, Training, binary_metrics, train
from kernelgan.types import Params, UserError

POSITIVE = 1
"""Which logit, and which label, says that the concept holds."""


@dataclasses.dataclass(frozen=True)
class ZooTask:
    """What one zoo learns.

    Attributes:
      kind: of the concept.
      concept: its name.
      excluded: concepts of the other kind whose images it never sees.
      groups: the images; positives are the first quadrant of the two.
      models: networks ``M``.
    """

    kind: Literal["attribute", "object"]
    concept: str
    excluded: tuple[str, ...]
    groups: Groups
    models: int

    @property
    def name(self) -> str:
        """Unique within a run, such as ``attribute:black without cat``."""
        return f"{self.kind}:{self.concept} without {', '.join(self.excluded)}"

    @property
    def label(self) -> str:
        """For messages, such as ``the zoo of the attribute 'black'``."""
        return f"the zoo of the {self.kind} {self.concept!r}"


def shared(tasks: Sequence[ZooTask]) -> tuple[list[ZooTask], list[int]]:
    """Tasks without repeats, and for each given task the number of the one that serves it."""
    distinct: list[ZooTask] = []
    numbers: dict[tuple[str, str, int, str], int] = {}
    served = []
    for task in tasks:
        same = (task.kind, task.concept, task.models, task.groups.key)
        if same not in numbers:
            numbers[same] = len(distinct)
            distinct.append(task)
        served.append(numbers[same])
    return distinct, served


def capped(groups: Groups, training: Training) -> Training:
    """The training with an epoch, and a batch, of at most as many images as there are."""
    available = sum(len(group) for group in groups.train)
    epoch = min(training.images_per_epoch, available)
    return dataclasses.replace(training, images_per_epoch=epoch, batch_size=min(training.batch_size, epoch))


def cap_note(task: ZooTask, training: Training) -> str:
    """What `capped` changes, in words; empty if nothing."""
    fitting = capped(task.groups, training)
    fields = ("images_per_epoch", "batch_size")
    changed = [
        f"{field} is {getattr(fitting, field)} instead of {getattr(training, field)}"
        for field in fields
        if getattr(fitting, field) != getattr(training, field)
    ]
    if not changed:
        return ""
    return f"{task.label} has {fitting.images_per_epoch} training images, so its {' and its '.join(changed)}"


def build_population(
    tasks: Sequence[ZooTask], image_count: int, *, balanced: bool, validation_images: int, seed: int
) -> Population:
    """One population of all the tasks' networks, task by task.

    Args:
      tasks: what is learnt.
      image_count: images ``N`` in the shared array.
      balanced: batches are half positives, half negatives; otherwise as the images come.
      validation_images: at most so many are read after an epoch, half of each kind.
      seed: of the run, chooses them.
    """
    targets = np.zeros((len(tasks), image_count), np.int8)
    groups, validation = [], []
    for row, task in enumerate(tasks):
        positives, negatives = task.groups.train
        targets[row, positives] = POSITIVE
        targets[row, task.groups.validation[0]] = POSITIVE
        groups.append((positives, negatives) if balanced else (np.concatenate([positives, negatives]),))
        validation.append(some_of_each(task.groups.validation, validation_images, seed, task.name))
    sizes = [task.models for task in tasks]
    rows = np.repeat(np.arange(len(tasks), dtype=np.int32), sizes)
    return Population(
        name=tuple(np.repeat([task.name for task in tasks], sizes).tolist()),
        index=np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        grouping=rows,
        target=rows,
        groups=tuple(groups),
        validation=tuple(validation),
        targets=targets,
    )


def some_of_each(groups: Sequence[np.ndarray], most: int, seed: int, name: str) -> tuple[np.ndarray, ...]:
    """At most ``most`` indices in all, equally many of each group; fixed by the seed and a name."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    each = max(1, most // len(groups))
    return tuple(rng.permutation(group)[:each] for group in groups)


def train_zoos(
    network: models.ConvNet,
    images: np.ndarray,
    tasks: Sequence[ZooTask],
    training: Training,
    *,
    balanced: bool,
    validation_images: int,
    seed: int,
    chunk_size: int | None = None,
    saver: Saver = NOWHERE,
    progress: Report = silent,
) -> list[dict[str, Any]]:
    """Trains every task's networks as one population.

    Args:
      network: two outputs.
      images: uint8 ``(N, H, W, C)``, shared by all tasks.
      tasks: what is learnt.
      training: its ``shares`` are set here.
      balanced: see `build_population`.
      validation_images: see `build_population`.
      seed: of the run.
      chunk_size: networks in memory at a time; see `population.train`.
      saver: keeps the state between epochs.
      progress: see `engine.fit`.

    Returns:
      For each task, ``{"params": stacked (M, ...), "history": {metric: (M, E)}}``.
    """
    population = build_population(
        tasks, len(images), balanced=balanced, validation_images=validation_images, seed=seed
    )
    params, history = train(
        network,
        images,
        population,
        dataclasses.replace(training, shares=(1.0, 1.0) if balanced else (1.0,)),
        loss=cross_entropy,
        metrics=binary_metrics,
        seed=seed,
        chunk_size=chunk_size,
        saver=saver,
        progress=progress,
    )
    ends = np.cumsum([task.models for task in tasks])
    return [
        {
            "params": slice_members(params, end - task.models, end),
            "history": slice_members(history, end - task.models, end),
        }
        for task, end in zip(tasks, ends, strict=True)
    ]


def train_zoo(
    network: models.ConvNet,
    images: ConceptImages,
    *,
    models: int = 32,
    epochs: int = 15,
    images_per_epoch: int = 1280,
    batch_size: int = 128,
    learning_rate: float = 0.002,
    decay: bool = False,
    validation_images: int = 512,
    seed: int = 0,
    chunk_size: int | None = None,
    saver: Saver = NOWHERE,
    progress: Report = silent,
) -> Zoo:
    """Trains networks to tell images that hold a concept from images that do not.

    Args:
      network: two outputs; the second logit says that the concept holds.
      images: what they may read, such as ``kernelgan.split(...).attribute``.
      models: networks ``M``.
      epochs: ``E``.
      images_per_epoch: drawn anew for each network and epoch, half of them hold the concept.
      batch_size: images.
      learning_rate: of Adam.
      decay: whether it falls linearly to zero.
      validation_images: at most so many are read after each epoch.
      seed: with the concept and a network's number it fixes the network.
      chunk_size: networks in memory at a time; see `population.train`.
      saver: keeps the state between epochs.
      progress: see `engine.fit`.

    Raises:
      UserError: an argument cannot be, or a metric is not finite.

    Warns:
      UserWarning: an epoch or a batch is larger than there are images, and is made smaller.
    """
    _check(
        network,
        images,
        models=models,
        epochs=epochs,
        images_per_epoch=images_per_epoch,
        batch_size=batch_size,
        validation_images=validation_images,
    )
    task = ZooTask(images.kind, images.concept, images.excluded, images.groups, models)
    training = Training(epochs, images_per_epoch, batch_size, learning_rate, (1.0, 1.0), decay)
    note = cap_note(task, training)
    if note:
        warnings.warn(note, stacklevel=2)
        training = capped(task.groups, training)
    (made,) = train_zoos(
        network,
        images.images,
        [task],
        training,
        balanced=True,
        validation_images=validation_images,
        seed=seed,
        chunk_size=chunk_size,
        saver=saver,
        progress=progress,
    )
    return Zoo(made["params"], network, made["history"])


def _check(network: models.ConvNet, images: object, **numbers: int) -> None:
    """Refuses what `train_zoo` cannot train."""
    rule = whole(1)
    problems = [
        f"{name} is {value!r}; expected {rule.words}"
        for name, value in numbers.items()
        if not rule.test(int(value) if isinstance(value, np.integer) else value)
    ]
    if network.outputs != 2:
        problems.append(f"network has outputs={network.outputs}; expected 2, no and yes")
    if not isinstance(images, ConceptImages):
        problems.append(
            f"images is a {type(images).__name__}; expected the images of a concept, pair.attribute or "
            "pair.object of kernelgan.split"
        )
    elif models.last_side(network, images.images.shape[1]) < 1:
        problems.append(
            f"nothing is left of an image of {images.images.shape[1]} pixels after {len(network.filters)} "
            f"convolutions of kernel_size={network.kernel_size} and poolings; expected larger images, "
            "smaller kernels or fewer filters"
        )
    if problems:
        raise UserError(f"train_zoo cannot begin: {'; '.join(problems)}.")


def slice_members(stacked: Params, start: int, end: int) -> Params:
    """Members ``start`` to ``end`` of a stacked pytree."""
    if isinstance(stacked, dict):
        return {name: slice_members(value, start, end) for name, value in stacked.items()}
    return stacked[start:end]
