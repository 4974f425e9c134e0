"""Dataclasses to JSON and back, by their fields: one routine for every record that is kept.

A field with the metadata ``{"stored": False}`` is not written. In a dict of dataclasses that
have a field ``name``, that is the key.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(value: Any) -> Any:  # noqa: ANN401
    """A dataclass as plain JSON; what is empty is left out, NaN is null."""
    if dataclasses.is_dataclass(value):
        stored = [one.name for one in dataclasses.fields(value) if one.metadata.get("stored", True)]
        found = {name: to_json(getattr(value, name)) for name in stored}
        found = {name: item for name, item in found.items() if item not in (None, "", {}, [])}
        return found or None
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], set[str]]:
    """Of a dataclass, the types of its fields by name, and which it must be given."""
    missing = dataclasses.MISSING
    required = {
        one.name
        for one in dataclasses.fields(kind)
        if one.default is missing and one.default_factory is missing
    }
    return typing.get_type_hints(kind), required


def _is_record(kind: Any) -> bool:  # noqa: ANN401
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def from_json(kind: Any, value: Any, where: str) -> Any:  # noqa: ANN401
    """A value of a type from plain JSON: a dataclass, dict, tuple, optional or plain value, nested.

    Args:
      kind: the type.
      value: null is NaN, an empty dict or tuple, or a dataclass of its defaults.
      where: the value's path, for the message.

    Raises:
      ValueError: it does not fit; the message has the path.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:
        return None if value is None else from_json(inner[0], value, where)
    if _is_record(kind) or origin is dict:
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is {value!r:.60}; expected a table of fields")
    if origin is dict:
        named = _is_record(inner[1]) and "name" in _fields(inner[1])[1]
        return {
            key: from_json(
                inner[1],
                {"name": key, **item} if named and isinstance(item, Mapping) else item,
                f"{where}.{key}",
            )
            for key, item in value.items()
        }
    if _is_record(kind):
        hints, required = _fields(kind)
        wrong = [f"{where}.{name} is an unknown field" for name in value if name not in hints]
        wrong += [f"{where}.{name} is missing" for name in sorted(required - value.keys())]
        if wrong:
            raise ValueError("; ".join(wrong))
        return kind(**{name: from_json(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    if origin is tuple:
        items = [] if value is None else value
        if not isinstance(items, list) or (inner[-1] is not ... and len(items) != len(inner)):
            raise ValueError(f"{where} is {value!r:.60}; expected a list")
        return tuple(from_json(inner[0], item, f"{where}[{index}]") for index, item in enumerate(items))
    if kind is float:
        if value is None:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r:.60}; expected {kind.__name__}")


def plain(value: Any, where: str) -> Any:  # noqa: ANN401
    """A value as what JSON has: NumPy values, tuples, paths and ConfigDicts become plain.

    Args:
      value: nested.
      where: its path, for the message.

    Raises:
      TypeError: it holds something that JSON cannot.
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "to_dict"):  # a ConfigDict
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return plain(value.tolist(), where)
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold")
