"""Tests for benchmarks: what is wrong is caught, ratios are what they are said to be, goals are judged."""

import dataclasses
import json
import math
import time

import jax
import numpy as np
import optax
import pytest

from benchmarks import __main__ as command
from benchmarks import cases, check, contest, goals, rows, stopwatch, torch_loops, translators, zoo
from benchmarks.cases import ALL_CORES, GPU, ONE_CORE, Case
from benchmarks.rows import Row
from benchmarks.stopwatch import Prepared
from kernelgan import models, parallel, population

QUICK = cases.settings_for("cpu", quick=True)
TOLERANCE = contest.TOLERANCES["float32"]


def _row(name="engine", section="zoo", mode=ONE_CORE, rounds=(2.0,), **fields):
    fields = {"status": rows.RIGHT} | fields
    return Row(section, name, mode, "unit", wall_rounds=list(rounds), cpu_rounds=list(rounds), **fields)


# Times.


def test_a_ratio_is_the_median_of_the_rounds_that_both_have():
    assert stopwatch.ratio([10, 40, 30, 7], [5, 4, 10]) == 3  # of 2, 10 and 3
    assert stopwatch.ratio([], [1.0]) is None


def test_cases_take_turns_and_one_that_fails_stops_alone():
    ran, closed = [], []

    def fail(_):
        raise ValueError("no more\nof this")

    def work(name, run):
        return Prepared(run, 2, single=name == "a", close=lambda: closed.append(name))

    works = {
        "a": work("a", lambda n: ran.append(("a", n))),
        "broken": work("broken", fail),
        "b": work("b", lambda n: ran.append(("b", n)) or time.sleep(0.01 * n) or 3.0),
    }
    times = stopwatch.take_turns(works, rounds=3, lap=0.05)
    assert ran[:2] == [("b", 1)] * 2  # warm-up, and how long it takes
    assert [name for name, _ in ran[2:]] == ["a", "b"] * 3
    assert 1 < ran[3][1] <= 5
    assert [len(times[name].wall) for name in works] == [3, 0, 3]
    assert times["broken"].reason == "ValueError: no more"
    assert times["b"].wall == [pytest.approx(3e3 / (2 * ran[3][1]))] * 3  # it tells its seconds
    assert closed == list(works)


def test_a_lockstep_does_one_lap_at_a_time_and_tells_errors():
    done = []

    def call(lap):
        for number in range(3):
            done.append(number)
            lap(number, "anything")
        raise ValueError("at the end")

    step = stopwatch.Lockstep(call)
    assert done == []
    step.laps(1)
    assert done == [0]
    step.laps(2)
    assert done == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match="at the end"):
            step.laps(1)
    ended = stopwatch.Lockstep(lambda lap: [lap() for _ in range(9)])
    ended.laps(1)
    ended.close()
    assert not ended._thread.is_alive()


def test_compilations_within_others_count_once():
    heard = stopwatch.Compilations()
    heard.intervals = [(0, 4), (1, 2), (3, 5), (7, 8)]
    assert heard.seconds == 6


# Rows and goals.


def test_rows_compare_cpu_time_on_one_core_and_the_clock_elsewhere():
    row = Row("zoo", "x", ONE_CORE, "unit", wall_rounds=[9.0], cpu_rounds=[4.0], gflop=0.2, limit=100.0)
    assert (row.ms, row.gflop_per_s, row.limit_share) == (4, 50, 0.5)
    row.mode = ALL_CORES
    assert row.ms == 9
    assert rows.from_document(json.loads(json.dumps(row.document()))) == row
    row.mode = GPU
    row.take(stopwatch.Times([1.0], [2.0]))
    assert row.cpu_rounds == []


