"""Tests for kernelgan.data.pairs: a pair without a config is the pair that a run makes."""

import numpy as np
import pytest
from synthetic_sources import LIMITS, noise_images

from configs import tiny
from kernelgan import data
from kernelgan import plan as plan_lib
from kernelgan.data.images import Source
from kernelgan.data.leakage import LeakageError
from kernelgan.types import Quadrant, UserError


@pytest.fixture
def source():
    return Source("noise", noise_images(600, 0, "train"), noise_images(200, 1, "test"))


def test_a_pair_is_that_of_a_run(source):
    config = tiny.get_config()
    config.seed = 4
    plan = plan_lib.make_plan(config, source)
    pair = data.split(
        source, "black", "cat", seed=4, validation_share=config.data.validation_share, limits=LIMITS
    )
    (task,) = plan.pairs
    for side in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(pair.split, side), getattr(task.split, side))
    for ours, number in ((pair.attribute, task.attribute_zoo), (pair.object, task.object_zoo)):
        theirs = plan.zoos[number]
        assert (ours.kind, ours.concept, ours.excluded) == (theirs.kind, theirs.concept, theirs.excluded)
        assert ours.groups.key == theirs.groups.key
        assert ours.images is source.train.images
    assert pair.leakage == task.leakage
    assert pair.name == "black cat"


def test_the_test_images_are_those_of_the_pair_with_their_quadrants(source):
    source.test.attributes["black"][:3] = -1
    images, quadrant = data.split(source, "black", "cat", limits=LIMITS).test
    known = source.test.attributes["black"] >= 0
    black, cat = source.test.attributes["black"][known], source.test.objects["cat"][known]
    np.testing.assert_array_equal(images, source.test.images[known])
    np.testing.assert_array_equal(quadrant == Quadrant.CONJUNCTION, (black == 1) & (cat == 1))
    np.testing.assert_array_equal(quadrant == Quadrant.NEITHER, (black == 0) & (cat == 0))


def test_no_learner_of_a_pair_is_given_a_conjunction(source):
    pair = data.split(source, "black", "cat", limits=LIMITS)
    both = (source.train.attributes["black"] == 1) & (source.train.objects["cat"] == 1)
    for groups in (pair.attribute.groups, pair.object.groups, pair.seen):
        assert not both[groups.read()].any()


def test_a_leak_is_refused(source):
    conjunction = np.flatnonzero((source.test.attributes["black"] == 1) & (source.test.objects["cat"] == 1))[
        0
    ]
    alone = np.flatnonzero((source.train.attributes["black"] == 1) & (source.train.objects["cat"] == 0))[0]
    source.train.images[alone] = source.test.images[conjunction]
    with pytest.raises(LeakageError, match=rf"'train/{alone}'"):
        data.split(source, "black", "cat", limits=LIMITS)


def test_too_few_images_are_refused(source):
    few = Source("few", source.train, noise_images(60, 1, "test"))
    with pytest.raises(UserError, match="needed 20"):
        data.split(few, "black", "cat")
