"""What a run trains beside its generators: zoos and baselines, each a stage of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kernelgan import distributed, interop, keys, models, population, stages, zoo
from kernelgan import workdir as workdir_lib
from kernelgan.baselines import methods, trained
from kernelgan.data import quadrants
from kernelgan.engine import Saver
from kernelgan.files import given_path
from kernelgan.losses import cross_entropy, squared_error
from kernelgan.plan import PairTask, Plan, zoo_training
from kernelgan.population import Training
from kernelgan.progress import WIDTH, Progress
from kernelgan.stages import CODE, Run, Zoos
from kernelgan.types import Params, UserError

_LONGEST = 40  # characters of what a stage is shown to work on
_NOT_OF_A_ZOO = (
    *("models", "object_models", "chunk_size"),
    *("attribute_file", "object_file", "attribute_positive", "object_positive"),
)
"""Fields of ``config.zoo`` that are in a zoo's key otherwise, or decide no numbers."""


def train_zoos(of: Run, plan: Plan) -> Zoos:
    """The zoos, trained here or read from the files that the config names."""
    distributed.first(lambda: _tell_what_is_left_out(of))
    distributed.first(lambda: workdir_lib.write_plan(of.stages.workdir, _plan_record(of, plan)))
    # Files first: what does not fit is refused before anything trains.
    zoos = {number: _read_zoo(of, task) for number, task in enumerate(plan.zoos) if _file_of(of, task)}
    own = [number for number in range(len(plan.zoos)) if number not in zoos]
    zoos |= zip(own, _trained_zoos(of, plan, [plan.zoos[number] for number in own], "zoo"), strict=True)
    made = [zoos[number] for number in range(len(plan.zoos))]
    if said := stages.weaknesses(plan.zoos, made):
        print(f"{'':{WIDTH}s} {said}", file=sys.stderr)
    return made


def _tell_what_is_left_out(of: Run) -> None:
    """Says which generators an earlier run in this directory had and this one has not."""
    had: list[str] = []
    with contextlib.suppress(UserError):  # none yet, or damaged: it is written anew
        had = workdir_lib.read_plan(of.stages.workdir).get("generators", [])
    gone = sorted(set(had) - {loaded.name for loaded in of.generators})
    if gone:
        said = f"{', '.join(gone)}: in the table so far, and left out of it now; to keep them there, repeat"
        print(f"{'':{WIDTH}s} {said} their --generator. Their networks are kept", file=sys.stderr)


def _file_of(of: Run, task: zoo.ZooTask) -> str:
    """The file that gives a zoo instead of training; empty where it is trained."""
    file = of.settings.zoo.attribute_file if task.kind == "attribute" else of.settings.zoo.object_file
    return str(given_path(file, "zoo")) if file else ""


def _read_zoo(of: Run, task: zoo.ZooTask) -> dict[str, Any]:
    """A zoo that was trained elsewhere; kept as a stage, so that it can be exported like the others."""
    path, settings = Path(_file_of(of, task)), of.settings.zoo
    positive = settings.attribute_positive if task.kind == "attribute" else settings.object_positive
    size = of.settings.data.image_size
    params = distributed.everywhere(
        lambda: interop.load_parents(path, of.network, size, task.models, positive=positive),
        keys.of_arrays,
        f"networks in {path}",
    )
    key = {"content": keys.of_arrays(params)}
    kept = of.stages.once(f"zoo-{task.kind}", key, lambda *_: {"0000": {"params": params}}, timing="zoo")
    return {"params": kept["0000"]["params"], "history": {}}


def train_half_width(of: Run, plan: Plan) -> Zoos:
    """The zoos at half width, as many networks of each as there are of a baseline; none if no row asks."""
    if "half_width_pair" not in methods.chosen(methods.BASELINES, of.settings.baselines.methods):
        return []
    tasks = [dataclasses.replace(task, models=of.settings.baselines.models) for task in plan.zoos]
    return _trained_zoos(of, plan, tasks, "half_width")


