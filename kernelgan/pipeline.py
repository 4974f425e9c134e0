"""The stages of a run, in order; what is done is not done again, what was cut off goes on where it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from kernelgan import config as config_lib
from kernelgan import (
    distributed,
    environment,
    evidence,
    files,
    generation,
    keys,
    models,
    report,
    results,
    stages,
    training,
)
from kernelgan import workdir as workdir_lib
from kernelgan.config import Settings
from kernelgan.data import sources
from kernelgan.generators import FAMILIES, loading
from kernelgan.plan import Plan, make_plan
from kernelgan.progress import STAGES, WIDTH
from kernelgan.stages import Run, Stages
from kernelgan.types import LEFT_OUT, Config, UserError

_BYTES_A_PARAMETER = 4
_ADAM_COPIES = 3  # the weights and two moments
_ROWS_OF_PARENTS = 12  # methods with a network for each parent, whose answers are kept
_DISK_MARGIN = 50 * 2**20


def run(
    config: Config,
    workdir: Path,
    *,
    stage: str = "report",
    command: str = "",
    generators: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Path | None:
    """Runs an experiment, or what is missing of it.

    Args:
      config: see ``configs/default.py``.
      workdir: where everything is kept.
      stage: one of `STAGES`; stop after it.
      command: as the user gave it, for the report.
      generators: beside those that the config names, paths of the user's own files or names of families.
      keep: stages whose results are used also if only code has changed since, see `stages.Stages`.

    Returns:
      The path of the report, or None if the run stopped before it, or on all processes but the first.

    Raises:
      UserError: whatever the user can mend; nothing that was finished is lost.
    """
    settings, network, loaded, recipe = distributed.everywhere(
        lambda: _loaded(config, generators),
        lambda loaded: keys.of_values([loaded[-1][0], list(keep)]),
        "configs, generators, --keep or code",
    )
    with contextlib.ExitStack() as stack:
        if distributed.first(lambda: not files.is_writable(workdir) and _is_finished(workdir, recipe)):
            return report.show(workdir, writes=False) if distributed.leave() else None
        distributed.first(lambda: stack.enter_context(workdir_lib.claimed(workdir, settings)))
        if distributed.first(lambda: _is_finished(workdir, recipe)):
            if not distributed.leave():
                return None
            print(
                f"{settings.name}: finished before, nothing was run; work directory {workdir}",
                file=sys.stderr,
            )
            return report.show(workdir)
        distributed.first(lambda: sources.check_files(settings))
        environment.select_device(settings.device)
        if stage in ("evaluate", "report"):
            distributed.first(lambda: evidence.rehearse(settings))
        distributed.first(lambda: stages.check_keep(workdir, keep))
        kept = Stages(workdir, seconds=settings.checkpoint.seconds, keep=keep)
        _until(stage, Run(settings, kept, loaded, network, command))
        if stage not in ("evaluate", "report") or not distributed.is_first():
            return None
        if kept.accepted:  # results of this code they are not: without --keep they are made
            (workdir / workdir_lib.RECIPE_FILE).unlink(missing_ok=True)
        else:
            files.write_atomically(workdir / workdir_lib.RECIPE_FILE, "\n".join(recipe).encode())
        return report.show(workdir) if stage == "report" else None


def _loaded(
    config: Config, generators: Sequence[str]
) -> tuple[Settings, models.ConvNet, tuple[loading.Loaded, ...], list[str]]:
    """The config checked, the parents' module, the generators, and what a finished run is made from."""
    settings = config_lib.parse(config)
    for note in config_lib.caps(config, settings):
        print(note, file=sys.stderr)
    environment.configure(settings.device)  # before a user's file can start JAX
    network = models.ConvNet(tuple(settings.model.filters), settings.model.kernel_size)
    loaded = loading.load(settings.generators, generators, network)
    for one in loaded:
        if one.name in FAMILIES and one.name not in settings.generators:  # of the flag
            for problem in config_lib.family_problems(settings, one.name, one.config):
                raise UserError(f"--generator={one.name}: {problem}.")
    return settings, network, loaded, _recipe(settings, loaded)


