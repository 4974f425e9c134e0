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
from kernelgan.types import Config, UserError

METRICS = ("balanced_accuracy", "auroc")

_TRUTH = {"no": False, "yes": True}
_FIELDS: dict[str, Callable[[str], Any]] = {
    "learning_rate": float,
    "batch_size": int,
    "epochs": int,
    "decay": _TRUTH.__getitem__,
}
"""What is searched, fields of ``config.zoo``, and how their values are read."""

_CONFIG = config_flags.DEFINE_config_file("config", None, "Whose zoos are trained.", lock_config=True)
_LISTS = {
    "learning_rate": flags.DEFINE_list("learning_rates", [], "Of Adam; of any empty list, the config's own."),
    "batch_size": flags.DEFINE_list("batch_sizes", [], "Images."),
    "epochs": flags.DEFINE_list("epochs", [], "Passes of zoo.images_per_epoch images."),
    "decay": flags.DEFINE_list("decay", [], "Whether the learning rate falls to zero: no, yes."),
}
_MODELS = flags.DEFINE_integer("models", 2, "Networks in each zoo.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One combination, and what its networks reach after the last epoch.

    Attributes:
      settings: fields of ``config.zoo``.
      images: image passes of a network, for each kind of zoo.
      seconds: of training, with compilation and validation.
      scores: ``{kind: {metric: mean over its zoos' networks}}`` on validation images.
    """

    settings: dict[str, Any]
    images: dict[str, int]
    seconds: float
    scores: dict[str, dict[str, float]]

    @property
    def score(self) -> float:
        """Balanced accuracy, the mean of the two kinds'."""
        return float(np.mean([score["balanced_accuracy"] for score in self.scores.values()]))


def combinations(config: Config, lists: Mapping[str, Sequence[Any]]) -> list[tuple[dict[str, Any], Config]]:
    """Settings, and the config with them, for each combination of values.

    Args:
      config: gives what is not listed.
      lists: ``{field of config.zoo: values}``; of no values, the config's own is meant.

    Raises:
      UserError: a combination that no run could have.
    """
    found = []
    for values in itertools.product(*(lists[name] or [config.zoo[name]] for name in lists)):
        settings, one = dict(zip(lists, values, strict=True)), config.copy_and_resolve_references()
        one.zoo.update(settings)
        found.append((settings, config_lib.parse(one)))
    return found


def search(config: Config, lists: Mapping[str, Sequence[Any]], *, models_a_zoo: int) -> list[Trial]:
    """Trains some networks of each of the config's zoos with every combination of settings.

    Network ``i`` of a zoo starts from the same weights in all of them, so that differences are of pairs.
    Test images are read by the leakage gate alone, as in a run.

    Args:
      config: the experiment.
      lists: see `combinations`.
      models_a_zoo: networks ``M``.

    Returns:
      The best first, without those whose loss did not stay finite.

    Raises:
      UserError: as a run would, before anything is trained.
    """
    configs = combinations(config, lists)
    progress = Progress("data")
    plan = make_plan(config, sources.load_source(config, progress))
    plan = dataclasses.replace(
        plan, zoos=tuple(dataclasses.replace(task, models=models_a_zoo) for task in plan.zoos)
    )
    for (_, one), task in itertools.product(configs, plan.zoos):
        zoo.check_fits(task, zoo_training(one, task.kind))
    progress.close(f"done, {len(plan.zoos)} zoos, {len(configs)} combinations")
    trials = []
    for number, (settings, one) in enumerate(configs):
        progress, start = Progress(f"{number + 1} of {len(configs)}"), time.monotonic()
        words = ", ".join(f"{name} {value}" for name, value in settings.items())
        try:
            scores = _train(one, plan, progress)
        except UserError as error:  # all else was checked: a loss is not finite
            progress.close(f"{words}: {error}")
            continue
        epoch = dict(zip(("attribute", "object"), config_lib.images_per_epoch(one), strict=True))
        images = {kind: one.zoo.epochs * epoch[kind] for kind in scores}
        trials.append(Trial(settings, images, time.monotonic() - start, scores))
        progress.close(f"{words}: balanced accuracy {trials[-1].score:.3f}")
    return sorted(trials, key=lambda trial: -trial.score)


def _train(config: Config, plan: Plan, progress: Progress) -> dict[str, dict[str, float]]:
    """Trains the plan's zoos; see `Trial` for what it gives."""
    parts: dict[Training, list[zoo.ZooTask]] = {}
    for task in plan.zoos:
        parts.setdefault(zoo_training(config, task.kind), []).append(task)
    found: dict[str, list[dict[str, np.ndarray]]] = {"attribute": [], "object": []}
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
        for task, one in zip(tasks, trained, strict=True):
            found[task.kind].append(one["history"])
    return {
        kind: {
            metric: float(np.mean([history[f"validation_{metric}"][:, -1] for history in histories]))
            for metric in METRICS
        }
        for kind, histories in found.items()
    }


def table(trials: Sequence[Trial]) -> str:
    """Markdown, a line for each trial."""
    kinds = ("attribute", "object")
    head = [
        *(name.replace("_", " ") for name in _FIELDS),
        "image passes",
        "seconds",
        *(f"{kind}: {metric.replace('_', ' ')}" for kind in kinds for metric in METRICS),
    ]
    rows = [head, ["---"] * len(head)]
    for trial in trials:
        passes = sorted({*trial.images.values()})
        rows.append(
            [
                *(str(trial.settings[name]) for name in _FIELDS),
                " / ".join(f"{count:,}" for count in passes),
                f"{trial.seconds:.1f}",
                *(f"{trial.scores[kind][metric]:.3f}" for kind in kinds for metric in METRICS),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _lists() -> dict[str, list[Any]]:
    """The values given as flags."""
    found: dict[str, list[Any]] = {}
    for name, read in _FIELDS.items():
        flag = _LISTS[name]
        try:
            found[name] = [read(text) for text in flag.value]
        except (ValueError, KeyError):
            kind = "yes and no" if name == "decay" else "numbers"
            raise UserError(
                f"--{flag.name} is {','.join(flag.value)!r}; expected {kind}, with commas."
            ) from None
    return found


def main(argv: list[str]) -> int:
    """The command; gives its exit status."""
    del argv
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        environment.select_device(_CONFIG.value.device)
        print(table(search(_CONFIG.value, _lists(), models_a_zoo=_MODELS.value)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
