"""The study: trains hypernetworks on a run's zoos, for each cell of what is new, and judges them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from kernelgan import engine, models, probes, splits, workdir
from kernelgan.checkpoint import read_result
from kernelgan.config import Settings
from kernelgan.data import leakage, quadrants
from kernelgan.generators import base, reduce
from kernelgan.progress import Progress
from kernelgan.types import LEFT_OUT, PairName, Params, Quadrant, UserError
from studies import finished
from studies.hypernetwork import model

CELLS = {
    "parents": "new parents",
    "pair": "new pair",
    "object": "new object",
    "attribute": "new attribute",
    "both": "both new",
}
"""What of the block a training has not seen: the judged networks, the pair, a concept, both concepts."""

PACE = 25  # steps of a call
_JUDGED = 4  # networks of each of the block's zoos, which nothing is learned from
_POOL = 20_000  # images of a training


@dataclasses.dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
      steps: a multiple of `PACE`.
      pairs: of a step.
      images: of a step.
      probes: half photographs that show neither concept of the block, half noise.
      rate: the highest, after a hundred steps; it falls by a cosine.
    """

    steps: int = 1500
    pairs: int = 16
    images: int = 64
    probes: int = 128
    rate: float = 5e-4


class Block(NamedTuple):
    """What is learned from, and what is judged.

    Attributes:
      part: the images.
      zoos: stacked parameters ``(Z, M, ...)``.
      names: side and concept of each.
      own: numbers of the block's zoos.
      pairs: of the block: its split, and the numbers of its zoos.
      probes: uint8.
    """

    part: quadrants.Partition
    zoos: Params
    names: list[tuple[str, str]]
    own: set[int]
    pairs: list[tuple[quadrants.PairSplit, int, int]]
    probes: np.ndarray


