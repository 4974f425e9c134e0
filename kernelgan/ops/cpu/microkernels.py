"""The two innermost loops, written as vector instructions: everything else is only addresses.

Each works on ``LANES`` images at once (a *block*), held in ``VECTORS`` vectors of ``WIDTH`` floats, and
keeps all its sums in registers. Addresses are integers, counted in bytes; offsets and strides in floats.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic


def _width() -> int:
    """Floats in a vector register of this machine."""
    features = binding.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx2") else 4


WIDTH = int(os.environ.get("KERNELGAN_VECTOR_WIDTH", "0")) or _width()
VECTORS = 2 if WIDTH == 8 else 4  # AVX2 has 16 registers, AVX-512 and NEON have 32
TAPS = 2 if WIDTH == 8 else 4
"""Taps whose gradients `dots` sums at once."""
LANES = WIDTH * VECTORS
FILTERS = (6, 4, 2, 1)
"""How many filters the microkernels can take at once."""

binding.initialize_native_asmparser()
FLOAT, INT = ir.FloatType(), ir.IntType(64)
_INT32 = ir.IntType(32)
_VECTOR = ir.VectorType(FLOAT, WIDTH)


def taps_of(filters: int) -> Any:
    """Makes ``taps(x, offsets, count, w, stride, sums)``: a convolution's sums at one place.

    ``sums[f, :] += sum_k w[k * stride + f] * x[offsets[k] : offsets[k] + LANES]`` for the first
    ``filters`` f; ``sums`` is ``(filters, LANES)``.
    """

    @intrinsic
    def taps(context: Any, x: Any, offsets: Any, count: Any, w: Any, stride: Any, sums: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(builder)
            x, offsets, count, w, stride, sums = arguments
            x, w, sums = (emit.pointer(address, FLOAT) for address in (x, w, sums))
            offsets = emit.pointer(offsets, INT)
            places = [(f, v) for f in range(filters) for v in range(VECTORS)]

            def body(k: Any, totals: list[Any]) -> list[Any]:
                offset = builder.load(builder.gep(offsets, [k]))
                images = [emit.load(emit.at(x, offset, v * WIDTH)) for v in range(VECTORS)]
                row = builder.gep(w, [builder.mul(k, stride)])
                weights = [emit.broadcast(emit.at(row, f)) for f in range(filters)]
                return [
                    emit.multiply_add(images[v], weights[f], total)
                    for (f, v), total in zip(places, totals, strict=True)
                ]

            homes = [emit.at(sums, f * LANES + v * WIDTH) for f, v in places]
            totals = emit.loop(count, [emit.load(home) for home in homes], body)
            for home, total in zip(homes, totals, strict=True):
                emit.store(total, home)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), generate

    return taps


def dots_of(filters: int, vectors: int = VECTORS) -> Any:
    """Makes ``dots(x, offsets, g, stride, count, sums, apart)``: a kernel gradient's sums along a row.

    ``sums[f, t, :] += sum over the row's `count` places and over `vectors` of g[f] * x[offsets[t]]``, lane
    by lane, for the first ``filters`` f and `TAPS` t. A place is `LANES` floats on from the last in x and g,
    g's filters are ``stride`` apart, and the sums' filters ``apart``. Each t has `WIDTH` sums; those of the
    next t are ``LANES / vectors`` floats on.
    """
    pitch = LANES // vectors

    @intrinsic
    def dots(
        context: Any,
        x: Any,
        offsets: Any,
        g: Any,
        stride: Any,
        count: Any,
        sums: Any,
        apart: Any,
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Emitter(builder)
            x, offsets, g, stride, count, sums, apart = arguments
            x, g, sums = (emit.pointer(address, FLOAT) for address in (x, g, sums))
            offsets = emit.pointer(offsets, INT)
            images = [builder.gep(x, [builder.load(emit.at(offsets, t))]) for t in range(TAPS)]
            slopes = [builder.gep(g, [builder.mul(stride, constant(f))]) for f in range(filters)]
            rows = [builder.gep(sums, [builder.mul(apart, constant(f))]) for f in range(filters)]
            homes = [emit.at(row, t * pitch) for row in rows for t in range(TAPS)]

            def body(k: Any, totals: list[Any]) -> list[Any]:
                place = builder.mul(k, constant(LANES))
                for v in range(vectors):
                    seen = [emit.load(emit.at(image, place, v * WIDTH)) for image in images]
                    for f in range(filters):
                        slope = emit.load(emit.at(slopes[f], place, v * WIDTH))
                        for t in range(TAPS):
                            total = totals[f * TAPS + t]
                            totals[f * TAPS + t] = emit.multiply_add(seen[t], slope, total)
                return totals

            totals = emit.loop(count, [emit.load(home) for home in homes], body)
            for home, total in zip(homes, totals, strict=True):
                emit.store(total, home)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), generate

    return dots


def constant(value: int) -> ir.Constant:
    """An offset or a count."""
    return ir.Constant(INT, value)


class Emitter:
    """Vector instructions on a builder."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self._builder = builder
        name = f"llvm.fma.v{WIDTH}f32"
        module = builder.module
        self._fma = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), name
        )

    def pointer(self, address: Any, kind: ir.Type) -> Any:
        """An address as a pointer to floats or integers."""
        return self._builder.inttoptr(address, ir.PointerType(kind))

    def read(self, pointer: Any) -> Any:
        """The number there, not a vector."""
        return self._builder.load(pointer)

    def times(self, a: Any, b: Any) -> Any:
        """Of integers."""
        return self._builder.mul(a, b)

    def at(self, pointer: Any, *offsets: Any) -> Any:
        """The pointer moved on by the sum of offsets, numbers or values."""
        for offset in offsets:
            index = constant(offset) if isinstance(offset, int) else offset
            pointer = self._builder.gep(pointer, [index])
        return pointer

    def load(self, pointer: Any, width: int = WIDTH) -> Any:
        """The floats there as a vector."""
        kind = ir.PointerType(ir.VectorType(FLOAT, width))
        return self._builder.load(self._builder.bitcast(pointer, kind), align=4)

    def store(self, vector: Any, pointer: Any) -> None:
        """Writes a vector."""
        kind = ir.PointerType(vector.type)
        self._builder.store(vector, self._builder.bitcast(pointer, kind), align=4)

    def broadcast(self, pointer: Any) -> Any:
        """The float there, in every lane."""
        return self.spread(self._builder.load(pointer))

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``, rounded once."""
        return self._builder.call(self._fma, [a, b, c])

    def zeros(self) -> Any:
        """Zero in every lane."""
        return ir.Constant(_VECTOR, [0.0] * WIDTH)

    def spread(self, value: Any) -> Any:
        """A float, in every lane."""
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = self._builder.insert_element(nothing, value, ir.Constant(_INT32, 0))
        zeros = ir.Constant(ir.VectorType(_INT32, WIDTH), [0] * WIDTH)
        return self._builder.shuffle_vector(first, nothing, zeros)

    def add(self, a: Any, b: Any) -> Any:
        """Of vectors."""
        return self._builder.fadd(a, b)

    def cut(self, vector: Any, reference: Any, slope: Any) -> Any:
        """The vector where ``reference`` is above zero, elsewhere times ``slope``."""
        builder = self._builder
        above = builder.fcmp_ordered(">", reference, ir.Constant(_VECTOR, [0.0] * WIDTH))
        return builder.select(above, vector, builder.fmul(vector, slope))

    def sums_of_lanes(self, vectors: list[Any]) -> list[Any]:
        """The sum of each vector's lanes, one after the other in as few vectors as hold them.

        Halves are added to halves, always in the same order. There must be a power of two of vectors; if they
        are fewer than `WIDTH`, the one that comes back is narrower than they.
        """
        vectors, parts, lanes = list(vectors), 1, WIDTH  # each holds ``parts`` sums, still in so many lanes
        while lanes > 1:
            half, width = lanes // 2, parts * lanes
            halves = [
                [part * lanes + side * half + lane for part in range(parts) for lane in range(half)]
                for side in range(2)
            ]
            if len(vectors) > 1:
                pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
                halves = [half + [width + lane for lane in half] for half in halves]
                parts *= 2
            else:
                pairs = [(vectors[0], vectors[0])]
            vectors = [self.add(*(self._shuffled(a, b, order) for order in halves)) for a, b in pairs]
            lanes = half
        return vectors

    def _shuffled(self, a: Any, b: Any, order: list[int]) -> Any:
        return self._builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT32, len(order)), order))

    def either(self, number: Any, so: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """``so()`` where the integer is not zero, else ``otherwise()``."""
        builder = self._builder
        with builder.if_else(builder.icmp_signed("!=", number, constant(0))) as (then, or_else):
            with then:
                so()
            with or_else:
                otherwise()

    def loop(self, count: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
        """``for k in range(count): carried = body(k, carried)``; at least once."""
        builder = self._builder
        before = builder.block
        inside, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(inside)
        builder.position_at_end(inside)
        k = builder.phi(INT)
        k.add_incoming(constant(0), before)
        totals = []
        for value in carried:
            total = builder.phi(value.type)
            total.add_incoming(value, before)
            totals.append(total)
        # Where a loop begins in a cache line is worth up to 30%: let it not depend on where code is loaded.
        builder.asm(ir.FunctionType(ir.VoidType(), []), ".p2align 6", "", [], side_effect=True)
        last = body(k, list(totals))
        following = builder.add(k, constant(1))
        k.add_incoming(following, builder.block)
        for total, value in zip(totals, last, strict=True):
            total.add_incoming(value, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        return last
