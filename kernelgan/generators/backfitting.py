"""A composed network's layers, mixed once more: now for its answers, all later layers as they are.

`kernelgan.generators.reduce` makes a layer for what the next one reads, and errors of the layers add up.
Backfitting (Breiman and Friedman, 1985) goes back: one layer after the other is changed to take away what
the whole network leaves of the answers. While each pooling window passes the same value on, the answers are
linear in the coefficients of a layer's mixtures, and least squares gives the change, as in `mixing`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kernelgan import models, refit
from kernelgan.ops import gated, products
from kernelgan.types import Params

BLOCK = 128
"""Images whose slopes are in memory at once."""

_DAMPING = 3e-3  # of a layer's fit, in units of a candidate's mean square slope
_RIDGE = 1e-2  # of the heads' fit, towards the heads as they are

_Sums = tuple[jax.Array, ...]  # slopes with slopes, with what is left; slopes and what is left, by concept


class Made(NamedTuple):
    """A network that answers ``K`` concepts.

    Attributes:
      layers: parameters of its convolutional layers, in order.
      candidates: what each layer's filters are mixed of: layers that read the same maps.
      weights: of the heads, ``(F * q, K)``.
      intercepts: ``(K,)``.
    """

    layers: tuple[Params, ...]
    candidates: tuple[Params, ...]
    weights: jax.Array
    intercepts: jax.Array


class Answers(NamedTuple):
    """What a network is to answer.

    Attributes:
      images: uint8 ``(b, B, H, W, C)``, in blocks.
      laid_out: the same, all together, see `models.ConvNet.lay_out`.
      values: ``(K, N)``, logit differences.
      scale: ``(K,)``, 1 over their standard deviations; 0 where they do not vary, see `refit.Moments`.
    """

    images: jax.Array
    laid_out: jax.Array
    values: jax.Array
    scale: jax.Array


def wanted(network: models.ConvNet, images: jax.Array, values: jax.Array) -> Answers:
    """The answers to images.

    Args:
      network: the module.
      images: uint8 ``(N, H, W, C)``, whole blocks of `BLOCK`.
      values: ``(K, N)``.
    """
    scale = refit.inverse_root(values.var(axis=1), jnp.square(values).mean(axis=1))
    laid_out = network.lay_out(models.normalise_images(images))
    return Answers(images.reshape(-1, BLOCK, *images.shape[1:]), laid_out, values, scale)


def backfit(made: Made, few: Answers, others: Answers, every: Answers, sweeps: int) -> Made:
    """Changes every layer in turn, then fits the heads.

    Args:
      made: a network.
      few: what it is to answer; layers are changed for these.
      others: a change that makes the error larger on these is not taken.
      every: the heads are fitted to these.
      sweeps: how often.
    """

    def sweep(made: Made, _: None) -> tuple[Made, None]:
        state = made, _lost(made, others)
        for number in range(len(made.layers)):
            tried = _mixed(state[0], few, number)
            then = tried, _lost(tried, others)
            state = jax.tree.map(functools.partial(jnp.where, then[1] < state[1]), then, state)
        return _refitted(state[0], every), None

    return lax.scan(sweep, made, None, length=sweeps)[0]


def _last_maps(made: Made, answers: Answers) -> jax.Array:
    """``(F * q, N)``."""
    hidden = answers.laid_out
    for layer in made.layers:
        hidden = refit.run_layer(layer, hidden)
    return refit.batch_minor(hidden, answers.values.shape[1]).reshape(len(made.weights), -1)


def _lost(made: Made, answers: Answers) -> jax.Array:
    """The sum over the concepts of what the network leaves of the answers' variance."""
    left = answers.values - refit.product(made.weights.T, _last_maps(made, answers))
    return jnp.sum(left.var(axis=1) * jnp.square(answers.scale))


def _refitted(made: Made, answers: Answers) -> Made:
    """The heads, fitted anew."""
    filters = made.layers[-1]["kernel"].shape[-1]
    found = refit.moments(_last_maps(made, answers), answers.values, filters, _RIDGE)
    each = len(made.weights) // filters
    weights, intercepts = refit.solve(found, jnp.arange(filters), each, made.weights)
    return made._replace(weights=weights, intercepts=intercepts)


