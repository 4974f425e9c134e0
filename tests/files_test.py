"""Tests for kernelgan.files: the one rule for paths that a person gives, wherever one is given."""

from pathlib import Path

import pytest

import kernelgan as kg
from configs import default
from kernelgan import compare, config, export, files, models
from kernelgan.data import folder, sources, tfds
from kernelgan.generators import loading
from kernelgan.types import UserError


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ("gs://bucket/x", "a URL"),
        ("s3://bucket/x", "a URL"),
        ("file:///x", "a URL"),
        ("hdfs:/x", "a URL"),
        ("~nobody_of_this_name/x", "~nobody_of_this_name"),
        (f"a/{'x' * 256}/b", "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("a\0b", "null"),
    ],
)
def test_what_is_no_path_here_is_refused_with_what_it_is_of(given, fact):
    with pytest.raises(UserError) as caught:
        files.given_path(given, "--workdir")
    assert "--workdir" in str(caught.value)
    assert fact in str(caught.value)


def test_the_home_is_meant_by_a_tilde_and_other_paths_stay(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.given_path("~/x", "x") == tmp_path / "x"
    for path in ("runs/a", "/a/b:c", "a~b", "x" * 255, "ünï/cödé", ".", "C/x"):
        assert files.given_path(path, "x") == Path(path)


def _config(**fields):
    made = default.get_config()
    made.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return made


URL = "gs://bucket/x.py"
PLACES = {
    "data.folder": lambda: folder.load(URL, attributes=("a",), objects=("b",)),
    "data.folder of a finished run": lambda: sources.fingerprint(
        _config(data__source="folder", data__folder=URL)
    ),
    "data.tfds.data_dir": lambda: tfds.load("cifar10", attributes=("black",), objects=("cat",), data_dir=URL),
    "zoo.attribute_file": lambda: config.parse(_config(zoo__attribute_file=URL)),
    "zoo.object_file": lambda: config.parse(_config(zoo__object_file=URL)),
    "--generator": lambda: loading.load({}, [URL], models.ConvNet()),
    "networks": lambda: kg.load_zoo(URL),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_url_is_refused_wherever_a_path_is_given(place):
    with pytest.raises(UserError, match=r"gs://bucket.*a URL") as caught:
        PLACES[place]()
    assert place.partition(" ")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (compare.main, [URL, "b"]),
        (export.main, [URL]),
        (export.main, ["run", "--network=a", f"--out={URL}"]),
    ],
)
def test_commands_refuse_a_url_in_one_line(main, arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "a URL" in said
    assert said.count("\n") == 1


def test_saving_below_the_home(monkeypatch, tmp_path, make_parents):
    monkeypatch.setenv("HOME", str(tmp_path))
    parents = make_parents(2)
    kg.save(parents, "~/zoo.npz")
    assert (tmp_path / "zoo.npz").exists()
    assert set(kg.load_zoo("~/zoo.npz").params) == set(parents)
