"""What a run does with its generators: it fits them and generates networks, each a stage of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import serialization

from kernelgan import config as config_lib
from kernelgan import distributed, keys, models, parallel
from kernelgan import workdir as workdir_lib
from kernelgan.baselines import nulls
from kernelgan.baselines.context import probes_for
from kernelgan.data import leakage, quadrants
from kernelgan.engine import Saver
from kernelgan.generators import FAMILIES, base, check, fitting, loading, placebo, rehearsal
from kernelgan.generators.base import Parents
from kernelgan.plan import PairTask, Plan
from kernelgan.progress import WIDTH, Progress
from kernelgan.stages import CODE, Run, Zoos, pair_key
from kernelgan.types import Params, UserError

_TRIED = 32  # networks of each zoo, at most, that a user's generator is tried on


@dataclasses.dataclass(frozen=True)
class Made:
    """How a generator's networks were made.

    Attributes:
      tier: what they rest on: what the generator is handed, or "G" where it takes gradient steps on images.
      images: that it is handed for a pair.
      steps: of its training.
      watched: what it was seen to do, from the import of its file to its networks.
      trainings: how often it was trained; its networks are those of the first training, then the second, ...
    """

    tier: str
    images: int
    steps: int
    watched: check.Watched
    trainings: int


Trained = list[fitting.Fitted]
"""A generator's state and metrics after each of its trainings, stacked along the pairs."""


def _parents(plan: Plan, zoos: Zoos) -> list[Parents]:
    sides = [(zoos[pair.attribute_zoo], zoos[pair.object_zoo]) for pair in plan.pairs]
    parents = [Parents(attribute["params"], objects["params"]) for attribute, objects in sides]
    return jax.tree.map(lambda leaf: leaf, parents)  # fresh dicts: what is put into them reaches no other


def _probes(of: Run, plan: Plan, generator: base.Generator) -> list[base.Probes]:
    """Of each pair, equally many."""
    handed = [
        probes_for(
            generator,
            plan.source.train.images,
            quadrants.distilled_groups(pair.split),
            pair_key(of, pair.split.name),
            [other.names for other in plan.pairs] if generator.joint else [pair.names],
        )
        for pair in plan.pairs
    ]
    least = min((len(images) for images in handed if images is not None), default=0)
    return [None if images is None else images[:least] for images in handed]


def _generator_key(of: Run, plan: Plan, loaded: loading.Loaded, probes: list[base.Probes]) -> dict[str, str]:
    """Parts of the key of what a generator learns and makes."""
    of_probes = {str(n): images for n, images in enumerate(probes) if images is not None}
    return {
        "config": keys.of_values(
            [of.settings.seed, loading.settings_of(loaded), [pair.split.name for pair in plan.pairs]]
        ),
        "probes": keys.of_arrays(of_probes) if of_probes else "none",
        "arithmetic": models.arithmetic(of.network.form),
        "code": keys.of_values([loaded.code, keys.of_source(*CODE["generator"])]),
        **of.stages.inputs("zoo"),
    }


def rehearse(of: Run, plan: Plan) -> Run:
    """The run once its user's own generators were tried, unless its zoos are done: see `rehearsal`.

    Raises:
      UserError: a generator fails on as many untrained networks as the zoos are to have.
    """
    own = [one for one in of.generators if one.name not in FAMILIES and not one.generator.joint]
    if not own or of.stages.has("zoo"):
        return of
    size, counts = of.settings.data.image_size, config_lib.zoo_models(of.settings)
    draws = (
        jax.random.split(jax.random.key(number), min(count, _TRIED)) for number, count in enumerate(counts)
    )
    parents = Parents(*(nulls.initialise(of.network, size, drawn) for drawn in draws))
    names = ", ".join(loaded.name for loaded in own)
    print(f"{'':{WIDTH}s} {names}: tried on untrained networks first", file=sys.stderr)
    tried = {}
    for loaded in own:
        probes = _probes(of, plan, loaded.generator)[0]
        try:
            tried[loaded.name], said = rehearsal.rehearse(
                loaded, of.network, size, parents, probes, pair_key(of, plan.pairs[0].split.name)
            )
            for words in said:
                print(f"{'':{WIDTH}s} {words}", file=sys.stderr)
        except UserError:
            if max(counts) <= _TRIED:  # else it may need more
                raise
    return dataclasses.replace(of, generators=tuple(tried.get(one.name, one) for one in of.generators))


