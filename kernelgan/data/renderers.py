"""Pictures rendered on all cores by worker processes, and kept in the user's cache for the next run.

A worker runs `answer`: it reads blocks, a JSON line each, and writes three arrays for each. It is no child of
`multiprocessing`, which would run the caller's script anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernelgan import cache, keys
from kernelgan.files import replacing
from kernelgan.types import UserError

_LARGE = 1000
"""Pictures from which on a set is worth worker processes, and keeping."""

_BLOCK = 250
"""Pictures of a request."""


class Block(NamedTuple):
    """Pictures ``first`` to ``last`` of a split; see `rendered.load`."""

    attributes: tuple[str, ...]
    objects: tuple[str, ...]
    size: int
    seed: int
    split: str
    first: int
    last: int


Pictures = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Images uint8 ``(N, H, W, 3)``, and the numbers of their colours and of their objects, int64 ``(N,)``."""


def render(split: Block, progress: Callable[[int], None]) -> Pictures:
    """Renders a whole split, or reads it where the same code has rendered it before.

    Args:
      split: what to render.
      progress: called with the pictures done.
    """
    from kernelgan.data import rendered

    count = split.last - split.first
    if count < _LARGE:
        return rendered.render_block(split, progress)
    code = keys.of_source("kernelgan.data.rendered", "kernelgan.data.drawings")
    directory = cache.directory("rendered")
    kept = directory and directory / f"{keys.of_values([list(split), code, np.__version__])[:16]}.npz"
    found = _read(kept) if kept else None
    if found is None:
        found = _on_all_cores(split, progress)
        if kept:
            with contextlib.suppress(OSError), replacing(kept) as file:  # else it is rendered again
                np.savez(file, *found)
    progress(count)
    return found


def _read(file: Path) -> Pictures | None:
    try:
        with np.load(file) as arrays:
            images, colours, objects = (arrays[name] for name in arrays.files)
            return images, colours, objects
    except Exception:  # not there or damaged, which numpy tells in many ways; it is only a cache
        return None


def _on_all_cores(split: Block, progress: Callable[[int], None]) -> Pictures:
    from kernelgan import environment

    starts = range(split.first, split.last, _BLOCK)
    blocks = [split._replace(first=first, last=min(first + _BLOCK, split.last)) for first in starts]
    cores = min(environment.cores(), len(blocks))
    parts: list[Pictures] = []
    with futures.ThreadPoolExecutor(cores) as threads, contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker()) for _ in range(cores)]
        idle = list(workers)

        def ask(block: Block) -> Pictures:
            worker = idle.pop()
            assert worker.stdin is not None
            assert worker.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended, and there is nothing to read either
                worker.stdin.write(json.dumps(block).encode() + b"\n")
                worker.stdin.flush()
            count, pixels = block.last - block.first, block.size**2 * 3
            raw = worker.stdout.read(count * (pixels + 16))
            if len(raw) < count * (pixels + 16):  # it was killed, or never started; what it said is above
                raise UserError(
                    f"a process that renders pictures ended with status {worker.wait()}; try again."
                )
            idle.append(worker)
            colours, objects = np.frombuffer(raw, np.int64, 2 * count, count * pixels).reshape(2, count)
            images = np.frombuffer(raw, np.uint8, count * pixels)
            return images.reshape(count, block.size, block.size, 3), colours, objects

        for part in threads.map(ask, blocks):
            parts.append(part)
            progress(blocks[len(parts) - 1].last - split.first)
    images, colours, objects = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, colours, objects


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen[bytes]]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-c", "from kernelgan.data import renderers; renderers.answer()"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C is for the caller, which ends this process
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answer() -> None:
    """The work of a worker: blocks from standard input, until it ends, to standard output."""
    from kernelgan.data import rendered

    for line in sys.stdin:
        for array in rendered.render_block(Block(*json.loads(line)), lambda done: None):
            sys.stdout.buffer.write(array.tobytes())
        sys.stdout.buffer.flush()
