"""Tests for kernelgan.data.leakage: what may read which image."""

import time

import numpy as np
import pytest
from synthetic_sources import noise_images, partition

from kernelgan.data import leakage, quadrants, rendered
from kernelgan.data.images import ImageSet, Source, content_fractions
from kernelgan.data.leakage import Fold, LeakageError, Reader
from kernelgan.types import Quadrant


@pytest.fixture
def source():
    return Source("noise", noise_images(600, 0, "train"), noise_images(200, 1, "test"))


def _readers(part, pair):
    """Everything that learns for one pair, as the pipeline has it."""
    attribute = quadrants.zoo_groups(part, "attribute", pair.attribute, [pair.object_name])
    name = quadrants.zoo_groups(part, "object", pair.object_name, [pair.attribute])
    return [
        Reader(f"zoo of the attribute {pair.attribute!r}", attribute, (pair,)),
        Reader(f"zoo of the object {pair.object_name!r}", name, (pair,)),
        *leakage.pair_readers(part, pair),
    ]


def _relabelled(images, index, **labels):
    """The images with the labels of one of them changed."""
    attributes = {name: values.copy() for name, values in images.attributes.items()}
    objects = {name: values.copy() for name, values in images.objects.items()}
    for name, value in labels.items():
        (attributes if name in attributes else objects)[name][index] = value
    return ImageSet(images.images, attributes, objects, images.names, images.rest)


def test_the_gate_lets_honest_data_pass(source):
    part = partition(source)
    pairs = [quadrants.split(part, "black", "cat"), quadrants.split(part, "red", "dog")]
    reports = leakage.check_leakage(part, [reader for pair in pairs for reader in _readers(part, pair)])
    assert reports == dict.fromkeys([("black", "cat"), ("red", "dog")], leakage.LeakageReport(0, 0, 0))


@pytest.mark.parametrize("from_test", [True, False])
@pytest.mark.parametrize("on_validation", [True, False])
def test_a_planted_leak_stops(source, from_test, on_validation):
    """A conjunction image, copied into the training set under a label that says it is none."""
    part = partition(source)
    images = source.test if from_test else source.train
    found = np.flatnonzero(quadrants.quadrant_of(images, "black", "cat") == Quadrant.CONJUNCTION)
    hashes = np.array(part.test_hashes if from_test else part.train_hashes)
    validation = content_fractions(hashes[found], "validation:0") < 0.2
    leaked = images.images[found[validation == on_validation][0]]
    source.train.images[5] = leaked
    planted = Source("planted", _relabelled(source.train, 5, black=1, cat=0), source.test)
    part = partition(planted)
    assert part.validation[5] == on_validation
    pair = quadrants.split(part, "black", "cat")
    readers = _readers(part, pair)
    for reader in (readers[0], readers[2]):
        with pytest.raises(LeakageError) as error:
            leakage.check_leakage(part, [reader])
        for fact in (reader.name, " 1 image(s)", "'train/5'", "'black cat'"):
            assert fact in str(error.value)
    leakage.check_leakage(part, [readers[1]])  # the zoo of cats does not read what is labelled as no cat
    if not from_test:
        leakage.check_leakage(
            part, [readers[3]]
        )  # the reference may read conjunction images of the training set


def test_the_reference_may_not_read_the_tests_conjunction(source):
    train = quadrants.quadrant_of(source.train, "black", "cat") == Quadrant.CONJUNCTION
    test = quadrants.quadrant_of(source.test, "black", "cat") == Quadrant.CONJUNCTION
    source.train.images[np.flatnonzero(train)[:8]] = source.test.images[np.flatnonzero(test)[:8]]
    part = partition(source)
    readers = _readers(part, quadrants.split(part, "black", "cat"))
    leakage.check_leakage(part, readers[:3])
    with pytest.raises(
        LeakageError, match=r"The reference of black cat would read \d image\(s\).*'train/\d+'.* and \d more"
    ):
        leakage.check_leakage(part, readers[3:])


