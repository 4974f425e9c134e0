"""Networks trained by gradient that generated ones are compared with.

``distilled``: ONE network that learns both parents' logits on the three seen quadrants, so it shows what a
network of this size could hold without the conjunction. ``trained_on_conjunction``: the reference, which
alone sees the conjunction's training images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kernelgan import models
from kernelgan.assemble import take_members
from kernelgan.data.quadrants import Groups
from kernelgan.engine import NOWHERE, Report, Saver, silent
from kernelgan.evaluation.features import population_logits
from kernelgan.losses import cross_entropy, squared_error
from kernelgan.population import Population, Training, binary_metrics, loss_metrics, train
from kernelgan.types import Params, Quadrant
from kernelgan.zoo import slice_members, some_of_each

Trained = list[tuple[Params, dict[str, np.ndarray]]]
CEILING_SHARES = (3.0, 1.0, 1.0, 1.0)
"""Half of each batch is the conjunction, a sixth each other quadrant."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What the opponents of one pair learn from.

    Attributes:
      name: of the pair; with the seed it fixes the random numbers.
      groups: the images by quadrant.
      parents: stacked parents of the attribute's and of the object's zoo; for distillation only.
    """

    name: str
    groups: Groups
    parents: tuple[Params, Params] | None = None


def train_distilled(
    network: models.ConvNet,
    images: np.ndarray,
    lessons: Sequence[Lesson],
    training: Training,
    *,
    count: int,
    validation_images: int,
    seed: int,
    chunk_size: int | None = None,
    saver: Saver = NOWHERE,
    progress: Report = silent,
) -> Trained:
    """Trains ``count`` networks for each pair, the i-th on the logits of parents i (counted round).

    Args:
      network: the module.
      images: uint8 ``(N, H, W, C)``.
      lessons: for each pair, the three seen quadrants and the parents.
      training: its ``shares`` are set here, a third each.
      count: networks for each pair.
      validation_images: at most so many are read after an epoch.
      seed: of the run.
      chunk_size: networks in memory at a time; see `population.train`.
      saver: keeps the state between epochs.
      progress: see `engine.fit`.

    Returns:
      For each pair, stacked parameters with two-concept heads, and histories ``(count, E)``.
    """
    targets = np.zeros((len(lessons) * count, len(images), 4), np.float32)
    longest = max(len(lesson.groups.read()) for lesson in lessons)
    for number, lesson in enumerate(lessons):
        read = np.resize(lesson.groups.read(), longest)  # one length for all pairs compiles once
        logits = [
            population_logits(
                network,
                take_members(zoo, np.arange(count) % len(zoo["dense"]["bias"])),
                images[read],
                chunk_size=chunk_size,
            )
            for zoo in lesson.parents or ()
        ]
        targets[number * count : (number + 1) * count, read] = np.concatenate(logits, axis=-1)
    validation = [
        some_of_each(lesson.groups.validation, validation_images, seed, lesson.name) for lesson in lessons
    ]
    rows = np.arange(len(targets), dtype=np.int32)
    population = _population("distilled", lessons, count, targets, rows, validation)
    params, history = train(
        network.clone(outputs=4),
        images,
        population,
        dataclasses.replace(training, shares=(1.0, 1.0, 1.0)),
        loss=squared_error,
        metrics=loss_metrics,
        seed=seed,
        chunk_size=chunk_size,
        saver=saver,
        progress=progress,
    )
    return _by_pair(params, history, len(lessons), count)


def train_on_conjunction(
    network: models.ConvNet,
    images: np.ndarray,
    lessons: Sequence[Lesson],
    training: Training,
    *,
    count: int,
    seed: int,
    chunk_size: int | None = None,
    saver: Saver = NOWHERE,
    progress: Report = silent,
) -> Trained:
    """Trains ``count`` networks for each pair to tell the conjunction from the other three quadrants.

    Arguments are those of `train_distilled`, with all four quadrants in each lesson, but that there is no
    validation, for its images never hold the conjunction.

    Returns:
      For each pair, stacked parameters with one logit pair, and histories ``(count, E)``.
    """
    targets = np.zeros((len(lessons), len(images)), np.int8)
    for number, lesson in enumerate(lessons):
        targets[number, lesson.groups.train[lesson.groups.quadrants.index(Quadrant.CONJUNCTION)]] = 1
    nothing = np.zeros(0, np.int32)
    rows = np.repeat(np.arange(len(lessons), dtype=np.int32), count)
    params, history = train(
        network,
        images,
        _population("trained_on_conjunction", lessons, count, targets, rows, [(nothing,)] * len(lessons)),
        dataclasses.replace(training, shares=CEILING_SHARES),
        loss=cross_entropy,
        metrics=binary_metrics,
        seed=seed,
        chunk_size=chunk_size,
        saver=saver,
        progress=progress,
    )
    return _by_pair(params, history, len(lessons), count)


def _population(
    kind: str,
    lessons: Sequence[Lesson],
    count: int,
    targets: np.ndarray,
    rows: np.ndarray,
    validation: Sequence[tuple[np.ndarray, ...]],
) -> Population:
    """``count`` networks for each lesson."""
    return Population(
        name=tuple(f"{kind}:{lesson.name}" for lesson in lessons for _ in range(count)),
        index=np.tile(np.arange(count, dtype=np.int32), len(lessons)),
        grouping=np.repeat(np.arange(len(lessons), dtype=np.int32), count),
        target=rows,
        groups=tuple(lesson.groups.train for lesson in lessons),
        validation=tuple(validation),
        targets=targets,
    )


def _by_pair(params: Params, history: dict[str, np.ndarray], pairs: int, count: int) -> Trained:
    starts = [number * count for number in range(pairs)]
    return [
        (slice_members(params, start, start + count), slice_members(history, start, start + count))
        for start in starts
    ]
