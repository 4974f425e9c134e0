"""Generate machine-learning models from machine-learning models, in kernel space.

The public names are imported when they are first used, so that ``import kernelgan`` is quick.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module typing takes longer to import than this one
    from typing import Any

_PUBLIC = {
    "ConvNet": ("kernelgan.models", "ConvNet"),
    "Parents": ("kernelgan.generators.base", "Parents"),
    "UserError": ("kernelgan.types", "UserError"),
    "compose": ("kernelgan.generators", "compose"),
    "data": ("kernelgan.data", ""),
    "evaluate": ("kernelgan.evaluation.single", "evaluate"),
    "fit": ("kernelgan.generators.fitting", "fit_pair"),
    "generators": ("kernelgan.generators", ""),
    "load_zoo": ("kernelgan.interop", "load_zoo"),
    "probabilities": ("kernelgan.evaluation.features", "probabilities"),
    "probes": ("kernelgan.probes", ""),
    "save": ("kernelgan.interop", "save"),
    "split": ("kernelgan.data", "split"),
    "train_zoo": ("kernelgan.zoo", "train_zoo"),
}
"""Each public name, the module that defines it, and its name there; "" for the module itself."""

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports a public name (PEP 562)."""
    if name == "__version__":
        return _version()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kernelgan' has no attribute {name!r}")
    place, own = _PUBLIC[name]
    module = importlib.import_module(place)
    return getattr(module, own) if own else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """What is installed, or in a checkout that is not installed what its project file says."""
    from importlib import metadata

    try:
        return metadata.version("kernelgan")
    except metadata.PackageNotFoundError:
        import tomllib
        from pathlib import Path

        project = Path(__file__).parents[1] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"]
