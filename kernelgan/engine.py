"""Train a population: many small networks at once, each on images, labels and an order of its own.

The step is written for ONE network; `parallel.Spread` adds the population axis, `lax.scan` the steps. Model
``i`` of a named population is a function of the seed, that name and ``i`` alone: not of the chunk it is
trained in, of the number of devices and processes, or of the networks beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from kernelgan import cluster, models, parallel
from kernelgan.ops import gpu
from kernelgan.types import Array, Key, Params, UserError

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""``(logits (B, K), targets (B, ...)) -> losses (B,)``."""


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


class Saver(Protocol):
    """Where a long stage leaves its state: see `kernelgan.checkpoint`."""

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved whole, or None."""

    def save(self, make_tree: Callable[[], dict[str, Any]], step: int) -> None:
        """Saves nested dicts of numpy arrays, if the last save is long enough ago."""

    @property
    def last_good(self) -> str:
        """The last state that was saved whole, for messages."""


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, ``(B, 2)`` and ``(B,)`` to ``(B,)``."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the logits of the squared difference to a teacher's, ``(B, K)`` twice to ``(B,)``.

    Matching logits is distillation in the limit of a high temperature (Hinton et al., arXiv:1503.02531).
    """
    return jnp.mean(jnp.square(logits - targets), axis=-1)


def batch_pattern(shares: Sequence[float], batch_size: int) -> np.ndarray:
    """Which group each place of a batch is drawn from: ``(B,)``, interleaved in proportion to the shares."""
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


@dataclasses.dataclass(frozen=True)
class Programs:
    """What is compiled for one network of a population; `parallel.Spread.map` adds the others.

    Attributes:
      initialise: ``(member, shared) -> state``.
      epoch: ``(state, member, shared) -> (state, record)``; a record is a dict of scalars.
      fused_epoch: ``((states, members), shared) -> (states, records)``, the same of a device's whole share,
        stacked, by `kernelgan.ops.gpu` (NVIDIA GPUs only).
    """

    initialise: Callable[[Params, Params], Params]
    epoch: Callable[[Params, Params, Params], tuple[Params, Params]]
    fused_epoch: Callable[[tuple[Params, Params], Params], tuple[Params, Params]]


def programs(
    network: models.ConvNet,
    training: Training,
    *,
    loss: Loss,
    metrics: Callable[..., Params],
    watch: bool,
) -> Programs:
    """The first state of one network, and its training for one epoch.

    A member is ``{"name": uint32, "index": int32, "grouping": int32, "target": int32}`` and, for an epoch,
    ``"epoch": int32``; ``shared`` is what `shared_arrays` gives.

    Args:
      network: see `train`, as ``training``, ``loss`` and ``metrics``.
      training: see there.
      loss: see there.
      metrics: see there.
      watch: whether validation images are there, to be read after each epoch.
    """
    optimizer = optax.adam(training.learning_rate)
    pattern = batch_pattern(training.shares, training.batch_size)
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

    def draw(member: Params, shared: Params) -> jax.Array:
        key = jax.random.fold_in(member_key(member, shared), 1 + member["epoch"])
        row = member["grouping"]
        return draw_epoch(key, shared["groups"][row], shared["sizes"][row], pattern=pattern, steps=steps)

    def record_of(params: Params, losses: jax.Array, member: Params, shared: Params) -> Params:
        record = {"train_loss": jnp.sum(losses) / jnp.sum(weights)}
        if watch:
            found = validate(params, member, shared)
            record |= {f"validation_{name}": value for name, value in found.items()}
        return record

    def epoch(state: Params, member: Params, shared: Params) -> tuple[Params, Params]:
        optimizer = optax.adam(training.rate_in(member["epoch"]))

        def step(state: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, jax.Array]:
            index, weight = batch
            targets = shared["targets"][member["target"], index]
            value, gradients = jax.value_and_grad(weighted_loss)(
                state["params"], shared["images"][index], targets, weight
            )
            updates, moments = optimizer.update(gradients, state["optimizer"])
            params = optax.apply_updates(state["params"], updates)
            return {"params": params, "optimizer": moments}, value * jnp.sum(weight)

        state, losses = lax.scan(step, state, (draw(member, shared), jnp.asarray(weights)))
        return state, record_of(state["params"], losses, member, shared)

    def fused_epoch(stacked: tuple[Params, Params], shared: Params) -> tuple[Params, Params]:
        states, members = stacked
        drawn = jax.vmap(draw, in_axes=(0, None))(members, shared)
        states, losses = gpu.train_epoch(
            states,
            shared["images"],
            drawn,
            shared["targets"][members["target"][:, None, None], drawn],
            weights,
            network=network,
            loss=loss,
            learning_rate=training.rate_in(members["epoch"][0]),  # all are in the same epoch
        )
        records = jax.vmap(record_of, in_axes=(0, 0, 0, None))(states["params"], losses, members, shared)
        return states, records

    return Programs(initialise, epoch, fused_epoch)


