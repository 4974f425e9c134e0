"""The table of everything that is measured, at which size and in which processes. Does not import JAX."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

SUITES = ("cpu", "gpu")
SECTIONS = ("zoo", "translators", "compose", "evaluation", "growth", "start")

ONE_CORE, ALL_CORES, GPU = "one core", "all cores", "gpu"
"""Modes: one pinned core, compared by CPU time; all cores, each a JAX device, and a GPU, by the clock."""

_EVERYWHERE, _WIDE, _SLOW = (ONE_CORE, ALL_CORES, GPU), (ALL_CORES, GPU), (ONE_CORE, GPU)

ZOO_MFLOP = 2.856
"""Of one image through one network and back, without the gradient to the image: 352,800 + 240,000 + 800
multiply-adds forward, and twice that back but for the first layer's once."""

TRANSLATORS_MFLOP = 38.1 + 208.7
"""Of one pair of kernel sets in one step of both layers, with 64 hidden channels and no identity loss: 57 and
290 less the products with the zeros around a volume, of which 0.668 and 0.720 are left."""

FORWARD_MFLOP = 1.187
"""Of one image through one network."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of a run: `rounds` laps of each case, of about `lap` seconds; `matrix`, the side of the limit."""

    suite: str = "cpu"
    quick: bool = False
    rounds: int = 5
    lap: float = 0.3
    matrix: int = 2048

    def size(self, cpu: T, gpu: T, quick: T) -> T:
        """The one of this run."""
        return quick if self.quick else gpu if self.suite == "gpu" else cpu


