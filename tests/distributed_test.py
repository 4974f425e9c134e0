"""One run on other numbers of devices and processes: the same to the bit, and resumed across them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import INTERRUPTING, SMALL, document

from kernelgan import distributed
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
_START = """
import os, sys
from pathlib import Path
import numpy as np
from kernelgan import distributed, environment
from kernelgan.types import UserError

coordinator, processes, process = sys.argv[1:4]
environment.configure("cpu")
if coordinator:
    distributed.join(coordinator, int(processes), int(process), patience=60)
"""

_TRAINING = """
from kernelgan import engine, losses, models, population
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey

directory, fails_in, chunk_size = Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
import jax

class Saver(Stage):
    saves = 0
    def save(self, tree, step):
        super().save(tree, step)
        Saver.saves += 1
        if Saver.saves == fails_in:
            raise OSError(28, "No space left on device")

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (48, 12, 12, 3), dtype=np.uint8)
halves = (np.arange(16, dtype=np.int32), np.arange(16, 32, dtype=np.int32))
rest = (np.arange(32, 40, dtype=np.int32), np.arange(40, 48, dtype=np.int32))
zeros = np.zeros(5, np.int32)
people = population.Population(("x",) * 5, np.arange(5, dtype=np.int32), zeros, zeros, (halves,), (rest,),
                               (np.arange(48)[None] % 2).astype(np.int8))
def train(saver):
    return population.train(
        models.ConvNet((2,), 3), images, people, population.Training(2, 16, 8, 0.01, (1.0, 1.0)),
        loss=losses.cross_entropy, metrics=population.binary_metrics, seed=0, chunk_size=chunk_size,
        saver=saver,
    )

def keep(trained):
    np.savez(directory / f"found{fails_in}.npz", *jax.tree.leaves(trained))

if fails_in == 1:
    keep(train(engine.NOWHERE))
try:
    trained = train(Saver(directory / "zoo", StageKey({}), seconds=0))
except (UserError, OSError) as error:
    print("error:", error, flush=True)
    distributed.abandon(2)
    sys.exit(2)
if distributed.leave():
    keep(trained)
"""


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _start(program, *arguments, devices=1, place=("", 1, 0)):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, (*place, *arguments))],
        env=os.environ
        | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        | {"XLA_FLAGS": ""},  # the same bits on any number of devices are promised of XLA as it comes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ended(running):
    """The exit statuses, and what was said."""
    said = [one.communicate(timeout=300)[0] for one in running]
    return [one.returncode for one in running], said


def _run(program, *arguments, devices=1, processes=1):
    address = f"127.0.0.1:{_free_port()}" if processes > 1 else ""
    return _ended(
        [
            _start(program, *arguments, devices=devices, place=(address, processes, process))
            for process in range(processes)
        ]
    )


def _train(directory, *, fails_in=0, chunk_size=3, **where):
    directory.mkdir(exist_ok=True)
    statuses, said = _run(_START + _TRAINING, directory, fails_in, chunk_size, **where)
    return statuses, said, _arrays(directory / f"found{fails_in}.npz")


def _arrays(file):
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_run_goes_on_with_other_devices_processes_and_chunks(tmp_path):
    """On one device; then on 2 processes until process 0 cannot write, which ends both; then to its end.

    The first trains the whole, too, before it fails.
    """
    statuses, said, expected = _train(tmp_path / "run", fails_in=1)
    assert statuses == [2], said
    statuses, said, found = _train(tmp_path / "run", processes=2, devices=2, fails_in=2, chunk_size=4)
    assert (statuses, found) == ([2, 2], None), said
    for number in range(2):
        assert "No space left on device" in said[number].splitlines()[-1]
        assert "Traceback" not in said[number]
    assert "resuming from" in said[0]
    statuses, said, found = _train(tmp_path / "run", processes=2, chunk_size=2)
    assert statuses == [0, 0], said
    assert "resuming from" in said[0]
    assert "resuming from" not in said[1]
    _assert_same(found, expected)


_TALK = """
number = int(process)

def told(function):
    try:
        return function()
    except UserError as error:
        return f"refused: {error}"

def fails_on(*numbers):
    def fail():
        if number in numbers:
            raise UserError(f"bad data on {number}")
        return number
    return fail

def stops():
    if number == 1:
        raise OSError("no such disk")

assert distributed.is_together() and distributed.is_first() == (number == 0)
assert distributed.gather("x" * number * 5) == ["", "xxxxx"]
assert distributed.first(lambda: {"who": number, "what": np.arange(3)})["who"] == 0
assert told(lambda: distributed.first(fails_on(0))) == "refused: bad data on 0"
assert told(lambda: distributed.first(fails_on(1))) == 0  # it is not called there
assert distributed.everywhere(fails_on(), lambda result: "same") == number
assert told(lambda: distributed.everywhere(fails_on(0, 1), str)) == "refused: bad data on 0"
assert told(lambda: distributed.everywhere(fails_on(1), str)) == "refused: process 1: bad data on 1"
assert "different photographs" in told(lambda: distributed.everywhere(fails_on(), str, "photographs"))
try:
    distributed.everywhere(stops, str)
except UserError as error:
    assert number == 0 and "process 1" in str(error) and "no such disk" in str(error)
except OSError:
    assert number == 1
with distributed.silent_unless_first():
    print("progress")
print("own words")
assert distributed.leave() == (number == 0) == distributed.is_first()
assert not distributed.is_together()
"""


def test_what_processes_tell_each_other():
    statuses, said = _run(_START + _TALK, processes=2)
    assert statuses == [0, 0], said
    assert ["progress" in words for words in said] == [True, False]
    assert all("own words" in words for words in said)


_LOSING = """
if int(process) == 1:
    os._exit(9)
try:
    distributed.gather(1)
