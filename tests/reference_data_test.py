"""Tests for studies.jain2024.data: a very small zoo in both layouts, and the reference's own.

The other tests of the reference write the same zoo with `write_archive`, and compute with `translate_by_hand`
and `features_by_hand`, which know nothing of the package.
"""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import signal

from kernelgan import interop, models, weights
from kernelgan.types import UserError
from studies.jain2024 import data

ROOT = Path(__file__).parents[1]
REFERENCE = Path(os.environ.get("KERNELGAN_REFERENCE", ROOT.parent / "shared" / "seed_reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "zoo_black.npz").is_file(),
    reason=f"the reference's weights are not in {REFERENCE}; set KERNELGAN_REFERENCE to where they are",
)

BLACK, CAT = 6, 4
SHAPES = {
    "conv1.weight": (6, 3, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (2, 400),
    "fc1.bias": (2,),
}
PHOTOGRAPHS = {
    "0": ("b.png", "a (10).png", "a (2).jpeg", "B.png", "wide.jpg", "grey.png"),
    "1": ("cat2.png", "cat1.png", "a.png", "small.png"),
}
NAMES = (
    *("0/B.png", "0/a (10).png", "0/a (2).jpeg", "0/b.png", "0/grey.png", "0/wide.jpg"),
    *("1/a.png", "1/cat1.png", "1/cat2.png", "1/small.png"),
)
HEADER = (
    "clusterer,model,generated_domain,accuracy,precision_as_printed,recall_as_printed,"
    "entropy_as_printed,purity_as_printed"
)
ROWS = (
    "kmeans,0,A,0.7,0.5,0.6,0.9,0.7",
    "kmeans,3,B,0.9,0.75,1.0,0.4,0.9",
    "one_class_svm,1,A,0.6,0.5,0.5,0.9,0.6",
    "dbscan,0,A,0.8,0.5,1.0,0.8,0.8",
)


def silent(done, total):
    """No progress."""


def make_arrays():
    """Both zoos and all generators, as PyTorch has them."""
    rng = np.random.default_rng(0)

    def draw(scale, *shape):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    zoos = {
        name: {array: draw(0.2, count, *shape) for array, shape in SHAPES.items()}
        for name, count in (("black", BLACK), ("cat", CAT))
    }
    generators = {}
    for layer, channels in (("conv1", 3), ("conv2", 6)):
        for way in ("A2B", "B2A"):
            generators |= {
                f"{layer}/{way}/main.0.weight": draw(0.2, 64, channels, 3, 3, 3),
                f"{layer}/{way}/main.0.bias": draw(0.2, 64),
                f"{layer}/{way}/main.2.weight": draw(0.1, channels, 64, 3, 3, 3),
                f"{layer}/{way}/main.2.bias": draw(0.1, channels),
            }
    return zoos, generators


def write_photographs(root):
    """Dark ones of black cats and bright others, of several sizes, formats and modes."""
    rng = np.random.default_rng(1)
    for kind, names in PHOTOGRAPHS.items():
        (root / kind).mkdir(parents=True)
        for name in names:
            size = {"wide.jpg": (20, 48), "small.png": (17, 9)}.get(name, (32, 32))
            pixels = (60 if kind == "1" else 130) + rng.integers(-60, 60, (*size, 3))
            image = Image.fromarray(pixels.astype(np.uint8))
            (image.convert("L") if name == "grey.png" else image).save(root / kind / name)


def preprocess_by_hand(root, names):
    """Float32 ``(N, 3, 32, 32)`` in [-1, 1]."""
    photographs = [
        np.asarray(Image.open(root / name).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
        for name in names
    ]
    return (np.stack(photographs).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)


def translate_by_hand(generators, layer, way, weight):
    """PyTorch's ``conv.weight`` (O, I, 5, 5) of one network, translated: its axes swapped, and back."""
    maps = np.float64(weight).swapaxes(0, 1)
    for number, activation in ((0, lambda x: np.maximum(x, 0)), (2, np.tanh)):
        kernel, bias = (generators[f"{layer}/{way}/main.{number}.{leaf}"] for leaf in ("weight", "bias"))
        padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (1, 1)))
        maps = activation(
            np.stack(
                [
                    signal.correlate(padded, np.float64(one), mode="valid")[0] + b
                    for one, b in zip(kernel, bias, strict=True)
                ]
            )
        )
    return maps.swapaxes(0, 1)


def features_by_hand(weights, images):
    """Features ``(N, 400)`` of images ``(N, 3, 32, 32)`` by the weights of two layers, without biases."""
    found = []
    for maps in np.float64(images):
        for weight in weights:
            maps = np.stack([signal.correlate(maps, one, mode="valid", method="direct")[0] for one in weight])
            outputs, height, width = maps.shape
            maps = np.maximum(maps, 0).reshape(outputs, height // 2, 2, width // 2, 2).max(axis=(2, 4))
        found.append(maps.reshape(-1))
    return np.stack(found)


def generate_by_hand(zoos, generators, domain, number):
    """Weights of both layers of a generated network: A is B2A of a cat network, B is A2B of a black one."""
    zoo, way = (zoos["cat"], "B2A") if domain == "A" else (zoos["black"], "A2B")
    return [
        translate_by_hand(generators, layer, way, zoo[f"{layer}.weight"][number])
        for layer in ("conv1", "conv2")
    ]


def write_archive(root):
    """The archive with everything in it; its features file is in an order of its own."""
    zoos, generators = make_arrays()
    for name, arrays in zoos.items():
        np.savez(root / f"zoo_{name}.npz", **arrays)
    np.savez(root / "generators.npz", **generators)
    write_photographs(root / "test_images")
    (root / "reported_results.csv").write_text("\n".join((HEADER, *ROWS)) + "\n")
    files = NAMES[::-1]
    checks = {"files": np.array(files), "images": preprocess_by_hand(root / "test_images", files)}
    for domain, number in (("A", 0), ("A", 3), ("B", 2)):
        weights = generate_by_hand(zoos, generators, domain, number)
        name = f"{domain}{number}"
        checks |= {f"{name}/conv{i}": w.astype(np.float32) for i, w in enumerate(weights, start=1)}
        checks[f"{name}/features"] = features_by_hand(weights, checks["images"]).astype(np.float32)
    np.savez(root / "reference_features.npz", **checks)
    return root


def write_repository(archive, root):
    """The same in the repository's layout; its PyTorch files need PyTorch, or hold npz, see `repository`."""
    zoos, generators = make_arrays()
    for name, arrays in zoos.items():
        for number in range(len(arrays["fc1.bias"])):
            one = {array: values[number] for array, values in arrays.items()}
            interop.write_arrays(root / f"{name}_models/{name}_model_{number:04d}.pth", one)
    for file, layer in (("", "conv1"), ("2_", "conv2")):
        for way in ("A2B", "B2A"):
            own = {n.split("/")[2]: a for n, a in generators.items() if n.startswith(f"{layer}/{way}/")}
            interop.write_arrays(root / f"{file}generator_{way}.pth", own)
    shutil.copytree(archive / "test_images", root / "GeneratedCNN_test")
    for file in ("reported_results.csv", "reference_features.npz"):
        shutil.copy(archive / file, root)
    return root


def edit(path, **changes):
    """Changes arrays of an npz, or takes out those that are None."""
    with np.load(path) as archive:
        arrays = dict(archive) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def edit_array(path, name, change):
    """Changes one array of an npz: ``change`` takes it and gives it, or edits it."""
    with np.load(path) as archive:
        array = archive[name].copy()
    changed = change(array)
    edit(path, **{name: array if changed is None else changed})


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Written once; nobody may change it."""
    return write_archive(tmp_path_factory.mktemp("reference"))


@pytest.fixture
def own(archive, tmp_path):
    """A copy to change."""
    return Path(shutil.copytree(archive, tmp_path / "own"))


@pytest.fixture(params=["pth", "npz in disguise"])
def repository(request, archive, tmp_path, monkeypatch):
    """The repository's layout, with PyTorch's files, and without PyTorch by all the same steps."""
    if request.param == "pth":
        reason = "PyTorch 2.10 or newer is not installed (pip install torch)"
        pytest.importorskip("torch", minversion="2.10", reason=reason)
    else:
        monkeypatch.setitem(weights._READERS, ".pth", weights._read_npz)
        monkeypatch.setitem(weights._WRITERS, ".pth", weights._npz_bytes)
    return write_repository(archive, tmp_path / "repository")


# What is read ---------------------------------------------------------------------------------------------


def test_both_layouts_hold_the_same(archive, repository, assert_trees_equal):
    told = []
    found = data.load(repository, lambda done, total: told.append((done, total)))
    expected = data.load(archive, silent)
    assert (found.layout, expected.layout) == ("repository", "archive")
    for name in ("black", "cat", "generators"):
        assert_trees_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.images, expected.images)
    assert found.names == expected.names
    assert found.reported == expected.reported
    assert len(found.checks) == 3
    assert found.digest == expected.digest
    assert told == [(n, BLACK) for n in range(1, BLACK + 1)] + [(n, CAT) for n in range(1, CAT + 1)]


def test_a_complete_archive(archive):
    found = data.load(archive, silent)
    zoos, generators = make_arrays()
    assert found.layout == "archive"
    assert found.notes == ()
    for ours, theirs in ((found.black, zoos["black"]), (found.cat, zoos["cat"])):
        np.testing.assert_array_equal(
            ours["conv2"]["kernel"].transpose(0, 4, 3, 1, 2), theirs["conv2.weight"]
        )
        np.testing.assert_array_equal(ours["conv1"]["bias"], theirs["conv1.bias"])
        # The reference's class 0 is the concept; ours is class 1.
        np.testing.assert_array_equal(ours["dense"]["kernel"][..., 1], theirs["fc1.weight"][:, 0])
        np.testing.assert_array_equal(ours["dense"]["kernel"][..., 0], theirs["fc1.weight"][:, 1])
        np.testing.assert_array_equal(ours["dense"]["bias"], theirs["fc1.bias"][:, ::-1])
    for layer in ("conv1", "conv2"):
        for ours, theirs in (("a2b", "A2B"), ("b2a", "B2A")):
            given = {
                f"{layer}/{theirs}/{n}": a for n, a in interop.to_torch(found.generators[layer][ours]).items()
            }
            for name, array in given.items():
                np.testing.assert_array_equal(array, generators[name])


def test_photographs_are_those_of_0_then_those_of_1_by_name(archive):
    found = data.load(archive, silent)
    assert found.names == NAMES
    np.testing.assert_array_equal(found.positive, [False] * 6 + [True] * 4)
    assert (found.images.shape, found.images.dtype) == ((10, 32, 32, 3), np.uint8)
    expected = preprocess_by_hand(archive / "test_images", NAMES)
    ours = np.asarray(models.normalise_images(found.images)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    np.testing.assert_allclose(found.checked_images, expected, atol=1e-6)


def test_hidden_files_and_folders_are_no_photographs(own):
    expected = data.load(own, silent)
    (own / "test_images/0/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    shutil.copy(own / "test_images/1/a.png", own / "test_images/1/._a.png")
    (own / "test_images/1/more").mkdir()
    found = data.load(own, silent)
    assert (found.names, found.digest) == (expected.names, expected.digest)


def test_the_reported_table_and_the_checks(archive):
    found = data.load(archive, silent)
    first, *_, last = found.reported
    assert len(found.reported) == 4
    assert (first.clusterer, first.model, first.domain) == ("kmeans", 0, "A")
    assert (last.clusterer, last.domain) == ("dbscan", "A")
    assert first.printed == dict(zip(data.PRINTED, (0.7, 0.5, 0.6, 0.9, 0.7), strict=True))
    zoos, generators = make_arrays()
    assert [(check.domain, check.model) for check in found.checks] == [("A", 0), ("A", 3), ("B", 2)]
    for check in found.checks:
        weights = generate_by_hand(zoos, generators, check.domain, check.model)
        for layer, weight in zip(("conv1", "conv2"), weights, strict=True):
            np.testing.assert_allclose(check.kernels[layer], weight, atol=1e-6)
        # The file is in another order of photographs.
        np.testing.assert_allclose(check.features, features_by_hand(weights, found.checked_images), atol=1e-4)


def test_what_is_optional_may_be_missing_and_is_noted(own):
    complete = data.load(own, silent)
    (own / "reference_features.npz").unlink()
    found = data.load(own, silent)
    assert (found.checks, found.checked_images) == ((), None)
    assert len(found.notes) == 1
    assert "reference_features.npz is not in" in found.notes[0]
    assert found.digest == complete.digest
    (own / "reported_results.csv").unlink()
    found = data.load(own, silent)
    assert found.reported == ()
    assert any("reported_results.csv is not in" in note for note in found.notes)
    assert found.digest != complete.digest


def _rename(root):
    (root / "test_images/0/b.png").rename(root / "test_images/0/c.png")


def _redraw(root):
    image = Image.open(root / "test_images/1/a.png")
    image.putpixel((0, 0), (255, 255, 255))
    image.save(root / "test_images/1/a.png")


def _move(root):
    (root / "test_images/0/wide.jpg").rename(root / "test_images/1/wide.jpg")


def _reprint(root):
    table = root / "reported_results.csv"
    table.write_text(table.read_text().replace("0.75", "0.76"))


def _nudge(file, name):
    def change(root):
        edit_array(root / file, name, lambda array: np.add.at(array.reshape(-1), -1, np.float32(1e-3)))

    return change


CHANGES = {
    "pixel": _redraw,
    "name": _rename,
    "label": _move,
    "table": _reprint,
    "black": _nudge("zoo_black.npz", "conv1.weight"),
    "cat": _nudge("zoo_cat.npz", "fc1.bias"),
    "generator": _nudge("generators.npz", "conv2/B2A/main.2.bias"),
}


def test_the_digest_is_of_everything(archive, tmp_path):
    found = {"": data.load(archive, silent).digest, "again": data.load(archive, silent).digest}
    assert found[""] == found.pop("again")
    for what, change in CHANGES.items():
        root = Path(shutil.copytree(archive, tmp_path / what))
        if what in ("name", "label"):  # the features file no longer fits, which is refused
            (root / "reference_features.npz").unlink()
        change(root)
        found[what] = data.load(root, silent).digest
    assert len(set(found.values())) == 1 + len(CHANGES)


# What is refused ------------------------------------------------------------------------------------------


def _refused(root, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load(root, silent)
    assert "\n" not in str(caught.value)


def test_a_place_that_is_no_directory(tmp_path):
    _refused(
        tmp_path / "nowhere", r"reference\.dir is '.*nowhere', which is no directory\. .*reference\.dir=DIR"
    )
    (tmp_path / "file").write_text("")
    _refused(tmp_path / "file", r"which is no directory")


def test_neither_layout_says_what_each_lacks(own, tmp_path):
    _refused(
        tmp_path,
        r"archive layout, which lacks zoo_black\.npz, zoo_cat\.npz, generators\.npz, test_images/0, .*"
        r"repository layout, which lacks black_models, cat_models, generator_A2B\.pth.* GeneratedCNN_test/1",
    )
    (own / "zoo_cat.npz").unlink()
    shutil.rmtree(own / "test_images/1")
    _refused(own, r"archive layout, which lacks zoo_cat\.npz, test_images/1; or the repository layout, which")


def test_a_damaged_photograph_is_named(own):
    path = own / "test_images/0/b.png"
    path.write_bytes(path.read_bytes()[:200])
    _refused(own, r"test_images/0/b\.png is no image that can be read")


@pytest.mark.parametrize("kind", ["0", "1"])
def test_too_few_photographs_of_a_kind(own, kind):
    for path in sorted((own / "test_images" / kind).iterdir())[1:]:
        path.unlink()
    _refused(
        own, r"1 photographs of black cats \(1\) and 6" if kind == "1" else r"\(1\) and 1 of anything else"
    )


def test_arrays_that_are_no_generator_s(own):
    edit(own / "generators.npz", **{"conv3/A2B/main.0.bias": np.zeros(64, np.float32)})
    _refused(
        own, r"generators\.npz holds conv3/A2B/main\.0\.bias; expected arrays under conv1/A2B, conv1/B2A"
    )


def test_arrays_that_are_missing_or_do_not_fit(own):
    edit(own / "zoo_cat.npz", **{"fc1.bias": None})
    _refused(own, r"zoo_cat\.npz does not fit: fc1\.bias is missing")
    edit(own / "generators.npz", **{"conv2/A2B/main.2.weight": None})
    _refused(own, r"generators\.npz, conv2/A2B does not fit: main\.2\.weight is missing")
    (own / "zoo_black.npz").write_bytes(b"junk")
    edit(own / "generators.npz", **{"conv2/A2B/main.2.weight": make_arrays()[1]["conv2/A2B/main.2.weight"]})
    _refused(own, r"zoo_black\.npz is damaged")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("accuracy", "score") + "\n" + ROWS[0], r"is not the reference's table .*columns"),
        (HEADER + "\nkmeans,one,A,1,1,1,1,1", r"is not the reference's table"),
        (HEADER + "\nkmeans,1,A,1,1", r"is not the reference's table"),
        (HEADER + "\nkmeans,1,A,high,1,1,1,1", r"is not the reference's table"),
        (HEADER + '\n"' + "x" * 200_000, r"is not the reference's table"),
        (HEADER + "\nspectral,1,A,1,1,1,1,1", r"has spectral of A1 .*; expected rows of kmeans, one_"),
        (HEADER + "\nkmeans,1,C,1,1,1,1,1", r"has kmeans of C1 .*; expected"),
        (HEADER + "\nkmeans,1,A,1.01,1,1,1,1", r"has kmeans of A1 with .*'accuracy': 1\.01"),
        (HEADER + "\nkmeans,1,A,88,1,1,1,1", r"has kmeans of A1 with .*'accuracy': 88"),
        (HEADER + "\nkmeans,1,A,-0.1,1,1,1,1", r"has kmeans of A1 with .*'accuracy': -0\.1"),
        (HEADER + "\nkmeans,1,A,nan,1,1,1,1", r"has kmeans of A1 with .*'accuracy': nan"),
        (HEADER + "\nkmeans,1,A,1,2,1,1,1", r"has kmeans of A1 with .*'precision': 2"),
        (HEADER + "\nkmeans,1,A,1,1,-1,1,1", r"has kmeans of A1 with .*'recall': -1"),
        (HEADER + "\nkmeans,1,A,1,1,1,-0.1,1", r"has kmeans of A1 with .*'entropy': -0\.1"),
        (HEADER + "\nkmeans,1,A,1,1,1,nan,1", r"has kmeans of A1 with .*'entropy': nan"),
        (HEADER + "\nkmeans,1,A,1,1,1,inf,1", r"has kmeans of A1 with .*'entropy': inf"),
        (HEADER + "\nkmeans,1,A,1,1,1,1,1.5", r"has kmeans of A1 with .*'purity': 1\.5"),
        ("\n".join((HEADER, *ROWS, "dbscan,0,A,0.9,1,1,1,1")), r"has \('dbscan', 0, 'A'\) twice; expected"),
        ("\n".join((HEADER, *ROWS, ROWS[1])), r"has \('kmeans', 3, 'B'\) twice; expected"),
        (HEADER, r"has no row"),
        ("", r"has no row"),
        (b"\xff\xfe\x00", r"is not the reference's table"),
    ],
)
def test_a_table_that_is_not_the_report_s(own, text, message):
    (own / "reported_results.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    _refused(own, rf"reported_results\.csv {message}")


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


CHECKS = {
    "another photograph": lambda path: edit_array(path, "files", lambda files: np.roll(files, 1)[:-1]),
    "no order": lambda path: edit(path, files=None),
    "no images": lambda path: edit(path, images=None),
    "no features": lambda path: edit(path, **{"A0/features": None}),
    "no kernels": lambda path: edit(path, **{"B2/conv2": None}),
    "fewer features": lambda path: edit_array(path, "A0/features", lambda features: features[:3]),
    "no number": lambda path: edit(path, **{"Ax/features": np.zeros((10, 400), np.float32)}),
    "another domain": lambda path: edit(
        path,
        **{
            "C0/features": np.zeros((10, 400), np.float32),
            "C0/conv1": np.zeros(SHAPES["conv1.weight"], np.float32),
            "C0/conv2": np.zeros(SHAPES["conv2.weight"], np.float32),
        },
    ),
}


@pytest.mark.parametrize("what", CHECKS)
def test_features_that_do_not_fit_the_photographs(own, what):
    CHECKS[what](own / "reference_features.npz")
    _refused(own, r"reference_features\.npz does not fit .*Get it anew, or take it out")


# The reference's own --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return data.load(REFERENCE, silent)


@needs_reference
def test_the_reference_is_read_whole(real):
    assert real.layout == "archive"
    assert (len(real.black["dense"]["bias"]), len(real.cat["dense"]["bias"])) == (2749, 1749)
    assert (len(real.names), int(real.positive.sum())) == (89, 34)
    assert real.notes == ()
    assert {(check.domain, check.model) for check in real.checks} == {("A", 229), ("A", 1234), ("B", 229)}
    assert {layer: set(found) for layer, found in real.generators.items()} == {
        "conv1": {"a2b", "b2a"},
        "conv2": {"a2b", "b2a"},
    }


@needs_reference
def test_the_references_report_is_read_whole(real):
    with (REFERENCE / "reported_results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(real.reported) == len(rows) == 81
    counts = {name: sum(row.clusterer == name for row in real.reported) for name in data.CLUSTERERS}
    assert counts == {name: sum(row["clusterer"] == name for row in rows) for name in counts}
    for ours, theirs in zip(real.reported, rows, strict=True):
        assert list(ours.printed.values()) == [float(value) for value in list(theirs.values())[3:]]


@needs_reference
def test_the_references_photographs_are_preprocessed_as_pytorch_did(real):
    ours = np.asarray(models.normalise_images(real.images)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, real.checked_images, rtol=0, atol=1e-6)
