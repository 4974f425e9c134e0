"""Many networks on the same images: the engine's forward pass, PyTorch's, and all that a run computes."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from benchmarks import check, zoo
from benchmarks.stopwatch import Compilations, Prepared
from kernelgan import models
from kernelgan.evaluate import bootstrap, clustering, features, similarity
from kernelgan.types import Params

CLUSTERED = 480
"""Images that K-means clusters."""

WITH_FEATURES = 64
"""Networks at a time where their features are brought back: 0.1 GB."""


@jax.jit
def _reference(params: Params, images: jax.Array) -> jax.Array:
    return zoo.PlainNet().apply({"params": params}, models.normalise_images(images))  # type: ignore[return-value]


def logits_error(found: np.ndarray, params: Params, pictures: np.ndarray) -> float:
    """Of some networks' logits ``(M, N, K)``, first and last among them, against the plain network's."""
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
        found = answer()
        work.compile_s = heard.seconds
        return logits_error(found, params, pictures)

    work.check = error
    return work


def engine(networks: int, images: int, chunk: int, *, with_features: bool = False) -> Prepared:
    """`features.population_outputs`, whose results are numpy arrays on the host."""
    params, pictures = zoo.make_networks(networks), zoo.make_pictures(images)
    chunk = min(networks, WITH_FEATURES if with_features else chunk)

    def outputs() -> np.ndarray:
        parts = _outputs(params, pictures, chunk_size=chunk, features=with_features)
        return np.concatenate([logits for _, logits, _ in parts])

    return _prepared(outputs, params, pictures)


_outputs = functools.partial(features.population_outputs, models.ConvNet())


def torch_loop(networks: int, images: int) -> Prepared:
    """PyTorch, one network after the other, all images a batch, gradients off."""
    from benchmarks import torch_loops

    params, pictures = zoo.make_networks(networks), zoo.make_pictures(images)
    return _prepared(torch_loops.evaluate(params, pictures), params, pictures)


def end_to_end(networks: int, images: int) -> Prepared:
    """What a run does for each network: outputs, cosines, K-means and scores with their intervals."""
    params, pictures = zoo.make_networks(networks), zoo.make_pictures(images)
    quadrant = np.arange(images) % 4
    few = slice(min(CLUSTERED, images))

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
            _, logits, values = part
            assert values is not None
            answers.append(logits)
            with timed("cosines"):
                similarity.cosine_similarity(values, quadrant)
            with timed("K-means"):
                clustering.kmeans_many(values[:, few], quadrant[few], seed=0)
        logits = np.concatenate(answers)
        with timed("scores"):
            scores, threshold = features.score(logits)
            bootstrap.score_intervals(scores, quadrant, threshold=threshold)
        work.details["seconds_of"] = taken
        return logits

    work = _prepared(evaluate, params, pictures)
    work.single = True
    return work
