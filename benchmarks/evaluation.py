"""Many networks on the same images: the engine's forward pass and PyTorch's."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import check, zoo
from benchmarks.stopwatch import Compilations, Prepared
from kernelgan import models
from kernelgan.evaluation import features
from kernelgan.types import Params

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
