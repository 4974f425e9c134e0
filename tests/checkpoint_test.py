import json

import numpy as np
import pytest

from kernelgan import checkpoint
from kernelgan.checkpoint import StageCheckpoint


def _tree(number):
    return {
        "params": {"conv1": {"kernel": np.full((2, 3), number, np.float32), "bias": np.zeros(2, np.float16)}},
        "labels": np.array([number, -1], np.int8),
        "images": np.array([[0, 255]], np.uint8),
        "mask": np.array([True, False]),
        "epoch": np.int32(number),
    }


def _assert_is(found, number):
    expected = _tree(number)
    assert set(found) == set(expected)
    leaves = [
        (found["params"]["conv1"][name], expected["params"]["conv1"][name]) for name in ("kernel", "bias")
    ]
    leaves += [(found[name], expected[name]) for name in ("labels", "images", "mask", "epoch")]
    for ours, theirs in leaves:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def open_stage(tmp_path):
    """Opens the same stage anew each time, as another process would."""
    opened = []

    def make(seconds=0.0):
        opened.append(StageCheckpoint(tmp_path / "stage", seconds=seconds))
        return opened[-1]

    yield make
    for stage in opened:
        stage.close()


@pytest.fixture
def warnings(monkeypatch):
    """This module's, without those of orbax, which logs in the same place."""
    found = []

    def warn(text, *values):
        if "is not used" in text:
            found.append(text % values)

    monkeypatch.setattr(checkpoint.logging, "warning", warn)
    return found


def _save(stage, *steps):
    for step in steps:
        stage.save(lambda step=step: _tree(step), step)
    stage.close()


def _flip(directory):
    """One bit of the largest file."""
    path = max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_state_comes_back_as_it_was(open_stage):
    _save(open_stage(), 1)
    _assert_is(open_stage().restore(), 1)


def test_nothing_saved_is_none_and_makes_no_directory(open_stage, tmp_path):
    stage = open_stage()
    assert stage.restore() is None
    assert stage.result() is None
    assert stage.last_good == "none yet"
    assert not (tmp_path / "stage").exists()


def test_the_latest_state_is_restored_and_named(open_stage, tmp_path):
    _save(open_stage(), 1, 2)
    stage = open_stage()
    _assert_is(stage.restore(), 2)
    assert stage.last_good == str(tmp_path / "stage" / "state" / "2")


def test_a_restored_state_may_be_written_to(open_stage):
    """Training goes on in the restored arrays."""
    _save(open_stage(), 1)
    kernel = open_stage().restore()["params"]["conv1"]["kernel"]
    kernel[0] = 7
    assert (kernel[0] == 7).all()


def test_few_states_are_kept(open_stage, tmp_path):
    _save(open_stage(), *range(1, checkpoint.KEPT_STATES + 3))
    kept = {path.name for path in (tmp_path / "stage" / "state").iterdir()}
    steps = range(3, checkpoint.KEPT_STATES + 3)
    assert kept == {str(step) for step in steps} | {f"sha256-{step}.json" for step in steps}


def test_a_step_may_be_saved_again(open_stage):
    stage = open_stage()
    stage.save(lambda: _tree(5), 1)
    stage.save(lambda: _tree(6), 1)
    stage.close()
    _assert_is(open_stage().restore(), 6)


def test_saves_are_no_more_frequent_than_asked(open_stage, monkeypatch):
    now = 50.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    stage, made = open_stage(seconds=10.0), []

    def make(step):
        made.append(step)
        return _tree(step)

    for step, seconds in enumerate((5, 4, 1, 9, 0.5, 1), start=1):
        now += seconds
        stage.save(lambda step=step: make(step), step)
    assert made == [3, 6]


def test_a_state_without_its_sums_does_not_count(open_stage, tmp_path, warnings):
    _save(open_stage(), 1, 2)
    (tmp_path / "stage" / "state" / "sha256-2.json").unlink()
    _assert_is(open_stage().restore(), 1)
    assert not warnings  # an interruption, not damage


@pytest.mark.parametrize("damage", ["a flipped bit", "a missing file", "sums that are no JSON"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(open_stage, tmp_path, warnings, damage):
    _save(open_stage(), 1, 2)
    latest = tmp_path / "stage" / "state" / "2"
    if damage == "a flipped bit":
        _flip(latest)
    elif damage == "a missing file":
        next(path for path in sorted(latest.rglob("*")) if path.is_file()).unlink()
    else:
        (latest.parent / "sha256-2.json").write_text("{")
    _assert_is(open_stage().restore(), 1)
    (warning,) = warnings
    assert str(latest) in warning


def test_without_a_whole_state_there_is_none_and_training_can_save_again(open_stage, tmp_path, warnings):
    _save(open_stage(), 1)
    _flip(tmp_path / "stage" / "state" / "1")
    stage = open_stage()
    assert stage.restore() is None
    assert len(warnings) == 1
    _save(stage, 1)
    _assert_is(open_stage().restore(), 1)


def test_a_result_comes_back_and_removes_the_states(open_stage, tmp_path):
    stage = open_stage()
    stage.save(lambda: _tree(1), 1)
    stage.finish(_tree(9))
    stage.close()
    again = open_stage()
    _assert_is(again.result(), 9)
    assert again.restore() is None
    assert not (tmp_path / "stage" / "state").exists()


def test_a_damaged_result_is_named_and_does_not_count(open_stage, tmp_path, warnings):
    stage = open_stage()
    stage.finish(_tree(9))
    stage.close()
    _flip(tmp_path / "stage" / "result" / "0")
    assert open_stage().result() is None
    (warning,) = warnings
    assert "result" in warning


def test_sums_are_of_every_file_of_the_step(open_stage, tmp_path):
    _save(open_stage(), 1)
    sums = json.loads((tmp_path / "stage" / "state" / "sha256-1.json").read_text())
    root = tmp_path / "stage" / "state" / "1"
    assert set(sums) == {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
