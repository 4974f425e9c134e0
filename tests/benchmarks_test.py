"""Tests for benchmarks: what is wrong is caught, ratios are what they are said to be, goals are judged."""

import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from benchmarks import (
    __main__ as command,
)
from benchmarks import (
    check,
    contest,
    curves,
    evaluation,
    goals,
    machine,
    rows,
    stopwatch,
    suite,
    table,
    torch_loops,
    translators,
    worker,
    zoo,
)
from benchmarks.rows import Row
from benchmarks.stopwatch import Work

ROOT = Path(__file__).parents[1]
TINY = suite.settings_for("cpu", quick=True, rounds=2, lap=0.01, matrix=32, batch=8)


def _row(name="engine", section="zoo", mode=rows.ONE_CORE, rounds=(2.0,), **fields):
    fields = {"status": rows.RIGHT} | fields
    return Row(section, name, mode, "unit", wall_rounds=list(rounds), cpu_rounds=list(rounds), **fields)


# Arithmetic.


def test_a_ratio_is_the_median_of_the_rounds_that_both_have():
    assert stopwatch.ratio([10, 40, 30, 7], [5, 4, 10]) == 3  # of 2, 10 and 3
    assert stopwatch.ratio([], [1.0]) is None
    assert stopwatch.median([3.0, 1.0, 2.0]) == 2
    assert stopwatch.median([]) is None


def test_the_union_of_intervals_counts_once_what_lies_in_another():
    assert stopwatch.covered([(0, 4), (1, 2), (3, 5), (7, 8)]) == 6
    assert stopwatch.covered([]) == 0


def test_laps_are_filled_and_slow_contenders_take_fewer_rounds():
    assert stopwatch.repetitions_for(0.01, 0.4) == 40
    assert stopwatch.repetitions_for(9.0, 0.4) == 1
    assert stopwatch.repetitions_for(0.0, 0.4) == stopwatch.MOST_REPETITIONS
    assert [stopwatch.rounds_for(seconds, 0.5, 5) for seconds in (0.5, 2, 3, 10, 11)] == [5, 5, 3, 3, 1]
    assert stopwatch.rounds_for(11, 0.5, 0) == 0


def test_contenders_take_turns_and_one_that_fails_stops_alone(capsys):
    ran, closed = [], []

    def fail(_):
        raise ValueError("no more\nof this")

    works = [
        Work("a", lambda n: ran.append(("a", n)), 2, repetitions=3, close=lambda: closed.append("a")),
        Work("broken", fail, 1, close=lambda: closed.append("broken")),
        Work("b", lambda n: ran.append(("b", n)), 1, seconds=0.1),
    ]
    times = stopwatch.take_turns(works, rounds=3, lap=0.2)
    assert ran[:2] == [("a", 3)] * 2  # warm-up, and how long it takes
    assert ran[2:] == [("a", 3), ("b", 2)] * 3
    assert [len(times[name].wall) for name in ("a", "broken", "b")] == [3, 0, 3]
    assert times["broken"].reason == "ValueError: no more"
    assert closed == ["a", "broken"]
    assert "round 3 of 3" in capsys.readouterr().err


def test_milliseconds_are_of_one_unit():
    times = stopwatch.take_turns([Work("sleep", lambda n: time.sleep(0.01 * n), 5, 2)], rounds=1, lap=1)
    assert 2 <= times["sleep"].wall[0] < 40  # 20 ms for 10 units, and what a busy machine adds
    assert times["sleep"].cpu[0] < times["sleep"].wall[0]


def test_a_lockstep_does_one_lap_at_a_time_and_tells_errors():
    done = []

    def call(lap):
        for number in range(3):
            done.append(number)
            lap(number, "anything")
        raise ValueError("at the end")

    step = stopwatch.Lockstep(call)
    assert done == []
    step.lap()
    assert done == [0]
    step.lap(2)
    assert done == [0, 1, 2]
    with pytest.raises(ValueError, match="at the end"):
        step.lap()
    ended = stopwatch.Lockstep(lambda lap: [lap() for _ in range(9)])
    ended.lap()
    ended.close()
    assert not ended._thread.is_alive()


