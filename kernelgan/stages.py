"""Stages of a run: a result is kept with the key of what it was made from, and used again under that key."""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
import functools
import glob
import math
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import distributed, engine, fields, keys, models, zoo
from kernelgan import workdir as workdir_lib
from kernelgan.checkpoint import Stage, has_result
from kernelgan.config import Settings
from kernelgan.generators import loading
from kernelgan.progress import WIDTH, Progress, named
from kernelgan.types import Config, Key, Params, UserError

Work = Callable[[engine.Saver, Progress], dict[str, Any]]
"""Makes a result: nested dicts of arrays."""

_ENGINE = tuple(
    f"kernelgan.{name}" for name in ("engine", "losses", "models", "ops", "parallel", "population")
)
CODE = {
    "zoo": ("kernelgan.zoo", *_ENGINE),
    "baselines": (
        *("kernelgan.assemble", "kernelgan.baselines.trained", "kernelgan.evaluation.features"),
        *("kernelgan.zoo", *_ENGINE),
    ),
    "generator": (
        *("kernelgan.generators.base", "kernelgan.generators.fitting", "kernelgan.assemble"),
        *("kernelgan.kernels", "kernelgan.evaluation.novelty", *_ENGINE),
    ),
    "placebos": ("kernelgan.generators.placebo", "kernelgan.baselines.nulls"),
    "evaluate": (
        *("kernelgan.assemble", "kernelgan.baselines", "kernelgan.data.quadrants", "kernelgan.evaluation"),
        *("kernelgan.generators.backfitting", "kernelgan.generators.base", "kernelgan.kernels"),
        *("kernelgan.models", "kernelgan.ops"),
        *("kernelgan.parallel", "kernelgan.probes", "kernelgan.refit", "kernelgan.zoo"),
    ),
}
"""The modules whose code decides a stage's numbers; of a generator also its own, see `loading.Loaded`."""

_PARTS_OF_CODE = ("code", "placebos")  # of a key

_WEAK = 0.9  # validation AUROC of a zoo's median network
_ROSE = 1.2  # times its lowest: a validation loss that shows overfitting
_TOLD = 4  # zoos by name


class Stages:
    """Runs stages once; what was made before under the same key is read.

    Attributes:
      workdir: of the run.
      digests: of each finished stage's result, for the keys of those that are made from it.
      accepted: stages whose results other code made.
    """

    def __init__(self, workdir: Path, *, seconds: float, keep: Sequence[str] = ()) -> None:
        """Opens a work directory.

        Args:
          workdir: of the run, claimed by this process or by process 0.
          seconds: least time between two saves in the middle of a stage.
          keep: stages, such as "zoo" or "fit" for all families, whose finished results are used also if only
            code has changed since.
        """
        self.workdir = workdir
        self.digests: dict[str, str] = {}
        self.accepted: list[str] = []
        self._seconds = seconds
        self._keep = tuple(keep)

    def once(self, name: str, key: Mapping[str, str], work: Work, *, timing: str = "") -> dict[str, Any]:
        """The result of a stage: read, or made and kept.

        Args:
          name: of the stage, its directory among the checkpoints.
          key: parts of its `keys.StageKey`.
          work: makes the result; on several processes all of them call it.
          timing: what its seconds are kept under; "": its name.
        """
        shown = named(name, timing)
        stage = Stage(
            self.workdir / workdir_lib.CHECKPOINTS / name, keys.StageKey(key), seconds=self._seconds
        )
        result = distributed.first(stage.result)
        if result is None and self._is_kept(name):
            result = distributed.first(lambda: stage.accept(_PARTS_OF_CODE))
            self.accepted += [name] * (result is not None)
        if result is None:
            why = distributed.first(stage.why)
            if why:
                print(f"{shown:{WIDTH}s} is made again: {why}", file=sys.stderr)
            with self.timed(name, timing) as progress:
                result = jax.device_get(work(stage, progress))
                distributed.first(functools.partial(stage.finish, result))
        else:
            by = ", by other code, and kept as --keep says" if name in self.accepted else ""
            print(f"{shown:{WIDTH}s} done before{by}", file=sys.stderr)
        self.digests[name] = distributed.first(lambda: stage.digest)
        return jax.tree.map(_read_only, result)

    def has(self, name: str) -> bool:
        """Whether a stage, or one of its parts, has a result, whatever it was made from."""
        folders = (self.workdir / workdir_lib.CHECKPOINTS).glob(f"{name}*")
        return distributed.first(lambda: any(map(has_result, folders)))

    def _is_kept(self, name: str) -> bool:
        return any(name == kept or name.startswith((f"{kept}/", f"{kept}-")) for kept in self._keep)

    def timed(self, name: str, timing: str = "") -> contextlib.AbstractContextManager[Progress]:
        """Shows and times a stage."""
        return workdir_lib.staged(self.workdir, name, timing)

    def inputs(self, *names: str) -> dict[str, str]:
        """Parts of a key: the digests of these stages' results, and of their parts (``zoo-0``, ...)."""
        return {
            f"inputs/{done}": digest
            for done, digest in self.digests.items()
            if any(done == name or done.startswith(f"{name}-") for name in names)
        }