def test_the_baseline_is_the_fastest_right_row_of_its_name_precision_and_mode():
    found = [
        _row(rounds=(2.0, 4.0)),
        _row("PyTorch loop", rounds=(8.0, 8.0)),
        _row("PyTorch loop, channels last", rounds=(6.0, 8.0)),
        _row("PyTorch loop, wrong", rounds=(1.0, 1.0), status=rows.WRONG),
        _row("first-written vmap", rounds=(20.0, 20.0)),
        _row("first-written vmap, TF32", rounds=(10.0, 10.0), precision="TF32"),
        _row("engine, TF32", rounds=(1.0, 1.0), precision="TF32"),
        _row(mode=ALL_CORES),
    ]
    rows.compare(found)
    assert found[0].ratios == {"x PyTorch": 2.5, "x first vmap": 7.5}
    assert found[6].ratios == {"x PyTorch": 7.0, "x first vmap": 10.0}
    assert found[7].ratios == {}


def test_the_whole_zoo_is_extrapolated_from_images():
    row = _row(rounds=(1.0,), gflop=cases.ZOO_MFLOP * 128 / 1e3)
    assert row.whole_zoo_s == pytest.approx(140.7e6 / 128 / 1e3)


@pytest.mark.parametrize(
    ("suite", "goal", "found", "figure", "verdict"),
    [
        ("cpu", "zoo over a PyTorch loop", [_row(ratios={"x PyTorch": 2.8})], 2.8, goals.MET),
        ("cpu", "zoo over a PyTorch loop", [_row(ratios={"x PyTorch": 2.7})], 2.7, goals.MISSED),
        ("cpu", "zoo over a PyTorch loop", [_row(ratios={"x PyTorch": 9}, status=rows.WRONG)], None, None),
        (
            "cpu",
            "warm start to the first step",
            [_row("warm", "start", ALL_CORES, (2500,))],
            2.5,
            goals.MISSED,
        ),
        (
            "cpu",
            "compilation of 2,048 models over that of 32",
            [
                _row("compilation, 2,048 models", "growth", ALL_CORES, (6.0, 5.0, 5.0)),
                _row("compilation, 32 models", "growth", ALL_CORES, (5.0, 5.0, 4.0)),
            ],
            1.2,
            goals.MET,
        ),
        (
            "gpu",
            "a CycleGAN step of 64 pairs over one of 1",
            [
                _row("engine, 1 pair", "translators", GPU, (3.0,)),
                _row("engine, 64 pairs", "translators", GPU, (0.1,)),  # a pair: 6.4 for all
            ],
            6.4 / 3,
            goals.MET,
        ),
        (
            "gpu",
            "1,749 networks on 1,000 images",
            [_row("engine, 1,749 networks", "evaluation", GPU, (0.05,))],
            0.08745,
            goals.MET,
        ),
        ("gpu", "all 4,498 networks in TF32", [_row(mode=GPU, gflop=0.37)], None, None),
    ],
)
def test_goals_are_met_missed_or_not_measured(suite, goal, found, figure, verdict):
    judged = next(each for each in goals.judge(suite, found) if each["goal"] == goal)
    assert judged["figure"] == (None if figure is None else pytest.approx(figure))
    assert judged["verdict"] == (verdict or goals.NOT_MEASURED)
    assert judged["verdict"] in goals.table([judged])


def test_a_lap_of_the_engine_is_an_epoch_of_all_networks(monkeypatch):
    """Not of a chunk of them: growth is measured by laps."""
    monkeypatch.setattr(parallel, "ON_CPU", 2)
    training, told = population.Training(2, 8, 8, zoo.RATE, (1.0, 1.0)), []
    zoo.train_noise(
        models.ConvNet(),
        zoo.make_pictures(16),
        training,
        5,
        progress=lambda done, of, _: told.append((done, of)),
    )
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("suite", cases.SUITES)
def test_every_goal_and_baseline_is_of_a_row_that_there_is(suite):
    table = cases.cases(cases.settings_for(suite))
    found = []
    for case in table:
        assert callable(
            getattr(
                __import__(f"benchmarks.{case.make.split(':')[0]}", fromlist=["_"]), case.make.split(":")[1]
            )
        )
        found += [
            _row(case.name, case.section, mode, precision=case.precision, gflop=case.gflop)
            for mode in case.modes
            if (mode == GPU) == (suite == "gpu")
        ]
    for section in cases.SECTIONS:
        rows.compare([row for row in found if row.section == section])
    assert goals.NOT_MEASURED not in [goal["verdict"] for goal in goals.judge(suite, found)]


