"""Rendered pictures of coloured objects: a data set that needs no download and has every quadrant.

An object is a list of shapes (polygons, ellipses, strokes) in unit coordinates, x to the right and y
down, about within [-1, 1]. A picture is one object in one colour, somewhere on a textured background of
other colours, with fragments of other objects behind it and in front of it, under uneven light, slightly
blurred and with sensor noise. Picture ``i`` is a function of ``(seed, split, i)`` only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kernelgan.data.images import ImageSet, Source
from kernelgan.types import UserError

COLOURS: tuple[str, ...] = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue")

_SUPERSAMPLING = 3  # samples a pixel, along each side
_CIRCLE = np.stack([np.cos(np.arange(20) * np.pi / 10), np.sin(np.arange(20) * np.pi / 10)], axis=1)
_SPLITS = {"train": 0, "test": 1, "sheet": 2}

# Two corners, in 8-bit RGB, that a colour is drawn between (both ends and the three channels' jitter).
_COLOUR_RANGES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "black": ((14, 14, 16), (76, 72, 70)),
    "white": ((205, 205, 205), (250, 248, 244)),
    "grey": ((78, 80, 84), (152, 150, 146)),
    "red": ((88, 10, 14), (215, 48, 44)),
    "orange": ((140, 66, 12), (240, 138, 42)),
    "yellow": ((196, 168, 24), (248, 222, 74)),
    "green": ((18, 68, 26), (84, 172, 74)),
    "blue": ((18, 36, 96), (70, 112, 215)),
}

# Paints other than "body" (the colour that names the picture) and "accent" (any colour).
_FIXED_PAINTS: dict[str, tuple[int, int, int]] = {
    "dark": (22, 20, 20),
    "light": (232, 230, 224),
    "eye": (176, 196, 62),
    "pink": (206, 128, 128),
    "glass": (128, 156, 178),
    "wood": (104, 74, 48),
    "beak": (222, 156, 40),
}


class Shape(NamedTuple):
    """A filled outline.

    Attributes:
      points: float ``(V, 2)`` corners, as (x, y) in unit coordinates.
      paint: ``body``, ``accent`` or a key of `_FIXED_PAINTS`.
      tone: how much lighter (positive) or darker (negative) than the paint, as a share of it.
    """

    points: np.ndarray
    paint: str
    tone: float = 0.0


# Primitives -------------------------------------------------------------------------------------------


def _polygon(points: Sequence[tuple[float, float]], paint: str = "body", tone: float = 0.0) -> Shape:
    return Shape(np.array(points), paint, tone)


def _ellipse(
    x: float, y: float, rx: float, ry: float, paint: str = "body", tone: float = 0.0, angle: float = 0.0
) -> Shape:
    """An ellipse around (x, y), turned clockwise (y is down) by `angle` radians."""
    points = _CIRCLE * (rx, ry)
    if angle:
        cos, sin = np.cos(angle), np.sin(angle)
        points = points @ np.array([[cos, sin], [-sin, cos]])
    return Shape(points + np.array([x, y]), paint, tone)


def _stroke(
    points: Sequence[tuple[float, float]],
    width: float,
    paint: str = "body",
    tone: float = 0.0,
    taper: float = 1.0,
) -> Shape:
    """A line of a width that ends at `taper` times the width it starts with."""
    line = np.array(points)
    along = np.empty_like(line)
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    along[1:-1] = line[2:] - line[:-2]
    across = along[:, ::-1] * (-0.5, 0.5) * width / np.hypot(along[:, 0], along[:, 1])[:, None]
    across *= np.linspace(1.0, taper, len(line))[:, None]
    return Shape(np.concatenate([line + across, (line - across)[::-1]]), paint, tone)


def _curve(
    start: tuple[float, float],
    bend: tuple[float, float],
    end: tuple[float, float],
    width: float,
    paint: str = "body",
    tone: float = 0.0,
    taper: float = 1.0,
) -> Shape:
    """A stroke along a quadratic Bezier curve."""
    t = np.linspace(0.0, 1.0, 7)[:, None]
    line = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)
    return _stroke(line, width, paint, tone, taper)


def _placed(shapes: Iterable[Shape], x: float, y: float, scale: float) -> list[Shape]:
    """The shapes, scaled and then moved to (x, y)."""
    return [Shape(shape.points * scale + (x, y), shape.paint, shape.tone) for shape in shapes]


def _mirrored(shape: Shape) -> list[Shape]:
    """The shape and its mirror image in the vertical axis."""
    return [shape, Shape(shape.points * (-1, 1), shape.paint, shape.tone)]


# Objects ----------------------------------------------------------------------------------------------


def _cat_head(rng: np.random.Generator) -> list[Shape]:
    ear = rng.uniform(-0.08, 0.12)
    muzzle = "light" if rng.random() < 0.15 else "body"
    return [
        *_mirrored(_polygon([(-0.97, -0.2), (-0.9 - ear, -1.38), (-0.15, -0.78)])),
        *_mirrored(_polygon([(-0.8, -0.5), (-0.8 - ear, -1.12), (-0.38, -0.76)], "pink", -0.25)),
        _ellipse(0, 0, 1.0, 0.87),
        _ellipse(0, 0.42, 0.42, 0.3, muzzle, 0.3 if muzzle == "body" else 0.0),
        *_mirrored(_ellipse(0.43, -0.1, 0.3, 0.24, "eye")),
        *_mirrored(_ellipse(0.43, -0.1, 0.1, 0.22, "dark")),
        _polygon([(-0.14, 0.2), (0.14, 0.2), (0, 0.38)], "pink"),
        *_mirrored(_stroke([(0.35, 0.42), (1.25, 0.25)], 0.07, "light", -0.35)),
        *_mirrored(_stroke([(0.35, 0.5), (1.2, 0.62)], 0.07, "light", -0.35)),
    ]


def _cat_sitting(rng: np.random.Generator) -> list[Shape]:
    lean = rng.uniform(-0.12, 0.12)
    return [
        _curve((0.3, 0.88), (1.15, 0.95), (0.85, rng.uniform(-0.1, 0.5)), 0.17, tone=-0.1, taper=0.6),
        _ellipse(0, 0.42, 0.44, 0.56),
        *_mirrored(_ellipse(0.34, 0.76, 0.26, 0.24, tone=-0.08)),
        *_mirrored(_stroke([(0.13, 0.3), (0.13, 0.95)], 0.2, tone=0.12)),
        *_placed(_cat_head(rng), lean, -0.34, 0.52),
    ]


def _cat_standing(rng: np.random.Generator) -> list[Shape]:
    step = rng.uniform(-0.12, 0.12)
    return [
        _curve((-0.6, 0.0), (-1.15, -0.1), (-0.85, rng.uniform(-0.9, -0.4)), 0.15, taper=0.7),
        _stroke([(-0.42, 0.2), (-0.36 + step, 0.85)], 0.15, tone=-0.25),
        _stroke([(0.32, 0.2), (0.3 - step, 0.85)], 0.15, tone=-0.25),
        _ellipse(-0.08, 0.12, 0.62, 0.29),
        _stroke([(-0.55, 0.15), (-0.55 - step, 0.88)], 0.18, taper=0.8),
        _stroke([(0.42, 0.15), (0.46 + step, 0.88)], 0.18, taper=0.8),
        *_placed(_cat_head(rng), 0.58, rng.uniform(-0.34, -0.16), 0.44),
    ]


def _cat_lying(rng: np.random.Generator) -> list[Shape]:
    return [
        _ellipse(-0.12, 0.4, 0.82, 0.38),
        _ellipse(-0.5, 0.48, 0.34, 0.3, tone=0.1),
        _curve((-0.85, 0.5), (-0.6, 1.0), (0.25, 0.76), 0.17, tone=-0.15, taper=0.7),
        _ellipse(0.62, 0.7, 0.26, 0.1, tone=0.12),
        *_placed(_cat_head(rng), rng.uniform(0.3, 0.5), -0.05, 0.5),
    ]


def _cat(rng: np.random.Generator) -> list[Shape]:
    pose = rng.integers(4)
    if pose == 0:
        return _placed(_cat_head(rng), 0, 0.18, 0.78)
    return (_cat_sitting, _cat_standing, _cat_lying)[pose - 1](rng)


def _dog_head(rng: np.random.Generator) -> list[Shape]:
    if rng.random() < 0.3:
        ears = _mirrored(_polygon([(-0.78, -0.2), (-0.72, -1.2), (-0.15, -0.75)], tone=-0.15))
    else:
        ears = _mirrored(_ellipse(0.82, 0.0, 0.26, rng.uniform(0.5, 0.7), tone=-0.3, angle=-0.25))
    muzzle = "light" if rng.random() < 0.25 else "body"
    tongue = [_ellipse(0.05, 0.95, 0.16, 0.25, "pink", 0.1)] if rng.random() < 0.5 else []
    return [
        _ellipse(0, -0.08, 0.8, 0.82),
        *ears,
        *tongue,
        _ellipse(0, 0.46, 0.47, 0.45, muzzle, 0.25 if muzzle == "body" else 0.0),
        _ellipse(0, 0.26, 0.21, 0.15, "dark"),
        *_mirrored(_ellipse(0.36, -0.2, 0.15, 0.15, "light", -0.3)),
        *_mirrored(_ellipse(0.36, -0.2, 0.11, 0.13, "dark")),
    ]


def _dog_profile(rng: np.random.Generator) -> list[Shape]:
    """A head that looks to the right, around (0, 0)."""
    ear = _ellipse(-0.35, 0.15, 0.28, 0.6, tone=-0.3, angle=0.2)
    if rng.random() < 0.3:
        ear = _polygon([(-0.7, -0.4), (-0.45, -1.25), (0.05, -0.6)], tone=-0.15)
    return [
        _ellipse(0, 0, 0.75, 0.68),
        _ellipse(0.75, 0.25, 0.6, 0.32, tone=0.15, angle=0.1),
        _ellipse(1.25, 0.12, 0.16, 0.14, "dark"),
        _ellipse(0.25, -0.15, 0.14, 0.14, "dark"),
        ear,
    ]


def _dog_sitting(rng: np.random.Generator) -> list[Shape]:
    return [
        _curve((0.3, 0.85), (0.8, 0.9), (0.85, 0.45), 0.14, tone=-0.1, taper=0.5),
        _ellipse(0, 0.4, 0.46, 0.56),
        *_mirrored(_ellipse(0.36, 0.78, 0.24, 0.22, tone=-0.1)),
        *_mirrored(_stroke([(0.16, 0.25), (0.17, 0.97)], 0.22, tone=0.12)),
        *_placed(_dog_head(rng), rng.uniform(-0.1, 0.1), -0.42, 0.5),
    ]


def _dog_standing(rng: np.random.Generator) -> list[Shape]:
    step = rng.uniform(-0.12, 0.12)
    return [
        _curve((-0.58, -0.12), (-0.85, -0.2), (-0.9, rng.uniform(-0.6, -0.1)), 0.13, taper=0.5),
        _stroke([(-0.42, 0.1), (-0.36 + step, 0.92)], 0.16, tone=-0.25),
        _stroke([(0.3, 0.1), (0.28 - step, 0.92)], 0.16, tone=-0.25),
        _ellipse(-0.08, 0.06, 0.62, 0.28),
        _ellipse(0.35, -0.12, 0.26, 0.3),
        _stroke([(-0.55, 0.1), (-0.55 - step, 0.95)], 0.19, taper=0.8),
        _stroke([(0.4, 0.1), (0.44 + step, 0.95)], 0.19, taper=0.8),
        *_placed(_dog_profile(rng), 0.5, rng.uniform(-0.5, -0.35), 0.36),
    ]


def _dog(rng: np.random.Generator) -> list[Shape]:
    pose = rng.integers(3)
    if pose == 0:
        return _placed(_dog_head(rng), 0, 0.05, 0.84)
    return (_dog_sitting, _dog_standing)[pose - 1](rng)


def _horse_head(rng: np.random.Generator) -> list[Shape]:
    blaze = [_ellipse(0, 0.05, 0.1, 0.5, "light")] if rng.random() < 0.5 else []
    return [
        _polygon([(-0.35, 0.2), (-0.75, 1.1), (0.75, 1.1), (0.35, 0.2)], tone=-0.2),
        *_mirrored(_polygon([(-0.38, -0.45), (-0.36, -1.0), (-0.08, -0.62)])),
        _ellipse(0, -0.25, 0.42, 0.5),
        _ellipse(0, 0.2, 0.32, 0.65),
        _ellipse(0, 0.66, 0.3, 0.24, tone=-0.35),
        *blaze,
        _polygon([(-0.15, -0.7), (0.15, -0.7), (0.02, -0.25)], "dark"),
        *_mirrored(_ellipse(0.33, -0.22, 0.09, 0.09, "dark")),
        *_mirrored(_ellipse(0.13, 0.68, 0.06, 0.09, "dark")),
    ]


def _horse_standing(rng: np.random.Generator) -> list[Shape]:
    step = rng.uniform(-0.12, 0.12)
    up = rng.random() < 0.7
    head_x, head_y = (0.85, -0.62) if up else (0.95, 0.45)
    mane = "dark" if rng.random() < 0.5 else "body"
    socks = "light" if rng.random() < 0.5 else "body"
    return [
        _curve((-0.58, -0.12), (-0.95, 0.0), (-0.85, 0.6), 0.15, mane, -0.3, taper=0.6),
        _stroke([(-0.45, 0.1), (-0.4 + step, 0.95)], 0.15, tone=-0.25, taper=0.7),
        _stroke([(0.32, 0.1), (0.28 - step, 0.95)], 0.15, tone=-0.25, taper=0.7),
        _ellipse(-0.05, -0.02, 0.6, 0.27),
        _stroke([(0.38, -0.02), (head_x - 0.2, head_y - 0.02)], 0.36, taper=0.6),
        _stroke([(0.22, -0.18), (head_x - 0.28, head_y - 0.12)], 0.1, mane, -0.3),
        _ellipse(head_x, head_y + 0.06, 0.3, 0.14, angle=0.7 if up else 0.9),
        _polygon(
            [(head_x - 0.2, head_y - 0.05), (head_x - 0.16, head_y - 0.32), (head_x - 0.05, head_y - 0.06)]
        ),
        _ellipse(head_x - 0.05, head_y, 0.04, 0.04, "dark"),
        _stroke([(-0.54, 0.0), (-0.56 - step, 0.98)], 0.18, taper=0.6),
        _stroke([(0.42, 0.0), (0.46 + step, 0.98)], 0.18, taper=0.6),
        _stroke([(-0.56 - step, 0.75), (-0.56 - step, 0.98)], 0.15, socks, -0.15),
        _stroke([(0.45 + step, 0.75), (0.46 + step, 0.98)], 0.15, socks, -0.15),
    ]


def _horse(rng: np.random.Generator) -> list[Shape]:
    return _horse_head(rng) if rng.random() < 0.3 else _horse_standing(rng)


def _bird_perching(rng: np.random.Generator) -> list[Shape]:
    tail = rng.uniform(-0.1, 0.35)
    return [
        *[_stroke([(x, 0.4), (x + 0.04, 0.95)], 0.06, "beak", -0.2) for x in (-0.05, 0.15)],
        _polygon([(-0.35, 0.05), (-1.05, tail), (-0.98, tail + 0.28), (-0.3, 0.4)], tone=-0.2),
        _ellipse(0, 0.15, 0.56, 0.4, angle=-0.35),
        _ellipse(-0.1, 0.15, 0.4, 0.22, tone=-0.3, angle=-0.1),
        _ellipse(0.22, 0.3, 0.2, 0.14, "light", -0.2, angle=-0.5),
        _polygon([(0.68, -0.42), (1.02, -0.28), (0.66, -0.18)], "beak"),
        _ellipse(0.46, -0.3, 0.29, 0.28),
        _ellipse(0.54, -0.36, 0.08, 0.08, "light"),
        _ellipse(0.55, -0.36, 0.05, 0.05, "dark"),
    ]


def _bird_flying(rng: np.random.Generator) -> list[Shape]:
    lift = rng.uniform(0.2, 0.9)
    return [
        _polygon([(-0.05, 0.05), (0.2, -0.1 - lift), (0.5, -0.05 - lift), (0.3, 0.1)], tone=-0.25),
        _polygon([(-0.45, 0.0), (-1.0, -0.1), (-1.0, 0.25), (-0.4, 0.25)], tone=-0.15),
        _ellipse(0, 0.12, 0.58, 0.24),
        _polygon([(-0.25, 0.05), (-0.6, 0.1 - lift), (-0.25, -lift), (0.3, 0.1)], tone=0.1),
        _ellipse(0.1, 0.24, 0.3, 0.1, "light", -0.2),
        _polygon([(0.78, -0.1), (1.05, 0.03), (0.76, 0.1)], "beak"),
        _ellipse(0.6, 0.0, 0.23, 0.22),
        _ellipse(0.66, -0.05, 0.06, 0.06, "dark"),
    ]


def _bird(rng: np.random.Generator) -> list[Shape]:
    return _bird_perching(rng) if rng.random() < 0.6 else _bird_flying(rng)


def _fish(rng: np.random.Generator) -> list[Shape]:
    height = rng.uniform(0.32, 0.58)
    stripe = "light" if rng.random() < 0.35 else "body"
    return [
        _polygon([(-0.5, 0.0), (-1.0, -0.5), (-0.86, 0.0), (-1.0, 0.5)], tone=-0.2),
        _polygon([(-0.3, -height * 0.7), (-0.2, -height - 0.25), (0.3, -height * 0.8)], tone=-0.25),
        _polygon([(-0.2, height * 0.7), (-0.3, height + 0.22), (0.15, height * 0.8)], tone=-0.25),
        _ellipse(0.12, 0, 0.75, height),
        *[_ellipse(x, 0, 0.06, height * 0.8, stripe, -0.2) for x in (-0.2, 0.08)],
        _polygon([(0.2, 0.05), (-0.1, 0.3), (0.25, 0.25)], tone=0.25),
        _ellipse(0.58, -0.12, 0.12, 0.12, "light"),
        _ellipse(0.6, -0.12, 0.07, 0.07, "dark"),
    ]


def _wheel(x: float, y: float, radius: float) -> list[Shape]:
    return [_ellipse(x, y, radius, radius, "dark"), _ellipse(x, y, radius * 0.5, radius * 0.5, "light", -0.3)]


def _car_side(rng: np.random.Generator) -> list[Shape]:
    roof = rng.uniform(-0.6, -0.45)
    return [
        _polygon([(-0.66, -0.05), (-0.42, roof), (0.3, roof), (0.62, -0.05)]),
        _polygon([(-0.5, -0.05), (-0.33, roof + 0.1), (-0.06, roof + 0.1), (-0.06, -0.05)], "glass"),
        _polygon([(0.02, -0.05), (0.02, roof + 0.1), (0.24, roof + 0.1), (0.48, -0.05)], "glass"),
        _polygon([(-1.0, 0.02), (-0.9, -0.1), (0.7, -0.1), (1.0, 0.05), (1.02, 0.36), (-1.0, 0.36)]),
        _stroke([(-1.0, 0.3), (1.0, 0.3)], 0.12, "dark", 0.3),
        _ellipse(0.95, 0.1, 0.07, 0.07, "beak", 0.2),
        *_wheel(-0.56, 0.36, 0.24),
        *_wheel(0.56, 0.36, 0.24),
    ]


def _car_front(rng: np.random.Generator) -> list[Shape]:
    roof = rng.uniform(-0.75, -0.6)
    return [
        *_mirrored(_polygon([(0.5, 0.4), (0.8, 0.4), (0.8, 0.82), (0.5, 0.82)], "dark")),
        _polygon([(-0.72, -0.05), (-0.52, roof), (0.52, roof), (0.72, -0.05)]),
        _polygon([(-0.58, -0.08), (-0.44, roof + 0.1), (0.44, roof + 0.1), (0.58, -0.08)], "glass"),
        _polygon([(-0.9, 0.05), (-0.72, -0.1), (0.72, -0.1), (0.9, 0.05), (0.9, 0.6), (-0.9, 0.6)]),
        _polygon([(-0.42, 0.18), (0.42, 0.18), (0.38, 0.42), (-0.38, 0.42)], "dark", 0.5),
        *_mirrored(_ellipse(0.66, 0.22, 0.16, 0.13, "light")),
    ]


def _car(rng: np.random.Generator) -> list[Shape]:
    return _car_side(rng) if rng.random() < 0.65 else _car_front(rng)


def _truck(rng: np.random.Generator) -> list[Shape]:
    top = rng.uniform(-0.75, -0.5)
    cab = rng.uniform(-0.4, -0.25)
    return [
        _stroke([(-0.95, 0.42), (0.95, 0.42)], 0.16, "dark", 0.3),
        _polygon([(-1.0, top), (0.32, top), (0.32, 0.38), (-1.0, 0.38)]),
        _stroke([(-0.56, top + 0.1), (-0.56, 0.3)], 0.05, tone=-0.35),
        _stroke([(-0.12, top + 0.1), (-0.12, 0.3)], 0.05, tone=-0.35),
        _polygon([(0.38, cab), (0.74, cab), (0.98, 0.05), (0.98, 0.42), (0.38, 0.42)], tone=0.12),
        _polygon([(0.5, cab + 0.08), (0.7, cab + 0.08), (0.86, 0.06), (0.5, 0.06)], "glass"),
        *_wheel(-0.68, 0.5, 0.22),
        *_wheel(-0.18, 0.5, 0.22),
        *_wheel(0.66, 0.5, 0.22),
    ]


def _house(rng: np.random.Generator) -> list[Shape]:
    width, door = rng.uniform(0.62, 0.85), rng.uniform(-0.3, 0.3)
    peak = rng.uniform(-0.2, 0.2)
    return [
        _polygon([(0.3, -0.9), (0.5, -0.9), (0.5, -0.3), (0.3, -0.3)], "wood"),
        _polygon([(-width, -0.2), (width, -0.2), (width, 0.85), (-width, 0.85)]),
        _polygon([(-width - 0.16, -0.12), (peak, -0.95), (width + 0.16, -0.12)], "accent", -0.1),
        _polygon(
            [(door - 0.14, 0.3), (door + 0.14, 0.3), (door + 0.14, 0.85), (door - 0.14, 0.85)], "wood", -0.2
        ),
        *[
            _polygon([(x - 0.13, 0.02), (x + 0.13, 0.02), (x + 0.13, 0.3), (x - 0.13, 0.3)], "glass", 0.1)
            for x in (-width * 0.62, width * 0.62)
        ],
    ]


def _tree(rng: np.random.Generator) -> list[Shape]:
    fruit_paint = ("pink", "light", "beak")[rng.integers(3)]
    fruit = [
        _ellipse(x, y, 0.09, 0.09, fruit_paint) for x, y in rng.uniform(-0.35, 0.15, (rng.integers(5), 2))
    ]
    trunk = _stroke([(0, 0.98), (rng.uniform(-0.08, 0.08), 0.1)], 0.24, "wood", taper=0.7)
    if rng.random() < 0.4:
        low_tier = _polygon([(0, -0.32), (0.72, 0.55), (-0.72, 0.55)], tone=-0.3)
        middle_tier = _polygon([(0, -0.68), (0.55, 0.08), (-0.55, 0.08)], tone=-0.1)
        return [trunk, low_tier, middle_tier, _polygon([(0, -0.98), (0.4, -0.3), (-0.4, -0.3)]), *fruit]
    centres, radii = rng.uniform((-0.45, -0.6), (0.45, 0.05), (5, 2)), rng.uniform(0.3, 0.42, 5)
    tones = rng.uniform(-0.25, 0.2, 5)
    blobs = [
        _ellipse(x, y, radius, radius, tone=tone)
        for (x, y), radius, tone in zip(centres, radii, tones, strict=True)
    ]
    return [trunk, _ellipse(0, -0.3, 0.62, 0.5), *blobs, *fruit]


def _cup(rng: np.random.Generator) -> list[Shape]:
    base, height = rng.uniform(0.35, 0.6), rng.uniform(0.5, 0.8)
    decoration = rng.integers(3)
    decorations: tuple[list[Shape], ...] = (
        [],
        [_polygon([(-0.58, -0.1), (0.58, -0.1), (0.55, 0.1), (-0.55, 0.1)], "accent")],
        [_ellipse(x, 0.1, 0.12, 0.12, "light", -0.1) for x in (-0.3, 0.05, 0.35)],
    )
    return [
        _curve((0.55, -0.35), (1.5, -0.05), (0.5, 0.5 * height), 0.17, tone=-0.15),
        _polygon([(-0.65, -0.5), (0.65, -0.5), (base, height), (-base, height)]),
        _ellipse(0, height, base, 0.1),
        *decorations[decoration],
        _ellipse(0, -0.5, 0.65, 0.2, tone=0.3),
        _ellipse(0, -0.48, 0.54, 0.14, "wood", -0.5),
    ]


_DRAWINGS: dict[str, Callable[[np.random.Generator], list[Shape]]] = {
    "cat": _cat,
    "dog": _dog,
    "horse": _horse,
    "bird": _bird,
    "fish": _fish,
    "car": _car,
    "truck": _truck,
    "house": _house,
    "tree": _tree,
    "cup": _cup,
}
OBJECTS: tuple[str, ...] = tuple(_DRAWINGS)


# Rasterisation ----------------------------------------------------------------------------------------


def _rasterise(outlines: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Paints outlines over each other, later ones on top; non-zero winding rule, all of them at once.

    Every crossing of an edge with the centre line of a row adds its direction to a buffer that holds the
    outlines' bounding boxes one after another. On each row the directions add up to zero, so one running
    sum over the whole buffer gives every sample's winding number.

    Args:
      outlines: float ``(V, 2)`` corners each, in samples.
      side: samples along each side of the canvas.

    Returns:
      int64 ``(side, side)``: 1 + the index of the topmost outline, 0 where there is none.
    """
    counts = [len(points) for points in outlines]
    starts = np.cumsum([0, *counts[:-1]])
    ends = np.concatenate(outlines)
    following = np.arange(1, len(ends) + 1)
    following[starts + counts - 1] = starts
    low = np.clip(np.ceil(np.minimum.reduceat(ends, starts) - 0.5), 0, side).astype(np.int64)
    high = np.clip(np.ceil(np.maximum.reduceat(ends, starts) - 0.5), 0, side).astype(np.int64)
    widths, heights = (high - low).T
    offsets = np.concatenate([[0], np.cumsum((widths + 1) * heights)])

    first = np.clip(np.ceil(ends[:, 1] - 0.5), 0, side).astype(np.int64)
    last = first[following]
    lengths = np.abs(last - first)
    edge = np.repeat(np.arange(len(ends)), lengths)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    row += np.minimum(first, last)[edge]
    step = ends[following] - ends
    slope = step[:, 0] / np.where(step[:, 1] == 0, 1, step[:, 1])
    shape = np.repeat(np.arange(len(outlines)), counts)[edge]
    column = np.ceil(ends[edge, 0] + (row + 0.5 - ends[edge, 1]) * slope[edge] - 0.5).astype(np.int64)
    column = np.clip(column - low[shape, 0], 0, widths[shape])
    position = offsets[shape] + (row - low[shape, 1]) * (widths[shape] + 1) + column
    inside = np.bincount(position, np.sign(last - first)[edge], minlength=offsets[-1]).cumsum() != 0

    labels = np.zeros((side, side), np.int64)
    for i, (x, y) in enumerate(low):
        box = inside[offsets[i] : offsets[i + 1]].reshape(heights[i], widths[i] + 1)[:, :-1]
        labels[y : y + heights[i], x : x + widths[i]][box] = i + 1
    return labels


