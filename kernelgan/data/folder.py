"""Photographs in a directory: the reference's layout of sub-folders, or any files that a CSV labels.

The layout, for the attribute ``black`` and the object ``cat``:

    black/black     hold the attribute and lack the object        cat/cat      the other way round
    black/random    lack both                                     cat/random   lack both
    test/1          hold both                                     test/0       anything else
    train/1         optional: hold both, for trained_on_conjunction only
    test/0/attribute_only, test/0/object_only, test/0/neither      optional: name the quadrant

or ``images.csv`` in the directory, which then says everything: columns ``path`` (below the directory),
``attribute`` and ``object`` (the concept held, several separated by ``|``, empty for none) and optionally
``split`` (``train`` or ``test``). Without ``split`` a fifth of the images, by content, is the test set.

Files are known by their content, not their extension. Hidden files are ignored; files that are no images
are ignored and noted; broken images are skipped up to a share, and noted.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from kernelgan.data.images import ImageSet, Progress, Source, cut_test, resize, silent, take
from kernelgan.types import UserError

CSV_NAME = "images.csv"
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
"""Files, in lower case, that operating systems leave in folders of pictures."""
CONJUNCTION_ONLY = "The folder has no train/1: the reference (trained_on_conjunction) cannot be trained."
_LISTED = 20
_PROGRESS_EVERY = 50


@dataclasses.dataclass(frozen=True)
class _File:
    """A file and what is known of it before it is opened."""

    path: Path
    name: str
    attributes: dict[str, int]
    objects: dict[str, int]
    is_test: bool | None
    rest: bool = False
    is_listed: bool = False


def load(
    path: str | Path,
    *,
    attributes: Sequence[str],
    objects: Sequence[str],
    image_size: int = 32,
    broken_share: float = 0.05,
    progress: Progress = silent,
) -> Source:
    """Read a directory of photographs.

    Args:
      path: a directory in the layout above or with an ``images.csv``.
      attributes: names of the attributes; the layout of sub-folders takes exactly one.
      objects: names of the objects; the layout takes exactly one.
      image_size: pixels a side; images are resized (bilinear, aspect not kept).
      broken_share: largest share of the image files that may be unreadable.
      progress: told how many files are read, of how many.

    Returns:
      The training and test images; its notes name the files that were skipped.

    Raises:
      UserError: the directory, a sub-folder, the CSV or too many files are not as they should be.
    """
    root = Path(path).expanduser()
    if not str(path):
        raise UserError("data.folder is empty; give it the directory that holds the photographs.")
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(
            f"The directory of photographs {str(root)!r} {what}; expected a directory with {CSV_NAME} or "
            "with sub-folders. Mend data.folder."
        )
    from_csv = (root / CSV_NAME).is_file()
    files = _csv_files(root, attributes, objects) if from_csv else _layout_files(root, attributes, objects)
    images, is_test, notes = _read(files, attributes, objects, image_size, broken_share, progress)
    if not from_csv and not (root / "train" / "1").is_dir():
        notes.append(CONJUNCTION_ONLY)
    train, test = (
        cut_test(images, "test") if is_test is None else (take(images, ~is_test), take(images, is_test))
    )
    for part, part_name in ((train, "training"), (test, "test")):
        if not len(part):
            raise UserError(f"{str(root)!r} has no {part_name} images; add some (see {CSV_NAME}: split).")
    return Source(name=f"folder:{root.name}", train=train, test=test, notes=tuple(notes))


def read_image(path: str | Path, image_size: int) -> np.ndarray:
    """Decode one photograph of any Pillow format and mode, turned upright by its EXIF orientation.

    Args:
      path: of the file.
      image_size: pixels a side of the result.

    Returns:
      uint8 ``(image_size, image_size, 3)``.

    Raises:
      Exception: whatever Pillow raises for a file that is no image, is broken or truncated, or is so large
        that it may be a decompression bomb.
    """
    with Image.open(path) as image:
        pixels = image.width * image.height
        if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError(f"{pixels} pixels")
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "I" or upright.mode.startswith("I;16"):  # 16-bit greyscale; Pillow would clip it
            upright = Image.fromarray(np.clip(np.asarray(upright) // 257, 0, 255).astype(np.uint8))
        return resize(upright, image_size)


def _layout_files(root: Path, attributes: Sequence[str], objects: Sequence[str]) -> list[_File]:
    """The files of the reference's layout."""
    if len(attributes) != 1 or len(objects) != 1 or attributes[0] == objects[0]:
        raise UserError(
            "A directory of sub-folders holds one pair of an attribute and another object; given were the "
            f"attributes {', '.join(attributes)} and the objects {', '.join(objects)}. Name one of each in "
            f"pairs, or label the files in {CSV_NAME}."
        )
    attribute, object_name = attributes[0], objects[0]
    folders = {  # sub-folder: attribute, object, of the test set, rest
        f"{attribute}/{attribute}": (1, 0, False, False),
        f"{attribute}/random": (0, 0, False, False),
        f"{object_name}/{object_name}": (0, 1, False, False),
        f"{object_name}/random": (0, 0, False, False),
        "test/1": (1, 1, True, False),
        "test/0": (-1, -1, True, True),
    }
    missing = [folder for folder in folders if not (root / folder).is_dir()]
    if missing:
        raise UserError(
            f"{str(root)!r} lacks the sub-folder(s) {', '.join(missing)}. Expected either {CSV_NAME} or the "
            f"sub-folders {', '.join(folders)}. Add them, or mend data.folder or pairs."
        )
    optional = {
        "train/1": (1, 1, False, False),
        "test/0/attribute_only": (1, 0, True, False),
        "test/0/object_only": (0, 1, True, False),
        "test/0/neither": (0, 0, True, False),
    }
    folders |= {folder: labels for folder, labels in optional.items() if (root / folder).is_dir()}
    files = []
    for folder, (has_attribute, has_object, is_test, rest) in folders.items():
        paths = _visible(root / folder)
        inner = [path for path in paths if path.is_dir() and f"{folder}/{path.name}" not in folders]
        if inner:
            raise UserError(
                f"The folder {folder} of {str(root)!r} holds the sub-folder {inner[0].name!r}, which means "
                "nothing here; only test/0 may hold some: attribute_only, object_only and neither. Move its "
                "files up or out."
            )
        found = [path for path in paths if path.is_file()]
        if not found and folder not in ("test/0", *optional):
            raise UserError(f"The folder {folder} of {str(root)!r} is empty; put images there.")
        labels = ({attribute: has_attribute}, {object_name: has_object}, is_test, rest)
        files += [_File(path, f"{folder}/{path.name}", *labels) for path in found]
    return files


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden and system files."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES
    )


