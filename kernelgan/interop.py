"""Weights in and out: arrays in files, PyTorch's names and layout, and networks out of a run.

PyTorch keeps a kernel as (output, input, height, width) and a dense layer as (outputs, features), in a flat
dict such as ``conv1.weight``; ours are ``HWIO`` and ``{layer: {"kernel", "bias"}}`` (`types.py`). Features
are flattened in CHW order on both sides, so that only axes move and no value changes. A whole zoo has a
leading ``M`` on each array, in files as in memory.
"""

from __future__ import annotations

import functools
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import models
from kernelgan.files import write_atomically
from kernelgan.types import Array, Params, UserError

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")

_LAYERS = {"dense": "fc1", "encode": "main.0", "decode": "main.2"}
"""What PyTorch calls our layers, where that differs."""

_LISTED = 8
_SAFE_TORCH = (2, 10)


# Files ----------------------------------------------------------------------------------------------------


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays of a file; nothing that a file may hold is ever executed.

    Args:
      path: ``.safetensors``, ``.npz``, or PyTorch's ``.pth`` or ``.pt`` (which needs PyTorch; it may have
        been saved from a GPU).

    Returns:
      The arrays as they are, in the file's order; bfloat16, which NumPy lacks, as float32.

    Raises:
      UserError: another suffix; a file that is missing, damaged, or holds more than arrays; no PyTorch.
    """
    read = _READERS[check_suffix(path)]
    if not path.is_file():
        state = "is a directory" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {state}; expected a file of weights. Mend the path.")
    try:
        return read(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}). Mend it, or give another."
        ) from error
    except Exception as error:  # a broken file makes each library raise whatever it likes
        raise UserError(
            f"{path} is damaged, or not a {path.suffix} file. Expected a whole one; fetch or save it again."
        ) from error


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> Path:
    """Writes named arrays as contiguous float32; the file appears complete or not at all.

    Args:
      path: as for `read_arrays`; missing directories are made. A ``.pth`` holds a plain ``state_dict``.
      arrays: by name.

    Returns:
      The path.

    Raises:
      UserError: another suffix, no PyTorch where it is needed, or a place that cannot be written.
    """
    write = _WRITERS[check_suffix(path)]
    content = write(path, {name: np.asarray(value, np.float32, order="C") for name, value in arrays.items()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}). Give another place.") from error


def check_suffix(path: Path) -> str:
    """The suffix of a file that can be read or written here.

    Raises:
      UserError: it is none of `SUFFIXES`.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        given = f"ends in {suffix}" if suffix else "has no suffix"
        raise UserError(f"{path} {given}; expected one of {', '.join(SUFFIXES)}. Give such a file.")
    return suffix


def _torch(path: Path) -> Any:  # noqa: ANN401  (a module that need not be there)
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is PyTorch's format, which needs PyTorch, and that is not installed. Install its CPU "
            "build (pip install torch), or use .safetensors or .npz instead."
        ) from error
    return torch


def _check_safe_to_read(torch: Any, path: Path) -> None:  # noqa: ANN401
    """Refuses a PyTorch that a crafted file can take over even as it loads weights only."""
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        raise UserError(
            f"{path} was not read: a crafted file can make PyTorch {torch.__version__} run code even as it "
            "loads weights only (CVE-2025-32434, CVE-2026-24747). Install "
            f"{'.'.join(map(str, _SAFE_TORCH))} or newer, or use .safetensors or .npz instead."
        )


