"""One layer, convolution, bias, 2 x 2 max-pooling and ReLU, and its gradients, on blocks of images.

Arrays are C-contiguous float32 (codes uint8): images ``x`` ``(K, I, H, W, LANES)``, ``K`` blocks; kernel
``w`` ``(h, k, I, O)``; pooled ``y`` ``(K, O, P, Q, LANES)``; ``code``, of ``y``'s shape, says which of its
four places each maximum came from, or `OFF` where ReLU cut it.
"""

from __future__ import annotations

import numpy as np

from kernelgan.ops.cpu import microkernels
from kernelgan.ops.cpu.compiler import compiled
from kernelgan.ops.cpu.microkernels import LANES, TAPS, VECTORS, WIDTH

OFF = 4

_BYTES = 4
_MOST = microkernels.FILTERS[0]
_ZERO = np.float32(0)


_taps6, _taps4, _taps2, _taps1 = (microkernels.taps_of(filters) for filters in microkernels.FILTERS)
_dots6, _dots4, _dots2, _dots1 = (microkernels.dots_of(filters) for filters in microkernels.FILTERS)
_each6, _each4, _each2, _each1 = (microkernels.dots_of(filters, 1) for filters in microkernels.FILTERS)


@compiled
def _filters_of(left: int) -> int:
    """How many of the filters that are left the next microkernel takes."""
    if left == 8:
        return 4
    return 6 if left >= 6 else 4 if left >= 4 else 2 if left >= 2 else 1


@compiled
def _taps(filters: int, x: int, offsets: int, count: int, w: int, stride: int, sums: int) -> None:
    if filters == 6:
        _taps6(x, offsets, count, w, stride, sums)
    elif filters == 4:
        _taps4(x, offsets, count, w, stride, sums)
    elif filters == 2:
        _taps2(x, offsets, count, w, stride, sums)
    else:
        _taps1(x, offsets, count, w, stride, sums)


@compiled
def _dots(filters: int, x: int, offsets: int, g: int, stride: int, count: int, sums: int, apart: int) -> None:
    if filters == 6:
        _dots6(x, offsets, g, stride, count, sums, apart)
    elif filters == 4:
        _dots4(x, offsets, g, stride, count, sums, apart)
    elif filters == 2:
        _dots2(x, offsets, g, stride, count, sums, apart)
    else:
        _dots1(x, offsets, g, stride, count, sums, apart)


@compiled
def _dots_of_each(
    filters: int, x: int, offsets: int, g: int, stride: int, count: int, sums: int, apart: int
) -> None:
    """`_dots` image by image: the sums are ``(filters, taps, LANES)``."""
    for _ in range(VECTORS):
        if filters == 6:
            _each6(x, offsets, g, stride, count, sums, apart)
        elif filters == 4:
            _each4(x, offsets, g, stride, count, sums, apart)
        elif filters == 2:
            _each2(x, offsets, g, stride, count, sums, apart)
        else:
            _each1(x, offsets, g, stride, count, sums, apart)
        x, g, sums = x + _BYTES * WIDTH, g + _BYTES * WIDTH, sums + _BYTES * WIDTH


@compiled
def _tap_offsets(tall: int, wide: int, inputs: int, height: int, width: int, multiple: int) -> np.ndarray:
    """Of each tap from its place in a block, in the kernel's order, the last repeated up to a multiple."""
    count = tall * wide * inputs
    offsets = np.empty((count + multiple - 1) // multiple * multiple, np.int64)
    for k in range(len(offsets)):
        tap = min(k, count - 1)
        i, column, row = tap % inputs, tap // inputs % wide, tap // (inputs * wide)
        offsets[k] = ((i * height + row) * width + column) * LANES
    return offsets


@compiled
def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, code: np.ndarray) -> None:
    """Fills ``y`` and ``code``."""
    blocks, inputs, height, width, _ = x.shape
    tall, wide, _, outputs = w.shape
    rows, columns = y.shape[2], y.shape[3]
    offsets = _tap_offsets(tall, wide, inputs, height, width, 1)
    sums = np.empty((4, _MOST, LANES), np.float32)
    for block in range(blocks):
        images = x[block]
        o = 0
        while o < outputs:
            filters = _filters_of(outputs - o)
            for row in range(rows):
                for column in range(columns):
                    for place in range(4):
                        for f in range(filters):
                            for lane in range(LANES):
                                sums[place, f, lane] = b[o + f]
                        top, left = 2 * row + place // 2, 2 * column + place % 2
                        _taps(
                            filters,
                            images.ctypes.data + _BYTES * (top * width + left) * LANES,
                            offsets.ctypes.data,
                            len(offsets),
                            w.ctypes.data + _BYTES * o,
                            outputs,
                            sums.ctypes.data + _BYTES * place * _MOST * LANES,
                        )
                    for f in range(filters):
                        for lane in range(LANES):
                            best, where = sums[0, f, lane], np.uint8(0)
                            for place in range(1, 4):
                                if sums[place, f, lane] > best:
                                    best, where = sums[place, f, lane], np.uint8(place)
                            if best <= _ZERO:
                                best, where = _ZERO, np.uint8(OFF)
                            y[block, o + f, row, column, lane] = best
                            code[block, o + f, row, column, lane] = where
            o += filters