def test_rows_compare_cpu_time_on_one_core_and_the_clock_elsewhere():
    row = Row("zoo", "x", rows.ONE_CORE, "unit", wall_rounds=[9.0], cpu_rounds=[4.0], gflop=0.2, limit=100.0)
    assert row.ms == 4
    assert row.gflop_per_s == 50
    assert row.limit_share == 0.5
    row.mode = rows.ALL_CORES
    assert row.ms == 9
    assert rows.from_document(json.loads(json.dumps(row.document()))) == row
    row.mode = rows.GPU
    row.take(stopwatch.Times([1.0], [2.0]))
    assert row.cpu_rounds == []


def test_the_baseline_is_the_fastest_of_its_kind_and_of_the_same_precision_and_mode():
    found = [
        _row(rounds=(2.0, 4.0)),
        _row("PyTorch loop", rounds=(8.0, 8.0)),
        _row("PyTorch loop, channels last", rounds=(6.0, 8.0)),
        _row("PyTorch loop, wrong", rounds=(1.0, 1.0), status=rows.WRONG),
        _row("first", rounds=(20.0, 20.0)),
        _row("first, TF32", rounds=(10.0, 10.0), precision="TF32"),
        _row("engine, TF32", rounds=(1.0, 1.0), precision="TF32"),
        _row(mode=rows.ALL_CORES),
    ]
    rows.compare(found, {"torch": "PyTorch loop", "first": "first"})
    assert found[0].ratios == {"torch": 2.5, "first": 7.5}
    assert found[6].ratios == {"torch": 7.0, "first": 10.0}
    assert found[7].ratios == {}


def test_the_whole_zoo_is_extrapolated_from_images():
    assert zoo.whole_zoo_seconds(1.0, 128) == pytest.approx(140.7e6 / 128 / 1e3)


# Checks.


@pytest.fixture(scope="module")
def problem():
    return zoo.make_problem(2, 8, 32)


@pytest.fixture(scope="module")
def steps(problem):
    """Two states with a step of optax's Adam on the plain network between, as snapshots."""
    optimizer = optax.adam(zoo.RATE)
    before = check.start(problem.params)
    members = [
        jax.device_get(problem.gradients(check.member_of(before.params, n), n)) for n in range(len(problem))
    ]
    gradients = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    updates, state = optimizer.update(gradients, optimizer.init(problem.params))
    return before, zoo._adam_snapshot(optax.apply_updates(problem.params, updates), state)


def _error(problem, before, after, **changes):
    return check.step_error(before, after, problem.gradients, **{"learning_rate": zoo.RATE} | changes)


def test_a_right_step_passes(problem, steps):
    assert _error(problem, *steps) < check.FLOAT32_TOLERANCE / 3


@pytest.mark.parametrize(
    "plant",
    [
        lambda after: {"first": jax.tree.map(lambda leaf: leaf * np.float32(1.001), after.first)},
        lambda after: {"second": jax.tree.map(lambda leaf: leaf * np.float32(1.001), after.second)},
        lambda after: {"params": jax.tree.map(lambda leaf: leaf + np.float32(1e-6), after.params)},
        lambda after: {"params": jax.tree.map(lambda leaf: leaf * np.float32("nan"), after.params)},
        lambda after: {"first": jax.tree.map(lambda leaf: leaf[::-1], after.first)},  # another's gradients
        lambda after: {"steps": 2},
    ],
)
def test_each_part_of_a_step_is_checked(problem, steps, plant):
    before, after = steps
    error = _error(problem, before, dataclasses.replace(after, **plant(after)))
    assert not error <= check.FLOAT32_TOLERANCE


