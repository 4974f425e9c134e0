"""Tests for studies.jain2024.data: a very small zoo in both layouts, and the original's own."""

import csv
import shutil
from pathlib import Path

import jain2024_archive as made
import numpy as np
import pytest

from kernelgan import interop, models
from kernelgan.types import UserError
from studies.jain2024 import data

LAYERS = ("conv1", "conv2")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Written once; nobody may change it."""
    return made.write_archive(tmp_path_factory.mktemp("original"))


@pytest.fixture
def own(archive, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(archive, tmp_path / "own"))


def write_repository(archive, root):
    """The same data in the repository's layout, its files in NumPy's format."""

    def write(path, arrays):
        with path.open("wb") as file:
            np.savez(file, **arrays)

    zoos, generators = made.make_arrays()
    for name, arrays in zoos.items():
        (root / f"{name}_models").mkdir(parents=True)
        for number in range(len(arrays["fc1.bias"])):
            one = {array: values[number] for array, values in arrays.items()}
            write(root / f"{name}_models/{name}_model_{number:04d}.pth", one)
    for file, layer in (("", "conv1"), ("2_", "conv2")):
        for way in ("A2B", "B2A"):
            own = {n.split("/")[2]: a for n, a in generators.items() if n.startswith(f"{layer}/{way}/")}
            write(root / f"{file}generator_{way}.pth", own)
    shutil.copytree(archive / "test_images", root / "GeneratedCNN_test")
    shutil.copy(archive / "reported_results.csv", root)
    return root


# What is read ---------------------------------------------------------------------------------------------


def test_both_layouts_hold_the_same(archive, tmp_path, assert_trees_equal, monkeypatch):
    monkeypatch.setattr(interop, "read_arrays", lambda path: dict(np.load(path)))  # no need of PyTorch
    told = []
    found = data.load(
        write_repository(archive, tmp_path / "repository"),
        lambda done, total: told.append((done, total)),
    )
    expected = data.load(archive, made.silent)
    assert (found.layout, expected.layout) == ("repository", "archive")
    for name in ("black", "cat", "generators"):
        assert_trees_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.images, expected.images)
    assert (found.names, found.reported, found.digest) == (expected.names, expected.reported, expected.digest)
    assert told == [(n, count) for count in (made.BLACK, made.CAT) for n in range(1, count + 1)]


def test_a_complete_archive(archive):
    found = data.load(archive, made.silent)
    zoos, generators = made.make_arrays()
    assert found.pairs == min(made.BLACK, made.CAT)
    for ours, theirs in ((found.black, zoos["black"]), (found.cat, zoos["cat"])):
        np.testing.assert_array_equal(
            ours["conv2"]["kernel"].transpose(0, 4, 3, 1, 2), theirs["conv2.weight"]
        )
        np.testing.assert_array_equal(ours["conv1"]["bias"], theirs["conv1.bias"])
        # The original's class 0 is the concept; ours is class 1.
        np.testing.assert_array_equal(ours["dense"]["kernel"][..., 1], theirs["fc1.weight"][:, 0])
        np.testing.assert_array_equal(ours["dense"]["kernel"][..., 0], theirs["fc1.weight"][:, 1])
        np.testing.assert_array_equal(ours["dense"]["bias"], theirs["fc1.bias"][:, ::-1])
    for layer in LAYERS:
        for ours, theirs in (("a2b", "A2B"), ("b2a", "B2A")):
            for name, array in interop.to_torch(found.generators[layer][ours]).items():
                np.testing.assert_array_equal(array, generators[f"{layer}/{theirs}/{name}"])


def test_photographs_are_those_of_0_then_those_of_1_by_name(own):
    found = data.load(own, made.silent)
    assert found.names == made.NAMES
    np.testing.assert_array_equal(found.positive, [False] * 6 + [True] * 4)
    assert (found.images.shape, found.images.dtype) == ((10, 32, 32, 3), np.uint8)
    ours = np.asarray(models.normalise_images(found.images)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, made.preprocess_by_hand(own / "test_images"), atol=1e-6)
    (own / "test_images/0/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (own / "test_images/1/more").mkdir()
    assert data.load(own, made.silent).digest == found.digest  # hidden files and folders are no photographs


def test_the_reported_table(own):
    first, *_, last = data.load(own, made.silent).reported
    assert (first.clusterer, first.model, first.domain) == ("kmeans", 0, "A")
    assert (last.clusterer, last.domain) == ("dbscan", "A")
    assert first.printed == dict(zip(data.PRINTED, (0.7, 0.5, 0.6, 0.9, 0.7), strict=True))
    (own / "reported_results.csv").unlink()
    assert data.load(own, made.silent).reported == ()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("zoo_black.npz", "conv1.weight"),
        ("zoo_cat.npz", "fc1.bias"),
        ("generators.npz", "conv2/B2A/main.2.bias"),
        ("reported_results.csv", ""),
        ("test_images/0/wide.jpg", ""),
    ],
)
def test_the_digest_is_of_everything(own, file, name):
    before = data.load(own, made.silent).digest
    assert data.load(own, made.silent).digest == before
    if name:
        made.edit_array(own / file, name, lambda array: array + np.float32(1e-3))
    else:
        (own / file).unlink()
    assert data.load(own, made.silent).digest != before


# What is refused ------------------------------------------------------------------------------------------


def _refused(root, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load(root, made.silent)
    assert "\n" not in str(caught.value)


def test_a_place_without_either_layout_says_what_each_lacks(own, tmp_path):
    _refused(tmp_path / "nowhere", r"--dir=.*nowhere is no directory")
    _refused(
        tmp_path,
        r"archive layout, which lacks zoo_black\.npz, zoo_cat\.npz, generators\.npz, test_images/0, .*"
        r"repository layout, which lacks black_models, cat_models, generator_A2B\.pth.* GeneratedCNN_test/1",
    )
    (own / "zoo_cat.npz").unlink()
    shutil.rmtree(own / "test_images/1")
    _refused(own, r"archive layout, which lacks zoo_cat\.npz, test_images/1; or the repository layout")


def test_a_damaged_photograph_is_named(own):
    path = own / "test_images/0/b.png"
    path.write_bytes(path.read_bytes()[:200])
    _refused(own, r"test_images/0/b\.png ")


@pytest.mark.parametrize(("kind", "counts"), [("0", r"4 .*\(1\) and 1 "), ("1", r"1 .*\(1\) and 6 ")])
def test_too_few_photographs_of_a_kind(own, kind, counts):
    for path in sorted((own / "test_images" / kind).iterdir())[1:]:
        path.unlink()
    _refused(own, counts)


def test_arrays_that_are_unknown_missing_or_damaged(own):
    made.edit(own / "generators.npz", **{"conv3/A2B/main.0.bias": np.zeros(64, np.float32)})
    _refused(own, r"generators\.npz holds conv3/A2B/main\.0\.bias; expected .*conv1/A2B, conv1/B2A")
    made.edit(own / "generators.npz", **{"conv3/A2B/main.0.bias": None, "conv2/A2B/main.2.weight": None})
    _refused(own, r"generators\.npz, conv2/A2B .*main\.2\.weight")
    made.edit(own / "generators.npz", **{"conv2/A2B/main.2.weight": np.zeros((6, 8, 3, 3, 3), np.float32)})
    _refused(own, r"generators\.npz, conv2/A2B .*main\.2\.weight is float32 \(6, 8, 3, 3, 3\)")
    made.edit(
        own / "generators.npz",
        **{"conv2/A2B/main.2.weight": made.make_arrays()[1]["conv2/A2B/main.2.weight"]},
    )
    made.edit(own / "zoo_cat.npz", **{"fc1.bias": None})
    _refused(own, r"zoo_cat\.npz .*fc1\.bias")
    (own / "zoo_black.npz").write_bytes(b"junk")
    _refused(own, r"zoo_black\.npz is damaged")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (made.HEADER.replace("accuracy", "score") + "\n" + made.ROWS[0], r".*columns"),
        (made.HEADER + "\nkmeans,one,A,1,1,1,1,1", r".*columns"),
        (b"\xff\xfe\x00", r".*columns"),
        (made.HEADER + "\nspectral,1,A,1,1,1,1,1", r"has spectral of A1 .*; expected rows of kmeans, one_"),
        (made.HEADER + "\nkmeans,1,C,1,1,1,1,1", r"has kmeans of C1 .*; expected"),
        (made.HEADER + "\nkmeans,1,A,1.01,1,1,1,1", r"has kmeans of A1 with .*'accuracy': 1\.01"),
        (made.HEADER + "\nkmeans,1,A,1,1,1,inf,1", r"has kmeans of A1 with .*'entropy': inf"),
        ("\n".join((made.HEADER, *made.ROWS, made.ROWS[1])), r"has \('kmeans', 3, 'B'\) twice; expected"),
        (made.HEADER, r"has no row"),
    ],
)
def test_a_table_that_is_not_the_report_s(own, text, message):
    (own / "reported_results.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    _refused(own, rf"reported_results\.csv {message}")


# The original's own ---------------------------------------------------------------------------------------


@made.needs_reference
def test_the_original_is_read_whole():
    real = data.load(made.REFERENCE, made.silent)
    assert real.layout == "archive"
    assert (len(real.black["dense"]["bias"]), len(real.cat["dense"]["bias"])) == (2749, 1749)
    assert (len(real.names), int(real.positive.sum())) == (89, 34)
    assert all(set(real.generators[layer]) == {"a2b", "b2a"} for layer in LAYERS)
    with (made.REFERENCE / "reported_results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(real.reported) == len(rows) == 81
    for ours, theirs in zip(real.reported, rows, strict=True):
        assert list(ours.printed.values()) == [float(value) for value in list(theirs.values())[3:]]
    # The photographs are preprocessed as PyTorch did.
    checks = interop.read_arrays(made.REFERENCE / "reference_features.npz")
    order = [list(map(str, checks["files"])).index(name) for name in real.names]
    ours = np.asarray(models.normalise_images(real.images)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, checks["images"][order], rtol=0, atol=1e-6)
