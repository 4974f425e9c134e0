"""The population and pair axes over devices: each device maps over its own share, nothing is exchanged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kernelgan import distributed

AXIS = "population"
_ALIGNMENT = 64


def devices() -> list[jax.Device]:
    """Those that members are sharded over: of all processes while they work together, else this process's."""
    if distributed.is_together():
        return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return jax.local_devices()


def chunks(members: np.ndarray | int, chunk_size: int) -> list[np.ndarray]:
    """Splits members into chunks of at most ``chunk_size``, all of one length, whatever the devices.

    Args:
      members: their numbers, or how many there are.
      chunk_size: the most in a chunk.

    Returns:
      int32 index arrays. The last chunk is filled up by repeating its last member: callers keep the first
      result of each.
    """
    numbers = np.arange(members) if isinstance(members, int) else members
    if not len(numbers):
        return []
    size = math.ceil(len(numbers) / math.ceil(len(numbers) / chunk_size))
    places = np.minimum(np.arange(math.ceil(len(numbers) / size) * size), len(numbers) - 1)
    return list(numbers[places].astype(np.int32).reshape(-1, size))


ON_CPU = 32
"""Members in memory at a time where nothing else limits them: often enough for progress and saves."""

_SHARE = 0.6
"""Of a GPU's free memory that members may fill by an estimate; the rest is for what the estimate misses."""


def room(bytes_each: float) -> int:
    """How many members of an estimated size are handled at a time, over all devices; at least one for each.

    On CPUs `ON_CPU`: they run one after the other, so their number decides no memory. On accelerators as many
    as their free memory holds, by what JAX says of it; the same on every process that works together.

    Args:
      bytes_each: of device memory for one member, with everything that is computed on the way.
    """
    found = devices()
    free = []
    for device in jax.local_devices():
        stats = (device.memory_stats() if device.platform != "cpu" else None) or {}
        if "bytes_limit" in stats:
            free.append(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    least = min(distributed.gather(min(free, default=None)), key=lambda bytes_: bytes_ or 0)
    if least is None:
        return ON_CPU
    return len(found) * max(1, int(_SHARE * least / bytes_each))


class Spread:
    """A number of members dealt out over the devices, as evenly as they go.

    On CPUs each device runs its members one after the other (`lax.map`): a member's working set then stays
    in cache, and its result cannot depend on who is beside it. Accelerators run their members side by side.

    Attributes:
      members: how many there are.
      size: the same, up to a multiple of the devices: places that hold nobody repeat the last member.
    """

    def __init__(self, members: int) -> None:
        """Chooses the devices; a process on its own takes no more of them than there are members."""
        found = devices()
        if not distributed.is_together():
            found = found[: max(1, members)]
        self._mesh = Mesh(np.asarray(found), (AXIS,))
        self.members = members
        self.size = math.ceil(members / len(found)) * len(found)

    def deal(self, tree: Any) -> Any:  # noqa: ANN401
        """Arrays ``(members, ...)`` over the devices, ``(size, ...)``."""
        places = np.minimum(np.arange(self.size), self.members - 1)
        return self._placed(jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree), PartitionSpec(AXIS))

    def share(self, tree: Any) -> Any:  # noqa: ANN401
        """The same arrays whole on every device."""
        return self._placed(jax.tree.map(_aligned, tree), PartitionSpec())

    def collect(self, tree: Any) -> Any:  # noqa: ANN401
        """Arrays ``(size, ...)`` from the devices as numpy ``(members, ...)``, on every process."""
        if not distributed.is_together():
            whole = jax.device_get(tree)
        else:  # of many small arrays one message: each array on its own would be a program of its own
            parts = distributed.gather(jax.tree.map(_local_rows, tree))
            whole = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
        return jax.tree.map(lambda leaf: leaf[: self.members], whole)

    def map(
        self,
        function: Callable[..., Any],
        *,
        prepare: Callable[[Any], Any] = lambda shared: shared,
        donate_first: bool = False,
    ) -> Callable[..., Any]:
        """Maps a function of one member over the members, and compiles it.

        Args:
          function: ``(*member, shared) -> result`` for ONE member, pytrees of arrays.
          prepare: makes what the function gets as ``shared``, once on each device.
          donate_first: whether the first argument's buffers may be reused for the results.

        Returns:
          ``(*members, shared) -> results``, jitted: members and results have a leading axis of `size`, as
          `deal` gives them, and ``shared`` is whole on every device, as `share` gives it.
        """

        def part(members: tuple[Any, ...], shared: Any) -> Any:  # noqa: ANN401
            shared = prepare(shared)
            if jax.default_backend() == "cpu":
                return lax.map(lambda member: function(*member, shared), members)
            return jax.vmap(lambda *member: function(*member, shared))(*members)

        return self.map_parts(part, donate_first=donate_first)

    def map_parts(self, part: Callable[..., Any], *, donate_first: bool = False) -> Callable[..., Any]:
        """The same for a function that takes a device's share of the members at once.

        Args:
          part: ``(members, shared) -> results``, ``members`` a tuple of pytrees with a leading axis.
          donate_first: see `map`.
        """
        sharded = jax.shard_map(
            part,
            mesh=self._mesh,
            in_specs=(PartitionSpec(AXIS), PartitionSpec()),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )

        def over(*arguments: Any) -> Any:  # noqa: ANN401
            return sharded(arguments[:-1], arguments[-1])

        return jax.jit(over, donate_argnums=(0,) if donate_first else ())

    def _placed(self, tree: Any, spec: PartitionSpec) -> Any:  # noqa: ANN401
        """Every process has all of each array and keeps its own devices' part: nothing is sent."""
        sharding = NamedSharding(self._mesh, spec)
        if not distributed.is_together():
            return jax.device_put(tree, sharding)
        return jax.tree.map(
            lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index]), tree
        )


def _aligned(leaf: Any) -> np.ndarray:  # noqa: ANN401
    """A copy at a multiple of 64 bytes: all CPU devices read that one; any other, JAX copies for each."""
    leaf = np.asarray(leaf)
    buffer = np.empty(leaf.nbytes + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    copy = buffer[start : start + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
    copy[...] = leaf
    return copy


def _local_rows(array: jax.Array) -> np.ndarray:
    """The rows of a dealt array that are on this process's devices, in order."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
