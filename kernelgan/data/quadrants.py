"""The held-out-quadrant split: which quadrant of a pair each image lies in, and what each learner may read.

A concept pair puts every image into one quadrant: the conjunction ``a&o``, ``a&!o``, ``!a&o`` or ``!a&!o``.
Nothing sees the conjunction but the reference, ``trained_on_conjunction``. Many pairs share one source:
everything here is index arrays into ``source.train.images`` and ``source.test.images``, never a copy of an
image.

    partition(source) -> Partition          once a source: hashes, the validation side, an order to cap by
    split(partition, a, o) -> PairSplit     once a pair: the quadrant of each image
    zoo_groups(partition, kind, a, [o])     what the zoo of a concept reads -> Groups

`kernelgan.data.leakage` then refuses readers of a conjunction. Groups of one `Groups.key` are the same
images: a zoo trained on one serves the other.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import chex
import numpy as np

from kernelgan.data import complements
from kernelgan.data.images import ImageSet, Source, content_fractions, content_hashes
from kernelgan.types import LEFT_OUT, Quadrant, UserError

Kind = Literal["attribute", "object"]
"""Of a concept."""

_LISTED_COPIES = 10


class TooFewError(UserError):
    """A quadrant has too few images; `shortage` says which, in a few words."""

    def __init__(self, message: str, shortage: str) -> None:
        super().__init__(message)
        self.shortage = shortage


@dataclasses.dataclass(frozen=True)
class Limits:
    """How few images stop a run and how many are enough; the fields of ``config.data`` of these names.

    Attributes:
      minimum_train: fewest training images in each quadrant that a zoo learns from.
      minimum_test: fewest test images in a quadrant that is scored.
      maximum_train: most training images a quadrant, and as many for validation; 0: all.
      maximum_test: most test images a quadrant; 0: all.
    """

    minimum_train: int = 32
    minimum_test: int = 20
    maximum_train: int = 0
    maximum_test: int = 0


@dataclasses.dataclass(frozen=True)
class Partition:
    """What all pairs over one source have in common.

    Attributes:
      source: where the images are.
      limits: smallest and largest numbers of images.
      train_hashes: content hash of each training image, ``N_train`` strings.
      test_hashes: of each test image, ``N_test`` strings.
      validation: bool ``(N_train,)``: on the validation side, by content and seed, so that it is the same
        for every pair and exact duplicates are on one side.
      train_order: float64 ``(N_train,)``: where a maximum cuts, images of the smallest numbers stay.
      test_order: float64 ``(N_test,)``: the same of the test images.
    """

    source: Source
    limits: Limits
    train_hashes: tuple[str, ...]
    test_hashes: tuple[str, ...]
    validation: np.ndarray
    train_order: np.ndarray
    test_order: np.ndarray

    @functools.cached_property
    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """A number for the content of each training and each test image: ``(N_train,)`` and ``(N_test,)``."""
        _, numbers = np.unique([*self.train_hashes, *self.test_hashes], return_inverse=True)
        return numbers[: len(self.train_hashes)], numbers[len(self.train_hashes) :]


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """The quadrant of each image for one pair: int8, a `Quadrant` (`REST` only of test images) or `LEFT_OUT`.

    Attributes:
      attribute: name of the attribute.
      object_name: name of the object.
      train: ``(N_train,)``, the images that are trained on; the conjunction is for the reference only.
      validation: ``(N_train,)``, never the conjunction.
      test: ``(N_test,)``.
    """

    attribute: str
    object_name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def name(self) -> str:
        """The pair in words, such as ``black cat``."""
        return f"{self.attribute} {self.object_name}"


@dataclasses.dataclass(frozen=True)
class Groups:
    """The images that one learner reads, by quadrant; the positives of a parent zoo are the first quadrant.

    Attributes:
      quadrants: which quadrants, each a `Quadrant`.
      train: for each of them, ascending int32 indices into ``source.train.images``.
      validation: the images to validate on; empty for the conjunction.
    """

    quadrants: tuple[int, ...]
    train: tuple[np.ndarray, ...]
    validation: tuple[np.ndarray, ...]

    @property
    def key(self) -> str:
        """Equal for groups of the same quadrants and images, so that one training serves both."""
        digest = hashlib.sha256(repr(tuple(map(int, self.quadrants))).encode())
        for indices in (*self.train, *self.validation):
            digest.update(f"{len(indices)}:".encode() + indices.tobytes())
        return digest.hexdigest()

    def read(self) -> np.ndarray:
        """All images that are trained on or validated on: ascending int32 ``(N,)``."""
        return np.sort(np.concatenate([*self.train, *self.validation]))


def quadrant_of(images: ImageSet, attribute: str, object_name: str) -> np.ndarray:
    """The quadrant of each image.

    Args:
      images: ``N`` images and their labels.
      attribute: a name in ``images.attributes``.
      object_name: a name in ``images.objects``.

    Returns:
      int8 ``(N,)``: a `Quadrant` or `LEFT_OUT`.

    Raises:
      UserError: a concept is not labelled.
    """
    a = _labels(images.attributes, attribute, "attribute")
    o = _labels(images.objects, object_name, "object")
    quadrant = np.where(images.rest, Quadrant.REST, LEFT_OUT).astype(np.int8)
    known = (a >= 0) & (o >= 0)
    quadrant[known] = (2 * (1 - a) + (1 - o))[known]
    return quadrant


def partition(source: Source, *, validation_share: float, limits: Limits, seed: int) -> Partition:
    """Hash a source's images and choose its validation side, once for all pairs.

    Args:
      source: training and test images.
      validation_share: share of the training images kept for validation, above 0 and below 1.
      limits: smallest and largest numbers of images.
      seed: of the run.

    Raises:
      UserError: the share is not between 0 and 1.
    """
    if not 0 < validation_share < 1:
        raise UserError(
            f"data.validation_share is {validation_share}; expected a number above 0 and below 1, for every "
            "choice is made on validation images. Try 0.15."
        )
    chex.assert_rank([source.train.images, source.test.images], 4)
    train_hashes, test_hashes = content_hashes(source.train.images), content_hashes(source.test.images)
    return Partition(
        source=source,
        limits=limits,
        train_hashes=tuple(train_hashes),
        test_hashes=tuple(test_hashes),
        validation=content_fractions(train_hashes, f"validation:{seed}") < validation_share,
        train_order=content_fractions(train_hashes, f"order:{seed}"),
        test_order=content_fractions(test_hashes, f"order:{seed}"),
    )


def split(part: Partition, attribute: str, object_name: str) -> PairSplit:
    """The quadrants of one pair's training, validation and test images.

    Raises:
      UserError: a concept is unknown, holds in all or in none of the training images, or a quadrant has too
        few images; the message names the pair, the quadrant, the numbers and the field of the config.
    """
    train, test = part.source.train, part.source.test
    _check_both_ways(_labels(train.attributes, attribute, "attribute"), f"attribute {attribute!r}")
    _check_both_ways(_labels(train.objects, object_name, "object"), f"object {object_name!r}")
    quadrant = quadrant_of(train, attribute, object_name)
    quadrant[quadrant == Quadrant.REST] = LEFT_OUT
    limits = part.limits
    pair = PairSplit(
        attribute=attribute,
        object_name=object_name,
        train=_capped(np.where(part.validation, LEFT_OUT, quadrant), part.train_order, limits.maximum_train),
        validation=_capped(
            np.where(part.validation & (quadrant != Quadrant.CONJUNCTION), quadrant, LEFT_OUT),
            part.train_order,
            limits.maximum_train,
        ),
        test=_capped(quadrant_of(test, attribute, object_name), part.test_order, limits.maximum_test),
    )
    whose = f"pair {pair.name!r}"
    not_a, not_o = map(complements.negated, (attribute, object_name))
    words = (
        *(pair.name, f"{attribute}, {not_o}", f"{object_name}, {not_a}", f"{not_a}, {not_o}"),
        f"anything but {pair.name}",
    )
    distilled = distilled_groups(pair)
    _check_learnable(distilled, limits.minimum_train, whose, words)
    scored: tuple[Quadrant, ...] = (Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY, Quadrant.NEITHER)
    if np.isin(pair.test, scored).any():
        pair.test[pair.test == Quadrant.REST] = LEFT_OUT  # of no use beside quadrants that are known
    else:
        scored = (Quadrant.REST,)
    for number in (Quadrant.CONJUNCTION, *scored):
        count = int((pair.test == number).sum())
        _check_enough(count, limits.minimum_test, whose, words[number], "test", "data.minimum_test")
    return pair


def check_labels(part: Partition) -> None:
    """Refuses images of equal content of which one holds a concept and another is known not to.

    Whoever learnt from both would learn a conjunction that no label shows.

    Raises:
      UserError: with the names of both, and the concept.
    """
    sides = (part.source.train, part.source.test)
    names = [*sides[0].names, *sides[1].names]
    content = np.concatenate(part.contents)
    if len(content) == content.max(initial=-1) + 1:
        return
    rest = np.concatenate([side.rest for side in sides])
    wrong = []
    for kind in ("attributes", "objects"):
        for concept in getattr(sides[0], kind):
            labels = np.concatenate([getattr(side, kind)[concept] for side in sides])
            wrong += _contradictions(content, labels == 1, labels == 0, names, f"hold {concept!r}")
    for attribute, of_attribute in sides[0].attributes.items():
        for thing, of_object in sides[0].objects.items():
            a = np.concatenate([of_attribute, sides[1].attributes[attribute]])
            o = np.concatenate([of_object, sides[1].objects[thing]])
            both = (a == 1) & (o == 1)
            wrong += _contradictions(content, both, rest, names, f"hold {attribute!r} and {thing!r}")
    if wrong:
        more = f", and {len(wrong) - _LISTED_COPIES} more" if len(wrong) > _LISTED_COPIES else ""
        raise UserError(
            "Images of equal content have labels that contradict each other: "
            f"{'; '.join(wrong[:_LISTED_COPIES])}{more}. Expected one file with all its labels: remove the "
            "wrong one, and put what holds both concepts where the conjunction belongs."
        )


def _contradictions(
    content: np.ndarray, holds: np.ndarray, lacks: np.ndarray, names: Sequence[str], what: str
) -> list[str]:
    """A sentence for each content ``(N,)`` of which an image holds something and another lacks it."""
    found = []
    for number in np.intersect1d(content[holds], content[lacks]):
        with_it, without = (np.flatnonzero(side & (content == number))[0] for side in (holds, lacks))
        found.append(f"{names[with_it]} is said to {what}, {names[without]} not to")
    return found


def zoo_groups(part: Partition, kind: Kind, concept: str, excluded: Sequence[str]) -> Groups:
    """What the zoo of a concept reads: images without the excluded concepts; positives first, then negatives.

    Args:
      part: the source.
      kind: of the concept.
      concept: its name.
      excluded: concepts of the other kind: the pair's, or all of the run so that one zoo serves them all. An
        image of which it is not known whether it holds one of them is excluded too.

    Returns:
      Groups of the quadrants ``a&!o`` or ``!a&o``, and ``!a&!o``.

    Raises:
      UserError: too few images are left.
    """
    labels = {"attribute": part.source.train.attributes, "object": part.source.train.objects}
    other = "object" if kind == "attribute" else "attribute"
    positive = Quadrant.ATTRIBUTE_ONLY if kind == "attribute" else Quadrant.OBJECT_ONLY
    holds = _labels(labels[kind], concept, kind)
    eligible = np.logical_and.reduce([_labels(labels[other], name, other) == 0 for name in excluded])
    quadrant = np.select(
        [eligible & (holds == 1), eligible & (holds == 0)], [positive, Quadrant.NEITHER], LEFT_OUT
    )
    maximum = part.limits.maximum_train
    groups = _groups(
        _capped(np.where(part.validation, LEFT_OUT, quadrant), part.train_order, maximum),
        _capped(np.where(part.validation, quadrant, LEFT_OUT), part.train_order, maximum),
        (positive, Quadrant.NEITHER),
    )
    whose = f"zoo of the {kind} {concept!r} without {_listed(excluded)}"
    words = {positive: concept, Quadrant.NEITHER: complements.negated(concept)}
    _check_learnable(groups, part.limits.minimum_train, whose, words)
    return groups


def distilled_groups(pair: PairSplit) -> Groups:
    """What distillation reads: the three quadrants that are seen."""
    return _groups(
        pair.train, pair.validation, (Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY, Quadrant.NEITHER)
    )


def reference_groups(pair: PairSplit) -> Groups:
    """What the reference reads: all four quadrants; its conjunction validation group is empty."""
    return _groups(
        pair.train,
        pair.validation,
        (Quadrant.CONJUNCTION, Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY, Quadrant.NEITHER),
    )


def has_reference(part: Partition, pair: PairSplit) -> bool:
    """Whether there are enough conjunction images in the training set to train the reference on."""
    return int((pair.train == Quadrant.CONJUNCTION).sum()) >= max(part.limits.minimum_train, 1)


def counts(quadrant: np.ndarray) -> dict[str, int]:
    """How many images each quadrant of a ``PairSplit`` array ``(N,)`` has; ``rest`` where there are any."""
    found = {number.label: int((quadrant == number).sum()) for number in Quadrant}
    return {label: count for label, count in found.items() if count or label != Quadrant.REST.label}


def digest(part: Partition) -> str:
    """SHA-256 of the content and the labels of all images, in their order: of no name, path or date."""
    found = hashlib.sha256("".join((*part.train_hashes, *part.test_hashes)).encode())
    for images in (part.source.train, part.source.test):
        for labels in (*images.attributes.values(), *images.objects.values(), images.rest):
            found.update(np.ascontiguousarray(labels).tobytes())
    return found.hexdigest()


def _labels(concepts: dict[str, np.ndarray], name: str, kind: str) -> np.ndarray:
    if name not in concepts:
        raise UserError(
            f"The {kind} {name!r} is not in the data; it has {_listed(sorted(concepts)) or 'none'}. "
            f"Name one of these in pairs.{kind}s."
        )
    return concepts[name]


def _check_both_ways(labels: np.ndarray, concept: str) -> None:
    """Refuse a concept that cannot be learnt because it never holds or never fails to hold."""
    for value, none in ((1, "no positives: it holds"), (0, "no negatives: it is known not to hold")):
        if not (labels == value).any():
            raise UserError(
                f"The {concept} has {none} in none of the {len(labels)} training images. It cannot be learnt "
                "from these; add such images or choose another concept."
            )


def _capped(quadrant: np.ndarray, order: np.ndarray, maximum: int) -> np.ndarray:
    """Leave out all but the `maximum` images (0: all) of smallest order in each quadrant; int8 ``(N,)``."""
    kept = np.full(len(quadrant), LEFT_OUT, np.int8)
    for number in Quadrant:
        indices = np.flatnonzero(quadrant == number)
        if maximum:
            indices = indices[np.argsort(order[indices], kind="stable")[:maximum]]
        kept[indices] = number
    return kept


def _groups(train: np.ndarray, validation: np.ndarray, quadrants: Sequence[int]) -> Groups:
    def members(quadrant: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.flatnonzero(quadrant == number).astype(np.int32) for number in quadrants)

    return Groups(quadrants=tuple(quadrants), train=members(train), validation=members(validation))


def _check_learnable(
    groups: Groups, minimum: int, whose: str, words: Mapping[Quadrant, str] | Sequence[str]
) -> None:
    """Refuses too few images in a quadrant; `words` says what its images hold."""
    for number, train, validation in zip(groups.quadrants, groups.train, groups.validation, strict=True):
        what = words[Quadrant(number)]
        _check_enough(len(train), minimum, whose, what, "training", "data.minimum_train")
        _check_enough(len(validation), 1, whose, what, "validation", "data.validation_share")


def _check_enough(found: int, needed: int, whose: str, what: str, use: str, field: str) -> None:
    if found < max(needed, 1):
        remedy = "raise" if field == "data.validation_share" else "lower"
        raise TooFewError(
            f"The {whose} has too few {use} images of {what!r}: found {found}, needed {max(needed, 1)}. Add "
            f"images, choose another pair, or {remedy} {field}.",
            f"{found} {use} images of {what!r}, needed {max(needed, 1)}",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
