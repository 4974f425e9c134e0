"""Rendered pictures of coloured objects: a data set that needs no download and has every quadrant.

A picture is one object (see `kernelgan.data.drawings`) in one colour, somewhere on a textured background of
other colours, with fragments of other objects behind it and in front of it, under uneven light, slightly
blurred and with sensor noise. Picture ``i`` is a function of ``(seed, split, i)`` only.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from kernelgan.data import renderers
from kernelgan.data.drawings import DRAWINGS, FIXED_PAINTS, Shape, stroke
from kernelgan.data.images import ImageSet, Progress, Source, silent
from kernelgan.types import UserError

OBJECTS: tuple[str, ...] = tuple(DRAWINGS)
COLOURS: tuple[str, ...] = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue")

Excluded = frozenset[tuple[str, str]]
"""Of `COLOURS` and `OBJECTS`."""

_SUPERSAMPLING = 3  # samples a pixel, along each side
_SPLITS = {"train": 0, "test": 1, "sheet": 2}

# Two corners, in 8-bit RGB, that a colour is drawn between (both ends and the three channels' jitter).
_COLOUR_RANGES: dict[str, np.ndarray] = {
    "black": np.array([(14, 14, 16), (76, 72, 70)]),
    "white": np.array([(205, 205, 205), (250, 248, 244)]),
    "grey": np.array([(78, 80, 84), (152, 150, 146)]),
    "red": np.array([(88, 10, 14), (215, 48, 44)]),
    "orange": np.array([(140, 66, 12), (240, 138, 42)]),
    "yellow": np.array([(196, 168, 24), (248, 222, 74)]),
    "green": np.array([(18, 68, 26), (84, 172, 74)]),
    "blue": np.array([(18, 36, 96), (70, 112, 215)]),
}


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
    rows = functools.reduce(np.add, (samples[i::_SUPERSAMPLING] for i in range(_SUPERSAMPLING)))
    columns = functools.reduce(np.add, (rows[:, i::_SUPERSAMPLING] for i in range(_SUPERSAMPLING)))
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


@functools.lru_cache(maxsize=64)
def _grid(first: float, last: float, size: int) -> np.ndarray:
    """float32 ``(2, size, size)``: y and x of each pixel."""
    return np.mgrid[first : last : size * 1j, first : last : size * 1j].astype(np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, knots: int) -> np.ndarray:
    """float32 ``(size, size)``: Gaussian noise at `knots` x `knots` points, interpolated between them."""
    weights = _interpolation(size, knots)
    return weights @ rng.standard_normal((knots, knots), dtype=np.float32) @ weights.T


# Pictures ---------------------------------------------------------------------------------------------


def _draw_colour(rng: np.random.Generator, name: str) -> np.ndarray:
    """float64 ``(3,)``: an 8-bit RGB colour that goes by this name."""
    low, high = _COLOUR_RANGES[name]
    lightness = np.minimum(np.maximum(rng.random() + rng.uniform(-0.2, 0.2, 3), 0), 1)
    return low + lightness * (high - low)


def _draw_other_colour(rng: np.random.Generator, avoid: frozenset[str] = frozenset()) -> np.ndarray:
    """A colour for anything but the object: often black, lest a dark picture mean a black object.

    Where every colour is to be avoided, any.
    """
    avoid = avoid if len(avoid) < len(COLOURS) else frozenset()
    while True:
        name = "black" if rng.random() < 0.3 else COLOURS[rng.integers(len(COLOURS))]
        if name not in avoid:
            return _draw_colour(rng, name)


def _excluded_colours(object_name: str, exclude: Excluded) -> frozenset[str]:
    return frozenset(colour for colour, name in exclude if name == object_name)


def _mix(shapes: Sequence[Shape], body: np.ndarray, accent: np.ndarray) -> np.ndarray:
    """float64 ``(V, 3)``: the RGB colour of each shape."""
    paints = {"body": body, "accent": accent, **FIXED_PAINTS}
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


def _fragment(rng: np.random.Generator, side: int, exclude: Excluded) -> tuple[list[np.ndarray], np.ndarray]:
    """A few shapes of some object in some colour, towards the border: outlines and their colours."""
    # An object that must not have any colour is not drawn.
    free = [name for name in OBJECTS if len(_excluded_colours(name, exclude)) < len(COLOURS)]
    name = free[rng.integers(len(free))]
    avoid = _excluded_colours(name, exclude)
    shapes = DRAWINGS[name](rng)
    start = rng.integers(len(shapes))
    shapes = shapes[start : start + rng.integers(1, 5)]
    angle = rng.uniform(0, 2 * np.pi)
    centre = side * (0.5 + rng.uniform(0.38, 0.58) * np.array([np.cos(angle), np.sin(angle)]))
    outlines = _to_canvas(rng, shapes, centre, side * rng.uniform(0.22, 0.42), tilt=np.pi)
    return outlines, _mix(shapes, _draw_other_colour(rng, avoid), _draw_other_colour(rng, avoid))


def _strip(rng: np.random.Generator, side: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A bar across the picture, such as a pole or a shelf."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    middle = 0.5 + offset * across
    shape = stroke([middle - along, middle + along], rng.uniform(0.04, 0.12), "accent")
    return [shape.points * side], _draw_other_colour(rng)[None]


def _distractors(
    rng: np.random.Generator, side: int, exclude: Excluded, fragments: int, strip: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Up to `fragments` fragments, and a strip with probability `strip`: outlines and ``(V, 3)`` colours."""
    if all(len(_excluded_colours(name, exclude)) == len(COLOURS) for name in OBJECTS):
        fragments = 0
    drawn = [_fragment(rng, side, exclude) for _ in range(rng.integers(fragments + 1))]
    if rng.random() < strip:
        drawn.append(_strip(rng, side))
    return [outline for outlines, _ in drawn for outline in outlines], [colours for _, colours in drawn]


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """float32 ``(size, size, 3)``: two colours that meet at a soft, tilted edge, with blotches."""
    near, far = _draw_other_colour(rng), _draw_other_colour(rng)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = _grid(-0.5, 0.5, size)
    edge = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(-0.4, 0.4)
    edge += 0.08 * _smooth_noise(rng, size, 5)
    share = np.minimum(np.maximum(edge * rng.uniform(2, 20) + 0.5, 0), 1)[..., None].astype(np.float32)
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
        y, x = _grid(0, 1, size)
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


