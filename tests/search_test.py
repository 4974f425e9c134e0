from pathlib import Path

import forks
import numpy as np
import pytest
from tiny_runs import small_config

from kernelgan import plan, search
from kernelgan.types import UserError

pytestmark = pytest.mark.usefixtures("drawn_once")

ROOT = Path(__file__).parents[1]
LISTS = {"learning_rate": [1e-6, 0.01], "batch_size": [], "epochs": [24], "decay": []}


@pytest.fixture
def config():
    return small_config()


@pytest.fixture(scope="module")
def trials():
    return search.search(small_config(), LISTS, models_a_zoo=2)


def test_a_combination_that_no_run_could_have_is_refused_before_any_data_is_read(config, monkeypatch):
    monkeypatch.setattr(search.sources, "load_source", None)
    with pytest.raises(UserError, match=r"zoo\.batch_size is 128, more than the 64 images of an epoch"):
        search.search(config, LISTS | {"batch_size": [32, 128]}, models_a_zoo=2)


def test_what_trains_learns_and_what_hardly_moves_does_not_and_the_best_is_first(trials):
    best, worst = trials
    assert [trial["learning_rate"] for trial in trials] == [0.01, 1e-6]
    assert (best["epochs"], best["batch_size"], best["image passes"]) == (24, 32, [1536, 1536])
    assert best["attribute: auroc"] > 0.8
    assert best["attribute: balanced_accuracy"] > worst["attribute: balanced_accuracy"]


def test_every_combination_is_trained_with_its_settings_and_the_config_stays(config, monkeypatch):
    def _train(changed, plan, progress):
        return {f"{kind}: balanced_accuracy": -changed.zoo.batch_size for kind in ("attribute", "object")}

    monkeypatch.setattr(search, "_train", _train)
    lists = {"batch_size": [16, 32], "epochs": [], "decay": [False, True]}
    trials = search.search(config, lists, models_a_zoo=2)
    settings = [(trial["batch_size"], trial["decay"]) for trial in trials]
    assert settings == [(16, False), (16, True), (32, False), (32, True)]
    for name in ("epochs", "learning_rate"):
        assert {trial[name] for trial in trials} == {config.zoo[name]}
    assert config.zoo.decay is False


def test_scores_are_of_the_last_epoch_on_validation_images(config, monkeypatch):
    def train_zoos(network, images, tasks, training, **options):
        return [
            {
                "history": {
                    "train_loss": np.full((2, 2), 9.0),
                    "validation_balanced_accuracy": np.array([[0.0, 0.5], [0.0, 0.7]])
                    + (task.kind == "object"),
                    "validation_auroc": np.array([[0.0, 0.8], [0.0, 1.0]]),
                }
            }
            for task in tasks
        ]

    monkeypatch.setattr(search.zoo, "train_zoos", train_zoos)
    (trial,) = search.search(config, {}, models_a_zoo=2)
    scores = [trial[name] for name in ("attribute: balanced_accuracy", "attribute: auroc")]
    assert scores == pytest.approx([0.6, 0.9])
    assert trial["object: balanced_accuracy"] == pytest.approx(1.6)


def test_a_loss_that_is_not_finite_is_told_and_the_others_go_on(config, monkeypatch, capsys):
    train_zoos = search.zoo.train_zoos

    def fails(*arguments, **options):
        if arguments[3].learning_rate == 0.01:
            raise UserError("the training loss is nan")
        return train_zoos(*arguments, **options)

    monkeypatch.setattr(search.zoo, "train_zoos", fails)
    (trial,) = search.search(config, LISTS, models_a_zoo=2)
    assert trial["learning_rate"] == 1e-6
    assert "learning_rate 0.01" in capsys.readouterr().err


def test_test_images_are_read_by_the_gate_alone(trials, config, monkeypatch):
    """Once the plan is made they are gone, and the search ends as it does with them."""
    make_plan = plan.make_plan

    def without_test(config, source):
        made = make_plan(config, source)
        for field in ("images", "rest"):
            getattr(made.source.test, field)[...] = 0
        return made

    monkeypatch.setattr(search, "make_plan", without_test)
    (found,) = search.search(config, {"learning_rate": [0.01], "epochs": [24]}, models_a_zoo=2)
    assert {**found, "seconds": 0} == {**trials[0], "seconds": 0}


def test_the_table_has_a_line_for_each_trial(trials):
    head, rule, *rows = search.table(trials).splitlines()
    assert len(rows) == 2
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    cells = dict(zip(*([cell.strip() for cell in line.split("|")] for line in (head, rows[0])), strict=True))
    assert (cells["learning rate"], cells["batch size"], cells["image passes"]) == ("0.01", "32", "1,536")
    assert cells["object: auroc"] == f"{trials[0]['object: auroc']:.3f}"


REFUSED = {
    "--learning_rates=0.1,fast": "--learning_rates is '0.1,fast'; expected numbers",
    "--decay=maybe": "--decay is 'maybe'; expected yes and no",
    "--models=0": "--models=0",
}


def test_flags_that_cannot_be_are_told_in_one_line(tmp_path):
    lines = [("kernelgan.search", "--config=configs/tiny.py", flag) for flag in REFUSED]
    for run, message in zip(forks.run_all(lines, tmp_path), REFUSED.values(), strict=True):
        assert run.returncode == 2
        assert run.stderr.startswith("error: ")
        assert run.stderr.count("\n") == 1
        assert message in run.stderr