def check_keep(workdir: Path, keep: Sequence[str]) -> None:
    """Refuses stages to keep of which there are no results.

    Raises:
      UserError: naming the stages that there are.
    """
    folder = workdir / workdir_lib.CHECKPOINTS
    for name in keep:
        if not name or not ((folder / name).is_dir() or any(folder.glob(f"{glob.escape(name)}-*"))):
            had = ", ".join(sorted(path.name for path in folder.glob("*"))) or "none at all"
            raise UserError(f"--keep={name}: {workdir} has no results of such a stage; it has {had}.")


Zoos = list[dict[str, Any]]
"""``{"params": stacked (M, ...), "history": {metric: (M, E)}}`` of each zoo."""


def _read_only(leaf: np.ndarray) -> np.ndarray:
    """What later stages share, and a user's generator is handed: writing into it is an error."""
    view = np.asarray(leaf).view()
    view.flags.writeable = False
    return view


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
        """The parents' module of less width, of which two fill the budget of one generated network."""
        return self.network.clone(filters=budget_filters(self.network, self.settings.data.image_size))


@functools.cache
def budget_filters(network: models.ConvNet, image_size: int) -> tuple[int, ...]:
    """Filters of each of two networks that together have no more parameters than one with both heads.

    All layers are narrowed by the same share, the least that will do, and rounded to whole filters: for
    filters (6, 16) and images of 32 pixels it is (4, 12).

    Args:
      network: the parents' module.
      image_size: pixels a side.
    """

    def parameters(filters: Sequence[int], outputs: int) -> int:
        module = network.clone(filters=tuple(filters), outputs=outputs)
        shapes = jax.eval_shape(lambda: models.initialise_convnet(module, image_size, jax.random.key(0)))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    filters = network.filters
    budget = parameters(filters, 4)
    # The shares at which a layer's number of filters, rounded, changes.
    shares = {fractions.Fraction(2 * kept + 1, 2 * count) for count in filters for kept in range(count)}
    for share in sorted(shares, reverse=True):
        narrow = [max(1, math.floor(count * share + fractions.Fraction(1, 2))) for count in filters]
        if 2 * parameters(narrow, 2) <= budget:
            return tuple(narrow)
    return tuple(1 for _ in filters)


def pair_key(of: Run, name: str) -> Key:
    """Of a pair, for all that draws random networks or images; fold a number in for each use."""
    stream = jax.random.fold_in(jax.random.key(of.settings.seed), zlib.crc32(b"random networks"))
    return jax.random.fold_in(stream, zlib.crc32(name.encode()))


def notes(of: Run) -> list[str]:
    """These, and what a report must say of results that other code made."""
    accepted = ", ".join(of.stages.accepted)
    said = f"{accepted}: made by other code than this, and kept on request (--keep) as if it made the same"
    return [*([said] if accepted else []), *notes_on_zoos(of.settings)]


def notes_on_zoos(settings: Settings) -> list[str]:
    """What a report must say of zoos that were trained elsewhere."""
    given = {"attribute": settings.zoo.attribute_file, "object": settings.zoo.object_file}
    return [
        f"the zoo of the {kind} comes from {Path(file).name}: which images it was trained on, and whether "
        "the conjunction was among them, is not known"
        for kind, file in given.items()
        if file
    ]


def weaknesses(tasks: Sequence[zoo.ZooTask], zoos: Zoos) -> str:
    """What to say of zoos that were trained here and know their concepts only in part; empty if none does."""
    found = []
    for task, made in zip(tasks, zoos, strict=True):
        if not made["history"]:
            continue
        auroc, loss = (
            np.median(made["history"][f"validation_{metric}"], axis=0) for metric in ("auroc", "loss")
        )
        rose = (
            f" (loss there rose from {loss.min():.2f} to {loss[-1]:.2f}: too few images for so many epochs)"
        )
        if auroc[-1] < _WEAK:
            words = f"{task.kind} {task.concept!r} {auroc[-1]:.2f}"
            found.append((auroc[-1], words + rose * bool(loss[-1] > _ROSE * loss.min())))
    if not found:
        return ""
    worst = [words for _, words in sorted(found)[:_TOLD]]
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return (
        f"Zoos that know their concepts only in part, by validation AUROC (chance is 0.5): {', '.join(worst)}"
        f"{more}. No generator composes what its parents do not know: more images help, or larger zoo.epochs "
        "or zoo.images_per_epoch."
    )


def without_pace(section: Config, *names: str) -> Params:
    """A section of the config without the fields that decide no numbers."""
    return {name: value for name, value in fields.plain(section).items() if name not in names}
