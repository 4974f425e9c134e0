import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import parallel


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize(("members", "chunk_size"), [(1, 1), (5, 2), (6, 3), (7, 100), (4, 1), (33, 32)])
def test_chunks_are_equal_multiples_of_the_devices_that_hold_every_member_once(
    members, chunk_size, devices, monkeypatch
):
    monkeypatch.setattr(parallel, "device_count", lambda: devices)
    chunks = parallel.chunks(members, chunk_size)
    (length,) = {len(chunk) for chunk in chunks}
    assert length % devices == 0
    assert length < chunk_size + devices
    together = np.concatenate(chunks)
    np.testing.assert_array_equal(together[:members], np.arange(members))
    assert (together[members:] == members - 1).all()
    assert len(together) - members < length  # no chunk is padding alone
    assert together.dtype == np.int32


def _weighted(member, scale, shared):
    return {"sum": jnp.sum(member["x"]) * scale, "product": member["x"] @ shared}


def test_over_population_is_the_function_of_each_member():
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    scales = np.array([1, 2, 3, 4], np.float32)
    shared = np.array([1, 0, -1], np.float32)
    found = parallel.over_population(_weighted)({"x": x}, scales, shared)
    for m in range(4):
        expected = _weighted({"x": x[m]}, scales[m], shared)
        np.testing.assert_allclose(found["sum"][m], expected["sum"])
        np.testing.assert_allclose(found["product"][m], expected["product"])


def test_only_the_first_argument_is_donated():
    state, member, shared = (jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3))
    run = parallel.over_population(lambda s, m, whole: (s + m * whole, s - m), donate_first=True)
    found, other = run(state, member, shared)  # two results: each argument's buffer could be of use
    np.testing.assert_array_equal(found, np.full((2, 3), 2.0))
    np.testing.assert_array_equal(other, np.zeros((2, 3)))
    assert state.is_deleted()
    assert not member.is_deleted()
    assert not shared.is_deleted()


def test_nothing_is_donated_unasked():
    state = jnp.ones((2, 3))
    parallel.over_population(lambda s, whole: s * whole)(state, jnp.ones(3))
    assert not state.is_deleted()


_ON_TWO_DEVICES = """
import numpy as np
from kernelgan import parallel
assert parallel.device_count() == 2
assert [len(chunk) for chunk in parallel.chunks(5, 3)] == [4, 4]
members, shared = np.arange(12.0, dtype=np.float32).reshape(4, 3), np.float32(3)
found = parallel.over_population(lambda member, whole: member.sum() * whole)(members, shared)
assert len(found.sharding.device_set) == 2
np.testing.assert_array_equal(found, members.sum(axis=1) * 3)
"""


def test_a_population_is_spread_over_two_devices():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", _ON_TWO_DEVICES], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
