"""The rules of the verdict on planted numbers, and what is said of it."""

import copy
import dataclasses

import pytest
from synthetic_runs import many_pairs, pair_result, placebos, run_of, statistic, verdict_on

from kernelgan import results
from kernelgan.baselines.methods import BASELINES
from kernelgan.evaluation.verdict import judged
from kernelgan.report import contents, prose


def without_tests(made):
    return {key: value for key, value in made.items() if key != "tests"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pair_result(), "yes"),
        (pair_result(generated=(0.70, 0.50)), "yes"),
        (pair_result(generated=(0.50, 0.52)), "no"),  # clearly below the attribute parent
        (pair_result(generated=(0.40, 0.41)), "no"),
        (pair_result(generated=(0.50, 0.605)), "cannot tell"),  # too near the attribute parent
        (pair_result(half=0.2), "cannot tell"),
        (pair_result(p_value=0.2), "cannot tell"),  # above random, but so is random picked the same way
        (pair_result(p_value=None), "cannot tell"),
        (pair_result(random=None), "cannot tell"),
        (pair_result(attribute_only=None), "cannot tell"),
        (pair_result(average=None), "cannot tell"),  # no merge to beat
        (pair_result(average=None, zipit=0.5), "yes"),
        (pair_result(average=0.8), "no"),
        (pair_result(zipit=0.8), "no"),
        (pair_result(pixels=0.8), "no"),
        (pair_result(distilled=0.8, half_width_pair=0.8), "yes"),  # to come up to, not to beat
        (pair_result(quadrants=False), "yes"),
        (without_tests(pair_result()), "cannot tell"),  # intervals apart are no test
        (pair_result() | {"data": {"leaked": 3}}, "cannot tell"),
        (pair_result() | {"methods": {}}, "cannot tell"),
    ],
)
def test_the_answer_on_planted_numbers(made, expected):
    run = run_of(made)
    assert run.verdict.answer == expected
    assert prose.summary(run)[0].lower().startswith(expected)


@pytest.mark.parametrize("made", [pair_result(), pair_result(average=0.8), pair_result(zipit=0.8)])
@pytest.mark.parametrize(
    ("row", "matters"),
    [("gaussian", True), ("concatenate", True), ("zipit_refit", False), ("distilled", False)],
)
def test_a_row_left_out_that_must_be_beaten_leaves_no_verdict(made, row, matters):
    """Neither a yes nor a no: with fewer rivals p-values are corrected less."""
    of_tier_w = {name: row | {"tier": "W"} for name, row in made["methods"].items()}
    run = run_of(made | {"methods": of_tier_w})
    (pair,) = judged(run, [BASELINES[row]]).pairs
    assert pair.verdict.answer == ("cannot tell" if matters else run.verdict.answer)
    assert prose.headline(pair).startswith("No verdict") == matters


@pytest.mark.parametrize(
    ("difference", "p_adjusted", "outcome"),
    [
        (0.1, 0.049, "above"),
        (-0.1, 0.049, "below"),
        (0.1, 0.05, "cannot tell"),
        (0.1, None, "not measured"),
        (None, 0.01, "not measured"),
    ],
)
def test_outcomes_are_those_of_the_tests_not_of_the_intervals(difference, p_adjusted, outcome):
    made = pair_result()
    test = made["tests"]["cyclegan_b2a"]["average"]
    test |= {"difference": {"mean": difference}, "p_value": 0.001, "p_adjusted": p_adjusted}
    verdict = verdict_on(made)
    (found,) = [one for one in verdict.comparisons if one.rival == "average"]
    assert (found.outcome, found.required) == (outcome, True)
    assert verdict.answer == {"above": "yes", "below": "no"}.get(outcome, "cannot tell")


def test_losing_to_one_of_many_is_corrected_for_their_number():
    made = pair_result(zipit=0.55)
    for p_value, corrected, outcome in ((0.02, 0.10, "cannot tell"), (0.002, 0.01, "below")):
        made["tests"]["cyclegan_b2a"] |= {
            name: {"difference": {"mean": 0.1}, "p_adjusted": 0.5}
            for name in ("random", "attribute_only", "object_only", "average")
        }
        made["tests"]["cyclegan_b2a"]["zipit"] = {"difference": {"mean": -0.1}, "p_adjusted": p_value}
        zipit = next(one for one in verdict_on(made).comparisons if one.rival == "zipit")
        assert (zipit.p_value, zipit.outcome) == (pytest.approx(corrected), outcome)  # of five, Holm


