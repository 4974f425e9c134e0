import dataclasses

import numpy as np
import pytest

from kernelgan import losses, population, stages, zoo
from kernelgan.data.quadrants import Groups
from kernelgan.types import Quadrant

IMAGES = 60
TRAINING = population.Training(
    epochs=1, images_per_epoch=20, batch_size=10, learning_rate=0.01, shares=(1.0,)
)


def _indices(*arguments):
    return np.arange(*arguments, dtype=np.int32)


def _task(kind="attribute", concept="black", excluded=("cat",), *, models=3, start=0):
    """Ten positives and twenty negatives; four and five to validate."""
    quadrants = (Quadrant.ATTRIBUTE_ONLY if kind == "attribute" else Quadrant.OBJECT_ONLY, Quadrant.NEITHER)
    train = (_indices(start, start + 10), _indices(start + 10, start + 30))
    validation = (_indices(start + 30, start + 34), _indices(start + 34, start + 39))
    return zoo.ZooTask(kind, concept, excluded, Groups(quadrants, train, validation), models)


def test_tasks_on_the_same_images_share_a_zoo_and_others_do_not():
    task = _task()
    others = [
        _task("object", "black"),
        _task(concept="red"),
        _task(models=4),
        _task(start=1),
    ]
    distinct, served = zoo.shared([task, others[0], _task(excluded=("dog",)), *others[1:], _task()])
    assert served == [0, 1, 0, 2, 3, 4, 0]
    assert distinct == [task, *others]


def test_sharing_hashes_the_images_of_each_task_once(monkeypatch):
    hashed = []
    key = Groups.key.fget
    monkeypatch.setattr(Groups, "key", property(lambda groups: hashed.append(groups) or key(groups)))
    tasks = [_task(concept=f"colour {number % 20}") for number in range(40)]
    distinct, served = zoo.shared(tasks)
    assert len(hashed) == len(tasks)
    assert served == [*range(20), *range(20)]
    assert distinct == tasks[:20]


def test_a_validation_set_of_its_own_is_a_zoo_of_its_own():
    task = _task()
    groups = dataclasses.replace(task.groups, validation=(_indices(40, 44), _indices(44, 48)))
    distinct, _ = zoo.shared([task, dataclasses.replace(task, groups=groups)])
    assert len(distinct) == 2


def test_names_tell_tasks_apart():
    assert _task().name == "attribute:black without cat"
    assert _task("object", "cat", ("black", "red")).name == "object:cat without black, red"
    assert _task("object", "cat").label == "the zoo of the object 'cat'"


def _build(tasks, *, balanced=True, validation_images=6, seed=0):
    return zoo.build_population(
        tasks, IMAGES, balanced=balanced, validation_images=validation_images, seed=seed
    )


def test_a_population_is_task_by_task_with_the_labels_of_each():
    tasks = [_task(), _task("object", "cat", models=2, start=20)]
    people = _build(tasks)
    assert len(people) == 5
    assert people.name == (tasks[0].name,) * 3 + (tasks[1].name,) * 2
    assert people.index.tolist() == [0, 1, 2, 0, 1]
    assert people.grouping.tolist() == people.target.tolist() == [0, 0, 0, 1, 1]
    for row, start in enumerate((0, 20)):
        positives = [*range(start, start + 10), *range(start + 30, start + 34)]
        np.testing.assert_array_equal(np.flatnonzero(people.targets[row]), positives)
    assert set(np.unique(people.targets)) == {0, zoo.POSITIVE}


def test_balanced_zoos_draw_from_two_groups_and_others_from_one():
    task = _task()
    (balanced,), (whole,) = _build([task]).groups, _build([task], balanced=False).groups
    assert [group.tolist() for group in balanced] == [group.tolist() for group in task.groups.train]
    assert [group.tolist() for group in whole] == [list(range(30))]


