"""Tests for kernelgan.data.quadrants: the split, and what each learner reads."""

import dataclasses

import numpy as np
import pytest
from synthetic_sources import noise_images, partition

from kernelgan.data import quadrants
from kernelgan.data.images import Source, content_fractions, take
from kernelgan.data.quadrants import Limits
from kernelgan.types import LEFT_OUT, Quadrant, UserError

FOUR = [quadrant.label for quadrant in Quadrant][:4]


@pytest.fixture
def source():
    return Source("noise", noise_images(600, 0, "train"), noise_images(200, 1, "test"))


def test_quadrants_follow_the_labels():
    images = take(noise_images(7, 0, "x"), np.arange(7))
    images.attributes["black"][:] = (1, 1, 0, 0, -1, 1, -1)
    images.objects["cat"][:] = (1, 0, 1, 0, 1, -1, -1)
    images.rest[-2:] = True
    expected = [
        Quadrant.CONJUNCTION,
        Quadrant.ATTRIBUTE_ONLY,
        Quadrant.OBJECT_ONLY,
        Quadrant.NEITHER,
        LEFT_OUT,
        Quadrant.REST,
        Quadrant.REST,
    ]
    assert quadrants.quadrant_of(images, "black", "cat").tolist() == expected
    assert quadrants.counts(np.array(expected)) == dict.fromkeys(FOUR, 1) | {"rest": 2}


def test_unknown_concepts_list_the_known_ones(source):
    with pytest.raises(
        UserError, match=r"attribute 'pink' is not in the data; it has 'black', 'red'. Name one of"
    ):
        quadrants.split(partition(source), "pink", "cat")
    with pytest.raises(UserError, match=r"object 'cow' is not in the data; it has 'car', 'cat', 'dog'"):
        quadrants.split(partition(source), "black", "cow")


def test_sides_are_disjoint_and_validation_never_holds_the_conjunction(source):
    part = partition(source)
    pair = quadrants.split(part, "black", "cat")
    assert not ((pair.train != LEFT_OUT) & (pair.validation != LEFT_OUT)).any()
    assert not (pair.validation == Quadrant.CONJUNCTION).any()
    everything = quadrants.quadrant_of(source.train, "black", "cat")
    used = np.where(pair.train != LEFT_OUT, pair.train, pair.validation)
    unused = (everything != LEFT_OUT) & (used == LEFT_OUT)
    assert (
        everything[unused] == Quadrant.CONJUNCTION
    ).all()  # those that fall on the validation side: used by nobody
    assert part.validation[unused].all()
    np.testing.assert_array_equal(used[~unused], everything[~unused])
    assert set(quadrants.counts(pair.train).values()).isdisjoint({0})
    assert 0.1 < (pair.validation != LEFT_OUT).mean() < 0.3
    np.testing.assert_array_equal(pair.test, quadrants.quadrant_of(source.test, "black", "cat"))


def test_no_validation_image_of_a_pair_is_trained_on_by_another(source):
    part = partition(source)
    pairs = [quadrants.split(part, a, o) for a in ("black", "red") for o in ("cat", "dog", "car")]
    trained = np.any([pair.train != LEFT_OUT for pair in pairs], axis=0)
    validated = np.any([pair.validation != LEFT_OUT for pair in pairs], axis=0)
    assert not (trained & validated).any()


def test_exact_duplicates_fall_on_the_same_side_wherever_they_stand(source):
    order = np.random.default_rng(2).permutation(np.repeat(np.arange(600), 2))
    doubled = Source("doubled", take(source.train, order), source.test)
    part, single = partition(doubled), partition(source)
    np.testing.assert_array_equal(part.validation, single.validation[order])


def test_the_seed_chooses_and_nothing_else_does(source):
    first, again, other = partition(source), partition(source), partition(source, seed=1)
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
        partition(source, share=share)


