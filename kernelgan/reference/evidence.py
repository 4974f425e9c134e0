"""From measured figures to the records of `results.json`: pure functions, no network is run here.

Figures come as ``(..., 3, 7)``: K-means, the one-class SVM and DBSCAN (see `by_clusterer`), by
`protocol.FIGURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from kernelgan.evaluate import bootstrap, null_test
from kernelgan.reference.data import PRINTED, ReportedRow
from kernelgan.reference.protocol import CLUSTERERS, FIGURES

GENERATED = {"A": "cyclegan_b2a", "B": "cyclegan_a2b"}
"""What the reference's domains are called everywhere else: by the direction of the translation."""

NULLS = {"random": ("random",), "untranslated": ("attribute_only", "object_only")}
"""What generated networks are compared with: random kernels, and the kernels that they were made from."""

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
      For each of `NULLS` and each clusterer the record; and the differences under relabelling,
      ``(draws,)`` by ``<null>/<clusterer>/<best or mean>``.
    """
    found: Record = {}
    relabelled: dict[str, np.ndarray] = {}
    for null in NULLS:
        pool = in_pool(whose, null)
        found[null] = {}
        for clusterer in CLUSTERERS:
            test = null_test.picked(
                screened[clusterer][pool],
                judged[clusterer][pool],
                np.isin(whose[pool], list(GENERATED.values())),
                count=count,
                draws=draws,
                seed=seed,
                statistic=f"{clusterer}.accuracy",
            )
            differences = test.pop("differences")
            relabelled |= {f"{null}/{clusterer}/{what}": values for what, values in differences.items()}
            found[null][clusterer] = test
    return found, relabelled


def can_be_picked(
    whose: np.ndarray, screened: Mapping[str, np.ndarray], *, count: int, seed: int
) -> np.ndarray:
    """The networks that `picked_tests` needs judged; arguments as there. Ascending numbers."""
    chosen = []
    for null in NULLS:
        pool = np.flatnonzero(in_pool(whose, null))
        generated = np.isin(whose[pool], list(GENERATED.values()))
        leading = null_test.reach(int(generated.sum()), int((~generated).sum()), count)
        for clusterer in CLUSTERERS:
            order = null_test.judging_order(screened[clusterer][pool], seed=seed)
            chosen.append(pool[order[:leading]])
            chosen += [pool[order[side[order]][:count]] for side in (generated, ~generated)]
    return np.unique(np.concatenate(chosen))


def in_pool(whose: np.ndarray, null: str) -> np.ndarray:
    """Which networks are compared: the generated ones and those of a null, bool ``(T,)``."""
    return np.isin(whose, [*GENERATED.values(), *NULLS[null]])


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


def rows_beside(rows: Sequence[ReportedRow], measured: Mapping[tuple[str, int], np.ndarray]) -> list[Record]:
    """Every row of the reference's report beside ours, over the UMAP seeds.

    Args:
      rows: of the report.
      measured: figures ``(S, 3, 7)`` by population and network.
    """
    found = []
    for row in rows:
        values = measured[GENERATED[row.domain], row.model][:, CLUSTERERS.index(row.clusterer)]
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


def by_clusterer(figures: np.ndarray) -> np.ndarray:
    """Figures of the three clusterers, ``(..., 2 + D, 7)`` to ``(..., 3, 7)``.

    DBSCAN's are those of the radius and minimum with the best accuracy for that network and seed, as the
    reference chose them.
    """
    choices = figures[..., 2:, :]
    best = choices[..., ACCURACY].argmax(axis=-1)[..., None, None]
    return np.concatenate([figures[..., :2, :], np.take_along_axis(choices, best, axis=-2)], axis=-2)


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
