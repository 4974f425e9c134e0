"""The stages of a run, in order; what is done is not done again, what was cut off goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import serialization

from kernelgan import config as config_lib
from kernelgan import (
    distributed,
    environment,
    fields,
    files,
    interop,
    keys,
    models,
    report,
    results,
    stages,
    zoo,
)
from kernelgan import workdir as workdir_lib
from kernelgan.baselines import methods, trained
from kernelgan.config import Settings
from kernelgan.data import leakage, quadrants, sources
from kernelgan.engine import Saver
from kernelgan.generators import base, check, loading
from kernelgan.generators.base import Parents
from kernelgan.losses import cross_entropy, squared_error
from kernelgan.plan import PairTask, Plan, make_plan, zoo_training
from kernelgan.population import Training
from kernelgan.progress import STAGES, WIDTH, Progress
from kernelgan.stages import CODE, Stages
from kernelgan.types import LEFT_OUT, Config, Key, Params

if TYPE_CHECKING:
    from kernelgan.evaluate import evaluation

_SHOWN_KERNELS = 4
_BYTES_A_PARAMETER = 4
_ADAM_COPIES = 3  # the weights and two moments
_ROWS_OF_PARENTS = 12  # methods with a network for each parent, whose answers are kept
_DISK_MARGIN = 50 * 2**20

Zoos = list[dict[str, Any]]
"""``{"params": stacked (M, ...), "history": {metric: (M, E)}}`` of each zoo."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage of a run knows.

    Attributes:
      settings: the config, checked.
      stages: the work directory's results.
      generators: that take part.
      network: the parents' module.
      command: as the user gave it, for the report.
    """

    settings: Settings
    stages: Stages
    generators: tuple[loading.Loaded, ...]
    network: models.ConvNet
    command: str

    @property
    def half_network(self) -> models.ConvNet:
        """The parents' module at half width."""
        return self.network.clone(filters=tuple(max(1, n // 2) for n in self.network.filters))


def run(
    config: Config, workdir: Path, *, stage: str = "report", command: str = "", generators: Sequence[str] = ()
) -> Path | None:
    """Runs an experiment, or what is missing of it.

    Args:
      config: see ``configs/default.py``.
      workdir: where everything is kept.
      stage: one of `STAGES`; stop after it.
      command: as the user gave it, for the report.
      generators: beside those that the config names, paths of the user's own files or names of families.

    Returns:
      The path of the report, or None if the run stopped before it, or on all processes but the first.

    Raises:
      UserError: whatever the user can mend; nothing that was finished is lost.
    """
    settings, network, loaded, recipe = distributed.everywhere(
        lambda: _loaded(config, generators), lambda loaded: loaded[-1], "configs, generators or code"
    )
    with contextlib.ExitStack() as stack:
        distributed.first(lambda: stack.enter_context(workdir_lib.claimed(workdir, settings)))
        if distributed.first(lambda: _is_finished(workdir, recipe)):
            if not distributed.leave():
                return None
            print(
                f"{settings.name}: finished before, nothing was run; work directory {workdir}",
                file=sys.stderr,
            )
            return report.show(workdir)
        environment.select_device(settings.device)
        kept = Stages(workdir, seconds=settings.checkpoint.seconds)
        _until(stage, Run(settings, kept, loaded, network, command))
        if stage not in ("evaluate", "report") or not distributed.is_first():
            return None
        files.write_atomically(workdir / workdir_lib.RECIPE_FILE, recipe.encode())
        return report.show(workdir) if stage == "report" else None


def _loaded(
    config: Config, generators: Sequence[str]
) -> tuple[Settings, models.ConvNet, tuple[loading.Loaded, ...], str]:
    """The config checked, the parents' module, the generators, and the digest of them all."""
    settings = config_lib.parse(config)
    network = models.ConvNet(tuple(settings.model.filters), settings.model.kernel_size)
    loaded = loading.load(settings.generators, generators, network)
    return settings, network, loaded, _recipe(settings, loaded)


def _recipe(settings: Settings, generators: Sequence[loading.Loaded]) -> str:
    """Digest of what a finished run's results are made from, but for its images, which are not loaded."""
    fixed = stages.without_pace(settings, "device", "checkpoint")
    own = {loaded.name: [loaded.code, loading.settings_of(loaded)] for loaded in generators}
    return keys.of_values([fixed, own, keys.of_source("kernelgan")])


def _is_finished(workdir: Path, recipe: str) -> bool:
    file = workdir / workdir_lib.RECIPE_FILE
    return results.is_complete(workdir) and file.exists() and file.read_text() == recipe


def _until(stage: str, of: Run) -> None:
    """Works through the stages up to this one."""
    wanted = STAGES[: STAGES.index(stage) + 1]
    print(
        f"{of.settings.name}: {environment.device_words()}; work directory {of.stages.workdir}",
        file=sys.stderr,
    )
    plan = load_plan(of)
    if "zoo" in wanted:
        zoos = train_zoos(of, plan)
    if "fit" in wanted:
        fitted = fit_generators(of, plan, zoos)
    if "baselines" in wanted:
        opponents = train_baselines(of, plan, zoos)
        halves = train_half_width(of, plan)
    if not distributed.leave():
        return
    if "generate" in wanted:
        generated = generate(of, plan, zoos, fitted)
    if "evaluate" in wanted:
        evaluate(of, plan, Networks(zoos, fitted, opponents, halves, generated))


# -- data ---------------------------------------------------------------------------------------------------


def load_plan(of: Run) -> Plan:
    """Loads the images and works out what to do with them; see `make_plan`."""
    with of.stages.timed("data") as progress:
        plan = distributed.everywhere(
            lambda: make_plan(of.settings, sources.load_source(of.settings, progress)),
            lambda plan: plan.digest,
        )
        distributed.first(lambda: workdir_lib.check_disk(of.stages.workdir, _bytes_needed(of, plan)))
    for line in (*plan.source.notes, *plan.words()):
        print(f"{'':{WIDTH}s} {line}", file=sys.stderr)
    return plan


def _bytes_needed(of: Run, plan: Plan) -> int:
    settings = of.settings
    shapes = jax.eval_shape(
        lambda: models.initialise_convnet(of.network, settings.data.image_size, jax.random.key(0))
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    networks = sum(task.models for task in plan.zoos) + len(plan.zoos) * settings.baselines.models
    derived = len(plan.pairs) * (sum(config_lib.zoo_models(settings)) + 2 * settings.baselines.models)
    weights = parameters * (networks * (1 + 2 * (1 + _ADAM_COPIES)) + derived * len(of.generators))
    answers = sum(int((pair.split.test != LEFT_OUT).sum()) for pair in plan.pairs) * (
        _ROWS_OF_PARENTS * max(config_lib.zoo_models(settings)) + 2 * settings.baselines.random_networks
    )
    return _BYTES_A_PARAMETER * (weights + answers) + _DISK_MARGIN


# -- training -----------------------------------------------------------------------------------------------


def train_zoos(of: Run, plan: Plan) -> Zoos:
    """The zoos, trained here or read from the files that the config names."""
    distributed.first(lambda: workdir_lib.write_plan(of.stages.workdir, _plan_record(of, plan)))
    own = [number for number, task in enumerate(plan.zoos) if not _file_of(of, task)]
    zoos = dict(zip(own, _trained_zoos(of, plan, [plan.zoos[number] for number in own], "zoo"), strict=True))
    for number, task in enumerate(plan.zoos):
        if number not in zoos:
            zoos[number] = _read_zoo(of, task)
    return [zoos[number] for number in range(len(plan.zoos))]


def _file_of(of: Run, task: zoo.ZooTask) -> str:
    """The file that gives a zoo instead of training; empty where it is trained."""
    return of.settings.zoo.attribute_file if task.kind == "attribute" else of.settings.zoo.object_file


def _read_zoo(of: Run, task: zoo.ZooTask) -> dict[str, Any]:
    """A zoo that was trained elsewhere; kept as a stage, so that it can be exported like the others."""
    path = Path(_file_of(of, task))
    params = distributed.everywhere(
        lambda: interop.load_parents(path, of.network, of.settings.data.image_size, task.models),
        keys.of_arrays,
        f"networks in {path}",
    )
    print(f"{'':{WIDTH}s} {task.label}: {path}; what it was trained on is not known here", file=sys.stderr)
    key = {"content": keys.of_arrays(params)}
    kept = of.stages.once(f"zoo-{task.kind}", key, lambda *_: {"0000": {"params": params}}, timing="zoo")
    return {"params": kept["0000"]["params"], "history": {}}


def train_half_width(of: Run, plan: Plan) -> Zoos:
    """The zoos at half width, as many networks of each as there are of a baseline."""
    tasks = [dataclasses.replace(task, models=of.settings.baselines.models) for task in plan.zoos]
    return _trained_zoos(of, plan, tasks, "half_width")


def _parts(of: Run, tasks: Sequence[zoo.ZooTask], name: str) -> list[tuple[str, Training, list[int]]]:
    """Zoos with equally large epochs are trained together: the stage, and the places of its tasks."""
    parts: dict[Training, list[int]] = {}
    for place, task in enumerate(tasks):
        parts.setdefault(zoo_training(of.settings, task.kind), []).append(place)
    return [
        (name if len(parts) == 1 else f"{name}-{part}", training, places)
        for part, (training, places) in enumerate(parts.items())
    ]


def _trained_zoos(of: Run, plan: Plan, tasks: Sequence[zoo.ZooTask], name: str) -> Zoos:
    network = of.network if name == "zoo" else of.half_network
    settings = of.settings.zoo
    zoos: dict[int, dict[str, Any]] = {}
    for stage, training, places in _parts(of, tasks, name):
        chosen = [tasks[place] for place in places]
        key = {
            "config": keys.of_values(
                [
                    of.settings.seed,
                    [network.filters, network.kernel_size, of.settings.data.image_size],
                    training,
                    [settings.balanced, settings.validation_images],
                    [[task.name, task.models] for task in chosen],
                ]
            ),
            "images": keys.of_values([plan.digest, [task.groups.key for task in chosen]]),
            "arithmetic": stages.arithmetic(network, of.settings.data.image_size, cross_entropy),
            "code": keys.of_source(*CODE["zoo"]),
        }

        def work(
            saver: Saver,
            progress: Progress,
            chosen: list[zoo.ZooTask] = chosen,
            training: Training = training,
        ) -> dict[str, Any]:
            made = zoo.train_zoos(
                network,
                plan.source.train.images,
                chosen,
                training,
                balanced=settings.balanced,
                validation_images=settings.validation_images,
                seed=of.settings.seed,
                chunk_size=settings.chunk_size,
                saver=saver,
                progress=progress,
            )
            return {f"{number:04d}": one for number, one in enumerate(made)}

        made = of.stages.once(stage, key, work, timing="zoo" if name == "zoo" else "baselines")
        zoos |= {place: made[f"{number:04d}"] for number, place in enumerate(places)}
    return [zoos[place] for place in range(len(tasks))]


def _plan_record(of: Run, plan: Plan) -> dict[str, Any]:
    """Which zoo and which pair is which, for `export`; the zoos of a part share a checkpoint."""
    own = [number for number, task in enumerate(plan.zoos) if not _file_of(of, task)]
    kept = {
        own[place]: (stage, f"{number:04d}")
        for stage, _, places in _parts(of, [plan.zoos[number] for number in own], "zoo")
        for number, place in enumerate(places)
    }
    return {
        "layers": models.layer_names(of.network.filters),
        "generators": [loaded.name for loaded in of.generators],
        "zoos": [
            {
                "kind": task.kind,
                "concept": task.concept,
                "excluded": task.excluded,
                "checkpoint": kept.get(number, (f"zoo-{task.kind}", "0000")),
            }
            for number, task in enumerate(plan.zoos)
        ],
        "pairs": [
            {
                "attribute": pair.split.attribute,
                "object": pair.split.object_name,
                "attribute_zoo": pair.attribute_zoo,
                "object_zoo": pair.object_zoo,
                "has_ceiling": pair.has_ceiling,
            }
            for pair in plan.pairs
        ],
    }


def train_baselines(of: Run, plan: Plan, zoos: Zoos) -> dict[int, dict[str, Params]]:
    """By pair number, the networks trained by gradient; one that cannot be trained is missing."""
    settings = of.settings.baselines
    training = Training(
        epochs=settings.epochs,
        images_per_epoch=settings.images_per_epoch,
        batch_size=of.settings.zoo.batch_size,
        learning_rate=settings.learning_rate,
        shares=(),
        decay=of.settings.zoo.decay,
    )
    taught = [pair for pair in plan.pairs if pair.has_ceiling]
    lessons = {
        "distilled": [
            trained.Lesson(
                pair.split.name,
                quadrants.distilled_groups(pair.split),
                (zoos[pair.attribute_zoo]["params"], zoos[pair.object_zoo]["params"]),
            )
            for pair in plan.pairs
        ],
        "trained_on_conjunction": [
            trained.Lesson(pair.split.name, quadrants.ceiling_groups(pair.split)) for pair in taught
        ],
    }
    made: dict[int, dict[str, Params]] = {pair.number: {} for pair in plan.pairs}
    validation = of.settings.zoo.validation_images

    for name, loss in (("distilled", squared_error), ("trained_on_conjunction", cross_entropy)):
        pairs = plan.pairs if name == "distilled" else taught
        if not pairs:
            continue
        key = {
            "config": keys.of_values(
                [of.settings.seed, training, settings.models, validation, of.network.filters]
            ),
            "images": keys.of_values([plan.digest, [lesson.groups.key for lesson in lessons[name]]]),
            "arithmetic": stages.arithmetic(of.network, of.settings.data.image_size, loss),
            "code": keys.of_source(*CODE["baselines"]),
            **(of.stages.inputs("zoo") if name == "distilled" else {}),
        }

        def work(saver: Saver, progress: Progress, name: str = name) -> dict[str, Any]:
            train: Callable[..., trained.Trained] = trained.train_on_conjunction
            if name == "distilled":
                train = functools.partial(trained.train_distilled, validation_images=validation)
            networks = train(
                of.network,
                plan.source.train.images,
                lessons[name],
                training,
                count=settings.models,
                seed=of.settings.seed,
                chunk_size=of.settings.zoo.chunk_size,
                saver=saver,
                progress=progress,
            )
            return {f"{n:04d}": {"params": params, "history": h} for n, (params, h) in enumerate(networks)}

        found = of.stages.once(name, key, work, timing="baselines")
        for place, pair in enumerate(pairs):
            made[pair.number][name] = found[f"{place:04d}"]["params"]
    return made


# -- generators ---------------------------------------------------------------------------------------------


def _parents(plan: Plan, zoos: Zoos) -> list[Parents]:
    return [
        Parents(zoos[pair.attribute_zoo]["params"], zoos[pair.object_zoo]["params"]) for pair in plan.pairs
    ]


def _pair_key(of: Run, name: str) -> Key:
    """Of a pair, for all that draws random networks or images; fold a number in for each use."""
    stream = jax.random.fold_in(jax.random.key(of.settings.seed), zlib.crc32(b"random networks"))
    return jax.random.fold_in(stream, zlib.crc32(name.encode()))


def _probes(of: Run, plan: Plan, generator: base.Generator) -> list[base.Probes]:
    """Of each pair, equally many."""
    handed = [
        methods.probes_for(
            generator,
            plan.source.train.images,
            quadrants.distilled_groups(pair.split),
            _pair_key(of, pair.split.name),
            pair.names,
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


def fit_generators(of: Run, plan: Plan, zoos: Zoos) -> dict[str, base.Fitted]:
    """Every generator's state, stacked along the pairs."""
    fitted = {}
    for loaded in of.generators:
        generator, probes = loaded.generator, _probes(of, plan, loaded.generator)
        folds = plan.folds(loaded.name) if generator.joint else ()
        task = base.Task(
            loaded.name,
            generator,
            base.views(loaded.name, generator, _parents(plan, zoos), probes, _weights(plan, folds)),
            tuple(fold.name for fold in folds) or tuple(pair.split.name for pair in plan.pairs),
        )

        def work(saver: Saver, progress: Progress, task: base.Task = task, loaded: Any = loaded) -> Params:  # noqa: ANN401
            made = base.fit(
                task,
                seed=of.settings.seed,
                steps_per_call=of.settings.checkpoint.steps,
                remedy=(
                    f"A smaller generators.{loaded.name}.learning_rate usually helps; the zoos are kept."
                ),
                saver=saver,
                progress=_shown(progress, getattr(loaded.module, "SHOWN", "")),
            )
            return {"state": serialization.to_state_dict(made.state), "history": made.history}

        if task.steps == 0:
            state, history = base.fit(task, seed=of.settings.seed)
        else:
            key = _generator_key(of, plan, loaded, probes)
            key["folds"] = keys.of_values([sorted(map(str, fold.weights.items())) for fold in folds])
            found = of.stages.once(f"fit/{loaded.name}", key, work, timing="fit")
            state, history = base.from_dict(task, found["state"]), found["history"]
        if folds:  # each pair is judged by the fold that holds it out
            of_pair = [
                next(n for n, fold in enumerate(folds) if pair.names in fold.held_out) for pair in plan.pairs
            ]
            state, history = jax.tree.map(lambda leaf, rows=of_pair: leaf[rows], (state, history))
        fitted[loaded.name] = base.Fitted(state, history)
    return fitted


def _weights(plan: Plan, folds: Sequence[leakage.Fold]) -> list[np.ndarray]:
    return [np.array([fold.weights[pair.names] for pair in plan.pairs], np.float32) for fold in folds]


def _shown(progress: Progress, metric: str) -> Callable[[int, int, dict[str, float]], None]:
    """Shows one metric of each layer, or the first two."""

    def show(done: int, total: int, figures: dict[str, float]) -> None:
        chosen = {name: value for name, value in figures.items() if metric and name.endswith(metric)}
        progress(done, total, chosen or dict(list(figures.items())[:2]))

    return show


def generate(
    of: Run, plan: Plan, zoos: Zoos, fitted: dict[str, base.Fitted]
) -> dict[str, list[dict[str, Params]]]:
    """By generator, for each pair the networks by row; a stage of its own for each generator."""
    parents = _parents(plan, zoos)
    made: dict[str, list[dict[str, Params]]] = {}
    for loaded in of.generators:
        probes = _probes(of, plan, loaded.generator)
        key = {**_generator_key(of, plan, loaded, probes), **of.stages.inputs(f"fit/{loaded.name}")}

        def work(
            saver: Saver,
            progress: Progress,
            loaded: loading.Loaded = loaded,
            probes: list[base.Probes] = probes,
        ) -> dict[str, Any]:
            del saver
            by_pair = base.generate(
                loaded.generator,
                fitted[loaded.name].state,
                parents,
                probes,
                [_pair_key(of, pair.split.name) for pair in plan.pairs],
                name=loaded.name,
            )
            for networks in by_pair:
                check.check_networks(networks, of.network, of.settings.data.image_size, loaded.name)
            progress(len(by_pair), len(by_pair))
            return {
                str(number): {base.row_name(loaded.name, key): params for key, params in networks.items()}
                for number, networks in enumerate(by_pair)
            }

        found = of.stages.once(f"generate/{loaded.name}", key, work, timing="generate")
        made[loaded.name] = [found[str(pair.number)] for pair in plan.pairs]
    return made


# -- evaluation ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Networks:
    """All that is evaluated.

    Attributes:
      zoos: the parents.
      fitted: by generator, for the histories of its training.
      trained: by pair number, networks trained by gradient.
      halves: the zoos at half width.
      generated: by generator, for each pair the networks by row.
    """

    zoos: Zoos
    fitted: dict[str, base.Fitted]
    trained: dict[int, dict[str, Params]]
    halves: Zoos
    generated: dict[str, list[dict[str, Params]]]


def evaluate(of: Run, plan: Plan, networks: Networks) -> None:
    """Measures every method on every pair and writes the results."""
    from kernelgan.evaluate import comparison, evaluation, verdict  # scipy and sklearn: a second of a start

    rows = methods.table(_generated_rows(of, networks))
    pairs: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    with of.stages.timed("evaluate") as progress:
        total = len(plan.pairs) * len(rows)
        for pair in plan.pairs:
            record, found = evaluation.evaluate_pair(
                _context(of, plan, pair, networks),
                plan.source.test.images[pair.scored],
                pair.split.test[pair.scored],
                _evaluation_settings(of),
                directory=of.stages.workdir / workdir_lib.EVALUATION / "_".join(pair.names),
                keys=functools.partial(_measurement_key, of, plan, pair, rows),
                progress=functools.partial(_evaluated, progress, pair.number * len(rows), total),
                methods=rows,
            )
            record = {"pair": dict(zip(("attribute", "object"), pair.names, strict=True)), **record}
            record["data"] = {
                "source": plan.source.name,
                "train": quadrants.counts(pair.split.train),
                "validation": quadrants.counts(pair.split.validation),
                "test": quadrants.counts(pair.split.test),
                **dataclasses.asdict(pair.leakage),
            }
            record["zoo"] = _zoo_record(networks.zoos[pair.attribute_zoo], networks.zoos[pair.object_zoo])
            pairs.append(record)
            found |= _histories(pair, networks) | _shown_kernels(of, pair, networks)
            arrays |= {f"{results.pair_key(record)}/{name}": value for name, value in found.items()}
        first = plan.pairs[0].split
        arrays["contact_sheet"], shown, columns = sources.contact_sheet(of.settings, plan.source, first)

        comparison.adjust(pairs)
        merits = {evaluation.merit_of(next(iter(pair["methods"].values()))) for pair in pairs}
        overall = None  # of pairs with different figures of merit there is no mean
        if len(merits) == 1:
            overall = comparison.overall(
                pairs,
                merit=merits.pop(),
                resamples=of.settings.evaluate.bootstrap,
                seed=of.settings.seed,
            )

    document = {
        "name": of.settings.name,
        "config": config_lib.to_json(of.settings),
        "versions": environment.versions(),
        "seed": of.settings.seed,
        "device": environment.device_words(),
        "command": of.command,
        "data": {
            "source": plan.source.name,
            "notes": list(plan.source.notes),
            "contact_sheet": {"rows": list(shown), "columns": list(columns)},
        },
        "timings": workdir_lib.timings(of.stages.workdir),
        "pairs": pairs,
        "skipped": [
            {"attribute": attribute, "object": thing, "reason": reason}
            for attribute, thing, reason in plan.skipped
        ],
        "overall": overall,
    }
    run = verdict.judged(results.from_document(document))
    results.write_results(of.stages.workdir, run, arrays)


def _evaluated(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _generated_rows(of: Run, networks: Networks) -> dict[str, methods.Method]:
    rows: dict[str, methods.Method] = {}
    for loaded in of.generators:
        made = networks.generated[loaded.name][0]
        own = [row.removeprefix(loaded.name).removeprefix("_") for row in made]
        rows |= methods.generated_rows(loaded.name, own, loaded.generator.reads, loaded.module)
    return rows


def _context(of: Run, plan: Plan, pair: PairTask, networks: Networks) -> methods.Context:
    """What the methods of a pair are made from."""
    attribute, objects = pair.attribute_zoo, pair.object_zoo
    return methods.Context(
        network=of.network,
        image_size=of.settings.data.image_size,
        attribute=networks.zoos[attribute]["params"],
        objects=networks.zoos[objects]["params"],
        generated={
            row: params
            for by_pair in networks.generated.values()
            for row, params in by_pair[pair.number].items()
        },
        trained=networks.trained[pair.number],
        half_width=(
            of.half_network,
            networks.halves[attribute]["params"],
            networks.halves[objects]["params"],
        ),
        images=plan.source.train.images,
        seen=quadrants.distilled_groups(pair.split),
        attribute_images=plan.zoos[attribute].groups,
        object_images=plan.zoos[objects].groups,
        random_networks=of.settings.baselines.random_networks,
        random_bias=of.settings.baselines.random_bias,
        seed=of.settings.seed,
        key=_pair_key(of, pair.split.name),
        names=pair.names,
    )


def _measurement_key(
    of: Run, plan: Plan, pair: PairTask, rows: dict[str, methods.Method], row: str
) -> keys.StageKey:
    """What the measurements of a row are made from."""
    settings, method = of.settings, rows[row]
    config = [settings.seed, settings.evaluate, settings.baselines, list(of.network.filters), pair.names]
    return keys.StageKey(
        {
            "config": keys.of_values(config),
            "images": keys.of_values([plan.digest, keys.of_arrays({"test": pair.split.test})]),
            "arithmetic": models.arithmetic(of.network.form),
            "code": keys.of_source(*CODE["evaluate"]),
            **of.stages.inputs("zoo", *method.inputs),
        }
    )


def _evaluation_settings(of: Run) -> evaluation.Settings:
    from kernelgan.evaluate import evaluation

    return evaluation.Settings(
        **fields.plain(of.settings.evaluate), chunk_size=of.settings.zoo.chunk_size, seed=of.settings.seed
    )


def _zoo_record(attribute: dict[str, Any], objects: dict[str, Any]) -> dict[str, Any]:
    """How well a pair's parents know their concepts, on validation images."""
    from kernelgan.evaluate import bootstrap

    return {
        kind: {
            figure: bootstrap.summary(one["history"][f"validation_{figure}"][:, -1])
            for figure in ("balanced_accuracy", "auroc")
        }
        for kind, one in (("attribute", attribute), ("object", objects))
        if "validation_auroc" in one["history"]
    }


def _histories(pair: PairTask, networks: Networks) -> dict[str, np.ndarray]:
    """The curves of every training behind a pair."""
    curves = {
        f"history/zoo_{kind}/{name}": values
        for kind, number in (("attribute", pair.attribute_zoo), ("object", pair.object_zoo))
        for name, values in networks.zoos[number]["history"].items()
    }
    for family, fitted in networks.fitted.items():
        for path, values in jax.tree_util.tree_leaves_with_path(fitted.history):
            name = "/".join(str(part.key) for part in path)
            curves[f"history/{family}/{name}"] = values[pair.number]
    return curves


def _shown_kernels(of: Run, pair: PairTask, networks: Networks) -> dict[str, np.ndarray]:
    populations = {
        "attribute_parent": networks.zoos[pair.attribute_zoo]["params"],
        "object_parent": networks.zoos[pair.object_zoo]["params"],
    }
    for by_pair in networks.generated.values():
        populations |= by_pair[pair.number]
    return {
        f"kernels/{layer}/{role}": params[layer]["kernel"][:_SHOWN_KERNELS]
        for layer in models.layer_names(of.network.filters)
        for role, params in populations.items()
    }
