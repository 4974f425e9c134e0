"""Everything that is measured of one method, and of one pair: the records of `results.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kernelgan.baselines.methods import Context, Method, Networks, parameter_count
from kernelgan.evaluate import bootstrap, clustering, comparison, features, null_test, scores, similarity
from kernelgan.evaluate import novelty as novelty_lib
from kernelgan.keys import StageKey, kept
from kernelgan.types import Params, Quadrant

Record = dict[str, Any]
Arrays = dict[str, np.ndarray]

_SHOWN_IMAGES = 48
_CLUSTER_FIGURES = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")
_MATCHED = 32


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
      chunk_size: networks in memory at a time.
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
) -> tuple[Record, Arrays]:
    """Measures every network of a method on the test images.

    Args:
      method: the row of the table.
      networks: what the method made.
      images: uint8 ``(N, H, W, C)``.
      quadrant: int8 ``(N,)``, see `scores`.
      settings: see there.

    Returns:
      The method's record but for what needs other methods (``recovered``, ``novelty``), and its arrays:
      ``worst`` ``(M,)``, its mean's ``replicates`` ``(R,)``, ``scores`` ``(M, N)``, ``threshold`` ``()``,
      ``cosine`` ``(Q, Q)``, and of the first network ``embedding`` ``(n, 2)`` and ``cluster`` ``(n,)`` of the
      images of `embedded_images`.
    """
    few = embedded_images(quadrant, settings.umap_images)
    logits, cosines, raw = [], [], []
    embedded: list[clustering.ClusterResult] = []
    streams = [population.outputs(images, chunk_size=settings.chunk_size) for population in networks]
    for parts in zip(*streams, strict=True):
        logits.append(np.concatenate([answers for _, answers, _ in parts], axis=-1))
        found = np.concatenate([values for _, _, values in parts], axis=-1)
        cosines.append(similarity.cosine_similarity(found, quadrant))
        raw.append(clustering.kmeans_many(found[:, few], quadrant[few], seed=settings.seed))
        missing = settings.umap_networks - len(embedded)
        embedded += [_cluster(one[few], quadrant[few], settings) for one in found[: max(0, missing)]]
    answers, threshold = features.score(np.concatenate(logits))
    record: Record = {
        "kind": method.kind,
        "label": method.label,
        "description": method.description,
        "family": method.family,
        "tier": method.tier,
        "networks": len(answers),
        "parameters": parameter_count(networks),
    }
    figures, replicates = bootstrap.intervals_and_replicates(
        answers, quadrant, threshold=threshold, resamples=settings.bootstrap, seed=settings.seed
    )
    record |= figures
    if "vs_rest" in record["auroc"]:
        del record["auroc"]["worst"]  # of one number; there are no quadrants
    clusterings = {"kmeans_raw": _joined(raw)}
    for clusterer in embedded[0].scores if embedded else ():
        if clusterer != "kmeans_raw":
            clusterings[clusterer] = _stacked([one.scores[clusterer] for one in embedded])
    record["clustering"] = {name: _summaries(values, settings) for name, values in clusterings.items()}
    record["cosine_similarity"] = {
        figure: _summary(np.concatenate([getattr(part, figure) for part in cosines]), settings)
        for figure in ("within", "across", "margin")
    }
    arrays: Arrays = {
        "worst": worst(answers, quadrant),
        "replicates": replicates,
        "scores": answers,
        "threshold": np.asarray(threshold, np.float32),
        "cosine": np.mean(np.concatenate([part.matrix for part in cosines]), axis=0),
    }
    if embedded and embedded[0].embedding is not None:
        arrays |= {"embedding": embedded[0].embedding, "cluster": embedded[0].clusters["kmeans"]}
    return record, arrays


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


def _stacked(records: list[Record]) -> Record:
    """Records of numbers, one a network, as one record of ``(M,)`` arrays."""
    return {
        key: _stacked([one[key] for one in records])
        if isinstance(value, dict)
        else np.array([one[key] for one in records])
        for key, value in records[0].items()
    }


def _joined(records: list[Record]) -> Record:
    """Records of ``(m,)`` arrays, one a chunk, as one record of ``(M,)`` arrays."""
    return {
        key: _joined([one[key] for one in records])
        if isinstance(value, dict)
        else np.concatenate([one[key] for one in records])
        for key, value in records[0].items()
    }


def _summary(values: np.ndarray, settings: Settings) -> Record:
    return bootstrap.summary(values, resamples=settings.bootstrap, seed=settings.seed)


def _summaries(values: Record, settings: Settings) -> Record:
    """Each array of a clusterer's record as a mean with its interval."""
    found = {key: _summary(values[key], settings) for key in _CLUSTER_FIGURES}
    printed = {key: _summary(value, settings) for key, value in values["as_printed"].items()}
    return {**found, "as_printed": printed}


