"""The machine that a run is on: its device, and the versions of what computes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

import jax

from kernelgan.types import UserError

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "scikit-learn",
    "umap-learn",
)


def select_device(device: str) -> None:
    """Chooses the device before JAX starts; where it has started already, it stays as it is.

    Args:
      device: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Raises:
      UserError: a device that is asked for is not there.
    """
    if device != "auto":
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    try:
        found = jax.devices()[0].platform
    except (RuntimeError, AssertionError):  # the latter where no plugin of the platform is installed
        found = "none"
    if device not in ("auto", found):
        raise UserError(
            f"device is {device!r}, but JAX finds {found!r} here. Expected a machine that has one; for a GPU "
            "install requirements-cuda12.txt, or set --config.device=auto."
        )


def device_words() -> str:
    """Such as ``NVIDIA H100 (2 devices)``."""
    devices = jax.local_devices()
    count = f"{len(devices)} device" + ("s" if len(devices) > 1 else "")
    return f"{devices[0].device_kind} ({count})"


def versions() -> dict[str, str]:
    """Of Python and of each installed package that results may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