def _safetensors(path: Path) -> Any:  # noqa: ANN401
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError(f"{path} needs safetensors. Run: pip install safetensors") from error
    return safetensors.numpy


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    _check_safe_to_read(torch, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch's own message advises to run whatever the file holds.
        asked = re.search(r"(?<=GLOBAL )[\w.]+|TorchScript", str(error))
        if asked is None:
            raise
        raise UserError(
            f"{path} holds more than weights: it asks for {asked[0]}, which was not run. Expected a "
            "state_dict; where you trust the file, save one: torch.save(model.state_dict(), ...)."
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}; expected a state_dict, names to tensors.")
    odd = [
        f"{name!r} ({type(value).__name__})"
        for name, value in found.items()
        if not _is_plain(torch, name, value)
    ]
    if odd:
        raise UserError(
            f"{path} is not a flat dict of plain tensors: it has {_some(odd)}. Expected a state_dict alone, "
            "as torch.save(model.state_dict(), ...) leaves it."
        )
    known = (torch.float16, torch.float32, torch.float64)
    lacking = [name for name in found if found[name].is_floating_point() and found[name].dtype not in known]
    found |= {name: found[name].float() for name in lacking}
    return {name: tensor.numpy(force=True) for name, tensor in found.items()}


def _is_plain(torch: Any, name: object, value: object) -> bool:  # noqa: ANN401
    """Whether this is a name and a dense tensor that has its values with it."""
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not value.is_quantized
        and not value.is_meta
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a lone array")
        found = {}
        for name in archive.files:
            try:
                found[name] = archive[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                raise UserError(
                    f"{path} holds more than numbers: {name!r} is an array of Python objects, which were not "
                    "loaded. Expected arrays of numbers."
                ) from error
            if not isinstance(found[name], np.ndarray):
                raise UserError(f"{path} holds {name!r}, which is no array. Expected arrays alone.")
        return found


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        found = _safetensors(path).load_file(path)
    except AttributeError as error:  # how safetensors says that NumPy lacks a type
        raise UserError(f"{path} holds values that NumPy has no type for ({error}). Save float32.") from error
    return {
        name: array.astype(np.float32) if array.dtype == jnp.bfloat16 else array
        for name, array in found.items()
    }


def _torch_bytes(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    torch, file = _torch(path), io.BytesIO()
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, file)
    return file.getvalue()


def _npz_bytes(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    del path
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # not np.savez, whose own argument is called "file"
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return file.getvalue()


def _safetensors_bytes(path: Path, arrays: dict[str, np.ndarray]) -> bytes:
    return _safetensors(path).save(arrays)


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
}
_WRITERS: dict[str, Callable[[Path, dict[str, np.ndarray]], bytes]] = {
    ".safetensors": _safetensors_bytes,
    ".npz": _npz_bytes,
    ".pth": _torch_bytes,
    ".pt": _torch_bytes,
}


# Names and layout -----------------------------------------------------------------------------------------


def convnet_from_torch(
    arrays: Mapping[str, np.ndarray],
    network: models.ConvNet,
    *,
    image_size: int,
    source: str,
    head: bool = True,
) -> Params:
    """PyTorch's arrays of one network, or of a stacked zoo, as our parameters.

    Args:
      arrays: ``conv1.weight`` (O, I, h, w), ``conv1.bias`` (O,), ..., ``fc1.weight`` (outputs, F),
        ``fc1.bias`` (outputs,), in any floating type; or each of them with a leading ``M``.
      network: says which shapes are right.
      image_size: pixels a side, likewise.
      source: where they are from, for messages.
      head: whether there is a dense layer; networks that the reference generates have none.

    Returns:
      Float32 parameters, with a leading ``M`` if the arrays have it.

    Raises:
      UserError: names every array that is missing, too many, of another shape or type, or not finite.
    """
    shapes = _convnet_shapes(network, image_size, head)
    advice = (
        "Give another file, or set model.filters, model.kernel_size and data.image_size to these networks'"
    )
    return _from_torch(arrays, shapes, source, advice)


def convnet_to_torch(params: Params) -> dict[str, np.ndarray]:
    """The inverse of `convnet_from_torch`, for one network or a stacked zoo, with or without a head."""
    return to_torch(params)


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
      UserError: as `convnet_from_torch`.
    """
    advice = "Give another file, or set cyclegan.hidden and model.filters to this generator's"
    return _from_torch(arrays, _generator_shapes(channels, hidden), source, advice)


def generator_to_torch(params: Params) -> dict[str, np.ndarray]:
    """The inverse of `generator_from_torch`."""
    return to_torch(params)


@functools.lru_cache(maxsize=16)  # a directory has thousands of files of one shape
def _convnet_shapes(network: models.ConvNet, image_size: int, head: bool) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(lambda: models.initialise_convnet(network, image_size, jax.random.key(0)))
    return _torch_shapes({layer: leaves for layer, leaves in shapes.items() if head or layer != "dense"})


@functools.lru_cache(maxsize=16)
def _generator_shapes(channels: int, hidden: int) -> dict[str, tuple[int, ...]]:
    def initialise() -> Params:
        volumes = jnp.zeros((1, 1, 3, 3, channels))
        return models.KernelGenerator(hidden).init(jax.random.key(0), volumes)["params"]

    return _torch_shapes(jax.eval_shape(initialise))


def _torch_name(layer: str) -> str:
    return _LAYERS.get(layer, layer)


def _torch_shapes(shapes: Params) -> dict[str, tuple[int, ...]]:
    """PyTorch's names and shapes of our parameters' shapes."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in sorted(shapes, key=_torch_name):
        *space, inputs, outputs = shapes[layer]["kernel"].shape
        name = _torch_name(layer)
        found |= {f"{name}.weight": (outputs, inputs, *space), f"{name}.bias": (outputs,)}
    return found


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Networks or generators, one or stacked, in PyTorch's names and layout."""
    found: dict[str, np.ndarray] = {}
    for layer in sorted(params, key=_torch_name):
        kernel, bias = (np.asarray(params[layer][leaf], np.float32) for leaf in ("kernel", "bias"))
        stacked, name = bias.ndim - 1, _torch_name(layer)
        weight = np.moveaxis(kernel, (-1, -2), (stacked, stacked + 1))
        found |= {f"{name}.weight": np.ascontiguousarray(weight), f"{name}.bias": np.ascontiguousarray(bias)}
    return found


def _from_torch(
    arrays: Mapping[str, np.ndarray], shapes: dict[str, tuple[int, ...]], source: str, advice: str
) -> Params:
    problems, stacked = _misfits(arrays, shapes)
    if problems:
        raise UserError(f"{source} does not fit: {'; '.join(problems)}. {advice}.")
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
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


def _misfits(arrays: Mapping[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> tuple[list[str], bool]:
    """What is wrong with names, shapes and types, in words; and whether the arrays are stacked."""
    problems = [f"{name} is missing" for name in shapes if name not in arrays]
    extra = [name for name in arrays if name not in shapes]
    if extra:
        problems.append(f"{_some(extra)} is not expected")
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
        problems.append(f"its arrays are of different numbers of networks: {counts}")
    elif 0 in lengths.values():
        problems.append("it holds no network")
    return problems, stacked


def _not_finite(name: str, value: np.ndarray, stacked: bool) -> list[str]:
    bad = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(axis=1))
    where = f" in network {_some([str(number) for number in bad])}" if stacked else ""
    return [f"{name}{where}"] if len(bad) else []


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# Networks in files ----------------------------------------------------------------------------------------


def load_convnets(
    path: Path,
    network: models.ConvNet,
    *,
    image_size: int,
    head: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Params:
    """Networks of a file, or of a directory that has a file for each.

    Args:
      path: a file of one network or of a stacked zoo, or a directory of files of one network each, which are
        taken in the order of their names and have one suffix.
      network: see `convnet_from_torch`.
      image_size: likewise.
      head: likewise.
      progress: told how many of how many files are read.

    Returns:
      Stacked parameters, ``M`` of them.

    Raises:
      UserError: names the file that cannot be read or does not fit; or the directory is empty or mixed.
    """
    files = _network_files(path) if path.is_dir() else [path]
    found = []
    for done, file in enumerate(files, start=1):
        params = convnet_from_torch(
            read_arrays(file), network, image_size=image_size, source=str(file), head=head
        )
        if not is_stacked(params):
            params = jax.tree.map(lambda leaf: leaf[None], params)
        elif path.is_dir():
            raise UserError(
                f"{file} holds {count_of(params)} networks; expected one in each file of a directory. "
                "Give the file itself."
            )
        found.append(params)
        if progress is not None:
            progress(done, len(files))
    return found[0] if len(found) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)


def load_generator(path: Path, *, channels: int, hidden: int) -> Params:
    """The kernel generator of a file.

    Args:
      path: as for `read_arrays`.
      channels: see `generator_from_torch`.
      hidden: likewise.

    Returns:
      Parameters of one `models.KernelGenerator`.

    Raises:
      UserError: names the file if it cannot be read, does not fit or holds several.
    """
    params = generator_from_torch(read_arrays(path), channels=channels, hidden=hidden, source=str(path))
    if is_stacked(params):
        raise UserError(f"{path} holds {count_of(params)} generators; expected one. Save it alone.")
    return params


def _network_files(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    kinds = sorted({"directories" if path.is_dir() else path.suffix.lower() or path.name for path in found})
    if len(kinds) != 1 or kinds[0] not in SUFFIXES:
        raise UserError(
            f"{directory} {f'holds {_some(kinds)}' if kinds else 'is empty'}; expected one file for each "
            f"network, all of one suffix ({', '.join(SUFFIXES)}), and nothing else. Mend it, or give a file."
        )
    return found


def is_stacked(params: Params) -> bool:
    """Whether these are several networks, or generators, with a leading ``M``."""
    return bool(next(iter(params.values()))["bias"].ndim > 1)


def count_of(params: Params) -> int:
    """How many networks stacked parameters hold."""
    return len(next(iter(params.values()))["bias"])
