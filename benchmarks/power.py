"""How often the tests and the verdict are wrong, and what they find, by simulation.

    python -m benchmarks.power [--draws N]

Prints three short tables in about a minute: false positives of the test on one pair, its power, and the
answers of the verdict over pairs. Figures of merit are drawn from normal distributions: what the test images
decide, differences between networks, and differences between attributes, objects and pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from kernelgan import results
from kernelgan.evaluation import bootstrap, comparison, verdict

_RESAMPLES = 200
_NULLS = {"random": "null", "attribute_only": "parent", "object_only": "parent", "zipit": "merge"}
_MATRIX = (9, 6)


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


def answer_over_pairs(rng: np.random.Generator, gain: float, kept: float) -> str:
    """The verdict on a method over a matrix of pairs.

    Args:
      rng: random numbers.
      gain: over the best of the methods that it must beat.
      kept: share of its gain over 0.5 that it keeps with placebo parents.
    """
    rows, columns = (0.03 * rng.normal(size=size) for size in _MATRIX)
    pairs = []
    for row, column in np.ndindex(*_MATRIX):
        ease = rows[row] + columns[column]
        means = {name: 0.65 - 0.05 * place + ease for place, name in enumerate(reversed(_NULLS))}
        means["generated"] = 0.65 + gain + ease
        means = {name: mean + 0.03 * rng.normal() for name, mean in means.items()}
        kinds = {**_NULLS, "generated": "generated"}
        methods = {
            name: {"kind": kinds[name], "auroc": {"worst": {"mean": mean}}} for name, mean in means.items()
        }
        half = (means["generated"] - 0.5) / 2
        placebo = kept * 2 * half + 0.02 * rng.normal()
        test = {"difference": {"mean": half - placebo}, "p_value": 1.0}
        one = {"parents": "random networks", "auroc": {"mean": 0.5 + placebo}, "test": test}
        methods["generated"] |= {
            "novelty": {"distance": {"mean": 1.0}},
            "placebos": {"attribute_random": one, "object_random": one},
        }
        names = {"attribute": f"a{row}", "object": f"o{column}"}
        pairs.append({"pair": names, "data": {"leaked": 0}, "methods": methods, "tests": {}})
    seed = int(rng.integers(2**31))
    record = comparison.overall(pairs, merit="worst", resamples=_RESAMPLES, seed=seed)
    assert record is not None
    return verdict.judged(results.from_document({"pairs": pairs, "overall": record})).verdict.answer


def answers(draws: int) -> Iterator[str]:
    """The verdict over pairs: of what does not compose, and of what does."""
    yield f"Answers over {_MATRIX[0]} x {_MATRIX[1]} pairs"
    yield f"{'gain over the best rival':>24} {'gain kept by placebos':>22} {'yes':>6} {'no':>6}"
    for gain, kept in (
        (-0.05, 0.0),
        (0.0, 0.0),
        (0.02, 0.0),
        (0.05, 0.0),
        (0.1, 0.0),
        (0.1, 0.5),
        (0.1, 1.0),
    ):
        rng = np.random.default_rng([2, int(1000 * gain) + 100, int(10 * kept)])
        found = [answer_over_pairs(rng, gain, kept) for _ in range(draws)]
        yes, no = (found.count(answer) / draws for answer in ("yes", "no"))
        yield f"{gain:>24.2f} {kept:>22.1f} {yes:>6.2f} {no:>6.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="of each line of the first two")
    draws = parser.parse_args(arguments).draws
    for table in (false_positives(draws), power(draws), answers(max(1, draws // 10))):
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main()
