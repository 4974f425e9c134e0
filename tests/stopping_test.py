"""Tests for kernelgan.stopping: SIGTERM, and readers of the output that end."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import MemorySaver

from kernelgan import command, engine, stopping
from kernelgan.checkpoint import Stage
from kernelgan.keys import StageKey


@pytest.fixture
def listening():
    before = signal.getsignal(signal.SIGTERM)
    stopping.listen()
    yield
    signal.signal(signal.SIGTERM, before)
    stopping._asked = False


def _counting(terminated_at=None):
    """A program that adds its member's number in each call, and its progress, which may send SIGTERM."""

    def progress(done, total, metrics):
        del total, metrics
        if done == terminated_at:
            signal.raise_signal(signal.SIGTERM)

    program = engine.Program(
        init=lambda member, shared: member * 0.0,
        advance=lambda state, member, shared, call: (state + member + call, {"state": state}),
        result=lambda state: state,
    )
    members = np.arange(3, dtype=np.float32)
    return lambda saver: engine.fit(
        program, members, (), calls=5, chunk_size=2, saver=saver, progress=progress
    )


@pytest.mark.parametrize("at", [1, 4, 5, 7])
def test_a_fit_saves_at_the_next_step_ends_and_goes_on_to_the_same_bits(listening, at, capsys):
    saver = MemorySaver()
    saver.is_due = lambda: False
    expected = _counting()(MemorySaver())
    with pytest.raises(stopping.Terminated):
        _counting(at)(saver)
    assert saver.saves == 1
    assert "saving" in capsys.readouterr().err
    stopping.listen()

    resumed = _counting()(saver)
    np.testing.assert_array_equal(resumed[0], expected[0])
    np.testing.assert_array_equal(resumed[1]["state"], expected[1]["state"])


def _save_while(sent, stage, monkeypatch):
    """Saves a result, and sends these signals as Orbax begins."""
    import orbax.checkpoint as ocp

    save = ocp.CheckpointManager.save

    def interrupted(manager, *arguments, **options):
        for number in sent:
            signal.raise_signal(number)
        return save(manager, *arguments, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", interrupted)
    stage.save({"kernel": np.arange(3.0)}, 1)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ([signal.SIGINT], KeyboardInterrupt),
        ([signal.SIGTERM], stopping.Terminated),
        ([signal.SIGINT, signal.SIGINT], KeyboardInterrupt),
    ],
)
def test_what_comes_while_a_checkpoint_is_written_waits_until_it_is(
    sent, error, listening, tmp_path, monkeypatch
):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        _save_while(sent, Stage(tmp_path / "zoo", StageKey({}), seconds=0), monkeypatch)
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in (tmp_path / "zoo").rglob("1") if path.is_dir()] == ["1"]
    assert not list(tmp_path.rglob("*tmp*"))


def test_a_signal_that_is_ignored_stays_ignored_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _save_while([signal.SIGINT], Stage(tmp_path / "zoo", StageKey({}), seconds=0), monkeypatch)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_a_fit_and_at_a_second_signal_it_ends_at_once(listening):
    with pytest.raises(stopping.Terminated):
        signal.raise_signal(signal.SIGTERM)
    stopping.listen()
    with stopping.saving():
        signal.raise_signal(signal.SIGTERM)
        assert stopping.is_asked()
        with pytest.raises(stopping.Terminated):
            signal.raise_signal(signal.SIGTERM)


def test_a_run_that_is_terminated_says_how_to_go_on_and_gives_the_status_of_shells(tmp_path):
    program = (
        "import os, signal, sys; from kernelgan import command, pipeline, stopping\n"
        "pipeline.run = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"sys.argv = ['launch.py', '--config=configs/tiny.py', '--workdir={tmp_path}/run']\n"
        "command.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == f"terminated; the same command continues the run ({tmp_path}/run)\n"
    assert command.stopping.STATUS == 143


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_ends_does_not_end_the_program(stream, tmp_path):
    program = (
        "import sys; from kernelgan import stopping; stopping.outlast_readers()\n"
        f"for number in range(50_000): print(number, file=sys.{stream}, flush=number % 100 == 0)\n"
        f"open({str(tmp_path / 'end')!r}, 'w').close()"
    )
    reading, writing = os.pipe()
    other = tmp_path / "other"
    with other.open("wb") as kept:
        streams = {"stdout": kept, "stderr": kept} | {stream: writing}
        process = subprocess.Popen([sys.executable, "-c", program], **streams)
    os.close(writing)
    assert os.read(reading, 1) == b"0"
    os.close(reading)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "end").exists()
    assert other.read_bytes() == b""


def test_a_listing_may_be_read_by_head():
    done = subprocess.run(
        f"{sys.executable} -m kernelgan.config | head -n 1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["name = 'default'", "0"]
    assert done.stderr == ""


def test_letters_that_a_terminal_lacks_stop_nothing():
    program = "from kernelgan import stopping; stopping.outlast_readers(); print('\\u00b1 1')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "\\xb1 1\n"
