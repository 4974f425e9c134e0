"""Least squares on what networks answer: features in groups, a ridge, an intercept; and heads fitted by it.

A group is what one filter gives: the taps that the next layer reads, or its positions under the head. Each
group is scaled to unit mean variance before the ridge is added, so that no fit depends on the scale of a
filter, which is free in a network of ReLUs. Everything is float32: the ridge bounds the condition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve

from kernelgan import models, parallel
from kernelgan.ops import products
from kernelgan.types import Array, Params

HEAD_RIDGE = 0.05
"""Of a head's fit, in units of a group's mean variance."""

_CONSTANT = 1e-6  # of its mean square: what has less variance does not vary


class Moments(NamedTuple):
    """What a least-squares fit needs, for ``d`` features in ``g`` groups and ``t`` targets.

    Attributes:
      gram: ``(d, d)``, covariances of the scaled features, with the ridge on the diagonal.
      cross: ``(d, t)``, covariances of scaled features and targets.
      variance: ``(t,)`` of the targets; 0 for a target that does not vary.
      scale: ``(d,)``, what the features are multiplied by; 0 in a group that does not vary.
      mean: ``(d,)`` of the features, unscaled.
      target_mean: ``(t,)``.
    """

    gram: jax.Array
    cross: jax.Array
    variance: jax.Array
    scale: jax.Array
    mean: jax.Array
    target_mean: jax.Array


def moments(features: jax.Array, targets: jax.Array, groups: int, ridge: float) -> Moments:
    """Moments of samples.

    Args:
      features: float32 ``(n, d)``, group after group, all of one size.
      targets: float32 ``(n, t)``.
      groups: how many, ``g``.
      ridge: in units of a group's mean variance.
    """
    count, size = features.shape
    mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    centred, wanted = features - mean, targets - target_mean
    by_group = (groups, size // groups)
    spread = jnp.mean(jnp.square(centred), axis=0).reshape(by_group).mean(axis=1)
    power = spread + jnp.square(mean).reshape(by_group).mean(axis=1)
    scale = jnp.repeat(inverse_root(spread, power), size // groups)
    centred *= scale
    variance = jnp.mean(jnp.square(wanted), axis=0)
    varies = variance > _CONSTANT * (variance + jnp.square(target_mean))
    both = jnp.matmul(centred.T, jnp.concatenate([centred, wanted], axis=1), precision=products.PRECISION)
    gram, cross = jnp.split(both / count, [size], axis=1)
    return Moments(
        gram + ridge * jnp.eye(size),
        jnp.where(varies, cross, 0),
        jnp.where(varies, variance, 0),
        scale,
        mean,
        target_mean,
    )


def inverse_root(variance: jax.Array, power: jax.Array) -> jax.Array:
    """1 over the standard deviation, 0 for what does not vary.

    Args:
      variance: of any shape.
      power: mean squares, of the same shape.
    """
    varies = variance > _CONSTANT * power
    return jnp.where(varies, lax.rsqrt(jnp.where(varies, variance, 1)), 0)


def solve(found: Moments, features: Array) -> tuple[jax.Array, jax.Array]:
    """Weights ``(s, t)`` and intercepts ``(t,)`` of the ridge regression on some features.

    Args:
      found: from `moments`.
      features: their numbers, ``(s,)``.
    """
    gram = found.gram[features[:, None], features[None, :]]
    weights = cho_solve(cho_factor(gram, lower=True), found.cross[features])
    weights *= found.scale[features][:, None]
    read = jnp.matmul(found.mean[features], weights, precision=products.PRECISION)
    return weights, found.target_mean - read


def two_concept_head(weights: jax.Array, intercepts: jax.Array) -> Params:
    """A dense layer of four logits, the attribute's no and yes, then the object's.

    Args:
      weights: ``(F, 2)`` of both concepts' logit differences, yes minus no.
      intercepts: ``(2,)``.
    """
    halves = jnp.array([-0.5, 0.5])
    kernel = (weights[:, :, None] * halves).reshape(len(weights), 4)
    return {"kernel": kernel, "bias": (intercepts[:, None] * halves).reshape(4)}


def run_layer(params: Params, hidden: jax.Array) -> jax.Array:
    """What a convolutional layer gives the next, in the layout of `models.ConvNet.lay_out`."""
    size, *_, filters = params["kernel"].shape
    return models.ConvPool(filters, size).apply({"params": params}, hidden)  # type: ignore[return-value]


def by_image(hidden: jax.Array, count: int) -> jax.Array:
    """Maps as a layer gives them, as ``(N, C, H, W)`` of the first ``count`` images."""
    if hidden.ndim == 4:  # batch-minor
        return hidden.transpose(3, 0, 1, 2)
    return hidden.transpose(0, 4, 1, 2, 3).reshape(-1, *hidden.shape[1:4])[:count]


def difference(head: Params, maps: jax.Array) -> jax.Array:
    """A concept's logit difference ``(N,)``, yes minus no, of last maps ``(N, C, H, W)``."""
    kernel, bias = head["kernel"], head["bias"]
    read = jnp.matmul(maps.reshape(len(maps), -1), kernel[:, 1] - kernel[:, 0], precision=products.PRECISION)
    return read + bias[1] - bias[0]


def refit_heads(
    trunks: Params, attribute: Params, objects: Params, images: np.ndarray, *, ridge: float = HEAD_RIDGE
) -> Params:
    """Networks with heads fitted to their parents' answers; kernels and biases stay.

    Each head is the ridge regression of a parent's logit difference on the network's own features.

    Args:
      trunks: stacked networks ``(M, ...)``; their heads are not read.
      attribute: as many parents, stacked.
      objects: as many.
      images: uint8 ``(N, H, W, C)``, unlabelled.
      ridge: in units of a filter's mean variance.

    Returns:
      Stacked parameters with two-concept heads.
    """
    layers = models.layer_names(models.network_of(attribute).filters)
    spread, run = _compiled(len(attribute["dense"]["bias"]), layers, ridge)
    networks = {name: trunks[name] for name in layers}
    heads = spread.collect(run(*map(spread.deal, (networks, attribute, objects)), spread.share(images)))
    return {**networks, "dense": heads}


@functools.lru_cache(maxsize=8)
def _compiled(
    members: int, layers: tuple[str, ...], ridge: float
) -> tuple[parallel.Spread, Callable[..., Params]]:
    spread = parallel.Spread(members)

    def prepare(images: jax.Array) -> tuple[jax.Array, int]:
        return models.ConvNet().lay_out(models.normalise_images(images)), len(images)

    def last(params: Params, hidden: jax.Array, count: int) -> jax.Array:
        for name in layers:
            hidden = run_layer(params[name], hidden)
        return by_image(hidden, count)

    def fit(trunk: Params, attribute: Params, objects: Params, shared: tuple[jax.Array, int]) -> Params:
        maps = last(trunk, *shared)
        parents = [difference(parent["dense"], last(parent, *shared)) for parent in (attribute, objects)]
        features = maps.reshape(len(maps), -1)
        found = moments(features, jnp.stack(parents, axis=1), maps.shape[1], ridge)
        return two_concept_head(*solve(found, jnp.arange(features.shape[1])))

    return spread, spread.map(fit, prepare=prepare)