def load(
    run: Path, settings: Settings, plan: dict[str, Any], held_out: list[PairName], training: Training
) -> Block:
    """Reads the zoos that may stand behind networks of the block, and its images.

    Raises:
      UserError: a pair of the block is not in the run or is sealed, or too few zoos are clean of the block.
    """
    folds = splits.of_config(settings)
    listed = {(pair["attribute"], pair["object"]): pair for pair in plan["pairs"]}
    for name in held_out:
        if name not in listed:
            raise UserError(f"--block: the run has no pair {':'.join(name)}; expected pairs that it has.")
        if folds and folds.is_sealed(name):
            raise UserError(f"--block: {':'.join(name)} is sealed; expected pairs for development.")
    part = finished.read_images(settings)
    sides = {"attribute": {name[1] for name in held_out}, "object": {name[0] for name in held_out}}
    clean = [number for number, zoo in enumerate(plan["zoos"]) if sides[zoo["kind"]] <= set(zoo["excluded"])]
    stages = {plan["zoos"][number]["checkpoint"][0] for number in clean}
    results = {stage: read_result(run / workdir.CHECKPOINTS / stage) for stage in stages}
    read = []
    for number in clean:
        stage, key = plan["zoos"][number]["checkpoint"]
        read.append(results[stage][key]["params"])
    names = [(plan["zoos"][number]["kind"], plan["zoos"][number]["concept"]) for number in clean]
    pairs: list[tuple[quadrants.PairSplit, int, int]] = []
    own: set[int] = set()
    for name in held_out:
        serving = [listed[name][f"{side}_zoo"] for side in ("attribute", "object")]
        if not set(serving) <= set(clean):
            raise UserError(f"--block: the zoos of {':'.join(name)} have read other pairs of the block.")
        attribute, thing = (clean.index(number) for number in serving)
        own |= {attribute, thing}
        pairs.append((quadrants.split(part, *name), attribute, thing))
    for side, own_side in (("attribute", {n[0] for n in held_out}), ("object", {n[1] for n in held_out})):
        if not {concept for kind, concept in names if kind == side} - own_side:
            raise UserError(f"--block: no zoo of another {side} has left out what the block holds out.")
    rng = np.random.default_rng(0)
    neither = np.logical_and.reduce([split.train == Quadrant.NEITHER for split, *_ in pairs])
    chosen = rng.permutation(np.flatnonzero(neither))[: training.probes // 2]
    leakage.check_behind(part, "the probes", held_out, {"the probes": chosen})
    shown = part.source.train.images
    looked_at = np.concatenate([shown[chosen], probes.noise(training.probes // 2, size=shown.shape[1])])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *read)
    return Block(part, stacked, names, own, pairs, looked_at)


def learned_from(block: Block, cell: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of zoos ``(K, 2)`` and numbers of images ``(_POOL,)`` that a cell's training may draw.

    Raises:
      LeakageError: an image has the content of one of the block's conjunctions.
    """
    held_out = [(split.attribute, split.object_name) for split, *_ in block.pairs]
    known = {
        "attribute": cell in ("parents", "pair", "object"),
        "object": cell in ("parents", "pair", "attribute"),
    }
    concepts = {
        "attribute": {name for name, _ in held_out},
        "object": {name for _, name in held_out},
    }

    def usable(side: str) -> list[int]:
        """Zoos of other concepts, and the judged ones, of which some networks are kept apart."""
        return [
            number
            for number, (kind, concept) in enumerate(block.names)
            if kind == side and (concept not in concepts[side] or (known[side] and number in block.own))
        ]

    drawn = list(itertools.product(usable("attribute"), usable("object")))
    if cell != "parents":
        drawn = [pair for pair in drawn if not set(pair) <= block.own]
    train = block.part.source.train
    free = ~block.part.validation
    for name in held_out:
        of_pair = quadrants.quadrant_of(train, *name)
        free &= (of_pair != Quadrant.CONJUNCTION) & (of_pair != LEFT_OUT)
    for side, labels in (("attribute", train.attributes), ("object", train.objects)):
        if not known[side]:
            for concept in concepts[side]:
                free &= labels[concept] == 0
    rng = np.random.default_rng(1)
    images = np.resize(rng.permutation(np.flatnonzero(free)), _POOL)
    leakage.check_behind(block.part, cell, held_out, {"the images": images})
    return np.array(drawn), images


def program(network: models.ConvNet, size: model.Size, training: Training) -> engine.Program:
    """The training of a hypernetwork.

    A member is ``{"key", "pairs", "images", "least"}``, what it draws from; ``least`` is the first network
    that is learned from of each zoo. Shared are ``zoos``, the same as `model.Parent` in
    ``parents``, ``images`` and ``probes``.
    """
    warm = min(100, training.steps // 4)
    rates = optax.warmup_cosine_decay_schedule(0, training.rate, warm, training.steps, 0.02 * training.rate)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rates, weight_decay=1e-3))

    def looked_at(shared: Any) -> model.Probes:  # noqa: ANN401
        return model.Probes(*shared["probes"])

    def init(member: Any, shared: Any) -> Params:  # noqa: ANN401
        like = jax.tree.map(lambda leaf: leaf[0, 0], model.Parent(*shared["parents"]))
        weights = model.initialise(jax.random.wrap_key_data(member["key"]), like, size)
        return {"weights": weights, "moments": optimizer.init(weights)}

    def advance(state: Params, member: Any, shared: Any, call: jax.Array) -> Any:  # noqa: ANN401
        key = jax.random.fold_in(jax.random.wrap_key_data(member["key"]), 1)
        seen = looked_at(shared)

        def step(state: Params, number: jax.Array) -> tuple[Params, dict[str, jax.Array]]:
            keys = jax.random.split(jax.random.fold_in(key, number), 3)
            drawn = jax.random.choice(keys[0], member["pairs"], (training.pairs,))
            least = member["least"][drawn]
            among = jax.tree.leaves(shared["zoos"])[0].shape[1]
            networks = jax.random.randint(keys[1], drawn.shape, least, among)
            images = shared["images"][jax.random.choice(keys[2], member["images"], (training.images,))]

            def one(given: tuple[jax.Array, jax.Array], weights: Params) -> jax.Array:
                zoos, places = given

                def chosen(stacked: Any, side: int) -> Any:  # noqa: ANN401
                    return jax.tree.map(lambda leaf: leaf[zoos[side], places[side]], stacked)

                parents = model.Parent(*shared["parents"])
                made = model.generate(
                    weights, (chosen(parents, 0), chosen(parents, 1)), seen, training.probes, size
                )
                both = chosen(shared["zoos"], 0), chosen(shared["zoos"], 1)
                return model.lost(network, made, both, images)

            def loss(weights: Params) -> jax.Array:
                return jnp.mean(
                    lax.map(lambda given: one(given, weights), (drawn, networks))
                )  # one solve at a time

            value, gradient = jax.value_and_grad(loss)(state["weights"])
            updates, moments = optimizer.update(gradient, state["moments"], state["weights"])
            return {"weights": optax.apply_updates(state["weights"], updates), "moments": moments}, {
                "lost": value
            }

        state, terms = lax.scan(step, state, call * PACE + jnp.arange(PACE))
        return state, jax.tree.map(jnp.mean, terms)

    return engine.Program(init, advance, lambda state: state["weights"])


def train(
    block: Block, cells: list[str], seeds: int, size: model.Size, training: Training, saver: engine.Saver
) -> tuple[Params, np.ndarray]:
    """Hypernetworks of all cells, several of each: weights with a leading axis, cell by cell, and losses."""
    members = []
    for cell in cells:
        pairs, images = learned_from(block, cell)
        least = [_JUDGED if number in block.own else 0 for number in range(len(block.names))]
        longest = len(block.names) ** 2
        for seed in range(seeds):
            members.append(
                {
                    "key": np.asarray(jax.random.key_data(jax.random.key(seed))),
                    "pairs": np.resize(np.random.default_rng(seed).permutation(pairs), (longest, 2)).astype(
                        np.int32
                    ),
                    "images": images.astype(np.int32),
                    "least": np.array(least, np.int32),
                }
            )
    network = network_of(block)
    seen = model.look(network, block.probes)
    parents = jax.jit(
        lambda zoos: lax.map(jax.vmap(lambda params: model.canonical(params, seen, training.probes)), zoos)
    )(block.zoos)
    shared = {
        "zoos": block.zoos,
        "parents": tuple(jax.device_get(parents)),
        "images": block.part.source.train.images,
        "probes": tuple(map(np.asarray, seen)),
    }
    progress = Progress("hypernetwork")
    found = engine.fit(
        program(network, size, training),
        jax.tree.map(lambda *leaves: np.stack(leaves), *members),
        shared,
        calls=training.steps // PACE,
        pace=PACE,
        names=lambda member: f"the training of {cells[member // seeds]}, seed {member % seeds}",
        unit="call",
        saver=saver,
        progress=progress,
    )
    progress.close("done")
    return found[0], found[1]["lost"]


def network_of(block: Block) -> models.ConvNet:
    """The parents' module."""
    return models.network_of(jax.tree.map(lambda leaf: leaf[0], block.zoos))


def evaluate(
    block: Block, trained: Params, cells: list[str], seeds: int, size: model.Size, training: Training
) -> dict[str, Any]:
    """All rows on the block's pairs, networks that nothing was learned from.

    Returns:
      By row, pair and figure ("worst", "correlation"), a number for each network, several seeds one after the
      other.
    """
    network = network_of(block)
    rows: dict[str, Any] = {}
    seen = model.look(network, block.probes)
    parents_of = jax.jit(jax.vmap(lambda params: model.canonical(params, seen, training.probes)))
    made_by = jax.jit(
        jax.vmap(
            lambda weights, a, o: model.generate(weights, (a, o), seen, training.probes, size), (None, 0, 0)
        )
    )
    kinds = {f"reduce_noise, {count} images": count for count in (training.probes, reduce.Config().images)}
    for split, *places in block.pairs:
        name = f"{split.attribute} {split.object_name}"
        zoos = [jax.tree.map(lambda leaf, z=place: leaf[z, :_JUDGED], block.zoos) for place in places]
        parents = base.Parents(*map(jax.device_get, zoos))
        canonical = [parents_of(zoo) for zoo in zoos]
        networks: dict[str, list[Params]] = {}
        for number, cell in enumerate(cells):
            own = [jax.tree.map(lambda leaf, m=number * seeds + s: leaf[m], trained) for s in range(seeds)]
            networks[cell] = [made_by(weights, *canonical) for weights in own]
        for row, count in kinds.items():
            generator = reduce.reducer(network, reduce.Config(images=count), "S", "noise")
            images = probes.noise(count, size=block.probes.shape[1])
            made = base.generate(generator, {}, [parents], [images], [jax.random.key(0)], name=row)
            networks[row] = [made[0][""]]
        for row, figures in finished.figures(block.part, split, parents, networks).items():
            rows.setdefault(row, {})[name] = figures
    return rows
