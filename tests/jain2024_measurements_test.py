"""Tests for studies.jain2024.measurements: what is kept, read again, and said when a worker dies."""

import os
import signal
import sys

import numpy as np
import pytest
from jain2024_archive import AtOnce

from kernelgan.types import UserError
from studies.jain2024 import measurements, protocol

POSITIVE = np.arange(12) < 5
SETTINGS = protocol.Settings((47, 0), (1, 0), radii=(3.0, 2.0), minimum_samples=(3,), nu=0.1)
COUNT = 25
VALUES = np.arange(COUNT, dtype=np.float32)[:, None, None] + np.zeros((12, 3), np.float32)
"""Features of networks; each network's are its number."""


def _expected(numbers):
    return np.broadcast_to(np.array(numbers, float)[:, None, None, None], (len(numbers), *SETTINGS.shape))


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """``measure(members, fail)``: figures of these of `COUNT` networks, and which were measured, in here.

    ``fail(number)`` may raise instead of a network's being measured.
    """

    def run(members=range(COUNT), fail=lambda number: None, told=None):
        done = []

        def figures(values, positive, settings):
            number = int(values[0, 0])
            fail(number)
            done.append(number)
            return _expected([number])[0]

        def features(missing):
            for start in range(0, len(missing), 4):
                part = missing[start : start + 4]
                yield part, VALUES[part]

        monkeypatch.setattr(protocol, "measure", figures)
        found = measurements.measure(
            *(AtOnce(), tmp_path / "figures/random.npy", COUNT, np.array(members, int), features),
            *(POSITIVE, SETTINGS, lambda *now: told.append(now) if told is not None else None),
        )
        return found, done

    return run


@pytest.mark.parametrize(
    ("first", "then", "new"),
    [
        ((), range(COUNT), range(COUNT)),
        ((3, 7, 9), (9, 4, 3, 12), (4, 12)),
        ((1, 2, 3), (3, 1), ()),
    ],
)
def test_each_network_is_measured_once_and_kept_in_its_place(measure, tmp_path, first, then, new):
    measure(first)
    told = []
    found, done = measure(then, told=told)
    np.testing.assert_array_equal(found, _expected(list(then)))
    assert done == list(new)
    if new:
        assert (told[0], told[-1]) == ((len(then) - len(new), len(then)), (len(then), len(then)))
    kept = np.load(tmp_path / "figures/random.npy")
    known = sorted({*first, *then})
    np.testing.assert_array_equal(kept[known], _expected(known))
    assert np.isnan(np.delete(kept, known, axis=0)).all()


def test_what_was_measured_before_a_failure_is_not_measured_again(measure, killed):
    def fail(number):
        if number == 11:
            raise killed

    with pytest.raises(killed):
        measure(fail=fail)
    found, done = measure()
    np.testing.assert_array_equal(found, _expected(range(COUNT)))
    assert done == list(range(11, COUNT))


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "header": lambda content: content.replace(b"}", b"{"),
}


@pytest.mark.parametrize("damage", [*DAMAGES, "another shape", "another type"])
def test_a_damaged_file_or_another_s_counts_as_nothing(measure, tmp_path, damage):
    expected, _ = measure()
    file = tmp_path / "figures/random.npy"
    if damage in DAMAGES:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    else:
        shape = (COUNT + (damage == "another shape"), *SETTINGS.shape)
        np.save(file, np.zeros(shape, float if damage == "another shape" else np.float32))
    _, done = measure()
    assert len(done) == COUNT
    np.testing.assert_array_equal(np.load(file), expected)


def test_a_dying_worker_is_told_and_what_was_measured_is_kept(tmp_path):
    """Real processes. Their features are constant, so that they need no UMAP."""

    def features(missing, kill=True):
        for number in missing:
            if kill and number == 6:
                os.kill(next(iter(pool._processes)), signal.SIGKILL)
            yield np.array([number]), np.full((1, 12, 3), number, np.float32)

    def measure(stream):
        given = (tmp_path / "random.npy", 10, np.arange(10), stream, POSITIVE, SETTINGS)
        return measurements.measure(pool, *given, lambda done, total: None)

    with pytest.raises(UserError, match="--processes=1"), measurements.workers(1) as pool:
        measure(features)
    kept = ~np.isnan(np.load(tmp_path / "random.npy")[:, 0, 0, 0])
    np.testing.assert_array_equal(np.flatnonzero(kept), range(6))
    with measurements.workers(1) as pool:
        figures = measure(lambda missing: features(missing, kill=False))
        umap, devices = pool.submit(_loaded).result()
    np.testing.assert_array_equal(
        figures, np.broadcast_to(protocol.judge(np.zeros(12, int), POSITIVE), figures.shape)
    )
    assert not umap  # slow: only when something is embedded
    assert not devices  # they are the parent's


def _loaded():
    bridge = sys.modules.get("jax._src.xla_bridge")
    return "umap" in sys.modules, bool(bridge and bridge._backends)
