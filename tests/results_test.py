import json
import math

import numpy as np
import pytest

from kernelgan import results
from kernelgan.types import UserError

FLOORS = {"random": 0.45, "attribute_only": 0.60, "object_only": 0.55, "average": 0.58}


def statistic(mean, half=0.01):
    return {"mean": mean, "ci95": [mean - half, mean + half], "sd": 0.02, "best": mean + 0.05}


def method(kind, mean, half=0.01, quadrants=True, **more):
    auroc = {"vs_rest": statistic(mean, half)}
    if quadrants:
        names = ("vs_attribute_only", "vs_object_only", "vs_neither", "worst")
        auroc = {name: statistic(mean, half) for name in names}
    return {
        "kind": kind,
        "networks": 8,
        "parameters": 3674,
        "auroc": auroc,
        "recovered": {"mean": 0.5},
        **more,
    }


def pair_result(generated=(0.50, 0.70), p_value=0.004, half=0.01, quadrants=True, **means):
    kinds = {"random": "null", "average": "merge", "and_ensemble": "two nets", "distilled": "trained apart"}
    kinds |= {"trained_on_conjunction": "ceiling", "attribute_only": "parent", "object_only": "parent"}
    means = FLOORS | {"and_ensemble": 0.73, "trained_on_conjunction": 0.9} | means
    made = {
        name: method(kinds[name], mean, half, quadrants) for name, mean in means.items() if mean is not None
    }
    a2b, b2a = generated
    made |= {"cyclegan_b2a": method("generated", b2a, half, quadrants)}
    made |= {"cyclegan_a2b": method("generated", a2b, half, quadrants)}
    best = "cyclegan_b2a" if b2a >= a2b else "cyclegan_a2b"
    return {
        "pair": {"attribute": "black", "object": "cat"},
        "data": {"source": "procedural", "test": {"a&o": 20}, "leaked": 0, "duplicates": 1},
        "methods": made,
        "null_test": {"statistic": "auroc.worst", "method": best, "candidates": 2, "p_value": p_value},
    }


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


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pair_result(), "yes"),
        (pair_result(generated=(0.70, 0.50)), "yes"),
        (pair_result(generated=(0.50, 0.52)), "no"),  # clearly below the attribute parent
        (pair_result(generated=(0.40, 0.41)), "no"),
        (pair_result(generated=(0.50, 0.605)), "cannot tell"),  # overlaps the attribute parent
        (pair_result(half=0.2), "cannot tell"),
        (pair_result(p_value=0.2), "cannot tell"),  # above random, but so is random picked the same way
        (pair_result(p_value=None), "cannot tell"),
        (pair_result(random=None), "cannot tell"),
        (pair_result(attribute_only=None), "cannot tell"),
        (pair_result(average=None), "yes"),
        (pair_result(average=0.8), "no"),
        (pair_result(quadrants=False), "yes"),
        (pair_result() | {"data": {"leaked": 3}}, "cannot tell"),
        (pair_result() | {"methods": {}}, "cannot tell"),
    ],
)
def test_the_answer_on_planted_numbers(made, expected):
    assert results.answer(made) == expected
    first = results.verdict(made)[0]
    assert first.lower().startswith(expected)
    assert not first.endswith("..")


def test_a_null_test_of_another_method_supports_no_claim():
    made = pair_result()
    made["null_test"]["method"] = "cyclegan_a2b"
    assert results.answer(made) == "cannot tell"
    assert any("The null test is of cyclegan_a2b" in line for line in results.verdict(made))


def test_the_verdict_says_what_it_rests_on():
    text = "\n".join(results.verdict(pair_result()))
    assert "cyclegan_b2a, mean worst-quadrant AUROC 0.700 [0.690, 0.710], over 8 networks" in text
    assert "p = 0.004" in text
    assert "multiplied by 2, for it is the better of 2 directions" in text
    assert (
        "Below both parents run side by side, at twice the parameters (and_ensemble 0.730 [0.720, 0.740])."
        in text
    )
    assert "(trained_on_conjunction 0.900 [0.890, 0.910])." in text
    assert "50% of the way" in text
    no_ceiling = results.verdict(pair_result(trained_on_conjunction=0.45))
    assert any(line.startswith("Beware") for line in no_ceiling)
    assert any(
        "quadrants of the other test images are not known" in x
        for x in results.verdict(pair_result(quadrants=False))
    )


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


def test_the_summary_of_several_pairs_counts_the_answers():
    pairs = [pair_result(), pair_result(generated=(0.4, 0.4)), pair_result(half=0.2)]
    for made, name in zip(pairs, ("cat", "dog", "car"), strict=True):
        made["pair"] = {"attribute": "black", "object": name}
    lines = results.summary(results.Results({"pairs": pairs}))
    assert lines[0] == "Of 3 pairs: yes on 1, no on 1, cannot tell on 1."
    assert "No: black dog." in lines
