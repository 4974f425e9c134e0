"""Images that the package makes, for generators that look at what networks answer: no data set is read."""

from __future__ import annotations

import collections
import functools
import itertools
import threading
from collections.abc import Sequence

import numpy as np

from kernelgan.data import complements
from kernelgan.data import rendered as rendered_lib

_NAMES = {"automobile": "car", "gray": "grey", "kitten": "cat", "lorry": "truck"}
"""What is rendered of a concept that data sets call otherwise."""


def _rendered_pairs(pair: tuple[str, str]) -> set[tuple[str, str]]:
    """An attribute and an object by the renderer's names, as far as known; of a complement all others."""
    known = (*rendered_lib.COLOURS, *rendered_lib.OBJECTS)
    choices: list[tuple[str, ...]] = []
    for name, kind in zip(pair, (rendered_lib.COLOURS, rendered_lib.OBJECTS), strict=True):
        own = complements.base(name).strip().lower()
        own = own.removesuffix("s") if own not in known else own
        own = _NAMES.get(own, own)
        others = tuple(other for other in kind if other != own)
        choices.append(others if complements.is_complement(name) else (own,))
    return set(itertools.product(choices[0], choices[1]))


_LEAVES = 40  # shapes of an image of noise
_TOGETHER = 64  # images of noise that are drawn at a time


_RENDERING: dict[frozenset[tuple[str, str]], threading.Lock] = collections.defaultdict(threading.Lock)
"""Of each set of pairs: of two threads that want the same images one renders them, and the other waits."""


@functools.lru_cache(maxsize=128)  # the pairs of a matrix; 14 MB each of 4,608 images
def _rendered(count: int, seed: int, size: int, exclude: frozenset[tuple[str, str]]) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    every = itertools.product(rendered_lib.COLOURS, rendered_lib.OBJECTS)
    choices = [pair for pair in every if pair not in exclude]
    images = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        colour, thing = choices[rng.integers(len(choices))]
        images[number] = rendered_lib.render(thing, colour, rng, size, exclude)
    images.flags.writeable = False
    return images


def rendered(
    count: int, *, seed: int = 0, size: int = 32, exclude: Sequence[tuple[str, str]] = ()
) -> np.ndarray:
    """Rendered objects of every kind in every colour, drawn with equal chances.

    Args:
      count: images ``N``.
      seed: chooses them.
      size: pixels a side.
      exclude: attributes and objects that never occur together, in no part and no fragment: the
        conjunctions that a generator is judged on, by the names that data sets have for them.

    Returns:
      uint8 ``(N, size, size, 3)``.
    """
    pairs = frozenset().union(*map(_rendered_pairs, exclude))
    with _RENDERING[pairs]:
        return _rendered(count, seed, size, pairs).copy()


@functools.lru_cache(maxsize=4)
def _noise(count: int, seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 2])
    images = np.empty((count, size, size, 3), np.uint8)
    for start in range(0, count, _TOGETHER):
        images[start : start + _TOGETHER] = _leaves(rng, _TOGETHER, size)[: count - start]
    images.flags.writeable = False
    return images


def _leaves(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """One batch of `noise`."""
    light = rng.uniform(30, 225, (count, 1))
    strength = rng.uniform(0, 1, (count, 1)) ** 2  # of the tint: most images have little colour, some much
    mean = light + strength * (rng.uniform(30, 225, (count, 3)) - light)
    contrast = rng.uniform(20, 110, (count, 1))
    grey = rng.uniform(0.8, 1, (count, 1))  # how much the channels have in common
    drawn = rng.standard_normal((_LEAVES, count, 4))
    colours = mean + contrast * (np.sqrt(grey) * drawn[..., :1] + np.sqrt(1 - grey) * drawn[..., 1:])
    # The density of radii falls as their third power, between 1 / 8 and 1 / 2 of a side: shapes of all sizes.
    low, high = (size / 8) ** -2.0, (size / 2) ** -2.0
    radii = (low - rng.uniform(size=(_LEAVES, count)) * (low - high)) ** -0.5
    centres = rng.uniform(-size / 8, size * 9 / 8, (2, _LEAVES, count))
    stretch = np.exp(rng.normal(0, 0.4, (_LEAVES, count)))
    angles = rng.uniform(0, np.pi, (_LEAVES, count))
    square = rng.uniform(size=(_LEAVES, count)) < 0.3
    across, down = np.meshgrid(
        np.arange(size, dtype=np.float32) + 0.5, np.arange(size, dtype=np.float32) + 0.5
    )
    images = np.repeat(mean.astype(np.float32), size * size, axis=1).reshape(count, 3, size, size)

    def fit(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)[:, None, None]

    for leaf in range(_LEAVES):
        x, y = across - fit(centres[0, leaf]), down - fit(centres[1, leaf])
        cosine, sine = fit(np.cos(angles[leaf])), fit(np.sin(angles[leaf]))
        along = (cosine * x + sine * y) / fit(radii[leaf] * stretch[leaf])
        other = (cosine * y - sine * x) / fit(radii[leaf] / stretch[leaf])
        far = np.where(fit(square[leaf]) > 0, np.maximum(abs(along), abs(other)), np.hypot(along, other))
        cover = np.clip((1 - far) * fit(radii[leaf]) + 0.5, 0, 1)[:, None]
        images += cover * (colours[leaf].astype(np.float32)[:, :, None, None] - images)
    texture = rng.uniform(0, 0.5, (count, 1)) * contrast
    images += texture[:, :, None, None] * _pink(rng, count, size)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def _pink(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Noise ``(N, 3, H, W)`` of unit variance; the amplitude of a frequency ``f`` falls as ``1 / f``."""
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    amplitude = 1 / np.maximum(frequencies, 1 / size)
    amplitude[0, 0] = 0
    spectrum = np.fft.rfft2(rng.standard_normal((count, 3, size, size))) * amplitude
    pink = np.fft.irfft2(spectrum, s=(size, size))
    return pink / pink.std(axis=(2, 3), keepdims=True)


def noise(count: int, *, seed: int = 0, size: int = 32) -> np.ndarray:
    """Dead leaves: ellipses and rectangles that cover each other, under pink noise; no picture of anything.

    They have the edges, corners and even regions of photographs (Lee, Mumford and Huang, 2001), and networks
    that learn from them learn some of what photographs teach (Baradad et al., arXiv:2106.05963). Each image
    has a mean colour, a contrast and a correlation between its channels of its own; most have little colour.

    Args:
      count: images ``N``.
      seed: chooses them.
      size: pixels a side.

    Returns:
      uint8 ``(N, size, size, 3)``.
    """
    return _noise(count, seed, size).copy()


KINDS = ("rendered", "noise")


def make(kind: str, count: int, *, size: int = 32, exclude: Sequence[tuple[str, str]] = ()) -> np.ndarray:
    """Images of one of `KINDS`; of noise there is no conjunction to exclude."""
    if kind == "noise":
        return noise(count, size=size)
    return rendered(count, size=size, exclude=exclude)
