"""From measured figures to the study's records: pure functions, no network is run here.

Figures come as ``(..., 3, 7)``: K-means, the one-class SVM and DBSCAN (see `by_clusterer`), by
`protocol.FIGURES`; as they were measured, as ``(..., K + 1 + D, 7)`` (see `protocol.measure`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kernelgan.evaluation import bootstrap, null_test
from studies.jain2024 import picking
from studies.jain2024.data import PRINTED, ReportedRow
from studies.jain2024.protocol import CLUSTERERS, FIGURES

GENERATED = {"A": "generated_a", "B": "generated_b"}
"""The populations of generated networks, by domain."""
_BOTH = tuple(GENERATED.values())

COMPARISONS = {
    "random": (_BOTH, "random"),
    "black": (_BOTH, "black"),
    "source_a": ((GENERATED["A"],), "cat"),
    "source_b": ((GENERATED["B"],), "black"),
}
"""Generated populations, and the other that they are compared with: random kernels; the black zoo's own; and
for each domain the very kernels that it was translated from (A from cat, B from black)."""

ACCURACY = FIGURES.index("accuracy")

Record = dict[str, Any]


def clusterings(fixed: np.ndarray, *, seed: int) -> Record:
    """A population under the fixed protocol, ``(M, 3, 7)``: by clusterer each of `FIGURES`, with interval."""
    return {
        clusterer: {name: bootstrap.summary(fixed[:, place, i], seed=seed) for i, name in enumerate(FIGURES)}
        for place, clusterer in enumerate(CLUSTERERS)
    }


def tail(accuracy: Mapping[str, np.ndarray], count: int) -> Record:
    """How often a network is as good as the worst of the generated networks that would be picked.

    Args:
      accuracy: under the fixed protocol, ``(M,)`` by population, `GENERATED` among them.
      count: networks picked.

    Returns:
      ``threshold``; ``mean`` and ``best`` of the generated networks of both domains; and by population, the
      generated together, ``shares``: ``networks``, ``share`` and ``p_value``, that generated networks are
      that good more often than those (Fisher's exact test).
    """
    generated = np.concatenate([accuracy[name] for name in _BOTH])
    threshold = float(np.sort(generated)[-count])
    hits = int(np.sum(generated >= threshold))
    shares = {"generated": {"networks": generated.size, "share": hits / generated.size, "p_value": None}}
    for name, values in accuracy.items():
        if name not in _BOTH:
            theirs = int(np.sum(values >= threshold))
            table = [[hits, generated.size - hits], [theirs, values.size - theirs]]
            shares[name] = {
                "networks": values.size,
                "share": theirs / values.size,
                "p_value": float(stats.fisher_exact(table, alternative="greater").pvalue),
            }
    moments = {"mean": float(generated.mean()), "best": float(generated.max())}
    return {"threshold": threshold, **moments, "shares": shares}


def picked_tests(
    whose: np.ndarray,
    screened: Mapping[str, np.ndarray],
    judged: Mapping[str, np.ndarray],
    *,
    count: int,
    draws: int,
    seed: int,
) -> tuple[Record, dict[str, np.ndarray]]:
    """The original's picking and tuning, repeated on other networks; see `picking.picked`.

    Args:
      whose: population of each network, ``(T,)``.
      screened: for each clusterer, accuracy under the fixed protocol, ``(T,)``.
      judged: for each clusterer, accuracy as tuned, ``(T,)``, NaN where not known.
      count: networks picked.
      draws: relabellings.
      seed: of them.

    Returns:
      For each of `COMPARISONS` and each clusterer the record, its ``best`` and ``mean`` with a
      ``holm_p_value``, corrected over the six of that comparison; and the differences under relabelling,
      ``(draws,)`` by ``<comparison>/<clusterer>/<best or mean>``.
    """
    records: Record = {}
    relabelled: dict[str, np.ndarray] = {}
    for name, (generated, other) in COMPARISONS.items():
        pool = np.isin(whose, (*generated, other))
        records[name] = {}
        for clusterer in CLUSTERERS:
            test = picking.picked(
                screened[clusterer][pool],
                judged[clusterer][pool],
                np.isin(whose[pool], generated),
                count=count,
                draws=draws,
                seed=seed,
                statistic=f"{clusterer}.accuracy",
            )
            differences = test.pop("differences")
            relabelled |= {f"{name}/{clusterer}/{what}": values for what, values in differences.items()}
            records[name][clusterer] = test
        tests = [test[what] for test in records[name].values() for what in ("best", "mean")]
        for test, p_value in zip(tests, null_test.holm([test["p_value"] for test in tests]), strict=True):
            test["holm_p_value"] = p_value
    return records, relabelled


def can_be_picked(
    whose: np.ndarray, screened: Mapping[str, np.ndarray], *, count: int, seed: int
) -> np.ndarray:
    """The networks that `picked_tests` needs judged; arguments as there. Ascending numbers."""
    chosen = []
    for generated, other in COMPARISONS.values():
        pool = np.flatnonzero(np.isin(whose, (*generated, other)))
        side = np.isin(whose[pool], generated)
        leading = picking.reach(int(side.sum()), int((~side).sum()), count)
        for clusterer in CLUSTERERS:
            order = picking.judging_order(screened[clusterer][pool], seed=seed)
            chosen.append(pool[order[:leading]])
            chosen += [pool[order[mask[order]][:count]] for mask in (side, ~side)]
    return np.unique(np.concatenate(chosen))


def reported_best(rows: Sequence[ReportedRow]) -> dict[str, Record]:
    """The best row of each clusterer in the original's report, and how many rows there are."""
    record = {}
    for clusterer in CLUSTERERS:
        own = [row for row in rows if row.clusterer == clusterer]
        if own:
            best = max(own, key=lambda row: row.printed["accuracy"])
            network = f"{best.domain}{best.model}"
            record[clusterer] = {"best": best.printed["accuracy"], "rows": len(own), "network": network}
    return record


def rows_beside(
    rows: Sequence[ReportedRow],
    measured: Mapping[tuple[str, int], np.ndarray],
    kmeans: int,
    photographs: int,
) -> list[Record]:
    """Every row of the original's report beside ours, over the seeds of UMAP and of K-means.

    Args:
      rows: of the report.
      measured: figures ``(S, K + 1 + D, 7)`` by domain and network.
      kmeans: K-means seeds ``K``.
      photographs: their number; a reported accuracy is ``within`` our range, or at the ``first`` seed
        the same, if it is less than a photograph and the rounding of a printed figure away.
    """
    margin = 1 / photographs + 0.001
    records = []
    for row in rows:
        values = spread(measured[row.domain, row.model], row.clusterer, kmeans)
        ours: dict[str, dict[str, Any]] = {}
        for name, column in zip(FIGURES, values.T, strict=True):
            ours[name] = {what: float(getattr(column, what)()) for what in ("mean", "min", "max")}
            ours[name]["sd"] = float(column.std(ddof=1)) if len(column) > 1 else None
            ours[name]["first_seed"] = float(column[0])
        reported, accuracy = row.printed["accuracy"], ours["accuracy"]
        records.append(
            {
                "clusterer": row.clusterer,
                "network": f"{row.domain}{row.model}",
                "reported": {name: row.printed[name] for name in PRINTED},
                "ours": ours,
                "within": bool(accuracy["min"] - margin <= reported <= accuracy["max"] + margin),
                "first": bool(abs(reported - accuracy["first_seed"]) <= margin),
            }
        )
    return records


def by_clusterer(figures: np.ndarray, kmeans: int) -> np.ndarray:
    """Figures of the three clusterers, ``(..., K + 1 + D, 7)`` to ``(..., 3, 7)``; `kmeans` is ``K``.

    Of K-means those of the seed, and of DBSCAN those of the radius and minimum, with the best accuracy for
    that network and UMAP seed, as the original chose them.
    """
    parts = figures[..., :kmeans, :], figures[..., kmeans : kmeans + 1, :], figures[..., kmeans + 1 :, :]
    best = [part[..., ACCURACY].argmax(axis=-1)[..., None, None] for part in parts]
    chosen = [np.take_along_axis(part, at, axis=-2) for part, at in zip(parts, best, strict=True)]
    return np.concatenate(chosen, axis=-2)


def spread(figures: np.ndarray, clusterer: str, kmeans: int) -> np.ndarray:
    """One network by a clusterer, ``(S, K + 1 + D, 7)`` to ``(n, 7)``, over all seeds: K-means ``S * K``."""
    if clusterer == "kmeans":
        return figures[:, :kmeans].reshape(-1, figures.shape[-1])
    return by_clusterer(figures, kmeans)[:, CLUSTERERS.index(clusterer)]


def central_brightness(images: np.ndarray, positive: np.ndarray) -> float:
    """Accuracy of "dark in the central quarter" of ``(N, H, W, 3)`` at its best threshold; no network."""
    height, width = images.shape[1:3]
    middle = images[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    brightness = middle.mean(axis=(1, 2, 3))
    return max(float(np.mean((brightness <= at) == positive)) for at in (-1.0, *brightness))