def test_an_error_is_relative_to_its_layer():
    expected = {
        "conv": {"kernel": np.array([10.0, 1.0]), "bias": np.array([0.0])},
        "dense": {"bias": np.ones(1)},
    }
    found = {
        "conv": {"kernel": np.array([10.0, 1.5]), "bias": np.array([0.2])},
        "dense": {"bias": np.ones(1)},
    }
    assert check.relative_error(found, expected) == pytest.approx(0.05)
    assert check.relative_error({"a": np.ones(2)}, {"a": np.ones(3)}) == math.inf
    assert check.relative_error({"a": np.ones(2)}, {"b": np.ones(2)}) == math.inf
    assert math.isnan(check.relative_error({"a": np.array([np.nan])}, {"a": np.ones(1)}))


def test_a_planted_wrong_variant_is_named_and_not_timed_and_the_rest_goes_on(capsys):
    def wrong(params, images):
        return zoo._plain()(params, images) * 1.01

    def absent(problem, settings):
        raise contest.LeftOutError("it is not here")

    def broken(problem, settings):
        raise RuntimeError("cannot be compiled")

    variants = {
        "wrong": zoo.Variant(lambda problem, _: zoo.bare(problem, wrong, zoo.over_vmap), "many"),
        "absent": zoo.Variant(absent, "many"),
        "broken": zoo.Variant(broken, "many"),
        "first-written vmap": zoo.VARIANTS["first-written vmap"],
    }
    found = zoo.measure(TINY, rows.ALL_CORES, variants)
    assert [row.status for row in found] == [rows.WRONG, rows.LEFT_OUT, rows.FAILED, rows.RIGHT]
    assert found[0].wall_rounds == []
    assert len(found[3].wall_rounds) == 2
    assert found[3].limit > 0
    assert command.report(found) == 1
    out = capsys.readouterr().out
    assert "WRONG: zoo, all cores: wrong: its result differs by" in out
    assert "FAILED: zoo, all cores: broken: RuntimeError: cannot be compiled" in out
    assert "absent: left out, it is not here" in table.section("zoo", found)
    assert command.report(found[1:2] + found[3:]) == 0


# The sections that have something to compare; the rest is run whole by hand, `--quick`.


def test_the_zoo_is_measured(capsys):
    variants = {name: zoo.VARIANTS[name] for name in ("engine", "PyTorch loop", "torch.func.vmap")}
    found = {row.name: row for row in zoo.measure(TINY, rows.ALL_CORES, variants)}
    engine = found["engine"]
    assert engine.status == rows.RIGHT, engine.reason
    assert len(engine.wall_rounds) == len(engine.cpu_rounds) == 2
    assert engine.compile_s > 0
    assert engine.limit_share > 0
    assert engine.details["whole_zoo_s"] == pytest.approx(engine.ms / 1e3 * 140.7e6 / 8)
    if torch_loops.missing():
        assert found["PyTorch loop"].status == found["torch.func.vmap"].status == rows.LEFT_OUT
    else:
        assert found["PyTorch loop"].status == found["torch.func.vmap"].status == rows.RIGHT
        assert engine.ratios["x PyTorch loop"] > 0
    assert "engine: right" in capsys.readouterr().err


@pytest.mark.skipif(bool(torch_loops.missing()), reason="PyTorch is not installed")
def test_pytorch_s_translators_take_the_step_of_the_plain_ones(monkeypatch):
    monkeypatch.setattr(translators, "SHAPES", {"conv1": (3, 3, 3, 2)})  # one compilation, not two
    prepared = translators.in_torch(TINY)
    assert prepared.check() < check.FLOAT32_TOLERANCE


def test_without_pytorch_its_rows_are_left_out_by_name(monkeypatch, problem):
    monkeypatch.setattr(torch_loops.importlib.util, "find_spec", lambda name: None)
    for prepare in (lambda: zoo.in_torch(problem), lambda: translators.in_torch(TINY)):
        with pytest.raises(contest.LeftOutError, match="PyTorch is not installed"):
            prepare()


# Goals.


