"""The evidence of a run: every method measured on every pair, written as its results."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from kernelgan import attempts as attempts_lib
from kernelgan import config as config_lib
from kernelgan import (
    environment,
    fields,
    generation,
    interop,
    keys,
    models,
    report,
    results,
    stages,
    weights,
)
from kernelgan import workdir as workdir_lib
from kernelgan.baselines import methods, nulls
from kernelgan.baselines.context import Context
from kernelgan.baselines.once import Once
from kernelgan.config import Settings
from kernelgan.data import leakage, quadrants, sources
from kernelgan.evaluation.features import ConvNets
from kernelgan.generators import placebo
from kernelgan.plan import PairTask, Plan
from kernelgan.progress import Progress
from kernelgan.stages import CODE, Run, Zoos, pair_key
from kernelgan.types import Params, UserError

if TYPE_CHECKING:
    from kernelgan.evaluation import measurement

Row = TypeVar("Row")

_SHOWN_KERNELS = 4
_METHODS = 4  # of a pair at a time, at most: their networks are in memory together
_WITHOUT_STAGE = ("null", "merge")
"""Kinds of methods whose networks are made as they are measured."""
KEPT = 16
"""Most networks of such a method that are kept for export."""


@dataclasses.dataclass(frozen=True)
class Networks:
    """All that is evaluated.

    Attributes:
      zoos: the parents.
      fitted: by generator, for the histories of its trainings.
      trained: by pair number, networks trained by gradient.
      halves: the zoos at half width.
      generated: by generator, for each pair the networks by row.
      made: by generator, how.
      placebos: by generator, for each pair, by row and placebo.
    """

    zoos: Zoos
    fitted: dict[str, generation.Trained]
    trained: dict[int, dict[str, Params]]
    halves: Zoos
    generated: dict[str, list[dict[str, Params]]]
    made: dict[str, generation.Made]
    placebos: dict[str, list[dict[str, dict[str, Params]]]]


def rehearse(settings: Settings) -> None:
    """Tries, before hours of training, what only the end of a run needs: UMAP and figures.

    Raises:
      UserError: something is not installed as it should be.
    """
    from kernelgan.report import drawing

    try:
        if settings.evaluate.umap_networks:
            from kernelgan.evaluation import clustering

            clustering.imported_umap()
        drawing.png(drawing.trial)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the evaluation and the report of this run would fail here ({type(error).__name__}: {error}). "
            "Install the packages again: pip install -r requirements.txt."
        ) from error


def compile_ahead(settings: Settings) -> None:
    """Has numba compile what a run needs on a CPU, in another thread; it is read where it was kept before.

    A minute of work where nothing is kept, in the time of images being rendered and networks trained.
    """
    from kernelgan.evaluation import clustering, loops
    from kernelgan.ops import cpu

    work: list[Callable[[], object]] = [loops.compile_all]
    if settings.evaluate.umap_networks:
        points = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
        work.append(lambda: clustering.umap_plane(points, seed=0, neighbours=2))
    if jax.default_backend() == "cpu" and cpu.is_available():
        from kernelgan.ops.cpu import operation, volume_operation

        # Those that are needed first.
        work[:0] = [operation.register, volume_operation.register, operation.register_mixtures]

    def run() -> None:
        with contextlib.suppress(Exception):  # what fails here fails again where it is needed
            for one in work:
                one()

    threading.Thread(target=run, daemon=True).start()  # the process may end meanwhile


def evaluate(of: Run, plan: Plan, networks: Networks) -> None:
    """Measures every method on every pair and writes the results."""
    from kernelgan.evaluation import comparison, verdict  # scipy and sklearn: a second of a start
    from kernelgan.evaluation.pairs import evaluate_pairs

    _check_digests(of, plan, networks)
    behind = _behind(of, plan)
    attempts = _register(of, networks, {})
    every = methods.table(_generated_rows(of, networks))
    rows = methods.chosen(every, of.settings.baselines.methods)
    pairs: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    with of.stages.timed("evaluate") as progress:
        work = functools.partial(_measured, of, plan, networks, behind, rows, Once(), progress)
        evaluated = evaluate_pairs(work, plan.pairs, progress=progress, methods=rows)
        for pair, (record, found) in zip(plan.pairs, evaluated, strict=True):
            pairs.append(record)
            found |= _histories(pair, networks) | _shown_kernels(of, pair, networks)
            arrays |= {f"{'_'.join(pair.names)}/{name}": value for name, value in found.items()}
        first = plan.pairs[0].split
        arrays["contact_sheet"], *shown = sources.contact_sheet(of.settings, plan.source, first)
        comparison.adjust(pairs, attempts)
        overall = _overall(of, pairs, attempts)

    labels = dict(zip(("rows", "columns"), map(list, shown), strict=True))
    document = _document(of, plan, networks.zoos, attempts, labels) | {"pairs": pairs, "overall": overall}
    left_out = [method for name, method in every.items() if name not in rows]
    run = verdict.judged(results.from_document(document), left_out)
    for name in (workdir_lib.RECIPE_FILE, report.REPORT_FILE):  # of the last results
        (of.stages.workdir / name).unlink(missing_ok=True)
    results.write_results(of.stages.workdir, run, arrays)
    _register(of, networks, _figures(run))


def _overall(of: Run, pairs: list[dict[str, Any]], attempts: dict[str, int]) -> dict[str, Any] | None:
    """The record over all pairs; of pairs with different figures of merit there is none."""
    from kernelgan.evaluation import comparison, measurement

    merits = {measurement.merit_of(next(iter(pair["methods"].values()))) for pair in pairs}
    if len(merits) > 1:
        return None
    drawn = {"resamples": of.settings.evaluate.bootstrap, "seed": of.settings.seed}
    return comparison.overall(pairs, merit=merits.pop(), attempts=attempts, **drawn)


def _document(
    of: Run, plan: Plan, zoos: Zoos, attempts: dict[str, int], contact_sheet: dict[str, list[str]]
) -> dict[str, Any]:
    """The results without what was measured: how, when and from what."""
    checkout = environment.checkout()
    return {
        "name": of.settings.name,
        "config": config_lib.to_json(of.settings),
        "versions": environment.versions(),
        "seed": of.settings.seed,
        "device": environment.device_words(),
        "command": of.command,
        "commit": checkout.commit,
        "clean": checkout.clean,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "attempts": attempts,
        "data": {
            "source": plan.source.name,
            "notes": [*plan.source.notes, *stages.notes(of)],
            "parents": stages.weaknesses(plan.zoos, zoos),
            "splits": plan.splits,
            "contact_sheet": contact_sheet,
        },
        "timings": _timings(of),
        "skipped": [
            dict(zip(("attribute", "object", "reason"), skipped, strict=True)) for skipped in plan.skipped
        ],
    }


def _timings(of: Run) -> dict[str, float]:
    """Seconds by stage, without those of generators that an earlier attempt had and this run has not."""
    names = {"", *(loaded.name for loaded in of.generators)}
    kept = workdir_lib.timings(of.stages.workdir)
    return {stage: seconds for stage, seconds in kept.items() if stage.partition("/")[2] in names}


def _measured(
    of: Run,
    plan: Plan,
    networks: Networks,
    behind: dict[str, list[leakage.Behind]],
    rows: dict[str, methods.Method],
    fits: Once,
    shown: Progress,
    pair: PairTask,
    progress: Callable[[int], None],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record of one pair, and its arrays; `shown` names the method at work."""
    from kernelgan.evaluation import comparison
    from kernelgan.evaluation.pairs import evaluate_pair

    at_work = [f"{pair.split.name}: {name}" if len(plan.pairs) > 1 else name for name in rows] + [""]

    def counted(done: int) -> None:
        shown.doing = at_work[done]
        progress(done)

    directory = of.stages.workdir / workdir_lib.EVALUATION / "_".join(pair.names)
    record, arrays = evaluate_pair(
        _context(of, plan, pair, networks, fits),
        plan.source.test.images[pair.scored],
        pair.split.test[pair.scored],
        _evaluation_settings(of, plan),
        directory=directory,
        keys=functools.partial(_measurement_key, of, plan, pair, rows),
        progress=counted,
        methods={
            name: _exportable(method, directory / f"{name}.safetensors") for name, method in rows.items()
        },
        at_once=_methods_at_once(plan),
    )
    digests = workdir_lib.read_networks(of.stages.workdir).get(pair.split.name, {})
    for name, row in record["methods"].items():
        made = networks.made.get(row.get("family", "")) if row["kind"] == "generated" else None
        if made:
            row |= {"images": made.images, "steps": made.steps, "digest": digests.get(name, "")}
            row["trainings"] = _by_training(arrays[f"worst/{name}"], row, made)
            if row["family"] in behind:
                row["behind"] = dataclasses.asdict(behind[row["family"]][pair.number])
    comparison.add_trainings(record)
    data = {
        "source": plan.source.name,
        "train": quadrants.counts(pair.split.train),
        "validation": quadrants.counts(pair.split.validation),
        "test": quadrants.counts(pair.split.test),
        **dataclasses.asdict(pair.leakage),
    }
    zoos = _zoo_record(networks.zoos[pair.attribute_zoo], networks.zoos[pair.object_zoo])
    names = dict(zip(("attribute", "object"), pair.names, strict=True))
    of_splits = {"fold": pair.fold or None, "sealed": pair.sealed}
    return {"pair": names, "data": data, **record, "zoo": zoos, **of_splits}, arrays


