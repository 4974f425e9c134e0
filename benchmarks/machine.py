"""The machine, the versions and the flags that figures belong to."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PREFIXES = (
    "CUDA_",
    "JAX_",
    "KERNELGAN_",
    "MKL_",
    "NUMBA_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "TF_",
    "TORCH_",
    "XLA_",
)
"""Environment variables that change what is computed or how fast."""

VECTOR_BITS = {"avx512f": 512, "avx2": 256, "asimd": 128, "sse2": 128}
PACKAGES = ("numba", "torch")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pin() -> int | None:
    """Keeps this process on the last of its cores; call before anything starts threads.

    Returns:
      The core, or None where the system cannot do it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def processor(text: str | None = None) -> dict[str, Any]:
    """Model and vector width in bits, of ``/proc/cpuinfo`` or such a text."""
    if text is None:
        path = Path("/proc/cpuinfo")
        text = path.read_text() if path.is_file() else ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "vector_bits": next((bits for flag, bits in VECTOR_BITS.items() if flag in flags), None),
    }


def memory_gb() -> float | None:
    """Of the machine."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return None


def flags() -> dict[str, str]:
    """The environment variables that matter and are set."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIXES)}


def describe() -> dict[str, Any]:
    """All of it, for the JSON; starts JAX on its device."""
    import jax

    from kernelgan import environment

    try:
        device = jax.local_devices()[0]
    except (RuntimeError, AssertionError):  # the latter where no plugin of the platform is installed
        raise SystemExit(f"JAX finds no {os.environ.get('JAX_PLATFORMS', 'device')} device here") from None
    versions = environment.versions()
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "machine": {
            **processor(),
            "cores": cores(),
            "memory_gb": memory_gb(),
            "system": platform.platform(),
            "platform": device.platform,
            "gpu": None if device.platform == "cpu" else device.device_kind,
            "devices": len(jax.local_devices()),
        },
        "versions": versions,
        "flags": flags(),
    }
