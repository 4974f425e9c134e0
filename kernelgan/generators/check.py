"""Checks of what a generator gives, so that an error names the generator and not the code behind it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FrameType

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import models
from kernelgan.types import Array, Params, UserError

_PACKAGE = Path(__file__).parents[1]
_SAME = 1e-3
"""How far parameters of equal networks may differ, relative to the largest: GPUs sum in any order."""


@contextlib.contextmanager
def named(name: str, part: str) -> Iterator[None]:
    """Turns an exception of a generator's own code into a UserError that names it.

    Args:
      name: of the generator.
      part: which of its functions is at work.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a user's own code raises
        reason = (str(error).splitlines() or [""])[0]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        own = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)]
        last = (own or frames)[-1] if frames else None  # the user's own line, where there is one
        where = f"{Path(last.filename).name}, line {last.lineno}" if last else part
        raise UserError(
            f"the generator {name} raises {type(error).__name__} in {part} ({where}): {reason}. Mend it and "
            "give the same command again; what was finished is kept."
        ) from error


@dataclasses.dataclass
class Watched:
    """What a generator was seen to do; see `watched`.

    Attributes:
      gradients: whether something was differentiated.
      images: whether the package was asked for images.
    """

    gradients: bool = False
    images: bool = False

    def __or__(self, other: Watched) -> Watched:
        """What was seen at either time."""
        return Watched(self.gradients or other.gradients, self.images or other.images)


_DIFFERENTIATE = {
    "interpreters/ad.py": {"jvp", "vjp", "linearize", "linearize_jaxpr"},
    "torch/autograd/__init__.py": {"backward", "grad"},
}
"""By the end of a file's path, the functions that everything differentiated passes through."""

_GIVE_IMAGES = {
    "kernelgan/probes.py": {"rendered", "noise"},
    "kernelgan/data/rendered.py": {"render"},
    "kernelgan/data/sources.py": {"load_source"},
}
"""The same for images that the package makes or reads."""

_LOOKED_AT = frozenset().union(*_DIFFERENTIATE.values(), *_GIVE_IMAGES.values())


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    """Notes whether JAX or PyTorch differentiates anything in this thread or in those that it starts.

    And whether the package's images are asked for. A derivative that is written out by hand is not seen, nor
    a program that was traced before, nor another process.
    """
    seen, before, of_threads = Watched(), sys.getprofile(), threading.getprofile()

    def note(frame: FrameType, event: str, argument: object) -> None:
        del argument
        code = frame.f_code
        if code.co_name in _LOOKED_AT and event == "call":  # the name first: this runs at every call
            seen.gradients = seen.gradients or _is_of(code, _DIFFERENTIATE)
            seen.images = seen.images or _is_of(code, _GIVE_IMAGES)

    sys.setprofile(note)
    threading.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(of_threads)  # type: ignore[arg-type]


def _is_of(code: CodeType, functions: Mapping[str, set[str]]) -> bool:
    return any(code.co_name in names and code.co_filename.endswith(end) for end, names in functions.items())


def check_update(made: object, state: object) -> None:
    """Refuses what an ``update`` cannot give: anything but a state like the one given, and nested dicts.

    Raises:
      TypeError: what is given and what was expected; `named` says whose it is.
    """
    if not isinstance(made, tuple) or len(made) != 2:
        raise TypeError(f"it gives {_kind(made)}; expected (state, metrics)")
    new, metrics = made
    if str(jax.tree.structure(new)) != str(jax.tree.structure(state)):
        raise TypeError("the state that it gives is not built like the one that it is given")
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(new), strict=True
    ):
        old, now = (jnp.result_type(leaf).name + str(jnp.shape(leaf)) for leaf in (before, after))
        if old != now:
            raise TypeError(f"state{jax.tree_util.keystr(path)} is {old} and becomes {now}")
    for path, _ in jax.tree_util.tree_leaves_with_path(metrics):
        if not all(isinstance(key, jax.tree_util.DictKey) for key in path):
            raise TypeError("its metrics are not nested dicts of numbers")


