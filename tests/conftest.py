"""What several test modules share: a very small network, images, and a saver that keeps states in memory."""

import os
from pathlib import Path

# Nearly all of these tests' time is XLA's: compile fast rather than well, and keep what was compiled. JAX
# finds it again by the program, its options and versions; delete the directory as you like.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # where more are meant, the test says so
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from kernelgan import models  # noqa: E402

IMAGE_SIZE = 16


class KilledError(Exception):
    """Stands for the end of the process."""


class MemorySaver:
    """A `Saver` that saves every time; it can end the run after some saves, and be given to the next run."""

    last_good = "memory/latest"

    def __init__(self, *, killed_after=None):
        self.state = None
        self.saves = 0
        self.killed_after = killed_after

    def restore(self):
        return _copied(self.state) if self.state is not None else None

    def save(self, make_tree, step):
        self.state = _copied(make_tree())
        self.saves += 1
        if self.saves == self.killed_after:
            self.killed_after = None
            raise KilledError(step)


def _copied(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="session")
def new_saver():
    return MemorySaver


@pytest.fixture(scope="session")
def killed():
    return KilledError


@pytest.fixture(scope="session")
def silent():
    return lambda done, total, figures=None: None


@pytest.fixture(scope="session")
def network():
    """One concept, 12 features of 16 x 16 images."""
    return models.ConvNet(filters=(2, 3), kernel_size=3)


@pytest.fixture(scope="session")
def images():
    """64 images of noise: the even ones dark, the odd ones bright."""
    rng = np.random.default_rng(0)
    base = np.where(np.arange(64) % 2, 170, 80)[:, None, None, None]
    return (base + rng.integers(-60, 60, (64, IMAGE_SIZE, IMAGE_SIZE, 3))).astype(np.uint8)


@pytest.fixture(scope="session")
def make_parents(network):
    """``make_parents(count, seed)``: stacked parameters of untrained networks."""

    def make(count, seed=0, outputs=2):
        keys = jax.random.split(jax.random.key(seed), count)
        module = network.clone(outputs=outputs)
        initialise = jax.jit(jax.vmap(lambda key: models.initialise_convnet(module, IMAGE_SIZE, key)))
        return jax.device_get(initialise(keys))

    return make


@pytest.fixture(scope="session")
def assert_trees_equal():
    def check(found, expected):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)

    return check


@pytest.fixture(scope="session")
def assert_trees_close():
    def check(found, expected, **tolerance):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)

    return check
