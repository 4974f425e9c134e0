"""Tests for kernelgan.pipeline: what is made again in a finished run, and what is not."""

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_runs import document, measured, place, said_of, small_config

from kernelgan import export, interop, keys, pipeline, results, zoo
from kernelgan.stages import CODE
from kernelgan.types import UserError

pytestmark = pytest.mark.usefixtures("drawn_once", "flat_figures")

LATER = {"data", "evaluate"}
"""What every run does that is not shown as it is."""


def _said(capsys):
    said = said_of(capsys.readouterr().err)
    return {stage: words for stage, words in said.items() if stage not in LATER}


def test_another_zoo_in_place_of_a_damaged_one_remakes_all_that_was_made_from_it(
    copied, finished, capsys, monkeypatch
):
    """As on another machine, training does not give the same bits: old and new networks never mix."""
    (copied / "recipe.sha256").unlink()
    for file in (place(copied, "zoo") / "result/0").rglob("*"):
        if file.is_file():
            file.write_bytes(b"?")
    train = zoo.train_zoos
    monkeypatch.setattr(
        zoo, "train_zoos", lambda *given, seed, **named: train(*given, seed=seed + 1, **named)
    )
    before = measured(copied)
    pipeline.run(small_config(), copied, stage="evaluate")
    said = _said(capsys)
    assert said.pop("zoo") == "is made again: it is damaged"
    assert said.pop("trained_on_conjunction") == "done before"
    for stage, more in (("generate/cyclegan", ""), ("placebos/cyclegan", " and its input generate/cyclegan")):
        expected = f"is made again: its input fit/cyclegan{more} and its input zoo changed since"
        assert said.pop(stage) == expected
    assert set(said) == {"fit/cyclegan", "distilled"}
    assert set(said.values()) == {"is made again: its input zoo changed since"}
    after = measured(copied)
    assert after.keys() == before.keys()
    assert all(after[row] > before[row] for row in before)
    old, new = (results.read_results(run).pairs[0] for run in (finished, copied))
    for row in ("attribute_only", "average", "cyclegan_a2b", "distilled"):
        assert new.figure(row).mean != old.figure(row).mean
    assert new.figure("trained_on_conjunction") == old.figure("trained_on_conjunction")


def test_where_the_code_of_measurements_changed_rows_are_measured_again_and_nothing_else(
    copied, finished, capsys, monkeypatch
):
    of_source = keys.of_source
    monkeypatch.setattr(
        keys, "of_source", lambda *names: of_source(*names) + ("+" if names == CODE["evaluate"] else "")
    )
    (copied / "recipe.sha256").unlink()
    before = measured(copied)
    pipeline.run(small_config(), copied, stage="evaluate")
    assert set(_said(capsys).values()) == {"done before"}
    after = measured(copied)
    assert after.keys() == before.keys()
    assert all(after[row] > before[row] for row in before)
    assert document(copied) == document(finished)


def test_results_of_other_code_are_kept_where_that_is_asked_for_and_the_report_says_so(
    copied, finished, capsys, monkeypatch
):
    of_source = keys.of_source
    monkeypatch.setattr(keys, "of_source", lambda *names: of_source(*names) + "+")
    (copied / "recipe.sha256").unlink()
    names = ("zoo", "fit", "distilled", "trained_on_conjunction", "generate", "placebos")
    pipeline.run(small_config(), copied, stage="evaluate", keep=names)
    assert set(_said(capsys).values()) == {"done before, by other code, and kept as --keep says"}
    new, old = (results.read_results(run) for run in (copied, finished))
    assert new.pairs[0].methods["cyclegan_a2b"].auroc == old.pairs[0].methods["cyclegan_a2b"].auroc
    (note,) = set(new.data.notes) - set(old.data.notes)
    assert "placebos/cyclegan" in note
    assert "made by other code" in note

    assert not (copied / "recipe.sha256").exists()  # without --keep it has not finished


@pytest.mark.parametrize("name", ["zoos", "zo", "", "reduce", "generate/cycle"])
def test_a_stage_to_keep_that_has_no_results_is_refused(copied, name):
    with pytest.raises(UserError, match=r"--keep=.* it has .*fit, generate"):
        pipeline.run(small_config({"seed": 1}), copied, keep=("zoo", name))


# Images in a folder ---------------------------------------------------------------------------------------

LABELS = {"both": (1, 1), "black": (1, 0), "cat": (0, 1), "neither": (0, 0)}


