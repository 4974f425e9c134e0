"""The original's data: its zoos, generators, test photographs and reported tables.

Two layouts are read. The ARCHIVE is a folder of arrays: ``zoo_black.npz``, ``zoo_cat.npz``,
``generators.npz`` and ``test_images/{0,1}``. The REPOSITORY is the original's own:
``black_models/black_model_0000.pth`` and so on, ``cat_models/``, the generators ``generator_A2B.pth``,
``generator_B2A.pth`` (first layer), ``2_generator_A2B.pth``, ``2_generator_B2A.pth`` (second) beside them,
and ``GeneratedCNN_test/{0,1}``. Either may hold ``reported_results.csv`` too.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from kernelgan import interop, models
from kernelgan.data import photographs
from kernelgan.types import Params, UserError
from studies.jain2024.protocol import CLUSTERERS

NETWORK = models.ConvNet()
IMAGE_SIZE = 32
CHANNELS = {"conv1": 3, "conv2": 6}
"""Input channels of each convolutional layer, which are the channels of its kernel sets."""
LAYERS = tuple(CHANNELS)
HIDDEN = 64
DIRECTIONS = {"a2b": "A2B", "b2a": "B2A"}
"""A is black, B is cat."""
DOMAINS = {"A": "b2a", "B": "a2b"}
"""The original names a network by the domain that it was translated to: A, from cat, or B, from black."""

REPORTED_FILE = "reported_results.csv"
PRINTED = ("accuracy", "precision", "recall", "entropy", "purity")
_COLUMNS = {name: name if name == "accuracy" else f"{name}_as_printed" for name in PRINTED}

_FILES = {
    (layer, direction): f"{prefix}generator_{capital}.pth"
    for layer, prefix in (("conv1", ""), ("conv2", "2_"))
    for direction, capital in DIRECTIONS.items()
}
_LAYOUTS = {
    "archive": ("zoo_black.npz", "zoo_cat.npz", "test_images", "generators.npz"),
    "repository": ("black_models", "cat_models", "GeneratedCNN_test", *_FILES.values()),
}
"""What each layout must have: zoos, photographs (``0`` and ``1`` in that folder), generators."""

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ReportedRow:
    """One row of the original's report, of a network's number and domain (see `DOMAINS`)."""

    clusterer: str
    model: int
    domain: str
    printed: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Reference:
    """The original's data. Of the zoos' heads the outputs are in our order (no, yes)."""

    layout: str  # "archive" or "repository"
    black: Params  # the attribute's zoo, stacked
    cat: Params  # the object's zoo
    generators: dict[str, dict[str, Params]]  # by layer and direction
    images: np.ndarray  # uint8 (N, 32, 32, 3); the others first, then the black cats, each sorted by name
    positive: np.ndarray  # bool (N,), the black cats
    names: tuple[str, ...]  # N paths in the folder of images
    reported: tuple[ReportedRow, ...]  # empty where the file is missing
    digest: str  # SHA-256 of all that decides figures

    @property
    def pairs(self) -> int:
        """Networks that each domain has: as many as the smaller zoo (1,749 of the published weights)."""
        return min(len(zoo["dense"]["bias"]) for zoo in (self.black, self.cat))


def load(root: Path, progress: Progress) -> Reference:
    """Reads the original's folder, whichever layout it has.

    Args:
      root: the folder.
      progress: receives how many of a zoo's networks are read.

    Raises:
      UserError: it has neither layout, or a file is damaged or not what it should be.
    """
    layout = _layout(root)
    paths = [root / part for part in _LAYOUTS[layout]]
    generators = _archived_generators(paths[3]) if layout == "archive" else _generators(root)
    images, positive, names = _images(paths[2])
    reported = _reported(root / REPORTED_FILE)
    black, cat = (_zoo(path, progress) for path in paths[:2])
    digest = hashlib.sha256(images.tobytes() + repr((names, reported)).encode())
    for array in jax.tree.leaves((black, cat, generators)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return Reference(layout, black, cat, generators, images, positive, names, reported, digest.hexdigest())


def _layout(root: Path) -> str:
    if not root.is_dir():
        raise UserError(f"--dir={root} is no directory; expected the original's data (docs/jain2024.md).")
    lacks = []
    for name, (black, cat, images, *generators) in _LAYOUTS.items():
        parts = (black, cat, *generators, f"{images}/0", f"{images}/1")
        missing = [part for part in parts if not (root / part).exists()]
        if not missing:
            return name
        lacks.append(f"the {name} layout, which lacks {', '.join(missing)}")
    raise UserError(
        f"--dir={root} does not hold the original's data. Expected {'; or '.join(lacks)}. docs/jain2024.md "
        "describes both."
    )


def _zoo(path: Path, progress: Progress) -> Params:
    """A zoo; the original's class 0 is the concept, ours is class 1."""
    return interop.load_zoo(
        path, network=NETWORK, image_size=IMAGE_SIZE, positive=0, progress=progress
    ).params