def _csv_files(root: Path, attributes: Sequence[str], objects: Sequence[str]) -> list[_File]:
    """The files that ``images.csv`` names."""
    rows = _csv_rows(root / CSV_NAME)
    held = {kind: [_concepts(row[kind]) for row in rows] for kind in ("attribute", "object")}
    for kind, wanted in (("attribute", attributes), ("object", objects)):
        known = set().union(*held[kind])
        for concept in wanted:
            if concept not in known:
                raise UserError(
                    f"No image of {str(root / CSV_NAME)!r} holds the {kind} {concept!r}; its {kind}s are "
                    f"{', '.join(sorted(known)) or 'none'}. Mend pairs.{kind}s or the column {kind}."
                )
    seen: set[str] = set()
    files = []
    for row, has_attributes, has_objects in zip(rows, held["attribute"], held["object"], strict=True):
        where = f"{str(root / CSV_NAME)!r}, line {row['line']}"
        name = _csv_path(root, row["path"], where)
        if name in seen:
            raise UserError(f"{where}: {name!r} is named twice. Merge the two lines.")
        seen.add(name)
        files.append(
            _File(
                path=root / name,
                name=name,
                attributes={concept: int(concept in has_attributes) for concept in attributes},
                objects={concept: int(concept in has_objects) for concept in objects},
                is_test=_csv_split(row["split"], where) if "split" in row else None,
                is_listed=True,
            )
        )
    return files


