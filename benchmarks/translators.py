"""A step of the CycleGANs of both layers, of one pair and of many, and PyTorch's loop; what they compose.

The engine draws its batches, here all kernel sets in an order of its own, on which no mean depends. Its
second step and PyTorch's first have the gradients of plain Flax convolutions (`benchmarks.check`).
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
from benchmarks.stopwatch import Compilations, Lockstep, Prepared
from kernelgan import kernels, models
from kernelgan.baselines import merges
from kernelgan.generators import base, cyclegan, fitting
from kernelgan.types import Params

SHAPES = {"conv1": (6, 5, 5, 3), "conv2": (16, 5, 5, 6)}
SIDES = ("generators", "discriminators")
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


def _squared(scores: jax.Array, target: float) -> jax.Array:
    return jnp.mean(jnp.square(scores - target))


@jax.jit
def _reference(players: Params, a: jax.Array, b: jax.Array) -> Params:
    """Each player's gradients of its own loss."""

    def of_generators(generators: Params) -> jax.Array:
        a2b, b2a = (functools.partial(_generate, generators[way]) for way in ("a2b", "b2a"))
        judges = players["discriminators"]
        cycle = jnp.mean(jnp.abs(b2a(a2b(a)) - a)) + jnp.mean(jnp.abs(a2b(b2a(b)) - b))
        fooled = _squared(_judge(judges["b"], a2b(a)), 1) + _squared(_judge(judges["a"], b2a(b)), 1)
        return fooled + CYCLE * cycle

    def of_discriminators(judges: Params) -> jax.Array:
        fakes = {
            way[-1]: _generate(players["generators"][way], real) for way, real in (("a2b", a), ("b2a", b))
        }
        terms = [
            _squared(_judge(judges[domain], real), 1) + _squared(_judge(judges[domain], fakes[domain]), 0)
            for domain, real in (("a", a), ("b", b))
        ]
        return 0.5 * sum(terms, jnp.float32(0))

    return {
        "generators": jax.grad(of_generators)(players["generators"]),
        "discriminators": jax.grad(of_discriminators)(players["discriminators"]),
    }


def _error(found: Params, players: Params, reals: list[tuple[Any, Any]]) -> float:
    """Of one layer's gradients of stacked pairs."""
    return check.gradient_error(found, players, lambda params, n: _reference(params, *reals[n]))


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
    fitting.fit(task, steps_per_call=1, saver=keeper)
    member = {"number": task.numbers[0], "view": views[0]}
    program = fitting.program(task.generator, task.name, 2, 1)
    structure = jax.tree.structure(jax.eval_shape(program.init, member, {"seed": np.int32(0)}))
    before, after = (check.member_of(state, np.array(pairs)) for state in keeper.states(structure))
    errors = []
    for layer in SHAPES:
        old, new = (state["state"]["layers"][layer] for state in (before, after))
        first, second = ({s: of[f"{s[:-1]}_moments"][0].mu for s in SIDES} for of in (old, new))
        found = check.between(first, second, BETAS[0])
        reals = [views[pair][layer] for pair in pairs]
        errors.append(_error(found, {side: old[side] for side in SIDES}, reals))
    return float(np.max(errors))


def torch_loop(parents: int, hidden: int) -> Prepared:
    """PyTorch, one pair, one layer after the other."""
    from benchmarks import torch_loops

    (view,) = make_views(1, parents)
    loops, starts = {}, {}
    for number, (layer, (a, b)) in enumerate(view.items()):
        state = jax.device_get(cyclegan.initialise(hidden, a, RATE, jax.random.key(number)))
        starts[layer] = {side: state[side] for side in SIDES}
        loops[layer] = torch_loops.TranslatorLoop(starts[layer], a, b, RATE, CYCLE)

    def run(steps: int) -> None:
        for loop in loops.values():
            loop.run(steps)

    def error() -> float:
        run(1)
        one = {layer: jax.tree.map(lambda leaf: leaf[None], players) for layer, players in starts.items()}
        errors = [_error(loops[layer].gradients(), one[layer], [both]) for layer, both in view.items()]
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
