"""How often the test between two methods is wrong, and what it finds, by simulation.

    python -m benchmarks.power [--draws N]

Prints two short tables in about a minute: false positives of the test on one pair, and its power. Figures of
merit are drawn from normal distributions: what the test images decide, and differences between networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from kernelgan.evaluation import bootstrap, comparison, verdict

_RESAMPLES = 200


def pair_test(
    rng: np.random.Generator, networks: tuple[int, int], between: float, gain: float = 0.0
) -> tuple[float, float, float]:
    """P-values of Student's and of the normal test of two methods, and the gain that should be found.

    Args:
      rng: random numbers.
      networks: of each method.
      between: standard deviation between networks; that of the images' share is 0.01.
      gain: true difference of the two means.
    """
    own, drawn = [], []
    for count, mean in zip(networks, (0.7 + gain, 0.7), strict=True):
        images = 0.01 * rng.normal()
        values = mean + images + between * rng.normal(size=count)
        shares = bootstrap.network_shares(count, resamples=_RESAMPLES, seed=int(rng.integers(2**31)))
        own.append(values)
        drawn.append(shares @ values + 0.01 * rng.normal(size=_RESAMPLES))
    mean, other = (float(values.mean()) for values in own)
    student = comparison.difference(mean, other, drawn[0], drawn[1], own)
    normal = comparison.difference(mean, other, drawn[0], drawn[1])
    found = comparison.detectable(student["error"], student["freedom"], 1)
    return student["p_value"], normal["p_value"], found


def false_positives(draws: int) -> Iterator[str]:
    """Of methods that do not differ, how many the two tests tell apart at a level of 0.05."""
    yield "False positives on one pair at a level of 0.05"
    yield f"{'networks':>10} {'sd between':>10} {'Student':>8} {'normal':>8}"
    for networks in ((2, 2), (4, 4), (4, 16), (8, 8), (16, 16)):
        for between in (0.01, 0.05):
            rng = np.random.default_rng([*networks, int(1000 * between)])
            found = np.array([pair_test(rng, networks, between)[:2] for _ in range(draws)])
            student, normal = (found < verdict.SIGNIFICANCE).mean(axis=0)
            name = f"{networks[0]}, {networks[1]}"
            yield f"{name:>10} {between:>10.2f} {student:>8.3f} {normal:>8.3f}"


def power(draws: int) -> Iterator[str]:
    """How often a gain is found that `Test.detectable` says is found in 0.8 of all cases."""
    yield "Power on one pair for a gain of the size that is printed beside the verdict (0.8 is meant)"
    yield f"{'networks':>10} {'gain':>10} {'found':>8}"
    for networks in ((4, 4), (8, 8), (16, 16)):
        rng = np.random.default_rng([1, *networks])
        gain = float(np.median([pair_test(rng, networks, 0.03)[2] for _ in range(draws)]))
        found = [pair_test(rng, networks, 0.03, gain)[0] < verdict.SIGNIFICANCE for _ in range(draws)]
        name = f"{networks[0]}, {networks[1]}"
        yield f"{name:>10} {gain:>10.3f} {np.mean(found):>8.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="of each line")
    draws = parser.parse_args(arguments).draws
    for table in (false_positives(draws), power(draws)):
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main()
