"""The table of everything that is measured, at which size and in which processes. Nothing here imports JAX."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

SUITES = ("cpu", "gpu")
SECTIONS = ("zoo", "translators", "compose", "evaluation", "growth", "start")

ONE_CORE, ALL_CORES, GPU = "one core", "all cores", "gpu"
"""Modes: one pinned core, compared by CPU time; all cores, each a JAX device, by the clock; a GPU, likewise."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a suite.

    Attributes:
      suite: one of `SUITES`.
      quick: whether everything is so small that the figures mean nothing.
      rounds: laps of each case.
      lap: seconds that a lap should take.
      matrix: side of the matrices whose product is the limit.
      batch: images of a zoo's batch.
      pictures: images of the zoo's data set.
      steps: of a zoo's epoch.
      many: networks of the zoo's fast cases.
      few: networks of those that take one network after the other.
      side: networks of the slow cases that take them side by side.
      pairs: few and many pairs of zoos, whose translators are trained.
      parents: of each zoo of a pair; all of them make a batch.
      translator_steps: of a call.
      hidden: channels of generators and discriminators.
      composed: few and many pairs, for which networks are composed.
      evaluated: few and many networks that are evaluated.
      looped: networks of the evaluation's PyTorch loop.
      end_to_end: networks that are evaluated with everything but UMAP.
      images: that networks are evaluated on.
      growth: sizes at which seconds, memory and compilation are taken, by what grows.
      growth_batch: images of a batch there.
      compiled: few and many networks, whose compilation is compared.
      compile_rounds: how often.
      starts: processes of each kind of start.
    """

    suite: str = "cpu"
    quick: bool = False
    rounds: int = 5
    lap: float = 0.3
    matrix: int = 2048
    batch: int = 128
    pictures: int = 2048
    steps: int = 6
    many: int = 8
    few: int = 4
    side: int = 4
    pairs: tuple[int, int] = (1, 8)
    parents: int = 16
    translator_steps: int = 1
    hidden: int = 64
    composed: tuple[int, int] = (1, 55)
    evaluated: tuple[int, int] = (64, 1000)
    looped: int = 16
    end_to_end: int = 1000
    images: int = 1000
    growth: dict[str, tuple[int, ...]] = dataclasses.field(
        default_factory=lambda: {"models": (32, 128, 512, 2048), "pairs": (1, 2, 4, 8)}
    )
    growth_batch: int = 32
    compiled: tuple[int, int] = (32, 2048)
    compile_rounds: int = 3
    starts: int = 3


_GPU: dict[str, Any] = {
    "suite": "gpu",
    "matrix": 8192,
    "steps": 20,
    "many": 512,
    "few": 16,
    "side": 128,
    "pairs": (1, 64),
    "translator_steps": 20,
    "evaluated": (256, 1749),
    "looped": 64,
    "growth": {"models": (32, 128, 512, 2048, 4498), "pairs": (1, 4, 16, 64)},
    "growth_batch": 128,
}

_QUICK: dict[str, Any] = {
    "quick": True,
    "rounds": 2,
    "lap": 0.02,
    "matrix": 128,
    "batch": 16,
    "pictures": 64,
    "steps": 1,
    "many": 2,
    "few": 1,
    "side": 2,
    "pairs": (1, 2),
    "parents": 2,
    "translator_steps": 1,
    "hidden": 4,
    "composed": (1, 2),
    "evaluated": (2, 4),
    "looped": 2,
    "end_to_end": 3,
    "images": 32,
    "growth": {"models": (2, 4), "pairs": (2,)},
    "growth_batch": 8,
    "compiled": (2, 4),
    "compile_rounds": 1,
    "starts": 1,
}


def settings_for(suite: str, *, quick: bool = False, **changes: Any) -> Settings:  # noqa: ANN401
    """A suite's settings, with changes to some of them."""
    return Settings(**({"cpu": {}, "gpu": _GPU}[suite] | (_QUICK if quick else {}) | changes))


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the tables.

    Attributes:
      section: one of `SECTIONS`.
      name: in the table.
      make: ``module:function`` of this package; ``(settings, **options) -> stopwatch.Prepared``.
      options: of that function.
      unit: what the milliseconds are of.
      modes: in which it is measured.
      gflop: arithmetic of a unit, counted by hand.
      precision: of its products.
      alone: whether it has processes of its own; their peak memory is noted.
      processes: how many.
      environment: variables that these are started with.
    """

    section: str
    name: str
    make: str
    options: dict[str, Any]
    unit: str
    modes: tuple[str, ...] = (ONE_CORE, ALL_CORES, GPU)
    gflop: float | None = None
    precision: str = "float32"
    alone: bool = False
    processes: int = 1
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


ZOO_MFLOP = 2.856
"""Of one image through one network and back, without the gradient to the image: 352,800 + 240,000 + 800
multiply-adds forward, and twice that back but for the first layer's once."""

TRANSLATORS_MFLOP = 38.1 + 208.7
"""Of one pair of kernel sets in one step of both layers, with 64 hidden channels and no identity loss: 57 and
290 less the products with the zeros around a volume, of which 0.668 and 0.720 are left."""

FORWARD_MFLOP = 1.187
"""Of one image through one network."""


