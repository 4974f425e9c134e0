"""How well parents can be trained: settings of the zoos, compared on VALIDATION images alone.

``python -m kernelgan.search --config=configs/black_cat.py:photos --learning_rates=0.002,0.004 --decay=yes``
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from kernelgan import config as config_lib
from kernelgan import environment, models, zoo
from kernelgan.command import parse_flags
from kernelgan.data import sources
from kernelgan.plan import Plan, make_plan, zoo_training
from kernelgan.population import Training
from kernelgan.progress import Progress
from kernelgan.stopping import outlast_readers
from kernelgan.types import Config, UserError

Scores = dict[str, float]
"""``{"attribute: auroc": mean over the networks of the attributes' zoos, ...}``, after the last epoch."""

METRICS = ("balanced_accuracy", "auroc")
_READERS: dict[str, Callable[[str], Any]] = {
    "learning_rate": float,
    "batch_size": int,
    "epochs": int,
    "decay": {"no": False, "yes": True}.__getitem__,
}
"""Fields of ``config.zoo`` that are searched, and how their values are read."""

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose zoos are trained.", lock_config=True)
_LISTS = {
    "learning_rate": flags.DEFINE_list("learning_rates", [], "Of Adam; of any empty list, the config's own."),
    "batch_size": flags.DEFINE_list("batch_sizes", [], "Images."),
    "epochs": flags.DEFINE_list("epochs", [], "Passes of zoo.images_per_epoch images."),
    "decay": flags.DEFINE_list("decay", [], "Whether the learning rate falls to zero: no, yes."),
}
_MODELS = flags.DEFINE_integer("models", 2, "Networks in each zoo.", lower_bound=1)


def search(config: Config, lists: Mapping[str, Sequence[Any]], *, models_a_zoo: int) -> list[dict[str, Any]]:
    """Trains some networks of each of the config's zoos with every combination of settings.

    Network ``i`` of a zoo starts from the same weights in all of them, so that differences are of pairs.
    Test images are read by the leakage gate alone, as in a run.

    Args:
      config: the experiment; it gives what is not listed.
      lists: ``{field of config.zoo: values}``.
      models_a_zoo: networks ``M``.

    Returns:
      For each combination its settings, its image passes (of a network, for each kind of zoo), its seconds,
      and its `Scores`; the best balanced accuracy, mean of the two kinds, first. Combinations whose loss is
      not finite are left out, and named on stderr.

    Raises:
      UserError: as a run would, before anything is trained.
    """
    given = {name: values for name, values in lists.items() if values}
    settings = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
    configs = []
    for chosen in settings:
        changed = config.copy_and_resolve_references()
        changed.zoo.update(chosen)
        configs.append(config_lib.parse(changed))
    progress = Progress("data")
    plan = make_plan(config, sources.load_source(config, progress))
    tasks = tuple(dataclasses.replace(task, models=models_a_zoo) for task in plan.zoos)
    progress.close(f"done, {len(tasks)} zoos, {len(configs)} combinations")
    trials = []
    for number, (chosen, each) in enumerate(zip(settings, configs, strict=True), start=1):
        progress, start = Progress(f"{number} of {len(configs)}"), time.monotonic()
        outcome = ", ".join(f"{name} {value}" for name, value in chosen.items()) or "own settings"
        try:
            scores = _train(each, dataclasses.replace(plan, zoos=tasks), progress)
        except UserError as error:  # all else was checked: a loss is not finite
            progress.close(f"{outcome}: {error}")
            continue
        trial = {name: getattr(each.zoo, name) for name in _READERS}
        trial["image passes"] = [each.zoo.epochs * images for images in config_lib.images_per_epoch(each)]
        trials.append(trial | {"seconds": time.monotonic() - start} | scores)
        progress.close(f"{outcome}: balanced accuracy {_score(trials[-1]):.3f}")
    return sorted(trials, key=_score, reverse=True)


def _score(trial: Mapping[str, Any]) -> float:
    return float(np.mean([trial[f"{kind}: balanced_accuracy"] for kind in ("attribute", "object")]))


def _train(config: Config, plan: Plan, progress: Progress) -> Scores:
    """Trains the plan's zoos; those with equally large epochs together."""
    parts: dict[Training, list[zoo.ZooTask]] = {}
    for task in plan.zoos:
        parts.setdefault(zoo.capped(task.groups, zoo_training(config, task.kind)), []).append(task)
    reached: dict[str, list[np.ndarray]] = {}
    for training, tasks in parts.items():
        trained = zoo.train_zoos(
            models.ConvNet(tuple(config.model.filters), config.model.kernel_size),
            plan.source.train.images,
            tasks,
            training,
            balanced=config.zoo.balanced,
            validation_images=config.zoo.validation_images,
            seed=config.seed,
            chunk_size=config.zoo.chunk_size,
            progress=progress,
        )
        for task, made in zip(tasks, trained, strict=True):
            for metric in METRICS:
                last = made["history"][f"validation_{metric}"][:, -1]
                reached.setdefault(f"{task.kind}: {metric}", []).append(last)
    return {name: float(np.mean(values)) for name, values in sorted(reached.items())}


def table(trials: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a line for each trial of `search`."""
    scores = [f"{kind}: {metric}" for kind in ("attribute", "object") for metric in METRICS]
    head = [*_READERS, "image passes", "seconds", *scores]
    rows = [[name.replace("_", " ") for name in head], ["---"] * len(head)]
    for trial in trials:
        passes = " / ".join(f"{count:,}" for count in sorted({*trial["image passes"]}))
        numbers = [f"{trial['seconds']:.1f}", *(f"{trial[name]:.3f}" for name in scores)]
        rows.append([*(str(trial[name]) for name in _READERS), passes, *numbers])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _values(name: str) -> list[Any]:
    """The values of a field that were given as a flag."""
    flag = _LISTS[name]
    try:
        return [_READERS[name](text) for text in flag.value]
    except (ValueError, KeyError):
        kind = "yes and no" if name == "decay" else "numbers"
        given = ",".join(flag.value)
        raise UserError(f"--{flag.name} is {given!r}; expected {kind}, with commas.") from None


def main(argv: list[str]) -> int:
    """The command; gives its exit status."""
    del argv
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        environment.select_device(_CONFIG.value.device)
        lists = {name: _values(name) for name in _LISTS}
        print(table(search(_CONFIG.value, lists, models_a_zoo=_MODELS.value)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    outlast_readers()
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