def test_the_evaluation_end_to_end_is_checked_and_told_in_parts():
    settings = suite.settings_for("cpu", quick=True)
    prepared = evaluation.end_to_end(settings, 3)
    assert prepared.check() < check.FLOAT32_TOLERANCE
    prepared.work.run(1)
    parts = prepared.details["seconds_of"]
    assert list(parts) == ["forward", "cosines", "K-means", "scores"]
    assert all(seconds > 0 for seconds in parts.values())
    text = table.section("evaluation", [_row("end to end", "evaluation", details=prepared.details)])
    assert "end to end: forward" in text


def test_goals_are_met_missed_or_not_measured():
    found = [_row(ratios={"x PyTorch loop": 1.5, "x first vmap": 14.9})]
    found += [
        Row(
            "growth",
            f"{n}",
            rows.ALL_CORES,
            "s",
            wall_rounds=ms,
            details={"quantity": "compilation", "size": n},
        )
        for n, ms in ((2048, [6.0, 5.0, 5.0]), (32, [5.0, 5.0, 4.0]))
    ]
    name = evaluation.end_to_end_name(suite.CPU.evaluated[-1])
    found.append(_row(name, "evaluation", rows.DEVICES, (15.1,)))
    judged = {goal["goal"]: goal for goal in goals.judge("cpu", found)}
    verdicts = {name: goal["verdict"] for name, goal in judged.items()}
    assert verdicts["zoo: engine over a PyTorch loop, CPU-seconds"] == goals.MET
    assert verdicts["zoo: engine over the first-written vmap, CPU-seconds"] == goals.MISSED
    assert verdicts["compilation of 2,048 models over that of 32"] == goals.MET
    assert judged["compilation of 2,048 models over that of 32"]["figure"] == 1.2
    assert judged["evaluation: 1,000 networks on 1,000 images, end to end"]["figure"] == pytest.approx(15.1)
    assert verdicts["evaluation: 1,000 networks on 1,000 images, end to end"] == goals.MISSED
    assert verdicts["warm start to the first step"] == goals.NOT_MEASURED
    assert "MISSED" in table.goals(list(judged.values()))


def test_a_wrong_row_meets_no_goal():
    found = [_row(ratios={"x PyTorch loop": 9.0}, status=rows.WRONG)]
    assert goals.judge("cpu", found)[0]["verdict"] == goals.NOT_MEASURED


def test_goals_of_a_gpu():
    found = [
        _row(mode=rows.GPU, details={"whole_zoo_s": 11.0}, ratios={"x torch.vmap": 19.0}),
        _row("engine, TF32", mode=rows.GPU, details={"whole_zoo_s": 5.0}, precision="TF32"),
        _row("engine, 1 pair", "translators", rows.GPU, (3.0,)),
        _row("engine, 64 pairs", "translators", rows.GPU, (0.1,)),  # a pair: 6.4 for all
        _row("engine, 1,749 networks", "evaluation", rows.GPU, (0.05,), ratios={"x PyTorch loop": 300.0}),
        _row("warm", "start", rows.GPU, (2500.0,)),
    ]
    judged = {goal["goal"]: (goal["figure"], goal["verdict"]) for goal in goals.judge("gpu", found)}
    assert judged["zoo: all 4,498 networks in float32"] == (11.0, goals.MET)
    assert judged["zoo: all 4,498 networks in TF32"] == (5.0, goals.MISSED)
    assert judged["zoo: engine over torch.func.vmap"] == (19.0, goals.MISSED)
    assert judged["zoo: engine over a PyTorch loop"] == (None, goals.NOT_MEASURED)
    assert judged["translators: a step of 64 pairs over one of 1"] == (pytest.approx(6.4 / 3), goals.MET)
    assert judged["evaluation: 1,749 networks on 1,000 images"] == (pytest.approx(0.08745), goals.MET)
    assert judged["evaluation: engine over a PyTorch loop"] == (300.0, goals.MET)
    assert judged["warm start to the first step"] == (2.5, goals.MET)


# The command.


