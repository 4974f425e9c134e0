"""What a generator is: a NamedTuple of pure functions that turn two populations of parents into new networks.

A family is a module with ``make(network, config) -> Generator`` and, unless it needs no settings, a dataclass
``Config``. The functions are written for ONE concept pair; `fitting.fit` and `generate` add the pair axis. A
generator is handed what its tier allows and nothing else, and it returns parameters: the caller builds the
network, runs it and counts it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import parallel
from kernelgan.generators import check
from kernelgan.types import Array, Key, Params

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
                own = copied((state, given[0][0], given[1][0]))
                found = [jax.device_get(generator.generate(given[2][0], *own))]
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


def copied(given: Any) -> Any:  # noqa: ANN401
    """Read-only copies of arrays: whoever writes into them all the same changes no parents."""

    def one(leaf: Array) -> np.ndarray:
        own = np.array(leaf)
        own.flags.writeable = False
        return own

    return jax.tree.map(one, given)


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
