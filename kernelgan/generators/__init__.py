"""Families of generators: from two populations of parents, new networks.

A family is one module with ``make(network, config) -> Generator``, ``LABELS`` and ``Config``, a frozen
dataclass of `kernelgan.fields.setting` fields. It may have ``problems(config, *, layers, models)``, which
yields what contradicts the rest of the config (lines that begin with a field's name), ``NOISE`` and
``SHOWN``, see `cyclegan`.
"""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from kernelgan import fields, models
from kernelgan.generators import cyclegan, linear, reduce, reduce_noise, reduce_rendered
from kernelgan.generators.base import Generator, Parents, stateless
from kernelgan.probes import noise
from kernelgan.types import Array, Params, UserError

FAMILIES: dict[str, ModuleType] = {
    "cyclegan": cyclegan,
    "linear": linear,
    "reduce": reduce,
    "reduce_rendered": reduce_rendered,
    "reduce_noise": reduce_noise,
}
"""A family's module by its name in ``config.generators``."""


def make(family: str, network: models.ConvNet, **settings: Any) -> Generator:  # noqa: ANN401
    """A generator of a family.

    Args:
      family: a name in `FAMILIES`.
      network: the parents' module.
      **settings: fields of the family's ``Config``; the others have their defaults.

    Raises:
      UserError: the family is not known, or a setting is not, or has a value that it cannot have.
    """
    if family not in FAMILIES:
        raise UserError(f"there is no family {family!r} of generators; known are {', '.join(FAMILIES)}.")
    return FAMILIES[family].make(network, _config(family, settings))


def _config(family: str, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """The family's ``Config`` with some fields."""
    kind = FAMILIES[family].Config
    values = {**fields.plain(kind()), **settings}
    problems = fields.problems(kind, values, f"{family}.")
    if problems:
        raise UserError("The generator's settings are not usable:\n  " + "\n  ".join(problems))
    return fields.build(kind, values)


def compose(
    *zoos: Params,
    probes: Array | None = None,
    **settings: Any,  # noqa: ANN401
) -> Params:
    """Composes networks for two or more concepts into networks for all, from weights alone.

    Nothing is trained. `reduce` with dead leaves (`probes.noise`), or with images of your own. They need no
    labels, but must not show the conjunction if that is to be tested. The first call takes some seconds to
    compile.

    Args:
      *zoos: for each concept, parameters of one network that knows it, or stacked ones, ``(M, ...)``; with
        two logits, no and yes. Network ``i`` is made of parents ``i``, counted round.
      probes: uint8 images ``(N, H, W, 3)`` of the size that the networks take; None: dead leaves, of
        the smallest size that fits.
      **settings: fields of `reduce.Config`.

    Returns:
      Parameters with two logits for each concept, no and yes, in their order; stacked if an argument is.
      `kernelgan.evaluate` takes networks for two concepts.

    Raises:
      UserError: there are fewer than two zoos, a zoo has not two logits, the networks differ in shape, or a
        setting cannot be.
    """
    if len(zoos) < 2:
        raise UserError(f"compose needs the networks of two concepts or more; it was given {len(zoos)}.")
    alone = all(zoo["conv1"]["kernel"].ndim == _NETWORK_AXES for zoo in zoos)
    stacked = [_stacked(zoo) for zoo in zoos]
    for number, zoo in enumerate(stacked, 1):
        logits = zoo["dense"]["bias"].shape[-1]
        if logits != 2:
            raise UserError(
                f"zoo {number} of {len(zoos)} has networks of {logits} logits; expected 2, no and yes. What "
                "is composed already cannot be composed again: give all zoos at once."
            )
    first, *others = (jax.tree.map(lambda leaf: leaf.shape[1:], zoo) for zoo in stacked)
    for other in others:
        if other != first:
            raise UserError(f"the networks have other shapes: {first} and {other}; expected the same.")
    network = models.network_of(stacked[0])
    config = _config("reduce_noise", settings)
    if probes is None:
        probes = noise(config.images, size=models.image_size_of(stacked[0]))
    made = _composer(network, config)(stacked, jnp.asarray(probes))
    return jax.tree.map(lambda leaf: leaf[0], made) if alone else made


_NETWORK_AXES = 4
"""Of the first kernel of a single network."""


@functools.lru_cache(maxsize=16)
def _composer(network: models.ConvNet, config: reduce.Config) -> Callable[..., Params]:
    """Kept, so that the same networks compile once."""
    return jax.jit(functools.partial(reduce.compose_zoos, network, config))


def _stacked(params: Params) -> Params:
    """With a leading axis of networks."""
    single = params["conv1"]["kernel"].ndim == _NETWORK_AXES
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None] if single else jnp.asarray(leaf), params)


__all__ = ["FAMILIES", "Generator", "Parents", "compose", "make", "stateless"]