# Checks.


@pytest.fixture(scope="module")
def problem():
    return zoo.make_problem(2, 8)


@pytest.mark.parametrize(
    ("plant", "right"),
    [
        (lambda leaf: leaf, True),
        (lambda leaf: leaf * np.float32(1.001), False),
        (lambda leaf: leaf * np.nan, False),
        (lambda leaf: leaf[::-1], False),  # another's
    ],
)
def test_gradients_are_read_off_adam_and_checked(problem, plant, right):
    members = [jax.device_get(problem.gradients(check.member_of(problem.params, n), n)) for n in range(2)]
    gradients = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    optimizer = optax.adam(zoo.RATE, b1=zoo.BETA)
    before = optimizer.init(problem.params)[0]._replace(mu=gradients)
    after = optimizer.update(jax.tree.map(plant, gradients), (before, ()))[1][0]
    error = problem.error(check.between(before.mu, after.mu, zoo.BETA))
    assert (error <= TOLERANCE / 3) == (error <= TOLERANCE) == right


def test_an_error_is_relative_to_its_layer():
    expected = {"conv": {"kernel": np.array([10.0, 1.0]), "bias": np.zeros(1)}, "dense": {"bias": np.ones(1)}}
    found = {
        "conv": {"kernel": np.array([10.0, 1.5]), "bias": np.array([0.2])},
        "dense": {"bias": np.ones(1)},
    }
    assert check.relative_error(found, expected) == pytest.approx(0.05)
    assert check.relative_error({"a": np.ones(2)}, {"a": np.ones(3)}) == math.inf
    assert check.relative_error({"a": np.ones(2)}, {"b": np.ones(2)}) == math.inf
    assert math.isnan(check.relative_error({"a": np.array([np.nan])}, {"a": np.ones(1)}))


def test_what_is_wrong_is_named_and_not_timed_and_the_rest_goes_on(monkeypatch):
    def made(outcome):
        def make():
            if isinstance(outcome, Exception):
                raise outcome
            return Prepared(lambda n: None, 1, lambda: outcome)

        return make

    outcomes = {
        "wrong": 1e-3,
        "nan": math.nan,
        "absent": contest.LeftOutError("it is not here"),
        "broken": RuntimeError("cannot be compiled"),
        "right": 1e-5,
    }
    for name, outcome in outcomes.items():
        monkeypatch.setattr(zoo, name, made(outcome), raising=False)
    chosen = [Case("zoo", name, f"zoo:{name}", {}, "unit", gflop=1.0) for name in outcomes]
    found = contest.hold(chosen, QUICK, ALL_CORES)
    assert [row.status for row in found] == [
        rows.WRONG,
        rows.WRONG,
        rows.LEFT_OUT,
        rows.FAILED,
        rows.RIGHT,
    ]
    assert [len(row.wall_rounds) for row in found] == [0, 0, 0, 0, 2]
    assert found[4].limit > 0
    text = rows.section("zoo", found)
    assert "1.0e-03, allowed are 1e-04" in text
    assert "absent: left out, it is not here" in text
    assert "broken: FAILED, RuntimeError: cannot be compiled" in text


# The real cases, small; the rest is run by hand, `--quick`.


def test_the_engine_s_zoo_is_right_and_timed():
    case = next(case for case in cases.cases(QUICK) if case.name == "engine")
    (row,) = contest.hold([case], QUICK, ALL_CORES)
    assert row.status == rows.RIGHT, row.reason
    assert len(row.wall_rounds) == len(row.cpu_rounds) == 2
    assert min(row.compile_s, row.limit_share, row.whole_zoo_s) > 0


