"""Tests of what is said beside figures that would mislead, in prose, on a page and on the terminal."""

import dataclasses

import pytest
from synthetic_runs import overall, pair_result, run_of

from kernelgan import results
from kernelgan.report import contents, prose, tables, terminal
from kernelgan.results import Statistic


def _pair(**means):
    made = pair_result(**means)
    (pair,) = run_of(made).pairs
    return pair


def _with_auroc(pair, name, **parts):
    row = pair.methods[name]
    auroc = row.auroc | {part: Statistic(mean, (mean - 0.02, mean + 0.02)) for part, mean in parts.items()}
    return dataclasses.replace(pair, methods=pair.methods | {name: dataclasses.replace(row, auroc=auroc)})


def test_of_plausible_figures_nothing_is_said():
    assert prose.marks(_pair()) == {}


@pytest.mark.parametrize("name", ["trained_on_conjunction", "and_ensemble"])
def test_a_trained_reference_below_a_merge_is_said_beside_its_figure(name):
    pair = _pair(**{name: 0.55, "average": 0.62})
    assert prose.marks(pair) == {name: "below a merge"}
    row = list(pair.methods).index(name)
    cells = contents.methods(pair).rows[row].cells
    assert cells[1].small.endswith("below a merge")
    assert "below a merge" in terminal.table(run_of(pair_result(**{name: 0.55, "average": 0.62})))
    said = " ".join(prose.verdict(pair))
    assert f"Beware: a merge that was not trained is above {name}." in said


@pytest.mark.parametrize(("name", "part"), [("object_only", "vs_neither"), ("cyclegan_a2b", "vs_neither")])
def test_an_inverted_detector_is_said_beside_its_figure_with_the_field_to_mend(name, part):
    pair = _pair()
    name = name if name in pair.methods else next(iter(pair.of_kind("generated"))).name
    pair = _with_auroc(pair, name, **{part: 0.03})
    assert prose.marks(pair) == {name: "inverted"}
    said = " ".join(prose.verdict(pair))
    assert name in said
    assert "zoo.attribute_positive" in said


def test_the_terminal_shows_every_rival_that_the_answer_names():
    merges = {"average": 0.69, "rebasin_average": 0.71, "zipit": 0.705}
    said, _, answer = terminal.table(run_of(pair_result(**merges))).rpartition("\n\n")
    for name in merges:
        assert f"{name} (p = " in answer or f"({name}, p = " in " ".join(answer.split())
        assert f"\n  {name} " in said


def test_where_quadrants_are_not_known_the_rest_decides():
    pair = _pair(quadrants=False)
    name = next(iter(pair.methods))
    assert prose.marks(_with_auroc(pair, name, vs_rest=0.03)) == {name: "inverted"}
    assert prose.marks(_with_auroc(pair, name, vs_rest=0.45)) == {}


def test_the_leaderboard_has_the_marks_too():
    pairs = [pair_result(trained_on_conjunction=0.55, average=0.62) for _ in range(2)]
    for pair, thing in zip(pairs, ("cat", "dog"), strict=True):
        pair["pair"] = {"attribute": "black", "object": thing}
    record = run_of(*pairs, overall=overall(pairs)).overall
    assert prose.marks(record) == {"trained_on_conjunction": "below a merge"}
    smalls = [cell.small for line in contents.leaderboard(record).rows for cell in line.cells]
    assert sum("below a merge" in small for small in smalls) == 1


@pytest.mark.parametrize(
    ("ends", "shown"), [((0.93, 1.05), "[0.930, 1.000]"), ((-0.08, 0.1), "[0.000, 0.100]")]
)
@pytest.mark.parametrize("field", ["auroc", "recall", "average_precision"])
def test_no_interval_of_a_share_leaves_0_to_1(field, ends, shown):
    value = Statistic(0.5, ends)
    given = {field: {"worst": value}} if field == "auroc" else {field: value}
    row = results.Row("a", "merge", recovered=value, **given)
    found = getattr(row, field)
    found = found["worst"] if field == "auroc" else found
    assert tables.statistic(found).small == shown
    assert row.recovered.ci95 == ends  # no share: a method may be worse than random networks


def test_of_every_other_generated_method_it_is_said_what_it_is_above():
    (weak, strong) = (run_of(pair_result(generated=(other, 0.70))).pairs[0] for other in (0.50, 0.65))
    line = prose._others(weak)
    assert line in prose.verdict(weak)
    assert "cyclegan_a2b (0.500) is above 1 of them, not attribute_only, average or object_only" in line
    line = prose._others(strong)
    assert line.endswith("cyclegan_a2b (0.650) is above 4 of them.")