def _pixels(samples: np.ndarray, blur: float) -> np.ndarray:
    """Averages the samples of each pixel, then gives `blur` of each pixel to its neighbours on each axis.

    Sums of slices: as matrix products these wake the BLAS library's threads, which costs ten times as much
    on a busy machine.

    Args:
      samples: float32 ``(side, side, channels)``.
      blur: share, 0 to 1.

    Returns:
      float32 ``(side // _SUPERSAMPLING, side // _SUPERSAMPLING, channels)``.
    """
    rows = np.sum([samples[i::_SUPERSAMPLING] for i in range(_SUPERSAMPLING)], axis=0)
    columns = np.sum([rows[:, i::_SUPERSAMPLING] for i in range(_SUPERSAMPLING)], axis=0)
    pixels = columns / np.float32(_SUPERSAMPLING**2)
    near = np.float32(blur / 2)
    padded = np.concatenate([pixels[:1], pixels, pixels[-1:]])
    pixels = (1 - 2 * near) * pixels + near * (padded[:-2] + padded[2:])
    padded = np.concatenate([pixels[:, :1], pixels, pixels[:, -1:]], axis=1)
    return (1 - 2 * near) * pixels + near * (padded[:, :-2] + padded[:, 2:])


@functools.lru_cache(maxsize=64)
def _interpolation(size: int, knots: int) -> np.ndarray:
    """float32 ``(size, knots)``: linear interpolation between evenly spaced knots."""
    at = np.linspace(0, knots - 1, size)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(knots))).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, knots: int) -> np.ndarray:
    """float32 ``(size, size)``: Gaussian noise at `knots` x `knots` points, interpolated between them."""
    weights = _interpolation(size, knots)
    return weights @ rng.standard_normal((knots, knots), dtype=np.float32) @ weights.T


