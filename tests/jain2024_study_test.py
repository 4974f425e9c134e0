"""Tests for studies.jain2024: whole runs on a very small zoo, killed, repeated and refused.

UMAP is replaced by two principal components, and worker processes by this process.
"""

import contextlib
import functools
import json
import re
import shutil
import types
from pathlib import Path

import forks
import numpy as np
import pytest
from jain2024_archive import AtOnce, edit_array, write_archive

from kernelgan import assemble, generators, keys
from kernelgan.evaluation import features
from kernelgan.types import UserError
from studies.jain2024 import config as settings_lib
from studies.jain2024 import data, evidence, measurements, populations, protocol, report, study

SMALL = {
    **{"networks": 3, "gaussian_networks": 2, "picked": 2, "draws": 50, "tuning_seeds": 2, "chunk_size": 4},
    "composed": 2,
    **{"seeds": (47, 0), "kmeans_seeds": (1, 0, 2), "radii": (0.5, 3.0), "minimum_samples": (3,)},
}
SIZES = {"random": 6, "gaussian": 2, "black": 3, "cat": 3, "generated_b": 3, "generated_a": 3}


def _plane(values, seed):
    """Two principal components, turned and shaken by the seed."""
    points = np.linalg.svd(np.float64(values) - values.mean(axis=0), full_matrices=False)[0][:, :2] * 10
    return np.float32(points + 0.3 * np.random.default_rng(seed).normal(size=points.shape))


def _composed_once(compose):
    """Of the same networks, whatever the run."""
    made = {}

    def composed(reference, count, images, trunks=None):
        given = {"black": reference.black, "cat": reference.cat, "trunks": trunks or {}}
        key = keys.of_arrays(given), count, images
        if key not in made:
            made[key] = compose(reference, count, images, trunks)
        return made[key]

    return composed


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "embed", _plane)
        patch.setattr(populations, "IMAGES", 64)
        patch.setattr(populations, "composed", _composed_once(populations.composed))
        compose = functools.partial(generators.compose, rounds=0)  # a third of its program
        patch.setattr(populations, "generators", types.SimpleNamespace(compose=compose))
        patch.setattr(measurements, "workers", lambda processes: contextlib.nullcontext(AtOnce()))
        yield


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Written once; nobody may change it."""
    return write_archive(tmp_path_factory.mktemp("original"))


def _config(**fields):
    config = settings_lib.get_config()
    config.update(SMALL | fields)
    return config


@pytest.fixture(scope="module")
def reported(archive, tmp_path_factory):
    """A work directory with a report, made once."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert study.run(_config(), archive, folder) == folder / study.REPORT_FILE
    return folder


@pytest.fixture
def undrawn(reported, monkeypatch):
    """From here on pages have no figures, which take longest."""
    monkeypatch.setattr(report, "_png", lambda figure: "")


def _document(folder):
    document = json.loads((folder / study.RESULTS_FILE).read_text())
    return {name: value for name, value in document.items() if name not in ("timings", "command")}


def _text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&#39;", "'")


# A whole run ----------------------------------------------------------------------------------------------


def test_the_results_hold_every_population_and_comparison(reported):
    document = _document(reported)
    arrays = dict(np.load(reported / study.ARRAYS_FILE))
    assert {name: entry["networks"] for name, entry in document["populations"].items()} == SIZES
    for name, entry in document["populations"].items():
        assert entry["parameters"] == 456 + 2416
        kept = np.load(_kept(reported, f"screened_{name}"))[: SIZES[name]]
        for place, clusterer in enumerate(protocol.CLUSTERERS):
            values = evidence.by_clusterer(kept, 1)[:, 0, place, 0]
            np.testing.assert_allclose(arrays[f"accuracy/{clusterer}/{name}"], values, atol=1e-6)
            assert entry["clustering"][clusterer]["accuracy"]["mean"] == pytest.approx(values.mean())
    sizes = {"random": (6, 6), "black": (6, 3), "source_a": (3, 3), "source_b": (3, 3)}
    for comparison, expected in sizes.items():
        for test in document["picked"][comparison].values():
            assert (test["candidates"], test["null_networks"], test["picked"]) == (*expected, 2)
    asked = {name: record["networks"] for name, record in document["asked"].items()}
    made = dict.fromkeys(("composed_noise", "refit_noise", "composed_rendered", "refit_rendered"), 2)
    assert asked == SIZES | {"black": 4, "cat": 4, "both": 4} | made  # the parents as trained: all pairs
    assert document["trivial"]["always_other"] == 0.6