def _behind(of: Run, plan: Plan) -> dict[str, list[leakage.Behind]]:
    """By generator, what is behind its networks of each pair; nothing where a zoo was trained elsewhere."""
    if of.settings.zoo.attribute_file or of.settings.zoo.object_file:
        return {}
    return {
        loaded.name: plan.behind(generation.folds_of(plan, loaded), probes=loaded.generator.reads == "U")
        for loaded in of.generators
    }


def _by_training(worst: np.ndarray, row: dict[str, Any], made: generation.Made) -> list[float]:
    """The figure of merit of each training's networks ``(M,)``; of all where equal networks were left out."""
    if not made.steps:
        return []
    count = made.trainings if row.get("made") is None else 1
    return worst.reshape(count, -1).mean(axis=1).tolist()


def _exportable(method: methods.Method, file: Path) -> methods.Method:
    """The method; of a baseline without a stage of its own, networks are kept for `kernelgan.export`."""
    if method.kind not in _WITHOUT_STAGE:
        return method

    def networks(context: Context) -> methods.Networks | None:
        made = method.networks(context)
        if made is not None and len(made) == 1 and isinstance(made[0], ConvNets):
            first = jax.tree.map(lambda leaf: leaf[:KEPT], made[0].params)
            weights.write_arrays(file, interop.to_torch(first))
        return made

    return dataclasses.replace(method, networks=networks)


