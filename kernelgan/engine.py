"""Fit many small things at once: one loop for zoos, generators and baselines.

A `Program` is written for ONE member: a network of a zoo, or the generators of one concept pair. `fit` adds
the member axis, shards it over the devices, saves and resumes, and stops at a metric that is not finite. What
member ``i`` becomes does not depend on the chunk size, on the devices and processes, or on its neighbours.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from kernelgan import distributed, parallel, stopping
from kernelgan.types import UserError

Tree = Any
"""A pytree of arrays."""

Report = Callable[[int, int, dict[str, float]], None]
"""``(calls done, calls in all, the latest mean metrics)``."""


class Program(NamedTuple):
    """How one member is fitted; pure functions.

    Attributes:
      init: ``(member, shared) -> state``.
      advance: ``(state, member, shared, call) -> (state, metrics)``; one call, such as an epoch. ``call`` is
        an int32 scalar, from 0. Metrics are nested dicts of scalars, or of arrays with a number a step.
      result: ``state -> what is kept of it``; selects, computes nothing.
      advance_many: ``(states, members, shared, call) -> (states, metrics)`` for all members of a device at
        once, each leaf with a leading axis, where that is faster than mapping ``advance``.
    """

    init: Callable[[Tree, Tree], Tree]
    advance: Callable[[Tree, Tree, Tree, jax.Array], tuple[Tree, Tree]]
    result: Callable[[Tree], Tree]
    advance_many: Callable[[Tree, Tree, Tree, jax.Array], tuple[Tree, Tree]] | None = None


class Saver(Protocol):
    """Where a fit leaves its state; `checkpoint.Stage` is one, and `NOWHERE`."""

    def restore(self) -> dict[str, Any] | None:
        """The last state that was saved whole, or None."""

    def is_due(self) -> bool:
        """Whether the last save is long enough ago."""

    def save(self, tree: dict[str, Any], step: int) -> None:
        """Saves nested dicts of numpy arrays, which change afterwards, under a number that grows."""

    @property
    def last_good(self) -> str:
        """The last state that was saved whole, for messages."""


class _Nowhere:
    """Keeps nothing."""

    last_good = "none"

    def restore(self) -> None:
        return None

    def is_due(self) -> bool:
        return False

    def save(self, tree: dict[str, Any], step: int) -> None:
        del tree, step


NOWHERE: Saver = _Nowhere()
"""For a fit that is not resumed."""


def silent(done: int, total: int, metrics: dict[str, float]) -> None:
    """A `Report` that shows nothing."""
    del done, total, metrics


def fit(
    program: Program,
    members: Tree,
    shared: Tree,
    *,
    calls: int,
    chunk_size: int | None = None,
    names: Callable[[int], str] = "member {}".format,
    pace: int = 1,
    unit: str = "epoch",
    remedy: str = "A smaller learning rate usually helps.",
    saver: Saver = NOWHERE,
    progress: Report = silent,
) -> tuple[Tree, dict[str, Any]]:
    """Fits every member.

    Args:
      program: for one member.
      members: what differs between members, numpy arrays with a leading ``M``.
      shared: what all of them read, numpy arrays.
      calls: of ``program.advance`` for each member.
      chunk_size: members in memory at a time, over all devices; None: all of them.
      names: of a member's number, for errors.
      pace: steps in a call; a state that was saved at another pace is not used.
      unit: what a call is, for errors; "step" where metrics have a number for each step.
      remedy: what to do about a metric that is not finite, for errors.
      saver: keeps the state between calls, so that a fit that was killed goes on where it was.
      progress: is told after each call; where all was done before, once.

    Returns:
      ``program.result`` of every member's last state, stacked along ``M``, and the metrics ``(M, calls)`` or,
      where a call gives a number for each of ``S`` steps, ``(M, calls * S)``; all numpy.

    Raises:
      UserError: a metric is not finite, with the metric, the member and the call; or 64 bits are switched on.
      Terminated: after SIGTERM, where `stopping.listen` was called; the state is saved.
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise UserError(
            "JAX_ENABLE_X64 is on; expected float32, for a seed gives other networks with it. Say "
            "jax.config.update('jax_enable_x64', False) first, or unset the variable."
        )
    count = len(jax.tree.leaves(members)[0])
    size = max(1, min(chunk_size or count, count))
    start = _resumed(saver, count, size, (calls, pace), lambda: _form(program, members, shared))
    done, results, history, saves = start.done, start.results, start.history, start.saves
    chunks = [] if start.chunk is None else [start.chunk]
    left = np.setdiff1d(np.flatnonzero(~done), start.chunk if start.chunk is not None else [])
    chunks += parallel.chunks(left, size)
    before = -(-int(done.sum()) // size)  # chunks of an earlier attempt
    compiled: dict[int, _Compiled] = {}
    if not chunks:
        progress(before * calls, before * calls, {})

    with stopping.saving():
        for number, chunk in enumerate(chunks):
            if len(chunk) not in compiled:
                compiled[len(chunk)] = _compile(program, len(chunk), shared)
            run = compiled[len(chunk)]
            mine = run.spread.deal(jax.tree.map(lambda leaf, chunk=chunk: np.asarray(leaf)[chunk], members))
            if number == 0 and start.state is not None:
                state, first = run.spread.deal(start.state), start.call
            else:
                state, first = run.init(mine, run.shared), 0
            for call in range(first, calls):
                with _in_memory(len(chunk)):
                    state, metrics = run.advance(state, mine, (run.shared, run.spread.share(np.int32(call))))
                    metrics = run.spread.collect(metrics)
                _check_finite(metrics, chunk, call, names=names, unit=unit, remedy=remedy, saver=saver)
                history = _stored(history, jax.tree.map(lambda leaf: leaf[:, None], metrics), count, calls)
                jax.tree.map(lambda whole, part, at=(chunk, call): _put(whole, at, part), history, metrics)
                if call + 1 == calls:
                    kept = run.spread.collect(program.result(state))
                    results = _stored(results, kept, count)
                    jax.tree.map(lambda whole, part, at=chunk: _put(whole, at, part), results, kept)
                    done[chunk] = True
                due, stop = distributed.first(lambda: (saver.is_due(), stopping.is_asked()))
                if due or stop:
                    saves += 1
                    whole = run.spread.collect(state)
                    tree = _Position(done, results, history, chunk, call + 1, whole, saves).as_tree()
                    tree["pace"] = np.array([calls, pace], np.int32)
                    distributed.first(functools.partial(saver.save, tree, saves))
                if stop:
                    raise stopping.Terminated
                progress(
                    (before + number) * calls + call + 1, (before + len(chunks)) * calls, _means(metrics)
                )
    return results, jax.tree.map(_joined_steps, history)


@contextlib.contextmanager
def _in_memory(members: int) -> Iterator[None]:
    """Says what to do where a device's memory is too small."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"{members} at a time do not fit the memory of the device ({str(error).splitlines()[0]}). "
            f"Expected fewer: --config.zoo.chunk_size={max(1, members // 2)} for networks, fewer pairs for "
            "generators; or a device that nothing else uses."
        ) from error


class _Compiled(NamedTuple):
    """A program for chunks of one length; ``shared`` is on the devices."""

    spread: parallel.Spread
    init: Callable[..., Any]
    advance: Callable[..., Any]
    shared: Tree


def _compile(program: Program, length: int, shared: Tree) -> _Compiled:
    spread, init, step = _mapped(program, length, tuple(parallel.devices()))
    return _Compiled(spread, init, step, spread.share(shared))


@functools.lru_cache(maxsize=16)
def _mapped(
    program: Program, length: int, devices: tuple[jax.Device, ...]
) -> tuple[parallel.Spread, Callable[..., Any], Callable[..., Any]]:
    """Fitted again in the same process, a program is not compiled again."""
    del devices  # those that `Spread` takes
    spread = parallel.Spread(length)

    def advance(state: Tree, member: Tree, both: tuple[Tree, jax.Array]) -> tuple[Tree, Tree]:
        return program.advance(state, member, *both)

    def advance_many(stacked: tuple[Tree, Tree], both: tuple[Tree, jax.Array]) -> tuple[Tree, Tree]:
        assert program.advance_many is not None
        return program.advance_many(*stacked, *both)

    step = (
        spread.map(advance, donate_first=True)
        if program.advance_many is None
        else spread.map_parts(advance_many, donate_first=True)
    )
    return spread, spread.map(program.init), step


class _Form(NamedTuple):
    """The structures of one member's state and result."""

    state: Any
    result: Any


def _form(program: Program, members: Tree, shared: Tree) -> _Form:
    def init(members: Tree, shared: Tree) -> Tree:
        return program.init(jax.tree.map(lambda leaf: leaf[0], members), shared)

    state = jax.eval_shape(init, members, shared)
    return _Form(*map(jax.tree.structure, (state, jax.eval_shape(program.result, state))))


class _Position(NamedTuple):
    """Where a fit is.

    Attributes:
      done: bool ``(M,)``, the members that are finished.
      results: of all members, zeros for those that are not finished; None before the first is.
      history: of all members, NaN where nothing has been computed; None before the first call.
      chunk: the members at work, or None.
      call: calls that they have had.
      state: theirs, or None.
      saves: how many there have been, over all attempts.
    """

    done: np.ndarray
    results: Tree = None
    history: Tree = None
    chunk: np.ndarray | None = None
    call: int = 0
    state: Tree = None
    saves: int = 0

    def as_tree(self) -> dict[str, Any]:
        """As nested dicts of arrays, which is what a checkpoint holds."""
        tree = {
            "done": self.done,
            "history": self.history,
            "members": self.chunk,
            "call": np.int32(self.call),
            "state": _numbered(self.state),
            "saves": np.int32(self.saves),
        }
        return tree | ({} if self.results is None else {"results": _numbered(self.results)})


def _numbered(tree: Tree) -> dict[str, np.ndarray]:
    return {f"{number:06d}": leaf for number, leaf in enumerate(jax.tree.leaves(tree))}


def _from_numbered(leaves: dict[str, np.ndarray], structure: Any) -> Tree:  # noqa: ANN401
    return jax.tree.unflatten(structure, [np.array(leaves[name]) for name in sorted(leaves)])


def _resumed(
    saver: Saver, count: int, size: int, pace: tuple[int, int], make_form: Callable[[], _Form]
) -> _Position:
    """Where the last attempt stopped.

    The members at work start over if they are more than a chunk now; all do if calls are of another length.
    """
    saved = distributed.first(saver.restore)
    if saved is None:
        return _Position(np.zeros(count, bool))
    if tuple(int(number) for number in saved["pace"]) != pace:
        return _Position(np.zeros(count, bool), saves=int(saved["saves"]))
    form = make_form()
    done, chunk = np.array(saved["done"]), np.asarray(saved["members"])
    found = _Position(
        done,
        _from_numbered(saved["results"], form.result) if "results" in saved else None,
        jax.tree.map(np.array, saved.get("history", {})),
        saves=int(saved["saves"]),
    )
    if len(chunk) > size or done[chunk].all():
        return found
    state = _from_numbered(saved.get("state", {}), form.state)
    return found._replace(chunk=chunk, call=int(saved["call"]), state=state)


def _stored(whole: Tree, part: Tree, count: int, calls: int | None = None) -> Tree:
    """Room for the part ``(m, ...)`` of all members: ``(M, ...)``; of history ``(M, calls, ...)``, NaN."""
    if whole is not None:
        return whole
    if calls is None:
        return jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape[1:]), leaf.dtype), part)

    def unknown(leaf: np.ndarray) -> np.ndarray:
        return np.full((count, calls, *leaf.shape[2:]), np.nan, np.result_type(leaf.dtype, np.float32))

    return jax.tree.map(unknown, part)


