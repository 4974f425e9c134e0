import json
import math

import numpy as np
import pytest
from synthetic_runs import full_pair, many_pairs, method, pair_result, statistic

from kernelgan import results
from kernelgan.types import UserError


def test_written_results_read_back_with_both_readings_of_one_pair(tmp_path):
    document = {"name": "x", "data": {"source": "procedural", "notes": ["a"]}, "pairs": [pair_result()]}
    arrays = {"black_cat/worst/random": np.arange(3.0), "file": np.zeros(1)}
    path = results.write_results(tmp_path / "run", document, arrays)

    assert path == tmp_path / "run" / "results.json"
    raw = json.loads(path.read_text())
    assert raw["schema"] == 1
    assert raw["pair"] == raw["pairs"][0]["pair"] == {"attribute": "black", "object": "cat"}
    assert raw["data"]["notes"] == ["a"]
    assert raw["data"]["leaked"] == 0
    assert raw["methods"] == raw["pairs"][0]["methods"]
    read = results.read_results(tmp_path / "run")
    assert read.document == raw
    np.testing.assert_array_equal(read.array(read.pairs()[0], "worst/random"), np.arange(3.0))
    assert list(read.arrays_under(read.pairs()[0], "worst")) == ["random"]
    assert read.array(read.pairs()[0], "nothing") is None
    assert "file" in read.arrays


def test_the_flat_form_of_the_protocol_is_read_as_one_pair(tmp_path):
    flat = {"schema": 1, "config": {}, **pair_result()}
    (tmp_path / "results.json").write_text(json.dumps(flat))
    read = results.read_results(tmp_path)
    assert [results.pair_title(pair) for pair in read.pairs()] == ["black cat"]
    assert read.pairs()[0]["methods"] == flat["methods"]
    assert read.arrays == {}


def test_several_pairs_have_no_pair_at_top_level(tmp_path):
    other = pair_result() | {"pair": {"attribute": "red", "object": "dog"}}
    results.write_results(tmp_path, {"pairs": [pair_result(), other]})
    document = results.read_results(tmp_path).document
    assert "pair" not in document
    assert "methods" not in document
    assert len(document["pairs"]) == 2


def test_what_json_has_not_becomes_plain(tmp_path):
    made = pair_result()
    made["methods"]["random"]["accuracy"] = {"mean": np.float32("nan"), "ci95": (np.float64(0.5), math.inf)}
    made["methods"]["random"]["networks"] = np.int64(7)
    config = {"filters": (6, 16), "path": tmp_path}
    results.write_results(tmp_path, {"config": config, "pairs": (made,)})
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    document = json.loads(text)
    assert document["methods"]["random"]["accuracy"] == {"mean": None, "ci95": [0.5, None]}
    assert document["methods"]["random"]["networks"] == 7
    assert document["config"] == {"filters": [6, 16], "path": str(tmp_path)}


def test_a_config_dict_is_written():
    config_dict = pytest.importorskip("ml_collections").ConfigDict({"seed": 3, "zoo": {"models": 2}})
    assert results._plain({"config": config_dict}, "") == {"config": {"seed": 3, "zoo": {"models": 2}}}


