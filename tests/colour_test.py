"""Tests for kernelgan.data.colour."""

import colorsys

import numpy as np
import pytest

from kernelgan.data import colour


@pytest.mark.parametrize(
    ("rgb", "term"),
    [
        ((0, 0, 0), "black"),
        ((30, 20, 25), "black"),
        ((60, 20, 10), "black"),
        ((70, 70, 72), "black"),
        ((255, 255, 255), "white"),
        ((225, 220, 215), "white"),
        ((128, 128, 128), "grey"),
        ((200, 20, 20), "red"),
        ((200, 20, 60), "red"),
        ((250, 140, 20), "orange"),
        ((110, 70, 40), "brown"),
        ((240, 220, 40), "yellow"),
        ((40, 160, 60), "green"),
        ((30, 90, 200), "blue"),
        ((130, 40, 180), "purple"),
    ],
)
def test_pixels_have_the_colour_that_people_name(rgb, term):
    assert colour.TERMS[colour.terms(np.array(rgb, np.uint8))] == term


def test_hue_saturation_value_are_those_of_the_standard_library():
    pixels = np.random.default_rng(0).integers(0, 256, (500, 3), np.uint8)
    pixels[0] = 0
    pixels[1] = 255
    hue, saturation, value = colour._hsv(pixels)
    expected = np.array([colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels])
    np.testing.assert_allclose(hue / 360, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(saturation, expected[:, 1], atol=1e-5)
    np.testing.assert_allclose(value, expected[:, 2], atol=1e-5)


def test_coverage_is_of_the_central_region_and_adds_up_to_one():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :2] = 255  # all but the central 4x4 may be anything
    images[1, 2:6, 2:4] = (220, 20, 20)  # half of the central region
    shares = colour.coverage(images)
    np.testing.assert_allclose(shares["black"], [1, 0.5])
    np.testing.assert_allclose(shares["red"], [0, 0.5])
    np.testing.assert_allclose(sum(shares.values()), 1, rtol=1e-6)
    assert all(share.dtype == np.float32 for share in shares.values())


def test_coverage_does_not_depend_on_the_chunk(monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (11, 8, 8, 3), np.uint8)
    whole = colour.coverage(images)
    monkeypatch.setattr(colour, "CHUNK", 4)
    for name, share in colour.coverage(images).items():
        np.testing.assert_array_equal(share, whole[name])


def test_holds_leaves_out_what_is_between_the_thresholds():
    images = np.zeros((4, 20, 20, 3), np.uint8)  # central 10x10: each row of it is a tenth
    for image, rows in zip(images, (0, 1, 3, 5), strict=True):
        image[5 : 5 + rows] = (40, 80, 220)
    assert colour.holds(images)["blue"].tolist() == [0, 0, -1, 1]
    assert colour.holds(images)["black"].tolist() == [1, 1, 1, 1]
    assert colour.holds(images)["blue"].dtype == np.int8


def test_one_pixel_images_have_a_colour():
    assert colour.holds(np.full((1, 1, 1, 3), 255, np.uint8))["white"].tolist() == [1]
