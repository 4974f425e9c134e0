"""Tests for kernelgan.weights: files of arrays, damaged ones, crafted ones, and PyTorch's versions."""

import json
import os
import pickle
import re
import sys
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan import weights
from kernelgan.types import UserError


@pytest.fixture
def arrays():
    """PyTorch's arrays of a small layer."""
    rng = np.random.default_rng(0)
    return {
        f"conv1.{leaf}": rng.normal(size=size).astype(np.float32)
        for leaf, size in (("weight", (2, 9)), ("bias", 2))
    }


def _refused(message, call, *args, **kwargs):
    with pytest.raises(UserError, match=message) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)


def test_any_layout_is_written_as_contiguous_float32(suffix, tmp_path):
    given = {"a": np.arange(6.0).reshape(2, 3).T, "b": jnp.ones(2, jnp.bfloat16), "c": np.float16(3)}
    found = weights.read_arrays(weights.write_arrays(tmp_path / f"x.{suffix}", given))
    assert set(found) == set(given)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.asarray(given[name], np.float32))


def test_a_failed_write_leaves_the_old_file(arrays, tmp_path, monkeypatch):
    path = weights.write_arrays(tmp_path / "zoo.npz", arrays)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"zoo\.npz cannot be written \(No space left on device\)"):
        weights.write_arrays(path, {"other": np.zeros(3)})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_files_that_are_not_there_or_of_another_kind_are_refused(tmp_path, arrays):
    _refused(r"none\.pth does not exist; expected a file", weights.read_arrays, tmp_path / "none.pth")
    (tmp_path / "d.npz").mkdir()
    _refused(r"d\.npz is a directory", weights.read_arrays, tmp_path / "d.npz")
    known = r"expected one of \.safetensors, \.npz, \.pth, \.pt"
    (tmp_path / "x.h5").write_text("")
    _refused(rf"x\.h5 ends in \.h5; {known}", weights.read_arrays, tmp_path / "x.h5")
    _refused(rf"x has no suffix; {known}", weights.write_arrays, tmp_path / "x", arrays)
    (tmp_path / "file").write_text("")
    _refused(r"cannot be written", weights.write_arrays, tmp_path / "file/x.npz", arrays)


@pytest.mark.parametrize(
    ("error", "fact"), [(OSError(5, "Input/output error"), r"Input/output error"), (MemoryError(), "memory")]
)
def test_what_cannot_be_read_is_not_called_damaged(stub_torch, error, fact, tmp_path):
    stub_torch("2.10.0")

    def fail(path, **how):
        raise error

    sys.modules["torch"].load = fail
    (tmp_path / "zoo.pth").write_bytes(b"PK")
    _refused(rf"zoo\.pth cannot be read \(.*{fact}", weights.read_arrays, tmp_path / "zoo.pth")


