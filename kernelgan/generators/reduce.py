"""Unite both parents into one wide network, then reduce it to a parent's size in closed form.

Side by side, the filters of two parents are one network of twice the width, and it answers both concepts. It
is reduced layer by layer, without a gradient step. Of a layer's maps those are kept from which the next
layer's pre-activations are recovered best by least squares, which gives the next layer's kernels and biases
too; of the last layer's maps, those from which ridge regression recovers both parents' logit differences,
which gives the heads. Selecting columns by what least squares recovers from them is orthogonal matching
pursuit (Pati et al., 1993); for filters, with the next layer as the target, it is ThiNet (Luo et al.,
arXiv:1707.06342).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernelgan import fields, models, refit
from kernelgan.fields import setting
from kernelgan.generators.base import Generator, Parents, Tier, stateless
from kernelgan.ops import products
from kernelgan.types import Array, Key, Params

LABELS = {
    "": (
        "both parents united and reduced",
        "both parents' filters reduced to half by least squares on seen images",
    )
}

_Exchange = tuple[jax.Array, jax.Array, jax.Array]  # the chosen, whether it goes on, rounds
_PLACES = 0  # seed of the places of patches
_BLOCK = 64  # images
_GAIN = 1e-5  # of what is explained: less is rounding, no better exchange


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of ``config.generators.reduce``, ``reduce_rendered`` and ``reduce_noise``."""

    images: int = setting(1536, fields.whole(2), "probe images")
    patches: int = setting(8, fields.whole(1), "positions of each image that a convolution is fitted on")
    parents: int = setting(1, fields.whole(1), "parents of each concept behind a network")
    ridge: float = setting(1e-3, fields.positive, "of a convolution's fit, in units of a filter's variance")
    head_ridge: float = setting(
        refit.HEAD_RIDGE, fields.positive, "of the heads' fit, in units of a filter's mean variance"
    )


class Group(NamedTuple):
    """The united network: parents, the attribute's first.

    Attributes:
      params: of each parent.
      hidden: for each parent, the maps that each layer gives, as the next layer reads them.
      difference: ``(2, N)``, the mean logit difference of each concept's parents.
    """

    params: list[Params]
    hidden: list[list[jax.Array]]
    difference: jax.Array


def make(network: models.ConvNet, config: Config) -> Generator:
    """Reduces with unlabelled images of the seen quadrants (tier U)."""
    return reducer(network, config, "U")