def render(
    object_name: str,
    colour: str,
    rng: np.random.Generator,
    size: int = 32,
    exclude: Excluded = frozenset(),
) -> np.ndarray:
    """Renders one picture.

    Args:
      object_name: one of `OBJECTS`.
      colour: one of `COLOURS`: the object's main colour.
      rng: source of all that is left open (pose, place, light, background, distractors, noise).
      size: pixels a side.
      exclude: colours and objects; no part of such an object, and no fragment, has such a colour.

    Returns:
      uint8 ``(size, size, 3)``.

    Raises:
      UserError: the object or the colour is not known.
    """
    _check_names("object", [object_name], OBJECTS)
    _check_names("colour", [colour], COLOURS)
    side = size * _SUPERSAMPLING
    shapes = DRAWINGS[object_name](rng)
    avoid = _excluded_colours(object_name, exclude)
    colours = _mix(shapes, _draw_colour(rng, colour), _draw_other_colour(rng, avoid))
    centre = side * (0.5 + rng.uniform(-0.06, 0.06, 2))
    outlines = _to_canvas(rng, shapes, centre, side * rng.uniform(0.4, 0.48), tilt=0.15)
    behind, behind_colours = _distractors(rng, side, exclude, fragments=2, strip=0.3)
    before, before_colours = _distractors(rng, side, exclude, fragments=1, strip=0.15)

    # Per label: RGB, whether anything is there, and whether it is the object's body.
    palette = np.zeros((1 + len(behind) + len(outlines) + len(before), 5), np.float32)
    palette[1:, :3] = np.concatenate([*behind_colours, colours, *before_colours])
    palette[1:, 3] = 1
    palette[1 + len(behind) :, 4][: len(shapes)] = [shape.paint == "body" for shape in shapes]
    labels = _rasterise([*behind, *outlines, *before], side)
    layers = _pixels(palette.take(labels, axis=0), blur=rng.uniform(0, 0.45))

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
            f"the rendered source has no {kind} {', '.join(map(repr, unknown))}; it knows "
            f"{', '.join(known)}. Choose from these. For images of your own: "
            "--config=configs/black_cat.py:folder --config.data.folder=DIR."
        )