def _register(of: Run, networks: Networks, figures: dict[str, float]) -> dict[str, int]:
    """Registers what is scored, before it is and after; by family the attempts, none without a registry."""
    if not of.settings.registry:
        return {}
    digests = {
        family: keys.of_arrays({str(n): rows for n, rows in enumerate(by_pair)})[:16]
        for family, by_pair in networks.generated.items()
    }
    path = Path(of.settings.registry).expanduser()
    return attempts_lib.register(path, of.settings.name, digests, figures)


def _figures(run: results.Run) -> dict[str, float]:
    """By family, the mean figure of merit of its best row, on the only pair or over all."""
    record = run.record
    rows = reversed(record.ranked()) if record else ()
    return {row.family: record.figure(row.name).mean for row in rows if record and row.kind == "generated"}


def _check_digests(of: Run, plan: Plan, networks: Networks) -> None:
    """Refuses networks that are not those whose digests were kept before the test images were scored."""
    kept = workdir_lib.read_networks(of.stages.workdir)
    for pair in plan.pairs:
        for row, params in _rows_of(networks.generated, pair).items():
            if kept.get(pair.split.name, {}).get(row) != keys.of_arrays(params):
                raise UserError(
                    f"{of.stages.workdir / workdir_lib.NETWORKS_FILE} has another digest for the networks "
                    f"{row} of {pair.split.name} than they have now. Delete it and run again; it resumes."
                )


def _generated_rows(of: Run, networks: Networks) -> dict[str, methods.Method]:
    rows: dict[str, methods.Method] = {}
    for loaded in of.generators:
        made = networks.generated[loaded.name][0]
        own = [row.removeprefix(loaded.name).removeprefix("_") for row in made]
        made_rows = methods.generated_rows(loaded.name, own, networks.made[loaded.name].tier, loaded.module)
        twice = sorted(rows.keys() & made_rows.keys())
        if twice:
            raise UserError(f"two generators give rows called {', '.join(twice)}; rename a file or a key.")
        rows |= made_rows
    return rows


def _context(of: Run, plan: Plan, pair: PairTask, networks: Networks, fits: Once) -> Context:
    """What the methods of a pair are made from."""
    attribute, objects = pair.attribute_zoo, pair.object_zoo
    return Context(
        network=of.network,
        image_size=of.settings.data.image_size,
        attribute=networks.zoos[attribute]["params"],
        objects=networks.zoos[objects]["params"],
        generated=_rows_of(networks.generated, pair),
        trained=networks.trained[pair.number],
        half_width=(
            (of.half_network, networks.halves[attribute]["params"], networks.halves[objects]["params"])
            if networks.halves
            else None
        ),
        images=plan.source.train.images,
        seen=quadrants.distilled_groups(pair.split),
        attribute_images=plan.zoos[attribute].groups,
        object_images=plan.zoos[objects].groups,
        random_networks=of.settings.baselines.random_networks,
        random_bias=of.settings.baselines.random_bias,
        seed=of.settings.seed,
        key=pair_key(of, pair.split.name),
        placebos=_rows_of(networks.placebos, pair),
        stand_ins={
            f"{side}_{placebo.OTHER}": f"the parents of {plan.zoos[number].concept}"
            for side, number in generation.other_zoos(plan, pair).items()
        },
        names=pair.names,
        ruled=pair.names[0] in plan.source.ruled,
        fits=fits,
    )


