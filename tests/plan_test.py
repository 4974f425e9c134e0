"""Tests for kernelgan.plan: which zoos serve which pairs, who reads what, and what does not fit."""

import dataclasses

import numpy as np
import pytest

from configs import tiny
from kernelgan import plan as plan_lib
from kernelgan import splits
from kernelgan.data.images import ImageSet, Source
from kernelgan.data.leakage import LeakageError
from kernelgan.types import Quadrant, UserError


def _images(count, seed, prefix):
    """Noise; each image has one of three colours and one of three objects."""
    rng = np.random.default_rng(seed)
    colour, thing = rng.integers(0, 3, (2, count))
    return ImageSet(
        images=rng.integers(0, 256, (count, 8, 8, 3), np.uint8),
        attributes={name: (colour == n).astype(np.int8) for n, name in enumerate(("black", "red", "blue"))},
        objects={name: (thing == n).astype(np.int8) for n, name in enumerate(("cat", "car", "dog"))},
        names=tuple(f"{prefix}/{index}" for index in range(count)),
        rest=np.zeros(count, bool),
    )


@pytest.fixture
def source():
    return Source("noise", _images(900, 0, "train"), _images(200, 1, "test"))


def _config(**fields):
    config = tiny.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def _matrix(**fields):
    return _config(pairs__attributes=("black", "red"), pairs__objects=("cat", "car"), **fields)


def _without(source, keep):
    """The source with the training images of a mask only."""
    train = source.train
    kept = ImageSet(
        train.images[keep],
        {name: labels[keep] for name, labels in train.attributes.items()},
        {name: labels[keep] for name, labels in train.objects.items()},
        tuple(np.array(train.names)[keep]),
        train.rest[keep],
    )
    return dataclasses.replace(source, train=kept)


def test_one_pair_has_two_zoos(source):
    plan = plan_lib.make_plan(_config(), source)
    (pair,) = plan.pairs
    attribute, objects = plan.zoos[pair.attribute_zoo], plan.zoos[pair.object_zoo]
    assert (attribute.kind, attribute.concept, attribute.excluded) == ("attribute", "black", ("cat",))
    assert (objects.kind, objects.concept, objects.excluded) == ("object", "cat", ("black",))
    assert attribute.groups.quadrants == (Quadrant.ATTRIBUTE_ONLY, Quadrant.NEITHER)
    assert objects.groups.quadrants == (Quadrant.OBJECT_ONLY, Quadrant.NEITHER)
    assert pair.has_reference
    assert pair.leakage.leaked == 0


def test_zoos_never_read_what_they_exclude(source):
    for exclude in ("own", "groups", "all"):
        for task in plan_lib.make_plan(_matrix(pairs__exclude=exclude), source).zoos:
            others = source.train.objects if task.kind == "attribute" else source.train.attributes
            for name in task.excluded:
                assert not others[name][task.groups.read()].any()


def test_pairs_of_a_matrix_share_zoos_that_exclude_all(source):
    plan = plan_lib.make_plan(_matrix(pairs__exclude="all"), source)
    assert len(plan.zoos) == 4
    names = [pair.split.name for pair in plan.pairs]
    assert names == ["black cat", "black car", "red cat", "red car"]
    served = [(plan.zoos[p.attribute_zoo].concept, plan.zoos[p.object_zoo].concept) for p in plan.pairs]
    assert [" ".join(pair) for pair in served] == names
    assert all(len(task.excluded) == 2 for task in plan.zoos)


def test_pairs_of_a_matrix_have_zoos_of_their_own(source):
    plan = plan_lib.make_plan(_matrix(pairs__exclude="own"), source)
    assert len(plan.zoos) == 8
    for pair in plan.pairs:
        attribute, objects = plan.zoos[pair.attribute_zoo], plan.zoos[pair.object_zoo]
        assert (attribute.concept, attribute.excluded) == (pair.split.attribute, (pair.split.object_name,))
        assert (objects.concept, objects.excluded) == (pair.split.object_name, (pair.split.attribute,))


