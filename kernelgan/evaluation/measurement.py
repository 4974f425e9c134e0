"""Everything that is measured of one method, and of one pair: the records of `results.json`."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from kernelgan import baselines
from kernelgan.baselines.methods import Context, Method, Networks, parameter_count
from kernelgan.evaluation import (
    binding,
    bootstrap,
    calibration,
    clustering,
    comparison,
    features,
    null_test,
    scores,
    similarity,
)
from kernelgan.evaluation import novelty as novelty_lib
from kernelgan.generators import placebo
from kernelgan.keys import StageKey, kept
from kernelgan.types import Params, Quadrant

Record = dict[str, Any]
Arrays = dict[str, np.ndarray]
Item = TypeVar("Item")
Result = TypeVar("Result")

_SHOWN_IMAGES = 48
_CLUSTER_FIGURES = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")
_MATCHED = 32
_DIGITS, _LEAST = 9, 1e-6
_MATCHED_LAYERS = 2  # filters are matched through two layers; networks of another depth have no novelty


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of evaluation; the fields of ``config.evaluate`` of these names.

    Attributes:
      bootstrap: resamples behind each interval.
      umap_networks: networks whose features are embedded, the first of each method.
      umap_images: most images that are clustered; equally many of each quadrant.
      umap_neighbours: of UMAP.
      dbscan_radius: in standard deviations of the embedding.
      dbscan_minimum_samples: of DBSCAN.
      svm_nu: of the one-class SVM.
      chunk_size: networks in memory at a time, the same for every population of a method.
      seed: of the run.
    """

    bootstrap: int
    umap_networks: int
    umap_images: int
    umap_neighbours: int
    dbscan_radius: float
    dbscan_minimum_samples: int
    svm_nu: float
    chunk_size: int
    seed: int


def evaluate_method(
    method: Method,
    networks: Networks,
    images: np.ndarray,
    quadrant: np.ndarray,
    settings: Settings,
    weights: np.ndarray | None = None,
    temperatures: np.ndarray | None = None,
) -> tuple[Record, Arrays]:
    """Measures every network of a method on the test images.

    Args:
      method: the row of the table.
      networks: what the method made.
      images: uint8 ``(N, H, W, C)``.
      quadrant: int8 ``(N,)``, see `scores`.
      settings: see there.
      weights: the resamples of the images, see `bootstrap.intervals_and_replicates`.
      temperatures: of both heads of each network, see `calibration`; without them nothing is calibrated.

    Returns:
      The method's record but for what needs other methods (``recovered``, ``novelty``), and its arrays:
      ``worst`` ``(M,)``, its mean's ``replicates`` ``(R,)``, ``scores`` ``(M, N)``, ``threshold`` ``()``,
      ``cosine`` ``(Q, Q)``, and of the first network ``embedding`` ``(n, 2)`` and ``cluster`` ``(n,)`` of the
      images of `embedded_images`.
    """
    few = embedded_images(quadrant, settings.umap_images)
    parts_of_logits, cosines, raw = [], [], []
    embedded: list[clustering.ClusterResult] = []
    for answers, found in _outputs(networks, images, settings):
        parts_of_logits.append(answers)
        if found.shape[-1] == 0:
            continue  # without features there is nothing to cluster
        found = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        cosines.append(similarity.cosine_similarity(found, quadrant))
        raw.append(clustering.kmeans_many(found[:, few], quadrant[few], seed=settings.seed))
        missing = settings.umap_networks - len(embedded)
        embedded += [_cluster(one[few], quadrant[few], settings) for one in found[: max(0, missing)]]
    logits = np.concatenate(parts_of_logits)
    answers, threshold = features.score(logits)
    answers, not_finite = _finite(answers, quadrant, threshold)
    record: Record = {
        "kind": method.kind,
        "label": method.label,
        "description": method.description,
        "family": method.family,
        "tier": method.tier,
        "networks": len(answers),
        "parameters": parameter_count(networks),
        "not_finite": not_finite or None,
    }
    figures, replicates = bootstrap.intervals_and_replicates(
        answers,
        quadrant,
        threshold=threshold,
        resamples=settings.bootstrap,
        seed=settings.seed,
        weights=weights,
    )
    record |= figures
    if "vs_rest" in record["auroc"]:
        del record["auroc"]["worst"]  # of one number; there are no quadrants
        del record["auroc"][scores.WORST_OF_MEANS]
    elif temperatures is not None:
        calibrated, limit = features.score(calibration.cooled(logits, temperatures))
        calibrated, _ = _finite(calibrated, quadrant, limit)
        record["auroc"]["worst_calibrated"] = _summary(worst(calibrated, quadrant), settings)
    arrays: Arrays = {
        "worst": worst(answers, quadrant),
        "replicates": replicates,
        "scores": answers,
        "threshold": np.asarray(threshold, np.float32),
    }
    if not cosines:
        return record, arrays
    record["clustering"] = _clusterings(raw, embedded, settings)
    record["cosine_similarity"] = {
        figure: _summary(np.concatenate([getattr(part, figure) for part in cosines]), settings)
        for figure in ("within", "across", "margin")
    }
    arrays["cosine"] = np.mean(np.concatenate([part.matrix for part in cosines]), axis=0)
    if embedded and embedded[0].embedding is not None:
        arrays |= {"embedding": embedded[0].embedding, "cluster": embedded[0].clusters["kmeans"]}
    return record, arrays


