import sys

import pytest

from kernelgan import progress


@pytest.fixture
def clock(monkeypatch):
    """Set ``clock.now``; the module reads it for the time."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_a_log_gets_the_last_line_and_few_before_it(capsys, clock):
    show = progress.Progress("zoo")
    for done in range(1, 5):
        show(done, 5, {"loss": done / 10})
    assert capsys.readouterr().err == ""
    clock.now += progress.LOG_EVERY
    show(4, 5, {"loss": 0.4})
    show(4, 5, {"loss": 0.4})
    show(5, 5, {"loss": 0.5, "auroc": 0.75})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines] == [
        ["zoo", "4/5", "0:05", "left", "loss", "0.400"],
        ["zoo", "5/5", "loss", "0.500,", "auroc", "0.750"],
    ]


@pytest.mark.parametrize(("stage", "left"), [("zoo", ["", "1:20", "0:20"]), ("evaluate", ["", "", "0:20"])])
def test_the_time_left_is_told_from_the_later_half(capsys, clock, stage, left):
    show = progress.Progress(stage)
    for done, seconds in ((1, 40), (2, 20), (3, 10), (4, 10)):
        clock.now += seconds
        if done != 3:
            show(done, 6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("/6")[1].removesuffix(" left").strip() for line in lines] == left


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        (("zoo",), "zoo"),
        (("zoo-1", "zoo"), "zoo-1"),
        (("fit/mine", "fit"), "fit/mine"),
        (("distilled", "baselines"), "baselines/distilled"),
        (("generate/reduce", "generate/reduce"), "generate/reduce"),
        (("placebos/reduce", "placebos"), "generate/placebos/reduce"),
    ],
)
def test_a_part_is_called_after_its_stage(part, shown):
    assert progress.named(*part) == shown


@pytest.mark.parametrize(("stage", "compiles"), [("fit/cyclegan", True), ("report", False)])
def test_a_stage_says_that_it_begins(capsys, stage, compiles):
    progress.Progress(stage).begin()
    said = capsys.readouterr().err
    assert said.split()[:2] == [stage, "begins" + ";" * compiles]
    assert ("compiles" in said) == compiles


def test_what_is_at_work_is_named(capsys, clock):
    show = progress.Progress("evaluate")
    show.doing = "zipit"
    clock.now += progress.LOG_EVERY
    show(1, 3)
    assert capsys.readouterr().err.split() == ["evaluate", "1/3", "zipit"]


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show = progress.Progress("zoo")
    show(1, 4)
    show(2, 4)
    assert show._bar.n == 2
    assert show._bar.total == 4
    show.close("done")
    assert "zoo" in capsys.readouterr().err


def test_close_says_the_outcome_and_gives_the_seconds(capsys, clock):
    show = progress.Progress("cyclegan")
    clock.now += 12.34
    assert show.close("2 pairs") == pytest.approx(12.34)
    assert capsys.readouterr().err.split() == ["cyclegan", "2", "pairs", "(12.3", "s)"]


def test_a_small_figure_is_shown_with_its_power_of_ten(capsys):
    progress.Progress("fit")(2, 2, {"loss": 0.00041, "other": 0.25, "none": 0.0})
    assert "loss 4.1e-04, other 0.250, none 0.000" in capsys.readouterr().err


def test_of_many_steps_few_are_remembered(clock):
    """Each is looked through at every step."""
    show = progress.Progress("data")
    for done in range(1, 5001):
        show(done, 5000)
    assert 100 < len(show._reached) <= 202
    progress.Progress("data")(0, 0)  # nothing to do
