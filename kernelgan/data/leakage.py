"""Who may read which image: the gate that refuses whatever has read a conjunction, and near duplicates.

Images are compared by content, so a copy of a conjunction image under another index or label counts too.

    check_leakage(partition, readers)             zoos, distillation and references, each for its pairs
    check_folds(partition, folds, served, read)   generators of many pairs, against all pairs held out
    check_behind(partition, name, pairs, read)    the same of any set of pairs held out, such as a block
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from kernelgan.data.quadrants import (
    Groups,
    PairSplit,
    Partition,
    distilled_groups,
    has_reference,
    quadrant_of,
    reference_groups,
)
from kernelgan.types import LEFT_OUT, PairName, Quadrant, UserError

NEAR_DUPLICATE = 0.95
"""Correlation of mean-removed thumbnails over which two images count as near duplicates."""
THUMBNAIL = 16
"""Pixels a side of these thumbnails."""
_COARSE = 8  # pixels a side of the thumbnails that all pairs are compared by
_CANDIDATE = 0.9  # correlation of those over which a pair is looked at more closely
_SHIFTS = tuple(itertools.product((0, -1, 1), (0, -1, 1)))  # pixels down and to the right
_BLOCK = 4096
_NAMED = 5


class LeakageError(UserError):
    """Something that trains or chooses would read the content of a conjunction image."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Who reads images, for the leakage gate.

    Attributes:
      name: for messages, such as ``zoo of the attribute "black"``.
      groups: the images.
      pairs: the pairs it is used for; it must have seen the conjunction of none.
      is_reference: it may read conjunction images of the training set, of its pair.
    """

    name: str
    groups: Groups
    pairs: tuple[PairSplit, ...]
    is_reference: bool = False


@dataclasses.dataclass(frozen=True)
class LeakageReport:
    """What the gate found for one pair.

    Attributes:
      leaked: conjunction images that something read; 0, or the gate raises.
      duplicates: test images of the pair whose exact content is read in training or validation.
      near_duplicates: further test images of the pair that nearly equal an image that is read.
    """

    leaked: int
    duplicates: int
    near_duplicates: int


@dataclasses.dataclass(frozen=True)
class Behind:
    """Everything behind some networks, which passed the gate.

    Attributes:
      name: of the fold or block, or of the only pair.
      held_out: pairs of whose conjunctions nothing behind the networks read an image.
      learnt: pairs that the generator learnt from; 0 where it learns from the pair's own parents alone.
      readers: zoos and sets of probes.
      images: different training images that these read.
      leaked: conjunction images among them; 0, or the gate raises.
    """

    name: str
    held_out: int
    learnt: int
    readers: int
    images: int
    leaked: int


@dataclasses.dataclass(frozen=True)
class Fold:
    """What one training of a joint generator learns from, and what it is judged on.

    Attributes:
      name: for messages, such as ``fold 3``.
      weights: pair -> its weight in the generator's loss, 0 for a pair that is held out.
    """

    name: str
    weights: Mapping[PairName, float]

    def __post_init__(self) -> None:
        if not all(np.isfinite(weight) and weight >= 0 for weight in self.weights.values()):
            raise ValueError(f"{self.name}: weights must be finite and not negative, got {self.weights}")
        if not self.learnt or not self.held_out:
            raise ValueError(f"{self.name} must learn from a pair and hold out a pair, got {self.weights}")

    @property
    def learnt(self) -> tuple[PairName, ...]:
        """The pairs that the generator learns from."""
        return tuple(pair for pair, weight in self.weights.items() if weight > 0)

    @property
    def held_out(self) -> tuple[PairName, ...]:
        """The pairs that it is judged on."""
        return tuple(pair for pair, weight in self.weights.items() if weight == 0)


def pair_readers(part: Partition, pair: PairSplit) -> list[Reader]:
    """Who reads images for a pair beside its zoos: distillation, and the reference where there is one."""
    readers = [Reader(f"distillation for {pair.name}", distilled_groups(pair), (pair,))]
    if has_reference(part, pair):
        readers.append(
            Reader(f"reference of {pair.name}", reference_groups(pair), (pair,), is_reference=True)
        )
    return readers


def check_leakage(part: Partition, readers: Sequence[Reader]) -> dict[tuple[str, str], LeakageReport]:
    """Refuse to go on if anything that trains or chooses has the content of a conjunction image.

    Conjunction images are all of the pair's in the source, used or not, in the training and the test set.
    The reference may read those of the training set, but none whose content is in the test set too.

    Args:
      part: the source.
      readers: everything that will train or validate.

    Returns:
      (attribute, object) -> what was found, for each pair of the readers. Duplicates are counted against all
      images that any reader reads.

    Raises:
      LeakageError: naming who reads which images.
    """
    pairs = {(pair.attribute, pair.object_name): pair for reader in readers for pair in reader.pairs}
    copies = {names: _copies(part, *names) for names in pairs}
    for reader in readers:
        for pair in reader.pairs:
            of_train, of_test = copies[pair.attribute, pair.object_name]
            _refuse(part, reader, pair, of_test if reader.is_reference else of_train | of_test)
    is_read = np.zeros(len(part.train_hashes), bool)
    for reader in readers:
        is_read[reader.groups.read()] = True
    read = np.flatnonzero(is_read)
    scored = np.flatnonzero(np.any([pair.test != LEFT_OUT for pair in pairs.values()], axis=0))
    read_contents = {part.train_hashes[index] for index in read}
    exact = np.zeros(len(part.test_hashes), bool)
    exact[scored] = [part.test_hashes[index] in read_contents for index in scored]
    near = np.zeros_like(exact)
    near[scored] = near_duplicates(part.source.test.images, scored, part.source.train.images, read)
    return {
        names: LeakageReport(
            leaked=0,
            duplicates=int((exact & (pair.test != LEFT_OUT)).sum()),
            near_duplicates=int((near & ~exact & (pair.test != LEFT_OUT)).sum()),
        )
        for names, pair in pairs.items()
    }


def check_folds(
    part: Partition,
    folds: Sequence[Fold],
    served: Mapping[PairName, Sequence[str]],
    read: Mapping[str, np.ndarray],
) -> list[Behind]:
    """Refuse a fold if anything behind its networks has the content of a conjunction that it holds out.

    Behind a network of a joint generator are the images of every zoo that the generator learnt from, those
    of the network's own parents, and its probes; see `check_behind`.

    Args:
      part: the source.
      folds: what each training of the generator learns from and holds out.
      served: pair -> names of all that reads images for it: its two zoos, and probes if there are any.
      read: name -> indices into the training images that it trains or validates on, see `Groups.read`.

    Returns:
      What is behind the networks of each fold.

    Raises:
      LeakageError: naming the fold, who reads, the pair held out and the number of images.
      KeyError: a fold's pair is not in `served`, or a name of `served` is not in `read`.
    """
    found = []
    for fold in folds:
        behind = {name: read[name] for pair in fold.weights for name in served[pair]}
        found.append(check_behind(part, fold.name, fold.held_out, behind, learnt=len(fold.learnt)))
    return found


def check_behind(
    part: Partition,
    name: str,
    held_out: Sequence[PairName],
    behind: Mapping[str, np.ndarray],
    *,
    learnt: int = 0,
) -> Behind:
    """Refuse networks if anything behind them has the content of a conjunction image of a held-out pair.

    Conjunction images are those of the training and of the test set, of EVERY held-out pair: a zoo of other
    concepts has usually read them as "not a dog".

    Args:
      part: the source.
      name: of the fold or block, or of the pair that is judged.
      held_out: the pairs that the networks are judged on.
      behind: name -> indices into the training images that it reads: zoos and probes.
      learnt: pairs that the generator learnt from, for the record.

    Raises:
      LeakageError: naming who reads, the pair held out and the number of images.
    """
    for pair in held_out:
        copies = np.logical_or(*_copies(part, *pair))
        for reader, indices in behind.items():
            leaks = np.unique(indices[copies[indices]])
            if leaks.size:
                raise LeakageError(
                    f"{name} holds out {' '.join(pair)!r}, but {reader} would read {_images(part, leaks)} "
                    "with that content. Leave them out of everything that is behind these networks, or hold "
                    "out fewer pairs."
                )
    is_read = np.zeros(len(part.train_hashes), bool)
    for indices in behind.values():
        is_read[indices] = True
    images = len(np.unique(part.contents[0][is_read]))
    return Behind(name, len(held_out), learnt, len(behind), images, leaked=0)


def near_duplicates(
    images: np.ndarray, which: np.ndarray, others: np.ndarray, which_others: np.ndarray
) -> np.ndarray:
    """Which images nearly equal one of some others, as thumbnails, moved by up to a pixel.

    All pairs are compared by coarse thumbnails first, in blocks. Of each block the most similar is looked at
    more closely: its correlation, the largest over moves, must exceed `NEAR_DUPLICATE`.

    Args:
      images: uint8 ``(N, H, W, 3)``.
      which: indices of the ``n`` images to look at.
      others: uint8 ``(M, H, W, 3)``, of the same size.
      which_others: indices of the ``m`` others to compare with.

    Returns:
      bool ``(n,)``; an image of one colour is like nothing.
    """
    near = np.zeros(len(which), bool)
    left = _thumbnails(images, which, _COARSE)
    for column in range(0, len(which_others), _BLOCK):  # the others' thumbnails are never all in memory
        block = which_others[column : column + _BLOCK]
        right = _thumbnails(others, block, _COARSE)
        for row in range(0, len(left), _BLOCK):
            product = left[row : row + _BLOCK] @ right.T
            rows = np.flatnonzero((product.max(axis=1) > _CANDIDATE) & ~near[row : row + _BLOCK])
            partner = block[product[rows].argmax(axis=1)]
            near[row + rows] = _moved_correlation(images, which[row + rows], others, partner) > NEAR_DUPLICATE
    return near


def _moved_correlation(
    images: np.ndarray, which: np.ndarray, others: np.ndarray, partner: np.ndarray
) -> np.ndarray:
    """The correlation of images ``(n,)`` with their partners ``(n,)``, the largest over `_SHIFTS`."""
    theirs = _thumbnails(others, partner, THUMBNAIL)
    moved = (_thumbnails(images, which, THUMBNAIL, shift) for shift in _SHIFTS)
    return np.max([np.einsum("nf,nf->n", mine, theirs) for mine in moved], axis=0)


def _copies(part: Partition, attribute: str, object_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which training images have the content of a conjunction image of the training set, and of the test set.

    Returns:
      Two bool ``(N_train,)``.
    """
    marked = []
    sides = zip((part.source.train, part.source.test), part.contents, strict=True)
    for images, contents in sides:
        conjunctions = quadrant_of(images, attribute, object_name) == Quadrant.CONJUNCTION
        marked.append(np.isin(part.contents[0], contents[conjunctions]))
    return marked[0], marked[1]


