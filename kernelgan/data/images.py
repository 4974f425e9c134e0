"""Labelled images at rest: what every source yields and every later stage indexes into."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images and, per image, which concepts hold.

    Attributes:
      images: uint8 ``(N, H, W, 3)``.
      attributes: concept name -> int8 ``(N,)``: 1 it holds, 0 it does not, -1 not known.
      objects: the same for object concepts. The two kinds are apart because names may clash ("orange").
      names: ``N`` file or record names, for messages.
      rest: bool ``(N,)``: known NOT to be the conjunction though its quadrant is not known (the
        reference's ``test/0`` folder). All False for most sources.
    """

    images: np.ndarray
    attributes: dict[str, np.ndarray]
    objects: dict[str, np.ndarray]
    names: tuple[str, ...]
    rest: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as a source yields it.

    Attributes:
      name: what to call it in reports, such as ``procedural`` or ``tfds:cifar10``.
      train: images that training and validation are cut from.
      test: images that are read once, at the end.
      notes: things the report must say (files skipped, images left out, ...).
    """

    name: str
    train: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()


def content_hashes(images: np.ndarray) -> list[str]:
    """SHA-256 of each image's pixels, ``N`` hexadecimal strings."""
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images]
