"""Everything that is measured of one method on the test images of a pair: a row of `results.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from kernelgan import baselines
from kernelgan.baselines.methods import Method, Networks, parameter_count
from kernelgan.evaluation import bootstrap, calibration, clustering, features, scores, similarity
from kernelgan.types import Quadrant

Record = dict[str, Any]
Arrays = dict[str, np.ndarray]

_CLUSTER_FIGURES = ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of evaluation; the fields of ``config.evaluate`` of these names.

    Attributes:
      bootstrap: resamples behind each interval.
      chunk_size: networks in memory at a time, the same for every population of a method.
      seed: of the run.
      clustered_networks: networks whose features are compared by angle and clustered by K-means, the first of
        each method.
      umap_networks: likewise, whose features are embedded; no more than are clustered.
      umap_images: most images that are clustered; equally many of each quadrant.
      umap_neighbours: of UMAP.
      dbscan_radius: in standard deviations of the embedding.
      dbscan_minimum_samples: of DBSCAN.
      svm_nu: of the one-class SVM.
    """

    bootstrap: int
    chunk_size: int
    seed: int
    clustered_networks: int = 32
    umap_networks: int = 0
    umap_images: int = 16
    umap_neighbours: int = 2
    dbscan_radius: float = 1.0
    dbscan_minimum_samples: int = 1
    svm_nu: float = 0.5


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
    logits, of_features, pictures = _looked_at(networks, images, quadrant, settings)
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
        record["auroc"]["worst_calibrated"] = summary(worst(calibrated, quadrant), settings)
    arrays: Arrays = {
        "worst": worst(answers, quadrant),
        "replicates": replicates,
        "scores": answers,
        "threshold": np.asarray(threshold, np.float32),
    }
    return record | of_features, arrays | pictures


def _looked_at(
    networks: Networks, images: np.ndarray, quadrant: np.ndarray, settings: Settings
) -> tuple[np.ndarray, Record, Arrays]:
    """Logits ``(M, N, K)`` of all networks; of the first ones' features what is measured, and its arrays."""
    few = embedded_images(quadrant, settings.umap_images)
    options: dict[str, Any] = {
        "seed": settings.seed,
        "neighbours": settings.umap_neighbours,
        "radius": settings.dbscan_radius,
        "minimum_samples": settings.dbscan_minimum_samples,
        "nu": settings.svm_nu,
    }
    logits, cosines, raw, left = [], [], [], settings.clustered_networks
    embedded: list[clustering.ClusterResult] = []
    for answers, found in outputs(networks, images, settings):
        logits.append(answers)
        found = found[:left]
        left -= len(found)
        if found.size == 0:
            continue  # without features there is nothing to cluster
        found = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        cosines.append(similarity.cosine_similarity(found, quadrant))
        raw.append(clustering.kmeans_many(found[:, few], quadrant[few], seed=settings.seed))
        missing = max(0, settings.umap_networks - len(embedded))
        embedded += [clustering.cluster(one[few], quadrant[few], **options) for one in found[:missing]]
    if not cosines:
        return np.concatenate(logits), {}, {}
    record: Record = {"clustering": _clusterings(raw, embedded, settings), "cosine_similarity": {}}
    for figure in ("within", "across", "margin"):
        values = np.concatenate([getattr(part, figure) for part in cosines])
        record["cosine_similarity"][figure] = summary(values, settings)
    arrays = {"cosine": np.mean(np.concatenate([part.matrix for part in cosines]), axis=0)}
    if embedded and embedded[0].embedding is not None:
        arrays |= {"embedding": embedded[0].embedding, "cluster": embedded[0].clusters["kmeans"]}
    return np.concatenate(logits), record, arrays


def outputs(
    networks: Networks, images: np.ndarray, settings: Settings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits ``(m, N, K)`` and features ``(m, N, F)`` of a method's populations side by side, by chunks."""
    streams = [population.outputs(images, chunk_size=settings.chunk_size) for population in networks]
    for parts in zip(*streams, strict=True):
        _, logits, found = zip(*parts, strict=True)
        yield np.concatenate(logits, axis=-1), np.concatenate(found, axis=-1)


def _finite(answers: np.ndarray, quadrant: np.ndarray, threshold: float) -> tuple[np.ndarray, int]:
    """Scores ``(M, N)``, those of networks that are not finite made wrong on every image; how many are."""
    bad = ~np.isfinite(answers).all(axis=1)
    if bad.any():
        yes = 0.0 if threshold < 0 else 1.0  # above it, and of a probability no more than 1
        wrong = np.where(quadrant == Quadrant.CONJUNCTION, -1e3, yes).astype(answers.dtype)
        answers = np.where(bad[:, None], wrong, answers)
    return answers, int(bad.sum())


def fitted_temperatures(
    networks: Networks, seen: calibration.SeenImages | None, settings: Settings
) -> np.ndarray | None:
    """Temperatures ``(M, 2)``, fitted on seen validation images; None of networks without two concepts."""
    count = sum(population.params["dense"]["bias"].shape[-1] for population in networks)
    if seen is None or count != 4:
        return None
    answered = outputs(networks, seen.images, settings)
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


def summary(values: np.ndarray, settings: Settings) -> Record:
    """Of a figure of each network, see `bootstrap.summary`."""
    return bootstrap.summary(values, resamples=settings.bootstrap, seed=settings.seed)


def _clusterings(raw: list[Record], embedded: list[clustering.ClusterResult], settings: Settings) -> Record:
    """The record of every clusterer, of K-means on each chunk's features and of the embedded networks."""
    clusterings = {"kmeans_raw": jax.tree.map(lambda *parts: np.concatenate(parts), *raw)}
    for clusterer in embedded[0].scores if embedded else ():
        clusterings[clusterer] = clustering.stack([one.scores[clusterer] for one in embedded])
    return {
        name: {**_summaries(values, settings), "as_printed": _summaries(values["as_printed"], settings)}
        for name, values in clusterings.items()
    }


def _summaries(values: Record, settings: Settings) -> Record:
    """Arrays of a clusterer's record, each as a mean with its interval."""
    return {key: summary(values[key], settings) for key in _CLUSTER_FIGURES if key in values}


def merit_of(record: Record) -> str:
    """Which AUROC is the figure of merit: ``worst``, or ``vs_rest`` where no quadrant but that is known."""
    return "worst" if "worst" in record["auroc"] else "vs_rest"


def recovered(records: dict[str, Record]) -> dict[str, dict[str, float] | None]:
    """Each method's share of the way from the floor to the reference, on the figure of merit.

    The floor is that of random networks, and at least `baselines.CHANCE`. There is none where the way is
    shorter than `baselines.LEAST_WAY`.
    """
    means = {name: record["auroc"][merit_of(record)]["mean"] for name, record in records.items()}
    low, high = means.get(baselines.FLOOR), means.get(baselines.REFERENCE)
    if low is None or high is None:
        return dict.fromkeys(records)
    low = max(low, baselines.CHANCE)
    if high < low + baselines.LEAST_WAY:
        return dict.fromkeys(records)
    return {name: {"mean": (mean - low) / (high - low)} for name, mean in means.items()}
