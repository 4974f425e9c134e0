"""The machine that a run is on: its devices, where what is compiled is kept, and versions."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax

from kernelgan import cache, models
from kernelgan.ops import cpu
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
    "numba",
    "llvmlite",
)

_SWITCHES = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_disable_jit": False,
    "jax_check_tracer_leaks": False,
    "jax_debug_key_reuse": False,
    "jax_transfer_guard": None,
    "jax_no_tracing": False,
    "jax_no_execution": False,
}
"""Of JAX, which change figures or stop a run by a traceback: as a run needs them."""

_HARMLESS = re.compile(
    r"JAX_(PLATFORM|NUM_CPU|COMPILATION|PERSISTENT|ENABLE_COMPILATION|COORDINATOR|.*_DIR$)"
)
"""Variables that change no figure."""

_WORTH_KEEPING = 0.2
"""Seconds of compilation from which on a program is kept."""


class Checkout(NamedTuple):
    """The git checkout that the package runs from.

    Attributes:
      commit: its hash; "" outside a checkout, or without git.
      clean: whether no tracked file differs from the commit; None where that is not known.
    """

    commit: str = ""
    clean: bool | None = None


@functools.cache
def checkout() -> Checkout:
    """See `Checkout`; as it was when this process first asked."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not in somebody else's checkout
        return Checkout(git("rev-parse", "HEAD"), not git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return Checkout()


def cores() -> int:
    """How many this process may use."""
    if not hasattr(os, "sched_getaffinity"):  # where a process cannot be kept to some of them
        return os.cpu_count() or 1
    found = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # a container's share, if it has one: "max" is no number
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        found = min(found, max(1, round(int(quota) / int(period))))
    return found


def configure(device: str) -> None:
    """Sets JAX up before it starts; where it has started already, what cannot be changed stays as it is.

    On a CPU every core is a device of its own: `kernelgan.ops.cpu` runs a network on one core. Programs are
    kept once they are compiled, so that the next process starts at once: in `cache.directory`, or where
    ``JAX_COMPILATION_CACHE_DIR`` says; with ``JAX_ENABLE_COMPILATION_CACHE=0`` no program of JAX's is.

    Switches that change figures, or are for debugging, are set as a run needs them, and named on stderr.

    Args:
      device: ``"auto"``, ``"cpu"`` or ``"gpu"``.
    """
    set_aside = []
    for name, needed in _SWITCHES.items():
        value = getattr(jax.config, name, needed)
        if getattr(value, "value", value) != needed:
            jax.config.update(name, needed)
            set_aside.append(f"{name.upper()}={value}")
    if set_aside:
        print(
            f"set aside, for they would change figures or stop the run: {', '.join(set_aside)}",
            file=sys.stderr,
        )
    if device != "auto":
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    told = "JAX_NUM_CPU_DEVICES" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and cpu.is_available():
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", cores())
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        directory = cache.directory("xla")
        if directory is not None:
            jax.config.update("jax_compilation_cache_dir", str(directory))
            if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
                jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)


def select_device(device: str) -> None:
    """Configures JAX, starts it, and checks that it runs on the device that is asked for.

    Args:
      device: ``"auto"``, ``"cpu"`` or ``"gpu"``.

    Raises:
      UserError: a device that is asked for is not there.
    """
    configure(device)
    try:
        found = jax.devices()[0].platform
    except (RuntimeError, AssertionError):  # the latter where no plugin of the platform is installed
        found = "none"
        named = os.environ.get("JAX_PLATFORMS", "")
        if device == "auto":
            raise UserError(
                f"JAX finds no device of JAX_PLATFORMS={named} here. Expected a platform that this machine "
                "has; for a GPU install requirements-cuda12.txt, or unset JAX_PLATFORMS."
            ) from None
    if device not in ("auto", found):
        raise UserError(
            f"device is {device!r}, but JAX finds {found!r} here. Expected a machine that has one; for a GPU "
            "install requirements-cuda12.txt, or set --config.device=auto."
        )


def device_words() -> str:
    """Such as ``NVIDIA H100 (2 devices)``, of all processes of the run; on CPUs a device is a core."""
    devices = jax.devices()
    count = f"{len(devices)} device" + ("s" if len(devices) > 1 else "")
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{devices[0].device_kind} ({count}{processes})"


def versions() -> dict[str, str]:
    """Of Python, of each installed package that results may depend on, and variables that JAX was given."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    given = {name: value for name, value in sorted(os.environ.items()) if name.startswith("JAX_")}
    found |= {name: value for name, value in given.items() if not _HARMLESS.match(name)}
    flags = models.xla_flags()
    return found | ({"XLA_FLAGS": flags} if flags else {})
