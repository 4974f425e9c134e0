"""Tests for kernelgan.ops.gpu: the kernel run on the CPU by a shim, against JAX and optax."""

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import pytest

from kernelgan import models
from kernelgan.losses import cross_entropy, squared_error
from kernelgan.ops import gpu
from kernelgan.ops.gpu import compiler, custom_call, operation
from kernelgan.ops.gpu.layout import Layout, layout_of
from kernelgan.types import UserError

TESTS = Path(__file__).parent
GXX = shutil.which("g++") or shutil.which("clang++")
DEFAULT = (32, 5, (6, 16), 2)
RATE = 1e-2

needs_compiler = pytest.mark.skipif(GXX is None, reason="no C++ compiler is here")


def _has_nvrtc():
    try:
        return bool(compiler.nvrtc())
    except UserError:
        return False


needs_nvrtc = pytest.mark.skipif(not _has_nvrtc(), reason="libnvrtc is nowhere")


@functools.cache
def _library(layout, folder):
    """The kernel of a layout for the CPU, with its shim."""
    path = folder / f"{operation.name_of(layout)}.so"
    macros = [f"-D{name}={value}" for name, value in layout.macros.items()]
    options = ["-std=c++20", "-O2", "-march=native", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas"]
    folders = [f"-I{TESTS}", f"-I{compiler.SOURCE.parent}"]
    done = subprocess.run(
        [GXX, *options, *macros, *folders, "-shared", "-fPIC", TESTS / "epoch_on_cpu.cpp", "-o", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@functools.cache
def _cpu_target(layout, folder):
    library = _library(layout, folder)

    def launch(stream, blocks, arguments):
        assert stream is None
        library.run(ctypes.c_int(blocks), *arguments)

    name = f"{operation.name_of(layout)}_on_cpu"
    custom_call.register(name, operation.answer_with(launch), platform="cpu", stream=lambda frame: None)
    return name


@pytest.fixture
def on_cpu(monkeypatch, folder):
    """`gpu.operation` answered by the CPU, through XLA's own call frame."""
    if GXX is None:
        pytest.skip("no C++ compiler is here")
    monkeypatch.setattr(operation, "_target", functools.partial(_cpu_target, folder=folder))


def _problem(size, kernel, filters, outputs, loss, models_count=2, steps=3, batch=10, last=6, seed=0):
    network = models.ConvNet(filters, kernel, outputs, form="plain")
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (23, size, size, 3), dtype=np.uint8)
    keys = jax.random.split(jax.random.key(seed), models_count)

    def initial(key):
        params = models.initialise_convnet(network, size, key)
        return {"params": params, "optimizer": optax.adam(RATE).init(params)}

    state = jax.device_get(jax.jit(jax.vmap(initial))(keys))
    index = rng.integers(0, len(images), (models_count, steps, batch), dtype=np.int32)
    shape = (models_count, steps, batch)
    if loss is squared_error:
        targets = rng.normal(size=(*shape, outputs)).astype(np.float32)
    else:
        targets = rng.integers(0, outputs, shape, dtype=np.int32)
    weights = np.ones((steps, batch), np.float32)
    weights[-1, last:] = 0
    return network, state, images, index, targets, weights


@functools.partial(jax.jit, static_argnames=("network", "loss"))
def _step(state, images, index, targets, weight, *, network, loss):
    """`population.train`'s own step of one network."""

    def weighted_loss(params):
        logits, _ = models.run_convnet(network, params, models.normalise_images(images[index]))
        return jnp.sum(loss(logits, targets) * weight) / jnp.sum(weight)

    value, gradients = jax.value_and_grad(weighted_loss)(state["params"])
    updates, moments = optax.adam(RATE).update(gradients, state["optimizer"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "optimizer": moments}, value * jnp.sum(weight)


def _expected(state, images, index, targets, weights, *, network, loss):
    states, values = [], np.zeros(index.shape[:2], np.float32)
    for m in range(len(index)):
        one = jax.tree.map(lambda leaf, m=m: leaf[m], state)
        for s, weight in enumerate(weights):
            one, values[m, s] = _step(
                one, images, index[m, s], targets[m, s], weight, network=network, loss=loss
            )
        states.append(one)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states), values


def _assert_near(found, expected, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


CASES = [  # size, kernel, filters, outputs, loss
    (*DEFAULT, cross_entropy),
    (16, 3, (2, 3), 4, squared_error),
    (16, 3, (2, 3), 2, cross_entropy),  # odd maps: a column and a row that no window reaches
    (20, 4, (7, 9), 3, cross_entropy),
]


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_equals_jax_s_whatever_the_order_of_threads(on_cpu, folder, case):
    *shape, loss = case
    network, *arguments = _problem(*shape, loss)
    expected, losses = _expected(*arguments, network=network, loss=loss)
    run = jax.jit(functools.partial(operation.train_epoch, network=network, loss=loss, learning_rate=RATE))
    found, found_losses = run(*arguments)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    assert int(found["optimizer"][0].count[0]) == 3
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    _assert_near(found["optimizer"], expected["optimizer"], 1e-3)
    _assert_near(found["params"], expected["params"], 1e-3)
    library = _library(layout_of(network, shape[0], loss), folder)
    for stride in (-1, 37):
        library.set_stride(stride)  # threads in another order between barriers
        for a, b in zip(jax.tree.leaves(run(*arguments)[0]), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(a, b)
    library.set_stride(1)


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_jax_s(on_cpu, case):
    *shape, loss = case
    network, state, *rest = _problem(*shape, loss, models_count=1, steps=1, last=9, seed=1)
    expected, _ = _expected(state, *rest, network=network, loss=loss)
    run = jax.jit(functools.partial(operation.train_epoch, network=network, loss=loss, learning_rate=RATE))
    found, _ = run(state, *rest)
    # After one step from nothing the mean is a tenth of the gradient.
    _assert_near(found["optimizer"][0].mu, expected["optimizer"][0].mu, 1e-4)


def test_a_network_does_not_depend_on_the_others_and_epochs_go_on(on_cpu):
    loss = cross_entropy
    network, state, images, index, targets, weights = _problem(
        16, 3, (2, 3), 2, loss, models_count=3, steps=4
    )
    weights[:] = 1
    run = jax.jit(functools.partial(operation.train_epoch, network=network, loss=loss, learning_rate=RATE))
    whole, losses = run(state, images, index, targets, weights)
    one = jax.tree.map(lambda leaf: leaf[1:2], state)
    for half in (slice(0, 2), slice(2, 4)):
        one, some = run(one, images, index[1:2, half], targets[1:2, half], weights[half])
        np.testing.assert_array_equal(some[0], losses[1, half])
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a[0], b[1])


def test_a_learning_rate_may_be_data(on_cpu):
    loss = cross_entropy
    network, *arguments = _problem(16, 3, (2, 3), 2, loss)
    run = functools.partial(operation.train_epoch, *arguments, network=network, loss=loss)
    traced = jax.jit(lambda rate: run(learning_rate=rate)[0])
    for rate in (RATE, RATE / 3):
        found, expected = traced(jnp.float32(rate)), run(learning_rate=rate)[0]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_weight_that_is_not_a_number_is_not_hidden(on_cpu):
    loss = cross_entropy
    network, state, *rest = _problem(16, 3, (2, 3), 2, loss, models_count=1)
    state = jax.tree.map(np.copy, state)
    state["params"]["conv1"]["kernel"][0, 0, 0, 0, 0] = np.nan
    _, losses = operation.train_epoch(state, *rest, network=network, loss=loss, learning_rate=RATE)
    assert np.isnan(losses).all()


def test_it_is_launched_through_the_driver(on_cpu, monkeypatch, folder):
    loss = cross_entropy
    network, *arguments = _problem(16, 3, (2, 3), 2, loss)
    run = functools.partial(operation.train_epoch, network=network, loss=loss, learning_rate=RATE)
    expected = run(*arguments)
    layout = layout_of(network, 16, loss)
    monkeypatch.setattr(compiler, "DRIVER", str(_library(layout, folder)._name))
    monkeypatch.setattr(compiler, "driver", functools.cache(compiler.driver.__wrapped__))
    with pytest.raises(RuntimeError, match="CUDA: invalid argument"):
        compiler.Kernel(b"no code", layout.shared_bytes)
    kernel = compiler.Kernel(b"code", layout.shared_bytes)
    name = f"{operation.name_of(layout)}_launched"
    custom_call.register(
        name, operation.answer_with(kernel.launch), platform="cpu", stream=lambda frame: 0xBEEF
    )
    monkeypatch.setattr(operation, "_target", lambda layout: name)
    for a, b in zip(jax.tree.leaves(run(*arguments)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_the_answer_raises_becomes_xla_s_error(monkeypatch):
    def launch(stream, blocks, arguments):
        raise RuntimeError("out of sorts")

    custom_call.register(
        "kernelgan_fused_broken", operation.answer_with(launch), platform="cpu", stream=lambda frame: None
    )
    monkeypatch.setattr(operation, "_target", lambda layout: "kernelgan_fused_broken")
    loss = cross_entropy
    network, *arguments = _problem(16, 3, (2, 3), 2, loss)
    with pytest.raises(Exception, match="RuntimeError: out of sorts"):
        jax.block_until_ready(
            operation.train_epoch(*arguments, network=network, loss=loss, learning_rate=RATE)
        )


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_shared_memory_is_counted_as_the_kernel_counts_it(case, folder):
    *shape, loss = case
    size, kernel, filters, outputs = shape
    layout = layout_of(models.ConvNet(filters, kernel, outputs), size, loss)
    assert _library(layout, folder).shared_bytes() == layout.shared_bytes


def test_a_gpu_with_less_shared_memory_has_fewer_images_in_it(on_cpu, monkeypatch):
    loss = cross_entropy
    network, *arguments = _problem(20, 4, (7, 9), 3, loss)
    assert layout_of(network, 20, loss, 30_000).group == 4
    monkeypatch.setattr(compiler, "most_shared_bytes", lambda: 24_000)
    assert layout_of(network, 20, loss, 24_000).group == 2
    expected, losses = _expected(*arguments, network=network, loss=loss)
    run = jax.jit(functools.partial(operation.train_epoch, network=network, loss=loss, learning_rate=RATE))
    found, found_losses = run(*arguments)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    _assert_near(found["params"], expected["params"], 1e-3)


def test_two_blocks_of_the_reference_s_network_share_a_multiprocessor():
    layout = layout_of(models.ConvNet(), 32, cross_entropy)
    assert layout.parameters == 3674
    assert layout.macros["BLOCKS"] == 2
    assert 2 * (layout.shared_bytes + 1024) <= 228 * 1024


@pytest.mark.parametrize(
    ("filters", "kernel", "outputs", "size", "loss", "expected"),
    [
        ((6, 16), 5, 2, 32, cross_entropy, True),
        ((6, 16), 5, 4, 32, squared_error, True),
        ((6, 16), 5, 2, 30, cross_entropy, False),  # rows that are no whole words
        ((6, 16), 5, 2, 12, cross_entropy, False),  # nothing is left to pool
        ((6, 16, 16), 3, 2, 32, cross_entropy, False),
        ((9, 16), 5, 2, 32, cross_entropy, False),
        ((6, 64), 5, 2, 32, cross_entropy, False),
        ((6, 16), 7, 2, 32, cross_entropy, False),
        ((6, 16), 5, 2, 96, cross_entropy, False),  # more than a block's shared memory
        ((6, 16), 5, 2, 32, lambda logits, targets: logits[:, 0], False),
    ],
)
def test_what_is_supported(filters, kernel, outputs, size, loss, expected):
    assert gpu.supports(models.ConvNet(filters, kernel, outputs), size, loss) is expected


def test_what_is_not_supported_is_said():
    network, *arguments = _problem(16, 3, (2, 3), 2, cross_entropy)
    with pytest.raises(UserError, match="fused kernel has no place for filters"):
        operation.train_epoch(*arguments, network=network, loss=jnp.add, learning_rate=RATE)


@pytest.mark.skipif(not gpu.is_available(), reason="no NVIDIA GPU is here (or JAX_PLATFORMS hides it)")
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_gives_what_jax_gives_and_the_same_bits_again(case):
    *shape, loss = case
    network, *arguments = _problem(*shape, loss, models_count=5)
    expected, losses = _expected(*arguments, network=network, loss=loss)
    run = jax.jit(functools.partial(operation.train_epoch, network=network, loss=loss, learning_rate=RATE))
    found, found_losses = run(*arguments)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    _assert_near(found["params"], expected["params"], 1e-3)
    for a, b in zip(jax.tree.leaves(run(*arguments)[0]), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(gpu.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_is_said():
    network, *arguments = _problem(16, 3, (2, 3), 2, cross_entropy)
    assert not gpu.is_available()
    with pytest.raises(UserError, match="runs on NVIDIA GPUs, and JAX has only cpu"):
        operation.train_epoch(*arguments, network=network, loss=cross_entropy, learning_rate=RATE)


def test_without_nvrtc_it_is_said(monkeypatch):
    monkeypatch.setattr(compiler, "_libraries", lambda: ["/nowhere/libnvrtc.so.12"])
    with pytest.raises(UserError, match="nvidia-cuda-nvrtc"):
        compiler.nvrtc.__wrapped__()


@needs_nvrtc
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_nvrtc_compiles_it_and_it_is_kept(monkeypatch, tmp_path, capability):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    layout = Layout(16, 3, (2, 3), 2, False)
    code = compiler.compile_for(layout, capability)
    assert code.startswith(b"\x7fELF")
    assert compiler.NAME in code
    monkeypatch.setattr(compiler, "_compile", None)
    assert compiler.compile_for(layout, capability) == code


@needs_nvrtc
def test_a_gpu_that_nvrtc_does_not_know_gets_ptx(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = compiler.compile_for(Layout(16, 3, (2, 3), 2, False), (99, 0))
    assert b".visible .entry train_epoch" in code


@needs_nvrtc
def test_what_does_not_compile_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="NVRTC does not compile"):
        compiler.compile_for(Layout(18, 3, (2, 3), 2, False), (9, 0))


_RENAMED = {
    "XLA_FFI_Extension_Base": "XLA_FFI_InternalExtension",
    "XLA_FFI_Error_GetMessage": "XLA_FFI_Error_GetDetails",
}


def test_structs_are_the_header_s(tmp_path):
    header = Path(jaxlib.__file__).parent / "include" / "xla" / "ffi" / "api" / "c_api.h"
    if GXX is None or not header.is_file():
        pytest.skip("no C++ compiler, or no header with jaxlib")
    version = [
        int(re.search(rf"XLA_FFI_API_{part} (\d+)", header.read_text())[1]) for part in ("MAJOR", "MINOR")
    ]
    assert custom_call.VERSION[0] == version[0]
    assert custom_call.VERSION[1] <= version[1]
    ours = [
        (struct.__name__, field[0], getattr(struct, field[0]).offset)
        for struct in custom_call.STRUCTS
        for field in struct._fields_
    ]
    lines = "".join(f'printf("%zu\\n", offsetof({struct}, {field}));' for struct, field, _ in ours)
    codes = "XLA_FFI_Extension_Metadata, XLA_FFI_Error_Code_INTERNAL"
    renamed = "".join(  # with jax 0.11 and later
        f"#define {before} {after}\n" for before, after in _RENAMED.items() if after in header.read_text()
    )
    source = (
        f'#include "{header}"\n#include <cstdio>\n{renamed}int main() {{ {lines} printf("%d %d", {codes}); }}'
    )
    (tmp_path / "offsets.cpp").write_text(source)
    subprocess.run([GXX, "-std=c++17", tmp_path / "offsets.cpp", "-o", tmp_path / "offsets"], check=True)
    *found, codes = subprocess.run(
        [tmp_path / "offsets"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [int(offset) for offset in found] == [offset for *_, offset in ours]
    assert codes == f"{custom_call._METADATA} {custom_call._INTERNAL}"
