"""Many networks on the same images: the engine's forward pass, PyTorch's loop, and what the host computes.

The loop has fewer networks, one after the other; times are of one network on all images.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from benchmarks import check, contest, rows, torch_loops, zoo
from benchmarks.contest import Contender, LeftOutError, Prepared
from benchmarks.rows import Row
from benchmarks.stopwatch import Work
from benchmarks.suite import Settings
from kernelgan import models, parallel
from kernelgan.evaluation import bootstrap, clustering, features, similarity
from kernelgan.types import Params

FORWARD_MFLOP = 1.187
"""Of one image through one network."""

CLUSTERED = 480
"""Images that K-means clusters and UMAP embeds."""

WITH_FEATURES = 64
"""Networks at a time where their features are brought back: 0.1 GB."""

LARGEST_CHUNK = {"cpu": 64, "gpu": 1749}
BASELINES = {"x PyTorch loop": "PyTorch loop"}


def make_networks(count: int) -> Params:
    """Untrained, stacked."""
    keys = jax.random.split(jax.random.key(0), count)
    make = jax.jit(jax.vmap(lambda key: models.initialise_convnet(models.ConvNet(), zoo.IMAGE_SIZE, key)))
    return jax.device_get(make(keys))


def make_pictures(count: int) -> np.ndarray:
    """Uint8 noise."""
    shape = (count, zoo.IMAGE_SIZE, zoo.IMAGE_SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@jax.jit
def _reference(params: Params, images: jax.Array) -> jax.Array:
    return zoo.PlainNet().apply({"params": params}, models.normalise_images(images))  # type: ignore[return-value]


def logits_error(found: np.ndarray, params: Params, pictures: np.ndarray) -> float:
    """Of the first, the last and two more networks' logits ``(M, N, K)``, against the plain network's."""
    members = np.unique(np.linspace(0, len(found) - 1, zoo.CHECKED).astype(int))
    expected = [_reference(check.member_of(params, m), pictures) for m in members]
    return check.relative_error(found[members], np.stack(jax.device_get(expected)))


def engine(settings: Settings, count: int, with_features: bool) -> Prepared:
    """`features.population_outputs`, whose results are numpy arrays on the host."""
    params, pictures = make_networks(count), make_pictures(settings.images)
    chunk = min(count, LARGEST_CHUNK[settings.suite])

    def outputs() -> np.ndarray:
        parts = features.population_outputs(
            models.ConvNet(), params, pictures, chunk_size=chunk, features=with_features
        )
        return np.concatenate([logits for _, logits, _ in parts])

    def run(times: int) -> None:
        for _ in range(times):
            outputs()

    begin = time.perf_counter()
    few = jax.tree.map(lambda leaf: leaf[: len(parallel.chunks(count, chunk)[0])], params)
    for _ in features.population_outputs(
        models.ConvNet(), few, pictures, chunk_size=chunk, features=with_features
    ):
        pass
    first = time.perf_counter() - begin  # compilation and one chunk
    work = Work("", run, count)
    prepared = Prepared(work, None, details={"networks": count, "images": settings.images})

    def error() -> float:
        begin = time.perf_counter()
        found = outputs()
        taken = time.perf_counter() - begin
        prepared.compile_s = max(0.0, first - taken * chunk / count)
        if taken > 4 * settings.lap:  # too slow to be run again only to see how slow
            work.seconds = taken
        return logits_error(found, params, pictures)

    prepared.check = error
    return prepared


def end_to_end(settings: Settings, count: int) -> Prepared:
    """What a run does for each network: outputs, cosines, K-means and scores with their intervals."""
    params, pictures = make_networks(count), make_pictures(settings.images)
    chunk = min(count, WITH_FEATURES)
    quadrant = np.arange(settings.images) % 4
    few = slice(min(CLUSTERED, settings.images))

    def evaluate(some: Params) -> tuple[dict[str, float], np.ndarray]:
        taken = dict.fromkeys(("forward", "cosines", "K-means", "scores"), 0.0)

        @contextlib.contextmanager
        def timed(part: str) -> Iterator[None]:
            begin = time.perf_counter()
            yield
            taken[part] += time.perf_counter() - begin

        parts = features.population_outputs(models.ConvNet(), some, pictures, chunk_size=chunk)
        answers = []
        while True:
            with timed("forward"):
                part = next(parts, None)
            if part is None:
                break
            _, logits, values = part
            assert values is not None
            answers.append(logits)
            with timed("cosines"):
                similarity.cosine_similarity(values, quadrant)
            with timed("K-means"):
                clustering.kmeans_many(values[:, few], quadrant[few], seed=0)
        found = np.concatenate(answers)
        with timed("scores"):
            scores, threshold = features.score(found)
            bootstrap.score_intervals(scores, quadrant, threshold=threshold)
        return taken, found

    def run(times: int) -> None:
        for _ in range(times):
            prepared.details["seconds_of"] = evaluate(params)[0]

    prepared = Prepared(Work("", run, count), details={"networks": count, "images": settings.images})
    begin = time.perf_counter()
    evaluate(jax.tree.map(lambda leaf: leaf[:chunk], params))
    first = time.perf_counter() - begin  # compilation and one chunk

    def error() -> float:
        taken, found = evaluate(params)
        prepared.work.seconds = sum(taken.values())
        prepared.compile_s = max(0.0, first - prepared.work.seconds * chunk / count)
        return logits_error(found, params, pictures)

    prepared.check = error
    return prepared


def in_torch(settings: Settings, batch: int) -> Prepared:
    """PyTorch, one network after the other, gradients off."""
    if reason := torch_loops.missing():
        raise LeftOutError(reason)
    params, pictures = make_networks(settings.looped), make_pictures(settings.images)
    outputs = torch_loops.evaluate(params, pictures, batch)

    def run(times: int) -> None:
        for _ in range(times):
            outputs()

    return Prepared(
        Work("", run, settings.looped),
        None,
        lambda: logits_error(outputs(), params, pictures),
        {"networks": settings.looped, "batch": batch},
    )


def host_work(settings: Settings) -> dict[str, Callable[[], Prepared]]:
    """What is computed on the host from features, a network a unit."""
    count = min(settings.evaluated[0], 32)
    quadrant = np.arange(settings.images) % 4

    @functools.cache
    def stack() -> np.ndarray:
        parts = features.population_outputs(
            models.ConvNet(), make_networks(count), make_pictures(settings.images), chunk_size=count
        )
        return np.concatenate([values for _, _, values in parts if values is not None])

    def prepared(work: Callable[[], object], units: int) -> Prepared:
        def run(times: int) -> None:
            for _ in range(times):
                work()

        return Prepared(Work("", run, units))

    def cluster() -> Prepared:
        if importlib.util.find_spec("umap") is None:
            raise LeftOutError("umap-learn is not installed")
        images = min(CLUSTERED, settings.images)

        def work() -> None:
            found = stack()[0, :images]
            clustering.cluster(
                found, quadrant[:images], seed=0, neighbours=15, radius=0.5, minimum_samples=5, nu=0.1
            )

        return prepared(work, 1)

    def similar() -> Prepared:
        return prepared(lambda: similarity.cosine_similarity(stack(), quadrant), count)

    def kmeans() -> Prepared:
        few = slice(min(CLUSTERED, settings.images))
        return prepared(
            lambda: clustering.kmeans_many(stack()[:, few], quadrant[few], seed=0),
            count,
        )

    def scores() -> Prepared:
        return prepared(lambda: bootstrap.score_intervals(stack()[..., 0], quadrant, threshold=0.0), count)

    return {
        "cosine similarity": similar,
        f"K-means, raw features, {CLUSTERED} images": kmeans,
        "scores, 1,000 resamples": scores,
        f"UMAP and clusterers, {CLUSTERED} images": cluster,
    }


def engine_name(count: int) -> str:
    """Of the row with logits alone."""
    return f"engine, {count:,} networks"


def end_to_end_name(count: int) -> str:
    """Of the row with everything but UMAP."""
    return f"end to end, {count:,} networks"


def measure(settings: Settings, mode: str) -> list[Row]:
    """All rows of a mode; the large population and the host's work are not measured on one core."""
    everything = mode != rows.ONE_CORE
    gflop, unit = FORWARD_MFLOP * settings.images / 1e3, f"network, {settings.images:,} images"
    small, *large = settings.evaluated
    ways: dict[str, Callable[[], Prepared]] = {
        engine_name(small): functools.partial(engine, settings, small, False),
        engine_name(small) + " and features": functools.partial(engine, settings, small, True),
    }
    for count in large if everything else ():
        ways[engine_name(count)] = functools.partial(engine, settings, count, False)
    for batch in sorted({min(128, settings.images), settings.images}):
        ways[f"PyTorch loop, batch {batch:,}"] = functools.partial(in_torch, settings, batch)
    contenders = [Contender(name, way, unit, gflop, check.FLOAT32_TOLERANCE) for name, way in ways.items()]
    if everything:
        count = settings.evaluated[-1]
        whole = functools.partial(end_to_end, settings, count)
        contenders += [
            Contender(end_to_end_name(count), whole, "network", None, check.FLOAT32_TOLERANCE),
            *(
                Contender(name, way, "network", None, check.FLOAT32_TOLERANCE)
                for name, way in host_work(settings).items()
            ),
        ]
    found = contest.hold(
        "evaluation",
        mode,
        contenders,
        rounds=settings.rounds,
        lap=settings.lap,
        matrix=settings.matrix,
    )
    rows.compare([row for row in found if row.gflop], BASELINES)
    return found
