"""Train a population: many small networks at once, each on images, labels and an order of its own.

The step is written for ONE network; `engine.fit` adds the population axis, `lax.scan` the steps. Model ``i``
of a named population is a function of the seed, that name and ``i`` alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import zlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from kernelgan import distributed, engine, losses, models, ops, parallel
from kernelgan.losses import Loss
from kernelgan.types import Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class Population:
    """Who is trained, and what each network sees. ``T`` groupings, ``R`` rows of targets.

    Attributes:
      name: one for each network, ``M``; with ``index`` it fixes the network's random numbers.
      index: int32 ``(M,)``, the network's number among those of its name.
      grouping: int32 ``(M,)``, row of the groups below that the network draws its batches from.
      target: int32 ``(M,)``, row of ``targets``.
      groups: ``T`` groupings of ``G`` index arrays into the images; each batch holds a fixed share of each.
      validation: the same for the images that are read after each epoch; may be empty arrays.
      targets: ``(R, N, ...)``, what the loss compares the logits of image ``n`` with.
    """

    name: tuple[str, ...]
    index: np.ndarray
    grouping: np.ndarray
    target: np.ndarray
    groups: tuple[tuple[np.ndarray, ...], ...]
    validation: tuple[tuple[np.ndarray, ...], ...]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


@dataclasses.dataclass(frozen=True)
class Training:
    """How a population is trained.

    Attributes:
      epochs: passes.
      images_per_epoch: images that a network draws for an epoch; a last, smaller batch is weighted rightly.
      batch_size: images.
      learning_rate: of Adam.
      shares: for each group, its share of a batch.
      decay: whether the learning rate falls linearly to zero, a step after each epoch; see `rate_in`.
    """

    epochs: int
    images_per_epoch: int
    batch_size: int
    learning_rate: float
    shares: tuple[float, ...]
    decay: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps ``S`` in an epoch."""
        return -(-self.images_per_epoch // self.batch_size)

    def rate_in(self, epoch: jax.Array) -> float | jax.Array:
        """The learning rate in epoch ``e`` of ``E``, from 0: with decay ``learning_rate * (1 - e / E)``.

        ``epoch`` is data, a scalar: no epoch needs a program of its own.
        """
        return self.learning_rate * (1 - epoch / self.epochs) if self.decay else self.learning_rate


def batch_pattern(
    shares: Sequence[float], batch_size: int, images_per_epoch: int | None = None
) -> np.ndarray:
    """Which group each place of a batch is drawn from: ``(B,)``, interleaved in proportion to the shares.

    Args:
      shares: of the groups in a batch, positive.
      batch_size: images.
      images_per_epoch: of a smaller only batch, in which the later places do not count.

    Raises:
      UserError: a group would never be drawn, for the batch is too small.
      ValueError: a share is not positive.
    """
    if min(shares) <= 0:
        raise ValueError(f"shares of a batch must be positive, got {tuple(shares)}")
    pattern = _interleaved(shares, batch_size)
    if len(np.unique(pattern[:images_per_epoch])) < len(shares):
        parts = " : ".join(f"{share:g}" for share in shares)
        least = len(shares)
        while len(np.unique(_interleaved(shares, least))) < len(shares):
            least += 1
        raise UserError(
            f"zoo.batch_size is {batch_size} and an epoch has {images_per_epoch or batch_size} images, too "
            f"few for {len(shares)} groups of images in the shares {parts}: a group would never be drawn. "
            f"Expected at least {least} of both."
        )
    return pattern


def _interleaved(shares: Sequence[float], batch_size: int) -> np.ndarray:
    weights = np.asarray(shares, np.float64) / np.sum(shares)
    places = (np.arange(batch_size) + 0.5)[:, None] * weights
    pattern, drawn = np.zeros(batch_size, np.int32), np.zeros(len(weights))
    for place in range(batch_size):
        pattern[place] = np.argmax(places[place] - drawn)
        drawn[pattern[place]] += 1
    return pattern


def _padded(groupings: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays of many lengths as ``(T, G, K)``, and their lengths ``(T, G)``."""
    sizes = np.array([[len(group) for group in groups] for groups in groupings], np.int32)
    padded = np.zeros((*sizes.shape, max(1, int(sizes.max(initial=0)))), np.int32)
    for row, groups in enumerate(groupings):
        for column, group in enumerate(groups):
            padded[row, column, : len(group)] = group
    return padded, sizes


def draw_epoch(
    key: Key, groups: jax.Array, sizes: jax.Array, *, pattern: np.ndarray, steps: int
) -> jax.Array:
    """Image indices of one epoch, each group without replacement until it is used up, then anew.

    Args:
      key: typed key.
      groups: int32 ``(G, K)``, each row filled up with anything after its ``sizes`` first.
      sizes: int32 ``(G,)``.
      pattern: ``(B,)``, see `batch_pattern`.
      steps: batches ``S``.

    Returns:
      int32 ``(S, B)``.
    """
    count, width = groups.shape
    noise = jax.random.uniform(key, (count, width))
    order = jnp.argsort(jnp.where(jnp.arange(width) < sizes[:, None], noise, 2.0), axis=1)
    shuffled = jnp.take_along_axis(groups, order, axis=1)
    per_batch = np.bincount(pattern, minlength=count)
    within = np.array([np.sum(pattern[:place] == group) for place, group in enumerate(pattern)])
    rank = np.arange(steps)[:, None] * per_batch[pattern] + within
    return shuffled[pattern, rank % sizes[pattern]]


def binary_metrics(logits: jax.Array, losses: jax.Array, labels: jax.Array, weights: jax.Array) -> Params:
    """Loss, balanced accuracy and AUROC of a one-concept network.

    Args:
      logits: ``(N, 2)``.
      losses: ``(N,)``.
      labels: ``(N,)`` of 0 and 1.
      weights: ``(N,)``, 0 for places that hold no image.

    Returns:
      Scalars ``loss``, ``balanced_accuracy`` and ``auroc`` (Mann-Whitney, ties count half).
    """
    score = logits[:, 1] - logits[:, 0]
    positive, negative = weights * labels, weights * (1 - labels)
    recall = jnp.sum(positive * (score > 0)) / jnp.sum(positive)
    specificity = jnp.sum(negative * (score <= 0)) / jnp.sum(negative)
    wins = (score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])
    auroc = positive @ wins @ negative / (jnp.sum(positive) * jnp.sum(negative))
    return {
        "loss": jnp.sum(weights * losses) / jnp.sum(weights),
        "balanced_accuracy": (recall + specificity) / 2,
        "auroc": auroc,
    }


def loss_metrics(logits: jax.Array, losses: jax.Array, targets: jax.Array, weights: jax.Array) -> Params:
    """The mean loss alone, for networks that answer no single question."""
    del logits, targets
    return {"loss": jnp.sum(weights * losses) / jnp.sum(weights)}


@functools.lru_cache(maxsize=16)  # equal programs are one: the engine compiles it once
def program(
    network: models.ConvNet,
    training: Training,
    *,
    loss: Loss,
    metrics: Callable[..., Params],
    watch: bool,
    train_epoch: ops.TrainEpoch | None = None,
) -> engine.Program:
    """The first state of one network, and its training for one epoch.

    A member is ``{"name": uint32, "index": int32, "grouping": int32, "target": int32}``, see `members_of`;
    ``shared`` is what `shared_arrays` gives.

    Args:
      network: the module.
      training: for how long, and how.
      loss: see `losses`.
      metrics: see `train`.
      watch: whether validation images are there, to be read after each epoch.
      train_epoch: a kernel that trains many networks at once for an epoch, see `ops.epoch_kernel`.
    """
    optimizer = optax.adam(training.learning_rate)
    pattern = batch_pattern(training.shares, training.batch_size, training.images_per_epoch)
    steps = training.steps_per_epoch
    places = np.arange(steps * training.batch_size).reshape(steps, -1)
    weights = np.asarray(places < training.images_per_epoch, np.float32)

    def member_key(member: Params, shared: Params) -> Key:
        of_run = jax.random.key(shared["seed"])  # no constant: another seed is not another program
        return jax.random.fold_in(jax.random.fold_in(of_run, member["name"]), member["index"])

    def initialise(member: Params, shared: Params) -> Params:
        key = jax.random.fold_in(member_key(member, shared), 0)
        params = models.initialise_convnet(network, shared["images"].shape[1], key)
        return {"params": params, "optimizer": optimizer.init(params)}

    def weighted_loss(params: Params, batch: jax.Array, targets: jax.Array, weight: jax.Array) -> jax.Array:
        logits, _ = models.run_convnet(network, params, models.normalise_images(batch))
        return jnp.sum(loss(logits, targets) * weight) / jnp.sum(weight)

    def validate(params: Params, member: Params, shared: Params) -> Params:
        index = shared["validation"][member["grouping"]]
        count = shared["validation_sizes"][member["grouping"]]
        present = jnp.arange(index.shape[1]) < count[:, None]
        index, present = index.reshape(-1), present.reshape(-1).astype(jnp.float32)
        logits, _ = models.run_convnet(network, params, models.normalise_images(shared["images"][index]))
        targets = shared["targets"][member["target"], index]
        return metrics(logits, loss(logits, targets), targets, present)

    def draw(member: Params, shared: Params, call: jax.Array) -> jax.Array:
        key = jax.random.fold_in(member_key(member, shared), 1 + call)
        row = member["grouping"]
        return draw_epoch(key, shared["groups"][row], shared["sizes"][row], pattern=pattern, steps=steps)

    def record_of(params: Params, losses: jax.Array, member: Params, shared: Params) -> Params:
        record = {"train_loss": jnp.sum(losses) / jnp.sum(weights)}
        if watch:
            found = validate(params, member, shared)
            record |= {f"validation_{name}": value for name, value in found.items()}
        return record

    def epoch(state: Params, member: Params, shared: Params, call: jax.Array) -> tuple[Params, Params]:
        optimizer = optax.adam(training.rate_in(call))

        def step(state: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, jax.Array]:
            index, weight = batch
            targets = shared["targets"][member["target"], index]
            value, gradients = jax.value_and_grad(weighted_loss)(
                state["params"], shared["images"][index], targets, weight
            )
            updates, moments = optimizer.update(gradients, state["optimizer"])
            params = optax.apply_updates(state["params"], updates)
            return {"params": params, "optimizer": moments}, value * jnp.sum(weight)

        state, losses = lax.scan(step, state, (draw(member, shared, call), jnp.asarray(weights)))
        return state, record_of(state["params"], losses, member, shared)

    def many_epochs(
        states: Params, members: Params, shared: Params, call: jax.Array
    ) -> tuple[Params, Params]:
        assert train_epoch is not None
        drawn = jax.vmap(draw, in_axes=(0, None, None))(members, shared, call)
        states, losses = train_epoch(
            states,
            shared["images"],
            drawn,
            shared["targets"][members["target"][:, None, None], drawn],
            weights,
            network=network,
            loss=loss,
            learning_rate=training.rate_in(call),
        )
        # XLA's pass over the validation images takes far more memory than the kernel: some at a time.
        at_once = max(1, _VALIDATED // max(1, math.prod(shared["validation"].shape[1:])))

        def record(network: tuple[Params, jax.Array, Params]) -> Params:
            return record_of(*network, shared)

        trained = states["params"], losses, members
        return states, lax.map(record, trained, batch_size=min(at_once, len(losses)))

    return engine.Program(
        initialise, epoch, lambda state: state["params"], None if train_epoch is None else many_epochs
    )


_VALIDATED = 2**14
"""Validation images in flight at a time, over networks, where the fused kernel trains: about 3 GB."""

_COPIES = {"state": 4, "drawn": 8, "images": 2}
"""How often each is in device memory at once, about: inputs beside results, sorting, gradients."""


def bytes_each(network: models.ConvNet, training: Training, arrays: Params, *, fused: bool) -> int:
    """Device memory that a network takes while it trains, by an estimate.

    Args:
      network: the module.
      training: how it is trained.
      arrays: what `shared_arrays` gives.
      fused: whether the fused kernel trains, which keeps activations to itself.
    """
    size = arrays["images"].shape[1]
    params = jax.eval_shape(lambda: models.initialise_convnet(network, size, jax.random.key(0)))
    state = 3 * sum(4 * leaf.size for leaf in jax.tree.leaves(params))
    target = arrays["targets"].dtype.itemsize * math.prod(arrays["targets"].shape[2:])
    drawn = 4 * math.prod(arrays["groups"].shape[1:])
    drawn += training.steps_per_epoch * training.batch_size * (4 + max(4, target)) // 4
    validated = math.prod(arrays["validation"].shape[1:])
    images = 0 if fused else max(training.batch_size, validated // 2)
    images_bytes = images * models.bytes_on_the_way(network, size)
    return _COPIES["state"] * state + _COPIES["drawn"] * drawn + _COPIES["images"] * images_bytes


def shared_arrays(images: np.ndarray, population: Population, seed: int) -> Params:
    """What all networks read, as numpy arrays."""
    groups, sizes = _padded(population.groups)
    if sizes.min(initial=1) == 0:
        row = int(np.argwhere(sizes == 0)[0][0])
        name = population.name[int(np.argmax(population.grouping == row))]
        raise UserError(
            f"a group of images that {name} is to learn from is empty; expected at least one image."
        )
    validation, validation_sizes = _padded(population.validation)
    return {
        "seed": np.int32(seed),
        "images": images,
        "targets": population.targets,
        "groups": groups,
        "sizes": sizes,
        "validation": validation,
        "validation_sizes": validation_sizes,
    }


def members_of(population: Population) -> Params:
    """The networks as `program` takes them, ``(M,)`` each."""
    return {
        "name": np.array([zlib.crc32(name.encode()) for name in population.name], np.uint32),
        "index": population.index,
        "grouping": population.grouping,
        "target": population.target,
    }


def train(
    network: models.ConvNet,
    images: np.ndarray,
    population: Population,
    training: Training,
    *,
    loss: Loss,
    metrics: Callable[..., Params],
    seed: int,
    chunk_size: int | None = None,
    saver: engine.Saver = engine.NOWHERE,
    progress: engine.Report = engine.silent,
) -> tuple[Params, dict[str, np.ndarray]]:
    """Trains every network of a population.

    Args:
      network: the module that all of them share.
      images: uint8 ``(N, H, W, C)``; resident on the device, gathered there.
      population: who is trained on what.
      training: for how long, and how.
      loss: see `losses`.
      metrics: ``(logits, losses, targets, weights) -> scalars``, taken on the validation images.
      seed: of the run.
      chunk_size: networks in memory at a time; None or 0: as many as fit, see `parallel.room`.
      saver: keeps the state between epochs.
      progress: see `engine.fit`.

    Returns:
      Parameters stacked along ``M``, and histories ``train_loss``, ``validation_<metric>``, each ``(M, E)``,
      all as numpy arrays.

    Raises:
      UserError: a metric that is not finite, with the network and the epoch.
    """
    arrays = shared_arrays(images, population, seed)
    watch = bool(arrays["validation_sizes"].min(initial=1) > 0)
    kernel = checked_kernel(network, images.shape[1], loss)
    return engine.fit(
        program(network, training, loss=loss, metrics=metrics, watch=watch, train_epoch=kernel),
        members_of(population),
        arrays,
        calls=training.epochs,
        chunk_size=chunk_size
        or parallel.room(bytes_each(network, training, arrays, fused=kernel is not None)),
        names=lambda member: f"network {population.index[member]} of {population.name[member]}",
        remedy="A smaller learning_rate usually helps.",
        saver=saver,
        progress=progress,
    )


def arithmetic(network: models.ConvNet, image_size: int, loss: Loss) -> str:
    """The implementation that trains, in words; another one rounds otherwise, and training amplifies that."""
    kernel = checked_kernel(network, image_size, loss)
    if kernel is None:
        return models.arithmetic(network.form)
    flags = models.xla_flags()
    return "fused kernel" + (f", XLA_FLAGS={flags}" if flags else "")


@functools.cache
def checked_kernel(network: models.ConvNet, image_size: int, loss: Loss) -> ops.TrainEpoch | None:
    """The kernel that is to train such networks, if there is one and its first steps here are right."""
    kernel = ops.epoch_kernel(network, image_size, loss)
    if not any(distributed.gather(kernel is not None)):
        return None
    words = "is not there on every process"
    if kernel is not None:
        try:
            off = _kernel_error(kernel, network, image_size, loss)
            words = "" if off <= _TOLERANCE else f"differs from XLA by {off:.1e} of the largest value"
        except Exception as error:  # whatever a driver, a compiler or XLA may raise
            words = f"fails ({(str(error).splitlines() or [type(error).__name__])[0]})"
    outcomes = distributed.gather(words)
    if not any(outcomes):
        return kernel
    if distributed.is_first():
        reason = next(filter(None, outcomes))
        print(f"the fused GPU kernel {reason}; training goes on without it, slower", file=sys.stderr)
    return None


_TOLERANCE = 1e-3


def _kernel_error(kernel: ops.TrainEpoch, network: models.ConvNet, image_size: int, loss: Loss) -> float:
    """How far some steps of the fused kernel are from XLA's, the last with a batch that is not full.

    Where two pixels of a pooling window are equal but for rounding, the two may choose another one, and that
    network's gradient then differs by far more. So there are many networks (more than a GPU has
    multiprocessors, so that some share one), and what nine in ten of them keep to counts.

    Returns:
      The larger of the losses' relative error and the moments' over the largest of their array.
    """
    count, batch, size = 150, 20, 48
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, image_size, image_size, 3), dtype=np.uint8)
    targets = rng.integers(0, 2, (1, size)).astype(np.int8)
    if loss is losses.squared_error:
        targets = rng.normal(size=(1, size, network.outputs)).astype(np.float32)
    groups, zeros = ((np.arange(size, dtype=np.int32),),), np.zeros(count, np.int32)
    numbers = np.arange(count, dtype=np.int32)
    people = Population(("check",) * count, numbers, zeros, zeros, groups, groups, targets)
    training = Training(1, 2 * batch + batch // 2, batch, 1e-4, (1.0,))
    fitted = program(network, training, loss=loss, metrics=loss_metrics, watch=False, train_epoch=kernel)
    assert fitted.advance_many is not None
    members = jax.tree.map(jnp.asarray, members_of(people))
    shared = jax.tree.map(jnp.asarray, shared_arrays(images, people, 0))
    states = jax.jit(jax.vmap(fitted.init, in_axes=(0, None)))(members, shared)
    given = states, members, shared, jnp.int32(0)
    expected = jax.jit(jax.vmap(fitted.advance, in_axes=(0, 0, None, None)))(*given)
    found = jax.jit(fitted.advance_many)(*given)

    def compared(outcome: tuple[Params, Params]) -> Params:
        (adam, *_), record = outcome[0]["optimizer"], outcome[1]
        return {"means": adam.mu, "squares": adam.nu, "counts": adam.count, "losses": record["train_loss"]}

    def error(a: jax.Array, b: jax.Array) -> np.ndarray:
        ours, theirs = (np.asarray(leaf, np.float64).reshape(count, -1) for leaf in (a, b))
        errors = np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1)
        return np.nan_to_num(errors, nan=np.inf)

    errors = jax.tree.leaves(jax.tree.map(error, compared(found), compared(expected)))
    return float(max(np.quantile(each, 0.9) for each in errors))