def shared_arrays(images: np.ndarray, population: Population, seed: int) -> Params:
    """What all networks read, as numpy arrays."""
    groups, sizes = _padded(population.groups)
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


def members_of(population: Population, chunk: np.ndarray) -> Params:
    """The members of a chunk, stacked, as `programs` takes them."""
    names = np.array([zlib.crc32(name.encode()) for name in population.name], np.uint32)
    return {
        "name": names[chunk],
        "index": population.index[chunk],
        "grouping": population.grouping[chunk],
        "target": population.target[chunk],
    }


@cluster.together
def train(
    network: models.ConvNet,
    images: np.ndarray,
    population: Population,
    training: Training,
    *,
    loss: Loss,
    metrics: Callable[..., Params],
    seed: int,
    chunk_size: int,
    saver: Saver,
    progress: Callable[[int, int, dict[str, float]], None],
) -> tuple[Params, dict[str, np.ndarray]]:
    """Trains every network of a population.

    Args:
      network: the module that all of them share.
      images: uint8 ``(N, H, W, C)``; resident on the device, gathered there.
      population: who is trained on what.
      training: for how long, and how.
      loss: see `Loss`.
      metrics: ``(logits, losses, targets, weights) -> scalars``, taken on the validation images.
      seed: of the run.
      chunk_size: networks in memory at a time.
      saver: keeps the state between epochs, so that a killed run goes on where it was.
      progress: called with (epochs done, epochs in all, latest mean metrics) over all chunks.

    Returns:
      Parameters stacked along ``M``, and histories ``train_loss``, ``validation_<metric>``, each ``(M, E)``,
      all as numpy arrays.

    Raises:
      UserError: a loss that is not finite, with the network and the epoch.
    """
    arrays = shared_arrays(images, population, seed)
    watch = bool(arrays["validation_sizes"].min(initial=1) > 0)
    one = programs(network, training, loss=loss, metrics=metrics, watch=watch)
    chunks = parallel.chunks(len(population), chunk_size)
    spread = parallel.Spread(len(chunks[0]))
    shared = spread.share(arrays)
    initialise_chunk = spread.map(one.initialise)
    is_fused = all(cluster.gather(_is_fused(network, images.shape[1], loss)))
    if is_fused:
        train_chunk = spread.map_parts(one.fused_epoch, donate_first=True)
    else:
        train_chunk = spread.map(one.epoch, donate_first=True)
    stamp = np.uint32(zlib.crc32(b"fused" if is_fused else models.arithmetic(network.form).encode()))

    saved = saver.restore()
    if saved is not None and not any(np.array_equal(saved["members"], chunk) for chunk in chunks):
        print("the state was saved of other chunks of networks; this stage starts over", file=sys.stderr)
        saved = None
    if saved is not None and saved.get("arithmetic") != stamp:
        print(
            "the state was computed in another way (device, or version); this stage starts over",
            file=sys.stderr,
        )
        saved = None
    first_chunk, first_epoch = (int(saved["chunk"]), int(saved["epoch"])) if saved else (0, 0)
    params, history = (saved["params"], saved["history"]) if saved else ({}, {})
    resumed = None if saved is None else _as_tree(saved["state"], optax.adam(training.learning_rate))

    def snapshot(state: Params, number: int, epochs: int) -> dict[str, Any]:
        state = spread.collect(state)
        # Before the first chunk is done, the chunk's own parameters stand in for the population's.
        whole = params or _store({}, state["params"], chunks[number], len(population))
        return {
            "state": _as_dict(state),
            "params": whole,
            "history": history,
            "chunk": np.int32(number),
            "members": chunks[number],
            "epoch": np.int32(epochs),
            "arithmetic": stamp,
        }

    for number, chunk in enumerate(chunks):
        if number < first_chunk:
            continue
        members = members_of(population, chunk)
        if number == first_chunk and resumed is not None:
            state, begin = spread.deal(resumed), first_epoch
        else:
            state, begin = initialise_chunk(spread.deal(members), shared), 0
        for e in range(begin, training.epochs):
            epochs = np.full(len(chunk), e, np.int32)
            state, record = train_chunk(state, spread.deal({**members, "epoch": epochs}), shared)
            record = spread.collect(record)
            _check_finite(record, population, chunk, e)
            for name, values in record.items():
                rows = history.setdefault(
                    name, np.full((len(population), training.epochs), np.nan, np.float32)
                )
                rows[chunk, e] = values
            done = number * training.epochs + e + 1
            if e + 1 == training.epochs:
                params = _store(params, spread.collect(state["params"]), chunk, len(population))
            saver.save(functools.partial(snapshot, state, number, e + 1), done)
            latest = {name: float(np.mean(values)) for name, values in record.items()}
            progress(done, len(chunks) * training.epochs, latest)
    return params, history


