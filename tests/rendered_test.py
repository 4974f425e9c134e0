import functools

import numpy as np
import pytest

from kernelgan.data import rendered, renderers
from kernelgan.types import UserError


def load(train=24, test=8, *, attributes=("black",), objects=("cat",), image_size=32, seed=0, **options):
    return rendered.load(
        attributes=attributes,
        objects=objects,
        train=train,
        test=test,
        image_size=image_size,
        seed=seed,
        **options,
    )


def test_is_a_function_of_the_seed():
    source, again, other = load(seed=3), load(seed=3), load(seed=4)
    for split in ("train", "test"):
        images = getattr(source, split).images
        np.testing.assert_array_equal(images, getattr(again, split).images)
        assert (images != getattr(other, split).images).any(axis=(1, 2, 3)).all()


def test_the_images_of_a_seed_are_those_of_the_published_figures():
    """The names drawn, and the mean brightness, which rounding on another machine moves by less than 0.01."""
    images = load(seed=3).train
    drawn = [
        tuple(name for name, labels in kind.items() if labels[i])
        for i in range(3)
        for kind in (images.attributes, images.objects)
    ]
    assert drawn == [("black",), ("cat",), ("yellow",), ("fish",), ("red",), ("cat",)]
    means = images.images[:3].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, (92.540, 95.634, 78.615), atol=0.01)


def test_an_image_does_not_depend_on_how_many_are_asked_for():
    few, many = load(6, 3), load(20, 10)
    for split, count in (("train", 6), ("test", 3)):
        np.testing.assert_array_equal(getattr(few, split).images, getattr(many, split).images[:count])
        for kind in ("attributes", "objects"):
            for name, labels in getattr(getattr(few, split), kind).items():
                np.testing.assert_array_equal(labels, getattr(getattr(many, split), kind)[name][:count])


def test_all_images_differ_within_and_across_splits():
    source = load(50, 50)
    images = np.concatenate([source.train.images, source.test.images])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 100


def test_sets_are_complete_and_consistent():
    source = load(50, 20)
    assert source.name == "rendered"
    for split, images, count in (("train", source.train, 50), ("test", source.test, 20)):
        assert images.images.shape == (count, 32, 32, 3)
        assert images.images.dtype == np.uint8
        assert tuple(images.attributes) == rendered.COLOURS
        assert tuple(images.objects) == rendered.OBJECTS
        for labels in (images.attributes, images.objects):
            assert all(column.dtype == np.int8 for column in labels.values())
            np.testing.assert_array_equal(sum(labels.values()), np.ones(count))
        assert images.rest.dtype == bool
        assert not images.rest.any()
        assert images.names[7] == f"{split}/000007"
        assert len(set(images.names)) == count


def test_composed_names_share_half_and_the_others_share_the_rest():
    images = load(600, 1, attributes=("red", "blue"), objects=("dog",), image_size=8).train
    shares = {name: labels.mean() for name, labels in images.attributes.items()}
    for name in rendered.COLOURS:
        assert shares[name] == pytest.approx(0.25 if name in ("red", "blue") else 0.5 / 6, abs=0.05)
    composed = images.attributes["red"] + images.attributes["blue"]
    quadrants = np.bincount(2 * composed + images.objects["dog"], minlength=4)
    np.testing.assert_allclose(quadrants / 600, 0.25, atol=0.05)


def test_all_names_may_be_composed_at_once():
    images = load(400, 1, attributes=rendered.COLOURS, objects=rendered.OBJECTS, image_size=8).train
    assert all(labels.mean() == pytest.approx(1 / 8, abs=0.07) for labels in images.attributes.values())
    assert all(labels.mean() == pytest.approx(1 / 10, abs=0.07) for labels in images.objects.values())


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ({"attributes": ("black", "mauve")}, rendered.COLOURS),
        ({"objects": ("mauve",)}, rendered.OBJECTS),
    ],
)
def test_unknown_names_are_an_error_that_lists_the_known_ones(names, known):
    with pytest.raises(UserError, match="'mauve'") as raised:
        load(**names)
    assert all(name in str(raised.value) for name in known)
    assert "Choose" in str(raised.value)


def test_black_objects_are_darker_than_white_ones_where_the_body_is():
    middle = slice(12, 20)
    for name in rendered.OBJECTS:
        brightness = {
            colour: np.mean(
                [
                    rendered.render(name, colour, np.random.default_rng(i))[middle, middle].mean()
                    for i in range(20)
                ]
            )
            for colour in ("black", "white")
        }
        assert brightness["white"] > brightness["black"] + 20, name


def test_mean_brightness_does_not_give_black_away():
    images = load(400, 1).train
    black = images.attributes["black"] == 1
    brightness = images.images.mean(axis=(1, 2, 3))
    darker = (brightness[black][:, None] < brightness[~black]).mean()  # AUROC of darkness
    assert darker < 0.75


