"""Tests for kernelgan.data.photographs: formats, modes, orientations, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from kernelgan.data import photographs


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "gif", "bmp", "tiff", "avif"])
def test_formats_decode(tmp_path, extension):
    Image.new("RGB", (30, 20), (200, 100, 50)).save(tmp_path / f"a.{extension}")
    image = photographs.read_image(tmp_path / f"a.{extension}", 8)
    assert image.shape == (8, 8, 3)
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), (200, 100, 50), atol=12)


@pytest.mark.parametrize(
    ("mode", "colour", "extension", "expected"),
    [
        ("RGBA", (10, 200, 30, 255), "png", (10, 200, 30)),
        ("RGBA", (10, 200, 30, 128), "png", (132, 227, 142)),
        ("RGBA", (0, 0, 0, 0), "webp", (255, 255, 255)),
        ("LA", (90, 0), "png", (255, 255, 255)),
        ("L", 90, "jpg", (90, 90, 90)),
        ("1", 1, "png", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "jpg", (255, 0, 0)),
        ("I;16", 128 * 257, "png", (128, 128, 128)),
        ("I;16B", 128 * 257, "tiff", (128, 128, 128)),
        ("F", 0.5, "tiff", (128, 128, 128)),
        ("F", 1.0, "tiff", (255, 255, 255)),
    ],
)
def test_modes_decode(tmp_path, mode, colour, extension, expected):
    Image.new(mode, (16, 16), colour).save(tmp_path / f"a.{extension}")
    image = photographs.read_image(tmp_path / f"a.{extension}", 8)
    np.testing.assert_allclose(image, np.broadcast_to(expected, (8, 8, 3)), atol=3)


def test_palette_images_decode(tmp_path):
    Image.new("RGB", (16, 16), (10, 200, 30)).quantize(4).save(tmp_path / "a.png")
    np.testing.assert_array_equal(photographs.read_image(tmp_path / "a.png", 8)[0, 0], (10, 200, 30))


@pytest.mark.parametrize(
    ("mode", "extension", "colour"),
    [("P", "png", 0), ("P", "gif", 0), ("L", "png", 0), ("RGB", "png", (0, 0, 0))],
)
def test_a_colour_that_is_transparent_becomes_white(tmp_path, mode, extension, colour):
    pixels = np.zeros((16, 16), np.uint8)
    pixels[8:] = 200
    Image.fromarray(pixels).convert(mode).save(tmp_path / f"a.{extension}", transparency=colour)
    found = photographs.decode(tmp_path / f"a.{extension}", 16)
    assert found.remarks == (photographs.TRANSPARENT,)
    assert found.image[:8].min() == 255
    np.testing.assert_allclose(found.image[8:], 200, atol=1)


@pytest.mark.parametrize(
    ("mode", "value", "fact"),
    [("F", 255.0, "from 255 to 255"), ("F", -0.5, "-0.5"), ("F", np.nan, "nan"), ("I", 7, "32-bit")],
)
def test_pixels_without_a_known_range_are_not_guessed(tmp_path, mode, value, fact):
    Image.new(mode, (8, 8), value).save(tmp_path / "a.tiff")
    assert fact in photographs.try_decode(tmp_path / "a.tiff", 8)


@pytest.mark.parametrize("extension", ["gif", "tiff", "webp"])
def test_of_several_pictures_the_first_is_read_and_said(tmp_path, extension):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / f"a.{extension}", save_all=True, append_images=[second], lossless=True)
    found = photographs.decode(tmp_path / f"a.{extension}", 8)
    assert found.remarks == (photographs.ANIMATED,)
    np.testing.assert_allclose(found.image[0, 0], (255, 0, 0), atol=3)


def test_exif_orientation_turns_the_image_upright(tmp_path):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255  # the upper half is white as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the white half comes to the right
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = photographs.read_image(tmp_path / "a.jpg", 16)
    assert image[:, 12:].mean() > 200
    assert image[:, :4].mean() < 50


@pytest.mark.parametrize(
    ("mode", "extension"), [("RGB", "jpg"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg")]
)
def test_a_large_photograph_is_the_same_but_for_rounding(tmp_path, monkeypatch, mode, extension):
    across, down = np.meshgrid(np.linspace(0, 255, 600), np.linspace(0, 255, 400))
    pixels = np.stack([across, down, 255 - across], -1).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(across.astype(np.uint8)))
    else:
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{extension}"
    image.save(path, exif=exif)
    usual = photographs.decode(path, 8)
    monkeypatch.setattr(photographs, "_LARGE_PIXELS", 1000)
    large = photographs.decode(path, 8)
    assert large.remarks == usual.remarks
    np.testing.assert_allclose(large.image.astype(int), usual.image.astype(int), atol=6)