def _draw_name(rng: np.random.Generator, preferred: Sequence[str], known: Sequence[str]) -> str:
    """A preferred name half of the time, else one of the others (of all, if all are preferred)."""
    others = [name for name in known if name not in preferred] or known
    names = preferred if preferred and rng.random() < 0.5 else others
    return names[int(rng.integers(len(names)))]


def load(
    *,
    attributes: Sequence[str],
    objects: Sequence[str],
    train: int = 6000,
    test: int = 1200,
    image_size: int = 32,
    seed: int = 0,
    progress: Progress = silent,
) -> Source:
    """Renders a training and a test set in which every quadrant of one pair has about a quarter.

    Args:
      attributes: the colours that are composed; half of the images have one of them.
      objects: the objects that are composed; half of the images show one of them. No fragment of such an
        object has such a colour.
      train: images to train and validate on.
      test: images to test on.
      image_size: pixels a side.
      seed: non-negative; image ``i`` of a split depends on it, the names above and ``i`` only.
      progress: called now and then with the images done and those in all.

    Returns:
      Both sets, labelled with all of `COLOURS` and all of `OBJECTS`.

    Raises:
      UserError: an attribute or object is not known.
    """
    _check_names("attribute", attributes, COLOURS)
    _check_names("object", objects, OBJECTS)

    def render_set(split: str, count: int, before: int) -> ImageSet:
        whole = renderers.Block(tuple(attributes), tuple(objects), image_size, seed, split, 0, count)
        images, colours, shown = renderers.render(whole, lambda done: progress(before + done, train + test))
        return ImageSet(
            images=images,
            attributes={name: np.asarray(colours == n, np.int8) for n, name in enumerate(COLOURS)},
            objects={name: np.asarray(shown == n, np.int8) for n, name in enumerate(OBJECTS)},
            names=tuple(f"{split}/{i:06d}" for i in range(count)),
            rest=np.zeros(count, bool),
        )

    return Source(
        "rendered",
        train=render_set("train", train, 0),
        test=render_set("test", test, train),
        ruled=COLOURS,  # all of them are colour terms
    )


def render_block(block: renderers.Block, progress: Callable[[int], None]) -> renderers.Pictures:
    """Renders pictures of a split, each by its number alone; ``progress`` is called after each.

    What is composed, such as a black cat, is in no background and no fragment: only a picture's object is
    one, which the labels say.
    """
    exclude = frozenset(itertools.product(block.attributes, block.objects))
    count = block.last - block.first
    images = np.empty((count, block.size, block.size, 3), np.uint8)
    colours, shown = np.empty((2, count), np.int64)
    for i in range(count):
        rng = np.random.default_rng([block.seed, _SPLITS[block.split], block.first + i])
        colour = _draw_name(rng, block.attributes, COLOURS)
        name = _draw_name(rng, block.objects, OBJECTS)
        images[i] = render(name, colour, rng, block.size, exclude)
        colours[i], shown[i] = COLOURS.index(colour), OBJECTS.index(name)
        progress(i + 1)
    return images, colours, shown


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
