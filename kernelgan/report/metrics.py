"""Every metric: its name, what it means, and what answers without any knowledge score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
      title: its name on a page.
      short: its name in a narrow column.
      explained: one or two sentences for a reader new to it.
    """

    title: str
    short: str
    explained: str = ""


METRICS = {
    "auroc.worst": Metric(
        "worst-quadrant AUROC",
        "worst AUROC",
        "Worst-quadrant AUROC: how often a network scores an image of the conjunction above one of the "
        "attribute alone, of the object alone, or of neither, whichever of these three tests is the hardest. "
        "Chance is {chance:g} in each, and less in the hardest of the three, as random networks show; 1 is "
        "perfect. Knowing only one of the two concepts fails in one of them.",
    ),
    "auroc.vs_rest": Metric(
        "AUROC against the rest",
        "AUROC vs rest",
        "AUROC against the rest: how often a network scores an image of the conjunction above any other "
        "image; {chance:g} is chance, 1 is perfect. The quadrants of the other images are not known, so a "
        "detector of one concept alone can score well; only the comparison with the parents speaks of "
        "composition.",
    ),
    "auroc.vs_attribute_only": Metric("vs attribute only", "attr"),
    "auroc.vs_object_only": Metric("vs object only", "obj"),
    "auroc.vs_neither": Metric("vs neither", "none"),
    "balanced_accuracy": Metric(
        "balanced accuracy",
        "bal. acc.",
        "Balanced accuracy: the share of images answered rightly, each of the {groups} groups of test images "
        "counting the same, so that always answering “no” scores {chance:g}.",
    ),
    "average_precision": Metric(
        "average precision",
        "avg. prec.",
        "Average precision: chance is the conjunction's share of the images{share}.",
    ),
    "recall": Metric("recall", "recall", "Recall: the share of the conjunction's images answered “yes”."),
    "recovered": Metric(
        "recovered",
        "recov",
        "Recovered: the share of the way from random networks (0) to networks trained on the conjunction "
        "(1).",
    ),
    "novelty.distance": Metric(
        "novelty: distance",
        "new",
        "Novelty: distance in weights from the nearest parent, where 1 is as far as a parent is from its "
        "nearest fellow and under {copy:g} counts as a copy.",
    ),
    "novelty.error_overlap": Metric(
        "errors shared",
        "shared",
        "Errors shared: of the images that it or that parent gets wrong, the share that both do.",
    ),
}
"""By the path of the statistic in a `results.Row`."""


def title(path: str) -> str:
    """The name of a metric; made of the path where it has none."""
    return METRICS[path].title if path in METRICS else path.replace(".", " ").replace("_", " ")


def chance(path: str, images: Mapping[str, int]) -> float:
    """The score of answers that know nothing: of random scores, or of always answering “no”.

    Args:
      path: of the metric.
      images: how many test images each quadrant has, ``a&o`` the conjunction; of unknown quadrants ``rest``.

    Returns:
      For an AUROC 0.5; for average precision the conjunction's share; for balanced accuracy, of k groups that
      have images, ``(k - 1) / k``: 0.75 of four quadrants, 0.5 of the conjunction and the rest; for accuracy
      the share of the others; for recall 0. NaN where nothing can be said.
    """
    groups = [count for count in images.values() if count]
    share = images.get("a&o", 0) / sum(groups) if groups else math.nan
    if path.startswith("auroc"):
        return 0.5
    if path == "balanced_accuracy" and groups:
        return (len(groups) - 1) / len(groups)
    return {"average_precision": share, "accuracy": 1 - share, "recall": 0.0}.get(path, math.nan)


def explained(path: str, images: Mapping[str, int], copy: float = math.nan) -> str:
    """What a metric means, with its chance level on these test images; "" where there is nothing to say."""
    metric = METRICS.get(path)
    if metric is None or not metric.explained:
        return ""
    level = chance(path, images)
    groups = sum(1 for count in images.values() if count)
    if path == "balanced_accuracy" and not groups:
        return ""
    share = f", here {level:.2f}" if math.isfinite(level) else ""
    return metric.explained.format(chance=round(level, 3), groups=groups, share=share, copy=copy)
