"""One run on other numbers of devices and processes: the same to the bit, and resumed across them."""

import contextlib
import signal
import socket
from pathlib import Path

import forks
import numpy as np
import pytest
from tiny_runs import INTERRUPTING, SMALL, document

from kernelgan import distributed
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
_START = """
import os, sys
from pathlib import Path
import jax
import numpy as np
from kernelgan import distributed, environment
from kernelgan.types import UserError

coordinator, processes, process, patience, devices = sys.argv[1:6]
os.environ["JAX_NUM_CPU_DEVICES"] = devices
os.environ["XLA_FLAGS"] = ""  # the same bits on any number of devices are promised of XLA as it comes
jax.config.update("jax_num_cpu_devices", int(devices))
environment.configure("cpu")
if coordinator:
    distributed.join(coordinator, int(processes), int(process), patience=int(patience))
"""

_TRAINING = """
from kernelgan import engine, losses, models, population
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey

directory, fails_in, chunk_size = Path(sys.argv[6]), int(sys.argv[7]), int(sys.argv[8])

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
assert distributed.leave() == distributed.is_first()
assert not distributed.is_together()
if distributed.is_first():
    keep(trained)
"""


def _addresses(count):
    """So many addresses that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{found.getsockname()[1]}" for found in sockets]


def _program(folder, text):
    (folder / "program.py").write_text(_START + text)
    return str(folder / "program.py")


def _arrays(file):
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
    program, addresses = _program(tmp_path, _TRAINING), _addresses(2)

    def attempt(address, devices, fails_in, chunk_size):
        what = (devices, str(tmp_path), str(fails_in), chunk_size)
        count = 2 if address else 1
        return [(program, address, str(count), str(number), "60", *what) for number in range(count)]

    attempts = [attempt("", "1", 1, "3"), attempt(addresses[0], "2", 2, "4")]
    attempts.append(attempt(addresses[1], "1", 0, "2"))
    modules = ("kernelgan.environment", "kernelgan.population", "kernelgan.checkpoint")
    alone, *failed, first, second = forks.run_all(attempts, tmp_path, modules=modules)
    for ended in (alone, *failed):
        assert ended.returncode == 2, ended
        assert "No space left on device" in ended.stdout.splitlines()[-1]
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "found2.npz").exists()
    assert "resuming from" in failed[0].stderr
    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    assert "resuming from" in first.stderr
    assert "resuming from" not in second.stderr
    _assert_same(_arrays(tmp_path / "found0.npz"), _arrays(tmp_path / "found1.npz"))


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
print("own words", flush=True)

if number == 1:  # it is killed
    os._exit(9)
distributed._agreed = False  # the errors above did not end the run
try:
    distributed.gather(1)
except UserError as error:
    print("error:", error, flush=True)
    distributed.abandon(2)
"""


def test_what_processes_tell_each_other_and_of_one_that_is_killed_or_never_comes(tmp_path):
    program, addresses = _program(tmp_path, _TALK), _addresses(3)
    both = [(program, addresses[0], "2", str(number), "60", "1") for number in range(2)]
    alone = [(program, addresses[1 + number], "2", str(number), "1", "1") for number in range(2)]
    first, second, *impatient = forks.run_all([both, alone], tmp_path, modules=("kernelgan.environment",))
    assert (first.returncode, second.returncode) == (2, 9), (first, second)
    assert ["progress" in one.stdout for one in (first, second)] == [True, False]
    assert all("own words" in one.stdout for one in (first, second))
    assert "error: another process of this run has ended" in first.stdout.splitlines()[-1]
    assert "Traceback" not in first.stderr
    for number, one in enumerate(impatient):
        assert one.returncode == 2, one
        said, last = one.stderr.splitlines()
        assert f"process {number} of 2: waiting for the others at 127.0.0.1:" in said
        assert last.startswith("error: not all processes of this run came to 127.0.0.1:")


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--coordinator={address}: process 0 cannot listen on port"):
            distributed.join(address, 2, 0)


