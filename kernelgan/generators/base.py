"""What a generator is: a NamedTuple of pure functions that turn two populations of parents into new networks.

A family is a module with ``make(network, config) -> Generator`` and, unless it needs no settings, a dataclass
``Config``. The functions are written for ONE concept pair; `fit` and `generate` add the pair axis. A
generator is handed what its tier allows and nothing else, and it returns parameters: the caller builds the
network, runs it and counts it.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from jax import lax

from kernelgan import engine, parallel
from kernelgan.generators import check
from kernelgan.types import Array, Key, Params, UserError

Tier = Literal["W", "S", "U"]
"""What a generator is handed beside a key: W, the parents; S, also images that the package makes; U, also
unlabelled training images of the three seen quadrants."""

Probes = Array | None
"""Images uint8 ``(N, H, W, C)`` in random order, or None in tier W."""

_TOGETHER = 8  # pairs on each accelerator

View = Any
State = Any
Metrics = dict[str, Any]
Networks = dict[str, Params]
"""By key, stacked parameters ``(M, ...)``.

A row of the table is called ``<family>_<key>``; for "", ``<family>``."""


class Parents(NamedTuple):
    """The two zoos of a pair; every leaf has a leading ``M``, of stacked pairs ``(P, M)``.

    Attributes:
      attribute: stacked parameters, ``M`` networks that know the attribute.
      object: the same for the object.
    """

    attribute: Params
    object: Params


IMAGES = 4608
"""Most probes that a generator is handed unless it says otherwise; rivals' heads are fitted to as many."""


class Generator(NamedTuple):
    """A generator of one pair; pure functions, traced by JAX unless ``host``.

    Attributes:
      view: ``(parents, probes) -> view``, what it learns from; called once, on numpy arrays, untraced.
      init: ``(key, view) -> state``.
      update: ``(key, state, view) -> (state, metrics)``; one step of training, with a fresh key.
      generate: ``(key, state, parents, probes) -> {key: networks}``; networks are stacked ``(M, ...)``, in
        the layout of the parents, with 2 outputs (the conjunction itself) or 4 (both concepts).
      steps: updates, or a function of the view that gives their number.
      joint: whether one state serves all pairs of a fold; `view`, `init` and `update` then get `JointView`.
      reads: its tier.
      images: most probes that it is handed, in tiers S and U.
      made: in tier S, which images of `kernelgan.probes`: "rendered" or "noise".
      keep: ``state -> what generate needs of it``; selects, computes nothing.
      host: whether `generate` is plain Python on numpy arrays, called pair by pair.
      separable: whether network ``i`` rests on parents ``i`` alone, where both zoos have as many.
    """

    view: Callable[[Parents, Probes], View]
    init: Callable[[Key, View], State]
    update: Callable[[Key, State, View], tuple[State, Metrics]]
    generate: Callable[[Key, State, Parents, Probes], Networks]
    steps: int | Callable[[View], int]
    joint: bool = False
    reads: Tier = "W"
    images: int = IMAGES
    made: str = "rendered"
    keep: Callable[[State], State] = lambda state: state
    host: bool = False
    separable: bool = False


class JointView(NamedTuple):
    """What a joint generator learns from: a fold.

    Attributes:
      views: the pairs' views, stacked along ``P``; a pair that is held out has the view of another pair.
      weights: float32 ``(P,)``, 0 for the pairs that are held out.
    """

    views: View
    weights: Array


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


def stateless(
    generate: Callable[..., Params | Networks],
    *,
    reads: Tier = "W",
    images: int = IMAGES,
    made: str = "rendered",
    host: bool = True,
    separable: bool = False,
) -> Generator:
    """A generator that learns nothing.

    Args:
      generate: ``(key, parents, probes) -> networks``: stacked parameters, or several by key.
      reads: its tier.
      images: most probes that it is handed.
      made: see `Generator`.
      host: False if it is a traceable JAX function, which then runs for all pairs in one compiled call.
      separable: see `Generator`.
    """

    def networks(key: Key, state: State, parents: Parents, probes: Probes) -> Networks:
        del state
        made = generate(key, parents, probes)
        return made if not isinstance(made, dict) or _is_by_key(made) else {"": made}

    return Generator(
        view=lambda parents, probes: {},
        init=lambda key, view: {},
        update=lambda key, state, view: (state, {}),
        generate=networks,
        steps=0,
        reads=reads,
        images=images,
        made=made,
        host=host,
        separable=separable,
    )


def _is_by_key(made: Mapping[str, Any]) -> bool:
    """Whether it is several networks by key: parameters hold arrays two levels down, these three."""
    return all(
        isinstance(networks, Mapping)
        and bool(networks)
        and all(isinstance(layer, Mapping) for layer in networks.values())
        for networks in made.values()
    )


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
        of_pairs = [generator.view(*_copied(both)) for both in zip(parents, probes, strict=True)]
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
            return Fitted(_untrained(task, seed), {})
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