# Pictures ---------------------------------------------------------------------------------------------


def _draw_colour(rng: np.random.Generator, name: str) -> np.ndarray:
    """float64 ``(3,)``: an 8-bit RGB colour that goes by this name."""
    low, high = _COLOUR_RANGES[name]
    lightness = np.clip(rng.random() + rng.uniform(-0.2, 0.2, 3), 0, 1)
    return np.array(low) + lightness * np.subtract(high, low)


def _draw_other_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour for anything but the object: often black, lest a dark picture mean a black object."""
    return _draw_colour(rng, "black" if rng.random() < 0.3 else COLOURS[rng.integers(len(COLOURS))])


def _mix(shapes: Sequence[Shape], body: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """float64 ``(V, 3)``: the RGB colour of each shape."""
    paints = {"body": body, "accent": accent, **_FIXED_PAINTS}
    tones = np.array([shape.tone for shape in shapes])[:, None]
    return np.array([paints[shape.paint] for shape in shapes]) * (1 + tones) + 25 * np.maximum(tones, 0)


def _to_canvas(
    rng: np.random.Generator, shapes: Sequence[Shape], centre: np.ndarray, scale: float, tilt: float
) -> list[np.ndarray]:
    """Outlines moved to `centre`, scaled, stretched, tilted by up to `tilt` radians and maybe flipped."""
    angle = rng.uniform(-tilt, tilt)
    stretch = np.exp(rng.uniform(-0.12, 0.12, 2)) * scale * ((-1, 1) if rng.random() < 0.5 else (1, 1))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [shape.points * stretch @ turn + centre for shape in shapes]


def _fragment(rng: np.random.Generator, side: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A few shapes of some object in some colour, towards the border: outlines and their colours."""
    shapes = _DRAWINGS[OBJECTS[rng.integers(len(OBJECTS))]](rng)
    start = rng.integers(len(shapes))
    shapes = shapes[start : start + rng.integers(1, 5)]
    angle = rng.uniform(0, 2 * np.pi)
    centre = side * (0.5 + rng.uniform(0.38, 0.58) * np.array([np.cos(angle), np.sin(angle)]))
    outlines = _to_canvas(rng, shapes, centre, side * rng.uniform(0.22, 0.42), tilt=np.pi)
    return outlines, _mix(shapes, _draw_other_colour(rng), _draw_other_colour(rng))


