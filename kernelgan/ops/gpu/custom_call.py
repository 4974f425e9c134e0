"""XLA's custom calls on GPUs, answered by a Python function: it only launches, once an epoch.

The structs are those of ``xla/ffi/api/c_api.h``, which comes with jaxlib; a test compares every offset.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import jax

VERSION = (0, 3)
"""Of the interface, as XLA is told; it keeps accepting one for at least a year."""

_METADATA = 1  # of XLA_FFI_Extension_Type
_INTERNAL = 13  # of XLA_FFI_Error_Code
_WORD, _INT = ctypes.c_void_p, ctypes.c_int


def _struct(name: str, fields: list[tuple[str, Any]]) -> Any:  # noqa: ANN401
    """A struct of the interface; all but two begin with their size and a list of extensions."""
    return type(name, (ctypes.Structure,), {"_fields_": fields})


_HEAD = [("struct_size", ctypes.c_size_t), ("extension_start", _WORD)]

ExtensionBase = _struct(
    "XLA_FFI_Extension_Base", [("struct_size", ctypes.c_size_t), ("type", _INT), ("next", _WORD)]
)
ApiVersion = _struct("XLA_FFI_Api_Version", [*_HEAD, ("major_version", _INT), ("minor_version", _INT)])
Metadata = _struct("XLA_FFI_Metadata", [("struct_size", ctypes.c_size_t), ("api_version", ApiVersion)])
MetadataExtension = _struct(
    "XLA_FFI_Metadata_Extension", [("extension_base", ExtensionBase), ("metadata", ctypes.POINTER(Metadata))]
)
Buffer = _struct(
    "XLA_FFI_Buffer",
    [
        *_HEAD,
        ("dtype", _INT),
        ("data", _WORD),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ],
)
Args = _struct(
    "XLA_FFI_Args",
    [*_HEAD, ("size", ctypes.c_int64), ("types", _WORD), ("args", ctypes.POINTER(ctypes.POINTER(Buffer)))],
)
Rets = _struct(
    "XLA_FFI_Rets",
    [*_HEAD, ("size", ctypes.c_int64), ("types", _WORD), ("rets", ctypes.POINTER(ctypes.POINTER(Buffer)))],
)
StreamGetArgs = _struct("XLA_FFI_Stream_Get_Args", [*_HEAD, ("ctx", _WORD), ("stream", _WORD)])
ErrorCreateArgs = _struct("XLA_FFI_Error_Create_Args", [*_HEAD, ("message", ctypes.c_char_p), ("errc", _INT)])
_ErrorCreate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(ErrorCreateArgs))
_StreamGet = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(StreamGetArgs))
Api = _struct(
    "XLA_FFI_Api",
    [
        *_HEAD,
        ("api_version", ApiVersion),
        ("internal_api", _WORD),
        ("XLA_FFI_Error_Create", _ErrorCreate),
        ("XLA_FFI_Error_GetMessage", _WORD),
        ("XLA_FFI_Error_Destroy", _WORD),
        ("XLA_FFI_Handler_Register", _WORD),
        ("XLA_FFI_Stream_Get", _StreamGet),
    ],
)
CallFrame = _struct(
    "XLA_FFI_CallFrame",
    [*_HEAD, ("api", ctypes.POINTER(Api)), ("ctx", _WORD), ("stage", _INT), ("args", Args), ("rets", Rets)],
)

STRUCTS = (
    ExtensionBase,
    ApiVersion,
    Metadata,
    MetadataExtension,
    Buffer,
    Args,
    Rets,
    StreamGetArgs,
    ErrorCreateArgs,
    Api,
    CallFrame,
)
_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(CallFrame))

Answer = Callable[[int | None, list[Any], list[Any]], None]
"""``(stream, arguments, results)``; the lists are of `Buffer`."""


class _RefusalError(Exception):
    """XLA gave an error of its own, to be handed back to it."""

    def __init__(self, error: int) -> None:
        self.error = error


def stream_of(frame: Any) -> int | None:  # noqa: ANN401
    """The ``CUstream`` of a call."""
    wanted = StreamGetArgs(struct_size=ctypes.sizeof(StreamGetArgs), ctx=frame.ctx)
    error = frame.api.contents.XLA_FFI_Stream_Get(ctypes.byref(wanted))
    if error:
        raise _RefusalError(error)
    return wanted.stream


def register(
    name: str, answer: Answer, *, platform: str = "CUDA", stream: Callable[[Any], int | None] = stream_of
) -> None:
    """Makes a function callable by `jax.ffi.ffi_call`; what it raises becomes XLA's error."""

    def handle(frame: Any) -> int | None:  # noqa: ANN401
        frame = frame.contents
        if _is_question(frame):
            return None
        try:
            arguments = [frame.args.args[k].contents for k in range(frame.args.size)]
            results = [frame.rets.rets[k].contents for k in range(frame.rets.size)]
            answer(stream(frame), arguments, results)
        except _RefusalError as refusal:
            return refusal.error
        except BaseException as error:  # nothing may be raised into XLA
            message = f"{type(error).__name__}: {error}".encode()
            wanted = ErrorCreateArgs(
                struct_size=ctypes.sizeof(ErrorCreateArgs), message=message, errc=_INTERNAL
            )
            return frame.api.contents.XLA_FFI_Error_Create(ctypes.byref(wanted))
        return None

    handler = _Handler(handle)
    _HANDLERS.append(handler)  # it must outlive every program that calls it
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform=platform)


def _is_question(frame: Any) -> bool:  # noqa: ANN401
    """Whether XLA only asks which interface this is; then it is answered, and nothing else is to be done."""
    if not frame.extension_start:
        return False
    base = ctypes.cast(frame.extension_start, ctypes.POINTER(ExtensionBase)).contents
    if base.type != _METADATA:
        return False
    extension = ctypes.cast(frame.extension_start, ctypes.POINTER(MetadataExtension)).contents
    version = extension.metadata.contents.api_version
    version.major_version, version.minor_version = VERSION
    return True


_HANDLERS: list[Any] = []
