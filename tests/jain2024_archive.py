"""A very small copy of the original's data for the tests of the study, and its arithmetic by hand.

`translate_by_hand` knows nothing of the package.
"""

import concurrent.futures
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import signal

ROOT = Path(__file__).parents[1]
REFERENCE = Path(os.environ.get("KERNELGAN_REFERENCE", ROOT.parent / "shared" / "seed_reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "zoo_black.npz").is_file(),
    reason=f"the reference's weights are not in {REFERENCE}; set KERNELGAN_REFERENCE to where they are",
)

BLACK, CAT = 6, 4
SHAPES = {
    **{"conv1.weight": (6, 3, 5, 5), "conv1.bias": (6,), "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,)},
    **{"fc1.weight": (2, 400), "fc1.bias": (2,)},
}
NAMES = (
    *("0/B.png", "0/a (10).png", "0/a (2).jpeg", "0/b.png", "0/grey.png", "0/wide.jpg"),
    *("1/a.png", "1/cat1.png", "1/cat2.png", "1/small.png"),
)
HEADER = "clusterer,model,generated_domain,accuracy,precision_as_printed,recall_as_printed,"
HEADER += "entropy_as_printed,purity_as_printed"
ROWS = (
    "kmeans,0,A,0.7,0.5,0.6,0.9,0.7",
    "kmeans,3,B,0.9,0.75,1.0,0.4,0.9",
    "one_class_svm,1,A,0.6,0.5,0.5,0.9,0.6",
    "dbscan,0,A,0.8,0.5,1.0,0.8,0.8",
)


def silent(done, total):
    """No progress."""


def make_arrays():
    """Both zoos and all generators, as PyTorch has them."""
    rng = np.random.default_rng(0)

    def draw(scale, *shape):
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    zoos = {
        name: {array: draw(0.2, count, *shape) for array, shape in SHAPES.items()}
        for name, count in (("black", BLACK), ("cat", CAT))
    }
    generators = {}
    for layer, channels in (("conv1", 3), ("conv2", 6)):
        for way in ("A2B", "B2A"):
            generators |= {
                f"{layer}/{way}/main.0.weight": draw(0.2, 64, channels, 3, 3, 3),
                f"{layer}/{way}/main.0.bias": draw(0.2, 64),
                f"{layer}/{way}/main.2.weight": draw(0.1, channels, 64, 3, 3, 3),
                f"{layer}/{way}/main.2.bias": draw(0.1, channels),
            }
    return zoos, generators


def write_photographs(root):
    """Dark ones of black cats and bright others, of several sizes, formats and modes."""
    rng = np.random.default_rng(1)
    for name in sorted(NAMES, reverse=True):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = {"wide.jpg": (20, 48), "small.png": (17, 9)}.get(path.name, (32, 32))
        pixels = (60 if name[0] == "1" else 130) + rng.integers(-60, 60, (*size, 3))
        image = Image.fromarray(pixels.astype(np.uint8))
        (image.convert("L") if path.name == "grey.png" else image).save(path)


def preprocess_by_hand(root):
    """Float32 ``(N, 3, 32, 32)`` in [-1, 1], in the order of `NAMES`."""
    photographs = [
        np.asarray(Image.open(root / name).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
        for name in NAMES
    ]
    return (np.stack(photographs).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)


def translate_by_hand(generators, layer, way, weight):
    """PyTorch's ``conv.weight`` (O, I, 5, 5) of one network, translated: its axes swapped, and back."""
    maps = np.float64(weight).swapaxes(0, 1)
    for number, activation in ((0, lambda x: np.maximum(x, 0)), (2, np.tanh)):
        kernel, bias = (generators[f"{layer}/{way}/main.{number}.{leaf}"] for leaf in ("weight", "bias"))
        padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (1, 1)))
        maps = activation(
            np.stack(
                [
                    signal.correlate(padded, np.float64(one), mode="valid")[0] + b
                    for one, b in zip(kernel, bias, strict=True)
                ]
            )
        )
    return maps.swapaxes(0, 1)


def generate_by_hand(zoos, generators, domain, number):
    """Weights of both layers of a generated network: A is B2A of a cat network, B is A2B of a black one."""
    zoo, way = (zoos["cat"], "B2A") if domain == "A" else (zoos["black"], "A2B")
    return [
        translate_by_hand(generators, layer, way, zoo[f"{layer}.weight"][number])
        for layer in ("conv1", "conv2")
    ]


def write_archive(root):
    """The archive with everything in it."""
    zoos, generators = make_arrays()
    for name, arrays in zoos.items():
        np.savez(root / f"zoo_{name}.npz", **arrays)
    np.savez(root / "generators.npz", **generators)
    write_photographs(root / "test_images")
    (root / "reported_results.csv").write_text("\n".join((HEADER, *ROWS)) + "\n")
    return root


def edit(path, **changes):
    """Changes arrays of an npz, or takes out those that are None."""
    with np.load(path) as archive:
        arrays = dict(archive) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def edit_array(path, name, change):
    """Changes one array of an npz: ``change`` takes it and gives it, or edits it."""
    with np.load(path) as archive:
        array = archive[name].copy()
    changed = change(array)
    edit(path, **{name: array if changed is None else changed})


class AtOnce(concurrent.futures.Executor):
    """Does everything as it is submitted."""

    def submit(self, function, /, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future
