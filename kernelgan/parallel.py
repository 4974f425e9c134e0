"""The population and pair axes over devices: each device maps over its own share, nothing is exchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

AXIS = "population"


def device_count() -> int:
    """Devices that a population is spread over."""
    return len(jax.local_devices())


def over_population(function: Callable[..., Any], *, donate_first: bool = False) -> Callable[..., Any]:
    """Maps a function of one member over a population, and compiles it.

    On CPUs each device runs its members one after the other (`lax.map`): a member's working set then stays
    in cache, and its result cannot depend on who else is in the chunk. Accelerators run them side by side.

    Args:
      function: ``(*member, shared) -> result`` for ONE member, pytrees of arrays.
      donate_first: whether the first argument's buffers may be reused for the results.

    Returns:
      ``(*members, shared) -> results`` where members and results have a leading axis ``M``, a multiple of
      `device_count`, and ``shared`` is the same for all.
    """

    def share(members: tuple[Any, ...], shared: Any) -> Any:  # noqa: ANN401
        if jax.default_backend() == "cpu":
            return lax.map(lambda member: function(*member, shared), members)
        return jax.vmap(lambda *member: function(*member, shared))(*members)

    mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
    sharded = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )

    def over(*arguments: Any) -> Any:  # noqa: ANN401
        return sharded(arguments[:-1], arguments[-1])

    return jax.jit(over, donate_argnums=(0,) if donate_first else ())


def chunks(members: int, chunk_size: int) -> list[np.ndarray]:
    """Splits a population into equal chunks of at most ``chunk_size`` (up to a multiple of the devices).

    Returns:
      int32 index arrays of one common length, a multiple of `device_count`. The last one is filled up by
      repeating its last member; callers keep the first ``members`` results.
    """
    devices = device_count()
    count = math.ceil(members / chunk_size)
    size = math.ceil(members / count / devices) * devices
    padded = np.minimum(np.arange(math.ceil(members / size) * size), members - 1).astype(np.int32)
    return list(padded.reshape(-1, size))
