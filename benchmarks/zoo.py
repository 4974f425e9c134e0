"""One training step of a population of networks, by the engine and as one writes it first.

All train the same network (two 5 x 5 convolutions, 6 and 16 filters, 32 x 32 images) on batches of their own.
PyTorch and the first-written vmap have float32 images in memory; the engine draws, gathers and
converts its own. A step of each is compared with a plain Flax network's gradients before it is timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import check
from benchmarks.stopwatch import Compilations, Lockstep, Prepared
from kernelgan import engine as engines
from kernelgan import losses, models, population
from kernelgan.ops import products
from kernelgan.types import Params

IMAGE_SIZE, PICTURES, RATE, BETA = 32, 2048, 1e-3, 0.9
CHECKED = 4
"""Networks of a population that are compared."""

_COMPILATION_BATCH = 16
"""Images a batch where compilation alone is measured, so that running takes little."""


class PlainNet(nn.Module):
    """The reference: `models.ConvNet` as the Flax documentation would write it, with the same parameters."""

    precision: Any = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits ``(B, 2)`` of float32 images ``(B, H, W, C)``."""
        for layer, filters in enumerate(models.ConvNet().filters, start=1):
            size = (models.ConvNet().kernel_size,) * 2
            convolve = nn.Conv(filters, size, padding="VALID", precision=self.precision, name=f"conv{layer}")
            images = nn.max_pool(nn.relu(convolve(images)), (2, 2), (2, 2))
        features = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return nn.Dense(models.ConvNet().outputs, precision=self.precision, name="dense")(features)


