"""The closed form with learned images: `reduce` is differentiated, and what it looks at is trained.

The images begin as the probes. No gradient goes through the choice of filters, nor through the weights of
errors; it goes through the least squares of all layers and through the mixing of filters. What is learned is
used on parents that it never met.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from kernelgan import models
from kernelgan.generators import reduce
from kernelgan.types import Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class LearnedProbes:
    """A `studies.learned.design.Design`.

    Attributes:
      network: the parents' module.
      count: images.
      pairs: see `studies.learned.design.Design`.
      rate: of images from -1 to 1.
      rounds: of mixing: one while it learns, which takes half the time; then as many as `reduce` has.
    """

    network: models.ConvNet
    count: int
    pairs: int = 4
    rate: float = 0.01
    rounds: int = 1

    def look(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The images that are begun with, float32 from -1 to 1."""
        if len(images) % reduce.BLOCK:
            raise UserError(f"{len(images)} probes; expected a multiple of {reduce.BLOCK}.")
        return (np.asarray(models.normalise_images(jnp.asarray(images))),)

    def describe(self, params: Params, seen: tuple[Any, ...]) -> Params:
        """The network itself."""
        del seen
        return params

    def initialise(self, key: Key, like: Params, seen: tuple[Any, ...]) -> Params:
        """The images."""
        del key, like
        return {"images": seen[0]}

    def generate(self, weights: Params, parents: tuple[Params, Params], seen: tuple[Any, ...]) -> Params:
        """`reduce` with the learned images."""
        del seen
        laid_out = self.network.lay_out(jnp.clip(weights["images"], -1, 1))
        group = reduce.unite(self.network, list(parents), len(parents), laid_out, self.count)
        return reduce.reduce(self.network, reduce.Config(images=self.count, rounds=self.rounds), group)

    def for_use(self) -> LearnedProbes:
        """With all rounds."""
        return dataclasses.replace(self, rounds=reduce.Config().rounds)