def check_networks(networks: object, network: models.ConvNet, image_size: int, name: str) -> None:
    """Refuses what are no populations of networks that run in the parents' place.

    Args:
      networks: by key, stacked parameters: the parents' layers, any number of filters, 2 or 4 outputs.
      network: the parents' module.
      image_size: pixels a side.
      name: of the generator.

    Raises:
      UserError: naming the generator, the leaf, what it is and what was expected.
    """
    if not isinstance(networks, Mapping) or not networks:
        raise UserError(
            f"the generator {name} gives {_kind(networks)}; expected networks as the parents have them, "
            '{"conv1": {"kernel", "bias"}, ..., "dense": ...}, or several by name. Is a `return` missing?'
        )
    for key, params in networks.items():
        _check_population(params, network, image_size, f"the generator {name}" + (f" ({key})" if key else ""))


def check_same(networks: Mapping[str, Params], before: Mapping[str, Params], name: str) -> None:
    """Refuses networks of which most are not what the same generator gave before from the same input.

    Args:
      networks: by row, stacked parameters.
      before: the same, given before.
      name: of the generator.

    Raises:
      UserError: naming the generator and the row.
    """
    row = other(networks, before)
    if row is not None:
        raise UserError(
            f"the generator {name} gives other networks ({row}) when it is asked again with the same key and "
            "parents. Draw random numbers from the key alone, and keep nothing between calls."
        )


def other(networks: Mapping[str, Params], before: Mapping[str, Params], *, every: bool = False) -> str | None:
    """The first row whose networks are not those given before; None where all rows are the same.

    Args:
      networks: by row.
      before: by row.
      every: whether each network must be the same, or most of them (rounding may change a choice).
    """
    for row, params in before.items():
        given = networks.get(row)
        if given is None or jax.tree.map(np.shape, given) != jax.tree.map(np.shape, params):
            return row
        off = np.max(
            [_differs(*both) for both in zip(*map(jax.tree.leaves, (given, params)), strict=True)], axis=0
        )
        if not (np.max if every else np.median)(off) <= _SAME:
            return row
    return None


def _differs(leaf: Array, before: Array) -> np.ndarray:
    """Of each network the largest difference, relative to its largest number."""
    leaf, before = (np.asarray(one, np.float64).reshape(len(one), -1) for one in (leaf, before))
    return np.abs(leaf - before).max(axis=1) / np.maximum(np.abs(before).max(axis=1), 1e-30)


def _check_population(params: object, network: models.ConvNet, image_size: int, where: str) -> None:
    layers = (*models.layer_names(network.filters), "dense")
    leaves = {}
    for layer in layers:
        for part in ("kernel", "bias"):
            value = params.get(layer, {}) if isinstance(params, Mapping) else params
            value = value.get(part) if isinstance(value, Mapping) else value
            if not isinstance(value, np.ndarray | jax.Array) or not jnp.issubdtype(value.dtype, jnp.floating):
                raise UserError(
                    f"{where} gives {_kind(value)} for {layer}.{part}; expected an array of floats, and the "
                    f"layers {', '.join(layers)} with a kernel and a bias each."
                )
            if value.ndim < 2 or 0 in value.shape:
                raise UserError(f"{where} gives {layer}.{part} {value.shape}; expected networks first.")
            leaves[layer, part] = value
    assert isinstance(params, Mapping)
    unknown = [name for name in params if name not in layers]
    if unknown:
        raise UserError(f"{where} gives the layers {unknown} too; expected only {', '.join(layers)}.")
    count = len(leaves["dense", "bias"])
    outputs = leaves["dense", "bias"].shape[-1]
    if outputs not in (2, 4) or count == 0:
        shape = leaves["dense", "bias"].shape
        raise UserError(f"{where} gives dense.bias {shape}; expected (networks, 2) or (networks, 4).")
    filters = tuple(int(leaves[layer, "bias"].shape[-1]) for layer in layers[:-1])
    module = network.clone(filters=filters, outputs=outputs)
    shapes = jax.eval_shape(lambda: models.initialise_convnet(module, image_size, jax.random.key(0)))
    for (layer, part), value in leaves.items():
        expected = (count, *shapes[layer][part].shape)
        if value.shape != expected:
            raise UserError(
                f"{where} gives {layer}.{part} {value.shape}; expected {expected}: networks first, then the "
                "layout of the parents."
            )
        finite = np.isfinite(np.asarray(value)).reshape(count, -1).all(axis=1)
        if not finite.all():
            raise UserError(
                f"{where} gives numbers that are not finite in {layer}.{part} of {int((~finite).sum())} of "
                f"{count} networks, the first of them network {int(np.argmin(finite))}."
            )


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array {value.dtype} {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"
