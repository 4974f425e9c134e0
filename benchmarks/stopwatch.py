"""Times of several cases, taken in turn. Nothing here imports JAX before it is there.

Machines drift by a factor of two within an hour, so cases take turns: in each round each of them has one lap,
and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def say(words: str) -> None:
    """A line of progress; standard output is the table's."""
    print(words, file=sys.stderr, flush=True)


@dataclasses.dataclass
class Prepared:
    """Something to be timed, compiled already.

    Attributes:
      run: does that many repetitions and returns when all of it is computed; what it returns, unless None, is
        taken for the seconds on the clock.
      units: of work in one repetition, such as networks times steps.
      check: the error of its result, see `benchmarks.check`; called before anything is timed.
      compile_s: what getting ready took of compilation.
      details: for the JSON.
      single: whether a lap is one repetition, and none comes before the first.
      close: ends what it holds.
    """

    run: Callable[[int], float | None]
    units: float
    check: Callable[[], float] | None = None
    compile_s: float | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    single: bool = False
    close: Callable[[], object] = lambda: None


@dataclasses.dataclass
class Times:
    """Milliseconds a unit, lap by lap: on the clock, and of all threads; and why there are fewer."""

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)
    reason: str = ""


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


def ratio(baseline: Sequence[float], values: Sequence[float]) -> float | None:
    """How many times the baseline's time the other's is: the median over the rounds that both have."""
    return median([base / value for base, value in zip(baseline, values, strict=False)])


def repetitions_for(work: Prepared, lap: float) -> int:
    """As many as fill a lap, by the second time that it is run."""
    if work.single:
        return 1
    work.run(1)
    start = time.perf_counter()
    work.run(1)
    return min(1_000, max(1, round(lap / (time.perf_counter() - start))))


def _lap(work: Prepared, repetitions: int) -> tuple[float, float]:
    """Milliseconds a unit, on the clock and of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    told = work.run(repetitions)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    units = repetitions * work.units
    return 1e3 * (wall if told is None else told) / units, 1e3 * cpu / units


def take_turns(works: Mapping[str, Prepared], *, rounds: int, lap: float) -> dict[str, Times]:
    """Times cases round by round, with laps of about ``lap`` seconds; each has run before.

    Returns:
      The times by name. A case that fails has those up to then, and the reason.
    """
    times = {name: Times() for name in works}
    repetitions: dict[str, int] = {}
    for _ in range(1 + rounds):
        for name, work in works.items():
            if times[name].reason:
                continue
            try:
                if name not in repetitions:
                    repetitions[name] = repetitions_for(work, lap)
                    continue
                wall, cpu = _lap(work, repetitions[name])
            except Exception as error:  # the others go on, and the row says why
                times[name].reason = words(error)
                continue
            times[name].wall.append(wall)
            times[name].cpu.append(cpu)
    for work in works.values():
        work.close()
    return times


def words(error: Exception) -> str:
    """An error in one line."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first[:200]}"


class _EndedError(Exception):
    """Ends the thread of a `Lockstep`."""


class Lockstep:
    """A long call, such as `engine.fit`, that does one lap when it is told to.

    The call is made in a thread of its own and given a callback, which waits in it until the next lap: so the
    engine itself is timed, in turn with others, and not a copy of its loop.
    """

    MOST = 4_000
    """Laps that the call should be able to do."""

    def __init__(self, call: Callable[[Callable[..., None]], Any]) -> None:
        """``call`` takes the callback to be called, with anything, at the end of each lap."""
        self._call = call
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._wait()
            self._call(self._lap_ended)
            self._error = RuntimeError("it has no more laps")
        except Exception as error:  # told to the thread that waits for the lap
            self._error = error
        self._done.release()

    def _lap_ended(self, *_: object) -> None:
        self._done.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._closed:
            raise _EndedError

    def laps(self, count: int) -> None:
        """Lets it go on for some laps and waits for their end; raises whatever the call raised."""
        for _ in range(count):
            if self._error is None:
                self._go.release()
                self._done.acquire()
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Ends the call."""
        self._closed = True
        self._go.release()
        self._thread.join(timeout=60)


class Compilations:
    """Listens to what JAX says of its tracing, lowering and compiling, from when it is made on."""

    EVENTS = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")

    def __init__(self) -> None:
        import jax.monitoring

        self.intervals: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.rpartition("/")[2] in self.EVENTS:
            now = time.perf_counter()
            self.intervals.append((now - duration_secs, now))

    @property
    def seconds(self) -> float:
        """So far; one function's tracing within another's counts once."""
        total, reached = 0.0, float("-inf")
        for begin, end in sorted(self.intervals):
            total += max(0.0, end - max(begin, reached))
            reached = max(reached, end)
        return total
