"""Photographs as arrays: which files can be decoded, how, and what must be said of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from kernelgan.data.images import resize

LARGEST_PIXELS = 300_000_000
"""Of an image that is read; it takes 3 bytes a pixel, 4 with transparency."""

_LARGE_PIXELS = 50_000_000
"""From here on images are read after each other, and made smaller first."""

_NOT_PILLOWS = {
    ".heic": "HEIC",
    ".heif": "HEIF",
    ".jxl": "JPEG XL",
    ".svg": "SVG",
    **dict.fromkeys(
        (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"), "a camera's raw format"
    ),
}
_REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK")
_16_BIT_FORMATS = ("PNG", "PPM")
"""In Pillow's mode "I" these hold 16 bits; others may hold 32, which have no range."""

_one_large = threading.Lock()


class Photograph(NamedTuple):
    """A decoded image.

    Attributes:
      image: uint8 ``(size, size, 3)``.
      remarks: what was done to it that a reader must know, such as ``TRANSPARENT``.
    """

    image: np.ndarray
    remarks: tuple[str, ...] = ()


TRANSPARENT = "Images have transparent parts, which are read as white"
ANIMATED = "Files hold several pictures, of which the first is read"


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """The image of `decode`."""
    return decode(path, image_size).image


def decode(path: str | Path, image_size: int) -> Photograph:
    """Decode a photograph of any Pillow format and mode, turned upright by its EXIF orientation.

    16-bit greyscale is scaled from 0..65535, floats from 0..1; transparent parts become white.

    Args:
      path: of the file.
      image_size: pixels a side of the result.

    Raises:
      Exception: whatever Pillow raises for a file that is no image, is broken or truncated; a ValueError for
        pixels without a known range, and for more than `LARGEST_PIXELS`.
    """
    with Image.open(path) as image:
        pixels = image.width * image.height
        if pixels > LARGEST_PIXELS:
            raise ValueError(
                f"{pixels / 1e6:.0f} megapixels; at most {LARGEST_PIXELS / 1e6:.0f} are read, scale it down"
            )
        with _one_large if pixels > _LARGE_PIXELS else contextlib.nullcontext():
            remarks = []
            if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's previews
                remarks.append(ANIMATED)
            decoded = _reduced(image, 8 * image_size) if pixels > _LARGE_PIXELS else image
            upright = _in_8_bits(ImageOps.exif_transpose(decoded), image.format or "")
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                if np.asarray(upright)[..., 3].min() < 255:
                    remarks.append(TRANSPARENT)
                    upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return Photograph(resize(upright, image_size), tuple(remarks))


def _reduced(image: Image.Image, least: int) -> Image.Image:
    """A large image with sides of at least so many pixels still: what follows takes copies of it."""
    image.draft(None, (least, least))  # of JPEG alone: the decoder makes it smaller
    factor = min(image.size) // least
    return image.reduce(factor) if factor > 1 and image.mode in _REDUCIBLE else image


def _in_8_bits(image: Image.Image, file_format: str) -> Image.Image:
    """An image whose pixels have more than 8 bits, scaled by the range of their type; Pillow would clip."""
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # NaN too
            raise ValueError(f"float pixels from {low:g} to {high:g}; expected 0 to 1, or 8 or 16 bits")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode == "I" and file_format not in _16_BIT_FORMATS:
        raise ValueError("32-bit pixels, which have no known range; expected 8 or 16 bits, or floats in 0..1")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))
    return image


@contextlib.contextmanager
def large_ones() -> Iterator[None]:
    """Sets Pillow's own limit aside, a quarter of `LARGEST_PIXELS`; it is a global of Pillow."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def try_decode(path: Path, image_size: int) -> Photograph | str:
    """The image, or in a few words why it cannot be read."""
    if not path.is_file():
        return "a link to a file that is not there" if path.is_symlink() else "no regular file"
    try:
        return decode(path, image_size)
    except Image.UnidentifiedImageError:
        known = _NOT_PILLOWS.get(path.suffix.lower())
        return f"{known} cannot be read here; convert it to JPEG or PNG" if known else "not an image"
    except Exception as error:  # decoders of broken files raise anything
        return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def is_meant_as_image(path: Path) -> bool:
    """Whether a file that cannot be read is a broken image (by its extension, or for want of one)."""
    extension = path.suffix.lower()
    return not extension or extension in _NOT_PILLOWS or extension in Image.registered_extensions()
