"""Tests for studies.jain2024.study: whole runs on a very small zoo, killed, repeated and refused.

UMAP is replaced by two principal components, and worker processes by this one.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference_data_test import ROOT, edit, edit_array, write_archive
from reference_measurements_test import AtOnce

from kernelgan import assemble, report, results, workdir
from kernelgan.evaluate import features
from kernelgan.types import UserError
from studies.jain2024 import config as reference_config
from studies.jain2024 import data, evidence, populations, protocol, study
from studies.jain2024 import report as reference_report
from studies.jain2024.measurements import Measurements

SMALL = {
    "networks": 3,
    "gaussian_networks": 2,
    "picked": 2,
    "draws": 50,
    "seeds": (47, 0),
    "tuning_seeds": 2,
    "kmeans_seeds": (1, 0, 2),
    "radii": (0.5, 3.0),
    "minimum_samples": (3,),
    "chunk_size": 4,
}
SIZES = {
    "random": 6,
    "gaussian": 2,
    "attribute_only": 3,
    "object_only": 3,
    "cyclegan_a2b": 3,
    "cyclegan_b2a": 3,
}


def _plane(features, seed):
    """Two principal components, turned and shaken by the seed."""
    centred = np.float64(features) - features.mean(axis=0)
    points = np.linalg.svd(centred, full_matrices=False)[0][:, :2] * 10
    return np.float32(points + 0.3 * np.random.default_rng(seed).normal(size=points.shape))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Gives the numbers of networks in the tasks that were done."""
    done, measure = [], protocol.measure_many

    def counted(features, positive, seeds, settings):
        found = measure(features, positive, seeds, settings)
        done.append(len(features))
        return found

    monkeypatch.setattr(protocol, "embed", _plane)
    monkeypatch.setattr(protocol, "measure_many", counted)
    monkeypatch.setattr(Measurements, "_workers", lambda self: AtOnce())
    return done


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Written once; nobody may change it."""
    return write_archive(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def own(archive, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(archive, tmp_path / "own"))


def _config(root, **fields):
    config = reference_config.get_config()
    config.reference.dir = str(root)
    config.checkpoint.seconds = 0.0
    for name, value in (SMALL | fields).items():
        config.reference[name] = value
    return config


@pytest.fixture(scope="module")
def finished(archive, tmp_path_factory):
    """A work directory with a report, made once, and what the run printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "embed", _plane)
        patch.setattr(Measurements, "_workers", lambda self: AtOnce())
        path = study.run(_config(archive), folder, command="python launch.py")
    assert path == folder / report.REPORT_FILE
    return folder


def _without_times(folder):
    found = results.read_results(folder)
    document = {name: value for name, value in found.document.items() if name not in ("timings", "command")}
    return json.dumps(document, sort_keys=True), found.arrays


def _assert_same(folder, other):
    (ours, our_arrays), (theirs, their_arrays) = _without_times(folder), _without_times(other)
    assert ours == theirs
    assert set(our_arrays) == set(their_arrays)
    for name, array in our_arrays.items():
        np.testing.assert_array_equal(array, their_arrays[name])


# A whole run ----------------------------------------------------------------------------------------------


def test_the_results_hold_every_population(finished):
    found = results.read_results(finished)
    (pair,) = found.pairs()
    assert {name: method["networks"] for name, method in pair["methods"].items()} == SIZES
    for name, method in pair["methods"].items():
        assert set(method["clustering"]) == set(protocol.CLUSTERERS)
        for place, clusterer in enumerate(protocol.CLUSTERERS):
            values = found.array(pair, f"accuracy/{clusterer}/{name}")
            assert values.shape == (SIZES[name],)
            kept = np.load(finished / workdir.EVALUATION / f"{name}.npy")
            assert kept.shape[1:] == (1, 1 + 1 + 2, 7)  # the fixed protocol has one seed of everything
            found_again = evidence.by_clusterer(kept[: SIZES[name]], 1)[:, 0, place, 0]
            np.testing.assert_array_equal(found_again, values)
            assert np.isnan(kept[SIZES[name] :]).all()
            assert method["clustering"][clusterer]["accuracy"]["mean"] == pytest.approx(values.mean())
        assert method["parameters"] == 456 + 2416
    assert pair["data"]["test"] == {"a&o": 4, "rest": 6}
    np.testing.assert_array_equal(found.array(pair, "positive"), [False] * 6 + [True] * 4)
    assert {"data", "generate", "evaluate"} <= set(found.document["timings"])