def settings_for(suite: str, *, quick: bool = False, rounds: int = 0) -> Settings:
    """A suite's settings."""
    if quick:
        return Settings(suite, quick, rounds or 2, lap=0.02, matrix=128)
    return Settings(suite, quick, rounds or 5, matrix=8192 if suite == "gpu" else 2048)


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the tables.

    Attributes:
      section: one of `SECTIONS`.
      name: in the table.
      make: ``module:function`` of this package; ``(**options) -> stopwatch.Prepared``.
      options: of that function.
      unit: what the milliseconds are of.
      modes: in which it is measured.
      gflop: arithmetic of a unit, counted by hand.
      precision: of its products.
      processes: how many it has for itself, whose peak memory is noted; 0: it is timed in turn with others.
    """

    section: str
    name: str
    make: str
    options: dict[str, Any]
    unit: str
    modes: tuple[str, ...] = _EVERYWHERE
    gflop: float | None = None
    precision: str = "float32"
    processes: int = 0


def cases(settings: Settings) -> list[Case]:
    """All of them, in the order of the tables."""
    size = settings.size
    return [*_zoo(size), *_pairs(size), *_evaluation(size), *_growth(size), *_start(size)]


Size = Callable[[T, T, T], T]


def _zoo(size: Size) -> list[Case]:
    batch = size(128, 128, 16)
    case = functools.partial(Case, "zoo", unit="network and step", gflop=ZOO_MFLOP * batch / 1e3)
    tf32 = functools.partial(case, modes=(GPU,), precision="TF32")
    many = {"networks": size(8, 512, 2), "batch": batch, "steps": size(6, 20, 1)}
    few = {"networks": size(4, 16, 1), "batch": batch}
    side = {"networks": size(4, 128, 2), "batch": batch}
    return [
        case("engine", "zoo:engine", many),
        case("engine, tiles form", "zoo:engine", many | {"form": "tiles"}),
        tf32("engine, TF32", "zoo:engine", many | {"form": "tiles", "in_tf32": True}),
        case("PyTorch loop", "zoo:torch_loop", few),
        case("PyTorch loop, channels last", "zoo:torch_loop", few | {"channels_last": True}),
        case("torch.func.vmap", "zoo:torch_vmap", side, modes=_SLOW),
        case("first-written vmap", "zoo:first_vmap", side, modes=_SLOW),
        tf32("first-written vmap, TF32", "zoo:first_vmap", side | {"in_tf32": True}),
    ]


def _pairs(size: Size) -> list[Case]:
    both = {"parents": size(16, 16, 2), "hidden": size(64, 64, 4)}
    gflop = TRANSLATORS_MFLOP * both["parents"] * both["hidden"] / 64 / 1e3
    train = functools.partial(Case, "translators", unit="pair and step of both layers", gflop=gflop)
    compose, many = functools.partial(Case, "compose", unit="network"), size(8, 64, 2)
    engine, steps = "translators:engine", {"steps": size(1, 20, 1)}
    return [
        train("engine, 1 pair", engine, both | steps | {"pairs": 1}),
        train(f"engine, {many} pairs", engine, both | steps | {"pairs": many}),
        train("PyTorch loop", "translators:torch_loop", both),
        compose("cyclegan, 1 pair", "translators:compose", both | {"pairs": 1}),
        compose("cyclegan, 55 pairs", "translators:compose", both | {"pairs": size(55, 55, 2)}),
        compose("weights matched, averaged", "translators:merge", {"parents": both["parents"]}),
    ]


def _evaluation(size: Size) -> list[Case]:
    images, few, many = size(1000, 1000, 32), size(64, 256, 2), size(1000, 1749, 4)
    unit, gflop, engine = f"network, {images:,} images", FORWARD_MFLOP * images / 1e3, "evaluation:engine"
    case = functools.partial(Case, "evaluation", unit=unit, gflop=gflop)
    chunk = {"images": images, "chunk": size(64, 1749, 4)}
    return [
        case(f"engine, {few} networks", engine, chunk | {"networks": few}),
        case(
            f"engine, {few} networks and features", engine, chunk | {"networks": few, "with_features": True}
        ),
        case(f"engine, {many:,} networks", engine, chunk | {"networks": many}, modes=_WIDE),
        case("PyTorch loop", "evaluation:torch_loop", {"images": images, "networks": size(16, 64, 2)}),
    ]


def _growth(size: Size) -> list[Case]:
    step = functools.partial(Case, "growth", unit="step of all", modes=_WIDE, processes=1)
    compiled = functools.partial(Case, "growth", unit="compilation", modes=_WIDE)
    models = size((32, 128, 512, 2048), (32, 512, 2048, 4498), (2, 4))
    zoo = {"batch": size(32, 128, 8), "steps": 1, "checked": False}
    pairs = {"parents": size(16, 16, 2), "hidden": size(64, 64, 4), "steps": 1, "checked": False}
    return [
        *(step(f"{n:,} models", "zoo:engine", zoo | {"networks": n}) for n in models),
        *(
            step(f"{n} pairs", "translators:engine", pairs | {"pairs": n})
            for n in size((2, 4, 8), (4, 16, 64), (2,))
        ),
        *(
            compiled(f"compilation, {n:,} models", "zoo:compilation", {"networks": n})
            for n in size((32, 2048), (32, 2048), (2, 4))
        ),
    ]


def _start(size: Size) -> list[Case]:
    case = functools.partial(Case, "start", unit="start", modes=_WIDE)
    step = {"networks": size(8, 512, 2), "batch": size(128, 128, 16)}
    return [
        case("cold", "start:first_step", step, processes=1),
        case("warm", "start:first_step", step, processes=size(3, 3, 1)),
        case("launch.py --help", "start:show_help", {}, processes=1),
    ]


def environment(settings: Settings, mode: str, section: str, cores: int) -> dict[str, str]:
    """Variables that a process is started with, before any library starts its threads.

    Compilation is measured, so JAX's persistent cache is off but for starts.
    """
    threads = "1" if mode == ONE_CORE else str(cores)
    found = {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    found["JAX_PLATFORMS"] = "cpu" if settings.suite == "cpu" else "cuda"
    found["JAX_ENABLE_COMPILATION_CACHE"] = "true" if section == "start" else "false"
    found["JAX_NUM_CPU_DEVICES"] = threads
    if settings.quick:  # nearly all of its time is XLA's compilation
        found["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if settings.suite == "gpu":  # the rest is PyTorch's
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.7"
    return found
