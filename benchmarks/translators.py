"""A step of the CycleGANs of both layers: `cyclegan.train` for one pair and for many, and PyTorch's loop.

The engine draws its batches, here all kernel sets in an order of its own, on which no mean depends. Its
second step and PyTorch's first are compared with plain Flax convolutions: the losses, and what
`benchmarks.check` says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import check, contest, rows, torch_loops
from benchmarks.check import Snapshot
from benchmarks.contest import Contender, LeftOutError, Prepared
from benchmarks.rows import Row
from benchmarks.stopwatch import Compilations, Lockstep, Work
from benchmarks.suite import Settings
from benchmarks.zoo import Keeper
from kernelgan.generators import cyclegan
from kernelgan.types import Params

MFLOP = {"conv1": 38.1, "conv2": 208.7}
"""Of one pair of kernel sets in one step, with 64 hidden channels and no identity loss: 57 and 290 less the
products with the zeros around a volume, of which 0.668 and 0.720 are left (16/18 and 46/48 along the filters,
13/15 along each side)."""

SHAPES = {"conv1": (6, 5, 5, 3), "conv2": (16, 5, 5, 6)}
RATE, BETAS, CYCLE = 2e-4, (0.5, 0.999), 10.0
MOST_LAPS = 4_000
BASELINES = {"x PyTorch loop": "PyTorch loop"}

Volumes = dict[str, tuple[np.ndarray, np.ndarray]]


def make_volumes(pairs: int, members: int) -> Volumes:
    """Kernel sets of both layers and domains, ``(P, M, O, h, w, I)``, uniform in -1 to 1."""
    rng = np.random.default_rng(0)

    def domain(shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(-1, 1, (pairs, members, *shape)).astype(np.float32)

    return {layer: (domain(shape), domain(shape)) for layer, shape in SHAPES.items()}


# The reference --------------------------------------------------------------------------------------------


def _through(params: Params, volumes: jax.Array, between: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Both convolutions of a generator or a discriminator, as Flax's own."""

    def convolve(layer: Params, values: jax.Array) -> jax.Array:
        module = nn.Conv(layer["bias"].shape[-1], (3, 3, 3), precision=lax.Precision.HIGHEST)
        return module.apply({"params": layer}, values)  # type: ignore[return-value]

    return convolve(params["decode"], between(convolve(params["encode"], volumes)))


def _generate(params: Params, volumes: jax.Array) -> jax.Array:
    return jnp.tanh(_through(params, volumes, nn.relu))


def _judge(params: Params, volumes: jax.Array) -> jax.Array:
    return nn.sigmoid(_through(params, volumes, functools.partial(nn.leaky_relu, negative_slope=0.2)))