def test_rows_are_those_networks_figures(reported, archive):
    """From the archive to the record by the steps one by one; network B3 is not among the measured three."""
    real = data.load(archive, lambda done, total: None)
    settings = protocol.Settings(*(SMALL[name] for name in list(SMALL)[-4:]), 0.1)
    rows = _document(reported)["rows"]
    assert [row["network"] for row in rows] == ["A0", "B3", "A1", "A0"]
    for row in rows:
        member = np.array([int(row["network"][1:])])
        params = assemble.take_members(populations.generate(real, row["network"][0], 4), member)
        ((_, _, values),) = features.population_outputs(data.NETWORK, params, real.images, chunk_size=4)
        measured = protocol.measure(values[0], real.positive, settings)
        for name, column in zip(
            protocol.FIGURES, evidence.spread(measured, row["clusterer"], 3).T, strict=True
        ):
            ours = [row["ours"][name][what] for what in ("first_seed", "mean", "min", "max")]
            assert ours == pytest.approx([column[0], column.mean(), column.min(), column.max()])


def test_each_network_is_tuned_over_every_seed_and_judged_in_its_own_place(reported):
    names = [name for name in SIZES if name != "gaussian"]
    whose = np.repeat(names, [SIZES[name] for name in names])
    kept = {
        kind: [np.load(_kept(reported, f"{kind}_{name}"))[: SIZES[name]] for name in names]
        for kind in ("screened", "judged")
    }
    screened = evidence.by_clusterer(np.concatenate(kept["screened"]), 1)[:, 0, :, 0].T
    judged = evidence.by_clusterer(np.concatenate(kept["judged"]), 3)[..., 0].max(axis=1).T
    both = [dict(zip(protocol.CLUSTERERS, values, strict=True)) for values in (screened, judged)]
    expected, _ = evidence.picked_tests(whose, *both, count=2, draws=50, seed=0)
    assert _document(reported)["picked"] == json.loads(json.dumps(expected))


def test_the_page_and_the_terminal_say_what_was_found(reported, archive, capsys):
    page = (reported / study.REPORT_FILE).read_text()
    lines = _document(reported)["finding"]
    study.run(_config(), archive, reported, processes=1)  # at once: nothing is measured again
    out = capsys.readouterr()
    assert "screened" not in out.err
    for line in lines:
        assert _text(line) in _text(page)
        assert _text(line) in _text(out.out)
    assert page.count("data:image/png;base64,") == 3
    assert (reported / study.REPORT_FILE).read_text() == page


