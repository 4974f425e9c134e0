"""Basic colour terms of photographs, read off their pixels: the attributes of sources that label none.

Every pixel gets one of `TERMS` by rules on hue, saturation and value (the hexcone model of Smith, 1978). An
image has a colour when that colour covers more than `HOLDS_OVER` of its central region, lacks it under
`LACKS_UNDER`, and is left out between (PROTOCOL.md, "Concepts on real photographs").
"""

from __future__ import annotations

import numpy as np

TERMS = ("black", "white", "grey", "red", "orange", "brown", "yellow", "green", "blue", "purple")
"""The colour terms, in the order of the codes that `terms` gives."""

CENTRAL_SHARE = 0.5
"""Side of the central region, as a share of the image's side: objects are centred, backgrounds are not."""

HOLDS_OVER = 0.4
"""An image has a colour that covers more than this share of its central region."""

LACKS_UNDER = 0.2
"""An image lacks a colour that covers less than this share of its central region."""

BLACK_BELOW = 0.25
"""Largest value (brightest channel, 0 to 1) of a black pixel of any hue."""

GREY_BELOW = 0.17
"""Largest saturation of a pixel without a hue: white, grey or black."""

DARK_BELOW = 0.32
"""Largest value of a black pixel without a hue."""

WHITE_OVER = 0.75
"""Smallest value of a white pixel."""

HUE_STARTS = (
    ("red", 0.0),
    ("orange", 16.0),
    ("yellow", 45.0),
    ("green", 68.0),
    ("blue", 165.0),
    ("purple", 262.0),
)
"""Where each hue begins, in degrees; red goes on from `RED_FROM` to 360."""

RED_FROM = 335.0
"""Where red begins again, in degrees, on the far side of purple."""

BROWN_BELOW = 0.72
"""An orange pixel of a smaller value is brown."""

CHUNK = 4096
"""Images looked at together, so that float temporaries stay small."""


def terms(pixels: np.ndarray) -> np.ndarray:
    """The colour term of each pixel.

    Args:
      pixels: uint8 ``(..., 3)``, RGB.

    Returns:
      int8 ``(...)``: indices into `TERMS`.
    """
    hue, saturation, value = _hsv(pixels)
    starts = [start for _, start in HUE_STARTS] + [RED_FROM]
    codes = np.array([TERMS.index(name) for name, _ in HUE_STARTS] + [TERMS.index("red")], np.int8)
    hued = codes[np.searchsorted(starts, hue, side="right") - 1]
    colourless = saturation < GREY_BELOW
    rules = {  # the first that applies
        "black": (value < BLACK_BELOW) | (colourless & (value < DARK_BELOW)),
        "white": colourless & (value > WHITE_OVER),
        "grey": colourless,
        "brown": (hued == TERMS.index("orange")) & (value < BROWN_BELOW),
    }
    ruled = [np.int8(TERMS.index(name)) for name in rules]
    return np.select(list(rules.values()), ruled, default=hued)


def coverage(images: np.ndarray) -> dict[str, np.ndarray]:
    """The share of each image's central region that each colour covers.

    Args:
      images: uint8 ``(N, H, W, 3)``, RGB.

    Returns:
      Colour term -> float32 ``(N,)`` in [0, 1]; an image's shares add up to 1.
    """
    shares = np.zeros((len(images), len(TERMS)), np.float32)
    for start in range(0, len(images), CHUNK):
        term = terms(_central(images[start : start + CHUNK])).reshape(len(images[start : start + CHUNK]), -1)
        for code in range(len(TERMS)):
            shares[start : start + CHUNK, code] = (term == code).mean(axis=1)
    return {name: shares[:, code] for code, name in enumerate(TERMS)}


def holds(images: np.ndarray) -> dict[str, np.ndarray]:
    """Whether each image has each colour.

    Args:
      images: uint8 ``(N, H, W, 3)``, RGB.

    Returns:
      Colour term -> int8 ``(N,)``: 1 it covers more than `HOLDS_OVER` of the central region, 0 less than
      `LACKS_UNDER`, -1 between.
    """
    return {
        name: np.where(share > HOLDS_OVER, 1, np.where(share < LACKS_UNDER, 0, -1)).astype(np.int8)
        for name, share in coverage(images).items()
    }


def _central(images: np.ndarray) -> np.ndarray:
    """The central region of images ``(N, H, W, 3)``; at least one pixel."""
    height, width = images.shape[1:3]
    top, left = (int(side * (1 - CENTRAL_SHARE) / 2) for side in (height, width))
    return images[:, top : height - top, left : width - left]


def _hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in degrees [0, 360), saturation and value in [0, 1], each float32 ``(...)``; pixels as `terms`."""
    scaled = pixels.astype(np.float32) / 255
    red, green, blue = np.moveaxis(scaled, -1, 0)
    value = scaled.max(axis=-1)
    chroma = value - scaled.min(axis=-1)
    safe = np.where(chroma > 0, chroma, 1)
    sixth = np.where(
        value == red,
        (green - blue) / safe % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    saturation = chroma / np.where(value > 0, value, 1)
    return sixth * 60 % 360, saturation, value
