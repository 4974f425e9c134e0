"""How long does one unit of work of each stage take, compilation apart?

    python -m benchmarks.stages [--models 64] [--repeats 5] [--json FILE]

Runs on whatever device JAX finds, on random data. The first call of a program is compilation and one unit of
work; steady state is the median of the calls after it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelgan import cyclegan, environment, models, population
from kernelgan.evaluate import bootstrap, clustering, features, similarity
from kernelgan.types import Params

FORWARD_BACKWARD_MFLOP = 2.856
"""Of one image through one network and back, without the gradient to the image: 352,800 + 240,000 + 800
multiply-adds forward, and twice that back but for the first layer's once."""
FORWARD_MFLOP = 1.187
CYCLEGAN_MFLOP = {"conv1": 57.0, "conv2": 290.0}
"""Of one pair of kernel sets in one step."""
BATCH = 128
STEPS = 10


class NoSaver:
    """A benchmark keeps nothing."""

    last_good = "none"

    def restore(self) -> None:
        """Nothing to go on from."""

    def save(self, make_tree: Callable[[], dict[str, Any]], step: int) -> None:
        """Nothing is kept."""


class Clock:
    """Seconds between calls: the first is compilation and a unit of work, the others are work."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: list[float] = []

    def __call__(self, *_: object) -> None:
        """Ends a lap."""
        now = time.perf_counter()
        self.laps.append(now - self._last)
        self._last = now

    @property
    def steady(self) -> float:
        """Median of the laps after the first."""
        return statistics.median(self.laps[1:])

    @property
    def compilation(self) -> float:
        """What the first lap took longer."""
        return max(0.0, self.laps[0] - self.steady)


def time_zoo(count: int, repeats: int) -> dict[str, Any]:
    """Epochs of a population of ``count`` networks."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)
    halves = (np.arange(1024, dtype=np.int32), np.arange(1024, 2048, dtype=np.int32))
    zeros = np.zeros(count, np.int32)
    members = population.Population(
        name=("benchmark",) * count,
        index=np.arange(count, dtype=np.int32),
        grouping=zeros,
        target=zeros,
        groups=(halves,),
        validation=((np.zeros(0, np.int32),),),
        targets=(np.arange(2048)[None] < 1024).astype(np.int8),
    )
    clock = Clock()
    population.train(
        models.ConvNet(),
        images,
        members,
        population.Training(repeats + 1, STEPS * BATCH, BATCH, 1e-3, (1.0, 1.0)),
        loss=population.cross_entropy,
        metrics=population.binary_metrics,
        seed=0,
        chunk_size=count,
        saver=NoSaver(),
        progress=clock,
    )
    flop = FORWARD_BACKWARD_MFLOP * 1e6 * BATCH * STEPS * count
    return _row("zoo training", clock, count * STEPS, f"network and step, batch {BATCH}", flop)


def time_cyclegan(count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Steps of the translators of both layers, for 1 and for 8 pairs."""
    rng = np.random.default_rng(0)
    shapes = {"conv1": (6, 5, 5, 3), "conv2": (16, 5, 5, 6)}
    batch = min(16, count)
    for pairs in (1, 8):
        volumes = {
            layer: (
                rng.uniform(-1, 1, (pairs, count, *shape)).astype(np.float32),
                rng.uniform(-1, 1, (pairs, count, *shape)).astype(np.float32),
            )
            for layer, shape in shapes.items()
        }
        steps_an_epoch = -(-count // batch)
        clock = Clock()
        cyclegan.train(
            volumes,
            dict.fromkeys(shapes, cyclegan.Translation((repeats + 1) * STEPS // steps_an_epoch, batch, 2e-4)),
            pairs=tuple(range(pairs)),
            hidden=64,
            cycle=10.0,
            identity=0.0,
            steps_per_call=STEPS,
            seed=0,
            saver=NoSaver(),
            progress=clock,
        )
        flop = sum(CYCLEGAN_MFLOP.values()) * 1e6 * batch * STEPS * pairs
        yield _row(f"CycleGAN, {pairs} pair(s)", clock, STEPS, f"step of both layers, batch {batch}", flop)


def time_evaluation(count: int, repeats: int, images: int = 1024) -> Iterator[dict[str, Any]]:
    """The forward pass of ``count`` networks on the same images, then what is measured on the features."""
    rng = np.random.default_rng(0)
    network = models.ConvNet()
    keys = jax.random.split(jax.random.key(0), count)
    initialise = jax.vmap(lambda key: models.initialise_convnet(network, 32, key))
    params: Params = jax.device_get(initialise(keys))
    pictures = rng.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    quadrant = np.arange(images) % 4
    found: list[np.ndarray] = []

    def forward() -> None:
        parts = features.population_outputs(network, params, pictures, chunk_size=count)
        found[:] = [values for _, _, values in parts if values is not None]

    flop = FORWARD_MFLOP * 1e6 * images * count
    yield _row("forward pass", _timed(forward, repeats), count, f"network, {images} images", flop)
    stack = np.concatenate(found)
    for name, work, units, unit in (
        ("cosine similarity", lambda: similarity.cosine_similarity(stack, quadrant), count, "network"),
        ("K-means, raw features", lambda: clustering.kmeans_many(stack, quadrant, seed=0), count, "network"),
        (
            "scores, 1,000 resamples",
            lambda: bootstrap.score_intervals(stack[..., 0], quadrant, threshold=0.0),
            count,
            "network",
        ),
        ("UMAP and clusterers, 480 images", lambda: _cluster(stack[0, :480], quadrant[:480]), 1, "network"),
    ):
        yield _row(name, _timed(work, repeats), units, unit)


def _cluster(found: np.ndarray, quadrant: np.ndarray) -> None:
    clustering.cluster(found, quadrant, seed=0, neighbours=15, radius=0.5, minimum_samples=5, nu=0.1)


def _timed(work: Callable[[], object], repeats: int) -> Clock:
    clock = Clock()
    for _ in range(repeats + 1):
        work()
        clock()
    return clock


def _row(stage: str, clock: Clock, units: int, unit: str, flop: float | None = None) -> dict[str, Any]:
    return {
        "stage": stage,
        "first_call_extra_s": clock.compilation,
        "ms_per_unit": 1e3 * clock.steady / units,
        "unit": unit,
        "gflop_per_s": None if flop is None else flop / clock.steady / 1e9,
    }


def measure(count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """All rows, each as soon as it is measured."""
    yield time_zoo(count, repeats)
    yield from time_cyclegan(count, repeats)
    yield from time_evaluation(count, repeats)


def main() -> None:
    """Prints the table, and writes it as JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=64, help="networks of the population")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls after the first")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    print(f"{environment.device_words()}, float32; {environment.versions()}")
    print(f"{'stage':34s}{'first call +':>13s}{'ms a unit':>12s}{'GFLOP/s':>9s}  unit")
    rows = []
    for row in measure(options.models, options.repeats):
        rows.append(row)
        rate = "-" if row["gflop_per_s"] is None else f"{row['gflop_per_s']:.0f}"
        print(
            f"{row['stage']:34s}{row['first_call_extra_s']:11.1f} s{row['ms_per_unit']:12.3f}{rate:>9s}"
            f"  {row['unit']}",
            flush=True,
        )
    if options.json:
        document = {"device": environment.device_words(), "versions": environment.versions(), "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
