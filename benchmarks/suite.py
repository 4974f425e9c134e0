"""What is measured, at which size, and in which processes. Nothing here imports JAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks import rows

SUITES = ("cpu", "gpu")
SECTIONS = ("limit", "zoo", "translators", "evaluation", "growth", "start")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of a suite.

    Attributes:
      suite: one of `SUITES`.
      quick: whether everything is so small that its figures mean nothing.
      rounds: laps of each contender.
      lap: seconds that a lap should take.
      matrix: side of the matrices whose product is the limit.
      batch: images of a zoo's batch.
      pictures: images of the engine's data set.
      steps: of the engine's epoch.
      networks: for the zoo's kinds of variants: "many" of the fast ones, "few" of those that take one network
        after the other, "side" of the slow ones that take them side by side.
      pairs: of the translators' rows; the first is what a loop is compared with.
      translator_batch: kernel sets of each domain, all of which make a batch.
      translator_steps: of a call.
      hidden: channels of generators and discriminators.
      evaluated: networks of the evaluation's rows; the last is the large one.
      looped: networks of the evaluation's PyTorch loop and of its check.
      images: that networks are evaluated on.
      growth: for each quantity, the sizes at which seconds and memory are taken.
      growth_batch: images of a batch there; a GPU's memory must hold the most models at once.
      compiled: numbers of models whose compilation is compared.
      compile_rounds: how often.
      warm_starts: how many.
    """

    suite: str
    quick: bool
    rounds: int
    lap: float
    matrix: int
    batch: int
    pictures: int
    steps: int
    networks: dict[str, int]
    pairs: tuple[int, ...]
    translator_batch: int
    translator_steps: int
    hidden: int
    evaluated: tuple[int, ...]
    looped: int
    images: int
    growth: dict[str, tuple[int, ...]]
    growth_batch: int
    compiled: tuple[int, int]
    compile_rounds: int
    warm_starts: int


CPU = Settings(
    suite="cpu",
    quick=False,
    rounds=5,
    lap=0.3,
    matrix=2048,
    batch=128,
    pictures=2048,
    steps=6,
    networks={"many": 8, "few": 4, "side": 4},
    pairs=(1, 8),
    translator_batch=16,
    translator_steps=1,
    hidden=64,
    evaluated=(64, 1000),
    looped=16,
    images=1000,
    growth={
        "models": (32, 128, 512, 2048),
        "pairs": (1, 2, 4, 8),
        "images": (1024, 4096, 16384, 65536),
        "chunk size": (16, 32, 64, 128),
    },
    growth_batch=32,
    compiled=(32, 2048),
    compile_rounds=3,
    warm_starts=3,
)

GPU = dataclasses.replace(
    CPU,
    suite="gpu",
    lap=0.3,
    matrix=8192,
    steps=20,
    networks={"many": 512, "few": 16, "side": 128},
    pairs=(1, 64),
    translator_steps=20,
    evaluated=(256, 1749),
    looped=64,
    growth={
        "models": (32, 128, 512, 2048),
        "pairs": (1, 4, 16, 64),
        "images": (1024, 4096, 16384, 65536),
        "chunk size": (64, 128, 256, 512),
    },
)

_QUICK: dict[str, Any] = {
    "quick": True,
    "rounds": 2,
    "lap": 0.02,
    "matrix": 128,
    "batch": 16,
    "pictures": 64,
    "steps": 1,
    "networks": {"many": 2, "few": 1, "side": 2},
    "pairs": (1, 2),
    "translator_batch": 2,
    "translator_steps": 1,
    "hidden": 4,
    "evaluated": (2, 4),
    "looped": 2,
    "images": 32,
    "growth": {"models": (2, 4), "pairs": (2,), "images": (64,), "chunk size": (2,)},
    "growth_batch": 8,
    "compiled": (2, 4),
    "compile_rounds": 1,
    "warm_starts": 1,
}


def settings_for(suite: str, *, quick: bool = False, **changes: Any) -> Settings:  # noqa: ANN401
    """A suite's settings, with changes to single ones."""
    settings = {"cpu": CPU, "gpu": GPU}[suite]
    return dataclasses.replace(settings, **((_QUICK if quick else {}) | changes))


@dataclasses.dataclass(frozen=True)
class Job:
    """What one fresh process measures.

    Attributes:
      section: one of `SECTIONS`.
      mode: one of those in `benchmarks.rows`.
      task: what of the section.
      environment: variables that it is started with.
    """

    section: str
    mode: str
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """For progress."""
        task = " ".join(str(value) for value in self.task.values())
        return f"{self.section}, {self.mode}{', ' if task else ''}{task}"


def modes(settings: Settings, section: str, cores: int) -> tuple[str, ...]:
    """In which modes a section is measured."""
    if settings.suite == "gpu":
        return (rows.GPU,)
    if section in ("growth", "start"):
        return (rows.DEVICES,)
    if settings.quick:
        return (rows.ALL_CORES,)
    if section == "limit":
        return (rows.ONE_CORE, rows.ALL_CORES)
    if section == "zoo" and cores > 1:
        return (rows.ONE_CORE, rows.ALL_CORES, rows.DEVICES)
    return (rows.ONE_CORE, rows.DEVICES)


def jobs(settings: Settings, section: str, cores: int) -> Iterator[Job]:
    """A section's jobs. Growth takes a process for each point, since a process's peak memory never falls."""
    for mode in modes(settings, section, cores):
        if section == "growth":
            for quantity, points in settings.growth.items():
                for point in points:
                    yield Job(section, mode, {"quantity": quantity, "size": point})
            yield Job(section, mode, {"quantity": "compilation"})
        elif section == "start":  # its processes are told apart by what their cache holds
            for start in ["cold", *["warm"] * settings.warm_starts]:
                yield Job(section, mode, {"start": start})
        else:
            yield Job(section, mode)


def environment(settings: Settings, mode: str, cores: int) -> dict[str, str]:
    """Variables that a job's process is started with, before any library starts its threads.

    Compilation is measured, so JAX's persistent cache is off but for `start`.
    """
    suite = settings.suite
    threads = "1" if mode == rows.ONE_CORE else str(cores)
    found = {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    found["JAX_PLATFORMS"] = "cpu" if suite == "cpu" else "cuda"
    found["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    if mode == rows.DEVICES:
        found["JAX_NUM_CPU_DEVICES"] = str(cores)
    if settings.quick:  # nearly all of its time is XLA's compilation
        found["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if suite == "gpu":  # the rest is PyTorch's
        found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.7"
    return found