def fit_generators(of: Run, plan: Plan, zoos: Zoos) -> dict[str, Trained]:
    """Every generator's states; one that has steps is trained ``config.trainings`` times."""
    fitted = {}
    for loaded in of.generators:
        probes, folds = _probes(of, plan, loaded.generator), folds_of(plan, loaded)
        with check.watched() as watched:
            task = _task(plan, loaded, _parents(plan, zoos), probes, folds)
        key = _generator_key(of, plan, loaded, probes)
        key["folds"] = keys.of_values([sorted(map(str, fold.weights.items())) for fold in folds])
        if task.steps:
            trained = [_fitted(of, loaded, task, key, n + 1) for n in range(of.settings.trainings)]
        else:  # it is begun at once; to watch a training would take longer than to compile it
            with check.watched() as begun:
                trained = [fitting.fit(task, seed=of.settings.seed)]
            watched |= begun
        if folds:  # each pair is judged by the fold that holds it out
            of_pair = [
                next(n for n, fold in enumerate(folds) if pair.names in fold.held_out) for pair in plan.pairs
            ]
            trained = jax.tree.map(lambda leaf, rows=of_pair: leaf[rows], trained)
        fitted[loaded.name] = [one._replace(watched=watched) for one in trained]
    return fitted


def _task(
    plan: Plan,
    loaded: loading.Loaded,
    parents: list[Parents],
    probes: list[base.Probes],
    folds: Sequence[leakage.Fold] = (),
) -> fitting.Task:
    """What is fitted, for every pair or fold."""
    names = tuple(fold.name for fold in folds) or tuple(pair.split.name for pair in plan.pairs)
    weights = [np.array([fold.weights[pair.names] for pair in plan.pairs], np.float32) for fold in folds]
    views = fitting.views(loaded.name, loaded.generator, parents, probes, weights)
    return fitting.Task(loaded.name, loaded.generator, views, names)


def _fitted(
    of: Run, loaded: loading.Loaded, task: fitting.Task, key: dict[str, str], number: int
) -> fitting.Fitted:
    """A generator after one of its trainings, from 1; each is a stage, and has its own random numbers."""
    stage = f"fit/{loaded.name}"
    if number > 1:
        stage, key = f"{stage}-{number}", {**key, "training": str(number)}
        task = task._replace(names=tuple(f"{name}, training {number}" for name in task.names))

    field = f"generators.{loaded.name}.learning_rate"
    rate = field if loaded.name in of.settings.generators else f"rate of learning in {loaded.name}"

    def work(saver: Saver, progress: Progress) -> Params:
        made = fitting.fit(
            task,
            seed=of.settings.seed,
            steps_per_call=of.settings.checkpoint.steps,
            remedy=f"A smaller {rate} usually helps; the zoos are kept.",
            saver=saver,
            progress=_shown(progress, getattr(loaded.module, "SHOWN", "")),
        )
        return {"state": serialization.to_state_dict(made.state), "history": made.history}

    found = of.stages.once(stage, key, work, timing=f"fit/{loaded.name}")
    return fitting.Fitted(fitting.from_dict(task, found["state"]), found["history"])


def folds_of(plan: Plan, loaded: loading.Loaded) -> tuple[leakage.Fold, ...]:
    """Of a joint generator; none of another.

    Raises:
      UserError: see `Plan.folds`.
    """
    generator = loaded.generator
    return plan.folds(loaded.name, probes=generator.reads == "U") if generator.joint else ()


def _shown(progress: Progress, metric: str) -> Callable[[int, int, dict[str, float]], None]:
    """Shows one metric of each layer, or the first two."""

    def show(done: int, total: int, figures: dict[str, float]) -> None:
        chosen = {name: value for name, value in figures.items() if metric and name.endswith(metric)}
        progress(done, total, chosen or dict(list(figures.items())[:2]))

    return show


