"""A step of the CycleGANs of both layers, of one pair and of many, and PyTorch's loop; what they compose.

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

from benchmarks import check, zoo
from benchmarks.check import Snapshot
from benchmarks.stopwatch import Compilations, Lockstep, Prepared
from kernelgan import kernels, models
from kernelgan.baselines import merges
from kernelgan.generators import base, cyclegan, fitting
from kernelgan.types import Params

SHAPES = {"conv1": (6, 5, 5, 3), "conv2": (16, 5, 5, 6)}
RATE, BETAS, CYCLE = 2e-4, (0.5, 0.999), 10.0

View = dict[str, tuple[np.ndarray, np.ndarray]]
"""Of one pair, by layer, the kernel sets of both domains ``(M, O, h, w, I)``."""


def make_views(pairs: int, parents: int) -> list[View]:
    """Kernel sets uniform in -1 to 1."""
    rng = np.random.default_rng(0)

    def domain(shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(-1, 1, (parents, *shape)).astype(np.float32)

    return [{layer: (domain(shape), domain(shape)) for layer, shape in SHAPES.items()} for _ in range(pairs)]


# The reference --------------------------------------------------------------------------------------------


def _through(params: Params, volumes: Any, between: Callable[[jax.Array], jax.Array]) -> jax.Array:  # noqa: ANN401
    """Both convolutions of a generator or a discriminator, as Flax's own."""

    def convolve(layer: Params, values: jax.Array) -> jax.Array:
        module = nn.Conv(layer["bias"].shape[-1], (3, 3, 3), precision=lax.Precision.HIGHEST)
        return module.apply({"params": layer}, values)  # type: ignore[return-value]

    return convolve(params["decode"], between(convolve(params["encode"], volumes)))


def _generate(params: Params, volumes: Any) -> jax.Array:  # noqa: ANN401
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
    before: Snapshot, after: Snapshot, losses: dict[str, np.ndarray], reals: list[tuple[Any, Any]]
) -> float:
    """Of one layer's step of stacked pairs: what `check.step_error` says, and the losses' error."""
    of_step = check.step_error(
        before, after, lambda params, n: _reference(params, *reals[n])[0], learning_rate=RATE, betas=BETAS
    )
    terms = [_reference(check.member_of(before.params, n), *both)[1] for n, both in enumerate(reals)]
    expected = {name: np.stack([of_pair[name] for of_pair in terms]) for name in terms[0]}
    of_losses = check.relative_error({name: losses[name] for name in expected}, expected)
    return float(np.max([of_step, of_losses]))


# The engine -----------------------------------------------------------------------------------------------


def _task(views: list[View], updates: int, parents: int, hidden: int) -> fitting.Task:
    config = cyclegan.Config(
        hidden=hidden,
        epochs=(updates,),
        batch_size=(parents,),
        learning_rate=(RATE,),
        cycle_weight=CYCLE,
    )
    names = tuple(f"pair {number}" for number in range(len(views)))
    return fitting.Task("cyclegan", cyclegan.make(models.ConvNet(), config), views, names)


def engine(pairs: int, steps: int, parents: int, hidden: int, *, checked: bool = True) -> Prepared:
    """`fitting.fit` of the family itself, a call a lap."""
    views = make_views(pairs, parents)
    task = _task(views, Lockstep.MOST * steps, parents, hidden)
    step = Lockstep(lambda lap: fitting.fit(task, steps_per_call=steps, progress=lap))
    heard = Compilations()
    step.laps(1)
    return Prepared(
        step.laps,
        pairs * steps if checked else 1,
        functools.partial(_engine_error, views, parents, hidden) if checked else None,
        heard.seconds,
        close=step.close,
    )


def _engine_error(views: list[View], parents: int, hidden: int) -> float:
    """Of the second step, for the first pair and the last."""
    keeper, pairs = check.Keeper(), sorted({0, len(views) - 1})
    task = _task(views, 2, parents, hidden)
    fitted = fitting.fit(task, steps_per_call=1, saver=keeper)
    member = {"number": task.numbers[0], "view": views[0]}
    program = fitting.program(task.generator, task.name, 2, 1)
    structure = jax.tree.structure(jax.eval_shape(program.init, member, {"seed": np.int32(0)}))
    before, after = (check.member_of(state, np.array(pairs)) for state in keeper.states(structure))
    errors = []
    for layer in SHAPES:
        first, second = (_snapshot(each["state"]["layers"][layer]) for each in (before, after))
        losses = {name: values[pairs, 1] for name, values in fitted.history[layer].items()}
        errors.append(step_error(first, second, losses, [views[p][layer] for p in pairs]))
    return float(np.max(errors))


