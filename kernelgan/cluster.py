"""The processes of one run: one a host (or one an accelerator), on JAX's own distributed runtime.

The first process runs the pipeline; the others only compute. What all of them must do is marked with
`together`, which sends the function's name and arguments to the others, who wait in `follow`. So the images
and the work directory are needed on the first host alone, and every file is written there.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from kernelgan.types import UserError

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclasses.dataclass
class _Membership:
    """This process's: of a cluster at all, and at work on one program with all the others right now."""

    joined: bool = False
    together: bool = False
    lost: bool = False  # this process left a common program that the others are still in


_membership = _Membership()


def join(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Makes this process one of several; to be called before anything of JAX is used.

    Args:
      coordinator: ``host:port`` of the first process; "": found from the environment (Slurm, Open MPI and
        others that `jax.distributed.initialize` knows).
      processes: how many there are; used with a coordinator.
      process: the number of this one, from 0; used with a coordinator.

    Raises:
      UserError: the arguments do not fit, or the others cannot be reached.
    """
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
    multihost_utils.sync_global_devices("joined")  # at once: who connects late is given up after 30 seconds
    _membership.joined = True


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def is_together() -> bool:
    """Whether all processes are at work on the same program right now."""
    return _membership.together


def together(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Makes a function one that every process of the run calls when the first one does.

    It takes keywords ``saver`` and ``progress`` (see `population.train`). Its other arguments are sent to the
    other processes, and so is the state that the saver restores; they save and show nothing. Outside a
    cluster it is the function as it stands.
    """

    @functools.wraps(function)
    def on_all(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if not _membership.joined:
            return function(*arguments, **options)
        sent = {name: value for name, value in options.items() if name not in ("saver", "progress")}
        _send((on_all, arguments, sent))  # by its name, which is this function's
        try:
            return _work(function, arguments, {**options, "saver": _FirstSaver(options["saver"])})
        except UserError:
            raise  # the others meet it too, or have been told
        except BaseException:
            _membership.lost = True
            raise

    return on_all


def follow() -> None:
    """What every process but the first does: its part of each `together`, until it is dismissed.

    If another process ends before that, so does this one, at once: here, with status 1, or, where that is
    faster, by JAX, which aborts it.
    """
    try:
        while (order := _receive()) is not None:
            function, arguments, options = order
            silent = {"saver": _FollowingSaver(), "progress": lambda *_: None}
            with contextlib.suppress(
                UserError
            ):  # the first process meets the same, tells it, and dismisses us
                _work(function.__wrapped__, arguments, options | silent)
    except (jax.errors.JaxRuntimeError, KeyboardInterrupt) as error:
        reason = (str(error).splitlines() or ["interrupted"])[0]
        print(
            f"a process of this run ended ({reason}), and so does this one; what the first process has saved "
            "is kept, and the same command goes on there.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # to take leave in order would be to wait for that process


def dismiss() -> None:
    """Lets the others end; the first process goes on alone, on its own devices."""
    if _membership.joined:
        _membership.joined = False
        _send(None)
        jax.distributed.shutdown()  # waits for the others, who do the same at their end


def leave(status: int) -> None:
    """Ends this process's part, whatever happened: the others are dismissed or, if they cannot hear it, lost.

    Args:
      status: that the process ends with, at once, if it left the others in the middle of a program.
    """
    if _membership.joined and _membership.lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # the others then end too; to wait for them would be to wait for ever
    dismiss()


def _work(function: Callable[..., _Result], arguments: tuple[Any, ...], options: dict[str, Any]) -> _Result:
    _membership.together = True
    try:
        return function(*arguments, **options)
    finally:
        _membership.together = False


def gather(value: object) -> list[Any]:
    """What each process gives, in their order, on every process; to be called by all that work together."""
    if not is_together():
        return [value]
    own = _as_bytes(value)
    lengths = np.ravel(multihost_utils.process_allgather(np.int64(len(own))))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(own)] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [pickle.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def _send(message: object) -> None:
    """From the first process to all others."""
    sent = _as_bytes(message)
    multihost_utils.broadcast_one_to_all(np.int64(len(sent)))
    multihost_utils.broadcast_one_to_all(sent)


def _receive() -> Any:  # noqa: ANN401
    length = int(multihost_utils.broadcast_one_to_all(np.int64(0)))
    received = multihost_utils.broadcast_one_to_all(np.zeros(length, np.uint8))
    return pickle.loads(np.asarray(received).tobytes())  # from our own first process


def _as_bytes(value: object) -> np.ndarray:
    return np.frombuffer(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL), np.uint8)


_STOP = "stop"


class _FirstSaver:
    """Saves, and tells the others when a state is to be collected from all, and when to stop."""

    def __init__(self, saver: Any) -> None:  # noqa: ANN401
        self._saver = saver

    def restore(self) -> dict[str, Any] | None:
        with _stopping_the_others():
            state = self._saver.restore()
        _send(state)
        return state

    def save(self, make_tree: Callable[[], dict[str, Any]], step: int) -> None:
        def make() -> dict[str, Any]:
            _send(True)
            return make_tree()

        with _stopping_the_others():
            self._saver.save(make, step)
        _send(None)

    @property
    def last_good(self) -> str:
        return self._saver.last_good


@contextlib.contextmanager
def _stopping_the_others() -> Iterator[None]:
    try:
        yield
    except BaseException:
        _send(_STOP)
        raise


class _FollowingSaver:
    """Keeps nothing; takes part where the first process saves."""

    last_good = "with the first process"

    def restore(self) -> dict[str, Any] | None:
        return self._told()

    def save(self, make_tree: Callable[[], dict[str, Any]], step: int) -> None:
        del step
        while self._told():
            make_tree()

    def _told(self) -> Any:  # noqa: ANN401
        message = _receive()
        if isinstance(message, str) and message == _STOP:
            raise UserError("the first process stopped")
        return message
