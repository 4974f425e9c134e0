"""Prepared TensorFlow Datasets, read without TensorFlow: photographs whose concepts are labelled or coloured.

A data set is a `DatasetSpec` in `SPECS`: its splits, the key of its image, and how a record tells which
attributes and objects hold. Features are those of the TFDS catalogue,
https://www.tensorflow.org/datasets/catalog/overview.

Only PREPARING a data set needs a network and TensorFlow; the message for one that is not prepared gives the
command. Here `tensorflow_datasets` is imported where it is used, for the import takes half a second.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kernelgan import files
from kernelgan.data import colour
from kernelgan.data.images import ImageSet, Progress, Source, cut_test, resize, silent
from kernelgan.types import UserError

Record = Mapping[str, Any]
_PROGRESS_EVERY = 1000


@dataclasses.dataclass(frozen=True)
class Concepts:
    """The attributes or the objects of a data set.

    Attributes:
      names: all that it knows.
      holds: ``(record, name) -> 1, 0 or -1`` (not known); None: names are colour terms, read off the pixels.
    """

    names: tuple[str, ...]
    holds: Callable[[Record, str], int] | None


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """How to read one TFDS builder.

    Attributes:
      attributes: its attributes.
      objects: its objects.
      train: the split that training images come from, a TFDS name or slice.
      test: the split of the test images; None: a fifth of `train`, by content hash.
      name_key: the key of a record's name; None: records are numbered.
      image_key: the key of its image.
    """

    attributes: Concepts
    objects: Concepts
    train: str = "train"
    test: str | None = "test"
    name_key: str | None = None
    image_key: str = "image"


def class_label(key: str, names: Sequence[str]) -> Concepts:
    """Concepts of which a record holds exactly one: the integer under `key` is an index into `names`."""
    return Concepts(tuple(names), lambda record, name: int(names[int(record[key])] == name))


def flags(key: str, names: Sequence[str]) -> Concepts:
    """Concepts that a record holds or not, by the booleans of the dict under `key`."""
    return Concepts(tuple(names), lambda record, name: int(record[key][name]))


COLOURS = Concepts(colour.TERMS, None)
"""Attributes of a data set that labels none: see `kernelgan.data.colour`."""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

PET_TYPES = {"dog": 1, "cat": 2}
PET_COLOURS = {"black": 1, "brown": 2, "golden": 3, "yellow": 4, "cream": 5, "gray": 6, "white": 7}

SHAPES = ("cube", "cylinder", "sphere", "capsule")
HUES = ("red", "orange", "lime", "green", "mint", "cyan", "azure", "blue", "purple", "pink")
"""The ten hues of shapes3d, 36 degrees apart, from red at 0."""

OXFORD_SPECIES = ("cat", "dog")
_BREEDS = """
    Abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle Bengal Birman Bombay boxer
    British_Shorthair chihuahua Egyptian_Mau english_cocker_spaniel english_setter german_shorthaired
    great_pyrenees havanese japanese_chin keeshond leonberger Maine_Coon miniature_pinscher newfoundland
    Persian pomeranian pug Ragdoll Russian_Blue saint_bernard samoyed scottish_terrier shiba_inu Siamese
    Sphynx staffordshire_bull_terrier wheaten_terrier yorkshire_terrier