def test_the_null_test_of_many_pairs_counts_as_corrected():
    made = pair_result()
    made["null_test"]["p_adjusted"] = 0.3
    verdict = verdict_on(made)
    assert verdict.null_p_value == 0.3
    random = next(found for found in verdict.comparisons if found.rival == "random")
    assert (random.outcome, random.p_value) == ("cannot tell", 0.3)
    assert "random (p = 0.300)" in prose.summary(run_of(made))[0]


@pytest.mark.parametrize(("distance", "copied"), [(0.2, True), (0.25, False), (1.0, False), (None, False)])
def test_copies_of_a_parent_do_not_compose(distance, copied):
    made = pair_result()
    novelty = {"distance": {"mean": distance}, "error_overlap": statistic(0.8)}
    made["methods"]["cyclegan_b2a"]["novelty"] = novelty
    verdict, lines = verdict_on(made), prose.summary(run_of(made))
    assert verdict.copies == copied
    assert (verdict.answer == "no") == copied
    assert any("80% of the images" in line for line in lines) == copied


@pytest.mark.parametrize(
    ("change", "unfit"),
    [
        ({}, ""),
        ({"parameters": 9999}, "size"),
        ({"parameters": None}, ""),
        ({"novelty": None}, "shape"),
        ({"networks": 1}, "one network"),
        ({"placebos": None}, "no placebo"),
        ({"placebos": {"attribute_random": placebos()["attribute_random"]}}, "no placebo"),
        ({"placebos": {"object_random": placebos()["object_random"]}}, "no placebo"),
        ({"placebos": placebos(p_value=0.06)}, "placebo"),
        ({"tier": "W"}, ""),
        ({"steps": 300, "trainings": (0.70,)}, "trainings"),
        ({"steps": 300, "trainings": (0.71, 0.70)}, "trainings"),
        ({"steps": 300, "trainings": (0.71, 0.70, 0.69)}, ""),
        ({"steps": 300}, "trainings"),
        ({"steps": 0}, ""),  # nothing is trained
        ({"behind": {"held_out": 4, "learnt": 5, "readers": 10, "images": 900, "leaked": 2}}, "leak"),
        ({"behind": {"held_out": 4, "learnt": 5, "readers": 10, "images": 900, "leaked": 0}}, ""),
    ],
)
def test_what_is_not_one_network_of_the_parents_shape_cannot_be_said_to_compose(change, unfit):
    made = pair_result()
    made["methods"]["cyclegan_b2a"] |= change
    verdict = verdict_on(made)
    assert (verdict.broken, verdict.answer) == ((unfit,) * bool(unfit), "cannot tell" if unfit else "yes")
    assert ("above all that they must beat, but" in prose.summary(run_of(made))[0]) == bool(unfit)


@pytest.mark.parametrize(
    ("fall", "p_value", "said"),
    [
        (0.1, 0.06, "that its gain falls by half with placebo parents is not shown (p = 0.060)"),
        (-0.1, 0.9, "it keeps half of its gain or more with placebo parents"),
        (0.0, 1.0, "it keeps half of its gain or more with placebo parents"),
    ],
)
def test_a_gain_that_falls_and_one_that_stays_are_told_apart(fall, p_value, said):
    made = pair_result()
    made["methods"]["cyclegan_b2a"]["placebos"] = placebos(p_value=p_value, fall=fall)
    assert prose.summary(run_of(made))[0].endswith(f"they must beat, but {said}.")


def test_what_a_trained_generator_rests_on_is_said():
    made = pair_result()
    behind = {"name": "fold 3", "held_out": 6, "learnt": 49, "readers": 59, "images": 41234, "leaked": 0}
    made["methods"]["cyclegan_b2a"] |= {"steps": 300, "trainings": (0.71, 0.70, 0.69), "behind": behind}
    made |= {"fold": 3, "sealed": True}
    text = " ".join(prose.summary(run_of(made)))
    for fact in (
        "3 times: 0.710",
        "0.690",
        "41,234",
        "59",
        "6 conjunctions",
        "49 pairs",
        "not other parents",
    ):
        assert fact in text, fact
    other = made | {"pair": {"attribute": "black", "object": "dog"}, "sealed": False, "fold": 1}
    assert "1 of the pairs are sealed" in " ".join(prose.summary(run_of(made, other)))