def test_the_results_hold_the_evidence(finished):
    found = results.read_results(finished)
    (pair,) = found.pairs()
    reference = found.document["reference"]
    checks = reference["checks"]
    assert checks["networks"] == 3
    assert max(checks[name] for name in ("images", "kernels", "features")) < 1e-4
    assert reference["zoos"] == {"black": 6, "cat": 4}
    assert reference["seeds"] == [47, 0]
    assert reference["kmeans_seeds"] == [1, 0, 2]
    assert reference["tuning_seeds"] == 2
    # The table names network 3 of domain B, beyond the three that are compared.
    assert [(row["clusterer"], row["model"], row["domain"]) for row in reference["rows"]] == [
        ("kmeans", 0, "A"),
        ("kmeans", 3, "B"),
        ("one_class_svm", 1, "A"),
        ("dbscan", 0, "A"),
    ]
    assert reference["reported"]["kmeans"] == {"best": 0.9, "rows": 2, "model": 3, "domain": "B"}
    sizes = {"random": (6, 6), "black": (6, 3), "source_a": (3, 3), "source_b": (3, 3)}
    assert set(reference["picked"]) == set(sizes)
    for comparison, (candidates, others) in sizes.items():
        for clusterer in protocol.CLUSTERERS:
            test = reference["picked"][comparison][clusterer]
            assert (test["candidates"], test["null_networks"], test["picked"]) == (candidates, others, 2)
            assert 0 < test["best"]["p_value"] <= test["best"]["holm_p_value"] <= 1
            assert found.array(pair, f"relabelled/{comparison}/{clusterer}/mean").shape == (50,)
    mean = reference["picked"]["random"]["kmeans"]["mean"]
    assert [pair["null_test"][name] for name in ("observed", "null_mean", "p_value")] == [
        mean[name] for name in ("generated", "null", "p_value")
    ]
    assert reference["trivial"]["always_other"] == 0.6
    assert set(reference["trivial"]["pixels"]) == set(protocol.CLUSTERERS)
    asked = {name: record["networks"] for name, record in reference["asked"].items()}
    assert asked == SIZES | {"attribute_only": 4, "object_only": 4, "and_ensemble": 4}  # all pairs
    for record in reference["asked"].values():
        assert 0 <= record["auroc"]["mean"] <= 1
    assert set(reference["source_similarity"]) == {"conv1", "conv2"}
    planes = found.arrays_under(pair, "embedding")
    assert len(planes) == 3
    assert all(points.shape == (10, 2) for points in planes.values())


def test_rows_are_those_networks_figures(finished, archive):
    """From the archive to the record by the steps one by one."""
    found = results.read_results(finished)
    (pair,) = found.pairs()
    real = data.load(archive, lambda done, total: None)
    settings = protocol.Settings(SMALL["kmeans_seeds"], SMALL["radii"], SMALL["minimum_samples"], 0.1)
    for row in found.document["reference"]["rows"]:
        member = np.array([row["model"]])
        params = assemble.take_members(populations.generate(real, row["domain"], 4), member)
        ((_, _, values),) = features.population_outputs(data.NETWORK, params, real.images, chunk_size=4)
        measured = protocol.measure_many(values, real.positive, SMALL["seeds"], settings)
        figures = evidence.spread(measured[0], row["clusterer"], 3)
        assert len(figures) == (2 * 3 if row["clusterer"] == "kmeans" else 2)
        for name, column in zip(protocol.FIGURES, figures.T, strict=True):
            ours = row["found"][name]
            assert [ours["first_seed"], ours["mean"]] == pytest.approx([column[0], column.mean()])
            assert [ours["low"], ours["high"]] == pytest.approx([column.min(), column.max()])
        if row["model"] < SMALL["networks"]:
            population = evidence.GENERATED[row["domain"]]
            fixed = found.array(pair, f"accuracy/{row['clusterer']}/{population}")
            assert fixed[row["model"]] == pytest.approx(figures[0, 0])