def test_a_zoo_may_read_the_conjunction_of_a_pair_that_it_does_not_serve(source):
    part = partition(source)
    cat, dog = (quadrants.split(part, "black", name) for name in ("cat", "dog"))
    groups = quadrants.zoo_groups(part, "attribute", "black", ["cat"])
    leakage.check_leakage(part, [Reader("zoo", groups, (cat,))])
    with pytest.raises(LeakageError, match=r"The zoo would read .* 'black dog'"):
        leakage.check_leakage(part, [Reader("zoo", groups, (cat, dog))])
    both = quadrants.zoo_groups(part, "attribute", "black", ["cat", "dog"])
    assert len(leakage.check_leakage(part, [Reader("zoo", both, (cat, dog))])) == 2


def test_duplicates_are_counted_and_do_not_stop(source):
    others = np.flatnonzero(quadrants.quadrant_of(source.train, "black", "cat") == Quadrant.NEITHER)[:5]
    tests = np.flatnonzero(quadrants.quadrant_of(source.test, "black", "cat") == Quadrant.NEITHER)[:5]
    source.test.images[tests] = source.train.images[others]
    near = source.test.images[tests[3:]].astype(np.int16) + np.random.default_rng(3).integers(
        -2, 3, (2, 16, 16, 3)
    )
    source.test.images[tests[3:]] = np.clip(near, 0, 255)
    part = partition(source)
    pair = quadrants.split(part, "black", "cat")
    report = leakage.check_leakage(part, _readers(part, pair))["black", "cat"]
    assert report == leakage.LeakageReport(leaked=0, duplicates=3, near_duplicates=2)


PAIRS = [(attribute, name) for attribute in ("black", "red") for name in ("cat", "dog", "car")]
DIAGONAL = {("black", "cat"), ("red", "dog")}


def _fold(held_out=DIAGONAL, name="fold 1", pairs=PAIRS):
    return Fold(name, {pair: 0.0 if pair in held_out else 0.25 for pair in pairs})


def _zoos(part):
    """Two zoos for each pair, and what each reads: all but the pair's other concept."""
    served, read = {}, {}
    for attribute, name in PAIRS:
        zoos = (f"{attribute} without {name}", f"{name} without {attribute}")
        served[attribute, name] = zoos
        read[zoos[0]] = quadrants.zoo_groups(part, "attribute", attribute, [name]).read()
        read[zoos[1]] = quadrants.zoo_groups(part, "object", name, [attribute]).read()
    return served, read


@pytest.fixture
def clean(source):
    """A partition, and zoos that read no image of the fold's conjunctions."""
    part = partition(source)
    served, read = _zoos(part)
    pool = np.logical_and.reduce(
        [quadrants.quadrant_of(source.train, *pair) != Quadrant.CONJUNCTION for pair in DIAGONAL]
    )
    return part, served, {name: indices[pool[indices]] for name, indices in read.items()}


def test_a_fold_passes_where_no_zoo_reads_any_held_out_conjunction(clean):
    leakage.check_folds(clean[0], [_fold()], *clean[1:])


def test_leaving_out_the_own_pair_is_not_enough_for_a_fold(source):
    part = partition(source)
    served, read = _zoos(part)  # as for networks of one pair: "not a cat" holds red dogs
    with pytest.raises(LeakageError):
        leakage.check_folds(part, [_fold()], served, read)


def test_zoos_that_leave_out_every_held_out_object_pass(source):
    part = partition(source)
    pairs = [pair for pair in PAIRS if pair[1] != "car"]
    read = {
        name: quadrants.zoo_groups(part, "attribute", name, ["cat", "dog"]).read()
        for name in ("black", "red")
    }
    leakage.check_folds(part, [_fold(pairs=pairs)], {pair: pair[:1] for pair in pairs}, read)


@pytest.mark.parametrize("reader", ["learnt", "held out"])
@pytest.mark.parametrize("held_out", sorted(DIAGONAL))
@pytest.mark.parametrize("count", [1, 3])
def test_a_fold_that_leaks_names_itself_the_zoo_the_pair_and_the_number(clean, reader, held_out, count):
    part, served, read = clean
    name = served["black", "dog" if reader == "learnt" else "cat"][0]
    found = np.flatnonzero(quadrants.quadrant_of(part.source.train, *held_out) == Quadrant.CONJUNCTION)
    read[name] = np.append(read[name], found[:count])
    with pytest.raises(LeakageError) as error:
        leakage.check_folds(part, [_fold(DIAGONAL - {held_out}, "fold 0"), _fold()], served, read)
    for fact in ("fold 1", name, repr(" ".join(held_out)), f" {count} image(s)"):
        assert fact in str(error.value)