def _recipe(settings: Settings, generators: Sequence[loading.Loaded]) -> list[str]:
    """What a finished run's results are made from, without reading images.

    Returns:
      Digests of config and code, of the images' files, and of each zoo's file; "" where there are none.
    """
    fixed = stages.without_pace(settings, "device", "checkpoint", "registry")
    own = {loaded.name: [loaded.code, loading.settings_of(loaded)] for loaded in generators}
    zoos = (settings.zoo.attribute_file, settings.zoo.object_file)
    return [
        keys.of_values([fixed, own, keys.of_source("kernelgan")]),
        sources.fingerprint(settings),
        *(files.stamp(files.given_path(path, "zoo")) if path else "" for path in zoos),
    ]


def _is_finished(workdir: Path, recipe: list[str]) -> bool:
    """Whether the results are made from this; files that are no longer there do not matter."""
    file = workdir / workdir_lib.RECIPE_FILE
    if not all((workdir / name).exists() for name in (results.RESULTS_FILE, results.ARRAYS_FILE, file.name)):
        return False
    saved = file.read_text().split("\n")
    return len(saved) == len(recipe) and all(
        now in ("", then) for now, then in zip(recipe, saved, strict=True)
    )


def _until(stage: str, of: Run) -> None:
    """Works through the stages up to this one."""
    wanted = STAGES[: STAGES.index(stage) + 1]
    print(
        f"{of.settings.name}: {environment.device_words()}; work directory {of.stages.workdir}",
        file=sys.stderr,
    )
    # Numba imports while it compiles, in another thread.
    compiles, waits = "evaluate" in wanted, sources.SOURCES[of.settings.data.source].imports_alone
    if compiles and not waits:
        evidence.compile_ahead(of.settings)
    plan = load_plan(of)
    if compiles and waits:
        evidence.compile_ahead(of.settings)
    of = generation.rehearse(of, plan)
    if "zoo" in wanted:
        zoos = training.train_zoos(of, plan)
    if "fit" in wanted:
        fitted = generation.fit_generators(of, plan, zoos)
    if "baselines" in wanted:
        opponents = training.train_baselines(of, plan, zoos)
        halves = training.train_half_width(of, plan)
    if not distributed.leave():
        return
    if "generate" in wanted:
        generated, made = generation.generate(of, plan, zoos, fitted)
        placebos = generation.generate_placebos(of, plan, zoos, fitted, generated)
    if "evaluate" in wanted:
        networks = evidence.Networks(zoos, fitted, opponents, halves, generated, made, placebos)
        evidence.evaluate(of, plan, networks)


def load_plan(of: Run) -> Plan:
    """Loads the images and works out what to do with them; see `make_plan`."""
    with of.stages.timed("data") as progress:
        plan = distributed.everywhere(
            lambda: make_plan(of.settings, sources.load_source(of.settings, progress)),
            lambda plan: plan.digest,
        )
        for loaded in of.generators:
            generation.folds_of(plan, loaded)  # refuses a leak before anything trains
        distributed.first(lambda: workdir_lib.check_disk(of.stages.workdir, _bytes_needed(of, plan)))
    for line in (*plan.source.notes, *stages.notes_on_zoos(of.settings), *plan.words()):
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
    generated = derived * len(of.generators) * settings.trainings
    weights = parameters * (networks * (1 + 2 * (1 + _ADAM_COPIES)) + generated)
    answers = sum(int((pair.split.test != LEFT_OUT).sum()) for pair in plan.pairs) * (
        _ROWS_OF_PARENTS * max(config_lib.zoo_models(settings)) + 2 * settings.baselines.random_networks
    )
    return _BYTES_A_PARAMETER * (weights + answers) + _DISK_MARGIN
