"""Many concepts to learn from, made of a source's labels and pixels, and networks that tell them.

A pair's own two concepts are not enough to learn how networks are made of networks. Unions of colours, unions
of classes and rules on pixels give as many as are wanted. No network reads a conjunction of the block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kernelgan import engine, losses, models, population
from kernelgan.data import leakage, quadrants
from kernelgan.types import PairName, Params, UserError

_LARGEST = 4  # concepts of a union
_FEWEST = 400  # images on either side of a concept
_QUANTILES = (0.3, 0.5, 0.7)  # where the rules on pixels cut


class Concept(NamedTuple):
    """What networks learn to tell.

    Attributes:
      side: "attribute" or "object".
      name: such as ``red or green``.
      holds: int8 ``(N,)`` of the training images: 1, 0, or -1 where it is not known or not to be read.
      models: networks that learn it.
    """

    side: quadrants.Kind
    name: str
    holds: np.ndarray
    models: int


def readable(part: quadrants.Partition, held_out: Sequence[PairName]) -> np.ndarray:
    """Training images that are surely in no conjunction of the block, and not for validation: bool ``(N,)``.

    Raises:
      LeakageError: one has the content of a conjunction's image.
    """
    free = ~part.validation
    train = part.source.train
    for attribute, thing in held_out:
        free &= (train.attributes[attribute] == 0) | (train.objects[thing] == 0)
    leakage.check_behind(part, "the block", held_out, {"networks": np.flatnonzero(free)})
    return free


def concepts(
    part: quadrants.Partition, held_out: Sequence[PairName], *, count: int, own: int, other: int
) -> list[Concept]:
    """The block's own concepts, then on each side ``count`` that have none of them.

    Args:
      part: the images.
      held_out: the block's pairs.
      count: concepts of a side beside the block's own.
      own: networks of each of the block's concepts.
      other: networks of each of the others.

    Raises:
      UserError: so many concepts cannot be made.
    """
    train, free = part.source.train, readable(part, held_out)
    made: list[Concept] = []
    sides: tuple[tuple[quadrants.Kind, int], ...] = (("attribute", 0), ("object", 1))
    for side, place in sides:
        labels = getattr(train, f"{side}s")
        mine = list(dict.fromkeys(pair[place] for pair in held_out))
        single = {name: _read(values, free) for name, values in labels.items()}
        made += [Concept(side, name, single[name], own) for name in mine]
        others = [name for name in labels if name not in mine]
        offered = itertools.chain(
            ((name, single[name]) for name in others),
            _rules(train.images, free) if side == "attribute" else (),
            _unions({name: single[name] for name in others}, np.random.default_rng(place)),
        )
        enough = (
            Concept(side, name, holds, other)
            for name, holds in offered
            if min(np.sum(holds == 1), np.sum(holds == 0)) >= _FEWEST
        )
        found = list(itertools.islice(enough, count))
        if len(found) < count:
            raise UserError(
                f"--concepts={count}; no more than {len(found)} can be made of {len(others)} {side}s. Give a "
                "smaller number or a smaller --block."
            )
        made += found
    return made


def _read(labels: np.ndarray, free: np.ndarray) -> np.ndarray:
    return np.where(free, labels, -1).astype(np.int8)


def _unions(single: dict[str, np.ndarray], rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Unions of two to four, in a random order."""
    several = [some for size in range(2, _LARGEST + 1) for some in itertools.combinations(single, size)]
    for place in rng.permutation(len(several)):
        labels = np.stack([single[name] for name in several[place]])
        holds = np.where((labels == 1).any(axis=0), 1, np.where((labels == 0).all(axis=0), 0, -1))
        yield " or ".join(several[place]), holds.astype(np.int8)


def _rules(images: np.ndarray, free: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Texture and place: contrast, edges, a brighter upper half, a brighter left half."""
    grey = images.mean(axis=-1, dtype=np.float32)
    height, width = grey.shape[1:]
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    measured = {
        "contrast": grey.std(axis=(1, 2)),
        "edges": steps,
        "upper half": grey[:, : height // 2].mean(axis=(1, 2)) - grey[:, height // 2 :].mean(axis=(1, 2)),
        "left half": grey[:, :, : width // 2].mean(axis=(1, 2)) - grey[:, :, width // 2 :].mean(axis=(1, 2)),
    }
    for name, values in measured.items():
        for quantile in _QUANTILES:
            holds = values > np.quantile(values[free], quantile)
            yield f"{name} above {quantile:g}", _read(holds, free)


def train(
    network: models.ConvNet,
    images: np.ndarray,
    learned: Sequence[Concept],
    training: population.Training,
    *,
    saver: engine.Saver,
    progress: engine.Report,
) -> Params:
    """Networks of all concepts, concept by concept: parameters ``(M, ...)``."""
    sizes = [concept.models for concept in learned]
    rows = np.repeat(np.arange(len(learned), dtype=np.int32), sizes)
    nothing = np.zeros(0, np.int32)
    people = population.Population(
        name=tuple(f"{c.side}:{c.name}" for c in learned for _ in range(c.models)),
        index=np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        grouping=rows,
        target=rows,
        groups=tuple(
            tuple(np.flatnonzero(concept.holds == value).astype(np.int32) for value in (1, 0))
            for concept in learned
        ),
        validation=((nothing, nothing),) * len(learned),
        targets=np.stack([concept.holds == 1 for concept in learned]).astype(np.int8),
    )
    params, _ = population.train(
        network,
        images,
        people,
        training,
        loss=losses.cross_entropy,
        metrics=population.loss_metrics,
        seed=0,
        saver=saver,
        progress=progress,
    )
    return params
