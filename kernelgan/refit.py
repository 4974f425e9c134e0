"""Least squares on what networks answer: features in groups, a ridge, an intercept; and heads fitted by it.

A group is what one filter gives: the taps that the next layer reads, or its positions under the head. Each
group is scaled to unit mean variance before the ridge is added, so that no fit depends on the scale of a
filter, which is free in a network of ReLUs. Everything is float32: the ridge bounds the condition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import solve_triangular

from kernelgan import models, parallel
from kernelgan.ops import products
from kernelgan.types import Params

HEAD_RIDGE = 0.2
"""Of a head's fit, in units of a group's mean variance."""

ROUNDING = 4 * float(jnp.finfo(jnp.float32).eps)
"""Of the Gram matrix's largest possible eigenvalue: the least ridge."""

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
      ridge: what was added to the diagonal.
    """

    gram: jax.Array
    cross: jax.Array
    variance: jax.Array
    scale: jax.Array
    mean: jax.Array
    target_mean: jax.Array
    ridge: float


def moments(features: jax.Array, targets: jax.Array, groups: int, ridge: float) -> Moments:
    """Moments of samples.

    Args:
      features: float32 ``(d, n)``, group after group, all of one size.
      targets: float32 ``(t, n)``.
      groups: how many, ``g``.
      ridge: in units of a group's mean variance; at least so much is added that float32 stays accurate.
    """
    size, count = features.shape
    ridge = max(ridge, ROUNDING * size)
    mean, target_mean = features.mean(axis=1), targets.mean(axis=1)
    centred, wanted = features - mean[:, None], targets - target_mean[:, None]
    gram, cross = (
        jnp.matmul(centred, other.T, precision=products.PRECISION) / count for other in (centred, wanted)
    )
    by_group = (groups, size // groups)
    spread = jnp.diagonal(gram).reshape(by_group).mean(axis=1)
    power = spread + jnp.square(mean).reshape(by_group).mean(axis=1)
    scale = jnp.repeat(inverse_root(spread, power), size // groups)
    variance = jnp.mean(jnp.square(wanted), axis=1)
    varies = variance > _CONSTANT * (variance + jnp.square(target_mean))
    return Moments(
        gram * scale * scale[:, None] + ridge * jnp.eye(size),
        jnp.where(varies, cross * scale[:, None], 0),
        jnp.where(varies, variance, 0),
        scale,
        mean,
        target_mean,
        ridge,
    )


def inverse_root(variance: jax.Array, power: jax.Array) -> jax.Array:
    """1 over the standard deviation, 0 for what does not vary.

    Args:
      variance: of any shape.
      power: mean squares, of the same shape.
    """
    varies = variance > _CONSTANT * power
    return jnp.where(varies, lax.rsqrt(jnp.where(varies, variance, 1)), 0)


def solve(
    found: Moments, chosen: jax.Array, each: int, prior: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Weights ``(s, t)`` and intercepts ``(t,)`` of the ridge regression on some groups.

    Args:
      found: from `moments`.
      chosen: numbers of the groups.
      each: features of a group; ``s`` is so many times the groups.
      prior: ``(s, t)``, the weights towards which they are shrunk; without it 0.
    """
    features = (chosen[:, None] * each + jnp.arange(each)).reshape(-1)
    gram, cross = found.gram[features[:, None], features], found.cross[features]
    if prior is not None:
        scale = found.scale[features][:, None]
        known = (scale > 0) & (found.variance > 0)
        cross += found.ridge * jnp.where(known, prior / jnp.where(scale > 0, scale, 1), 0)
    everything = jnp.concatenate([gram, cross], axis=1)
    weights = eliminate(everything, jnp.arange(len(chosen)), each)[:, len(features) :]
    weights *= found.scale[features][:, None]
    read = jnp.matmul(found.mean[features], weights, precision=products.PRECISION)
    return weights, found.target_mean - read


