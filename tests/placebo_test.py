"""Which parents placebos are made of, and that a generator is asked again."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from kernelgan import training
from kernelgan.generators import Parents, base, placebo, stateless
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


@dataclasses.dataclass
class _Plan:
    pairs: list[Any]


def _again(make_parents, generate, spoilt=0.0):
    zoos = [{"params": make_parents(COUNT, seed=seed)} for seed in (0, 1)]
    pair = SimpleNamespace(attribute_zoo=0, object_zoo=1, split=SimpleNamespace(name="black cat"))
    of = SimpleNamespace(settings=SimpleNamespace(seed=0))
    loaded = SimpleNamespace(name="mine", generator=stateless(generate))
    parents = Parents(*(zoo["params"] for zoo in zoos))
    made = {"mine": jax.tree.map(lambda leaf: leaf + spoilt, generate(None, parents, None))}
    return training._asked_again(of, _Plan([pair]), loaded, zoos, [base.Fitted({}, {})], [None], [made])


def test_placebos_are_made_of_the_measured_parents_where_each_network_hangs_on_its_own(make_parents):
    (chosen,) = _again(make_parents, _of_own)
    assert len(set(chosen)) == placebo.NETWORKS
    assert set(chosen) < set(range(COUNT))


@pytest.mark.parametrize("generate", [_of_zoo, _by_number])
def test_placebos_are_made_of_whole_zoos_where_a_network_hangs_on_more(generate, make_parents):
    assert _again(make_parents, generate) is None


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
