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
from kernelgan.ops import products

_SAMPLES = 1536  # at least so many serve the rounds, where there are as many
_DAMPING = 6.0  # of the coefficients' fit, times their number over that of the equations


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
    """A fit: see `Mixed`; but ``left`` is ``(t, n)``, and ``loss`` its weighted mean square."""

    weights: jax.Array
    intercepts: jax.Array
    left: jax.Array
    loss: jax.Array


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
    spread = maps_of(windows).std(axis=2).mean(axis=1)
    scale = jnp.where(spread > 0, 1 / jnp.where(spread > 0, spread, 1), 0)
    scaled = windows * scale[:, None, None]
    start = jnp.zeros((filters, candidates)).at[jnp.arange(filters), chosen].set(1)
    prior = (target.prior * spread[:, None, None])[chosen].reshape(-1, len(target.values))

    def fit(mixture: jax.Array, windows: jax.Array, values: jax.Array) -> _Fitted:
        maps = maps_of(_mixed(mixture, windows)).reshape(len(prior), -1)
        found = refit.moments(maps, values, filters, target.ridge)
        weights, intercepts = refit.solve(found, jnp.arange(filters), len(prior) // filters, prior)
        left = values - refit.product(weights.T, maps) - intercepts[:, None]
        return _Fitted(weights, intercepts, left, jnp.sum(target.weights * jnp.square(left).mean(axis=1)))

    stride = max(1, windows.shape[-1] // _SAMPLES)
    few = scaled[..., ::stride], target.values[:, ::stride]

    def step(state: tuple[jax.Array, _Fitted], _: None) -> tuple[tuple[jax.Array, _Fitted], None]:
        mixture, now = state
        tried = mixture + _change(mixture, few[0], now, target.weights)
        then = fit(tried, *few)
        better = then.loss < now.loss
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), (tried, then), state), None

    mixture = start
    if rounds:
        mixture = lax.scan(step, (start, fit(start, *few)), None, length=rounds)[0][0]
    last = fit(mixture, scaled, target.values)
    return Mixed(mixture * scale, last.weights, last.intercepts, jnp.square(last.left).mean(axis=1))


def _mixed(mixture: jax.Array, windows: jax.Array) -> jax.Array:
    of_each = refit.product(mixture, windows.reshape(*windows.shape[:2], -1))
    return of_each.reshape(4, len(mixture), *windows.shape[2:])


def _change(mixture: jax.Array, windows: jax.Array, now: _Fitted, weights: jax.Array) -> jax.Array:
    """The change of the coefficients that explains most of what is left while the gates stay, ``(F, C)``."""
    filters, candidates = mixture.shape
    before = _mixed(mixture, windows)
    top = maps_of(before)
    open_here = (before == top) & (top > 0)  # two equal ones: the last is taken below
    root = jnp.sqrt(weights)
    read = now.weights.reshape(filters, -1, len(root)) * root  # (F, q, t)

    def slopes(number: jax.Array) -> jax.Array:
        """What each candidate in this filter would add to the weighted targets, ``(C, t, n)``."""
        maps = jnp.zeros_like(windows[0])
        for place, here in enumerate(open_here[:, number]):
            maps = jnp.where(here, windows[place], maps)
        return jnp.einsum("cqn,qt->ctn", maps, read[number], precision=products.PRECISION)

    unknowns = filters * candidates
    added = lax.map(slopes, jnp.arange(filters)).reshape(unknowns, len(root), -1)
    mean = added.mean(axis=-1)  # the intercepts take it up; what is left has none
    added = added.reshape(unknowns, -1)
    gram = refit.product(added, added.T) - refit.product(mean, mean.T) * now.left.shape[1]
    cross = refit.product(added, (now.left * root[:, None]).reshape(-1, 1))
    size = jnp.trace(gram) / unknowns
    damping = _DAMPING * unknowns / added.shape[1] * size + (size <= 0)
    system = jnp.concatenate([gram + damping * jnp.eye(unknowns), cross], axis=1)
    return refit.eliminate(system, jnp.arange(filters), candidates)[:, -1].reshape(filters, candidates)
