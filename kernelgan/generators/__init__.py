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
import numpy as np

from kernelgan import fields, models
from kernelgan.generators import check, cyclegan, linear, reduce, reduce_noise, reduce_rendered, reduce_zoo
from kernelgan.generators.base import Generator, Parents, stateless
from kernelgan.probes import noise
from kernelgan.types import Array, Params, UserError

FAMILIES: dict[str, ModuleType] = {
    "cyclegan": cyclegan,
    "linear": linear,
    "reduce": reduce,
    "reduce_zoo": reduce_zoo,
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
    *zoos: Any,  # noqa: ANN401
    probes: Array | None = None,
    **settings: Any,  # noqa: ANN401
) -> Params:
    """Composes networks for two or more concepts into networks for all, from weights alone.

    No gradient descent but least squares (docs/generators.md): `reduce` with dead leaves (`probes.noise`), or
    with images of your own. They need no labels, but must not show the conjunction if that is to be tested;
    photographs are better than dead leaves if they show the attribute; the object they need not show
    (docs/learned.md). The first call takes some seconds to compile.

    Args:
      *zoos: for each concept, a zoo of `kernelgan.train_zoo` or `kernelgan.load_zoo`, or parameters of one
        network or stacked ones, ``(M, ...)``; with two logits, no and yes. Network ``i`` is made of parents
        ``i``, counted round; with ``parents=k`` of ``k`` of each.
      probes: two or more uint8 images ``(N, H, W, 3)`` of the size that the networks take, in random order;
        None: dead leaves, of the smallest size that fits.
      **settings: fields of `reduce.Config`.

    Returns:
      Parameters with two logits for each concept, no and yes, in their order; stacked if an argument is.
      `kernelgan.evaluate` takes networks for two concepts.

    Raises:
      UserError: there are fewer than two zoos, a zoo has not two logits or is not finite, the networks differ
        in shape, the probes do not fit, or a setting cannot be.
    """
    given = [models.params_of(zoo) for zoo in zoos]
    if any(isinstance(zoo, tuple | list) for zoo in given):
        kind = next(type(zoo).__name__ for zoo in given if isinstance(zoo, tuple | list))
        raise UserError(f"compose was given a {kind}; unpack it, as in compose(*parents).")
    if isinstance(settings.get("images"), np.ndarray | jax.Array):
        raise UserError("compose was given an array as images, which is a number; give images as probes=.")
    if len(zoos) < 2:
        raise UserError(f"compose needs the networks of two concepts or more; it was given {len(zoos)}.")
    parents, alone = check.parents_of(given)
    stacked = jax.tree.map(jnp.asarray, parents)
    network = models.network_of(stacked[0])
    config = _config("reduce_noise", settings)
    if probes is None:
        probes = noise(reduce.probes_of(config), size=models.image_size_of(stacked[0]))
    check.check_images(probes, stacked[0], "probes", least=2)
    made = _composer(network, config)(stacked, jnp.asarray(probes))
    return jax.tree.map(lambda leaf: leaf[0], made) if alone else made


@functools.lru_cache(maxsize=16)
def _composer(network: models.ConvNet, config: reduce.Config) -> Callable[..., Params]:
    """Kept, so that the same networks compile once."""
    return jax.jit(functools.partial(reduce.compose_zoos, network, config))


__all__ = ["FAMILIES", "Generator", "Parents", "compose", "make", "stateless"]
