"""Tests for kernelgan.evaluation.calibration: one temperature a head, from seen validation images only."""

import dataclasses

import numpy as np
import pytest

from kernelgan.baselines import methods
from kernelgan.data.quadrants import Groups
from kernelgan.evaluation import calibration, features, measurement, scores

SEEN = (1, 2, 3)


def _answers(quadrant, sure, seed=0, networks=3):
    """Logits ``(M, N, 4)`` of heads whose log odds are right once divided by `sure`, for equal sides."""
    rng = np.random.default_rng(seed)
    heads = []
    for positive, factor in zip((1, 2), sure, strict=True):
        # Log odds of two unit Gaussians 1.5 apart are exact: 1.5 x.
        x = rng.normal(size=(networks, len(quadrant))) + 0.75 * np.where(quadrant == positive, 1, -1)
        half = factor * 1.5 * x / 2
        heads += [-half, half]
    return np.stack(heads, axis=-1).astype(np.float32)


@pytest.mark.parametrize("sure", [(1, 1), (5, 1), (0.2, 8)])
def test_temperatures_say_by_how_much_a_head_is_too_sure(sure):
    quadrant = np.repeat([1, 2, 3], [4000, 4000, 2000])
    found = calibration.temperatures(_answers(quadrant, sure), quadrant)
    np.testing.assert_allclose(found, np.broadcast_to(sure, (3, 2)), rtol=0.15)


def test_temperatures_have_the_least_cross_entropy_of_a_grid():
    quadrant = np.repeat([1, 2, 3], [50, 30, 40])
    logits = _answers(quadrant, (3, 0.5), seed=1)
    found = calibration.temperatures(logits, quadrant)
    for head, positive in enumerate((1, 2)):
        sign = np.where(quadrant == positive, 1, -1)
        difference = sign * (logits[..., 2 * head + 1] - logits[..., 2 * head]).astype(float)
        # Both sides of equal weight; the two quadrants of a side too.
        weight = np.where(sign > 0, 2, 1) / np.bincount(quadrant)[quadrant]

        def loss(temperature, difference=difference, weight=weight):
            return (weight * np.logaddexp(0, -difference / temperature)).sum(axis=1)

        best = loss(found[:, head, None])
        for temperature in np.geomspace(0.05, 20, 200):
            assert (best <= loss(temperature) + 1e-9).all()


@pytest.mark.parametrize(("sign", "expected"), [(-1, calibration.LIMIT), (1, 1 / calibration.LIMIT)])
def test_a_head_that_is_always_wrong_or_always_right_has_the_limit(sign, expected):
    quadrant = np.array([1, 2, 3])
    answers = np.where(quadrant[:, None] == [1, 2], sign, -sign)
    logits = np.stack([0 * quadrant, answers[:, 0], 0 * quadrant, answers[:, 1]], axis=-1)[None]
    np.testing.assert_allclose(calibration.temperatures(logits.astype(np.float32), quadrant), expected)


@pytest.mark.parametrize(("outputs", "quadrant"), [(2, [1, 2, 3]), (4, [0, 1, 2, 3]), (4, [1, 2, 2])])
def test_only_two_heads_and_the_three_seen_quadrants_will_do(outputs, quadrant):
    with pytest.raises(ValueError, match=f"{outputs}"):
        calibration.temperatures(np.zeros((1, len(quadrant), outputs), np.float32), np.array(quadrant))


def test_cooling_makes_a_head_that_shouts_count_like_the_other():
    rng = np.random.default_rng(2)
    quadrant = np.repeat(np.arange(4), 300)
    knows = np.stack([np.isin(quadrant, [0, 1]), np.isin(quadrant, [0, 2])], axis=-1)
    x = rng.normal(size=(2, 1200, 2)) + np.where(knows, 0.75, -0.75)
    x[..., 0] *= 30  # of the two equally good heads the first is too sure of itself
    logits = np.stack([-x[..., 0], x[..., 0], -x[..., 1], x[..., 1]], axis=-1).astype(np.float32)
    seen = quadrant > 0
    found = calibration.cooled(logits, calibration.temperatures(logits[:, seen], quadrant[seen]))
    before, after = (
        scores.auroc_by_quadrant(features.score(given)[0], quadrant)["worst"] for given in (logits, found)
    )
    assert (after > before + 0.05).all()


def _groups(validation, train=(0, 1, 2)):
    return Groups(
        SEEN,
        tuple(np.array([index], np.int32) for index in train),
        tuple(np.array(indices, np.int32) for indices in validation),
    )


def test_only_validation_images_of_seen_quadrants_are_read(images):
    seen = calibration.seen_validation(images, _groups([(10, 11), (20,), (30, 31, 32)]), seed=0)
    places = [np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0] for image in seen.images]
    assert sorted(zip(places, seen.quadrant.tolist(), strict=True)) == [
        (10, 1), (11, 1), (20, 2), (30, 3), (31, 3), (32, 3)
    ]  # fmt: skip
    assert calibration.seen_validation(images, _groups([(10,), (), (30,)]), seed=0) is None


@pytest.mark.parametrize(
    ("name", "both"), [("cyclegan_a2b", True), ("and_ensemble", True), ("attribute_only", False)]
)
def test_methods_with_both_heads_are_calibrated_alike_and_by_seen_images(name, both, make_context, images):
    context, settings = make_context(), measurement.Settings(bootstrap=10, chunk_size=2, seed=0)
    rows = methods.BASELINES | methods.generated_rows("cyclegan", ("a2b",), "W")
    spoilt = images.copy()
    kept = np.concatenate(context.seen.validation)
    unseen = np.setdiff1d(np.arange(len(images)), kept)
    spoilt[unseen] = 255 - spoilt[unseen]
    networks = rows[name].networks(context)
    found = [
        measurement.fitted_temperatures(
            networks, calibration.seen_validation(given, context.seen, 0), settings
        )
        for given in (images, spoilt)
    ]
    if not both:
        assert found == [None, None]
        return
    np.testing.assert_array_equal(*found)
    changed = dataclasses.replace(settings, chunk_size=8)
    whole = measurement.fitted_temperatures(
        networks, calibration.seen_validation(images, context.seen, 0), changed
    )
    np.testing.assert_allclose(found[0], whole, rtol=1e-4)
