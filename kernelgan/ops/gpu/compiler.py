"""The kernel compiled by NVRTC for one layout and one kind of GPU, kept in the user's cache, and launched.

NVRTC comes with the CUDA wheels that JAX installs; neither nvcc nor a C++ compiler is needed. Libraries are
called through ctypes. What was compiled is kept by its content in ``$XDG_CACHE_HOME/kernelgan``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernelgan import cache
from kernelgan.files import write_atomically
from kernelgan.ops.gpu.layout import MOST_SHARED, THREADS, Layout
from kernelgan.types import UserError

SOURCE = Path(__file__).with_name("epoch.cu")
NAME = b"train_epoch"
DRIVER = "libcuda.so.1"

_MAX_DYNAMIC_SHARED_BYTES, _SHARED_CARVEOUT = 8, 9  # of CUfunction_attribute
_MOST_SHARED_PER_BLOCK = 97  # of CUdevice_attribute
_ALL = 100  # per cent


def _libraries() -> list[str]:
    """Where libnvrtc may be, best first: in wheels, in an installed toolkit, wherever the loader looks."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    patterns = ("cu[0-9]*/lib", "cuda_nvrtc/lib")
    folders = [folder for root in roots for pattern in patterns for folder in sorted(root.glob(pattern))]
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(name):
            folders.append(Path(os.environ[name]) / "lib64")
    folders.append(Path("/usr/local/cuda/lib64"))
    found = [str(file) for folder in folders for file in folder.glob("libnvrtc.so.*")]
    found += [f"libnvrtc.so.{major}" for major in (13, 12)]
    most = _driver_major()
    return [path for path in found if most is None or _major(path) is None or _major(path) <= most]  # type: ignore[operator]


def _major(path: str) -> int | None:
    match = re.search(r"\.so\.(\d+)", path)
    return int(match[1]) if match else None


def _driver_major() -> int | None:
    """The newest CUDA that the driver knows: it may refuse what a newer NVRTC compiled."""
    version = ctypes.c_int()
    try:
        ctypes.CDLL(DRIVER).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value // 1000 or None


@functools.cache
def nvrtc() -> ctypes.CDLL:
    """NVRTC.

    Raises:
      UserError: it is nowhere.
    """
    tried = _libraries()
    for path in tried:
        try:
            # NVRTC opens this one by its bare name when it compiles, and does not look beside itself.
            for beside in Path(path).parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(beside))
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise UserError(
        f"the fused training kernel is compiled by NVRTC, and none of {', '.join(tried)} could be loaded; "
        "install nvidia-cuda-nvrtc-cu12 (CUDA 12) or nvidia-cuda-nvrtc (CUDA 13), whichever JAX's CUDA "
        "wheels are of, or train without the fused kernel."
    )


def compile_for(layout: Layout, capability: tuple[int, int]) -> bytes:
    """Machine code of the kernel for a compute capability; PTX where NVRTC is older than the GPU.

    Raises:
      UserError: NVRTC is nowhere, or older than every GPU that it could compile for.
      RuntimeError: the source does not compile.
    """
    library = nvrtc()
    wanted, known = 10 * capability[0] + capability[1], _architectures(library)
    if wanted in known:
        architecture = f"sm_{wanted}"
    elif any(number < wanted for number in known):
        architecture = f"compute_{max(number for number in known if number < wanted)}"
    else:
        raise UserError(
            f"the GPU has compute capability {capability[0]}.{capability[1]}, and this NVRTC compiles for "
            f"{', '.join(map(str, known))} (tenths); install an older NVRTC, or train without the kernel."
        )
    options = [f"-D{name}={value}" for name, value in layout.macros.items()]
    options += [f"--gpu-architecture={architecture}", "--std=c++17"]
    source = SOURCE.read_bytes()
    digest = hashlib.sha256(repr((source, options, _version(library))).encode())
    directory = cache.directory("fused")
    kept = directory and directory / digest.hexdigest()[:16]
    if kept and kept.is_file():
        return kept.read_bytes()
    code = _compile(library, source, options, machine=architecture.startswith("sm_"))
    if kept:
        with contextlib.suppress(OSError):  # then it is compiled again next time
            write_atomically(kept, code)
    return code