def test_a_composed_network_is_right():
    assert translators.compose(2, 2, 4).check() < TOLERANCE


def test_pytorch_s_loops_take_the_steps_of_the_plain_ones(monkeypatch, problem):
    pytest.importorskip("torch")
    monkeypatch.setattr(translators, "SHAPES", {"conv1": (3, 3, 3, 2)})  # one compilation, not two
    for prepared in (translators.torch_loop(2, 4), zoo.torch_loop(2, 8), zoo.torch_vmap(2, 8)):
        assert prepared.check() < TOLERANCE


def test_without_pytorch_its_rows_are_left_out_by_name(monkeypatch):
    torch_loops.torch.cache_clear()
    monkeypatch.setattr(torch_loops.importlib.util, "find_spec", lambda name: None)
    torch = [case for case in cases.cases(QUICK) if "torch" in case.make]
    assert len(torch) == 5
    (row,) = contest.hold([dataclasses.replace(torch[0], gflop=None)], QUICK, ALL_CORES)
    assert (row.status, row.reason) == (rows.LEFT_OUT, "PyTorch is not installed")


# The command.


def test_processes_are_of_the_suite_s_modes_and_those_alone_have_their_own():
    cpu, gpu = (cases.settings_for(suite) for suite in cases.SUITES)
    assert list(command.processes(cpu, "zoo")) == [(ONE_CORE, ""), (ALL_CORES, "")]
    assert list(command.processes(gpu, "zoo")) == [(GPU, "")]
    starts = [name for _, name in command.processes(cpu, "start")]
    assert starts == ["cold", "warm", "warm", "warm", "launch.py --help"]
    assert list(command.processes(cpu, "growth"))[-1] == (ALL_CORES, "")
    assert cases.environment(cpu, ONE_CORE, "zoo", 2)["OMP_NUM_THREADS"] == "1"
    assert cases.environment(gpu, GPU, "start", 2)["JAX_PLATFORMS"] == "cuda"


def test_rounds_of_several_processes_are_of_one_row():
    found = []
    for name, ms in (("cold", 9.0), ("warm", 3.0), ("warm", 2.0), ("warm", 4.0)):
        rows.merge(found, [_row(name, "start", ALL_CORES, (ms,), status=rows.UNCHECKED)])
    assert [(row.name, row.ms) for row in found] == [("cold", 9.0), ("warm", 3.0)]


@pytest.mark.parametrize(
    ("flags", "facts"),
    [
        (["--suite", "tpu"], ["'tpu'", "cpu"]),
        (["--sections", "zoo,zebra"], ["--sections", "'zebra'", "translators"]),
        (["--json", "nowhere/at/all.json"], ["--json", "nowhere/at"]),
    ],
)
def test_options_that_cannot_be_are_told(flags, facts, capsys):
    with pytest.raises(SystemExit) as exited:
        command.main(flags)
    assert exited.value.code == 2
    said = capsys.readouterr().err
    assert all(fact in said for fact in facts)


def test_the_command_writes_the_table_and_the_json(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(command, "processes", lambda *_: [(ALL_CORES, "launch.py --help")])
    out = tmp_path / "found.json"
    assert command.main(["--suite=cpu", "--quick", "--sections=start", f"--json={out}"]) == 0
    printed = capfd.readouterr().out
    assert "== start" in printed
    assert "== goals" in printed
    found = json.loads(out.read_text())
    assert {"machine", "platform", "versions", "environment", "settings"} <= set(found)
    assert [row["name"] for row in found["rows"]] == ["launch.py --help"]
    assert found["rows"][0]["wall_ms"] > 0
    assert found["rows"][0]["details"]["peak_bytes"] > 0
    assert len(found["goals"]) == len(goals.GOALS["cpu"])