@pytest.fixture
def folder(tmp_path):
    """Labelled pictures."""
    lines, rng = ["path,attribute,object,split"], np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for split, count in (("train", 24), ("test", 5)):
        for name, (black, cat) in LABELS.items():
            for number in range(count):
                path = tmp_path / "pictures" / f"{split}-{name}-{number}.png"
                pixels = rng.integers(0, 80 if black else 255, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(path)
                lines.append(f"{path.name},{'black' * black},{'cat' * cat},{split}")
    (tmp_path / "pictures/images.csv").write_text("\n".join(lines))
    return tmp_path / "pictures"


def _folder_config(folder):
    fields = {"zoo.images_per_epoch": 32, "zoo.epochs": 1, "data.minimum_train": 4}
    fields |= {"baselines.images_per_epoch": 32, "baselines.epochs": 1}
    return small_config(fields | {"data.source": "folder", "data.folder": str(folder)})


def test_moved_images_change_nothing_and_other_images_everything(folder, tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "run"
    pipeline.run(_folder_config(folder), workdir, stage="evaluate")
    before = measured(workdir)
    (pair,) = results.read_results(workdir).pairs
    assert pair.data.test == dict.fromkeys(("a&o", "a&!o", "!a&o", "!a&!o"), 5)  # as the csv file says
    assert all(pair.figure(row).known for row in before)
    moved = folder.rename(tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.report, "show", lambda workdir: workdir)
        shown = pipeline.run(_folder_config(folder), workdir, stage="data")
    assert shown == workdir  # finished: shown without the images
    capsys.readouterr()
    pipeline.run(_folder_config(moved), workdir, stage="evaluate")
    said = _said(capsys)
    assert {"zoo", "fit/cyclegan", "distilled", "trained_on_conjunction", "generate/cyclegan"} <= set(said)
    assert set(said.values()) == {"done before"}
    assert measured(workdir) == before

    picture = moved / "train-black-3.png"
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    pipeline.run(_folder_config(moved), workdir, stage="evaluate")
    said = _said(capsys)
    assert said.pop("zoo") == said.pop("trained_on_conjunction") == "is made again: its images changed since"
    assert said.pop("fit/cyclegan") == "is made again: its input zoo changed since"
    assert all(words.startswith("is made again: ") for words in said.values())
    after = measured(workdir)
    assert all(after[row] > before[row] for row in before)


# Zoos that were trained elsewhere -------------------------------------------------------------------------


def test_a_zoo_that_is_taken_out_and_given_back_has_the_same_rows(finished, tmp_path):
    given = {}
    for kind, name in (("attribute", "black"), ("object", "cat")):
        file = tmp_path / f"{name}.safetensors"
        export.export(finished, file, network=name)
        given[f"zoo.{kind}_file"] = str(file)
    workdir = tmp_path / "run"
    pipeline.run(small_config(given), workdir, stage="evaluate")
    assert not (workdir / "checkpoints/zoo").exists()
    expected, found = (results.read_results(run).pairs[0] for run in (finished, workdir))
    assert found.methods.keys() == expected.methods.keys()
    assert found.zoo == {}
    for row in ("attribute_only", "object_only", "average", "distilled", "cyclegan_a2b"):
        assert found.figure(row) == expected.figure(row)
    ours, theirs = export.networks(workdir), export.networks(finished)
    assert ours.keys() == theirs.keys()
    for name in ("black", "cat", "cyclegan_a2b"):
        jax.tree.map(np.testing.assert_array_equal, ours[name], theirs[name])


@pytest.mark.parametrize(
    ("change", "fields", "facts"),
    [
        (lambda params: jax.tree.map(lambda leaf: leaf[:3], params), {}, ["3 networks", "4"]),
        (None, {}, ["nowhere.npz"]),
        (lambda params: params, {"pairs.objects": ("cat", "car")}, ["zoo.object_file", "pairs.objects", "2"]),
    ],
)
def test_a_zoo_that_does_not_fit_is_refused_before_anything_trains(change, fields, facts, finished, tmp_path):
    file = tmp_path / "nowhere.npz"
    if change is not None:
        file = interop.save(change(export.networks(finished)["cat"]), tmp_path / "cats.npz")
    with pytest.raises(UserError) as error:
        pipeline.run(small_config(fields | {"zoo.object_file": str(file)}), tmp_path / "run")
    for fact in (file.name, *facts):
        assert fact in str(error.value)
    assert not (tmp_path / "run/checkpoints").exists()
