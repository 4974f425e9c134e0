"""What the reference left: its zoos, generators, test photographs and reported tables.

Two layouts are read. The ARCHIVE is a folder of arrays: ``zoo_black.npz``, ``zoo_cat.npz``,
``generators.npz``, ``test_images/{0,1}`` and, if there, ``reported_results.csv`` and
``reference_features.npz``. The REPOSITORY is the original's own: ``black_models/black_model_0000.pth`` and
so on, ``cat_models/``, the generators ``generator_A2B.pth``, ``generator_B2A.pth`` (first layer),
``2_generator_A2B.pth``, ``2_generator_B2A.pth`` (second) beside them, and ``GeneratedCNN_test/{0,1}``; the
two optional files are read there too.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kernelgan import interop, models
from kernelgan.data import folder
from kernelgan.types import Params, UserError
from studies.jain2024.protocol import CLUSTERERS

NETWORK = models.ConvNet()
IMAGE_SIZE = 32
CHANNELS = {"conv1": 3, "conv2": 6}
"""Input channels of each convolutional layer, which are the channels of its kernel sets."""
HIDDEN = 64
DIRECTIONS = {"a2b": "A2B", "b2a": "B2A"}
"""A is black, B is cat."""
DOMAINS = {"A": "b2a", "B": "a2b"}
"""The reference names a generated network by the domain that it was translated to."""

REPORTED_FILE = "reported_results.csv"
FEATURES_FILE = "reference_features.npz"
PRINTED = ("accuracy", "precision", "recall", "entropy", "purity")
_COLUMNS = (
    "clusterer", "model", "generated_domain",
    "accuracy", "precision_as_printed", "recall_as_printed", "entropy_as_printed", "purity_as_printed",
)  # fmt: skip

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are in one of the two layouts, by their paths in the folder.

    Attributes:
      name: of the layout.
      black: the attribute's zoo, a file or a folder of files.
      cat: the object's zoo.
      generators: one file of all four, or files by (layer, direction).
      images: the folder of ``0`` and ``1``.
    """

    name: str
    black: str
    cat: str
    generators: str | dict[tuple[str, str], str]
    images: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Everything that must be there."""
        files = (self.generators,) if isinstance(self.generators, str) else tuple(self.generators.values())
        return (self.black, self.cat, *files, f"{self.images}/0", f"{self.images}/1")


LAYOUTS = (
    Layout("archive", "zoo_black.npz", "zoo_cat.npz", "generators.npz", "test_images"),
    Layout(
        "repository",
        "black_models",
        "cat_models",
        {
            ("conv1", "a2b"): "generator_A2B.pth",
            ("conv1", "b2a"): "generator_B2A.pth",
            ("conv2", "a2b"): "2_generator_A2B.pth",
            ("conv2", "b2a"): "2_generator_B2A.pth",
        },
        "GeneratedCNN_test",
    ),
)


@dataclasses.dataclass(frozen=True)
class ReportedRow:
    """One row of the reference's report.

    Attributes:
      clusterer: one of `CLUSTERERS`.
      model: number of the network.
      domain: ``"A"``, black (translated from cat), or ``"B"``, cat (translated from black).
      printed: `PRINTED` as printed there.
    """

    clusterer: str
    model: int
    domain: str
    printed: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Check:
    """What an independent computation of one generated network gave.

    Attributes:
      model: number of the network.
      domain: see `ReportedRow`.
      kernels: by layer, ``(O, I, h, w)``.
      features: float32 ``(N, F)``.
    """

    model: int
    domain: str
    kernels: dict[str, np.ndarray]
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class Reference:
    """Everything that was read.

    Attributes:
      layout: which of `LAYOUTS`.
      black: the attribute's zoo, stacked, with the heads' two outputs in our order (no, yes).
      cat: the object's zoo.
      generators: for each layer and direction.
      images: uint8 ``(N, 32, 32, 3)``; the others first, then the black cats, each sorted by name.
      positive: bool ``(N,)``, the black cats.
      names: ``N`` paths in the folder of images.
      reported: rows of its report; empty where the file is not there.
      checks: networks to compare with; empty where the file is not there.
      checked_images: the preprocessed images of the checks, float32 ``(N, 3, 32, 32)``, in `names`' order.
      notes: what is missing or was left out.
      digest: SHA-256 of all of it.
    """

    layout: str
    black: Params
    cat: Params
    generators: dict[str, dict[str, Params]]
    images: np.ndarray
    positive: np.ndarray
    names: tuple[str, ...]
    reported: tuple[ReportedRow, ...]
    checks: tuple[Check, ...]
    checked_images: np.ndarray | None
    notes: tuple[str, ...]
    digest: str


def load(root: Path, progress: Progress) -> Reference:
    """Reads the reference's folder, whichever layout it has.

    Args:
      root: the folder.
      progress: told how many of the zoos' networks are read.

    Raises:
      UserError: it is neither layout, or a file is damaged or not what it should be.
    """
    layout = _layout(root)
    generators = _generators(root, layout)
    images, positive, names = _images(root / layout.images)
    reported = _reported(root)
    checks, checked_images = _checks(root, names)
    black, cat = (_zoo(root / part, progress) for part in (layout.black, layout.cat))
    notes = []
    if not reported:
        notes.append(f"{REPORTED_FILE} is not in {root}: the report's own figures cannot be put beside ours.")
    if not checks:
        notes.append(f"{FEATURES_FILE} is not in {root}: features are not checked against another program's.")
    digest = hashlib.sha256(images.tobytes() + repr((names, reported)).encode())
    for tree in (black, cat, generators):
        for array in _leaves(tree):
            digest.update(np.ascontiguousarray(array).tobytes())
    return Reference(
        layout=layout.name,
        black=black,
        cat=cat,
        generators=generators,
        images=images,
        positive=positive,
        names=names,
        reported=reported,
        checks=checks,
        checked_images=checked_images,
        notes=tuple(notes),
        digest=digest.hexdigest(),
    )


def _layout(root: Path) -> Layout:
    if not root.is_dir():
        raise UserError(
            f"reference.dir is {str(root)!r}, which is no directory. Expected the reference's data: "
            "--config.reference.dir=DIR (docs/reference.md says what lies in it)."
        )
    lacking = {layout.name: [p for p in layout.parts if not (root / p).exists()] for layout in LAYOUTS}
    for layout in LAYOUTS:
        if not lacking[layout.name]:
            return layout
    words = "; or ".join(
        f"the {name} layout, which lacks {', '.join(parts)}" for name, parts in lacking.items()
    )
    raise UserError(
        f"reference.dir is {str(root)!r}, which does not hold the reference's data. Expected {words}. "
        "docs/reference.md describes both."
    )


def _zoo(path: Path, progress: Progress) -> Params:
    """A zoo; the reference's class 0 is the concept, ours is class 1."""
    return interop.load_zoo(
        path, network=NETWORK, image_size=IMAGE_SIZE, positive=0, progress=progress
    ).params