def test_contact_sheet_has_a_picture_of_every_object_in_every_colour():
    sheet, rows, columns = rendered.contact_sheet(0, image_size=24)
    assert (rows, columns) == (rendered.OBJECTS, rendered.COLOURS)
    assert sheet.shape == (len(rows), len(columns), 24, 24, 3)
    assert sheet.dtype == np.uint8
    assert sheet.std(axis=(2, 3, 4)).min() > 2  # none is blank
    np.testing.assert_array_equal(sheet, rendered.contact_sheet(0, image_size=24)[0])


@pytest.mark.parametrize("size", [8, 28, 65])
def test_other_sizes(size):
    images = load(4, 1, image_size=size).train.images
    assert images.shape == (4, size, size, 3)
    assert images.std(axis=(1, 2, 3)).min() > 2


def test_progress_counts_up_over_both_splits():
    seen = []
    load(3, 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize("side", [30, 96])
def test_rasterise_agrees_with_geometry(side):
    centre, radius = 0.5 * side, 0.3 * side
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    disc = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    square = side * np.array([[-0.5, -0.5], [0.25, -0.5], [0.25, 0.25], [-0.5, 0.25]])  # partly outside
    outside = square - 2 * side
    labels = rendered._rasterise([disc, square, outside], side)

    y, x = np.mgrid[:side, :side] + 0.5
    in_disc = np.hypot(x - centre, y - centre) < radius
    in_square = (x < side / 4) & (y < side / 4)
    expected = np.where(in_square, 2, in_disc)
    assert (labels != expected).mean() < 0.01


# Large sets: worker processes and the cache.


@pytest.fixture
def large(monkeypatch, tmp_path):
    """``large()`` loads 22 images as if that were many; gives the images and the last progress."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(renderers, "_LARGE", 10)
    monkeypatch.setattr(renderers, "_BLOCK", 4)

    def load():
        told = []
        source = rendered.load(
            **PAIR, train=22, test=3, image_size=16, progress=lambda *both: told.append(both)
        )
        assert told[-1] == (25, 25)
        assert told == sorted(told)
        return source.train

    return load


PAIR = {"attributes": ("black",), "objects": ("cat",)}


def test_many_images_are_rendered_by_processes_and_kept_and_again_where_what_is_kept_is_damaged(
    large, monkeypatch, tmp_path
):
    expected = rendered.load(**PAIR, train=9, test=0, image_size=16).train
    found = large()
    np.testing.assert_array_equal(found.images[:9], expected.images)
    assert len(np.unique(found.images.reshape(22, -1), axis=0)) == 22
    for name, values in expected.objects.items():
        np.testing.assert_array_equal(found.objects[name][:9], values)
    with monkeypatch.context() as patch:
        patch.setattr(renderers, "_on_all_cores", None)  # nothing is rendered again
        np.testing.assert_array_equal(large().images, found.images)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:1000])
    np.testing.assert_array_equal(large().images, found.images)
    assert file.stat().st_size > 22 * 16 * 16 * 3


def test_a_worker_that_ends_is_told(large, monkeypatch):
    monkeypatch.setattr(renderers.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="status 1"):
        large()


def _fragments(monkeypatch, **names):
    """Colour and object of every fragment of 200 pictures, in each of its two colours."""
    found, current = [], []
    fragment, colour = rendered._fragment, rendered._draw_colour

    def noted(rng, side, exclude):
        current.append("")
        try:
            return fragment(rng, side, exclude)
        finally:
            current.clear()

    def draw(name, real, rng):
        if current:
            current[0] = name
        return real(rng)

    def coloured(rng, name):
        if current:
            found.append((name, current[0]))
        return colour(rng, name)

    monkeypatch.setattr(rendered, "_fragment", noted)
    monkeypatch.setattr(rendered, "_draw_colour", coloured)
    for name, real in list(rendered.DRAWINGS.items()):
        monkeypatch.setitem(rendered.DRAWINGS, name, functools.partial(draw, name, real))
    load(train=200, test=0, image_size=8, **names)
    return found


def test_no_fragment_shows_what_is_composed(monkeypatch):
    """Only a picture's object is a black cat, and then its label says so."""
    shown = set(_fragments(monkeypatch, attributes=("black", "red"), objects=("cat",)))
    assert {("black", "dog"), ("white", "cat")} <= shown
    assert not {("black", "cat"), ("red", "cat")} & shown


def test_where_everything_is_composed_there_are_no_fragments(monkeypatch):
    everything = {"attributes": rendered.COLOURS, "objects": rendered.OBJECTS}
    assert _fragments(monkeypatch, **everything) == []