except UserError as error:
    print("error:", error, flush=True)
    distributed.abandon(2)
"""


def test_a_process_that_was_killed_is_told_in_one_line():
    statuses, said = _run(_START + _LOSING, processes=2)
    assert statuses == [2, 9], said
    assert "error: another process of this run has ended" in said[0].splitlines()[-1]
    assert "Traceback" not in said[0]


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_never_comes_is_waited_for_and_told_in_one_line(process):
    impatient = _START.replace("patience=60", "patience=1")
    statuses, said = _ended([_start(impatient, place=(f"127.0.0.1:{_free_port()}", 2, process))])
    assert statuses == [2], said
    first, last = said[0].splitlines()
    assert f"process {process} of 2: waiting for the others at 127.0.0.1:" in first
    assert last.startswith("error: not all processes of this run came to 127.0.0.1:")


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--coordinator={address}: process 0 cannot listen on port"):
            distributed.join(address, 2, 0)


@pytest.mark.parametrize("address", ["node0", "node0:", "node0:http"])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(UserError, match=f"--coordinator={address}; expected HOST:PORT"):
        distributed.join(address, 2, 0)


def test_a_port_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="process 0 cannot listen on port 70000"):
        distributed.join("127.0.0.1:70000", 2, 0)


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (RuntimeError("Unable to initialize backend 'cuda': no such plugin"), "JAX_PLATFORMS=cuda"),
        (AssertionError(), "JAX_PLATFORMS=cuda"),
        (RuntimeError("DEADLINE_EXCEEDED: nobody came"), "cannot be reached"),
    ],
)
def test_a_platform_that_is_not_there_is_told_from_processes_that_do_not_come(error, fact, monkeypatch):
    def initialize(**_):
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(distributed.jax.config, "update", lambda *_: None)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=fact):
        distributed.join(f"127.0.0.1:{_free_port()}", 2, 0)


@pytest.mark.parametrize(("processes", "process"), [(0, 0), (2, 2), (2, -1)])
def test_a_place_among_the_processes_that_cannot_be_is_refused(processes, process):
    with pytest.raises(
        UserError, match=f"--processes={processes} and --process={process}; expected how many"
    ):
        distributed.join("127.0.0.1:1", processes, process)


# Through launch.py.

FIELDS = SMALL | {"baselines.methods": ("average",)}  # what else trains does so by the zoos' own function


def _launch(workdir, *flags, place=(), cwd=ROOT, interrupted_at=""):
    program = ["-c", INTERRUPTING, interrupted_at, "1", str(int(signal.SIGINT))]
    return subprocess.Popen(
        [
            sys.executable,
            *(program if interrupted_at else [str(ROOT / "launch.py")]),
            f"--config={ROOT}/configs/tiny.py",
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in FIELDS.items()),
            *place,
            *flags,
        ],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _both(workdir, *flags, folders=(ROOT, ROOT), interrupted_at=""):
    """Two processes; the first is interrupted at a file, see `INTERRUPTING`."""
    address = f"--coordinator=127.0.0.1:{_free_port()}"
    places = [(address, "--processes=2", f"--process={process}") for process in range(2)]
    return [
        _launch(workdir, *flags, place=place, cwd=folder, interrupted_at="" if number else interrupted_at)
        for number, (place, folder) in enumerate(zip(places, folders, strict=True))
    ]


def _errors(words):
    return [line for line in words.splitlines() if line.startswith("error: ")]


def test_a_file_that_one_process_lacks_ends_both_with_one_line(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first" / "mine.py").write_text(
        "from kernelgan import generators\n"
        "def make(network, config):\n"
        "    return generators.stateless(lambda key, parents, probes: parents.attribute)\n"
    )
    folders = (tmp_path / "first", tmp_path / "second")
    statuses, said = _ended(_both(tmp_path / "run", "--generator=mine.py", folders=folders))
    assert statuses == [2, 2], said
    for words in said:
        (line,) = _errors(words)
        assert "process 1: " in line
        assert "mine.py" in line
        assert "Traceback" not in words


def test_a_whole_run_on_two_processes_ends_in_the_same_results(finished, tmp_path):
    """Interrupted before its zoos begin, and continued to its end; a finished run is shown again."""
    statuses, said = _ended(_both(tmp_path / "two", "--stage=zoo", interrupted_at=r"/plan\.json$"))
    assert statuses[0] == 130, said
    assert statuses[1] != 0, said  # by itself or, if that is faster, by JAX, which aborts it
    assert "interrupted; the same command" in said[0]
    assert "Traceback" not in said[0]
    assert not (tmp_path / "two/checkpoints/zoo").exists()

    statuses, said = _ended(_both(tmp_path / "two"))
    assert statuses == [0, 0], said
    assert "in 2 processes" in said[0]
    assert "report: " in said[0]
    assert "zoo" not in said[1]
    found, wanted = (_arrays(run / "arrays.npz") for run in (tmp_path / "two", finished))
    left_out = {"embedding_quadrant", "contact_sheet", "distilled", "trained_on_conjunction"}
    compared = [name for name in wanted if not left_out & set(name.split("/"))]
    assert {name.split("/")[-1] for name in compared} >= {"average", "cyclegan_a2b", "cyclegan_b2a", "random"}
    _assert_same({name: found[name] for name in compared}, {name: wanted[name] for name in compared})
    found, wanted = (document(run)["pairs"][0]["methods"] for run in (tmp_path / "two", finished))
    assert found["cyclegan_a2b"]["placebos"] == wanted["cyclegan_a2b"]["placebos"]

    statuses, said = _ended(_both(tmp_path / "two"))
    assert statuses == [0, 0], said
    assert "finished before" in said[0]
    assert "report: " in said[0]
    assert "report: " not in said[1]
