"""Training of generators: one program for all pairs, or for all folds of a joint generator."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from jax import lax

from kernelgan import engine
from kernelgan.generators import base, check
from kernelgan.generators.base import Generator, JointView, Metrics, Parents, Probes, State, View
from kernelgan.types import Array, Key, Params, UserError


class Fitted(NamedTuple):
    """What `fit` gives.

    Attributes:
      state: what ``generate`` needs, stacked along ``P`` pairs (or, if joint, folds).
      history: metrics ``(P, S)``, nested as the generator's.
      watched: what it was seen to do before its first step.
    """

    state: State
    history: Metrics
    watched: check.Watched | None = None


def pair_key(seed: int | Array, number: int | Array) -> Key:
    """The key of a pair's training; the same for every family, so that two are compared on equal draws."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), number)


def program(generator: Generator, name: str, steps: int, steps_per_call: int) -> engine.Program:
    """How one pair's (or fold's) generator is trained; a member is ``{"number": int32, "view": view}``.

    Args:
      generator: of one pair.
      name: of the generator, for errors.
      steps: updates in all; in the last call what is over them changes nothing.
      steps_per_call: updates in a call.
    """
    try:
        hash(generator)
    except TypeError:  # a user's may hold anything that can be called
        return _program.__wrapped__(generator, name, steps, steps_per_call)
    return _program(generator, name, steps, steps_per_call)


@functools.lru_cache(maxsize=16)  # equal programs are one: the engine compiles it once
def _program(generator: Generator, name: str, steps: int, steps_per_call: int) -> engine.Program:
    def updated(key: Key, state: State, view: View) -> tuple[State, Metrics]:
        with check.named(name, "update"):
            made = generator.update(key, state, view)
            check.check_update(made, state)
            return made

    def init(member: Params, shared: Params) -> Params:
        key = pair_key(shared["seed"], member["number"])
        with check.named(name, "init"):
            state = generator.init(key, member["view"])
        metrics = jax.eval_shape(updated, key, state, member["view"])[1]
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)
        return {"state": state, "metrics": zeros}

    def advance(both: Params, member: Params, shared: Params, call: jax.Array) -> tuple[Params, Metrics]:
        key = pair_key(shared["seed"], member["number"])

        def step(both: Params, number: jax.Array) -> tuple[Params, Metrics]:
            def work(both: Params) -> Params:
                fresh = jax.random.fold_in(key, 1 + number)
                state, metrics = updated(fresh, both["state"], member["view"])
                return {"state": state, "metrics": metrics}

            whole = steps % steps_per_call == 0
            both = work(both) if whole else lax.cond(number < steps, work, lambda both: both, both)
            return both, both["metrics"]

        return lax.scan(step, both, call * steps_per_call + jnp.arange(steps_per_call))

    def keep(both: Params) -> State:
        with check.named(name, "keep"):
            return generator.keep(both["state"])

    return engine.Program(init, advance, keep)