def test_groups_of_two_share_a_zoo_that_excludes_both(source):
    three = {"pairs__attributes": ("black", "red", "blue"), "pairs__objects": ("cat", "car", "dog")}
    plan = plan_lib.make_plan(_config(pairs__exclude="groups", pairs__group=2, **three), source)
    assert len(plan.pairs) == 9
    assert len(plan.zoos) == 12  # each of six concepts: without two others, and without the third
    for pair in plan.pairs:
        attribute, objects = plan.zoos[pair.attribute_zoo], plan.zoos[pair.object_zoo]
        assert attribute.excluded == (("dog",) if pair.split.object_name == "dog" else ("cat", "car"))
        assert objects.excluded == (("blue",) if pair.split.attribute == "blue" else ("black", "red"))


def _with_rare(source):
    """The source with hardly a red car in its test images."""
    red_cars = np.flatnonzero((source.test.attributes["red"] == 1) & (source.test.objects["car"] == 1))
    source.test.objects["car"][red_cars[2:]] = -1
    return source


def test_a_rare_pair_is_refused_or_left_out_and_named(source):
    source = _with_rare(source)
    with pytest.raises(UserError, match=r"'red car' has too few test images of 'red car': found 2"):
        plan_lib.make_plan(_matrix(), source)
    plan = plan_lib.make_plan(_matrix(pairs__skip_rare=True), source)
    assert [pair.split.name for pair in plan.pairs] == ["black cat", "black car", "red cat"]
    assert [pair.number for pair in plan.pairs] == [0, 1, 2]
    assert plan.skipped == (("red", "car", "2 test images of 'red car', needed 4"),)
    assert plan.words()[-1] == "left out for too few images: red car; the report lists them"
    # What a rare pair would have excluded is not excluded for its sake.
    grouped = plan_lib.make_plan(_matrix(pairs__skip_rare=True, pairs__exclude="all"), source)
    assert {task.excluded for task in grouped.zoos if task.concept == "red"} == {("cat",)}


def test_where_every_pair_is_rare_the_run_is_refused(source):
    with pytest.raises(UserError, match=r"every pair has too few images; black cat: \d+ test images"):
        plan_lib.make_plan(_matrix(pairs__skip_rare=True, data__minimum_test=150), source)


def test_many_pairs_are_counted_not_listed(source):
    plan = plan_lib.make_plan(_matrix(), source)
    assert len(plan.words()) == 4
    assert plan.words()[0].startswith("black cat, test images: ")
    many = dataclasses.replace(plan, pairs=plan.pairs * 3)
    assert many.words()[0].startswith("12 pairs and 8 zoos; fewest test images of a conjunction: ")


def test_zoos_have_the_sizes_and_epochs_of_their_kind(source):
    config = _config(zoo__object_models=7, zoo__object_images_per_epoch=50)
    sizes = {task.kind: task.models for task in plan_lib.make_plan(config, source).zoos}
    assert sizes == {"attribute": 4, "object": 7}
    assert plan_lib.zoo_training(config, "attribute").images_per_epoch == 64
    assert plan_lib.zoo_training(config, "object").images_per_epoch == 50
    assert plan_lib.zoo_training(_config(), "object") == plan_lib.zoo_training(_config(), "attribute")


def test_without_conjunctions_to_learn_from_there_is_no_reference(source):
    both = (source.train.attributes["black"] == 1) & (source.train.objects["cat"] == 1)
    (pair,) = plan_lib.make_plan(_config(), _without(source, ~both)).pairs
    assert not pair.has_reference
    assert not (pair.split.train == Quadrant.CONJUNCTION).any()


def test_the_digest_does_not_depend_on_the_seed_or_the_size_of_a_chunk(source):
    digest = plan_lib.make_plan(_config(), source).digest
    assert plan_lib.make_plan(_config(seed=3, zoo__chunk_size=7), source).digest == digest


@pytest.mark.parametrize(
    ("concept", "other", "reader"),
    [
        ("attributes", "objects", "the zoo of the attribute 'black'"),
        ("objects", "attributes", "the zoo of the object 'cat'"),
    ],
)
def test_a_copy_of_a_conjunction_is_refused_by_name(source, concept, other, reader):
    def has(images, kind):
        return getattr(images, kind)["black" if kind == "attributes" else "cat"]

    conjunction = np.flatnonzero(has(source.test, "attributes") & has(source.test, "objects"))[0]
    alone = np.flatnonzero((has(source.train, concept) == 1) & (has(source.train, other) == 0))[0]
    source.train.images[alone] = source.test.images[conjunction]
    with pytest.raises(LeakageError) as error:
        plan_lib.make_plan(_config(), source)
    assert str(error.value).startswith(f"T{reader[1:]} would read 1 image(s)")
    assert f"'train/{alone}'" in str(error.value)
    assert "'black cat'" in str(error.value)


