"""Tests for kernelgan.pipeline: whole runs, cut off, damaged, repeated and refused, on a small config."""

import errno
import itertools
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import (
    INTERRUPTING,
    SMALL,
    assert_same_results,
    assert_same_stage,
    document,
    measured,
    place,
    said_of,
    small_config,
)

from kernelgan import files, pipeline, report, results
from kernelgan.baselines.methods import table
from kernelgan.checkpoint import Stage
from kernelgan.data.leakage import LeakageError
from kernelgan.types import UserError

pytestmark = pytest.mark.usefixtures("drawn_once")
flat = pytest.mark.usefixtures("flat_figures")

ROOT = Path(__file__).parents[1]
METHODS = {*table({}), "cyclegan_a2b", "cyclegan_b2a", "noise_a2b", "noise_b2a"}
STAGES = ("zoo", "fit/cyclegan", "distilled", "trained_on_conjunction")
STAGES += ("generate/cyclegan", "placebos/cyclegan")

# Where each attempt ends: path, how-manieth time, signal, and what the NEXT attempt says it goes on from.
# Without a signal the run goes on, and the next attempt gets a copy of the directory as it is at that moment,
# which is what a killed process leaves.
KEY = r"/[0-9a-f]{12}"
KILLS = (
    (rf"zoo{KEY}/state/3[^/]*/default$", 1, signal.SIGKILL, rf"resuming from .*zoo{KEY}/state/2\n"),
    (rf"zoo{KEY}/state/sha256-\d+\.json$", 2, None, rf"resuming from .*zoo{KEY}/state/3\n"),  # no sums
    (rf"zoo{KEY}/result/sha256-0\.json$", 1, None, rf"resuming from .*zoo{KEY}/state/8\n"),
    (rf"zoo{KEY}/state$", 1, None, "zoo +done before\n"),  # the result is whole, the states still there
    (rf"fit/cyclegan{KEY}/state/sha256-2\.json$", 1, None, rf"resuming from .*fit/cyclegan{KEY}/state/1\n"),
    (rf"distilled{KEY}/state/sha256-2\.json$", 1, None, rf"resuming from .*distilled{KEY}/state/1\n"),
    (rf"placebos/cyclegan{KEY}/result/sha256-0\.json$", 1, None, "generate/cyclegan +done before\n"),
    (r"evaluation/black_cat/average\.npz$", 1, None, "placebos/cyclegan +done before\n"),
    (r"/results\.json$", 1, None, "placebos/cyclegan +done before\n"),
    (r"/recipe\.sha256$", 1, None, "placebos/cyclegan +done before\n"),
)


