"""A config field in one place: its default, its check and its documentation.

A section of a config is a frozen dataclass. `setting` makes its fields, `section` makes a section inside it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Layered = int | float | tuple[Any, ...]
"""A number for all layers, or a tuple with a number for each layer (a single number in it: for all)."""


def _same(value: Any) -> Any:  # noqa: ANN401
    return value


class Rule(NamedTuple):
    """What a field accepts.

    Attributes:
      test: whether a value is accepted.
      words: what is expected, for messages: ``expected <words>``.
      convert: gives an accepted value the field's own type.
      layered: whether the field has a value for each layer, see `Layered`.
    """

    test: Callable[[Any], bool]
    words: str
    convert: Callable[[Any], Any] = _same
    layered: bool = False


def setting(default: T, rule: Rule, doc: str) -> T:
    """A field of a section.

    Args:
      default: its value where a config does not change it.
      rule: what it accepts.
      doc: what it means, with its unit; a phrase without a full stop.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "doc": doc})


def section(kind: type[T]) -> T:
    """A section inside a section: another frozen dataclass."""
    return dataclasses.field(default_factory=kind, metadata={"section": kind})


# Rules ----------------------------------------------------------------------------------------------------


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _is_tuple(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 0


def whole(least: int, most: int | None = None) -> Rule:
    """A whole number in this range, both ends included."""
    words = (
        f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    )
    return Rule(lambda value: _is_whole(value) and least <= value and (most is None or value <= most), words)


def whole_or_zero(least: int) -> Rule:
    """0, or a whole number of at least ``least``."""
    return Rule(
        lambda value: _is_whole(value) and (value == 0 or value >= least),
        f"0 or a whole number of at least {least}",
    )


def between(low: float, high: float, *, with_low: bool = False, with_high: bool = False) -> Rule:
    """A number in this range; its ends are excluded unless they are asked for."""
    return Rule(
        lambda value: (
            _is_number(value)
            and (low < value or (with_low and value == low))
            and (value < high or (with_high and value == high))
        ),
        f"a number {f'of at least {low}' if with_low else f'above {low}'} and "
        f"{f'of at most {high}' if with_high else f'below {high}'}",
        float,
    )


def one_of(*known: str) -> Rule:
    """One of these strings."""
    return Rule(
        lambda value: isinstance(value, str) and value in known, f"one of {', '.join(map(repr, known))}"
    )


def each(rule: Rule) -> Rule:
    """A tuple with at least one value, each as a rule says."""
    return Rule(
        lambda values: _is_tuple(values) and all(map(rule.test, values)),
        f"a tuple, each value {rule.words}",
        lambda values: tuple(map(rule.convert, values)),
    )


def some_of(*known: str) -> Rule:
    """A tuple of different strings of these; an empty tuple too."""
    return Rule(
        lambda values: (
            isinstance(values, (tuple, list))
            and all(isinstance(value, str) and value in known for value in values)
            and len(set(values)) == len(values)
        ),
        f"a tuple of different names, each of {', '.join(known)}",
        tuple,
    )


def per_layer(rule: Rule) -> Rule:
    """A number for all layers, or a tuple with a number for each layer."""
    tuples = each(rule)
    return Rule(
        lambda value: tuples.test(value) if isinstance(value, (tuple, list)) else rule.test(value),
        f"{rule.words}, for all layers, or a tuple with a value for each layer",
        lambda value: tuples.convert(value if isinstance(value, (tuple, list)) else (value,)),
        layered=True,
    )


positive = Rule(lambda value: _is_number(value) and value > 0, "a positive number", float)
not_negative = Rule(lambda value: _is_number(value) and value >= 0, "0 or a positive number", float)
truth = Rule(lambda value: isinstance(value, bool), "True or False")
text = Rule(lambda value: isinstance(value, str), "a string")
title = Rule(lambda value: isinstance(value, str) and bool(value), "a name")
names = Rule(
    lambda values: (
        _is_tuple(values)
        and all(isinstance(value, str) and value and not set("/()") & set(value) for value in values)
        and len(set(values)) == len(values)
    ),
    "a name such as black, or a tuple of different names such as ('black', 'white')",
    tuple,
)

# Sections -------------------------------------------------------------------------------------------------


def is_section(value: object) -> bool:
    """Whether a value holds fields: a mapping or an ``ml_collections.ConfigDict``."""
    return hasattr(value, "items")


def problems(kind: type, values: Any, prefix: str = "") -> list[str]:  # noqa: ANN401
    """What is wrong with the values of a section.

    Args:
      kind: the section's dataclass.
      values: nested mappings, such as a ``ConfigDict``.
      prefix: what precedes a field's name in messages, such as ``"zoo."``.

    Returns:
      A line for each field that is unknown, missing or not as its rule says.
    """
    known = {field.name: field.metadata for field in dataclasses.fields(kind)}
    if not is_section(values):
        return [f"{prefix.removesuffix('.')} is {values!r}; expected the fields {', '.join(known)}"]
    unknown, missing, wrong = [], [], []
    for name in values:
        if name not in known:
            unknown.append(f"{prefix}{name}: unknown field; known are {', '.join(known)}")
    for name, metadata in known.items():
        inner = metadata.get("section")
        if inner:
            words = f"the fields {', '.join(field.name for field in dataclasses.fields(inner))}"
        else:
            words = metadata["rule"].words
        if name not in values:
            missing.append(f"{prefix}{name}: missing; expected {words}")
        elif inner:
            wrong += problems(inner, values[name], f"{prefix}{name}.")
        elif not metadata["rule"].test(values[name]):
            wrong.append(f"{prefix}{name} is {values[name]!r}; expected {words}")
    return unknown + missing + wrong


def build(kind: type[T], values: Any) -> T:  # noqa: ANN401
    """A section of values without `problems`; each gets its field's type."""
    found = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        value, inner = values[field.name], field.metadata.get("section")
        found[field.name] = build(inner, value) if inner else field.metadata["rule"].convert(value)
    return kind(**found)


def plain(value: Any) -> Any:  # noqa: ANN401
    """Sections and mappings, nested, as dicts; anything else as it is."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if is_section(value):
        return {name: plain(inner) for name, inner in value.items()}
    return value


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """``("zoo.models", 32)`` and so on, in the order of a section or of nested mappings."""
    for name, value in plain(config).items():
        if is_section(value):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def documented(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str, str]]:  # noqa: ANN401
    """Of every field of a section: its name, its value, what it means and what it accepts."""
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if field.metadata.get("section"):
            yield from documented(value, f"{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from documented(inner, f"{name}.{key}.")
        else:
            yield name, value, field.metadata["doc"], field.metadata["rule"].words


def layer_problems(config: Any, layers: int) -> Iterator[str]:  # noqa: ANN401
    """Fields of a section that have neither a value for all layers nor a value for each of ``layers``."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata["rule"].layered and isinstance(value, tuple) and len(value) not in (1, layers):
            yield (
                f"{field.name} is {value}; expected 1 value for all layers, or {layers} values, "
                "1 for each layer"
            )


def each_layer(value: Layered, layers: int) -> tuple[Any, ...]:
    """A `Layered` value as a value for each of ``layers``.

    Raises:
      ValueError: neither a value for all layers nor a value for each layer.
    """
    values = value if isinstance(value, tuple) else (value,)
    if len(values) not in (1, layers):
        raise ValueError(f"{value} has {len(values)} values for {layers} layers")
    return values * layers if len(values) == 1 else values
