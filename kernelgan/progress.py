"""Progress of long stages: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

STAGES = ("data", "zoo", "fit", "baselines", "generate", "evaluate", "report")
"""Of a run, in order."""

WIDTH = len("trained_on_conjunction")
"""Of a stage's name."""

LOG_EVERY = 10.0
"""Seconds between two lines where the output is no terminal."""


class Progress:
    """One stage's progress; call it with what is done, what there is in all, and the latest figures."""

    def __init__(self, stage: str) -> None:
        """Names the stage; nothing is shown before the first call."""
        self._stage = stage
        self._bar: tqdm | None = None
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int, figures: dict[str, float] | None = None) -> None:
        """Shows that ``done`` of ``total`` are done."""
        text = ", ".join(f"{name} {value:.3f}" for name, value in (figures or {}).items())
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=total,
                    initial=done,  # what an earlier attempt did took no time of this one's
                    desc=f"{self._stage:{WIDTH}s}",
                    leave=False,
                    dynamic_ncols=True,
                )
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif done == total or time.monotonic() - self._last >= LOG_EVERY:
            self._last = time.monotonic()
            print(f"{self._stage:{WIDTH}s} {done}/{total}  {text}", file=sys.stderr, flush=True)

    def close(self, outcome: str) -> float:
        """Ends the stage with one line, and gives the seconds that it took."""
        seconds = time.monotonic() - self._start
        if self._bar is not None:
            self._bar.close()
        print(f"{self._stage:{WIDTH}s} {outcome}  ({seconds:.1f} s)", file=sys.stderr, flush=True)
        return seconds
