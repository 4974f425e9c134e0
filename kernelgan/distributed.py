"""Several processes for one run, as is usual with JAX: all run the same program, process 0 writes files.

Every process loads the images and works through the same stages, each on its devices' share of the members.
What only process 0 can know (what is on the disk, whether it is time to save) it tells the others by `first`.
Once everything is trained the others end, by `leave`. An error of `first` or `everywhere` is raised on every
process; after any other, `abandon` ends its process, and the others end for they cannot reach it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from kernelgan.types import UserError

_Result = TypeVar("_Result")
_PATIENCE = 300.0
_joined = False
_number = 0  # of this process, also after it has left
_agreed = False  # whether every process has raised the last error


def join(
    coordinator: str = "", processes: int = 0, process: int = -1, *, patience: float = _PATIENCE
) -> None:
    """Makes this process one of several; to be called before anything of JAX is used.

    Args:
      coordinator: ``host:port`` of process 0; "": taken from the environment (Slurm, Open MPI and others that
        `jax.distributed.initialize` knows).
      processes: how many there are; used with a coordinator.
      process: the number of this one, from 0; used with a coordinator.
      patience: seconds to wait for the others; this process then ends with a message, and status 2.

    Raises:
      UserError: the arguments do not fit, or the others cannot be reached.
    """
    global _joined, _number  # (JAX's own runtime is as global)
    given: dict[str, Any] = {}
    if coordinator:
        if not coordinator.rpartition(":")[2].isdigit() or ":" not in coordinator:
            raise UserError(
                f"--coordinator={coordinator}; expected HOST:PORT of process 0, such as node0:7000."
            )
        if processes < 1 or not 0 <= process < processes:
            raise UserError(
                f"--coordinator={coordinator} with --processes={processes} and --process={process}; expected "
                "how many processes there are and which of them this is, from 0."
            )
        given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        if process == 0:
            _check_port(coordinator)
        print(f"process {process} of {processes}: waiting for the others at {coordinator}", file=sys.stderr)
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM, and go on
    try:
        # JAX itself aborts with a stack trace where somebody does not come, so it is given longer.
        with _giving_up_after(patience, coordinator or "the coordinator that Slurm or Open MPI names"):
            jax.distributed.initialize(**given, initialization_timeout=int(patience) + 60)
            _joined, _number = True, jax.process_index()
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, AssertionError) or "initialize backend" in reason:  # no plugin, or no device
            named = os.environ.get("JAX_PLATFORMS", "")
            raise UserError(
                f"JAX finds no device of JAX_PLATFORMS={named} here ({reason}). Expected a platform that "
                "every machine of the run has; for GPUs install requirements-cuda12.txt, or unset it."
            ) from error
        raise UserError(
            f"the other processes of this run cannot be reached ({reason}). Expected to be started by Slurm "
            "or Open MPI, or --coordinator=HOST:PORT --processes=N --process=I."
        ) from error
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(str(devices[process]) for process in sorted(devices))
        raise UserError(
            f"the processes of this run have {counts} devices; expected as many for each. Ask for as many "
            "GPUs on each host or, on CPUs, set JAX_NUM_CPU_DEVICES to one number everywhere."
        )
    gather(None)  # at once: Gloo gives up a late process after 30 seconds


def _check_port(coordinator: str) -> None:
    """Raises a UserError where JAX would end by a segmentation fault."""
    port = int(coordinator.rpartition(":")[2])
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("", port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"--coordinator={coordinator}: process 0 cannot listen on port {port} ({reason}). Expected a "
            "port from 1024 to 65535 that is free on its host; give all processes another."
        ) from None


@contextlib.contextmanager
def _giving_up_after(seconds: float, coordinator: str) -> Iterator[None]:
    """Ends the process if the context lasts longer."""

    def give_up() -> None:
        print(
            f"error: not all processes of this run came to {coordinator} within {seconds:g} seconds. Check "
            "that each was started, with the same address and number of processes, and reaches that host.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_first() -> bool:
    """Whether this process reads and writes files, and shows progress; stays so after `leave`."""
    return _number == 0


def is_together() -> bool:
    """Whether this process shares the work with others."""
    return _joined


@contextlib.contextmanager
def silent_unless_first() -> Iterator[None]:
    """Of several processes, only process 0 prints what Python prints in this context."""
    with contextlib.ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def first(function: Callable[[], _Result]) -> _Result:
    """Calls a function on process 0 and gives its result on every process; all of them must come here.

    Raises:
      UserError: as the function raises it; any other error stops the other processes with a UserError.
    """
    if not _joined:
        return function()
    outcome: tuple[bool, Any] = (True, None)
    failure: BaseException | None = None
    if is_first():
        try:
            outcome = (True, function())
        except BaseException as error:
            failure = error
            outcome = (False, str(error) if isinstance(error, UserError) else f"process 0 stopped: {error!r}")
    succeeded, value = _broadcast(outcome)
    if not succeeded:
        _agree()
        raise failure or UserError(value)
    return value


def everywhere(
    function: Callable[[], _Result], digest: Callable[[_Result], str], of: str = "images"
) -> _Result:
    """Calls a function on every process, and makes sure that it succeeds and gives the same on all of them.

    Args:
      function: such as the loading of the images.
      digest: of its result; it must not differ between processes.
      of: what the digest is of, for the error where it differs.

    Raises:
      UserError: on every process, if the function raises one on any, or if the digests differ. Any other
        error stays as it is on its process, and stops the others with a UserError.
    """
    if not _joined:
        return function()
    result: Any = None
    failure: BaseException | None = None
    message = mark = ""
    try:
        result = function()
        mark = digest(result)
    except BaseException as error:
        failure = error
        message = str(error) if isinstance(error, UserError) else f"it stopped: {error!r}"
    outcomes = gather((message, mark))
    problems = [
        message if number == 0 else f"process {number}: {message}"
        for number, (message, _) in enumerate(outcomes)
        if message
    ]
    if not problems and len({mark for _, mark in outcomes}) > 1:
        problems = [f"the processes of this run have different {of}; give all of them the same."]
    if problems:
        _agree()
        if failure is not None and not isinstance(failure, UserError):
            raise failure
        raise UserError(problems[0])
    return result


def gather(value: object) -> list[Any]:
    """What each process gives, in their order, on every process; all of them must come here."""
    if not _joined:
        return [value]
    own = _as_bytes(value)
    with _reaching_all():
        lengths = np.ravel(multihost_utils.process_allgather(np.int64(len(own))))
        padded = np.zeros(int(lengths.max()), np.uint8)
        padded[: len(own)] = own
        rows = np.reshape(multihost_utils.process_allgather(padded), (len(lengths), -1))
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def leave() -> bool:
    """Ends the common work; all processes must come here.

    Returns:
      Whether this is process 0, which goes on alone, on its own devices.
    """
    global _joined  # noqa: PLW0603
    if not _joined:
        return True
    with _reaching_all():
        gather(None)  # what follows is given up after some minutes
        _joined = False
        jax.distributed.shutdown()  # waits for the others, who do the same
    return is_first()


def abandon(status: int) -> None:
    """Ends this process without waiting for others, who may wait for it: they then end too.

    Args:
      status: that the process ends with; nothing happens where it is on its own.
    """
    if not _joined:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if _agreed:
        with contextlib.suppress(Exception):
            jax.distributed.shutdown()  # the others come here too
    elif is_first():
        time.sleep(_GRACE)  # JAX aborts the others when process 0 has gone: what they have to say comes first
    os._exit(status)


_GRACE = 1.0


def _agree() -> None:
    """Every process is about to raise."""
    global _agreed  # noqa: PLW0603
    _agreed = True


@contextlib.contextmanager
def _reaching_all() -> Iterator[None]:
    """Makes an exchange that fails an error for the user."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # Gloo's come as either
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            "another process of this run has ended or cannot be reached; its own output says why. Give the "
            f"same command on all of them again: it goes on where the run was saved. ({reason})"
        ) from error


def _broadcast(value: object) -> Any:  # noqa: ANN401
    """Process 0's value on every process."""
    sent = _as_bytes(value) if is_first() else np.zeros(0, np.uint8)
    with _reaching_all():
        length = int(multihost_utils.broadcast_one_to_all(np.int64(len(sent))))
        received = multihost_utils.broadcast_one_to_all(sent if is_first() else np.zeros(length, np.uint8))
    return pickle.loads(np.asarray(received).tobytes())  # from our own process 0


def _as_bytes(value: object) -> np.ndarray:
    return np.frombuffer(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL), np.uint8)
