"""Where what is compiled is kept for the next process: the user's cache, ``$XDG_CACHE_HOME/kernelgan``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def directory(name: str) -> Path | None:
    """A directory of this name in the cache, made if it is not there; None where nothing can be written."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        found = root / "kernelgan" / name
        found.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=found):
            return found
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
