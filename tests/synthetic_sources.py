"""A source of noise with known labels, for the tests of the split and of the leakage gate."""

import numpy as np

from kernelgan.data import quadrants
from kernelgan.data.images import ImageSet

LIMITS = quadrants.Limits(minimum_train=5, minimum_test=3)


def noise_images(count, seed, prefix, unknown=0.1):
    """Noise with two attributes and three objects; some attributes are not known."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, 3, count)
    attributes = {}
    for name in ("black", "red"):
        attributes[name] = rng.integers(0, 2, count).astype(np.int8)
        attributes[name][rng.random(count) < unknown] = -1
    return ImageSet(
        images=rng.integers(0, 256, (count, 16, 16, 3), np.uint8),
        attributes=attributes,
        objects={
            name: (which == number).astype(np.int8) for number, name in enumerate(("cat", "dog", "car"))
        },
        names=tuple(f"{prefix}/{index}" for index in range(count)),
        rest=np.zeros(count, bool),
    )


def partition(source, limits=LIMITS, seed=0, share=0.2):
    return quadrants.partition(source, validation_share=share, limits=limits, seed=seed)
