"""Array and pytree aliases, the glossary of axis letters, the quadrants, and the error that users see.

Axis letters, used in names and docstrings everywhere and nowhere redefined:

    M  models of a zoo            B  images in a batch
    P  concept pairs              N  images in a set
    C  concepts                   S  optimizer steps
    L  convolutional layers       E  epochs

Kernels are ``HWIO`` (height, width, input channel, output channel); images are ``BHWC``, uint8 at rest
and float32 in [-1, 1] on the way into a network.
"""

from __future__ import annotations

import enum
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
Key = jax.Array
Params = dict[str, Any]
"""A Flax ``{layer: {"kernel": ..., "bias": ...}}`` dict; stacked ones have a leading ``M`` axis."""

Config = Any
"""Nested attribute access, as an ``ml_collections.ConfigDict`` from ``configs/`` gives."""


PairName = tuple[str, str]
"""An attribute and an object."""


class Quadrant(enum.IntEnum):
    """Which of a pair's two concepts an image holds.

    Arrays hold the number, int8; results and reports name the label.
    """

    CONJUNCTION = 0
    ATTRIBUTE_ONLY = 1
    OBJECT_ONLY = 2
    NEITHER = 3
    REST = 4
    """Known not to be the conjunction, but which of the other three is not known."""

    @property
    def label(self) -> str:
        """The quadrant in results and reports, such as ``a&!o``: the attribute holds, the object does not."""
        return ("a&o", "a&!o", "!a&o", "!a&!o", "rest")[self]


LEFT_OUT = -1
"""In place of a quadrant: the pair does not use the image. A label is not known, the image is of another
side, or a maximum was reached."""


class UserError(Exception):
    """Something in the config, the data or the work directory that the user can mend.

    The message says what was given, what was expected and what to do. `launch.py` prints it without a
    traceback and exits with status 2.
    """
