"""What the rendered objects look like: outlines of a cat, a car, ..., without a colour and a place.

An object is a list of shapes (polygons, ellipses, strokes) in unit coordinates, x to the right and y
down, about within [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

FIXED_PAINTS: dict[str, tuple[int, int, int]] = {
    "dark": (22, 20, 20),
    "light": (232, 230, 224),
    "eye": (176, 196, 62),
    "pink": (206, 128, 128),
    "glass": (128, 156, 178),
    "wood": (104, 74, 48),
    "beak": (222, 156, 40),
}
"""8-bit RGB of all paints but ``body``, the colour that names the picture, and ``accent``, any colour."""

_CIRCLE = np.stack([np.cos(np.arange(20) * np.pi / 10), np.sin(np.arange(20) * np.pi / 10)], axis=1)
_ALONG = np.linspace(0.0, 1.0, 7)[:, None]  # a curve
_START, _BEND, _END = (1 - _ALONG) ** 2, 2 * _ALONG * (1 - _ALONG), _ALONG**2


class Shape(NamedTuple):
    """A filled outline.

    Attributes:
      points: float ``(V, 2)`` corners, as (x, y) in unit coordinates.
      paint: ``body``, ``accent`` or a key of `FIXED_PAINTS`.
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


def stroke(
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
    if taper != 1:
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
    line = _START * np.array(start) + _BEND * np.array(bend) + _END * np.array(end)
    return stroke(line, width, paint, tone, taper)


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
        *_mirrored(stroke([(0.35, 0.42), (1.25, 0.25)], 0.07, "light", -0.35)),
        *_mirrored(stroke([(0.35, 0.5), (1.2, 0.62)], 0.07, "light", -0.35)),
    ]


def _cat_sitting(rng: np.random.Generator) -> list[Shape]:
    lean = rng.uniform(-0.12, 0.12)
    return [
        _curve((0.3, 0.88), (1.15, 0.95), (0.85, rng.uniform(-0.1, 0.5)), 0.17, tone=-0.1, taper=0.6),
        _ellipse(0, 0.42, 0.44, 0.56),
        *_mirrored(_ellipse(0.34, 0.76, 0.26, 0.24, tone=-0.08)),
        *_mirrored(stroke([(0.13, 0.3), (0.13, 0.95)], 0.2, tone=0.12)),
        *_placed(_cat_head(rng), lean, -0.34, 0.52),
    ]


def _cat_standing(rng: np.random.Generator) -> list[Shape]:
    step = rng.uniform(-0.12, 0.12)
    return [
        _curve((-0.6, 0.0), (-1.15, -0.1), (-0.85, rng.uniform(-0.9, -0.4)), 0.15, taper=0.7),
        stroke([(-0.42, 0.2), (-0.36 + step, 0.85)], 0.15, tone=-0.25),
        stroke([(0.32, 0.2), (0.3 - step, 0.85)], 0.15, tone=-0.25),
        _ellipse(-0.08, 0.12, 0.62, 0.29),
        stroke([(-0.55, 0.15), (-0.55 - step, 0.88)], 0.18, taper=0.8),
        stroke([(0.42, 0.15), (0.46 + step, 0.88)], 0.18, taper=0.8),
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
        *_mirrored(stroke([(0.16, 0.25), (0.17, 0.97)], 0.22, tone=0.12)),
        *_placed(_dog_head(rng), rng.uniform(-0.1, 0.1), -0.42, 0.5),
    ]


def _dog_standing(rng: np.random.Generator) -> list[Shape]:
    step = rng.uniform(-0.12, 0.12)
    return [
        _curve((-0.58, -0.12), (-0.85, -0.2), (-0.9, rng.uniform(-0.6, -0.1)), 0.13, taper=0.5),
        stroke([(-0.42, 0.1), (-0.36 + step, 0.92)], 0.16, tone=-0.25),
        stroke([(0.3, 0.1), (0.28 - step, 0.92)], 0.16, tone=-0.25),
        _ellipse(-0.08, 0.06, 0.62, 0.28),
        _ellipse(0.35, -0.12, 0.26, 0.3),
        stroke([(-0.55, 0.1), (-0.55 - step, 0.95)], 0.19, taper=0.8),
        stroke([(0.4, 0.1), (0.44 + step, 0.95)], 0.19, taper=0.8),
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
        stroke([(-0.45, 0.1), (-0.4 + step, 0.95)], 0.15, tone=-0.25, taper=0.7),
        stroke([(0.32, 0.1), (0.28 - step, 0.95)], 0.15, tone=-0.25, taper=0.7),
        _ellipse(-0.05, -0.02, 0.6, 0.27),
        stroke([(0.38, -0.02), (head_x - 0.2, head_y - 0.02)], 0.36, taper=0.6),
        stroke([(0.22, -0.18), (head_x - 0.28, head_y - 0.12)], 0.1, mane, -0.3),
        _ellipse(head_x, head_y + 0.06, 0.3, 0.14, angle=0.7 if up else 0.9),
        _polygon(
            [(head_x - 0.2, head_y - 0.05), (head_x - 0.16, head_y - 0.32), (head_x - 0.05, head_y - 0.06)]
        ),
        _ellipse(head_x - 0.05, head_y, 0.04, 0.04, "dark"),
        stroke([(-0.54, 0.0), (-0.56 - step, 0.98)], 0.18, taper=0.6),
        stroke([(0.42, 0.0), (0.46 + step, 0.98)], 0.18, taper=0.6),
        stroke([(-0.56 - step, 0.75), (-0.56 - step, 0.98)], 0.15, socks, -0.15),
        stroke([(0.45 + step, 0.75), (0.46 + step, 0.98)], 0.15, socks, -0.15),
    ]


def _horse(rng: np.random.Generator) -> list[Shape]:
    return _horse_head(rng) if rng.random() < 0.3 else _horse_standing(rng)


def _bird_perching(rng: np.random.Generator) -> list[Shape]:
    tail = rng.uniform(-0.1, 0.35)
    return [
        *[stroke([(x, 0.4), (x + 0.04, 0.95)], 0.06, "beak", -0.2) for x in (-0.05, 0.15)],
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
        stroke([(-1.0, 0.3), (1.0, 0.3)], 0.12, "dark", 0.3),
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
        stroke([(-0.95, 0.42), (0.95, 0.42)], 0.16, "dark", 0.3),
        _polygon([(-1.0, top), (0.32, top), (0.32, 0.38), (-1.0, 0.38)]),
        stroke([(-0.56, top + 0.1), (-0.56, 0.3)], 0.05, tone=-0.35),
        stroke([(-0.12, top + 0.1), (-0.12, 0.3)], 0.05, tone=-0.35),
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
    trunk = stroke([(0, 0.98), (rng.uniform(-0.08, 0.08), 0.1)], 0.24, "wood", taper=0.7)
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


DRAWINGS: dict[str, Callable[[np.random.Generator], list[Shape]]] = {
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
"""Object -> a function that draws it, in a pose that the random numbers choose."""