def _rows_of(by_generator: dict[str, list[dict[str, Row]]], pair: PairTask) -> dict[str, Row]:
    """What all generators have of a pair, by row."""
    return {row: of_row for by_pair in by_generator.values() for row, of_row in by_pair[pair.number].items()}


def _measurement_key(
    of: Run, plan: Plan, pair: PairTask, rows: dict[str, methods.Method], row: str
) -> keys.StageKey:
    """What the measurements of a row are made from."""
    settings, method = of.settings, rows[row]
    drawn = [settings.baselines.random_networks, settings.baselines.random_bias]
    config = [settings.seed, settings.evaluate, drawn, list(of.network.filters), pair.names]
    config.append(pair.names[0] in plan.source.ruled)
    words = [method.kind, method.label, method.description, method.family, method.tier]
    read = [quadrants.distilled_groups(pair.split).key]
    read += [plan.zoos[number].groups.key for number in (pair.attribute_zoo, pair.object_zoo)]
    return keys.StageKey(
        {
            "config": keys.of_values(config),
            "row": keys.of_values(words),
            "images": keys.of_values([plan.digest, read, keys.of_arrays({"test": pair.split.test})]),
            "arithmetic": models.arithmetic(of.network.form),
            "code": keys.of_source(*CODE["evaluate"]),
            **of.stages.inputs("zoo", *method.inputs),
        }
    )


def _methods_at_once(plan: Plan) -> int:
    """Of a pair: of one on each core that the pairs leave idle."""
    return min(_METHODS, max(1, environment.cores() // len(plan.pairs)))


def _evaluation_settings(of: Run, plan: Plan) -> measurement.Settings:
    from kernelgan.evaluation import features, measurement

    calls = min(environment.cores(), len(plan.pairs)) * _methods_at_once(plan)
    fitting = features.networks_at_once(of.network, plan.source.test.images, calls=calls)
    return measurement.Settings(
        **fields.plain(of.settings.evaluate),
        chunk_size=of.settings.zoo.chunk_size or fitting,
        seed=of.settings.seed,
    )


def _zoo_record(attribute: dict[str, Any], objects: dict[str, Any]) -> dict[str, Any]:
    """How well a pair's parents know their concepts, on validation images."""
    from kernelgan.evaluation import bootstrap

    return {
        kind: {
            figure: bootstrap.summary(one["history"][f"validation_{figure}"][:, -1])
            for figure in ("balanced_accuracy", "auroc")
        }
        for kind, one in (("attribute", attribute), ("object", objects))
        if "validation_auroc" in one["history"]
    }


def _histories(pair: PairTask, networks: Networks) -> dict[str, np.ndarray]:
    """The curves of every training behind a pair; of a generator, of its first."""
    curves = {
        f"history/zoo_{kind}/{name}": values
        for kind, number in (("attribute", pair.attribute_zoo), ("object", pair.object_zoo))
        for name, values in networks.zoos[number]["history"].items()
    }
    for family, trained in networks.fitted.items():
        for path, values in jax.tree_util.tree_leaves_with_path(trained[0].history):
            name = "/".join(str(part.key) for part in path)
            curves[f"history/{family}/{name}"] = values[pair.number]
    return curves


def _shown_kernels(of: Run, pair: PairTask, networks: Networks) -> dict[str, np.ndarray]:
    """Kernels of the first parents, of the first networks of each generator, and random kernels."""
    populations = {
        "attribute_parent": networks.zoos[pair.attribute_zoo]["params"],
        "object_parent": networks.zoos[pair.object_zoo]["params"],
    }
    populations |= _rows_of(networks.generated, pair)
    random = jax.random.split(pair_key(of, pair.split.name), _SHOWN_KERNELS)
    populations["random"] = nulls.initialise(of.network, of.settings.data.image_size, random)
    return {
        f"kernels/{layer}/{role}": np.asarray(params[layer]["kernel"][:_SHOWN_KERNELS])
        for layer in models.layer_names(of.network.filters)
        for role, params in populations.items()
    }
