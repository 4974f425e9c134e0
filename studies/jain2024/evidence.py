"""From measured figures to the records of `results.json`: pure functions, no network is run here.

Figures come as ``(..., 3, 7)``: K-means, the one-class SVM and DBSCAN (see `by_clusterer`), by
`protocol.FIGURES`; as they were measured, as ``(..., K + 1 + D, 7)`` (see `protocol.measure`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kernelgan.evaluate import bootstrap, null_test
from studies.jain2024.data import DOMAINS, PRINTED, ReportedRow
from studies.jain2024.protocol import CLUSTERERS, FIGURES

GENERATED = {domain: f"cyclegan_{direction}" for domain, direction in DOMAINS.items()}
"""What the reference's domains are called everywhere else: by the direction of the translation."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Whose picked networks are compared.

    Attributes:
      generated: populations on the one side.
      others: populations on the other.
    """

    generated: tuple[str, ...]
    others: tuple[str, ...]


COMPARISONS = {
    "random": Comparison(tuple(GENERATED.values()), ("random",)),
    "black": Comparison(tuple(GENERATED.values()), ("attribute_only",)),
    "source_a": Comparison((GENERATED["A"],), ("object_only",)),
    "source_b": Comparison((GENERATED["B"],), ("attribute_only",)),
}
"""Generated networks against random kernels; against the black zoo's own; and each domain against the very
kernels that it was translated from (A from cat, B from black)."""

ACCURACY = FIGURES.index("accuracy")

Record = dict[str, Any]


def clusterings(fixed: np.ndarray, *, seed: int) -> Record:
    """The record of a population under the fixed protocol, ``(M, 3, 7)``: each figure's mean and interval."""
    found: Record = {}
    for place, clusterer in enumerate(CLUSTERERS):
        figures = {name: bootstrap.summary(fixed[:, place, i], seed=seed) for i, name in enumerate(FIGURES)}
        found[clusterer] = {
            **{name: figures[name] for name in FIGURES[:5]},
            "as_printed": {
                "precision": figures["recall"],
                "recall": figures["precision"],
                "cluster_entropy": figures["entropy_as_printed"],
                "cluster_purity": figures["purity_as_printed"],
            },
        }
    return found


def fixed_tests(fixed: Mapping[str, np.ndarray], *, count: int, seed: int) -> Record:
    """Under the fixed protocol, nothing picked: generated networks against the others.

    Args:
      fixed: figures ``(M, 3, 7)`` by population; `GENERATED` and ``random`` must be among them.
      count: networks picked.
      seed: of the permutations.

    Returns:
      For each clusterer: ``mean`` and ``best`` against random networks (`null_test`), and ``tail``: how
      often a network is as good as the worst of the generated ones that would be picked,
      ``{"threshold", "shares": {population: {"networks", "share", "p_value"}}}``; the p-value (Fisher's exact
      test) is for generated networks being that good more often than those of the population.
    """
    found: Record = {}
    for place, clusterer in enumerate(CLUSTERERS):
        generated = np.concatenate([fixed[name][:, place, ACCURACY] for name in GENERATED.values()])
        random = fixed["random"][:, place, ACCURACY]
        found[clusterer] = {
            "mean": null_test.mean_test(generated, random, seed=seed),
            "best": null_test.best_of(generated, random),
            "tail": _tail(
                generated,
                {
                    name: values[:, place, ACCURACY]
                    for name, values in fixed.items()
                    if name not in GENERATED.values()
                },
                count,
            ),
        }
    return found


def _tail(generated: np.ndarray, others: Mapping[str, np.ndarray], count: int) -> Record:
    threshold = np.sort(generated)[-count]
    hits = int(np.sum(generated >= threshold))
    shares = {"generated": {"networks": generated.size, "share": hits / generated.size, "p_value": None}}
    for name, values in others.items():
        theirs = int(np.sum(values >= threshold))
        table = [[hits, generated.size - hits], [theirs, values.size - theirs]]
        shares[name] = {
            "networks": values.size,
            "share": theirs / values.size,
            "p_value": float(stats.fisher_exact(table, alternative="greater").pvalue),
        }
    return {"threshold": float(threshold), "shares": shares}


def picked_tests(
    whose: np.ndarray,
    screened: Mapping[str, np.ndarray],
    judged: Mapping[str, np.ndarray],
    *,
    count: int,
    draws: int,
    seed: int,
) -> tuple[Record, dict[str, np.ndarray]]:
    """The reference's picking and tuning, repeated on other networks; see `null_test.picked`.

    Args:
      whose: population of each network, ``(T,)``.
      screened: for each clusterer, accuracy under the fixed protocol, ``(T,)``.
      judged: for each clusterer, accuracy as tuned, ``(T,)``, NaN where not known.
      count: networks picked.
      draws: relabellings.
      seed: of them.

    Returns:
      For each of `COMPARISONS` and each clusterer the record, ``best`` and ``mean`` of it with a
      ``holm_p_value``, corrected over the six of that comparison; and the differences under relabelling,
      ``(draws,)`` by ``<comparison>/<clusterer>/<best or mean>``.
    """
    found: Record = {}
    relabelled: dict[str, np.ndarray] = {}
    for name, comparison in COMPARISONS.items():
        pool = np.isin(whose, comparison.generated + comparison.others)
        found[name] = {}
        for clusterer in CLUSTERERS:
            test = null_test.picked(
                screened[clusterer][pool],
                judged[clusterer][pool],
                np.isin(whose[pool], comparison.generated),
                count=count,
                draws=draws,
                seed=seed,
                statistic=f"{clusterer}.accuracy",
            )
            differences = test.pop("differences")
            relabelled |= {f"{name}/{clusterer}/{what}": values for what, values in differences.items()}
            found[name][clusterer] = test
        tests = [test[what] for test in found[name].values() for what in ("best", "mean")]
        for test, p_value in zip(tests, null_test.holm([one["p_value"] for one in tests]), strict=True):
            test["holm_p_value"] = p_value
    return found, relabelled


