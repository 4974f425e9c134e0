"""Weights in and out: PyTorch's names and layout, and zoos trained elsewhere.

PyTorch keeps a kernel as (output, input, height, width) and a dense layer as (outputs, features), in a flat
dict such as ``conv1.weight``; ours are ``HWIO`` and ``{layer: {"kernel", "bias"}}`` (`types.py`). Both
flatten features in CHW order, so that axes move and no value changes. A zoo has a leading ``M`` on each
array, in files as in memory. Logit 1 says that the concept holds; ``positive=0`` is for files where logit 0
does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import models
from kernelgan.types import Params, UserError
from kernelgan.weights import SUFFIXES, read_arrays, some, write_arrays

_LAYERS = {"dense": "fc1", "encode": "main.0", "decode": "main.2"}
"""PyTorch's names of our layers, where they differ."""

_Shapes = dict[str, tuple[int, ...]]


class Zoo(NamedTuple):
    """Networks read from files.

    Attributes:
      params: stacked Flax parameters, ``M`` networks; kernels ``HWIO``, dense rows in CHW order.
      network: the module that runs them.
    """

    params: Params
    network: models.ConvNet


# Networks -------------------------------------------------------------------------------------------------


def load_zoo(
    path: Path | str,
    *,
    network: models.ConvNet | None = None,
    image_size: int | None = None,
    name: str = "",
    positive: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Zoo:
    """Reads networks that were trained elsewhere, or that `save` wrote.

    Layers are recognised by shape and order: any number of convolutions, then one dense layer, under any
    names (``module.conv1.weight``, ``features.0.weight``, ``head.bias``), in PyTorch's layout (``weight``) or
    ours (``kernel``). Files do not record strides, padding or activations: they must be `models.ConvNet`'s.

    Args:
      path: a file of one network or of a zoo with a leading ``M`` axis; or a directory with one file for each
        network, read in the order of their names. ``.safetensors``, ``.npz``, or ``.pth`` and ``.pt``, which
        need PyTorch.
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
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a file of weights, or a directory of such files.")
    files = _network_files(path) if path.is_dir() else [path]
    shapes: _Shapes | None = None
    loaded = []
    for done, file in enumerate(files, start=1):
        arrays = read_arrays(file)
        if name:
            chosen = [key for key in arrays if key.startswith(f"{name}.")]
            if not chosen:
                sets = list(dict.fromkeys(key.partition(".")[0] for key in arrays))
                raise UserError(f"{file} has no set {name!r}; it has {some(sets)}. Name one of these.")
            arrays = {key.removeprefix(f"{name}."): arrays[key] for key in chosen}
        arrays, aliases = _recognised(arrays, str(file))
        network = network or _network_of(arrays, str(file))
        shapes = shapes or _convnet_shapes(network, arrays, image_size)
        params = _fitted(arrays, shapes, str(file), f"{aliases}Give another file, or a network that fits it")
        if not is_stacked(params):
            params = jax.tree.map(lambda leaf: leaf[None], params)
        elif path.is_dir():
            raise UserError(
                f"{file} holds {count_of(params)} networks; expected one in each file of a directory. "
                "Give the file itself."
            )
        loaded.append(params)
        if progress is not None:
            progress(done, len(files))
    assert network is not None
    stacked = loaded[0] if len(loaded) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *loaded)
    return Zoo(stacked if positive == 1 else _swapped(stacked, positive, path), network)


def load_parents(
    path: Path | str, network: models.ConvNet, image_size: int, models: int, *, positive: int = 1
) -> Params:
    """A zoo of one concept from files, in place of training it.

    Args:
      path: as for `load_zoo`.
      network: the run's architecture, of one concept (two logits).
      image_size: pixels a side of the run's images.
      models: networks that the run needs, ``M``; of more, the first are taken.
      positive: as for `load_zoo`.

    Returns:
      Stacked parameters of ``models`` networks, of which logit 1 says that the concept holds.

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


def save(networks: Params | Mapping[str, Params], path: Path | str) -> Path:
    """Writes networks in PyTorch's names and layout, for `load_zoo` and for ``load_state_dict``.

    Args:
      networks: one network, stacked networks ``(M, ...)``, or several such sets by name; a set's arrays are
        then called ``a2b.conv1.weight`` and so on.
      path: ``.safetensors`` (with metadata: the layout, and which logit says yes), ``.npz`` or, with PyTorch,
        ``.pth``.

    Returns:
      The path.

    Raises:
      UserError: as `write_arrays`.
    """
    if all("bias" in layer for layer in networks.values()):
        arrays = to_torch(dict(networks))
    else:
        arrays = {f"{name}.{key}": a for name, one in networks.items() for key, a in to_torch(one).items()}
    return write_arrays(Path(path), arrays)


def load_generator(path: Path, *, channels: int, hidden: int) -> Params:
    """The kernel generator of a file; see `generator_from_torch`.

    Raises:
      UserError: names the file if it cannot be read, does not fit or holds several.
    """
    params = generator_from_torch(read_arrays(path), channels=channels, hidden=hidden, source=str(path))
    if is_stacked(params):
        raise UserError(f"{path} holds {count_of(params)} generators; expected a single one. Save it alone.")
    return params


def generator_from_torch(
    arrays: Mapping[str, np.ndarray], *, channels: int, hidden: int, source: str
) -> Params:
    """PyTorch's arrays of a kernel generator as parameters of a `models.KernelGenerator`.

    Args:
      arrays: ``main.0.weight`` (hidden, C, 3, 3, 3), ``main.0.bias`` (hidden,), ``main.2.weight``
        (C, hidden, 3, 3, 3), ``main.2.bias`` (C,), in any floating type; or stacked, as networks are.
      channels: input channels ``C`` of the layer whose kernels it translates.
      hidden: channels between its two convolutions.
      source: where they are from, for messages.

    Returns:
      Float32 parameters, with a leading axis if the arrays have it.

    Raises:
      UserError: as `load_zoo`.
    """
    shapes: _Shapes = {"main.0.weight": (hidden, channels, 3, 3, 3), "main.0.bias": (hidden,)}
    shapes |= {"main.2.weight": (channels, hidden, 3, 3, 3), "main.2.bias": (channels,)}
    advice = "Give another file, or the number of hidden channels and filters that fits it"
    return _fitted(arrays, shapes, source, advice)


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Networks or generators, one or stacked, in PyTorch's names and layout."""
    arrays: dict[str, np.ndarray] = {}
    for layer in sorted(params, key=_torch_name):
        kernel, bias = (np.asarray(params[layer][leaf], np.float32) for leaf in ("kernel", "bias"))
        arrays[f"{_torch_name(layer)}.weight"] = _inputs_last_to_torch(kernel, bias.ndim - 1)
        arrays[f"{_torch_name(layer)}.bias"] = np.ascontiguousarray(bias)
    return arrays


def is_stacked(params: Params) -> bool:
    """Whether these are several networks, or generators, with a leading ``M``."""
    return bool(next(iter(params.values()))["bias"].ndim > 1)


def count_of(params: Params) -> int:
    """How many networks stacked parameters hold."""
    return len(next(iter(params.values()))["bias"])


def _torch_name(layer: str) -> str:
    return _LAYERS.get(layer, layer)


def _inputs_last_to_torch(kernel: np.ndarray, leading: int) -> np.ndarray:
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


def _recognised(arrays: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], str]:
    """Arrays of a network under the names ``conv1.weight`` to ``fc1.bias``, in PyTorch's layout.

    Arrays of no convolution and no dense layer keep their names. Says in words which layers were renamed.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, leaf = name.replace("/", ".").rpartition(".")
        layers.setdefault(layer, {})[leaf] = array
    ranks = [leaves["bias"].ndim for leaves in layers.values() if "bias" in leaves]
    leading = int(ranks.count(2) > ranks.count(1))
    for leaves in layers.values():
        if "kernel" in leaves and "weight" not in leaves and leaves["kernel"].ndim >= leading + 2:
            leaves["weight"] = _inputs_last_to_torch(leaves.pop("kernel"), leading)

    def of_rank(rank: int) -> list[str]:
        weights = {name: leaves["weight"] for name, leaves in layers.items() if "weight" in leaves}
        return [name for name, weight in weights.items() if weight.ndim == leading + rank]

    dense = of_rank(2)
    if len(dense) > 1:
        raise UserError(
            f"{source} has {len(dense)} dense layers ({some(dense)}); expected convolutions and a single "
            "dense layer after them. Give other networks, or the name of the set that is to be read."
        )
    convolutions = {name: layers[name]["weight"].shape[leading:] for name in of_rank(4)}
    ordered = _in_order(convolutions, source)
    names = {name: f"conv{number}" for number, name in enumerate(ordered, start=1)}
    names |= dict.fromkeys(dense, "fc1")
    names |= {name: f"{name} (another)" for name in layers if name not in names and name in names.values()}
    aliases = [f"{new} is {old}" for old, new in names.items() if old != new]
    return {
        f"{names.get(name, name)}.{leaf}".lstrip("."): array
        for name, leaves in layers.items()
        for leaf, array in leaves.items()
    }, f"Here {some(aliases)}. " if aliases else ""


def _in_order(convolutions: Mapping[str, tuple[int, ...]], source: str) -> list[str]:
    """Names of convolutions, first to last: by their numbers, or as each takes what the one before gives."""
    natural = sorted(convolutions, key=lambda name: [(len(part), part) for part in re.split(r"(\d+)", name)])
    if len({re.sub(r"\d+", "#", name) for name in convolutions}) < 2:
        return natural

    def follow(names: list[str]) -> bool:
        channels = [3, *(convolutions[name][0] for name in names)]
        return all(convolutions[name][1] == taken for name, taken in zip(names, channels, strict=False))

    fitting = [names for names in (natural, list(convolutions)) if follow(names)]
    if len(fitting) == 2 and fitting[0] != fitting[1]:
        raise UserError(
            f"{source} does not say in which order its convolutions come ({some(natural)}). Name them "
            "conv1, conv2 and so on."
        )
    return fitting[0] if fitting else natural


def _network_of(arrays: Mapping[str, np.ndarray], source: str) -> models.ConvNet:
    weights: list[np.ndarray] = []
    while (name := f"conv{len(weights) + 1}.weight") in arrays:
        weights.append(arrays[name])
    if not weights or "fc1.weight" not in arrays or any(weight.size == 0 for weight in weights):
        raise UserError(
            f"{source} holds no network: expected convolutions and a dense layer, as weight and bias "
            f"(PyTorch's) or kernel and bias; it has {some(list(arrays)) or 'nothing'}."
        )
    filters = tuple(int(weight.shape[-4]) for weight in weights)
    outputs = int(arrays["fc1.weight"].shape[-2])
    return models.ConvNet(filters=filters, kernel_size=int(weights[0].shape[-1]), outputs=outputs)


def _convnet_shapes(
    network: models.ConvNet, arrays: Mapping[str, np.ndarray], image_size: int | None
) -> _Shapes:
    """PyTorch's names and shapes of a network's parameters; without an image size, for what the file has."""
    size, last = network.kernel_size, network.filters[-1]
    if image_size is None:
        features = arrays["fc1.weight"].shape[-1] if "fc1.weight" in arrays else last
        side = max(1, math.isqrt(features // last))
    else:
        side = image_size
        for _ in network.filters:
            side = (side - size + 1) // 2
    shapes: _Shapes = {}
    for number, (inputs, outputs) in enumerate(zip((3, *network.filters), network.filters, strict=False), 1):
        shapes |= {f"conv{number}.weight": (outputs, inputs, size, size), f"conv{number}.bias": (outputs,)}
    return shapes | {"fc1.weight": (network.outputs, last * side**2), "fc1.bias": (network.outputs,)}


def _fitted(arrays: Mapping[str, np.ndarray], shapes: _Shapes, source: str, advice: str) -> Params:
    """Arrays in PyTorch's layout as our parameters, stacked if they are."""
    problems, stacked = _misfits(arrays, shapes)
    if problems:
        raise UserError(f"{source} does not fit: {'; '.join(problems)}. {advice}.")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are refused below
        values = {name: np.asarray(arrays[name], np.float32).reshape(-1, *shapes[name]) for name in shapes}
    problems = [problem for name in values for problem in _not_finite(name, values[name], stacked)]
    if problems:
        raise UserError(
            f"{source} has weights that are not finite: {'; '.join(problems)}. Expected float32 numbers. "
            "Leave such networks out."
        )
    params: Params = {}
    ours = {theirs: layer for layer, theirs in _LAYERS.items()}
    for name, value in values.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight":
            value = np.moveaxis(value, (1, 2), (-1, -2))
        value = np.ascontiguousarray(value if stacked else value[0])
        params.setdefault(ours.get(layer, layer), {})["kernel" if leaf == "weight" else "bias"] = value
    return params


