"""Weights in and out: PyTorch's names and layout, and zoos trained elsewhere.

PyTorch keeps a kernel as (output, input, height, width) and a dense layer as (outputs, features), in a flat
dict such as ``conv1.weight``; ours are ``HWIO`` and ``{layer: {"kernel", "bias"}}`` (`types.py`). Both
flatten features in CHW order, so that axes move and no value changes. A zoo has a leading ``M`` on each
array, in files as in memory. Logit 1 says that the concept holds; ``positive=0`` is for files where logit 0
does.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import models
from kernelgan.files import given_path
from kernelgan.types import Params, UserError
from kernelgan.weights import SUFFIXES, read_arrays, some, write_arrays

_LAYERS = {"dense": "fc1", "encode": "main.0", "decode": "main.2"}
"""PyTorch's names of our layers, where they differ."""

RELEASED = "networks.safetensors"
"""The file of the networks where a directory is of the form of `release.write`."""

_Layers = dict[str, dict[str, np.ndarray]]
"""By layer ``weight``, in PyTorch's layout, and ``bias``."""


# Networks -------------------------------------------------------------------------------------------------


def load_zoo(
    path: Path | str,
    *,
    network: models.ConvNet | None = None,
    image_size: int | None = None,
    name: str = "",
    positive: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> models.Zoo:
    """Reads networks that were trained elsewhere, or that `save` wrote.

    Layers are recognised by shape and order: any number of convolutions, then one dense layer, under any
    names (``module.conv1.weight``, ``features.0.weight``, ``head.bias``), in PyTorch's layout (``weight``) or
    ours (``kernel``). Files do not record strides, padding or activations: they must be `models.ConvNet`'s.

    Args:
      path: a file of one network or of a zoo with a leading ``M`` axis; a directory with one file for each
        network, read in the order of their names; or a directory that ``export --release`` wrote. See
        `weights.read_arrays` for the formats.
      network: what the shapes must be; by default they are read off the (first) file.
      image_size: pixels a side, checked against the dense layer; by default any.
      name: of a file that holds several sets of networks, which to read, such as ``"a2b"``.
      positive: the logit, 0 or 1, that says in the file that the concept holds; at 0 the two change places.
        torchvision's ``ImageFolder`` numbers classes by name: 0 for ``black`` of ``black`` and ``random``.
      progress: called with the numbers of files read and of all files.

    Returns:
      The stacked networks, float32, and their module.

    Raises:
      UserError: names the file, and every array that is missing, not expected, of another shape or type, or
        not finite; or the directory is empty or mixed.
    """
    path = given_path(path, "the path of the networks")
    path = path / RELEASED if (path / RELEASED).is_file() else path
    files = _network_files(path) if path.is_dir() else [path]
    loaded = []
    for done, file in enumerate(files, start=1):
        arrays = read_arrays(file)
        if name:
            chosen = {
                key.removeprefix(f"{name}."): a for key, a in arrays.items() if key.startswith(f"{name}.")
            }
            if not chosen:
                sets = list(dict.fromkeys(key.partition(".")[0] for key in arrays))
                raise UserError(f"{file} has no set {name!r}; it has {some(sets)}. Name one of these.")
            arrays = chosen
        params, network, image_size = _fitted(arrays, network, image_size, str(file))
        if path.is_dir() and count_of(params) > 1:
            raise UserError(
                f"{file} holds {count_of(params)} networks; expected one in each file of a directory. "
                "Give the file itself."
            )
        loaded.append(params)
        if progress is not None:
            progress(done, len(files))
    assert network is not None
    stacked = loaded[0] if len(loaded) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *loaded)
    return models.Zoo(stacked if positive == 1 else _swapped(stacked, positive, path), network)


def load_parents(
    path: Path | str, network: models.ConvNet, image_size: int, models: int, *, positive: int = 1
) -> Params:
    """A zoo of one concept, the first ``models`` networks of what `load_zoo` reads, in place of training it.

    Raises:
      UserError: as `load_zoo`; or there are fewer networks.
    """
    one_concept = network.clone(outputs=2)
    params = load_zoo(path, network=one_concept, image_size=image_size, positive=positive).params
    if count_of(params) < models:
        raise UserError(
            f"{path} holds {count_of(params)} networks; expected at least {models} (zoo.models, "
            "zoo.object_models). Give a larger zoo, or ask for fewer networks."
        )
    return jax.tree.map(lambda leaf: leaf[:models], params)


