"""The loss: how much of the parents' answers a network does not give."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kernelgan import models, refit
from kernelgan.types import Array, Params


def lost(network: models.ConvNet, made: Params, parents: Sequence[Params], images: Array) -> jax.Array:
    """What a network loses of its parents' logit differences, as a share of their variance, mean of all.

    A share above 4 counts by its logarithm.

    Args:
      network: the parents' module.
      made: with two logits for each concept.
      parents: of two logits each.
      images: uint8 ``(N, H, W, C)``.
    """
    shown = models.layer_names(network.filters), refit.lay_out(models.normalise_images(images)), len(images)
    maps, shares = refit.last_maps(made, *shown), []
    for place, parent in enumerate(parents):
        head = jax.tree.map(lambda leaf, n=place: leaf[..., 2 * n : 2 * n + 2], made["dense"])
        wanted = refit.answer(parent, *shown)
        given = refit.difference(head, maps)
        share = jnp.mean(jnp.square(given - wanted)) / (wanted.var() + 1e-3)
        shares.append(jnp.where(share > 4, 4 + jnp.log(jnp.maximum(share, 1) / 4), share))
    return jnp.mean(jnp.stack(shares))
