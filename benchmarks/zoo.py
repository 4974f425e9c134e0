"""One training step of a population of networks, written in every way that comes to mind, and by the engine.

All variants train the same network (two 5 x 5 convolutions, 6 and 16 filters, 32 x 32 images) on batches of
their own. The bare ones have float32 images in memory, as the PyTorch ones; the engine draws, gathers and
converts its own. Each one's first step is compared with a plain Flax network's gradients before it is timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks import check, contest, rows, torch_loops
from benchmarks.check import Snapshot
from benchmarks.contest import Contender, LeftOutError, Prepared
from benchmarks.rows import Row
from benchmarks.stopwatch import Compilations, Lockstep, Work
from benchmarks.suite import Settings
from kernelgan import engine, models, parallel
from kernelgan.ops import products
from kernelgan.types import Params

FORWARD_BACKWARD_MFLOP = 2.856
"""Of one image through one network and back, without the gradient to the image: 352,800 + 240,000 + 800
multiply-adds forward, and twice that back but for the first layer's once."""

IMAGE_SIZE, RATE = 32, 1e-3
WHOLE_ZOO_PASSES = 140.7e6
"""Images that the reference's 4,498 networks train on, epoch by epoch, in all."""

BASELINES = {
    "x PyTorch loop": "PyTorch loop",
    "x first vmap": "first-written vmap",
    "x torch.vmap": "torch.func.vmap",
}
CHECKED = 4
"""Networks of a population that are compared."""


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


Forward = Callable[[Params, jax.Array], jax.Array]
"""``(params, images (B, H, W, C)) -> logits (B, 2)`` of one network."""


def _plain(precision: lax.Precision = lax.Precision.HIGHEST) -> Forward:
    network = PlainNet(precision)
    return lambda params, images: network.apply({"params": params}, images)  # type: ignore[return-value]


def _form(form: str) -> Forward:
    network = models.ConvNet(form=form)
    return lambda params, images: models.run_convnet(network, params, images)[0]


def _loss(forward: Forward, params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.mean(engine.cross_entropy(forward(params, images), labels))


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

    def __len__(self) -> int:
        return len(self.index)

    @property
    def images(self) -> np.ndarray:
        """Float32 ``(M, B, H, W, C)``."""
        return np.asarray(models.normalise_images(self.pictures))[self.index]

    @property
    def checked(self) -> np.ndarray:
        """The members that are compared, from the first to the last."""
        return np.unique(np.linspace(0, len(self) - 1, CHECKED).astype(int))

    def gradients(self, params: Params, n: int) -> Params:
        """The reference's, of the ``n``-th checked member."""
        member = self.checked[n]
        images = models.normalise_images(self.pictures[self.index[member]])
        return _reference(params, images, self.labels[member])


@jax.jit
def _reference(params: Params, images: jax.Array, labels: jax.Array) -> Params:
    return jax.grad(functools.partial(_loss, _plain()))(params, images, labels)


def make_problem(networks: int, batch: int, pictures: int) -> Problem:
    """Networks as the engine initialises them, and noise to train them on."""
    rng = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), networks)
    initialise = jax.jit(jax.vmap(lambda key: models.initialise_convnet(models.ConvNet(), IMAGE_SIZE, key)))
    return Problem(
        jax.device_get(initialise(keys)),
        rng.integers(0, 256, (pictures, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8),
        np.stack([rng.choice(pictures, batch, replace=False) for _ in range(networks)]).astype(np.int32),
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


def _take(tree: Params, members: np.ndarray) -> Params:
    return jax.tree.map(lambda leaf: np.asarray(leaf[members]), tree)


def _adam_snapshot(params: Params, optimizer: Any) -> Snapshot:  # noqa: ANN401
    """Of stacked members in optax's state."""
    adam = optimizer[0]
    values, first, second = jax.device_get((params, adam.mu, adam.nu))
    return Snapshot(values, first, second, int(np.max(jax.device_get(adam.count))))


# The bare variants ----------------------------------------------------------------------------------------

Over = Callable[[Callable[..., Any], parallel.Spread], Any]
"""A step of one network to that of a population, as `jax.jit` gives it."""


def over_vmap(step: Callable[..., Any], spread: parallel.Spread) -> Any:  # noqa: ANN401
    """What one writes first."""
    del spread
    return jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)), donate_argnums=(0,))


def over_map(step: Callable[..., Any], spread: parallel.Spread) -> Any:  # noqa: ANN401
    """One network after the other."""
    del spread

    def mapped(state: Params, images: jax.Array, labels: jax.Array, shared: Params) -> Params:
        return lax.map(lambda member: step(*member, shared), (state, images, labels))

    return jax.jit(mapped, donate_argnums=(0,))


