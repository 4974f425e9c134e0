"""One pair of a source, ready to train and to test on: the split for a caller with no config."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from kernelgan.data import leakage, quadrants
from kernelgan.data.images import Source
from kernelgan.types import LEFT_OUT

_LIMITS = quadrants.Limits()


@dataclasses.dataclass(frozen=True)
class ConceptImages:
    """What the zoo of one concept may read.

    Attributes:
      kind: of the concept.
      concept: its name.
      excluded: concepts of the other kind whose images are left out.
      groups: positives first, then negatives, to train and to validate on: indices into `images`.
      images: uint8 ``(N, H, W, 3)``, all training images of the source, shared and not copied.
    """

    kind: quadrants.Kind
    concept: str
    excluded: tuple[str, ...]
    groups: quadrants.Groups
    images: np.ndarray = dataclasses.field(repr=False, compare=False)


class TestImages(NamedTuple):
    """The test images of a pair.

    Attributes:
      images: uint8 ``(N, H, W, 3)``.
      quadrant: int8 ``(N,)``, a `Quadrant` of each.
    """

    images: np.ndarray
    quadrant: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pair:
    """One attribute with one object.

    Attributes:
      source: the images.
      split: the quadrant of each image.
      attribute: what the zoo of the attribute may read.
      object: what the zoo of the object may read.
      leakage: duplicates between the test images and those that are read.
    """

    source: Source = dataclasses.field(repr=False)
    split: quadrants.PairSplit = dataclasses.field(repr=False)
    attribute: ConceptImages
    object: ConceptImages
    leakage: leakage.LeakageReport

    @property
    def name(self) -> str:
        """The pair in words, such as ``black cat``."""
        return self.split.name

    @property
    def seen(self) -> quadrants.Groups:
        """The images of the three seen quadrants, which a generator of tier U may read."""
        return quadrants.distilled_groups(self.split)

    @property
    def test(self) -> TestImages:
        """The images that the pair is scored on: a copy, for every quadrant."""
        scored = np.flatnonzero(self.split.test != LEFT_OUT)
        return TestImages(self.source.test.images[scored], self.split.test[scored])


def split(
    source: Source,
    attribute: str,
    object_name: str,
    *,
    seed: int = 0,
    validation_share: float = 0.15,
    limits: quadrants.Limits = _LIMITS,
) -> Pair:
    """Splits a source into the quadrants of one pair, and refuses a leak.

    Args:
      source: see `kernelgan.data.load`.
      attribute: name of the attribute.
      object_name: name of the object.
      seed: chooses the validation images.
      validation_share: share of the training images kept for validation, above 0 and below 1.
      limits: how few images of a quadrant are refused, and how many are enough.

    Raises:
      UserError: a concept is unknown, a quadrant has too few images, or equal images have unequal labels.
      LeakageError: an image that a zoo would read has the content of a conjunction image.
    """
    part = quadrants.partition(source, validation_share=validation_share, limits=limits, seed=seed)
    pair = quadrants.split(part, attribute, object_name)
    of_attribute = quadrants.zoo_groups(part, "attribute", attribute, [object_name])
    of_object = quadrants.zoo_groups(part, "object", object_name, [attribute])
    readers = [
        leakage.Reader(f"zoo of the attribute {attribute!r}", of_attribute, (pair,)),
        leakage.Reader(f"zoo of the object {object_name!r}", of_object, (pair,)),
        *leakage.pair_readers(part, pair),
    ]
    report = leakage.check_leakage(part, readers)[attribute, object_name]
    quadrants.check_labels(part)
    images = source.train.images
    return Pair(
        source=source,
        split=pair,
        attribute=ConceptImages("attribute", attribute, (object_name,), of_attribute, images),
        object=ConceptImages("object", object_name, (attribute,), of_object, images),
        leakage=report,
    )
