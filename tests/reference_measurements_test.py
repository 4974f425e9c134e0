"""Tests for kernelgan.reference.measurements: what is kept, found again, and said when a worker dies.

Nearly all tests measure in threads of this process, or at once; one starts real processes and kills one.
"""

import concurrent.futures
import os
import signal
import sys
import threading

import numpy as np
import pytest

from kernelgan.reference import measurements, protocol
from kernelgan.reference.measurements import Measurements
from kernelgan.types import UserError

POSITIVE = np.arange(12) < 5
SETTINGS = protocol.Settings(kmeans_seed=1, radii=(3.0, 2.0), minimum_samples=(3,), nu=0.1)
SEEDS = (47, 0)
SHAPE = (len(SEEDS), 4, len(protocol.FIGURES))
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
    """``measure(...)``: figures of `COUNT` networks, and which were measured; in this process."""

    def run(
        *, executor=None, told=None, given=None, seconds=0.0, processes=2, name="random", fail=None, task=1
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

        def features(places):
            if given is not None:
                given.append(places.tolist())
            for start in range(0, len(places), 4):
                part = places[start : start + 4]
                yield part, VALUES[part]

        monkeypatch.setattr(protocol, "measure_many", figures)
        monkeypatch.setattr(Measurements, "_workers", lambda self: executor or AtOnce())
        progress = (lambda *now: told.append(now)) if told is not None else (lambda *now: None)
        with Measurements(tmp_path / "figures", POSITIVE, processes=processes, seconds=seconds) as found:
            try:
                return found.of(name, COUNT, features, SEEDS, SETTINGS, progress), done
            except UserError as error:
                return error, done

    return run


def _expected(numbers, seeds=SEEDS, settings=SETTINGS):
    """Figures that tell networks and seeds apart."""
    shape = (len(numbers), len(seeds), 2 + len(settings.dbscans), len(protocol.FIGURES))
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


def test_a_population_of_none(tmp_path):
    with Measurements(tmp_path, POSITIVE, processes=1, seconds=0) as found:
        assert found.of("none", 0, lambda places: [], SEEDS, SETTINGS, None).shape == (0, *SHAPE)


def test_a_dying_worker_is_told_and_what_was_measured_is_kept(tmp_path):
    """Real processes. Their features are constant, so that they need no UMAP."""
    seeds = tuple(range(20))  # a network a task
    given = []

    def features(places, kill=True):
        for place in places:
            given.append(int(place))
            if kill and place == 8:
                os.kill(next(iter(found._pool._processes)), signal.SIGKILL)
            yield np.array([place]), np.full((1, 12, 3), place, np.float32)

    def of(stream):
        return found.of("random", 10, stream, seeds, SETTINGS, lambda done, total: None)

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
        figures = of(lambda places: features(places, kill=False))
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
