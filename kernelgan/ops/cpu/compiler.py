"""How this package's functions are compiled, and where the result is kept.

Numba keeps compiled code by the file that a function is in, and does not see when another file that the
function calls has changed. Here it is kept by the content of all files of this package, in the user's cache
(`cache`), or where that cannot be written not at all. `kernelgan.evaluation.loops` keeps its code here too:
its functions call nothing compiled outside of their own file, whose changes numba sees.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from kernelgan import cache
from kernelgan.ops.cpu.microkernels import WIDTH


def _cache() -> Path | None:
    digest = hashlib.sha256(f"{WIDTH} {os.environ.get('NUMBA_OPT', '')}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return cache.directory(f"direct-{digest.hexdigest()[:16]}")


def _kept(decorate: Callable[..., Any]) -> Callable[..., Any]:
    """A numba decorator whose results are kept in our cache, whatever numba keeps elsewhere."""

    def decorator(function: Callable[..., Any]) -> Any:
        settings: Any = numba.config
        elsewhere = settings.CACHE_DIR
        settings.CACHE_DIR = str(_CACHE or elsewhere)
        try:
            return decorate(function)
        finally:
            settings.CACHE_DIR = elsewhere

    return decorator


_CACHE = _cache()
_OPTIONS: dict[str, Any] = {"cache": _CACHE is not None, "error_model": "numpy"}

compiled = _kept(numba.njit(nogil=True, **_OPTIONS))
"""Compiled at its first call.

Without fast mathematics: what LLVM makes of a sum that it may reorder depends on what it inlines, and that
differs between code just compiled and code found on disk. Results are to the bit the same this way.
"""


def compiled_for_c(signature: Any) -> Callable[..., Any]:
    """Compiled at once, callable by C."""
    return _kept(numba.cfunc(signature, **_OPTIONS))


inlined = _kept(numba.njit(nogil=True, inline="always", **_OPTIONS))
"""The same, but made part of its caller: large code that has one caller is optimised once, not once for each
level above it."""
