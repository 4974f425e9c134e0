"""Tests for studies.jain2024.measurements: what is kept, found again, and said when a worker dies.

Nearly all tests measure in threads of this process, or at once; one starts real processes and kills one.
"""

import concurrent.futures
import os
import signal
import sys
import threading

import numpy as np
import pytest

from kernelgan.types import UserError
from studies.jain2024 import measurements, protocol
from studies.jain2024.measurements import Measurements

POSITIVE = np.arange(12) < 5
SETTINGS = protocol.Settings(kmeans_seeds=(1, 0), radii=(3.0, 2.0), minimum_samples=(3,), nu=0.1)
SEEDS = (47, 0)
SHAPE = (len(SEEDS), 5, len(protocol.FIGURES))
COUNT = 25
VALUES = np.arange(COUNT, dtype=np.float32)[:, None, None] + np.zeros((12, 3), np.float32)
"""Features of networks; each network's are its number."""


class AtOnce(concurrent.futures.Executor):
    """Does everything as it is submitted."""

    def submit(self, function, /, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """``measure(members)``: figures of these of `COUNT` networks, and which were measured; all in here."""

    def run(
        members=range(COUNT),
        *,
        executor=None,
        told=None,
        given=None,
        seconds=0.0,
        processes=2,
        name="random",
        fail=None,
        task=1,
    ):
        """``fail(number)`` may raise instead of a network's being measured; ``task`` networks at a time."""
        done = []
        seconds_a_task = measurements._SECONDS_A_NETWORK * len(SEEDS) * (task + 0.5)
        monkeypatch.setattr(measurements, "_SECONDS_A_TASK", seconds_a_task)

        def figures(values, positive, seeds, settings):
            numbers = values[:, 0, 0].astype(int).tolist()
            for number in numbers:
                if fail is not None:
                    fail(number)
                done.append(number)
            return _expected(numbers, seeds, settings)

        def features(missing):
            if given is not None:
                given.append(missing.tolist())
            for start in range(0, len(missing), 4):
                part = missing[start : start + 4]
                yield part, VALUES[part]

        monkeypatch.setattr(protocol, "measure_many", figures)
        monkeypatch.setattr(Measurements, "_workers", lambda self: executor or AtOnce())
        progress = (lambda *now: told.append(now)) if told is not None else (lambda *now: None)
        with Measurements(tmp_path / "figures", POSITIVE, processes=processes, seconds=seconds) as found:
            try:
                numbers = np.array(members, int)
                return found.of(name, COUNT, numbers, features, SEEDS, SETTINGS, progress), done
            except UserError as error:
                return error, done

    return run


def _expected(numbers, seeds=SEEDS, settings=SETTINGS):
    """Figures that tell networks and seeds apart."""
    shape = (len(numbers), len(seeds), settings.clusterings, len(protocol.FIGURES))
    base = np.array(numbers, float)[:, None] + np.array(seeds) / 100
    return np.broadcast_to(base[:, :, None, None], shape)


@pytest.mark.parametrize("task", [1, 3])
def test_all_are_measured_and_kept(measure, tmp_path, task):
    told, given = [], []
    found, done = measure(told=told, given=given, task=task)
    np.testing.assert_array_equal(found, _expected(range(COUNT)))
    assert found.shape == (COUNT, *SHAPE)
    assert sorted(done) == given[0] == list(range(COUNT))
    assert told[0] == (0, COUNT)
    assert told[-1] == (COUNT, COUNT)
    assert all(total == COUNT for _, total in told)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    np.testing.assert_array_equal(np.load(tmp_path / "figures/random.npy"), found)
    told.clear()
    again, done = measure(told=told, given=given)
    np.testing.assert_array_equal(again, found)
    assert done == told == given[1:] == []
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["random.npy"]


def test_a_name_is_a_population(measure):
    measure()
    _, done = measure(name="gaussian")
    assert len(done) == COUNT


def test_members_are_given_in_the_order_asked_and_kept_in_the_populations(measure, tmp_path):
    told, given = [], []
    found, done = measure((9, 2, 17), told=told, given=given)
    np.testing.assert_array_equal(found, _expected((9, 2, 17)))
    assert done == given[0] == [9, 2, 17]
    assert (told[0], told[-1]) == ((0, 3), (3, 3))
    kept = np.load(tmp_path / "figures/random.npy")
    assert kept.shape == (COUNT, *SHAPE)
    np.testing.assert_array_equal(kept[[9, 2, 17]], found)
    assert np.isnan(np.delete(kept, (2, 9, 17), axis=0)).all()


@pytest.mark.parametrize(
    ("first", "then", "new"),
    [
        ((3, 7, 9), (9, 4, 3, 12), (4, 12)),
        ((1, 2, 3), (4, 5, 6), (4, 5, 6)),  # as many, and others
        ((1, 2, 3), (3, 1, 2), ()),
        ((1, 2, 3), (2,), ()),
        ((2,), range(COUNT), sorted({*range(COUNT)} - {2})),
        (range(COUNT), (24, 0), ()),
        ((), (5,), (5,)),
    ],
)
def test_another_choice_of_members_measures_the_new_ones_and_mixes_none_up(measure, first, then, new):
    measure(first)
    told, given = [], []
    found, done = measure(then, told=told, given=given)
    np.testing.assert_array_equal(found, _expected(list(then)))
    assert done == list(new)
    assert given == ([list(new)] if new else [])
    if new:
        assert (told[0], told[-1]) == ((len(then) - len(new), len(then)), (len(then), len(then)))
    again, done = measure(first)
    np.testing.assert_array_equal(again, _expected(list(first)))  # what was measured first is still kept
    assert done == []


def test_another_choice_after_a_failure_takes_what_was_measured(measure, killed, tmp_path):
    def fail(number):
        if number == 11:
            raise killed

    with pytest.raises(killed):
        measure((20, 3, 8, 5, 16, 1, 11, 2), fail=fail)
    kept = ~np.isnan(np.load(tmp_path / "figures/random.npy")[:, 0, 0, 0])
    assert 0 < kept.sum() < 8
    then = [2, 20, 4, 3]
    found, done = measure(then)
    np.testing.assert_array_equal(found, _expected(then))
    assert done == [number for number in then if not kept[number]]


def test_tasks_that_end_out_of_order_are_put_in_their_places(measure):
    later, told = threading.Event(), []

    def wait(number):
        if number == 0:
            assert later.wait(30)
        if number == 6:
            later.set()

    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        found, done = measure(executor=executor, fail=wait, processes=4, told=told)
    assert done.index(0) > done.index(5)
    np.testing.assert_array_equal(found, _expected(range(COUNT)))
    assert told[-1] == (COUNT, COUNT)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_what_was_measured_before_a_failure_is_not_measured_again(measure, killed, seconds, tmp_path):
    def fail(number):
        if number == 11:
            raise killed

    told, given = [], []
    with pytest.raises(killed):
        measure(fail=fail, told=told, seconds=seconds)
    missing = np.flatnonzero(np.isnan(np.load(tmp_path / "figures/random.npy")[:, 0, 0, 0])).tolist()
    before = COUNT - len(missing)
    assert 4 <= told[-1][0] <= before < COUNT
    told.clear()
    found, done = measure(told=told, given=given, seconds=seconds)
    np.testing.assert_array_equal(found, _expected(range(COUNT)))
    assert given == [sorted(done)] == [missing]
    assert told[0] == (before, COUNT)
    assert told[-1] == (COUNT, COUNT)


def test_a_killed_process_loses_what_came_since_the_last_save(measure, killed, monkeypatch):
    """Not even a last save: the process is gone."""
    write, saves = measurements._write, []

    def dying(file, found):
        saves.append(int(np.sum(~np.isnan(found[:, 0, 0, 0]))))
        if len(saves) > 3:
            raise killed
        write(file, found)

    monkeypatch.setattr(measurements, "_write", dying)
    with pytest.raises(killed):
        measure()
    monkeypatch.setattr(measurements, "_write", write)
    found, done = measure()
    assert 0 < saves[2] < COUNT
    assert len(done) == COUNT - saves[2]
    np.testing.assert_array_equal(found, _expected(range(COUNT)))


def test_saves_are_no_more_frequent_than_asked(measure, monkeypatch):
    write, saves = measurements._write, []
    monkeypatch.setattr(measurements, "_write", lambda *given: saves.append(0) or write(*given))
    measure(seconds=1e9)
    assert len(saves) == 1  # the last


def _flipped(content):
    return bytes(byte ^ 0xFF for byte in content[:100]) + content[100:]


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "junk": lambda content: b"junk" * 99,
    "zip": lambda content: b"PK\x03\x04" * 99,
    "flipped": _flipped,
    "brace": lambda content: content.replace(b"}", b"{"),
    "number": lambda content: content.replace(b"'fortran_order'", b"b'ortran_order'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_nothing(measure, tmp_path, damage):
    expected, _ = measure()
    file = tmp_path / "figures/random.npy"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    found, done = measure()
    assert len(done) == COUNT
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.load(file), expected)


@pytest.mark.parametrize(
    "other", [np.zeros((COUNT + 1, *SHAPE)), np.zeros((COUNT, *SHAPE), np.float32), np.array({}, object)]
)
def test_a_file_of_something_else_counts_as_nothing(measure, tmp_path, other):
    (tmp_path / "figures").mkdir()
    np.save(tmp_path / "figures/random.npy", other, allow_pickle=True)
    found, done = measure()
    assert len(done) == COUNT
    np.testing.assert_array_equal(found, _expected(range(COUNT)))


@pytest.mark.parametrize("count", [0, COUNT])
def test_a_choice_of_none(tmp_path, count):
    with Measurements(tmp_path / "figures", POSITIVE, processes=1, seconds=0) as found:
        figures = found.of("none", count, np.zeros(0, int), None, SEEDS, SETTINGS, None)
    assert figures.shape == (0, *SHAPE)
    assert not (tmp_path / "figures").exists()


def test_there_are_as_many_workers_as_cores_wherever_that_is_known(tmp_path, monkeypatch):
    def workers(processes=0):
        return Measurements(tmp_path, POSITIVE, processes=processes, seconds=0)._processes

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert (workers(), workers(2)) == (3, 2)
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS, Windows
    assert workers() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert workers() == 1


def test_a_dying_worker_is_told_and_what_was_measured_is_kept(tmp_path):
    """Real processes. Their features are constant, so that they need no UMAP."""
    seeds = tuple(range(20))  # a network a task
    given = []

    def features(missing, kill=True):
        for number in missing:
            given.append(int(number))
            if kill and number == 8:
                os.kill(next(iter(found._pool._processes)), signal.SIGKILL)
            yield np.array([number]), np.full((1, 12, 3), number, np.float32)

    def of(stream):
        return found.of("random", 10, np.arange(10), stream, seeds, SETTINGS, lambda done, total: None)

    with (
        Measurements(tmp_path, POSITIVE, processes=1, seconds=1e9) as found,
        pytest.raises(UserError, match=r"died.*measured is kept.*reference\.processes=1") as caught,
    ):
        of(features)
    assert "\n" not in str(caught.value)
    kept = ~np.isnan(np.load(tmp_path / "random.npy")[:, 0, 0, 0])
    assert 5 <= kept.sum() <= 8
    given.clear()
    with Measurements(tmp_path, POSITIVE, processes=1, seconds=0) as found:
        figures = of(lambda missing: features(missing, kill=False))
        process = next(iter(found._pool._processes.values()))
        loaded = found._workers().submit(_loaded).result()
    assert given == np.flatnonzero(~kept).tolist()
    expected = protocol.judge(np.zeros(12, int), POSITIVE)
    np.testing.assert_array_equal(figures, np.broadcast_to(expected, figures.shape))
    assert not process.is_alive()
    assert not loaded["umap"]  # slow: only when something is embedded
    assert not loaded["devices"]  # they are the parent's


def _loaded():
    bridge = sys.modules.get("jax._src.xla_bridge")
    return {"umap": "umap" in sys.modules, "devices": bool(bridge and bridge._backends)}
