"""The study: reduces the parents of a run's development pairs with images that show more and more of them."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import assemble, models, probes, refit, splits
from kernelgan.baselines import nulls
from kernelgan.config import Settings
from kernelgan.data import colour, leakage, quadrants
from kernelgan.generators import base, reduce
from kernelgan.progress import Progress
from kernelgan.types import LEFT_OUT, PairName, Quadrant, UserError
from studies import finished


@dataclasses.dataclass(frozen=True)
class Rung:
    """What a generator's images show.

    Attributes:
      label: in words.
      shown: the pair's quadrants; none: every image that holds no conjunction of the pair's fold, the same
        for all pairs of the fold.
      made: which share of the images is made, not photographed.
      kind: how: "noise" (`probes.noise`), "rendered" (`probes.rendered`), or "coloured": noise of which half
        has the attribute's colour, see `coloured`.
    """

    label: str
    shown: tuple[Quadrant, ...] = ()
    made: float = 0.0
    kind: str = "noise"


_ATTRIBUTE, _OBJECT, _NEITHER = Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY, Quadrant.NEITHER

RUNGS = {
    "noise": Rung("noise, no photograph", made=1.0),
    "rendered": Rung("rendered images, no photograph", made=1.0, kind="rendered"),
    "coloured": Rung("noise, half of it in the attribute's colour", made=1.0, kind="coloured"),
    "neither": Rung("both new: photographs of neither", (_NEITHER,)),
    "neither_noise": Rung("both new: the same and noise", (_NEITHER,), 0.5),
    "object": Rung("attribute new: without it", (_OBJECT, _NEITHER)),
    "object_noise": Rung("attribute new: the same and noise", (_OBJECT, _NEITHER), 0.5),
    "attribute": Rung("object new: without it", (_ATTRIBUTE, _NEITHER)),
    "attribute_noise": Rung("object new: the same and noise", (_ATTRIBUTE, _NEITHER), 0.5),
    "fold": Rung("pair new: one set for all pairs of a fold"),
    "seen": Rung("the pair's own: its three seen quadrants", (_ATTRIBUTE, _OBJECT, _NEITHER)),
}
"""From nothing to all that tier U hands out."""

NULL = "refit"
"""Random kernels with heads refitted on the same images, beside each rung."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A pair of concepts.

    Attributes:
      split: the quadrant of each image.
      parents: both zoos, the networks that are studied.
      fold: the pairs, this among them, that are held out together.
    """

    split: quadrants.PairSplit
    parents: base.Parents
    fold: tuple[PairName, ...]

    @property
    def name(self) -> PairName:
        """Attribute and object."""
        return self.split.attribute, self.split.object_name


def load(run: Path, settings: Settings, plan: dict[str, Any], models_: int) -> tuple[Any, list[Pair]]:
    """Reads the images, and the first networks of the zoos of each pair that is not sealed.

    Raises:
      UserError: the run has no file of splits, no pair for development, or too small zoos.
    """
    folds = splits.of_config(settings)
    if folds is None:
        raise UserError("--run: it has no pairs.splits, so nothing says which pairs are for development.")
    listed = [(pair["attribute"], pair["object"]) for pair in plan["pairs"]]
    listed = [name for name in listed if not folds.is_sealed(name)]
    if not listed:
        raise UserError("--run: all of its pairs are sealed; expected some for development.")
    part, pairs = finished.read_images(settings), []
    for name, both in zip(listed, finished.read_zoos(run, plan, listed), strict=True):
        count = len(both.attribute["dense"]["bias"])
        if count < models_:
            raise UserError(f"--models={models_}: {' '.join(name)} has {count}.")
        parents = base.Parents(*(assemble.take_members(zoo, np.arange(models_)) for zoo in both))
        pairs.append(Pair(quadrants.split(part, *name), parents, folds.folds[folds.fold(name) - 1]))
    return part, pairs


def images_of(part: quadrants.Partition, pair: Pair, rung: Rung, count: int) -> np.ndarray:
    """The images of a rung, uint8 ``(count, H, W, 3)``; photographs are gone through again if they are few.

    Raises:
      LeakageError: a photograph has the content of a conjunction that is held out.
    """
    source = part.source.train
    drawn = _made(rung.kind, round(count * rung.made), source.images.shape[1], pair.name)
    if len(drawn) == count:
        return drawn
    held_out = [pair.name] if rung.shown else list(pair.fold)
    named = " ".join(pair.name) if rung.shown else str(sorted(held_out))
    rng = np.random.default_rng(zlib.crc32(named.encode()))
    left = count - len(drawn)
    if rung.shown:
        each = -(-left // len(rung.shown))
        groups = [np.flatnonzero(pair.split.train == quadrant) for quadrant in rung.shown]
    else:
        each, free = left, ~part.validation
        for name in held_out:
            of_pair = quadrants.quadrant_of(source, *name)
            free &= (of_pair != Quadrant.CONJUNCTION) & (of_pair != LEFT_OUT)
        groups = [np.flatnonzero(free)]
    chosen = rng.permutation(np.concatenate([rng.permutation(group)[:each] for group in groups]))
    leakage.check_behind(part, named, held_out, {"the images": chosen})
    return np.concatenate([source.images[np.resize(chosen, left)], drawn])


def _made(kind: str, count: int, size: int, pair: PairName) -> np.ndarray:
    if kind == "rendered":
        return probes.rendered(count, size=size, exclude=[pair])
    if kind == "coloured":
        own = coloured(pair[0], count // 2, size)
        return np.concatenate([probes.noise(count - len(own), size=size), own])
    return probes.noise(count, size=size)


def coloured(name: str, count: int, size: int) -> np.ndarray:
    """Noise that has a colour by the rule on pixels, uint8 ``(count, size, size, 3)``.

    An image of `probes.noise` gets a mean that the rule calls so, and half its contrast; those are kept that
    the rule then says have the colour.

    Raises:
      UserError: there is no rule for it.
    """
    if name not in colour.TERMS:
        raise UserError(f"{name} is no colour by rule; expected one of {', '.join(colour.TERMS)}.")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found: list[np.ndarray] = []
    for seed in range(1, 100):
        images = probes.noise(count, seed=seed, size=size).astype(np.float32)
        means = rng.integers(256, size=(200 * count, 3), dtype=np.uint8)
        means = means[colour.terms(means) == colour.TERMS.index(name)][:count]
        images = images[: len(means)]
        moved = 0.5 * (images - images.mean(axis=(1, 2), keepdims=True)) + means[:, None, None]
        moved = np.clip(np.rint(moved), 0, 255).astype(np.uint8)
        found.append(moved[colour.holds(moved)[name] == 1])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def evaluate(part: quadrants.Partition, pairs: list[Pair], count: int) -> dict[str, Any]:
    """All rungs of all pairs.

    Args:
      part: the images.
      pairs: what is composed.
      count: images that a generator looks at.

    Returns:
      By row, pair and figure, a number for each network: worst-quadrant AUROC on test images ("worst") and
      the mean correlation with both parents' logits on validation images ("correlation").
    """
    network = models.network_of(pairs[0].parents.attribute)
    generator = reduce.reducer(network, reduce.Config(images=count, sweeps=0), "U")
    members = len(pairs[0].parents.attribute["dense"]["bias"])
    size = part.source.train.images.shape[1]
    drawn = jax.device_get(nulls.initialise(network, size, jax.random.split(jax.random.key(5), members)))
    rows: dict[str, Any] = {}
    progress = Progress("ladder")
    for number, pair in enumerate(pairs):
        shown = {name: images_of(part, pair, rung, count) for name, rung in RUNGS.items()}
        given = [pair.parents] * len(shown), list(shown.values()), [jax.random.key(0)] * len(shown)
        made = base.generate(generator, {}, *given, name="reduce")
        networks = {name: one[""] for name, one in zip(shown, made, strict=True)}
        networks |= {
            f"{name}_{NULL}": refit.refit_heads(drawn, refit.answers(pair.parents, images), images)
            for name, images in shown.items()
        }
        found = finished.figures(part, pair.split, pair.parents, {row: [p] for row, p in networks.items()})
        finished.add(rows, pair.name, found)
        progress(number + 1, len(pairs))
    progress.close("done")
    return rows


def by_pair(rows: dict[str, Any], row: str, figure: str = "worst") -> np.ndarray:
    """A row's means over networks."""
    return np.array([np.mean(given[figure]) for given in rows[row].values()])
