"""Tests for studies.command: what ends a study early is said in a line, and a run is only read."""

import json

import pytest
from tiny_runs import small_config

from kernelgan import config as config_lib
from kernelgan.generators import cyclegan
from kernelgan.stopping import STATUS, Terminated
from kernelgan.types import UserError
from studies import command, finished
from studies.ladder import __main__ as ladder
from studies.parts import __main__ as parts
from studies.repaired_cyclegan import __main__ as repaired_cyclegan


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (UserError("too small"), 2, "error: too small\n"),
        (OSError("no space"), 2, "error: no space; all is kept\n"),
        (Terminated(), STATUS, "terminated; all is kept\n"),
        (KeyboardInterrupt(), 130, "interrupted; all is kept\n"),
    ],
)
def test_what_ends_a_study_is_said_in_a_line(capsys, error, status, said):
    def work():
        if error:
            raise error

    assert command.status(work, "all is kept") == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("study", [ladder, parts, repaired_cyclegan])
@pytest.mark.parametrize(
    ("out", "said"),
    [("run/results.json", "only read"), ("results.json", "plan.json"), ("", "--out= "), ("run", "--out=run")],
)
def test_a_study_of_a_run_refuses_what_is_none_before_it_works(
    tmp_path, monkeypatch, capsys, study, out, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert study.main(["--run=run", f"--out={out}"]) == 2
    assert said in capsys.readouterr().err


def test_a_run_of_before_a_field_was_there_is_read_with_its_default(tmp_path):
    config = json.loads(json.dumps(config_lib.to_json(config_lib.parse(small_config()))))
    del config["evaluate"]["clustered_networks"]
    del config["generators"]["cyclegan"]["hidden"]
    config["zoo"]["models"] = 5
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "plan.json").write_text(json.dumps({"layers": [], "zoos": [], "pairs": []}))
    settings, _ = finished.read_run(tmp_path)
    assert settings.zoo.models == 5
    assert settings.evaluate == config_lib.parse(small_config()).evaluate
    assert settings.generators["cyclegan"].hidden == cyclegan.Config().hidden


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"generators": {"gone": {}}}'])
def test_a_run_whose_config_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "plan.json").write_text(json.dumps({"layers": [], "zoos": [], "pairs": []}))
    with pytest.raises(UserError, match=r"config|gone"):
        finished.read_run(tmp_path)


@pytest.mark.parametrize(
    ("study", "flag"),
    [
        (ladder, "--models=0"),
        (ladder, "--images=1"),
        (parts, "--models=0"),
        (repaired_cyclegan, "--steps=30"),
    ],
)
def test_a_number_that_cannot_be_is_refused(capsys, study, flag):
    assert study.main(["--run=run", flag]) == 2
    assert flag in capsys.readouterr().err


def test_results_say_of_which_commit_they_are(tmp_path):
    command.write(tmp_path / "new" / "results.json", {"rows": [1]})
    found = json.loads((tmp_path / "new" / "results.json").read_text())
    assert found["rows"] == [1]
    assert {"commit", "clean"} <= set(found)
