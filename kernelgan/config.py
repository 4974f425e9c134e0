"""Checks of a config before any work starts, and its comparison with the one that a work directory has.

A config is any nested mapping with attribute access (an ``ml_collections.ConfigDict`` from ``configs/``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kernelgan import assemble, kernels
from kernelgan.types import Config, UserError

SOURCES = ("procedural", "tfds", "folder")
EXCLUSIONS = ("own", "all", "groups")
DEVICES = ("auto", "cpu", "gpu")
HARMLESS = ("checkpoint.", "device")
"""Fields that may differ between a run and its resumption: they do not change what is computed."""

_Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _whole(least: int) -> _Rule:
    return (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"a whole number of at least {least}",
    )


def _one_of(*known: str) -> _Rule:
    return (lambda value: value in known, f"one of {', '.join(map(repr, known))}")


def _between(low: float, high: float) -> _Rule:
    return (lambda value: _is_number(value) and low < value < high, f"a number above {low} and below {high}")


def _each(rule: _Rule) -> _Rule:
    test, words = rule
    return (
        lambda values: isinstance(values, (tuple, list)) and bool(values) and all(test(v) for v in values),
        f"a tuple, each of it {words}",
    )


_POSITIVE: _Rule = (lambda value: _is_number(value) and 0 < value < float("inf"), "a positive number")
_NOT_NEGATIVE: _Rule = (
    lambda value: _is_number(value) and 0 <= value < float("inf"),
    "0 or a positive number",
)
_TRUTH: _Rule = (lambda value: isinstance(value, bool), "True or False")
_TEXT: _Rule = (lambda value: isinstance(value, str), "a string")
_NAMES: _Rule = (
    lambda values: (
        isinstance(values, (tuple, list))
        and bool(values)
        and all(isinstance(value, str) and value and "/" not in value for value in values)
        and len(set(values)) == len(values)
    ),
    "a tuple of different names, such as ('black',)",
)

RULES: dict[str, _Rule] = {
    "name": (lambda value: isinstance(value, str) and bool(value), "a name"),
    "seed": (
        lambda value: _whole(0)[0](value) and value < 2**31,
        "a whole number from 0 to 2**31 - 1",
    ),
    "device": _one_of(*DEVICES),
    "pairs.attributes": _NAMES,
    "pairs.objects": _NAMES,
    "pairs.exclude": _one_of(*EXCLUSIONS),
    "pairs.group": _whole(1),
    "pairs.skip_rare": _TRUTH,
    "data.source": _one_of(*SOURCES),
    "data.image_size": _whole(1),
    "data.validation_share": _between(0, 1),
    "data.minimum_train": _whole(1),
    "data.minimum_test": _whole(2),
    "data.maximum_train": _whole(0),
    "data.maximum_test": _whole(0),
    "data.folder": _TEXT,
    "data.broken_share": (lambda value: _is_number(value) and 0 <= value < 1, "a share from 0 to below 1"),
    "data.procedural.train": _whole(1),
    "data.procedural.test": _whole(1),
    "data.tfds.name": _TEXT,
    "data.tfds.data_dir": _TEXT,
    "model.filters": _each(_whole(1)),
    "model.kernel_size": _whole(1),
    "zoo.models": _whole(2),
    "zoo.object_models": (
        lambda value: _whole(0)[0](value) and value != 1,
        "0 or a whole number of at least 2",
    ),
    "zoo.epochs": _whole(1),
    "zoo.images_per_epoch": _whole(1),
    "zoo.object_images_per_epoch": _whole(0),
    "zoo.batch_size": _whole(2),
    "zoo.learning_rate": _POSITIVE,
    "zoo.decay": _TRUTH,
    "zoo.balanced": _TRUTH,
    "zoo.validation_images": _whole(2),
    "zoo.chunk_size": _whole(1),
    "kernels.normalisation": _one_of(*kernels.NORMALISATIONS),
    "cyclegan.hidden": _whole(1),
    "cyclegan.epochs": _each(_whole(1)),
    "cyclegan.batch_size": _each(_whole(1)),
    "cyclegan.learning_rate": _each(_POSITIVE),
    "cyclegan.cycle_weight": _NOT_NEGATIVE,
    "cyclegan.identity_weight": _NOT_NEGATIVE,
    "cyclegan.steps_per_call": _whole(1),
    "assemble.bias": _one_of(*assemble.BIASES),
    "opponents.models": _whole(1),
    "opponents.epochs": _whole(1),
    "opponents.images_per_epoch": _whole(1),
    "opponents.learning_rate": _POSITIVE,
    "evaluate.random_networks": _whole(2),
    "evaluate.bootstrap": _whole(1),
    "evaluate.umap_networks": _whole(0),
    "evaluate.umap_images": _whole(16),
    "evaluate.umap_neighbours": _whole(2),
    "evaluate.dbscan_radius": _POSITIVE,
    "evaluate.dbscan_minimum_samples": _whole(1),
    "evaluate.svm_nu": (lambda value: _is_number(value) and 0 < value <= 1, "a number above 0, at most 1"),
    "checkpoint.seconds": _NOT_NEGATIVE,
}
"""What every field must be."""


def _is_section(value: object) -> bool:
    return hasattr(value, "items")  # a ConfigDict is no Mapping


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``("zoo.models", 32)`` and so on, in the config's order."""
    for name, value in config.items():
        if _is_section(value):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def check(config: Config) -> None:
    """Refuses a config with an unknown, missing or senseless field.

    Raises:
      UserError: naming every such field, what it is and what was expected.
    """
    fields = dict(flatten(config))
    problems = [f"{name}: unknown field" for name in fields if name not in RULES]
    problems += [
        f"{name}: missing; expected {words}" for name, (_, words) in RULES.items() if name not in fields
    ]
    problems += [
        f"{name} is {fields[name]!r}; expected {words}"
        for name, (test, words) in RULES.items()
        if name in fields and not test(fields[name])
    ]
    if not problems:
        problems = list(_disagreements(config))
    if problems:
        raise UserError("The config is not usable:\n  " + "\n  ".join(problems))


