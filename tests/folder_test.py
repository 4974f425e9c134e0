"""Tests for kernelgan.data.folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kernelgan.data import folder, quadrants
from kernelgan.types import UserError

REFERENCE = Path(__file__).parents[2] / "shared" / "seed_reference"
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "test_images").is_dir(), reason=f"the reference's test images are not in {REFERENCE}"
)
LAYOUT = ("black/black", "black/random", "cat/cat", "cat/random", "test/1", "test/0")


def _save(path, value=0, size=(12, 9), **options):
    """A picture of noise around a value: a different content for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(map(ord, path.name)) + value).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray((noise + value).astype(np.uint8)).save(path, **options)


@pytest.fixture
def layout(tmp_path):
    root = tmp_path / "photos"
    for number, name in enumerate(LAYOUT):
        for index in range(3):
            _save(root / name / f"{index}.png", 30 * number + index)
    return root


@pytest.fixture
def listed(tmp_path):
    root = tmp_path / "listed"
    for index in range(60):
        _save(root / "images" / f"{index}.png", index)
    return root


def _write_csv(root, lines, header="path,attribute,object"):
    (root / "images.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def _load(root, attributes=("black",), objects=("cat",), broken_share=0.05, **options):
    return folder.load(
        root, attributes=attributes, objects=objects, image_size=8, broken_share=broken_share, **options
    )


def _labels(images, attribute="black", name="cat"):
    pairs = zip(images.attributes[attribute].tolist(), images.objects[name].tolist(), strict=True)
    return dict(zip(images.names, pairs, strict=True))


def test_the_layout_labels_its_images(layout):
    source = _load(layout)
    assert source.name == "folder:photos"
    assert source.train.images.shape == (12, 8, 8, 3)
    assert source.train.images.dtype == np.uint8
    labels = _labels(source.train)
    assert labels["black/black/0.png"] == (1, 0)
    assert labels["black/random/0.png"] == (0, 0)
    assert labels["cat/cat/0.png"] == (0, 1)
    assert labels["cat/random/0.png"] == (0, 0)
    assert not source.train.rest.any()
    assert _labels(source.test) == {
        **{f"test/1/{i}.png": (1, 1) for i in range(3)},
        **{f"test/0/{i}.png": (-1, -1) for i in range(3)},
    }
    assert source.test.rest.tolist() == [False] * 3 + [True] * 3
    assert source.notes == (folder.CONJUNCTION_ONLY,)


def test_a_directory_that_was_moved_gives_the_same_images(layout, tmp_path):
    (layout / "cat/cat/broken.png").write_bytes(b"")
    before = _load(layout, broken_share=0.5)
    moved = tmp_path / "else" / "where"
    shutil.copytree(layout, moved, copy_function=shutil.copy)  # new dates too
    after = _load(moved, broken_share=0.5)
    for part in ("train", "test"):
        ours, theirs = getattr(before, part), getattr(after, part)
        np.testing.assert_array_equal(ours.images, theirs.images)
        assert ours.names == theirs.names
    assert before.notes == after.notes
    digests = {
        quadrants.digest(quadrants.partition(source, validation_share=0.2, limits=quadrants.Limits(), seed=0))
        for source in (before, after)
    }
    assert len(digests) == 1


def test_optional_folders_name_the_quadrants_and_feed_the_reference(layout):
    shutil.rmtree(layout / "test/0")
    for name in ("test/0/attribute_only", "test/0/object_only", "test/0/neither", "train/1"):
        _save(layout / name / "a.png")
    source = _load(layout)
    labels = _labels(source.test)
    assert labels["test/0/attribute_only/a.png"] == (1, 0)
    assert labels["test/0/object_only/a.png"] == (0, 1)
    assert labels["test/0/neither/a.png"] == (0, 0)
    assert not source.test.rest.any()
    assert _labels(source.train)["train/1/a.png"] == (1, 1)
    assert source.notes == ()


def test_files_that_are_no_images_are_ignored_and_noted(layout):
    (layout / "black/black/.hidden").write_text("x")
    (layout / "black/black/Thumbs.db").write_text("x")
    (layout / "black/black/readme.txt").write_text("x")
    source = _load(layout, broken_share=0.0)
    assert len(source.train) == 12
    assert source.notes[0] == "1 files are no images and were ignored: black/black/readme.txt."


def test_an_image_is_known_by_its_content(layout):
    (layout / "cat/cat/0.png").rename(layout / "cat/cat/noextension")
    shutil.move(layout / "cat/cat/1.png", layout / "cat/cat/renamed.txt")
    names = _load(layout, broken_share=0.0).train.names
    assert "cat/cat/noextension" in names
    assert "cat/cat/renamed.txt" in names


def _break_some(root):
    whole = (root / "black/black/0.png").read_bytes()
    (root / "black/black/0.png").write_bytes(whole[: len(whole) // 2])
    (root / "cat/cat/0.png").write_bytes(b"")
    (root / "cat/random/0.png").write_text("<html>not found</html>")


def test_broken_images_are_skipped_and_named(layout):
    _break_some(layout)
    source = _load(layout, broken_share=3 / 18)
    assert len(source.train) == 9
    note = source.notes[0]
    assert note.startswith("3 of 18 images cannot be read and were skipped: black/black/0.png (")
    assert "cat/cat/0.png" in note
    assert "cat/random/0.png (not an image)" in note


def test_too_many_broken_images_stop(layout):
    _break_some(layout)
    with pytest.raises(
        UserError, match=r"3 of 18 images cannot be read, more than data.broken_share = 0.1 "
    ) as error:
        _load(layout, broken_share=0.1)
    assert "cat/cat/0.png" in str(error.value)


def test_a_decompression_bomb_counts_as_broken(layout, monkeypatch):
    _save(layout / "cat/cat/huge.png", size=(200, 200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    with pytest.warns(Image.DecompressionBombWarning):
        source = _load(layout, broken_share=0.1)
    assert "cat/cat/huge.png (DecompressionBombError" in source.notes[0]


def test_progress_is_told(layout):
    told = []
    _load(layout, progress=lambda done, of: told.append((done, of)))
    assert told == [(18, 18)]


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
def test_formats_decode(tmp_path, extension):
    Image.new("RGB", (30, 20), (200, 100, 50)).save(tmp_path / f"a.{extension}")
    image = folder.read_image(tmp_path / f"a.{extension}", 8)
    assert image.shape == (8, 8, 3)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), (200, 100, 50), atol=12)


@pytest.mark.parametrize(
    ("mode", "colour", "extension", "expected"),
    [
        ("RGBA", (10, 200, 30, 128), "png", (10, 200, 30)),
        ("L", 90, "jpg", (90, 90, 90)),
        ("LA", (90, 10), "png", (90, 90, 90)),
        ("1", 1, "png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "jpg", (255, 0, 0)),
        ("I;16", 128 * 257, "png", (128, 128, 128)),
    ],
)
def test_modes_decode(tmp_path, mode, colour, extension, expected):
    Image.new(mode, (16, 16), colour).save(tmp_path / f"a.{extension}")
    image = folder.read_image(tmp_path / f"a.{extension}", 8)
    np.testing.assert_allclose(image, np.broadcast_to(expected, (8, 8, 3)), atol=3)


def test_palette_images_decode(tmp_path):
    Image.new("RGB", (16, 16), (10, 200, 30)).quantize(4).save(tmp_path / "a.png")
    np.testing.assert_array_equal(folder.read_image(tmp_path / "a.png", 8)[0, 0], (10, 200, 30))


def test_exif_orientation_turns_the_image_upright(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255  # the upper half is white as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the white half comes to the right
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = folder.read_image(tmp_path / "a.jpg", 16)
    assert image[:, 12:].mean() > 200
    assert image[:, :4].mean() < 50


def test_a_csv_labels_its_images_and_their_split(listed):
    lines = [
        "images/0.png,black|shiny,cat,train",
        "./images/1.png, black ,,train",
        "images/2.png,,cat,train",
        'images/3.png,"","",test',
    ]
    _write_csv(listed, lines, "path,attribute,object,split")
    source = _load(listed, ("black", "shiny"), ("cat",))
    assert _labels(source.train) == {"images/0.png": (1, 1), "images/1.png": (1, 0), "images/2.png": (0, 1)}
    assert source.train.attributes["shiny"].tolist() == [1, 0, 0]
    assert _labels(source.test) == {"images/3.png": (0, 0)}
    assert source.notes == ()


def test_without_a_split_a_fifth_by_content_is_the_test_set(listed):
    shutil.copy(listed / "images/0.png", listed / "images/copy.png")
    lines = [f"images/{index}.png,{'black' if index % 2 else ''},cat" for index in [*range(60), "copy"][:60]]
    _write_csv(listed, [*lines, "images/copy.png,,cat"])
    source, again = _load(listed), _load(listed)
    assert 4 <= len(source.test) <= 22
    assert len(source.train) + len(source.test) == 61
    assert source.test.names == again.test.names
    assert ("images/0.png" in source.test.names) == ("images/copy.png" in source.test.names)


def test_a_listed_file_that_is_no_image_is_broken(listed):
    (listed / "notes.txt").write_text("x")
    _write_csv(listed, ["images/0.png,black,cat", "notes.txt,,cat"])
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read.*notes.txt \(not an image\)"):
        _load(listed)


@pytest.mark.parametrize(
    ("lines", "header", "message"),
    [
        ([], "path,attribute,object", "names no images"),
        (
            ["images/0.png,black"],
            "path,attribute",
            r"lacks the column\(s\) object; its first line names path, attr",
        ),
        ([], "", r"lacks the column\(s\) attribute, object, path; its first line names nothing"),
        (["images/x.png,black,cat"], "path,attribute,object", "line 2: there is no file 'images/x.png'"),
        (["../x.png,black,cat"], "path,attribute,object", "line 2: the path '../x.png' is not below"),
        (["images/../../x.png,black,cat"], "path,attribute,object", "is not below"),
        (["/etc/hosts,black,cat"], "path,attribute,object", "the path '/etc/hosts' is not below"),
        (["images/..,black,cat"], "path,attribute,object", "there is no file 'images/..'"),
        ([",black,cat"], "path,attribute,object", "the path '' is not below"),
        (
            ["images/0.png,red,cat"],
            "path,attribute,object",
            "holds the attribute 'black'; its attributes are red",
        ),
        (["images/0.png,black,"], "path,attribute,object", "holds the object 'cat'; its objects are none"),
        (["images/0.png,black,cat"] * 2, "path,attribute,object", "line 3: 'images/0.png' is named twice"),
        (
            ["images/0.png,black,cat,dev"],
            "path,attribute,object,split",
            "split is 'dev'; expected train or test",
        ),
        (["images/0.png,black,cat,train"], "path,attribute,object,split", "has no test images"),
    ],
)
def test_a_csv_that_is_wrong_says_how(listed, lines, header, message):
    _write_csv(listed, lines, header)
    with pytest.raises(UserError, match=message):
        _load(listed)


def test_a_csv_that_is_not_text_says_so(listed):
    (listed / "images.csv").write_bytes(b"path,attribute,object\n\xff\xfe\x00,,\n")
    with pytest.raises(UserError, match=r"cannot be read .* expected comma-separated UTF-8"):
        _load(listed)


def test_a_directory_that_is_wrong_says_how(layout):
    with pytest.raises(UserError, match=r"data.folder is empty; give it the directory"):
        _load("")
    with pytest.raises(UserError, match=r"nowhere' does not exist; expected a directory .* Mend data.folder"):
        _load(layout / "nowhere")
    with pytest.raises(UserError, match=r"0.png' is a file; expected a directory"):
        _load(layout / "test/1/0.png")
    with pytest.raises(UserError, match=r"holds one pair .* attributes black, red and the objects cat"):
        _load(layout, ("black", "red"))
    with pytest.raises(UserError, match=r"holds one pair of an attribute and another object"):
        _load(layout, ("black",), ("black",))


def test_a_layout_that_is_wrong_says_how(layout):
    with pytest.raises(
        UserError, match=r"lacks the sub-folder\(s\) dog/dog, dog/random. Expected either images.csv"
    ):
        _load(layout, objects=("dog",))
    (layout / "test/0/attribute-only").mkdir()
    with pytest.raises(
        UserError, match=r"folder test/0 .* holds the sub-folder 'attribute-only', which means"
    ):
        _load(layout)
    (layout / "test/0/attribute-only").rmdir()
    for path in (layout / "cat/random").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"The folder cat/random of .* is empty; put images there"):
        _load(layout)


def test_a_folder_without_any_image_says_so(layout):
    for path in layout.rglob("*.png"):
        path.write_text("x")
    with pytest.raises(UserError, match=r"None of the 18 files can be read as an image: black/black/0.png"):
        _load(layout)


@needs_reference
def test_the_references_photographs_are_read_as_the_reference_read_them():
    with np.load(REFERENCE / "reference_features.npz") as features:
        names, expected = features["files"], features["images"]
    images = np.stack([folder.read_image(REFERENCE / "test_images" / str(name), 32) for name in names])
    np.testing.assert_allclose(images.transpose(0, 3, 1, 2) / 127.5 - 1, expected, atol=1e-6)


@needs_reference
def test_the_references_test_folder_loads(layout):
    shutil.rmtree(layout / "test")
    (layout / "test").symlink_to(REFERENCE / "test_images")
    source = _load(layout)
    assert len(source.test) == 89
    assert source.test.rest.sum() == 55
    assert (source.test.attributes["black"] == 1).sum() == 34