def test_a_null_test_of_another_method_supports_no_claim():
    made = pair_result()
    made["null_test"]["method"] = "cyclegan_a2b"
    assert verdict_on(made).answer == "cannot tell"
    assert any("cyclegan_a2b" in line for line in prose.summary(run_of(made)))


def test_the_headline_names_what_is_not_beaten_widest_gap_first_with_p_values():
    first = prose.summary(run_of(pair_result(generated=(0.50, 0.52))))[0]
    assert first.index("the black parents alone (attribute_only, p = 0.002)") < first.index(
        "(average, p = 0.002)"
    )
    assert "random" not in first
    many = prose.summary(run_of(pair_result(generated=(0.1, 0.1), zipit=0.5, concatenate=0.5)))[0]
    assert many.count("p = 0.002") == 3
    assert many.endswith(" and 3 more.")
    assert "(all p < 0.001)" in prose.summary(run_of(pair_result()))[0]


def test_the_verdict_says_what_it_rests_on():
    text = "\n".join(prose.summary(run_of(pair_result())))
    for words in (
        "cyclegan_b2a, mean worst-quadrant AUROC 0.700 [0.690, 0.710], over 8",
        "Chance is 0.5 in each",
        "above random, attribute_only,",
        "p = 0.004 by permutation with random networks, times 2",
        "below and_ensemble (-0.030) and trained_on_conjunction (-0.200)",
        "50% of the way",
    ):
        assert words in text, words
    no_reference = prose.summary(run_of(pair_result(trained_on_conjunction=0.45)))
    assert any(line.startswith("Beware") for line in no_reference)
    unknown = "\n".join(prose.summary(run_of(pair_result(quadrants=False))))
    assert "quadrants of the other images are not known" in unknown
    assert "Worst-quadrant" not in unknown


def test_p_values_of_the_best_method_are_the_verdict_s():
    """A rival that is ahead is corrected for the number of those that must be beaten."""
    run = run_of(pair_result(generated=(0.1, 0.1), zipit=0.5, concatenate=0.5))
    (pair,) = run.pairs
    best = pair.verdict.best
    (stated,) = [each.p_value for each in pair.verdict.comparisons if each.rival == "zipit"]
    assert stated > pair.tests[best]["zipit"].p_adjusted
    assert prose.p_value(pair, best, "zipit") == stated
    (row,) = [line for line in contents.methods(pair).rows if line.cells[0].text == "zipit"]
    (cell,) = [cell.small for cell in row.cells if cell.small.startswith("p ")]
    assert cell == prose.p_text(stated)
    tested = dataclasses.replace(pair, tests=pair.tests | {"another": pair.tests[best]})
    assert prose.p_value(tested, "another", "zipit") == pair.tests[best]["zipit"].p_adjusted


# Over pairs -----------------------------------------------------------------------------------------------


def three_pairs():
    pairs = [pair_result(), pair_result(generated=(0.4, 0.4)), pair_result(half=0.2)]
    for made, name in zip(pairs, ("cat", "dog", "car"), strict=True):
        made["pair"] = {"attribute": "black", "object": name}
    return pairs


def test_the_summary_of_several_pairs_counts_the_answers():
    run = run_of(*three_pairs())
    lines = prose.summary(run)
    assert lines[0].startswith("Cannot tell over the 3 pairs")
    assert run.verdict.answer == "cannot tell"
    assert any("of 3: yes on 1, no on 1, cannot tell on 1" in line for line in lines)
    assert "Yes: black cat." in lines


