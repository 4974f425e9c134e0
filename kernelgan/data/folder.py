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
are ignored and noted; broken images are skipped up to a share, and noted. Files of equal content are one
image with the labels of all of them. Names may be written in any Unicode form.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import errno
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kernelgan import files as files_lib
from kernelgan.data import photographs
from kernelgan.data.images import ImageSet, Progress, Source, content_hashes, cut_test, silent, take
from kernelgan.types import UserError

CSV_NAME = "images.csv"
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
"""Files, in lower case, that operating systems leave in folders of pictures."""
CONJUNCTION_ONLY = (
    "The folder has no train/1, which is optional: images of the conjunction, for the reference row "
    "(trained_on_conjunction) only. Without it that row is left out."
)
_LISTED = 20
_LISTED_COPIES = 3
_PROGRESS_EVERY = 50


@dataclasses.dataclass(frozen=True)
class _File:
    """A file and what is known of it before it is opened; `attributes` and `objects` are what it holds."""

    path: Path
    name: str
    attributes: frozenset[str]
    objects: frozenset[str]
    is_test: bool | None
    rest: bool = False
    is_listed: bool = False

    def label(self, concept: str, held: frozenset[str]) -> int:
        """1, 0, or -1 where it is not known."""
        return -1 if self.rest else int(_nfc(concept) in held)


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
    root = directory(path)
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


def directory(path: str | Path) -> Path:
    """The directory of photographs.

    Raises:
      UserError: there is no such directory.
    """
    if not str(path):
        raise UserError("data.folder is empty; give it the directory that holds the photographs.")
    root = files_lib.given_path(path, "data.folder")
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(
            f"The directory of photographs {str(root)!r} {what}; expected a directory with {CSV_NAME} or "
            f"with sub-folders. Mend data.folder.{files_lib.nearest(root.name, _folders(root.parent))}"
        )
    return root


def _layout_files(root: Path, attributes: Sequence[str], objects: Sequence[str]) -> list[_File]:
    """The files of the reference's layout."""
    if len(attributes) != 1 or len(objects) != 1 or attributes[0] == objects[0]:
        raise UserError(
            "A directory of sub-folders holds one pair of an attribute and another object; given were the "
            f"attributes {', '.join(attributes)} and the objects {', '.join(objects)}. Name one of each in "
            f"pairs, or label the files in {CSV_NAME}."
        )
    attribute, object_name = attributes[0], objects[0]
    both = (attribute, object_name)
    folders: dict[str, tuple[tuple[str, ...], bool, bool]] = {  # sub-folder: what it holds, of the test, rest
        f"{attribute}/{attribute}": ((attribute,), False, False),
        f"{attribute}/random": ((), False, False),
        f"{object_name}/{object_name}": ((object_name,), False, False),
        f"{object_name}/random": ((), False, False),
        "test/1": (both, True, False),
        "test/0": ((), True, True),
    }
    at = {folder: _existing(root, folder) for folder in folders}
    missing = [folder for folder, path in at.items() if not path.is_dir()]
    if missing:
        near = dict.fromkeys(
            files_lib.nearest(path.name, _folders(path.parent))
            for folder in missing
            for path in (at[folder].parent, at[folder])
            if not path.is_dir()
        )
        raise UserError(
            f"{str(root)!r} lacks the sub-folder(s) {', '.join(missing)}. Expected either {CSV_NAME} or the "
            f"sub-folders {', '.join(folders)}. Add them, or mend data.folder or pairs.{''.join(near)}"
        )
    optional: dict[str, tuple[tuple[str, ...], bool, bool]] = {
        "train/1": (both, False, False),
        "test/0/attribute_only": ((attribute,), True, False),
        "test/0/object_only": ((object_name,), True, False),
        "test/0/neither": ((), True, False),
    }
    folders |= {folder: labels for folder, labels in optional.items() if (root / folder).is_dir()}
    listed: list[_File] = []
    for folder, (holds, is_test, rest) in folders.items():
        directory = at.get(folder, root / folder)
        paths, hidden = _visible(directory)
        inner = [path for path in paths if path.is_dir() and f"{folder}/{path.name}" not in folders]
        if inner:
            raise UserError(
                f"The folder {folder} of {str(root)!r} holds the sub-folder {inner[0].name!r}, which means "
                "nothing here; only test/0 may hold some: attribute_only, object_only and neither. Move its "
                "files up or out."
            )
        found = [path for path in paths if not path.is_dir()]
        if not found and folder not in ("test/0", *optional):
            but = f" but for hidden files ({_listed(hidden)}), which are ignored" if hidden else ""
            raise UserError(f"The folder {folder} of {str(root)!r} is empty{but}; put images there.")
        held = frozenset(map(_nfc, holds))
        labels = (held & {_nfc(attribute)}, held & {_nfc(object_name)}, is_test, rest)
        listed += [_File(path, f"{folder}/{path.name}", *labels) for path in found]
    return listed