def merit_of(record: Record) -> str:
    """Which AUROC is the figure of merit: ``worst``, or ``vs_rest`` where no quadrant but that is known."""
    return "worst" if "worst" in record["auroc"] else "vs_rest"


def recovered(records: dict[str, Record]) -> dict[str, dict[str, float] | None]:
    """Each method's share of the way from random networks to the ceiling, on the figure of merit."""
    means = {name: record["auroc"][merit_of(record)]["mean"] for name, record in records.items()}
    low, high = means.get("random"), means.get("trained_on_conjunction")
    if low is None or high is None or high <= low:
        return dict.fromkeys(records)
    return {name: {"mean": (mean - low) / (high - low)} for name, mean in means.items()}


def novelty(
    networks: Networks,
    parents: tuple[Params, Params],
    answers: Arrays,
    rivals: list[Arrays],
    quadrant: np.ndarray,
    settings: Settings,
) -> tuple[Record, np.ndarray] | None:
    """How new networks are: distance to, and errors in common with, the nearest parent.

    Args:
      networks: what a method made; the first 32 are looked at.
      parents: of the attribute's and the object's zoo, the candidates for nearest.
      answers: the networks' arrays from `evaluate_method`.
      rivals: those of ``attribute_only`` and ``object_only``.
      quadrant: int8 ``(N,)``.
      settings: see there.

    Returns:
      Summaries ``distance`` (1: as far as a parent is from its nearest fellow; 0: a copy) and
      ``error_overlap`` (intersection over union; 1: the same errors), and the distances ``(m,)``. None for
      what is not one network with kernels of the parents' shape.
    """
    layers = [name for name in parents[0] if name != "dense"]
    if len(networks) != 1 or any(
        networks[0].params.get(layer, {"kernel": np.zeros(0)})["kernel"].shape[1:]
        != parents[0][layer]["kernel"].shape[1:]
        for layer in layers
    ):
        return None
    kernels = [np.concatenate([zoo[layer]["kernel"] for zoo in parents]) for layer in layers]
    own = [networks[0].params[layer]["kernel"][:_MATCHED] for layer in layers]
    found = novelty_lib.novelty(*own, *kernels)
    truth = quadrant == Quadrant.CONJUNCTION
    wrong = _answered(answers)[:_MATCHED] != truth
    parents_wrong = np.concatenate([_answered(rival) != truth for rival in rivals])
    record = {
        "distance": _summary(found.relative_to_nearest, settings),
        "error_overlap": _summary(novelty_lib.error_overlap(wrong, parents_wrong, found.nearest), settings),
    }
    return record, found.relative_to_nearest


def _answered(answers: Arrays) -> np.ndarray:
    return scores.answers(answers["scores"], float(answers["threshold"]))


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
    if not candidates or "random" not in worst_by_method:
        return None
    null = worst_by_method["random"]
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
      ``{"methods": ..., "tests": ..., "null_test": ...}`` as `results` describes them, and the pair's arrays
      for figures and for `comparison.overall`.
    """
    records: dict[str, Record] = {}
    outcomes: dict[str, Arrays] = {}
    for done, (name, method) in enumerate(methods.items(), start=1):

        def work(name: str = name, method: Method = method) -> tuple[Record, Arrays] | None:
            networks = method.networks(context)
            if networks is None:
                return None
            record, arrays = evaluate_method(method, networks, images, quadrant, settings)
            return _with_novelty(record, arrays, networks, context, outcomes, quadrant, settings)

        found = kept(directory / f"{name}.npz", keys(name), work)
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
    )
    null = matched_null(
        {name: found["worst"] for name, found in outcomes.items()},
        generated,
        settings.seed,
        statistic=f"auroc.{merit}",
    )
    arrays = _pictured(outcomes, images, quadrant)
    arrays["embedding_quadrant"] = quadrant[embedded_images(quadrant, settings.umap_images)]
    return {"methods": records, "tests": tests, "null_test": null}, arrays


def _with_novelty(
    record: Record,
    arrays: Arrays,
    networks: Networks,
    context: Context,
    outcomes: Mapping[str, Arrays],
    quadrant: np.ndarray,
    settings: Settings,
) -> tuple[Record, Arrays]:
    """A method's measurements with its novelty, where that is defined; the parents have none."""
    rivals = [outcomes[name] for name in ("attribute_only", "object_only") if name in outcomes]
    if record["kind"] == "parent" or len(rivals) < 2:
        return record, arrays
    found = novelty(networks, (context.attribute, context.objects), arrays, rivals, quadrant, settings)
    if found is None:
        return record, arrays
    return {**record, "novelty": found[0]}, {**arrays, "novelty": found[1]}


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
        arrays[f"cosine/{name}"] = found["cosine"]
        answers = features.probability(found["scores"][0, shown], float(found["threshold"]))
        arrays[f"answers/{name}"] = answers.astype(np.float32)
        for picture in ("embedding", "cluster"):
            if picture in found:
                arrays[f"{picture}/{name}"] = found[picture]
    return arrays
