"""Figures of thousands of networks: UMAP spread over processes, and kept on disk as they come."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from kernelgan.files import write_atomically
from kernelgan.types import UserError
from studies.jain2024 import protocol

Features = Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]]
"""``members (m,) -> (some of them (k,), their features (k, N, F))`` and so on, until all are given."""

_SECONDS_A_TASK = 3.0
_SECONDS_A_NETWORK = 0.15  # of one UMAP of 89 images; only the size of a task depends on it


class Measurements:
    """Measures networks in worker processes; a killed run finds what was measured again.

    Args:
      folder: where figures are kept, one file a population.
      positive: bool ``(N,)``, see `protocol.measure`.
      processes: workers; 0: as many as there are cores for this process.
      seconds: least time between two saves.
    """

    def __init__(self, folder: Path, positive: np.ndarray, *, processes: int, seconds: float) -> None:
        self._folder = folder
        self._positive = positive
        from kernelgan.environment import cores  # here, for the workers need no JAX

        self._processes = processes or cores()
        self._seconds = seconds
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=failure[0] is None, cancel_futures=True)
            if failure[0] is not None:
                # What they are at is lost either way; the user waits for the prompt.
                for worker in multiprocessing.active_children():
                    worker.terminate()

    def embedding(self, features: np.ndarray, seed: int) -> np.ndarray:
        """`protocol.embed` in a worker."""
        with _worker_errors():
            return self._workers().submit(protocol.embed, features, seed).result()

    def of(
        self,
        name: str,
        count: int,
        members: np.ndarray,
        features: Features,
        seeds: tuple[int, ...],
        settings: protocol.Settings,
        progress: Callable[[int, int], None],
    ) -> np.ndarray:
        """These networks of a population under every seed.

        Args:
          name: of the file, which has a place for each network of the population; one name stands for one
            population under these seeds and settings.
          count: the population's networks, ``M``.
          members: their numbers, ``(m,)``.
          features: gives the features of the networks that are still missing.
          seeds: of UMAP.
          settings: of the clusterers.
          progress: told how many of these networks are done, and how many there are.

        Returns:
          float64 ``(m, seeds, K + 1 + D, 7)``; see `protocol.measure_many`.

        Raises:
          UserError: a worker died.
        """
        file = self._folder / f"{name}.npy"
        found = _read(file, (count, len(seeds), settings.clusterings, len(protocol.FIGURES)))
        missing = members[np.isnan(found[members]).any(axis=(1, 2, 3))]
        if not missing.size:
            return found[members]
        done, saved = len(members) - missing.size, time.monotonic()
        progress(done, len(members))
        size = max(1, int(_SECONDS_A_TASK / _SECONDS_A_NETWORK / len(seeds)))
        waiting: dict[concurrent.futures.Future[np.ndarray], np.ndarray] = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with _worker_errors():
                for numbers, values in _tasks(features(missing), size):
                    task = self._workers().submit(
                        protocol.measure_many, values, self._positive, seeds, settings
                    )
                    waiting[task] = numbers
                    # A few tasks ahead of the workers: features of all networks would fill the memory.
                    while len(waiting) > 2 * self._processes:
                        done += _collect(waiting, found)
                        progress(done, len(members))
                        if time.monotonic() - saved >= self._seconds:
                            _write(file, found)
                            saved = time.monotonic()
                while waiting:
                    done += _collect(waiting, found)
                    progress(done, len(members))
        finally:
            _write(file, found)
        return found[members]

    def _workers(self) -> concurrent.futures.ProcessPoolExecutor:
        if self._pool is None:
            # Spawned, not forked: JAX's threads are at work in this process.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._processes, multiprocessing.get_context("spawn"), initializer=_prepare
            )
        return self._pool


def _prepare() -> None:
    """In a worker: Ctrl-C is the parent's business, and without the parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise UserError(
            "a process that embeds features died, perhaps for want of memory. What was measured is kept: "
            "give "
            "the same command again, with fewer processes if need be (--config.reference.processes=1)."
        ) from error


def _tasks(
    stream: Iterable[tuple[np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for members, values in stream:
        for start in range(0, len(members), size):
            yield members[start : start + size], np.ascontiguousarray(values[start : start + size])


def _collect(waiting: dict[concurrent.futures.Future[np.ndarray], np.ndarray], found: np.ndarray) -> int:
    """Takes in the tasks that are done, at least one, and gives the number of their networks."""
    ready, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
    count = 0
    for task in ready:
        members = waiting.pop(task)
        found[members] = task.result()
        count += len(members)
    return count


def _read(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """What was measured before, NaN where nothing was; a damaged file counts as nothing."""
    with contextlib.suppress(Exception):  # a damaged header makes NumPy raise whatever it likes
        found = np.load(file, allow_pickle=False)
        if found.shape == shape and found.dtype == np.float64:
            return found
    return np.full(shape, np.nan)


def _write(file: Path, found: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, found, allow_pickle=False)
    write_atomically(file, buffer.getvalue())
