"""Tests for kernelgan.interop: layouts, files, refusals, and networks taken out of a run."""

import json
import os
import pickle
import re
import sys
import types
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy import signal

from kernelgan import interop, models
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
SIZE = 16
FORMATS = ("safetensors", "npz", "pth")
CHANNELS, HIDDEN = 3, 4

REFERENCE = Path(os.environ.get("KERNELGAN_REFERENCE", ROOT.parent / "shared" / "seed_reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "zoo_black.npz").is_file(),
    reason=f"the reference's weights are not in {REFERENCE}; set KERNELGAN_REFERENCE to where they are",
)


def _torch():
    reason = "PyTorch 2.10 or newer is not installed (pip install torch)"
    return pytest.importorskip("torch", minversion="2.10", reason=reason)


@pytest.fixture(params=FORMATS)
def suffix(request):
    """Each format in turn."""
    if request.param == "pth":
        _torch()
    return request.param


@pytest.fixture(scope="module")
def generator():
    """Parameters of a small kernel generator."""
    module = models.KernelGenerator(HIDDEN)
    return jax.device_get(module.init(jax.random.key(1), jnp.zeros((1, 2, 3, 3, CHANNELS)))["params"])


@pytest.fixture
def arrays(make_parents):
    """PyTorch's arrays of three small networks."""
    return interop.convnet_to_torch(make_parents(3))


def _one(stacked, number=0):
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


# Layout ---------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_pytorchs(make_parents, generator):
    found = interop.convnet_to_torch(make_parents(5))
    assert {name: array.shape for name, array in found.items()} == {
        "conv1.weight": (5, 2, 3, 3, 3),
        "conv1.bias": (5, 2),
        "conv2.weight": (5, 3, 2, 3, 3),
        "conv2.bias": (5, 3),
        "fc1.weight": (5, 2, 12),
        "fc1.bias": (5, 2),
    }
    assert next(iter(found)) == "conv1.weight"
    found |= interop.generator_to_torch(generator)
    assert [found[f"main.{n}.{leaf}"].shape for n in (0, 2) for leaf in ("weight", "bias")] == [
        (4, 3, 3, 3, 3),
        (4,),
        (3, 4, 3, 3, 3),
        (3,),
    ]
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in found.values())


def _by_hand(arrays, image):
    """Logits and features of one image ``(C, H, W)`` from PyTorch's arrays, in float64."""
    maps = image
    for layer in ("conv1", "conv2"):
        weight, bias = (np.asarray(arrays[f"{layer}.{leaf}"], np.float64) for leaf in ("weight", "bias"))
        convolved = np.stack(
            [signal.correlate(maps, one, mode="valid")[0] + b for one, b in zip(weight, bias, strict=True)]
        )
        outputs, height, width = convolved.shape
        convolved = convolved[:, : height // 2 * 2, : width // 2 * 2]
        maps = np.maximum(convolved, 0).reshape(outputs, height // 2, 2, width // 2, 2).max(axis=(2, 4))
    features = maps.reshape(-1)
    return arrays["fc1.weight"] @ features + arrays["fc1.bias"], features


def test_imported_networks_answer_as_their_arrays_by_hand(network):
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (2, 3, 3, 3), "conv1.bias": (2,), "conv2.weight": (3, 2, 3, 3)}
    shapes |= {"conv2.bias": (3,), "fc1.weight": (2, 12), "fc1.bias": (2,)}
    arrays = {name: _floats(rng, *shape) for name, shape in shapes.items()}
    images = rng.uniform(-1, 1, (3, SIZE, SIZE, 3)).astype(np.float32)
    params = interop.convnet_from_torch(arrays, network, image_size=SIZE, source="here")
    logits, features = models.run_convnet(network, params, images)
    for number, image in enumerate(images):
        expected_logits, expected_features = _by_hand(arrays, np.float64(image).transpose(2, 0, 1))
        np.testing.assert_allclose(features[number], expected_features, atol=1e-4)
        np.testing.assert_allclose(logits[number], expected_logits, atol=1e-4)


def test_imported_generators_answer_as_their_arrays_by_hand():
    rng = np.random.default_rng(0)
    shapes = {"main.0.weight": (4, 3, 3, 3, 3), "main.0.bias": (4,)}
    shapes |= {"main.2.weight": (3, 4, 3, 3, 3), "main.2.bias": (3,)}
    arrays = {name: 0.2 * _floats(rng, *shape) for name, shape in shapes.items()}
    volume = _floats(rng, 3, 6, 5, 5)  # PyTorch's (I, O, h, w)

    def convolved(maps, layer):
        padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (1, 1)))
        weights = zip(arrays[f"{layer}.weight"], arrays[f"{layer}.bias"], strict=True)
        return np.stack([signal.correlate(padded, one, mode="valid")[0] + bias for one, bias in weights])

    expected = np.tanh(convolved(np.maximum(convolved(volume, "main.0"), 0), "main.2"))
    params = interop.generator_from_torch(arrays, channels=3, hidden=4, source="here")
    found = models.generate_volumes(4, params, volume.transpose(1, 2, 3, 0)[None])[0]
    np.testing.assert_allclose(found.transpose(3, 0, 1, 2), expected, atol=1e-5)