def _disagreements(config: Config) -> Iterator[str]:
    """Fields that are sound alone and do not fit each other."""
    layers = len(config.model.filters)
    if layers != 2:
        yield f"model.filters is {tuple(config.model.filters)}; expected the filters of 2 layers"
    for name in ("epochs", "batch_size", "learning_rate"):
        values = config.cyclegan[name]
        if len(values) != layers:
            yield f"cyclegan.{name} is {tuple(values)}; expected {layers} values, one for each layer"
    size = config.data.image_size
    for _ in range(layers):
        size = (size - config.model.kernel_size + 1) // 2
    if size < 1:
        yield (
            f"data.image_size is {config.data.image_size}: nothing is left of an image after {layers} "
            f"convolutions of {config.model.kernel_size} pixels and poolings; expected a larger image_size "
            "or a smaller model.kernel_size"
        )
    pairs = [f"{a}_{o}" for a in config.pairs.attributes for o in config.pairs.objects]
    if len(set(pairs)) < len(pairs):
        yield "pairs.attributes and pairs.objects join to the same name twice; expected names that do not"
    smaller = min(zoo_models(config))
    for layer, batch in enumerate(config.cyclegan.batch_size, start=1):
        if batch > smaller:
            yield (
                f"cyclegan.batch_size is {batch} for layer {layer}, but the smaller zoo has {smaller} "
                "networks; expected a batch of at most that, or a larger zoo.models"
            )
    fewest = min(*images_per_epoch(config), config.opponents.images_per_epoch)
    if config.zoo.batch_size > fewest:
        yield (
            f"zoo.batch_size is {config.zoo.batch_size}, more than the {fewest} images of an epoch "
            "(zoo.images_per_epoch, opponents.images_per_epoch)"
        )
    if config.data.source == "folder" and not config.data.folder:
        yield "data.folder is empty; expected the directory of your images: --config.data.folder=DIR"


def zoo_models(config: Config) -> tuple[int, int]:
    """Networks in an attribute's and in an object's zoo."""
    return config.zoo.models, config.zoo.object_models or config.zoo.models


def images_per_epoch(config: Config) -> tuple[int, int]:
    """Images of an epoch in an attribute's and in an object's zoo."""
    return config.zoo.images_per_epoch, config.zoo.object_images_per_epoch or config.zoo.images_per_epoch


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain nested dicts."""
    return json.loads(json.dumps(_plain(config)))


def _plain(value: Any) -> Any:  # noqa: ANN401
    if _is_section(value):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Fields in which two plain configs would compute different things, as ``field: theirs, now ours``."""
    a, b = dict(flatten(ours)), dict(flatten(theirs))
    return [
        f"{name}: {b.get(name, 'absent')!r} there, {a.get(name, 'absent')!r} now"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, "absent") != b.get(name, "absent") and not name.startswith(HARMLESS)
    ]
