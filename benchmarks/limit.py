"""The limit: how fast this machine multiplies large matrices, measured beside what is compared with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import rows
from benchmarks.rows import Row
from benchmarks.stopwatch import Times, Work, median, take_turns


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product to be timed, in GFLOP."""

    work: Work
    precision: str


def works(mode: str, side: int) -> list[Product]:
    """Products of square float32 matrices: NumPy's and XLA's on CPUs, with TF32 too on a GPU."""
    gflop = 2e-9 * side**3
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(side, side)).astype(np.float32) for _ in range(2))
    found = []

    def with_xla(name: str, precision: lax.Precision, words: str) -> None:
        product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
        a, b = jax.device_put((left, right))

        def run(repetitions: int) -> None:
            for _ in range(repetitions):
                result = product(a, b)
            result.block_until_ready()

        found.append(Product(Work(name, run, gflop), words))

    if mode != rows.GPU:

        def run(repetitions: int) -> None:
            for _ in range(repetitions):
                left @ right

        found.append(Product(Work("matrix product, NumPy", run, gflop), "float32"))
    with_xla("matrix product, XLA", lax.Precision.HIGHEST, "float32")
    if mode == rows.GPU:
        with_xla("matrix product, XLA, TF32", lax.Precision.DEFAULT, "TF32")
    return found


def rate(products: Sequence[Product], times: Mapping[str, Times], mode: str, precision: str) -> float | None:
    """GFLOP/s of the fastest product of a precision: a second of CPU on one core, else of the clock."""
    rates = []
    for product in products:
        found = times[product.work.name]
        ms = median(found.cpu if mode == rows.ONE_CORE else found.wall)
        if product.precision == precision and ms:
            rates.append(1e3 / ms)
    return max(rates, default=None)


def measure(mode: str, *, rounds: int, lap: float, matrix: int) -> list[Row]:
    """The products by themselves, a row for each."""
    products = works(mode, matrix)
    times = take_turns([product.work for product in products], rounds=rounds, lap=lap)
    found = []
    for product in products:
        row = Row("limit", product.work.name, mode, "GFLOP", precision=product.precision, gflop=1.0)
        row.take(times[product.work.name])
        row.limit = rate(products, times, mode, product.precision)
        row.details = {"side": matrix}
        found.append(row)
    return found