def _folders(path: Path) -> list[str]:
    """Names of the directories in a directory; none where it is not there or cannot be read."""
    try:
        return sorted(inner.name for inner in path.iterdir() if inner.is_dir())
    except OSError:
        return []


def _visible(folder: Path) -> tuple[list[Path], list[str]]:
    """What a folder holds, by name, without hidden and system files; and the names of these."""
    paths = sorted(folder.iterdir())
    hidden = [path.name for path in paths if path.name.startswith(".") or path.name.lower() in SYSTEM_FILES]
    return [path for path in paths if path.name not in hidden], hidden


def _nfc(text: str) -> str:
    """Text with accents as macOS and others write them made equal."""
    return unicodedata.normalize("NFC", text)


def _existing(root: Path, name: str) -> Path:
    """A path below a directory, by the names that are there where they differ in their Unicode form alone."""
    path = root
    for part in Path(name).parts:
        here = path / part
        if not part.isascii() and not os.path.lexists(here) and path.is_dir():
            same = [other for other in path.iterdir() if _nfc(other.name) == _nfc(part)]
            here = same[0] if same else here
        path = here
    return path


def _csv_files(root: Path, attributes: Sequence[str], objects: Sequence[str]) -> list[_File]:
    """The files that ``images.csv`` names."""
    rows = _csv_rows(root / CSV_NAME)
    held = {kind: [_concepts(row[kind]) for row in rows] for kind in ("attribute", "object")}
    for kind, wanted in (("attribute", attributes), ("object", objects)):
        known = frozenset[str]().union(*held[kind])
        for concept in wanted:
            if _nfc(concept) not in known:
                raise UserError(
                    f"No image of {str(root / CSV_NAME)!r} holds the {kind} {concept!r}; its {kind}s are "
                    f"{', '.join(sorted(known)) or 'none'}. Mend pairs.{kind}s or the column {kind}."
                    f"{files_lib.nearest(concept, known)}"
                )
    seen: dict[str, str] = {}
    files = []
    for row, has_attributes, has_objects in zip(rows, held["attribute"], held["object"], strict=True):
        where = f"{str(root / CSV_NAME)!r}, line {row['line']}"
        path = _csv_path(root, row["path"], where)
        name = path.relative_to(root).as_posix()
        if name in seen:
            raise UserError(f"{where}: {name!r} is named twice, first in line {seen[name]}. Merge them.")
        seen[name] = row["line"]
        is_test = _csv_split(row["split"], where) if "split" in row else None
        files.append(_File(path, name, has_attributes, has_objects, is_test, is_listed=True))
    return files


def _csv_rows(where: Path) -> list[dict[str, str]]:
    """The lines of the file: column -> stripped text, and ``line`` -> the line's number."""
    needed, known = {"path", "attribute", "object"}, {"path", "attribute", "object", "split"}
    rows, columns = [], None
    for line, cells in _csv_lines(where):
        if columns is None:
            columns = cells
            missing, twice = needed - set(columns), known & {c for c in columns if columns.count(c) > 1}
            if missing or twice:
                what = "lacks" if missing else "repeats"
                raise UserError(
                    f"{str(where)!r} {what} the column(s) {', '.join(sorted(missing or twice))}; its first "
                    f"line names {', '.join(columns)}. Expected path, attribute, object and optionally split."
                )
        elif len(cells) != len(columns):
            raise UserError(
                f"{str(where)!r}, line {line}: {len(cells)} columns; expected {len(columns)}, as the first "
                "line has. Put quotes around what holds a comma."
            )
        else:
            rows.append(dict(zip(columns, cells, strict=True)) | {"line": str(line)})
    if not rows:
        raise UserError(
            f"{str(where)!r} names no images; expected a first line {', '.join(sorted(known))} "
            "and a line for each image."
        )
    return rows