def _csv_rows(where: Path) -> list[dict[str, str]]:
    """The lines of the file: column -> stripped text, and ``line`` -> the line's number."""
    try:
        with where.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [
                {column: row[column].strip() for column in columns} | {"line": str(reader.line_num)}
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{str(where)!r} cannot be read ({error}); expected comma-separated UTF-8."
        ) from error
    missing = {"path", "attribute", "object"} - set(columns)
    if missing:
        raise UserError(
            f"{str(where)!r} lacks the column(s) {', '.join(sorted(missing))}; its first line names "
            f"{', '.join(columns) or 'nothing'}. Expected path, attribute, object and optionally split."
        )
    if not rows:
        raise UserError(f"{str(where)!r} names no images; add a line for each.")
    return rows


def _concepts(cell: str) -> set[str]:
    return {concept.strip() for concept in cell.split("|")} - {""}


def _csv_path(root: Path, given: str, where: str) -> str:
    """The path of a line, normalised; it must name a file below the directory."""
    name = os.path.normpath(given)
    if not given or Path(name).is_absolute() or os.pardir in Path(name).parts[:1]:
        raise UserError(
            f"{where}: the path {given!r} is not below {str(root)!r}. Give a path relative to it."
        )
    if not (root / name).is_file():
        raise UserError(f"{where}: there is no file {given!r} in {str(root)!r}. Add it or remove the line.")
    return name


def _csv_split(part: str, where: str) -> bool:
    if part not in ("train", "test"):
        raise UserError(f"{where}: split is {part!r}; expected train or test.")
    return part == "test"


def _read(
    files: Sequence[_File],
    attributes: Sequence[str],
    objects: Sequence[str],
    image_size: int,
    broken_share: float,
    progress: Progress,
) -> tuple[ImageSet, np.ndarray | None, list[str]]:
    """Decode the files; the images, whether each is of the test set (None: not said), and notes."""
    decoded: list[np.ndarray] = []
    kept: list[_File] = []
    broken: list[str] = []
    not_images: list[str] = []
    with concurrent.futures.ThreadPoolExecutor() as pool:  # Pillow decodes without the interpreter's lock
        results = pool.map(lambda file: _try_read(file.path, image_size), files)
        for done, (file, result) in enumerate(zip(files, results, strict=True), start=1):
            if isinstance(result, np.ndarray):
                decoded.append(result)
                kept.append(file)
            elif file.is_listed or _is_meant_as_image(file.path):
                broken.append(f"{file.name} ({result})")
            else:
                not_images.append(file.name)
            if done % _PROGRESS_EVERY == 0 or done == len(files):
                progress(done, len(files))
    total = len(decoded) + len(broken)
    if not decoded:
        raise UserError(
            f"None of the {len(files)} files can be read as an image: {_listed(broken + not_images)}. "
            "Put photographs there."
        )
    if len(broken) > broken_share * total:
        raise UserError(
            f"{len(broken)} of {total} images cannot be read, more than data.broken_share = {broken_share:g} "
            f"allows: {_listed(broken)}. Replace or remove them, or raise data.broken_share."
        )
    notes = []
    if broken:
        notes.append(f"{len(broken)} of {total} images cannot be read and were skipped: {_listed(broken)}.")
    if not_images:
        notes.append(f"{len(not_images)} files are no images and were ignored: {_listed(not_images)}.")
    images = ImageSet(
        images=np.stack(decoded),
        attributes={name: np.array([file.attributes[name] for file in kept], np.int8) for name in attributes},
        objects={name: np.array([file.objects[name] for file in kept], np.int8) for name in objects},
        names=tuple(file.name for file in kept),
        rest=np.array([file.rest for file in kept], bool),
    )
    is_test = None if kept[0].is_test is None else np.array([file.is_test for file in kept], bool)
    return images, is_test, notes


def _try_read(path: Path, image_size: int) -> np.ndarray | str:
    """The image, or in a few words why it cannot be read."""
    try:
        return read_image(path, image_size)
    except Image.UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # decoders of broken files raise anything
        return f"{type(error).__name__}: {error}"


def _is_meant_as_image(path: Path) -> bool:
    """Whether a file that cannot be read is a broken image (by its extension, or for want of one)."""
    extension = path.suffix.lower()
    return not extension or extension in Image.registered_extensions()


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
