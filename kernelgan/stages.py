"""Stages of a run: a result is kept with the key of what it was made from, and used again under that key."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from kernelgan import distributed, engine, keys
from kernelgan import workdir as workdir_lib
from kernelgan.checkpoint import Stage
from kernelgan.progress import WIDTH, Progress
from kernelgan.types import Config, Params

Work = Callable[[engine.Saver, Progress], dict[str, Any]]
"""Makes a result: nested dicts of arrays."""

_ENGINE = tuple(
    f"kernelgan.{name}" for name in ("engine", "losses", "models", "ops", "parallel", "population")
)
CODE = {
    "zoo": ("kernelgan.zoo", *_ENGINE),
    "baselines": ("kernelgan.baselines.trained", "kernelgan.zoo", *_ENGINE),
    "generator": (
        *("kernelgan.generators.base", "kernelgan.assemble", "kernelgan.kernels"),
        "kernelgan.baselines.merges",
        *_ENGINE,
    ),
    "evaluate": (
        *("kernelgan.assemble", "kernelgan.baselines", "kernelgan.evaluate", "kernelgan.models"),
        *("kernelgan.generators.base", "kernelgan.ops"),
    ),
}
"""The modules whose code decides a stage's numbers."""


class Stages:
    """Runs stages once; what was made before under the same key is read.

    Attributes:
      workdir: of the run.
      digests: of each finished stage's result, for the keys of those that are made from it.
    """

    def __init__(self, workdir: Path, *, seconds: float) -> None:
        """Opens a work directory.

        Args:
          workdir: of the run, claimed by this process or by process 0.
          seconds: least time between two saves in the middle of a stage.
        """
        self.workdir = workdir
        self.digests: dict[str, str] = {}
        self._seconds = seconds

    def once(self, name: str, key: Mapping[str, str], work: Work, *, timing: str = "") -> dict[str, Any]:
        """The result of a stage: read, or made and kept.

        Args:
          name: of the stage, its directory among the checkpoints.
          key: parts of its `keys.StageKey`.
          work: makes the result; on several processes all of them call it.
          timing: what its seconds are kept under; "": its name.
        """
        stage = Stage(
            self.workdir / workdir_lib.CHECKPOINTS / name, keys.StageKey(key), seconds=self._seconds
        )
        try:
            result = distributed.first(stage.result)
            if result is None:
                why = distributed.first(stage.why)
                if why:
                    print(f"{name:{WIDTH}s} is made again: {why}", file=sys.stderr)
                with self.timed(name, timing) as progress:
                    result = jax.device_get(work(stage, progress))
                    distributed.first(functools.partial(stage.finish, result))
            else:
                print(f"{name:{WIDTH}s} done before", file=sys.stderr)
            self.digests[name] = distributed.first(lambda: stage.digest)
            return result
        finally:
            stage.close()

    def timed(self, name: str, timing: str = "") -> contextlib.AbstractContextManager[Progress]:
        """Shows and times a stage."""
        return workdir_lib.staged(self.workdir, name, timing)

    def inputs(self, *names: str) -> dict[str, str]:
        """Parts of a key: the digests of these stages' results, and of their parts (``zoo-0``, ...)."""
        return {
            f"inputs/{done}": digest
            for done, digest in self.digests.items()
            if any(done == name or done.startswith(f"{name}-") for name in names)
        }


def arithmetic(network: Any, image_size: int, loss: Any) -> str:  # noqa: ANN401
    """The part "arithmetic" of a key: the implementation that trains."""
    from kernelgan import population

    return population.arithmetic(network, image_size, loss)


def without_pace(section: Config, *names: str) -> Params:
    """A section of the config without the fields that decide no numbers."""
    from kernelgan import fields

    return {name: value for name, value in fields.plain(section).items() if name not in names}
