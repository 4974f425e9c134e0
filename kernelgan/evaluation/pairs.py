"""Everything that is measured of a pair: the records of `results.json`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from kernelgan import baselines
from kernelgan.baselines.methods import Context, Method, Networks
from kernelgan.evaluation import (
    binding,
    bootstrap,
    calibration,
    comparison,
    features,
    measurement,
    null_test,
    parentage,
)
from kernelgan.evaluation import novelty as novelty_lib
from kernelgan.evaluation.measurement import Arrays, Record
from kernelgan.evaluation.parentage import Parentage
from kernelgan.generators import placebo
from kernelgan.keys import StageKey, kept

Item = TypeVar("Item")
Result = TypeVar("Result")

_SHOWN_IMAGES = 48


def evaluate_pairs(
    work: Callable[[Item, Callable[[int], None]], Result],
    pairs: Sequence[Item],
    *,
    progress: Callable[[int, int], None],
    methods: Mapping[str, Method],
) -> list[Result]:
    """Measures pairs, as many at a time as there are cores.

    Args:
      work: `evaluate_pair` of one of these, with the ``progress`` that it is to call.
      pairs: what there is to measure.
      progress: called with the methods done and the methods in all, by one thread at a time.
      methods: the table.

    Returns:
      What each pair gives, in order. The first error stops the others at their next method.
    """
    from kernelgan.evaluation import loops  # numba takes a while to import

    lock, stop = threading.Lock(), threading.Event()
    done = [0] * len(pairs)

    def one(number: int) -> Result:
        def measured(count: int) -> None:
            if stop.is_set():
                raise futures.CancelledError
            with lock:
                done[number] = count
                progress(sum(done), len(pairs) * len(methods))

        return work(pairs[number], measured)

    return loops.on_all_cores(one, range(len(pairs)), stop=stop.set)


def evaluate_pair(
    context: Context,
    images: np.ndarray,
    quadrant: np.ndarray,
    settings: measurement.Settings,
    *,
    directory: Path,
    keys: Callable[[str], StageKey],
    progress: Callable[[int], None],
    methods: Mapping[str, Method],
    at_once: int = 1,
) -> tuple[Record, Arrays]:
    """Measures every method on one pair.

    Args:
      context: what methods build their networks from.
      images: uint8 ``(N, H, W, C)``, the pair's test images.
      quadrant: int8 ``(N,)``.
      settings: see there.
      directory: each method's measurements are kept here, and used by a resumed run.
      keys: what a method of this name and its measurements are made from.
      progress: called with the number of methods done.
      methods: the table; the parents are measured first, for the novelty of others is taken against them.
      at_once: methods that are measured at a time; what is measured does not depend on it.

    Returns:
      ``{"methods": ..., "tests": ..., "null_test": ..., "binding": ...}`` as `results` describes them, and
      the pair's arrays for figures and for `comparison.overall`.
    """
    from kernelgan.evaluation import loops  # numba takes a while to import

    parents: dict[str, Arrays] = {}
    pair = _Pair(context, images, quadrant, settings, parents)
    lock, done = threading.Lock(), itertools.count(1)

    def measured(name: str) -> tuple[Record, Arrays] | None:
        work = functools.partial(pair.measure, methods[name])
        found = kept(directory / f"{name}.npz", keys(name), work)
        with lock:
            progress(next(done))
        return found

    first = [name for name, method in methods.items() if method.kind == "parent"]
    found = {name: measured(name) for name in first}
    parents |= {name: one[1] for name, one in found.items() if one is not None}
    others = [name for name in methods if name not in found]
    if at_once > 1:
        pair.precompute()
        made = loops.on_all_cores(measured, others, at_once=at_once)
    else:
        made = [measured(name) for name in others]
    found |= dict(zip(others, made, strict=True))
    measurements = {name: one for name in methods if (one := found[name]) is not None}
    outcomes = {name: arrays for name, (_, arrays) in measurements.items()}
    arrays = _pictured(outcomes, images, quadrant)
    arrays["embedding_quadrant"] = quadrant[measurement.embedded_images(quadrant, settings.umap_images)]
    return _compared(
        {name: record for name, (record, _) in measurements.items()}, outcomes, settings.seed
    ), arrays


def _compared(records: dict[str, Record], outcomes: dict[str, Arrays], seed: int) -> Record:
    """The record of a pair, from those of its methods and their arrays: what only all of them tell."""
    for name, share in measurement.recovered(records).items():
        records[name]["recovered"] = share
    merit = measurement.merit_of(next(iter(records.values())))
    generated = [name for name, record in records.items() if record["kind"] == "generated"]
    means = {name: record["auroc"][merit]["mean"] for name, record in records.items()}
    replicates = {name: found["replicates"] for name, found in outcomes.items()}
    worst = {name: found["worst"] for name, found in outcomes.items()}
    return {
        "methods": records,
        "tests": comparison.pair_tests(means, replicates, generated, worst),
        "null_test": null_test.matched(worst, generated, seed, statistic=f"auroc.{merit}"),
        "binding": binding.binding(records),
    }


@dataclasses.dataclass
class _Pair:
    """Measures methods on one pair; what several of them need is worked out once, when it is needed.

    Attributes:
      context: see `evaluate_pair`, as are the next three.
      outcomes: the arrays of the parents, once they are measured.
    """

    context: Context
    images: np.ndarray
    quadrant: np.ndarray
    settings: measurement.Settings
    outcomes: Mapping[str, Arrays]

    @functools.cached_property
    def weights(self) -> np.ndarray:
        return bootstrap.image_weights(
            self.quadrant, resamples=self.settings.bootstrap, seed=self.settings.seed
        )

    @functools.cached_property
    def seen(self) -> calibration.SeenImages | None:
        context = self.context
        return calibration.seen_validation(context.images, context.seen, self.settings.seed)

    @functools.cached_property
    def parentage(self) -> Parentage | None:
        """None without both parents, or where most are copies of each other: there is no distance."""
        if any(name not in self.outcomes for name in baselines.PARENTS):
            return None
        rivals = [self.outcomes[name] for name in baselines.PARENTS]
        try:
            return parentage.parentage((self.context.attribute, self.context.objects), rivals, self.quadrant)
        except ValueError:
            return None

    def precompute(self) -> None:
        """Computes what several methods need, before they are measured at the same time."""
        _ = self.weights, self.seen, self.parentage

    def measure(self, method: Method) -> tuple[Record, Arrays] | None:
        """A method's measurements, with its novelty where that is defined; the parents have none.

        Of generated networks only those that differ are measured; what runs is built from their parameters.
        """
        networks = method.networks(self.context)
        if networks is None:
            return None
        made = None
        if method.kind == "generated":
            networks, made = self._rebuilt(networks)
        temperatures = measurement.fitted_temperatures(networks, self.seen, self.settings)
        record, arrays = measurement.evaluate_method(
            method, networks, self.images, self.quadrant, self.settings, self.weights, temperatures
        )
        if made is not None:
            record["made"] = made
        if method.placebos is not None:
            record["placebos"] = self._placebos(method.placebos(self.context), record, arrays)
        if method.kind != "parent" and self.parentage is not None:
            found = parentage.novelty(networks, self.parentage, arrays, self.quadrant, self.settings)
            if found is not None:
                record["novelty"], arrays["novelty"] = found
        return record, arrays

    def _rebuilt(self, networks: Networks) -> tuple[Networks, int | None]:
        """Networks as their parameters say, those that differ; and how many there were, if some do not."""
        layers = {*self.context.layers, "dense"}
        if len(networks) != 1 or set(networks[0].params) != layers:
            return networks, None
        params = networks[0].params
        members = novelty_lib.distinct(params)
        count = len(params["dense"]["bias"])
        if len(members) == count:
            return self.context.convnets(params), None
        return self.context.convnets(jax.tree.map(lambda leaf: leaf[members], params)), count

    def _placebos(self, placebos: Mapping[str, Networks], record: Record, arrays: Arrays) -> Record:
        """Figures of merit with placebo parents, tested against half of the method's gain over 0.5.

        A placebo with answers that are not finite supports no claim: it counts as keeping the whole gain.
        """
        own = record["auroc"][measurement.merit_of(record)]
        gain = own["mean"] - 0.5
        found = {}
        for name, networks in placebos.items():
            parents = self.context.stand_ins.get(name) or placebo.WORDS[name.partition("_")[2]]
            logits = [part for part, _ in measurement.outputs(networks, self.images, self.settings)]
            answers, _ = features.score(np.concatenate(logits))
            if not np.isfinite(answers).all():
                whole = {"difference": {"mean": -abs(gain) / 2}, "p_value": 1.0}
                found[name] = {"parents": parents, "auroc": {"mean": own["mean"]}, "test": whole}
                continue
            each = measurement.worst(answers, self.quadrant)
            drawn = bootstrap.resampled_auroc(answers, self.quadrant, self.weights)["worst"]
            replicates = bootstrap.resampled_mean(drawn, seed=self.settings.seed)
            figure = bootstrap.interval(each, drawn, seed=self.settings.seed)
            found[name] = {
                "parents": parents,
                "auroc": figure,
                "test": comparison.difference(
                    gain / 2,
                    figure["mean"] - 0.5,
                    arrays["replicates"] / 2,
                    replicates,
                    [arrays["worst"] / 2, each],
                ),
            }
        return found


def _pictured(outcomes: dict[str, Arrays], images: np.ndarray, quadrant: np.ndarray) -> Arrays:
    """What the report's figures need of a pair's evaluation."""
    present = np.unique(quadrant)
    each = -(-_SHOWN_IMAGES // len(present))
    shown = np.concatenate([np.flatnonzero(quadrant == number)[:each] for number in present])
    arrays = {"test_images": images[shown], "test_quadrant": quadrant[shown]}
    for name, found in outcomes.items():
        answers = features.probability(found["scores"][0, shown], float(found["threshold"]))
        found = {**found, "answers": answers.astype(np.float32)}
        for figure in ("worst", "replicates", "novelty", "cosine", "answers", "embedding", "cluster"):
            if figure in found:
                arrays[f"{figure}/{name}"] = found[figure]
    return arrays
