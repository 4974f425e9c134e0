"""Tests for kernelgan.baselines.readouts: the linear readouts that stand for "no network at all"."""

import warnings

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from kernelgan import assemble
from kernelgan.baselines import readouts
from kernelgan.data.quadrants import Groups
from kernelgan.evaluation.features import score
from kernelgan.types import Quadrant

STRENGTHS = readouts.STRENGTHS
BOTH = [readouts.pixels, readouts.colour_histogram]
QUADRANT = np.tile(np.arange(4), 100)


def _scenes(quadrant, seed=0):
    """16 x 16: the attribute is red above, not blue; the object an upright bar below, not a lying one."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (len(quadrant), 16, 16, 3), np.uint8)
    for image, number in zip(images, quadrant, strict=True):
        image[:8, :, 0 if number in (Quadrant.CONJUNCTION, Quadrant.ATTRIBUTE_ONLY) else 2] += 150
        below, start = image[8:], rng.integers(2, 6)
        if number in (Quadrant.CONJUNCTION, Quadrant.OBJECT_ONLY):
            below[:, 2 * start : 2 * start + 4] += 150
        else:
            below[start : start + 2] += 150  # as many pixels
    return images


def _groups(positive, train=200):
    """A parent's groups among images of `QUADRANT`: trained on the first, validated on the rest."""
    found = [np.flatnonzero(number == QUADRANT).astype(np.int32) for number in (positive, Quadrant.NEITHER)]
    return Groups(
        (positive, Quadrant.NEITHER),
        tuple(indices[indices < train] for indices in found),
        tuple(indices[indices >= train] for indices in found),
    )


def _fit(describe, images, positive=Quadrant.ATTRIBUTE_ONLY, **changed):
    return readouts.fit(describe, images, _groups(positive), **{"most": 50, "seed": 0, **changed})


def _logits(describe, dense, images):
    """Of stacked dense layers, ``(M, N, K)``."""
    ((members, found, features),) = readouts.Readouts(describe, {"dense": dense}).outputs(
        images, chunk_size=1
    )
    assert len(members) == len(found) == len(features)
    return found


def _stacked(dense):
    return {name: leaf[None] for name, leaf in dense.items()}


def _difference(describe, dense, images):
    no, yes = _logits(describe, _stacked(dense), images)[0].T
    return yes - no


def _auroc(describe, dense, images, positive=Quadrant.ATTRIBUTE_ONLY):
    judged = np.isin(QUADRANT, (positive, Quadrant.NEITHER))
    return roc_auc_score(QUADRANT[judged] == positive, _difference(describe, dense, images)[judged])


@pytest.fixture(scope="module")
def images():
    return _scenes(QUADRANT)


@pytest.fixture(scope="module")
def unseen():
    return _scenes(QUADRANT, seed=1)


def test_pixels_are_means_of_cells():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3), np.uint8)
    found = readouts.pixels(images).reshape(3, 16, 16, 3)
    np.testing.assert_allclose(found[1, 2, 5, 1], images[1, 8:12, 10:12, 1].mean() / 127.5 - 1, rtol=1e-5)
    assert found.dtype == np.float32
    ends = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (0, 255)])
    np.testing.assert_array_equal(readouts.pixels(ends), [[-1] * 768, [1] * 768])


def test_pixels_of_sides_that_do_not_divide_use_every_pixel_once():
    whole = readouts.pixels(np.full((1, 19, 27, 3), 51, np.uint8))
    np.testing.assert_allclose(whole, np.full((1, 768), 51 / 127.5 - 1), rtol=1e-5)
    for row in range(19):
        image = np.zeros((1, 19, 27, 3), np.uint8)
        image[0, row] = 255
        assert (readouts.pixels(image).reshape(16, 16, 3)[:, 0, 0] > -1).sum() == 1


def test_pixels_of_a_small_image_are_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 8, 3), np.uint8)
    np.testing.assert_allclose(readouts.pixels(image), image.reshape(1, -1) / 127.5 - 1, atol=1e-6)


def test_the_histogram_is_numpys_and_does_not_depend_on_the_block(images, monkeypatch):
    found = readouts.colour_histogram(images[:7])
    for image, row in zip(images[:7], found, strict=True):
        counts, _ = np.histogramdd(image.reshape(-1, 3), bins=readouts.LEVELS, range=[(0, 256)] * 3)
        np.testing.assert_allclose(row, np.sqrt(counts.ravel() / 256), rtol=1e-6)
    monkeypatch.setattr(readouts, "_PIXELS_AT_ONCE", 3 * 256)
    np.testing.assert_array_equal(readouts.colour_histogram(images[:7]), found)


def test_colours_are_in_the_histogram_and_shapes_only_in_the_pixels(images, unseen):
    colour = _fit(readouts.colour_histogram, images)
    assert _auroc(readouts.colour_histogram, colour, unseen) > 0.99
    shape = _fit(readouts.colour_histogram, images, Quadrant.OBJECT_ONLY)
    assert abs(_auroc(readouts.colour_histogram, shape, unseen, Quadrant.OBJECT_ONLY) - 0.5) < 0.1
    shape = _fit(readouts.pixels, images, Quadrant.OBJECT_ONLY)
    assert _auroc(readouts.pixels, shape, unseen, Quadrant.OBJECT_ONLY) > 0.99


