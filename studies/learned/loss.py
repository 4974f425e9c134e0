"""What is learned: to give the parents' answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernelgan import models, refit
from kernelgan.types import Array, Params


def lost(network: models.ConvNet, made: Params, parents: tuple[Params, Params], images: Array) -> jax.Array:
    """What a network loses of its parents' logit differences, as a share of their variance, mean of both.

    A share above 4 counts by its logarithm.

    Args:
      network: the parents' module.
      made: with two logits for each concept.
      parents: of two logits each.
      images: as `models.ConvNet.lay_out` lays them out, and how many follows from the answers.
    """
    shares = []
    for place, parent in enumerate(parents):
        wanted = difference(network, parent, images)
        given = difference(network, made, images, place)
        share = jnp.mean(jnp.square(given - wanted)) / (wanted.var() + 1e-3)
        shares.append(jnp.where(share > 4, 4 + jnp.log(jnp.maximum(share, 1) / 4), share))
    return jnp.mean(jnp.stack(shares))


def difference(network: models.ConvNet, params: Params, images: Array, concept: int = 0) -> jax.Array:
    """A concept's logit difference ``(N,)`` on uint8 images."""
    normalised = models.normalise_images(jnp.asarray(images))
    last = refit.run_layers(params, models.layer_names(network.filters), network.lay_out(normalised))[-1]
    maps = refit.batch_minor(last, len(images))
    columns = slice(2 * concept, 2 * concept + 2)
    dense = params["dense"]
    return refit.difference({"kernel": dense["kernel"][:, columns], "bias": dense["bias"][columns]}, maps)
