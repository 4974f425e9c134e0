"""The closed form with learned images: `reduce` is differentiated, and what it looks at is trained.

The images begin as the block's probes. No gradient goes through the choice of filters, nor through the
weights of errors; it goes through the least squares of all layers and through the mixing of filters. What is
learned is used on parents that it never met.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from kernelgan import models, refit
from kernelgan.generators import backfitting, reduce
from kernelgan.types import Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class LearnedProbes:
    """A design, see `studies.learned.design`.

    Attributes:
      network: the parents' module.
      rate: of images from -1 to 1.
      decay: none, of images.
      rounds: of mixing: one in training, which halves its time; `for_use` has as many as `reduce`.
    """

    network: models.ConvNet
    pairs: int = 4
    rate: float = 0.01
    decay: float = 0.0
    rounds: int = 1
    code: ClassVar[tuple[str, ...]] = (
        "studies.learned.learned_probes",
        "kernelgan.generators.backfitting",
        "kernelgan.generators.reduce",
        "kernelgan.generators.mixing",
    )

    def look(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The images that are begun with, float32 from -1 to 1.

        Raises:
          UserError: they are no whole blocks.
        """
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
        images = weights["images"]
        group = reduce.unite(self.network, list(parents), len(parents), refit.lay_out(images), len(images))
        return backfitting.parameters(reduce.reduce(self.network, reduce.Config(rounds=self.rounds), group))

    def bounded(self, weights: Params) -> Params:
        """Images from -1 to 1."""
        return {"images": jnp.clip(weights["images"], -1, 1)}

    def for_use(self) -> LearnedProbes:
        """With all rounds."""
        return dataclasses.replace(self, rounds=reduce.Config().rounds)
