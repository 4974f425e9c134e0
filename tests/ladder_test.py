"""Tests for studies.ladder: what its images show, and its table."""

import numpy as np
import pytest

from kernelgan import probes
from kernelgan.data import colour, quadrants
from kernelgan.data.images import ImageSet, Source
from kernelgan.data.leakage import LeakageError
from kernelgan.types import UserError
from studies.ladder import __main__ as command
from studies.ladder import study

FOLD = (("black", "cat"), ("red", "car"))
COUNT = 40


def _images(count, seed):
    rng = np.random.default_rng(seed)
    colours, things = rng.integers(3, size=count), rng.integers(3, size=count)
    return ImageSet(
        rng.integers(256, size=(count, 16, 16, 3), dtype=np.uint8),
        {name: (colours == number).astype(np.int8) for number, name in enumerate(("black", "red"))},
        {name: (things == number).astype(np.int8) for number, name in enumerate(("cat", "car"))},
        tuple(f"{seed}/{number}" for number in range(count)),
        np.zeros(count, bool),
    )


@pytest.fixture
def part():
    source = Source("drawn", _images(600, 1), _images(300, 2))
    limits = quadrants.Limits(4, 2, None, None)
    return quadrants.partition(source, validation_share=0.2, limits=limits, seed=0)


def _pair(part, name=FOLD[0]):
    return study.Pair(quadrants.split(part, *name), None, FOLD)


def _labels(part, images):
    """Of each image that is a photograph: black, cat, red, car."""
    train = part.source.train
    of = {image.tobytes(): number for number, image in enumerate(train.images)}
    found = np.array([of[image.tobytes()] for image in images if image.tobytes() in of], int)
    return [labels[found] == 1 for labels in (*train.attributes.values(), *train.objects.values())], found


@pytest.mark.parametrize("rung", study.RUNGS)
def test_a_rung_shows_what_it_says_and_no_conjunction(part, rung):
    images = study.images_of(part, _pair(part), study.RUNGS[rung], COUNT)
    (black, red, cat, car), found = _labels(part, images)
    assert len(images) == COUNT
    assert len(found) == COUNT * (1 - study.RUNGS[rung].made)
    assert not (black & cat).any()
    assert not part.validation[found].any()
    attribute = rung.startswith(("attribute", "fold", "seen"))
    assert (black.any(), cat.any()) == (attribute, rung.startswith(("object", "fold", "seen")))
    if rung == "fold":
        assert not (red & car).any()
        other = study.images_of(part, _pair(part, FOLD[1]), study.RUNGS[rung], COUNT)
        np.testing.assert_array_equal(images, other)


def test_the_rest_is_noise(part):
    images = study.images_of(part, _pair(part), study.RUNGS["neither_noise"], COUNT)
    np.testing.assert_array_equal(images[COUNT // 2 :], probes.noise(COUNT // 2, size=16))


def test_few_photographs_are_gone_through_again(part):
    images = study.images_of(part, _pair(part), study.RUNGS["seen"], 2000)
    kinds = len(np.unique(images.reshape(2000, -1), axis=0))
    assert 200 < kinds < 600


@pytest.mark.parametrize("rung", ["neither", "fold"])
def test_a_photograph_with_the_content_of_a_conjunction_is_refused(part, rung):
    train = part.source.train
    split = quadrants.split(part, *FOLD[0])
    twin = np.flatnonzero((train.attributes["black"] == 1) & (train.objects["cat"] == 1))[0]
    train.images[split.train == quadrants.Quadrant.NEITHER] = train.images[twin]
    again = quadrants.partition(part.source, validation_share=0.2, limits=part.limits, seed=0)
    with pytest.raises(LeakageError, match="black cat"):
        study.images_of(again, _pair(again), study.RUNGS[rung], COUNT)


def test_the_table_has_the_planted_gains():
    def row(worst):
        each = {"black cat": worst, "red car": worst + 0.1, "red cat": worst, "black car": worst + 0.1}
        return {pair: {"worst": [x, x], "correlation": [x]} for pair, x in each.items()}

    rows = {f"{name}{end}": row(0.6) for name in study.RUNGS for end in ("", f"_{study.NULL}")}
    rows |= {"attribute": row(0.7), "and_ensemble": row(0.7)}
    lines = {line.split("|")[1].strip(): line for line in command.table(rows).splitlines()}
    assert "+0.100 [+0.100, +0.100] | +0.100 [+0.100, +0.100]" in lines["object new: without it"]
    assert "|  | +0.000" in lines["noise, no photograph"]  # not against itself


@pytest.mark.parametrize("name", ["brown", "orange", "black"])
def test_coloured_noise_has_the_colour_and_differs(name):
    images = study.coloured(name, 30, 32)
    assert (colour.holds(images)[name] == 1).all()
    assert len(np.unique(images.reshape(30, -1), axis=0)) == 30
    assert images.std(axis=(1, 2, 3)).min() > 3


def test_what_is_no_colour_cannot_be_coloured():
    with pytest.raises(UserError, match="striped"):
        study.coloured("striped", 2, 16)