def test_exported_networks_answer_the_same_in_pytorch(network, make_parents, images):
    torch = _torch()
    params = _one(make_parents(1, outputs=4))
    inputs = models.normalise_images(images[:8])
    logits, features = models.run_convnet(network.clone(outputs=4), params, inputs)
    layers = {"conv1": torch.nn.Conv2d(3, 2, 3), "relu1": torch.nn.ReLU(), "pool1": torch.nn.MaxPool2d(2)}
    layers |= {"conv2": torch.nn.Conv2d(2, 3, 3), "relu2": torch.nn.ReLU(), "pool2": torch.nn.MaxPool2d(2)}
    theirs = torch.nn.Sequential()
    for name, layer in {**layers, "flatten": torch.nn.Flatten(), "fc1": torch.nn.Linear(12, 4)}.items():
        theirs.add_module(name, layer)
    state = {name: torch.tensor(array) for name, array in interop.convnet_to_torch(params).items()}
    theirs.load_state_dict(state)
    with torch.no_grad():
        tensor = torch.tensor(np.array(inputs)).permute(0, 3, 1, 2)
        np.testing.assert_allclose(theirs[:-1](tensor).numpy(), features, atol=1e-5)
        np.testing.assert_allclose(theirs(tensor).numpy(), logits, atol=1e-5)


