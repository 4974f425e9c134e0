"""3-D convolutions of unchanged size (zeros around), from few channels to many and back, and their gradients.

Arrays are C-contiguous float32. Volumes are ``(K, G, D, H, W, S, WIDTH)``: ``K`` blocks of as many kernel
sets as a vector has lanes, the channels in ``G`` groups of ``S`` (see `group_size`), the last filled up with
zeros. The many channels between two convolutions are ``(K, G, N, S, WIDTH)``, ``N`` places of which the last
may be nobody's, see `hidden_places`. Kernels are ``(d, h, k, I, O)`` of odd sizes. Zeros around a volume are
neither stored nor multiplied: places that need the same taps are found first, and are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kernelgan.ops.cpu import volume_microkernels
from kernelgan.ops.cpu.compiler import compiled, inlined
from kernelgan.ops.cpu.microkernels import WIDTH
from kernelgan.ops.cpu.volume_microkernels import FEW, GROUP, PLACES

_BYTES = 4
_LINE = 16
_ZERO = np.float32(0)


def group_size(channels: int) -> int:
    """Channels that lie together: at most `GROUP`, and as few as possible left over."""
    return -(-channels // -(-channels // GROUP))


def hidden_places(space: Sequence[int]) -> int:
    """Places kept for a volume ``(D, H, W)``: an odd number, so that groups do not share their cache sets."""
    return math.prod(space) | 1


@compiled
def _aligned(count: int) -> np.ndarray:
    """Floats of which no vector lies in two cache lines."""
    floats = np.empty(count + _LINE, np.float32)
    start = -(floats.ctypes.data // _BYTES) % _LINE
    return floats[start : start + count]


@compiled
def _first_tap(place: int, size: int) -> int:
    """Of a window around ``place``, the first tap that meets the volume."""
    return max(0, size // 2 - place)


@compiled
def _last_tap(place: int, length: int, size: int) -> int:
    """One past the last."""
    return min(size, length + size // 2 - place)


@compiled
def _run(place: int, length: int, size: int) -> int:
    """One past the last of the neighbours from ``place`` on that need the same taps."""
    end = place + 1
    while (
        end < length
        and _first_tap(end, size) == _first_tap(place, size)
        and _last_tap(end, length, size) == _last_tap(place, length, size)
    ):
        end += 1
    return end


@compiled
def _regions(space: tuple[int, int, int], window: tuple[int, int, int]) -> np.ndarray:
    """Boxes of places that need the same taps: ``(R, 3, 4)``, first and end of places and of taps."""
    regions = np.empty((space[0] * space[1] * space[2], 3, 4), np.int64)
    found = 0
    down = 0
    while down < space[0]:
        down_end = _run(down, space[0], window[0])
        row = 0
        while row < space[1]:
            row_end = _run(row, space[1], window[1])
            column = 0
            while column < space[2]:
                column_end = _run(column, space[2], window[2])
                regions[found, 0, 0], regions[found, 0, 1] = down, down_end
                regions[found, 1, 0], regions[found, 1, 1] = row, row_end
                regions[found, 2, 0], regions[found, 2, 1] = column, column_end
                for axis in range(3):
                    place = regions[found, axis, 0]
                    regions[found, axis, 2] = _first_tap(place, window[axis])
                    regions[found, axis, 3] = _last_tap(place, space[axis], window[axis])
                found += 1
                column = column_end
            row = row_end
        down = down_end
    return regions[:found]


@compiled
def _beside(left: int, most: int) -> int:
    """How many a microkernel takes of those that are left: there is one for ``most``, and one for 1."""
    return most if left >= most else 1


@compiled
def _list_places(region: np.ndarray, space: tuple[int, int, int], spots: np.ndarray) -> int:
    """Writes the numbers of a region's places, and says how many they are."""
    count = 0
    for down in range(region[0, 0], region[0, 1]):
        for row in range(region[1, 0], region[1, 1]):
            for column in range(region[2, 0], region[2, 1]):
                spots[count] = (down * space[1] + row) * space[2] + column
                count += 1
    return count


