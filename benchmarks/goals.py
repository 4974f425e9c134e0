"""What is to be reached, and whether the figures of this run reach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import stopwatch
from benchmarks.cases import ALL_CORES, GPU, ONE_CORE
from benchmarks.rows import Row, columns, figure

MET, MISSED, NOT_MEASURED = "met", "MISSED", "not measured"

Figure = Callable[[Sequence[Row]], float | None]
"""Reads a figure off the rows; None if they lack it."""


def find(found: Sequence[Row], section: str, name: str, mode: str) -> Row | None:
    """The row of that name, if it is right and has times."""
    rows = [row for row in found if (row.section, row.name, row.mode) == (section, name, mode)]
    return next((row for row in rows if row.ms), None)


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
        ratio = None if row is None or other is None else stopwatch.ratio(row.rounds, other.rounds)
        return None if ratio is None else ratio * times

    return value


def _whole_zoo(precision: str) -> Figure:
    """By the engine's fastest row of this precision."""

    def value(found: Sequence[Row]) -> float | None:
        rows = [row for row in found if (row.mode, row.precision) == (GPU, precision)]
        seconds = [row.whole_zoo_s for row in rows if row.name.startswith("engine")]
        return min(filter(None, seconds), default=None)

    return value


def _of_any(mode: str) -> list[tuple[str, Figure, str, float, str]]:
    compilation = _over("growth", "compilation, 2,048 models", "compilation, 32 models", mode)
    return [
        ("compilation of 2,048 models over that of 32", compilation, "at most", 1.2, "x"),
        ("warm start to the first step", _ms("start", "warm", mode, 1e-3), "at most", 2, "s"),
        ("--help", _ms("start", "launch.py --help", mode, 1e-3), "at most", 2, "s"),
    ]


_engine_on = {mode: lambda ratio, mode=mode: _ratio("zoo", "engine", mode, ratio) for mode in (ONE_CORE, GPU)}
_pair = _ratio("translators", "engine, 1 pair", ONE_CORE, "x PyTorch")
_learned = _ms("compose", "cyclegan, 55 pairs", ONE_CORE)
_closed_form = _ms("compose", "weights matched, averaged", ONE_CORE)
_pairs = _over("translators", "engine, 64 pairs", "engine, 1 pair", GPU, 64)
_evaluated = _ms("evaluation", "engine, 1,749 networks", GPU, 1.749)

GOALS: dict[str, list[tuple[str, Figure, str, float, str]]] = {
    "cpu": [
        # As fast as before the redesign, which was 2.96 and 2.52 times PyTorch, within 5%.
        ("zoo over a PyTorch loop", _engine_on[ONE_CORE]("x PyTorch"), "at least", 2.8, "x"),
        ("a CycleGAN pair over a PyTorch loop", _pair, "at least", 2.4, "x"),
        ("a composed network, learned", _learned, "at most", 10, "ms"),
        ("a composed network", _closed_form, "at most", 100, "ms"),
        *_of_any(ALL_CORES),
    ],
    "gpu": [
        ("all 4,498 networks in float32", _whole_zoo("float32"), "at most", 12, "s"),
        ("all 4,498 networks in TF32", _whole_zoo("TF32"), "at most", 4, "s"),
        ("zoo over a PyTorch loop", _engine_on[GPU]("x PyTorch"), "at least", 100, "x"),
        ("zoo over torch.func.vmap", _engine_on[GPU]("x torch.vmap"), "at least", 20, "x"),
        ("zoo over the first-written vmap", _engine_on[GPU]("x first vmap"), "at least", 10, "x"),
        ("zoo, the fused kernel over XLA's tiles", _engine_on[GPU]("x tiles"), "at least", 2, "x"),
        ("a CycleGAN step of 64 pairs over one of 1", _pairs, "at most", 3, "x"),
        ("1,749 networks on 1,000 images", _evaluated, "at most", 0.1, "s"),
        *_of_any(GPU),
    ],
}
"""By suite: of what, the figure, ``at most`` or ``at least``, how much, its unit."""


def judge(suite: str, found: Sequence[Row]) -> list[dict[str, Any]]:
    """All goals of a suite, their figures and whether they are met."""
    judged = []
    for words, of_run, bound, target, unit in GOALS[suite]:
        value, verdict = of_run(found), NOT_MEASURED
        if value is not None:
            verdict = MET if (value <= target if bound == "at most" else value >= target) else MISSED
        goal = {"goal": words, "bound": bound, "target": target, "unit": unit}
        judged.append(goal | {"figure": value, "verdict": verdict})
    return judged


def table(judged: Sequence[dict[str, Any]]) -> str:
    """The goals and whether they are met."""
    lines = []
    for goal in judged:
        target, here = (figure(goal[name], f" {goal['unit']}") for name in ("target", "figure"))
        lines.append([goal["goal"], f"{goal['bound']} {target}", here, goal["verdict"]])
    return "== goals " + "=" * 95 + "\n" + columns(["", "goal", "here", ""], lines) + "\n"
