"""Tests for kernelgan.data.folder."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kernelgan.data import folder, photographs, quadrants
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
    assert "no images are ignored (1)" in source.notes[0]
    assert "black/black/readme.txt (not an image)" in source.notes[0]


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
    assert note.startswith("Images that cannot be read are skipped (3 of 18): black/black/0.png (")
    assert "cat/cat/0.png" in note
    assert "cat/random/0.png (not an image)" in note


def test_too_many_broken_images_stop(layout):
    _break_some(layout)
    with pytest.raises(
        UserError, match=r"3 of 18 images cannot be read, more than data.broken_share = 0.1 "
    ) as error:
        _load(layout, broken_share=0.1)
    assert "cat/cat/0.png" in str(error.value)


def test_large_photographs_are_read_and_too_large_ones_are_named(layout, monkeypatch):
    _save(layout / "cat/cat/large.png", size=(200, 200))
    _save(layout / "cat/cat/huge.png", size=(300, 200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr(photographs, "LARGEST_PIXELS", 40_000)
    source = _load(layout, broken_share=0.1)
    assert "cat/cat/large.png" in source.train.names
    assert "cat/cat/huge.png (0 megapixels; at most" in source.notes[0]
    assert Image.MAX_IMAGE_PIXELS == 10_000


def test_links_without_a_target_are_images_that_cannot_be_read(layout):
    for path in sorted((layout / "cat/cat").iterdir())[1:]:
        path.unlink()
        path.symlink_to(layout / "elsewhere.png")
    with pytest.raises(UserError, match=r"2 of 18 images .*cat/cat/1.png \(a link to a file that is not"):
        _load(layout, broken_share=0.0)
    source = _load(layout, broken_share=0.2)
    assert "(2 of 18)" in source.notes[0]


def test_a_pipe_and_a_link_to_itself_are_not_waited_for(layout):
    os.mkfifo(layout / "cat/cat/pipe.png")
    (layout / "cat/random/loop.png").symlink_to(layout / "cat/random/loop.png")
    note = _load(layout, broken_share=0.2).notes[0]
    assert "cat/cat/pipe.png (no regular file)" in note
    assert "cat/random/loop.png (a link" in note


@pytest.mark.parametrize(("name", "word"), [("a.HEIC", "HEIC"), ("b.nef", "raw"), ("c.heif", "HEIF")])
def test_photographs_of_other_formats_are_named_with_the_remedy(layout, name, word):
    for path in (layout / "cat/cat").iterdir():
        path.unlink()
    (layout / "cat/cat" / name).write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=rf"1 of 16 .*cat/cat/{name} \(.*{word}.*convert it to JPEG"):
        _load(layout)


def test_a_folder_of_nothing_but_hidden_files_names_them(layout):
    for path in (layout / "cat/cat").iterdir():
        path.rename(path.with_name(f"._{path.name}"))
    with pytest.raises(UserError, match=r"cat/cat .* is empty but for hidden files \(\._0\.png"):
        _load(layout)


def test_what_is_done_to_pixels_is_said_once(layout):
    for index in range(2):
        Image.new("RGBA", (9, 9), (index, 0, 0, 0)).save(layout / f"cat/cat/clear{index}.png")
    Image.new("RGBA", (9, 9), (5, 0, 0, 255)).save(layout / "cat/cat/opaque.png")
    notes = [note for note in _load(layout).notes if photographs.TRANSPARENT in note]
    assert len(notes) == 1
    assert "cat/cat/clear0.png" in notes[0]
    assert "opaque" not in notes[0]


# Equal content --------------------------------------------------------------------------------------------


def _split(source):
    limits = quadrants.Limits(1, 1)
    part = quadrants.partition(source, validation_share=0.2, limits=limits, seed=0)
    quadrants.check_labels(part)
    return part


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("black/black", "cat/cat"),  # a black cat that both zoos would learn from
        ("black/black", "cat/random"),
        ("cat/cat", "test/1"),
        ("test/1", "test/0"),
    ],
)
def test_one_photograph_under_two_labels_is_refused_with_both_names(layout, one, other):
    shutil.copy(layout / one / "0.png", layout / other / "again.png")
    source = _load(layout)
    with pytest.raises(UserError, match=rf"{one}/0.png.*{other}/again.png|{other}/again.png.*{one}/0.png"):
        _split(source)


def test_copies_under_one_label_count_once(layout):
    shutil.copy(layout / "black/random/0.png", layout / "cat/random/copy.png")
    shutil.copy(layout / "black/black/0.png", layout / "black/black/copy.png")
    source = _load(layout)
    assert len(source.train) == 12
    assert "count once (2)" in source.notes[0]
    assert "cat/random/copy.png (as black/random/0.png)" in source.notes[0]
    assert "both random folders is fine" in source.notes[0]
    _split(source)


def test_a_copy_whose_quadrant_is_known_says_it_for_both(layout):
    (layout / "test/0/neither").mkdir()
    shutil.copy(layout / "test/0/0.png", layout / "test/0/neither/copy.png")
    source = _load(layout)
    assert _labels(source.test)["test/0/0.png"] == (0, 0)
    assert source.test.rest.sum() == 2


@pytest.mark.parametrize(
    ("labels", "merged"),
    [
        (("black,", "shiny,"), (1, 1, 0)),
        (("black,cat", "black,cat"), (1, 0, 1)),
        (("black,", ",cat"), None),
        (("black,", ","), None),
        (("black,cat", "black,"), None),
        (("black,cat", "shiny,cat"), (1, 1, 1)),
        (("black,cat", "shiny,dog"), None),  # a black dog that no line names
    ],
)
def test_two_lines_of_a_csv_with_one_content(listed, labels, merged):
    shutil.copy(listed / "images/0.png", listed / "images/again.png")
    lines = [f"images/0.png,{labels[0]},train", f"images/again.png,{labels[1]},train"]
    lines += [
        f"images/{i}.png,{('black', 'shiny', '')[i % 3]},{('cat', '')[i % 2]},train" for i in range(1, 9)
    ]
    _write_csv(listed, [*lines, "images/9.png,,,test"], "path,attribute,object,split")
    source = _load(listed, ("black", "shiny"))
    if merged:
        images = _split(source).source.train
        place = images.names.index("images/0.png")
        held = (images.attributes["black"], images.attributes["shiny"], images.objects["cat"])
        assert tuple(labels[place] for labels in held) == merged
        assert "images/again.png" not in images.names
    else:
        with pytest.raises(UserError, match=r"images/0\.png.*again|again.*images/0\.png"):
            _split(source)


# The table ------------------------------------------------------------------------------------------------


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
    assert len(source.train) + len(source.test) == 60
    assert source.test.names == again.test.names


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
        ([], "", "names no images; expected a first line"),
        (['"images/0.png,black,cat', "images/1.png,,cat"], "path,attribute,object", "line 2, cannot be read"),
        (
            ["images/0.png,black,cat", '"images/1.png,black,cat', 'images/2.png,"",cat'],
            "path,attribute,object",
            "line 3, cannot be read",  # the quote is closed on another line
        ),
        (['"images/0.png"x,black,cat'], "path,attribute,object", "line 2, cannot be read"),
        (["images/0.png,black"], "path,attribute,object", "line 2: 2 columns; expected 3"),
        (["images/0.png,black,cat,dog"], "path,attribute,object", "line 2: 4 columns; expected 3"),
        ([], "path,attribute,object,path", r"repeats the column\(s\) path"),
        ([f"{'x' * 300}.png,black,cat"], "path,attribute,object", "line 2: the path x.* has 304 characters"),
        ([f"{'x/' * 3000}a.png,black,cat"], "path,attribute,object", "line 2: the path x.* has 6005 char"),
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


def _nfd(text):
    return unicodedata.normalize("NFD", text)


def test_names_may_be_in_any_unicode_form(listed):
    _save(listed / _nfd("Größe/Kätzchen.png"), 99)
    lines = [f"images/{i}.png,{_nfd('weiß-grün')},{('cat', '')[i % 2]}" for i in range(40)]
    _write_csv(listed, ["Größe/Kätzchen.png,weiß-grün,cat", *lines, "images/50.png,,cat"])
    source = _load(listed, ("weiß-grün",))
    names = {*source.train.names, *source.test.names}
    assert _nfd("Größe/Kätzchen.png") in names
    assert len(names) == 42


def test_folders_may_be_named_in_any_unicode_form(layout):
    (layout / "cat/cat").rename(layout / "cat" / _nfd("Kätzchen"))
    (layout / "cat").rename(layout / _nfd("Kätzchen"))
    source = _load(layout, objects=("Kätzchen",))
    assert source.train.objects["Kätzchen"].sum() == 3


def test_a_csv_that_is_not_text_says_so(listed):
    (listed / "images.csv").write_bytes(b"path,attribute,object\n\xff\xfe\x00,,\n")
    with pytest.raises(UserError, match=r"cannot be read .* expected comma-separated UTF-8"):
        _load(listed)


def test_a_directory_that_is_wrong_says_how(layout):
    with pytest.raises(UserError, match=r"data.folder is empty; give it the directory"):
        _load("")
    with pytest.raises(UserError, match=r"data.folder is 'gs://bucket/x', a URL"):
        _load("gs://bucket/x")
    with pytest.raises(UserError, match=r"nowhere' does not exist; expected a directory .* Mend data.folder"):
        _load(layout / "nowhere")
    with pytest.raises(UserError, match=r"tests' does not exist; .* The nearest to tests is test\."):
        _load(layout / "tests")
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
    with pytest.raises(UserError, match=r"lacks .* cats/cats, .*pairs\. The nearest to cats is cat\.$"):
        _load(layout, objects=("cats",))
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
    images = np.stack([photographs.read_image(REFERENCE / "test_images" / str(name), 32) for name in names])
    np.testing.assert_allclose(images.transpose(0, 3, 1, 2) / 127.5 - 1, expected, atol=1e-6)
