"""Tests for kernelgan.engine on a program of a few numbers, which no network or generator is part of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import engine
from kernelgan.types import UserError

MEMBERS, CALLS, STEPS = 5, 4, 3
SHARED = {"seed": np.int32(7), "offset": np.float32(0.25)}


class State(NamedTuple):
    walk: jax.Array
    calls: jax.Array


def _init(member, shared):
    key = jax.random.fold_in(jax.random.key(shared["seed"]), member["number"])
    return State(jax.random.normal(key, (2,)), jnp.int32(0))


def _advance(state, member, shared, call):
    """A random walk; the mean is a metric of the call, the distance one of each of its steps."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(shared["seed"]), member["number"]), 1 + call)
    steps = jnp.cumsum(jax.random.normal(key, (STEPS, 2)), axis=0) + state.walk
    poison = jnp.where(member["fails_in"] == call, jnp.nan, 0.0)
    metrics = {
        "mean": steps[-1].mean() + shared["offset"],
        "of step": {"distance": jnp.abs(steps).sum(axis=1) + poison * (jnp.arange(STEPS) == 1)},
        "calls": state.calls,  # an integer
    }
    return State(steps[-1], state.calls + 1), metrics


def _program(result=lambda state: state):
    return engine.Program(_init, _advance, result)


def _many(states, members, shared, call):
    return jax.vmap(_advance, in_axes=(0, 0, None, None))(states, members, shared, call)


def _members(**fails_in):
    """``_members(_3=1)``: member 3 has a metric that is not finite in call 1."""
    fails = np.full(MEMBERS, -1, np.int32)
    for name, call in fails_in.items():
        fails[int(name[1:])] = call
    return {"number": np.arange(10, 10 + MEMBERS, dtype=np.int32), "fails_in": fails}


def _fit(program=None, members=None, **options):
    return engine.fit(program or _program(), members or _members(), SHARED, calls=CALLS, **options)


@pytest.fixture(scope="module")
def alone():
    """Each member on its own, without chunks, savers and scans."""
    expected = []
    for number in range(MEMBERS):
        member = jax.tree.map(lambda leaf, number=number: leaf[number], _members())
        state, records = jax.jit(_init)(member, SHARED), []
        for call in range(CALLS):
            state, metrics = jax.jit(_advance)(state, member, SHARED, jnp.int32(call))
            records.append(metrics)
        history = jax.tree.map(lambda *values: np.stack(values), *records)
        history["of step"]["distance"] = history["of step"]["distance"].reshape(-1)
        expected.append((state, history))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *expected)


@pytest.fixture(scope="module")
def whole():
    return _fit()


def test_every_member_becomes_what_it_becomes_alone(whole, alone, assert_trees_close):
    assert_trees_close(whole, alone, rtol=1e-6)
    state, history = whole
    assert isinstance(state, State)
    assert state.walk.shape == (MEMBERS, 2)
    assert history["mean"].shape == history["calls"].shape == (MEMBERS, CALLS)
    assert history["of step"]["distance"].shape == (MEMBERS, CALLS * STEPS)


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 100])
def test_any_chunk_size_gives_the_same_bits(whole, assert_trees_equal, chunk_size):
    assert_trees_equal(_fit(chunk_size=chunk_size), whole)