def _terms(generators: Params, discriminators: Params, a: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
    fake_b, fake_a = _generate(generators["a2b"], a), _generate(generators["b2a"], b)

    def against(domain: str, real: jax.Array, fake: jax.Array) -> jax.Array:
        right = jnp.mean(jnp.square(_judge(discriminators[domain], real) - 1))
        return 0.5 * (right + jnp.mean(jnp.square(_judge(discriminators[domain], fake))))

    return {
        "generator_a2b": jnp.mean(jnp.square(_judge(discriminators["b"], fake_b) - 1)),
        "generator_b2a": jnp.mean(jnp.square(_judge(discriminators["a"], fake_a) - 1)),
        "cycle": jnp.mean(jnp.abs(_generate(generators["b2a"], fake_b) - a))
        + jnp.mean(jnp.abs(_generate(generators["a2b"], fake_a) - b)),
        "discriminator_a": against("a", a, fake_a),
        "discriminator_b": against("b", b, fake_b),
    }


@jax.jit
def _reference(players: Params, a: jax.Array, b: jax.Array) -> tuple[Params, dict[str, jax.Array]]:
    """Each player's gradients of its own loss, and all losses."""

    def of_generators(generators: Params) -> jax.Array:
        terms = _terms(generators, players["discriminators"], a, b)
        return terms["generator_a2b"] + terms["generator_b2a"] + CYCLE * terms["cycle"]

    def of_discriminators(discriminators: Params) -> jax.Array:
        terms = _terms(players["generators"], discriminators, a, b)
        return terms["discriminator_a"] + terms["discriminator_b"]

    gradients = {
        "generators": jax.grad(of_generators)(players["generators"]),
        "discriminators": jax.grad(of_discriminators)(players["discriminators"]),
    }
    return gradients, _terms(players["generators"], players["discriminators"], a, b)


def step_error(
    before: Snapshot, after: Snapshot, losses: dict[str, np.ndarray], a: np.ndarray, b: np.ndarray
) -> float:
    """Of one layer's step of stacked pairs: what `check.step_error` says, and the losses' error."""

    def gradients(params: Params, n: int) -> Params:
        return _reference(params, a[n], b[n])[0]

    terms = [
        jax.device_get(_reference(check.member_of(before.params, n), a[n], b[n])[1]) for n in range(len(a))
    ]
    expected = {name: np.stack([one[name] for one in terms]) for name in terms[0]}
    of_step = check.step_error(before, after, gradients, learning_rate=RATE, betas=BETAS)
    of_losses = check.relative_error({name: losses[name] for name in expected}, expected)
    return float(np.max([of_step, of_losses]))


# The engine -----------------------------------------------------------------------------------------------


def train(
    volumes: Volumes,
    settings: Settings,
    *,
    laps: int,
    steps: int,
    saver: Keeper,
    progress: Callable[..., None],
) -> None:
    """`cyclegan.train` for ``laps`` calls of ``steps`` steps."""
    pairs = len(volumes["conv1"][0])
    cyclegan.train(
        volumes,
        dict.fromkeys(volumes, cyclegan.Translation(laps * steps, settings.translator_batch, RATE)),
        pairs=tuple(range(pairs)),
        hidden=settings.hidden,
        cycle=CYCLE,
        identity=0.0,
        steps_per_call=steps,
        seed=0,
        saver=saver,
        progress=progress,
    )


def _snapshots(
    saved: dict[str, Any], volumes: Volumes, hidden: int, pairs: np.ndarray
) -> dict[str, Snapshot]:
    """Of each layer, from what the engine saves."""

    def initial(key: jax.Array) -> Params:
        return {layer: cyclegan.initialise(hidden, sets[0][0], RATE, key) for layer, sets in volumes.items()}

    structure = jax.tree.structure(jax.eval_shape(initial, jax.random.key(0)))
    leaves = [saved["leaves"][name] for name in sorted(saved["leaves"])]
    states = jax.tree.map(lambda leaf: leaf[pairs], jax.tree.unflatten(structure, leaves))
    found = {}
    for layer, state in states.items():
        moments = {player: state[f"{player[:-1]}_moments"][0] for player in ("generators", "discriminators")}
        found[layer] = Snapshot(
            {player: state[player] for player in moments},
            {player: moment.mu for player, moment in moments.items()},
            {player: moment.nu for player, moment in moments.items()},
            int(np.max(moments["generators"].count)),
        )
    return found


def _engine_error(keeper: Keeper, volumes: Volumes, hidden: int) -> float:
    """Of the step between the first two states, for the first pair and the last."""
    pairs = np.unique([0, len(volumes["conv1"][0]) - 1])
    before, after = (_snapshots(state, volumes, hidden, pairs) for state in keeper.states)
    errors = []
    for layer, (a, b) in volumes.items():
        history = {name: values[pairs, 1] for name, values in keeper.states[1]["history"][layer].items()}
        errors.append(step_error(before[layer], after[layer], history, a[pairs], b[pairs]))
    return float(np.max(errors))


def engine(settings: Settings, pairs: int) -> Prepared:
    """`cyclegan.train` itself, a call a lap."""
    volumes = make_volumes(pairs, settings.translator_batch)
    steps, keeper = settings.translator_steps, Keeper(2)
    step = Lockstep(
        lambda lap: train(
            volumes,
            settings,
            laps=MOST_LAPS,
            steps=steps,
            saver=keeper if steps == 1 else Keeper(0),
            progress=lap,
        )
    )
    heard = Compilations()
    step.lap()
    compile_s = heard.seconds

    def error() -> float:
        if steps == 1:
            step.lap()
        else:  # a program of single steps
            train(volumes, settings, laps=2, steps=1, saver=keeper, progress=lambda *_: None)
        return _engine_error(keeper, volumes, settings.hidden)

    work = Work("", step.lap, pairs * steps, close=step.close)
    return Prepared(work, compile_s, error, {"pairs": pairs, "steps": steps})


# PyTorch --------------------------------------------------------------------------------------------------


def in_torch(settings: Settings) -> Prepared:
    """One pair, one layer after the other."""
    if reason := torch_loops.missing():
        raise LeftOutError(reason)
    volumes = make_volumes(1, settings.translator_batch)
    loops, starts = {}, {}
    for number, (layer, (a, b)) in enumerate(volumes.items()):
        key = jax.random.key(number)
        state = jax.device_get(cyclegan.initialise(settings.hidden, a[0], RATE, key))
        players = {player: state[player] for player in ("generators", "discriminators")}
        loops[layer] = torch_loops.TranslatorLoop(
            players["generators"], players["discriminators"], a[0], b[0], RATE, CYCLE
        )
        starts[layer] = check.start(jax.tree.map(lambda leaf: leaf[None], players))

    def run(steps: int) -> None:
        for loop in loops.values():
            loop.run(steps)

    def error() -> float:
        errors = []
        for layer, (a, b) in volumes.items():
            losses = {name: np.array([value]) for name, value in loops[layer].run(1).items()}
            errors.append(step_error(starts[layer], loops[layer].snapshot(), losses, a, b))
        return float(np.max(errors))

    return Prepared(Work("", run, 1), None, error, {"pairs": 1})


def engine_name(pairs: int) -> str:
    """Of the row."""
    return f"engine, {pairs} pair{'s' if pairs > 1 else ''}"


def measure(settings: Settings, mode: str) -> list[Row]:
    """A row for each number of pairs, and PyTorch's."""
    gflop = sum(MFLOP.values()) * settings.translator_batch * settings.hidden / 64 / 1e3
    contenders: list[tuple[str, Callable[[], Prepared]]] = [
        (engine_name(pairs), functools.partial(engine, settings, pairs)) for pairs in settings.pairs
    ]
    contenders.append(("PyTorch loop", functools.partial(in_torch, settings)))
    found = contest.hold(
        "translators",
        mode,
        [
            Contender(name, prepare, "pair and step of both layers", gflop, check.FLOAT32_TOLERANCE)
            for name, prepare in contenders
        ],
        rounds=settings.rounds,
        lap=settings.lap,
        matrix=settings.matrix,
    )
    rows.compare(found, BASELINES)
    return found
