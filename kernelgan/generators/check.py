"""Checks of networks and images that a generator or a caller gives, so that an error names what was given."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
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
        hint = ""
        if "NoneType" in reason and "probes" in (last.line or "" if last else ""):
            hint = ' In tier W, the default, probes is None; reads="S" or "U" hands it images.'
        raise UserError(
            f"the generator {name} fails in {part} ({where}) with {type(error).__name__}: {reason}.{hint} "
            "Mend it and give the same command again; what was finished is kept."
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
        if before is None or callable(before):
            sys.setprofile(before)
        else:  # the profile of `python -m cProfile` is no function
            getattr(before, "enable", lambda: None)()
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


def check_networks(networks: object, network: models.ConvNet, image_size: int, said: str) -> None:
    """Refuses what are no populations of networks that run in the parents' place.

    Args:
      networks: by key, stacked parameters: the parents' layers, any number of filters, 2 or 4 outputs.
      network: the parents' module.
      image_size: pixels a side.
      said: what the messages begin with, such as "the generator mine gives".

    Raises:
      UserError: naming who gives them, the leaf, what it is and what was expected.
    """
    if not isinstance(networks, Mapping) or not networks:
        raise UserError(
            f"{said} {_kind(networks)}; expected networks as the parents have them, "
            '{"conv1": {"kernel", "bias"}, ..., "dense": ...}, or several by name. Is a `return` missing?'
        )
    for key, params in networks.items():
        _check_population(params, network, image_size, f"{said}{f' ({key})' if key else ''}")


def parents_of(zoos: Sequence[object]) -> tuple[list[Params], bool]:
    """Stacked parameters of each concept's networks, and whether all were single networks, unstacked.

    Args:
      zoos: as `networks_of` takes them.

    Raises:
      UserError: as `networks_of`; these are the parameters of one zoo; or networks have not two logits, or
        other shapes than the first.
    """
    if isinstance(zoos, Mapping):
        raise UserError(
            f"the parents are a dict of {', '.join(map(str, zoos))}; expected the networks of each concept, "
            "such as kernelgan.Parents(black.params, cat.params)."
        )
    found = []
    for number, zoo in enumerate(zoos, 1):
        params, alone = networks_of(zoo, f"zoo {number} of {len(zoos)}")
        logits = params["dense"]["bias"].shape[-1]
        if logits != 2:
            raise UserError(
                f"zoo {number} of {len(zoos)} has networks of {logits} logits; expected 2, no and yes. What "
                "is composed already cannot be composed again: give all zoos at once."
            )
        found.append((params, alone))
        shapes, first = (
            {leaf: value.shape[1:] for leaf, value in _flat(one)} for one in (params, found[0][0])
        )
        for leaf in first | shapes:
            if shapes.get(leaf) != first.get(leaf):
                raise UserError(
                    f"the zoos have networks of other shapes: {leaf} is {shapes.get(leaf, 'missing')} in a "
                    f"network of zoo {number} of {len(zoos)} and {first.get(leaf, 'missing')} in one of zoo "
                    "1; expected the same."
                )
    return [params for params, _ in found], all(alone for _, alone in found)


def _flat(params: Params) -> Iterator[tuple[str, Array]]:
    return ((f"{layer}.{part}", params[layer][part]) for layer in params for part in params[layer])


def networks_of(zoo: object, name: str) -> tuple[Params, bool]:
    """Stacked parameters of a `models.ConvNet`, and whether it was a single network, unstacked.

    Args:
      zoo: of `kernelgan.train_zoo` or `kernelgan.load_zoo`, or parameters of one network or stacked ones.
      name: what it is called in messages.

    Raises:
      UserError: naming the leaf, what it is and what was expected.
    """
    if isinstance(zoo, str | Path):
        raise UserError(f"{name} is the path {str(zoo)!r}; expected networks: kernelgan.load_zoo reads them.")
    params, said = models.params_of(zoo), f"{name} has"
    given = set(params) if isinstance(params, Mapping) else set()
    number = next(number for number in itertools.count(2) if f"conv{number}" not in given)
    layers = (*models.layer_names(range(1, number)), "dense")
    leaves = _leaves(params, layers, said)
    lead = leaves["dense", "bias"].shape[:-1][:1]
    for (layer, part), value in leaves.items():
        axes = len(lead) + (1 if part == "bias" else 2 if layer == "dense" else 4)
        if value.ndim != axes:
            first = ", the first of M networks" if lead else ""
            raise UserError(
                f"{said} {layer}.{part} {value.shape} and dense.bias {leaves['dense', 'bias'].shape}; "
                f"expected {axes} axes of {layer}.{part}{first}."
            )
    params = {layer: {part: leaves[layer, part] for part in _PARTS} for layer in layers}
    module = models.network_of(params).clone(filters=_filters(leaves, layers))
    _check_shapes(leaves, module, models.image_size_of(params), said, lead)
    return (params, False) if lead else (jax.tree.map(lambda leaf: leaf[None], params), True)


def check_images(images: object, params: Params, name: str, *, least: int = 1) -> None:
    """Refuses what stacked networks do not take.

    Args:
      images: expected uint8 ``(N, H, W, 3)``.
      params: of the networks.
      name: of the argument.
      least: how many images.

    Raises:
      UserError: what was given and what was expected.
    """
    network, smallest = models.network_of(params), models.image_size_of(params)
    largest, side = smallest, models.last_side(network, smallest)
    while models.last_side(network, largest + 1) == side:  # pooling leaves the last pixels out
        largest += 1
    sizes = [(size, size, 3) for size in range(smallest, largest + 1)]
    if (
        not isinstance(images, np.ndarray | jax.Array)
        or images.dtype != np.uint8
        or images.shape[1:] not in sizes
        or len(images) < least
    ):
        raise UserError(
            f"{name} is {_kind(images)}; expected uint8 (N, {smallest}, {smallest}, 3) from 0 to 255, N of "
            f"at least {least}, for these networks"
            + (f" (up to {largest} pixels a side are taken)." if largest > smallest else ".")
        )


def check_same(networks: Mapping[str, Params], before: Mapping[str, Params], said: str) -> None:
    """Refuses networks of which most are not what was given before from the same input.

    Args:
      networks: by row, stacked parameters.
      before: the same, given before.
      said: what the message begins with, such as "the generator mine gives".

    Raises:
      UserError: naming who gives them and the row.
    """
    row = other(networks, before)
    if row is not None:
        raise UserError(
            f"{said} other networks ({row}) when it is asked again with the same input. Draw random numbers "
            "from the same key each time, and keep nothing between calls."
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


_PARTS = ("kernel", "bias")


def _check_population(params: object, network: models.ConvNet, image_size: int, said: str) -> None:
    """Refuses what is no population in the parents' place; ``said`` begins the messages."""
    layers = (*models.layer_names(network.filters), "dense")
    leaves = _leaves(params, layers, said)
    for (layer, part), value in leaves.items():
        if value.ndim < 2:
            expected = ", ".join(map(str, ("M", *value.shape)))
            raise UserError(
                f"{said} {layer}.{part} {value.shape}; expected ({expected}), with a leading axis of M "
                "networks."
            )
    count, outputs = len(leaves["dense", "bias"]), leaves["dense", "bias"].shape[-1]
    if outputs not in (2, 4):
        raise UserError(f"{said} dense.bias ({count}, {outputs}); expected (M, 2) or (M, 4), M networks.")
    module = network.clone(filters=_filters(leaves, layers), outputs=outputs)
    _check_shapes(leaves, module, image_size, said, (count,))


