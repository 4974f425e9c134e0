"""Networks dealt to all cores, and the inner loops that numpy would spread over many passes through memory.

Compiled by numba when they are first called, kept as `kernelgan.ops.cpu` keeps its code. Importing this takes
about a second (numba), so it is imported where something is computed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import TypeVar

import numpy as np
import threadpoolctl

from kernelgan import environment
from kernelgan.ops.cpu.compiler import compiled

LANES = 128
"""Resamples handled at a time: their sums stay in a core's first cache, their counts in its second."""
POSITIVE = -1
"""In ``kind``: the conjunction."""

_AT_ONCE = 16  # networks of a task


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def on_all_cores(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    stop: Callable[[], None] = lambda: None,
    at_once: int | None = None,
) -> list[_Result]:
    """``work(item)`` of each in a thread, with one BLAS thread each.

    What an item gives must not depend on the others; then the results do not depend on the number of cores.

    Args:
      work: a function of one item.
      items: its arguments.
      stop: called at the first error; no other item is begun, and the error is raised when those that are
        under way have ended.
      at_once: items at a time; None for as many as there are cores.
    """
    failed = threading.Event()

    def unless_failed(item: _Item) -> _Result:
        if failed.is_set():
            raise futures.CancelledError
        try:
            return work(item)
        except BaseException:
            failed.set()
            raise

    with _blas().limit(limits=1), futures.ThreadPoolExecutor(at_once or environment.cores()) as pool:
        started = [pool.submit(unless_failed, item) for item in items]
        try:
            futures.wait(started, return_when=futures.FIRST_EXCEPTION)
            for one in started:
                error = one.exception() if one.done() else None
                if error is not None and not isinstance(error, futures.CancelledError):
                    raise error
            return [one.result() for one in started]
        except BaseException:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def by_networks(work: Callable[[slice], _Result], networks: int) -> list[_Result]:
    """``work(networks)`` of every few networks in turn, see `on_all_cores`."""
    return on_all_cores(
        work, (slice(first, min(first + _AT_ONCE, networks)) for first in range(0, networks, _AT_ONCE))
    )


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    """The thread pools of the libraries that are loaded; to look for them takes milliseconds."""
    return threadpoolctl.ThreadpoolController()


