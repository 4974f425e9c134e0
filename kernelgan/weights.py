"""Files of weights, named arrays: safetensors, NumPy's npz, and PyTorch's pth where PyTorch is installed."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from kernelgan.files import write_atomically
from kernelgan.types import Array, UserError

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")

_METADATA = {"format": "pt", "written by": "kernelgan", "positive": "1"}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SAFE_TORCH = (2, 10)
_LISTED = 8


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays of a file, in its order; code in the file is never run.

    Args:
      path: ``.safetensors``, ``.npz``, or PyTorch's ``.pth`` or ``.pt`` (which needs PyTorch), where the
        ``state_dict`` may be an entry of a checkpoint (``state_dict``, ``model_state_dict`` or ``model``).

    Returns:
      The arrays as they are; bfloat16, which NumPy lacks, as float32.

    Raises:
      UserError: another suffix; a file that is missing, damaged, or holds more than arrays; no PyTorch.
    """
    if not path.is_file():
        state = "is a directory" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {state}; expected a file of weights. Mend the path.")
    suffix = check_suffix(path)
    try:
        if suffix == ".safetensors":
            arrays = safetensors.numpy.load_file(path)
            return {
                name: a.astype(np.float32) if a.dtype == jnp.bfloat16 else a for name, a in arrays.items()
            }
        return _read_npz(path) if suffix == ".npz" else _read_torch(path)
    except UserError:
        raise
    except (OSError, MemoryError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "not enough memory"
        raise UserError(f"{path} cannot be read ({reason}). Mend it, or give another.") from error
    except Exception as error:  # each library raises its own kinds for a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path} is damaged, or not a {suffix} file of arrays alone ({reason}). Fetch or save it again."
        ) from error


def write_arrays(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Path:
    """Writes named arrays as contiguous float32; the file appears complete or not at all.

    Args:
      path: as for `read_arrays`; missing directories are made. A ``.pth`` holds a plain ``state_dict``.
      arrays: by name.
      metadata: for the header of a ``.safetensors`` file; the other formats have no place for it.

    Returns:
      The path.

    Raises:
      UserError: another suffix, no PyTorch where it is needed, or a place that cannot be written.
    """
    suffix, file = check_suffix(path), io.BytesIO()
    contiguous = {name: np.asarray(value, np.float32, order="C") for name, value in arrays.items()}
    if suffix == ".safetensors":
        file.write(safetensors.numpy.save(contiguous, metadata={**_METADATA, **(metadata or {})}))
    elif suffix == ".npz":
        np.savez(file, allow_pickle=False, **contiguous)
    else:
        torch = _torch(path)
        torch.save({name: torch.tensor(array) for name, array in contiguous.items()}, file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(path, file.getvalue())
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


def some(names: Sequence[str]) -> str:
    """The first few of many names, and how many more there are."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _torch(path: Path) -> Any:  # noqa: ANN401  (a module that may be missing)
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} is PyTorch's format, which needs PyTorch, and that is not installed. Install its CPU "
            "build (pip install torch), or use .safetensors or .npz instead."
        ) from error
    return torch


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if others:
        raise ValueError(f"{some(others)} is no array")
    return arrays


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    torch = _torch(path)
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < _SAFE_TORCH:
        raise UserError(
            f"{path} was not read: a crafted file can make PyTorch {torch.__version__} run code even as it "
            "loads weights only (CVE-2025-32434, CVE-2026-24747). Install "
            f"{'.'.join(map(str, _SAFE_TORCH))} or newer, or use .safetensors or .npz instead."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # PyTorch's own message advises to run whatever the file holds.
        asked = re.search(r"(?<=GLOBAL )[\w.]+|TorchScript", str(error))
        if asked is None:
            raise ValueError("PyTorch cannot load it") from error
        raise UserError(
            f"{path} holds more than weights: it asks for {asked[0]}, which was not run. Expected a "
            "state_dict; where you trust the file, save one: torch.save(model.state_dict(), ...)."
        ) from error
    entries = content if isinstance(content, dict) else {"": content}
    wrapped = [name for name in _WRAPPERS if isinstance(entries.get(name), dict)]
    entries = entries[wrapped[0]] if len(wrapped) == 1 else entries
    odd = [
        f"{name!r} ({type(value).__name__})"
        for name, value in entries.items()
        if not (name and isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if odd:
        raise UserError(
            f"{path} is not a flat dict of tensors: it has {some(odd)}. Expected a state_dict alone, as "
            "torch.save(model.state_dict(), ...) leaves it."
        )
    known = (torch.float16, torch.float32, torch.float64)  # NumPy's
    return {
        name: (t.float() if t.is_floating_point() and t.dtype not in known else t).numpy(force=True)
        for name, t in entries.items()
    }
