"""The study: makes networks of the same parents with more and more of `reduce`, and of random kernels."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from kernelgan import models, refit
from kernelgan.baselines import nulls
from kernelgan.data import quadrants
from kernelgan.generators import backfitting, base, reduce
from kernelgan.progress import Progress
from kernelgan.types import Params
from studies import finished
from studies.ladder import study as ladder

DEFAULT = reduce.Config()
MORE = reduce.probes_of(DEFAULT)

PARTS = {
    "picked": ("filters picked", reduce.Config(rounds=0, sweeps=0)),
    "mixed": ("and mixed", reduce.Config(sweeps=0)),
    "more": ("and mixed, with as many images as backfitting has", reduce.Config(images=MORE, sweeps=0)),
    "backfitted": ("and mixed, and backfitted: the default", DEFAULT),
}
"""By row: in words, and the settings."""

NULLS = {
    "refit": "null: random kernels, heads refitted",
    "random": "null: random kernels, backfitted",
    "targets": "null: a random first layer, the rest as by default, to what the parents' layers compute",
}
"""With as many images as backfitting has."""

PROBES = ("seen", "noise")


def evaluate(part: quadrants.Partition, pairs: list[ladder.Pair]) -> dict[str, Any]:
    """All rows of all pairs.

    Args:
      part: the images.
      pairs: what is composed.

    Returns:
      By row, such as "seen_mixed", pair and figure, see `finished.figures`, a number for each network.
    """
    network = models.network_of(pairs[0].parents.attribute)
    size = part.source.train.images.shape[1]
    generators = {row: reduce.reducer(network, config, "U") for row, (_, config) in PARTS.items()}
    rows: dict[str, Any] = {}
    progress = Progress("parts")
    for number, pair in enumerate(pairs):
        shown = [ladder.images_of(part, pair, ladder.RUNGS[kind], MORE) for kind in PROBES]
        made: dict[str, Params] = {}
        for row, generator in generators.items():
            images = [of_kind[: generator.images] for of_kind in shown]
            given = [pair.parents] * len(PROBES), images, [jax.random.key(0)] * len(PROBES)
            found = base.generate(generator, {}, *given, name="reduce")
            made |= {f"{kind}_{row}": one[""] for kind, one in zip(PROBES, found, strict=True)}
        for kind, of_kind in zip(PROBES, shown, strict=True):
            for row, params in _nulls(pair.parents, of_kind, size).items():
                made[f"{kind}_{row}"] = params
        networks = {row: [jax.device_get(params)] for row, params in made.items()}
        finished.add(rows, pair.name, finished.figures(part, pair.split, pair.parents, networks))
        progress(number + 1, len(pairs))
    progress.close("done")
    return rows


def _nulls(parents: base.Parents, images: np.ndarray, size: int) -> dict[str, Params]:
    """Random kernels with heads refitted, and these backfitted: mixed with as many other random kernels.

    And `reduce` with these as the first layer's candidates: what it owes to its targets, the parents' hidden
    layers, and not to their filters.
    """
    network, members = models.network_of(parents.attribute), len(parents.attribute["dense"]["bias"])
    drawn = jax.device_get(nulls.initialise(network, size, jax.random.split(jax.random.key(5), 2 * members)))
    own, other = (jax.tree.map(lambda leaf, n=n: leaf[n::2], drawn) for n in (0, 1))
    wanted = refit.answers(parents, images)
    refitted = refit.refit_heads(own, wanted, images)
    backfitted = backfitting.backfit_networks(network, refitted, other, wanted, images)
    firsts = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1), own["conv1"], other["conv1"])
    return {
        "refit": refitted,
        "random": backfitted,
        "targets": _with_first_layer(network, tuple(parents), images, firsts),
    }


@functools.partial(jax.jit, static_argnums=0)
def _with_first_layer(
    network: models.ConvNet, zoos: tuple[Params, ...], images: np.ndarray, firsts: Params
) -> Params:
    return reduce.compose_zoos(network, DEFAULT, zoos, images, firsts)