def _refuse(part: Partition, reader: Reader, pair: PairSplit, forbidden: np.ndarray) -> None:
    """Raises where a reader reads one of the training images marked in bool ``(N_train,)``."""
    read = reader.groups.read()
    leaks = read[forbidden[read]]
    if leaks.size:
        raise LeakageError(
            f"The {reader.name} would read {_images(part, leaks)} with the content of a {pair.name!r}, the "
            "conjunction that nothing may see before the test. Each copies an image that is labelled as the "
            "conjunction. Remove the copies, or correct their labels, and start again."
        )


def _images(part: Partition, indices: np.ndarray) -> str:
    """How many training images, and the names of the first."""
    names = ", ".join(repr(part.source.train.names[index]) for index in indices[:_NAMED])
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return f"{len(indices)} image(s) ({names}{more})"


def _thumbnails(
    images: np.ndarray, which: np.ndarray, size: int, shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Thumbnails less their mean colour, of length 1: float32 ``(len(which), size * size * 3)``.

    The mean of each channel is removed, for else all images of one tint, such as skies, are alike.
    """
    rows, columns = (_averaging(*each, size) for each in zip(images.shape[1:3], shift, strict=True))
    flat = np.empty((len(which), size * size * 3), np.float32)
    for start in range(0, len(which), _BLOCK):
        block = images[which[start : start + _BLOCK]].astype(np.float32)
        small = np.einsum("rh,nhwc,kw->nrkc", rows, block, columns, optimize=True)
        small -= small.mean(axis=(1, 2), keepdims=True)
        flat[start : start + _BLOCK] = small.reshape(len(block), -1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(norm > 1e-3, norm, np.inf)


def _averaging(side: int, shift: int, size: int) -> np.ndarray:
    """Weights ``(size, side)`` that average `side` pixels, moved and repeated at the edge, by area."""
    edges = np.arange(side + 1) * (size / side)
    cell = np.arange(size)[:, None]
    overlap = np.maximum(np.minimum(edges[1:], cell + 1) - np.maximum(edges[:-1], cell), 0)
    moved = np.eye(side)[np.clip(np.arange(side) - shift, 0, side - 1)]
    return (overlap @ moved).astype(np.float32)