def test_the_machine_is_described():
    text = "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\nmodel name\t: Another\n"
    assert machine.processor(text) == {"cpu": "Some CPU", "vector_bits": 512}
    assert machine.processor("flags: sse2 avx2\n")["vector_bits"] == 256
    found = machine.describe()
    assert found["machine"]["platform"] == "cpu"
    assert found["machine"]["gpu"] is None
    assert found["machine"]["cores"] >= 1
    assert {"jax", "jaxlib", "numpy", "numba"} <= set(found["versions"])
    assert found["flags"]["JAX_PLATFORMS"] == "cpu"


def test_jobs_are_of_the_suite_s_modes_and_growth_has_one_for_each_point():
    one_each = [job.mode for job in suite.jobs(suite.CPU, "zoo", cores=2)]
    assert one_each == [rows.ONE_CORE, rows.ALL_CORES, rows.DEVICES]
    assert [job.mode for job in suite.jobs(suite.GPU, "zoo", cores=16)] == [rows.GPU]
    assert len(list(suite.jobs(suite.CPU, "growth", cores=2))) == 4 * 4 + 1
    assert [job.task["start"] for job in suite.jobs(suite.CPU, "start", cores=2)] == ["cold"] + ["warm"] * 3
    assert suite.environment(suite.CPU, rows.ONE_CORE, 2)["OMP_NUM_THREADS"] == "1"
    assert suite.environment(suite.GPU, rows.GPU, 2)["JAX_PLATFORMS"] == "cuda"
    for section in suite.SECTIONS:
        for job in suite.jobs(suite.CPU, section, cores=2):
            read = json.loads(worker.request(suite.CPU, job, 2))
            assert suite.Job(**read["job"]) == job


def test_starts_are_gathered_in_one_row():
    found = []
    for name, ms in (("cold", 9.0), ("warm", 3.0), ("warm", 2.0), ("warm", 4.0)):
        command.merge(found, [_row(name, "start", rows.ALL_CORES, (ms,), status=rows.UNCHECKED)])
    assert [(row.name, row.ms) for row in found] == [("cold", 9.0), ("warm", 3.0)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--suite", "tpu"], "invalid choice: 'tpu' (choose from"),
        (["--sections", "zoo,zebra"], "--sections has 'zebra'; expected some of limit, zoo,"),
        (["--rounds", "0"], "--rounds=0; expected 1 or more"),
        (["--json", "nowhere/at/all.json"], "is not a directory; make it, or give another"),
        (["--plot", "growth.txt"], "expected a name that ends in .png"),
        (["--sections", "zoo", "--plot", "growth.png"], "expected --sections to have it"),
    ],
)
def test_options_that_cannot_be_are_told(flags, message, capsys):
    with pytest.raises(SystemExit) as exited:
        command.main(flags)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_the_growth_is_drawn(tmp_path):
    found = [
        Row(
            "growth",
            f"models {n}",
            rows.ALL_CORES,
            "s",
            details={"quantity": "models", "size": n, "seconds": n / 100, "peak_bytes": 1e9},
        )
        for n in (128, 32)
    ]
    assert curves.points(found, "models")[curves.SECONDS] == [(32, 0.32), (128, 1.28)]
    curves.draw(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000
    assert "0.32 s" in table.section("growth", [dataclasses.replace(found[1], compile_s=1.0)])


def test_the_command_writes_the_table_and_the_json(tmp_path):
    flags = ["--suite=cpu", "--quick", "--sections=limit", f"--json={tmp_path / 'found.json'}"]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "== limit" in run.stdout
    assert "== goals" in run.stdout
    assert "limit, all cores" in run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"machine", "versions", "flags", "precision", "suite", "quick", "settings", "job_flags"} <= set(
        found
    )
    assert {"cpu", "cores", "vector_bits", "gpu"} <= set(found["machine"])
    assert found["suite"] == "cpu"
    assert found["quick"] is True
    assert found["wrong"] == []
    assert [row["name"] for row in found["rows"]] == ["matrix product, NumPy", "matrix product, XLA"]
    assert found["rows"][0]["gflop_per_s"] > 0
    assert len(found["goals"]) == len(goals.judge("cpu", []))