"""
OXFORD_BREEDS = tuple(_BREEDS.split())

_FACES = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair
    Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair
    Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face
    Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair
    Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""
CELEB_A_ATTRIBUTES = tuple(_FACES.split())


def _pet_colour(record: Record, name: str) -> int:
    """1 a pet of this colour only, 0 of other colours, -1 of this and others: the order is not by size."""
    colours = {int(record["attributes"][f"Color{number}"]) for number in (1, 2, 3)} - {0}
    if PET_COLOURS[name] not in colours:
        return 0 if colours else -1
    return 1 if len(colours) == 1 else -1


def _pet_type(record: Record, name: str) -> int:
    return int(int(record["attributes"]["Type"]) == PET_TYPES[name])


def _oxford_object(record: Record, name: str) -> int:
    if name in OXFORD_SPECIES:
        return int(OXFORD_SPECIES[int(record["species"])] == name)
    return int(OXFORD_BREEDS[int(record["label"])] == name)


SPECS: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec(COLOURS, class_label("label", CIFAR10_CLASSES), name_key="id"),
    "pet_finder": DatasetSpec(
        Concepts(tuple(PET_COLOURS), _pet_colour),
        Concepts(tuple(PET_TYPES), _pet_type),
        name_key="image/filename",
    ),
    # One split of 480,000 renderings, shuffled: a slice is a random sample.
    "shapes3d": DatasetSpec(
        class_label("label_object_hue", HUES),
        class_label("label_shape", SHAPES),
        train="train[:60000]",
        test=None,
    ),
    "celeb_a": DatasetSpec(flags("attributes", CELEB_A_ATTRIBUTES), flags("attributes", CELEB_A_ATTRIBUTES)),
    "oxford_iiit_pet": DatasetSpec(
        COLOURS, Concepts((*OXFORD_SPECIES, *OXFORD_BREEDS), _oxford_object), name_key="file_name"
    ),
}


def load(
    name: str,
    *,
    data_dir: str = "",
    attributes: Sequence[str],
    objects: Sequence[str],
    image_size: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> Source:
    """Read a prepared TFDS data set.

    Args:
      name: a name in `SPECS`.
      data_dir: where it is prepared; "": ``$TFDS_DATA_DIR``, or TFDS's own default.
      attributes: names of attributes to label.
      objects: names of objects to label.
      image_size: pixels a side; images of another size are resized (bilinear, aspect not kept).
      seed: chooses the test images of a data set that has one split only; unused for the others.
      progress: told how many records are read, of how many.

    Raises:
      UserError: an unknown name, a package that is not installed, or a data set that is not prepared or is
        damaged.
    """
    if name not in SPECS:
        raise UserError(f"There is no data set {name!r}; known are {', '.join(SPECS)}. Mend data.tfds.name.")
    spec = SPECS[name]
    _check_known(attributes, spec.attributes, "attribute", name)
    _check_known(objects, spec.objects, "object", name)
    splits = {
        split: _records(name, split, data_dir) for split in (spec.train, spec.test) if split is not None
    }
    total, before = sum(len(records) for records in splits.values()), 0
    parts = []
    for split, records in splits.items():
        parts.append(
            image_set(
                spec,
                _read(records, name, split, data_dir),
                count=len(records),
                attributes=attributes,
                objects=objects,
                image_size=image_size,
                prefix=f"{name}/{split}",
                progress=_offset(progress, before, total),
            )
        )
        before += len(records)
    train, test = parts if spec.test is not None else cut_test(parts[0], f"test:{seed}")
    ruled = tuple(attributes) if spec.attributes.holds is None else ()
    return Source(name=f"tfds:{name}", train=train, test=test, ruled=ruled)


def image_set(
    spec: DatasetSpec,
    records: Iterable[Record],
    *,
    count: int,
    attributes: Sequence[str],
    objects: Sequence[str],
    image_size: int,
    prefix: str,
    progress: Progress = silent,
) -> ImageSet:
    """Labelled images from decoded records, in their order.

    Args:
      spec: how to read a record.
      records: dicts of the features; images are uint8 ``(H, W, 3)``, any size.
      count: how many records there are, ``N``.
      attributes: names of attributes to label.
      objects: names of objects to label.
      image_size: pixels a side.
      prefix: goes before each image's name.
      progress: told how many records are read, of `count`.

    Returns:
      ``N`` images of ``(image_size, image_size, 3)``.

    Raises:
      UserError: a record lacks a feature, so the data set is another than the catalogue's.
    """
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    attribute_labels = {name: np.empty(count, np.int8) for name in attributes}
    object_labels = {name: np.empty(count, np.int8) for name in objects}
    names = []
    for index, record in enumerate(records):
        try:
            images[index] = resize(record[spec.image_key], image_size)
            for concepts, labels in ((spec.attributes, attribute_labels), (spec.objects, object_labels)):
                if concepts.holds is not None:
                    for name, values in labels.items():
                        values[index] = concepts.holds(record, name)
            names.append(f"{prefix}/{_text(record[spec.name_key]) if spec.name_key else index}")
        except KeyError as error:
            raise UserError(
                f"A record of {prefix} lacks the feature {error}; it has {', '.join(record)}. Prepare the "
                "version of the data set that the TFDS catalogue describes."
            ) from error
        if (index + 1) % _PROGRESS_EVERY == 0 or index + 1 == count:
            progress(index + 1, count)
    for concepts, labels in ((spec.attributes, attribute_labels), (spec.objects, object_labels)):
        if concepts.holds is None:
            held = colour.holds(images)
            labels.update({name: held[name] for name in labels})
    return ImageSet(images, attribute_labels, object_labels, tuple(names), np.zeros(count, bool))


def prepare_command(name: str, data_dir: str) -> str:
    """The shell command that downloads a data set and prepares it for random access."""
    where = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    return f"pip install tensorflow && tfds build {name}{where} --file_format=array_record"


def _check_known(names: Sequence[str], concepts: Concepts, kind: str, dataset: str) -> None:
    for name in names:
        if name not in concepts.names:
            raise UserError(
                f"The data set {dataset} has no {kind} {name!r}; it has {', '.join(concepts.names)}. "
                f"Mend pairs.{kind}s."
            )


def _records(name: str, split: str, data_dir: str) -> Sequence[Record]:
    """Random access to the decoded records of a prepared split."""
    where = data_dir or os.environ.get("TFDS_DATA_DIR", "")
    where = where and str(files.given_path(where, "data.tfds.data_dir or TFDS_DATA_DIR"))
    try:
        import tensorflow_datasets as tfds

        logging.getLogger("absl").addFilter(_no_advice)
        return tfds.data_source(name, split=split, data_dir=where or None, download=False)
    except ImportError as error:
        raise UserError(
            f"Reading the data set {name} needs the package {error.name or error}, which is not installed. "
            "Run: pip install tensorflow-datasets array_record importlib_resources"
        ) from error
    except (NotImplementedError, AssertionError, KeyError, OSError, ValueError) as error:
        # NotImplementedError is what TFDS raises where nothing, or another file format, is prepared, and
        # KeyError where its own default folder is not there.
        of_tfds = isinstance(error, (NotImplementedError, KeyError))
        reason = "" if of_tfds else f" ({str(error).partition(chr(10))[0]})"
        raise UserError(
            f"The data set {name} is not prepared for random access in {where or 'the folder of TFDS'}"
            f"{reason}. Set data.tfds.data_dir or TFDS_DATA_DIR to where it is, or prepare it, which takes "
            f"a network and TensorFlow: {prepare_command(name, where)}"
        ) from error


def _no_advice(record: logging.LogRecord) -> bool:
    """Drops TFDS's advice to install OpenCV: the images are the same, and read in seconds."""
    return "OpenCV is not installed" not in str(record.msg)


def _read(records: Sequence[Record], name: str, split: str, data_dir: str) -> Iterator[Record]:
    """The records in their order; the file behind them may be cut or damaged, which only reading shows."""
    for number in range(len(records)):
        try:
            record = records[number]
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            info = getattr(records, "dataset_info", None)
            where = getattr(info, "data_dir", None) or data_dir or "the folder of TFDS"
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"Record {number} of {len(records)} of {name}/{split} cannot be read from {where} "
                f"({reason}). A file of that split is missing, cut or damaged. Copy it anew, or delete "
                f"{where} and prepare it again: {prepare_command(name, data_dir)}"
            ) from error
        yield record


def _offset(progress: Progress, before: int, total: int) -> Progress:
    """A callback for one of several splits that reports on all of them."""
    return lambda done, _: progress(before + done, total)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