@pytest.mark.parametrize(
    ("means", "expected", "first"),
    [
        ({}, "cannot tell", "concatenate (p = 1.000)"),
        ({"hypernetwork": 0.9}, "yes", "compose, over 8 pairs. They are above all 12"),
        ({"zipit": 0.9}, "no", "zipit (p = 0.012)"),
    ],
)
def test_the_answer_over_many_pairs_is_that_of_their_tests(means, expected, first):
    document = many_pairs(8)
    tests = document["overall"]["tests"]["hypernetwork"]
    for name, mean in means.items():
        document["overall"]["methods"][name]["auroc"]["worst"]["mean"] = mean
    if "hypernetwork" in means:
        for name in tests:
            tests[name] = {"difference": statistic(0.1), "p_adjusted": 0.001}
    if "zipit" in means:
        tests["zipit"] = {"difference": statistic(-0.2), "p_adjusted": 0.001}
    run = run_of(**document)
    lines = prose.summary(run)
    assert run.verdict.answer == expected
    assert lines[0].lower().startswith(expected)
    assert first in lines[0]
    assert any(", over 8 pairs." in line for line in lines[1:])
    assert not any("Against chance" in line for line in lines)


def test_a_leak_in_any_pair_spoils_the_answer_over_all():
    document = many_pairs(4)
    for name in document["overall"]["tests"]["hypernetwork"]:
        document["overall"]["tests"]["hypernetwork"][name] = {
            "difference": statistic(0.1),
            "p_adjusted": 0.001,
        }
    document["overall"]["methods"]["hypernetwork"]["auroc"]["worst"]["mean"] = 0.95
    assert run_of(**copy.deepcopy(document)).verdict.answer == "yes"
    document["pairs"][2]["data"]["leaked"] = 5
    run = run_of(**document)
    assert run.verdict.answer == "cannot tell"
    assert run.pairs[2].title in prose.summary(run)[0]


def test_the_verdict_is_stored_and_not_worked_out_again(tmp_path):
    run = run_of(pair_result())
    results.write_results(tmp_path, run)
    path = tmp_path / "results.json"
    path.write_text(path.read_text().replace('"answer": "yes"', '"answer": "no"'))
    assert results.read_results(tmp_path).verdict.answer == "no"


def test_a_verdict_is_within_a_tier():
    made = pair_result(zipit=0.8)
    made["methods"]["zipit"]["tier"] = "U"
    for name, tier in (("cyclegan_b2a", "W"), ("cyclegan_a2b", "U")):
        made["methods"][name]["tier"] = tier
    verdict = verdict_on(made)
    assert (verdict.answer, verdict.tiers) == ("yes", {"W": "yes", "U": "no"})
    assert next(one for one in verdict.comparisons if one.rival == "zipit").outcome == "below"
    assert "no in tier U" in " ".join(prose.summary(run_of(made)))


def test_the_gain_that_would_be_found_is_that_over_the_hardest_rival():
    made = pair_result()
    for gain, test in enumerate(made["tests"]["cyclegan_b2a"].values()):
        test["detectable"] = 0.01 * gain
    found = verdict_on(made)
    required = [one.rival for one in found.comparisons if one.required]
    tests = made["tests"]["cyclegan_b2a"]
    assert found.detectable == max(tests[name]["detectable"] for name in required)
    assert f"A gain of {found.detectable:.3f}" in " ".join(prose.summary(run_of(made)))


@pytest.mark.parametrize(("gain", "small"), [(0.2, False), (0.5, False), (1.162, True), (None, True)])
def test_a_run_that_finds_only_impossible_gains_is_called_too_small(gain, small):
    made = pair_result()
    made["null_test"]["p_adjusted"] = 0.3  # no "yes"
    for test in made["tests"]["cyclegan_b2a"].values():
        test["detectable"] = gain
    said = " ".join(prose.summary(run_of(made)))
    assert ("too small to find any gain" in said) == small
    assert ("A gain of" in said) != small


@pytest.mark.parametrize(
    ("own", "corrected", "p_value"), [(0.004, None, 0.012), (0.004, 0.06, 0.072), (0.5, None, 1.0)]
)
def test_a_generated_method_that_is_not_the_best_has_a_null_test_of_its_own(own, corrected, p_value):
    made = pair_result()
    best = verdict_on(made).best
    by_method = {best: {"mean_p_value": own}, "other": {"mean_p_value": 0.001}}
    made["null_test"] |= {"method": "other", "candidates": 3, "p_value": 0.01, "by_method": by_method}
    made["null_test"]["p_adjusted"] = corrected
    assert verdict_on(made).null_p_value == pytest.approx(p_value)