def eliminate(everything: jax.Array, chosen: jax.Array, each: int) -> jax.Array:
    """Gauss-Jordan elimination of groups, block by block.

    Then rows of a chosen group hold, for the targets, the regression's weights; the other rows hold what
    the chosen groups leave of the covariances. (LAPACK is given no more than a block: on larger systems its
    threads wait for each other on a busy machine, and the order of sums depends on their number.)

    Args:
      everything: ``(d, d + t)``, covariances with the features and the targets.
      chosen: numbers of the groups.
      each: features of a group.
    """

    def step(number: jax.Array, left: jax.Array) -> jax.Array:
        start = chosen[number] * each
        rows = lax.dynamic_slice_in_dim(left, start, each)
        column = lax.dynamic_slice_in_dim(left, start, each, axis=1)
        factor = inverse_factor(lax.dynamic_slice_in_dim(rows, start, each, axis=1))
        rows = product(factor.T, product(factor, rows))
        return lax.dynamic_update_slice_in_dim(left - product(column, rows), rows, start, axis=0)

    return lax.fori_loop(0, len(chosen), step, everything)


def inverse_factor(blocks: jax.Array) -> jax.Array:
    """The inverse of the Cholesky factor of each ``(..., q, q)``.

    On CPUs block after block: LAPACK's calls for several blocks wait for XLA's threads, and when the programs
    of all devices wait, none goes on.
    """
    if blocks.ndim > 2 and jax.default_backend() == "cpu":
        return lax.map(inverse_factor, blocks)
    eye = jnp.broadcast_to(jnp.eye(blocks.shape[-1]), blocks.shape)
    return solve_triangular(jnp.linalg.cholesky(blocks), eye, lower=True)


def product(left: jax.Array, right: jax.Array) -> jax.Array:
    """A matrix product in float32 on every device."""
    return jnp.matmul(left, right, precision=products.PRECISION)


def concepts_head(weights: jax.Array, intercepts: jax.Array) -> Params:
    """A dense layer of two logits for each of ``K`` concepts, no and yes.

    Args:
      weights: ``(F, K)`` of the concepts' logit differences, yes minus no.
      intercepts: ``(K,)``.
    """
    halves = jnp.array([-0.5, 0.5])
    kernel = (weights[:, :, None] * halves).reshape(len(weights), -1)
    return {"kernel": kernel, "bias": (intercepts[:, None] * halves).reshape(-1)}


def run_layer(params: Params, hidden: jax.Array) -> jax.Array:
    """What a convolutional layer gives the next, in the layout of `lay_out`."""
    size, *_, filters = params["kernel"].shape
    return models.ConvPool(filters, size).apply({"params": params}, hidden)  # type: ignore[return-value]


def lay_out(images: jax.Array) -> jax.Array:
    """Images ``(N, H, W, C)`` from -1 to 1 as `run_layer` takes them, whatever form their network has."""
    return models.ConvNet().lay_out(images)


def run_layers(params: Params, layers: Sequence[str], hidden: jax.Array) -> list[jax.Array]:
    """What each layer of a network gives the next, see `run_layer`."""
    maps = [hidden]
    for name in layers:
        maps.append(run_layer(params[name], maps[-1]))
    return maps[1:]


def batch_minor(hidden: jax.Array, count: int) -> jax.Array:
    """Maps as a layer gives them, as ``(C, H, W, N)`` of the first ``count`` images."""
    if hidden.ndim == 4:
        return hidden
    return hidden.transpose(1, 2, 3, 0, 4).reshape(*hidden.shape[1:4], -1)[..., :count]


def difference(head: Params, maps: jax.Array) -> jax.Array:
    """A concept's logit difference ``(N,)``, yes minus no, of last maps ``(C, H, W, N)``."""
    kernel, bias = head["kernel"], head["bias"]
    return product(kernel[:, 1] - kernel[:, 0], maps.reshape(len(kernel), -1)) + bias[1] - bias[0]


def last_maps(params: Params, layers: Sequence[str], images: jax.Array, count: int) -> jax.Array:
    """What a network's head reads, ``(C, H, W, N)``; see `mean_answer`."""
    return batch_minor(run_layers(params, layers, images)[-1], count)


