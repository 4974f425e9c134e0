"""Tests for kernelgan.checkpoint: what a stage leaves, under which key, and what becomes of damage."""

import json
import resource

import numpy as np
import orbax.checkpoint as ocp
import pytest

from kernelgan import checkpoint, keys
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey
from kernelgan.types import UserError

KEY = StageKey({"config": "1", "code": "2"})
OTHER = StageKey({"config": "1", "code": "3"})


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
    """Opens a stage anew each time, as another process would."""

    def make(key=KEY, seconds=0.0, directory=tmp_path / "stage"):
        return Stage(directory, key, seconds=seconds)

    return make


@pytest.fixture
def place(tmp_path):
    """Where the stage keeps what has `KEY`."""
    return tmp_path / "stage" / KEY.digest[:12]


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
        stage.save(_tree(step), step)


def _finish(stage, number):
    stage.finish(_tree(number))


def _largest(directory):
    return max(
        (path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def _flip(step):
    """One bit of the largest file."""
    path = _largest(step)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(step):
    path = _largest(step)
    path.write_bytes(path.read_bytes()[:-1])


def _delete(step):
    _largest(step).unlink()


def _break_sums(step):
    (step.parent / f"sha256-{step.name}.json").write_text("{")


def _other_sums(step):
    (step.parent / f"sha256-{step.name}.json").write_text("[1]")


def _content(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else path.stat().st_mtime_ns
        for path in directory.rglob("*")
    }


def test_nothing_saved_is_none_and_makes_no_directory(open_stage, tmp_path):
    stage = open_stage()
    assert stage.restore() is None
    assert stage.result() is None
    assert stage.why() == ""
    assert stage.last_good == "none yet"
    assert not (tmp_path / "stage").exists()


def test_the_latest_state_is_restored_and_named(open_stage, place):
    _save(open_stage(), 1, 2)
    stage = open_stage()
    _assert_is(stage.restore(), 2)
    assert stage.last_good == str(place / "state" / "2")


def test_a_restored_state_may_be_written_to(open_stage):
    """Training goes on in the restored arrays."""
    _save(open_stage(), 1)
    open_stage().restore()["params"]["conv1"]["kernel"][0] = 7


def test_few_states_are_kept(open_stage, place):
    _save(open_stage(), *range(1, checkpoint.KEPT_STATES + 3))
    kept = {path.name for path in (place / "state").iterdir()}
    steps = range(3, checkpoint.KEPT_STATES + 3)
    assert kept == {str(step) for step in steps} | {f"sha256-{step}.json" for step in steps}


@pytest.mark.parametrize("steps", [(1, 1), (7, 8, 1)])
def test_states_of_a_training_that_starts_over_replace_earlier_ones(open_stage, steps):
    _save(open_stage(), *steps[:-1])
    stage = open_stage()
    stage.save(_tree(6), steps[-1])
    _assert_is(open_stage().restore(), 6)


def test_saves_are_no_more_frequent_than_asked(open_stage, monkeypatch):
    now = 50.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    stage, made = open_stage(seconds=10.0), []

    for step, seconds in enumerate((5, 4, 1, 9, 0.5, 1), start=1):
        now += seconds
        if stage.is_due():
            made.append(step)
            stage.save(_tree(step), step)
    assert made == [3, 6]


def test_a_state_without_its_sums_does_not_count(open_stage, place, warnings):
    _save(open_stage(), 1, 2)
    (place / "state" / "sha256-2.json").unlink()
    _assert_is(open_stage().restore(), 1)
    assert not warnings  # an interruption, not damage


DAMAGES = [_flip, _truncate, _delete, _break_sums, _other_sums]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named_and_the_one_before_is_used(open_stage, place, warnings, damage):
    _save(open_stage(), 1, 2)
    latest = place / "state" / "2"
    damage(latest)
    damaged = _content(latest)
    _assert_is(open_stage().restore(), 1)
    (warning,) = warnings
    assert str(latest) in warning
    assert _content(place / "damaged-state-2" / "2") == damaged
    assert not latest.exists()


def test_without_a_whole_state_there_is_none_and_training_can_save_again(open_stage, place, warnings):
    _save(open_stage(), 1)
    _flip(place / "state" / "1")
    stage = open_stage()
    assert stage.restore() is None
    assert len(warnings) == 1
    _save(stage, 1)
    _assert_is(open_stage().restore(), 1)


def test_a_result_comes_back_and_removes_the_states(open_stage, place):
    stage = open_stage()
    stage.save(_tree(1), 1)
    _finish(stage, 9)
    again = open_stage()
    _assert_is(again.result(), 9)
    assert again.digest == stage.digest == keys.of_arrays(_tree(9))
    assert again.restore() is None
    assert not (place / "state").exists()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_moved_aside_and_may_be_made_again(open_stage, place, warnings, damage):
    _finish(open_stage(), 9)
    for aside in ("damaged-result-0", "damaged-result-0-2"):
        damage(place / "result" / "0")
        damaged = _content(place / "result")
        stage = open_stage()
        assert stage.result() is None
        assert stage.why() == "it is damaged"
        assert _content(place / aside) == damaged
        assert str(place / "result" / "0") in warnings.pop()
        assert open_stage().result() is None
        assert not warnings  # it is said once
        _finish(stage, 9)
    _assert_is(open_stage().result(), 9)


@pytest.mark.parametrize("where", ["result", "result/0", "result/0/default", ".", ".."])
def test_files_of_others_in_a_checkpoint_do_not_matter(open_stage, place, warnings, where):
    _finish(open_stage(), 9)
    (place / where / ".DS_Store").write_bytes(b"?")
    _assert_is(open_stage().result(), 9)
    _assert_is(checkpoint.read_result(place.parent), 9)
    assert not warnings


# What cannot be read is not damaged.

ERRORS = [PermissionError(13, "Permission denied"), OSError(5, "Input/output error"), MemoryError()]


def _failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("broken", "error"),
    [("files", error) for error in ERRORS]
    + [("orbax", error) for error in (RuntimeError("INTERNAL"), ValueError("a new format"))],
)
@pytest.mark.parametrize("read", ["result", "restore", "read_result"])
def test_what_cannot_be_read_stays_and_is_an_error(open_stage, place, monkeypatch, broken, error, read):
    if read == "restore":
        _save(open_stage(), 9)
    else:
        _finish(open_stage(), 9)
    before = _content(place)
    stage = open_stage()
    call = {
        "result": stage.result,
        "restore": stage.restore,
        "read_result": lambda: checkpoint.read_result(place),
    }[read]
    with monkeypatch.context() as patch:
        if broken == "files":
            patch.setattr(checkpoint.hashlib, "file_digest", _failing(error))
        else:
            patch.setattr(ocp.CheckpointManager, "restore", _failing(error))
        with pytest.raises(UserError, match=f"{place}.* cannot be read"):
            call()
    assert _content(place) == before
    _assert_is(call(), 9)


# Keys.


def test_results_of_several_keys_lie_side_by_side(open_stage, place):
    _save(open_stage(), 1)
    assert open_stage(OTHER).restore() is None
    _finish(open_stage(), 9)
    other = open_stage(OTHER)
    assert other.result() is None
    assert other.why() == "its code changed since"
    _finish(other, 10)
    stage = open_stage()
    _assert_is(stage.result(), 9)
    assert stage.why() == ""
    assert json.loads((place / "key.json").read_text()) == KEY.parts
    _assert_is(open_stage(OTHER).result(), 10)


def test_a_result_that_differs_in_no_other_part_is_accepted(open_stage):
    assert open_stage(OTHER).accept({"code"}) is None  # there is none
    _finish(open_stage(), 9)
    own = open_stage()
    own.result()
    stage = open_stage(OTHER)
    assert stage.result() is None
    _assert_is(stage.accept({"code"}), 9)
    assert stage.digest == own.digest
    for part in ("config", "inputs/zoo"):
        stage = open_stage(StageKey({**OTHER.parts, part: "changed"}))
        assert stage.accept({"code"}) is None
        _finish(stage, 10)
    _assert_is(open_stage().result(), 9)


def test_a_damaged_result_is_not_accepted_and_what_is_made_instead_has_its_own_key(
    open_stage, place, warnings
):
    _finish(open_stage(), 9)
    _flip(place / "result" / "0")
    stage = open_stage(OTHER)
    assert stage.accept({"code"}) is None
    assert warnings
    _finish(stage, 10)
    assert open_stage().result() is None
    _assert_is(open_stage(OTHER).result(), 10)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"config": "1"}'])