def generate(
    of: Run, plan: Plan, zoos: Zoos, fitted: dict[str, Trained]
) -> tuple[dict[str, list[dict[str, Params]]], dict[str, Made]]:
    """By generator, for each pair the networks by row, and how they were made; a stage for each generator.

    The networks' digests are kept in the work directory, before anything is measured on the test images.
    """
    made: dict[str, list[dict[str, Params]]] = {}
    how: dict[str, Made] = {}
    for loaded in of.generators:
        probes, key = _generating(of, plan, loaded)
        parents, stage = _parents(plan, zoos), f"generate/{loaded.name}"
        work = functools.partial(_work_of_networks, of, plan, loaded, fitted[loaded.name], parents, probes)
        found = of.stages.once(stage, key, work, timing=stage)
        made[loaded.name] = [found[str(pair.number)] for pair in plan.pairs]
        for row, params in made[loaded.name][0].items():
            if params["dense"]["bias"].shape[-1] == of.network.outputs:
                print(f"{'':{WIDTH}s} {row} {rehearsal.TWO_LOGITS}", file=sys.stderr)
        seen = check.Watched(**{name: bool(value) for name, value in found["history"].items()})
        how[loaded.name] = _made(loaded, probes, fitted[loaded.name], seen)
    digests = {
        pair.split.name: {
            row: keys.of_arrays(params)
            for by_pair in made.values()
            for row, params in by_pair[pair.number].items()
        }
        for pair in plan.pairs
    }
    distributed.first(lambda: workdir_lib.write_networks(of.stages.workdir, digests))
    return made, how


def _work_of_networks(
    of: Run,
    plan: Plan,
    loaded: loading.Loaded,
    trained: Trained,
    parents: list[Parents],
    probes: list[base.Probes],
    saver: Saver,
    progress: Progress,
) -> dict[str, Any]:
    """A generator's networks by pair and row, checked, and what it was seen to do."""
    del saver
    said = f"the generator {loaded.name} gives"
    with check.watched() as watched:
        by_pair = _generated(of, plan, loaded, trained, parents, probes, progress)
    for networks in by_pair:
        check.check_networks(networks, of.network, of.settings.data.image_size, said)
        if networks.keys() != by_pair[0].keys():
            raise UserError(
                f"{said} {sorted(networks)} for one pair and {sorted(by_pair[0])} for another; expected the "
                "same keys for every pair."
            )
    rows = {str(number): _by_row(loaded.name, networks) for number, networks in enumerate(by_pair)}
    watched |= loaded.watched
    seen = {name: np.array(value) for name, value in dataclasses.asdict(watched).items()}
    return {**rows, "history": seen}


def _generating(of: Run, plan: Plan, loaded: loading.Loaded) -> tuple[list[base.Probes], dict[str, str]]:
    """What a fitted generator is handed, and parts of the key of the networks that it makes."""
    probes = _probes(of, plan, loaded.generator)
    return probes, {**_generator_key(of, plan, loaded, probes), **of.stages.inputs(f"fit/{loaded.name}")}


def _generated(
    of: Run,
    plan: Plan,
    loaded: loading.Loaded,
    trained: Trained,
    parents: list[Parents],
    probes: list[base.Probes],
    progress: Callable[[int, int], None] = base.untold,
) -> list[base.Networks]:
    """Networks of parents round by round (a round has every pair's), of one training after the other."""
    rounds = len(parents) // len(plan.pairs)
    parts = [
        base.generate(
            loaded.generator,
            one.state,
            parents,
            probes,
            [pair_key(of, pair.split.name) for pair in plan.pairs] * rounds,
            name=loaded.name,
            progress=_after(progress, number * len(parents), len(trained) * len(parents)),
        )
        for number, one in enumerate(trained)
    ]
    return [
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *networks)
        for networks in zip(*parts, strict=True)
    ]


def _after(progress: Callable[[int, int], None], before: int, every: int) -> Callable[[int, int], None]:
    """Progress of a part, as that of the whole: what came before it, and how much there is."""
    return lambda done, total: progress(before + done, every)


