"""Tests for studies.jain2024.data: a very small zoo in both layouts, and the original's own."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from jain2024_archive import (
    BLACK,
    CAT,
    HEADER,
    NAMES,
    REFERENCE,
    ROWS,
    edit,
    edit_array,
    make_arrays,
    needs_reference,
    preprocess_by_hand,
    silent,
    write_archive,
)
from PIL import Image

from kernelgan import interop, models
from kernelgan.types import UserError
from studies.jain2024 import data

LAYERS = ("conv1", "conv2")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Written once; nobody may change it."""
    return write_archive(tmp_path_factory.mktemp("original"))


@pytest.fixture
def own(archive, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(archive, tmp_path / "own"))


def write_repository(archive, root, write):
    """The same data in the repository's layout; ``write(path, arrays)`` makes its files."""
    zoos, generators = make_arrays()
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


def test_both_layouts_hold_the_same(archive, tmp_path, assert_trees_equal):
    torch = pytest.importorskip("torch", minversion="2.10", reason="needs PyTorch 2.10 or newer")

    def write(path, arrays):
        torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)

    told = []
    found = data.load(
        write_repository(archive, tmp_path / "repository", write),
        lambda done, total: told.append((done, total)),
    )
    expected = data.load(archive, silent)
    assert (found.layout, expected.layout) == ("repository", "archive")
    for name in ("black", "cat", "generators"):
        assert_trees_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.images, expected.images)
    assert (found.names, found.reported, found.digest) == (expected.names, expected.reported, expected.digest)
    assert told == [(n, BLACK) for n in range(1, BLACK + 1)] + [(n, CAT) for n in range(1, CAT + 1)]


