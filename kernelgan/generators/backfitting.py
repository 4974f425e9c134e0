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
import numpy as np
from jax import lax

from kernelgan import models, refit
from kernelgan.ops import gated
from kernelgan.types import Params

BLOCK = 64
"""Probes come in whole blocks of so many."""

PARTS = 3
"""Of the probes, see `backfit`."""

_DAMPING = 3e-3  # of a layer's fit, in units of a candidate's mean square slope
_RIDGE = 1e-2  # of the heads' fit, towards the heads as they are


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
      images: as `refit.lay_out` lays them out, whole blocks.
      values: ``(K, N)``, logit differences.
    """

    images: jax.Array
    values: jax.Array


class _State(NamedTuple):
    """A network, and what it gives for the images that decide.

    Attributes:
      made: the network.
      maps: what each layer gives, laid out.
      lost: what is left of the answers, see `_lost`.
    """

    made: Made
    maps: tuple[jax.Array, ...]
    lost: jax.Array


def in_blocks(numbers: np.ndarray) -> np.ndarray:
    """Whole blocks of them; some are there twice, or more often if they are few."""
    return np.resize(numbers, -(-len(numbers) // BLOCK) * BLOCK)


def in_parts(count: int) -> list[np.ndarray]:
    """Which of so many probes are of each part, ``(N,)`` in whole blocks: of the first 0, 3, 6 and so on.

    No two parts share a probe, unless there are fewer probes than parts.
    """
    return [in_blocks(np.arange(start % count, count, PARTS)) for start in range(PARTS)]


def parameters(made: Made) -> Params:
    """The network with two logits for each concept: ``{layer: {"kernel", "bias"}}``."""
    layers = models.layer_names(range(len(made.layers)))
    heads = refit.concepts_head(made.weights, made.intercepts)
    return {**dict(zip(layers, made.layers, strict=True)), "dense": heads}


@functools.partial(jax.jit, static_argnums=0)
def backfit_networks(
    network: models.ConvNet, networks: Params, others: Params, wanted: jax.Array, probes: jax.Array
) -> Params:
    """Networks of any origin, backfitted to their parents' answers: their filters are mixed with others'.

    Args:
      network: the module of all of them.
      networks: stacked ``(M, ...)``, with two logits for each concept.
      others: stacked, of as many networks; their heads are not read.
      wanted: ``(M, K, N)``, see `refit.answers`.
      probes: uint8 images ``(N, H, W, C)``, in random order.

    Returns:
      Stacked parameters.
    """
    names = models.layer_names(network.filters)
    parts = in_parts(len(probes))
    shown = [refit.lay_out(models.normalise_images(probes[part])) for part in parts]

    def one(of: tuple[Params, Params, jax.Array]) -> Params:
        params, other, wanted = of
        first, second, third = (
            Answers(images, wanted[:, part]) for images, part in zip(shown, parts, strict=True)
        )
        candidates = tuple(
            jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), params[name], other[name])
            for name in names
        )
        # Half of a logit difference is in each logit, see `refit.concepts_head`.
        weights, intercepts = (params["dense"][leaf][..., 1::2] * 2 for leaf in ("kernel", "bias"))
        made = Made(tuple(params[name] for name in names), candidates, weights, intercepts)
        return parameters(backfit(made, first, second, third, 1))

    return lax.map(one, (networks, others, wanted))


def backfit(made: Made, first: Answers, second: Answers, third: Answers, sweeps: int) -> Made:
    """Changes every layer in turn, then fits the heads to all answers.

    Args:
      made: a network.
      first: what it is to answer; all layers are changed for these.
      second: the last layer, which has the most coefficients, is changed for these as well.
      third: a change that makes the error larger on these is not taken.
      sweeps: how often.
    """

    def judged(made: Made, maps: tuple[jax.Array, ...]) -> _State:
        """With the layers after these maps run."""
        for layer in made.layers[len(maps) :]:
            maps = (*maps, refit.run_layer(layer, maps[-1] if maps else third.images))
        return _State(made, maps, _lost(made, maps[-1], third))

    def sweep(made: Made, _: None) -> tuple[Made, None]:
        state, inputs = judged(made, ()), [first.images, second.images]
        for number in range(len(made.layers)):
            read, wanted = inputs[0], first.values
            if number + 1 == len(made.layers):
                read, wanted = gated.joined(inputs), jnp.concatenate([wanted, second.values], axis=1)
            tried = judged(_mixed(state.made, read, wanted, number), state.maps[:number])
            state = jax.tree.map(functools.partial(jnp.where, tried.lost < state.lost), tried, state)
            inputs = [refit.run_layer(state.made.layers[number], images) for images in inputs]
        shown = [(inputs[0], first), (inputs[1], second), (state.maps[-1], third)]
        features = jnp.concatenate([_flat(maps, answers.values) for maps, answers in shown], axis=1)
        values = jnp.concatenate([answers.values for _, answers in shown], axis=1)
        return _refitted(state.made, features, values), None

    return lax.scan(sweep, made, None, length=sweeps)[0]


def _flat(maps: jax.Array, values: jax.Array) -> jax.Array:
    """What the heads read for these answers, ``(F * q, N)``."""
    count = values.shape[1]
    return refit.batch_minor(maps, count).reshape(-1, count)


def _scale(values: jax.Array) -> jax.Array:
    """1 over the standard deviations ``(K,)``; 0 where they do not vary, see `refit.Moments`."""
    return refit.inverse_root(values.var(axis=1), jnp.square(values).mean(axis=1))


def _lost(made: Made, maps: jax.Array, answers: Answers) -> jax.Array:
    """The sum over the concepts of what is left of the answers' variance, given the last maps."""
    left = answers.values - refit.product(made.weights.T, _flat(maps, answers.values))
    return jnp.sum(left.var(axis=1) * jnp.square(_scale(answers.values)))