def test_validation_reads_as_many_of_each_kind_chosen_by_seed_and_name():
    big = dataclasses.replace(
        _task(), groups=dataclasses.replace(_task().groups, validation=(_indices(30, 45), _indices(45, 60)))
    )
    ((positives, negatives),) = _build([big]).validation
    assert len(set(positives.tolist())) == len(set(negatives.tolist())) == 3
    assert set(positives.tolist()) <= set(range(30, 45))
    assert set(negatives.tolist()) <= set(range(45, 60))

    def chosen(task, seed=0):
        return np.concatenate(_build([task], seed=seed).validation[0]).tolist()

    assert chosen(big) == chosen(big)
    assert chosen(big) != chosen(big, seed=1)
    assert chosen(big) != chosen(dataclasses.replace(big, concept="red"))


def test_validation_is_everything_where_there_is_little():
    ((positives, negatives),) = _build([_task()], validation_images=500).validation
    assert sorted(positives.tolist()) == list(range(30, 34))
    assert sorted(negatives.tolist()) == list(range(34, 39))


@pytest.mark.parametrize(
    ("given", "fitting"),
    [((30, 30), (30, 30)), ((31, 8), (30, 8)), ((1280, 128), (30, 30)), ((30, 8), (30, 8))],
)
def test_an_epoch_and_a_batch_have_at_most_all_images_and_a_note_says_so(given, fitting):
    training = dataclasses.replace(TRAINING, images_per_epoch=given[0], batch_size=given[1])
    found = zoo.capped(_task().groups, training)
    assert (found.images_per_epoch, found.batch_size) == fitting
    note = zoo.cap_note(_task(), training)
    if given == fitting:
        assert (found, note) == (training, "")
    else:
        assert "the zoo of the attribute 'black' has 30 training images" in note
        assert f"images_per_epoch is 30 instead of {given[0]}" in note
        assert ("batch_size" in note) == (given[1] > 30)


@pytest.mark.parametrize(("balanced", "shares"), [(True, (1.0, 1.0)), (False, (1.0,))])
def test_each_task_gets_its_own_networks_back(monkeypatch, network, balanced, shares):
    tasks = [_task(), _task("object", "cat", models=2)]
    given = {}

    def train(module, images, people, training, **options):
        given.update(people=people, training=training, **options)
        numbers = np.arange(len(people))
        return {"conv1": {"bias": numbers}}, {"train_loss": 10 * numbers[:, None]}

    monkeypatch.setattr(zoo, "train", train)
    first, second = zoo.train_zoos(
        network,
        np.zeros((IMAGES, 16, 16, 3), np.uint8),
        tasks,
        TRAINING,
        balanced=balanced,
        validation_images=4,
        seed=5,
        chunk_size=2,
        saver=None,
        progress=None,
    )
    assert first["params"]["conv1"]["bias"].tolist() == [0, 1, 2]
    assert second["params"]["conv1"]["bias"].tolist() == [3, 4]
    assert second["history"]["train_loss"].tolist() == [[30], [40]]
    assert given["training"] == dataclasses.replace(TRAINING, shares=shares)
    assert len(given["people"].groups[0]) == len(shares)
    assert (given["seed"], given["chunk_size"]) == (5, 2)
    assert given["loss"] is losses.cross_entropy
    assert given["metrics"] is population.binary_metrics


def test_zoos_that_know_their_concepts_in_part_are_named_and_those_trained_elsewhere_are_not_judged():
    tasks = [_task(), _task("object", "cat"), _task("object", "dog"), _task("object", "car")]
    histories = [
        {"validation_auroc": np.array([[0.5, 0.91]] * 3), "validation_loss": np.array([[0.6, 0.3]] * 3)},
        {
            "validation_auroc": np.array([[0.9, 0.6], [0.9, 0.65], [0.9, 0.95]]),
            "validation_loss": np.ones((3, 2)),
        },
        {},
        {"validation_auroc": np.array([[0.7, 0.8]] * 3), "validation_loss": np.array([[0.5, 0.65]] * 3)},
    ]
    said = stages.weaknesses(tasks, [{"history": of} for of in histories])
    assert said.index("'cat' 0.65,") < said.index("'car' 0.80 (loss there rose from 0.50 to 0.65")
    assert "'black'" not in said
    assert "'dog'" not in said
    assert stages.weaknesses(tasks[:1], [{"history": histories[0]}]) == ""
