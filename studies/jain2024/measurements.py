"""Figures of thousands of networks: UMAP spread over processes, and kept on disk as they come."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from kernelgan.files import write_atomically
from kernelgan.types import UserError
from studies.jain2024 import protocol

Features = Callable[[np.ndarray], Iterable[tuple[np.ndarray, np.ndarray]]]
"""``members (m,) -> (some of them (k,), their features (k, N, F))`` and so on, until all are given."""


@contextlib.contextmanager
def workers(processes: int) -> Iterator[Executor]:
    """A pool of processes; they end at once where the work is cut off.

    Args:
      processes: 0: as many as there are cores for this process.

    Raises:
      UserError: a worker died.
    """
    from kernelgan.environment import cores  # here, for the workers need no JAX

    # Spawned, not forked: JAX's threads are at work in this process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes or cores(), context, initializer=_prepare) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "a process that runs UMAP died, perhaps for lack of memory. Finished figures are kept: "
                    "give the same command again, with fewer processes if need be (--processes=1)."
                ) from error
            raise


def _prepare() -> None:
    """In a worker: Ctrl-C is the parent's business, and without the parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def measure(
    pool: Executor,
    file: Path,
    count: int,
    members: np.ndarray,
    features: Features,
    positive: np.ndarray,
    settings: protocol.Settings,
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """Figures ``(m, S, K + 1 + D, 7)`` of networks; what the file has is not measured again.

    Args:
      pool: runs `protocol.measure`.
      file: keeps figures of the whole population under these settings, and of no other.
      count: the population's networks, ``M``.
      members: their numbers, ``(m,)``.
      features: gives the features of the networks that are still missing.
      positive: see `protocol.measure`.
      settings: see `protocol.measure`.
      progress: receives how many of these networks are done, and how many there are.
    """
    figures = _read(file, (count, *settings.shape))
    missing = members[np.isnan(figures[members]).any(axis=(1, 2, 3))]
    if missing.size:
        file.parent.mkdir(parents=True, exist_ok=True)
        done = len(members) - missing.size
        progress(done, len(members))
        # A part at a time: features of all networks would fill the memory.
        for numbers, values in features(missing):
            tasks = [pool.submit(protocol.measure, one, positive, settings) for one in values]
            try:
                for number, task in zip(numbers, tasks, strict=True):
                    figures[number] = task.result()
                    done += 1
                    progress(done, len(members))
            finally:
                buffer = io.BytesIO()
                np.save(buffer, figures, allow_pickle=False)
                write_atomically(file, buffer.getvalue())
    return figures[members]


def _read(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """What was measured before, NaN where nothing was; a damaged file counts as nothing."""
    with contextlib.suppress(Exception):  # a damaged header makes NumPy raise whatever it likes
        figures = np.load(file, allow_pickle=False)
        if figures.shape == shape and figures.dtype == np.float64:
            return figures
    return np.full(shape, np.nan)