@compiled
def _list_taps(
    region: np.ndarray, space: tuple[int, int, int], window: tuple[int, int, int], taps: np.ndarray
) -> int:
    """Writes the region's taps ``(T, 2)``, number and distance in places, and says how many they are."""
    count = 0
    for down in range(region[0, 2], region[0, 3]):
        for row in range(region[1, 2], region[1, 3]):
            for column in range(region[2, 2], region[2, 3]):
                taps[count, 0] = (down * window[1] + row) * window[2] + column
                taps[count, 1] = (
                    ((down - window[0] // 2) * space[1] + row - window[1] // 2) * space[2]
                    + column
                    - window[2] // 2
                )
                count += 1
    return count


@inlined
def gather(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    reference: np.ndarray,
    slope: float,
    turned: bool,
    y: np.ndarray,
) -> None:
    """Fills the many channels ``y`` with ``x`` convolved, then a leaky ReLU or the gradient of one.

    What ``reference`` is not above zero for is multiplied by ``slope``; without blocks in ``reference``, that
    is ``y`` itself. If ``turned``, ``x`` is the slope of ``w``'s outputs, and ``y`` of its inputs. ``b`` is
    filled up to whole groups.
    """
    blocks, _, deep, high, wide, x_size, _ = x.shape
    groups, size = y.shape[1], y.shape[3]
    space, window = (deep, high, wide), w.shape[:3]
    number, places = window[0] * window[1] * window[2], deep * high * wide
    inputs = w.shape[4] if turned else w.shape[3]
    outputs = w.shape[3] if turned else w.shape[4]
    flat = w.reshape(number, w.shape[3], w.shape[4])
    packed = _aligned(groups * number * inputs * size).reshape(groups, number, inputs, size)
    packed[:] = _ZERO
    for tap in range(number):
        for i in range(inputs):
            for o in range(outputs):
                weight = flat[number - 1 - tap, o, i] if turned else flat[tap, i, o]
                packed[o // size, tap, i, o % size] = weight
    taps = np.empty((number, 2), np.int64)
    offsets = np.empty((number * inputs, 2), np.int64)
    spots = np.empty(places, np.int64)
    regions = _regions(space, window)
    for r in range(len(regions)):
        found = _list_places(regions[r], space, spots)
        count = _list_taps(regions[r], space, window, taps)
        for t in range(count):
            for i in range(inputs):
                group, member = i // x_size, i % x_size
                offsets[t * inputs + i, 0] = ((group * places + taps[t, 1]) * x_size + member) * WIDTH
                offsets[t * inputs + i, 1] = (taps[t, 0] * inputs + i) * size
        for block in range(blocks):
            for group in range(groups):
                looked_at = reference[block, group].ctypes.data if reference.shape[0] > 0 else 0
                first = 0
                while first < found:
                    beside = _beside(found - first, PLACES)
                    volume_microkernels.gather(  # type: ignore[call-arg]  # its first is numba's
                        size,
                        beside,
                        x[block].ctypes.data,
                        spots.ctypes.data + 8 * first,
                        x_size * WIDTH,
                        offsets.ctypes.data,
                        count * inputs,
                        packed[group].ctypes.data,
                        b.ctypes.data + _BYTES * group * size,
                        y[block, group].ctypes.data,
                        size * WIDTH,
                        looked_at,
                        slope,
                    )
                    first += beside


@inlined
def scatter(x: np.ndarray, w: np.ndarray, b: np.ndarray, turned: bool, y: np.ndarray) -> None:
    """Fills ``y`` with the many channels ``x`` convolved; ``x`` is read once.

    If ``turned``, ``x`` is the slope of ``w``'s outputs, and ``y`` of its inputs. ``b`` is filled up to whole
    groups.
    """
    blocks, groups, deep, high, wide, size, _ = y.shape
    x_size = x.shape[3]
    space, window = (deep, high, wide), w.shape[:3]
    number, places = window[0] * window[1] * window[2], deep * high * wide
    inputs = w.shape[4] if turned else w.shape[3]
    outputs = w.shape[3] if turned else w.shape[4]
    flat = w.reshape(number, w.shape[3], w.shape[4])
    packed = np.empty((number, outputs, inputs), np.float32)
    # The gathering kernel mirrored says where a place's products go.
    for tap in range(number):
        for o in range(outputs):
            for i in range(inputs):
                packed[tap, o, i] = flat[tap, o, i] if turned else flat[number - 1 - tap, i, o]
    taps = np.empty((number, 2), np.int64)
    starts, homes = np.empty(number * outputs, np.int64), np.empty(number * outputs, np.int64)
    seen = _aligned(inputs * PLACES * WIDTH).reshape(inputs, PLACES, WIDTH)
    spots = np.empty(places, np.int64)
    regions = _regions(space, window)
    for block in range(blocks):
        for group in range(groups):
            for down in range(deep):
                for row in range(high):
                    for column in range(wide):
                        for member in range(size):
                            for lane in range(WIDTH):
                                y[block, group, down, row, column, member, lane] = b[group * size + member]
    for r in range(len(regions)):
        found = _list_places(regions[r], space, spots)
        count = _list_taps(regions[r], space, window, taps)
        for t in range(count):
            for o in range(outputs):
                starts[t * outputs + o] = (taps[t, 0] * outputs + o) * inputs
                homes[t * outputs + o] = ((o // size * places + taps[t, 1]) * size + o % size) * WIDTH
        rows = count * outputs
        parts = (rows + GROUP - 1) // GROUP
        for block in range(blocks):
            first = 0
            while first < found:
                beside = _beside(found - first, PLACES)
                for group in range(x.shape[1]):
                    for place in range(beside):
                        volume_microkernels.lay_out(  # type: ignore[call-arg]  # its first is numba's
                            x[block, group].ctypes.data + _BYTES * spots[first + place] * x_size * WIDTH,
                            min(x_size, inputs - group * x_size),
                            seen.ctypes.data + _BYTES * (group * x_size * PLACES + place) * WIDTH,
                            PLACES * WIDTH,
                        )
                for part in range(parts):
                    begin, end = part * rows // parts, (part + 1) * rows // parts
                    volume_microkernels.scatter(  # type: ignore[call-arg]  # its first is numba's
                        end - begin,
                        beside,
                        seen.ctypes.data,
                        inputs,
                        packed.ctypes.data,
                        starts.ctypes.data + 8 * begin,
                        y[block].ctypes.data,
                        spots.ctypes.data + 8 * first,
                        size * WIDTH,
                        homes.ctypes.data + 8 * begin,
                    )
                first += beside


@compiled
def _pad_rows(few: np.ndarray, margin: int) -> np.ndarray:
    """One channel with zeros left and right, the taps of a row side by side as if they were channels."""
    blocks, _, deep, high, wide, _, _ = few.shape
    across = wide + 2 * margin
    padded = _aligned(blocks * deep * high * across * WIDTH).reshape(blocks, 1, deep, high, across, 1, WIDTH)
    padded[:] = _ZERO
    # Assigned to a slice, arrays bring numba's messages, which take 4 s to compile.
    for block in range(blocks):
        for down in range(deep):
            for row in range(high):
                for column in range(wide):
                    for lane in range(WIDTH):
                        padded[block, 0, down, row, margin + column, 0, lane] = few[
                            block, 0, down, row, column, 0, lane
                        ]
    return padded


@inlined
def gradient(many: np.ndarray, few: np.ndarray, of_many: bool, dw: np.ndarray, db: np.ndarray) -> None:
    """Fills ``dw`` ``(d, h, k, I, O)`` and ``db`` ``(O,)``.

    One of both sides is what was convolved, the other the slope of the result; if ``of_many``, ``few`` is the
    slope.
    """
    blocks, groups, _, size, _ = many.shape
    _, few_groups, deep, high, wide, few_size, _ = few.shape
    space, window = (deep, high, wide), dw.shape[:3]
    number, places = window[0] * window[1] * window[2], deep * high * wide
    # With a single channel, the taps of a row take the channels' place, at the price of a few zeros.
    single = few_groups * few_size == 1
    beside = window[2] if single else few_size
    margin = window[2] // 2 if single else 0
    across = wide + 2 * margin
    read = _pad_rows(few, margin) if single else few
    kept = few_groups * beside
    sums = np.zeros((groups, number, kept, GROUP), np.float32)
    offsets = np.empty((number, places, 2), np.int64)
    counts = np.zeros(number, np.int64)
    taps, spots = np.empty((number, 2), np.int64), np.empty(places, np.int64)
    regions = _regions(space, (window[0], window[1], 1 if single else window[2]))
    flat = (window[0], window[1], 1 if single else window[2])
    for r in range(len(regions)):
        found = _list_places(regions[r], space, spots)
        for t in range(_list_taps(regions[r], space, flat, taps)):
            # Places of the many, and what each tap reads of the few; mirrored if the few are the slope.
            tap = flat[0] * flat[1] * flat[2] - 1 - taps[t, 0] if of_many else taps[t, 0]
            for s in range(found):
                other = spots[s] + taps[t, 1]
                offsets[tap, counts[tap], 0] = spots[s] * size * WIDTH
                offsets[tap, counts[tap], 1] = (other // wide * across + other % wide) * few_size * WIDTH
                counts[tap] += 1
    for block in range(blocks):
        for group in range(groups):
            for few_group in range(few_groups):
                for tap in range(flat[0] * flat[1] * flat[2]):
                    if counts[tap] > 0:
                        member = 0
                        while member < beside:
                            together = _beside(beside - member, FEW)
                            volume_microkernels.products(  # type: ignore[call-arg]  # its first is numba's
                                size,
                                together,
                                many[block, group].ctypes.data,
                                read[block, few_group].ctypes.data + _BYTES * member * WIDTH,
                                offsets[tap].ctypes.data,
                                counts[tap],
                                sums[group, tap, few_group * beside + member].ctypes.data,
                            )
                            member += together
    for tap in range(number):
        column, row = tap % window[2], tap // window[2]
        for i in range(dw.shape[3]):
            for o in range(dw.shape[4]):
                a, c = (i, o) if of_many else (o, i)
                line = tap
                if single:
                    line, c = row, window[2] - 1 - column if of_many else column
                dw[row // window[1], row % window[1], column, i, o] = sums[a // size, line, c, a % size]
    slopes = few.reshape(blocks, few_groups, places, few_size, WIDTH) if of_many else many
    groups, members = slopes.shape[1], slopes.shape[3]
    totals = np.empty((GROUP, WIDTH), np.float32)
    for block in range(blocks):
        for group in range(groups):
            totals[:] = _ZERO  # lane by lane: vectors without reordering any sum
            for place in range(places):
                for member in range(members):
                    for lane in range(WIDTH):
                        totals[member, lane] += slopes[block, group, place, member, lane]
            for member in range(min(members, len(db) - group * members)):
                total = _ZERO if block == 0 else db[group * members + member]
                for lane in range(WIDTH):
                    total += totals[member, lane]
                db[group * members + member] = total