def test_a_maximum_keeps_the_same_part_every_time(source):
    limits = Limits(minimum_train=5, minimum_test=3, maximum_train=8, maximum_test=4)
    pair = quadrants.split(partition(source, limits), "black", "cat")
    whole = quadrants.split(partition(source), "black", "cat")
    assert quadrants.counts(pair.train) == dict.fromkeys(FOUR, 8)
    assert quadrants.counts(pair.test) == dict.fromkeys(FOUR, 4)
    assert (pair.train[pair.train != LEFT_OUT] == whole.train[pair.train != LEFT_OUT]).all()
    again = quadrants.split(partition(source, limits), "black", "cat")
    np.testing.assert_array_equal(pair.train, again.train)
    other = quadrants.split(partition(source, limits, seed=1), "black", "cat")
    assert (pair.test != other.test).any()


def test_parents_never_read_the_other_concept(source):
    part = partition(source)
    black, cat = source.train.attributes["black"], source.train.objects["cat"]
    groups = quadrants.zoo_groups(part, "attribute", "black", ["cat"])
    assert groups.quadrants == (Quadrant.ATTRIBUTE_ONLY, Quadrant.NEITHER)
    assert (cat[groups.read()] == 0).all()
    for side in (groups.train, groups.validation):
        assert (black[side[0]] == 1).all()
        assert (black[side[1]] == 0).all()
    groups = quadrants.zoo_groups(part, "object", "cat", ["black"])
    assert groups.quadrants == (Quadrant.OBJECT_ONLY, Quadrant.NEITHER)
    assert (black[groups.read()] == 0).all()
    for side in (groups.train, groups.validation):
        assert (cat[side[0]] == 1).all()
        assert (cat[side[1]] == 0).all()


@pytest.mark.parametrize("maximum", [0, 10])
def test_parents_read_the_quadrants_of_the_pair(source, maximum):
    part = partition(source, Limits(5, 3, maximum, 0))
    pair = quadrants.split(part, "black", "cat")
    parents = (
        quadrants.zoo_groups(part, "attribute", "black", ["cat"]),
        quadrants.zoo_groups(part, "object", "cat", ["black"]),
    )
    for groups in (*parents, quadrants.distilled_groups(pair), quadrants.reference_groups(pair)):
        for number, train, validation in zip(groups.quadrants, groups.train, groups.validation, strict=True):
            np.testing.assert_array_equal(train, np.flatnonzero(pair.train == number))
            np.testing.assert_array_equal(validation, np.flatnonzero(pair.validation == number))


def test_one_zoo_serves_a_row_of_a_matrix(source):
    part = partition(source, Limits(5, 3, maximum_train=20))
    own = [quadrants.zoo_groups(part, "attribute", "black", [name]).key for name in ("cat", "dog")]
    row = quadrants.zoo_groups(part, "attribute", "black", ["cat", "dog"])
    assert len({*own, row.key}) == 3
    assert row.key == quadrants.zoo_groups(part, "attribute", "black", ["dog", "cat"]).key
    for name in ("cat", "dog"):
        assert (source.train.objects[name][row.read()] == 0).all()
    column = quadrants.zoo_groups(part, "object", "cat", ["black", "red"])
    for name in ("black", "red"):  # not known is excluded too
        assert (source.train.attributes[name][column.read()] == 0).all()
    assert (source.train.attributes["red"] == -1).any()


def test_groups_of_other_quadrants_have_another_key(source):
    pair = quadrants.split(partition(source), "black", "cat")
    keys = {quadrants.distilled_groups(pair).key, quadrants.reference_groups(pair).key}
    assert len(keys) == 2
    assert quadrants.reference_groups(pair).validation[0].size == 0