def save(networks: Any, path: Path | str) -> Path:  # noqa: ANN401
    """Writes networks in PyTorch's names and layout, for `load_zoo` and for ``load_state_dict``.

    Args:
      networks: a zoo, parameters of one network or stacked ones ``(M, ...)``, or several such sets by name; a
        set's arrays are then called ``a2b.conv1.weight`` and so on.
      path: ``.safetensors`` (with metadata: the layout, and which logit says yes), ``.npz`` or, with PyTorch,
        ``.pth``.

    Returns:
      The path.

    Raises:
      UserError: these are no networks, or as `write_arrays`.
    """
    networks = models.params_of(networks)
    sets = {"": networks} if is_layered(networks) else networks
    if (
        not isinstance(sets, Mapping)
        or not sets
        or not all(is_layered(models.params_of(one)) for one in sets.values())
    ):
        raise UserError(
            f"what is to be saved is a {type(networks).__name__}; expected a zoo, parameters such as "
            '{"conv1": {"kernel", "bias"}, ..., "dense": ...}, or several of these by name.'
        )
    arrays = {
        f"{name}.{key}" if name else key: array
        for name, one in sets.items()
        for key, array in to_torch(models.params_of(one)).items()
    }
    return write_arrays(given_path(path, "the path of the networks"), arrays)


def is_layered(params: object) -> bool:
    """Whether these are parameters of layers, of networks or of kernel generators."""
    return (
        isinstance(params, Mapping)
        and bool(params)
        and all(isinstance(layer, Mapping) and set(layer) == {"kernel", "bias"} for layer in params.values())
    )


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Networks or kernel generators, one or stacked, in PyTorch's names and layout."""
    arrays: dict[str, np.ndarray] = {}
    for layer, name in sorted(((layer, _LAYERS.get(layer, layer)) for layer in params), key=lambda of: of[1]):
        kernel, bias = (np.asarray(params[layer][leaf], np.float32) for leaf in ("kernel", "bias"))
        arrays[f"{name}.weight"] = _kernel_to_torch(kernel, bias.ndim - 1)
        arrays[f"{name}.bias"] = np.ascontiguousarray(bias)
    return arrays


def is_stacked(params: Params) -> bool:
    """Whether these are several networks, or generators, with a leading ``M``."""
    return bool(next(iter(params.values()))["bias"].ndim > 1)


def count_of(params: Params) -> int:
    """How many networks stacked parameters hold."""
    return len(next(iter(params.values()))["bias"])


def _kernel_to_torch(kernel: np.ndarray, leading: int) -> np.ndarray:
    """``(..., I, O)`` to ``(O, I, ...)``, after ``leading`` axes."""
    return np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (leading, leading + 1)))


def _network_files(directory: Path) -> list[Path]:
    files = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    kinds = sorted({"directories" if path.is_dir() else path.suffix.lower() or path.name for path in files})
    if len(kinds) != 1 or kinds[0] not in SUFFIXES:
        raise UserError(
            f"{directory} {f'holds {some(kinds)}' if kinds else 'is empty'}; expected one file for each "
            f"network, all of one suffix ({', '.join(SUFFIXES)}), and nothing else. Mend it, or give a file."
        )
    return files


def _swapped(params: Params, positive: int, path: Path) -> Params:
    outputs = params["dense"]["bias"].shape[-1]
    if positive != 0 or outputs != 2:
        raise UserError(
            f"positive is {positive!r} for {path}, whose networks have {outputs} logits; expected 1, or, for "
            "networks of two logits, 0."
        )
    dense = {leaf: array[..., ::-1].copy() for leaf, array in params["dense"].items()}
    return {**params, "dense": dense}


# Names, shapes and layout ---------------------------------------------------------------------------------