def test_each_network_is_tuned_over_every_seed_and_judged_in_its_own_place(finished):
    """From the figures that were kept to the tests."""
    document = results.read_results(finished).document
    kept = {path.stem: np.load(path) for path in (finished / workdir.EVALUATION).glob("*.npy")}
    names = [name for name in SIZES if name != "gaussian"]
    whose = np.repeat(names, [SIZES[name] for name in names])
    screened, judged = ({name: np.zeros(len(whose)) for name in protocol.CLUSTERERS} for _ in range(2))
    for name in names:
        first, tuned = (kept[f"{prefix}{name}"][: SIZES[name]] for prefix in ("", "judged_"))
        assert tuned.shape == (SIZES[name], 2, 3 + 1 + 2, 7)
        known = ~np.isnan(tuned[:, 0, 0, 0])
        assert known.any()
        # The first seeds of both are the fixed protocol's.
        np.testing.assert_array_equal(tuned[known][:, 0, [0, 3, 4, 5]], first[known][:, 0])
        parts = {"kmeans": slice(0, 3), "one_class_svm": slice(3, 4), "dbscan": slice(4, 6)}
        for clusterer, part in parts.items():
            judged[clusterer][whose == name] = tuned[:, :, part, 0].max(axis=(1, 2))
            fixed = first[:, 0, [0, 1] if part.stop < 5 else slice(2, 4), 0]
            column = {"kmeans": 0, "one_class_svm": 1}.get(clusterer)
            screened[clusterer][whose == name] = fixed.max(axis=1) if column is None else fixed[:, column]
    assert any(np.nanmax(judged[name] - screened[name]) > 0 for name in judged)
    expected, _ = evidence.picked_tests(whose, screened, judged, count=2, draws=50, seed=0)
    assert document["reference"]["picked"] == json.loads(json.dumps(expected))


def test_another_choice_of_networks_to_judge_takes_what_was_measured(
    archive, finished, tmp_path, monkeypatch, killed, in_this_process
):
    """As on a machine that rounds otherwise, where others come to the top."""
    folder, given = tmp_path / "run", []

    def stopped(whose, screened, judged, **settings):
        given.append(judged)
        raise killed

    with monkeypatch.context() as patch:
        patch.setattr(evidence, "can_be_picked", lambda whose, *_, **__: np.arange(1, len(whose), 2))
        patch.setattr(evidence, "picked_tests", stopped)
        with pytest.raises(killed):
            study.run(_config(archive), folder, stage="evaluate")
    names = [name for name in SIZES if name != "gaussian"]
    files = {name: folder / workdir.EVALUATION / f"judged_{name}.npy" for name in names}
    # Every other network of 18, by its number in its population.
    assert [_known(file).tolist() for file in files.values()] == [[1, 3, 5], [1], [0, 2], [1], [0, 2]]
    tuned = np.concatenate([np.load(file)[: SIZES[name]] for name, file in files.items()])
    np.testing.assert_array_equal(given[0]["kmeans"], tuned[:, :, :3, 0].max(axis=(1, 2)))
    in_this_process.clear()
    study.run(_config(archive), folder, stage="evaluate")
    _assert_same(folder, finished)
    assert sum(in_this_process) == 18 - 9 + 1  # and the pixels


def _known(file):
    """Numbers of the networks whose figures a file has."""
    return np.flatnonzero(~np.isnan(np.load(file)[:, 0, 0, 0]))


def _text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_the_report_and_the_table_say_what_was_found(finished, capsys, in_this_process):
    page = (finished / report.REPORT_FILE).read_text()
    found = results.read_results(finished)
    lines = reference_report.finding(found)
    text = _text(page)
    for line in lines:
        assert _text(report.page.escape(line)) in text
    assert "could not be drawn" not in text
    assert "left out" not in text
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "accuracies.png",
        "planes.png",
        "relabelled.png",
    }
    capsys.readouterr()
    path = study.run(_config(found.document["config"]["reference"]["dir"]), finished)
    assert path == finished / report.REPORT_FILE
    out = capsys.readouterr()
    shown = " ".join(out.out.split())
    for line in lines:
        assert " ".join(line.split()) in shown
    assert all(len(line) <= 110 for line in out.out.splitlines()[:-1])
    assert str(path) in shown
    assert in_this_process == []  # at once
    assert out.err == ""
    assert (finished / report.REPORT_FILE).read_text() == page


