"""The order of the stages; what is done is not done again, what was cut off goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import platform
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import assemble, cyclegan, kernels, models, opponents, report, results, zoo
from kernelgan import config as config_lib
from kernelgan.checkpoint import StageCheckpoint
from kernelgan.config import Config
from kernelgan.data import folder, procedural, quadrants, tfds
from kernelgan.data.images import Source
from kernelgan.evaluate import bootstrap, evaluation
from kernelgan.evaluate.methods import METHODS, Context
from kernelgan.population import Training
from kernelgan.progress import Progress
from kernelgan.types import Params, UserError

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "scikit-learn",
    "umap-learn",
)
_SHEET_COLUMNS = 12
_SHOWN_IMAGES = 48
_SHOWN_KERNELS = 4
_BYTES_A_PARAMETER = 4
_ADAM_COPIES = 3  # the weights and two moments
_DISK_MARGIN = 50 * 2**20


Work = Callable[[StageCheckpoint, Progress], dict[str, Any]]
Evaluated = tuple[dict[str, Any], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class PairTask:
    """One pair: its split, and the numbers of the two zoos that serve it."""

    number: int
    split: quadrants.PairSplit
    attribute_zoo: int
    object_zoo: int
    has_ceiling: bool
    leakage: quadrants.LeakageReport


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that is known before anything trains."""

    source: Source
    zoos: tuple[zoo.ZooTask, ...]
    pairs: tuple[PairTask, ...]


def run(config: Config, workdir: Path, *, stage: str = "report", command: str = "") -> Path | None:
    """Runs an experiment, or what is missing of it.

    Args:
      config: see ``configs/default.py``.
      workdir: where everything is kept.
      stage: stop after this one.
      command: as the user gave it, for the report.

    Returns:
      The path of the report, or None if the run stopped before it.

    Raises:
      UserError: whatever the user can mend; nothing that was finished is lost.
    """
    config_lib.check(config)
    with _claimed(workdir, config):
        if (workdir / results.RESULTS_FILE).exists():
            return _show(workdir)
        _select_device(config)
        return _Run(config, workdir, command).until(stage)