def test_exported_generators_answer_the_same_in_pytorch(generator):
    torch = _torch()
    volumes = np.random.default_rng(0).normal(size=(2, 6, 5, 5, CHANNELS)).astype(np.float32)
    theirs = torch.nn.Sequential(
        torch.nn.Conv3d(CHANNELS, HIDDEN, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv3d(HIDDEN, CHANNELS, 3, padding=1),
        torch.nn.Tanh(),
    )
    arrays = interop.generator_to_torch(generator)
    theirs.load_state_dict({name.removeprefix("main."): torch.tensor(a) for name, a in arrays.items()})
    with torch.no_grad():
        found = theirs(torch.tensor(volumes.transpose(0, 4, 1, 2, 3))).numpy()
    ours = models.generate_volumes(HIDDEN, generator, volumes)
    np.testing.assert_allclose(found.transpose(0, 2, 3, 4, 1), ours, atol=1e-5)


def test_networks_without_a_head_go_both_ways(network, make_parents, assert_trees_equal):
    params = {layer: leaves for layer, leaves in make_parents(2).items() if layer != "dense"}
    arrays = interop.convnet_to_torch(params)
    assert not any(name.startswith("fc1") for name in arrays)
    found = interop.convnet_from_torch(arrays, network, image_size=SIZE, source="here", head=False)
    assert_trees_equal(found, params)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", jnp.bfloat16])
def test_other_floating_types_become_float32(arrays, network, dtype):
    given = {name: array.astype(dtype) for name, array in arrays.items()}
    found = interop.convnet_from_torch(given, network, image_size=SIZE, source="here")
    for leaf in jax.tree.leaves(found):
        assert leaf.dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(found["conv1"]["bias"], given["conv1.bias"].astype(np.float32))


# Files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 3])
def test_networks_come_back_to_the_bit(suffix, count, make_parents, network, tmp_path, assert_trees_equal):
    params = _one(make_parents(1)) if count is None else make_parents(count)
    path = interop.write_arrays(tmp_path / f"deep/{count}.{suffix}", interop.convnet_to_torch(params))
    again = interop.convnet_from_torch(interop.read_arrays(path), network, image_size=SIZE, source=str(path))
    assert_trees_equal(again, params)
    expected = jax.tree.map(lambda leaf: leaf[None], params) if count is None else params
    assert_trees_equal(interop.load_convnets(path, network, image_size=SIZE), expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_generators_come_back_to_the_bit(suffix, generator, tmp_path, assert_trees_equal):
    path = interop.write_arrays(tmp_path / f"one.{suffix}", interop.generator_to_torch(generator))
    assert_trees_equal(interop.load_generator(path, channels=CHANNELS, hidden=HIDDEN), generator)


def test_any_layout_is_written_as_contiguous_float32(suffix, tmp_path):
    given = {"file": np.arange(6.0).reshape(2, 3).T, "b": jnp.ones(2, jnp.bfloat16), "c": np.float16(3)}
    found = interop.read_arrays(interop.write_arrays(tmp_path / f"x.{suffix}", given))
    assert set(found) == set(given)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.asarray(given[name], np.float32))


def test_pytorch_reads_the_plain_state_dict(arrays, tmp_path):
    torch = _torch()
    path = interop.write_arrays(tmp_path / "zoo.pth", arrays)
    state = torch.load(path, weights_only=True)
    assert type(state) is dict
    assert state["conv1.weight"].shape == (3, 2, 3, 3, 3)


def test_a_failed_write_leaves_the_old_file(arrays, tmp_path, monkeypatch):
    path = interop.write_arrays(tmp_path / "zoo.npz", arrays)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"zoo\.npz cannot be written \(No space left on device\)"):
        interop.write_arrays(path, {"other": np.zeros(3)})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_directory_is_read_in_the_order_of_names(
    suffix, make_parents, network, tmp_path, assert_trees_equal
):
    params, told = make_parents(3), []
    for number in (2, 0, 1):
        one = interop.convnet_to_torch(_one(params, number))
        interop.write_arrays(tmp_path / f"black_model_{number:04d}.{suffix}", one)
    (tmp_path / ".hidden").write_text("")
    found = interop.load_convnets(
        tmp_path, network, image_size=SIZE, progress=lambda done, of: told.append((done, of))
    )
    assert_trees_equal(found, params)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_directory_of_thousands_is_read_in_seconds(make_parents, network, tmp_path, monkeypatch):
    content = safetensors.numpy.save(interop.convnet_to_torch(_one(make_parents(1))))
    for number in range(500):
        (tmp_path / f"{number:04d}.safetensors").write_bytes(content)
    traced = []
    initialise = models.initialise_convnet
    monkeypatch.setattr(models, "initialise_convnet", lambda *args: traced.append(0) or initialise(*args))
    interop._convnet_shapes.cache_clear()
    found = interop.load_convnets(tmp_path, network, image_size=SIZE)
    assert len(found["dense"]["bias"]) == 500
    assert len(traced) == 1  # shapes are worked out once, not for each file


# What is refused ------------------------------------------------------------------------------------------


def _refused(message, call, *args, **kwargs):
    with pytest.raises(UserError, match=message) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)


def _poison(arrays):
    arrays["conv2.weight"][1, 0, 0, 2, 2] = np.nan
    arrays["conv2.weight"][2, 2] = np.inf
    arrays["fc1.bias"][1] = -np.inf


def _overflow(arrays):
    arrays["conv1.bias"] = arrays["conv1.bias"].astype(np.float64)
    arrays["conv1.bias"][2] = 1e300


MISFITS = {
    "missing": (lambda a: a.pop("conv2.bias"), r"zoo\.x does not fit: conv2\.bias is missing\. Give another"),
    "extra": (
        lambda a: a.update({"fc2.weight": np.zeros(3), "fc2.bias": np.zeros(3)}),
        r"zoo\.x does not fit: fc2\.weight, fc2\.bias is not expected\.",
    ),
    "misshapen": (
        lambda a: a.update({"conv1.weight": np.zeros((3, 2, 3, 5, 5), np.float32)}),
        r"conv1\.weight is \(3, 2, 3, 5, 5\), expected \(M, 2, 3, 3, 3\)\. .*model\.filters",
    ),
    "unlike": (lambda a: a.update({"fc1.bias": a["fc1.bias"][0]}), r"fc1\.bias is \(2,\), expected \(M, 2\)"),
    "lengths": (
        lambda a: a.update({"conv1.bias": a["conv1.bias"][:2]}),
        r"different numbers of networks: conv1\.weight 3, conv1\.bias 2, conv2\.weight 3",
    ),
    "empty": (
        lambda a: a.update({name: array[:0] for name, array in a.items()}),
        r"does not fit: it holds no network\.",
    ),
    "integers": (
        lambda a: a.update({"fc1.bias": np.zeros((3, 2), np.int64)}),
        r"fc1\.bias is int64, expected floating point",
    ),
    "complex": (
        lambda a: a.update({"fc1.bias": np.zeros((3, 2), np.complex64)}),
        r"fc1\.bias is complex64, expected",
    ),
    "several": (
        lambda a: a.update({"conv1.bias": np.zeros((3, 9))}) or a.pop("fc1.bias"),
        r"fc1\.bias is missing; conv1\.bias is \(3, 9\), expected \(M, 2\)\.",
    ),
    "not finite": (
        _poison,
        r"not finite: conv2\.weight in network 1, 2; fc1\.bias in network 1\. .*Leave such networks out",
    ),
    "overflow": (_overflow, r"zoo\.x has weights that are not finite: conv1\.bias in network 2\."),
}


