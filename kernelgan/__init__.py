"""Generate machine-learning models from machine-learning models, in kernel space.

The public names are imported when they are first used, so that ``import kernelgan`` is quick.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module typing takes longer to import than this one
    from typing import Any

_PUBLIC = {
    "ConvNet": "kernelgan.models",
    "UserError": "kernelgan.types",
    "data": "",
    "generators": "",
    "load_zoo": "kernelgan.interop",
    "save": "kernelgan.interop",
    "split": "kernelgan.data.quadrants",
}
"""Each public name and the module that defines it; "" for a module of this package."""

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Imports a public name (PEP 562)."""
    if name == "__version__":
        return _version()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kernelgan' has no attribute {name!r}")
    module = _PUBLIC[name]
    return (
        getattr(importlib.import_module(module), name)
        if module
        else importlib.import_module(f"kernelgan.{name}")
    )


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