@pytest.mark.parametrize(
    ("address", "processes", "process", "fact"),
    [
        ("node0", 2, 0, "--coordinator=node0; expected HOST:PORT"),
        ("node0:", 2, 0, "--coordinator=node0:; expected HOST:PORT"),
        ("node0:http", 2, 0, "--coordinator=node0:http; expected HOST:PORT"),
        ("127.0.0.1:70000", 2, 0, "process 0 cannot listen on port 70000"),
        ("127.0.0.1:1", 0, 0, "--processes=0 and --process=0; expected how many"),
        ("127.0.0.1:1", 2, 2, "--processes=2 and --process=2; expected how many"),
        ("127.0.0.1:1", 2, -1, "--processes=2 and --process=-1; expected how many"),
    ],
)
def test_an_address_or_a_place_among_the_processes_that_cannot_be_is_refused(
    address, processes, process, fact
):
    with pytest.raises(UserError, match=fact):
        distributed.join(address, processes, process)


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
        distributed.join(*_addresses(1), 2, 0)


# Through launch.py.

FIELDS = SMALL | {"baselines.methods": ("average",)}  # what else trains does so by the zoos' own function
FLAT = """
import runpy
from kernelgan.report import drawing
drawing.png = lambda draw: bytes(40_000)  # figures are not drawn
runpy.run_path("launch.py", run_name="__main__")
"""
MINE = """
from kernelgan import generators
def make(network, config):
    return generators.stateless(lambda key, parents, probes: parents.attribute)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Four times two processes: of a file that one lacks, interrupted, to the end, and once more."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "0").mkdir()
    (folder / "0/mine.py").write_text(MINE)
    (folder / "interrupting.py").write_text(INTERRUPTING)
    (folder / "flat.py").write_text(FLAT)
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    interrupted = (str(folder / "interrupting.py"), r"/plan\.json$", "1", str(int(signal.SIGINT)))
    addresses = iter(_addresses(4))

    flat = (str(folder / "flat.py"),)

    def both(workdir, *flags, first=flat):
        flags = ("--config=configs/tiny.py", f"--workdir={folder / workdir}", *fields, *flags)
        place = (f"--coordinator={next(addresses)}", "--processes=2")
        return [(*(flat if number else first), *flags, *place, f"--process={number}") for number in range(2)]

    lacking = [
        (*line, f"--generator={folder}/{number}/mine.py") for number, line in enumerate(both("lacking"))
    ]
    lines = [lacking, both("two", "--stage=zoo", first=interrupted), both("two"), both("two")]
    ended = forks.run_all(lines, folder, modules=("configs.default", "kernelgan.pipeline"))
    return folder, [ended[place : place + 2] for place in range(0, 8, 2)]


def test_a_file_that_one_process_lacks_ends_both_with_one_line(launched):
    for ended in launched[1][0]:
        assert ended.returncode == 2, ended
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert "process 1: " in line
        assert "1/mine.py" in line
        assert "Traceback" not in ended.stderr


def test_a_whole_run_on_two_processes_ends_in_the_same_results(launched, finished):
    """Interrupted before its zoos begin, and continued to its end; a finished run is shown again."""
    folder, (_, (interrupted, other), (first, second), (again, nothing)) = launched
    assert interrupted.returncode == 130, interrupted
    assert other.returncode != 0, other  # by itself or, if that is faster, by JAX, which aborts it
    assert "interrupted; the same command" in interrupted.stderr
    assert "zoo" not in interrupted.stderr
    assert "Traceback" not in interrupted.stderr

    assert (first.returncode, second.returncode) == (0, 0), (first, second)
    assert "in 2 processes" in first.stderr
    assert "report: " in first.stdout
    assert "zoo" not in second.stdout + second.stderr
    found, wanted = (_arrays(run / "arrays.npz") for run in (folder / "two", finished))
    left_out = {"embedding_quadrant", "contact_sheet", "distilled", "trained_on_conjunction"}
    compared = [name for name in wanted if not left_out & set(name.split("/"))]
    assert {name.split("/")[-1] for name in compared} >= {"average", "cyclegan_a2b", "cyclegan_b2a", "random"}
    _assert_same({name: found[name] for name in compared}, {name: wanted[name] for name in compared})
    found, wanted = (document(run)["pairs"][0]["methods"] for run in (folder / "two", finished))
    assert found["cyclegan_a2b"]["placebos"] == wanted["cyclegan_a2b"]["placebos"]

    assert (again.returncode, nothing.returncode) == (0, 0), (again, nothing)
    assert "finished before" in again.stderr
    assert "report: " in again.stdout
    assert "report: " not in nothing.stdout