@pytest.mark.parametrize("case", MISFITS)
def test_networks_that_do_not_fit_are_refused(case, arrays, network):
    change, message = MISFITS[case]
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays)
    _refused(message, interop.convnet_from_torch, arrays, network, image_size=SIZE, source="zoo.x")


def test_one_network_that_does_not_fit_is_refused(arrays, network):
    one = {name: array[0] for name, array in arrays.items()}
    _refused(
        r"conv2\.bias is \(1, 3\), expected \(3,\)\.",
        interop.convnet_from_torch,
        one | {"conv2.bias": one["conv2.bias"][None]},
        network,
        image_size=SIZE,
        source="one.x",
    )
    _refused(
        r"one\.x has weights that are not finite: fc1\.bias\. Expected",
        interop.convnet_from_torch,
        one | {"fc1.bias": np.full(2, np.nan)},
        network,
        image_size=SIZE,
        source="one.x",
    )
    _refused(
        r"fc1\.weight, fc1\.bias is not expected",
        interop.convnet_from_torch,
        one,
        network,
        image_size=SIZE,
        source="one.x",
        head=False,
    )
    _refused(
        r"fc1\.weight is \(2, 12\), expected \(2, 108\)",
        interop.convnet_from_torch,
        one,
        network,
        image_size=32,
        source="one.x",
    )


def test_many_networks_that_are_not_finite_are_counted(arrays, network):
    many = {name: np.repeat(array, 5, axis=0) for name, array in arrays.items()}
    many["conv1.bias"][:] = np.nan
    _refused(
        r"conv1\.bias in network 0, 1, 2, 3, 4, 5, 6, 7 and 7 more\.",
        interop.convnet_from_torch,
        many,
        network,
        image_size=SIZE,
        source="zoo.x",
    )


def test_generators_that_do_not_fit_are_refused(generator, tmp_path):
    arrays = interop.generator_to_torch(generator)
    path = interop.write_arrays(tmp_path / "g.npz", arrays)
    _refused(
        r"g\.npz does not fit: main\.0\.weight is \(4, 3, 3, 3, 3\), expected \(8, 3, 3, 3, 3\); .*hidden",
        interop.load_generator,
        path,
        channels=CHANNELS,
        hidden=8,
    )
    interop.write_arrays(path, {name: np.stack([array] * 2) for name, array in arrays.items()})
    _refused(
        r"g\.npz holds 2 generators; expected one",
        interop.load_generator,
        path,
        channels=CHANNELS,
        hidden=HIDDEN,
    )


def test_files_that_are_not_there_or_of_another_kind_are_refused(tmp_path, arrays):
    _refused(r"none\.pth does not exist; expected a file", interop.read_arrays, tmp_path / "none.pth")
    (tmp_path / "d.npz").mkdir()
    _refused(r"d\.npz is a directory", interop.read_arrays, tmp_path / "d.npz")
    known = r"expected one of \.safetensors, \.npz, \.pth, \.pt"
    _refused(rf"x\.h5 ends in \.h5; {known}", interop.read_arrays, tmp_path / "x.h5")
    _refused(rf"x has no suffix; {known}", interop.write_arrays, tmp_path / "x", arrays)
    (tmp_path / "file").write_text("")
    _refused(r"cannot be written", interop.write_arrays, tmp_path / "file/x.npz", arrays)


