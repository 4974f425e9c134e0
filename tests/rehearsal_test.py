"""Tests of what is tried before training: UMAP and figures, whatever the user's own settings are."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from tiny_runs import small_config

from kernelgan import config, evidence, pipeline
from kernelgan.report import drawing
from kernelgan.types import UserError


@pytest.fixture
def own_rc():
    with matplotlib.rc_context():
        yield matplotlib.rcParams


@pytest.mark.parametrize(
    ("name", "value"), [("text.usetex", True), ("font.family", ["no such font"]), ("figure.dpi", 7)]
)
def test_figures_are_drawn_without_the_users_own_settings_which_stay(own_rc, name, value):
    expected = drawing.png(drawing.trial)
    own_rc[name] = value
    assert drawing.png(drawing.trial) == expected
    assert own_rc[name] == value


def _python(program, **variables):
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_backend_that_is_not_there_does_not_matter():
    program = "from kernelgan.report import drawing; print(len(drawing.png(drawing.trial)))"
    done = _python(program, MPLBACKEND="nonsense")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


UMAP = """
import os, numba
if not numba.config.CACHE_DIR:
    raise RuntimeError("cannot cache function 'rdist': no locator available for file 'umap.py'")
assert os.access(numba.config.CACHE_DIR, os.W_OK)
"""


@pytest.mark.parametrize("home", ["here", "nowhere"])
def test_umap_is_imported_where_neither_its_folder_nor_a_home_can_be_written(home, tmp_path):
    (tmp_path / "umap.py").write_text(UMAP)
    cache = tmp_path / "cache"
    if home == "nowhere":
        cache.write_text("")  # a file: no directory can be made
    program = "from kernelgan.evaluation import clustering; print(clustering.imported_umap().__file__)"
    done = _python(program, PYTHONPATH=f"{tmp_path}:{Path.cwd()}", XDG_CACHE_HOME=str(cache))
    assert done.stdout.strip() == str(tmp_path / "umap.py"), done.stderr


def test_what_the_end_of_a_run_needs_is_missed_before_anything_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"UMAP cannot be imported.*evaluate\.umap_networks=0"):
        pipeline.run(small_config({"evaluate.umap_networks": 1}), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()
    evidence.rehearse(config.parse(small_config({"evaluate.umap_networks": 0})))


def test_figures_that_cannot_be_drawn_are_told_before_anything_trains(tmp_path, monkeypatch):
    def fail(draw):
        raise ImportError("libfreetype.so.6: cannot open shared object file")

    monkeypatch.setattr(drawing, "png", fail)
    with pytest.raises(UserError, match=r"libfreetype"):
        pipeline.run(small_config({"evaluate.umap_networks": 0}), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()
