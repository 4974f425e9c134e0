"""How a program ends before its time: SIGTERM, and output that nobody reads any more."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

STATUS = 128 + signal.SIGTERM
"""Of a program that SIGTERM ended, as shells give it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came, such as before a preemption; what could be saved is saved."""


_asked = False
_saving = 0  # fits at work


def listen() -> None:
    """From now on SIGTERM raises `Terminated`: within `saving` once the state is saved, elsewhere at once.

    Of several processes the first saves, and then ends the others; a second SIGTERM ends any of them.
    """
    global _asked  # noqa: PLW0603  (signals are as global)
    _asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        global _asked
        del number, frame
        again, _asked = _asked, True
        if again or not _saving:
            raise Terminated
        print("terminated: saving at the next step", file=sys.stderr, flush=True)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """A loop that asks `is_asked` after each step, and then saves and raises `Terminated`."""
    global _saving  # noqa: PLW0603
    _saving += 1
    try:
        yield
    finally:
        _saving -= 1


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """SIGINT and SIGTERM wait for the end of this block, whose threads would go on while the program ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in handled:
            signal.signal(number, lambda number, frame: waiting.append(number))
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    for waited in waiting:
        signal.raise_signal(waited)


def is_asked() -> bool:
    """Whether SIGTERM came."""
    return _asked


class _Lasting:
    """A stream that goes on without effect once its reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lasting():
            self._stream.flush()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # what is left in buffers goes there too
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


def outlast_readers() -> None:
    """From now on a reader of the output that ends, such as ``head``, does not end this program."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Lasting):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter
            setattr(sys, name, _Lasting(stream))