def _by_row(name: str, networks: base.Networks) -> dict[str, Params]:
    return {base.row_name(name, key): params for key, params in networks.items()}


def _made(
    loaded: loading.Loaded, probes: list[base.Probes], trained: Trained, watched: check.Watched
) -> Made:
    """How a generator made its networks, as the table says it.

    A joint generator's steps are on other pairs: it may take them and stay in its tier. One that asks the
    package for images reads more than the parents, whatever it says.
    """
    generator, first = loaded.generator, trained[0]
    watched |= loaded.watched | (first.watched or check.Watched())
    steps = max((np.shape(leaf)[-1] for leaf in jax.tree.leaves(first.history)), default=0)
    own = steps > 0 and generator.reads != "W" and not generator.joint
    images = max((len(given) for given in probes if given is not None), default=0)
    tier = "S" if watched.images and generator.reads == "W" else generator.reads
    return Made("G" if watched.gradients or own else tier, images, steps, watched, len(trained))


def generate_placebos(
    of: Run,
    plan: Plan,
    zoos: Zoos,
    fitted: dict[str, Trained],
    generated: dict[str, list[dict[str, Params]]],
) -> dict[str, list[dict[str, dict[str, Params]]]]:
    """By generator, for each pair, by row and placebo: networks that the first training makes of placebos.

    A generator that takes no steps views them and begins anew; one that was trained is not trained again.

    Raises:
      UserError: asked again for the networks of the true parents, a generator gives others.
    """
    made: dict[str, list[dict[str, dict[str, Params]]]] = {}
    for loaded in of.generators:
        probes, key = _generating(of, plan, loaded)
        key["placebos"] = keys.of_source(*CODE["placebos"])
        own = (fitted[loaded.name], probes, generated[loaded.name])
        work = functools.partial(_work_of_placebos, of, plan, zoos, loaded, *own)
        key |= of.stages.inputs(f"generate/{loaded.name}")
        stage = f"placebos/{loaded.name}"
        found = of.stages.once(stage, key, work, timing=stage)
        made[loaded.name] = [found[str(pair.number)] for pair in plan.pairs]
    return made


def _work_of_placebos(
    of: Run,
    plan: Plan,
    zoos: Zoos,
    loaded: loading.Loaded,
    trained: Trained,
    probes: list[base.Probes],
    generated: list[dict[str, Params]],
    saver: Saver,
    progress: Progress,
) -> dict[str, Any]:
    """A generator's placebo networks by pair, row and placebo; those that were saved are not made again."""
    exchanged, first = _placebo_parents(of, plan, zoos), trained[0]
    kinds, pairs = list(exchanged[0]), len(plan.pairs)
    every = (1 + len(kinds)) * pairs
    part = _after(progress, 0, every)
    chosen = _asked_again(of, plan, loaded, zoos, trained, probes, generated, part)
    at_once = _kinds_at_once(loaded.generator, pairs, len(kinds))
    rows: dict[str, Any] = saver.restore() or {str(pair.number): {} for pair in plan.pairs}
    saved = len(next(iter(rows[str(plan.pairs[0].number)].values()), {}))
    for begin in range(saved, len(kinds), at_once):
        names = kinds[begin : begin + at_once]
        rounds = [[of_pair[name] for of_pair in exchanged] for name in names]
        if chosen:
            rounds = [list(map(_taken, parents, chosen)) for parents in rounds]
        states = [_begun_anew(of, plan, loaded, first, parents, probes).state for parents in rounds]
        with check.named(loaded.name, "init"):
            state = jax.tree.map(lambda *leaves: np.concatenate(leaves), *states)
        of_all = _generated(
            of,
            plan,
            loaded,
            [first._replace(state=state)],
            list(itertools.chain(*rounds)),
            probes * len(names),
            _after(progress, (1 + begin) * pairs, every),
        )
        for (name, pair), networks in zip(itertools.product(names, plan.pairs), of_all, strict=True):
            for row, params in _by_row(loaded.name, networks).items():
                rows[str(pair.number)].setdefault(row, {})[name] = placebo.some(params)
        if begin + at_once < len(kinds) and saver.is_due():
            saver.save(rows, begin)
    return rows


