"""Tests for kernelgan.workdir: whose a directory is, and what it remembers."""

import contextlib
import errno
import fcntl
import json
import re
import shutil
import types

import pytest

from configs import tiny
from kernelgan import evidence
from kernelgan import workdir as workdir_lib
from kernelgan.types import UserError


@pytest.fixture
def config():
    return tiny.get_config()


@pytest.fixture
def claimed(config, tmp_path):
    """A directory that a run of `config` has had."""
    with workdir_lib.claimed(tmp_path / "run", config):
        pass
    return tmp_path / "run"


def _refused(workdir, config, message):
    with pytest.raises(UserError, match=message), workdir_lib.claimed(workdir, config):
        pass


def test_a_new_directory_remembers_the_config(claimed):
    found = json.loads((claimed / "config.json").read_text())
    assert found["zoo"]["models"] == 4
    assert found["generators"]["cyclegan"]["epochs"] == [3, 2]


def test_a_failed_start_leaves_nothing_and_a_finished_stage_is_kept(config, tmp_path):
    workdir = tmp_path / "runs/first/run"
    with pytest.raises(UserError), workdir_lib.claimed(workdir, config):
        raise UserError("no such images")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    kept = workdir / "checkpoints"
    with pytest.raises(UserError), workdir_lib.claimed(workdir, config):
        raise UserError(f"the disk is full after {kept.mkdir()}")
    assert (workdir / "config.json").exists()


def test_the_same_config_may_come_back(claimed, config, capsys):
    with workdir_lib.claimed(claimed, config):
        pass
    assert capsys.readouterr().err == ""


def test_a_changed_config_is_kept_and_its_fields_are_named(claimed, config, capsys):
    theirs = json.loads((claimed / "config.json").read_text())
    del theirs["zoo"]["balanced"]
    (claimed / "config.json").write_text(json.dumps(theirs))
    (claimed / "checkpoints" / "zoo").mkdir(parents=True)
    config.generators.cyclegan.epochs = (3, 7)
    config.checkpoint.seconds = 77.0
    with workdir_lib.claimed(claimed, config):
        pass
    said = capsys.readouterr().err
    assert str(claimed) in said
    assert "generators.cyclegan.epochs: [3, 2] there, [3, 7] now" in said
    assert "balanced" not in said  # a field that is new, at its default
    assert "seconds" not in said
    found = json.loads((claimed / "config.json").read_text())
    assert found["generators"]["cyclegan"]["epochs"] == [3, 7]
    assert found["checkpoint"]["seconds"] == 77.0


@pytest.mark.parametrize("content", [b"", b'{"zoo": {"mod', b"\xff\xfe", b"[]", b"null", b"{}"])
def test_a_damaged_config_is_written_anew(claimed, config, content, caplog):
    (claimed / "config.json").write_bytes(content)
    with workdir_lib.claimed(claimed, config):
        assert json.loads((claimed / "config.json").read_text())["zoo"]["models"] == 4
    assert f"{claimed / 'config.json'} is damaged" in caplog.text


@pytest.mark.parametrize("content", ['{"hidden_size": 64, "name": "bert"}', "{"])
def test_a_config_of_another_program_is_left_alone(config, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    _refused(tmp_path, config, "holds files that are not of a kernelgan run")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("config.json", content)]


@pytest.mark.parametrize("name", ["a[b]c", "a*", "wh?t", "a[b]c/run"])
def test_a_path_under_which_checkpoints_are_lost_is_refused_and_its_siblings_are_not(config, tmp_path, name):
    _refused(tmp_path / name, config, re.escape(str(tmp_path / name)))
    assert not list(tmp_path.iterdir())
    with workdir_lib.claimed(tmp_path / "a{b}c, d]", config):
        pass