def in_lanes(weights: np.ndarray) -> np.ndarray:
    """Float32 ``(N, R)`` as ``(B, N, LANES)``, the last block filled up with zeros."""
    images, resamples = weights.shape
    blocks = -(-resamples // LANES)
    padded = np.zeros((images, blocks * LANES), np.float32)
    padded[:, :resamples] = weights
    return np.ascontiguousarray(padded.reshape(images, blocks, LANES).transpose(1, 0, 2))


@compiled
def lost_pairs(
    ranked: np.ndarray, order: np.ndarray, kind: np.ndarray, weights: np.ndarray, lost: np.ndarray
) -> None:
    """Sums the pairs (conjunction, other image) that are ranked wrongly, a tie as half of one.

    Images are met in ascending order of scores; each other image loses to the conjunction's counts so far.

    Args:
      ranked: scores ``(M, N)``, each network's in ascending order.
      order: ``(M, N)``, which image each is of.
      kind: int ``(N,)``, `POSITIVE` or the number of the image's quadrant, from 0.
      weights: from `in_lanes`.
      lost: float64 ``(M, Q, B, LANES)``, zeros; whole numbers and halves are summed exactly.
    """
    networks, images = order.shape
    below = np.empty(LANES, np.float32)
    half = np.float32(0.5)
    for block in range(len(weights)):
        for m in range(networks):
            below[:] = 0
            first = 0
            while first < images:
                end = first + 1
                while end < images and ranked[m, end] == ranked[m, first]:
                    end += 1
                for i in range(first, end):
                    if kind[order[m, i]] == POSITIVE:
                        counts = weights[block, order[m, i]]
                        for lane in range(LANES):
                            below[lane] += half * counts[lane]
                for i in range(first, end):
                    if kind[order[m, i]] != POSITIVE:
                        counts = weights[block, order[m, i]]
                        sums = lost[m, kind[order[m, i]], block]
                        for lane in range(LANES):
                            sums[lane] += counts[lane] * below[lane]
                for i in range(first, end):
                    if kind[order[m, i]] == POSITIVE:
                        counts = weights[block, order[m, i]]
                        for lane in range(LANES):
                            below[lane] += half * counts[lane]
                first = end


@compiled
def summed_precisions(
    ranked: np.ndarray, order: np.ndarray, kind: np.ndarray, weights: np.ndarray, total: np.ndarray
) -> None:
    """Sums, over the conjunction's images as often as they count, the precision at their own score.

    Args:
      ranked: scores ``(M, N)``, each network's in ascending order.
      order: ``(M, N)``, which image each is of.
      kind: int ``(N,)``, `POSITIVE` or anything else.
      weights: from `in_lanes`.
      total: float64 ``(M, B, LANES)``, zeros.
    """
    networks, images = order.shape
    hits, said = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    one = np.float32(1)
    for block in range(len(weights)):
        for m in range(networks):
            hits[:] = 0
            said[:] = 0
            sums = total[m, block]
            last = images
            while last > 0:
                begin = last - 1
                while begin > 0 and ranked[m, begin - 1] == ranked[m, last - 1]:
                    begin -= 1
                for i in range(begin, last):
                    counts = weights[block, order[m, i]]
                    for lane in range(LANES):
                        said[lane] += counts[lane]
                    if kind[order[m, i]] == POSITIVE:
                        for lane in range(LANES):
                            hits[lane] += counts[lane]
                for i in range(begin, last):
                    if kind[order[m, i]] == POSITIVE:
                        counts = weights[block, order[m, i]]
                        for lane in range(LANES):  # where nothing is drawn yet, the image is not either
                            sums[lane] += counts[lane] * hits[lane] / max(said[lane], one)
                last = begin


@compiled
def lloyd(points: np.ndarray, first: int, second: int, steps: int, side: np.ndarray) -> float:
    """Two clusters from two points that are their first centres (Lloyd, 1982).

    A point's side follows from its projection on the line between the centres; of the clusters' sums only
    the points that change sides are moved.

    Args:
      points: float32 ``(N, F)``, their mean is zero.
      first: number of the one point.
      second: number of the other.
      steps: at most.
      side: bool ``(N,)``, False; what is found is written here, True for the second's.

    Returns:
      By how much two clusters have less inertia than one; 0 if there is but one.
    """
    count, dimensions = points.shape
    total = np.zeros(dimensions)
    for i in range(count):
        for f in range(dimensions):
            total[f] += points[i, f]
    zero, one = points[first].astype(np.float64), points[second].astype(np.float64)
    line = np.empty(dimensions, np.float32)
    sums = np.zeros(dimensions)
    size = 0
    for _ in range(steps):
        middle = 0.0
        for f in range(dimensions):
            line[f] = one[f] - zero[f]
            middle += 0.5 * (one[f] - zero[f]) * (one[f] + zero[f])
        projection = np.dot(points, line)
        moved = 0
        for i in range(count):
            now = projection[i] > middle
            if now == side[i]:
                continue
            side[i] = now
            sign = 1 if now else -1
            size += sign
            moved += 1
            for f in range(dimensions):
                sums[f] += sign * points[i, f]
        if moved == 0 or size in (0, count):
            break
        for f in range(dimensions):
            one[f] = sums[f] / size
            zero[f] = (total[f] - sums[f]) / (count - size)
    if size in (0, count):
        return 0.0
    gain = 0.0
    for f in range(dimensions):
        gain += sums[f] ** 2 / size + (total[f] - sums[f]) ** 2 / (count - size)
    return gain


def compile_all() -> None:
    """Compiles all of the above for the types that they are called with, or reads it where it is kept."""
    points = np.eye(2, dtype=np.float32)
    order, kind = np.array([[0, 1]]), np.array([POSITIVE, 0])
    weights = in_lanes(np.ones((2, 1), np.float32))
    lost_pairs(points[:1], order, kind, weights, np.zeros((1, 1, 1, LANES)))
    summed_precisions(points[:1], order, kind, weights, np.zeros((1, 1, LANES)))
    lloyd(points, np.int64(0), np.int64(1), 1, np.zeros(2, bool))