def _mixed(made: Made, answers: Answers, number: int) -> Made:
    """Layer ``number``, from 0, changed by a mixture of its candidates and a constant."""
    candidates = made.candidates[number]
    filters, count = made.layers[number]["kernel"].shape[-1], candidates["kernel"].shape[-1] + 1

    def add(sums: _Sums, block: tuple[jax.Array, jax.Array]) -> tuple[_Sums, None]:
        images, values = block
        slopes, given = _slopes(made, number, models.normalise_images(images))
        slopes, left = slopes * answers.scale, (values - given) * answers.scale
        by_concept = slopes.sum(axis=2).reshape(unknowns, -1), left.sum(axis=0)[:, None]
        slopes, left = slopes.reshape(unknowns, -1), left.reshape(-1, 1)
        new = refit.product(slopes, slopes.T), refit.product(slopes, left), *by_concept
        return jax.tree.map(jnp.add, sums, new), None

    unknowns, (concepts, images) = filters * count, answers.values.shape
    values = answers.values.T.reshape(len(answers.images), BLOCK, -1)
    zeros = tuple(map(jnp.zeros, ((unknowns,) * 2, (unknowns, 1), (unknowns, concepts), (concepts, 1))))
    gram, cross, total, of_left = lax.scan(add, zeros, (answers.images, values))[0]
    gram -= refit.product(total, total.T) / images  # the intercepts take the mean up
    cross -= refit.product(total, of_left) / images
    # Units in which each candidate's slopes have mean square 1: a filter's own scale is free.
    size = jnp.diagonal(gram).reshape(filters, count).mean(axis=0)
    unit = jnp.tile(jnp.where(size > 0, lax.rsqrt(jnp.where(size > 0, size, 1)), 0), filters)
    system = unit[:, None] * jnp.concatenate([gram * unit, cross], axis=1)
    system = system.at[:, :-1].add(max(_DAMPING, refit.ROUNDING * unknowns) * jnp.eye(unknowns))
    change = refit.eliminate(system, jnp.arange(filters), count)[:, -1] * unit
    change = change.reshape(filters, count)
    added = jax.tree.map(lambda leaf: refit.product(leaf, change[:, :-1].T), candidates)
    added["bias"] += change[:, -1]
    layer = jax.tree.map(jnp.add, made.layers[number], added)
    return made._replace(layers=(*made.layers[:number], layer, *made.layers[number + 1 :]))


def _slopes(made: Made, number: int, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What a unit of each candidate, and of a constant, in each filter of a layer would add to the answers.

    Args:
      made: the network.
      number: of the layer, from 0.
      images: a block, float32 ``(B, H, W, C)``.

    Returns:
      Slopes ``(F, C + 1, B, K)``, and the network's answers ``(B, K)``.
    """
    maps, places = [models.ConvNet().lay_out(images)], []
    for layer in made.layers:
        given, of_given = gated.run(maps[-1], layer["kernel"], layer["bias"])
        maps.append(given)
        places.append(of_given)
    features = gated.by_image(maps[-1]).reshape(len(images), -1)
    answers = refit.product(features, made.weights) + made.intercepts
    last, slopes = maps[-1].shape, []
    for weights in made.weights.T:
        slope = jnp.broadcast_to(weights.reshape(*last[-4:-1], 1), last)
        for later in range(len(made.layers) - 1, number, -1):
            slope = gated.transpose(maps[later], made.layers[later]["kernel"], places[later], slope)
        slopes.append(gated.by_image(slope))
    slope, place = jnp.stack(slopes, axis=1), gated.by_image(places[number])[:, None]  # (B, K, F, q)
    read, candidates = refit.batch_minor(maps[number], len(images)), made.candidates[number]
    windows = products.convolve_windows(read, candidates["kernel"]) + candidates["bias"][:, None, None, None]
    windows = jnp.concatenate([windows, jnp.ones_like(windows[:, :1])], axis=1)
    windows = windows.reshape(*windows.shape[:2], -1, len(images)).transpose(0, 3, 2, 1)  # (4, B, q, C + 1)
    found = jnp.zeros(())
    for at, window in enumerate(windows):
        passed = jnp.where(place == at, slope, 0).reshape(len(images), -1, slope.shape[-1])
        found += refit.product(passed, window)
    return found.reshape(*slope.shape[:3], -1).transpose(2, 3, 0, 1), answers