def test_files_of_others_are_left_alone(config, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    _refused(tmp_path, config, "holds files that are not of a kernelgan run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_died_before_its_config_was_whole_starts_again(claimed, config):
    (claimed / "config.json").rename(claimed / ".config.json.123.tmp")
    with workdir_lib.claimed(claimed, config):
        assert (claimed / "config.json").exists()


def test_a_file_is_no_directory(config, tmp_path):
    (tmp_path / "file").write_text("")
    _refused(tmp_path / "file", config, "file is a file; expected a directory")
    _refused(tmp_path / "file/run", config, r"cannot be written \(Not a directory\)")


def test_one_run_at_a_time(claimed, config):
    with contextlib.suppress(KeyboardInterrupt), workdir_lib.claimed(claimed, config):
        _refused(claimed, config, "another run is at work in")
        raise KeyboardInterrupt
    with workdir_lib.claimed(claimed, config):
        pass


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_is_held_keeps_others_out(config, tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", _failing(number))
    _refused(tmp_path, config, "another run is at work")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do(config, tmp_path, monkeypatch, number, caplog):
    monkeypatch.setattr(fcntl, "flock", _failing(number))
    with workdir_lib.claimed(tmp_path, config):
        pass
    assert caplog.text.count("no locks") == 1


def _failing(number):
    def fail(*_):
        raise OSError(number, "no")

    return fail


def test_disk_space_is_compared_in_bytes(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    workdir_lib.check_disk(tmp_path, 3 * 2**20)
    with pytest.raises(UserError, match=r"need about 4 MiB and the disk of .* has 3 MiB free"):
        workdir_lib.check_disk(tmp_path, 4 * 2**20)


def test_of_what_several_keys_left_one_counts_as_kept(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".DS_Store").write_bytes(b"?")
    for stage, key, size in (("zoo", "a", 3), ("zoo", "b", 5), ("cyclegan", "c", 2)):
        (tmp_path / "checkpoints" / stage / key).mkdir(parents=True)
        (tmp_path / "checkpoints" / stage / key / "file").write_bytes(b"?" * size * 2**20)
    workdir_lib.check_disk(tmp_path, 7 * 2**20)
    with pytest.raises(UserError, match="need about 1 MiB"):
        workdir_lib.check_disk(tmp_path, 8 * 2**20)


def test_a_plan_comes_back_and_what_cannot_be_read_is_not_damaged(tmp_path, monkeypatch):
    plan = {"layers": ["conv1"], "zoos": [], "pairs": []}
    workdir_lib.write_plan(tmp_path, plan)
    assert workdir_lib.read_plan(tmp_path) == plan
    monkeypatch.setattr(type(tmp_path), "read_text", _failing(errno.EIO))
    with pytest.raises(UserError, match=r"plan\.json cannot be read"):
        workdir_lib.read_plan(tmp_path)


def test_results_keep_no_timings_of_generators_that_were_dropped(tmp_path):
    (tmp_path / "timings.json").write_text('{"zoo": 1, "fit/old": 2, "fit/new": 3, "placebos/old": 4}')
    generators = (types.SimpleNamespace(name="new"),)
    run = types.SimpleNamespace(generators=generators, stages=types.SimpleNamespace(workdir=tmp_path))
    assert evidence._timings(run) == {"zoo": 1, "fit/new": 3}


@pytest.mark.parametrize("damaged", [False, True])
def test_timings_of_attempts_add_up_and_damaged_ones_stop_nothing(tmp_path, monkeypatch, damaged):
    seconds = iter((1.5, 1.0, 2.0))
    monkeypatch.setattr(workdir_lib.Progress, "close", lambda *_: next(seconds))
    for name, stage in (("zoo", ""), ("data", ""), ("zoo again", "zoo")):
        if damaged:
            (tmp_path / "timings.json").write_text('{"zoo": 1')
        with workdir_lib.staged(tmp_path, name, stage):
            pass
    assert workdir_lib.timings(tmp_path) == ({"zoo": 2.0} if damaged else {"zoo": 3.5, "data": 1.0})
