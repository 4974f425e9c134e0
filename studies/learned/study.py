"""The study: trains generators on networks of many concepts, for each cell of what is new; judges them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from kernelgan import engine, generators, keys, losses, models, plan, population, probes, splits, stages
from kernelgan.checkpoint import Stage
from kernelgan.config import Settings
from kernelgan.data import leakage, quadrants
from kernelgan.generators import base, reduce
from kernelgan.progress import Progress
from kernelgan.types import PairName, Params, Quadrant, UserError
from studies import finished
from studies.learned import tasks
from studies.learned.design import Design
from studies.learned.loss import lost

FEW = 12  # concepts of a side that the cell "few" learns from
PACE = 25  # steps of a call
OWN = 16  # networks of each of the block's concepts
OTHER = 2  # of each other concept
_JUDGED = 4  # networks of each of the block's concepts, which nothing is learned from
_POOL = 20_000  # images of a training
_DRAWS = 16_384  # pairs of networks of a training
_SHARE = 1 / 3  # of a side's draws, those of the block's own concepts where these are known


@dataclasses.dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
      steps: a multiple of `PACE`.
      images: of a step.
      probes: half photographs that show neither concept of the block, half noise.
    """

    steps: int
    images: int = 64
    probes: int = 128


class Block(NamedTuple):
    """What is learned from, and what is judged.

    Attributes:
      part: the images.
      held_out: the block's pairs.
      concepts: the block's own, then others, side by side.
      networks: of all concepts, ``(M, ...)``, concept by concept.
      probes: uint8 ``(N, H, W, C)``.
    """

    part: quadrants.Partition
    held_out: list[PairName]
    concepts: list[tasks.Concept]
    networks: Params
    probes: np.ndarray

    def numbers(self, place: int) -> np.ndarray:
        """Numbers of a concept's networks."""
        sizes = [concept.models for concept in self.concepts]
        return np.arange(sizes[place]) + sum(sizes[:place])

    def own(self, side: str) -> dict[str, int]:
        """The block's concepts of a side, and their places."""
        names = {pair[side == "object"] for pair in self.held_out}
        return {c.name: n for n, c in enumerate(self.concepts) if c.side == side and c.name in names}

    def judged(self, side: str, concept: str) -> Params:
        """Networks of one of the block's concepts that nothing is learned from."""
        numbers = self.numbers(self.own(side)[concept])[:_JUDGED]
        return jax.tree.map(lambda leaf: leaf[numbers], self.networks)


def read(settings: Settings, text: str) -> tuple[quadrants.Partition, list[PairName]]:
    """The images, and the pairs of a block such as ``black,white:airplane,dog``: each with each.

    Raises:
      UserError: a concept is unknown, or a pair is sealed or has too few images.
    """
    sides = [[name.strip() for name in side.split(",") if name.strip()] for side in text.split(":")]
    if len(sides) != 2 or not all(sides):
        raise UserError(f"--block={text}; expected attributes and objects, such as black,white:airplane,dog.")
    held_out = list(itertools.product(sides[0], sides[1]))
    folds = splits.of_config(settings)
    for name in held_out:
        if folds and folds.is_sealed(name):
            raise UserError(f"--block: {':'.join(name)} is sealed; expected pairs for development.")
    part = finished.read_images(settings)
    for name in held_out:
        quadrants.split(part, *name)
    return part, held_out


