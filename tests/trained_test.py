import dataclasses

import jax
import numpy as np
import pytest

from kernelgan import losses, models, population
from kernelgan.baselines import trained
from kernelgan.data.quadrants import Groups
from kernelgan.types import Quadrant

AT_REST = population.Training(epochs=1, images_per_epoch=24, batch_size=24, learning_rate=0.0, shares=(1.0,))


def _indices(*arguments):
    return np.arange(*arguments, dtype=np.int32)


def _seen(start):
    """Three quadrants of 8 images, and 4 of each to validate."""
    return Groups(
        (Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY, Quadrant.NEITHER),
        tuple(_indices(start + 8 * g, start + 8 * g + 8) for g in range(3)),
        tuple(_indices(48 + 4 * g, 52 + 4 * g) for g in range(3)),
    )


def _all(start):
    """The same with a conjunction, which is never validated on."""
    seen = _seen(start)
    return Groups(
        (Quadrant.CONJUNCTION, *seen.quadrants),
        (_indices(start + 24, start + 30), *seen.train),
        (_indices(0), *seen.validation),
    )


@pytest.fixture(scope="module")
def zoos(make_parents):
    """For two pairs, two attribute networks and one object network; loud ones, so that answers vary."""

    def loud(*arguments):
        return jax.tree.map(lambda leaf: 4 * leaf, make_parents(*arguments))

    return [(loud(2, 1), loud(1, 2)), (loud(2, 3), loud(1, 4))]


@pytest.fixture(scope="module")
def distil(network, images, silent, new_saver, zoos):
    def train(training):
        lessons = [trained.Lesson(f"pair {n}", _seen(24 * n), zoos[n]) for n in range(2)]
        return trained.train_distilled(
            network,
            images,
            lessons,
            training,
            count=2,
            validation_images=12,
            seed=0,
            chunk_size=4,
            saver=new_saver(),
            progress=silent,
        )

    return train


def _logits(network, stacked, member, images):
    params = jax.tree.map(lambda leaf: leaf[member], stacked)
    module = network.clone(outputs=params["dense"]["bias"].shape[-1])
    return np.asarray(jax.jit(module.apply)({"params": params}, models.normalise_images(images))[0])


def test_students_are_compared_with_both_parents_logits(distil, network, images, zoos):
    """By a rate of 0, the loss is that of the initial students; student i has parents i, counted round."""
    for n, (params, history) in enumerate(distil(AT_REST)):
        for i in range(2):
            for name, which in (
                ("train_loss", _indices(24 * n, 24 * n + 24)),
                ("validation_loss", _indices(48, 60)),
            ):
                attribute = _logits(network, zoos[n][0], i, images[which])
                objects = _logits(network, zoos[n][1], 0, images[which])
                student = _logits(network, params, i, images[which])
                error = np.mean((student - np.concatenate([attribute, objects], axis=-1)) ** 2)
                assert history[name][i, 0] == pytest.approx(float(error), rel=1e-4)


def test_a_student_approaches_its_teachers(distil, network, images, zoos):
    training = dataclasses.replace(AT_REST, epochs=300, learning_rate=0.02)
    for n, (params, history) in enumerate(distil(training)):
        assert history["train_loss"].shape == (2, 300)
        which = _indices(24 * n, 24 * n + 24)
        teachers = np.concatenate([_logits(network, zoo, 0, images[which]) for zoo in zoos[n]], axis=-1)
        error = np.mean((_logits(network, params, 0, images[which]) - teachers) ** 2)
        assert error < 0.5 * np.mean(np.var(teachers, axis=0))  # more than half of what there is to know
        assert (history["train_loss"][:, -1] < 0.1 * history["train_loss"][:, 0]).all()


@pytest.fixture
def captured(monkeypatch):
    """What `population.train` would be given; its networks are their own numbers."""
    given = {}

    def train(network, images, people, training, **options):
        given.update(network=network, people=people, training=training, **options)
        return {"conv1": {"bias": np.arange(len(people))}}, {"train_loss": np.zeros((len(people), 1))}

    monkeypatch.setattr(trained, "train", train)
    return given


def test_the_reference_learns_the_conjunction_alone_from_all_four_quadrants(captured, network, images):
    lessons = [trained.Lesson(f"pair {n}", _all(24 * n)) for n in range(2)]
    found = trained.train_on_conjunction(
        network, images, lessons, AT_REST, count=3, seed=0, chunk_size=4, saver=None, progress=None
    )
    people = captured["people"]
    for n in range(2):
        conjunction = range(24 * n + 24, 24 * n + 30)
        np.testing.assert_array_equal(np.flatnonzero(people.targets[n]), conjunction)
        assert [len(group) for group in people.groups[n]] == [6, 8, 8, 8]
        assert not sum(len(group) for group in people.validation[n])
    assert people.target.tolist() == people.grouping.tolist() == [0, 0, 0, 1, 1, 1]
    assert people.index.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(set(people.name)) == 2
    assert captured["loss"] is losses.cross_entropy
    assert captured["network"].outputs == 2
    assert [params["conv1"]["bias"].tolist() for params, _ in found] == [[0, 1, 2], [3, 4, 5]]
    pattern = population.batch_pattern(captured["training"].shares, 24)
    assert np.bincount(pattern).tolist() == [12, 4, 4, 4]  # half of a batch is the conjunction


def test_a_student_sees_each_quadrant_as_often(captured, network, images, zoos):
    trained.train_distilled(
        network, images, [trained.Lesson("pair", _seen(0), zoos[0])], AT_REST,
        count=2, validation_images=6, seed=0, chunk_size=4, saver=None, progress=None,
    )  # fmt: skip
    assert np.bincount(population.batch_pattern(captured["training"].shares, 24)).tolist() == [8, 8, 8]
    assert [len(group) for group in captured["people"].validation[0]] == [2, 2, 2]
    assert captured["network"].outputs == 4
    never = np.setdiff1d(np.arange(64), _seen(0).read())
    assert not captured["people"].targets[:, never].any()
