"""Clustering of a network's features, as the reference evaluates, with the standard and the printed figures.

Everything here reads the test labels: which cluster is called "conjunction" is chosen by them. These are
figures for parity with the reference, not the figure of merit (``PROTOCOL.md``).

UMAP is McInnes, Healy and Melville (2018). umap-learn is imported when an embedding is asked for: that takes
two seconds, and its first fit some 15 of compilation where nothing is kept from an earlier process.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np
import threadpoolctl

from kernelgan import cache, keys
from kernelgan.evaluation import scores as scores_lib
from kernelgan.types import Quadrant, UserError

NOISE = -1
"""DBSCAN's label for an image that is in no cluster."""

ALONE = threading.Lock()
"""Held while UMAP runs or warnings are silenced: two threads cannot do either at once."""

_FEWEST_IMAGES = 4  # umap-learn raises for fewer
_INITS = 10  # K-means starts, as scikit-learn's n_init of the reference
_MAX_STEPS = 300  # Lloyd steps a start, as scikit-learn


@dataclasses.dataclass(frozen=True)
class ClusterResult:
    """What `cluster` found for one network.

    Attributes:
      scores: method -> what `cluster_scores` returns, for ``kmeans``, ``dbscan`` and ``one_class_svm``.
      clusters: method -> int64 ``(N,)``: each image's cluster; for the SVM 1 inside, 0 outside.
      embedding: float32 ``(N, 2)``, or ``None`` where there is none.
    """

    scores: dict[str, dict[str, Any]]
    clusters: dict[str, np.ndarray]
    embedding: np.ndarray | None


def cluster(
    features: np.ndarray,
    quadrant: np.ndarray,
    *,
    seed: int,
    neighbours: int,
    radius: float,
    minimum_samples: int,
    nu: float,
) -> ClusterResult:
    """Clusters ONE network's features in a UMAP plane by K-means, DBSCAN and a one-class SVM.

    - ``kmeans``: K-means, k = 2, on the embedding.
    - ``dbscan``: on the embedding divided by its standard deviation along each axis, so that `radius` means
      the same for every network. The reference's radii (2 to 6) are in raw UMAP units.
    - ``one_class_svm``: RBF kernel, fitted on the conjunction's own points of the embedding, which has seen
      all images. It is TRANSDUCTIVE and trained on test labels, as the reference's; it generalises to
      nothing and is kept for parity only.

    Deterministic for a given seed and machine: one BLAS and OpenMP thread is used throughout.

    Args:
      features: float ``(N, F)``.
      quadrant: int ``(N,)``, see `scores`.
      seed: of UMAP and K-means.
      neighbours: of UMAP; at most ``N - 1`` are used.
      radius: of DBSCAN, in standard deviations of the embedding along each axis.
      minimum_samples: of DBSCAN, images within the radius that make a core point.
      nu: of the one-class SVM, the share of conjunction images that may lie outside, in (0, 1].

    Returns:
      A `ClusterResult`. Features that are not finite, all alike, or of fewer than 4 images put all images in
      one cluster, which is the conjunction's, and have no embedding.

    Raises:
      ValueError: shapes disagree, or a parameter is out of range.
    """
    quadrant = scores_lib.check_quadrant(quadrant)
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != quadrant.size or features.shape[1] == 0:
        raise ValueError(f"features must be (N, F) with N = {quadrant.size} images, got {features.shape}")
    if neighbours < 2 or minimum_samples < 1 or not radius > 0 or not 0 < nu <= 1:
        raise ValueError(
            "need neighbours >= 2, radius > 0, minimum_samples >= 1 and 0 < nu <= 1, got "
            f"{neighbours}, {radius}, {minimum_samples}, {nu}"
        )
    if _is_degenerate(features) or quadrant.size < _FEWEST_IMAGES:
        alike = np.zeros(quadrant.size, np.int64)
        clusters = dict.fromkeys(("kmeans", "dbscan", "one_class_svm"), alike)
        found = {method: cluster_scores(alike, quadrant) for method in clusters}
        return ClusterResult(found, clusters, None)
    imported_umap()  # and scikit-learn: the limit holds for what is loaded
    with threadpoolctl.threadpool_limits(1):
        embedding = umap_plane(_scaled(features), seed=seed, neighbours=neighbours)
        clusters = {
            "kmeans": _two_means(embedding, np.random.default_rng(seed)),
            "dbscan": _dbscan(embedding, radius=radius, minimum_samples=minimum_samples),
            "one_class_svm": _one_class_svm(embedding, quadrant, nu=nu),
        }
    found = {method: cluster_scores(labels, quadrant) for method, labels in clusters.items()}
    found["one_class_svm"] = cluster_scores(clusters["one_class_svm"], quadrant, conjunction=1)
    return ClusterResult(found, clusters, embedding)