def _loss(network: nn.Module, params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = network.apply({"params": params}, images)
    return jnp.mean(losses.cross_entropy(logits, labels))  # type: ignore[arg-type]


@jax.jit
def _reference(params: Params, images: jax.Array, labels: jax.Array) -> Params:
    return jax.grad(functools.partial(_loss, PlainNet()))(params, images, labels)


@dataclasses.dataclass
class Problem:
    """What a population of ``M`` networks is given.

    Attributes:
      params: where they start, stacked.
      pictures: uint8 ``(N, H, W, C)``.
      index: int32 ``(M, B)``, the images of each network's batch.
      labels: int32 ``(M, B)``.
    """

    params: Params
    pictures: np.ndarray
    index: np.ndarray
    labels: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """Float32 ``(M, B, H, W, C)``."""
        return np.asarray(models.normalise_images(self.pictures))[self.index]

    @property
    def checked(self) -> np.ndarray:
        """The members that are compared, from the first to the last."""
        return np.unique(np.linspace(0, len(self.index) - 1, CHECKED).astype(int))

    def gradients(self, params: Params, n: int) -> Params:
        """The reference's, of the ``n``-th checked member."""
        member = self.checked[n]
        images = models.normalise_images(self.pictures[self.index[member]])
        return _reference(params, images, self.labels[member])

    def error(self, found: Params) -> float:
        """Of the checked members' gradients of the first step."""
        return check.gradient_error(found, check.member_of(self.params, self.checked), self.gradients)


def make_networks(count: int) -> Params:
    """Untrained, stacked, as the engine initialises them."""
    keys = jax.random.split(jax.random.key(0), count)
    make = jax.jit(jax.vmap(lambda key: models.initialise_convnet(models.ConvNet(), IMAGE_SIZE, key)))
    return jax.device_get(make(keys))


def make_pictures(count: int) -> np.ndarray:
    """Uint8 noise."""
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@functools.cache
def make_problem(networks: int, batch: int) -> Problem:
    """Networks and noise to train them on."""
    rng = np.random.default_rng(1)
    return Problem(
        make_networks(networks),
        make_pictures(PICTURES),
        np.stack([rng.choice(PICTURES, batch, replace=False) for _ in range(networks)]).astype(np.int32),
        rng.integers(0, 2, (networks, batch)).astype(np.int32),
    )


@contextlib.contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """While this lasts, what is traced leaves the engine's products to the GPU's default, which is TF32."""
    kept = products.PRECISION
    try:
        if wanted:
            products.PRECISION = lax.Precision.DEFAULT
        yield
    finally:
        products.PRECISION = kept


# The engine -----------------------------------------------------------------------------------------------


def train_noise(
    network: models.ConvNet,
    pictures: np.ndarray,
    training: population.Training,
    count: int,
    *,
    saver: engines.Saver = engines.NOWHERE,
    progress: engines.Report = engines.silent,
) -> None:
    """`population.train` of networks that tell the first half of some pictures from the second."""
    half = len(pictures) // 2
    halves = (np.arange(half, dtype=np.int32), np.arange(half, 2 * half, dtype=np.int32))
    zeros = np.zeros(count, np.int32)
    members = population.Population(
        name=("benchmark",) * count,
        index=np.arange(count, dtype=np.int32),
        grouping=zeros,
        target=zeros,
        groups=(halves,),
        validation=((np.zeros(0, np.int32),),),
        targets=(np.arange(len(pictures))[None] < half).astype(np.int8),
    )
    population.train(
        network,
        pictures,
        members,
        training,
        loss=losses.cross_entropy,
        metrics=population.binary_metrics,
        seed=0,
        chunk_size=count,  # in chunks, an epoch would be that of a chunk
        saver=saver,
        progress=progress,
    )


def engine(
    networks: int, batch: int, steps: int, *, form: str = "auto", in_tf32: bool = False, checked: bool = True
) -> Prepared:
    """`population.train` itself, an epoch a lap."""
    network = models.ConvNet(form=form)
    training = population.Training(Lockstep.MOST, steps * batch, batch, RATE, (1.0, 1.0))
    pictures = make_pictures(PICTURES)

    def train(lap: Callable[..., None]) -> None:
        train_noise(network, pictures, training, networks, progress=lap)

    step, heard = Lockstep(train), Compilations()
    with tf32(in_tf32):
        step.laps(1)
    arithmetic = population.arithmetic(network, IMAGE_SIZE, losses.cross_entropy)
    return Prepared(
        step.laps,
        networks * steps if checked else 1,
        functools.partial(engine_error, network, networks, batch, in_tf32) if checked else None,
        heard.seconds,
        {"arithmetic": arithmetic},
        close=step.close,
    )


def engine_error(network: models.ConvNet, networks: int, batch: int, in_tf32: bool) -> float:
    """Of the engine's second step, on as many pictures as a batch holds: whatever their order, it is all."""
    keeper, count = check.Keeper(), min(networks, CHECKED)
    training = population.Training(2, batch, batch, RATE, (1.0, 1.0))
    pictures = make_pictures(batch)
    with tf32(in_tf32):
        train_noise(network, pictures, training, count, saver=keeper)
    index = np.tile(np.arange(batch), (count, 1))
    problem = Problem({}, pictures, index, (index < batch // 2).astype(np.int32))
    params = jax.eval_shape(
        lambda key: models.initialise_convnet(network, IMAGE_SIZE, key), jax.random.key(0)
    )
    structure = jax.tree.structure({"params": params, "optimizer": optax.adam(RATE).init(params)})
    before, after = keeper.states(structure)
    found = check.between(before["optimizer"][0].mu, after["optimizer"][0].mu, BETA)
    return check.gradient_error(found, before["params"], problem.gradients)


def compilation(networks: int) -> Prepared:
    """Seconds in which the engine is traced, lowered and compiled."""
    training = population.Training(1, _COMPILATION_BATCH, _COMPILATION_BATCH, RATE, (1.0, 1.0))
    pictures, network = make_pictures(2 * _COMPILATION_BATCH), models.ConvNet()
    population.checked_kernel(network, IMAGE_SIZE, losses.cross_entropy)  # once a process: it counts for none
    heard = Compilations()

    def run(_: int) -> float:
        jax.clear_caches()
        heard.intervals.clear()
        train_noise(network, pictures, training, networks)
        return heard.seconds

    return Prepared(run, 1, single=True)


# Others' --------------------------------------------------------------------------------------------------


def first_vmap(networks: int, batch: int, *, in_tf32: bool = False) -> Prepared:
    """`jax.vmap` over Flax's convolutions and optax's Adam."""
    problem = make_problem(networks, batch)
    network = PlainNet(lax.Precision.DEFAULT if in_tf32 else lax.Precision.HIGHEST)
    optimizer = optax.adam(RATE)

    def step(state: Params, images: jax.Array, labels: jax.Array) -> Params:
        gradients = jax.grad(functools.partial(_loss, network))(state["params"], images, labels)
        updates, moments = optimizer.update(gradients, state["optimizer"])
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": moments}

    state = {"params": problem.params, "optimizer": jax.vmap(optimizer.init)(problem.params)}
    held, images, labels = jax.device_put(([state], problem.images, problem.labels))
    begin = time.perf_counter()
    compiled = jax.jit(jax.vmap(step), donate_argnums=(0,)).lower(held[0], images, labels).compile()
    compile_s = time.perf_counter() - begin

    def run(steps: int) -> None:
        for _ in range(steps):
            held[0] = compiled(held[0], images, labels)
        jax.block_until_ready(held[0])

    def error() -> float:
        run(1)
        first = check.member_of(held[0]["optimizer"][0].mu, problem.checked)
        return problem.error(check.between(jax.tree.map(np.zeros_like, first), first, BETA))

    return Prepared(run, networks, error, compile_s, close=held.clear)


def torch_loop(networks: int, batch: int, *, channels_last: bool = False) -> Prepared:
    """PyTorch, one network after the other."""
    from benchmarks import torch_loops

    problem = make_problem(networks, batch)
    loop = torch_loops.ZooLoop(
        problem.params, problem.images, problem.labels, RATE, channels_last=channels_last
    )
    return _in_torch(problem, loop)


def torch_vmap(networks: int, batch: int) -> Prepared:
    """PyTorch's map over networks."""
    from benchmarks import torch_loops

    problem = make_problem(networks, batch)
    return _in_torch(problem, torch_loops.ZooMap(problem.params, problem.images, problem.labels, RATE))


def _in_torch(problem: Problem, loop: Any) -> Prepared:  # noqa: ANN401
    def error() -> float:
        loop.run(1)
        return problem.error(loop.gradients(problem.checked))

    return Prepared(loop.run, len(problem.index), error)
