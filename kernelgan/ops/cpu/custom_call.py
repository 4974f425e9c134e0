"""XLA's custom calls, answered by numba: a call frame is read by the offsets of XLA's stable C interface.

The structs are those of ``xla/ffi/api/c_api.h``, which comes with jaxlib; XLA promises to keep accepting
an interface for at least a year. Nothing here is interpreted while a program runs: no Python, no global
interpreter lock.
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jaxlib
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernelgan.ops.cpu.compiler import compiled, compiled_for_c

_EXTENSION, _ARGUMENTS, _RESULTS = 8, 40, 80  # in XLA_FFI_CallFrame
_LIST = 32  # the pointers, in XLA_FFI_Args and XLA_FFI_Rets
_DATA, _DIMENSIONS = 24, 40  # in XLA_FFI_Buffer
_METADATA, _MAJOR, _MINOR = 24, 24, 28  # in XLA_FFI_Metadata_Extension and in XLA_FFI_Metadata
_WORD = 8
_KNOWN_MINOR = 3  # what came later changed none of it; XLA tells us if it no longer knows this one


def _version() -> tuple[int, int]:
    """The version of the interface that is asked of XLA: that of the offsets above, if this jaxlib has it.

    Raises:
      RuntimeError: the header is not there, or of an interface that this file does not know.
    """
    header = Path(jaxlib.__file__).parent / "include" / "xla" / "ffi" / "api" / "c_api.h"
    text = header.read_text() if header.is_file() else ""
    found = [re.search(rf"#define XLA_FFI_API_{name} (\d+)", text) for name in ("MAJOR", "MINOR")]
    if not all(found) or int(found[0][1]) != 0:  # type: ignore[index]
        raise RuntimeError(f"{header} does not describe a custom call interface of version 0")
    return 0, min(_KNOWN_MINOR, int(found[1][1]))  # type: ignore[index]


VERSION = _version()


def _reader(kind: ir.IntType, result: types.Integer) -> Any:
    @intrinsic
    def read(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.load(builder.inttoptr(arguments[0], ir.PointerType(kind)))

        return result(types.int64), generate

    return read


_read_word, _read_int = _reader(ir.IntType(64), types.int64), _reader(ir.IntType(32), types.int32)


@intrinsic
def _write_int(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, value = arguments
        builder.store(value, builder.inttoptr(address, ir.PointerType(ir.IntType(32))))
        return context.get_dummy_value()

    return types.void(types.int64, types.int32), generate


def _pointer(kind: types.Number) -> Any:
    @intrinsic
    def pointer(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return pointer


floats_at, bytes_at = _pointer(types.float32), _pointer(types.uint8)
"""``(address) -> pointer`` for `numba.carray`."""


@compiled
def is_question(frame: int) -> bool:
    """Whether XLA only asks which interface this is; then it is answered, and nothing else is to be done."""
    extension = _read_word(frame + _EXTENSION)
    if extension == 0 or _read_int(extension + _WORD) != 1:
        return False
    metadata = _read_word(extension + _METADATA)
    _write_int(metadata + _MAJOR, VERSION[0])  # type: ignore[call-arg]  # an intrinsic's first one is numba's
    _write_int(metadata + _MINOR, VERSION[1])  # type: ignore[call-arg]
    return True


def _listed(offset: int) -> Any:
    """Makes ``(address, number) -> word`` of the list at this offset.

    Not a compiled function: numba would compile one for each number that is written in a call.
    """

    @intrinsic
    def read(context: Any, address: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def word(address: Any) -> Any:
                return builder.load(builder.inttoptr(address, ir.PointerType(ir.IntType(64))))

            first = word(builder.add(arguments[0], ir.Constant(ir.IntType(64), offset)))
            return word(builder.add(first, builder.mul(arguments[1], ir.Constant(ir.IntType(64), _WORD))))

        return types.int64(types.int64, types.int64), generate

    return read


argument, result = _listed(_ARGUMENTS + _LIST), _listed(_RESULTS + _LIST)
"""Address of an argument's or a result's buffer: ``(frame, number) -> address``."""

size = _listed(_DIMENSIONS)
"""Length of a buffer's axis: ``(buffer, axis) -> length``."""


@compiled
def data(buffer: int) -> int:
    """Address of a buffer's first element."""
    return _read_word(buffer + _DATA)


def once(work: Callable[[], None]) -> Callable[[], None]:
    """``work`` at the first call; other threads wait for it."""
    lock, cached = threading.Lock(), functools.cache(work)

    def locked() -> None:
        with lock:
            cached()

    return locked


def register(name: str, handler: Callable[[int], int]) -> None:
    """Makes a compiled ``(call frame's address) -> 0`` callable by `jax.ffi.ffi_call` on CPUs."""
    compiled = compiled_for_c(types.int64(types.int64))(handler)
    _HANDLERS.append(compiled)  # its code must outlive every program that calls it
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    jax.ffi.register_ffi_target(name, make(compiled.address, None, None), platform="cpu")


_HANDLERS: list[Any] = []