class _Run:
    """One run; each stage gives what later ones need, from the checkpoint if it is there."""

    def __init__(self, config: Config, workdir: Path, command: str) -> None:
        self.config = config
        self.workdir = workdir
        self.command = command
        self.network = models.ConvNet(tuple(config.model.filters), config.model.kernel_size)
        self.layers = models.layer_names(config.model.filters)

    def until(self, stage: str) -> Path | None:
        """Runs the stages up to this one."""
        print(f"{self.config.name}: {_device_words()}; work directory {self.workdir}", file=sys.stderr)
        plan = self.plan()
        if stage == "data":
            return None
        zoos = self.zoos(plan)
        if stage == "zoo":
            return None
        translators = self.translators(plan, zoos)
        if stage == "cyclegan":
            return None
        trained = self.opponents(plan, zoos)
        if stage == "opponents":
            return None
        generated = self.generated(plan, zoos, translators)
        if stage == "generate":
            return None
        self.evaluate(plan, zoos, translators, trained, generated)
        return None if stage == "evaluate" else _show(self.workdir)

    # -- data ---------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Loads the images, splits them, and refuses leaks and whatever does not fit, before any work."""
        config, data = self.config, self.config.data
        with self._stage("data") as progress:
            source = _load_source(config, progress)
            limits = quadrants.Limits(
                data.minimum_train, data.minimum_test, data.maximum_train, data.maximum_test
            )
            part = quadrants.partition(
                source, validation_share=data.validation_share, limits=limits, seed=config.seed
            )
            self._check_same_images(part)
            splits = [
                quadrants.split(part, attribute, object_name)
                for attribute, object_name in itertools.product(config.pairs.attributes, config.pairs.objects)
            ]
            wanted = [task for split in splits for task in self._zoo_tasks(part, split)]
            zoos, served = zoo.shared(wanted)
            for task in zoos:
                zoo.check_fits(task, self._training(task.kind))
            ceilings = [quadrants.has_ceiling(part, split) for split in splits]
            leakage = quadrants.check_leakage(part, _readers(zoos, served, splits, ceilings))
            pairs = tuple(
                PairTask(
                    number,
                    split,
                    served[2 * number],
                    served[2 * number + 1],
                    ceilings[number],
                    leakage[split.attribute, split.object_name],
                )
                for number, split in enumerate(splits)
            )
            self._check_disk(zoos, pairs)
        counts = [f"{pair.split.name}: {quadrants.counts(pair.split.test)}" for pair in pairs]
        print("           test images of " + "; ".join(counts), file=sys.stderr)
        return Plan(source, tuple(zoos), pairs)

    def _zoo_tasks(self, part: quadrants.Partition, split: quadrants.PairSplit) -> list[zoo.ZooTask]:
        pairs = self.config.pairs
        shared = pairs.exclude == "all"
        objects = tuple(pairs.objects) if shared else (split.object_name,)
        attributes = tuple(pairs.attributes) if shared else (split.attribute,)
        of_attribute, of_object = config_lib.zoo_models(self.config)
        return [
            zoo.ZooTask(
                "attribute",
                split.attribute,
                objects,
                quadrants.attribute_groups(part, split.attribute, objects),
                of_attribute,
            ),
            zoo.ZooTask(
                "object",
                split.object_name,
                attributes,
                quadrants.object_groups(part, split.object_name, attributes),
                of_object,
            ),
        ]

    def _check_same_images(self, part: quadrants.Partition) -> None:
        """A resumed run must see the images that it started with."""
        digest = hashlib.sha256("".join((*part.train_hashes, *part.test_hashes)).encode()).hexdigest()
        file = self.workdir / "images.sha256"
        if file.exists() and file.read_text().strip() != digest:
            raise UserError(
                f"the images are not those that {self.workdir} was started with. Bring the old ones back, or "
                "give another --workdir."
            )
        results.write_atomically(file, f"{digest}\n".encode())

    def _check_disk(self, zoos: list[zoo.ZooTask], pairs: tuple[PairTask, ...]) -> None:
        key = jax.random.key(0)
        shapes = jax.eval_shape(
            lambda: models.initialise_convnet(self.network, self.config.data.image_size, key)
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        networks = sum(task.models for task in zoos)
        derived = len(pairs) * (sum(config_lib.zoo_models(self.config)) + 2 * self.config.opponents.models)
        needed = _BYTES_A_PARAMETER * parameters * (networks * (1 + 2 * (1 + _ADAM_COPIES)) + derived)
        needed += _DISK_MARGIN
        free = shutil.disk_usage(self.workdir).free
        if free < needed:
            raise UserError(
                f"the checkpoints of this run need about {needed / 2**20:.0f} MiB and the disk of "
                f"{self.workdir} has {free / 2**20:.0f} MiB free. Free some, or give another --workdir."
            )

    # -- training -----------------------------------------------------------------------------------------

    def _training(self, kind: str) -> Training:
        index = ("attribute", "object").index(kind)
        settings = self.config.zoo
        return Training(
            epochs=settings.epochs,
            images_per_epoch=config_lib.images_per_epoch(self.config)[index],
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            shares=(),
        )

    def zoos(self, plan: Plan) -> list[dict[str, Any]]:
        """``{"params", "history"}`` of each zoo; those with equally large epochs are trained together."""
        parts: dict[Training, list[int]] = {}
        for number, task in enumerate(plan.zoos):
            parts.setdefault(self._training(task.kind), []).append(number)
        trained: dict[int, dict[str, Any]] = {}
        for part, (training, members) in enumerate(parts.items()):
            tasks = [plan.zoos[number] for number in members]
            work = functools.partial(self._train_zoos, plan, tasks, training)
            found = self._once("zoo" if len(parts) == 1 else f"zoo-{part}", work, stage="zoo")
            trained |= {number: found[f"{place:04d}"] for place, number in enumerate(members)}
        return [trained[number] for number in range(len(plan.zoos))]

    def _train_zoos(
        self,
        plan: Plan,
        tasks: list[zoo.ZooTask],
        training: Training,
        saver: StageCheckpoint,
        progress: Progress,
    ) -> dict[str, Any]:
        config = self.config
        found = zoo.train_zoos(
            self.network,
            plan.source.train.images,
            tasks,
            training,
            balanced=config.zoo.balanced,
            validation_images=config.zoo.validation_images,
            seed=config.seed,
            chunk_size=config.zoo.chunk_size,
            saver=saver,
            progress=progress,
        )
        return {f"{number:04d}": one for number, one in enumerate(found)}

    def _normalisers(
        self, plan: Plan, zoos: list[dict[str, Any]]
    ) -> list[dict[str, tuple[kernels.Normaliser, kernels.Normaliser]]]:
        """For each pair and layer, the normalisers of its two zoos."""
        kind = self.config.kernels.normalisation
        fitted = [
            {
                layer: kernels.fit_normaliser(volumes, kind)
                for layer, volumes in kernels.extract(one["params"], self.layers).items()
            }
            for one in zoos
        ]
        return [
            {layer: (fitted[p.attribute_zoo][layer], fitted[p.object_zoo][layer]) for layer in self.layers}
            for p in plan.pairs
        ]

    def translators(self, plan: Plan, zoos: list[dict[str, Any]]) -> dict[str, Any]:
        """``{"generators": {layer: {direction: (P, ...)}}, "history": {layer: {loss: (P, S)}}}``."""
        return self._once("cyclegan", functools.partial(self._train_translators, plan, zoos))

    def _train_translators(
        self, plan: Plan, zoos: list[dict[str, Any]], saver: StageCheckpoint, progress: Progress
    ) -> dict[str, Any]:
        settings = self.config.cyclegan
        normalisers = self._normalisers(plan, zoos)
        sets = [kernels.extract(one["params"], self.layers) for one in zoos]
        volumes = {
            layer: (
                np.stack(
                    [normalisers[p.number][layer][0].apply(sets[p.attribute_zoo][layer]) for p in plan.pairs]
                ),
                np.stack(
                    [normalisers[p.number][layer][1].apply(sets[p.object_zoo][layer]) for p in plan.pairs]
                ),
            )
            for layer in self.layers
        }
        translations = {
            layer: cyclegan.Translation(*values)
            for layer, *values in zip(
                self.layers, settings.epochs, settings.batch_size, settings.learning_rate, strict=True
            )
        }
        generators, history = cyclegan.train(
            volumes,
            translations,
            pairs=tuple(zlib.crc32(p.split.name.encode()) & 0x7FFFFFFF for p in plan.pairs),
            hidden=settings.hidden,
            cycle=settings.cycle_weight,
            identity=settings.identity_weight,
            steps_per_call=settings.steps_per_call,
            seed=self.config.seed,
            saver=saver,
            progress=progress,
        )
        return {"generators": generators, "history": history}

    def opponents(self, plan: Plan, zoos: list[dict[str, Any]]) -> dict[str, dict[str, Params]]:
        """Per pair number, the networks trained by gradient; a ceiling that cannot be trained is missing."""
        settings, config = self.config.opponents, self.config
        training = dataclasses.replace(self._training("attribute"), epochs=settings.epochs)
        distilled = [
            opponents.Lesson(
                p.split.name,
                quadrants.distilled_groups(p.split),
                (zoos[p.attribute_zoo]["params"], zoos[p.object_zoo]["params"]),
            )
            for p in plan.pairs
        ]
        taught = [p for p in plan.pairs if p.has_ceiling]
        ceiling = [opponents.Lesson(p.split.name, quadrants.ceiling_groups(p.split)) for p in taught]
        found: dict[str, dict[str, Params]] = {str(p.number): {} for p in plan.pairs}
        for name, train, lessons, pairs in (
            ("distilled", opponents.train_distilled, distilled, plan.pairs),
            ("trained_on_conjunction", opponents.train_on_conjunction, ceiling, taught),
        ):
            if not lessons:
                continue

            def work(
                saver: StageCheckpoint,
                progress: Progress,
                train: Callable[..., opponents.Trained] = train,
                lessons: list[opponents.Lesson] = lessons,
            ) -> dict[str, Any]:
                trained = train(
                    self.network,
                    plan.source.train.images,
                    lessons,
                    training,
                    count=settings.models,
                    seed=config.seed,
                    chunk_size=config.zoo.chunk_size,
                    saver=saver,
                    progress=progress,
                )
                return {f"{n:04d}": {"params": params, "history": h} for n, (params, h) in enumerate(trained)}

            trained = self._once(name, work, stage="opponents")
            for place, pair in enumerate(pairs):
                found[str(pair.number)][name] = trained[f"{place:04d}"]["params"]
        return found

    # -- generation and evaluation ------------------------------------------------------------------------

    def generated(
        self, plan: Plan, zoos: list[dict[str, Any]], translators: dict[str, Any]
    ) -> dict[str, dict[str, Params]]:
        """Per pair number and direction, the generated networks."""
        normalisers = self._normalisers(plan, zoos)

        def work(saver: StageCheckpoint, progress: Progress) -> dict[str, Any]:
            del saver
            found: dict[str, Any] = {}
            for pair in plan.pairs:
                generators = assemble.take_members(translators["generators"], pair.number)
                found[str(pair.number)] = {
                    direction: assemble.generate(
                        direction,
                        zoos[pair.attribute_zoo]["params"],
                        zoos[pair.object_zoo]["params"],
                        generators,
                        normalisers[pair.number],
                        hidden=self.config.cyclegan.hidden,
                        bias=self.config.assemble.bias,
                    )
                    for direction in ("a2b", "b2a")
                }
                progress(pair.number + 1, len(plan.pairs))
            return found

        return self._once("generate", work)

    def evaluate(
        self,
        plan: Plan,
        zoos: list[dict[str, Any]],
        translators: dict[str, Any],
        trained: dict[str, dict[str, Params]],
        generated: dict[str, dict[str, Params]],
    ) -> None:
        """Measures every method on every pair and writes the results."""
        pairs, arrays = [], {}
        with self._stage("evaluate") as progress:
            total = len(plan.pairs) * len(METHODS)
            for pair in plan.pairs:
                record, found = self._evaluate_pair(
                    plan, pair, zoos, trained, generated, functools.partial(progress, total=total)
                )
                pairs.append(record)
                prefix = results.pair_key(record)
                found |= self._histories(pair, zoos, translators)
                found |= self._shown_kernels(pair, zoos, generated)
                arrays |= {f"{prefix}/{name}": value for name, value in found.items()}
            sheet, rows, columns = _contact_sheet(self.config, plan)
        arrays["contact_sheet"] = sheet
        document = {
            "name": self.config.name,
            "config": config_lib.to_json(self.config),
            "versions": _versions(),
            "seed": self.config.seed,
            "device": _device_words(),
            "command": self.command,
            "data": {
                "source": plan.source.name,
                "notes": list(plan.source.notes),
                "contact_sheet": {"rows": list(rows), "columns": list(columns)},
            },
            "timings": self._timings(),
            "pairs": pairs,
        }
        results.write_results(self.workdir, document, arrays)

    def _evaluate_pair(
        self,
        plan: Plan,
        pair: PairTask,
        zoos: list[dict[str, Any]],
        trained: dict[str, dict[str, Params]],
        generated: dict[str, dict[str, Params]],
        progress: Callable[[int], None],
    ) -> Evaluated:
        config, split = self.config, pair.split
        test = np.flatnonzero(split.test != quadrants.LEFT_OUT)
        images, quadrant = plan.source.test.images[test], split.test[test]
        attribute, objects = zoos[pair.attribute_zoo], zoos[pair.object_zoo]
        stream = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"random networks"))
        context = Context(
            network=self.network,
            image_size=config.data.image_size,
            attribute=attribute["params"],
            objects=objects["params"],
            generated=generated[str(pair.number)],
            opponents=trained[str(pair.number)],
            random_networks=config.evaluate.random_networks,
            bias=config.assemble.bias,
            key=jax.random.fold_in(stream, zlib.crc32(split.name.encode())),
        )
        settings = evaluation.Settings(
            **{name: value for name, value in config.evaluate.items() if name != "random_networks"},
            chunk_size=config.zoo.chunk_size,
            seed=config.seed,
        )
        records: dict[str, dict[str, Any]] = {}
        outcomes: dict[str, dict[str, np.ndarray]] = {}
        for place, (name, method) in enumerate(METHODS.items(), start=1):
            networks = method.networks(context)
            if networks is not None:
                file = self.workdir / "evaluation" / f"{split.attribute}_{split.object_name}" / f"{name}.npz"
                work = functools.partial(
                    evaluation.evaluate_method, name, networks, self.network, images, quadrant, settings
                )
                records[name], outcomes[name] = _evaluated(file, work)
            progress(pair.number * len(METHODS) + place)
        worst = {name: found["worst"] for name, found in outcomes.items()}
        for name, share in evaluation.recovered(records).items():
            records[name]["recovered"] = share
        for direction in ("a2b", "b2a"):
            name = f"cyclegan_{direction}"
            records[name]["novelty"] = evaluation.novelty(
                context.generated[direction],
                (context.attribute, context.objects),
                outcomes[name],
                [outcomes["attribute_only"], outcomes["object_only"]],
                quadrant,
            )
        record = {
            "pair": {"attribute": split.attribute, "object": split.object_name},
            "data": {
                "source": plan.source.name,
                "train": quadrants.counts(split.train),
                "validation": quadrants.counts(split.validation),
                "test": quadrants.counts(split.test),
                **dataclasses.asdict(pair.leakage),
            },
            "zoo": {
                kind: {
                    figure: bootstrap.summary(one["history"][f"validation_{figure}"][:, -1])
                    for figure in ("balanced_accuracy", "auroc")
                }
                for kind, one in (("attribute", attribute), ("object", objects))
                if "validation_auroc" in one["history"]
            },
            "methods": records,
            "null_test": evaluation.matched_null(worst, config.seed),
        }
        few = evaluation.embedded_images(quadrant, config.evaluate.umap_images)
        return record, _pictured(outcomes, images, quadrant) | {"embedding_quadrant": quadrant[few]}

    def _histories(
        self, pair: PairTask, zoos: list[dict[str, Any]], translators: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        found = {
            f"history/zoo_{kind}/{name}": values
            for kind, number in (("attribute", pair.attribute_zoo), ("object", pair.object_zoo))
            for name, values in zoos[number]["history"].items()
        }
        return found | {
            f"history/cyclegan/{layer}/{name}": values[pair.number]
            for layer, losses in translators["history"].items()
            for name, values in losses.items()
            if self.config.cyclegan.identity_weight or name != "identity"
        }

    def _shown_kernels(
        self, pair: PairTask, zoos: list[dict[str, Any]], generated: dict[str, dict[str, Params]]
    ) -> dict[str, np.ndarray]:
        populations = {
            "attribute_parent": zoos[pair.attribute_zoo]["params"],
            "object_parent": zoos[pair.object_zoo]["params"],
            **{f"cyclegan_{way}": params for way, params in generated[str(pair.number)].items()},
        }
        return {
            f"kernels/{layer}/{role}": params[layer]["kernel"][:_SHOWN_KERNELS]
            for layer in self.layers
            for role, params in populations.items()
        }

    # -- bookkeeping --------------------------------------------------------------------------------------

    def _once(self, name: str, work: Work, *, stage: str = "") -> dict[str, Any]:
        """The result of a stage: from its checkpoint, or worked out and kept."""
        checkpoint = StageCheckpoint(
            self.workdir / "checkpoints" / name, seconds=self.config.checkpoint.seconds
        )
        try:
            found = checkpoint.result()
            if found is not None:
                print(f"{name:10s} done before", file=sys.stderr)
                return found
            with self._stage(name, stage) as progress:
                found = jax.device_get(work(checkpoint, progress))
                checkpoint.finish(found)
            return found
        finally:
            checkpoint.close()

    @contextlib.contextmanager
    def _stage(self, name: str, stage: str = "") -> Iterator[Progress]:
        """Shows and times a stage; seconds of all attempts add up."""
        progress = Progress(name)
        outcome = "stopped"
        try:
            yield progress
            outcome = "done"
        finally:
            seconds = progress.close(outcome)
            timings = self._timings()
            timings[stage or name] = timings.get(stage or name, 0.0) + seconds
            results.write_atomically(self.workdir / "timings.json", json.dumps(timings).encode())

    def _timings(self) -> dict[str, float]:
        try:
            return json.loads((self.workdir / "timings.json").read_text())
        except (OSError, ValueError):
            return {}


def _readers(
    zoos: list[zoo.ZooTask], served: list[int], splits: list[quadrants.PairSplit], ceilings: list[bool]
) -> list[quadrants.Reader]:
    """Everyone who reads images, with the pairs whose conjunction they must not have seen."""
    readers = [
        quadrants.Reader(
            task.label,
            task.groups,
            tuple(splits[place // 2] for place, of in enumerate(served) if of == number),
        )
        for number, task in enumerate(zoos)
    ]
    for split, ceiling in zip(splits, ceilings, strict=True):
        readers.append(
            quadrants.Reader(f"distillation for {split.name}", quadrants.distilled_groups(split), (split,))
        )
        if ceiling:
            groups = quadrants.ceiling_groups(split)
            readers.append(
                quadrants.Reader(f"the ceiling of {split.name}", groups, (split,), is_ceiling=True)
            )
    return readers


def _load_source(config: Config, progress: Progress) -> Source:
    data, pairs = config.data, config.pairs
    concepts = {"attributes": tuple(pairs.attributes), "objects": tuple(pairs.objects)}
    if data.source == "procedural":
        return procedural.load(
            **concepts,
            train=data.procedural.train,
            test=data.procedural.test,
            image_size=data.image_size,
            seed=config.seed,
            progress=progress,
        )
    if data.source == "tfds":
        return tfds.load(
            data.tfds.name,
            data_dir=data.tfds.data_dir,
            **concepts,
            image_size=data.image_size,
            seed=config.seed,
            progress=progress,
        )
    return folder.load(
        data.folder,
        **concepts,
        image_size=data.image_size,
        broken_share=data.broken_share,
        progress=progress,
    )


def _contact_sheet(config: Config, plan: Plan) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """What the images look like: every object in every colour, or some test images of each quadrant."""
    if config.data.source == "procedural":
        return procedural.contact_sheet(config.seed, config.data.image_size)
    columns = tuple(str(column + 1) for column in range(_SHEET_COLUMNS))
    test = plan.source.test.images
    rows, names = [], []
    for pair in plan.pairs[:1]:
        for number, quadrant in enumerate((*quadrants.QUADRANTS, "rest")):
            found = np.flatnonzero(pair.split.test == number)
            if len(found):
                rows.append(test[np.resize(found, _SHEET_COLUMNS)])
                names.append(f"{pair.split.name}: {quadrant}")
    return np.stack(rows), tuple(names), columns


def _evaluated(file: Path, work: Callable[[], Evaluated]) -> Evaluated:
    """One method's record and arrays: read back if they were written whole, else worked out and written."""
    with contextlib.suppress(Exception), np.load(file) as saved:
        arrays = {name: saved[name] for name in saved.files if name != "record"}
        return json.loads(str(saved["record"])), arrays
    record, arrays = work()
    buffer = io.BytesIO()
    np.savez(buffer, record=np.array(json.dumps(record)), **arrays)
    file.parent.mkdir(parents=True, exist_ok=True)
    results.write_atomically(file, buffer.getvalue())
    return json.loads(json.dumps(record)), arrays


def _pictured(
    outcomes: dict[str, dict[str, np.ndarray]], images: np.ndarray, quadrant: np.ndarray
) -> dict[str, np.ndarray]:
    """What the report's figures need of a pair's evaluation."""
    present = np.unique(quadrant)
    each = -(-_SHOWN_IMAGES // len(present))
    shown = np.concatenate([np.flatnonzero(quadrant == number)[:each] for number in present])
    arrays = {"test_images": images[shown], "test_quadrant": quadrant[shown]}
    for name, found in outcomes.items():
        arrays[f"worst/{name}"] = found["worst"]
        arrays[f"cosine/{name}"] = found["cosine"]
        # 1/2 is where the network says yes: its threshold, on a probability scale.
        margin = found["scores"][0, shown] - found["threshold"]
        arrays[f"answers/{name}"] = (1 / (1 + np.exp(-margin))).astype(np.float32)
        for picture in ("embedding", "cluster"):
            if picture in found:
                arrays[f"{picture}/{name}"] = found[picture]
    return arrays


@contextlib.contextmanager
def _claimed(workdir: Path, config: Config) -> Iterator[None]:
    """Makes the work directory this config's and this process's, or refuses."""
    ours = config_lib.to_json(config)
    file = workdir / CONFIG_FILE
    try:
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir={workdir} is a file; expected a directory, or a name that is free.")
        if workdir.is_dir() and not file.exists() and any(p.name != LOCK_FILE for p in workdir.iterdir()):
            raise UserError(
                f"--workdir={workdir} holds files that are not of a kernelgan run; expected an empty or new "
                "directory. Give another --workdir."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written ({error.strerror}); expected a directory that can be. "
            "Give another --workdir."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another run is at work in {workdir}; wait for it, or give another --workdir."
            ) from None
        if file.exists():
            try:
                theirs = json.loads(file.read_text())
            except ValueError:
                raise UserError(f"{file} is damaged; give another --workdir, or delete {workdir}.") from None
            changed = config_lib.differences(ours, theirs)
            if changed:
                raise UserError(
                    f"{workdir} was made with another config:\n  "
                    + "\n  ".join(changed)
                    + "\nGive another --workdir, or the old values."
                )
        else:
            results.write_atomically(file, json.dumps(ours, indent=1).encode())
        yield


def _select_device(config: Config) -> None:
    """Chooses the device before JAX starts; where it has started already, it stays as it is."""
    if config.device != "auto":
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[config.device])
    try:
        platform_name = jax.devices()[0].platform
    except RuntimeError:
        platform_name = "none"
    if config.device != "auto" and platform_name != config.device:
        raise UserError(
            f"device is {config.device!r}, but JAX finds {platform_name!r} here. Expected a machine that has "
            "one; for a GPU install requirements-cuda12.txt, or set --config.device=auto."
        )


def _device_words() -> str:
    devices = jax.local_devices()
    count = f"{len(devices)} device" + ("s" if len(devices) > 1 else "")
    return f"{devices[0].device_kind} ({count})"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("kernelgan", *PACKAGES):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _show(workdir: Path) -> Path:
    """Prints a finished run's table and says where its report is, which is written if it is not there."""
    found = results.read_results(workdir)
    path = report.write_report(workdir)
    print(report.table(found))
    print(f"\nreport: {path}")
    return path
