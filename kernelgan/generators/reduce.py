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
from jax.scipy.linalg import solve_triangular

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
_PATCHES_SEED = 0
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
      difference: ``(N, 2)``, the mean logit difference of each concept's parents.
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
        laid_out = network.lay_out(models.normalise_images(probes))

        def one(group: jax.Array) -> Params:
            members = [
                jax.tree.map(lambda leaf, n=number % size: leaf[n], zoo)
                for zoo, size in zip(parents, sizes, strict=True)
                for number in group
            ]
            return reduce(network, config, unite(network, members, laid_out, len(probes)))

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
            refit.difference(parent["dense"], refit.by_image(maps[-1], count))
            for parent, maps in zip(parents, hidden, strict=True)
        ]
    )
    return Group(parents, hidden, answers.reshape(2, -1, count).mean(axis=1).T)


def reduce(network: models.ConvNet, config: Config, group: Group) -> Params:
    """One network of the parents' size.

    Args:
      network: the parents' module.
      config: of the family.
      group: the united network.
    """
    names = models.layer_names(network.filters)
    count = len(group.difference)
    importance = importances(names, group, count)
    made: Params = {}
    # The united layer as it reads what is kept of the layer before; the first reads the image.
    layer = {
        leaf: jnp.concatenate([parent[names[0]][leaf] for parent in group.params], axis=-1)
        for leaf in ("kernel", "bias")
    }
    maps = _side_by_side(group, 0)
    for number, (name, filters) in enumerate(zip(names, network.filters, strict=True)):
        candidates = refit.by_image(maps, count)
        if number + 1 == len(names):
            found, each = _of_heads(candidates, group, config.head_ridge)
            weights = jnp.where(found.variance > 0, 1 / jnp.maximum(found.variance, 1e-30), 0)
            kept = select(found, weights, candidates.shape[1], filters)
        else:
            following = names[number + 1]
            found, each = _of_layer(candidates, group, number, following, config)
            weights = _balanced(importance[number + 1], found.variance, len(group.params))
            kept = select(found, weights, candidates.shape[1], filters)
            kept = exchange(found, weights, candidates.shape[1], kept)
        kept = jnp.sort(kept)
        made[name] = {leaf: values[..., kept] for leaf, values in layer.items()}
        fitted, intercepts = refit.solve(found, _features(kept, each))
        if number + 1 == len(names):
            return {**made, "dense": refit.two_concept_head(fitted, intercepts)}
        side = group.params[0][following]["kernel"].shape[0]
        kernel = fitted.reshape(filters, side, side, -1).transpose(1, 2, 0, 3)
        layer = {"kernel": kernel, "bias": intercepts}
        maps = refit.run_layer(layer, jnp.take(maps, kept, axis=-4))
    raise AssertionError


def importances(names: tuple[str, ...], group: Group, count: int) -> list[jax.Array]:
    """How much the logits hang on each united filter's pre-activations: mean squared derivatives.

    Of the last layer the squared weights of the head, where the filter is active; of a layer before,
    those of the next layer times the squared kernels between (without the covariance of paths).

    Args:
      names: of the layers.
      group: the united network.
      count: images.

    Returns:
      For each layer ``(filters of all parents,)``.
    """
    by_parent = []
    for parent, hidden in zip(group.params, group.hidden, strict=True):
        active = [jnp.mean(refit.by_image(maps, count) > 0, axis=0) for maps in hidden]  # (C, H, W)
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


def _of_heads(candidates: jax.Array, group: Group, ridge: float) -> tuple[refit.Moments, int]:
    """Moments of last maps ``(N, C, H, W)`` with the logits, and the features of each map."""
    features = candidates.reshape(len(candidates), -1)
    each = features.shape[1] // candidates.shape[1]
    return refit.moments(features, group.difference, candidates.shape[1], ridge), each


def _of_layer(
    candidates: jax.Array, group: Group, number: int, following: str, config: Config
) -> tuple[refit.Moments, int]:
    """Moments of patches with the next layer's pre-activations, and the taps of each map."""
    side = group.params[0][following]["kernel"].shape[0]
    rows, columns = positions(candidates.shape, side, config.patches)
    patches = _patches(candidates, rows, columns, side)
    targets = []
    for parent, hidden in zip(group.params, group.hidden, strict=True):
        kernel, bias = parent[following]["kernel"], parent[following]["bias"]
        own = _patches(refit.by_image(hidden[number], len(candidates)), rows, columns, side)
        taps = kernel.transpose(2, 0, 1, 3).reshape(own.shape[1], -1)
        targets.append(jnp.matmul(own, taps, precision=products.PRECISION) + bias)
    found = refit.moments(patches, jnp.concatenate(targets, axis=1), candidates.shape[1], config.ridge)
    return found, side * side


