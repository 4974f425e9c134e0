"""Filters made of others: combinations of candidates, fitted by alternating least squares.

A filter's map is the maximum over a pooling window of its pre-activations, where that is positive. A mixture
of candidates has the same mixture of their pre-activations; while the place of each maximum and the sign stay
as they are, the map is linear in the mixture's coefficients. So least squares gives in turn what the next
layer does with the maps, and the change of all filters' coefficients at once. Nothing is differentiated, and
there is no step size; the change is that of the damped Gauss-Newton method on a piecewise linear function.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kernelgan import refit

_SAMPLES = 1536  # about so many serve the rounds, where there are as many
_BLOCK = 64  # samples whose slopes are in memory at once
_FEW_TARGETS = 8  # with so many, or fewer, slopes are products sample by sample: less to be moved
_DAMPING = 6.0  # of the coefficients' fit, times their number over that of the equations


_Sums = tuple[jax.Array, jax.Array, jax.Array]  # of products: slopes with slopes, with what is left, with 1


class Target(NamedTuple):
    """What is to be recovered from the maps, and how.

    Attributes:
      values: ``(t, n)``.
      weights: of their squared errors, ``(t,)``.
      prior: ``(C, q, t)``, what the parents do with the candidates' maps; a fit is shrunk towards it.
      ridge: of a fit, in units of a filter's mean variance.
    """

    values: jax.Array
    weights: jax.Array
    prior: jax.Array
    ridge: float


class Mixed(NamedTuple):
    """Filters, and what the next layer does with their maps.

    Attributes:
      mixture: ``(F, C)``, coefficients of the candidates.
      weights: ``(F * q, t)``.
      intercepts: ``(t,)``.
      left: mean squares of what they leave of the targets, ``(t,)``.
    """

    mixture: jax.Array
    weights: jax.Array
    intercepts: jax.Array
    left: jax.Array


class _Fitted(NamedTuple):
    """A fit.

    Attributes:
      weights: see `Mixed`.
      intercepts: see `Mixed`.
      left: what it leaves of the targets, ``(t, n)``.
      loss: its weighted mean square.
      gates: bool ``(4, F, q, n)``, which pre-activation of each pooling window is the filter's map;
        one or none.
    """

    weights: jax.Array
    intercepts: jax.Array
    left: jax.Array
    loss: jax.Array
    gates: jax.Array


def maps_of(windows: jax.Array) -> jax.Array:
    """Maps ``(C, q, n)`` of pre-activations ``(4, C, q, n)``, four of each pooling window."""
    first, second, third, fourth = windows  # max(axis=0) takes ten times as long on CPUs
    return jnp.maximum(jnp.maximum(jnp.maximum(first, second), jnp.maximum(third, fourth)), 0)


def mix(windows: jax.Array, chosen: jax.Array, target: Target, rounds: int) -> Mixed:
    """Starts from candidates and mixes them, round after round, as long as the error falls.

    Args:
      windows: the candidates' pre-activations ``(4, C, q, n)``, four of each pooling window, at ``q`` places
        of ``n`` samples.
      chosen: the candidates to start from, ``(F,)``.
      target: what is to be recovered.
      rounds: of alternating least squares; 0 leaves the candidates as they are.
    """
    candidates, filters = windows.shape[1], len(chosen)
    spread = maps_of(lax.stop_gradient(windows)).std(axis=2).mean(axis=1)  # has no derivative at 0
    scale = jnp.where(spread > 0, 1 / jnp.where(spread > 0, spread, 1), 0)
    start = jnp.zeros((filters, candidates)).at[jnp.arange(filters), chosen].set(1)
    prior = (target.prior * spread[:, None, None])[chosen].reshape(-1, len(target.values))

    def fit(mixture: jax.Array, windows: jax.Array, values: jax.Array) -> _Fitted:
        mixed = refit.product(mixture, windows.reshape(*windows.shape[:2], -1))
        mixed = mixed.reshape(4, filters, *windows.shape[2:])
        top = maps_of(mixed)
        maps = top.reshape(len(prior), -1)
        found = refit.moments(maps, values, filters, target.ridge)
        weights, intercepts = refit.solve(found, jnp.arange(filters), len(prior) // filters, prior)
        left = values - refit.product(weights.T, maps) - intercepts[:, None]
        loss = jnp.sum(target.weights * jnp.square(left).mean(axis=1))
        return _Fitted(weights, intercepts, left, loss, _gates(mixed, top))

    def step(state: tuple[jax.Array, _Fitted], _: None) -> tuple[tuple[jax.Array, _Fitted], None]:
        mixture, now = state
        tried = mixture + _change(blocks, now, target.weights)
        then = fit(tried, few, few_values)
        better = then.loss < now.loss
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), (tried, then), state), None

    mixture = start
    if rounds:
        few, few_values = (_few(of) for of in (windows, target.values))
        few *= scale[:, None, None]
        blocks = _arranged(few, by_sample=len(few_values) <= _FEW_TARGETS)
        mixture = lax.scan(step, (start, fit(start, few, few_values)), None, length=rounds)[0][0]
    mixture *= scale
    last = fit(mixture, windows, target.values)
    return Mixed(mixture, last.weights, last.intercepts, jnp.square(last.left).mean(axis=1))


def _gates(mixed: jax.Array, top: jax.Array) -> jax.Array:
    """Which of four pre-activations ``(4, F, q, n)`` is the map, one of equal ones; none of a map of 0."""
    found, free = [], top > 0
    for place in mixed[::-1]:
        found.append(free & (place == top))
        free &= ~found[-1]
    return jnp.stack(found[::-1])


def _few(samples: jax.Array) -> jax.Array:
    """Every so many samples of ``(..., n)``, whole blocks."""
    count = samples.shape[-1]
    stride, block = max(1, count // _SAMPLES), min(_BLOCK, count)
    return samples[..., : count // stride // block * block * stride : stride]


def _blocks(samples: jax.Array) -> jax.Array:
    """``(..., n)`` as ``(n / m, ..., m)``, of ``m`` samples each."""
    count = samples.shape[-1]
    split = samples.reshape(*samples.shape[:-1], -1, min(_BLOCK, count))
    return jnp.moveaxis(split, -2, 0)


def _arranged(samples: jax.Array, *, by_sample: bool) -> jax.Array:
    """Pre-activations ``(4, C, q, n)`` in blocks, as `_by_sample` or `_by_filter` takes them."""
    blocks = _blocks(samples)
    if not by_sample:
        return blocks.transpose(0, 1, 3, 2, 4)
    count, _, candidates, _, each = blocks.shape
    return blocks.transpose(0, 4, 1, 3, 2).reshape(count, each, -1, candidates)


def _change(windows: jax.Array, now: _Fitted, weights: jax.Array) -> jax.Array:
    """The change of the coefficients that explains most of what is left while the gates stay, ``(F, C)``.

    Args:
      windows: the candidates' scaled pre-activations, see `_arranged`.
      now: a fit to these samples.
      weights: of the targets' squared errors, ``(t,)``.
    """
    filters, places, count = now.gates.shape[1:]
    by_sample, targets = windows.ndim == 4, len(weights)
    candidates = windows.shape[-1 if by_sample else -2]
    unknowns, root = filters * candidates, jnp.sqrt(weights)
    read = (now.weights.reshape(filters, places, targets) * root).swapaxes(1, 2)  # (F, t, q)
    slopes = _by_sample if by_sample else _by_filter

    def add(sums: _Sums, block: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[_Sums, None]:
        window, gates, left = block
        added = slopes(window, gates, read)
        total = added.sum(axis=-1).reshape(unknowns, targets)
        added = added.reshape(unknowns, -1)
        new = refit.product(added, added.T), refit.product(added, left.reshape(-1, 1)), total
        return jax.tree.map(jnp.add, sums, new), None

    sums = (jnp.zeros((unknowns, unknowns)), jnp.zeros((unknowns, 1)), jnp.zeros((unknowns, targets)))
    each = (windows, _blocks(now.gates), _blocks(now.left * root[:, None]))
    gram, cross, total = lax.scan(add, sums, each)[0]
    gram -= refit.product(total, total.T) / count  # the intercepts take the mean up; what is left has none
    size = jnp.trace(gram) / unknowns
    damping = _DAMPING * unknowns / (count * targets) * size + (size <= 0)
    system = jnp.concatenate([gram + damping * jnp.eye(unknowns), cross], axis=1)
    return refit.eliminate(system, jnp.arange(filters), candidates)[:, -1].reshape(filters, candidates)


def _by_filter(window: jax.Array, gates: jax.Array, read: jax.Array) -> jax.Array:
    """What each candidate in each filter would add to the weighted targets, ``(F, C, t, m)``.

    Args:
      window: pre-activations ``(4, q, C, m)``.
      gates: bool ``(4, F, q, m)``.
      read: weights of the filters' maps, ``(F, t, q)``.
    """
    *_, places, candidates, samples = window.shape

    def one(of: tuple[jax.Array, jax.Array]) -> jax.Array:
        gates, read = of
        maps = jnp.zeros_like(window[0])
        for place, here in zip(window, gates, strict=True):
            maps = jnp.where(here[:, None], place, maps)
        return refit.product(read, maps.reshape(places, -1)).reshape(-1, candidates, samples)

    return lax.map(one, (gates.swapaxes(0, 1), read)).swapaxes(1, 2)


def _by_sample(window: jax.Array, gates: jax.Array, read: jax.Array) -> jax.Array:
    """The same, by a product for each sample.

    Args:
      window: pre-activations ``(m, 4 q, C)``.
      gates: see `_by_filter`.
      read: see `_by_filter`.
    """
    filters, targets, _ = read.shape
    samples, _, candidates = window.shape
    through = gates.transpose(3, 1, 0, 2)[:, :, None] * read[None, :, :, None]  # (m, F, t, 4, q)
    added = refit.product(through.reshape(samples, filters * targets, -1), window)
    return added.reshape(samples, filters, targets, candidates).transpose(1, 3, 2, 0)
