import json
import math

import numpy as np
import pytest
from synthetic_runs import full_pair, many_pairs, method, pair_result, run_of, statistic

from kernelgan import results
from kernelgan.records import from_json, to_json
from kernelgan.types import UserError


def test_written_results_read_back_equal(tmp_path):
    data = {"source": "rendered", "notes": ["a"], "contact_sheet": {"rows": ["x"], "columns": []}}
    more = {"name": "x", "seed": 3, "timings": {"zoo": 1.5}, "study": {"any": [1, {"b": None}]}}
    run = run_of(**many_pairs(2) | more, data=data)
    arrays = {f"{run.pairs[0].key}/worst/random": np.arange(3.0), "file": np.zeros(1)}
    path = results.write_results(tmp_path / "run", run, arrays)

    assert path == tmp_path / "run" / "results.json"
    assert json.loads(path.read_text())["schema"] == results.SCHEMA == 3
    read = results.read_results(tmp_path / "run")
    assert to_json(read) == to_json(run)
    assert read.seed == 3
    assert read.pairs[0].verdict.comparisons
    assert read.overall.methods["zipit"].against.rival == "and_ensemble"
    (worst,) = read.arrays_under(read.pairs[0], "worst").items()
    assert worst[0] == "random"
    np.testing.assert_array_equal(worst[1], np.arange(3.0))
    assert "file" in read.arrays


def test_what_json_has_not_becomes_plain(tmp_path):
    made = pair_result()
    made["methods"]["random"]["accuracy"] = {"mean": np.float32("nan"), "ci95": (np.float64(0.5), math.inf)}
    made["methods"]["random"]["networks"] = np.int64(7)
    results.write_results(tmp_path, run_of(made, config={"filters": (6, 16), "path": tmp_path}))
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    read = results.read_results(tmp_path)
    random = read.pairs[0].methods["random"]
    assert math.isnan(random.accuracy.mean)
    assert (random.accuracy.low, random.networks) == (0.5, 7)
    assert math.isnan(random.accuracy.high)
    assert read.config == {"filters": [6, 16], "path": str(tmp_path)}


def test_writing_leaves_no_temporary_file_and_a_failure_leaves_the_old_files(tmp_path):
    run = run_of(pair_result())
    results.write_results(tmp_path, run, {"a": np.zeros(3)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["arrays.npz", "results.json"]
    with pytest.raises(ValueError, match="allow_pickle"):
        results.write_results(tmp_path, run, {"a": np.array([object()])})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"pairs": []}, "results.pairs"),
        ({"pairs": None}, "results.pairs"),
        ({"unheard_of": 1}, "results.unheard_of"),
        ({"seed": "0"}, "results.seed"),
        ({"seed": True}, "results.seed"),
        ({"timings": {"zoo": "long"}}, "results.timings.zoo"),
        ({"pairs": [3]}, r"results.pairs\[0\]"),
        ({"pairs": [{"methods": {}}]}, r"results.pairs\[0\].pair is missing"),
        ({"pairs": [pair_result() | {"methods": {"random": 3}}]}, r"results.pairs\[0\].methods.random"),
        ({"pairs": [pair_result() | {"methods": {"new": {"kind": "odd"}}}]}, "new has kind 'odd'"),
        ({"pairs": [pair_result() | {"methods": {"new": {}}}]}, "methods.new.kind is missing"),
    ],
)
def test_a_document_of_another_shape_is_refused_by_path(change, path):
    with pytest.raises(ValueError, match=path):
        results.from_document({"pairs": [pair_result()], **change})


def test_what_json_cannot_hold_is_refused_by_path():
    with pytest.raises(TypeError, match=r"results\.config\.field is a object"):
        results.from_document({"pairs": [pair_result()], "config": {"field": object()}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("\xff\xfe", "cannot be read"),
        ("[]", "schema None"),
        ('{"schema": 4}', "schema 4"),
        ('{"schema": 1, "command": "python launch.py --x"}', r"schema 1.*python launch\.py --x"),
        ('{"schema": 3}', r"results\.pairs is missing"),
        ('{"schema": 3, "pairs": [3]}', r"results\.pairs\[0\]"),
        ('{"schema": 3, "pairs": [{"pair": {"attribute": "a"}}]}', "pair.object|methods is missing"),
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
    results.write_results(tmp_path, run_of(pair_result()), {"a": np.arange(1000)})
    arrays = tmp_path / "arrays.npz"
    whole = arrays.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2]):
        arrays.write_bytes(damaged)
        with pytest.raises(UserError, match=r"arrays\.npz is damaged"):
            results.read_results(tmp_path)


def test_methods_are_grouped_by_kind_and_keep_their_order():
    made = pair_result(distilled=0.7)
    made["methods"] = {"new": method("generated", 0.1), **made["methods"], "pixels": method("null", 0.1)}
    names = list(run_of(made).pairs[0].methods)
    assert names == [
        *("random", "pixels", "attribute_only", "object_only", "average"),
        *("new", "cyclegan_b2a", "cyclegan_a2b", "distilled", "and_ensemble", "trained_on_conjunction"),
    ]


def test_labels_are_filled_in_with_the_pair_and_over_pairs_in_general():
    document = many_pairs(2)
    run = run_of(**document)
    label = run.pairs[0].methods["attribute_only"].label
    assert label == f"the {run.pairs[0].pair.attribute} parents alone"
    assert run.overall.methods["attribute_only"].label == "the attribute parents alone"


@pytest.mark.parametrize(("quadrants", "merit"), [(True, "worst"), (False, "vs_rest")])
def test_the_figure_of_merit_is_the_worst_quadrant_where_quadrants_are_known(quadrants, merit):
    pair = run_of(pair_result(quadrants=quadrants)).pairs[0]
    assert pair.merit == merit
    assert pair.figure("cyclegan_b2a").mean == 0.70
    assert not pair.figure("unheard of").known


def test_statistics_are_listed_by_path_and_what_is_not_there_is_nan():
    row = run_of(full_pair()).pairs[0].methods["distilled"]
    found = results.statistics(row)
    assert {"auroc.worst", "novelty.distance", "clustering.kmeans.as_printed.recall", "recovered"} <= set(
        found
    )
    assert found["balanced_accuracy"] == row.balanced_accuracy
    assert "precision" not in found
    for value in (None, {}, {"mean": None}):
        statistic_ = from_json(results.Statistic, value, "")
        assert not statistic_.known
        assert statistic_.text() == "-"
    assert from_json(results.Statistic, {"mean": 0.5}, "value").text() == "0.500"
    assert from_json(results.Statistic, statistic(0.5, 0.1), "").text() == "0.500 [0.400, 0.600]"
