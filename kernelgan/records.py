"""Dataclasses to JSON and back, by their fields: one routine for every record that is kept.

A field with the metadata ``{"stored": False}`` is not written. In a dict of dataclasses with a required field
``name``, the name is the key.
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


def to_json(value: Any, where: str = "value") -> Any:  # noqa: ANN401
    """A value as plain JSON: dataclasses without their empty fields, NumPy values, paths, ConfigDicts.

    Args:
      value: nested; NaN and infinity become null.
      where: its path, for the message.

    Raises:
      TypeError: it holds something that JSON cannot; the message has the path.
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value):
        stored = [field.name for field in dataclasses.fields(value) if field.metadata.get("stored", True)]
        items = {name: to_json(getattr(value, name), f"{where}.{name}") for name in stored}
        return {name: item for name, item in items.items() if item not in (None, "", {}, [])} or None
    if hasattr(value, "to_dict"):  # a ConfigDict
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): to_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return to_json(value.tolist(), where)
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold")


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
        if _is_record(inner[1]) and "name" in fields_of(inner[1])[1]:
            value = {
                k: {"name": k, **item} if isinstance(item, Mapping) else item for k, item in value.items()
            }
        return {key: from_json(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if _is_record(kind):
        hints, required = fields_of(kind)
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
    if kind is float and value is None:
        return math.nan
    accepted = int | float if kind is float else kind
    if isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)):
        return float(value) if kind is float else value
    raise ValueError(f"{where} is {value!r:.60}; expected {kind.__name__}")


@functools.cache
def fields_of(kind: type) -> tuple[dict[str, Any], set[str]]:
    """The types of a dataclass's fields by name, and the names of the required fields."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    required = {field.name for field in fields if field.default is missing is field.default_factory}
    return typing.get_type_hints(kind), required


def _is_record(kind: Any) -> bool:  # noqa: ANN401
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)
