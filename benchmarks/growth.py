"""Seconds, memory and compilation as a population, its images, its chunks and the pairs grow.

Each point is measured in a process of its own: a process's peak memory never falls.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import rows, translators, zoo
from benchmarks.rows import Row
from benchmarks.stopwatch import Compilations
from benchmarks.suite import Settings
from kernelgan import engine, models

COMPILATION_BATCH = 16
"""Images a batch where compilation alone is measured, so that running takes little."""

COMPILATION = "compilation"


def peak_memory() -> float:
    """Bytes: of this process on a CPU, of the device on a GPU (where the host's are of no interest)."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return float((device.memory_stats() or {}).get("peak_bytes_in_use", float("nan")))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


class Laps:
    """Seconds between calls."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def __call__(self, *_: object) -> None:
        """Ends a lap."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def _train(
    settings: Settings, laps: Callable[..., None], epochs: int, *, count: int, images: int, chunk: int
) -> None:
    """The engine, one step an epoch."""
    batch = settings.growth_batch
    training = engine.Training(epochs, batch, batch, zoo.RATE, (1.0, 1.0))
    pictures = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    zoo.train_noise(
        models.ConvNet(), count, pictures, training, saver=zoo.Keeper(0), progress=laps, chunk_size=chunk
    )


def _point(settings: Settings, mode: str, quantity: str, size: int) -> Row:
    """One size of one quantity: a step of everything, after one that compiles."""
    laps, heard, before = Laps(), Compilations(), peak_memory()
    epochs = 4 if mode == rows.GPU else 2  # on CPUs the largest take long
    smallest = settings.growth["models"][0]
    chunked = max(settings.growth["chunk size"])
    if quantity == "models":
        _train(settings, laps, epochs, count=size, images=settings.pictures, chunk=size)
    elif quantity == "images":
        _train(settings, laps, epochs, count=smallest, images=size, chunk=smallest)
    elif quantity == "chunk size":
        _train(settings, laps, epochs, count=chunked, images=settings.pictures, chunk=size)
    elif quantity == "pairs":
        volumes = translators.make_volumes(size, settings.translator_batch)
        translators.train(
            settings=settings, volumes=volumes, laps=epochs, steps=1, saver=zoo.Keeper(0), progress=laps
        )
    else:
        raise ValueError(f"no quantity {quantity!r}; expected one of {', '.join(settings.growth)}")
    # Chunk after chunk, each has its epochs; the first of each is left out, the very first compiles.
    by_epoch = np.reshape(laps.seconds, (-1, epochs))[:, 1:].sum(axis=0)
    row = Row("growth", f"{quantity} {size}", mode, "step of all", wall_rounds=list(1e3 * by_epoch))
    row.compile_s = heard.seconds
    row.details = {
        "quantity": quantity,
        "size": size,
        "seconds": float(statistics.median(by_epoch)),
        "peak_bytes": peak_memory(),
        "peak_bytes_before": before,
    }
    return row


def _compilation(settings: Settings, mode: str) -> list[Row]:
    """Tracing, lowering and compiling of the engine for few networks and for many, in turn."""
    found = {
        count: Row("growth", f"{COMPILATION}, {count} models", mode, "compilation")
        for count in settings.compiled
    }
    heard = Compilations()
    training = engine.Training(1, COMPILATION_BATCH, COMPILATION_BATCH, zoo.RATE, (1.0, 1.0))
    pictures = np.zeros((2 * COMPILATION_BATCH, 32, 32, 3), np.uint8)
    for _ in range(settings.compile_rounds):
        for count, row in found.items():
            jax.clear_caches()
            heard.restart()
            zoo.train_noise(
                models.ConvNet(), count, pictures, training, saver=zoo.Keeper(0), progress=lambda *_: None
            )
            row.wall_rounds.append(1e3 * heard.seconds)
            row.details = {"quantity": COMPILATION, "size": count}
    return list(found.values())


def measure(settings: Settings, mode: str, *, quantity: str, size: int = 0) -> list[Row]:
    """One point, or the compilations."""
    if quantity == COMPILATION:
        return _compilation(settings, mode)
    return [_point(settings, mode, quantity, size)]
