"""Tests for kernelgan.data.complements: AND NOT and OR as pairs, split, gated and probed."""

import numpy as np
import pytest

import kernelgan as kg
from kernelgan import probes
from kernelgan.data import complements, images, rendered
from kernelgan.types import Quadrant


def _source(**kinds):
    count = 6
    labels = {kind: {name: np.asarray(v, np.int8) for name, v in own.items()} for kind, own in kinds.items()}
    one = images.ImageSet(
        np.zeros((count, 2, 2, 3), np.uint8),
        labels["attributes"],
        labels["objects"],
        tuple("abcdef"),
        np.zeros(count, bool),
    )
    return images.Source("planted", one, one)


def test_a_complement_holds_where_the_concept_does_not_and_stays_unknown_where_it_is():
    source = _source(attributes={"black": [1, 0, -1, 1, 0, 1]}, objects={"cat": [1, 1, 0, 0, -1, 0]})
    made = complements.label(source, ("black", "not black"), ("not cat",))
    assert made.train.attributes["not black"].tolist() == [0, 1, -1, 0, 1, 0]
    assert made.test.objects["not cat"].tolist() == [0, 0, 1, 1, -1, 1]
    assert made.train.attributes["black"].tolist() == [1, 0, -1, 1, 0, 1]
    assert "not black" not in source.train.attributes  # which is not changed
    assert complements.label(source, ("black",), ("cat",)) is source


@pytest.mark.parametrize(
    ("pair", "same"),
    [
        (("black", "not cat"), Quadrant.ATTRIBUTE_ONLY),
        (("not black", "cat"), Quadrant.OBJECT_ONLY),
        (("not black", "not cat"), Quadrant.NEITHER),
    ],
)
def test_the_conjunction_of_complements_is_another_quadrant_and_no_zoo_reads_it(pair, same):
    options = {"seed": 0, "train": 1200, "test": 400, "image_size": 8}
    plain = kg.data.load("rendered", attributes=("black",), objects=("cat",), **options)
    source = kg.data.load("rendered", attributes=pair[:1], objects=pair[1:], **options)
    np.testing.assert_array_equal(plain.train.images, source.train.images)
    expected = kg.split(plain, "black", "cat").split
    made = kg.split(source, *pair)
    np.testing.assert_array_equal(made.split.test == Quadrant.CONJUNCTION, expected.test == same)
    for concept in (made.attribute, made.object):
        quadrant = made.split.train[concept.groups.read()]
        assert (quadrant != Quadrant.CONJUNCTION).all()


def test_rendered_probes_leave_out_the_conjunction_of_complements(monkeypatch):
    drawn = []
    real = rendered.render

    def spy(thing, colour, rng, size, exclude):
        drawn.append((colour, thing))
        return real(thing, colour, rng, size, exclude)

    monkeypatch.setattr(rendered, "render", spy)
    probes.rendered(300, seed=77, size=4, exclude=[("black", "not cats")])
    assert ("black", "cat") in drawn
    assert all(thing == "cat" for colour, thing in drawn if colour == "black")
    drawn.clear()
    probes.rendered(300, seed=77, size=4, exclude=[("not black", "not kitten")])
    assert all(colour == "black" or thing == "cat" for colour, thing in drawn)
    assert len(set(drawn)) > 10
