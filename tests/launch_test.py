"""Tests for launch.py: what its flags refuse, each in one line, and its help; runs are in pipeline_test."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest

from kernelgan import command, pipeline

ROOT = Path(__file__).parents[1]


def _launch(*flags, options=()):
    return subprocess.run(
        [sys.executable, *options, "launch.py", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


REFUSED = [
    ([], "--config must have a value"),
    (["--config=configs/nowhere.py"], "there is no config configs/nowhere.py; expected a file such as"),
    (
        ["--config=configs/tiny.py", "--config.zoo.modells=3"],
        'Did you mean "models" instead of "modells"?',
    ),
    (
        ["--config=configs/tiny.py", "--config.zoo.models=many"],
        "--config.zoo.models=many: expected a number",
    ),
    (["--config=configs/tiny.py", "--config.zoo.balanced=maybe"], "Non-boolean argument"),
    (["--config=configs/tiny.py", "--config.zoo=3"], "`3` is not a dict"),
    (["--config=configs/tiny.py", "--config.cyclegan.hidden=3"], "no such field: 'cyclegan'"),
    (["--config=configs/tiny.py", "--config.generators.cyclegan.epochs[0]=7"], "epochs[0]"),
    (["--config=configs/tiny.py", "--config.zoo.=7"], "no such field"),
    (["--config=configs/tiny.py", "--stage=train"], "--stage=train: value should be one of <data|zoo|"),
    (["--config=configs/tiny.py", "--folder=here"], "Unknown command line flag 'folder'"),
    (
        ["--config=configs/tiny.py", "zoo.models=3"],
        "unexpected arguments zoo.models=3; fields are set like",
    ),
    (["--config=configs/tiny.py:large"], "this config has no variants"),
    (
        ["--config=configs/tiny.py", "--processes=2", "--process=0"],
        "--processes and --process go with --coordinator=HOST:PORT, which was not given",
    ),
    (["--config=configs/black_cat.py:white"], "no variant 'white'; known are 'photos', 'folder', 'full'"),
    (["--config=configs/pair_matrix.py:white"], "no variant 'white'; known are 'photos', 'photos_full'"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """How each line of flags ended."""
    return forks.run_all([("launch.py", *flags) for flags, _ in REFUSED], tmp_path_factory.mktemp("refused"))


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[message for _, message in REFUSED])
def test_flags_that_cannot_be_are_told_in_one_line(number, refused):
    run, message = refused[number], REFUSED[number][1]
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert message in run.stderr
    assert run.stdout == ""


def test_help_answers_at_once_and_without_jax():
    start = time.monotonic()
    run = _launch("--help", options=("-X", "importtime"))
    assert time.monotonic() - start < 2
    for flag in ("--config", "--workdir", "--stage"):
        assert flag in run.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "absl" in imported
    assert not imported & {"jax", "flax", "numpy", "matplotlib"}


@pytest.mark.parametrize("given", ["configs/tiny.py", "tiny.py"])
@pytest.mark.parametrize("form", ["--config={}", "--config {}", "-config={}"])
def test_installed_configs_are_known_elsewhere(given, form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["kernelgan", *form.format(given).split(" "), "--stage=data", f"--workdir={given}"]
    known = command._with_installed_configs(argv)
    assert (
        known
        == [argument.replace(given, str(ROOT / "configs/tiny.py")) for argument in argv[:-1]] + argv[-1:]
    )


@pytest.mark.parametrize("given", ["nowhere.py", "other/tiny.py", "/configs/tiny.py", "tiny.py", "tiny.py:x"])
def test_a_config_that_is_here_or_nowhere_keeps_its_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text("")
    assert command._with_installed_configs([f"--config={given}"]) == [f"--config={given}"]


def test_the_console_command_is_the_same_from_another_directory(tmp_path):
    script = tmp_path / "kernelgan"
    script.write_text("from kernelgan.command import main\nmain()\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def call(*flags):
        command = [sys.executable, str(script), *flags]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    assert "--workdir" in call("--help").stdout
    (tmp_path / "mine.txt").write_text("keep")
    refused = call("--config=tiny.py", f"--workdir={tmp_path}")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        f"error: --workdir={tmp_path} holds files that are not of a kernelgan run"
    )
    assert "Traceback" not in refused.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"kernelgan", "mine.txt"}


def test_the_stages_are_the_pipelines():
    assert command.STAGES == pipeline.STAGES


@pytest.mark.parametrize(
    "word", ["--config.pairs.objects=('cat', 'not dog')", "a b", "it's $5", "x", 'say "no"', "'"]
)
def test_the_command_that_a_report_shows_can_be_pasted(word):
    shown = command._quoted(["python", word])
    assert shlex.split(shown) == ["python", word]
    assert word in shown or "'" not in word or "$" in word