def _snapshot(state: Params) -> Snapshot:
    """Of one layer of stacked pairs."""
    adam = {player: state[f"{player[:-1]}_moments"][0] for player in ("generators", "discriminators")}
    return Snapshot(
        {player: state[player] for player in adam},
        {player: moments.mu for player, moments in adam.items()},
        {player: moments.nu for player, moments in adam.items()},
        int(np.max(adam["generators"].count)),
    )


def torch_loop(parents: int, hidden: int) -> Prepared:
    """PyTorch, one pair, one layer after the other."""
    from benchmarks import torch_loops

    (view,) = make_views(1, parents)
    loops, starts = {}, {}
    for number, (layer, (a, b)) in enumerate(view.items()):
        state = jax.device_get(cyclegan.initialise(hidden, a, RATE, jax.random.key(number)))
        players = {player: state[player] for player in ("generators", "discriminators")}
        loops[layer] = torch_loops.TranslatorLoop(players, a, b, RATE, CYCLE)
        starts[layer] = check.start(jax.tree.map(lambda leaf: leaf[None], players))

    def run(steps: int) -> None:
        for loop in loops.values():
            loop.run(steps)

    def error() -> float:
        errors = []
        for layer, both in view.items():
            losses = {name: np.array([value]) for name, value in loops[layer].run(1).items()}
            errors.append(step_error(starts[layer], loops[layer].snapshot(), losses, [both]))
        return float(np.max(errors))

    return Prepared(run, 1, error)


# Networks from parents ------------------------------------------------------------------------------------


def _parents(pairs: int, parents: int) -> list[base.Parents]:
    networks = zoo.make_networks(2 * parents * pairs)
    sides = [
        check.member_of(networks, part)
        for part in np.split(np.arange(len(networks["dense"]["bias"])), 2 * pairs)
    ]
    return [base.Parents(*sides[2 * p : 2 * p + 2]) for p in range(pairs)]


def compose(pairs: int, parents: int, hidden: int) -> Prepared:
    """Both directions of untrained CycleGANs, for all pairs in one compiled call; from host to host."""
    both, generator = _parents(pairs, parents), _task([], 1, parents, hidden).generator
    views = [generator.view(each, None) for each in both]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *views)
    first = jax.jit(jax.vmap(lambda key, view: generator.keep(generator.init(key, view))))
    fitted = jax.device_get(first(jax.random.split(jax.random.key(1), pairs), stacked))
    keys = list(jax.random.split(jax.random.key(0), pairs))

    def run(times: int) -> None:
        for _ in range(times):
            base.generate(generator, fitted, both, [None] * pairs, keys, name="cyclegan")

    def error() -> float:
        """Of the last pair's translated kernels, in the range of the other zoo's."""
        heard = Compilations()
        found = base.generate(generator, fitted, both, [None] * pairs, keys, name="cyclegan")[-1]["a2b"]
        work.compile_s = heard.seconds
        expected, layers = {}, tuple(SHAPES)
        for layer, sets in kernels.extract(both[-1].object, layers).items():
            params = check.member_of(fitted[layer]["a2b"], pairs - 1)
            translated = np.asarray(_generate(params, views[-1][layer][0]))
            expected[layer] = {"": translated * np.abs(sets).max()}
        return check.relative_error(
            {layer: {"": sets} for layer, sets in kernels.extract(found, layers).items()}, expected
        )

    work = Prepared(run, 2 * parents * pairs, error)
    return work


def merge(parents: int) -> Prepared:
    """The average of matched parents, which is the same whichever filters of a parent change places."""
    ((attribute, objects),) = _parents(1, parents)
    order = np.random.default_rng(0).permutation(SHAPES["conv1"][0])
    moved = {**objects, "conv1": {name: leaf[..., order] for name, leaf in objects["conv1"].items()}}
    moved["conv2"] = {**objects["conv2"], "kernel": objects["conv2"]["kernel"][..., order, :]}

    def run(times: int) -> None:
        for _ in range(times):
            merges.rebasin_average(attribute, objects)

    def error() -> float:
        found = merges.rebasin_average(attribute, moved)
        return check.relative_error(found, merges.rebasin_average(attribute, objects))

    return Prepared(run, parents, error)