@compiled
def _unpool(dy: np.ndarray, code: np.ndarray, row: int, g: np.ndarray) -> None:
    """A row of ``dy`` ``(O, P, Q, LANES)`` back in its four places, ``g`` ``(O, 2, 2 * Q, LANES)``."""
    for o in range(dy.shape[0]):
        for column in range(dy.shape[2]):
            left = 2 * column
            for lane in range(LANES):
                slope, where = dy[o, row, column, lane], code[o, row, column, lane]
                g[o, 0, left, lane] = slope if where == 0 else _ZERO
                g[o, 0, left + 1, lane] = slope if where == 1 else _ZERO
                g[o, 1, left, lane] = slope if where == 2 else _ZERO
                g[o, 1, left + 1, lane] = slope if where == 3 else _ZERO


@compiled
def _add_kernel_gradient(
    x: np.ndarray, g: np.ndarray, row: int, offsets: np.ndarray, sums: np.ndarray
) -> None:
    """Adds what one pooled row has: ``x`` ``(I, H, W, LANES)``, ``sums`` ``(O, taps, WIDTH)``."""
    outputs, _, across, _ = g.shape
    taps, width = sums.shape[1], x.shape[2]
    o = 0
    while o < outputs:
        filters = _filters_of(outputs - o)
        for tap in range(0, taps, TAPS):
            for half in range(2):
                _dots(
                    filters,
                    x.ctypes.data + _BYTES * (2 * row + half) * width * LANES,
                    offsets.ctypes.data + 8 * tap,
                    g.ctypes.data + _BYTES * (o * 2 + half) * across * LANES,
                    2 * across * LANES,
                    across,
                    sums.ctypes.data + _BYTES * (o * taps + tap) * WIDTH,
                    taps * WIDTH,
                )
        o += filters