def _half(content):
    return content[: len(content) // 2]


def _flipped(content):
    """Each of the first 400 bytes inverted; what follows is weights, which may be anything."""
    return bytes(byte ^ 0xFF for byte in content[:400]) + content[400:]


@pytest.mark.parametrize("damage", [_half, _flipped, lambda content: b"", lambda content: b"junk" * 99])
def test_damaged_files_are_named(damage, suffix, arrays, tmp_path):
    path = weights.write_arrays(tmp_path / f"zoo.{suffix}", arrays)
    path.write_bytes(damage(path.read_bytes()))
    _refused(rf"zoo\.{suffix} is damaged, or not a \.{suffix} file", weights.read_arrays, path)


class _Payload:
    """Its pickle makes a file when it is loaded as pickles usually are."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_code_in_a_file_is_not_executed(suffix, request, tmp_path):
    path, touched = tmp_path / f"evil.{suffix}", tmp_path / "touched"
    if suffix == "pth":
        torch = request.getfixturevalue("torch")
        torch.save({"conv1.weight": _Payload(touched)}, path)
        torch.load(path, weights_only=False)  # so it could be
        assert touched.exists()
        touched.unlink()
        _refused(r"evil\.pth .* asks for \w+\.open, which was not", weights.read_arrays, path)
    else:
        np.savez(path, good=np.zeros(2), bad=np.array([_Payload(touched)], object))
        _refused(r"evil\.npz .*Object arrays", weights.read_arrays, path)
    path.write_bytes(pickle.dumps(_Payload(touched)))
    _refused(rf"evil\.{suffix}", weights.read_arrays, path)
    assert not touched.exists()


def test_an_npz_of_something_else_than_arrays_is_refused(tmp_path):
    path = tmp_path / "odd.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    _refused(r"odd\.npz is damaged, or not a \.npz file", weights.read_arrays, path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    _refused(r"odd\.npz is damaged, or not a \.npz file", weights.read_arrays, path)


def test_bfloat16_is_read_as_float32_and_types_that_numpy_lacks_are_named(tmp_path):
    for dtype, content in (("F8_E4M3", b"\0"), ("BF16", b"\x80\x3f")):
        header = json.dumps({"a": {"dtype": dtype, "shape": [1], "data_offsets": [0, len(content)]}}).encode()
        path = tmp_path / f"{dtype}.safetensors"
        path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    np.testing.assert_array_equal(weights.read_arrays(path)["a"], np.ones(1, np.float32), strict=True)
    _refused(r"F8\S* .*float8_e4m3fn", weights.read_arrays, tmp_path / "F8_E4M3.safetensors")


def test_pytorch_files_that_are_no_state_dict_are_refused(torch, tmp_path):
    path = tmp_path / "odd.pth"
    tensor, state = torch.zeros(2), torch.nn.Linear(2, 2).state_dict()
    for content, message in (
        (torch.nn.Linear(2, 2), r"odd\.pth holds more than weights: it asks for torch\.nn\S*\.Linear, which"),
        (tensor, r"it has '' \(Tensor\)"),
        ([tensor], r"it has '' \(list\)"),
        ({"state_dict": state, "model": state}, r"it has 'state_dict' \(OrderedDict\), 'model'"),
        ({"weights": state, "epoch": 3}, r"it has 'weights' \(OrderedDict\), 'epoch' \(int\)\."),
        ({"a": tensor, 3: tensor}, r"it has 3 \(Tensor\)"),
        ({"a": torch.eye(2).to_sparse()}, r"odd\.pth .*arrays alone"),
        ({"a": torch.zeros(2, device="meta")}, r"odd\.pth .*arrays alone"),
    ):
        torch.save(content, path)
        _refused(message, weights.read_arrays, path)


def test_pytorch_files_of_every_age_and_type_are_read(torch, tmp_path):
    linear = torch.nn.Linear(3, 2)
    state = linear.state_dict(keep_vars=True)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for wrapper in ("state_dict", "model"):
        content = {"epoch": 3, wrapper: state, "optimizer": {"state": {0: torch.zeros(2)}}}
        torch.save(content, tmp_path / f"{wrapper}.pt")
    for path in tmp_path.iterdir():
        read = weights.read_arrays(path)
        assert set(read) == {"weight", "bias"}
        np.testing.assert_array_equal(read["weight"], linear.weight.detach().numpy())
    odd = {"a": torch.bfloat16, "b": torch.float8_e4m3fn, "c": torch.float32}
    torch.save({name: torch.ones(2, dtype=dtype) for name, dtype in odd.items()}, tmp_path / "half.pth")
    for array in weights.read_arrays(tmp_path / "half.pth").values():
        np.testing.assert_array_equal(array, np.ones(2, np.float32), strict=True)


def test_without_pytorch_its_files_are_refused_and_others_work(arrays, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "zoo.pth"
    path.write_bytes(b"PK")
    message = r"zoo\.pth .* not installed.*pip install torch"
    _refused(message, weights.read_arrays, path)
    _refused(message, weights.write_arrays, path, arrays)
    assert set(weights.read_arrays(weights.write_arrays(tmp_path / "zoo.npz", arrays))) == set(arrays)


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


@pytest.mark.parametrize("version", ["2.9.10+cpu", "2.9", "2.1.0a0+git1"])
def test_a_pytorch_that_a_crafted_file_can_take_over_reads_nothing(stub_torch, version, tmp_path):
    asked = stub_torch(version)
    path = tmp_path / "zoo.pt"
    path.write_bytes(b"PK")
    _refused(rf"zoo\.pt was not read: .*{re.escape(version)} .*2\.10", weights.read_arrays, path)
    assert asked == []
    assert weights.write_arrays(path, {"a": np.zeros(1)}).read_bytes() == b"a"  # there is no harm in it


@pytest.mark.parametrize("version", ["2.10.0a0+git1", "3.0.0"])
def test_a_newer_pytorch_reads_weights_only(stub_torch, version, tmp_path):
    asked = stub_torch(version)
    path = tmp_path / "zoo.pth"
    path.write_bytes(b"PK")
    assert weights.read_arrays(path) == {}
    assert asked == [("zoo.pth", {"map_location": "cpu", "weights_only": True})]
