"""What a result was made from: digests of values, arrays and source code, and the key that they make up.

A result is stored with its key and used again only under an equal key. So a key holds whatever decides
numbers (config, images, the content of inputs, arithmetic, code) and nothing else: no paths, no chunk sizes.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from kernelgan.files import write_atomically
from kernelgan.types import UserError

SOURCE_SUFFIXES = (".py", ".cu")
_KEY, _RECORD = "key", "record"  # what `kept` stores beside the arrays


@dataclasses.dataclass(frozen=True)
class StageKey:
    """What a result was made from.

    Attributes:
      parts: a digest or a short text for each of ``"config"``, ``"images"``, ``"code"``, ``"arithmetic"``,
        ``"inputs/zoo"`` (the digest of that result's content) and so on.
    """

    parts: Mapping[str, str]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all parts, in any order."""
        return of_values(dict(self.parts))

    def changes(self, other_parts: Mapping[str, str]) -> list[str]:
        """Names of the parts that differ or that only one of both has, sorted."""
        names = self.parts.keys() | other_parts.keys()
        return sorted(name for name in names if self.parts.get(name) != other_parts.get(name))


def in_words(changes: list[str]) -> str:
    """Names of parts as ``"its config and its input zoo changed since"``; ``""`` for none."""
    names = " and ".join(f"its {name.replace('inputs/', 'input ')}" for name in changes)
    return f"{names} changed since" if changes else ""


def of_values(value: object) -> str:
    """Digest of nested dicts, configs, dataclasses, lists, numbers, strings and arrays; floats count exactly.

    A tuple is as a list, and the order of a dict's entries does not matter.

    Raises:
      TypeError: something else is among them.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        return {"array": of_arrays({"": value})}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {type(value).__name__: _plain(fields)}
    if hasattr(value, "items"):  # a ConfigDict is no Mapping
        entries = dict(value.items())
        if not all(isinstance(name, str) for name in entries):
            raise TypeError(f"the names {list(entries)} are not all strings")
        return {name: _plain(inner) for name, inner in entries.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    raise TypeError(f"a {type(value).__name__} cannot be part of a key: {value!r}")


def of_arrays(tree: Mapping[str, Any]) -> str:
    """Digest of nested dicts of arrays: names, types, shapes and bytes.

    Raises:
      TypeError: a name is not a string, or a leaf is not an array or number.
    """
    digest = hashlib.sha256()
    for path, leaf in _leaves(tree, ()):
        if isinstance(leaf, Mapping):  # empty
            digest.update(json.dumps([path, {}]).encode())
            continue
        array = np.asarray(leaf)
        if array.dtype.hasobject or isinstance(leaf, (list, tuple)):
            raise TypeError(f"{'/'.join(path)} is a {type(leaf).__name__}, not an array")
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        digest.update(json.dumps([path, array.dtype.name, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not all(isinstance(name, str) for name in tree):
        raise TypeError(f"the names {list(tree)} are not all strings")
    for name in sorted(tree):
        if isinstance(tree[name], Mapping) and tree[name]:
            yield from _leaves(tree[name], (*path, name))
        else:
            yield (*path, name), tree[name]


def of_source(*modules: str) -> str:
    """Digest of the code of modules and packages; of each file, as it was when this process first asked.

    Comments, docstrings and formatting do not count. Nothing is imported.

    Args:
      *modules: dotted names; of a package, every `.py` and `.cu` file below it counts.

    Raises:
      ModuleNotFoundError: there is no such module, or its source is not there.
    """
    files = dict(file for module in modules for file in _files(module))
    return of_values({name: _first_code(path) for name, path in files.items()})


def imported(module: str, apart: Collection[str] = ()) -> tuple[str, ...]:
    """A module, and all modules of its package that it imports, that these import, and so on; nothing is run.

    What stands in a package's own ``__init__`` does not count.

    Args:
      module: dotted name, of no package.
      apart: modules that are left out, with what only they import.

    Raises:
      ModuleNotFoundError: there is no such module, or its source is not there.
    """
    top = module.partition(".")[0]
    found, left = set(), {module}
    while left:
        name = left.pop()
        found.add(name)
        ((_, path),) = _files(name)
        named = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom):
                above = name.split(".")[: -node.level] if node.level else []  # of a relative one
                origin = ".".join([*above, *([node.module] if node.module else [])])
                named |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        of_package = {name for name in named if name.startswith(f"{top}.") and _is_module(name)}
        left |= of_package - found - set(apart)
    return tuple(sorted(found))


def _is_module(name: str) -> bool:
    """Whether it is a module with a file of its own, and no package."""
    try:
        files = _files(name)
    except ModuleNotFoundError:
        return False
    return len(files) == 1 and files[0][0] == f"{name.replace('.', '/')}.py"


def of_file(path: str | Path) -> str:
    """`of_source` of one file, such as a user's generator; modules that it imports do not count.

    Raises:
      UserError: it cannot be read, or is not Python.
    """
    path = Path(path)
    try:
        return _code(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a Python file.") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not Python ({error}); expected a Python file.") from error


def _files(module: str) -> list[tuple[str, Path]]:
    """The name below the directory that holds the package, and the path, of each file of a module."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec and spec.submodule_search_locations) or ():
        base = Path(location, *rest)
        file = base.with_name(f"{base.name}.py")
        paths = [path for path in base.rglob("*") if path.suffix in SOURCE_SUFFIXES]
        paths = paths or [file] * (bool(rest) and file.is_file())
        if paths:
            return [(path.relative_to(Path(location).parent).as_posix(), path) for path in paths]
    raise ModuleNotFoundError(f"{module} has no source files here")


def _code(path: Path) -> str:
    content = path.read_bytes()
    code = _without_comments(content.decode()) if path.suffix == ".cu" else _tree(ast.parse(content))
    return hashlib.sha256(repr(code).encode()).hexdigest()


_first_code = functools.cache(_code)


def _without_comments(text: str) -> list[str]:
    """Lines of CUDA without comments and spacing."""
    tokens = r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/'
    text = re.sub(tokens, lambda found: found[1] or " ", text, flags=re.DOTALL)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _tree(node: object) -> object:
    """A syntax tree without strings that stand alone; the same in every version of Python.

    `ast.dump` is not: versions add fields, and differ in whether they show empty ones.
    """
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name != "kind")
        kept = {name: _tree(value) for name, value in fields if value is not None and value != []}
        return {type(node).__name__: kept}
    if isinstance(node, list):
        return [_tree(inner) for inner in node if not _is_docstring(inner)]
    return repr(node)