def _misfits(arrays: Mapping[str, np.ndarray], shapes: _Shapes) -> tuple[list[str], bool]:
    """What is wrong with names, shapes and types, in words; and whether the arrays are stacked."""
    problems = [f"{name} is missing" for name in shapes if name not in arrays]
    extra = [name for name in arrays if name not in shapes]
    if extra:
        problems.append(f"{some(extra)} is not expected")
    known = {name: arrays[name] for name in shapes if name in arrays}
    ranks = [array.ndim - len(shapes[name]) for name, array in known.items()]
    stacked = ranks.count(1) > ranks.count(0)
    lengths = {}
    for name, array in known.items():
        shape = shapes[name]
        if array.ndim != len(shape) + stacked or array.shape[stacked:] != shape:
            expected = f"(M, {', '.join(map(str, shape))})" if stacked else str(shape)
            problems.append(f"{name} is {array.shape}, expected {expected}")
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            problems.append(f"{name} is {array.dtype}, expected floating point")
        elif stacked:
            lengths[name] = len(array)
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        problems.append(f"its arrays have different numbers of networks: {counts}")
    elif 0 in lengths.values():
        problems.append("it holds no network")
    return problems, stacked


def _not_finite(name: str, value: np.ndarray, stacked: bool) -> list[str]:
    bad = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(axis=1))
    where = f" in network {some([str(number) for number in bad])}" if stacked else ""
    return [f"{name}{where}"] if len(bad) else []
