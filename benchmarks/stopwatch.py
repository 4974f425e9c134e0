"""Times of several cases, taken in turn, and what is computed from them. Nothing here imports JAX.

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

_MOST_REPETITIONS = 10_000


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
      repetitions: of a lap; None for as many as fill it.
      seconds: of a lap's repetitions, or of one, if that is known; else it is run twice to find out.
      rounds: the most, None for no limit.
      close: ends what it holds.
    """

    run: Callable[[int], float | None]
    units: float
    check: Callable[[], float] | None = None
    compile_s: float | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    repetitions: int | None = None
    seconds: float | None = None
    rounds: int | None = None
    close: Callable[[], object] = lambda: None


@dataclasses.dataclass
class Times:
    """Milliseconds a unit, lap by lap.

    Attributes:
      wall: on the clock.
      cpu: of all threads of this process.
      reason: why there are none, or fewer.
    """

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)
    reason: str = ""


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


def ratio(baseline: Sequence[float], values: Sequence[float]) -> float | None:
    """How many times the baseline's time the other's is: the median over the rounds that both have."""
    pairs = list(zip(baseline, values, strict=False))
    return statistics.median(base / value for base, value in pairs) if pairs else None


def repetitions_for(seconds: float, lap: float) -> int:
    """Repetitions of ``seconds`` each that fill a lap of ``lap`` seconds."""
    return min(_MOST_REPETITIONS, max(1, round(lap / max(seconds, 1e-9))))


def rounds_for(seconds: float, lap: float, rounds: int) -> int:
    """How many rounds a case takes part in whose lap takes ``seconds`` instead of ``lap``."""
    if seconds <= 4 * lap:
        return rounds
    return min(rounds, 3 if seconds <= 20 * lap else 1)


def take_turns(works: Mapping[str, Prepared], *, rounds: int, lap: float) -> dict[str, Times]:
    """Times cases round by round; each has run before, so that nothing is measured cold.

    Args:
      works: the cases by name.
      rounds: laps of each, fewer for those that take far longer than a lap should.
      lap: seconds that a lap should take.

    Returns:
      The times by name. A case that fails has those up to then, and the reason.
    """
    times = {name: Times() for name in works}
    plans: dict[str, tuple[int, int]] = {}
    for name, work in works.items():
        try:
            taken = _seconds(work) if work.seconds is None else work.seconds
        except Exception as error:  # the others go on, and the row says why
            times[name].reason = words(error)
            continue
        repetitions = work.repetitions or repetitions_for(taken, lap)
        expected = taken if work.repetitions else taken * repetitions
        most = rounds if work.rounds is None else min(rounds, work.rounds)
        plans[name] = (repetitions, rounds_for(expected, lap, most))
    for number in range(rounds):
        for name, work in works.items():
            repetitions, turns = plans.get(name, (0, 0))
            if number >= turns:
                continue
            try:
                wall, cpu = time.perf_counter(), time.process_time()
                told = work.run(repetitions)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            except Exception as error:
                times[name].reason = words(error)
                del plans[name]
                continue
            units = repetitions * work.units
            times[name].wall.append(1e3 * (wall if told is None else told) / units)
            times[name].cpu.append(1e3 * cpu / units)
        say(f"  round {number + 1} of {rounds}")
    for work in works.values():
        work.close()
    return times


def _seconds(work: Prepared) -> float:
    """Of one repetition, or of a lap if it has its own number of them; the second time that it is run."""
    work.run(work.repetitions or 1)
    start = time.perf_counter()
    work.run(work.repetitions or 1)
    return time.perf_counter() - start


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

    def __init__(self, call: Callable[[Callable[..., None]], Any]) -> None:
        """``call`` takes the callback to be called, with anything, at the end of each lap."""
        self._call = call
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._wait()
            self._call(self._lap_ended)
            self._error = RuntimeError("it has no more laps")
        except _EndedError:
            pass
        except Exception as error:  # told to the thread that waits for the lap
            self._error = error
        self._done.release()

    def _lap_ended(self, *_: object) -> None:
        self._done.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._ended:
            raise _EndedError

    def laps(self, count: int = 1) -> None:
        """Lets it go on for some laps and waits for their end; raises whatever the call raised."""
        for _ in range(count):
            if self._error is None:
                self._go.release()
                self._done.acquire()
            if self._error is not None:
                raise self._error

    def close(self) -> None:
        """Ends the call."""
        self._ended = True
        self._go.release()
        self._thread.join(timeout=60)


class Compilations:
    """Listens to what JAX says of its tracing, lowering and compiling, from when it is made on."""

    EVENTS = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")

    def __init__(self) -> None:
        import jax.monitoring

        self._intervals: list[tuple[float, float]] = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.rpartition("/")[2] in self.EVENTS:
            now = time.perf_counter()
            self._intervals.append((now - duration_secs, now))

    @property
    def seconds(self) -> float:
        """So far; one function's tracing within another's counts once."""
        return covered(self._intervals)

    def restart(self) -> None:
        """Counts from zero again."""
        self._intervals.clear()


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals, which may lie in one another."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