def _generators(root: Path) -> dict[str, dict[str, Params]]:
    files = {place: root / file for place, file in _FILES.items()}
    return {
        layer: {
            way: generator_from_torch(
                interop.read_arrays(files[layer, way]), channels, str(files[layer, way])
            )
            for way in DIRECTIONS
        }
        for layer, channels in CHANNELS.items()
    }


def generator_from_torch(arrays: Mapping[str, np.ndarray], channels: int, source: str) -> Params:
    """PyTorch's arrays of a kernel generator as float32 parameters of a `models.KernelGenerator`.

    Args:
      arrays: ``main.0.weight`` (hidden, C, 3, 3, 3), ``main.0.bias`` (hidden,), ``main.2.weight``
        (C, hidden, 3, 3, 3), ``main.2.bias`` (C,).
      channels: input channels ``C`` of the layer whose kernels it translates.
      source: where they are from, for messages.

    Raises:
      UserError: names what is missing, not expected, of another shape or type, or not finite.
    """
    shapes = {"main.0.weight": (HIDDEN, channels, 3, 3, 3), "main.0.bias": (HIDDEN,)}
    shapes |= {"main.2.weight": (channels, HIDDEN, 3, 3, 3), "main.2.bias": (channels,)}
    problems = [f"{name} is not expected" for name in arrays if name not in shapes]
    for name, shape in shapes.items():
        if name not in arrays:
            problems.append(f"{name} is missing")
        elif arrays[name].shape != shape or arrays[name].dtype.kind != "f":
            given = f"{arrays[name].dtype} {arrays[name].shape}"
            problems.append(f"{name} is {given}, expected floating point {shape}")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{name} is not finite")
    if problems:
        raise UserError(f"{source} does not fit: {'; '.join(problems)}. Get it anew.")
    values = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    return {
        ours: {
            "kernel": np.ascontiguousarray(np.moveaxis(values[f"{theirs}.weight"], (1, 0), (-2, -1))),
            "bias": values[f"{theirs}.bias"],
        }
        for ours, theirs in (("encode", "main.0"), ("decode", "main.2"))
    }


def _archived_generators(path: Path) -> dict[str, dict[str, Params]]:
    own: dict[str, dict[str, np.ndarray]] = {
        f"{la}/{way}": {} for la in LAYERS for way in DIRECTIONS.values()
    }
    for name, array in interop.read_arrays(path).items():
        prefix = "/".join(name.split("/")[:2])
        if prefix not in own:
            raise UserError(f"{path} holds {name}; expected arrays under {', '.join(own)}. Get it anew.")
        own[prefix][name[len(prefix) + 1 :]] = array
    return {
        layer: {
            way: generator_from_torch(own[f"{layer}/{capital}"], channels, f"{path}, {layer}/{capital}")
            for way, capital in DIRECTIONS.items()
        }
        for layer, channels in CHANNELS.items()
    }


def _images(root: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    files = [
        path
        for kind in ("0", "1")
        for path in sorted((root / kind).iterdir())
        if path.is_file() and path.name[0] != "."
    ]
    images = []
    for path in files:
        try:
            images.append(photographs.read_image(path, IMAGE_SIZE))
        except Exception as error:
            raise UserError(f"{path} is no readable image ({error}). Get it anew or take it out.") from error
    positive = np.array([path.parent.name == "1" for path in files], bool)
    if positive.sum() < 2 or (~positive).sum() < 2:
        raise UserError(
            f"{root} has {int(positive.sum())} photographs of black cats (1) and {int((~positive).sum())} of "
            "anything else (0); expected at least 2 of each."
        )
    return np.stack(images), positive, tuple(str(path.relative_to(root)) for path in files)


def _reported(path: Path) -> tuple[ReportedRow, ...]:
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = tuple(
                ReportedRow(
                    row["clusterer"],
                    int(row["model"]),
                    row["generated_domain"],
                    {name: float(row[column]) for name, column in _COLUMNS.items()},
                )
                for row in csv.DictReader(file)
            )
    except (KeyError, ValueError, TypeError, OSError, csv.Error) as error:
        expected = ", ".join(("clusterer", "model", "generated_domain", *_COLUMNS.values()))
        raise UserError(
            f"{path} is not the original's table ({error}). Expected the columns {expected}."
        ) from error
    problems = [
        f"{row.clusterer} of {row.domain}{row.model} with {row.printed}"
        for row in rows
        if row.clusterer not in CLUSTERERS
        or row.domain not in DOMAINS
        or not all(
            0 <= value <= (np.finfo(float).max if name == "entropy" else 1)
            for name, value in row.printed.items()
        )
    ]
    keys = [(row.clusterer, row.model, row.domain) for row in rows]
    problems += [f"{key} twice" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    if problems or not rows:
        given = problems[0] if problems else "no row"
        raise UserError(f"{path} has {given}; expected rows of {', '.join(CLUSTERERS)} of domain A or B.")
    return rows