def _parts(of: Run, tasks: Sequence[zoo.ZooTask], name: str) -> list[tuple[str, Training, list[int]]]:
    """Zoos with equally large epochs are trained together: the stage, and the places of its tasks."""
    parts: dict[Training, list[int]] = {}
    for place, task in enumerate(tasks):
        training = zoo.capped(task.groups, zoo_training(of.settings, task.kind))
        parts.setdefault(training, []).append(place)
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
                    [training, stages.without_pace(settings, *_NOT_OF_A_ZOO)],
                    [[task.name, task.models] for task in chosen],
                ]
            ),
            "images": keys.of_values([plan.digest, [task.groups.key for task in chosen]]),
            "arithmetic": population.arithmetic(network, of.settings.data.image_size, cross_entropy),
            "code": keys.of_source(*CODE["zoo"]),
        }

        def work(
            saver: Saver,
            progress: Progress,
            chosen: list[zoo.ZooTask] = chosen,
            training: Training = training,
        ) -> dict[str, Any]:
            concepts = ", ".join(dict.fromkeys(task.concept for task in chosen))
            progress.doing = textwrap.shorten(concepts, _LONGEST, placeholder=" ...")
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

    def kept(name: str, numbers: list[int]) -> dict[int, tuple[str, str]]:
        return {
            numbers[place]: (stage, f"{number:04d}")
            for stage, _, places in _parts(of, [plan.zoos[number] for number in numbers], name)
            for number, place in enumerate(places)
        }

    whole = kept("zoo", [number for number, task in enumerate(plan.zoos) if not _file_of(of, task)])
    halves = kept("half_width", list(range(len(plan.zoos))))
    return {
        "layers": models.layer_names(of.network.filters),
        "generators": [loaded.name for loaded in of.generators],
        "zoos": [
            {
                "kind": task.kind,
                "concept": task.concept,
                "excluded": task.excluded,
                "checkpoint": whole.get(number, (f"zoo-{task.kind}", "0000")),
                "half_width": halves[number],
            }
            for number, task in enumerate(plan.zoos)
        ],
        "pairs": [
            {
                "attribute": pair.split.attribute,
                "object": pair.split.object_name,
                "attribute_zoo": pair.attribute_zoo,
                "object_zoo": pair.object_zoo,
                "has_reference": pair.has_reference,
            }
            for pair in plan.pairs
        ],
    }


def _lessons(
    pairs: Sequence[PairTask], taught: Sequence[PairTask], zoos: Zoos
) -> dict[str, list[trained.Lesson]]:
    """By baseline, what its networks learn from: the parents' answers, and images of all four quadrants."""
    return {
        "distilled": [
            trained.Lesson(
                pair.split.name,
                quadrants.distilled_groups(pair.split),
                (zoos[pair.attribute_zoo]["params"], zoos[pair.object_zoo]["params"]),
            )
            for pair in pairs
        ],
        "trained_on_conjunction": [
            trained.Lesson(pair.split.name, quadrants.reference_groups(pair.split)) for pair in taught
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
    taught = [pair for pair in plan.pairs if pair.has_reference]
    lessons = _lessons(plan.pairs, taught, zoos)
    made: dict[int, dict[str, Params]] = {pair.number: {} for pair in plan.pairs}
    validation = of.settings.zoo.validation_images
    wanted = methods.chosen(methods.BASELINES, settings.methods)

    for name, loss in (("distilled", squared_error), ("trained_on_conjunction", cross_entropy)):
        pairs = plan.pairs if name == "distilled" else taught
        if not pairs or name not in wanted:
            continue
        each = [zoo.capped(lesson.groups, training) for lesson in lessons[name]]
        longest = max(each, key=lambda one: one.images_per_epoch)  # of pairs that are trained together
        key = {
            "config": keys.of_values(
                [
                    [of.settings.seed, of.settings.model, of.settings.data.image_size, longest, validation],
                    stages.without_pace(settings, "methods", "random_networks", "random_bias"),
                ]
            ),
            "images": keys.of_values([plan.digest, [lesson.groups.key for lesson in lessons[name]]]),
            "arithmetic": population.arithmetic(of.network, of.settings.data.image_size, loss),
            "code": keys.of_source(*CODE["baselines"]),
            **(of.stages.inputs("zoo") if name == "distilled" else {}),
        }

        def work(
            saver: Saver, progress: Progress, name: str = name, training: Training = longest
        ) -> dict[str, Any]:
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
