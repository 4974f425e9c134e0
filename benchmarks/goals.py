"""What is to be reached, and whether the figures of this run reach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import stopwatch
from benchmarks.cases import ALL_CORES, GPU, ONE_CORE
from benchmarks.rows import Row, columns, figure

MET, MISSED, NOT_MEASURED = "met", "MISSED", "not measured"

Figure = Callable[[Sequence[Row]], float | None]
"""Reads a figure off the rows; None if they lack it."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure that is aimed at.

    Attributes:
      suite: of which suite.
      words: what it is of.
      at_most: the bound from above, or None.
      at_least: the bound from below, or None.
      unit: of the figure.
      figure: of a run.
    """

    suite: str
    words: str
    figure: Figure
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"

    def judge(self, found: Sequence[Row]) -> dict[str, Any]:
        """The goal, its figure and whether it is met."""
        value = self.figure(found)
        if value is None:
            verdict = NOT_MEASURED
        else:
            above = self.at_most is not None and value > self.at_most
            below = self.at_least is not None and value < self.at_least
            verdict = MISSED if above or below else MET
        bounds = {"at_most": self.at_most, "at_least": self.at_least, "unit": self.unit}
        return {"goal": self.words, **bounds, "figure": value, "verdict": verdict}


def find(found: Sequence[Row], section: str, name: str, mode: str) -> Row | None:
    """The row of that name, if it is right and has times."""
    for row in found:
        if (row.section, row.name, row.mode) == (section, name, mode):
            return row if row.ms else None
    return None


def _ratio(section: str, name: str, mode: str, ratio: str) -> Figure:
    def value(found: Sequence[Row]) -> float | None:
        row = find(found, section, name, mode)
        return None if row is None else row.ratios.get(ratio)

    return value


def _ms(section: str, name: str, mode: str, times: float = 1.0) -> Figure:
    def value(found: Sequence[Row]) -> float | None:
        row = find(found, section, name, mode)
        return None if row is None or row.ms is None else row.ms * times

    return value


def _over(section: str, name: str, base: str, mode: str, times: float = 1.0) -> Figure:
    """How many times another row's time, round by round."""

    def value(found: Sequence[Row]) -> float | None:
        row, other = (find(found, section, each, mode) for each in (name, base))
        if row is None or other is None:
            return None
        ratio = stopwatch.ratio(row.rounds, other.rounds)
        return None if ratio is None else ratio * times

    return value


def _whole_zoo(precision: str) -> Figure:
    """By the engine's fastest row of this precision."""

    def value(found: Sequence[Row]) -> float | None:
        rows = [row for row in found if (row.mode, row.precision) == (GPU, precision)]
        seconds = [row.whole_zoo_s for row in rows if row.name.startswith("engine") and row.whole_zoo_s]
        return min(seconds, default=None)

    return value


def _both(mode: str, suite: str) -> list[Goal]:
    compilation = _over("growth", "compilation, 2,048 models", "compilation, 32 models", mode)
    return [
        Goal(suite, "compilation of 2,048 models over that of 32", compilation, at_most=1.2),
        Goal(suite, "warm start to the first step", _ms("start", "warm", mode, 1e-3), at_most=2, unit="s"),
        Goal(suite, "--help", _ms("start", "launch.py --help", mode, 1e-3), at_most=2, unit="s"),
    ]


GOALS = [
    # As fast as before the redesign, which was 2.96 and 2.52 times PyTorch, within 5%.
    Goal("cpu", "zoo over a PyTorch loop", _ratio("zoo", "engine", ONE_CORE, "x PyTorch"), at_least=2.8),
    Goal(
        "cpu",
        "a CycleGAN pair over a PyTorch loop",
        _ratio("translators", "engine, 1 pair", ONE_CORE, "x PyTorch"),
        at_least=2.4,
    ),
    Goal(
        "cpu",
        "a composed network, learned",
        _ms("compose", "cyclegan, 55 pairs", ONE_CORE),
        at_most=10,
        unit="ms",
    ),
    Goal(
        "cpu",
        "a composed network, closed form",
        _ms("compose", "weights matched, averaged, 1 pair", ONE_CORE),
        at_most=100,
        unit="ms",
    ),
    Goal(
        "cpu",
        "1,000 networks on 1,000 images, end to end",
        _ms("evaluation", "end to end, 1,000 networks", ALL_CORES),
        at_most=15,
        unit="s",
    ),
    *_both(ALL_CORES, "cpu"),
    Goal("gpu", "all 4,498 networks in float32", _whole_zoo("float32"), at_most=12, unit="s"),
    Goal("gpu", "all 4,498 networks in TF32", _whole_zoo("TF32"), at_most=4, unit="s"),
    Goal("gpu", "zoo over a PyTorch loop", _ratio("zoo", "engine", GPU, "x PyTorch"), at_least=100),
    Goal("gpu", "zoo over torch.func.vmap", _ratio("zoo", "engine", GPU, "x torch.vmap"), at_least=20),
    Goal("gpu", "zoo over the first-written vmap", _ratio("zoo", "engine", GPU, "x first vmap"), at_least=10),
    Goal(
        "gpu", "zoo, the fused kernel over XLA's tiles", _ratio("zoo", "engine", GPU, "x tiles"), at_least=2
    ),
    Goal(
        "gpu",
        "a CycleGAN step of 64 pairs over one of 1",
        _over("translators", "engine, 64 pairs", "engine, 1 pair", GPU, 64),
        at_most=3,
    ),
    Goal(
        "gpu",
        "1,749 networks on 1,000 images",
        _ms("evaluation", "engine, 1,749 networks", GPU, 1.749),
        at_most=0.1,
        unit="s",
    ),
    *_both(GPU, "gpu"),
]


def judge(suite: str, found: Sequence[Row]) -> list[dict[str, Any]]:
    """All goals of a suite."""
    return [goal.judge(found) for goal in GOALS if goal.suite == suite]


def table(judged: Sequence[dict[str, Any]]) -> str:
    """The goals and whether they are met."""
    lines = []
    for goal in judged:
        word, bound = (
            ("at most", goal["at_most"]) if goal["at_least"] is None else ("at least", goal["at_least"])
        )
        unit = f" {goal['unit']}"
        lines.append(
            [
                goal["goal"],
                f"{word} {figure(bound, unit)}",
                figure(goal["figure"], unit),
                goal["verdict"],
            ]
        )
    return "== goals " + "=" * 95 + "\n" + columns(["", "goal", "here", ""], lines) + "\n"