@functools.cache
def _is_fused(network: models.ConvNet, image_size: int, loss: Loss) -> bool:
    """Whether `kernelgan.ops.gpu` is to train such networks: it can, and its first steps here are right."""
    wanted = network.form == "auto" and gpu.is_available() and gpu.supports(network, image_size, loss)
    if not wanted:
        return False
    try:
        off = _fused_error(network, image_size, loss)
    except Exception as error:  # whatever a driver, a compiler or XLA may say
        words = f"fails ({(str(error).splitlines() or [type(error).__name__])[0]})"
    else:
        if off <= _FUSED_TOLERANCE:
            return True
        words = f"gives another result than XLA (by {off:.1e} of the largest)"
    if cluster.is_first():
        print(f"the fused GPU kernel {words}; training goes on without it, slower", file=sys.stderr)
    return False


_FUSED_TOLERANCE = 1e-3


def _fused_error(network: models.ConvNet, image_size: int, loss: Loss) -> float:
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
    if loss is squared_error:
        targets = rng.normal(size=(1, size, network.outputs)).astype(np.float32)
    groups, zeros = ((np.arange(size, dtype=np.int32),),), np.zeros(count, np.int32)
    numbers = np.arange(count, dtype=np.int32)
    people = Population(("check",) * count, numbers, zeros, zeros, groups, groups, targets)
    training = Training(1, 2 * batch + batch // 2, batch, 1e-4, (1.0,))
    one = programs(network, training, loss=loss, metrics=loss_metrics, watch=False)
    members = jax.tree.map(jnp.asarray, {**members_of(people, numbers), "epoch": zeros})
    shared = jax.tree.map(jnp.asarray, shared_arrays(images, people, 0))
    states = jax.jit(jax.vmap(one.initialise, in_axes=(0, None)))(members, shared)
    expected = jax.jit(jax.vmap(one.epoch, in_axes=(0, 0, None)))(states, members, shared)
    found = jax.jit(lambda *stacked: one.fused_epoch(stacked[:2], stacked[2]))(states, members, shared)

    def compared(outcome: tuple[Params, Params]) -> Params:
        (adam, *_), record = outcome[0]["optimizer"], outcome[1]
        return {"means": adam.mu, "squares": adam.nu, "counts": adam.count, "losses": record["train_loss"]}

    def error(a: jax.Array, b: jax.Array) -> np.ndarray:
        ours, theirs = (np.asarray(leaf, np.float64).reshape(count, -1) for leaf in (a, b))
        errors = np.abs(ours - theirs).max(axis=1) / np.abs(theirs).max(axis=1)
        return np.nan_to_num(errors, nan=np.inf)

    errors = jax.tree.leaves(jax.tree.map(error, compared(found), compared(expected)))
    return float(max(np.quantile(each, 0.9) for each in errors))


def _store(params: Params, chunk_params: Params, chunk: np.ndarray, size: int) -> Params:
    """Writes a chunk's parameters into the population's, which are made on first use."""
    if not params:
        params = jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape[1:]), leaf.dtype), chunk_params)

    def write(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
        whole[chunk] = part
        return whole

    return jax.tree.map(write, params, chunk_params)


def _as_dict(state: Params) -> Params:
    """A training state as nested dicts, which is what a checkpoint holds."""
    return {"params": state["params"], "optimizer": dict(enumerate_leaves(state["optimizer"]))}


def enumerate_leaves(tree: Any) -> list[tuple[str, Array]]:  # noqa: ANN401
    """The leaves of any pytree, numbered in its own order."""
    return [(f"{number:03d}", leaf) for number, leaf in enumerate(jax.tree.leaves(tree))]


def _as_tree(saved: Params, optimizer: optax.GradientTransformation) -> Params:
    """The inverse of `_as_dict`."""
    structure = jax.tree.structure(optimizer.init(saved["params"]))
    leaves = [saved["optimizer"][name] for name in sorted(saved["optimizer"])]
    return {"params": saved["params"], "optimizer": jax.tree.unflatten(structure, leaves)}


def _check_finite(record: dict[str, np.ndarray], population: Population, chunk: np.ndarray, e: int) -> None:
    bad = np.flatnonzero(~np.isfinite(record["train_loss"]))
    if bad.size:
        member = int(chunk[bad[0]])
        raise UserError(
            f"the training loss of network {int(population.index[member])} of {population.name[member]} is "
            f"{record['train_loss'][bad[0]]} in epoch {e + 1}, so the run stopped; a smaller learning_rate "
            "usually mends it, in a work directory of its own."
        )
