"""The original's evaluation of one network: UMAP of its features, then K-means, one-class SVM and DBSCAN.

Settings and quirks are the notebook's (Jain, "mlusingml", 2024, ``generatedCNN.ipynb``): default UMAP in two
dimensions with seed 47, K-means with seed 1, DBSCAN in raw UMAP units, a one-class SVM fitted on the
positives that it is then judged on. Which cluster is "black cat" is read off the test labels, and noise may
be it. Only host libraries compute here, so that worker processes never start a device.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter

import numpy as np
import threadpoolctl
from sklearn import cluster as sklearn_cluster
from sklearn import svm

from kernelgan.evaluation import clustering
from kernelgan.types import Quadrant

CLUSTERERS = ("kmeans", "one_class_svm", "dbscan")  # in the order of the original's report

FIGURES = (
    *("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity"),
    *("entropy_as_printed", "purity_as_printed"),
)
"""Standard definitions first. What is printed as "precision" is recall, and the other way round."""

_SETTLED = 1e-12  # a spread of features below it is none


@dataclasses.dataclass(frozen=True)
class Settings:
    """Seeds and settings; the first seeds are those of the fixed protocol."""

    seeds: tuple[int, ...]  # of UMAP, S
    kmeans_seeds: tuple[int, ...]  # K
    radii: tuple[float, ...]  # of DBSCAN, in UMAP units; the best is taken for each network
    minimum_samples: tuple[int, ...]  # of DBSCAN, chosen in the same way
    nu: float  # of the one-class SVM

    def fixed(self) -> Settings:
        """The fixed protocol: the first seeds alone."""
        return dataclasses.replace(self, seeds=self.seeds[:1], kmeans_seeds=self.kmeans_seeds[:1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what `measure` gives, ``(S, K + 1 + D, 7)``."""
        return len(self.seeds), len(self.kmeans_seeds) + 1 + len(self.dbscans), len(FIGURES)

    @property
    def dbscans(self) -> tuple[tuple[float, int], ...]:
        """Every radius with every minimum, ``D``."""
        return tuple((radius, least) for radius in self.radii for least in self.minimum_samples)


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """UMAP (McInnes, Healy and Melville, 2018) with its defaults: float32 ``(N, F)`` to ``(N, 2)``."""
    umap = clustering.imported_umap()
    with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):
        warnings.filterwarnings("ignore", category=UserWarning, module="umap|sklearn")
        reducer = umap.UMAP(
            n_neighbors=min(15, len(features) - 1), n_components=2, random_state=seed, n_jobs=1
        )
        return np.asarray(reducer.fit_transform(features), np.float32)


def measure(features: np.ndarray, positive: np.ndarray, settings: Settings) -> np.ndarray:
    """One network under every UMAP seed.

    Args:
      features: float32 ``(N, F)``.
      positive: bool ``(N,)``, the black cats.
      settings: seeds and settings.

    Returns:
      float64 ``(S, K + 1 + D, 7)``: under each seed `FIGURES` of K-means with each of its ``K`` seeds, of the
      SVM, and of DBSCAN at each of the ``D`` `Settings.dbscans`. Features that are all alike or not finite
      are one cluster.
    """
    if not np.isfinite(features).all() or np.ptp(features, axis=0).max() <= _SETTLED:
        alike = judge(np.zeros(len(positive), np.int64), positive)
        return np.broadcast_to(alike, settings.shape)
    return np.stack([_clustered(embed(features, seed), positive, settings) for seed in settings.seeds])


def _clustered(points: np.ndarray, positive: np.ndarray, settings: Settings) -> np.ndarray:
    with threadpoolctl.threadpool_limits(1):
        labels = [
            *(
                sklearn_cluster.KMeans(n_clusters=2, random_state=seed).fit_predict(points)
                for seed in settings.kmeans_seeds
            ),
            svm.OneClassSVM(kernel="rbf", nu=settings.nu).fit(points[positive]).predict(points),
            *(
                sklearn_cluster.DBSCAN(eps=radius, min_samples=least).fit_predict(points)
                for radius, least in settings.dbscans
            ),
        ]
    return np.stack([judge(clusters, positive) for clusters in labels])


def judge(labels: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """`FIGURES` of one clustering, float64 ``(7,)``; the commonest label of the positives is "black cat".

    Of equally common labels it is the first met, noise included, as in the original's ``Counter``.

    Args:
      labels: int ``(N,)``, of any values.
      positive: bool ``(N,)``.
    """
    named = Counter(labels[positive].tolist()).most_common(1)[0][0]
    _, clusters = np.unique(labels, return_inverse=True)  # noise is a cluster like others here
    quadrant = np.where(positive, Quadrant.CONJUNCTION, Quadrant.REST)
    record = clustering.cluster_scores(
        clusters, quadrant, conjunction=int(clusters[np.argmax(labels == named)])
    )
    printed = record["as_printed"]
    standard = [record[name] for name in FIGURES[:5]]
    return np.array([*standard, printed["cluster_entropy"], printed["cluster_purity"]])