def test_writing_leaves_no_temporary_file_and_a_failure_leaves_the_old_file(tmp_path):
    results.write_results(tmp_path, {"pairs": [pair_result()]}, {"a": np.zeros(3)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["arrays.npz", "results.json"]
    with pytest.raises(TypeError, match=r"results\.config\.field is a object"):
        results.write_results(tmp_path, {"config": {"field": object()}, "pairs": [pair_result()]})
    with pytest.raises(ValueError, match="allow_pickle"):
        results.write_results(tmp_path, {"pairs": [pair_result()]}, {"a": np.array([object()])})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
        ("[]", "schema None"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1}', 'neither a "pair" nor a list of "pairs"'),
        ('{"schema": 1, "pairs": [3]}', "does not name its"),
        ('{"schema": 1, "pair": {"attribute": "a", "object": "b"}}', 'has no "methods"'),
    ],
)
def test_damaged_results_name_the_file(tmp_path, content, message):
    (tmp_path / "results.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message) as caught:
        results.read_results(tmp_path)
    assert str(tmp_path / "results.json") in str(caught.value)


def test_missing_results_and_damaged_arrays_name_the_file(tmp_path):
    with pytest.raises(UserError, match=r"results\.json does not exist"):
        results.read_results(tmp_path)
    results.write_results(tmp_path, {"pairs": [pair_result()]}, {"a": np.arange(1000)})
    arrays = tmp_path / "arrays.npz"
    whole = arrays.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        arrays.write_bytes(damaged)
        with pytest.raises(UserError, match=r"arrays\.npz is damaged"):
            results.read_results(tmp_path)


def test_methods_are_in_the_order_of_the_protocol():
    made = pair_result(distilled=0.7)
    made["methods"] |= {
        "new": method("generated", 0.1),
        "pixels": method("null", 0.1),
        "odd": method(None, 0.1),
    }
    names = [name for name, _ in results.methods_in_order(made)]
    assert names == [
        *("random", "pixels", "attribute_only", "object_only", "average"),
        *(
            "cyclegan_a2b",
            "cyclegan_b2a",
            "new",
            "distilled",
            "and_ensemble",
            "trained_on_conjunction",
            "odd",
        ),
    ]


def without_tests(made):
    return {key: value for key, value in made.items() if key != "tests"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pair_result(), "yes"),
        (pair_result(generated=(0.70, 0.50)), "yes"),
        (pair_result(generated=(0.50, 0.52)), "no"),  # clearly below the attribute parent
        (pair_result(generated=(0.40, 0.41)), "no"),
        (pair_result(generated=(0.50, 0.605)), "cannot tell"),  # not to be told from the attribute parent
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
    assert results.answer(made) == expected
    first = results.verdict(made)[0]
    assert first.lower().startswith(expected)
    assert not first.endswith("..")


def test_outcomes_are_those_of_the_tests_not_of_the_intervals():
    made = pair_result()
    test = made["tests"]["cyclegan_b2a"]["average"]
    for difference, p_adjusted, outcome in (
        (0.1, 0.049, "above"),
        (-0.1, 0.049, "below"),
        (0.1, 0.05, "cannot tell"),
        (0.1, None, "not measured"),
        (None, 0.01, "not measured"),
    ):
        test |= {"difference": {"mean": difference}, "p_value": 0.001, "p_adjusted": p_adjusted}
        (found,) = [each for each in results.comparisons(made) if each.rival == "average"]
        assert (found.outcome, found.required) == (outcome, True)
        assert (results.answer(made) == "yes") == (outcome == "above")
        assert (results.answer(made) == "no") == (outcome == "below")


def test_the_null_test_of_many_pairs_counts_as_corrected():
    made = pair_result()
    made["null_test"]["p_adjusted"] = 0.3
    assert results.null_p_value(made) == 0.3
    random = next(found for found in results.comparisons(made) if found.rival == "random")
    assert (random.outcome, random.p_value) == ("cannot tell", 0.3)
    assert "random networks (random, p = 0.300)" in results.verdict(made)[0]


@pytest.mark.parametrize(("distance", "copied"), [(0.2, True), (0.25, False), (1.0, False), (None, False)])
def test_copies_of_a_parent_do_not_compose(distance, copied):
    made = pair_result()
    made["methods"]["cyclegan_b2a"]["novelty"] = {
        "distance": {"mean": distance},
        "error_overlap": statistic(0.8),
    }
    assert (results.answer(made) == "no") == copied
    lines = results.verdict(made)
    assert ("They are copies of a parent." in lines[0]) == copied
    assert any("80% of the images that either gets wrong" in line for line in lines) == copied


def test_a_null_test_of_another_method_supports_no_claim():
    made = pair_result()
    made["null_test"]["method"] = "cyclegan_a2b"
    assert results.answer(made) == "cannot tell"
    assert any("test against chance is of cyclegan_a2b" in line for line in results.verdict(made))


def test_the_headline_names_what_is_not_beaten_in_words_with_p_values():
    first = results.verdict(pair_result(generated=(0.50, 0.52)))[0]
    assert first.startswith("No: the generated networks do not compose black and cat. They are below ")
    assert first.index("(attribute_only, p = 0.002)") < first.index("(average, p = 0.002)")  # widest first
    assert "the black parents alone (attribute_only, p = 0.002)" in first
    assert "random" not in first
    many = results.verdict(pair_result(generated=(0.1, 0.1), zipit=0.5, concatenate=0.5))[0]
    assert many.count("p = 0.002") == 3
    assert many.endswith(" and 3 more.")
    assert "(all p < 0.001)" in results.verdict(pair_result())[0]


def test_the_verdict_says_what_it_rests_on():
    text = "\n".join(results.verdict(pair_result()))
    for words in (
        "cat kernels translated (cyclegan_b2a), mean worst-quadrant AUROC 0.700 [0.690, 0.710], over 8",
        "Chance is 0.5 in each, and less in the hardest",
        "Of the 4 that it must beat (nulls, parents and merges) it is above random, attribute_only,",
        "p = 0.004 by permutation with random networks, times 2, for it is the best of 2 generated methods",
        "below both parents run side by side (and_ensemble, -0.030, p < 0.001)",
        "(trained_on_conjunction, -0.200, p < 0.001)",
        "50% of the way",
    ):
        assert words in text, words
    no_ceiling = results.verdict(pair_result(trained_on_conjunction=0.45))
    assert any(line.startswith("Beware") for line in no_ceiling)
    unknown = "\n".join(results.verdict(pair_result(quadrants=False)))
    assert "quadrants of the other images are not known" in unknown
    assert "Worst-quadrant" not in unknown


def test_methods_are_named_in_words():
    assert results.in_words("and_ensemble") == "both parents run side by side (and_ensemble)"
    assert results.in_words("object_only") == "the object parents alone (object_only)"
    assert results.in_words("object_only", pair_result()) == "the cat parents alone (object_only)"
    assert results.in_words("new{") == "new{"
    assert set(results.WORDS) == set(results.METHODS)


def test_methods_are_ranked_by_their_means():
    made = full_pair()
    made["methods"]["zipit"]["auroc"]["worst"]["mean"] = None
    names = [name for name, _ in results.ranked(made)]
    assert names[0] == "trained_on_conjunction"
    means = [results.merit(made, name).mean for name in names]
    assert means == sorted(means, reverse=True)
    assert set(made["methods"]) - set(names) == {"zipit"}


def test_statistics_that_are_not_there_are_nan():
    for record in (
        None,
        {},
        {"auroc": None},
        {"auroc": {"worst": {"mean": None}}},
        {"auroc": {"worst": "x"}},
    ):
        assert results.interval(record, "auroc.worst").text() == "-"
    assert results.interval({"mean": 0.5}).text() == "0.500"
    assert results.interval({"mean": 0.5, "ci95": [0.4, 0.6]}).text(2) == "0.50 [0.40, 0.60]"
    assert results.p_text(0.0001) == "p < 0.001"


def three_pairs():
    pairs = [pair_result(), pair_result(generated=(0.4, 0.4)), pair_result(half=0.2)]
    for made, name in zip(pairs, ("cat", "dog", "car"), strict=True):
        made["pair"] = {"attribute": "black", "object": name}
    return pairs


def test_the_summary_of_several_pairs_counts_the_answers():
    made = results.Results({"pairs": three_pairs()})
    lines = results.summary(made)
    assert lines[0].startswith("Cannot tell over the 3 pairs")
    assert results.run_answer(made) == "cannot tell"
    assert any("of 3: yes on 1, no on 1, cannot tell on 1" in line for line in lines)
    assert "Yes: black cat." in lines


def test_the_summary_of_one_pair_is_its_verdict():
    made = pair_result()
    run = results.Results({"pairs": [made]})
    assert results.summary(run) == results.verdict(made)
    assert results.run_answer(run) == "yes"


@pytest.mark.parametrize(
    ("means", "expected", "first"),
    [
        (
            {},
            "cannot tell",
            "they cannot be told from a network of half the filters of each parent (concatenate, p = 1.000)",
        ),
        (
            {"hypernetwork": 0.9},
            "yes",
            "Yes: the generated networks compose, over 55 pairs. They are above all 12",
        ),
        (
            {"zipit": 0.9},
            "no",
            "No: the generated networks do not compose, over 55 pairs. They are below a merge of both "
            "parents' correlated filters (zipit, p = 0.012).",
        ),
    ],
)
def test_the_answer_over_many_pairs_is_that_of_their_tests(means, expected, first):
    document = many_pairs()
    tests = document["overall"]["tests"]["hypernetwork"]
    for name, mean in means.items():
        document["overall"]["methods"][name]["auroc"]["worst"]["mean"] = mean
    if "hypernetwork" in means:
        for name in tests:
            tests[name] = {"difference": statistic(0.1), "p_adjusted": 0.001}
    if "zipit" in means:
        tests["zipit"] = {"difference": statistic(-0.2), "p_adjusted": 0.001}
    run = results.Results(document)
    assert results.run_answer(run) == expected
    lines = results.summary(run)
    assert lines[0].lower().startswith(expected)
    assert first in lines[0]
    assert any(", over 55 pairs." in line for line in lines[1:])
    assert not any("Against chance" in line for line in lines)


def test_a_leak_in_any_pair_spoils_the_answer_over_all():
    document = many_pairs(4)
    document["pairs"][2]["data"]["leaked"] = 5
    run = results.Results(document)
    assert results.run_answer(run) == "cannot tell"
    first = results.summary(run)[0]
    assert first.startswith("Cannot tell: images of the conjunction were read in training on ")
    assert results.pair_title(document["pairs"][2]) in first
