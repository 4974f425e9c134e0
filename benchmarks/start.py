"""How long a fresh process takes to its first training step, with an empty compilation cache and a full one.

The process that is timed is the worker's own, so nothing here imports JAX before the clock is read.
"""

from __future__ import annotations

import os
import time

from benchmarks.rows import Row
from benchmarks.stopwatch import Compilations
from benchmarks.suite import Settings

BEGAN = "KERNELGAN_BENCHMARK_BEGAN"
"""The environment variable that tells when the process was asked for, in seconds since 1970."""


def cache_environment(directory: str) -> dict[str, str]:
    """Variables with which `environment.configure` keeps what is compiled in a directory."""
    return {"JAX_ENABLE_COMPILATION_CACHE": "true", "XDG_CACHE_HOME": directory}


def measure(settings: Settings, mode: str, *, start: str) -> list[Row]:
    """One start: the imports, the compilation (or its being found), the first step."""
    now = time.time()
    began = float(os.environ.get(BEGAN, now))
    clock = time.perf_counter()
    from kernelgan import engine, environment, models

    environment.configure("auto")
    imported = time.perf_counter() - clock

    import numpy as np

    from benchmarks import zoo

    heard = Compilations()
    training = engine.Training(1, settings.batch, settings.batch, zoo.RATE, (1.0, 1.0))
    pictures = np.zeros((settings.pictures, zoo.IMAGE_SIZE, zoo.IMAGE_SIZE, 3), np.uint8)
    ended: list[float] = []
    clock = time.perf_counter()
    zoo.train_noise(
        models.ConvNet(),
        settings.networks["many"],
        pictures,
        training,
        saver=zoo.Keeper(0),
        progress=lambda *_: ended.append(time.time()),
    )
    row = Row("start", start, mode, "start", wall_rounds=[1e3 * (ended[0] - began)])
    row.compile_s = heard.seconds
    row.details = {
        "python_s": now - began,
        "import_s": imported,
        "first_step_s": time.perf_counter() - clock - heard.seconds,
    }
    return [row]
