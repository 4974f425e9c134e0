"""What the methods of a pair build networks from, and the images that a generator is handed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from kernelgan import assemble, models, probes, refit
from kernelgan.baselines import nulls
from kernelgan.baselines.once import Once
from kernelgan.data.quadrants import Groups
from kernelgan.evaluation.features import ConvNets, Population
from kernelgan.generators import base
from kernelgan.generators.base import Generator, Parents
from kernelgan.types import Key, Params

Networks = tuple[Population, ...]
"""Outputs and features of all are put side by side."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What the methods of a pair build networks from; all parameters are stacked, on their own ``M``.

    Attributes:
      network: the module.
      image_size: pixels a side.
      attribute: parents, from the attribute's zoo.
      objects: parents, from the object's zoo.
      generated: networks of each generator, by row.
      trained: networks trained by gradient, by row; one that could not be trained is missing.
      half_width: two narrower zoos, the attribute's and the object's, and their module.
      images: training images, uint8 ``(N, H, W, C)``; only what the groups below name may be read.
      seen: the three seen quadrants of the pair.
      attribute_images: what the attribute's zoo reads, positives first.
      object_images: what the object's zoo reads, positives first.
      fits: readouts, one fit for all pairs with a zoo in common.
      own: what several methods of the pair need.
      random_networks: how many of each null.
      random_bias: their biases, "zero" or "parent".
      seed: of the run.
      key: of the run and the pair.
      placebos: of each generated row, by name the networks made from placebo parents.
      stand_ins: what took a parent's place there, in words, by the placebo's name.
      names: of the attribute and the object.
      ruled: whether a rule on pixels (`kernelgan.data.colour`) says which images have the attribute.
    """

    network: models.ConvNet
    image_size: int
    attribute: Params
    objects: Params
    generated: dict[str, Params]
    trained: dict[str, Params]
    half_width: tuple[models.ConvNet, Params, Params] | None
    images: np.ndarray
    seen: Groups
    attribute_images: Groups
    object_images: Groups
    random_networks: int
    random_bias: str
    seed: int
    key: Key
    placebos: dict[str, dict[str, Params]] = dataclasses.field(default_factory=dict)
    stand_ins: dict[str, str] = dataclasses.field(default_factory=dict)
    names: tuple[str, str] = ("attribute", "object")
    ruled: bool = False
    fits: Once = dataclasses.field(default_factory=Once)
    own: Once = dataclasses.field(default_factory=Once, init=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the convolutional layers."""
        return models.layer_names(self.network.filters)

    @property
    def parents(self) -> Parents:
        """Both zoos."""
        return Parents(self.attribute, self.objects)

    def convnets(self, params: Params) -> Networks:
        """A method's answer where it makes networks of the usual module."""
        filters = tuple(
            int(params[name]["bias"].shape[-1]) for name in models.layer_names(self.network.filters)
        )
        return (ConvNets(self.network.clone(filters=filters), params),)

    def probes(self, generator: Generator) -> base.Probes:
        """The images that a generator is handed, a copy."""
        return probes_for(generator, self.images, self.seen, self.key, (self.names,))

    def answers(self, generator: Generator, images: np.ndarray) -> np.ndarray:
        """What as many parents of each concept answer to the images of a generator, see `refit.answers`."""
        ask = functools.partial(refit.answers, assemble.paired(*self.parents), images)
        return self.own((generator.reads, generator.made, generator.images), ask)


def probes_for(
    generator: Generator,
    images: np.ndarray,
    seen: Groups,
    key: Key,
    held_out: Sequence[tuple[str, str]],
) -> base.Probes:
    """The images that a generator is handed: made by the package (tier S), or unlabelled training images (U).

    Args:
      generator: of any tier.
      images: training images, uint8 ``(N, H, W, C)``.
      seen: the three seen quadrants of the pair.
      key: of the run and the pair; it chooses them.
      held_out: attribute and object of the pairs whose conjunctions are never rendered.

    Returns:
      In tier U a copy, as many of each seen quadrant as there are, at most an equal share, in random order.
      None in tier W.
    """
    if generator.reads == "W":
        return None
    if generator.reads == "S":
        return probes.make(generator.made, generator.images, size=images.shape[1], exclude=held_out)
    rng = nulls.numpy_generator(key, 3)
    each = -(-generator.images // len(seen.train))
    chosen = np.concatenate([rng.permutation(group)[:each] for group in seen.train])
    return images[rng.permutation(chosen)[: generator.images]].copy()
