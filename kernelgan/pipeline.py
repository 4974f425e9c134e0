"""The order of the stages; what is done is not done again, what was cut off goes on where it was."""

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

from kernelgan import assemble, cluster, environment, kernels, models, report, results, zoo
from kernelgan import config as config_lib
from kernelgan import workdir as workdir_lib
from kernelgan.baselines import trained as trained_lib
from kernelgan.checkpoint import StageCheckpoint
from kernelgan.data import quadrants, sources
from kernelgan.engine import Training
from kernelgan.generators import cyclegan
from kernelgan.plan import PairTask, Plan, make_plan, zoo_training
from kernelgan.progress import WIDTH, Progress
from kernelgan.types import Config, Params

if TYPE_CHECKING:
    from kernelgan.baselines.methods import Context
    from kernelgan.baselines.readouts import Fits

_SHOWN_KERNELS = 4
_BYTES_A_PARAMETER = 4
_ADAM_COPIES = 3  # the weights and two moments
_ROWS_OF_PARENTS = 12  # methods with a network for each parent, whose answers are kept
_DISK_MARGIN = 50 * 2**20

Work = Callable[[StageCheckpoint, Progress], dict[str, Any]]


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
    with workdir_lib.claimed(workdir, config):
        if results.is_complete(workdir):
            print(
                f"{config.name}: finished before, nothing was run; work directory {workdir}", file=sys.stderr
            )
            return report.show(workdir)
        environment.select_device(config.device)
        return _Run(config, workdir, command).until(stage)


