"""The study: reads a run's zoos, trains probes for a held-out block of pairs, evaluates them on its pairs.

Behind the probes are the zoos that read no conjunction of the block and whose concept is not in the block,
and training images outside the block's conjunctions.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import attempts, keys, models, probes, splits, workdir
from kernelgan.baselines import methods
from kernelgan.checkpoint import read_result
from kernelgan.config import Settings
from kernelgan.data import leakage, quadrants
from kernelgan.evaluation import features, scores
from kernelgan.files import given_path, write_atomically
from kernelgan.generators import base, reduce
from kernelgan.progress import Progress
from kernelgan.types import LEFT_OUT, PairName, Params, Quadrant, UserError
from studies import finished
from studies.learned_probes import learned

EACH_STEP = 384
"""Most probes that a step looks at; they are drawn anew for each step."""
_SETTINGS = learned.Settings()
_RATE, _LAST_RATE = (
    0.015,
    0.05,
)  # of Adam; and the share that is left at the end (cosine)
_IMAGES = 96  # of a step
_ACROSS = 0.7  # share of steps with an attribute's and an object's network; else of any two concepts
_VALIDATION = 900  # images of a pair, equally many of each seen quadrant
_SAVE_EVERY = 25  # steps


@dataclasses.dataclass(frozen=True)
class Block:
    """Pairs held out together, and what may be learned from.

    Attributes:
      pairs: of the run.
      serving: by pair, numbers of the attribute's and the object's zoo.
      zoos: by number, kind, concept and stacked parameters, of those that are needed.
      learned_from: numbers of the zoos that the probes are trained on.
      part: the images.
      pool: indices of the training images that the probes are trained on.
    """

    pairs: tuple[PairName, ...]
    serving: dict[PairName, tuple[int, int]]
    zoos: dict[int, tuple[str, str, Params]]
    learned_from: tuple[int, ...]
    part: quadrants.Partition
    pool: np.ndarray


def named_block(text: str, plan: dict[str, Any]) -> tuple[set[str], list[dict[str, Any]]]:
    """The concepts of a block, and its pairs as the plan has them.

    Args:
      text: such as ``black,white:ship,truck``.
      plan: see `workdir.write_plan`.

    Raises:
      UserError: it is no block, or the run has no pair of it.
    """
    sides = [tuple(name.strip() for name in side.split(",") if name.strip()) for side in text.split(":")]
    known = [list(dict.fromkeys(pair[kind] for pair in plan["pairs"])) for kind in ("attribute", "object")]
    if len(sides) != 2 or not all(set(side) <= set(names) for side, names in zip(sides, known, strict=False)):
        raise UserError(
            f"--block={text}; expected attributes and objects of the run, such as black,white:ship,truck. It "
            f"has the attributes {', '.join(known[0])} and the objects {', '.join(known[1])}."
        )
    attributes, objects = sides
    pairs = [p for p in plan["pairs"] if p["attribute"] in attributes and p["object"] in objects]
    if not pairs:
        raise UserError(f"--block={text}: the run has no such pair; expected one that it has, or more.")
    return {*attributes, *objects}, pairs


def load(run: Path, settings: Settings, plan: dict[str, Any], text: str, networks: int) -> Block:
    """Reads the zoos and the images, and works out what the block's probes may learn from.

    Args:
      run: its work directory, which is only read.
      settings: of the run.
      plan: of the run.
      text: see `named_block`.
      networks: of each zoo, the first are evaluated.

    Raises:
      UserError: see `named_block`; a zoo is missing or too small, or no zoo may be learned from.
      LeakageError: a pair's own zoo reads a conjunction of the block.
    """
    concepts, chosen = named_block(text, plan)
    pairs = tuple((pair["attribute"], pair["object"]) for pair in chosen)
    serving = {name: (p["attribute_zoo"], p["object_zoo"]) for name, p in zip(pairs, chosen, strict=True)}
    stages = {zoo["checkpoint"][0] for zoo in plan["zoos"]}
    results = {stage: read_result(run / workdir.CHECKPOINTS / stage) for stage in stages}
    part = finished.read_images(settings)
    groups = [quadrants.zoo_groups(part, z["kind"], z["concept"], z["excluded"]) for z in plan["zoos"]]
    read = {str(number): group.read() for number, group in enumerate(groups)}
    clean = [int(number) for number in leakage.clean(part, pairs, read)]
    new = tuple(n for n in clean if plan["zoos"][n]["concept"] not in concepts)
    if len({plan["zoos"][n]["concept"] for n in new}) < 2:
        raise UserError(
            f"--block={text}: {len(new)} zoo(s) of other concepts read none of its conjunctions; expected "
            "zoos of 2 concepts. Hold out fewer concepts, or those that the run's zoos leave out together."
        )
    conjunctions = [
        contents[quadrants.quadrant_of(images, *pair) == Quadrant.CONJUNCTION]
        for images, contents in zip((part.source.train, part.source.test), part.contents, strict=True)
        for pair in pairs
    ]
    outside = ~np.isin(part.contents[0], np.concatenate(conjunctions))
    pool = np.flatnonzero(outside & ~part.validation)
    zoos = {}
    for number in {*new, *(n for both in serving.values() for n in both)}:
        zoo = plan["zoos"][number]
        stage, key = zoo["checkpoint"]
        zoos[number] = (zoo["kind"], zoo["concept"], results[stage][key]["params"])
        count = len(zoos[number][2]["dense"]["bias"])
        if not 1 <= networks <= count:
            raise UserError(f"--networks={networks}; expected 1 to {count}, the networks of a zoo.")
    behind = {f"the zoo of the {zoos[n][0]} {zoos[n][1]!r} ({n})": read[str(n)] for n in zoos}
    leakage.check_behind(part, f"--block={text}", pairs, {**behind, "the training of probes": pool})
    return Block(pairs, serving, zoos, new, part, pool)


def rendered(block: Block, count: int) -> np.ndarray:
    """The probes that training starts from: none shows a conjunction of the block."""
    return probes.rendered(count, size=block.part.source.train.images.shape[1], exclude=block.pairs)


def train(block: Block, count: int, steps: int, seed: int, state_file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Trains the probes; what an earlier command with the same block and flags did is not done again.

    Args:
      block: held out.
      count: probes.
      steps: of Adam; a probe's moments change in the steps that look at it.
      seed: of all draws.
      state_file: of what is saved now and then.

    Returns:
      The probes float32 ``(N, H, W, C)`` in [-1, 1], and the loss of each step.
    """
    zoos = {str(number): block.zoos[number][2] for number in block.learned_from}
    key = keys.of_arrays({"zoos": zoos, "pool": block.pool, "flags": np.array([count, steps, seed])})
    start = np.array(models.normalise_images(rendered(block, count)))
    state = {"probes": start, "first": 0 * start, "second": 0 * start, "seen": np.zeros((count, 1, 1, 1))}
    losses = np.zeros(steps)
    done = 0
    if state_file.exists():
        try:
            with np.load(state_file) as saved:
                if str(saved["key"]) == key:
                    state, losses, done = (
                        {name: saved[name] for name in state},
                        saved["losses"],
                        int(saved["done"]),
                    )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{state_file} cannot be read ({error}); move it away to begin anew.") from error
    state = jax.tree.map(jnp.float32, state)
    network = models.network_of(next(iter(zoos.values())))
    progress = Progress("training")
    progress(done, steps)
    for step in range(done, steps):
        rng = np.random.default_rng([seed, step])
        rows = rng.permutation(count)[:EACH_STEP]
        rate = _RATE * (_LAST_RATE + (1 - _LAST_RATE) * (1 + np.cos(np.pi * step / steps)) / 2)
        given = (*_parents(block, rng), _images(block, rng), np.float32(rate))
        state, loss = _step(network, state, rows, *given)
        losses[step] = loss
        progress(step + 1, steps, {"loss": float(np.mean(losses[max(0, step - 49) : step + 1]))})
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            content = io.BytesIO()
            np.savez(content, key=key, losses=losses, done=step + 1, **jax.device_get(state))
            write_atomically(state_file, content.getvalue())
    progress.close("done")
    return np.asarray(state["probes"]), losses