def test_a_page_is_made_of_what_is_left(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in (report.REPORT_FILE, results.ARRAYS_FILE):
        (folder / name).unlink()
    page = report.write_report(folder).read_text()
    assert page.count("Figure left out") == 3
    assert _text(report.page.escape(reference_report.finding(results.read_results(folder))[0])) in _text(page)


@pytest.mark.parametrize(("p_value", "tone"), [(0.001, "yes"), (0.5, "no")])
def test_the_page_s_verdict_is_that_of_its_first_line(finished, tmp_path, p_value, tone):
    """Made-up p-values in a whole document."""
    found = results.read_results(finished)
    for comparison in found.document["reference"]["picked"].values():
        for test in comparison.values():
            for what in ("best", "mean"):
                test[what]["holm_p_value"] = p_value
    assert ("does not follow" in reference_report.finding(found)[0]) == (tone == "no")
    results.write_results(tmp_path, found.document)
    page = report.write_report(tmp_path).read_text()
    assert re.findall(r'class="verdict (\w+)"', page) == [tone]
    assert _text(report.page.escape(reference_report.finding(found)[0])) in _text(page)


def test_a_run_without_the_optional_files_says_so(own, tmp_path, capsys):
    for name in ("reported_results.csv", "reference_features.npz"):
        (own / name).unlink()
    path = study.run(_config(own, networks=0, random_networks=5), tmp_path / "run")
    found = results.read_results(tmp_path / "run")
    reference = found.document["reference"]
    assert reference["checks"] is None
    assert (reference["rows"], reference["reported"]) == ([], {})
    (pair,) = found.pairs()
    assert pair["methods"]["random"]["networks"] == 5
    assert pair["methods"]["cyclegan_a2b"]["networks"] == 4
    assert len(found.arrays_under(pair, "embedding")) == 2
    notes = found.document["data"]["notes"]
    assert len(notes) == 2
    out = capsys.readouterr()
    assert re.search(r"screen +23/23 ", out.err)
    assert re.search(r"judge +(\d+)/\1 ", out.err)
    page = _text(path.read_text())
    first = reference_report.finding(found)[0]
    assert _text(report.page.escape(first)) in page
    assert "repeat" not in first.lower()  # there was nothing to compare with
    for note in notes:
        assert note in out.err
        assert _text(report.page.escape(note)) in page
    assert "could not be drawn" not in page


def test_as_many_can_be_picked_as_there_are_in_each_direction(archive, tmp_path):
    study.run(_config(archive, networks=0, random_networks=4, picked=4), tmp_path / "run", stage="evaluate")
    picked = results.read_results(tmp_path / "run").document["reference"]["picked"]
    for comparison, candidates in (("random", 8), ("black", 8), ("source_a", 4), ("source_b", 4)):
        test = picked[comparison]["dbscan"]
        assert (test["candidates"], test["null_networks"], test["picked"]) == (candidates, 4, 4)


# Cut off --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [4, 12])  # while screening, and while judging
def test_a_killed_run_goes_on_to_equal_results(
    archive, finished, tmp_path, monkeypatch, killed, in_this_process, last
):
    measure = protocol.measure_many

    def dying(*given):
        if len(in_this_process) == last:
            raise killed
        return measure(*given)

    monkeypatch.setattr(protocol, "measure_many", dying)
    folder = tmp_path / "run"
    with pytest.raises(killed):
        study.run(_config(archive), folder, stage="evaluate")
    assert not (folder / results.RESULTS_FILE).exists()
    before = sum(len(_known(file)) for file in (folder / workdir.EVALUATION).glob("*.npy"))
    assert before > 0
    monkeypatch.setattr(protocol, "measure_many", measure)
    in_this_process.clear()
    assert study.run(_config(archive), folder, stage="evaluate") is None
    total = sum(len(_known(file)) for file in (folder / workdir.EVALUATION).glob("*.npy"))
    assert sum(in_this_process) == total - before
    _assert_same(folder, finished)


def test_stages_stop(archive, tmp_path, capsys, in_this_process):
    folder = tmp_path / "run"
    assert study.run(_config(archive), folder, stage="data") is None
    assert not (folder / workdir.EVALUATION).exists()
    first = capsys.readouterr().err
    assert "generate" not in first
    assert study.run(_config(archive), folder, stage="generate") is None
    assert not (folder / workdir.EVALUATION).exists()
    assert "equal to an independent computation of 3 networks" in capsys.readouterr().err
    assert in_this_process == []
    assert not (folder / results.RESULTS_FILE).exists()


# What is refused ------------------------------------------------------------------------------------------


def _refused(config, folder, message, in_this_process, **stage):
    with pytest.raises(UserError, match=message):
        study.run(config, folder, **stage)
    assert in_this_process == []
    assert not (folder / workdir.EVALUATION).exists()


@pytest.mark.parametrize("stage", ["zoo", "cyclegan", "opponents"])
def test_stages_that_train_are_refused(archive, tmp_path, in_this_process, stage):
    message = rf"--stage={stage} trains networks, .* has data, generate, evaluate, report"
    _refused(_config(archive), tmp_path / "run", message, in_this_process, stage=stage)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"networks": 5}, r"reference\.networks is 5, but the smaller zoo has 4"),
        (
            {"networks": 0, "picked": 5},  # of each direction, which is compared with its sources
            r"reference\.picked is 5, more than there are .*4 generated in each direction, 8 random",
        ),
        (
            {"networks": 3, "picked": 4},
            r"reference\.networks gives 3 networks, fewer than reference\.picked, 4",
        ),
        (
            {"random_networks": 1},
            r"reference\.random_networks gives 1 networks, fewer than reference\.picked, 2",
        ),
        ({"seeds": (1, 1)}, r"reference\.seeds"),
        ({"kmeans_seeds": (1, 1)}, r"reference\.kmeans_seeds"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_before_any_work(
    archive, tmp_path, in_this_process, fields, message
):
    _refused(_config(archive, **fields), tmp_path / "run", message, in_this_process)


def test_a_table_or_features_of_networks_that_are_not_there(own, tmp_path, in_this_process):
    table = own / "reported_results.csv"
    content = table.read_text()
    for number in (4, -1):
        table.write_text(content.replace("kmeans,3,B", f"kmeans,{number},B"))
        message = rf"reported_results\.csv names network {number}, but the smaller zoo has only 4"
        _refused(_config(own), tmp_path / f"run{number}", message, in_this_process)
    table.write_text(content)
    with np.load(own / "reference_features.npz") as features:
        more = {name.replace("A3", "A4"): array for name, array in features.items() if name[:2] == "A3"}
    edit(own / "reference_features.npz", **more)
    message = r"reference_features\.npz names network 4, but the smaller zoo has only 4"
    _refused(_config(own), tmp_path / "run", message, in_this_process)


def _shift(array):
    array[1, 2] += 0.01


def _hole(array):
    array[1, 2] = np.nan


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("A3/features", _shift),
        ("B2/conv1", _shift),
        ("images", _shift),
        ("A3/features", _hole),
        ("B2/conv2", _hole),
        ("images", _hole),
        ("A3/features", lambda features: features[:, :7]),
        ("A0/conv1", lambda kernels: kernels[:, :, 1:]),
        ("images", lambda images: images[:, :, :9]),
    ],
)
def test_features_that_disagree_are_refused(own, tmp_path, in_this_process, name, change):
    edit_array(own / "reference_features.npz", name, change)
    message = r"not what reference_features\.npz has: largest differences images .*; expected at most 1e-04"
    _refused(_config(own), tmp_path / "run", message, in_this_process)


