"""The generators of a run: families that the config names, and files of the user's own."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from kernelgan import fields, keys, models, probes
from kernelgan.baselines.methods import BASELINES
from kernelgan.files import given_path
from kernelgan.generators import FAMILIES, check
from kernelgan.generators.base import Generator, Tier
from kernelgan.types import UserError

_NO_NUMBERS = tuple(
    f"kernelgan.{name}" for name in ("cache", "distributed", "stopping", "types", "generators.check")
)  # modules that a family may import, and that decide no numbers
_FOR_FILES = tuple(
    f"kernelgan.{name}"
    for name in ("baselines.merges", "data.drawings", "data.rendered", "generators", "probes", "refit")
)  # what a user's file may use, beside what every generator rests on


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A generator that takes part in a run.

    Attributes:
      name: of its family, or of the user's file; its rows begin with it.
      module: of the family, or the user's file.
      config: its settings.
      generator: for the run's networks.
      code: digest of the code that is its own: what a family imports; a user's file, and what it may import.
      watched: what its file was seen to do when it was imported.
    """

    name: str
    module: ModuleType
    config: Any
    generator: Generator
    code: str
    watched: check.Watched = dataclasses.field(default_factory=check.Watched)


def load(configs: Mapping[str, Any], files: Sequence[str], network: models.ConvNet) -> tuple[Loaded, ...]:
    """Makes every generator of a run, before any work starts.

    Args:
      configs: settings of each family, ``config.generators``.
      files: of the flag ``--generator``: paths of Python files, or names of families with default settings.
      network: the parents' module.

    Raises:
      UserError: a family is not known, a file cannot be imported, what it defines is no generator, or two
        generators have one name.
    """
    loaded = list(_families(configs, network))
    for file in files:
        if file in FAMILIES:
            loaded += _families({file: FAMILIES[file].Config()}, network)
        else:
            loaded.append(_from_file(given_path(file, "--generator"), network))
    names = [one.name for one in loaded]
    alone = [one.name for one in loaded if set(getattr(one.module, "LABELS", ())) == {""}]  # of one row
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two generators are called {name}; rename a file, or give it once (the config may name "
                "it already)."
            )
        longer = next((other for other in names if other.startswith(f"{name}_")), "")
        if longer and name not in alone:
            raise UserError(f"rows of the generators {name} and {longer} could share a name; rename a file.")
        if name in BASELINES:
            raise UserError(f"the generator {name} has the name of a baseline; rename the file.")
    if not loaded:
        raise UserError("the config names no generator; expected one of " + ", ".join(FAMILIES) + ".")
    return tuple(loaded)


def _families(configs: Mapping[str, Any], network: models.ConvNet) -> Iterator[Loaded]:
    for name, config in configs.items():
        module = FAMILIES[name]
        code = keys.of_source(*keys.imported(module.__name__, _NO_NUMBERS))
        yield Loaded(name, module, config, module.make(network, config), code)


def _from_file(path: Path, network: models.ConvNet) -> Loaded:
    """A user's own generator."""
    flag = f"--generator={path}"
    if not path.is_file():
        raise UserError(
            f"{flag}: there is no such file; expected a Python file with make(network, config), or one of "
            f"the families {', '.join(FAMILIES)}."
        )
    if path.stem in FAMILIES:
        raise UserError(f"{flag}: {path.stem} is a family of the package; rename the file.")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(
            f"{flag}: the file's name becomes the name of its rows; expected letters, digits and "
            "underscores, such as my_generator.py."
        )
    code = keys.of_values([keys.of_file(path), keys.of_source(*_FOR_FILES)])
    spec = importlib.util.spec_from_file_location(f"kernelgan_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    with check.named(path.name, "its import"), check.watched() as watched:
        spec.loader.exec_module(module)
    if not callable(getattr(module, "make", None)):
        raise UserError(
            f"{flag} defines no function make(network, config); expected one that gives a Generator."
        )
    with check.named(path.name, "make"), check.watched() as watched_again:
        kind = getattr(module, "Config", None)
        config = kind() if kind is not None else None
        _check_arguments(module.make, flag)
        generator = module.make(network, config)
    if not isinstance(generator, Generator):
        raise UserError(
            f"{flag}: make gives a {type(generator).__name__}; expected a kernelgan.generators.Generator, "
            "such as kernelgan.generators.stateless(generate)."
        )
    _check(generator, path.name)
    return Loaded(path.stem, module, config, generator, code, watched | watched_again)


def _check_arguments(make: Callable[..., Any], flag: str) -> None:
    """Refuses a ``make`` that does not take two arguments."""
    try:
        inspect.signature(make).bind(None, None)
    except TypeError as error:
        raise UserError(
            f"{flag}: make{inspect.signature(make)} does not take two arguments; expected "
            "make(network, config)."
        ) from error


def _check(generator: Generator, name: str) -> None:
    """Refuses fields of a wrong kind."""
    tiers = get_args(Tier)
    if generator.reads not in tiers:
        raise UserError(
            f"the generator {name} reads {generator.reads!r}; expected one of {', '.join(tiers)}."
        )
    for field in ("view", "init", "update", "generate", "keep"):
        if not callable(getattr(generator, field)):
            raise UserError(f"the generator {name} has a {field} that is no function.")
    if not callable(generator.steps) and not (isinstance(generator.steps, int) and generator.steps >= 0):
        raise UserError(f"the generator {name} has steps={generator.steps!r}; expected a whole number.")
    if generator.made not in probes.KINDS:
        raise UserError(
            f"the generator {name} has made={generator.made!r}; expected one of {', '.join(probes.KINDS)}."
        )
    if not isinstance(generator.images, int) or generator.images < 1:
        raise UserError(f"the generator {name} has images={generator.images!r}; expected a positive number.")


def settings_of(loaded: Loaded) -> Any:  # noqa: ANN401
    """Its settings as plain values, for keys."""
    return fields.plain(loaded.config) if loaded.config is not None else {}
