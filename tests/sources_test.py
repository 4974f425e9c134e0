"""Tests for kernelgan.data.sources: each source gets its own fields of the config, and can be pictured."""

import csv
import itertools
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from configs import default
from kernelgan import config as config_lib
from kernelgan import data
from kernelgan.data import folder, quadrants, rendered, sources, tfds
from kernelgan.data.images import ImageSet, Source
from kernelgan.types import LEFT_OUT, UserError


@pytest.fixture
def config():
    config = default.get_config()
    config.seed = 5
    config.data.image_size = 8
    config.data.rendered.train = 6
    config.data.rendered.test = 4
    config.pairs.attributes = ("black", "red")
    return config


def _silent(done, total):
    pass


def test_the_rendered_source_follows_the_config(config):
    source = sources.load_source(config, _silent)
    again = rendered.load(
        attributes=("black", "red"), objects=("cat",), train=6, test=4, image_size=8, seed=5
    )
    assert source.name == "rendered"
    np.testing.assert_array_equal(source.train.images, again.train.images)
    np.testing.assert_array_equal(source.test.images, again.test.images)
    assert source.test.images.shape == (4, 8, 8, 3)


@pytest.mark.parametrize(
    ("name", "module", "fields"),
    [
        ("tfds", tfds, {"name": "celeb_a", "data_dir": "there", "seed": 5}),
        ("folder", folder, {"path": "pictures", "broken_share": 0.25}),
    ],
)
def test_a_source_gets_the_fields_of_the_config(config, monkeypatch, name, module, fields):
    config.data.source = name
    config.data.folder = "pictures"
    config.data.broken_share = 0.25
    config.data.tfds.name = "celeb_a"
    config.data.tfds.data_dir = "there"
    loader = mock.create_autospec(module.load)
    monkeypatch.setitem(sources.SOURCES, name, sources.SOURCES[name]._replace(load=loader))
    sources.load_source(config, _silent)
    loader.assert_called_once_with(
        **fields, attributes=("black", "red"), objects=("cat",), image_size=8, progress=_silent
    )


def test_the_config_knows_every_source(config):
    config.data.image_size = 32
    for name in sources.SOURCES:
        config.data.source = name
        config.data.folder = "." if name == "folder" else ""
        assert config_lib.parse(config).data.source == name
    config.data.source = "photos"
    with pytest.raises(UserError, match=", ".join(f"'{name}'" for name in sources.SOURCES)):
        config_lib.parse(config)


@pytest.mark.parametrize(
    ("source", "options", "facts"),
    [
        ("photos", {}, ("'photos'", "'rendered'", "'tfds'", "'folder'")),
        ("rendered", {"path": "x"}, ("'rendered'", "path", "train", "test")),
        ("folder", {}, ("'folder'", "path")),
        ("tfds", {"path": "x"}, ("'tfds'", "path", "data_dir")),
        ("rendered", {"attributes": "black"}, ("attributes", "('black',)")),
    ],
)
def test_a_wrong_source_or_option_is_named(source, options, facts):
    with pytest.raises(UserError) as error:
        data.load(source, **{"attributes": ("black",), "objects": ("cat",), **options})
    assert all(fact in str(error.value) for fact in facts)


def test_a_folder_is_read(config, tmp_path):
    rng = np.random.default_rng(0)
    with (tmp_path / "images.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("path", "attribute", "object", "split"))
        labels = itertools.product(("black", "red"), ("cat", ""), ("train", "test"))
        for number, row in enumerate(labels):
            Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / f"{number}.png")
            table.writerow((f"{number}.png", *row))
    config.data.source = "folder"
    config.data.folder = str(tmp_path)
    seen = []
    source = sources.load_source(config, lambda done, total: seen.append((done, total)))
    assert source.train.images.shape == (4, 8, 8, 3)
    assert source.train.attributes["red"].tolist() == [0, 0, 1, 1]
    assert source.test.objects["cat"].tolist() == [1, 0, 1, 0]
    assert seen[-1] == (8, 8)


def test_the_sheet_of_photographs_has_a_row_for_each_quadrant_that_has_images(config):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    test = ImageSet(images, {}, {}, tuple("abcde"), np.zeros(5, bool))
    split = np.array([0, 4, LEFT_OUT, 0, 4], np.int8)
    pair = quadrants.PairSplit("black", "cat", np.array([]), np.array([]), split)
    config.data.source = "folder"
    sheet, rows, columns = sources.contact_sheet(config, Source("folder", test, test), pair)
    assert rows == ("black cat: a&o", "black cat: rest")
    assert len(columns) == sheet.shape[1]
    assert sheet[0, :4, 0, 0, 0].tolist() == [0, 3, 0, 3]  # few images are shown again
    assert sheet[1, :4, 0, 0, 0].tolist() == [1, 4, 1, 4]
    assert LEFT_OUT not in sheet


def test_a_source_of_one_s_own_that_reads_a_file_has_a_fingerprint(config, tmp_path, monkeypatch):
    file = tmp_path / "images.npz"
    own = sources.Kind(rendered.load, lambda data: {}, lambda data: ("data.own.file", str(file), ""))
    monkeypatch.setitem(sources.SOURCES, "own", own)
    config.data.source = "own"
    found = []
    for content in (b"one", b"another"):
        file.write_bytes(content)
        found.append(sources.fingerprint(config))
    assert "" not in found
    assert len(set(found)) == 2
    monkeypatch.setitem(sources.SOURCES, "own", own._replace(files=None))
    assert sources.fingerprint(config) == ""


def test_a_fingerprint_sees_changed_files_and_reads_none(config, tmp_path):
    config.data.source, config.data.folder = "folder", str(tmp_path)
    file = tmp_path / "cat" / "a.png"
    file.parent.mkdir()
    file.write_bytes(b"12345")
    first = sources.fingerprint(config)
    assert sources.fingerprint(config) == first
    file.write_bytes(b"123456")
    second = sources.fingerprint(config)
    file.rename(file.with_name("b.png"))
    assert len({first, second, sources.fingerprint(config)}) == 3
    config.data.source = "rendered"
    assert sources.fingerprint(config) == ""
