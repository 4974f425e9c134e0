"""What was set out to be reached, and whether the figures of this run reach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import rows, stopwatch
from benchmarks.rows import Row

MET, MISSED, NOT_MEASURED = "met", "MISSED", "not measured"
EVALUATED = 1749
END_TO_END = 1000


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure that is aimed at.

    Attributes:
      suite: of which suite.
      words: what it is of.
      target: the figure.
      at_most: whether less is better.
      unit: of the figure.
      figure: reads it off the rows; None if they lack it.
    """

    suite: str
    words: str
    target: float
    at_most: bool
    unit: str
    figure: Callable[[Sequence[Row]], float | None]

    def judge(self, found: Sequence[Row]) -> dict[str, Any]:
        """The goal, its figure and whether it is met."""
        figure = self.figure(found)
        if figure is None:
            verdict = NOT_MEASURED
        else:
            verdict = MET if (figure <= self.target if self.at_most else figure >= self.target) else MISSED
        return {
            "goal": self.words,
            "target": self.target,
            "at_most": self.at_most,
            "unit": self.unit,
            "figure": figure,
            "verdict": verdict,
        }


def find(found: Sequence[Row], section: str, name: str, mode: str) -> Row | None:
    """The right row of that name that has times."""
    for row in found:
        if (row.section, row.name, row.mode) == (section, name, mode):
            return row if row.ms and row.status not in rows.BAD else None
    return None


def _ratio(section: str, name: str, mode: str, ratio: str) -> Callable[[Sequence[Row]], float | None]:
    def figure(found: Sequence[Row]) -> float | None:
        row = find(found, section, name, mode)
        return None if row is None else row.ratios.get(ratio)

    return figure


def _times_pytorch(name: str, mode: str) -> Callable[[Sequence[Row]], float | None]:
    """How many times PyTorch's time for a pair the engine's is."""

    def figure(found: Sequence[Row]) -> float | None:
        faster = _ratio("translators", name, mode, "x PyTorch loop")(found)
        return None if not faster else 1 / faster

    return figure


def _whole_zoo(precision: str) -> Callable[[Sequence[Row]], float | None]:
    """By the engine's fastest row of this precision."""

    def figure(found: Sequence[Row]) -> float | None:
        seconds = [
            row.details["whole_zoo_s"]
            for row in found
            if row.section == "zoo"
            and row.mode == rows.GPU
            and row.precision == precision
            and row.name.startswith("engine")
            and row.status not in rows.BAD
            and "whole_zoo_s" in row.details
        ]
        return min(seconds, default=None)

    return figure


def _many_pairs(few: str, many: str, pairs: int) -> Callable[[Sequence[Row]], float | None]:
    """A step of all pairs over a step of one."""

    def figure(found: Sequence[Row]) -> float | None:
        one, all_of_them = (find(found, "translators", name, rows.GPU) for name in (few, many))
        if one is None or all_of_them is None:
            return None
        faster = stopwatch.ratio(one.rounds, all_of_them.rounds)  # a pair among many, against one alone
        return None if not faster else pairs / faster

    return figure


def _evaluation_seconds(found: Sequence[Row]) -> float | None:
    row = find(found, "evaluation", f"engine, {EVALUATED:,} networks", rows.GPU)
    return None if row is None or row.ms is None else row.ms * EVALUATED / 1e3


def _end_to_end_seconds(found: Sequence[Row]) -> float | None:
    for row in found:  # in one mode only
        if (row.section, row.name) == ("evaluation", f"end to end, {END_TO_END:,} networks"):
            return None if row.ms is None or row.status in rows.BAD else row.ms * END_TO_END / 1e3
    return None


def _compilation(found: Sequence[Row]) -> float | None:
    """Of the most models over that of the fewest."""
    compiled = [
        row for row in found if row.section == "growth" and row.details.get("quantity") == "compilation"
    ]
    if len(compiled) < 2:
        return None
    few, *_, many = sorted(compiled, key=lambda row: row.details["size"])
    return stopwatch.ratio(many.wall_rounds, few.wall_rounds)


def _warm_start(found: Sequence[Row]) -> float | None:
    for row in found:
        if row.section == "start" and row.name == "warm" and row.status not in rows.BAD:
            ms = stopwatch.median(row.wall_rounds)
            return None if ms is None else ms / 1e3
    return None


_TORCH, _FIRST, _MAPPED = "x PyTorch loop", "x first vmap", "x torch.vmap"

_COMPILE = "compilation of 2,048 models over that of 32"

_ONE = rows.ONE_CORE

GOALS = (
    Goal(
        "cpu",
        "zoo: engine over a PyTorch loop, CPU-seconds",
        1.5,
        False,
        "x",
        _ratio("zoo", "engine", _ONE, _TORCH),
    ),
    Goal(
        "cpu",
        "zoo: engine over the first-written vmap, CPU-seconds",
        15,
        False,
        "x",
        _ratio("zoo", "engine", _ONE, _FIRST),
    ),
    Goal(
        "cpu",
        "translators: a pair's time over PyTorch's, one pair, CPU-seconds",
        1.5,
        True,
        "x",
        _times_pytorch("engine, 1 pair", _ONE),
    ),
    Goal(
        "cpu",
        "translators: a pair's time over PyTorch's, 8 pairs, CPU-seconds",
        1.5,
        True,
        "x",
        _times_pytorch("engine, 8 pairs", _ONE),
    ),
    Goal(
        "cpu",
        "evaluation: 1,000 networks on 1,000 images, end to end",
        15,
        True,
        "s",
        _end_to_end_seconds,
    ),
    Goal("cpu", _COMPILE, 1.2, True, "x", _compilation),
    Goal("cpu", "warm start to the first step", 3, True, "s", _warm_start),
    Goal("gpu", "zoo: all 4,498 networks in float32", 12, True, "s", _whole_zoo("float32")),
    Goal("gpu", "zoo: all 4,498 networks in TF32", 4, True, "s", _whole_zoo("TF32")),
    Goal(
        "gpu",
        "zoo: engine over a PyTorch loop",
        100,
        False,
        "x",
        _ratio("zoo", "engine", rows.GPU, _TORCH),
    ),
    Goal(
        "gpu",
        "zoo: engine over torch.func.vmap",
        20,
        False,
        "x",
        _ratio("zoo", "engine", rows.GPU, _MAPPED),
    ),
    Goal(
        "gpu",
        "zoo: engine over the first-written vmap",
        10,
        False,
        "x",
        _ratio("zoo", "engine", rows.GPU, _FIRST),
    ),
    Goal(
        "gpu",
        "translators: a step of 64 pairs over one of 1",
        3,
        True,
        "x",
        _many_pairs("engine, 1 pair", "engine, 64 pairs", 64),
    ),
    Goal("gpu", "evaluation: 1,749 networks on 1,000 images", 0.1, True, "s", _evaluation_seconds),
    Goal(
        "gpu",
        "evaluation: engine over a PyTorch loop",
        200,
        False,
        "x",
        _ratio("evaluation", f"engine, {EVALUATED:,} networks", rows.GPU, _TORCH),
    ),
    Goal("gpu", _COMPILE, 1.2, True, "x", _compilation),
    Goal("gpu", "warm start to the first step", 3, True, "s", _warm_start),
)


def judge(suite: str, found: Sequence[Row]) -> list[dict[str, Any]]:
    """All goals of a suite."""
    return [goal.judge(found) for goal in GOALS if goal.suite == suite]
