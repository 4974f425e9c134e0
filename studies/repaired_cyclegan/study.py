"""The study: reads a run's zoos, trains translators with more and more ingredients, evaluates them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax

from kernelgan import assemble, engine, models, refit, splits
from kernelgan.baselines import nulls
from kernelgan.baselines.context import probes_for
from kernelgan.config import Settings
from kernelgan.data import quadrants
from kernelgan.evaluation import features
from kernelgan.generators import base, reduce
from kernelgan.progress import Progress
from kernelgan.types import Array, PairName, Params, UserError
from studies import finished
from studies.repaired_cyclegan import translators
from studies.repaired_cyclegan.translators import Ingredients, Training

FUNCTION = 100.0
"""Weight of the function loss, chosen on validation images."""

TRAINED = {
    "separate": Ingredients(),
    "canonical": Ingredients(canonical=True),
    "joint": Ingredients(canonical=True, joint=True),
    "function": Ingredients(canonical=True, joint=True, function=FUNCTION),
    "alone": Ingredients(canonical=True, joint=True, function=FUNCTION, cyclegan=False),
}
"""What is trained."""

PACE = 25  # steps of a call
_EVALUATED = 4  # networks of a zoo that translators learned from; and all that are new to them


@dataclasses.dataclass(frozen=True)
class Pair:
    """A pair of concepts.

    Attributes:
      name: of attribute and object.
      parents: both zoos.
      probes: uint8, unlabelled training images of the seen quadrants.
      answers: both parents' logit differences ``(M, N)`` on the probes.
      part: all images.
      split: the quadrant of each.
    """

    name: PairName
    parents: base.Parents
    probes: np.ndarray
    answers: tuple[np.ndarray, np.ndarray]
    part: quadrants.Partition
    split: quadrants.PairSplit


def load(
    run: Path, settings: Settings, plan: dict[str, Any], named: Sequence[PairName], new: int
) -> list[Pair]:
    """Reads the pairs' zoos and images.

    Raises:
      UserError: a pair is not in the run, or sealed; or its zoos are too small.
    """
    listed = {(pair["attribute"], pair["object"]): pair for pair in plan["pairs"]}
    folds = splits.of_config(settings)
    for name in named:
        if name not in listed:
            raise UserError(f"--pairs: the run has no pair {':'.join(name)}; expected pairs that it has.")
        if folds and folds.is_sealed(name):
            raise UserError(f"--pairs: {':'.join(name)} is sealed; expected pairs for development.")
    part = finished.read_images(settings)
    pairs = []
    for name, parents in zip(named, finished.read_zoos(run, plan, named), strict=True):
        if len(parents.attribute["dense"]["bias"]) < new + Training.batch:
            raise UserError(
                f"--new={new}: the zoos of {' '.join(name)} have {len(parents.attribute['dense']['bias'])} "
                f"networks; expected {Training.batch} or more beside the new ones."
            )
        split = quadrants.split(part, *name)
        generator = reduce.make(models.network_of(parents.attribute), reduce.Config(sweeps=0))
        seen, key = quadrants.distilled_groups(split), jax.random.key(settings.seed)
        probes = probes_for(generator, part.source.train.images, seen, key, named)
        assert probes is not None
        attribute, objects = (_differences(zoo, np.asarray(probes)) for zoo in parents)
        pairs.append(Pair(name, parents, np.asarray(probes), (attribute, objects), part, split))
    return pairs


def _differences(params: Params, images: np.ndarray) -> np.ndarray:
    """Logit differences ``(M, N)``, yes minus no."""
    logits = features.population_logits(models.network_of(params), params, images)
    return logits[..., 1] - logits[..., 0]


def train(
    pairs: Sequence[Pair], what: Ingredients, training: Training, new: int, seeds: int, name: str
) -> tuple[dict[str, Params], dict[str, np.ndarray]]:
    """Translators of all pairs, several of each: generators with a leading axis, pair by pair; losses."""
    network = models.network_of(pairs[0].parents.attribute)
    known = len(pairs[0].answers[0]) - new
    members = [
        {"view": tuple(view_of(pair, what, new)), "key": jax.random.key_data(jax.random.key(seed))}
        for pair in pairs
        for seed in range(seeds)
    ]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *members)
    progress = Progress(name)
    calls = training.steps // PACE
    program = translators.program(network, known, what, training, PACE)
    found = engine.fit(program, stacked, np.zeros(1), calls=calls, pace=PACE, unit="call", progress=progress)
    progress.close("done")
    return found


def view_of(pair: Pair, what: Ingredients, new: int) -> translators.View:
    """What a pair's translator is given: the last ``new`` networks are not learned from."""
    known = len(pair.answers[0]) - new
    return translators.view(*pair.parents, known, what, pair.answers, pair.probes)


def members_of(pair: Pair, new: int) -> np.ndarray:
    """Networks that are evaluated: some that translators learned from, then those that are new to them."""
    count = len(pair.answers[0])
    return np.r_[: min(_EVALUATED, count - new), count - new : count]