def over_engine(step: Callable[..., Any], spread: parallel.Spread) -> Any:  # noqa: ANN401
    """As the engine maps."""
    return spread.map(step, donate_first=True)


def bare(problem: Problem, forward: Forward, over: Over, *, in_tf32: bool = False) -> Prepared:
    """Forward, backward and optax's Adam, mapped over networks; images lie on the device as float32."""
    optimizer = optax.adam(RATE)

    def step(state: Params, images: jax.Array, labels: jax.Array, shared: Params) -> Params:
        del shared
        gradients = jax.grad(functools.partial(_loss, forward))(state["params"], images, labels)
        updates, moments = optimizer.update(gradients, state["optimizer"])
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": moments}

    state = {"params": problem.params, "optimizer": jax.vmap(optimizer.init)(problem.params)}
    spread = parallel.Spread(len(problem))
    place = spread.deal if over is over_engine else jax.device_put
    state, images, labels = place((state, problem.images, problem.labels))
    begin = time.perf_counter()
    with tf32(in_tf32):
        compiled = over(step, spread).lower(state, images, labels, {}).compile()
    compile_s = time.perf_counter() - begin
    held = [state]

    def run(steps: int) -> None:
        for _ in range(steps):
            held[0] = compiled(held[0], images, labels, {})
        jax.block_until_ready(held[0])

    def error() -> float:
        before = check.start(_take(problem.params, problem.checked))
        run(1)
        found = jax.tree.map(lambda leaf: leaf[problem.checked], held[0])
        after = _adam_snapshot(found["params"], found["optimizer"])
        return check.step_error(before, after, problem.gradients, learning_rate=RATE)

    return Prepared(
        Work("", run, len(problem), close=held.clear), compile_s, error, {"networks": len(problem)}
    )


# The engine -----------------------------------------------------------------------------------------------


class Keeper:
    """A `engine.Saver` that keeps the first states in memory."""

    last_good = "none"

    def __init__(self, count: int) -> None:
        self.states: list[dict[str, Any]] = []
        self._count = count

    def restore(self) -> None:
        """Nothing to go on from."""

    def save(self, make_tree: Callable[[], dict[str, Any]], step: int) -> None:
        """Keeps a copy."""
        del step
        if len(self.states) < self._count:
            self.states.append(jax.tree.map(np.array, make_tree()))


def train_noise(
    network: models.ConvNet,
    count: int,
    pictures: np.ndarray,
    training: engine.Training,
    *,
    saver: Keeper,
    progress: Callable[..., None],
    chunk_size: int | None = None,
) -> Params:
    """The engine on networks that tell the first half of some pictures from the second."""
    half = len(pictures) // 2
    halves = (np.arange(half, dtype=np.int32), np.arange(half, 2 * half, dtype=np.int32))
    zeros = np.zeros(count, np.int32)
    members = engine.Population(
        name=("benchmark",) * count,
        index=np.arange(count, dtype=np.int32),
        grouping=zeros,
        target=zeros,
        groups=(halves,),
        validation=((np.zeros(0, np.int32),),),
        targets=(np.arange(len(pictures))[None] < half).astype(np.int8),
    )
    params, _ = engine.train(
        network,
        pictures,
        members,
        training,
        loss=engine.cross_entropy,
        metrics=engine.binary_metrics,
        seed=0,
        chunk_size=chunk_size or count,
        saver=saver,
        progress=progress,
    )
    return params