def probes_of(part: quadrants.Partition, held_out: list[PairName], count: int) -> np.ndarray:
    """Photographs that show no concept of the block, and as many images of noise."""
    rng = np.random.default_rng(0)
    neither = np.logical_and.reduce(
        [quadrants.split(part, *name).train == Quadrant.NEITHER for name in held_out]
    )
    chosen = rng.permutation(np.flatnonzero(neither))[: count // 2]
    leakage.check_behind(part, "the probes", held_out, {"the probes": chosen})
    if len(chosen) < count // 2:
        raise UserError(f"{len(chosen)} photographs show no concept of the block; expected {count // 2}.")
    return _with_noise(part.source.train.images, chosen)


def _with_noise(photographs: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Some photographs, and as many images of noise."""
    return np.concatenate([photographs[chosen], probes.noise(len(chosen), size=photographs.shape[1])])


def load(
    settings: Settings,
    part: quadrants.Partition,
    held_out: list[PairName],
    count: int,
    training: Training,
    directory: Path,
) -> tuple[Block, str]:
    """The block with networks of all concepts, and their digest; networks of before are read again.

    Args:
      settings: how zoos are trained, and of which networks.
      part: the images.
      held_out: the block's pairs.
      count: concepts of a side, see `tasks.concepts`.
      training: of the generators.
      directory: where the networks are kept.
    """
    network = models.ConvNet(settings.model.filters, settings.model.kernel_size)
    zoo = dataclasses.replace(plan.zoo_training(settings, "attribute"), shares=(1.0, 1.0))
    concepts = tasks.concepts(part, held_out, count=count, own=OWN, other=OTHER)
    images = part.source.train.images
    key = keys.StageKey(
        {
            "images": keys.of_arrays({"images": images}),
            "concepts": keys.of_arrays({f"{n:04d}": c.holds for n, c in enumerate(concepts)}),
            "settings": keys.of_values([zoo, network, [[c.side, c.name, c.models] for c in concepts]]),
            "arithmetic": population.arithmetic(network, images.shape[1], losses.cross_entropy),
            "code": keys.of_source("studies.learned.tasks", *stages.CODE["zoo"]),
        }
    )
    stage = Stage(directory, key, seconds=20.0)
    networks = stage.result()
    if networks is None:
        progress = Progress("networks")
        networks = tasks.train(network, images, concepts, zoo, saver=stage, progress=progress)
        stage.finish(networks)
        progress.close("done")
    looked_at = probes_of(part, held_out, training.probes)
    return Block(part, held_out, concepts, networks, looked_at), stage.digest


def learned_from(block: Block, cell: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of networks ``(K, 2)`` and numbers of images ``(N,)`` that a cell's training may draw.

    Raises:
      LeakageError: an image has the content of one of the block's conjunctions.
    """
    known = {"attribute": cell in ("parents", "object"), "object": cell in ("parents", "attribute")}
    free = tasks.readable(block.part, block.held_out)
    rng = np.random.default_rng(1)
    sides = []
    for side, labels in (
        ("attribute", block.part.source.train.attributes),
        ("object", block.part.source.train.objects),
    ):
        own = block.own(side)
        others = [n for n, c in enumerate(block.concepts) if c.side == side and n not in own.values()]
        others = others[:FEW] if cell == "few" else others
        numbers = rng.choice(np.concatenate([block.numbers(place) for place in others]), _DRAWS)
        if known[side]:
            mine = np.concatenate([block.numbers(place)[_JUDGED:] for place in own.values()])
            numbers = np.where(rng.random(_DRAWS) < _SHARE, rng.choice(mine, _DRAWS), numbers)
        else:
            for concept in own:
                free &= labels[concept] == 0
        sides.append(numbers)
    images = np.resize(rng.permutation(np.flatnonzero(free)), _POOL)
    leakage.check_behind(block.part, cell, block.held_out, {"the images": images})
    return np.stack(sides, axis=1).astype(np.int32), images.astype(np.int32)


def program(network: models.ConvNet, design: Design, training: Training) -> engine.Program:
    """The training of a generator: its rate rises for a hundred steps, then falls by a cosine.

    A member is ``{"key", "pairs", "images"}``, what it draws from. Shared are ``networks``, what the design
    knows of them in ``parents`` and of the probes in ``probes``, and ``images``.
    """
    warm = min(100, training.steps // 4)
    rates = optax.warmup_cosine_decay_schedule(0, design.rate, warm, training.steps, 0.02 * design.rate)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rates, weight_decay=design.decay))

    def init(member: Any, shared: Any) -> Params:  # noqa: ANN401
        like = jax.tree.map(lambda leaf: leaf[0], shared["parents"])
        weights = design.initialise(jax.random.wrap_key_data(member["key"]), like, shared["probes"])
        return {"weights": weights, "moments": optimizer.init(weights)}

    def advance(state: Params, member: Any, shared: Any, call: jax.Array) -> Any:  # noqa: ANN401
        key = jax.random.fold_in(jax.random.wrap_key_data(member["key"]), 1)

        def step(state: Params, number: jax.Array) -> tuple[Params, dict[str, jax.Array]]:
            first, second = jax.random.split(jax.random.fold_in(key, number))
            drawn = jax.random.choice(first, member["pairs"], (design.pairs,))
            images = shared["images"][jax.random.choice(second, member["images"], (training.images,))]

            def one(pair: jax.Array, weights: Params) -> jax.Array:
                def chosen(stacked: Any) -> tuple[Any, Any]:  # noqa: ANN401
                    first, second = (
                        jax.tree.map(lambda leaf, n=pair[side]: leaf[n], stacked) for side in (0, 1)
                    )
                    return first, second

                made = design.generate(weights, chosen(shared["parents"]), shared["probes"])
                return lost(network, made, chosen(shared["networks"]), images)

            def loss(weights: Params) -> jax.Array:
                return jnp.mean(lax.map(lambda pair: one(pair, weights), drawn))  # one solve at a time

            value, gradient = jax.value_and_grad(loss)(state["weights"])
            updates, moments = optimizer.update(gradient, state["moments"], state["weights"])
            weights = design.bounded(optax.apply_updates(state["weights"], updates))
            return {"weights": weights, "moments": moments}, {"lost": value}

        state, terms = lax.scan(step, state, call * PACE + jnp.arange(PACE))
        return state, jax.tree.map(jnp.mean, terms)

    return engine.Program(init, advance, lambda state: state["weights"])


def draws(block: Block, cells: Sequence[str], seeds: int) -> Params:
    """What every training draws from, cell by cell, several trainings of each; see `program`."""
    members = [
        {"key": np.asarray(jax.random.key_data(jax.random.key(seed))), "pairs": pairs, "images": images}
        for pairs, images in (learned_from(block, cell) for cell in cells)
        for seed in range(seeds)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def train(
    block: Block, design: Design, drawn: Params, training: Training, saver: engine.Saver, names: Sequence[str]
) -> Params:
    """Trains generators.

    Args:
      block: what is learned from.
      design: of the generators.
      drawn: from `draws`.
      training: how.
      saver: keeps the state.
      names: of the trainings, for messages.

    Returns:
      ``weights`` with a leading axis, training by training, and ``lost`` by call.
    """
    seen = design.look(block.probes)
    describe = jax.jit(lambda networks: lax.map(lambda params: design.describe(params, seen), networks))
    shared = {
        "networks": block.networks,
        "parents": jax.device_get(describe(block.networks)),
        "images": block.part.source.train.images,
        "probes": seen,
    }
    progress = Progress("learned")
    found = engine.fit(
        program(models.network_of(block.networks), design, training),
        drawn,
        shared,
        calls=training.steps // PACE,
        pace=PACE,
        names=lambda member: f"the training of {names[member]}",
        unit="call",
        saver=saver,
        progress=progress,
    )
    progress.close("done")
    return {"weights": found[0], "lost": found[1]["lost"]}


def shown(block: Block, cell: str, count: int) -> np.ndarray:
    """Photographs that a cell's training may draw, and as many images of noise: what it could remember."""
    return _with_noise(block.part.source.train.images, learned_from(block, cell)[1][: count // 2])


def evaluate(
    block: Block,
    design: Design,
    weights: Params,
    cells: Sequence[str],
    seeds: int,
    most: int = reduce.Config().images,
) -> Params:
    """All rows on the block's pairs, networks that nothing was learned from.

    Args:
      block: what is judged.
      design: of the generators.
      weights: of each, see `train`.
      cells: of the trainings.
      seeds: trainings of each.
      most: images that `reduce` looks at, beside as many as there are probes.

    Returns:
      By row, pair and figure ("worst", "correlation"), a number for each network, several seeds one after the
      other. A row of `reduce` looks at the probes, at noise, or at what the training of a cell
      could remember: the null of what is learned.
    """
    using, seen = design.for_use(), design.look(block.probes)
    described = jax.jit(lambda zoo: lax.map(lambda params: using.describe(params, seen), zoo))
    made_by = jax.jit(
        lambda weights, parents: lax.map(lambda pair: using.generate(weights, pair, seen), parents)
    )
    few, side = len(block.probes), block.probes.shape[1]
    closed = {f"reduce, the same {few} images": block.probes}
    closed |= {f"reduce_noise, {count:,} images": probes.noise(count, size=side) for count in (few, most)}
    closed |= {
        f"reduce, {count:,} images that {cell} may see": shown(block, cell, count)
        for cell in cells
        for count in (few, most)
    }
    rows: dict[str, Any] = {}
    progress = Progress("evaluate")
    for number, name in enumerate(block.held_out):
        progress(number, len(block.held_out), {})
        zoos = block.judged("attribute", name[0]), block.judged("object", name[1])
        known = tuple(map(described, zoos))
        networks: dict[str, list[Params]] = {}
        for place, cell in enumerate(cells):
            own = (jax.tree.map(lambda leaf, m=place * seeds + s: leaf[m], weights) for s in range(seeds))
            networks[cell] = [made_by(one, known) for one in own]
        networks |= {
            row: [generators.compose(*zoos, probes=images, sweeps=0)] for row, images in closed.items()
        }
        split = quadrants.split(block.part, *name)
        finished.add(rows, name, finished.figures(block.part, split, base.Parents(*zoos), networks))
    progress.close("done")
    return rows