def cases(settings: Settings) -> list[Case]:
    """All of them, in the order of the tables."""
    return [*_zoo(settings), *_pairs(settings), *_evaluation(settings), *_growth(settings), *_start(settings)]


def of_process(settings: Settings, section: str, mode: str, name: str) -> list[Case]:
    """What one process measures: a case that is alone, or without a name all others of a section and mode."""
    chosen = [case for case in cases(settings) if case.section == section and mode in case.modes]
    return [case for case in chosen if (case.name == name if name else not case.alone)]


def _zoo(s: Settings) -> list[Case]:
    case = functools.partial(Case, "zoo", unit="network and step", gflop=ZOO_MFLOP * s.batch / 1e3)
    slow, tf32 = (ONE_CORE, GPU), {"modes": (GPU,), "precision": "TF32"}
    many, few, side = {"networks": s.many}, {"networks": s.few}, {"networks": s.side}
    return [
        case("engine", "zoo:engine", many),
        case("engine, tiles form", "zoo:engine", many | {"form": "tiles"}),
        case("engine, TF32", "zoo:engine", many | {"form": "tiles", "in_tf32": True}, **tf32),
        case("PyTorch loop", "zoo:torch_loop", few | {"channels_last": False}),
        case("PyTorch loop, channels last", "zoo:torch_loop", few | {"channels_last": True}),
        case("torch.func.vmap", "zoo:torch_vmap", side, modes=slow),
        case("first-written vmap", "zoo:first_vmap", side, modes=slow),
        case("first-written vmap, TF32", "zoo:first_vmap", side | {"in_tf32": True}, **tf32),
    ]


def count(number: int, noun: str) -> str:
    """Such as ``1 pair``, ``1,749 networks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _pairs(s: Settings) -> list[Case]:
    gflop = TRANSLATORS_MFLOP * s.parents * s.hidden / 64 / 1e3
    train = functools.partial(Case, "translators", unit="pair and step of both layers", gflop=gflop)
    compose = functools.partial(Case, "compose", unit="network")
    return [
        *(train(f"engine, {count(n, 'pair')}", "translators:engine", {"pairs": n}) for n in s.pairs),
        train("PyTorch loop", "translators:torch_loop", {}),
        *(compose(f"cyclegan, {count(n, 'pair')}", "translators:compose", {"pairs": n}) for n in s.composed),
        compose("weights matched, averaged, 1 pair", "translators:merge", {}),
    ]


def _evaluation(s: Settings) -> list[Case]:
    unit, gflop = f"network, {s.images:,} images", FORWARD_MFLOP * s.images / 1e3
    case = functools.partial(Case, "evaluation", unit=unit, gflop=gflop)
    few, many = s.evaluated
    engine, wide = "evaluation:engine", (ALL_CORES, GPU)
    return [
        case(f"engine, {count(few, 'network')}", engine, {"networks": few}),
        case(f"engine, {count(few, 'network')} and features", engine, {"networks": few, "features": True}),
        case(f"engine, {count(many, 'network')}", engine, {"networks": many}, modes=wide),
        case("PyTorch loop", "evaluation:torch_loop", {"networks": s.looped}),
        Case(
            "evaluation",
            f"end to end, {count(s.end_to_end, 'network')}",
            "evaluation:end_to_end",
            {"networks": s.end_to_end},
            "network",
            wide,
        ),
    ]


def _growth(s: Settings) -> list[Case]:
    case = functools.partial(Case, "growth", modes=(ALL_CORES, GPU))
    step = functools.partial(case, unit="step of all", alone=True)
    alone = {"steps": 1, "checked": False}
    of_zoo = alone | {"batch": s.growth_batch}
    return [
        *(step(count(n, "model"), "zoo:engine", of_zoo | {"networks": n}) for n in s.growth["models"]),
        *(step(count(n, "pair"), "translators:engine", alone | {"pairs": n}) for n in s.growth["pairs"]),
        *(
            case(f"compilation, {count(n, 'model')}", "zoo:compilation", {"networks": n}, unit="compilation")
            for n in s.compiled
        ),
    ]


def _start(s: Settings) -> list[Case]:
    case = functools.partial(Case, "start", unit="start", modes=(ALL_CORES, GPU), alone=True)
    keep = {"JAX_ENABLE_COMPILATION_CACHE": "true"}
    return [
        case("cold", "start:first_step", {}, environment=keep),
        case("warm", "start:first_step", {}, environment=keep, processes=s.starts),
        case("launch.py --help", "start:show_help", {}, processes=s.starts),
    ]


def environment(settings: Settings, mode: str, cores: int) -> dict[str, str]:
    """Variables that a process is started with, before any library starts its threads.

    Compilation is measured, so JAX's persistent cache is off but for starts.
    """
    threads = "1" if mode == ONE_CORE else str(cores)
    found = {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    found["JAX_PLATFORMS"] = "cpu" if settings.suite == "cpu" else "cuda"
    found["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    found["JAX_NUM_CPU_DEVICES"] = "1" if mode == ONE_CORE else str(cores)
    if settings.quick:  # nearly all of its time is XLA's compilation
        found["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if settings.suite == "gpu":  # the rest is PyTorch's
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.7"
    return found
