"""Evaluation for callers of the library: networks of one pair, beside the baselines that need no training."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from kernelgan import models, results
from kernelgan.baselines import methods
from kernelgan.baselines.context import Context, Networks
from kernelgan.data import quadrants
from kernelgan.data.pairs import Pair
from kernelgan.evaluation import comparison, measurement, verdict
from kernelgan.evaluation.pairs import evaluate_pair
from kernelgan.generators import check, placebo
from kernelgan.generators.base import Parents
from kernelgan.keys import StageKey
from kernelgan.types import Params, UserError

FAMILY = "generated"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
      run: in the form of a run's results, with one pair.
    """

    run: results.Run

    @property
    def pair(self) -> results.Pair:
        """Figures of every method, tests between them, and the verdict."""
        return self.run.pairs[0]

    def show(self) -> None:
        """Prints the table of the methods to look at first, and the verdict."""
        from kernelgan.report import terminal

        print(terminal.table(self.run, report=False))


def _row(name: str, made: Mapping[str, Mapping[str, Params]]) -> methods.Method:
    label = "generated networks" if name == FAMILY else f"networks {name}"

    def networks(context: Context) -> Networks:
        return context.convnets(context.generated[name])

    def placebos(context: Context) -> dict[str, Networks]:
        return {key: context.convnets(by_name[name]) for key, by_name in made.items()}

    return methods.Method("generated", label, "given by the caller", networks, FAMILY, placebos=placebos)


def _named(networks: Any) -> Any:  # noqa: ANN401
    """By name, parameters; what is one population has the name "". Others as they are."""
    alone = models.params_of(networks)
    if isinstance(alone, Mapping) and "dense" in alone:
        return {"": alone}
    return {key: models.params_of(one) for key, one in alone.items()} if isinstance(alone, Mapping) else alone


def _made(networks: Mapping[str, Params]) -> dict[str, Params]:
    return {key or FAMILY: jax.device_get(params) for key, params in networks.items()}


def evaluate(
    pair: Pair,
    parents: Parents,
    networks: Mapping[str, Any],
    *,
    again: Callable[[Parents], Any] | None = None,
    seed: int = 0,
    random_networks: int = 256,
    resamples: int = 1000,
    chunk_size: int = 256,
) -> Evaluation:
    """Measures networks on the test images of a pair, beside random networks, the parents and their merges.

    Args:
      pair: from `kernelgan.split`; its test images are read here, and only here.
      parents: the two zoos, or their parameters.
      networks: by name (or ""), stacked parameters, as a generator's ``generate`` gives them, or zoos; or one
        of these without a name.
      again: makes such networks from other parents. It is called with these parents, of which it must give
        these networks, and with random networks in place of one zoo; without it the answer is never "yes".
      seed: of random networks and of resamples.
      random_networks: how many.
      resamples: of images and networks behind each 95% interval.
      chunk_size: networks in memory at a time.

    Raises:
      UserError: these are no parents or networks, one is called as a baseline is, or ``again`` gives others.
    """
    parents = Parents(*check.parents_of(parents)[0])
    network = models.network_of(parents.attribute)
    size = pair.test.images.shape[1]
    networks = _named(networks)
    check.check_networks(networks, network, size, "kernelgan.evaluate is given")
    made = _made(networks)
    clash = [name for name in made if name in methods.BASELINES]
    if clash:
        raise UserError(f"networks are called {', '.join(clash)}, as a baseline is; give them another name.")
    placebos: dict[str, dict[str, Params]] = {}
    if again:
        exchanged = placebo.exchanged(network, size, parents, jax.random.key(seed))
        asked = {name: _named(again(zoos)) for name, zoos in {"": parents, **exchanged}.items()}
        for given in asked.values():
            check.check_networks(given, network, size, "again gives")
        check.check_same(_made(asked.pop("")), made, "again gives")
        for name, given in asked.items():
            placebos[name] = {key: placebo.some(params) for key, params in _made(given).items()}
    rows = {name: _row(name, placebos) for name in made}
    context = Context(
        network=network,
        image_size=size,
        attribute=parents.attribute,
        objects=parents.object,
        generated=made,
        trained={},
        half_width=None,
        images=pair.source.train.images,
        seen=pair.seen,
        attribute_images=pair.attribute.groups,
        object_images=pair.object.groups,
        random_networks=random_networks,
        random_bias="zero",
        seed=seed,
        key=jax.random.key(seed),
        names=(pair.attribute.concept, pair.object.concept),
        ruled=pair.attribute.concept in pair.source.ruled,
    )
    settings = measurement.Settings(bootstrap=resamples, chunk_size=chunk_size, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        record, arrays = evaluate_pair(
            context,
            pair.test.images,
            pair.test.quadrant,
            settings,
            directory=Path(folder),
            keys=lambda name: StageKey({"row": name}),
            progress=lambda done: None,
            methods=methods.table(rows),
        )
    return _evaluation(pair, record, arrays, seed)


def _evaluation(pair: Pair, record: measurement.Record, arrays: measurement.Arrays, seed: int) -> Evaluation:
    """A pair's record and arrays as a run of its own, judged."""
    names = {"attribute": pair.attribute.concept, "object": pair.object.concept}
    counts = quadrants.counts(pair.test.quadrant)
    data = {"source": pair.source.name, "test": counts, **dataclasses.asdict(pair.leakage)}
    records: list[dict[str, Any]] = [{"pair": names, "data": data, **record}]
    comparison.adjust(records)
    run = results.from_document({"name": "library", "seed": seed, "pairs": records})
    prefix = "_".join(names.values())
    arrays = {f"{prefix}/{name}": values for name, values in arrays.items()}
    return Evaluation(dataclasses.replace(verdict.judged(run), arrays=arrays))
