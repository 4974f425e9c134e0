"""Tests for kernelgan.workdir: whose a directory is, and what it remembers."""

import json
import shutil

import pytest

from configs import tiny
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


def test_the_same_config_may_come_back(claimed, config):
    config.checkpoint.seconds = 77.0
    config.device = "cpu"
    before = (claimed / "config.json").read_bytes()
    with workdir_lib.claimed(claimed, config):
        pass
    assert (claimed / "config.json").read_bytes() == before


def test_differences_are_named_once_something_was_built(claimed, config):
    (claimed / "checkpoints" / "cyclegan").mkdir(parents=True)
    config.zoo.models = 9
    config.generators.cyclegan.epochs = (3, 7)
    _refused(
        claimed,
        config,
        r"generators\.cyclegan\.epochs: \[3, 2\] there, \[3, 7\] now\n  zoo\.models: 4 there, 9 now\n",
    )


def test_a_field_that_the_directory_lacks_is_named(claimed, config):
    (claimed / "checkpoints").mkdir()
    theirs = json.loads((claimed / "config.json").read_text())
    del theirs["zoo"]["balanced"]
    (claimed / "config.json").write_text(json.dumps(theirs))
    _refused(claimed, config, r"zoo\.balanced: 'absent' there, True now")


def test_a_refused_start_can_be_mended_in_the_same_directory(claimed, config):
    config.zoo.models = 9
    with workdir_lib.claimed(claimed, config):
        pass
    assert json.loads((claimed / "config.json").read_text())["zoo"]["models"] == 9


def test_a_later_stage_may_still_change_while_it_was_not_built(claimed, config):
    (claimed / "checkpoints" / "zoo").mkdir(parents=True)
    config.generators.cyclegan.learning_rate = (1e-5, 1e-5)
    with workdir_lib.claimed(claimed, config):
        pass
    config.zoo.learning_rate = 0.5
    _refused(claimed, config, r"zoo\.learning_rate: .*\n.*or delete checkpoints in it")


@pytest.mark.parametrize(
    ("built", "named"),
    [
        (["half_width"], "checkpoints/half_width"),
        (["half_width-0", "half_width-1"], "checkpoints/half_width-0, checkpoints/half_width-1"),
        (["distilled", "half_width-1", "zoo-0"], "checkpoints/distilled, checkpoints/half_width-1"),
    ],
)
def test_a_stage_in_parts_was_built_too_and_only_what_is_there_is_named(claimed, config, built, named):
    for name in built:
        (claimed / "checkpoints" / name).mkdir(parents=True)
    config.baselines.epochs = 9
    _refused(claimed, config, f"; or delete {named} in it\\.$")
    for name in named.split(", "):
        (claimed / name).rmdir()
    with workdir_lib.claimed(claimed, config):
        pass


@pytest.mark.parametrize("content", [b"", b'{"zoo": {"mod', b"\xff\xfe", b"[]", b"null"])
def test_a_damaged_config_is_named(claimed, config, content):
    (claimed / "config.json").write_bytes(content)
    _refused(claimed, config, r"config\.json is damaged; give another --workdir, or delete")


def test_files_of_others_are_left_alone(config, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    _refused(tmp_path, config, "holds files that are not of a kernelgan run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_directory_will_do(config, tmp_path):
    with workdir_lib.claimed(tmp_path, config):
        assert (tmp_path / "config.json").exists()


def test_a_run_that_died_before_its_config_was_whole_starts_again(claimed, config):
    (claimed / "config.json").rename(claimed / ".config.json.123.tmp")
    with workdir_lib.claimed(claimed, config):
        assert (claimed / "config.json").exists()


def test_a_file_is_no_directory(config, tmp_path):
    (tmp_path / "file").write_text("")
    _refused(tmp_path / "file", config, "file is a file; expected a directory")
    _refused(tmp_path / "file/run", config, r"cannot be written \(Not a directory\)")


def test_one_run_at_a_time(claimed, config):
    with workdir_lib.claimed(claimed, config):
        _refused(claimed, config, "another run is at work in .*; wait for it")
    with workdir_lib.claimed(claimed, config):
        pass


def test_an_error_gives_the_directory_back(claimed, config):
    with pytest.raises(ZeroDivisionError), workdir_lib.claimed(claimed, config):
        _ = 1 / 0
    with workdir_lib.claimed(claimed, config):
        pass


def test_images_must_stay_the_same(tmp_path):
    workdir_lib.check_images(tmp_path, "abc")
    workdir_lib.check_images(tmp_path, "abc")
    with pytest.raises(UserError, match=r"the data are not those that .* was started with"):
        workdir_lib.check_images(tmp_path, "abd")
    workdir_lib.check_images(tmp_path, "abc")


def test_disk_space_is_compared_in_bytes(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    workdir_lib.check_disk(tmp_path, 3 * 2**20)
    with pytest.raises(UserError, match=r"need about 4 MiB and the disk of .* has 3 MiB free"):
        workdir_lib.check_disk(tmp_path, 4 * 2**20)


def test_timings_of_attempts_add_up(tmp_path):
    assert workdir_lib.timings(tmp_path) == {}
    workdir_lib.add_timing(tmp_path, "zoo", 1.5)
    workdir_lib.add_timing(tmp_path, "data", 1.0)
    workdir_lib.add_timing(tmp_path, "zoo", 2.0)
    assert workdir_lib.timings(tmp_path) == {"zoo": 3.5, "data": 1.0}


def test_damaged_timings_stop_nothing(tmp_path):
    (tmp_path / "timings.json").write_text('{"zoo": 1')
    workdir_lib.add_timing(tmp_path, "zoo", 2.0)
    assert workdir_lib.timings(tmp_path) == {"zoo": 2.0}