def _is_docstring(node: object) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


# -- one file of measurements ------------------------------------------------------------------------------


def damaged_name(folder: Path, name: str) -> Path:
    """A free path for what is moved aside: ``folder/damaged-name``, or with a number behind it."""
    numbered = (f"damaged-{name}-{number}" for number in itertools.count(2))
    names = itertools.chain([f"damaged-{name}"], numbered)
    return next(path for path in (folder / name for name in names) if not path.exists())


def kept(
    file: Path,
    key: StageKey,
    work: Callable[[], tuple[dict[str, Any], dict[str, np.ndarray]] | None],
) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """A record and arrays, read from a file if they were made with this key, else made and written.

    A damaged file is moved aside and named in a warning.

    Args:
      file: an `.npz`.
      key: what they are made from.
      work: makes them; what is None is not kept.

    Raises:
      UserError: the file cannot be read (it stays as it is), or cannot be written.
    """
    found = _read_kept(file, key)
    if found is not None:
        return found
    made = work()
    if made is None:
        return None
    record, arrays = made
    content = {_RECORD: np.array(json.dumps(record)), **arrays}
    parts = {"parts": dict(key.parts), "content": of_arrays(content)}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{_KEY: np.array(json.dumps(parts))}, **content)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, buffer.getvalue())
    except OSError as error:
        raise unwritable(file, error) from error
    return record, arrays


def _read_kept(file: Path, key: StageKey) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    try:
        content = file.read_bytes()
        try:
            with np.load(io.BytesIO(content)) as saved:
                found = json.loads(str(saved[_KEY]))
                if key.changes(found["parts"]):
                    return None
                arrays = {name: saved[name] for name in saved.files if name != _KEY}
            if of_arrays(arrays) != found["content"]:
                raise ValueError("its content is not what was saved")
            return json.loads(str(arrays.pop(_RECORD))), arrays
        except MemoryError:
            raise
        except Exception as error:  # whatever damaged bytes make zipfile or numpy raise
            aside = damaged_name(file.parent, file.name)
            file.rename(aside)
            logging.warning("%s is damaged (%s); it is kept as %s and made again", file, error, aside)
            return None
    except FileNotFoundError:
        return None
    except (OSError, MemoryError) as error:
        raise unreadable(file, error, file) from error


def unreadable(file: str | Path, error: BaseException, whole: Path) -> UserError:
    """What is said of a file that cannot be read, which is no damage; without ``whole`` it is made again."""
    return UserError(
        f"{file} cannot be read ({_reason(error)}). It stays as it is: free memory, or mend the disk or the "
        f"permissions, and give the same command again; or move {whole} away, and it is made again."
    )


def unwritable(file: Path, error: BaseException) -> UserError:
    """What is said of a file that cannot be written."""
    return UserError(
        f"{file} cannot be written ({_reason(error)}). Make room on the disk, or mend the permissions; the "
        "same command then goes on where it was."
    )


def _reason(error: BaseException) -> str:
    """The first line of an error."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