def test_a_run_does_not_go_on_with_other_data_or_another_protocol(own, tmp_path, in_this_process):
    folder = tmp_path / "run"
    study.run(_config(own), folder, stage="generate")
    (folder / workdir.EVALUATION).mkdir()
    with pytest.raises(UserError, match=r"was made with other values of reference\.draws"):
        study.run(_config(own, draws=51), folder)
    (folder / workdir.EVALUATION).rmdir()
    moved = own.rename(tmp_path / "moved")
    study.run(_config(moved, processes=1), folder, stage="data")  # the same data, elsewhere
    edit_array(moved / "zoo_cat.npz", "conv1.weight", _shift)
    _refused(_config(moved), folder, r"was made with other values of data", in_this_process)


# launch.py ------------------------------------------------------------------------------------------------


def _launch(*flags):
    return subprocess.run(
        [sys.executable, "launch.py", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_launch_without_the_data_says_how_to_give_it(tmp_path):
    run = _launch("--config=configs/reference.py", f"--workdir={tmp_path / 'run'}")
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert "reference.dir is empty; expected the reference's data: --config.reference.dir=DIR" in run.stderr
    assert len(run.stderr.splitlines()) <= 2
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    assert not (tmp_path / "run").exists()


def test_launch_knows_its_variants():
    run = _launch("--config=configs/reference.py:full")
    assert run.returncode == 2
    assert "no variant 'full'; known is 'quick'" in run.stderr
    assert run.stderr.count("\n") == 1