def _generators(root: Path, layout: Layout) -> dict[str, dict[str, Params]]:
    found: dict[str, dict[str, Params]] = {layer: {} for layer in CHANNELS}
    arrays: dict[str, np.ndarray] = {}
    if isinstance(layout.generators, str):
        arrays = interop.read_arrays(root / layout.generators)
        known = {f"{layer}/{folder_name}" for layer in CHANNELS for folder_name in DIRECTIONS.values()}
        strange = sorted(name for name in arrays if name.rpartition("/")[0] not in known)
        if strange:
            raise UserError(
                f"{root / layout.generators} holds {', '.join(strange)}; expected arrays under "
                f"{', '.join(sorted(known))} only. Get the file anew."
            )
    for layer, channels in CHANNELS.items():
        for direction, capital in DIRECTIONS.items():
            if isinstance(layout.generators, str):
                prefix = f"{layer}/{capital}/"
                found[layer][direction] = interop.generator_from_torch(
                    {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)},
                    channels=channels,
                    hidden=HIDDEN,
                    source=f"{root / layout.generators}, {layer}/{capital}",
                )
            else:
                path = root / layout.generators[layer, direction]
                found[layer][direction] = interop.load_generator(path, channels=channels, hidden=HIDDEN)
    return found


def _images(root: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    files = [
        (path, kind)
        for kind in ("0", "1")
        for path in sorted((root / kind).iterdir())
        if path.is_file() and path.name[0] != "."
    ]
    images = []
    for path, _ in files:
        try:
            images.append(folder.read_image(path, IMAGE_SIZE))
        except Exception as error:
            raise UserError(
                f"{path} is no image that can be read ({error}). Expected photographs only; get it anew or "
                "take it out."
            ) from error
    positive = np.array([kind == "1" for _, kind in files], bool)
    if positive.sum() < 2 or (~positive).sum() < 2:
        raise UserError(
            f"{root} has {int(positive.sum())} photographs of black cats (1) and {int((~positive).sum())} of "
            "anything else (0); expected at least 2 of each."
        )
    return np.stack(images), positive, tuple(str(path.relative_to(root)) for path, _ in files)


def _reported(root: Path) -> tuple[ReportedRow, ...]:
    path = root / REPORTED_FILE
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = tuple(
            ReportedRow(
                row["clusterer"],
                int(row["model"]),
                row["generated_domain"],
                {name: float(row[_column(name)]) for name in PRINTED},
            )
            for row in rows
        )
    except (KeyError, ValueError, TypeError, OSError, csv.Error) as error:
        raise UserError(
            f"{path} is not the reference's table ({error}). Expected the columns {', '.join(_COLUMNS)}."
        ) from error
    strange = [
        f"{row.clusterer} of {row.domain}{row.model} with {row.printed}"
        for row in found
        if row.clusterer not in CLUSTERERS
        or row.domain not in DOMAINS
        or not all(
            0 <= value <= 1 or (name == "entropy" and 1 < value < np.inf)
            for name, value in row.printed.items()
        )
    ]
    keys = [(row.clusterer, row.model, row.domain) for row in found]
    strange += [f"{key} twice" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    if strange or not found:
        given = strange[0] if strange else "no row"
        raise UserError(f"{path} has {given}; expected rows of {', '.join(CLUSTERERS)} of domain A or B.")
    return found


def _column(name: str) -> str:
    return name if name == "accuracy" else f"{name}_as_printed"


def _checks(root: Path, names: tuple[str, ...]) -> tuple[tuple[Check, ...], np.ndarray | None]:
    path = root / FEATURES_FILE
    if not path.exists():
        return (), None
    arrays = interop.read_arrays(path)
    networks = sorted({name.partition("/")[0] for name in arrays if "/" in name})
    try:
        strange = [name for name in networks if name[0] not in ("A", "B")]
        if strange:
            raise ValueError(f"{strange[0]} is of neither domain, A or B")
        order = [list(map(str, arrays["files"])).index(name) for name in names]
        checks = tuple(
            Check(
                int(name[1:]),
                name[0],
                {layer: arrays[f"{name}/{layer}"] for layer in CHANNELS},
                arrays[f"{name}/features"][order],
            )
            for name in networks
        )
        return checks, arrays["images"][order]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} does not fit the photographs or lacks an array ({error}). Get it anew, or take it out."
        ) from error


def _leaves(tree: object) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    return [np.asarray(tree)]
