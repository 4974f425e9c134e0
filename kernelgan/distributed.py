"""Several processes for one run, as is usual with JAX: all run the same program, process 0 writes files.

Every process loads the images and works through the same stages, each on its devices' share of the members.
What only process 0 can know (what is on the disk, whether it is time to save) it tells the others by `first`.
Once everything is trained the others end, by `leave`.
"""

from __future__ import annotations

import collections
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from kernelgan.types import UserError

_Result = TypeVar("_Result")
_joined = False


def join(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Makes this process one of several; to be called before anything of JAX is used.

    Args:
      coordinator: ``host:port`` of process 0; "": taken from the environment (Slurm, Open MPI and others that
        `jax.distributed.initialize` knows).
      processes: how many there are; used with a coordinator.
      process: the number of this one, from 0; used with a coordinator.

    Raises:
      UserError: the arguments do not fit, or the others cannot be reached.
    """
    global _joined  # noqa: PLW0603  (JAX's own runtime is as global)
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
    if coordinator and process > 0:
        print(f"process {process} of {processes}: waiting for {coordinator}", file=sys.stderr)
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
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
    multihost_utils.sync_global_devices("joined")  # at once: Gloo gives up a late process after 30 seconds
    _joined = True


def is_first() -> bool:
    """Whether this process reads and writes files, and shows progress."""
    return not _joined or jax.process_index() == 0


def is_together() -> bool:
    """Whether this process shares the work with others."""
    return _joined


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
    if failure is not None:
        raise failure
    if not succeeded:
        raise UserError(value)
    return value


def everywhere(function: Callable[[], _Result], digest: Callable[[_Result], str]) -> _Result:
    """Calls a function on every process, and makes sure that it succeeds and gives the same on all of them.

    Args:
      function: such as the loading of the images.
      digest: of its result; it must not differ between processes.

    Raises:
      UserError: on every process, if the function raises one on any, or if the digests differ.
    """
    if not _joined:
        return function()
    result: _Result | None = None
    error = mark = ""
    try:
        result = function()
        mark = digest(result)
    except UserError as raised:
        error = str(raised)
    outcomes = gather((error, mark))
    for number, (message, _) in enumerate(outcomes):
        if message:
            raise UserError(message if number == 0 else f"process {number}: {message}")
    if len({mark for _, mark in outcomes}) > 1:
        raise UserError("the processes of this run read different images; give all of them the same.")
    assert result is not None
    return result


def gather(value: object) -> list[Any]:
    """What each process gives, in their order, on every process; all of them must come here."""
    if not _joined:
        return [value]
    own = _as_bytes(value)
    lengths = np.ravel(multihost_utils.process_allgather(np.int64(len(own))))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(own)] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def leave() -> bool:
    """Ends the common work; all processes must come here.

    Returns:
      Whether this is process 0, which goes on alone, on its own devices.
    """
    global _joined  # noqa: PLW0603
    if not _joined:
        return True
    goes_on = is_first()
    _joined = False
    jax.distributed.shutdown()  # waits for the others, who do the same
    return goes_on


def abandon(status: int) -> None:
    """Ends this process at once if others may wait for it: they then end too, and to wait would be for ever.

    Args:
      status: that the process ends with; nothing happens where it is on its own.
    """
    if _joined:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _broadcast(value: object) -> Any:  # noqa: ANN401
    """Process 0's value on every process."""
    sent = _as_bytes(value) if is_first() else np.zeros(0, np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int64(len(sent))))
    received = multihost_utils.broadcast_one_to_all(sent if is_first() else np.zeros(length, np.uint8))
    return pickle.loads(np.asarray(received).tobytes())  # from our own process 0


def _as_bytes(value: object) -> np.ndarray:
    return np.frombuffer(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL), np.uint8)