def test_a_copy_of_a_test_conjunction_in_the_reference_is_refused(source):
    learnt = np.flatnonzero(
        plan_lib.make_plan(_config(), source).pairs[0].split.train == Quadrant.CONJUNCTION
    )[0]
    twin = np.flatnonzero((source.test.attributes["black"] == 1) & (source.test.objects["cat"] == 1))[0]
    source.test.images[twin] = source.train.images[learnt]
    with pytest.raises(
        LeakageError, match=rf"^The reference of black cat would read 1 image.*'train/{learnt}'"
    ):
        plan_lib.make_plan(_config(), source)


def test_a_leak_into_a_shared_zoo_is_refused_for_any_pair_that_it_serves(source):
    train, test = source.train, source.test
    twin = np.flatnonzero((test.attributes["black"] == 1) & (test.objects["car"] == 1))[0]
    index = np.flatnonzero((train.attributes["black"] == 1) & (train.objects["dog"] == 1))[0]
    train.images[index] = test.images[twin]
    with pytest.raises(LeakageError, match="'black car'"):
        plan_lib.make_plan(_matrix(pairs__exclude="all"), source)


@pytest.mark.parametrize(
    ("field", "kinds"),
    [("zoo__images_per_epoch", {"attribute", "object"}), ("zoo__object_images_per_epoch", {"object"})],
)
def test_epochs_of_more_images_than_there_are_are_capped_and_noted(source, field, kinds):
    plan = plan_lib.make_plan(_config(**{field: 800}), source)
    notes = [note for note in plan.source.notes if "instead of 800" in note]
    assert {task.kind for task in plan.zoos if any(task.label in note for note in notes)} == kinds


# Folds and what is behind networks ------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    made = splits.make(("black", "red"), ("cat", "car"), seed=0, sealed=1, seen=(("black", "car"),))
    return splits.write(tmp_path / "splits.json", made)


def test_pairs_are_of_the_folds_that_are_asked_for(source, file):
    everything = plan_lib.make_plan(_matrix(pairs__splits=str(file)), source)
    assert {pair.split.name: (pair.fold, pair.sealed) for pair in everything.pairs} == {
        "black cat": (2, True),
        "black car": (1, False),
        "red cat": (1, False),
        "red car": (2, True),
    }
    assert everything.splits == splits.read(file).sha256
    for use, names in (("development", ["black car", "red cat"]), ("sealed", ["black cat", "red car"])):
        plan = plan_lib.make_plan(_matrix(pairs__splits=str(file), pairs__folds=use), source)
        assert [pair.split.name for pair in plan.pairs] == names
        with pytest.raises(UserError, match="joint"):
            plan.folds("mine")  # of one fold


def test_a_joint_generators_folds_are_those_of_the_file(source, file):
    plan = plan_lib.make_plan(_matrix(pairs__exclude="all", pairs__splits=str(file)), source)
    folds = plan.folds("mine")
    assert [fold.name for fold in folds] == ["fold 1", "fold 2"]
    assert set(folds[0].held_out) == {("black", "car"), ("red", "cat")}
    found = plan.behind(folds, probes=False)
    assert [each.name for each in found] == [f"fold {pair.fold}" for pair in plan.pairs]
    assert {(each.held_out, each.learnt, each.readers, each.leaked) for each in found} == {(2, 2, 4, 0)}


@pytest.mark.parametrize("probes", [False, True])
def test_behind_networks_of_one_pair_are_its_parents_and_probes(source, probes):
    plan = plan_lib.make_plan(_matrix(pairs__exclude="own"), source)
    found = plan.behind((), probes=probes)
    assert [each.name for each in found] == [pair.split.name for pair in plan.pairs]
    for pair, each in zip(plan.pairs, found, strict=True):
        zoos = [plan.zoos[number].groups.read() for number in (pair.attribute_zoo, pair.object_zoo)]
        assert (each.held_out, each.learnt, each.readers) == (1, 0, 3 if probes else 2)
        assert each.images >= len(np.unique(np.concatenate(zoos)))
