"""Labelled images at rest: what every source yields and every later stage indexes into."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

Progress = Callable[[int, int], None]
"""Told now and then, while a source loads, how many images are done and how many there are."""


def silent(done: int, total: int) -> None:
    """A `Progress` that says nothing."""


TEST_SHARE = 0.2
"""Share of the images that become the test set where a data set names none."""


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
      name: what to call it in reports, such as ``rendered`` or ``tfds:cifar10``.
      train: images that training and validation are cut from.
      test: images that are read once, at the end.
      notes: things the report must say (files skipped, images left out, ...).
      ruled: attributes that are colour terms, labelled or nearly so by the rule of `kernelgan.data.colour`.
    """

    name: str
    train: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()
    ruled: tuple[str, ...] = ()


def content_hashes(images: np.ndarray) -> list[str]:
    """SHA-256 of each image's pixels, ``N`` hexadecimal strings."""
    return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images]


def resize(image: np.ndarray | Image.Image, size: int) -> np.ndarray:
    """One image as ``size`` x ``size`` pixels, bilinear, the aspect not kept (as the reference does).

    Args:
      image: uint8 ``(H, W, 3)``, or a Pillow image of any mode that converts to RGB.
      size: pixels a side.

    Returns:
      uint8 ``(size, size, 3)``.
    """
    if isinstance(image, np.ndarray):
        if image.shape == (size, size, 3):
            return image
        image = Image.fromarray(image)
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def content_fractions(hashes: Sequence[str], salt: str) -> np.ndarray:
    """A pseudo-random number for each image that depends on its content and a salt only.

    Equal images get equal numbers wherever they stand, so that a cut by them keeps duplicates together.

    Args:
      hashes: ``N`` content hashes.
      salt: what the number is for, and the seed; another salt gives independent numbers.

    Returns:
      float64 ``(N,)``, uniform in [0, 1).
    """
    digests = (hashlib.sha256(f"{salt}:{content}".encode()).digest() for content in hashes)
    return np.array([int.from_bytes(digest[:6], "big") / 2.0**48 for digest in digests], np.float64)


def take(images: ImageSet, index: np.ndarray) -> ImageSet:
    """The images at an index array, or where a mask ``(N,)`` is True, with their labels."""
    positions = np.arange(len(images))[index]
    return ImageSet(
        images=images.images[positions],
        attributes={name: labels[positions] for name, labels in images.attributes.items()},
        objects={name: labels[positions] for name, labels in images.objects.items()},
        names=tuple(images.names[position] for position in positions),
        rest=images.rest[positions],
    )


def cut_test(images: ImageSet, salt: str) -> tuple[ImageSet, ImageSet]:
    """Training and test images of a data set that names no test set: a fixed share, by content hash."""
    is_test = content_fractions(content_hashes(images.images), salt) < TEST_SHARE
    return take(images, ~is_test), take(images, is_test)