def test_too_few_images_name_the_quadrant_and_the_field(source):
    with pytest.raises(
        UserError,
        match=r"pair 'black cat' has too few training images of 'black, not cat': found \d+, needed 999.*"
        r"lower data.minimum_train",
    ):
        quadrants.split(partition(source, Limits(999, 3)), "black", "cat")
    with pytest.raises(
        UserError,
        match=r"pair 'black cat' has too few test images of 'black cat': found \d+, needed 999.*lower "
        r"data.minimum_test",
    ):
        quadrants.split(partition(source, Limits(5, 999)), "black", "cat")
    with pytest.raises(UserError, match=r"too few validation images of .*needed 1.* raise data.validation"):
        quadrants.split(partition(source, share=1e-6), "black", "cat")
    everything = ["cat", "dog", "car"]
    with pytest.raises(
        UserError, match=r"zoo of the attribute 'black' without 'cat', 'dog', 'car' has too few"
    ):
        quadrants.zoo_groups(partition(source), "attribute", "black", everything)
    with pytest.raises(
        UserError, match=r"zoo of the object 'cat' without 'black' has too few .* found \d+, needed 9"
    ):
        quadrants.zoo_groups(partition(source, Limits(999, 3)), "object", "cat", ["black"])


@pytest.mark.parametrize(("value", "message"), [(0, "no positives: it holds in none"), (1, "no negatives")])
def test_a_concept_that_cannot_be_learnt_has_its_own_message(source, value, message):
    source.train.attributes["black"][:] = value
    with pytest.raises(UserError, match=rf"The attribute 'black' has {message}.* 600 training images"):
        quadrants.split(partition(source), "black", "cat")


def test_a_test_set_of_unnamed_others_is_scored_as_rest(source):
    is_conjunction = quadrants.quadrant_of(source.test, "black", "cat") == Quadrant.CONJUNCTION
    source.test.attributes["black"][~is_conjunction] = -1
    source.test.rest[~is_conjunction] = True
    pair = quadrants.split(partition(source), "black", "cat")
    assert quadrants.counts(pair.test) == {
        "a&o": is_conjunction.sum(),
        "a&!o": 0,
        "!a&o": 0,
        "!a&!o": 0,
        "rest": (~is_conjunction).sum(),
    }


def test_too_few_unnamed_others_stop(source):
    is_conjunction = quadrants.quadrant_of(source.test, "black", "cat") == Quadrant.CONJUNCTION
    source.test.attributes["black"][~is_conjunction] = -1
    source.test.rest[np.flatnonzero(~is_conjunction)[:2]] = True
    with pytest.raises(UserError, match=r"'anything but black cat': found 2, needed 3"):
        quadrants.split(partition(source), "black", "cat")


def test_a_test_set_with_some_quadrants_named_needs_all(source):
    source.test.attributes["black"][source.test.attributes["black"] == 0] = -1
    source.test.rest[source.test.attributes["black"] == -1] = True
    with pytest.raises(UserError, match=r"too few test images of 'cat, not black': found 0, needed 3"):
        quadrants.split(partition(source), "black", "cat")


def test_the_reference_needs_conjunctionnoise_images(source):
    part = partition(source)
    assert quadrants.has_reference(part, quadrants.split(part, "black", "cat"))
    without = take(source.train, quadrants.quadrant_of(source.train, "black", "cat") != Quadrant.CONJUNCTION)
    part = partition(Source("without", without, source.test))
    assert not quadrants.has_reference(part, quadrants.split(part, "black", "cat"))


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_digest_is_of_every_image_and_every_label(source, part):
    digest = quadrants.digest(partition(source))
    images = getattr(source, part)
    for values in (images.images, *images.attributes.values(), *images.objects.values(), images.rest):
        place = (17, *(3, 3, 0)[: values.ndim - 1])
        values[place] ^= 1
        assert quadrants.digest(partition(source)) != digest
        values[place] ^= 1
    assert quadrants.digest(partition(source, seed=3)) == digest


def test_the_digest_is_of_no_name(source):
    train = dataclasses.replace(
        source.train, names=tuple(f"/elsewhere/{name}" for name in source.train.names)
    )
    other = Source("folder:elsewhere", train, source.test, ("moved",))
    assert quadrants.digest(partition(other)) == quadrants.digest(partition(source))
