"""Placebo parents: what a generator makes when one side's zoo is exchanged for another.

Networks that compose are made from both parents, so they must lose most of their skill when either zoo is
exchanged. Networks that were trained elsewhere, memorised or fitted to the test keep it.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from kernelgan import keys, models
from kernelgan.baselines import nulls
from kernelgan.generators.base import Parents
from kernelgan.types import Key, Params

NETWORKS = 8
"""Placebo networks that are kept and measured, see `some`: fewer than `comparison.FEW` show little."""

RANDOM, OTHER, OPPOSITE = "random", "other", "opposite"
"""What stands in: untrained networks of the parents' scale; the zoo of another concept of that kind; where
there is none, the parents with yes and no exchanged, whose weights are as those of trained networks."""

NAMES = tuple(f"{side}_{stand_in}" for side in Parents._fields for stand_in in (RANDOM, OTHER, OPPOSITE))
"""Every placebo, such as ``attribute_random``: the attribute's zoo is exchanged for untrained networks."""

WORDS = {
    RANDOM: "random networks",
    OTHER: "those of another concept",
    OPPOSITE: "networks that answer the opposite",
}
"""What stands in, for a reader."""


def exchanged(
    network: models.ConvNet,
    image_size: int,
    parents: Parents,
    key: Key,
    others: Mapping[str, Params] | None = None,
) -> dict[str, Parents]:
    """Both zoos, one of them exchanged.

    Args:
      network: the parents' module.
      image_size: pixels a side.
      parents: of a pair.
      key: of the run and the pair.
      others: by side ("attribute", "object"), the zoo of another concept; of the same shapes.

    Returns:
      By a name of `NAMES`: two a side, the random and one of the others.
    """
    made: dict[str, Parents] = {}
    for number, side in enumerate(Parents._fields):
        own = getattr(parents, side)
        count = len(own["dense"]["bias"])
        keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 4), number), count)
        stand_ins = {RANDOM: random_like(network, image_size, own, keys)}
        if others and side in others:
            stand_ins[OTHER] = others[side]
        else:
            stand_ins[OPPOSITE] = opposite(own)
        for name, zoo in stand_ins.items():
            made[f"{side}_{name}"] = parents._replace(**{side: zoo})
    return made


def measured(generated: Mapping[str, Params], parents: Parents) -> np.ndarray | None:
    """Numbers of the parents whose placebo networks are measured, `NETWORKS` of each zoo.

    They are drawn by what the generated networks hold: known only once these are made.

    Args:
      generated: by row, networks of these parents.
      parents: of a pair.

    Returns:
      int64 ``(NETWORKS,)``, ascending; None where there are no more parents, or not one network for each.
    """
    count, *others = (len(params["dense"]["bias"]) for params in (*parents, *generated.values()))
    if count <= NETWORKS or any(other != count for other in others):
        return None
    rng = np.random.default_rng(int(keys.of_arrays(dict(generated)), 16))
    return np.sort(rng.choice(count, NETWORKS, replace=False))


def some(params: Params) -> Params:
    """`NETWORKS` of stacked networks ``(M, ...)``, or all where there are no more.

    They are drawn by what they hold, for a method's first networks may be made otherwise than its others.
    """
    count = len(params["dense"]["bias"])
    params = jax.tree.map(np.asarray, params)
    if count <= NETWORKS:
        return params
    rng = np.random.default_rng(int(keys.of_arrays(params), 16))
    drawn = np.sort(rng.choice(count, NETWORKS, replace=False))
    return jax.tree.map(lambda leaf: leaf[drawn], params)


def random_like(network: models.ConvNet, image_size: int, zoo: Params, keys: Key) -> Params:
    """Untrained networks whose leaves have the root mean square of a zoo's: their logits are as loud.

    Untrained networks as they are answer almost nothing, so that the other parent would be heard alone.

    Args:
      network: the zoo's module.
      image_size: pixels a side.
      zoo: ``M`` stacked networks.
      keys: ``M`` keys.
    """

    def scaled(drawn: np.ndarray, own: np.ndarray) -> np.ndarray:
        axes = tuple(range(1, drawn.ndim))
        sizes = [np.sqrt(np.mean(np.square(leaf), axis=axes, keepdims=True)) for leaf in (own, drawn)]
        return (drawn * sizes[0] / np.where(sizes[1] > 0, sizes[1], 1)).astype(drawn.dtype)

    return jax.tree.map(scaled, nulls.initialise(network, image_size, keys), zoo)


def opposite(zoo: Params) -> Params:
    """Networks that say no where these say yes."""
    return {**zoo, "dense": {name: leaf[..., ::-1] for name, leaf in zoo["dense"].items()}}
