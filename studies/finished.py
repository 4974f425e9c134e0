"""What studies read of a finished run: its config, its plan and its images; and how they compare answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from kernelgan import assemble, fields, models, workdir
from kernelgan import config as config_lib
from kernelgan.checkpoint import read_result
from kernelgan.config import Settings
from kernelgan.data import quadrants, sources
from kernelgan.evaluation import features, scores
from kernelgan.evaluation.comparison import Drawings
from kernelgan.generators import base
from kernelgan.progress import Progress
from kernelgan.types import LEFT_OUT, PairName, Params, UserError

_VALIDATION = 900  # images of a pair


def read_run(run: Path) -> tuple[Settings, dict[str, Any]]:
    """The config and the plan of a run; fields that came later have their defaults.

    Raises:
      UserError: it is not the directory of a run that has trained.
    """
    plan = workdir.read_plan(run)
    try:
        saved = json.loads((run / workdir.CONFIG_FILE).read_text())
        default = fields.plain(config_lib.default(*saved["generators"]))
        return config_lib.parse(_updated(default, saved)), plan
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / workdir.CONFIG_FILE} cannot be read ({error}); expected a run's.") from error


def _updated(default: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    sections = {name for name, value in saved.items() if isinstance(value, Mapping) and name in default}
    return {**default, **saved, **{name: _updated(default[name], saved[name]) for name in sections}}


def read_images(settings: Settings) -> quadrants.Partition:
    """A run's images, partitioned as the run did."""
    data = settings.data
    limits = quadrants.Limits(data.minimum_train, data.minimum_test, data.maximum_train, data.maximum_test)
    progress = Progress("data")
    part = quadrants.partition(
        sources.load_source(settings, progress),
        validation_share=data.validation_share,
        limits=limits,
        seed=settings.seed,
    )
    progress.close("done")
    return part


def validation_images(part: quadrants.Partition, pair: quadrants.PairSplit, count: int) -> np.ndarray:
    """Validation images of a pair, equally many of each seen quadrant where there are as many."""
    groups = quadrants.distilled_groups(pair).validation
    return part.source.train.images[np.concatenate([group[: count // len(groups)] for group in groups])]


def correlations(given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of logit differences, by network ``(M,)``, the mean over both concepts.

    Args:
      given: two-concept logits ``(M, N, 4)``.
      wanted: of the parents, the same.
    """
    both = [logits[..., 1::2] - logits[..., 0::2] for logits in (given, wanted)]
    x, y = (values - values.mean(axis=1, keepdims=True) for values in both)
    scale = np.sqrt(np.sum(x * x, axis=1) * np.sum(y * y, axis=1))
    return np.mean(np.sum(x * y, axis=1) / np.maximum(scale, 1e-12), axis=1)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% interval over pairs, by Student's t."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else np.nan
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def read_zoos(run: Path, plan: Mapping[str, Any], names: Sequence[PairName]) -> list[base.Parents]:
    """Both zoos of some pairs of a run, as many networks of each."""
    stages = {zoo["checkpoint"][0] for zoo in plan["zoos"]}
    results = {stage: read_result(run / workdir.CHECKPOINTS / stage) for stage in stages}
    listed = {(pair["attribute"], pair["object"]): pair for pair in plan["pairs"]}
    found = []
    for name in names:
        stored = [plan["zoos"][listed[name][f"{kind}_zoo"]]["checkpoint"] for kind in base.Parents._fields]
        found.append(
            base.Parents(*assemble.paired(*(results[stage][key]["params"] for stage, key in stored)))
        )
    return found


def by_drawn_concepts(names: Iterable[str]) -> Callable[[np.ndarray, str], str]:
    """``(values, form) -> text``: the mean over pairs and its 95% interval for drawn attributes and objects.

    Args:
      names: of the pairs, such as "black cat", in the order of the values.
    """
    pairs = [(name.split(" ", 1)[0], name.split(" ", 1)[1]) for name in names]
    drawings = Drawings(pairs, resamples=4000, seed=0)

    def words(values: np.ndarray, form: str) -> str:
        found = drawings.statistic(values)
        return f"{found['mean']:{form}} [{', '.join(f'{end:{form}}' for end in found['ci95'])}]"

    return words


def figures(
    part: quadrants.Partition,
    split: quadrants.PairSplit,
    parents: base.Parents,
    networks: Mapping[str, Sequence[Params]],
) -> dict[str, dict[str, np.ndarray]]:
    """Figures of a pair's networks, by row; the last row is both parents side by side.

    Args:
      part: the images.
      split: the quadrant of each.
      parents: of each network, in order.
      networks: by row, stacked networks of these parents, one or several times.

    Returns:
      For each network worst-quadrant AUROC on test images ("worst"), and the mean correlation with both
      parents' logits on validation images ("correlation"; the parents have none); several times one after
      the other.
    """
    scored = np.flatnonzero(split.test != LEFT_OUT)
    test, quadrant = part.source.test.images[scored], split.test[scored]
    validation = validation_images(part, split, _VALIDATION)

    def logits(params: Params, images: np.ndarray) -> np.ndarray:
        return features.population_logits(models.network_of(params), jax.device_get(params), images)

    def worst(answers: np.ndarray) -> np.ndarray:
        return scores.auroc_by_quadrant(features.score(answers)[0], quadrant)["worst"]

    wanted, both = (
        np.concatenate([logits(zoo, images) for zoo in parents], axis=-1) for images in (validation, test)
    )
    found = {}
    for row, several in networks.items():
        near = [correlations(logits(one, validation), wanted) for one in several]
        own = [worst(logits(one, test)) for one in several]
        found[row] = {"worst": np.concatenate(own), "correlation": np.concatenate(near)}
    return {**found, "and_ensemble": {"worst": worst(both)}}


def add(rows: dict[str, Any], name: PairName, found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Adds the figures of a pair to what is written: by row, pair and figure, a number for each network."""
    for row, own in found.items():
        rounded = {figure: values.round(4).tolist() for figure, values in own.items()}
        rows.setdefault(row, {})[" ".join(name)] = rounded
