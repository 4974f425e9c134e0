"""Images that the package makes, for generators that look at what networks answer: no data set is read."""

from __future__ import annotations

import functools
import itertools
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


@functools.lru_cache(maxsize=128)  # the pairs of a matrix; 5 MB each of 1,536 images
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
    return _rendered(count, seed, size, frozenset().union(*map(_rendered_pairs, exclude))).copy()


def noise(count: int, *, seed: int = 0, size: int = 32) -> np.ndarray:
    """Pink noise with a colour cast: no picture of anything.

    The amplitude of each spatial frequency ``f`` falls as ``1 / f``, as it does in photographs (Field, 1987);
    each image has a mean colour, a contrast and a correlation between its channels of its own.

    Args:
      count: images ``N``.
      seed: chooses them.
      size: pixels a side.

    Returns:
      uint8 ``(N, size, size, 3)``.
    """
    rng = np.random.default_rng([seed, 2])
    frequencies = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    amplitude = 1 / np.maximum(frequencies, 1 / size)
    amplitude[0, 0] = 0  # the mean is drawn below
    spectrum = np.fft.rfft2(rng.standard_normal((count, 3, size, size))) * amplitude
    pink = np.fft.irfft2(spectrum, s=(size, size))
    pink /= pink.std(axis=(2, 3), keepdims=True)
    shared = rng.uniform(0, 1, (count, 1, 1, 1))  # how much of the channels is grey
    mixed = np.sqrt(shared) * pink[:, :1] + np.sqrt(1 - shared) * pink
    mean = rng.uniform(30, 225, (count, 3, 1, 1))
    contrast = rng.uniform(15, 70, (count, 1, 1, 1))
    pixels = mean + contrast * mixed
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


KINDS = ("rendered", "noise")


def make(kind: str, count: int, *, size: int = 32, exclude: Sequence[tuple[str, str]] = ()) -> np.ndarray:
    """Images of one of `KINDS`; of noise there is no conjunction to exclude."""
    if kind == "noise":
        return noise(count, size=size)
    return rendered(count, size=size, exclude=exclude)
