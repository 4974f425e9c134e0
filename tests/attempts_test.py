"""The registry of runs on sealed test images."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_runs import small_config

from kernelgan import attempts, evidence, keys, pipeline, results, workdir
from kernelgan.evaluation import comparison
from kernelgan.types import UserError


def test_the_same_networks_are_one_attempt_and_others_count(tmp_path):
    path = tmp_path / "docs" / "attempts.csv"
    assert attempts.register(path, "first", {"mine": "aa", "other": "cc"}, {}) == {"mine": 1, "other": 1}
    assert attempts.register(path, "first", {"mine": "aa"}, {"mine": 0.75}) == {"mine": 1}
    assert attempts.register(path, "second", {"mine": "bb"}, {}) == {"mine": 2}
    lines = attempts.read(path)
    assert [(line["run"], line["family"], line["figure"]) for line in lines] == [
        ("first", "mine", "0.7500"),
        ("first", "other", ""),
        ("second", "mine", ""),
    ]
    assert all(line["date"] for line in lines)


def test_another_file_is_refused_and_stays(tmp_path):
    path = tmp_path / "attempts.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"attempts\.csv.*family"):
        attempts.register(path, "run", {"mine": "aa"}, {})
    assert path.read_text() == "a,b\n1,2\n"


def test_p_values_count_the_attempts_of_their_family():
    pair = {
        "methods": {"one": {"kind": "generated", "family": "mine"}, "zipit": {"kind": "merge"}},
        "tests": {"one": {"zipit": {"p_value": 0.001, "error": 0.01, "freedom": 7.0}}},
        "null_test": {"method": "one", "p_value": 0.002},
    }
    comparison.adjust([pair], {"mine": 5})
    assert pair["tests"]["one"]["zipit"]["p_adjusted"] == pytest.approx(0.005)
    assert pair["null_test"]["p_adjusted"] == pytest.approx(0.01)


def test_a_run_on_sealed_images_is_registered_once_with_its_figure(unfinished, tmp_path):
    path = tmp_path / "attempts.csv"
    config = small_config({"registry": str(path)})
    pipeline.run(config, unfinished, stage="evaluate")
    run = results.read_results(unfinished)
    assert run.attempts == {"cyclegan": 1}
    (line,) = csv.DictReader(path.open())
    best = max(run.pairs[0].figure(row.name).mean for row in run.pairs[0].of_kind("generated"))
    assert line["figure"] == f"{best:.4f}"
    (unfinished / "results.json").unlink()
    pipeline.run(config, unfinished, stage="evaluate")
    assert len(attempts.read(path)) == 1


def test_networks_that_are_not_those_that_were_hashed_are_not_scored(tmp_path):
    params = {"conv1": {"kernel": np.zeros((2, 3)), "bias": np.ones(2)}}
    made = SimpleNamespace(generated={"mine": [{"mine": params}]})
    plan = SimpleNamespace(pairs=[SimpleNamespace(number=0, split=SimpleNamespace(name="black cat"))])
    run = SimpleNamespace(stages=SimpleNamespace(workdir=tmp_path))
    workdir.write_networks(tmp_path, {"black cat": {"mine": keys.of_arrays(params)}})
    evidence._check_digests(run, plan, made)
    params["conv1"]["bias"][0] = 2
    with pytest.raises(UserError, match=r"networks\.json.*mine of black cat"):
        evidence._check_digests(run, plan, made)