@functools.partial(jax.jit, static_argnums=0)
def _heads(network: models.ConvNet, trunks: Params, images: Array, wanted: Array) -> Params:
    def fit(given: tuple[Params, jax.Array]) -> Params:
        read = translators.features(network, given[0], images)
        return refit.concepts_head(*translators.head(network, read, given[1], refit.HEAD_RIDGE))

    return lax.map(fit, (trunks, wanted))


def with_heads(pair: Pair, trunks: Params, members: np.ndarray) -> Params:
    """Networks whose heads are fitted to the answers of parents ``members`` on the probes."""
    names = models.layer_names(models.network_of(pair.parents.attribute).filters)
    trunks = {name: trunks[name] for name in names}
    wanted = np.stack([answers[members] for answers in pair.answers], axis=1)
    head = _heads(models.network_of(pair.parents.attribute), trunks, pair.probes, wanted)
    return jax.device_get({**trunks, "dense": head})


def rows_of(
    pair: Pair, trained: str, generators: dict[str, Params], training: Training, new: int
) -> Iterator[tuple[str, Params]]:
    """Rows, and the networks that one trained translator gives for them, in both ways."""
    members, names = members_of(pair, new), list(generators["a2b"])
    given = view_of(pair, TRAINED[trained], new)
    for way in translators.WAYS:
        trunks = translators.networks(generators, given, way, members, training)
        if trained == "separate":
            layers = [name for name in names if name != "joint"]
            bare = {name: {**trunks[name], "bias": 0 * trunks[name]["bias"]} for name in layers}
            own = {**bare, "dense": assemble.heads_for(members, *pair.parents)}
            yield "as_it_is", jax.device_get(own)
            yield "heads", with_heads(pair, bare, members)
            yield "biases", with_heads(pair, trunks, members)
            continue
        yield trained, with_heads(pair, trunks, members)
        if TRAINED[trained].function:
            drawn = _random(pair, bias="parent")
            both = translators.canonical(drawn, drawn)
            blank = dataclasses.replace(pair, parents=base.Parents(*both))
            placebo = view_of(blank, TRAINED[trained], new)._replace(scales=given.scales)
            trunks = translators.networks(generators, placebo, way, members, training)
            yield f"{trained}_placebo", with_heads(pair, trunks, members)


def _random(pair: Pair, bias: str) -> Params:
    network, size = models.network_of(pair.parents.attribute), pair.probes.shape[1]
    count = len(pair.answers[0])
    drawn = jax.device_get(nulls.initialise(network, size, jax.random.split(jax.random.key(5), count)))
    if bias == "zero":
        drawn = {n: {**layer, "bias": 0 * layer["bias"]} for n, layer in drawn.items()}
    return drawn


def nulls_of(pair: Pair, new: int) -> Iterator[tuple[str, Params]]:
    """Rows that no translator made."""
    members = members_of(pair, new)
    sides = {"random_refit": _random(pair, bias="zero")}
    sides |= {"attribute_refit": pair.parents.attribute, "object_refit": pair.parents.object}
    for row, zoo in sides.items():
        yield row, with_heads(pair, assemble.take_members(zoo, members), members)
    parents = base.Parents(*(assemble.take_members(zoo, members) for zoo in pair.parents))
    generator = reduce.make(models.network_of(parents.attribute), reduce.Config(sweeps=0))
    made = base.generate(generator, {}, [parents], [pair.probes], [jax.random.key(0)], name="reduce")
    yield "reduce", made[0][""]


def evaluate(
    pairs: Sequence[Pair], trained: dict[str, dict[str, Params]], training: Training, new: int, seeds: int
) -> dict[str, Any]:
    """All rows.

    Returns:
      By row, pair and figure ("worst", "correlation"), lists of an evaluated network each; several seeds and
      both ways are averaged. The last ``new`` are of parents that no translator learned from.
    """
    rows: dict[str, Any] = {}
    progress = Progress("evaluation")
    for number, pair in enumerate(pairs):
        members = members_of(pair, new)
        made: dict[str, list[Params]] = {row: [params] for row, params in nulls_of(pair, new)}
        for what, stacked in trained.items():
            for seed in range(seeds):
                own = jax.tree.map(lambda leaf, at=number * seeds + seed: leaf[at], stacked)
                for row, params in rows_of(pair, what, own, training, new):
                    made.setdefault(row, []).append(params)
        parents = base.Parents(*(assemble.take_members(zoo, members) for zoo in pair.parents))
        found = finished.figures(pair.part, pair.split, parents, made)
        for row, figures in found.items():
            of_each = {figure: values.reshape(-1, len(members)) for figure, values in figures.items()}
            figures |= {figure: values.mean(axis=0) for figure, values in of_each.items()}
            if row != "and_ensemble":
                figures["of_each"] = of_each["worst"].mean(axis=1)
        finished.add(rows, pair.name, found)
        progress(number + 1, len(pairs))
    progress.close("done")
    return rows


def by_pair(
    rows: dict[str, Any], row: str, new: int, figure: str = "worst", *, fresh: bool = True
) -> np.ndarray:
    """A row's means over networks, of parents new to the translators or of others."""
    part = slice(-new, None) if fresh else slice(0, -new)
    return np.array([np.mean(given[figure][part]) for given in rows[row].values()])
