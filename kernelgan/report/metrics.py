"""Every metric: its name, what it means, and its chance level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from kernelgan.evaluation.verdict import COPIED_ANSWERS, COPY


class Metric(NamedTuple):
    """A metric's name on a page, in a narrow column, and an explanation for a reader new to it."""

    title: str
    short: str
    explained: str = ""


METRICS = {
    "auroc.worst": Metric(
        "worst-quadrant AUROC",
        "worst AUROC",
        "Worst-quadrant AUROC: how often a network scores an image of the conjunction above an image of the "
        "attribute alone, of the object alone, or of neither, whichever of these three tests is the hardest. "
        "Chance is {chance:g} in each, and less in the hardest of the three, as random networks show; 1 is "
        "perfect. Knowing only one of the two concepts fails in one of them.",
    ),
    "auroc.worst_of_means": Metric(
        "lowest mean",
        "lowest mean",
        "Lowest mean: the mean AUROC over networks in the hardest quadrant. Worst-quadrant AUROC is the mean "
        "of each network's lowest instead, and is lower the more networks differ.",
    ),
    "auroc.worst_calibrated": Metric(
        "calibrated",
        "calibrated",
        "Calibrated: worst-quadrant AUROC after each head's logits are divided by one number, fitted on seen "
        "validation images; of methods with both heads.",
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
        "Balanced accuracy: the share of images answered correctly, averaged over the {groups} groups of "
        "test images, so that always answering “no” scores {chance:g}.",
    ),
    "average_precision": Metric(
        "average precision",
        "avg. prec.",
        "Average precision: chance is the conjunction's share of the images, here {chance:.2f}.",
    ),
    "recall": Metric("recall", "recall", "Recall: the share of the conjunction's images answered “yes”."),
    "recovered": Metric(
        "recovered",
        "recov",
        "Recovered: the share of the way from chance (0), which is 0.5, or random networks where they are "
        "above it, to networks trained on the conjunction (1); - where these are hardly above chance.",
    ),
    "novelty.distance": Metric(
        "novelty: distance",
        "new",
        "Novelty: distance in weights from the nearest parent; 1 is the distance of a parent from its "
        f"nearest fellow, under {COPY:g} is a copy.",
    ),
    "novelty.answers": Metric(
        "novelty: answers",
        "answers",
        "The same of the rank correlation of answers with the nearest parent's; 1 is as far as a parent's "
        f"from its fellow's or as both parents' together, whichever is nearer, under {COPIED_ANSWERS:g} is a "
        "copy.",
    ),
    "novelty.error_overlap": Metric(
        "errors shared",
        "shared",
        "Errors shared: of the images that it or that parent gets wrong, the share that both do.",
    ),
    "novelty.error_overlap_nearest": Metric(
        "errors shared, most",
        "most",
        "The same with the parent of either zoo that shares most errors.",
    ),
    "novelty.error_overlap_parents": Metric(
        "errors shared, parents",
        "parents",
        "The same of a parent with its nearest fellow: what two networks have in common that were trained "
        "apart.",
    ),
}
"""By the path of the statistic in a `results.Row`."""


PARTS = ("vs_attribute_only", "vs_object_only", "vs_neither")
"""The AUROCs against one quadrant each, in the order of the quadrants."""


def title(path: str) -> str:
    """The name of a metric; made of the path where it has none."""
    return METRICS[path].title if path in METRICS else path.replace(".", " ").replace("_", " ")


def chance(path: str, images: Mapping[str, int]) -> float:
    """The score of answers that know nothing: of random scores, or of always answering “no”.

    Args:
      path: of the metric.
      images: test images in each quadrant, ``a&o`` the conjunction; where quadrants are not known, ``rest``.

    Returns:
      For an AUROC 0.5; for average precision the conjunction's share; for balanced accuracy, of k groups that
      have images, ``(k - 1) / k``; else NaN.
    """
    groups = [count for count in images.values() if count]
    if path.startswith("auroc"):
        return 0.5
    if path == "balanced_accuracy" and groups:
        return (len(groups) - 1) / len(groups)
    return images.get("a&o", 0) / sum(groups) if path == "average_precision" and groups else math.nan


def explained(path: str, images: Mapping[str, int]) -> str:
    """What a metric means, with its chance level on these test images."""
    words, level = METRICS[path].explained, chance(path, images)
    if "{chance" in words and math.isnan(level):
        return ""
    return words.format(chance=round(level, 3), groups=sum(1 for count in images.values() if count))