class Task(NamedTuple):
    """What is fitted.

    Attributes:
      name: of the generator, for errors.
      generator: of a family.
      views: what it learns from, for each pair or, of a joint generator, each fold; all of the same shapes.
      names: of each pair or fold; with the seed they fix its random numbers.
    """

    name: str
    generator: Generator
    views: list[View]
    names: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Updates in all."""
        steps = self.generator.steps
        with check.named(self.name, "steps"):
            steps = steps(self.views[0]) if callable(steps) else steps
        if not isinstance(steps, int) or steps < 0:
            raise UserError(f"the generator {self.name} has steps={steps!r}; expected a whole number.")
        return steps

    @property
    def numbers(self) -> np.ndarray:
        """A number for each name, int32."""
        return np.array([zlib.crc32(name.encode()) & 0x7FFFFFFF for name in self.names], np.int32)


def views(
    name: str,
    generator: Generator,
    parents: Sequence[Parents],
    probes: Sequence[Probes],
    folds: Sequence[Array] = (),
) -> list[View]:
    """What a generator learns from, for each pair or fold.

    Args:
      name: of the generator, for errors.
      generator: of a family.
      parents: of each pair ``P``, all of the same shapes.
      probes: of each pair, all of one shape.
      folds: of a joint generator, float ``(P,)`` for each fold: the pairs' weights, 0 for those held out.

    Raises:
      UserError: the generator is joint and there are no folds, or its ``view`` raises.
    """
    with check.named(name, "view"):
        of_pairs = [generator.view(*base.copied(both)) for both in zip(parents, probes, strict=True)]
    if not generator.joint:
        return of_pairs
    if not len(folds):
        raise UserError(
            f"the generator {name} is joint: it learns from the other pairs of a fold. Give folds."
        )
    joint = []
    for weights in folds:  # in the place of a pair that is held out stands one that is not, with weight 0
        learnt = np.flatnonzero(np.asarray(weights) > 0)[0]
        both = zip(of_pairs, weights, strict=True)
        shown = [view if weight > 0 else of_pairs[learnt] for view, weight in both]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *shown)
        joint.append(JointView(stacked, np.asarray(weights, np.float32)))
    return joint


def fit(
    task: Task,
    *,
    seed: int = 0,
    steps_per_call: int = 25,
    remedy: str = "A smaller learning rate usually helps.",
    saver: engine.Saver = engine.NOWHERE,
    progress: engine.Report = engine.silent,
) -> Fitted:
    """Trains a generator for every pair in one program, or a joint one for every fold.

    Args:
      task: what is fitted.
      seed: of the run.
      steps_per_call: updates between two looks at the metrics and a possible save.
      remedy: what to do about a metric that is not finite, for errors.
      saver: keeps the state between calls.
      progress: is told after each call how many steps are done, of how many.

    Raises:
      UserError: a metric is not finite, or the generator's own code raises.
    """
    with check.named(task.name, "view"):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *task.views)
    members = {"number": task.numbers, "view": stacked}
    steps = task.steps
    per_call = min(steps_per_call, steps)
    if steps == 0:
        with check.named(task.name, "init"):
            return Fitted(untrained(task, seed), {})
    calls = -(-steps // per_call)

    def told(done: int, total: int, metrics: dict[str, float]) -> None:
        last = done // calls * steps + min(done % calls * per_call, steps)  # the last call has fewer
        progress(last, total // calls * steps, metrics)

    state, history = engine.fit(
        program(task.generator, task.name, steps, per_call),
        members,
        {"seed": np.int32(seed)},
        calls=calls,
        pace=per_call,
        names=lambda member: f"{task.name}, {task.names[member]}",
        unit="step",
        remedy=remedy,
        saver=saver,
        progress=told,
    )
    return Fitted(state, jax.tree.map(lambda values: values[:, :steps], history))


def fit_pair(
    generator: Generator,
    parents: Sequence[Any],
    *,
    probes: Probes = None,
    name: str = "pair",
    seed: int = 0,
    steps_per_call: int = 25,
    saver: engine.Saver = engine.NOWHERE,
    progress: engine.Report = engine.silent,
) -> Fitted:
    """Trains a generator for one pair of zoos.

    Args:
      generator: of a family, not joint.
      parents: the attribute's networks and the object's: zoos of `kernelgan.train_zoo` or
        `kernelgan.load_zoo`, or their parameters.
      probes: images uint8 ``(N, H, W, C)`` for a generator of tier S or U, such as `kernelgan.probes` makes.
      name: of the pair; with the seed it fixes the random numbers.
      seed: an integer.
      steps_per_call: updates between two looks at the metrics and a possible save.
      saver: keeps the state between calls.
      progress: is told after each call.

    Returns:
      The state for ``generator.generate``, and the metrics ``(S,)``; without an axis of pairs.

    Raises:
      UserError: these are not the networks of two concepts, a metric is not finite, the generator's own code
        raises, or it needs probes.
    """
    if not isinstance(generator, Generator):
        raise UserError(
            f"fit was given a {type(generator).__name__} as its generator; expected fit(generator, parents), "
            "with a generator of kernelgan.generators.make or stateless."
        )
    if len(parents) != len(Parents._fields):
        raise UserError(f"fit was given the networks of {len(parents)} concepts; expected those of two.")
    zoos = Parents(*jax.tree.map(np.asarray, check.parents_of(parents)[0]))
    if generator.reads != "W" and probes is None:
        raise UserError(f"this generator reads images (tier {generator.reads}); give probes.")
    given = None if generator.reads == "W" else probes
    task = Task("generator", generator, views("generator", generator, [zoos], [given]), (name,))
    fitted = fit(task, seed=seed, steps_per_call=steps_per_call, saver=saver, progress=progress)
    state, history = jax.tree.map(lambda leaf: leaf[0], (fitted.state, fitted.history))
    return Fitted(state, history)


def untrained(task: Task, seed: int) -> State:
    """The first state of each member, stacked; numpy."""
    states = [
        task.generator.keep(task.generator.init(pair_key(seed, number), view))
        for number, view in zip(task.numbers, task.views, strict=True)
    ]
    return jax.device_get(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))


def from_dict(task: Task, saved: Params) -> State:
    """A state from the nested dicts that `flax.serialization.to_state_dict` made of it."""

    def first(view: View) -> State:
        return task.generator.keep(task.generator.init(pair_key(0, 0), view))

    return serialization.from_state_dict(jax.eval_shape(first, task.views[0]), saved)