def kmeans_many(features: np.ndarray, quadrant: np.ndarray, *, seed: int) -> dict[str, Any]:
    """K-means, k = 2, of the features of many networks, each alone, on all cores.

    Args:
      features: float ``(M, N, F)``; those of a network that are not finite or all alike count as one cluster.
      quadrant: int ``(N,)``.
      seed: of the starts.

    Returns:
      As `cluster_scores` with float64 ``(M,)`` in place of numbers.

    Raises:
      ValueError: shapes disagree.
    """
    from kernelgan.evaluation import loops  # numba takes a while to import

    quadrant = scores_lib.check_quadrant(quadrant)
    features = np.asarray(features)
    if features.ndim != 3 or features.shape[1] != quadrant.size or 0 in features.shape:
        raise ValueError(f"features must be (M, N, F) with N = {quadrant.size} images, got {features.shape}")

    def work(networks: slice) -> list[dict[str, Any]]:
        found = []
        for one in features[networks]:
            labels = np.zeros(quadrant.size, np.int64)
            if not _is_degenerate(one):
                labels = _two_means(_scaled(one), np.random.default_rng(seed))
            found.append(cluster_scores(labels, quadrant))
        return found

    return stack(list(itertools.chain(*loops.by_networks(work, len(features)))))


def cluster_scores(
    clusters: np.ndarray, quadrant: np.ndarray, *, conjunction: int | None = None
) -> dict[str, Any]:
    """How well clusters match "conjunction or not".

    The cluster that holds most conjunction images is called "conjunction" (the lower label on a tie; never
    `NOISE`; where all is noise, no image is). Entropies are in bits. ``cluster_entropy`` is that of the
    classes within each cluster, ``cluster_purity`` the share of images of their cluster's commonest class
    (Manning, Raghavan and Schuetze, 2008, chapter 16), both weighted by cluster size, noise counted as a
    cluster of its own. ``as_printed`` is what the reference prints under those names: its "precision" is
    recall and its "recall" precision, its entropy and purity are those of the cluster labels within each
    class. (Checked: it reproduces the confusion matrices of its reported table.)

    Args:
      clusters: int ``(N,)``, `NOISE` for none.
      quadrant: int ``(N,)``.
      conjunction: the cluster that is the conjunction, where the method itself names one.

    Returns:
      ``accuracy``, ``precision`` (0 where no image is called the conjunction), ``recall``,
      ``cluster_entropy``, ``cluster_purity``, and ``as_printed``: a dict of the last four.

    Raises:
      ValueError: shapes disagree.
    """
    quadrant = scores_lib.check_quadrant(quadrant)
    clusters = np.asarray(clusters)
    if clusters.shape != quadrant.shape:
        raise ValueError(f"clusters must be (N,) with N = {quadrant.size} images, got {clusters.shape}")
    is_positive = quadrant == Quadrant.CONJUNCTION
    names, index = np.unique(clusters, return_inverse=True)
    table = np.stack([np.bincount(index[mask], minlength=names.size) for mask in (is_positive, ~is_positive)])
    if conjunction is None:
        held = np.where(names == NOISE, -1, table[0])
        conjunction = NOISE if held.max() < 0 else int(names[held.argmax()])
    yes = clusters == conjunction if conjunction != NOISE else np.zeros(clusters.shape, bool)
    hits = int(np.sum(yes & is_positive))
    precision, recall = hits / max(int(yes.sum()), 1), hits / int(is_positive.sum())
    return {
        "accuracy": float(np.mean(yes == is_positive)),
        "precision": precision,
        "recall": recall,
        "cluster_entropy": _mean_entropy(table.T),
        "cluster_purity": float(table.max(axis=0).sum() / quadrant.size),
        "as_printed": {
            "precision": recall,
            "recall": precision,
            "cluster_entropy": _mean_entropy(table),
            "cluster_purity": float(table.max(axis=1).sum() / quadrant.size),
        },
    }


