"""Every source behind one call, and a picture of what they give."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernelgan import files
from kernelgan.data import complements, folder, quadrants, rendered, tfds
from kernelgan.data.images import Progress, Source, silent
from kernelgan.types import Config, Quadrant, UserError

_SHEET_COLUMNS = 12


class Kind(NamedTuple):
    """A source.

    Attributes:
      load: makes the images; it is handed ``attributes``, ``objects``, ``image_size``, ``progress`` and
        ``seed`` by name, those that it takes, and its options.
      options: what it takes beside, read off ``config.data``.
      files: of one that reads files, the field that names a file or directory, the path, and the directory in
        it that counts ("": all); so that a finished run notices other files.
      imports_alone: whether no other thread may import while it loads.
    """

    load: Callable[..., Source]
    options: Callable[[Any], dict[str, Any]]
    files: Callable[[Any], tuple[str, str, str]] | None = None
    imports_alone: bool = False


SOURCES: dict[str, Kind] = {
    "rendered": Kind(rendered.load, lambda data: {"train": data.rendered.train, "test": data.rendered.test}),
    "tfds": Kind(
        tfds.load,
        lambda data: {"name": data.tfds.name, "data_dir": data.tfds.data_dir},
        lambda data: (
            "data.tfds.data_dir",
            data.tfds.data_dir or os.environ.get("TFDS_DATA_DIR", ""),
            data.tfds.name,
        ),
        imports_alone=True,  # while TFDS is imported it exchanges `__import__` for all threads
    ),
    "folder": Kind(
        folder.load,
        lambda data: {"path": data.folder, "broken_share": data.broken_share},
        lambda data: ("data.folder", data.folder, ""),
    ),
}
"""By the name in ``config.data.source``."""


def load(
    source: str,
    *,
    attributes: Sequence[str],
    objects: Sequence[str],
    seed: int = 0,
    image_size: int = 32,
    progress: Progress = silent,
    **options: Any,  # noqa: ANN401
) -> Source:
    """Loads labelled images.

    Args:
      source: a name in `SOURCES`.
      attributes: names of the attributes that are composed, such as ``("black",)``; "not black" is the
        complement, see `kernelgan.data.complements`.
      objects: names of the objects that they are composed with.
      seed: of the rendered images, and of the test images of a TFDS data set that has one split; unused for a
        folder.
      image_size: pixels a side; images of another size are resized (bilinear, aspect not kept).
      progress: told now and then how many images are done, of how many.
      **options: of the source: ``train`` and ``test``, numbers of images, see `rendered.load`; ``name`` and
        ``data_dir``, see `tfds.load`; ``path`` and ``broken_share``, see `folder.load`.

    Raises:
      UserError: an unknown source or option, or whatever is wrong with the data.
    """
    if source not in SOURCES:
        raise UserError(f"The source is {source!r}; expected one of {', '.join(map(repr, SOURCES))}.")
    for kind, names in (("attributes", attributes), ("objects", objects)):
        if isinstance(names, str):
            raise UserError(f"{kind} is the string {names!r}; expected a tuple of names: ({names!r},).")
    given: dict[str, Any] = {
        "attributes": complements.bases(attributes),
        "objects": complements.bases(objects),
        "image_size": image_size,
        "progress": progress,
    }
    loader = SOURCES[source].load
    parameters = inspect.signature(loader).parameters
    if "seed" in parameters:
        given["seed"] = seed
    known = [name for name in parameters if name not in given]
    needed = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    wrong = [name for name in options if name not in known]
    missing = [name for name in needed if name not in options]
    if wrong or missing:
        problem = f"has no option {', '.join(wrong)}" if wrong else f"needs the option {', '.join(missing)}"
        raise UserError(f"The source {source!r} {problem}; its options are {', '.join(known)}.")
    return complements.label(loader(**given, **options), attributes, objects)


def fingerprint(config: Config) -> str:
    """Names, sizes and dates of the files that `load_source` would read, without reading them.

    Where it is the same as after a finished run, so are the images; where it is not, their content decides.
    "" where there are no files.
    """
    read = SOURCES[config.data.source].files
    field, given, part = read(config.data) if read else ("", "", "")
    return files.stamp(files.given_path(given, field), part) if given else ""


def check_files(config: Config) -> None:
    """Refuses a folder that is not there, long before `load_source` would."""
    if config.data.source == "folder":
        folder.directory(config.data.folder)


def load_source(config: Config, progress: Progress) -> Source:
    """Loads the images that ``config.data`` names, labelled for the concepts of ``config.pairs``.

    Raises:
      UserError: whatever is wrong with the data.
    """
    data, pairs = config.data, config.pairs
    return load(
        data.source,
        attributes=pairs.attributes,
        objects=pairs.objects,
        seed=config.seed,
        image_size=data.image_size,
        progress=progress,
        **SOURCES[data.source].options(data),
    )


def contact_sheet(
    config: Config, source: Source, pair: quadrants.PairSplit
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """What the images look like: every object in every colour, or some test images of each quadrant.

    Returns:
      uint8 ``(rows, columns, H, W, 3)``, the rows' names and the columns' names.
    """
    if config.data.source == "rendered":
        return rendered.contact_sheet(config.seed, config.data.image_size)
    rows, names = [], []
    for quadrant in Quadrant:
        found = np.flatnonzero(pair.test == quadrant)
        if len(found):
            rows.append(source.test.images[np.resize(found, _SHEET_COLUMNS)])
            names.append(f"{pair.name}: {quadrant.label}")
    return np.stack(rows), tuple(names), tuple(str(column + 1) for column in range(_SHEET_COLUMNS))