def _csv_lines(where: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty, from 1, and its cells, stripped.

    Raises:
      UserError: it is not UTF-8, or a quote is not closed where it should be; with the line.
    """
    start = 1
    try:
        with where.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if any(set("\r\n") & set(cell) for cell in cells):
                    raise csv.Error("a quote is not closed on its line")
                if cells:
                    yield start, [cell.strip() for cell in cells]
                start = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        at = "" if isinstance(error, UnicodeDecodeError) else f", line {start},"
        raise UserError(
            f"{str(where)!r}{at} cannot be read ({error}); expected comma-separated UTF-8, quotes in pairs."
        ) from error


def _concepts(cell: str) -> frozenset[str]:
    return frozenset(_nfc(concept.strip()) for concept in cell.split("|")) - {""}


def _csv_path(root: Path, given: str, where: str) -> Path:
    """The file of a line, which must be below the directory."""
    name = os.path.normpath(given)
    if not given or Path(name).is_absolute() or os.pardir in Path(name).parts[:1]:
        raise UserError(
            f"{where}: the path {given!r} is not below {str(root)!r}. Give a path relative to it."
        )
    try:
        path = _existing(root, name)
        if not path.is_dir() and os.path.lexists(path):
            return path
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(
            f"{where}: the path {given:.60}... has {len(given)} characters, too many for this system. Give "
            "the file a shorter name."
        ) from None
    raise UserError(f"{where}: there is no file {given!r} in {str(root)!r}. Add it or remove the line.")


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
    remarks: dict[str, list[str]] = {}
    with concurrent.futures.ThreadPoolExecutor() as pool, photographs.large_ones():
        # Pillow decodes without the interpreter's lock.
        results = pool.map(lambda file: photographs.try_decode(file.path, image_size), files)
        for done, (file, result) in enumerate(zip(files, results, strict=True), start=1):
            if isinstance(result, photographs.Photograph):
                decoded.append(result.image)
                kept.append(file)
                for remark in result.remarks:
                    remarks.setdefault(remark, []).append(file.name)
            elif file.is_listed or photographs.is_meant_as_image(file.path):
                broken.append(f"{file.name} ({result})")
            else:
                not_images.append(f"{file.name} ({result})")
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
        notes.append(f"Images that cannot be read are skipped ({len(broken)} of {total}): {_listed(broken)}.")
    if not_images:
        notes.append(f"Files that are no images are ignored ({len(not_images)}): {_listed(not_images)}.")
    notes += [f"{remark} ({len(names)}): {_listed(names)}." for remark, names in sorted(remarks.items())]
    places, kept, more = _without_copies(kept, content_hashes(np.stack(decoded)))
    notes += more
    images = ImageSet(
        images=np.stack([decoded[place] for place in places]),
        attributes={
            a: np.array([file.label(a, file.attributes) for file in kept], np.int8) for a in attributes
        },
        objects={o: np.array([file.label(o, file.objects) for file in kept], np.int8) for o in objects},
        names=tuple(file.name for file in kept),
        rest=np.array([file.rest for file in kept], bool),
    )
    is_test = None if kept[0].is_test is None else np.array([file.is_test for file in kept], bool)
    return images, is_test, notes


def _without_copies(
    files: Sequence[_File], hashes: Sequence[str]
) -> tuple[list[int], list[_File], list[str]]:
    """Files of equal content on one side made one, with what all of them hold.

    Files that contradict each other stay, for `quadrants.check_labels` to refuse: of a kind that one names no
    concept of and another does, or that hold a conjunction only together.

    Returns:
      The places of the files that stay, these files, and notes.
    """
    first: dict[tuple[str, bool | None], int] = {}
    stay: dict[int, _File] = {}
    copies = []
    for place, (file, content) in enumerate(zip(files, hashes, strict=True)):
        earlier = first.setdefault((content, file.is_test), place)
        if earlier == place:
            stay[place] = file
            continue
        merged = _merged(stay[earlier], file)
        if merged is None:
            stay[place] = file
        else:
            stay[earlier] = merged
            copies.append(f"{file.name} (as {files[earlier].name})")
    if not copies:
        return [*stay], [*stay.values()], []
    note = f"Files of equal content count once ({len(copies)}): {_listed(copies, _LISTED_COPIES)}."
    if any(copy.count("/random/") == 2 for copy in copies):
        note += " The same file in both random folders is fine."
    return [*stay], [*stay.values()], [note]


def _merged(a: _File, b: _File) -> _File | None:
    """What two files of equal content hold, or None where they contradict each other."""
    if a.rest != b.rest:
        known = b if a.rest else a
        is_conjunction = bool(known.attributes and known.objects)
        return (
            None
            if is_conjunction
            else dataclasses.replace(a, rest=False, attributes=known.attributes, objects=known.objects)
        )
    held = []
    for ours, theirs in ((a.attributes, b.attributes), (a.objects, b.objects)):
        if bool(ours) != bool(theirs):
            return None
        held.append(ours | theirs)
    together = {(x, y) for x in held[0] for y in held[1]}
    alone = {(x, y) for file in (a, b) for x in file.attributes for y in file.objects}
    return dataclasses.replace(a, attributes=held[0], objects=held[1]) if together == alone else None


def _listed(names: Sequence[str], most: int = _LISTED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
