"""Tests for kernelgan.curves."""

import csv
import sys

import numpy as np
import pytest
from synthetic_runs import arrays_of, pair_result, run_of

from kernelgan import curves, results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    results.write_results(folder, run_of(pair_result()), arrays_of(pair_result(), 0))
    return folder


def test_the_csv_has_every_value_of_every_curve(run, tmp_path, capsys):
    assert curves.main([str(run), f"--csv={tmp_path / 'deep/curves.csv'}"]) == 0
    lines = list(csv.DictReader((tmp_path / "deep/curves.csv").open()))
    kept = {name: a for name, a in results.read_results(run).arrays.items() if "/history/" in name}
    assert len(lines) == sum(values.size for values in kept.values()) > 0
    assert f"{len(lines):,} values" in capsys.readouterr().out
    name, values = next(iter(kept.items()))
    pair, _, training, metric = name.split("/", 3)
    own = [float(line["value"]) for line in lines if (line["training"], line["metric"]) == (training, metric)]
    np.testing.assert_allclose(own, values.ravel(), rtol=1e-5)
    assert lines[0]["pair"] == pair


@pytest.mark.parametrize("arguments", [[], ["--tensorboard=board"]])
def test_what_is_missing_is_told_in_one_line(run, arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert curves.main([str(run), *arguments]) == 2
    said = capsys.readouterr().err
    assert "--tensorboard" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