@compiled
def _image_gradient(g: np.ndarray, turned: np.ndarray, offsets: np.ndarray, dx: np.ndarray) -> None:
    """Fills one block's ``dx``; ``g`` is ``(P, O, 2, 2 * Q, LANES)``, ``turned`` ``(h, k, O, I)``."""
    pooled, outputs, _, across, _ = g.shape
    tall, wide, _, inputs = turned.shape
    _, height, width, _ = dx.shape
    sums = np.empty((_MOST, LANES), np.float32)
    i = 0
    while i < inputs:
        filters = _filters_of(inputs - i)
        for row in range(height):
            for column in range(width):
                sums[:] = _ZERO
                # Taps that reach an output: columns from ``first`` to ``last``, which lie together.
                first, last = max(0, column - across + 1), min(wide - 1, column)
                for down in range(max(0, row - 2 * pooled + 1), min(tall - 1, row) + 1):
                    if first <= last:
                        above = row - down
                        start = ((above // 2) * outputs * 2 + above % 2) * across + column
                        _taps(
                            filters,
                            g.ctypes.data + _BYTES * start * LANES,
                            offsets.ctypes.data + 8 * first * outputs,
                            (last - first + 1) * outputs,
                            turned.ctypes.data + _BYTES * ((down * wide + first) * outputs * inputs + i),
                            inputs,
                            sums.ctypes.data,
                        )
                for f in range(filters):
                    for lane in range(LANES):
                        dx[i + f, row, column, lane] = sums[f, lane]
        i += filters


@compiled
def backward(
    dy: np.ndarray,
    code: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    dw: np.ndarray,
    db: np.ndarray,
    dx: np.ndarray,
) -> None:
    """Fills ``dw`` unless it has no rows, ``db``, and ``dx`` unless it has no blocks."""
    blocks, inputs, height, width, _ = x.shape
    tall, wide, _, outputs = w.shape
    rows, columns = dy.shape[2], dy.shape[3]
    wants_kernel, wants_images = dw.shape[0] > 0, dx.shape[0] > 0
    offsets = _tap_offsets(tall, wide, inputs, height, width, TAPS)
    sums = np.zeros((outputs, len(offsets), WIDTH), np.float32)
    across = 2 * columns
    g = np.empty((rows if wants_images else 1, outputs, 2, across, LANES), np.float32)
    turned = np.empty((tall, wide, outputs, inputs), np.float32)
    for tap in range(tall * wide):
        for i in range(inputs):
            for o in range(outputs):
                turned[tap // wide, tap % wide, o, i] = w[tap // wide, tap % wide, i, o]
    back = np.empty(wide * outputs, np.int64)
    for right in range(wide):
        for o in range(outputs):
            back[right * outputs + o] = (o * 2 * across - right) * LANES
    db[:] = _ZERO
    totals = np.empty(LANES, np.float32)
    for block in range(blocks):
        for o in range(outputs):
            totals[:] = _ZERO  # lane by lane: vectors without reordering any sum
            for row in range(rows):
                for column in range(columns):
                    for lane in range(LANES):
                        slope = dy[block, o, row, column, lane]
                        totals[lane] += slope if code[block, o, row, column, lane] < OFF else _ZERO
            for lane in range(LANES):
                db[o] += totals[lane]
        for row in range(rows):
            pair = g[row if wants_images else 0]
            _unpool(dy[block], code[block], row, pair)
            if wants_kernel:
                _add_kernel_gradient(x[block], pair, row, offsets, sums)
        if wants_images:
            _image_gradient(g, turned, back, dx[block])
    for o in range(outputs if wants_kernel else 0):
        for tap in range(tall * wide * inputs):
            total = _ZERO
            for lane in range(WIDTH):
                total += sums[o, tap, lane]
            dw[tap // (wide * inputs), tap // inputs % wide, tap % inputs, o] = total


@compiled
def mixtures(dy: np.ndarray, code: np.ndarray, x: np.ndarray, w: np.ndarray, slopes: np.ndarray) -> None:
    """Fills ``slopes`` ``(K, O, C, LANES)``: each image's gradient times kernels ``w`` ``(h, k, I, C)``."""
    blocks, inputs, height, width, _ = x.shape
    tall, wide, _, candidates = w.shape
    outputs, rows, columns = dy.shape[1], dy.shape[2], dy.shape[3]
    offsets = _tap_offsets(tall, wide, inputs, height, width, TAPS)
    taps, across = len(offsets), 2 * columns
    in_order = np.arange(taps) * LANES
    sums = np.empty((outputs, taps, LANES), np.float32)
    g = np.empty((outputs, 2, across, LANES), np.float32)
    slopes[:] = _ZERO
    for block in range(blocks):
        sums[:] = _ZERO
        for row in range(rows):
            _unpool(dy[block], code[block], row, g)
            o = 0
            while o < outputs:
                filters = _filters_of(outputs - o)
                for tap in range(0, taps, TAPS):
                    for half in range(2):
                        _dots_of_each(
                            filters,
                            x[block].ctypes.data + _BYTES * (2 * row + half) * width * LANES,
                            offsets.ctypes.data + 8 * tap,
                            g.ctypes.data + _BYTES * (o * 2 + half) * across * LANES,
                            2 * across * LANES,
                            across,
                            sums.ctypes.data + _BYTES * (o * taps + tap) * LANES,
                            taps * LANES,
                        )
                o += filters
        for o in range(outputs):
            c = 0
            while c < candidates:
                filters = _filters_of(candidates - c)
                _taps(
                    filters,
                    sums[o].ctypes.data,
                    in_order.ctypes.data,
                    tall * wide * inputs,
                    w.ctypes.data + _BYTES * c,
                    candidates,
                    slopes[block, o].ctypes.data + _BYTES * c * LANES,
                )
                c += filters