def _strip(rng: np.random.Generator, side: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A bar across the picture, such as a pole or a shelf."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    middle = 0.5 + offset * across
    shape = _stroke([middle - along, middle + along], rng.uniform(0.04, 0.12), "accent")
    return [shape.points * side], _draw_other_colour(rng)[None]


def _distractors(
    rng: np.random.Generator, side: int, fragments: int, strip: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Up to `fragments` fragments, and a strip with probability `strip`: outlines and ``(V, 3)`` colours."""
    drawn = [_fragment(rng, side) for _ in range(rng.integers(fragments + 1))]
    if rng.random() < strip:
        drawn.append(_strip(rng, side))
    return [outline for outlines, _ in drawn for outline in outlines], [colours for _, colours in drawn]


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """float32 ``(size, size, 3)``: two colours that meet at a soft, tilted edge, with blotches."""
    near, far = _draw_other_colour(rng), _draw_other_colour(rng)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-0.5 : 0.5 : size * 1j, -0.5 : 0.5 : size * 1j].astype(np.float32)
    edge = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(-0.4, 0.4)
    edge += 0.08 * _smooth_noise(rng, size, 5)
    share = np.clip(edge * rng.uniform(2, 20) + 0.5, 0, 1)[..., None].astype(np.float32)
    blotches = 1 + rng.uniform(0.05, 0.3) * _smooth_noise(rng, size, int(rng.integers(4, 16)))
    speckle = rng.uniform(0, 14) * rng.standard_normal((size, size), dtype=np.float32)
    colours = (share * near.astype(np.float32) + (1 - share) * far.astype(np.float32)) * blotches[..., None]
    return colours + speckle[..., None]


def _surface(rng: np.random.Generator, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The light that the object's own surface adds or takes.

    Args:
      rng: source of randomness.
      body: float32 ``(size, size)``, how much of each pixel is the body.

    Returns:
      Two float32 ``(size, size)``: a factor (fur, stripes), and a summand (a lit and a shaded rim).
    """
    size = len(body)
    texture = rng.uniform(0.05, 0.2) * _smooth_noise(rng, size, size // 2)
    if rng.random() < 0.3:
        y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j].astype(np.float32)
        waves = rng.uniform(-30, 30) * x + rng.uniform(-30, 30) * y + rng.uniform(0, 2 * np.pi)
        texture += rng.uniform(0.05, 0.2) * np.sin(waves)
    rim = body - np.roll(body, (1, int(rng.integers(-1, 2))), axis=(0, 1))
    return 1 + texture.astype(np.float32) * body, (rng.uniform(5, 35) * rim).astype(np.float32)


def _light(rng: np.random.Generator, size: int) -> np.ndarray:
    """float32 ``(size, size, 3)``: brightness, a gradient over the picture and a colour cast."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope_x, slope_y = rng.uniform(-0.25, 0.25, 2)
    field = 1 + slope_x * ramp + slope_y * ramp[:, None]
    gain = np.exp(rng.uniform(-1.0, 0.35)) * (1 + rng.uniform(-0.1, 0.1, 3))
    return (field[..., None] * gain).astype(np.float32)


def render(object_name: str, colour: str, rng: np.random.Generator, size: int = 32) -> np.ndarray:
    """Renders one picture.

    Args:
      object_name: one of `OBJECTS`.
      colour: one of `COLOURS`: the object's main colour.
      rng: source of all that is left open (pose, place, light, background, distractors, noise).
      size: pixels a side.

    Returns:
      uint8 ``(size, size, 3)``.

    Raises:
      UserError: the object or the colour is not known.
    """
    _check_names("object", [object_name], OBJECTS)
    _check_names("colour", [colour], COLOURS)
    side = size * _SUPERSAMPLING
    shapes = _DRAWINGS[object_name](rng)
    colours = _mix(shapes, _draw_colour(rng, colour), _draw_other_colour(rng))
    centre = side * (0.5 + rng.uniform(-0.06, 0.06, 2))
    outlines = _to_canvas(rng, shapes, centre, side * rng.uniform(0.4, 0.48), tilt=0.15)
    behind, behind_colours = _distractors(rng, side, fragments=2, strip=0.3)
    before, before_colours = _distractors(rng, side, fragments=1, strip=0.15)

    # Per label: RGB, whether anything is there, and whether it is the object's body.
    palette = np.zeros((1 + len(behind) + len(outlines) + len(before), 5), np.float32)
    palette[1:, :3] = np.concatenate([*behind_colours, colours, *before_colours])
    palette[1:, 3] = 1
    palette[1 + len(behind) :, 4][: len(shapes)] = [shape.paint == "body" for shape in shapes]
    labels = _rasterise([*behind, *outlines, *before], side)
    layers = _pixels(palette[labels], blur=rng.uniform(0, 0.45))

    factor, summand = _surface(rng, layers[..., 4])
    image = layers[..., :3] * factor[..., None] + summand[..., None]
    image += _background(rng, size) * (1 - layers[..., 3:4])
    image *= _light(rng, size)
    image += rng.uniform(0, 0.25) * (rng.uniform(60, 190) - image)  # haze
    image += rng.uniform(2, 8) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


# Data sets --------------------------------------------------------------------------------------------


def _check_names(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(
            f"the procedural source has no {kind} {', '.join(map(repr, unknown))}; it knows "
            f"{', '.join(known)}. Choose from these, or use another data source."
        )


def _draw_name(rng: np.random.Generator, preferred: Sequence[str], known: Sequence[str]) -> str:
    """A preferred name half of the time, else one of the others (of all, if all are preferred)."""
    others = [name for name in known if name not in preferred] or known
    names = preferred if preferred and rng.random() < 0.5 else others
    return names[int(rng.integers(len(names)))]


def _render_set(
    split: str,
    count: int,
    *,
    attributes: Sequence[str],
    objects: Sequence[str],
    image_size: int,
    seed: int,
    report: Callable[[int], None],
) -> ImageSet:
    """Renders `count` images; `report` is called with how many are done."""
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    drawn_colours, drawn_objects = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, _SPLITS[split], i])
        drawn_colours.append(_draw_name(rng, attributes, COLOURS))
        drawn_objects.append(_draw_name(rng, objects, OBJECTS))
        images[i] = render(drawn_objects[-1], drawn_colours[-1], rng, image_size)
        report(i + 1)
    return ImageSet(
        images=images,
        attributes={name: np.array([name == drawn for drawn in drawn_colours], np.int8) for name in COLOURS},
        objects={name: np.array([name == drawn for drawn in drawn_objects], np.int8) for name in OBJECTS},
        names=tuple(f"{split}/{i:06d}" for i in range(count)),
        rest=np.zeros(count, bool),
    )


def load(
    *,
    attributes: Sequence[str],
    objects: Sequence[str],
    train: int,
    test: int,
    image_size: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Renders a training and a test set in which every quadrant of one pair has about a quarter.

    Args:
      attributes: the colours that are composed; half of the images have one of them.
      objects: the objects that are composed; half of the images show one of them.
      train: images to train and validate on.
      test: images to test on.
      image_size: pixels a side.
      seed: non-negative; image ``i`` of a split depends on it, the names above and ``i`` only.
      progress: called after each image with the images done and those in all.

    Returns:
      Both sets, labelled with all of `COLOURS` and all of `OBJECTS`.

    Raises:
      UserError: an attribute or object is not known.
    """
    _check_names("attribute", attributes, COLOURS)
    _check_names("object", objects, OBJECTS)

    def render_set(split: str, count: int, done_before: int) -> ImageSet:
        def report(done: int) -> None:
            if progress is not None:
                progress(done_before + done, train + test)

        return _render_set(
            split,
            count,
            attributes=attributes,
            objects=objects,
            image_size=image_size,
            seed=seed,
            report=report,
        )

    return Source("procedural", train=render_set("train", train, 0), test=render_set("test", test, train))


def contact_sheet(seed: int, image_size: int = 32) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """One picture of every object in every colour.

    Returns:
      uint8 ``(rows, columns, image_size, image_size, 3)``, the rows' names (`OBJECTS`) and the columns'
      (`COLOURS`).
    """
    sheet = np.stack(
        [
            [
                render(name, colour, np.random.default_rng([seed, _SPLITS["sheet"], row, column]), image_size)
                for column, colour in enumerate(COLOURS)
            ]
            for row, name in enumerate(OBJECTS)
        ]
    )
    return sheet, OBJECTS, COLOURS