def test_a_damaged_key_file_hides_no_result_and_stops_nothing(open_stage, place, content):
    _finish(open_stage(), 9)
    (place / "key.json").unlink()
    if content is not None:
        (place / "key.json").write_text(content)
    _assert_is(open_stage().result(), 9)
    other = open_stage(OTHER)
    assert other.result() is None
    assert "code" in other.why() or not other.why()
    _finish(other, 10)


# Saves are read back.


@pytest.mark.parametrize("save", [lambda stage: stage.finish(_tree(9)), lambda stage: _save(stage, 9)])
def test_a_save_that_reads_back_differently_does_not_count(open_stage, monkeypatch, save):
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", lambda *_, **__: _tree(8))
        with pytest.raises(UserError, match="is not what was saved"):
            save(open_stage())
    again = open_stage()
    assert again.result() is None
    assert again.restore() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what tensorstore leaves
def test_arrays_that_orbax_loses_are_missed(open_stage, tmp_path):
    stage = open_stage(directory=tmp_path / "a[b]c")
    with pytest.raises(UserError, match="cannot be read"):
        stage.finish(_tree(9))
    assert open_stage(directory=tmp_path / "a[b]c").result() is None


@pytest.mark.parametrize("save", [lambda stage, tree: stage.finish(tree), lambda s, t: s.save(t, 1)])
def test_a_full_disk_is_told_and_does_not_count(open_stage, place, save):
    large = {"a": np.random.default_rng(0).random(100_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match=f"{place}.* cannot be written"):
            save(open_stage(), large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    stage = open_stage()
    assert stage.result() is None
    assert stage.restore() is None
    _finish(stage, 9)
    _assert_is(open_stage().result(), 9)


# Readers.


def test_a_reader_reads_the_latest_result_or_that_of_one_key(open_stage, place):
    _finish(open_stage(), 9)
    _finish(open_stage(OTHER), 10)
    _assert_is(checkpoint.read_result(place), 9)
    _assert_is(checkpoint.read_result(place.parent), 10)
    assert checkpoint.has_result(place)


@pytest.mark.parametrize("damage", [None, *DAMAGES])
def test_a_reader_leaves_everything_as_it_is(open_stage, place, damage):
    _finish(open_stage(), 9)
    _save(open_stage(OTHER), 1)
    (place / "result/0.orbax-checkpoint-tmp-1").mkdir()
    if damage is not None:
        damage(place / "result" / "0")
    before = _content(place.parent)
    if damage is None:
        _assert_is(checkpoint.read_result(place.parent), 9)
    else:
        with pytest.raises(UserError, match=f"{place} is damaged"):
            checkpoint.read_result(place.parent)
    assert _content(place.parent) == before


def test_a_reader_of_what_has_not_finished_is_told(open_stage, place):
    _save(open_stage(), 1)
    for directory in (place, place.parent, place.parent / "nowhere"):
        assert not checkpoint.has_result(directory)
        with pytest.raises(UserError, match="has no result"):
            checkpoint.read_result(directory)
