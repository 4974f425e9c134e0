"""Groups of features, picked by what least squares recovers from them.

Picking columns so is orthogonal matching pursuit (Pati et al., 1993); for filters, with the next layer as the
target, it is ThiNet (Luo et al., arXiv:1707.06342).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernelgan import refit
from kernelgan.ops import products

_Exchange = tuple[jax.Array, jax.Array, jax.Array]  # the chosen, whether it goes on, rounds
_GAIN = 1e-5  # of what is explained: less is rounding, no better exchange


def select(found: refit.Moments, weights: jax.Array, groups: int, count: int) -> jax.Array:
    """Forward selection: group after group, each time the one that explains most of what is left.

    Args:
      found: moments of the features of all groups.
      weights: of the targets' squared errors, ``(t,)``.
      groups: how many there are, ``g``.
      count: how many are selected.

    Returns:
      Their numbers ``(count,)``, in the order of selection.
    """
    each = len(found.gram) // groups

    def step(number: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        left, taken, chosen = state
        best = jnp.argmax(_gains(left, taken))
        left = refit.eliminate(left, best[None], each)
        return left, taken.at[best].set(True), chosen.at[number].set(best)

    state = (_weighted(found, weights), jnp.zeros(groups, bool), jnp.zeros(count, int))
    return lax.fori_loop(0, count, step, state)[2]


def exchange(found: refit.Moments, weights: jax.Array, groups: int, chosen: jax.Array) -> jax.Array:
    """Exchanges a chosen group for another, always the best exchange, until none explains more.

    Args:
      found: see `select`.
      weights: see `select`.
      groups: see `select`.
      chosen: numbers of the groups, ``(count,)``.
    """
    count, each = len(chosen), len(found.gram) // groups
    if count in (1, groups):
        return chosen
    everything = _weighted(found, weights)

    def without(place: jax.Array, chosen: jax.Array) -> jax.Array:
        """What is explained if one group gives way to each other, ``(g,)``."""
        kept = chosen[(place + 1 + jnp.arange(count - 1)) % count]
        taken = jnp.zeros(groups, bool).at[kept].set(True)
        left = refit.eliminate(everything, kept, each)
        targets = slice(len(everything), None)
        explained = everything[:, targets] * left[:, targets] * jnp.repeat(taken, each)[:, None]
        return jnp.sum(explained) + _gains(left, taken)

    def step(state: _Exchange) -> _Exchange:
        chosen, _, rounds = state
        explained = lax.map(lambda place: without(place, chosen), jnp.arange(count))  # (count, g)
        place, new = jnp.unravel_index(jnp.argmax(explained), explained.shape)
        better = explained[place, new] > (1 + _GAIN) * explained[place, chosen[place]]
        return jnp.where(better, chosen.at[place].set(new), chosen), better, rounds + 1

    def goes_on(state: _Exchange) -> jax.Array:
        return state[1] & (state[2] < 2 * groups)

    return lax.while_loop(goes_on, step, (chosen, jnp.bool_(True), jnp.int32(0)))[0]


def _weighted(found: refit.Moments, weights: jax.Array) -> jax.Array:
    """Covariances of the features with themselves and with the targets, these by the root of their weight."""
    return lax.stop_gradient(jnp.concatenate([found.gram, found.cross * jnp.sqrt(weights)], axis=1))


def _gains(left: jax.Array, taken: jax.Array) -> jax.Array:
    """What each group explains of the targets, ``(g,)``; minus infinity for a group that is taken."""
    groups, each = len(taken), len(left) // len(taken)
    numbers = jnp.arange(groups)
    blocks = left[:, : len(left)].reshape(groups, each, groups, each)[numbers, :, numbers]
    blocks = jnp.where(taken[:, None, None], jnp.eye(each), blocks)
    cross = left[:, len(left) :].reshape(groups, each, -1)
    explained = jnp.matmul(refit.inverse_factor(blocks), cross, precision=products.PRECISION)
    return jnp.where(taken, -jnp.inf, jnp.sum(jnp.square(explained), axis=(1, 2)))
