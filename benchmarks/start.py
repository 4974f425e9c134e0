"""How long a fresh process takes to its first training step, with empty and full caches, and to its help.

The process that is timed is the one that measures, so nothing here imports JAX before the clock is read.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.stopwatch import Compilations, Prepared

BEGAN = "KERNELGAN_BENCHMARK_BEGAN"
"""The environment variable that tells when the process was asked for, in seconds since 1970."""


def first_step(networks: int, batch: int) -> Prepared:
    """The imports, the compilation (or reading what it left), the first step."""
    from kernelgan import environment, models, population

    environment.configure("auto")
    imported = time.time()
    from benchmarks import zoo

    heard, ended = Compilations(), []
    training = population.Training(1, batch, batch, zoo.RATE, (1.0, 1.0))
    pictures = zoo.make_pictures(zoo.PICTURES)
    zoo.train_noise(
        models.ConvNet(), pictures, training, networks, progress=lambda *_: ended.append(time.time())
    )
    began = float(os.environ[BEGAN])
    return Prepared(
        lambda _: ended[0] - began,
        1,
        compile_s=heard.seconds,
        details={"imports_s": imported - began},
        single=True,
    )


def show_help() -> Prepared:
    """Of the command, in a process of its own."""
    command = [sys.executable, "launch.py", "--help"]

    def run(_: int) -> None:  # absl's help ends with status 1
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False)
        if b"--config" not in done.stdout:
            raise RuntimeError(
                f"launch.py --help ended with {done.returncode}: {done.stderr.decode()[-200:]}"
            )

    return Prepared(run, 1, single=True)