def reducer(network: models.ConvNet, config: Config, reads: Tier, made: str = "rendered") -> Generator:
    """A generator that unites and reduces.

    Network ``i`` is made of parents ``i k`` to ``i k + k - 1`` of each zoo, ``k = config.parents``, counted
    round; there are as many networks as the larger zoo has such groups.

    Args:
      network: the parents' module.
      config: of the family.
      reads: tier of its probes, "S" or "U".
      made: in tier S, which images of `kernelgan.probes`.
    """

    def generate(key: Key, parents: Parents, probes: Array) -> Params:
        del key
        sizes = [len(zoo["dense"]["bias"]) for zoo in parents]
        groups = np.arange(max(1, max(sizes) // config.parents) * config.parents).reshape(-1, config.parents)
        count = -(-len(probes) // _BLOCK) * _BLOCK  # some images twice
        laid_out = network.lay_out(models.normalise_images(probes[jnp.arange(count) % len(probes)]))

        def one(group: jax.Array) -> Params:
            members = [
                jax.tree.map(lambda leaf, n=number % size: leaf[n], zoo)
                for zoo, size in zip(parents, sizes, strict=True)
                for number in group
            ]
            return reduce(network, config, unite(network, members, laid_out, count))

        return lax.map(one, jnp.asarray(groups))

    return stateless(jax.jit(generate), reads=reads, images=config.images, made=made, host=False)


def unite(network: models.ConvNet, parents: list[Params], laid_out: jax.Array, count: int) -> Group:
    """Runs parents side by side.

    Args:
      network: their module.
      parents: of the attribute, then as many of the object.
      laid_out: images, see `models.ConvNet.lay_out`.
      count: how many.
    """
    hidden = []
    for parent in parents:
        maps = [laid_out]
        for name in models.layer_names(network.filters):
            maps.append(refit.run_layer(parent[name], maps[-1]))
        hidden.append(maps[1:])
    answers = jnp.stack(
        [
            refit.difference(parent["dense"], refit.batch_minor(maps[-1], count))
            for parent, maps in zip(parents, hidden, strict=True)
        ]
    )
    return Group(parents, hidden, answers.reshape(2, -1, count).mean(axis=1))


def reduce(network: models.ConvNet, config: Config, group: Group) -> Params:
    """One network of the parents' size.

    Args:
      network: the parents' module.
      config: of the family.
      group: the united network.
    """
    names = models.layer_names(network.filters)
    importance = importances(names, group)
    made: Params = {}
    # A united layer, as it reads what is kept of the layer before; the first reads the image.
    firsts = [parent[names[0]] for parent in group.params]
    layer = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *firsts)
    maps = _side_by_side(group, 0)
    for number, filters in enumerate(network.filters[:-1]):
        found = _of_layer(maps, group, number, names[number + 1], config)
        weights = _balanced(importance[number + 1], found.variance, len(group.params))
        candidates = layer["kernel"].shape[-1]
        kept = exchange(found, weights, candidates, select(found, weights, candidates, filters))
        made[names[number]] = jax.tree.map(lambda leaf, kept=kept: leaf[..., kept], layer)
        side = group.params[0][names[number + 1]]["kernel"].shape[0]
        fitted, intercepts = refit.solve(found, kept, side * side)
        kernel = fitted.reshape(filters, side, side, -1).transpose(1, 2, 0, 3)
        layer = {"kernel": kernel, "bias": intercepts}
        maps = refit.run_layer(layer, jnp.take(maps, kept, axis=-4))
    last = refit.batch_minor(maps, group.difference.shape[1])
    features = last.reshape(-1, last.shape[-1])
    found = refit.moments(features, group.difference, len(last), config.head_ridge)
    weights = jnp.where(found.variance > 0, 1 / jnp.where(found.variance > 0, found.variance, 1), 0)
    kept = select(found, weights, len(last), network.filters[-1])
    made[names[-1]] = jax.tree.map(lambda leaf: leaf[..., kept], layer)
    fitted, intercepts = refit.solve(found, kept, len(features) // len(last))
    return {**made, "dense": refit.two_concept_head(fitted, intercepts)}


def importances(names: tuple[str, ...], group: Group) -> list[jax.Array]:
    """How much the logits hang on each united filter's pre-activations: mean squared derivatives.

    Of the last layer the squared weights of the head, where the filter is active; of a layer before,
    those of the next layer times the squared kernels between (without the covariance of paths).

    Args:
      names: of the layers.
      group: the united network.

    Returns:
      For each layer ``(filters of all parents,)``.
    """
    by_parent = []
    for parent, hidden in zip(group.params, group.hidden, strict=True):
        images = (-1,) if hidden[0].ndim == 4 else (0, -1)
        active = [jnp.mean(maps > 0, axis=images) for maps in hidden]  # (C, H, W)
        head = parent["dense"]["kernel"]
        slope = jnp.square(head[:, 1] - head[:, 0]).reshape(active[-1].shape)
        found = [jnp.sum(slope * active[-1], axis=(1, 2))]
        for number in range(len(names) - 1, 0, -1):
            kernel = parent[names[number]]["kernel"]
            through = jnp.einsum("hwio,o->i", jnp.square(kernel), found[0], precision=products.PRECISION)
            found.insert(0, through * active[number - 1].mean(axis=(1, 2)))
        by_parent.append(found)
    return [jnp.concatenate(layer) for layer in zip(*by_parent, strict=True)]


def _balanced(importance: jax.Array, variance: jax.Array, parents: int) -> jax.Array:
    """Weights of squared errors ``(t,)``, with which what is to be explained of each parent sums to 1."""
    total = jnp.sum((importance * variance).reshape(parents, -1), axis=1)
    share = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
    return importance * jnp.repeat(share, len(importance) // parents)


def _side_by_side(group: Group, number: int) -> jax.Array:
    return jnp.concatenate([maps[number] for maps in group.hidden], axis=-4)


def _of_layer(maps: jax.Array, group: Group, number: int, following: str, config: Config) -> refit.Moments:
    """Moments of what the next layer reads of candidates, with the parents' pre-activations there."""
    side = group.params[0][following]["kernel"].shape[0]
    own = patches(_side_by_side(group, number), side, config.patches)
    each = len(own) // len(group.params)
    targets = []
    for place, parent in enumerate(group.params):
        taps = parent[following]["kernel"].transpose(3, 2, 0, 1)
        read = own[place * each : (place + 1) * each]
        found = jnp.matmul(taps.reshape(len(taps), -1), read, precision=products.PRECISION)
        targets.append(found + parent[following]["bias"][:, None])
    read = own if number == 0 else patches(maps, side, config.patches)  # the first layer's are the parents'
    return refit.moments(read, jnp.concatenate(targets), maps.shape[-4], config.ridge)


def patches(hidden: jax.Array, side: int, each: int) -> jax.Array:
    """What kernels read of maps at some places that the pooling after them reads.

    Places are drawn for every `_BLOCK` images.

    Args:
      hidden: maps as a layer gives them.
      side: of the kernels.
      each: places of an image.

    Returns:
      ``(C * side * side, N * each)``, map after map.
    """
    if hidden.ndim == 4:
        hidden = hidden.reshape(*hidden.shape[:3], -1, _BLOCK).transpose(3, 0, 1, 2, 4)
    blocks, channels, height, width, images = hidden.shape
    rng = np.random.default_rng(_PLACES)
    rows, columns = (
        rng.integers((length - side + 1) // 2 * 2, size=(blocks, each)) for length in (height, width)
    )

    def cut(maps: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return lax.dynamic_slice(maps, (0, row, column, 0), (channels, side, side, images))

    found = jax.vmap(jax.vmap(cut, in_axes=(None, 0, 0)))(hidden, jnp.asarray(rows), jnp.asarray(columns))
    return found.transpose(2, 3, 4, 0, 1, 5).reshape(channels * side * side, -1)


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
    return jnp.concatenate([found.gram, found.cross * jnp.sqrt(weights)], axis=1)


def _gains(left: jax.Array, taken: jax.Array) -> jax.Array:
    """What each group explains of the targets, ``(g,)``; minus infinity for a group that is taken."""
    groups, each = len(taken), len(left) // len(taken)
    numbers = jnp.arange(groups)
    blocks = left[:, : len(left)].reshape(groups, each, groups, each)[numbers, :, numbers]
    blocks = jnp.where(taken[:, None, None], jnp.eye(each), blocks)
    cross = left[:, len(left) :].reshape(groups, each, -1)
    explained = jnp.matmul(refit.inverse_factor(blocks), cross, precision=products.PRECISION)
    return jnp.where(taken, -jnp.inf, jnp.sum(jnp.square(explained), axis=(1, 2)))
