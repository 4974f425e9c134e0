"""Families of generators: from two populations of parents, new networks."""

from types import ModuleType

from kernelgan.generators import cyclegan

FAMILIES: dict[str, ModuleType] = {"cyclegan": cyclegan}
"""A family's module by its name in ``config.generators``.

A module has ``Config``, a frozen dataclass of `kernelgan.fields.setting` fields, and may have
``problems(config, *, layers, models)``, which yields what contradicts the rest of the config: lines that
begin with a field's name.
"""