class _Run:
    """One run; each stage gives what later ones need, from the checkpoint if it is there."""

    def __init__(self, config: Config, workdir: Path, command: str) -> None:
        self.config = config
        self.workdir = workdir
        self.command = command
        self.network = models.ConvNet(tuple(config.model.filters), config.model.kernel_size)
        self.half_network = self.network.clone(filters=tuple(max(1, n // 2) for n in self.network.filters))
        self.layers = models.layer_names(config.model.filters)

    def until(self, stage: str) -> Path | None:
        """Runs the stages up to this one."""
        print(
            f"{self.config.name}: {environment.device_words()}; work directory {self.workdir}",
            file=sys.stderr,
        )
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
        halves = self.half_width(plan)
        cluster.dismiss()  # what is left is the first process's
        if stage == "opponents":
            return None
        generated = self.generated(plan, zoos, translators)
        if stage == "generate":
            return None
        self.evaluate(plan, zoos, translators, trained, halves, generated)
        if stage == "evaluate":
            return None
        (self.workdir / report.REPORT_FILE).unlink(missing_ok=True)  # of an earlier evaluation
        return report.show(self.workdir)

    # -- data ---------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Loads the images and works out what to do with them; see `make_plan`."""
        with self._stage("data") as progress:
            source = sources.load_source(self.config, progress)
            plan = make_plan(self.config, source)
            workdir_lib.check_disk(self.workdir, self._bytes_needed(plan))
            workdir_lib.check_images(self.workdir, plan.digest)
        for note in source.notes:
            print(f"{'':{WIDTH}s} {note}", file=sys.stderr)
        for line in plan.words():
            print(f"{'':{WIDTH}s} {line}", file=sys.stderr)
        return plan

    def _bytes_needed(self, plan: Plan) -> int:
        key = jax.random.key(0)
        shapes = jax.eval_shape(
            lambda: models.initialise_convnet(self.network, self.config.data.image_size, key)
        )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        networks = sum(task.models for task in plan.zoos) + len(plan.zoos) * self.config.opponents.models
        derived = len(plan.pairs) * (
            sum(config_lib.zoo_models(self.config)) + 2 * self.config.opponents.models
        )
        weights = parameters * (networks * (1 + 2 * (1 + _ADAM_COPIES)) + derived)
        answers = sum(int((pair.split.test != quadrants.LEFT_OUT).sum()) for pair in plan.pairs) * (
            _ROWS_OF_PARENTS * max(config_lib.zoo_models(self.config))
            + 2 * self.config.evaluate.random_networks
        )
        return _BYTES_A_PARAMETER * (weights + answers) + _DISK_MARGIN

    # -- training -----------------------------------------------------------------------------------------

    def zoos(self, plan: Plan) -> list[dict[str, Any]]:
        """``{"params", "history"}`` of each zoo."""
        self._remember(plan)
        return self._trained_zoos(plan, plan.zoos, self.network, "zoo", "zoo")

    def half_width(self, plan: Plan) -> list[dict[str, Any]]:
        """The same at half width, as many networks of each zoo as there are of an opponent."""
        tasks = [dataclasses.replace(task, models=self.config.opponents.models) for task in plan.zoos]
        return self._trained_zoos(plan, tasks, self.half_network, "half_width", "opponents")

    def _parts(self, plan: Plan, name: str) -> list[tuple[str, Training, list[int]]]:
        """Zoos with equally large epochs are trained together: the checkpoint, and the zoos' numbers."""
        parts: dict[Training, list[int]] = {}
        for number, task in enumerate(plan.zoos):
            parts.setdefault(zoo_training(self.config, task.kind), []).append(number)
        return [
            (name if len(parts) == 1 else f"{name}-{part}", training, members)
            for part, (training, members) in enumerate(parts.items())
        ]

    def _trained_zoos(
        self, plan: Plan, tasks: Sequence[zoo.ZooTask], network: models.ConvNet, name: str, stage: str
    ) -> list[dict[str, Any]]:
        trained: dict[int, dict[str, Any]] = {}
        for checkpoint, training, members in self._parts(plan, name):
            chosen = [tasks[number] for number in members]
            work = functools.partial(self._train_zoos, plan, chosen, training, network)
            found = self._once(checkpoint, work, stage=stage)
            trained |= {number: found[f"{place:04d}"] for place, number in enumerate(members)}
        return [trained[number] for number in range(len(tasks))]

    def _remember(self, plan: Plan) -> None:
        """Keeps which zoo and which pair is which, for `interop`; the zoos of a part share a checkpoint."""
        kept = {
            number: (checkpoint, f"{place:04d}")
            for checkpoint, _, members in self._parts(plan, "zoo")
            for place, number in enumerate(members)
        }
        zoos = [
            {
                "kind": task.kind,
                "concept": task.concept,
                "excluded": task.excluded,
                "checkpoint": kept[number],
            }
            for number, task in enumerate(plan.zoos)
        ]
        pairs = [
            {
                "attribute": p.split.attribute,
                "object": p.split.object_name,
                "attribute_zoo": p.attribute_zoo,
                "object_zoo": p.object_zoo,
                "has_ceiling": p.has_ceiling,
            }
            for p in plan.pairs
        ]
        workdir_lib.write_plan(self.workdir, {"layers": self.layers, "zoos": zoos, "pairs": pairs})

    def _train_zoos(
        self,
        plan: Plan,
        tasks: list[zoo.ZooTask],
        training: Training,
        network: models.ConvNet,
        saver: StageCheckpoint,
        progress: Progress,
    ) -> dict[str, Any]:
        config = self.config
        found = zoo.train_zoos(
            network,
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
        training = Training(
            epochs=settings.epochs,
            images_per_epoch=settings.images_per_epoch,
            batch_size=config.zoo.batch_size,
            learning_rate=settings.learning_rate,
            shares=(),
            decay=config.zoo.decay,
        )
        distilled = [
            trained_lib.Lesson(
                p.split.name,
                quadrants.distilled_groups(p.split),
                (zoos[p.attribute_zoo]["params"], zoos[p.object_zoo]["params"]),
            )
            for p in plan.pairs
        ]
        taught = [p for p in plan.pairs if p.has_ceiling]
        ceiling = [trained_lib.Lesson(p.split.name, quadrants.ceiling_groups(p.split)) for p in taught]
        found: dict[str, dict[str, Params]] = {str(p.number): {} for p in plan.pairs}
        train_distilled = functools.partial(
            trained_lib.train_distilled, validation_images=config.zoo.validation_images
        )
        for name, train, lessons, pairs in (
            ("distilled", train_distilled, distilled, plan.pairs),
            ("trained_on_conjunction", trained_lib.train_on_conjunction, ceiling, taught),
        ):
            if not lessons:
                continue

            def work(
                saver: StageCheckpoint,
                progress: Progress,
                train: Callable[..., trained_lib.Trained] = train,
                lessons: list[trained_lib.Lesson] = lessons,
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
        halves: list[dict[str, Any]],
        generated: dict[str, dict[str, Params]],
    ) -> None:
        """Measures every method on every pair and writes the results."""
        from kernelgan.baselines import readouts
        from kernelgan.evaluate import comparison, evaluation  # scipy and sklearn: a second of a start

        pairs: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        with self._stage("evaluate") as progress:
            fits = readouts.Fits()

            def work(
                pair: PairTask, measured: Callable[[int], None]
            ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
                context = self._context(plan, pair, zoos, trained, halves, generated, fits)
                return self._evaluate_pair(plan, pair, context, measured)

            evaluated = evaluation.evaluate_pairs(work, plan.pairs, progress=progress)
            for pair, (record, found) in zip(plan.pairs, evaluated, strict=True):
                record["zoo"] = self._zoo_record(zoos[pair.attribute_zoo], zoos[pair.object_zoo])
                pairs.append(record)
                prefix = results.pair_key(record)
                found |= self._histories(pair, zoos, translators)
                found |= self._shown_kernels(pair, zoos, generated)
                arrays |= {f"{prefix}/{name}": value for name, value in found.items()}
            sheet, rows, columns = sources.contact_sheet(self.config, plan.source, plan.pairs[0].split)
            comparison.adjust(pairs)
            merits = {evaluation.merit_of(pair["methods"][comparison.FLOOR]) for pair in pairs}
            overall = None  # of pairs with different figures of merit there is no mean
            if len(merits) == 1:
                overall = comparison.overall(
                    pairs,
                    merit=merits.pop(),
                    resamples=self.config.evaluate.bootstrap,
                    seed=self.config.seed,
                )
        arrays["contact_sheet"] = sheet
        document = {
            "name": self.config.name,
            "config": config_lib.to_json(self.config),
            "versions": environment.versions(),
            "seed": self.config.seed,
            "device": environment.device_words(),
            "command": self.command,
            "data": {
                "source": plan.source.name,
                "notes": list(plan.source.notes),
                "contact_sheet": {"rows": list(rows), "columns": list(columns)},
            },
            "timings": workdir_lib.timings(self.workdir),
            "pairs": pairs,
            "skipped": [
                {"attribute": attribute, "object": thing, "reason": reason}
                for attribute, thing, reason in plan.skipped
            ],
            "overall": overall,
        }
        results.write_results(self.workdir, document, arrays)

    def _context(
        self,
        plan: Plan,
        pair: PairTask,
        zoos: list[dict[str, Any]],
        trained: dict[str, dict[str, Params]],
        halves: list[dict[str, Any]],
        generated: dict[str, dict[str, Params]],
        fits: Fits,
    ) -> Context:
        """What the methods of a pair are made from."""
        from kernelgan.baselines.methods import Context

        config, split = self.config, pair.split
        stream = jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(b"random networks"))
        attribute, objects = pair.attribute_zoo, pair.object_zoo
        return Context(
            network=self.network,
            image_size=config.data.image_size,
            attribute=zoos[attribute]["params"],
            objects=zoos[objects]["params"],
            generated=generated[str(pair.number)],
            opponents=trained[str(pair.number)],
            half_width=(self.half_network, halves[attribute]["params"], halves[objects]["params"]),
            images=plan.source.train.images,
            seen=quadrants.distilled_groups(split),
            attribute_images=plan.zoos[attribute].groups,
            object_images=plan.zoos[objects].groups,
            fits=fits,
            random_networks=config.evaluate.random_networks,
            bias=config.assemble.bias,
            seed=config.seed,
            key=jax.random.fold_in(stream, zlib.crc32(split.name.encode())),
        )

    def _evaluate_pair(
        self, plan: Plan, pair: PairTask, context: Context, progress: Callable[[int], None]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        from kernelgan.evaluate import evaluation

        config, split = self.config, pair.split
        test = np.flatnonzero(split.test != quadrants.LEFT_OUT)
        settings = evaluation.Settings(
            **{name: value for name, value in config.evaluate.items() if name != "random_networks"},
            chunk_size=config.zoo.chunk_size,
            seed=config.seed,
        )
        record, arrays = evaluation.evaluate_pair(
            context,
            plan.source.test.images[test],
            split.test[test],
            settings,
            directory=self.workdir / workdir_lib.EVALUATION / f"{split.attribute}_{split.object_name}",
            progress=progress,
        )
        of_data = {
            "source": plan.source.name,
            "train": quadrants.counts(split.train),
            "validation": quadrants.counts(split.validation),
            "test": quadrants.counts(split.test),
            **dataclasses.asdict(pair.leakage),
        }
        names = {"attribute": split.attribute, "object": split.object_name}
        return {"pair": names, "data": of_data, **record}, arrays

    @staticmethod
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
            self.workdir / workdir_lib.CHECKPOINTS / name, seconds=self.config.checkpoint.seconds
        )
        try:
            found = checkpoint.result()
            if found is not None:
                print(f"{name:{WIDTH}s} done before", file=sys.stderr)
                return found
            with self._stage(name, stage) as progress:
                found = jax.device_get(work(checkpoint, progress))
                checkpoint.finish(found)
            return found
        finally:
            checkpoint.close()

    def _stage(self, name: str, stage: str = "") -> contextlib.AbstractContextManager[Progress]:
        return workdir_lib.staged(self.workdir, name, stage)
