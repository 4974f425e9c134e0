"""Which of the three quadrants decides the figure of merit of a pair, and which concept is hardly tested.

Where black cats are told from all other cats, the attribute costs nothing: whoever detects cats among black
things has the figure of merit. Judged by what composes: both parents run, and the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernelgan.baselines import REFERENCE, YARDSTICK

FREE = 0.95
"""Mean AUROC from which a concept counts as free: the quadrant that lacks it alone is nearly always right."""

_LACKING = {"attribute": "vs_object_only", "object": "vs_attribute_only"}
"""By concept, the AUROC against images that lack it alone."""

_QUADRANTS = (*_LACKING.values(), "vs_neither")


def binding(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The record `results.Binding` of a pair.

    Args:
      records: of the pair's methods, each with its ``auroc``.

    Returns:
      By method the AUROC that is the lowest, and the concepts that are free with every one of these methods;
      None where neither method was measured against all three quadrants.
    """
    means = {
        name: {quadrant: records[name]["auroc"][quadrant]["mean"] for quadrant in _QUADRANTS}
        for name in (YARDSTICK, REFERENCE)
        if name in records and all(quadrant in records[name]["auroc"] for quadrant in _QUADRANTS)
    }
    if not means:
        return None
    return {
        "quadrants": {name: min(zip(found.values(), found, strict=True))[1] for name, found in means.items()},
        "free": [
            concept
            for concept, quadrant in _LACKING.items()
            if all(found[quadrant] >= FREE for found in means.values())
        ],
    }