def positions(shape: tuple[int, ...], side: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns ``(N, each)`` of patches that the next layer's pooling reads.

    Args:
      shape: of the maps, ``(N, C, H, W)``.
      side: of the next layer's kernel.
      each: positions of an image.
    """
    rng = np.random.default_rng(_PATCHES_SEED)
    high, wide = ((length - side + 1) // 2 * 2 for length in shape[2:])
    return rng.integers(high, size=(shape[0], each)), rng.integers(wide, size=(shape[0], each))


def _patches(maps: jax.Array, rows: np.ndarray, columns: np.ndarray, side: int) -> jax.Array:
    """Patches ``(N * each, C * side * side)`` of maps ``(N, C, H, W)``, map after map."""
    taps = np.arange(side)
    down = rows[:, :, None, None] + taps[:, None]
    across = columns[:, :, None, None] + taps
    image = np.arange(len(rows))[:, None, None, None]
    found = maps.transpose(0, 2, 3, 1)[image, down, across]  # (N, each, side, side, C)
    return found.transpose(0, 1, 4, 2, 3).reshape(rows.size, -1)


def _features(groups: jax.Array, each: int) -> jax.Array:
    """Numbers of the features of these groups."""
    return (groups[:, None] * each + jnp.arange(each)).reshape(-1)


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
    everything = jnp.concatenate([found.gram, found.cross * jnp.sqrt(weights)], axis=1)

    def step(number: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        left, taken, chosen = state  # what the chosen groups do not explain of everything
        blocks, cross = _blocks(left, groups)
        gains = _gains(jnp.where(taken[:, None, None], jnp.eye(each), blocks), cross)
        best = jnp.argmax(jnp.where(taken, -jnp.inf, gains))
        rows = lax.dynamic_slice_in_dim(left, best * each, each)
        half = solve_triangular(jnp.linalg.cholesky(blocks[best]), rows, lower=True)
        left -= jnp.matmul(half[:, : len(left)].T, half, precision=products.PRECISION)
        return left, taken.at[best].set(True), chosen.at[number].set(best)

    state = (everything, jnp.zeros(groups, bool), jnp.zeros(count, int))
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
    everything = jnp.concatenate([found.gram, found.cross * jnp.sqrt(weights)], axis=1)

    def without(place: jax.Array, chosen: jax.Array) -> jax.Array:
        """What is explained if one group gives way to each other, ``(g,)``."""
        kept = chosen[(place + 1 + jnp.arange(count - 1)) % count]
        rows = everything[_features(kept, each)]
        gram = rows[:, _features(kept, each)]
        half = solve_triangular(jnp.linalg.cholesky(gram), rows, lower=True)
        blocks, cross = _blocks(everything, groups)
        mine, of_targets = jnp.split(half, [len(everything)], axis=1)
        mine = mine.reshape(len(half), groups, each)
        blocks -= jnp.einsum("rgi,rgj->gij", mine, mine, precision=products.PRECISION)
        cross -= jnp.einsum("rgi,rt->git", mine, of_targets, precision=products.PRECISION)
        taken = jnp.zeros(groups, bool).at[kept].set(True)
        gains = _gains(jnp.where(taken[:, None, None], jnp.eye(each), blocks), cross)
        return jnp.where(taken, -jnp.inf, jnp.sum(jnp.square(of_targets)) + gains)

    def step(state: _Exchange) -> _Exchange:
        chosen, _, rounds = state
        explained = lax.map(lambda place: without(place, chosen), jnp.arange(count))  # (count, g)
        place, new = jnp.unravel_index(jnp.argmax(explained), explained.shape)
        better = explained[place, new] > (1 + _GAIN) * explained[place, chosen[place]]
        return jnp.where(better, chosen.at[place].set(new), chosen), better, rounds + 1

    def goes_on(state: _Exchange) -> jax.Array:
        return state[1] & (state[2] < 2 * groups)

    return lax.while_loop(goes_on, step, (chosen, jnp.bool_(True), jnp.int32(0)))[0]


def _blocks(left: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """Of ``(d, d + t)`` the groups' own blocks ``(g, q, q)``, and their rows of the targets ``(g, q, t)``."""
    each = len(left) // groups
    own = left[:, : len(left)].reshape(groups, each, groups, each)
    numbers = jnp.arange(groups)
    return own[numbers, :, numbers], left[:, len(left) :].reshape(groups, each, -1)


def _gains(blocks: jax.Array, cross: jax.Array) -> jax.Array:
    """What each group explains of the targets: ``(g, q, q)`` and ``(g, q, t)`` to ``(g,)``."""
    solved = solve_triangular(jnp.linalg.cholesky(blocks), cross, lower=True)
    return jnp.sum(jnp.square(solved), axis=(1, 2))