def _launch(workdir, *flags, kill=None):
    """`launch.py` in a process of its own."""
    given = [f"--config.{name}={value}" for name, value in SMALL.items()]
    program = ["-c", INTERRUPTING, *map(str, kill)] if kill else ["launch.py"]
    return subprocess.run(
        [sys.executable, *program, "--config=configs/tiny.py", f"--workdir={workdir}", *given, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


class _CutOffError(BaseException):
    """Ends a run; nothing of the package catches it."""


class _Watch:
    """Copies a directory when a file whose path matches is about to take its place, and then ends the run.

    What the run does as it ends no longer counts.
    """

    def __init__(self):
        self._wanted = None
        sys.addaudithook(self._see)  # there is no way to take it back

    def _see(self, event, arguments):
        if self._wanted is None or event not in ("os.rename", "shutil.rmtree"):
            return
        workdir, copy, pattern, left = self._wanted
        if left and re.search(pattern, str(arguments[1] if event == "os.rename" else arguments[0])):
            left -= 1
            self._wanted = None
            if not left:
                shutil.copytree(workdir, copy)
            self._wanted = workdir, copy, pattern, left
        if not left:
            raise _CutOffError

    def run(self, workdir, copy, pattern, number):
        """Runs until the pattern's file comes; ``copy`` is then what a killed process would have left."""
        self._wanted = workdir, copy, pattern, number
        try:
            with pytest.raises(_CutOffError):
                pipeline.run(small_config(), workdir)
        finally:
            self._wanted = None


@pytest.fixture(scope="module")
def watch():
    return _Watch()


# Whole runs -----------------------------------------------------------------------------------------------


def test_rows_added_to_a_finished_run_alone_are_measured_until_it_has_every_method(copied, capsys):
    before = measured(copied)
    assert before.keys() < METHODS
    run = results.read_results(copied)
    assert "left out" in run.pairs[0].verdict.broken
    path = pipeline.run(small_config({"baselines.methods": ()}), copied)
    assert "No verdict" not in path.read_text()
    said = said_of(capsys.readouterr().err)
    assert {said[stage] for stage in STAGES} == {"done before"}
    assert said["half_width"] == "done"
    assert {name: measured(copied)[name] for name in before} == before
    run = results.read_results(copied)
    (pair,) = run.pairs
    assert "left out" not in pair.verdict.broken
    assert set(pair.methods) == set(METHODS)
    assert all(row.label and row.description for row in pair.methods.values())
    assert {row.family for row in pair.methods.values()} == {"", "cyclegan"}
    assert pair.title == "black cat"
    assert pair.data.leaked == 0
    assert pair.verdict.best in pair.methods
    assert run.config["model"]["filters"] == [2]
    assert path.stat().st_size > 10_000
    timings = run.timings
    made = ["generate/cyclegan", "placebos/cyclegan"]
    assert list(timings) == ["data", "zoo", "fit/cyclegan", "baselines", *made, "evaluate"]
    generated = pair.of_kind("generated")
    assert all(row.digest and row.steps and row.images == 0 for row in generated)
    placebos = {f"{side}_{word}" for side in ("attribute", "object") for word in ("random", "opposite")}
    assert all(set(row.placebos) == placebos for row in generated)
    assert all(seconds > 0 for seconds in timings.values())


@flat
def test_a_finished_run_computes_nothing_and_is_shown_even_where_it_cannot_be_written(
    copied, monkeypatch, capsys
):
    def fail(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_plan", None)
        path = pipeline.run(small_config(), copied)
    assert path == copied / "report.html"
    assert "No verdict" in path.read_text()  # rows are left out
    assert "cyclegan_b2a" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    monkeypatch.setattr(pipeline.workdir_lib, "claimed", fail)
    (copied / "report.html").touch()
    before[copied / "report.html"] = (copied / "report.html").stat().st_mtime_ns
    assert pipeline.run(small_config(), copied) == copied / "report.html"
    assert "cyclegan_b2a" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    with pytest.raises(OSError, match="Read-only"):
        pipeline.run(small_config({"seed": 5}), copied)


def test_without_a_report_a_run_that_cannot_be_written_is_shown_all_the_same(copied, capsys):
    report.show(copied, writes=False)
    assert "missing" in capsys.readouterr().out
    assert not (copied / "report.html").exists()


@flat
def test_killed_at_any_point_it_goes_on_to_the_same_results(finished, watch, tmp_path, capsys):
    workdir, expected = tmp_path / "run-0", "data +done"
    for attempt, (pattern, number, sign, said_next) in enumerate(KILLS, start=1):
        if sign is None:
            copy = tmp_path / f"run-{attempt}"
            watch.run(workdir, copy, pattern, number)
            workdir, said = copy, capsys.readouterr().err
        else:
            run = _launch(workdir, kill=(pattern, number, int(sign)))
            said = run.stderr
            assert run.returncode == -sign, f"{pattern}\n{said}"
            assert "Traceback" not in said
        assert re.search(expected, said), f"before {pattern}, expected {expected}\n{said}"
        expected = said_next
        if "average" in pattern:
            before = measured(workdir)
            assert {"attribute_only", "object_only"} <= before.keys()  # they come before all others
            assert "average" not in before
    capsys.readouterr()
    pipeline.run(small_config(), workdir, stage="evaluate")
    said = said_of(capsys.readouterr().err)
    assert {said[stage] for stage in STAGES} == {"done before"}
    assert {name: measured(workdir)[name] for name in before} == before
    assert_same_results(workdir, finished)


# Damage ---------------------------------------------------------------------------------------------------


def _largest(directory):
    return max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def _flip(directory):
    file = _largest(directory)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@flat
def test_what_is_made_again_with_the_same_bits_leaves_everything_later_alone(
    finished, copied, caplog, capsys
):
    (copied / "recipe.sha256").unlink()
    damaged = ("zoo", "fit/cyclegan")
    results_of = [place(copied, stage) / "result/0" for stage in damaged]
    for result in results_of:
        _flip(result)
    file = copied / "evaluation/black_cat/average.npz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    before = measured(copied)
    pipeline.run(small_config(), copied, stage="evaluate")
    for path in (*results_of, file):
        assert f"{path} is damaged" in caplog.text
    said = said_of(capsys.readouterr().err)
    again = "is made again: it is damaged"
    assert {stage: said[stage] for stage in STAGES} == {
        stage: again if stage in damaged else "done before" for stage in STAGES
    }
    assert [name for name, time in before.items() if measured(copied)[name] != time] == ["average"]
    assert_same_results(copied, finished)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """A run that ended in the middle of the zoo, after its fifth state."""
    workdir = tmp_path_factory.mktemp("runs") / "cut_off"
    save = Stage.save

    def save_some(self, tree, step):
        if step > 5:
            raise KeyboardInterrupt
        save(self, tree, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "save", save_some)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(small_config(), workdir, stage="zoo")
    return workdir


def test_of_damaged_states_the_one_before_is_used(finished, cut_off, tmp_path, caplog, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(cut_off, workdir)
    states = place(workdir, "zoo") / "state"
    _largest(states / "5").unlink()
    pipeline.run(small_config(), workdir, stage="zoo")
    assert f"resuming from {states / '4'}\n" in capsys.readouterr().err
    assert f"{states / '5'} is damaged" in caplog.text
    assert_same_stage(workdir, finished, "zoo")


def test_a_stage_is_where_a_run_stops(cut_off, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(cut_off, workdir)
    assert pipeline.run(small_config(), workdir, stage="zoo") is None
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["zoo"]
    assert not (workdir / "results.json").exists()
    (tmp_path / "data").mkdir()
    assert pipeline.run(small_config(), tmp_path / "data", stage="data") is None
    assert not (tmp_path / "data" / "checkpoints").exists()


# Images in a folder ---------------------------------------------------------------------------------------

LAYOUT = {  # how many pictures each sub-folder has, and about which colour
    "black/black": (40, 30),
    "black/random": (40, 200),
    "cat/cat": (40, 120),
    "cat/random": (40, 220),
    "test/1": (6, 40),
    "test/0": (12, 150),
}
FOLDER = {
    "data.source": "folder",
    "model.filters": (2, 2),
    "data.minimum_train": 8,
    "data.minimum_test": 4,
    "zoo.images_per_epoch": 32,
    "zoo.epochs": 1,
    "baselines.epochs": 1,
    "baselines.models": 1,
    "baselines.random_networks": 2,
    "baselines.methods": ("average", "colour_rule_object", "pixels", "trained_on_conjunction"),
}


def _picture(path, number, about):
    rng = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(about + rng.normal(0, 60, (20, 24, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Pictures in the reference's layout, without ``train/1`` and with other test images in one folder."""
    folder = tmp_path / "pictures"
    numbers = itertools.count()
    for name, (count, about) in LAYOUT.items():
        for number in itertools.islice(numbers, count):
            _picture(folder / name / f"{number}.png", number, about)
    return folder


def _foldersmall_config(folder, fields=None):
    return small_config(FOLDER | {"data.folder": str(folder)} | (fields or {}))


@flat
def test_a_flat_folder_is_scored_against_the_rest(folder, tmp_path):
    (folder / "black/black/broken.png").write_bytes(b"no image")
    path = pipeline.run(_foldersmall_config(folder), tmp_path / "run")
    assert path.exists()
    (pair,) = results.read_results(tmp_path / "run").pairs
    assert {"average", "pixels", "cyclegan_a2b"} < pair.methods.keys()
    assert not {"trained_on_conjunction", "colour_rule_object"} & pair.methods.keys()
    assert pair.merit == "vs_rest"
    assert all(list(row.auroc) == ["vs_rest"] for row in pair.methods.values())
    assert not any(row.recovered.known for row in pair.methods.values())
    assert "scores 0.5" in path.read_text()  # always answering no
    assert pair.data.test == {"a&o": 6, "a&!o": 0, "!a&o": 0, "!a&!o": 0, "rest": 12}
    notes = " ".join(document(tmp_path / "run")["data"]["notes"])
    assert "black/black/broken.png" in notes
    assert "no train/1" in notes


# What is refused ------------------------------------------------------------------------------------------


def test_a_leaked_image_stops_the_run_before_training(folder, tmp_path):
    leaked = sorted((folder / "test/1").iterdir())[0]
    shutil.copy(leaked, folder / "cat/cat/copy.png")
    with pytest.raises(LeakageError) as error:
        pipeline.run(_foldersmall_config(folder), tmp_path / "run")
    assert "zoo of the object 'cat' would read 1 image(s)" in str(error.value)
    assert "cat/cat/copy.png" in str(error.value)
    assert not (tmp_path / "run/checkpoints").exists()


def _refused(config, workdir, message):
    with pytest.raises(UserError, match=message):
        pipeline.run(config, workdir)
    assert not (workdir / "checkpoints").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"zoo.models": 0}, r"zoo\.models is 0; expected a whole number of at least 2"),
        ({"data.image_size": 3}, r"image_size is 3: nothing is left"),
        ({"pairs.objects": ("unicorn",)}, r"no object 'unicorn'; it knows .*cat"),
        ({"data.minimum_train": 1000}, r"'black cat'.* too few training images.*needed 1000.*minimum_train"),
        ({"data.minimum_test": 90}, r"'black cat'.* too few test images.*needed 90.*minimum_test"),
        ({"data.validation_share": 1e-9}, r"too few validation images.*raise data\.validation_share"),
        ({"data.source": "tfds", "data.tfds.name": "mnist"}, r"no data set 'mnist'; known are cifar10"),
    ],
)
def test_what_cannot_work_is_refused_before_training(fields, message, tmp_path):
    _refused(small_config(fields), tmp_path / "run", message)


def test_a_folder_that_is_not_there_is_refused_before_umap_is_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.evidence, "rehearse", lambda settings: pytest.fail("too late"))
    config = small_config({"data.source": "folder", "data.folder": "/nowhere"})
    _refused(config, tmp_path / "run", r"'/nowhere' does not exist")


@pytest.mark.parametrize(("source", "order"), [("rendered", "numba, images"), ("tfds", "images, numba")])
def test_nothing_compiles_in_another_thread_while_tfds_is_imported(source, order, tmp_path, monkeypatch):
    """While it is imported, TFDS exchanges `__import__` for all threads, and numba imports as it compiles."""
    seen = []
    monkeypatch.setattr(pipeline.evidence, "compile_ahead", lambda settings: seen.append("numba"))
    monkeypatch.setattr(pipeline, "load_plan", lambda of: seen.append("images"))
    monkeypatch.setattr(pipeline.generation, "rehearse", lambda *of: pytest.fail(", ".join(seen)))
    fields = {"data.source": source, "data.tfds.name": "cifar10" if source == "tfds" else ""}
    with pytest.raises(pytest.fail.Exception, match=f"^{order}$"):
        pipeline.run(small_config(fields), tmp_path / "run")


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    _refused(small_config(), tmp_path / "run", r"need about \d+ MiB and the disk of .* has 1 MiB free")


def test_a_stage_is_made_again_with_another_config_and_not_at_another_pace(cut_off, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(cut_off, workdir)
    pipeline.run(small_config({"checkpoint.seconds": 9.0, "zoo.chunk_size": 3}), workdir, stage="zoo")
    assert "resuming from" in capsys.readouterr().err
    pipeline.run(small_config({"zoo.epochs": 3}), workdir, stage="zoo")
    assert re.search("^zoo +is made again: its config changed since", capsys.readouterr().err, re.MULTILINE)
    pipeline.run(small_config(), workdir, stage="zoo")
    assert re.search("^zoo +done before", capsys.readouterr().err, re.MULTILINE)


def test_an_epoch_of_a_baseline_has_no_more_images_than_there_are(copied, monkeypatch):
    from kernelgan.baselines import trained

    asked = []

    def train(network, images, lessons, training, **options):
        there = sum(len(group) for group in lessons[0].groups.train)
        asked.append((training.images_per_epoch, training.batch_size, there))
        raise UserError("asked")

    monkeypatch.setattr(trained, "train_distilled", train)
    config = small_config()
    config.baselines.images_per_epoch = 100_000
    with pytest.raises(UserError, match="asked"):
        pipeline.run(config, copied, stage="baselines")
    ((epoch, batch, there),) = asked
    assert epoch == there < 100_000
    assert batch == min(there, config.zoo.batch_size)