def engine_error(network: models.ConvNet, problem: Problem, in_tf32: bool) -> float:
    """Of the engine's second step, on as many pictures as a batch holds: whatever their order, it is all."""
    batch = problem.index.shape[1]
    pictures = problem.pictures[:batch]
    count = len(problem.checked)
    keeper = Keeper(2)
    training = engine.Training(2, batch, batch, RATE, (1.0, 1.0))
    with tf32(in_tf32):
        train_noise(network, count, pictures, training, saver=keeper, progress=lambda *_: None)
    whole = dataclasses.replace(
        problem,
        pictures=pictures,
        index=np.tile(np.arange(batch), (count, 1)),
        labels=np.tile((np.arange(batch) < batch // 2).astype(np.int32), (count, 1)),
    )
    before, after = (_saved_snapshot(state["state"], count) for state in keeper.states)
    return check.step_error(before, after, whole.gradients, learning_rate=RATE)


def _saved_snapshot(state: Params, count: int) -> Snapshot:
    """Of what the engine saves, see `engine.Saver`."""
    structure = jax.tree.structure(optax.adam(RATE).init(state["params"]))
    leaves = [state["optimizer"][name] for name in sorted(state["optimizer"])]
    optimizer = jax.tree.unflatten(structure, leaves)
    first = functools.partial(jax.tree.map, lambda leaf: leaf[:count])
    return _adam_snapshot(first(state["params"]), first(optimizer))


def our_engine(
    problem: Problem, settings: Settings, *, form: str | None = None, in_tf32: bool = False
) -> Prepared:
    """`engine.train` itself, an epoch a lap."""
    network = models.ConvNet() if form is None else models.ConvNet(form=form)
    epochs = settings.rounds + 8
    training = engine.Training(epochs, settings.steps * settings.batch, settings.batch, RATE, (1.0, 1.0))
    step = Lockstep(
        lambda lap: train_noise(
            network, len(problem), problem.pictures, training, saver=Keeper(0), progress=lap
        )
    )
    heard = Compilations()
    with tf32(in_tf32):
        step.lap()
    return Prepared(
        Work("", step.lap, len(problem) * settings.steps, repetitions=1, close=step.close),
        heard.seconds,
        lambda: engine_error(network, problem, in_tf32),
        {"networks": len(problem), "steps": settings.steps},
    )


# Others' --------------------------------------------------------------------------------------------------


def direct(problem: Problem) -> Prepared:
    """Vector code for CPUs."""
    _need_direct()
    return bare(problem, _form("direct"), over_engine)


def _need_direct() -> None:
    from kernelgan.ops import cpu

    if not cpu.is_available():
        raise LeftOutError("numba, or a jaxlib that it knows, is not here")


def fused(problem: Problem, settings: Settings) -> Prepared:
    """A whole epoch in one GPU kernel, where the package has it."""
    try:
        package = importlib.import_module("kernelgan.ops.gpu")
    except ImportError:
        raise LeftOutError("this version has no kernelgan.ops.gpu") from None
    if not package.is_available():
        raise LeftOutError("kernelgan.ops.gpu is not available on this machine")
    train_epoch = importlib.import_module("kernelgan.ops.gpu.operation").train_epoch
    optimizer = optax.adam(RATE)
    state = {"params": problem.params, "optimizer": jax.vmap(optimizer.init)(problem.params)}
    state, pictures = jax.device_put((state, problem.pictures))

    def program(steps: int) -> Callable[[Params], Params]:
        index = jax.device_put(np.repeat(problem.index[:, None], steps, axis=1))  # (M, S, B)
        targets = jax.device_put(np.repeat(problem.labels[:, None], steps, axis=1))
        weights = jnp.ones((steps, problem.index.shape[1]), jnp.float32)

        def epoch(state: Params, pictures: jax.Array) -> Any:  # noqa: ANN401
            return train_epoch(
                state,
                pictures,
                index,
                targets,
                weights,
                network=models.ConvNet(),
                loss=engine.cross_entropy,
                learning_rate=RATE,
            )

        compiled = jax.jit(epoch).lower(state, pictures).compile()

        def call(state: Params) -> Params:
            return compiled(state, pictures)[0]

        return call

    begin = time.perf_counter()
    steps = settings.steps
    many = program(steps)
    compile_s = time.perf_counter() - begin
    held = [state]

    def run(epochs: int) -> None:
        for _ in range(epochs):
            held[0] = many(held[0])
        jax.block_until_ready(held[0])

    def error() -> float:
        found = jax.tree.map(lambda leaf: leaf[problem.checked], program(1)(held[0]))
        after = _adam_snapshot(found["params"], found["optimizer"])
        before = check.start(_take(problem.params, problem.checked))
        return check.step_error(before, after, problem.gradients, learning_rate=RATE)

    return Prepared(
        Work("", run, len(problem) * steps, close=held.clear), compile_s, error, {"networks": len(problem)}
    )


def in_torch(problem: Problem, *, mapped: bool = False, channels_last: bool = False) -> Prepared:
    """PyTorch's loop, or its map."""
    if reason := torch_loops.missing():
        raise LeftOutError(reason)
    given = (problem.params, problem.images, problem.labels, RATE)
    loop = torch_loops.ZooMap(*given) if mapped else torch_loops.ZooLoop(*given, channels_last=channels_last)

    def error() -> float:
        loop.run(1)
        before = check.start(_take(problem.params, problem.checked))
        return check.step_error(before, loop.snapshot(problem.checked), problem.gradients, learning_rate=RATE)

    return Prepared(Work("", loop.run, len(problem)), None, error, {"networks": len(problem)})


# All of them ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to write the step.

    Attributes:
      prepare: compiles it for a problem.
      kind: how many networks it is given, see `Settings.networks`.
      modes: in which it is timed.
      precision: of its products.
    """

    prepare: Callable[[Problem, Settings], Prepared]
    kind: str
    modes: tuple[str, ...] = (rows.ONE_CORE, rows.ALL_CORES, rows.GPU)
    precision: str = "float32"


_CPU = (rows.ONE_CORE, rows.ALL_CORES)
_EVERYWHERE = (*_CPU, rows.DEVICES, rows.GPU)
_SPREAD = (*_CPU, rows.DEVICES)


VARIANTS: dict[str, Variant] = {
    "engine": Variant(our_engine, "many", _EVERYWHERE),
    "engine, tiles form": Variant(
        lambda problem, settings: our_engine(problem, settings, form="tiles"), "many", _EVERYWHERE
    ),
    "engine, TF32": Variant(
        lambda problem, settings: our_engine(problem, settings, form="tiles", in_tf32=True),
        "many",
        (rows.GPU,),
        "TF32",
    ),
    "fused": Variant(fused, "many", (rows.GPU,)),
    "direct": Variant(lambda problem, _: direct(problem), "many", _SPREAD),
    "tiles": Variant(lambda problem, _: bare(problem, _form("tiles"), over_engine), "many", _EVERYWHERE),
    "tiles, TF32": Variant(
        lambda problem, _: bare(problem, _form("tiles"), over_engine, in_tf32=True),
        "many",
        (rows.GPU,),
        "TF32",
    ),
    "lax.map over lax.conv": Variant(lambda problem, _: bare(problem, _plain(), over_map), "few"),
    "first-written vmap": Variant(lambda problem, _: bare(problem, _plain(), over_vmap), "side"),
    "first-written vmap, TF32": Variant(
        lambda problem, _: bare(problem, _plain(lax.Precision.DEFAULT), over_vmap),
        "side",
        (rows.GPU,),
        "TF32",
    ),
    "PyTorch loop": Variant(lambda problem, _: in_torch(problem), "few", _EVERYWHERE),
    "PyTorch loop, channels last": Variant(
        lambda problem, _: in_torch(problem, channels_last=True), "few", _EVERYWHERE
    ),
    "torch.func.vmap": Variant(lambda problem, _: in_torch(problem, mapped=True), "side"),
}


def contenders(settings: Settings, mode: str, variants: dict[str, Variant]) -> list[Contender]:
    """Those that take part in a mode."""
    problem_of = functools.cache(lambda networks: make_problem(networks, settings.batch, settings.pictures))

    def prepare(variant: Variant) -> Prepared:
        devices = len(parallel.devices())
        networks = -(-settings.networks[variant.kind] // devices) * devices
        while True:  # what a GPU's memory does not hold is tried with half as many
            try:
                return variant.prepare(problem_of(networks), settings)
            except Exception as error:
                full = "out of memory" in str(error).lower().replace("_", " ")
                full |= "RESOURCE_EXHAUSTED" in str(error)
                if mode != rows.GPU or networks < 2 * devices or not full:
                    raise
                networks = networks // 2 // devices * devices

    return [
        Contender(
            name,
            functools.partial(prepare, variant),
            "network and step",
            FORWARD_BACKWARD_MFLOP * settings.batch / 1e3,
            check.FLOAT32_TOLERANCE if variant.precision == "float32" else check.TF32_TOLERANCE,
            variant.precision,
        )
        for name, variant in variants.items()
        if mode in variant.modes
    ]


def measure(settings: Settings, mode: str, variants: dict[str, Variant] | None = None) -> list[Row]:
    """All variants in one mode."""
    found = contest.hold(
        "zoo",
        mode,
        contenders(settings, mode, VARIANTS if variants is None else variants),
        rounds=settings.rounds,
        lap=settings.lap,
        matrix=settings.matrix,
    )
    rows.compare(found, BASELINES)
    for row in found:
        row.details["batch"] = settings.batch
        if row.ms:
            row.details["whole_zoo_s"] = whole_zoo_seconds(row.ms, settings.batch)
    return found


def whole_zoo_seconds(ms: float, batch: int) -> float:
    """What the reference's whole zoo would take, at ``ms`` milliseconds for a step of ``batch`` images."""
    return WHOLE_ZOO_PASSES / batch * ms / 1e3