def _refitted(made: Made, features: jax.Array, values: jax.Array) -> Made:
    """The heads, fitted anew: features ``(F * q, N)`` to values ``(K, N)``."""
    filters = made.layers[-1]["kernel"].shape[-1]
    found = refit.moments(features, values, filters, _RIDGE)
    weights, intercepts = refit.solve(found, jnp.arange(filters), len(features) // filters, made.weights)
    return made._replace(weights=weights, intercepts=intercepts)


def _mixed(made: Made, inputs: jax.Array, values: jax.Array, number: int) -> Made:
    """Layer ``number``, from 0, which reads ``inputs``: a mixture of candidates and a constant is added."""
    candidates, scale = made.candidates[number], _scale(values)
    slopes, given = _slopes(made, inputs, number)
    filters, count, *_ = slopes.shape
    unknowns = filters * count
    slopes = slopes.reshape(unknowns, len(scale), -1) * scale[:, None]
    left = (values - given) * scale[:, None]
    # The intercepts take the means up.
    slopes, left = (of - of.mean(axis=-1, keepdims=True) for of in (slopes, left))
    slopes, left = slopes.reshape(unknowns, -1), left.reshape(-1, 1)
    gram, cross = refit.product(slopes, slopes.T), refit.product(slopes, left)
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


def _slopes(made: Made, inputs: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """What a unit of each candidate, and of a constant, in each filter of a layer would add to the answers.

    Args:
      made: the network.
      inputs: what the layer reads, laid out.
      number: of the layer, from 0.

    Returns:
      Slopes ``(F, C + 1, K, N)``, and the network's answers ``(K, N)``.
    """
    maps, places = [inputs], []
    for layer in made.layers[number:]:
        given, of_given = gated.run(maps[-1], layer["kernel"], layer["bias"])
        maps.append(given)
        places.append(of_given)
    last, slopes, candidates = maps[-1], [], made.candidates[number]
    features = gated.by_image(last).reshape(-1, len(made.weights)).T
    for weights in made.weights.T:
        slope = jnp.broadcast_to(weights.reshape(*last.shape[-4:-1], 1), last.shape)
        for later in range(len(places) - 1, 0, -1):
            kernel = made.layers[number + later]["kernel"]
            slope = gated.transpose(maps[later], kernel, places[later], slope)
        slopes.append(gated.mixtures(inputs, candidates["kernel"], candidates["bias"], places[0], slope))
    answers = refit.product(made.weights.T, features) + made.intercepts[:, None]
    return jnp.stack(slopes, axis=2), answers
