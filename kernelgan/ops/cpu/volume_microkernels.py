"""The innermost loops of convolutions over volumes, written as vector instructions.

Here a vector holds one place of `WIDTH` kernel sets, and up to `PLACES` places that need the same taps are
computed beside each other with up to `GROUP` channels. Addresses are integers, counted in bytes; all else is
counted in floats, but places and channels, which are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from kernelgan.ops.cpu.microkernels import FLOAT, INT, WIDTH, Emitter, constant

GROUP = 4 if WIDTH == 8 else 8
"""Channels that lie together: as many sums as stay in registers, `PLACES` of each."""
PLACES = 3
"""Places computed at once: what a volume 5 wide has that need the same taps."""
FEW = 3
"""Channels of the side that has few, in `products`."""


@intrinsic
def gather(
    context: Any,
    filters: Any,
    places: Any,
    x: Any,
    spots: Any,
    x_apart: Any,
    taps: Any,
    count: Any,
    w: Any,
    bias: Any,
    y: Any,
    y_apart: Any,
    reference: Any,
    slope: Any,
) -> Any:
    """The sums of all taps at some places.

    For each of the ``places`` (1 or `PLACES`) first of the integers ``spots`` and the ``filters`` first f,
    ``sum = bias[f] + sum_k w[taps[k, 1] + f] * x[spot * x_apart + taps[k, 0]]`` is written to
    ``y[spot * y_apart + f * WIDTH]``, times ``slope`` where ``reference`` at that offset is not above zero.
    ``reference`` may be 0: the sum itself is looked at then.
    """

    def variant(emit: Emitter, filters: int, places: int, given: Sequence[Any]) -> None:
        x, spots, x_apart, taps, count, w, bias, y, y_apart, reference, slope = given
        x, w, bias, y = (emit.pointer(address, FLOAT) for address in (x, w, bias, y))
        spots, taps = emit.pointer(spots, INT), emit.pointer(taps, INT)
        numbers = [emit.read(emit.at(spots, p)) for p in range(places)]
        seen = [emit.at(x, emit.times(number, x_apart)) for number in numbers]
        pairs = [(p, f) for p in range(places) for f in range(filters)]

        def body(k: Any, totals: list[Any]) -> list[Any]:
            tap = emit.at(taps, emit.times(k, constant(2)))
            offset, row = emit.read(tap), emit.at(w, emit.read(emit.at(tap, 1)))
            values = [emit.load(emit.at(place, offset)) for place in seen]
            weights = [emit.broadcast(emit.at(row, f)) for f in range(filters)]
            return [
                emit.multiply_add(values[p], weights[f], total)
                for (p, f), total in zip(pairs, totals, strict=True)
            ]

        biases = [emit.broadcast(emit.at(bias, f)) for f in range(filters)]
        totals = emit.loop(count, [biases[f] for _, f in pairs], body)
        homes = [emit.times(number, y_apart) for number in numbers]
        slopes = emit.spread(slope)

        def finish(beside: Any) -> None:
            for (p, f), total in zip(pairs, totals, strict=True):
                looked_at = total if beside is None else emit.load(emit.at(beside, homes[p], f * WIDTH))
                emit.store(emit.cut(total, looked_at, slopes), emit.at(y, homes[p], f * WIDTH))

        emit.either(reference, lambda: finish(emit.pointer(reference, FLOAT)), lambda: finish(None))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _choose(builder, arguments, GROUP, PLACES, variant)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 12, types.float32), generate


@intrinsic
def scatter(
    context: Any,
    rows: Any,
    places: Any,
    x: Any,
    count: Any,
    w: Any,
    starts: Any,
    y: Any,
    spots: Any,
    y_apart: Any,
    homes: Any,
) -> Any:
    """The products of all channels at some places, added where each tap wants them.

    For each of the ``places`` (1 or `PLACES`) first p of the integers ``spots``, and for each of the ``rows``
    first r (a tap and a filter), ``sum_c w[starts[r] + c] * x[(c * PLACES + p) * WIDTH]`` is added to
    ``y[spots[p] * y_apart + homes[r]]``.
    """

    def variant(emit: Emitter, rows: int, places: int, given: Sequence[Any]) -> None:
        x, count, w, starts, y, spots, y_apart, homes = given
        x, w, y = (emit.pointer(address, FLOAT) for address in (x, w, y))
        starts, spots, homes = (emit.pointer(address, INT) for address in (starts, spots, homes))
        weights = [emit.at(w, emit.read(emit.at(starts, r))) for r in range(rows)]
        pairs = [(p, r) for p in range(places) for r in range(rows)]

        def body(c: Any, totals: list[Any]) -> list[Any]:
            seen = emit.at(x, emit.times(c, constant(PLACES * WIDTH)))
            values = [emit.load(emit.at(seen, p * WIDTH)) for p in range(places)]
            factors = [emit.broadcast(emit.at(row, c)) for row in weights]
            return [
                emit.multiply_add(values[p], factors[r], total)
                for (p, r), total in zip(pairs, totals, strict=True)
            ]

        totals = emit.loop(count, [emit.zeros()] * len(pairs), body)
        offsets = [emit.read(emit.at(homes, r)) for r in range(rows)]
        found = [emit.at(y, emit.times(emit.read(emit.at(spots, p)), y_apart)) for p in range(places)]
        for (p, r), total in zip(pairs, totals, strict=True):
            home = emit.at(found[p], offsets[r])
            emit.store(emit.add(emit.load(home), total), home)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _choose(builder, arguments, GROUP, PLACES, variant)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), generate


@intrinsic
def lay_out(context: Any, x: Any, count: Any, y: Any, apart: Any) -> Any:
    """Copies ``count`` vectors that follow each other in ``x`` to places ``apart`` in ``y``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Emitter(builder)
        x, count, y, apart = arguments
        x, y = emit.pointer(x, FLOAT), emit.pointer(y, FLOAT)

        def body(k: Any, nothing: list[Any]) -> list[Any]:
            value = emit.load(emit.at(x, emit.times(k, constant(WIDTH))))
            emit.store(value, emit.at(y, emit.times(k, apart)))
            return nothing

        emit.loop(count, [], body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@intrinsic
def products(context: Any, many: Any, few: Any, a: Any, b: Any, offsets: Any, count: Any, sums: Any) -> Any:
    """The sums over places and lanes of products of two sides' channels.

    For the ``many`` first f and the ``few`` (1 or `FEW`) first t,
    ``sum_k sum_lanes a[offsets[k, 0] + f * WIDTH] * b[offsets[k, 1] + t * WIDTH]`` is added to
    ``sums[t * GROUP + f]``; what lies between ``many`` and `GROUP` may be added zeros.
    """

    def variant(emit: Emitter, many: int, few: int, given: Sequence[Any]) -> None:
        a, b, offsets, count, sums = given
        a, b, sums = (emit.pointer(address, FLOAT) for address in (a, b, sums))
        offsets = emit.pointer(offsets, INT)

        def body(k: Any, totals: list[Any]) -> list[Any]:
            pair = emit.at(offsets, emit.times(k, constant(2)))
            left, right = emit.at(a, emit.read(pair)), emit.at(b, emit.read(emit.at(pair, 1)))
            factors = [emit.load(emit.at(right, t * WIDTH)) for t in range(few)]
            new = []
            for f in range(many):
                value = emit.load(emit.at(left, f * WIDTH))
                new += [emit.multiply_add(value, factors[t], totals[f * few + t]) for t in range(few)]
            return new

        totals = emit.loop(count, [emit.zeros()] * (many * few), body)
        filled = 1 << (many - 1).bit_length()
        for t in range(few):
            home = emit.at(sums, t * GROUP)
            for vector in emit.sums_of_lanes(totals[t::few] + [emit.zeros()] * (filled - many)):
                width = vector.type.count
                emit.store(emit.add(emit.load(home, width), vector), home)
                home = emit.at(home, width)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _choose(builder, arguments, GROUP, FEW, variant)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), generate


def _choose(
    builder: Any,
    arguments: Sequence[Any],
    most: int,
    most_beside: int,
    variant: Callable[[Emitter, int, int, Sequence[Any]], None],
) -> None:
    """Every variant in a block of its own; the first two arguments say which one runs.

    The first is from 1 to ``most``, the second 1 or ``most_beside``: each variant takes a while to compile.
    """
    first, second, *given = arguments
    nowhere, after = builder.append_basic_block("nowhere"), builder.append_basic_block("chosen")
    number = builder.add(builder.mul(first, constant(most_beside + 1)), second)
    switch = builder.switch(number, nowhere)
    builder.position_at_end(nowhere)
    builder.unreachable()
    for one in range(1, most + 1):
        for other in (1, most_beside):
            block = builder.append_basic_block("variant")
            switch.add_case(constant(one * (most_beside + 1) + other), block)
            builder.position_at_end(block)
            variant(Emitter(builder), one, other, given)
            builder.branch(after)
    builder.position_at_end(after)