def _half(content):
    return content[: len(content) // 2]


def _flipped(content):
    """Each of the first 400 bytes inverted; what follows is weights, which may be anything."""
    return bytes(byte ^ 0xFF for byte in content[:400]) + content[400:]


@pytest.mark.parametrize("damage", [_half, _flipped, lambda content: b"", lambda content: b"junk" * 99])
def test_damaged_files_are_named(damage, suffix, arrays, tmp_path):
    path = interop.write_arrays(tmp_path / f"zoo.{suffix}", arrays)
    path.write_bytes(damage(path.read_bytes()))
    _refused(rf"zoo\.{suffix} is damaged, or not a \.{suffix} file", interop.read_arrays, path)


class _Payload:
    """Its pickle makes a file when it is loaded as pickles usually are."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_pytorch_file_is_not_executed(tmp_path):
    torch = _torch()
    path, touched = tmp_path / "evil.pth", tmp_path / "touched"
    torch.save({"conv1.weight": _Payload(touched)}, path)
    _refused(
        r"evil\.pth holds more than weights: it asks for \w+\.open, which was not", interop.read_arrays, path
    )
    assert not touched.exists()
    torch.load(path, weights_only=False)  # it would have been
    assert touched.exists()
    touched.unlink()
    path.write_bytes(pickle.dumps(_Payload(touched)))
    _refused(r"evil\.pth", interop.read_arrays, path)
    assert not touched.exists()


def test_code_in_an_npz_is_not_executed(tmp_path):
    path, touched = tmp_path / "evil.npz", tmp_path / "touched"
    np.savez(path, good=np.zeros(2), bad=np.array([_Payload(touched)], object))
    _refused(
        r"evil\.npz holds more than numbers: 'bad' is an array of Python objects", interop.read_arrays, path
    )
    path.write_bytes(pickle.dumps(_Payload(touched)))
    _refused(r"evil\.npz is damaged", interop.read_arrays, path)
    assert not touched.exists()


def test_what_an_npz_should_not_hold_is_named(tmp_path):
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    _refused(r"odd\.npz holds 'notes\.txt', which is no array", interop.read_arrays, path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    _refused(r"odd\.npz is damaged, or not a \.npz file", interop.read_arrays, path)


def test_safetensors_of_types_that_numpy_lacks(tmp_path):
    path = tmp_path / "half.safetensors"

    def write(dtype, content):
        header = {"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, len(content)]}}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content)

    write("BF16", b"\x80\x3f")
    np.testing.assert_array_equal(interop.read_arrays(path)["a"], np.ones(1, np.float32), strict=True)
    write("F8_E4M3", b"\0")
    _refused(
        r"half\.safetensors holds values that NumPy has no type for .*Save float32", interop.read_arrays, path
    )


def test_pytorch_files_that_are_no_state_dict_are_refused(tmp_path):
    torch = _torch()
    path = tmp_path / "odd.pth"
    tensor, state = torch.zeros(2), torch.nn.Linear(2, 2).state_dict()
    for content, message in (
        (torch.nn.Linear(2, 2), r"odd\.pth holds more than weights: it asks for torch\.nn\S*\.Linear, which"),
        (tensor, r"odd\.pth holds a Tensor; expected a state_dict"),
        ([tensor], r"odd\.pth holds a list; expected"),
        (
            {"state_dict": state, "epoch": 3},
            r"flat .*: it has 'state_dict' \(OrderedDict\), 'epoch' \(int\)\.",
        ),
        ({"a": tensor, 3: tensor}, r"it has 3 \(Tensor\)\. Expected a state_dict alone"),
        ({"a": torch.eye(2).to_sparse()}, r"it has 'a' \(Tensor\)"),
        ({"a": torch.zeros(2, device="meta")}, r"it has 'a' \(Tensor\)"),
    ):
        torch.save(content, path)
        _refused(message, interop.read_arrays, path)
    state.lr = 3
    state["step"] = 3
    torch.save(state, path)
    _refused(r"it has 'step' \(int\)", interop.read_arrays, path)


def test_pytorch_files_of_every_age_and_type_are_read(tmp_path):
    torch = _torch()
    linear = torch.nn.Linear(3, 2)
    torch.save(linear.state_dict(keep_vars=True), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    odd = {"a": torch.bfloat16, "b": torch.float8_e4m3fn, "c": torch.float32}
    torch.save({name: torch.ones(2, dtype=dtype) for name, dtype in odd.items()}, tmp_path / "half.pth")
    found = interop.read_arrays(tmp_path / "old.pt")
    np.testing.assert_array_equal(found["weight"], linear.weight.detach().numpy())
    for array in interop.read_arrays(tmp_path / "half.pth").values():
        np.testing.assert_array_equal(array, np.ones(2, np.float32), strict=True)


def test_without_pytorch_its_files_are_refused_and_others_work(arrays, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "zoo.pth"
    path.write_bytes(b"PK")
    message = (
        r"zoo\.pth is PyTorch's format, .* not installed\. Install its CPU build .* or use \.safetensors"
    )
    _refused(message, interop.read_arrays, path)
    _refused(message, interop.write_arrays, path, arrays)
    assert set(interop.read_arrays(interop.write_arrays(tmp_path / "zoo.npz", arrays))) == set(arrays)


@pytest.fixture
def stub_torch(monkeypatch):
    """``stub_torch(version)``: puts a PyTorch in place that reads nothing, and gives how it was asked to."""

    def put(version):
        asked = []
        stub = types.ModuleType("torch")
        stub.__version__ = version
        stub.load = lambda path, **how: asked.append((path.name, how)) or {}
        stub.float16, stub.float32, stub.float64 = "float16", "float32", "float64"
        stub.tensor = lambda array: array
        stub.save = lambda content, file: file.write(b" ".join(name.encode() for name in content))
        monkeypatch.setitem(sys.modules, "torch", stub)
        return asked

    return put


@pytest.mark.parametrize("version", ["2.9.1+cpu", "2.9.10", "2.9", "2.5.1+cu124", "2.1.0a0+git1", "1.13.1"])
@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_a_pytorch_that_a_crafted_file_can_take_over_reads_nothing(stub_torch, version, suffix, tmp_path):
    asked = stub_torch(version)
    path = tmp_path / f"zoo.{suffix}"
    path.write_bytes(b"PK")
    message = rf"zoo\.{suffix} was not read: .*{re.escape(version)} .*2\.10 or newer, or use \.safetensors"
    _refused(message, interop.read_arrays, path)
    assert asked == []
    assert interop.write_arrays(path, {"a": np.zeros(1)}).read_bytes() == b"a"  # there is no harm in it


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+git1", "2.13.0+cpu", "3.0.0"])
def test_a_newer_pytorch_reads_weights_only(stub_torch, version, tmp_path):
    asked = stub_torch(version)
    path = tmp_path / "zoo.pth"
    path.write_bytes(b"PK")
    assert interop.read_arrays(path) == {}
    assert asked == [("zoo.pth", {"map_location": "cpu", "weights_only": True})]


def test_directories_that_are_not_of_networks_are_refused(arrays, network, tmp_path):
    def load():
        return interop.load_convnets(tmp_path, network, image_size=SIZE)

    _refused(r"is empty; expected one file for each network", load)
    interop.write_arrays(tmp_path / "a.npz", {name: array[0] for name, array in arrays.items()})
    interop.write_arrays(tmp_path / "b.safetensors", {name: array[0] for name, array in arrays.items()})
    _refused(r"holds \.npz, \.safetensors; expected one file for each network, all of one suffix", load)
    (tmp_path / "b.safetensors").unlink()
    (tmp_path / "README").write_text("")
    _refused(r"holds \.npz, README; expected", load)
    (tmp_path / "README").unlink()
    (tmp_path / "more").mkdir()
    _refused(r"holds \.npz, directories; expected", load)
    (tmp_path / "more").rmdir()
    interop.write_arrays(tmp_path / "b.npz", arrays)
    _refused(r"b\.npz holds 3 networks; expected one in each file of a directory", load)
    interop.write_arrays(tmp_path / "b.npz", {"main.0.bias": np.zeros(3)})
    _refused(r"b\.npz does not fit: conv1\.weight is missing; .*main\.0\.bias is not expected", load)


# The README -----------------------------------------------------------------------------------------------


def test_the_readmes_snippets_run(tmp_path, monkeypatch):
    torch = _torch()
    section = (ROOT / "README.md").read_text().split("## PyTorch: weights in and out\n")[1].split("\n## ")[0]
    out_of, into = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.device_get(jax.vmap(lambda key: models.initialise_convnet(models.ConvNet(), 32, key))(keys))
    monkeypatch.chdir(tmp_path)
    interop.write_arrays(Path("black.safetensors"), interop.convnet_to_torch(params))
    found = {}
    exec(compile(out_of, "README.md", "exec"), found)
    images = found["images"].permute(0, 2, 3, 1).numpy()
    logits, _ = models.run_convnet(models.ConvNet(), _one(params), images)
    answers = jax.nn.softmax(logits)[:, 1]
    np.testing.assert_allclose(found["answers"].detach().numpy(), answers, atol=1e-5)

    for number in range(3):
        interop.write_arrays(
            Path(f"black_models/{number}.pth"), interop.convnet_to_torch(_one(params, number))
        )
    layers = torch.nn.Conv3d(3, 64, 3), torch.nn.ReLU(), torch.nn.Conv3d(64, 3, 3)
    torch.save(torch.nn.ModuleDict({"main": torch.nn.Sequential(*layers)}).state_dict(), "generator_A2B.pth")
    four = models.initialise_convnet(models.ConvNet(outputs=4), 32, keys[0])
    interop.write_arrays(Path("networks/0.safetensors"), interop.convnet_to_torch(jax.device_get(four)))
    exec(compile(into, "README.md", "exec"), found)
    assert found["generated"]["dense"]["bias"].shape == (1, 4)
    np.testing.assert_array_equal(found["zoo"]["dense"]["bias"], params["dense"]["bias"])


# The reference's own weights ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """Its arrays, whole."""
    return {
        name: interop.read_arrays(REFERENCE / f"{name}.npz")
        for name in ("zoo_black", "zoo_cat", "generators")
    }


@needs_reference
@pytest.mark.parametrize(("concept", "count"), [("black", 2749), ("cat", 1749)])
def test_the_references_zoos_go_both_ways_to_the_bit(reference, concept, count):
    params = interop.load_convnets(REFERENCE / f"zoo_{concept}.npz", models.ConvNet(), image_size=32)
    assert params["conv1"]["kernel"].shape == (count, 5, 5, 3, 6)
    for name, array in interop.convnet_to_torch(params).items():
        np.testing.assert_array_equal(array, reference[f"zoo_{concept}"][name])


@needs_reference
@pytest.mark.parametrize(("layer", "channels"), [("conv1", 3), ("conv2", 6)])
@pytest.mark.parametrize("way", ["A2B", "B2A"])
def test_the_references_generators_go_both_ways_to_the_bit(reference, layer, channels, way):
    prefix = f"{layer}/{way}/"
    arrays = {
        name.removeprefix(prefix): array
        for name, array in reference["generators"].items()
        if name.startswith(prefix)
    }
    params = interop.generator_from_torch(arrays, channels=channels, hidden=64, source=prefix)
    found = interop.generator_to_torch(params)
    assert set(found) == set(arrays)
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])


@needs_reference
def test_the_references_pytorch_files_equal_its_arrays(reference):
    _torch()
    files = sorted((REFERENCE / "pth").iterdir())
    assert len(files) >= 5
    for path in files:
        found = interop.read_arrays(path)
        if concept := re.fullmatch(r"(\w+)_model_(\d+)", path.stem):
            expected = {name: a[int(concept[2])] for name, a in reference[f"zoo_{concept[1]}"].items()}
        else:
            prefix = f"conv{2 if path.stem.startswith('2_') else 1}/{path.stem[-3:]}/"
            expected = {name: reference["generators"][prefix + name] for name in found}
        assert set(found) == set(expected)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=str(path))


@needs_reference
def test_a_directory_with_the_references_networks_and_generators_names_the_intruder():
    _torch()
    _refused(
        r"2_generator_A2B\.pth does not fit: .*main\.0\.weight",
        interop.load_convnets,
        REFERENCE / "pth",
        models.ConvNet(),
        image_size=32,
    )


@needs_reference
@pytest.mark.parametrize("name", ["A229", "A1234", "B229"])
def test_the_references_generated_networks_have_the_features_that_pytorch_computed(name):
    found = interop.read_arrays(REFERENCE / "reference_features.npz")
    arrays = {f"{layer}.weight": found[f"{name}/{layer}"] for layer in ("conv1", "conv2")}
    arrays |= {"conv1.bias": np.zeros(6), "conv2.bias": np.zeros(16)}
    network = models.ConvNet()
    params = interop.convnet_from_torch(arrays, network, image_size=32, source=name, head=False)
    params["dense"] = {"kernel": np.zeros((400, 2)), "bias": np.zeros(2)}
    _, features = models.run_convnet(network, params, found["images"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(features, found[f"{name}/features"], atol=1e-4)