def _filters(leaves: Mapping[tuple[str, str], Array], layers: Sequence[str]) -> tuple[int, ...]:
    """Filters of each layer, as most of its biases, its kernels and the next kernels say.

    Kernels say nothing whose first axes are no square of pixels, as PyTorch's are not.
    """
    filters = []
    for layer, after in itertools.pairwise(layers):
        said = [leaves[layer, "bias"].shape[-1]]
        for name, axis in ((layer, -1), (after, -2)):
            shape = leaves[name, "kernel"].shape
            said += [shape[axis]] if name != "dense" and shape[-4] == shape[-3] else []
        filters.append(collections.Counter(map(int, said)).most_common(1)[0][0])
    return tuple(filters)


def _leaves(params: object, layers: Sequence[str], said: str) -> dict[tuple[str, str], Array]:
    """By layer and part, arrays of floats that are not empty; nothing is missing or too many."""
    leaves = {}
    for layer in layers:
        for part in _PARTS:
            value = inside = params
            for name in (layer, part):
                inside = value if isinstance(value, Mapping) else inside
                value = value.get(name) if isinstance(value, Mapping) else value
            if not isinstance(value, np.ndarray | jax.Array) or not jnp.issubdtype(value.dtype, jnp.floating):
                there = ", ".join(map(str, inside)) if value is None and isinstance(inside, Mapping) else ""
                raise UserError(
                    f"{said} {_kind(value)} for {layer}.{part}{f', but {there}' if there else ''}; expected "
                    f"an array of floats, and the layers {', '.join(layers)} with a kernel and a bias each."
                )
            if value.ndim == 0 or 0 in value.shape:
                raise UserError(f"{said} {layer}.{part} {value.shape}; expected an array that is not empty.")
            leaves[layer, part] = value
    assert isinstance(params, Mapping)
    unknown = [name for name in params if name not in layers]
    if unknown:
        raise UserError(f"{said} the layers {unknown} too; expected only {', '.join(layers)}.")
    return leaves


def _check_shapes(
    leaves: Mapping[tuple[str, str], Array],
    module: models.ConvNet,
    image_size: int,
    said: str,
    lead: tuple[int, ...],
) -> None:
    """Refuses leaves that are not finite or not of a module's shapes after the axis ``lead`` of networks."""
    shapes = jax.eval_shape(lambda: models.initialise_convnet(module, image_size, jax.random.key(0)))
    for (layer, part), value in leaves.items():
        expected = (*lead, *shapes[layer][part].shape)
        if value.shape != expected:
            raise UserError(
                f"{said} {layer}.{part} {value.shape}; expected {expected}"
                f"{': networks first, then' if lead else ','} the layout of kernelgan.ConvNet."
            )
        if isinstance(value, jax.core.Tracer):  # inside a program numbers are not known
            continue
        finite = np.isfinite(np.asarray(value)).reshape(*(lead or (1,)), -1).all(axis=1)
        if not finite.all():
            raise UserError(
                f"{said} numbers that are not finite in {layer}.{part} of {int((~finite).sum())} of "
                f"{len(finite)} networks, the first of them network {int(np.argmin(finite))}."
            )


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array {value.dtype} {value.shape}"
    return "nothing" if value is None else f"a {type(value).__name__}"
