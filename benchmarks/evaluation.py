"""Many networks on the same images: the engine's forward pass, PyTorch's loop, and all that a run computes."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from benchmarks import check, zoo
from benchmarks.cases import Settings
from benchmarks.stopwatch import Compilations, Prepared
from kernelgan import models
from kernelgan.evaluate import bootstrap, clustering, features, similarity
from kernelgan.types import Params

CLUSTERED = 480
"""Images that K-means clusters."""

LARGEST_CHUNK = {"cpu": 64, "gpu": 1749}
WITH_FEATURES = 64
"""Networks at a time where their features are brought back: 0.1 GB."""


@jax.jit
def _reference(params: Params, images: jax.Array) -> jax.Array:
    return zoo.PlainNet().apply({"params": params}, models.normalise_images(images))  # type: ignore[return-value]


def logits_error(found: np.ndarray, params: Params, pictures: np.ndarray) -> float:
    """Of some networks' logits ``(M, N, K)``, the first and the last among them, against the plain network's."""
    members = np.unique(np.linspace(0, len(found) - 1, zoo.CHECKED).astype(int))
    expected = [_reference(check.member_of(params, m), pictures) for m in members]
    return check.relative_error(found[members], np.stack(jax.device_get(expected)))


def _prepared(answer: Callable[[], np.ndarray], params: Params, pictures: np.ndarray) -> Prepared:
    """Of a function that gives all logits; what it says of its compilation is read off the first call."""

    def run(times: int) -> None:
        for _ in range(times):
            answer()

    heard = Compilations()
    work = Prepared(run, len(params["dense"]["bias"]))

    def error() -> float:
        begin = time.perf_counter()
        found = answer()
        work.compile_s = heard.seconds
        taken = time.perf_counter() - begin - heard.seconds
        if taken > 1:  # too slow to be run twice only to see how slow
            work.seconds = taken
        return logits_error(found, params, pictures)

    work.check = error
    return work


def engine(settings: Settings, *, networks: int, features: bool = False) -> Prepared:
    """`features.population_outputs`, whose results are numpy arrays on the host."""
    params, pictures = zoo.make_networks(networks), zoo.make_pictures(settings.images)
    chunk = min(networks, WITH_FEATURES if features else LARGEST_CHUNK[settings.suite])

    def outputs() -> np.ndarray:
        parts = _outputs(params, pictures, chunk_size=chunk, features=features)
        return np.concatenate([logits for _, logits, _ in parts])

    return _prepared(outputs, params, pictures)


_outputs = functools.partial(features.population_outputs, models.ConvNet())


def torch_loop(settings: Settings, *, networks: int) -> Prepared:
    """PyTorch, one network after the other, all images a batch, gradients off."""
    from benchmarks import torch_loops

    params, pictures = zoo.make_networks(networks), zoo.make_pictures(settings.images)
    return _prepared(torch_loops.evaluate(params, pictures), params, pictures)


def end_to_end(settings: Settings, *, networks: int) -> Prepared:
    """What a run does for each network: outputs, cosines, K-means and scores with their intervals."""
    params, pictures = zoo.make_networks(networks), zoo.make_pictures(settings.images)
    quadrant = np.arange(settings.images) % 4
    few = slice(min(CLUSTERED, settings.images))

    def evaluate() -> np.ndarray:
        taken = dict.fromkeys(("forward", "cosines", "K-means", "scores"), 0.0)

        @contextlib.contextmanager
        def timed(part: str) -> Iterator[None]:
            begin = time.perf_counter()
            yield
            taken[part] += time.perf_counter() - begin

        parts = _outputs(params, pictures, chunk_size=min(networks, WITH_FEATURES))
        answers = []
        while True:
            with timed("forward"):
                part = next(parts, None)
            if part is None:
                break
            answers.append(part[1])
            with timed("cosines"):
                similarity.cosine_similarity(part[2], quadrant)
            with timed("K-means"):
                clustering.kmeans_many(part[2][:, few], quadrant[few], seed=0)
        logits = np.concatenate(answers)
        with timed("scores"):
            scores, threshold = features.score(logits)
            bootstrap.score_intervals(scores, quadrant, threshold=threshold)
        work.details["seconds_of"] = taken
        return logits

    work = _prepared(evaluate, params, pictures)
    return work
