"""Complements of concepts: "not cat" is a concept like any other, so that pairs also say AND NOT, and OR.

*black AND NOT cat* is the pair ``black``, ``not cat``. *black OR cat* is the complement of the pair
``not black``, ``not cat`` (De Morgan): its score is that of the pair, negated, and both have one figure of
merit. Nothing else knows of complements: what is held out is the pair's own conjunction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from kernelgan.data.images import ImageSet, Source

PREFIX = "not "


def base(name: str) -> str:
    """The concept that a name is the complement of, or the name."""
    return name.strip().removeprefix(PREFIX).strip() if is_complement(name) else name


def is_complement(name: str) -> bool:
    """Whether a name says the complement of a concept."""
    return name.strip().startswith(PREFIX)


def negated(name: str) -> str:
    """The complement of a concept or of a complement."""
    return base(name) if is_complement(name) else PREFIX + name


def bases(names: Sequence[str]) -> tuple[str, ...]:
    """The concepts behind names, each once."""
    return tuple(dict.fromkeys(map(base, names)))


def label(source: Source, attributes: Sequence[str], objects: Sequence[str]) -> Source:
    """Adds the labels of complements.

    Args:
      source: labelled for `bases`.
      attributes: names, complements among them.
      objects: the same of objects.
    """

    def completed(images: ImageSet) -> ImageSet:
        return dataclasses.replace(
            images,
            attributes=_labels(images.attributes, attributes),
            objects=_labels(images.objects, objects),
        )

    if not any(map(is_complement, (*attributes, *objects))):
        return source
    return dataclasses.replace(source, train=completed(source.train), test=completed(source.test))


def _labels(labels: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels 1, 0 or negative (not known), with those of complements."""
    own = {name: labels[base(name)] for name in names if is_complement(name) and base(name) in labels}
    return {**labels, **{name: np.where(values < 0, values, 1 - values) for name, values in own.items()}}
