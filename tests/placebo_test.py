"""Which parents placebos are made of, and that a generator is asked again."""

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from kernelgan import generation
from kernelgan.generators import Parents, fitting, placebo, stateless
from kernelgan.types import UserError

COUNT = 12


def _average(parents):
    return jax.tree.map(lambda a, b: (a + b) / 2, *parents)


def _of_own(key, parents, probes):
    return _average(parents)


def _of_zoo(key, parents, probes):
    return jax.tree.map(lambda leaf: leaf - leaf.mean(axis=0), _average(parents))


def _by_number(key, parents, probes):
    few = len(parents.attribute["dense"]["bias"]) <= placebo.NETWORKS
    return jax.tree.map(lambda leaf: leaf + few, _average(parents))


def _by_number_of_one_pair(make_parents):
    """Gives other networks of few parents, but not of the first pair; and of one network in four only."""
    first = make_parents(COUNT, seed=0)["conv1"]["kernel"]

    def generate(key, parents, probes):
        kernel = parents.attribute["conv1"]["kernel"]
        is_first = (kernel[0] == first).all(axis=tuple(range(1, first.ndim))).any()
        off = np.arange(len(kernel)) % 4 == 0
        few = len(kernel) <= placebo.NETWORKS and not is_first
        return jax.tree.map(
            lambda leaf: leaf + few * off.reshape(-1, *[1] * (leaf.ndim - 1)), _average(parents)
        )

    return generate


@dataclasses.dataclass
class _Plan:
    pairs: list[Any]


def _given(make_parents, generate, spoilt=0.0):
    """A plan of two pairs, zoos, a generator, and the networks that it made."""
    zoos = [{"params": make_parents(COUNT, seed=seed)} for seed in (0, 1)]
    plan = _Plan(
        [
            SimpleNamespace(
                number=one,
                names=("ab"[one], "cd"[one]),
                attribute_zoo=one,
                object_zoo=1 - one,
                split=SimpleNamespace(name=f"pair {one}"),
            )
            for one in (0, 1)
        ]
    )
    loaded = SimpleNamespace(name="mine", generator=stateless(generate))
    made = [
        {"mine": jax.tree.map(lambda leaf: leaf + spoilt, generate(None, parents, None))}
        for parents in generation._parents(plan, zoos)
    ]
    return plan, zoos, loaded, made


def _again(make_parents, generate, spoilt=0.0):
    plan, zoos, loaded, made = _given(make_parents, generate, spoilt)
    of = SimpleNamespace(settings=SimpleNamespace(seed=0))
    told = []
    given = loaded, zoos, [fitting.Fitted({}, {})], [None] * 2, made
    chosen = generation._asked_again(of, plan, *given, lambda *done: told.append(done))
    assert told in ([], [(1, 2), (2, 2)])  # progress does not turn back when it is asked twice
    return chosen


def test_placebos_are_made_of_the_measured_parents_where_each_network_hangs_on_its_own(make_parents):
    for chosen in _again(make_parents, _of_own):
        assert len(set(chosen)) == placebo.NETWORKS
        assert set(chosen) < set(range(COUNT))


def _of_many(key, parents, probes):
    if len(parents.attribute["dense"]["bias"]) <= placebo.NETWORKS:
        raise ValueError("too few to be clustered")
    return _average(parents)


@pytest.mark.parametrize("generate", [_of_zoo, _by_number, _of_many])
def test_placebos_are_made_of_whole_zoos_where_a_network_hangs_on_more(generate, make_parents):
    assert _again(make_parents, generate) is None


def test_every_pair_and_every_network_is_compared(make_parents):
    assert _again(make_parents, _by_number_of_one_pair(make_parents)) is None


def test_other_networks_than_before_are_refused(make_parents):
    with pytest.raises(UserError, match="mine"):
        _again(make_parents, _of_own, spoilt=1.0)


def test_the_measured_parents_are_not_known_before_the_networks_are(make_parents):
    parents = Parents(make_parents(COUNT), make_parents(COUNT, seed=1))
    drawn = [placebo.measured({"mine": make_parents(COUNT, seed=seed)}, parents) for seed in range(2, 6)]
    assert len({tuple(members) for members in drawn}) > 1
    assert placebo.measured({"mine": make_parents(COUNT - 1)}, parents) is None
    few = jax.tree.map(lambda leaf: leaf[: placebo.NETWORKS], parents)
    assert placebo.measured({"mine": few.attribute}, few) is None


def test_placebos_that_were_saved_are_not_made_again(make_parents, network, assert_trees_equal):
    plan, zoos, loaded, made = _given(make_parents, _of_own)
    data = SimpleNamespace(image_size=16)
    of = SimpleNamespace(settings=SimpleNamespace(seed=0, data=data), network=network)

    def work(before):
        saves, told = [], []
        saver = SimpleNamespace(
            restore=lambda: before,
            is_due=lambda: True,
            save=lambda rows, step: saves.append((step, copy.deepcopy(rows))),
        )
        given = plan, zoos, loaded, [fitting.Fitted({}, {})], [None] * 2, made
        rows = generation._work_of_placebos(of, *given, saver, lambda *done: told.append(done))
        return rows, saves, told

    rows, saves, _ = work(None)
    assert [step for step, _ in saves] == [0, 1, 2]
    again, rest, told = work(saves[1][1])
    assert [step for step, _ in rest] == [2]
    assert (5, 10) not in told
    assert told[-1] == (10, 10)
    assert_trees_equal(again, rows)