def stack(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Dicts of numbers, one a network, to one dict of ``(M,)`` arrays."""
    return jax.tree.map(lambda *values: np.array(values), *rows)


def _mean_entropy(table: np.ndarray) -> float:
    """Entropy in bits of each row of counts, weighted by the row's sum."""
    share = table / table.sum(axis=1, keepdims=True)
    bits = -np.sum(share * np.log2(np.where(share > 0, share, 1)), axis=1)
    return float(np.average(bits, weights=table.sum(axis=1)))


def _is_degenerate(features: np.ndarray) -> bool:
    """Whether features ``(N, F)`` cannot be clustered: they are not finite, or the same for every image."""
    return bool(not np.isfinite(features).all() or (features == features[0]).all())


def _scaled(features: np.ndarray) -> np.ndarray:
    """Float32 features, brought near 1 only where their squares would overflow or vanish in float32."""
    peak = float(np.abs(features).max())
    if not 1e-12 < peak < 1e12:
        features = features.astype(np.float64) / peak
    return np.ascontiguousarray(features, np.float32)


def _two_means(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """K-means with k = 2, best of 10 k-means++ starts (Lloyd, 1982; Arthur and Vassilvitskii, 2007).

    `points` float32 ``(N, F)``, not all alike; returns int64 ``(N,)``, 0 for the first image's.
    """
    from kernelgan.evaluation import loops  # numba takes a while to import

    points = np.ascontiguousarray(points - points.mean(axis=0))
    squares = np.einsum("nf,nf->n", points, points)
    first = rng.integers(len(points), size=_INITS)
    distance = squares[:, None] + squares[first] - points @ (2 * points[first]).T
    distance = np.maximum(distance, 0, dtype=np.float64)
    distance[first, np.arange(_INITS)] = 0
    cumulative = np.cumsum(distance, axis=0)
    drawn = rng.random(_INITS) * cumulative[-1]
    second = np.minimum((cumulative <= drawn).sum(axis=0), len(points) - 1)

    side = np.zeros((_INITS, len(points)), bool)
    gain = [
        loops.lloyd(points, *centres, _MAX_STEPS, found)
        for *centres, found in zip(first, second, side, strict=True)
    ]
    best = side[int(np.argmax(gain))]
    return (best != best[0]).astype(np.int64)


def umap_plane(features: np.ndarray, *, seed: int, neighbours: int) -> np.ndarray:
    """UMAP embedding float32 ``(N, 2)`` of float32 features ``(N, F)``."""
    umap = imported_umap()
    reducer = umap.UMAP(
        n_neighbors=min(neighbours, len(features) - 1),
        n_components=2,
        random_state=seed,
        n_jobs=1,  # what a seed implies; asking for it keeps UMAP from warning
    )
    with ALONE, _quiet_umap():
        return np.asarray(reducer.fit_transform(features), np.float32)


_IMPORTING = threading.Lock()  # numba's settings are changed on the way


def imported_umap() -> ModuleType:
    """UMAP's module; what it compiles is kept for the next process.

    Raises:
      UserError: it cannot be imported.
    """
    try:
        with _IMPORTING:
            if "umap" in sys.modules:
                import umap
            else:
                umap = _first_import()
    except Exception as error:  # whatever a broken installation raises
        raise UserError(
            f"UMAP cannot be imported ({type(error).__name__}: {error}). Install umap-learn again (pip "
            "install -r requirements.txt), or leave it out: --config.evaluate.umap_networks=0."
        ) from error
    return umap


def _first_import() -> ModuleType:
    """Most of UMAP's functions do not ask numba to keep their code, 15 s of compilation: here they do."""
    import numba

    settings: Any = numba.config
    packages = [importlib.metadata.version(name) for name in ("umap-learn", "pynndescent", "numba")]
    key = keys.of_values([*packages, os.environ.get("NUMBA_OPT", "")])[:16]
    ours = str(cache.directory(f"umap-{key}") or _scratch())
    njit: Any = numba.njit
    elsewhere = settings.CACHE_DIR

    def here(decorate: Callable[..., Any]) -> Callable[..., Any]:
        def decorator(*arguments: object, **options: object) -> Any:  # noqa: ANN401
            settings.CACHE_DIR = ours
            try:
                made = decorate(*arguments, **options)
            finally:
                settings.CACHE_DIR = elsewhere
            return made if hasattr(made, "py_func") else here(made)  # a decorator, if it had only options

        return decorator

    def keeping(*arguments: object, **options: Any) -> Any:  # noqa: ANN401
        asks = "cache" in options  # numba has a place for it
        return njit(*arguments, **options) if asks else here(njit)(*arguments, cache=True, **options)

    numba.njit = keeping
    try:
        import umap
    except RuntimeError as error:  # neither its folder nor a home can be written
        if "cannot cache" not in str(error):
            raise
        settings.CACHE_DIR = elsewhere = ours
        import umap
    finally:
        numba.njit = njit
    return umap


@functools.cache
def _scratch() -> str:
    """A directory for as long as this process lasts."""
    directory = tempfile.mkdtemp(prefix="kernelgan-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


@contextlib.contextmanager
def _quiet_umap() -> Iterator[None]:
    """Silences what UMAP says of features that fall apart into islands: it then starts at random."""
    with warnings.catch_warnings():
        for cause in (
            r"\s*Spectral initialisation failed",
            r"Forcing component centroids to dense",
            r"A few of your vertices were disconnected",
        ):
            warnings.filterwarnings("ignore", message=cause, category=UserWarning)
        yield


def _dbscan(embedding: np.ndarray, *, radius: float, minimum_samples: int) -> np.ndarray:
    """DBSCAN (Ester et al., 1996) of the embedding in units of its standard deviation along each axis."""
    from sklearn import cluster  # as long to import as JAX

    sd = embedding.std(axis=0)
    standard = embedding / np.where(sd > 0, sd, 1)
    found = cluster.DBSCAN(eps=radius, min_samples=minimum_samples).fit_predict(standard)
    return found.astype(np.int64)


def _one_class_svm(embedding: np.ndarray, quadrant: np.ndarray, *, nu: float) -> np.ndarray:
    """1 inside a one-class SVM (Schoelkopf et al., 2001) around the conjunction's points, 0 outside."""
    from sklearn import svm

    model = svm.OneClassSVM(kernel="rbf", gamma="scale", nu=nu)
    model.fit(embedding[quadrant == Quadrant.CONJUNCTION])
    return (model.predict(embedding) > 0).astype(np.int64)