def _outputs(
    networks: Networks, images: np.ndarray, settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits ``(m, N, K)`` and features ``(m, N, F)`` of a method's populations side by side, by chunks."""
    streams = [population.outputs(images, chunk_size=settings.chunk_size) for population in networks]
    for parts in zip(*streams, strict=True):
        logits, found = (_side_by_side([part[place] for part in parts]) for place in (1, 2))
        yield logits, found


def _finite(answers: np.ndarray, quadrant: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """Scores ``(M, N)``, those of networks that are not finite made wrong on every image; how many are."""
    bad = ~np.isfinite(answers).all(axis=1)
    if bad.any():
        yes = 0.0 if threshold < 0 else 1.0  # above it, and of a probability no more than 1
        wrong = np.where(quadrant == Quadrant.CONJUNCTION, -1e3, yes).astype(answers.dtype)
        answers = np.where(bad[:, None], wrong, answers)
    return answers, int(bad.sum())


def _side_by_side(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def fitted_temperatures(
    networks: Networks, seen: calibration.SeenImages | None, settings: Settings
) -> np.ndarray | None:
    """Temperatures ``(M, 2)``, fitted on seen validation images; None of networks without two concepts."""
    outputs = sum(population.params["dense"]["bias"].shape[-1] for population in networks)
    if seen is None or outputs != 4:
        return None
    answered = _outputs(networks, seen.images, settings)
    return np.concatenate([calibration.temperatures(logits, seen.quadrant) for logits, _ in answered])


def worst(answers: np.ndarray, quadrant: np.ndarray) -> np.ndarray:
    """Worst-quadrant AUROC of each network, ``(M, N)`` to ``(M,)``."""
    return scores.auroc_by_quadrant(answers, quadrant)["worst"]


def embedded_images(quadrant: np.ndarray, most: int) -> np.ndarray:
    """Which test images are embedded: ascending indices, the first ones of each quadrant in equal numbers."""
    present = np.unique(quadrant)
    if most >= len(quadrant):
        return np.arange(len(quadrant))
    each = max(1, most // len(present))
    return np.sort(np.concatenate([np.flatnonzero(quadrant == number)[:each] for number in present]))


def _cluster(found: np.ndarray, quadrant: np.ndarray, settings: Settings) -> clustering.ClusterResult:
    return clustering.cluster(
        found,
        quadrant,
        seed=settings.seed,
        neighbours=settings.umap_neighbours,
        radius=settings.dbscan_radius,
        minimum_samples=settings.dbscan_minimum_samples,
        nu=settings.svm_nu,
    )


def _summary(values: np.ndarray, settings: Settings) -> Record:
    return bootstrap.summary(values, resamples=settings.bootstrap, seed=settings.seed)


def _clusterings(raw: list[Record], embedded: list[clustering.ClusterResult], settings: Settings) -> Record:
    """The record of every clusterer, of K-means on each chunk's features and of the embedded networks."""
    clusterings = {"kmeans_raw": jax.tree.map(lambda *parts: np.concatenate(parts), *raw)}
    for clusterer in embedded[0].scores if embedded else ():
        if clusterer != "kmeans_raw":
            clusterings[clusterer] = clustering.stack([one.scores[clusterer] for one in embedded])
    return {name: _summaries(values, settings) for name, values in clusterings.items()}


def _summaries(values: Record, settings: Settings) -> Record:
    """Each array of a clusterer's record as a mean with its interval."""
    found = {key: _summary(values[key], settings) for key in _CLUSTER_FIGURES}
    as_printed = values["as_printed"]
    printed = {key: _summary(as_printed[key], settings) for key in _CLUSTER_FIGURES if key in as_printed}
    return {**found, "as_printed": printed}


def merit_of(record: Record) -> str:
    """Which AUROC is the figure of merit: ``worst``, or ``vs_rest`` where no quadrant but that is known."""
    return "worst" if "worst" in record["auroc"] else "vs_rest"


def recovered(records: dict[str, Record]) -> dict[str, dict[str, float] | None]:
    """Each method's share of the way from the floor to the reference, on the figure of merit.

    The floor is that of random networks, and at least `baselines.CHANCE`.
    """
    means = {name: record["auroc"][merit_of(record)]["mean"] for name, record in records.items()}
    low, high = means.get(baselines.FLOOR), means.get(baselines.REFERENCE)
    if low is None or high is None:
        return dict.fromkeys(records)
    low = max(low, baselines.CHANCE)
    if high <= low:
        return dict.fromkeys(records)
    return {name: {"mean": (mean - low) / (high - low)} for name, mean in means.items()}


class Parentage(NamedTuple):
    """What the novelty of every method of a pair is taken against; see `parentage`.

    Attributes:
      layers: names of the two convolutional layers.
      kernels: the parents of both zoos.
      wrong: bool ``(K, N)``: which images they answer wrongly.
      ranks: float ``(K, N)``: `novelty.standard_ranks` of their scores.
      typical_answers: how far answers usually are from the nearest parent's, one minus the rank correlation:
        those of a parent from its fellow's, or those of both parents together, whichever is nearer.
      typical_errors: median overlap of a parent's errors with those of its nearest fellow.
    """

    layers: tuple[str, ...]
    kernels: novelty_lib.Parents
    wrong: np.ndarray
    ranks: np.ndarray
    typical_answers: float
    typical_errors: float


def parentage(parents: tuple[Params, Params], rivals: Sequence[Arrays], quadrant: np.ndarray) -> Parentage:
    """Both zoos' networks as candidates for the nearest parent.

    Args:
      parents: of the attribute's and the object's zoo.
      rivals: both zoos' arrays from `evaluate_method`.
      quadrant: int8 ``(N,)``.

    Returns:
      Their kernels, distances and errors.
    """
    layers = tuple(name for name in parents[0] if name != "dense")
    kernels = [np.concatenate([zoo[layer]["kernel"] for zoo in parents]) for layer in layers]
    wrong = [_wrong(rival, quadrant) for rival in rivals]
    overlaps = []
    for zoo in wrong:
        shared = novelty_lib.error_overlaps(zoo, zoo)
        np.fill_diagonal(shared, -1.0)
        overlaps.append(shared.max(axis=1))
    ranks = [novelty_lib.standard_ranks(rival["scores"]) for rival in rivals]
    fellows = []
    for zoo in ranks:
        among = zoo @ zoo.T
        np.fill_diagonal(among, -1.0)
        fellows.append(among.max(axis=1))
    few = min(len(zoo) for zoo in ranks)
    attribute, objects = (np.logaddexp(0, -rival["scores"][:few].astype(np.float64)) for rival in rivals)
    together = -(attribute + objects)
    everyone = np.concatenate(ranks)
    nearest = (novelty_lib.standard_ranks(together) @ everyone.T).max(axis=1)
    typical = 1 - max(float(np.median(np.concatenate(fellows))), float(nearest.mean()))
    return Parentage(
        layers,
        novelty_lib.compare_parents(*kernels),
        np.concatenate(wrong),
        everyone,
        typical,
        float(np.median(np.concatenate(overlaps))),
    )


def novelty(
    networks: Networks,
    parents: Parentage,
    answers: Arrays,
    quadrant: np.ndarray,
    settings: Settings,
) -> tuple[Record, np.ndarray] | None:
    """How new networks are: distance to, and errors in common with, the nearest parent.

    Args:
      networks: what a method made; the first 32 are looked at.
      parents: from `parentage`.
      answers: the networks' arrays from `evaluate_method`.
      quadrant: int8 ``(N,)``.
      settings: see there.

    Returns:
      Summaries ``distance`` (1: as far as a parent is from its nearest fellow; 0: a copy), ``answers`` (the
      same of rank correlations between scores, see `Parentage.typical_answers`), ``error_overlap``
      (intersection over union with the parent nearest by weights; 1: the same errors),
      ``error_overlap_nearest`` (with the parent that shares most) and ``error_overlap_parents`` (of a parent
      with its nearest fellow); and the distances ``(m,)``. None for what is not one network with kernels of
      the parents' shape.
    """
    if len(networks) != 1 or any(layer not in networks[0].params for layer in parents.layers):
        return None
    own = [networks[0].params[layer]["kernel"][:_MATCHED] for layer in parents.layers]
    if any(ours.shape[1:] != kernel.shape[1:] for ours, kernel in zip(own, parents.kernels[:2], strict=True)):
        return None
    first, second = own
    found = novelty_lib.novelty(first, second, parents.kernels)
    wrong = _wrong(answers, quadrant)[:_MATCHED]
    ranks = novelty_lib.standard_ranks(answers["scores"][:_MATCHED])
    apart = (1 - (ranks @ parents.ranks.T).max(axis=1)).round(_DIGITS) / max(parents.typical_answers, _LEAST)
    record = {
        "distance": _summary(found.relative_to_nearest, settings),
        "answers": _summary(apart, settings),
        "error_overlap": _summary(novelty_lib.error_overlap(wrong, parents.wrong, found.nearest), settings),
        "error_overlap_nearest": _summary(
            novelty_lib.error_overlaps(wrong, parents.wrong).max(axis=1), settings
        ),
        "error_overlap_parents": {"mean": parents.typical_errors},
    }
    return record, found.relative_to_nearest


def _wrong(answers: Arrays, quadrant: np.ndarray) -> np.ndarray:
    """Bool ``(M, N)``: which images are answered wrongly."""
    return scores.answers(answers["scores"], float(answers["threshold"])) != (
        quadrant == Quadrant.CONJUNCTION
    )


def matched_null(
    worst_by_method: dict[str, np.ndarray],
    generated: list[str],
    seed: int,
    *,
    statistic: str = "auroc.worst",
) -> Record | None:
    """The generated networks against as carefully picked random ones.

    The mean of each generated method is tested against random networks by permutation; reporting the best of
    them is picking, and its p-value is multiplied by their number (Bonferroni). The best single network of
    all is tested against the best of as many random ones.

    Args:
      worst_by_method: figure of merit ``(M,)`` of the random networks and of the generated ones.
      generated: which methods are generated.
      seed: of the permutations.
      statistic: the figure's name.

    Returns:
      The record ``null_test``, or None if there are no generated networks.
    """
    candidates = [name for name in generated if name in worst_by_method]
    if not candidates or baselines.FLOOR not in worst_by_method:
        return None
    null = worst_by_method[baselines.FLOOR]
    by_method, means = {}, {}
    for name in candidates:
        of_mean = null_test.mean_test(worst_by_method[name], null, statistic=statistic, seed=seed)
        of_best = null_test.best_of(worst_by_method[name], null, statistic=statistic)
        means[name] = of_mean
        by_method[name] = {
            "mean_p_value": of_mean["p_value"],
            "superiority": of_mean["superiority"],
            "best_p_value": of_best["p_value"],
            "smallest_best_p_value": of_best["smallest_p"],
        }
    method = max(candidates, key=lambda name: means[name]["mean"])
    return {
        "statistic": statistic,
        "method": method,
        "candidates": len(candidates),
        "observed": means[method]["mean"],
        "null_mean": means[method]["null_mean"],
        "p_value": min(1.0, len(candidates) * by_method[method]["mean_p_value"]),
        "by_method": by_method,
        "best_network": null_test.best_of(
            np.concatenate([worst_by_method[name] for name in candidates]), null, statistic=statistic
        ),
    }


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
    settings: Settings,
    *,
    directory: Path,
    keys: Callable[[str], StageKey],
    progress: Callable[[int], None],
    methods: Mapping[str, Method],
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
      methods: the table; the parents come first, for the novelty of others is taken against them.

    Returns:
      ``{"methods": ..., "tests": ..., "null_test": ..., "binding": ...}`` as `results` describes them, and
      the pair's arrays for figures and for `comparison.overall`.
    """
    records: dict[str, Record] = {}
    outcomes: dict[str, Arrays] = {}
    pair = _Pair(context, images, quadrant, settings, outcomes)
    for done, (name, method) in enumerate(methods.items(), start=1):
        found = kept(directory / f"{name}.npz", keys(name), functools.partial(pair.measure, method))
        if found is not None:
            records[name], outcomes[name] = found
        progress(done)
    for name, share in recovered(records).items():
        records[name]["recovered"] = share
    merit = merit_of(next(iter(records.values())))
    generated = [name for name, record in records.items() if record["kind"] == "generated"]
    tests = comparison.pair_tests(
        {name: record["auroc"][merit]["mean"] for name, record in records.items()},
        {name: found["replicates"] for name, found in outcomes.items()},
        generated,
        {name: found["worst"] for name, found in outcomes.items()},
    )
    null = matched_null(
        {name: found["worst"] for name, found in outcomes.items()},
        generated,
        settings.seed,
        statistic=f"auroc.{merit}",
    )
    arrays = _pictured(outcomes, images, quadrant)
    arrays["embedding_quadrant"] = quadrant[embedded_images(quadrant, settings.umap_images)]
    of_pair = {"methods": records, "tests": tests, "null_test": null, "binding": binding.binding(records)}
    return of_pair, arrays


@dataclasses.dataclass
class _Pair:
    """Measures methods on one pair; what several of them need is worked out once, when it is needed.

    Attributes:
      context: see `evaluate_pair`, as are the next three.
      outcomes: the arrays of the methods that are measured, the parents' among them.
      answered: what parents answer, by `features.identity`: ensembles ask again.
    """

    context: Context
    images: np.ndarray
    quadrant: np.ndarray
    settings: Settings
    outcomes: Mapping[str, Arrays]
    answered: dict[tuple[object, ...], features.Answered] = dataclasses.field(default_factory=dict)

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
        """None where most parents are copies of each other: there is no distance to compare with."""
        rivals = [self.outcomes[name] for name in baselines.PARENTS]
        try:
            return parentage((self.context.attribute, self.context.objects), rivals, self.quadrant)
        except ValueError:
            return None

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
        is_parent = method.kind == "parent"
        temperatures = fitted_temperatures(networks, self.seen, self.settings)  # before: no known answers
        networks = tuple(self._answering(population, keep=is_parent) for population in networks)
        record, arrays = evaluate_method(
            method, networks, self.images, self.quadrant, self.settings, self.weights, temperatures
        )
        if made is not None:
            record["made"] = made
        if method.placebos is not None:
            record["placebos"] = self._placebos(method.placebos(self.context), record, arrays)
        if is_parent or any(name not in self.outcomes for name in baselines.PARENTS):
            return record, arrays
        if len(self.context.layers) != _MATCHED_LAYERS or self.parentage is None:
            return record, arrays
        found = novelty(networks, self.parentage, arrays, self.quadrant, self.settings)
        if found is None:
            return record, arrays
        return {**record, "novelty": found[0]}, {**arrays, "novelty": found[1]}

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
        own = record["auroc"][merit_of(record)]
        gain = own["mean"] - 0.5
        found = {}
        for name, networks in placebos.items():
            parents = self.context.stand_ins.get(name) or placebo.WORDS[name.partition("_")[2]]
            streams = [
                population.outputs(self.images, chunk_size=self.settings.chunk_size)
                for population in networks
            ]
            logits = [_side_by_side([part[1] for part in parts]) for parts in zip(*streams, strict=True)]
            answers, _ = features.score(np.concatenate(logits))
            if not np.isfinite(answers).all():
                kept = {"difference": {"mean": -abs(gain) / 2}, "p_value": 1.0}
                found[name] = {"parents": parents, "auroc": {"mean": own["mean"]}, "test": kept}
                continue
            each = worst(answers, self.quadrant)
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

    def _answering(self, population: features.Population, *, keep: bool) -> features.Population:
        """The population, or its answers where they are known; ``keep`` makes them known."""
        key = features.identity(population)
        if key is None:
            return population
        if keep and key not in self.answered:
            outputs = population.outputs(self.images, chunk_size=self.settings.chunk_size)
            self.answered[key] = features.Answered(population.params, list(outputs))
        return self.answered.get(key, population)


def _pictured(outcomes: dict[str, Arrays], images: np.ndarray, quadrant: np.ndarray) -> Arrays:
    """What the report's figures need of a pair's evaluation."""
    present = np.unique(quadrant)
    each = -(-_SHOWN_IMAGES // len(present))
    shown = np.concatenate([np.flatnonzero(quadrant == number)[:each] for number in present])
    arrays = {"test_images": images[shown], "test_quadrant": quadrant[shown]}
    for name, found in outcomes.items():
        for figure in ("worst", "replicates", "novelty"):
            if figure in found:
                arrays[f"{figure}/{name}"] = found[figure]
        if "cosine" in found:
            arrays[f"cosine/{name}"] = found["cosine"]
        answers = features.probability(found["scores"][0, shown], float(found["threshold"]))
        arrays[f"answers/{name}"] = answers.astype(np.float32)
        for picture in ("embedding", "cluster"):
            if picture in found:
                arrays[f"{picture}/{name}"] = found[picture]
    return arrays
