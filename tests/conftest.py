"""What several test modules share: a very small network, images, and a saver that keeps states in memory."""

import contextlib
import fcntl
import functools
import gc
import importlib.metadata
import os
import shutil
import signal
from pathlib import Path

# Nearly all of these tests' time is that of compilers: compile fast rather than well, and keep what was
# compiled. JAX finds it again by the program, its options and versions; delete the directory as you like.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")  # where more are meant, the test says so
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("NUMBA_OPT", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):  # others may not know the flags
    _QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", _QUICK)  # half the time
_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs with SIGINT ignored
gc.set_threshold(100_000, 50, 50)  # tracing makes many objects: a tenth of the time is looking for garbage

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from kernelgan import models  # noqa: E402
from kernelgan.baselines.context import Context  # noqa: E402
from kernelgan.data import quadrants  # noqa: E402

IMAGE_SIZE = 16


def pytest_configure(config):
    """On several processes each has half of the files, whose fixtures and programs it makes once."""
    if getattr(config.option, "dist", "") == "load":
        config.option.dist = "worksteal"


def pytest_sessionstart(session):
    """Two processes would compile the same vector code at the same time: here each has its part first."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker in ("gw0", "gw1"):
        with contextlib.suppress(ImportError, RuntimeError):  # not for this machine: nothing calls it
            from kernelgan.ops.cpu import operation, volume_operation

            (operation if worker == "gw0" else volume_operation).register()


def pytest_collection_modifyitems(items):
    """Files with tests of the shared run come first: of two processes one has them, and none waits for it."""
    first = {item.path for item in items if "finished" in item.fixturenames}
    items.sort(key=lambda item: item.path not in first)


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

    def is_due(self):
        return True

    def save(self, tree, step):
        self.state = _copied(tree)
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


@pytest.fixture
def torch():
    """PyTorch, where a version is installed that reads files safely."""
    reason = "PyTorch 2.10 or newer is not installed (pip install torch)"
    return pytest.importorskip("torch", minversion="2.10", reason=reason)


@pytest.fixture(params=("safetensors", "npz", "pth"))
def suffix(request):
    """Each format of weights in turn."""
    if request.param == "pth":
        request.getfixturevalue("torch")
    return request.param


@functools.cache  # nearly every test asks for some of the same few, and each would be a program of its own
def _initialised(module, count, seed):
    keys = jax.random.split(jax.random.key(seed), count)
    initialise = jax.jit(jax.vmap(lambda key: models.initialise_convnet(module, IMAGE_SIZE, key)))
    return jax.device_get(initialise(keys))


def _stacked(network, count, seed, outputs):
    return _copied(_initialised(network.clone(outputs=outputs), count, seed))


@pytest.fixture(scope="session")
def make_parents(network):
    """``make_parents(count, seed)``: stacked parameters of untrained networks."""

    def make(count, seed=0, outputs=2):
        return _stacked(network, count, seed, outputs)

    return make


_DRAWN = {}


@pytest.fixture
def drawn_once(monkeypatch):
    """Runs on the same rendered pictures draw them once."""
    from kernelgan.data import rendered

    draw = rendered.render_block

    def draw_once(block, progress):
        if block not in _DRAWN:
            _DRAWN[block] = draw(block, lambda done: None)
        progress(block.last - block.first)
        return tuple(array.copy() for array in _DRAWN[block])

    monkeypatch.setattr(rendered, "render_block", draw_once)


@pytest.fixture
def flat_figures(monkeypatch):
    """Figures are not drawn: each is the same bytes, 40 kB of them."""
    from kernelgan.report import drawing

    monkeypatch.setattr(drawing, "png", lambda draw: bytes(40_000))


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


@pytest.fixture(scope="session")
def make_context(network, make_parents, images):
    """``make_context(attribute=4, objects=3, **fields)``: untrained networks of everything, on noise."""
    thirds = [
        np.arange(start, 64, 4, dtype=np.int32) for start in (1, 2, 3)
    ]  # no image 0, 4, ...: those are a&o
    train, validation = [part[:12] for part in thirds], [part[12:] for part in thirds]

    def groups(*wanted):
        places = [quadrant - 1 for quadrant in wanted]
        return quadrants.Groups(
            wanted, tuple(train[place] for place in places), tuple(validation[place] for place in places)
        )

    def make(attribute=4, objects=3, **fields):
        half = network.clone(filters=(1, 1))
        halves = [_stacked(half, 2, seed, 2) for seed in (7, 8)]
        whole = {
            "network": network,
            "image_size": IMAGE_SIZE,
            "attribute": make_parents(attribute, seed=1),
            "objects": make_parents(objects, seed=2),
            "generated": {
                "cyclegan_a2b": make_parents(attribute, seed=3, outputs=4),
                "cyclegan_b2a": make_parents(objects, seed=4, outputs=4),
            },
            "trained": {
                "distilled": make_parents(2, seed=5, outputs=4),
                "trained_on_conjunction": make_parents(2, seed=6),
            },
            "half_width": (half, *halves),
            "images": images,
            "seen": groups(1, 2, 3),
            "attribute_images": groups(1, 3),
            "object_images": groups(2, 3),
            "random_networks": 6,
            "random_bias": "zero",
            "seed": 0,
            "key": jax.random.key(0),
            "names": ("black", "cat"),
            "ruled": True,
        }
        return Context(**{**whole, **fields})

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The work directory of one uninterrupted small run without its report; not to be written to.

    Several processes of pytest-xdist share it: the first that needs it makes it.
    """
    import tiny_runs  # most tests need neither Orbax nor the stages

    from kernelgan import pipeline

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "finished/recipe.sha256").exists():
            pipeline.run(tiny_runs.small_config(), shared / "finished", stage="evaluate")
    return shared / "finished"


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that run."""
    return shutil.copytree(finished, tmp_path / "copied")


@pytest.fixture
def unfinished(copied):
    """A copy of that run without its results: every stage is done, nothing is evaluated."""
    for name in ("results.json", "arrays.npz", "recipe.sha256"):
        (copied / name).unlink()
    shutil.rmtree(copied / "evaluation")
    return copied
