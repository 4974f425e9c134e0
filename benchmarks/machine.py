"""The machine, the versions and the flags that figures belong to. Nothing here imports JAX before `describe`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_PREFIXES = (
    "CUDA_",
    "JAX_",
    "KERNELGAN_",
    "MKL_",
    "NUMBA_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "TORCH_",
    "XLA_",
)
"""Environment variables that change what is computed or how fast."""


def pin() -> None:
    """Keeps this process on the last of its cores, where the system can; before anything starts threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def processor() -> str:
    """Its model, and the widest vectors that it has."""
    path = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in path.read_text().splitlines()] if path.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    model = fields.get("model name", platform.processor() or platform.machine())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return ", ".join([model, *(flag for flag in ("avx512f", "avx2", "asimd") if flag in flags)][:2])


def flags() -> dict[str, str]:
    """The environment variables that matter and are set."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES)}


def _gpu() -> str:
    """Its name and driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def describe() -> dict[str, Any]:
    """All of it, for the JSON; starts JAX on its device.

    Raises:
      SystemExit: there is no such device.
    """
    import jax

    from kernelgan import environment

    try:
        device = jax.local_devices()[0]
    except (RuntimeError, AssertionError):  # the latter where no plugin of the platform is installed
        raise SystemExit(f"JAX finds no {os.environ.get('JAX_PLATFORMS', 'device')} device here") from None
    versions = environment.versions()
    for package in ("numba", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    words = [f"{processor()}, {environment.cores()} cores"]
    if device.platform != "cpu":
        words.append(_gpu() or device.device_kind)
    machine = {"words": "; ".join(words), "system": platform.platform(), "platform": device.platform}
    return {"machine": machine, "versions": versions, "flags": flags()}