def answer(params: Params, layers: Sequence[str], images: jax.Array, count: int) -> jax.Array:
    """A network's logit difference ``(N,)``; see `mean_answer`."""
    return difference(params["dense"], last_maps(params, layers, images, count))


def mean_answer(zoo: Params, layers: Sequence[str], images: jax.Array, count: int) -> jax.Array:
    """The mean logit difference of a zoo's networks, ``(N,)``.

    Args:
      zoo: stacked parameters.
      layers: names of the convolutional layers.
      images: as `lay_out` lays them out.
      count: how many.
    """
    return lax.map(lambda params: answer(params, layers, images, count), zoo).mean(axis=0)


def answers(parents: Sequence[Params], images: np.ndarray) -> np.ndarray:
    """What parents answer.

    Args:
      parents: of each of ``K`` concepts, ``M`` networks, stacked.
      images: uint8 ``(N, H, W, C)``.

    Returns:
      float32 ``(M, K, N)``: logit differences, yes minus no.

    Raises:
      ValueError: the concepts have not as many parents each.
    """
    counts = [len(params["conv1"]["bias"]) for params in parents]
    if len(set(counts)) > 1:
        raise ValueError(f"the zoos of parents have {counts} networks; expected equally many")
    spread, run = _answering(counts[0], models.layer_names(models.network_of(parents[0]).filters))
    found: np.ndarray = spread.collect(run(spread.deal(tuple(parents)), spread.share(images)))
    return found


def refit_heads(
    trunks: Params, wanted: np.ndarray, images: np.ndarray, *, ridge: float = HEAD_RIDGE
) -> Params:
    """Networks with heads fitted to their parents' answers; kernels and biases stay.

    Each head is the ridge regression of a parent's logit difference on the network's own features.

    Args:
      trunks: stacked networks ``(M, ...)``; their heads are not read.
      wanted: ``(M, K, N)``, see `answers`.
      images: uint8 ``(N, H, W, C)``, unlabelled.
      ridge: in units of a filter's mean variance.

    Returns:
      Stacked parameters with two logits for each concept.

    Raises:
      ValueError: there are not answers of as many parents as there are trunks.
    """
    count, layers = len(trunks["conv1"]["bias"]), models.layer_names(range(len(trunks.keys() - {"dense"})))
    if len(wanted) != count:
        raise ValueError(f"there are {count} trunks and answers of {len(wanted)} parents; expected as many")
    spread, run = _fitting(count, layers, ridge)
    networks = {name: trunks[name] for name in layers}
    heads = spread.collect(run(spread.deal(networks), spread.deal(wanted), spread.share(images)))
    return {**networks, "dense": heads}


def _shown(images: jax.Array) -> tuple[jax.Array, int]:
    return lay_out(models.normalise_images(images)), len(images)


@functools.lru_cache(maxsize=8)
def _answering(members: int, layers: tuple[str, ...]) -> tuple[parallel.Spread, Callable[..., jax.Array]]:
    spread = parallel.Spread(members)

    def ask(parents: tuple[Params, ...], shared: tuple[jax.Array, int]) -> jax.Array:
        return jnp.stack([answer(parent, layers, *shared) for parent in parents])

    return spread, spread.map(ask, prepare=_shown)


@functools.lru_cache(maxsize=8)
def _fitting(
    members: int, layers: tuple[str, ...], ridge: float
) -> tuple[parallel.Spread, Callable[..., Params]]:
    spread = parallel.Spread(members)

    def fit(trunk: Params, wanted: jax.Array, shared: tuple[jax.Array, int]) -> Params:
        maps = last_maps(trunk, layers, *shared)
        features = maps.reshape(-1, maps.shape[-1])
        found = moments(features, wanted, len(maps), ridge)
        return concepts_head(*solve(found, jnp.arange(len(maps)), len(features) // len(maps)))

    return spread, spread.map(fit, prepare=_shown)