@pytest.mark.parametrize(("p_value", "stands"), [(0.001, True), (0.5, False)])
@pytest.mark.usefixtures("undrawn")
def test_the_verdict_is_that_of_the_tests(reported, p_value, stands):
    document = _document(reported) | {"command": "", "timings": {}}
    for comparison in document["picked"].values():
        for clusterer, test in comparison.items():
            test["best"]["holm_p_value"] = 0.5
            test["mean"]["holm_p_value"] = p_value if clusterer == "dbscan" else 0.5
    assert report.beaten(document)["black"] == (["DBSCAN"] if stands else [])
    document["finding"] = report.finding(document)
    assert ("claim stands" in document["finding"][0]) == stands
    page = report.page(document, dict(np.load(reported / study.ARRAYS_FILE)))
    assert re.findall(r'class="verdict (\w+)"', page) == ["yes" if stands else "no"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_the_report_s_table_or_a_limit(archive, tmp_path):
    own = Path(shutil.copytree(archive, tmp_path / "own"))
    (own / "reported_results.csv").unlink()
    path = study.run(_config(networks=0, random_networks=4, picked=4), own, tmp_path / "run")
    document = _document(tmp_path / "run")
    assert (document["rows"], document["reported"]) == ([], {})
    assert document["populations"]["generated_a"]["networks"] == 4
    assert "reported_results.csv is not" in path.read_text()
    assert "repeat" not in document["finding"][0].lower()  # there was nothing to compare with


@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_goes_on_to_equal_results(archive, reported, tmp_path, monkeypatch, killed):
    """Killed while screening, and again while judging."""
    measure, done, folder = protocol.measure, [], tmp_path / "run"
    for last in (4, 24):

        def dying(*given, last=last):
            if len(done) == last:
                raise killed
            done.append(0)
            return measure(*given)

        monkeypatch.setattr(protocol, "measure", dying)
        with pytest.raises(killed):
            study.run(_config(), archive, folder)
        assert any(folder.glob("evaluation/*/judged_*")) == (last == 24)
        assert not (folder / study.RESULTS_FILE).exists()
    monkeypatch.setattr(protocol, "measure", measure)
    study.run(_config(), archive, folder)
    assert _document(folder) == _document(reported)


def _kept(folder, name):
    (file,) = folder.glob(f"evaluation/*/{name}.npy")
    return file


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"networks": 5}, r"networks is 5; .* 4 "),
        ({"networks": 0, "picked": 5}, r"picked is 5, .*4 generated in each direction, 8 random"),
        ({"networks": 3, "picked": 4}, r"networks is 3; .*picked, 4"),
        ({"random_networks": 1}, r"random_networks is 1; .*picked, 2"),
        ({"seeds": (1, 1)}, r" seeds is \(1, 1\)"),
        ({"kmeans_seeds": (-1,)}, r"kmeans_seeds is \(-1,\)"),
        ({"kmeans_seeds": ()}, r"kmeans_seeds is \(\)"),
        ({"seeds": (2**31,)}, r" seeds is "),
        ({"gaussian_networks": 1}, r"gaussian_networks is 1"),
        ({"radii": (3.0, 0.0)}, r"radii is \(3.0, 0.0\)"),
        ({"minimum_samples": (3.5,)}, r"minimum_samples is \(3.5,\)"),
        ({"svm_nu": 1.5}, r"svm_nu is 1.5"),
        ({"draws": 0, "device": "tpu"}, r"draws is 0(.|\n)*device is 'tpu'"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_any_work(archive, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        study.run(_config(**fields), archive, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
def test_other_data_and_settings_are_measured_apart_and_the_same_data_elsewhere_is_not(
    reported, archive, tmp_path, monkeypatch
):
    own = Path(shutil.copytree(archive, tmp_path / "own"))
    folder = Path(shutil.copytree(reported, tmp_path / "run"))
    made = []

    def evaluated(prepared):
        made.append(prepared.config.draws)
        raise UserError("measured")

    monkeypatch.setattr(study, "evaluate", evaluated)
    study.run(_config(), own, folder)  # the same data, elsewhere
    study.run(_config(chunk_size=3), own, folder)
    assert made == []
    with pytest.raises(UserError, match="measured"):
        study.run(_config(draws=51), own, folder)
    edit_array(own / "zoo_cat.npz", "conv1.weight", lambda array: array + 1)
    with pytest.raises(UserError, match="measured"):
        study.run(_config(), own, folder)
    assert made == [51, 50]


@pytest.mark.usefixtures("undrawn")
def test_results_that_cannot_be_read_are_made_again_and_a_wrong_table_is_refused(reported, archive, tmp_path):
    own = Path(shutil.copytree(archive, tmp_path / "own"))
    folder = Path(shutil.copytree(reported, tmp_path / "run"))
    before = (folder / study.RESULTS_FILE).read_text()
    (folder / study.RESULTS_FILE).write_text("{}")
    study.run(_config(), own, folder)
    again = (folder / study.RESULTS_FILE).read_text()
    assert json.loads(again)["finding"] == json.loads(before)["finding"]
    table = own / "reported_results.csv"
    table.write_text(table.read_text().replace("kmeans,3,B", "kmeans,4,B"))
    with pytest.raises(UserError, match=r"reported_results\.csv names network 4"):
        study.run(_config(), own, folder)


REFUSED = {
    (): "--dir=DIR",
    ("--config=studies/jain2024/config.py:full",): "no variant 'full'; known is 'quick'",
    ("--config.nets=3",): "nets",
}


def test_the_command_refuses_in_one_line(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    lines = [("studies.jain2024", workdir, *flags) for flags in REFUSED]
    for run, message in zip(forks.run_all(lines, tmp_path), REFUSED.values(), strict=True):
        assert run.returncode == 2, run.stderr
        assert run.stderr.startswith("error: ")
        assert message in run.stderr
        assert run.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