def test_members_may_be_advanced_together(whole, assert_trees_close):
    together = _program()._replace(advance_many=_many)
    assert_trees_close(_fit(together, chunk_size=2), whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("killed_after", "sizes"),
    [
        *((saves, (2, 2)) for saves in (1, 4, 5, 11, 12)),  # within chunks and between them, at the end
        *((3, sizes) for sizes in ((2, 1), (2, 3), (2, 5), (1, 5), (5, 1))),
        *((5, sizes) for sizes in ((2, 1), (2, 5), (1, 3))),
        *((8, sizes) for sizes in ((2, 1), (2, 5), (1, 5))),
    ],
)
def test_a_fit_goes_on_after_any_call_with_any_chunk_size(
    whole, assert_trees_equal, new_saver, killed, killed_after, sizes
):
    saver, told = new_saver(killed_after=killed_after), []
    with pytest.raises(killed):
        _fit(chunk_size=sizes[0], saver=saver)
    before = saver.state
    assert_trees_equal(_fit(chunk_size=sizes[1], saver=saver, progress=lambda *now: told.append(now)), whole)
    assert [done == total for done, total, _ in told] == [False] * (len(told) - 1) + [True]
    finished = int(before["done"].sum())
    open_members = len(np.setdiff1d(before["members"], np.flatnonzero(before["done"])))
    kept = open_members and len(before["members"]) <= sizes[1]
    rest = MEMBERS - finished - (open_members if kept else 0)
    calls = -(-rest // sizes[1]) * CALLS + (CALLS - int(before["call"]) if kept else 0)
    assert saver.saves == killed_after + calls  # nothing that was finished is done again


@pytest.mark.parametrize("keep", [lambda state: state.walk, lambda state: {"a": {"b": state.walk}}])
def test_any_pytree_may_be_the_result_also_of_a_fit_that_was_killed_at_its_end(
    assert_trees_equal, new_saver, killed, keep
):
    program = _program(keep)
    expected = _fit(program)
    assert jax.tree.structure(expected[0]) == jax.tree.structure(keep(State(0, 0)))
    saver = new_saver(killed_after=3 * CALLS)
    with pytest.raises(killed):
        _fit(program, chunk_size=2, saver=saver)
    told = []
    found = _fit(program, chunk_size=2, saver=saver, progress=lambda *now: told.append(now[:2]))
    assert_trees_equal(found, expected)
    assert told == [(3 * CALLS, 3 * CALLS)]


class _Counting:
    """Due every third time that it is asked."""

    last_good = "none"

    def __init__(self):
        self.asked, self.steps = 0, []

    def restore(self):
        return None

    def is_due(self):
        self.asked += 1
        return self.asked % 3 == 0

    def save(self, tree, step):
        self.steps.append(step)


def test_the_saver_is_asked_after_each_call_and_saves_when_it_is_due():
    saver = _Counting()
    _fit(chunk_size=2, saver=saver)
    assert saver.asked == 3 * CALLS
    assert len(saver.steps) == CALLS
    assert saver.steps == sorted(set(saver.steps))


def test_the_number_of_a_save_grows_over_attempts_also_with_larger_chunks(new_saver, killed):
    """A saver drops what has a higher number, so that a lower one would lose what was finished."""
    saver, numbers = new_saver(killed_after=4 * CALLS), []
    keep = saver.save
    saver.save = lambda tree, step: (numbers.append(step), keep(tree, step))
    with pytest.raises(killed):
        _fit(chunk_size=1, saver=saver)
    _fit(chunk_size=5, saver=saver)
    assert numbers == sorted(set(numbers))


def test_progress_is_told_after_each_call_with_the_mean_of_each_metric():
    told = []
    _, history = _fit(chunk_size=5, progress=lambda *now: told.append(now))
    assert [now[:2] for now in told] == [(n + 1, CALLS) for n in range(CALLS)]
    for call, (_, _, means) in enumerate(told):
        assert means.keys() == {"mean", "of step distance", "calls"}
        assert means["mean"] == pytest.approx(history["mean"][:, call].mean(), rel=1e-5)
        last = history["of step"]["distance"][:, call * STEPS + STEPS - 1]
        assert means["of step distance"] == pytest.approx(last.mean(), rel=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_a_metric_that_is_not_finite_is_named_with_its_member_and_step(new_saver, chunk_size):
    saver = new_saver()
    with pytest.raises(UserError) as raised:
        _fit(
            members=_members(_3=2),
            chunk_size=chunk_size,
            names="pair {}".format,
            unit="step",
            remedy="Wait.",
            saver=saver,
        )
    message = str(raised.value)
    for fact in ("of step distance of pair 3 is nan", f"step {2 * STEPS + 2},", saver.last_good, "Wait."):
        assert fact in message
    assert np.isfinite(saver.state["state"]["000000"]).all()


def test_of_several_that_are_not_finite_the_earliest_is_named():
    with pytest.raises(UserError, match=r"of member 4 is nan in epoch"):
        _fit(members=_members(_1=2, _4=1))
    with pytest.raises(UserError, match=r"of member 2 is nan in epoch"):
        _fit(members=_members(_2=1, _4=1))


@pytest.mark.parametrize(
    ("words", "kind"), [("RESOURCE_EXHAUSTED: Out of memory", UserError), ("INTERNAL", None)]
)
def test_a_full_memory_is_told_with_a_smaller_chunk(words, kind):
    def full(*_):
        raise jax.errors.JaxRuntimeError(f"{words} while trying to allocate 9 bytes\nand more")

    with pytest.raises(kind or jax.errors.JaxRuntimeError) as caught:
        _fit(engine.Program(_init, full, lambda state: state), chunk_size=4)
    if kind:
        assert "zoo.chunk_size=1" in str(caught.value)  # chunks of 5 members: 3 and 2
        assert "allocate 9 bytes" in str(caught.value)
        assert "and more" not in str(caught.value)


def test_64_bits_are_refused_for_they_change_what_a_seed_gives():
    program = engine.Program(lambda member, shared: member, lambda *_: None, lambda state: state)
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(UserError, match="JAX_ENABLE_X64"):
            engine.fit(program, np.zeros(2, np.float32), (), calls=1)
    finally:
        jax.config.update("jax_enable_x64", False)