def _put(whole: np.ndarray, at: Any, part: np.ndarray) -> None:  # noqa: ANN401
    whole[at] = part


def _joined_steps(values: np.ndarray) -> np.ndarray:
    """``(M, calls)`` as it is, ``(M, calls, S)`` as ``(M, calls * S)``."""
    return values if values.ndim == 2 else values.reshape(len(values), -1)


def _means(metrics: Tree) -> dict[str, float]:
    """Each metric's mean over members at the last step, by its path."""
    return {
        _path(path): float(np.mean(leaf[..., -1] if leaf.ndim > 1 else leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(metrics)
    }


def _path(path: Any) -> str:  # noqa: ANN401
    return " ".join(str(key.key) for key in path)


def _check_finite(
    metrics: Tree,
    chunk: np.ndarray,
    call: int,
    *,
    names: Callable[[int], str],
    unit: str,
    remedy: str,
    saver: Saver,
) -> None:
    """Raises the error of the earliest metric that is not finite."""
    worst: tuple[int, str, int, float] | None = None
    for path, leaf in jax.tree_util.tree_leaves_with_path(metrics):
        values = leaf.reshape(len(leaf), -1)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, step = bad[np.argmin(bad[:, 1])]
            if worst is None or step < worst[0]:
                worst = (int(step), _path(path), int(chunk[row]), float(values[row, step]))
                steps = values.shape[1]
    if worst is None:
        return
    step, metric, member, value = worst

    def fail() -> None:
        raise UserError(
            f"{metric} of {names(member)} is {value} in {unit} {call * steps + step + 1}, so training "
            f"stopped. Last whole state: {saver.last_good}. {remedy}"
        )

    distributed.first(fail)  # every process is here, for all have the same metrics