def _fitted(
    arrays: Mapping[str, np.ndarray], network: models.ConvNet | None, image_size: int | None, source: str
) -> tuple[Params, models.ConvNet, int]:
    """Stacked parameters of a file's arrays, their network, and an image size that its features fit."""
    layers, lead = _by_layer(arrays)
    names = _in_order(layers, len(lead), source)
    shapes = [layers[name]["weight"].shape[len(lead) :] for name in names]
    network = network or models.ConvNet(
        filters=tuple(shape[0] for shape in shapes[:-1]), kernel_size=shapes[0][-1], outputs=shapes[-1][0]
    )
    filters, size = network.filters, network.kernel_size
    if len(filters) != len(names) - 1:
        raise UserError(
            f"{source} has {len(names) - 1} convolutions ({some(names[:-1])}); expected {len(filters)}. Give "
            "another file, or a network that fits it."
        )
    if image_size is None:
        image_size = max(1, math.isqrt(shapes[-1][1] // filters[-1]))
        for _ in filters:
            image_size = 2 * image_size + size - 1
    side = models.last_side(network, image_size)
    expected: list[tuple[int, ...]] = [
        (o, i, size, size) for i, o in zip((3, *filters), filters, strict=False)
    ]
    expected.append((network.outputs, filters[-1] * side**2))
    params: Params = {}
    problems: list[str] = []
    for number, (name, shape) in enumerate(zip(names, expected, strict=True), start=1):
        weight, bias = (
            _checked(f"{name}.{leaf}".lstrip("."), layers[name].pop(leaf, None), lead, of_leaf, problems)
            for leaf, of_leaf in (("weight", shape), ("bias", shape[:1]))
        )
        problems += [f"{name}.{leaf} is not expected" for leaf in layers[name]]
        kernel = np.ascontiguousarray(np.moveaxis(weight, (1, 2), (-1, -2)))
        params["dense" if name == names[-1] else f"conv{number}"] = {"kernel": kernel, "bias": bias}
    if problems:
        raise UserError(
            f"{source} does not fit: {'; '.join(problems)}. Give another file, or a network that fits it."
        )
    return params, network, image_size


def _by_layer(arrays: Mapping[str, np.ndarray]) -> tuple[_Layers, tuple[int, ...]]:
    """Arrays by layer, weights in PyTorch's layout; and ``(M,)``, or ``()`` of a single network."""
    layers: _Layers = {}
    for name, array in arrays.items():
        layer, _, leaf = name.replace("/", ".").rpartition(".")
        layers.setdefault(layer, {})[leaf] = array
    leads = [leaves["bias"].shape[:-1] for leaves in layers.values() if "bias" in leaves]
    lead = collections.Counter(leads).most_common(1)[0][0][:1] if leads else ()
    for leaves in layers.values():
        if "kernel" in leaves and leaves["kernel"].ndim >= len(lead) + 2:
            leaves["weight"] = _kernel_to_torch(leaves.pop("kernel"), len(lead))
    return layers, lead


def _in_order(layers: _Layers, leading: int, source: str) -> list[str]:
    """Names of a network's layers, first to last: convolutions, then the dense layer.

    Convolutions are ordered by their numbers, or as each takes what the previous one gives.
    """
    shapes = {name: leaves["weight"].shape[leading:] for name, leaves in layers.items() if "weight" in leaves}
    convolutions = [name for name, shape in shapes.items() if len(shape) == 4]
    dense = [name for name, shape in shapes.items() if len(shape) == 2]
    others = [name for name in layers if name not in (*convolutions, *dense)]
    empty = any(0 in array.shape for leaves in layers.values() for array in leaves.values())
    if not convolutions or len(dense) != 1 or others or empty:
        raise UserError(
            f"{source} holds no network: expected convolutions and a single dense layer after them, "
            "each weight and bias (PyTorch's) or kernel and bias. Its convolutions: "
            f"{some(convolutions) or 'none'}; dense layers: {some(dense) or 'none'}; others: "
            f"{some(others) or 'none'}. Give other networks, or the name of the set that is to be read."
        )

    def follow(names: list[str]) -> bool:
        channels = [3, *(shapes[name][0] for name in names)]
        return all(shapes[name][1] == taken for name, taken in zip(names, channels, strict=False))

    natural = sorted(convolutions, key=lambda name: [(len(part), part) for part in re.split(r"(\d+)", name)])
    if len({re.sub(r"\d+", "#", name) for name in convolutions}) > 1:
        fitting = [names for names in (natural, convolutions) if follow(names)]
        if len(fitting) == 2 and natural != convolutions:
            raise UserError(
                f"{source} does not say in which order its convolutions come ({some(natural)}). Name them "
                "conv1, conv2 and so on."
            )
        natural = fitting[0] if fitting else natural
    return [*natural, *dense]


def _checked(
    name: str, array: np.ndarray | None, lead: tuple[int, ...], shape: tuple[int, ...], problems: list[str]
) -> np.ndarray:
    """An array ``(*lead, *shape)`` as float32 ``(M, *shape)``; what is wrong with it joins the problems."""
    if array is None:
        problems.append(f"{name} is missing")
    elif array.shape != lead + shape:
        problems.append(f"{name} is {array.shape}, expected {lead + shape}")
    elif array.dtype.kind != "f":
        problems.append(f"{name} is {array.dtype}, expected floating point")
    else:
        with np.errstate(over="ignore"):  # values beyond float32 become infinite and are refused
            values = np.ascontiguousarray(array, np.float32).reshape(-1, *shape)
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if len(bad):
            problems.append(f"{name} is not finite in network {some([str(number) for number in bad])}")
        return values
    return np.zeros((1, *shape), np.float32)