def test_a_complete_archive(archive):
    found = data.load(archive, silent)
    zoos, generators = make_arrays()
    assert found.pairs == min(BLACK, CAT)
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
    found = data.load(own, silent)
    assert found.names == NAMES
    np.testing.assert_array_equal(found.positive, [False] * 6 + [True] * 4)
    assert (found.images.shape, found.images.dtype) == ((10, 32, 32, 3), np.uint8)
    ours = np.asarray(models.normalise_images(found.images)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, preprocess_by_hand(own / "test_images"), atol=1e-6)
    (own / "test_images/0/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (own / "test_images/1/more").mkdir()
    assert data.load(own, silent).digest == found.digest  # hidden files and folders are no photographs


def test_the_reported_table(own):
    first, *_, last = data.load(own, silent).reported
    assert (first.clusterer, first.model, first.domain) == ("kmeans", 0, "A")
    assert (last.clusterer, last.domain) == ("dbscan", "A")
    assert first.printed == dict(zip(data.PRINTED, (0.7, 0.5, 0.6, 0.9, 0.7), strict=True))
    (own / "reported_results.csv").unlink()
    assert data.load(own, silent).reported == ()


@pytest.mark.parametrize(
    "row",
    [
        "kmeans,2,A,0,0,0,0,0",
        "kmeans,2,B,1,1,1,1,1",
        "dbscan,0,B,0.5,0.5,0.5,3.2,0.5",  # entropy in bits, of more than two clusters
        "kmeans,0,B,0.7,0.5,0.6,0.9,0.7",  # of the other domain
        "one_class_svm,0,A,0.7,0.5,0.6,0.9,0.7",  # by another clusterer
    ],
)
def test_rows_that_are_the_report_s(own, row):
    (own / "reported_results.csv").write_text("\n".join((HEADER, *ROWS, row)))
    clusterer, model, domain, *printed = row.split(",")
    *_, last = data.load(own, silent).reported
    assert (last.clusterer, last.model, last.domain) == (clusterer, int(model), domain)
    assert list(last.printed.values()) == [float(value) for value in printed]


def _redraw(root):
    image = Image.open(root / "test_images/1/a.png")
    image.putpixel((0, 0), (255, 255, 255))
    image.save(root / "test_images/1/a.png")


def _reprint(root):
    table = root / "reported_results.csv"
    table.write_text(table.read_text().replace("0.75", "0.76"))


def _nudge(file, name):
    def change(root):
        edit_array(root / file, name, lambda array: np.add.at(array.reshape(-1), -1, np.float32(1e-3)))

    return change


CHANGES = {
    "pixel": _redraw,
    "name": lambda root: (root / "test_images/0/b.png").rename(root / "test_images/0/c.png"),
    "label": lambda root: (root / "test_images/0/wide.jpg").rename(root / "test_images/1/wide.jpg"),
    "table": _reprint,
    "black": _nudge("zoo_black.npz", "conv1.weight"),
    "cat": _nudge("zoo_cat.npz", "fc1.bias"),
    "generator": _nudge("generators.npz", "conv2/B2A/main.2.bias"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_is_of_everything(own, what):
    before = data.load(own, silent).digest
    assert data.load(own, silent).digest == before
    CHANGES[what](own)
    assert data.load(own, silent).digest != before


# What is refused ------------------------------------------------------------------------------------------


def _refused(root, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load(root, silent)
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
    edit(own / "generators.npz", **{"conv3/A2B/main.0.bias": np.zeros(64, np.float32)})
    _refused(own, r"generators\.npz holds conv3/A2B/main\.0\.bias; expected .*conv1/A2B, conv1/B2A")
    edit(own / "generators.npz", **{"conv3/A2B/main.0.bias": None, "conv2/A2B/main.2.weight": None})
    _refused(own, r"generators\.npz, conv2/A2B .*main\.2\.weight")
    edit(own / "generators.npz", **{"conv2/A2B/main.2.weight": make_arrays()[1]["conv2/A2B/main.2.weight"]})
    edit(own / "zoo_cat.npz", **{"fc1.bias": None})
    _refused(own, r"zoo_cat\.npz .*fc1\.bias")
    (own / "zoo_black.npz").write_bytes(b"junk")
    _refused(own, r"zoo_black\.npz is damaged")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("accuracy", "score") + "\n" + ROWS[0], r".*columns"),
        (HEADER + "\nkmeans,one,A,1,1,1,1,1", r".*columns"),
        (HEADER + "\nkmeans,1,A,1,1", r".*columns"),
        (HEADER + "\nkmeans,1,A,high,1,1,1,1", r".*columns"),
        (HEADER + '\n"' + "x" * 200_000, r".*columns"),
        (b"\xff\xfe\x00", r".*columns"),
        (HEADER + "\nspectral,1,A,1,1,1,1,1", r"has spectral of A1 .*; expected rows of kmeans, one_"),
        (HEADER + "\nkmeans,1,C,1,1,1,1,1", r"has kmeans of C1 .*; expected"),
        (HEADER + "\nkmeans,1,A,1.01,1,1,1,1", r"has kmeans of A1 with .*'accuracy': 1\.01"),
        (HEADER + "\nkmeans,1,A,-0.1,1,1,1,1", r"has kmeans of A1 with .*'accuracy': -0\.1"),
        (HEADER + "\nkmeans,1,A,nan,1,1,1,1", r"has kmeans of A1 with .*'accuracy': nan"),
        (HEADER + "\nkmeans,1,A,1,2,1,1,1", r"has kmeans of A1 with .*'precision': 2"),
        (HEADER + "\nkmeans,1,A,1,1,1,-0.1,1", r"has kmeans of A1 with .*'entropy': -0\.1"),
        (HEADER + "\nkmeans,1,A,1,1,1,inf,1", r"has kmeans of A1 with .*'entropy': inf"),
        (HEADER + "\nkmeans,1,A,1,1,1,1,1.5", r"has kmeans of A1 with .*'purity': 1\.5"),
        ("\n".join((HEADER, *ROWS, ROWS[1])), r"has \('kmeans', 3, 'B'\) twice; expected"),
        (HEADER, r"has no row"),
        ("", r"has no row"),
    ],
)
def test_a_table_that_is_not_the_report_s(own, text, message):
    (own / "reported_results.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    _refused(own, rf"reported_results\.csv {message}")


# The original's own ---------------------------------------------------------------------------------------


@needs_reference
def test_the_original_is_read_whole():
    real = data.load(REFERENCE, silent)
    assert real.layout == "archive"
    assert (len(real.black["dense"]["bias"]), len(real.cat["dense"]["bias"])) == (2749, 1749)
    assert (len(real.names), int(real.positive.sum())) == (89, 34)
    assert {layer: set(ways) for layer, ways in real.generators.items()} == {
        layer: {"a2b", "b2a"} for layer in LAYERS
    }
    with (REFERENCE / "reported_results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(real.reported) == len(rows) == 81
    for ours, theirs in zip(real.reported, rows, strict=True):
        assert list(ours.printed.values()) == [float(value) for value in list(theirs.values())[3:]]
    # The photographs are preprocessed as PyTorch did.
    checks = interop.read_arrays(REFERENCE / "reference_features.npz")
    order = [list(map(str, checks["files"])).index(name) for name in real.names]
    ours = np.asarray(models.normalise_images(real.images)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, checks["images"][order], rtol=0, atol=1e-6)


@needs_reference
def test_the_originals_pytorch_files_are_read(assert_trees_close):
    pytest.importorskip("torch", minversion="2.10", reason="needs PyTorch 2.10 or newer")
    real = data.load(REFERENCE, silent)
    files = {(layer, way): REFERENCE / "pth" / file for (layer, way), file in data._FILES.items()}
    for (layer, way), file in files.items():
        if file.exists():
            channels = data.CHANNELS[layer]
            ours = interop.load_generator(file, channels=channels, hidden=data.HIDDEN)
            assert_trees_close(ours, real.generators[layer][way], rtol=0, atol=0)
    assert any(file.exists() for file in files.values())
