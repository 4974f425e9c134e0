"""One run on other numbers of devices and processes: the same to the bit, and resumed across them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernelgan import cluster
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from kernelgan import cluster, cyclegan, environment, models, population
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey
from kernelgan.types import UserError

directory, dies_after, coordinator, processes, process = sys.argv[1:]
environment.configure("cpu")
if coordinator:
    cluster.join(coordinator, int(processes), int(process))
    if not cluster.is_first():
        cluster.follow()
        sys.exit()

class Saver(Stage):
    saves = 0
    def save(self, make_tree, step):
        super().save(make_tree, step)
        type(self).saves += 1
        if type(self).saves == int(dies_after):
            raise UserError("killed")
        if type(self).saves == -int(dies_after):
            raise KeyboardInterrupt

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (48, 12, 12, 3), dtype=np.uint8)
halves = (np.arange(16, dtype=np.int32), np.arange(16, 32, dtype=np.int32))
rest = (np.arange(32, 40, dtype=np.int32), np.arange(40, 48, dtype=np.int32))
zeros = np.zeros(5, np.int32)
people = population.Population(("x",) * 5, np.arange(5, dtype=np.int32), zeros, zeros, (halves,), (rest,),
                               (np.arange(48)[None] % 2).astype(np.int8))
try:
    params, history = population.train(
        models.ConvNet((2, 3), 3), images, people, population.Training(2, 16, 8, 0.01, (1.0, 1.0)),
        loss=population.cross_entropy, metrics=population.binary_metrics, seed=0, chunk_size=3,
        saver=Saver(Path(directory) / "zoo", StageKey({}), seconds=0), progress=lambda *_: None,
    )
    volumes = {"conv1": tuple(rng.uniform(-1, 1, (3, 5, 2, 3, 3, 1)).astype(np.float32) for _ in "AB")}
    translators, losses = cyclegan.train(
        volumes, {"conv1": cyclegan.Translation(2, 2, 1e-3)}, pairs=(5, 6, 7), hidden=4, cycle=10.0,
        identity=0.0, steps_per_call=2, seed=0, progress=lambda *_: None,
        saver=Saver(Path(directory) / "cyclegan", StageKey({}), seconds=0),
    )
except UserError:
    cluster.leave(3)
    sys.exit(3)
except KeyboardInterrupt:
    cluster.leave(4)
cluster.dismiss()
import jax
leaves = jax.tree.leaves((params, history, translators, losses))
np.savez(Path(directory) / "found.npz", *leaves)
"""


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _start(directory, *, devices, dies_after=0, coordinator="", processes=0, process=-1):
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, directory, *map(str, (dies_after, coordinator, processes, process))],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(directory, *, devices, processes=1, **options):
    """What a run leaves; its exit status is that of the first process."""
    directory.mkdir(exist_ok=True)
    together = {"coordinator": f"127.0.0.1:{_free_port()}", "processes": processes} if processes > 1 else {}
    running = [
        _start(directory, devices=devices, **options, **(together | {"process": n} if together else {}))
        for n in range(processes)
    ]
    said = [one.communicate(timeout=180)[0] for one in running]
    file = directory / "found.npz"
    found = None
    if file.exists():
        with np.load(file) as arrays:
            found = [arrays[name] for name in arrays.files]
    return [one.returncode for one in running], found, said


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    statuses, found, said = _run(tmp_path_factory.mktemp("one") / "run", devices=1)
    assert statuses == [0], said
    return found


def _assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("devices", [2, 4])
def test_several_devices_give_the_same_bits(on_one_device, tmp_path, devices):
    statuses, found, said = _run(tmp_path / "run", devices=devices)
    assert statuses == [0], said
    _assert_same(found, on_one_device)


def test_two_processes_give_the_same_bits_and_go_on_where_four_devices_stopped(on_one_device, tmp_path):
    statuses, found, said = _run(tmp_path / "run", devices=4, dies_after=3)
    assert (statuses, found) == ([3], None), said
    statuses, found, said = _run(tmp_path / "run", devices=1, processes=2)
    assert statuses == [0, 0], said
    assert "resuming from" in said[0]
    _assert_same(found, on_one_device)


def test_a_run_that_stops_lets_the_other_process_go(on_one_device, tmp_path):
    statuses, found, said = _run(tmp_path / "run", devices=1, processes=2, dies_after=2)
    assert (statuses, found) == ([3, 0], None), said
    statuses, found, said = _run(tmp_path / "run", devices=2)  # and one process goes on alone
    assert "resuming from" in said[0]
    _assert_same(found, on_one_device)


def test_a_first_process_that_is_interrupted_ends_and_so_does_the_other(tmp_path):
    statuses, found, said = _run(tmp_path / "run", devices=1, processes=2, dies_after=-1)
    assert (statuses[0], found) == (4, None), said
    assert statuses[1] != 0, said  # by itself or, if that is faster, by JAX, which aborts it


def _launch(workdir, *flags, process=None, port=0):
    small = {"data.image_size": 16, "model.filters": (2, 2), "model.kernel_size": 3, "evaluate.bootstrap": 10}
    place = (
        []
        if process is None
        else ["--processes=2", f"--process={process}", f"--coordinator=127.0.0.1:{port}"]
    )
    given = [f"--config.{name}={value}" for name, value in small.items()]
    return subprocess.Popen(
        [
            sys.executable,
            "launch.py",
            "--config=configs/tiny.py",
            f"--workdir={workdir}",
            *given,
            *place,
            *flags,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _both(workdir, *flags):
    port = _free_port()
    running = [_launch(workdir, *flags, process=process, port=port) for process in range(2)]
    said = [one.communicate(timeout=240)[0] for one in running]
    return [one.returncode for one in running], said


def test_a_whole_run_on_two_processes_ends_in_the_same_results(tmp_path):
    statuses, said = _both(tmp_path / "two")
    assert statuses == [0, 0], said
    assert "in 2 processes" in said[0]
    alone = _launch(tmp_path / "one")
    alone.communicate(timeout=240)
    with np.load(tmp_path / "two" / "arrays.npz") as two, np.load(tmp_path / "one" / "arrays.npz") as one:
        assert two.files == one.files
        for name in one.files:
            np.testing.assert_array_equal(two[name], one[name], err_msg=name)


def test_bad_data_on_the_first_process_ends_both(tmp_path):
    statuses, said = _both(tmp_path / "run", "--config.data.source=folder", "--config.data.folder=nowhere")
    assert statuses == [2, 0], said
    assert "error: " in said[0]


@pytest.mark.parametrize("address", ["node0", "node0:", "node0:http"])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(UserError, match=f"--coordinator={address}; expected HOST:PORT"):
        cluster.join(address, 2, 0)


@pytest.mark.parametrize(("processes", "process"), [(0, 0), (2, 2), (2, -1)])
def test_a_place_among_the_processes_that_cannot_be_is_refused(processes, process):
    with pytest.raises(
        UserError, match=f"--processes={processes} and --process={process}; expected how many"
    ):
        cluster.join("127.0.0.1:1", processes, process)