def _untrained(task: Task, seed: int) -> State:
    """The first state of each member, which is the last."""
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


def untold(done: int, total: int) -> None:
    """Progress that nobody is told."""
    del done, total


def generate(
    generator: Generator,
    fitted: State,
    parents: Sequence[Parents],
    probes: Sequence[Probes],
    keys: Sequence[Key],
    *,
    name: str,
    progress: Callable[[int, int], None] = untold,
) -> list[Networks]:
    """Networks of every pair, by one compiled program unless the generator runs on the host.

    Pairs are taken together: one a device on CPUs, `_TOGETHER` a device on accelerators.

    Args:
      generator: of a family.
      fitted: its states, stacked along ``P``.
      parents: of each pair.
      probes: of each pair.
      keys: of each pair.
      name: of the generator, for errors.
      progress: is told how many pairs are done, of how many.

    Returns:
      For each pair, networks by key; numpy.

    Raises:
      UserError: the generator raises an exception.
    """
    parts = _parts(generator, parents)
    if parts > 1:
        rows = generate(
            generator._replace(separable=False),
            jax.tree.map(lambda leaf: np.repeat(leaf, parts, axis=0), fitted),
            [part for pair in parents for part in _shares(pair, parts)],
            [images for images in probes for _ in range(parts)],
            [key for key in keys for _ in range(parts)],
            name=name,
            progress=lambda done, total: progress(done // parts, total // parts),
        )
        return [
            jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows[first : first + parts])
            for first in range(0, len(rows), parts)
        ]
    at_once = len(parallel.devices()) * (1 if jax.default_backend() == "cpu" else _TOGETHER)
    made: dict[int, Networks] = {}
    for chunk in parallel.chunks(len(parents), 1 if generator.host else at_once):
        states = jax.tree.map(lambda leaf, chunk=chunk: leaf[chunk], fitted)
        given = [[of[number] for number in chunk] for of in (parents, probes, keys)]
        with check.named(name, "generate"):
            if generator.host:
                state = jax.tree.map(lambda leaf: leaf[0], states)
                copied = _copied((state, given[0][0], given[1][0]))
                found = [jax.device_get(generator.generate(given[2][0], *copied))]
            else:
                found = _generate_together(generator, states, *given)
        made |= dict(zip(chunk.tolist(), found, strict=True))
        progress(len(made), len(parents))
    return [made[number] for number in range(len(parents))]


def _parts(generator: Generator, parents: Sequence[Parents]) -> int:
    """In how many parts each pair's networks are made: several where the pairs leave devices idle.

    Each has two networks or more, for a loop of one step is another program, which may round otherwise.
    """
    counts = {len(zoo["dense"]["bias"]) for both in parents for zoo in both}
    if not generator.separable or len(counts) != 1:
        return 1
    (count,) = counts
    free = len(parallel.devices()) // len(parents)
    return max((n for n in range(2, free + 1) if count % n == 0 and count > n), default=1)


def _shares(parents: Parents, parts: int) -> list[Parents]:
    """Both zoos in equal parts, one after the other."""
    each = len(parents.attribute["dense"]["bias"]) // parts
    return [
        jax.tree.map(lambda leaf, first=n * each: leaf[first : first + each], parents) for n in range(parts)
    ]


def _copied(given: Any) -> Any:  # noqa: ANN401
    """Read-only copies of arrays: whoever writes into them all the same changes no parents."""

    def copied(leaf: Array) -> np.ndarray:
        own = np.array(leaf)
        own.flags.writeable = False
        return own

    return jax.tree.map(copied, given)


def _generate_together(
    generator: Generator,
    fitted: State,
    parents: Sequence[Parents],
    probes: Sequence[Probes],
    keys: Sequence[Key],
) -> list[Networks]:
    spread = parallel.Spread(len(parents))
    run = _compiled(generator, len(parents))
    members = (
        np.stack([np.asarray(jax.random.key_data(key)) for key in keys]),
        fitted,
        jax.tree.map(lambda *leaves: np.stack(leaves), *parents),
        {} if probes[0] is None else {"images": np.stack([np.asarray(images) for images in probes])},
    )
    made = spread.collect(run(spread.deal(members), spread.share({})))
    return [jax.tree.map(lambda leaf, p=p: leaf[p], made) for p in range(len(parents))]


@functools.lru_cache(maxsize=16)
def _compiled(generator: Generator, pairs: int) -> Callable[..., Any]:
    def one(member: tuple[Array, State, Parents, Params], shared: Params) -> Networks:
        del shared
        key, state, parents, probes = member
        typed = jax.random.wrap_key_data(jnp.asarray(key))
        return generator.generate(typed, state, parents, probes.get("images"))

    return parallel.Spread(pairs).map(one)


def row_name(family: str, key: str) -> str:
    """The name of a row of the table."""
    return f"{family}_{key}" if key else family