def _parents(block: Block, rng: np.random.Generator) -> list[Params]:
    """Two networks of different concepts."""
    numbers = list(block.learned_from)
    sides = [[n for n in numbers if block.zoos[n][0] == kind] for kind in ("attribute", "object")]
    while True:
        across = all(sides) and rng.random() < _ACROSS
        both = [rng.choice(side) for side in sides] if across else list(rng.choice(numbers, 2))
        if len({block.zoos[n][1] for n in both}) == 2:
            break
    zoos = [block.zoos[int(n)][2] for n in both]
    members = [rng.integers(len(zoo["dense"]["bias"])) for zoo in zoos]
    return [jax.tree.map(lambda leaf, m=m: leaf[m], zoo) for zoo, m in zip(zoos, members, strict=True)]


def _images(block: Block, rng: np.random.Generator) -> jax.Array:
    """Training images, as they are or all mirrored."""
    images = block.part.source.train.images[rng.choice(block.pool, _IMAGES)]
    return models.normalise_images(images[:, :, ::-1] if rng.random() < 0.5 else images)


@functools.partial(jax.jit, static_argnums=0)
def _step(
    network: models.ConvNet,
    state: dict[str, jax.Array],
    rows: jax.Array,
    attribute: Params,
    objects: Params,
    images: jax.Array,
    rate: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Adam on some probes, the gradient clipped to length 1; a gradient that is not finite moves nothing."""
    value, gradient = jax.value_and_grad(
        lambda chosen: learned.loss(network, chosen, attribute, objects, images, _SETTINGS)
    )(state["probes"][rows])
    length = jnp.sqrt(jnp.sum(jnp.square(gradient)))
    gradient = jnp.where(jnp.isfinite(length), gradient / jnp.maximum(length, 1), 0)
    seen = state["seen"][rows] + 1
    first = 0.9 * state["first"][rows] + 0.1 * gradient
    second = 0.999 * state["second"][rows] + 0.001 * jnp.square(gradient)
    move = rate * first / (1 - 0.9**seen) / (jnp.sqrt(second / (1 - 0.999**seen)) + 1e-8)
    moved = jnp.clip(state["probes"][rows] - move, -1, 1)
    new = {"probes": moved, "first": first, "second": second, "seen": seen}
    return {name: state[name].at[rows].set(new[name]) for name in state}, value


def evaluate(block: Block, made: np.ndarray, settings: Settings, run: str, networks: int) -> dict[str, Any]:
    """The block's pairs by all rows; test images of sealed pairs are opened once the attempt is registered.

    Args:
      block: held out.
      made: the trained probes.
      settings: of the run, whose registry counts the attempt.
      run: its name, for the registry.
      networks: of each pair.

    Returns:
      By row and pair, ``{"worst": AUROC against the worst quadrant (M,), "correlation": with the parents'
      logits on validation images}``.
    """
    parents = [_first(block, pair, networks) for pair in block.pairs]
    rows = _made(block, parents, made, settings)
    folds = splits.of_config(settings)
    if folds and any(folds.is_sealed(pair) for pair in block.pairs):
        names = [" ".join(pair) for pair in block.pairs]
        digests = {
            f"learned_probes/{row}": keys.of_arrays(dict(zip(names, rows[row], strict=True)))
            for row in ("learned", "start")
        }
        attempts.register(given_path(settings.registry, "registry"), run, digests, {})
    network = models.network_of(parents[0].attribute)
    found: dict[str, Any] = {row: {} for row in (*rows, "and_ensemble")}
    progress = Progress("evaluation")
    for number, pair in enumerate(block.pairs):
        split = quadrants.split(block.part, *pair)
        scored = np.flatnonzero(split.test != LEFT_OUT)
        answers = functools.partial(features.population_logits, network)
        tested = block.part.source.test.images[scored]
        validated = finished.validation_images(block.part, split, _VALIDATION)
        wanted, on_test = (
            np.concatenate([answers(zoo, images) for zoo in parents[number]], axis=-1)
            for images in (validated, tested)
        )
        for row in found:
            own = row == "and_ensemble"
            logits = on_test if own else answers(rows[row][number], tested)
            worst = scores.auroc_by_quadrant(features.score(logits)[0], split.test[scored])["worst"]
            given = wanted if own else answers(rows[row][number], validated)
            correlation = float(np.mean(finished.correlations(given, wanted)))
            found[row][" ".join(pair)] = {"worst": worst.tolist(), "correlation": correlation}
        progress(number + 1, len(block.pairs))
    progress.close("done")
    return found


def _first(block: Block, pair: PairName, networks: int) -> base.Parents:
    """The first networks of a pair's zoos."""
    zoos = (jax.tree.map(lambda leaf: leaf[:networks], block.zoos[n][2]) for n in block.serving[pair])
    return base.Parents(*zoos)


def _made(
    block: Block, parents: Sequence[base.Parents], made: np.ndarray, settings: Settings
) -> dict[str, list[Params]]:
    """By row, the networks of each pair."""
    network = models.network_of(parents[0].attribute)

    @jax.jit
    def composed(images: jax.Array, both: base.Parents) -> Params:
        return jax.lax.map(
            lambda pair: learned.compose(network, images, pair[0], pair[1], _SETTINGS), tuple(both)
        )

    starts = models.normalise_images(rendered(block, len(made)))
    rows = {
        row: [jax.device_get(composed(images, both)) for both in parents]
        for row, images in (("learned", jnp.asarray(made)), ("start", starts))
    }
    key = jax.random.key(settings.seed)
    kinds: tuple[tuple[str, base.Tier, str], ...]
    kinds = (("reduce_rendered", "S", "rendered"), ("reduce_noise", "S", "noise"), ("reduce", "U", ""))
    for name, reads, kind in kinds:
        generator = reduce.reducer(network, reduce.Config(), reads, kind)
        handed = []
        for pair in block.pairs:
            seen = quadrants.distilled_groups(quadrants.split(block.part, *pair))
            train = block.part.source.train.images
            handed.append(np.asarray(methods.probes_for(generator, train, seen, key, block.pairs)))
        least = min(len(images) for images in handed)
        same = [images[:least] for images in handed]
        found = base.generate(generator, {}, parents, same, [key] * len(parents), name=name)
        rows[name] = [networks[""] for networks in found]
    return rows
