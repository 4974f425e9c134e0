"""Progress of long stages: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

STAGES = ("data", "zoo", "fit", "baselines", "generate", "evaluate", "report")
"""Of a run, in order."""

WIDTH = len("baselines/trained_on_conjunction")
"""Of a stage's name and that of its part."""

LOG_EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""

_LOOKS = 200  # at what is done, spread over the whole: of these a pace is told
_SMALL = 5e-3  # a figure under it is shown with its power of ten


def named(part: str, stage: str = "") -> str:
    """A part of a run as it is shown, after the stage as ``--stage`` calls it: ``baselines/distilled``.

    Args:
      part: its name among the checkpoints, such as ``fit/cyclegan``, ``distilled`` or ``placebos/reduce``.
      stage: what its seconds are kept under; "": its name.
    """
    kept = {"placebos": "generate"}.get(stage.partition("/")[0], stage.partition("/")[0])
    return part if part.startswith(kept) else f"{kept}/{part}"


class Progress:
    """One stage's progress; call it with what is done, what there is in all, and the latest figures.

    Attributes:
      doing: what is at work within the stage, such as a method; shown where it is not "".
    """

    def __init__(self, stage: str) -> None:
        """Names the stage; nothing is shown yet."""
        self._stage = stage
        self._bar: tqdm | None = None
        self._start = self._last = time.monotonic()
        self._reached: dict[int, float] = {}  # when so many were done, now and then
        self.doing = ""

    def __call__(self, done: int, total: int, figures: dict[str, float] | None = None) -> None:
        """Shows that ``done`` of ``total`` are done."""
        words = [self.doing] if self.doing and done < total else []
        words += [
            f"{name} {value:{'.1e' if 0 < abs(value) < _SMALL else '.3f'}}"
            for name, value in (figures or {}).items()
        ]
        text = ", ".join(words)
        each, last = max(total, 1) / _LOOKS, next(reversed(self._reached), None)
        if last is None or done // each > last // each:
            self._reached[done] = time.monotonic()
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=total,
                    initial=done,  # what an earlier attempt did took no time of this one's
                    desc=f"{self._stage:{WIDTH}s}",
                    bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
                    leave=False,
                    dynamic_ncols=True,
                )
            self._bar.set_postfix_str(", ".join(filter(None, [self._left(done, total), text])), refresh=False)
            self._bar.update(done - self._bar.n)
        else:
            if done == total or time.monotonic() - self._last >= LOG_EVERY:
                self._last = time.monotonic()
                parts = (f"{self._stage:{WIDTH}s} {done}/{total}", self._left(done, total), text)
                print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def begin(self) -> None:
        """Says in one line that the stage begins, before what may be minutes of compilation."""
        compiles = "" if self._stage in ("data", "evaluate", "report") else "; the first step compiles"
        print(f"{self._stage:{WIDTH}s} begins{compiles}", file=sys.stderr, flush=True)

    def _left(self, done: int, total: int) -> str:
        """``1:05 left``, at the pace of the later half of what was done; "" where that is not known.

        The first steps compile. The first methods of ``evaluate`` are the slowest too: before half of all are
        done, they say nothing of the rest.
        """
        first = next(iter(self._reached))
        if not first < done < total or (self._stage == "evaluate" and 2 * done < total):
            return ""
        before = max(one for one in self._reached if 2 * one <= first + done)
        spent = time.monotonic() - self._reached[before]
        if spent < LOG_EVERY / 2:  # too short to be told a pace from
            return ""
        seconds = round(spent / (done - before) * (total - done))
        return f"{seconds // 60}:{seconds % 60:02d} left"

    def close(self, outcome: str) -> float:
        """Ends the stage with one line, and gives the seconds that it took."""
        seconds = time.monotonic() - self._start
        if self._bar is not None:
            self._bar.close()
        print(f"{self._stage:{WIDTH}s} {outcome}  ({seconds:.1f} s)", file=sys.stderr, flush=True)
        return seconds