@pytest.mark.parametrize("from_test", [True, False])
def test_a_copy_of_a_held_out_conjunction_under_another_label_is_a_leak(source, from_test):
    images = source.test if from_test else source.train
    twin = np.flatnonzero(quadrants.quadrant_of(images, "red", "dog") == Quadrant.CONJUNCTION)[0]
    source.train.images[5] = images.images[twin]
    part = partition(Source("planted", _relabelled(source.train, 5, red=0, dog=0, car=1), source.test))
    read = {"zoo": np.array([4, 5, 5, 6])}
    served = dict.fromkeys(PAIRS, ("zoo",))
    labels = quadrants.quadrant_of(part.source.train, "red", "dog")[read["zoo"]]
    others = quadrants.quadrant_of(part.source.train, "black", "cat")[read["zoo"]]
    read["zoo"] = read["zoo"][((labels != 0) & (others != 0)) | (read["zoo"] == 5)]
    with pytest.raises(LeakageError, match=r"'red dog'.* 1 image\(s\) \('train/5'\)"):
        leakage.check_folds(part, [_fold({("red", "dog")})], served, read)


def test_a_zoo_that_serves_no_pair_of_a_fold_may_read_its_conjunctions(clean):
    part, served, read = clean
    everything = np.arange(len(part.train_hashes))
    pairs = [pair for pair in PAIRS if pair != ("red", "car")]
    served["red", "car"] = ("outsider",)
    leakage.check_folds(part, [_fold(pairs=pairs)], served, read | {"outsider": everything})
    with pytest.raises(LeakageError, match="outsider"):
        leakage.check_folds(part, [_fold()], served, read | {"outsider": everything})


def test_probes_count_as_readers(clean):
    part, served, read = clean
    served["black", "dog"] += ("probes of black dog",)
    read["probes of black dog"] = np.arange(len(part.train_hashes))
    with pytest.raises(LeakageError, match="probes of black dog"):
        leakage.check_folds(part, [_fold()], served, read)


def test_a_reader_that_is_not_accounted_for_does_not_pass(clean):
    part, served, read = clean
    with pytest.raises(KeyError, match="black"):
        leakage.check_folds(part, [_fold()], served, {})
    with pytest.raises(KeyError):
        leakage.check_folds(part, [_fold()], {}, read)


# Blocks: a group of attributes by a group of objects -------------------------------------------------------

BLOCK = [("black", "cat"), ("black", "dog"), ("red", "cat"), ("red", "dog")]


def _grouped_zoos(part):
    """A zoo of each concept without each group of two, and of the third alone, of the other kind."""
    sides = {"attribute": ("black", "red", "blue"), "object": ("cat", "dog", "car")}
    read = {}
    for kind, other in (("attribute", "object"), ("object", "attribute")):
        for concept in sides[kind]:
            for group in (sides[other][:2], sides[other][2:]):
                name = f"{concept} without {' '.join(group)}"
                read[name] = quadrants.zoo_groups(part, kind, concept, group).read()
    return read


@pytest.fixture
def three_by_three():
    """A source of three colours and three objects, each image with one colour and one object."""

    def labelled(images, seed):
        colour, thing = np.random.default_rng(seed).integers(0, 3, (2, len(images)))
        names = ("black", "red", "blue"), ("cat", "dog", "car")
        labels = [
            {name: (which == n).astype(np.int8) for n, name in enumerate(side)}
            for side, which in zip(names, (colour, thing), strict=True)
        ]
        return ImageSet(images.images, *labels, images.names, images.rest)

    train, test = noise_images(700, 0, "train"), noise_images(200, 1, "test")
    return partition(Source("noise", labelled(train, 2), labelled(test, 3)))


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_gate_takes_the_union_of_all_that_is_behind_a_block(three_by_three, spoilt):
    read = _grouped_zoos(three_by_three)
    behind = {name: indices for name, indices in read.items() if name.endswith((" cat dog", " black red"))}
    if spoilt:
        behind["blue without car"] = read["blue without car"]
        with pytest.raises(
            LeakageError, match=r"block 1 holds out '(black|red) (cat|dog)', but blue without car"
        ):
            leakage.check_behind(three_by_three, "block 1", BLOCK, behind)
        return
    found = leakage.check_behind(three_by_three, "block 1", BLOCK, behind, learnt=5)
    images = np.unique(np.concatenate(list(behind.values())))
    assert found == leakage.Behind("block 1", held_out=4, learnt=5, readers=6, images=len(images), leaked=0)