def test_two_side_by_side_answer_as_a_network_with_two_concepts(images, unseen):
    concepts = [
        _fit(readouts.pixels, images, positive)
        for positive in (Quadrant.ATTRIBUTE_ONLY, Quadrant.OBJECT_ONLY)
    ]
    stacked = [_stacked(dense) for dense in concepts]
    found = _logits(readouts.pixels, assemble.two_concept_head(*stacked), unseen)
    assert found.shape == (1, len(unseen), 4)
    assert found.dtype == np.float32
    apart = [_logits(readouts.pixels, dense, unseen) for dense in stacked]
    np.testing.assert_allclose(found, np.concatenate(apart, axis=-1), rtol=1e-5, atol=1e-5)
    scores, _ = score(found)
    assert roc_auc_score(QUADRANT == Quadrant.CONJUNCTION, scores[0]) > 0.95  # it never saw one


@pytest.mark.parametrize("describe", BOTH)
def test_folded_weights_are_scikit_learns_decision(describe, images, unseen, monkeypatch):
    monkeypatch.setattr(readouts, "STRENGTHS", (0.01,))
    groups = _groups(Quadrant.ATTRIBUTE_ONLY)
    lopsided = Groups(groups.quadrants, (groups.train[0][:20], groups.train[1]), groups.validation)
    dense = readouts.fit(describe, images, lopsided, most=50, seed=0)
    reference = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=0.01, class_weight="balanced", tol=1e-3, max_iter=200),
    )
    train = np.concatenate(lopsided.train)
    reference.fit(describe(images[train]).astype(np.float64), np.repeat([1, 0], [20, 50]))
    expected = reference.decision_function(describe(unseen))
    np.testing.assert_allclose(_difference(describe, dense, unseen), expected, atol=2e-3 * expected.std())


def test_the_penalty_is_chosen_on_validation_images(images, monkeypatch):
    """Two training labels in five are wrong: the loosest fit learns them by heart, the strictest nothing."""
    (positives, negatives), validation = (
        _groups(Quadrant.ATTRIBUTE_ONLY).train,
        _groups(Quadrant.ATTRIBUTE_ONLY).validation,
    )
    wrong = (np.append(positives[:30], negatives[:20]), np.append(negatives[20:], positives[30:]))
    groups = Groups((Quadrant.ATTRIBUTE_ONLY, Quadrant.NEITHER), wrong, validation)
    judged = np.concatenate(validation)
    is_positive = QUADRANT[judged] == Quadrant.ATTRIBUTE_ONLY  # as many positives as negatives
    layers, found = [], []
    for count in range(1, 6):
        monkeypatch.setattr(readouts, "STRENGTHS", STRENGTHS[:count])
        layers.append(readouts.fit(readouts.pixels, images, groups, most=50, seed=0))
        found.append(log_loss(is_positive, expit(_difference(readouts.pixels, layers[-1], images[judged]))))
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] + 0.01
    np.testing.assert_array_equal(layers[-2]["kernel"], layers[-1]["kernel"])  # the loosest is not taken


def test_validation_counts_both_sides_alike():
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0], [7, 90])
    difference = rng.normal(size=97).astype(np.float32)
    weights = compute_sample_weight("balanced", truth)
    expected = log_loss(truth, expit(difference.astype(np.float64)), sample_weight=weights)
    assert readouts._cross_entropy(difference, truth) == pytest.approx(expected, rel=1e-5)


def test_a_maximum_reads_so_many_of_each_side_chosen_by_the_seed(images):
    def read(seed):
        batches = []

        def describe(batch):
            batches.append(batch)
            return readouts.pixels(batch)

        _fit(describe, images, most=7, seed=seed)
        return batches

    first, again, other = read(0), read(0), read(1)
    assert [len(batch) for batch in first] == [14, 14]
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


@pytest.mark.parametrize("describe", BOTH)
def test_fits_are_repeatable_and_silent(describe, images, monkeypatch):
    expected = _fit(describe, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _fit(describe, images)
        monkeypatch.setattr(readouts, "_STEPS", 1)
        _fit(describe, images)
    for name, shape in (("kernel", (describe(images[:1]).shape[1], 2)), ("bias", (2,))):
        assert found[name].shape == shape
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_feature_that_never_varies_has_no_weight(images):
    def describe(batch):
        return np.pad(readouts.pixels(batch), ((0, 0), (0, 1)), constant_values=0.3)

    kernel = _fit(describe, images)["kernel"]
    np.testing.assert_array_equal(kernel[-1], [0, 0])
    np.testing.assert_allclose(kernel[:-1], _fit(readouts.pixels, images)["kernel"], atol=1e-6)


def test_a_side_without_an_image_is_refused(images):
    groups = _groups(Quadrant.ATTRIBUTE_ONLY)
    empty = Groups(groups.quadrants, groups.train, (groups.validation[0], groups.validation[1][:0]))
    with pytest.raises(ValueError, match=r"got \[5, 5\] training and \[5, 0\] validation images"):
        readouts.fit(readouts.pixels, images, empty, most=5, seed=0)
