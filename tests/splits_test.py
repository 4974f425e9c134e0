"""Folds and sealed pairs: the file of splits, and the gate that refuses a sealed run without a registry."""

import collections
import itertools
import json
from pathlib import Path

import pytest
from tiny_runs import small_config

from configs import pair_matrix
from kernelgan import config as config_lib
from kernelgan import pipeline, splits
from kernelgan.types import UserError

CIFAR10 = Path(__file__).parents[1] / "configs/splits/cifar10.json"
SEEN = (("black", "cat"), ("red", "car"))


def _made(seed=0, sealed=1, seen=SEEN, attributes=("black", "red"), objects=("cat", "car", "dog")):
    return splits.make(attributes, objects, seed=seed, sealed=sealed, seen=seen)


@pytest.fixture
def file(tmp_path):
    return splits.write(tmp_path / "splits.json", _made())


def _matrix(file, **fields):
    given = {"pairs.attributes": ("black", "red"), "pairs.objects": ("cat", "car", "dog")}
    given |= {"pairs.splits": str(file)} | {f"pairs.{name}": value for name, value in fields.items()}
    return small_config(given)


# The gate -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", ["all", "sealed"])
def test_a_run_on_sealed_pairs_without_a_registry_is_refused_before_anything_is_read(
    folds, file, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline.sources, "load_source", lambda *_: pytest.fail("images are read"))
    with pytest.raises(UserError) as error:
        pipeline.run(_matrix(file, folds=folds), tmp_path / "run")
    sealed = next(pair for pair in splits.read(file).chosen("sealed"))
    for fact in ("--config.registry=", "--config.pairs.folds=development", " ".join(sealed)):
        assert fact in str(error.value)
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize("folds", ["all", "sealed"])
def test_a_registered_run_may_open_sealed_pairs(folds, file):
    config = _matrix(file, folds=folds)
    config.registry = "attempts.csv"
    assert config_lib.parse(config).pairs.folds == folds


def test_a_run_on_development_folds_needs_no_registry(file):
    config_lib.parse(_matrix(file, folds="development"))


@pytest.mark.parametrize(
    "pair", splits.make(("black", "red"), ("cat", "car"), seed=0, sealed=1).chosen("all")
)
def test_a_single_pair_is_refused_if_it_is_sealed(pair, tmp_path):
    made = _made(attributes=("black", "red"), objects=("cat", "car"), seen=())
    file = splits.write(tmp_path / "splits.json", made)
    config = _matrix(file, attributes=pair[:1], objects=pair[1:])
    if made.is_sealed(pair):
        with pytest.raises(UserError, match=" ".join(pair)):
            config_lib.parse(config)
    else:
        config_lib.parse(config)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"splits": "", "folds": "sealed"}, ["pairs.folds", "'sealed'", "pairs.splits"]),
        ({"splits": "nowhere.json"}, ["nowhere.json"]),
        ({"attributes": ("black", "pink")}, ["pink", "splits.json"]),
        ({"attributes": ("black",), "objects": ("cat",), "folds": "sealed"}, ["'sealed'", "black cat"]),
    ],
)
def test_fields_that_do_not_fit_the_file_are_named(fields, facts, file):
    with pytest.raises(UserError) as error:
        config_lib.parse(_matrix(**({"file": file} | fields)) if "splits" not in fields else _with(fields))
    for fact in facts:
        assert fact in str(error.value)


def _with(fields):
    config = _matrix("")
    config.update_from_flattened_dict({f"pairs.{name}": value for name, value in fields.items()})
    return config


# The file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (4, 4), (1, 2), (10, 10)])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_concept_has_one_partner_and_each_pair_is_held_out_once(shape, seed):
    names = [tuple(f"{kind}{n}" for n in range(count)) for kind, count in zip("ao", shape, strict=True)]
    made = splits.make(*names, seed=seed, sealed=1)
    assert len(made.folds) == max(shape)
    for fold in made.folds:
        assert all(
            count == 1 for side in zip(*fold, strict=True) for count in collections.Counter(side).values()
        )
    pairs = list(itertools.chain(*made.folds))
    assert sorted(pairs) == sorted(itertools.product(*names))
    for pair in pairs:
        assert pair in made.folds[made.fold(pair) - 1]
        assert made.is_sealed(pair) == (made.fold(pair) in made.sealed)


def test_pairs_that_were_looked_at_are_in_a_development_fold():
    for seed in range(5):
        made = _made(seed=seed, sealed=2)
        assert {made.fold(pair) for pair in SEEN} == {1}
        assert made.sealed == (2, 3)
        assert set(made.chosen("development")) | set(made.chosen("sealed")) == set(made.chosen("all"))
        assert not set(made.chosen("development")) & set(made.chosen("sealed"))
    assert len({_made(seed=seed).sha256 for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"sealed": 3}, "3"),
        ({"sealed": 0}, "0"),
        ({"seen": (("black", "cat"), ("black", "dog"))}, "black"),
        ({"seen": (("pink", "cat"),)}, "pink"),
        ({"attributes": ("black", "black")}, "black"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(given, fact):
    with pytest.raises(UserError, match=fact):
        _made(**given)


def test_a_file_is_read_as_it_was_written(file):
    assert splits.read(file) == _made()


@pytest.mark.parametrize("change", ["use", "pair", "digest", "cut", "list"])
def test_a_file_that_was_changed_by_hand_is_refused(change, file):
    content = json.loads(file.read_text())
    if change == "use":
        content["folds"][-1]["use"] = "development"
    elif change == "pair":
        content["folds"][0]["pairs"].reverse()
    elif change == "digest":
        content["sha256"] = "0" * 64
    text = {"cut": file.read_text()[:-20], "list": "[]"}.get(change, json.dumps(content))
    file.write_text(text)
    with pytest.raises(UserError, match=file.name):
        splits.read(file)


def test_another_choice_does_not_take_a_files_place(file):
    before = file.read_bytes()
    splits.write(file, _made())
    with pytest.raises(UserError, match=file.name):
        splits.write(file, _made(seed=5, sealed=2))
    assert file.read_bytes() == before


def test_the_file_of_cifar10_is_what_its_command_makes(tmp_path):
    made = splits.read(CIFAR10)
    names = [f"--attributes={','.join(made.attributes)}", f"--objects={','.join(made.objects)}"]
    seen = f"--seen={','.join(map(':'.join, made.seen))}"
    drawn = [f"--sealed={len(made.sealed)}", f"--seed={made.seed}"]
    assert splits.main([str(tmp_path / "again.json"), *names, seen, *drawn]) == 0
    assert (tmp_path / "again.json").read_bytes() == CIFAR10.read_bytes()
    assert (made.attributes, made.objects) == (pair_matrix.COLOURS, pair_matrix.CLASSES)
    assert (len(made.folds), len(made.sealed)) == (10, 5)


@pytest.mark.parametrize("pair", [("blak", "cat"), ("black", "truck"), ("cat", "black")])
def test_a_pair_that_the_splits_do_not_know_is_refused_by_name(pair):
    with pytest.raises(UserError, match=f"no pair '{' '.join(pair)}'.* black, red .* cat, car, dog"):
        _made().is_sealed(pair)
