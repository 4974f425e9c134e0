"""Tests for kernelgan.evaluation.binding, and for what is said of it."""

import pytest
from synthetic_runs import pair_result, run_of

from kernelgan.evaluation.binding import FREE, binding
from kernelgan.report import prose

QUADRANTS = ("vs_attribute_only", "vs_object_only", "vs_neither")


def _records(**means):
    return {
        name: {"auroc": {key: {"mean": mean} for key, mean in zip(QUADRANTS, given, strict=True)}}
        for name, given in means.items()
    }


@pytest.mark.parametrize(
    ("means", "quadrants", "free"),
    [
        ({"and_ensemble": (0.76, 0.99, 1.0)}, ["vs_attribute_only"], ["attribute"]),
        ({"and_ensemble": (0.99, 0.7, 1.0)}, ["vs_object_only"], ["object"]),
        ({"and_ensemble": (0.76, 0.8, 0.7)}, ["vs_neither"], []),
        ({"and_ensemble": (0.99, 0.98, 1.0)}, ["vs_object_only"], ["attribute", "object"]),
        (
            {"and_ensemble": (0.76, FREE, 1.0), "trained_on_conjunction": (0.9, FREE - 0.01, 1.0)},
            ["vs_attribute_only", "vs_attribute_only"],
            [],
        ),
        (
            {"and_ensemble": (0.9, 0.96, 1.0), "trained_on_conjunction": (0.98, 0.97, 1.0)},
            ["vs_attribute_only", "vs_object_only"],
            ["attribute"],
        ),
    ],
)
def test_the_lowest_quadrant_binds_and_a_concept_is_free_where_all_tell_it_apart(means, quadrants, free):
    found = binding(_records(**means, average=(0.1, 0.1, 0.1)))
    assert found == {"quadrants": dict(zip(means, quadrants, strict=True)), "free": free}


def test_without_quadrants_or_methods_to_judge_by_nothing_is_said():
    assert binding(_records(average=(0.5, 0.5, 0.5))) is None
    assert binding({"and_ensemble": {"auroc": {"vs_rest": {"mean": 0.9}}}}) is None
    assert prose.binding(run_of(pair_result()).pairs[0]) == ""


@pytest.mark.parametrize(
    ("free", "facts"),
    [(["attribute"], ("Black is free", "measures cat")), (["object"], ("Cat is free", "measures black"))],
)
def test_the_report_says_which_concept_the_figure_measures(free, facts):
    made = pair_result()
    made["binding"] = {"quadrants": {"and_ensemble": "vs_attribute_only"}, "free": free}
    run = run_of(made)
    assert run.pairs[0].binding.free == tuple(free)
    line = prose.binding(run.pairs[0])
    assert line in prose.summary(run)
    for fact in (*facts, "black alone for and_ensemble"):
        assert fact in line


def test_over_pairs_it_is_counted():
    pairs = []
    for thing, free in (("cat", ["attribute"]), ("dog", []), ("car", ["attribute", "object"])):
        made = pair_result()
        made["pair"] = {"attribute": "black", "object": thing}
        made["binding"] = {"quadrants": {"and_ensemble": "vs_neither"}, "free": free}
        pairs.append(made)
    line = prose.summary(run_of(*pairs))[-1]
    assert "3 pairs" in line
    assert "the attribute is free (nearly always told apart) on 1" in line