def test_what_is_behind_a_fold_is_counted_by_content(clean):
    part, served, read = clean
    (found,) = leakage.check_folds(part, [_fold()], served, read)
    names = {name for pair in PAIRS for name in served[pair]}
    images = np.unique(np.concatenate([read[name] for name in names]))
    assert (found.name, found.held_out, found.learnt) == ("fold 1", len(DIAGONAL), len(PAIRS) - len(DIAGONAL))
    assert (found.readers, found.leaked) == (len(names), 0)
    assert found.images == len({part.train_hashes[index] for index in images})


@pytest.mark.parametrize("weights", [(1, 1), (0, 0), (1, -1), (float("nan"), 0)])
def test_a_fold_learns_from_a_pair_and_holds_out_a_pair(weights):
    with pytest.raises(ValueError, match="fold 1"):
        Fold("fold 1", dict(zip(PAIRS, weights, strict=False)))


@pytest.fixture(scope="module")
def pictures():
    """Training and test images of which none is like another."""
    source = rendered.load(attributes=("black",), objects=("cat",), train=300, test=60)
    return source.train.images, source.test.images


def _noise(images, size):
    return np.random.default_rng(0).normal(0, size, images.shape)


CHANGES = {
    "shifted by a pixel": lambda images: np.concatenate([images[:, :, :1], images[:, :, :-1]], axis=2),
    "shifted down and to the left": lambda images: np.pad(
        images[:, :-1, 1:], ((0, 0), (1, 0), (0, 1), (0, 0)), mode="edge"
    ),
    "darker, with less contrast": lambda images: 0.8 * images + 15,
    "noise as of a JPEG": lambda images: images + _noise(images, 5),
    "all of these": lambda images: 0.8 * np.roll(images, 1, axis=1) + 15 + _noise(images, 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_near_duplicates_and_other_pictures_are_not(pictures, change):
    train, test = pictures
    planted = test.copy()
    copied = np.arange(0, 60, 3)
    planted[copied] = np.clip(np.rint(CHANGES[change](train[100 + copied].astype(float))), 0, 255)
    near = leakage.near_duplicates(planted, np.arange(60), train, np.arange(300))
    assert near[copied].mean() >= 0.9
    assert not np.delete(near, copied).any()


def test_near_duplicates_are_of_the_images_that_are_named(pictures, monkeypatch):
    train, _ = pictures
    flat = np.full_like(train[:1], 77)  # of one colour: like nothing
    images = np.concatenate([train[[5, 6, 290]], flat])
    for block in (4096, 7):
        monkeypatch.setattr(leakage, "_BLOCK", block)
        found = leakage.near_duplicates(
            images, np.array([3, 1, 2]), np.append(train, flat, 0), np.arange(290)
        )
        np.testing.assert_array_equal(found, [False, True, False])


@pytest.mark.parametrize("side", [8, 20, 28, 33])
@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_thumbnails_average_whatever_the_side(side, size, shift):
    weights = leakage._averaging(side, shift, size)
    assert weights.shape == (size, side)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    line = np.arange(side) ** 2.0
    moved = line[np.clip(np.arange(side) - shift, 0, side - 1)]
    np.testing.assert_allclose(weights @ line, leakage._averaging(side, 0, size) @ moved, rtol=1e-4)
    if size == 8 and side == 8:
        np.testing.assert_allclose(weights @ line, moved)


def test_many_pairs_take_little_time():
    rng = np.random.default_rng(5)
    train, test = noise_images(5000, 6, "train"), noise_images(1000, 7, "test")
    names = [f"o{number}" for number in range(20)]
    for images in (train, test):
        images.objects.update({name: rng.integers(0, 2, len(images)).astype(np.int8) for name in names})
    part = partition(Source("many", train, test))
    start = time.perf_counter()
    pairs = [quadrants.split(part, attribute, name) for attribute in ("black", "red") for name in names]
    leakage.check_leakage(part, [reader for pair in pairs for reader in _readers(part, pair)])
    assert time.perf_counter() - start < 10
