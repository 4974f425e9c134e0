"""Tests for kernelgan.data.quadrants: the split, what each learner reads, and the leakage gate."""

import time

import numpy as np
import pytest

from kernelgan.data import quadrants
from kernelgan.data.images import ImageSet, Source, content_fractions, take
from kernelgan.data.quadrants import (
    ATTRIBUTE_ONLY,
    CONJUNCTION,
    LEFT_OUT,
    NEITHER,
    OBJECT_ONLY,
    REST,
    LeakageError,
    Limits,
    Reader,
)
from kernelgan.types import UserError

LIMITS = Limits(minimum_train=5, minimum_test=3)


def _images(count, seed, prefix, unknown=0.1):
    """Noise with two attributes and three objects; some attributes are not known."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 3, count)
    attributes = {}
    for name in ("black", "red"):
        attributes[name] = rng.integers(0, 2, count).astype(np.int8)
        attributes[name][rng.random(count) < unknown] = -1
    return ImageSet(
        images=rng.integers(0, 256, (count, 16, 16, 3), np.uint8),
        attributes=attributes,
        objects={
            name: (which == number).astype(np.int8) for number, name in enumerate(("cat", "dog", "car"))
        },
        names=tuple(f"{prefix}/{index}" for index in range(count)),
        rest=np.zeros(count, bool),
    )


@pytest.fixture
def source():
    return Source("noise", _images(600, 0, "train"), _images(200, 1, "test"))


def _partition(source, limits=LIMITS, seed=0, share=0.2):
    return quadrants.partition(source, validation_share=share, limits=limits, seed=seed)


def _readers(part, pair):
    """Everything that learns for one pair, as the pipeline has it."""
    attribute = quadrants.attribute_groups(part, pair.attribute, [pair.object_name])
    name = quadrants.object_groups(part, pair.object_name, [pair.attribute])
    return [
        Reader(f"zoo of the attribute {pair.attribute!r}", attribute, (pair,)),
        Reader(f"zoo of the object {pair.object_name!r}", name, (pair,)),
        Reader("distillation", quadrants.distilled_groups(pair), (pair,)),
        Reader("ceiling", quadrants.ceiling_groups(pair), (pair,), is_ceiling=True),
    ]


def _relabelled(images, index, **labels):
    """The images with the labels of one of them changed."""
    attributes = {name: values.copy() for name, values in images.attributes.items()}
    objects = {name: values.copy() for name, values in images.objects.items()}
    for name, value in labels.items():
        (attributes if name in attributes else objects)[name][index] = value
    return ImageSet(images.images, attributes, objects, images.names, images.rest)


def test_quadrants_follow_the_labels():
    images = take(_images(7, 0, "x"), np.arange(7))
    images.attributes["black"][:] = (1, 1, 0, 0, -1, 1, -1)
    images.objects["cat"][:] = (1, 0, 1, 0, 1, -1, -1)
    images.rest[-2:] = True
    expected = [CONJUNCTION, ATTRIBUTE_ONLY, OBJECT_ONLY, NEITHER, LEFT_OUT, REST, REST]
    assert quadrants.quadrant_of(images, "black", "cat").tolist() == expected
    assert quadrants.counts(np.array(expected)) == dict.fromkeys(quadrants.QUADRANTS, 1) | {"rest": 2}


def test_unknown_concepts_list_the_known_ones(source):
    with pytest.raises(
        UserError, match=r"attribute 'pink' is not in the data; it has 'black', 'red'. Name one of"
    ):
        quadrants.split(_partition(source), "pink", "cat")
    with pytest.raises(UserError, match=r"object 'cow' is not in the data; it has 'car', 'cat', 'dog'"):
        quadrants.split(_partition(source), "black", "cow")


def test_sides_are_disjoint_and_validation_never_holds_the_conjunction(source):
    part = _partition(source)
    pair = quadrants.split(part, "black", "cat")
    assert not ((pair.train != LEFT_OUT) & (pair.validation != LEFT_OUT)).any()
    assert not (pair.validation == CONJUNCTION).any()
    everything = quadrants.quadrant_of(source.train, "black", "cat")
    used = np.where(pair.train != LEFT_OUT, pair.train, pair.validation)
    unused = (everything != LEFT_OUT) & (used == LEFT_OUT)
    assert (everything[unused] == CONJUNCTION).all()  # those that fall on the validation side: used by nobody
    assert part.validation[unused].all()
    np.testing.assert_array_equal(used[~unused], everything[~unused])
    assert set(quadrants.counts(pair.train).values()).isdisjoint({0})
    assert 0.1 < (pair.validation != LEFT_OUT).mean() < 0.3
    np.testing.assert_array_equal(pair.test, quadrants.quadrant_of(source.test, "black", "cat"))


def test_no_validation_image_of_a_pair_is_trained_on_by_another(source):
    part = _partition(source)
    pairs = [quadrants.split(part, a, o) for a in ("black", "red") for o in ("cat", "dog", "car")]
    trained = np.any([pair.train != LEFT_OUT for pair in pairs], axis=0)
    validated = np.any([pair.validation != LEFT_OUT for pair in pairs], axis=0)
    assert not (trained & validated).any()


def test_exact_duplicates_fall_on_the_same_side_wherever_they_stand(source):
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(600), 2))
    doubled = Source("doubled", take(source.train, order), source.test)
    part, single = _partition(doubled), _partition(source)
    np.testing.assert_array_equal(part.validation, single.validation[order])


def test_the_seed_chooses_and_nothing_else_does(source):
    first, again, other = _partition(source), _partition(source), _partition(source, seed=1)
    np.testing.assert_array_equal(first.validation, again.validation)
    np.testing.assert_array_equal(first.train_order, again.train_order)
    assert (first.validation != other.validation).any()


def test_content_fractions_are_uniform_and_independent():
    hashes = [str(number) for number in range(4000)]
    first, second = content_fractions(hashes, "a"), content_fractions(hashes, "b")
    assert abs(first.mean() - 0.5) < 0.02
    assert abs(first.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_outside_of_zero_to_one_stops(source, share):
    with pytest.raises(
        UserError, match=rf"data.validation_share is {share}; expected a number above 0 and below 1"
    ):
        _partition(source, share=share)


def test_a_maximum_keeps_the_same_part_every_time(source):
    limits = Limits(minimum_train=5, minimum_test=3, maximum_train=8, maximum_test=4)
    pair = quadrants.split(_partition(source, limits), "black", "cat")
    whole = quadrants.split(_partition(source), "black", "cat")
    assert quadrants.counts(pair.train) == dict.fromkeys(quadrants.QUADRANTS, 8)
    assert quadrants.counts(pair.test) == dict.fromkeys(quadrants.QUADRANTS, 4)
    assert (pair.train[pair.train != LEFT_OUT] == whole.train[pair.train != LEFT_OUT]).all()
    again = quadrants.split(_partition(source, limits), "black", "cat")
    np.testing.assert_array_equal(pair.train, again.train)
    other = quadrants.split(_partition(source, limits, seed=1), "black", "cat")
    assert (pair.test != other.test).any()


def test_parents_never_read_the_other_concept(source):
    part = _partition(source)
    black, cat = source.train.attributes["black"], source.train.objects["cat"]
    groups = quadrants.attribute_groups(part, "black", ["cat"])
    assert groups.quadrants == (ATTRIBUTE_ONLY, NEITHER)
    assert (cat[groups.read()] == 0).all()
    for side in (groups.train, groups.validation):
        assert (black[side[0]] == 1).all()
        assert (black[side[1]] == 0).all()
    groups = quadrants.object_groups(part, "cat", ["black"])
    assert groups.quadrants == (OBJECT_ONLY, NEITHER)
    assert (black[groups.read()] == 0).all()
    for side in (groups.train, groups.validation):
        assert (cat[side[0]] == 1).all()
        assert (cat[side[1]] == 0).all()


@pytest.mark.parametrize("maximum", [0, 10])
def test_parents_read_the_quadrants_of_the_pair(source, maximum):
    part = _partition(source, Limits(5, 3, maximum, 0))
    pair = quadrants.split(part, "black", "cat")
    parents = (
        quadrants.attribute_groups(part, "black", ["cat"]),
        quadrants.object_groups(part, "cat", ["black"]),
    )
    for groups in (*parents, quadrants.distilled_groups(pair), quadrants.ceiling_groups(pair)):
        for number, train, validation in zip(groups.quadrants, groups.train, groups.validation, strict=True):
            np.testing.assert_array_equal(train, np.flatnonzero(pair.train == number))
            np.testing.assert_array_equal(validation, np.flatnonzero(pair.validation == number))


def test_one_zoo_serves_a_row_of_a_matrix(source):
    part = _partition(source, Limits(5, 3, maximum_train=20))
    own = [quadrants.attribute_groups(part, "black", [name]).key for name in ("cat", "dog")]
    row = quadrants.attribute_groups(part, "black", ["cat", "dog"])
    assert len({*own, row.key}) == 3
    assert row.key == quadrants.attribute_groups(part, "black", ["dog", "cat"]).key
    for name in ("cat", "dog"):
        assert (source.train.objects[name][row.read()] == 0).all()
    column = quadrants.object_groups(part, "cat", ["black", "red"])
    for name in ("black", "red"):  # not known is excluded too
        assert (source.train.attributes[name][column.read()] == 0).all()
    assert (source.train.attributes["red"] == -1).any()


def test_groups_of_other_quadrants_have_another_key(source):
    pair = quadrants.split(_partition(source), "black", "cat")
    keys = {quadrants.distilled_groups(pair).key, quadrants.ceiling_groups(pair).key}
    assert len(keys) == 2
    assert quadrants.ceiling_groups(pair).validation[0].size == 0


def test_too_few_images_name_the_quadrant_and_the_field(source):
    with pytest.raises(
        UserError,
        match=r"pair 'black cat' has too few training images in quadrant a&!o: found \d+, needed 999.*lower "
        r"data.minimum_train",
    ):
        quadrants.split(_partition(source, Limits(999, 3)), "black", "cat")
    with pytest.raises(
        UserError,
        match=r"pair 'black cat' has too few test images in quadrant a&o: found \d+, needed 999.*lower "
        r"data.minimum_test",
    ):
        quadrants.split(_partition(source, Limits(5, 999)), "black", "cat")
    with pytest.raises(
        UserError, match=r"too few validation images in quadrant .*needed 1.* raise data.validation"
    ):
        quadrants.split(_partition(source, share=1e-6), "black", "cat")
    everything = ["cat", "dog", "car"]
    with pytest.raises(
        UserError, match=r"zoo of the attribute 'black' without 'cat', 'dog', 'car' has too few"
    ):
        quadrants.attribute_groups(_partition(source), "black", everything)
    with pytest.raises(
        UserError, match=r"zoo of the object 'cat' without 'black' has too few .* found \d+, needed 9"
    ):
        quadrants.object_groups(_partition(source, Limits(999, 3)), "cat", ["black"])


@pytest.mark.parametrize(("value", "message"), [(0, "no positives: it holds in none"), (1, "no negatives")])
def test_a_concept_that_cannot_be_learnt_has_its_own_message(source, value, message):
    source.train.attributes["black"][:] = value
    with pytest.raises(UserError, match=rf"The attribute 'black' has {message}.* 600 training images"):
        quadrants.split(_partition(source), "black", "cat")


def test_a_test_set_of_unnamed_others_is_scored_as_rest(source):
    is_conjunction = quadrants.quadrant_of(source.test, "black", "cat") == CONJUNCTION
    source.test.attributes["black"][~is_conjunction] = -1
    source.test.rest[~is_conjunction] = True
    pair = quadrants.split(_partition(source), "black", "cat")
    assert quadrants.counts(pair.test) == {
        "a&o": is_conjunction.sum(),
        "a&!o": 0,
        "!a&o": 0,
        "!a&!o": 0,
        "rest": (~is_conjunction).sum(),
    }


def test_too_few_unnamed_others_stop(source):
    is_conjunction = quadrants.quadrant_of(source.test, "black", "cat") == CONJUNCTION
    source.test.attributes["black"][~is_conjunction] = -1
    source.test.rest[np.flatnonzero(~is_conjunction)[:2]] = True
    with pytest.raises(UserError, match=r"in quadrant rest \(test images that are .*: found 2, needed 3"):
        quadrants.split(_partition(source), "black", "cat")


def test_a_test_set_with_some_quadrants_named_needs_all(source):
    source.test.attributes["black"][source.test.attributes["black"] == 0] = -1
    source.test.rest[source.test.attributes["black"] == -1] = True
    with pytest.raises(UserError, match=r"too few test images in quadrant !a&o: found 0, needed 3"):
        quadrants.split(_partition(source), "black", "cat")


def test_the_ceiling_needs_conjunction_images(source):
    part = _partition(source)
    assert quadrants.has_ceiling(part, quadrants.split(part, "black", "cat"))
    without = take(source.train, quadrants.quadrant_of(source.train, "black", "cat") != CONJUNCTION)
    part = _partition(Source("without", without, source.test))
    assert not quadrants.has_ceiling(part, quadrants.split(part, "black", "cat"))


def test_the_gate_lets_honest_data_pass(source):
    part = _partition(source)
    pairs = [quadrants.split(part, "black", "cat"), quadrants.split(part, "red", "dog")]
    reports = quadrants.check_leakage(part, [reader for pair in pairs for reader in _readers(part, pair)])
    assert reports == dict.fromkeys([("black", "cat"), ("red", "dog")], quadrants.LeakageReport(0, 0, 0))


@pytest.mark.parametrize("from_test", [True, False])
@pytest.mark.parametrize("on_validation", [True, False])
def test_a_planted_leak_stops(source, from_test, on_validation):
    """A conjunction image, copied into the training set under a label that says it is none."""
    part = _partition(source)
    images = source.test if from_test else source.train
    found = np.flatnonzero(quadrants.quadrant_of(images, "black", "cat") == CONJUNCTION)
    hashes = np.array(part.test_hashes if from_test else part.train_hashes)
    validation = content_fractions(hashes[found], "validation:0") < 0.2
    leaked = images.images[found[validation == on_validation][0]]
    source.train.images[5] = leaked
    planted = Source("planted", _relabelled(source.train, 5, black=1, cat=0), source.test)
    part = _partition(planted)
    assert part.validation[5] == on_validation
    pair = quadrants.split(part, "black", "cat")
    readers = _readers(part, pair)
    for reader in (readers[0], readers[2]):
        with pytest.raises(
            LeakageError, match=r"would read 1 image\(s\) with the content of a 'black cat'"
        ) as error:
            quadrants.check_leakage(part, [reader])
        assert reader.name in str(error.value)
        assert "'train/5'" in str(error.value)
    quadrants.check_leakage(part, [readers[1]])  # the zoo of cats does not read what is labelled as no cat
    if not from_test:
        quadrants.check_leakage(
            part, [readers[3]]
        )  # the ceiling may read conjunction images of the training set


def test_the_ceiling_may_not_read_the_tests_conjunction(source):
    train = quadrants.quadrant_of(source.train, "black", "cat") == CONJUNCTION
    test = quadrants.quadrant_of(source.test, "black", "cat") == CONJUNCTION
    source.train.images[np.flatnonzero(train)[:8]] = source.test.images[np.flatnonzero(test)[:8]]
    part = _partition(source)
    readers = _readers(part, quadrants.split(part, "black", "cat"))
    quadrants.check_leakage(part, readers[:3])
    with pytest.raises(
        LeakageError, match=r"The ceiling would read \d image\(s\).*'train/\d+'.* and \d more"
    ):
        quadrants.check_leakage(part, readers[3:])


def test_a_zoo_may_read_the_conjunction_of_a_pair_that_it_does_not_serve(source):
    part = _partition(source)
    cat, dog = (quadrants.split(part, "black", name) for name in ("cat", "dog"))
    groups = quadrants.attribute_groups(part, "black", ["cat"])
    quadrants.check_leakage(part, [Reader("zoo", groups, (cat,))])
    with pytest.raises(LeakageError, match=r"The zoo would read .* 'black dog'"):
        quadrants.check_leakage(part, [Reader("zoo", groups, (cat, dog))])
    both = quadrants.attribute_groups(part, "black", ["cat", "dog"])
    assert len(quadrants.check_leakage(part, [Reader("zoo", both, (cat, dog))])) == 2


def test_duplicates_are_counted_and_do_not_stop(source):
    others = np.flatnonzero(quadrants.quadrant_of(source.train, "black", "cat") == NEITHER)[:5]
    tests = np.flatnonzero(quadrants.quadrant_of(source.test, "black", "cat") == NEITHER)[:5]
    source.test.images[tests] = source.train.images[others]
    near = source.test.images[tests[3:]].astype(np.int16) + np.random.default_rng(3).integers(
        -2, 3, (2, 16, 16, 3)
    )
    source.test.images[tests[3:]] = np.clip(near, 0, 255)
    part = _partition(source)
    pair = quadrants.split(part, "black", "cat")
    report = quadrants.check_leakage(part, _readers(part, pair))["black", "cat"]
    assert report == quadrants.LeakageReport(leaked=0, duplicates=3, near_duplicates=2)


def test_nearest_correlation_is_that_of_small_pictures():
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
    images[2] = 77  # of one colour: like nothing
    others = np.stack([255 - images[0], images[1] // 2 + 20, rng.integers(0, 256, (16, 16, 3), np.uint8)])
    nearest = quadrants.nearest_correlation(images, np.arange(3), others, np.arange(2))
    small = (
        images.reshape(3, 8, 2, 8, 2, 3).mean(axis=(2, 4)),
        others.reshape(3, 8, 2, 8, 2, 3).mean(axis=(2, 4)),
    )
    a, b = (group - group.mean(axis=(1, 2), keepdims=True) for group in small)
    a, b = (
        group.reshape(3, -1) / np.maximum(np.linalg.norm(group.reshape(3, -1), axis=1), 1)[:, None]
        for group in (a, b)
    )
    np.testing.assert_allclose(nearest, (a @ b[:2].T).max(axis=1), atol=1e-5)
    assert nearest[1] > 0.999
    assert nearest[2] == 0


@pytest.mark.parametrize("side", [8, 20, 28, 33])
def test_thumbnails_average_whatever_the_side(side):
    weights = quadrants._averaging(side)
    assert weights.shape == (8, side)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=0), 8 / side, rtol=1e-5)


def test_many_pairs_take_little_time():
    rng = np.random.default_rng(5)
    train, test = _images(5000, 6, "train"), _images(1000, 7, "test")
    names = [f"o{number}" for number in range(20)]
    for images in (train, test):
        images.objects.update({name: rng.integers(0, 2, len(images)).astype(np.int8) for name in names})
    part = _partition(Source("many", train, test))
    start = time.perf_counter()
    pairs = [quadrants.split(part, attribute, name) for attribute in ("black", "red") for name in names]
    quadrants.check_leakage(part, [reader for pair in pairs for reader in _readers(part, pair)])
    assert time.perf_counter() - start < 10
