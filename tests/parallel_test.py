import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import parallel


@pytest.mark.parametrize(("members", "chunk_size"), [(1, 1), (5, 2), (6, 3), (7, 100), (4, 1), (33, 32)])
def test_chunks_have_one_length_and_hold_every_member_once(members, chunk_size):
    chunks = parallel.chunks(members, chunk_size)
    (length,) = {len(chunk) for chunk in chunks}
    assert length <= chunk_size
    together = np.concatenate(chunks)
    np.testing.assert_array_equal(together[:members], np.arange(members))
    assert (together[members:] == members - 1).all()
    assert len(together) - members < length  # no chunk is padding alone
    assert together.dtype == np.int32


def _weighted(member, scale, shared):
    return {"sum": jnp.sum(member["x"]) * scale, "product": member["x"] @ shared}


def test_a_mapped_function_is_the_function_of_each_member():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    scales = np.array([1, 2, 3, 4], np.float32)
    shared = np.array([1, 0, -1], np.float32)
    spread = parallel.Spread(4)
    run = spread.map(_weighted)
    found = spread.collect(run(*spread.deal(({"x": x}, scales)), spread.share(shared)))
    for m in range(4):
        expected = _weighted({"x": x[m]}, scales[m], shared)
        np.testing.assert_allclose(found["sum"][m], expected["sum"])
        np.testing.assert_allclose(found["product"][m], expected["product"])


def test_what_is_shared_is_prepared_before_it_is_mapped_over():
    spread = parallel.Spread(2)
    run = spread.map(lambda m, whole: m * whole, prepare=lambda whole: whole + 1)
    found = spread.collect(run(spread.deal(np.array([2.0, 3.0], np.float32)), spread.share(np.float32(1))))
    np.testing.assert_array_equal(found, [4.0, 6.0])


def test_only_the_first_argument_is_donated():
    spread = parallel.Spread(2)
    state, member = spread.deal((np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)))
    shared = spread.share(np.ones(3, np.float32))
    run = spread.map(lambda s, m, whole: (s + m * whole, s - m), donate_first=True)
    found, other = run(state, member, shared)  # two results: each argument's buffer could be of use
    np.testing.assert_array_equal(found, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(other, np.zeros((2, 3)))
    assert state.is_deleted()
    assert not member.is_deleted()
    assert not shared.is_deleted()


def test_nothing_is_donated_unasked():
    spread = parallel.Spread(2)
    state = spread.deal(np.ones((2, 3), np.float32))
    spread.map(lambda s, whole: s * whole)(state, spread.share(np.ones(3, np.float32)))
    assert not state.is_deleted()


_ON_FOUR_DEVICES = """
import re
import jax, numpy as np
from kernelgan import engine, losses, models, parallel, population
from kernelgan.generators import base, cyclegan, fitting
assert len(parallel.devices()) == 4
for members, size, used in ((1, 1, 1), (3, 3, 3), (4, 4, 4), (5, 8, 4), (8, 8, 4)):
    spread = parallel.Spread(members)
    assert spread.size == size
    given = np.arange(3.0 * members, dtype=np.float32).reshape(members, 3)
    run = spread.map(lambda member, whole: member.sum() * whole)
    found = run(spread.deal(given), spread.share(np.float32(3)))
    assert len(found.sharding.device_set) == used
    np.testing.assert_array_equal(spread.collect(found), given.sum(axis=1) * 3)

# The programs that train exchange nothing between the devices.
collective = re.compile("all-reduce|all-gather|all-to-all|reduce-scatter|collective|send|recv")

def text_of(program, members, shared):
    # of what engine.fit runs for each call
    run = engine._compile(program, 4, shared)
    mine = run.spread.deal(members)
    given = run.init(mine, run.shared), mine, (run.shared, run.spread.share(np.int32(0)))
    return run.advance.lower(*given).compile().as_text()

network, zeros = models.ConvNet((2, 3), 3), np.zeros(4, np.int32)
halves = (np.arange(8, dtype=np.int32), np.arange(8, 16, dtype=np.int32))
people = population.Population(("x",) * 4, np.arange(4, dtype=np.int32), zeros, zeros, (halves,), (halves,),
                               np.zeros((1, 16), np.int8))
zoo = population.program(
    network, population.Training(1, 8, 4, 0.1, (1.0, 1.0)),
    loss=losses.cross_entropy, metrics=population.binary_metrics, watch=True,
)
images = np.zeros((16, 12, 12, 3), np.uint8)
texts = [text_of(zoo, population.members_of(people), population.shared_arrays(images, people, 0))]
params = jax.jit(lambda key: models.initialise_convnet(network, 12, key))(jax.random.key(0))
parents = jax.tree.map(lambda leaf: np.stack([leaf] * 3), params)
family = cyclegan.make(network, cyclegan.Config(hidden=2, epochs=(1, 2), batch_size=2))
view = family.view(base.Parents(parents, parents), None)
members = {"number": zeros, "view": jax.tree.map(lambda leaf: np.stack([leaf] * 4), view)}
texts.append(text_of(fitting.program(family, "cyclegan", 4, 4), members, {"seed": np.int32(0)}))
for text in texts:
    assert "num_partitions=4" in text
    assert not collective.findall(text), collective.findall(text)
# The expression does find one that is there.
spread = parallel.Spread(4)
total = jax.jit(lambda x: x.sum()).lower(spread.deal(np.ones(4, np.float32))).compile().as_text()
assert collective.findall(total)
"""


def test_a_population_is_spread_over_four_devices_which_exchange_nothing():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _ON_FOUR_DEVICES], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(jax.devices()) == 1  # here, all the while


class _Device:
    platform, process_index = "gpu", 0

    def __init__(self, number, stats):
        self.id, self.stats = number, stats

    def memory_stats(self):
        return self.stats


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ([{"bytes_limit": 1000, "bytes_in_use": 0}], 60),
        ([{"bytes_limit": 1000, "bytes_in_use": 500}], 30),
        ([{"bytes_limit": 1000}, {"bytes_limit": 500}], 60),  # the smaller one decides for both
        ([{"bytes_limit": 1, "bytes_in_use": 0}], 1),
        ([None], parallel.ON_CPU),  # a device that does not tell
    ],
)
def test_as_many_members_at_a_time_as_fit_the_free_memory_of_every_device(monkeypatch, stats, expected):
    found = [_Device(number, each) for number, each in enumerate(stats)]
    monkeypatch.setattr(jax, "local_devices", lambda: found)
    assert parallel.room(10) == expected


def test_on_a_cpu_memory_decides_nothing():
    assert parallel.room(1e15) == parallel.ON_CPU