def _architectures(library: ctypes.CDLL) -> list[int]:
    count = ctypes.c_int()
    _check_nvrtc(library, library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    numbers = (ctypes.c_int * count.value)()
    _check_nvrtc(library, library.nvrtcGetSupportedArchs(numbers))
    return list(numbers)


def _version(library: ctypes.CDLL) -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check_nvrtc(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def _compile(library: ctypes.CDLL, source: bytes, options: Sequence[str], machine: bool) -> bytes:
    program = ctypes.c_void_p()
    _check_nvrtc(
        library,
        library.nvrtcCreateProgram(ctypes.byref(program), source, SOURCE.name.encode(), 0, None, None),
    )
    try:
        words = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = library.nvrtcCompileProgram(program, len(options), words)
        if failed:
            log = _text(library, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            raise RuntimeError(f"NVRTC does not compile {SOURCE.name} with {' '.join(options)}:\n{log}")
        return _text(library, program, "CUBIN" if machine else "PTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check_nvrtc(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check_nvrtc(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check_nvrtc(library: ctypes.CDLL, status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC: {library.nvrtcGetErrorString(status).decode()}")


@functools.cache
def driver() -> ctypes.CDLL:
    """The CUDA driver's library.

    Raises:
      UserError: it is not here.
    """
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise UserError(
            f"the fused training kernel needs the CUDA driver, and {DRIVER} was not loaded ({error}); "
            "install NVIDIA's driver, or train without the fused kernel."
        ) from error
    pointer, number = ctypes.c_void_p, ctypes.c_uint
    library.cuLibraryLoadData.argtypes = [pointer, pointer, *[pointer] * 2, number, *[pointer] * 2, number]
    library.cuLibraryGetKernel.argtypes = [pointer, pointer, ctypes.c_char_p]
    library.cuKernelSetAttribute.argtypes = [ctypes.c_int, ctypes.c_int, pointer, ctypes.c_int]
    library.cuStreamGetCtx.argtypes = [pointer, pointer]
    library.cuCtxPushCurrent_v2.argtypes = [pointer]
    library.cuCtxPopCurrent_v2.argtypes = [pointer]
    library.cuCtxGetDevice.argtypes = [pointer]
    library.cuLaunchKernel.argtypes = [pointer, *[number] * 7, pointer, pointer, pointer]
    library.cuGetErrorString.argtypes = [ctypes.c_int, pointer]
    return library


@functools.cache
def most_shared_bytes() -> int:
    """Shared memory that a block can have on the first GPU; Hopper's where there is no driver to ask."""
    try:
        library = driver()
    except UserError:
        return MOST_SHARED
    device, size = ctypes.c_int(), ctypes.c_int()
    if library.cuInit(0) or library.cuDeviceGet(ctypes.byref(device), 0):
        return MOST_SHARED
    _check(library.cuDeviceGetAttribute(ctypes.byref(size), _MOST_SHARED_PER_BLOCK, device))
    return size.value


class Kernel:
    """A compiled kernel, loaded for every device of the process."""

    def __init__(self, code: bytes, shared_bytes: int) -> None:
        self._shared_bytes = shared_bytes
        self._code = code  # the library may read it later
        library, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        _check(driver().cuLibraryLoadData(ctypes.byref(library), code, None, None, 0, None, None, 0))
        _check(driver().cuLibraryGetKernel(ctypes.byref(kernel), library, NAME))
        self._kernel = kernel

    def launch(self, stream: int | None, blocks: int, arguments: Sequence[Any]) -> None:
        """Puts the kernel on a stream of any device; does not wait for it.

        Args:
          stream: the ``CUstream``.
          blocks: how many.
          arguments: the kernel's, as ctypes values.

        Raises:
          RuntimeError: the driver refused.
        """
        context, device = ctypes.c_void_p(), ctypes.c_int()
        _check(driver().cuStreamGetCtx(stream, ctypes.byref(context)))
        _check(driver().cuCtxPushCurrent_v2(context))
        try:
            _check(driver().cuCtxGetDevice(ctypes.byref(device)))
            attributes = {_MAX_DYNAMIC_SHARED_BYTES: self._shared_bytes, _SHARED_CARVEOUT: _ALL}
            for attribute, value in attributes.items():
                _check(driver().cuKernelSetAttribute(attribute, value, self._kernel, device))
            addresses = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(each) for each in arguments])
            _check(
                driver().cuLaunchKernel(
                    self._kernel, blocks, 1, 1, THREADS, 1, 1, self._shared_bytes, stream, addresses, None
                )
            )
        finally:
            driver().cuCtxPopCurrent_v2(ctypes.byref(context))


def _check(status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        driver().cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"CUDA: {(text.value or b'unknown error').decode()} ({status})")
