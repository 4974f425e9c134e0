"""Tests for kernelgan.command: several seeds in one command."""

import types

import pytest

from configs import tiny
from kernelgan import command, compare, pipeline
from kernelgan.types import UserError


def _given(seeds, **more):
    chosen = {"stage": "report", "generator": [], "keep": [], "distributed": False, "coordinator": ""} | more
    return types.SimpleNamespace(seeds=seeds, config=tiny.get_config(), **chosen)


def test_each_seed_has_a_run_of_its_own_and_the_command_that_makes_it(tmp_path, monkeypatch, capsys):
    ran = []

    def run(config, workdir, *, command, **_):
        ran.append((config.seed, workdir, command))

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.setattr(compare, "read", list)
    monkeypatch.setattr(compare, "text", lambda folders: f"compared {len(folders)}")
    monkeypatch.setattr("sys.argv", ["x", "--config=c.py", "--seeds", "3,4", "--workdir=w", "--stage=report"])
    command._sweep(_given(["3", " 4"]), tmp_path, ["kernelgan"])
    assert [(seed, folder) for seed, folder, _ in ran] == [(n, tmp_path / f"seed{n}") for n in (3, 4)]
    words = ran[1][2].split()
    assert words[:3] == ["kernelgan", "--config=c.py", "--stage=report"]
    assert words[3:] == ["--config.seed=4", f"--workdir={tmp_path / 'seed4'}"]
    assert capsys.readouterr().out.strip() == "compared 2"


@pytest.mark.parametrize(
    ("seeds", "more", "fact"),
    [
        (["1"], {}, "1"),
        (["1", "01"], {}, "1,01"),
        (["1", "two"], {}, "two"),
        (["1", "2"], {"distributed": True}, "--config.seed"),
    ],
)
def test_seeds_that_cannot_be_swept_are_refused(seeds, more, fact, tmp_path):
    with pytest.raises(UserError, match=fact):
        command._sweep(_given(seeds, **more), tmp_path, ["kernelgan"])