def can_be_picked(
    whose: np.ndarray, screened: Mapping[str, np.ndarray], *, count: int, seed: int
) -> np.ndarray:
    """The networks that `picked_tests` needs judged; arguments as there. Ascending numbers."""
    chosen = []
    for comparison in COMPARISONS.values():
        pool = np.flatnonzero(np.isin(whose, comparison.generated + comparison.others))
        generated = np.isin(whose[pool], comparison.generated)
        leading = null_test.reach(int(generated.sum()), int((~generated).sum()), count)
        for clusterer in CLUSTERERS:
            order = null_test.judging_order(screened[clusterer][pool], seed=seed)
            chosen.append(pool[order[:leading]])
            chosen += [pool[order[side[order]][:count]] for side in (generated, ~generated)]
    return np.unique(np.concatenate(chosen))


def reported_best(rows: Sequence[ReportedRow]) -> dict[str, Record]:
    """The best row of each clusterer in the reference's report."""
    found = {}
    for clusterer in CLUSTERERS:
        own = [row for row in rows if row.clusterer == clusterer]
        if own:
            best = max(own, key=lambda row: row.printed["accuracy"])
            found[clusterer] = {
                "best": best.printed["accuracy"],
                "rows": len(own),
                "model": best.model,
                "domain": best.domain,
            }
    return found


def rows_beside(
    rows: Sequence[ReportedRow], measured: Mapping[tuple[str, int], np.ndarray], *, kmeans: int
) -> list[Record]:
    """Every row of the reference's report beside ours, over the seeds of UMAP and of K-means.

    Args:
      rows: of the report.
      measured: figures ``(S, K + 1 + D, 7)`` by population and network.
      kmeans: K-means seeds ``K``.
    """
    found = []
    for row in rows:
        values = spread(measured[GENERATED[row.domain], row.model], row.clusterer, kmeans)
        found.append(
            {
                "clusterer": row.clusterer,
                "model": row.model,
                "domain": row.domain,
                "reported": {
                    "accuracy": row.printed["accuracy"],
                    "as_printed": {name: row.printed[name] for name in PRINTED[1:]},
                },
                "found": {
                    name: {
                        "mean": float(column.mean()),
                        "sd": float(column.std(ddof=1)) if len(column) > 1 else None,
                        "low": float(column.min()),
                        "high": float(column.max()),
                        "first_seed": float(column[0]),
                    }
                    for name, column in zip(FIGURES, values.T, strict=True)
                },
            }
        )
    return found


def by_clusterer(figures: np.ndarray, kmeans: int) -> np.ndarray:
    """Figures of the three clusterers, ``(..., K + 1 + D, 7)`` to ``(..., 3, 7)``.

    Of K-means those of the seed, and of DBSCAN those of the radius and minimum, with the best accuracy for
    that network and UMAP seed, as the reference chose them.

    Args:
      figures: see `protocol.measure`.
      kmeans: K-means seeds ``K``.
    """
    parts = figures[..., :kmeans, :], figures[..., kmeans : kmeans + 1, :], figures[..., kmeans + 1 :, :]
    return np.concatenate([_best(part) for part in parts], axis=-2)


def spread(figures: np.ndarray, clusterer: str, kmeans: int) -> np.ndarray:
    """What a clusterer gives of one network, ``(S, K + 1 + D, 7)`` to ``(n, 7)``; only radii are chosen.

    K-means under all ``S * K`` pairs of seeds; the SVM, and DBSCAN at its best radius and minimum, under
    ``S``.
    """
    if clusterer == "kmeans":
        return figures[:, :kmeans].reshape(-1, figures.shape[-1])
    return by_clusterer(figures, kmeans)[:, CLUSTERERS.index(clusterer)]


def _best(choices: np.ndarray) -> np.ndarray:
    """Of choices ``(..., n, 7)`` the one of best accuracy, ``(..., 1, 7)``."""
    best = choices[..., ACCURACY].argmax(axis=-1)[..., None, None]
    return np.take_along_axis(choices, best, axis=-2)


def central_brightness(images: np.ndarray, positive: np.ndarray) -> float:
    """Accuracy of "dark in the central quarter" at its best threshold on these very images; no network.

    Args:
      images: uint8 ``(N, H, W, 3)``.
      positive: bool ``(N,)``.
    """
    height, width = images.shape[1:3]
    middle = images[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    brightness = middle.mean(axis=(1, 2, 3))
    return max(float(np.mean((brightness <= at) == positive)) for at in (-1.0, *brightness))
