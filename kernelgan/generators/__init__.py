"""Families of generators: from two populations of parents, new networks.

A family is one module with ``make(network, config) -> Generator``, ``LABELS`` and ``Config``, a frozen
dataclass of `kernelgan.fields.setting` fields. It may have ``problems(config, *, layers, models)``, which
yields what contradicts the rest of the config (lines that begin with a field's name), ``NOISE`` and
``SHOWN``, see `cyclegan`.
"""

from types import ModuleType
from typing import Any

from kernelgan import fields, models
from kernelgan.generators import cyclegan, linear, reduce, reduce_noise, reduce_rendered
from kernelgan.generators.base import Generator, Parents, stateless
from kernelgan.types import UserError

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
    kind = FAMILIES[family].Config
    values = {**fields.plain(kind()), **settings}
    problems = fields.problems(kind, values, f"{family}.")
    if problems:
        raise UserError("The generator's settings are not usable:\n  " + "\n  ".join(problems))
    return FAMILIES[family].make(network, fields.build(kind, values))


__all__ = ["FAMILIES", "Generator", "Parents", "make", "stateless"]