def _kinds_at_once(generator: base.Generator, pairs: int, kinds: int) -> int:
    """Of how many placebos networks are made in one call: of as many as fill the devices, or of all."""
    devices = len(parallel.devices())
    if generator.host or pairs >= devices:
        return 1
    filling = devices // pairs
    return filling if filling * pairs == devices and kinds % filling == 0 else kinds


def _taken(networks: Any, members: np.ndarray) -> Any:  # noqa: ANN401
    """Some of stacked networks, in any tree."""
    return jax.tree.map(lambda leaf: leaf[members], networks)


def _asked_again(
    of: Run,
    plan: Plan,
    loaded: loading.Loaded,
    zoos: Zoos,
    trained: Trained,
    probes: list[base.Probes],
    generated: list[dict[str, Params]],
    progress: Callable[[int, int], None],
) -> list[np.ndarray] | None:
    """Asks a generator again for networks that it has made.

    If it takes no steps, it is asked for those of a few parents, of every pair. Where all are the same as
    among all parents, placebos are made of no more parents than are measured. Otherwise, or where it fails on
    a few, it is asked for those of the first pair.

    Returns:
      Of each pair, the numbers of these parents; None where placebos are made of all.

    Raises:
      UserError: it gives others.
    """
    parents = _parents(plan, zoos)
    found = list(map(placebo.measured, generated, parents))
    chosen = [members for members in found if members is not None]
    if len(chosen) == len(found) and not _takes_steps(loaded, trained[0]):
        few = list(map(_taken, parents, chosen))
        with contextlib.suppress(UserError):  # it may need more parents
            begun = _begun_anew(of, plan, loaded, trained[0], few, probes)
            made_again = _generated(of, plan, loaded, [begun], few, probes, progress)
            again = [_by_row(loaded.name, made) for made in made_again]
            if not any(
                map(functools.partial(check.other, every=True), again, map(_taken, generated, chosen))
            ):
                return chosen
    one_pair = dataclasses.replace(plan, pairs=plan.pairs[:1])
    first = [one._replace(state=_taken(one.state, np.arange(1))) for one in trained]
    (made,) = _generated(of, one_pair, loaded, first, parents[:1], probes[:1])
    check.check_same(_by_row(loaded.name, made), generated[0], f"the generator {loaded.name} gives")
    return None


def _takes_steps(loaded: loading.Loaded, fitted: fitting.Fitted) -> bool:
    return loaded.generator.joint or bool(jax.tree.leaves(fitted.history))


def _begun_anew(
    of: Run,
    plan: Plan,
    loaded: loading.Loaded,
    fitted: fitting.Fitted,
    parents: list[Parents],
    probes: list[base.Probes],
) -> fitting.Fitted:
    """A generator's state; of one that takes no steps it is made from these parents."""
    if _takes_steps(loaded, fitted):
        return fitted
    task = _task(plan, loaded, parents, probes)
    return fitted if task.steps > 0 else fitting.fit(task, seed=of.settings.seed)


def _placebo_parents(of: Run, plan: Plan, zoos: Zoos) -> list[dict[str, Parents]]:
    """Of each pair; all have the same placebos."""
    return [
        placebo.exchanged(
            of.network,
            of.settings.data.image_size,
            parents,
            pair_key(of, pair.split.name),
            {side: zoos[number]["params"] for side, number in other_zoos(plan, pair).items()},
        )
        for pair, parents in zip(plan.pairs, _parents(plan, zoos), strict=True)
    ]


def other_zoos(plan: Plan, pair: PairTask) -> dict[str, int]:
    """By side, the number of the zoo of another concept, where the run has another: the next in order.

    One that is trained for a pair with the same partner comes first: it left out the same images.
    """
    found = {}
    after = [*plan.pairs[pair.number + 1 :], *plan.pairs[: pair.number]]
    for place, side in enumerate(Parents._fields):
        others = [other for other in after if other.names[place] != pair.names[place]]
        same = [other for other in others if other.names[1 - place] == pair.names[1 - place]]
        if others:
            chosen = (same or others)[0]
            found[side] = (chosen.attribute_zoo, chosen.object_zoo)[place]
    return found
