"""Families of generators: from two populations of parents, new networks.

A family is one module with ``make(network, config) -> Generator``, ``LABELS`` and ``Config``, a frozen
dataclass of `kernelgan.fields.setting` fields. It may have ``problems(config, *, layers, models)``, which
yields what contradicts the rest of the config (lines that begin with a field's name), ``NOISE`` and
``SHOWN``, see `cyclegan`.
"""

from types import ModuleType

from kernelgan.generators import cyclegan, linear
from kernelgan.generators.base import Generator, Parents, stateless

FAMILIES: dict[str, ModuleType] = {"cyclegan": cyclegan, "linear": linear}
"""A family's module by its name in ``config.generators``."""

__all__ = ["FAMILIES", "Generator", "Parents", "stateless"]
