"""The reference's evaluation of one network: UMAP of its features, then K-means, one-class SVM and DBSCAN.

Settings and quirks are the notebook's (Jain, "mlusingml", 2024, ``generatedCNN.ipynb``): default UMAP in two
dimensions with seed 47, K-means with seed 1, DBSCAN in raw UMAP units, a one-class SVM fitted on the
positives that it is then judged on. Which cluster is "black cat" is read off the test labels, and noise may
be it.

Only host libraries compute here, so that worker processes never start a device.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter

import numpy as np
import threadpoolctl
from sklearn import cluster as sklearn_cluster
from sklearn import svm

from kernelgan.evaluate import clustering
from kernelgan.types import Quadrant

CLUSTERERS = ("kmeans", "one_class_svm", "dbscan")
"""In the order of the reference's report."""

FIGURES = (
    "accuracy",
    "precision",
    "recall",
    "cluster_entropy",
    "cluster_purity",
    "entropy_as_printed",
    "purity_as_printed",
)
"""Standard definitions first. What is printed as "precision" is recall, and the other way round."""

_SETTLED = 1e-12


@dataclasses.dataclass(frozen=True)
class Settings:
    """The clusterers' settings.

    Attributes:
      kmeans_seeds: of K-means; the first is the one of the fixed protocol.
      radii: of DBSCAN, in UMAP units; the best is taken for each network, as the reference did.
      minimum_samples: of DBSCAN; likewise.
      nu: of the one-class SVM.
    """

    kmeans_seeds: tuple[int, ...]
    radii: tuple[float, ...]
    minimum_samples: tuple[int, ...]
    nu: float

    def with_one_seed(self) -> Settings:
        """The same with K-means' first seed alone."""
        return dataclasses.replace(self, kmeans_seeds=self.kmeans_seeds[:1])

    @property
    def clusterings(self) -> int:
        """How many clusterings `measure` judges."""
        return len(self.kmeans_seeds) + 1 + len(self.dbscans)

    @property
    def dbscans(self) -> tuple[tuple[float, int], ...]:
        """Every radius with every minimum."""
        return tuple((radius, least) for radius in self.radii for least in self.minimum_samples)


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """UMAP (McInnes, Healy and Melville, 2018) with its defaults, as the reference: float32 ``(N, 2)``.

    Args:
      features: float32 ``(N, F)``.
      seed: of UMAP.
    """
    import umap  # slow: imports and compiles numba code

    with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):
        warnings.filterwarnings("ignore", category=UserWarning, module="umap|sklearn")
        reducer = umap.UMAP(
            n_neighbors=min(15, len(features) - 1), n_components=2, random_state=seed, n_jobs=1
        )
        return np.asarray(reducer.fit_transform(features), np.float32)


def measure(features: np.ndarray, positive: np.ndarray, seed: int, settings: Settings) -> np.ndarray:
    """One network under one UMAP seed.

    Args:
      features: float32 ``(N, F)``.
      positive: bool ``(N,)``, the black cats.
      seed: of UMAP.
      settings: of the clusterers.

    Returns:
      float64 ``(K + 1 + D, 7)``: `FIGURES` of K-means with each of its ``K`` seeds, of the SVM, and of DBSCAN
      at each of the ``D`` `Settings.dbscans`. Features that are all alike or not finite are one cluster.
    """
    if not np.isfinite(features).all() or np.ptp(features, axis=0).max() <= _SETTLED:
        alike = np.zeros(len(positive), np.int64)
        return np.stack([judge(alike, positive)] * settings.clusterings)
    points = embed(features, seed)
    with threadpoolctl.threadpool_limits(1):
        labels = [
            *(
                sklearn_cluster.KMeans(n_clusters=2, random_state=one).fit_predict(points)
                for one in settings.kmeans_seeds
            ),
            svm.OneClassSVM(kernel="rbf", nu=settings.nu).fit(points[positive]).predict(points),
            *(
                sklearn_cluster.DBSCAN(eps=radius, min_samples=least).fit_predict(points)
                for radius, least in settings.dbscans
            ),
        ]
    return np.stack([judge(one, positive) for one in labels])


def judge(labels: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """`FIGURES` of one clustering, float64 ``(7,)``; the commonest label of the positives is "black cat".

    Of equally common ones it is the first met, noise included, as in the reference's ``Counter``.

    Args:
      labels: int ``(N,)``, of any values.
      positive: bool ``(N,)``.
    """
    named = Counter(labels[positive].tolist()).most_common(1)[0][0]
    _, clusters = np.unique(labels, return_inverse=True)  # noise is a cluster like others here
    quadrant = np.where(positive, Quadrant.CONJUNCTION, Quadrant.REST)
    found = clustering.cluster_scores(
        clusters, quadrant, conjunction=int(clusters[np.argmax(labels == named)])
    )
    printed = found["as_printed"]
    return np.array(
        [*(found[name] for name in FIGURES[:5]), printed["cluster_entropy"], printed["cluster_purity"]]
    )


def measure_many(
    features: np.ndarray, positive: np.ndarray, seeds: tuple[int, ...], settings: Settings
) -> np.ndarray:
    """Several networks under several UMAP seeds: the work of one task.

    Args:
      features: float32 ``(M, N, F)``.
      positive: bool ``(N,)``.
      seeds: of UMAP.
      settings: of the clusterers.

    Returns:
      float64 ``(M, seeds, K + 1 + D, 7)``; see `measure`.
    """
    return np.stack([[measure(one, positive, seed, settings) for seed in seeds] for one in features])
