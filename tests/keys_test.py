"""Tests for kernelgan.keys: digests, keys, and measurements that are kept with theirs."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from kernelgan import keys
from kernelgan.keys import StageKey
from kernelgan.types import UserError


@dataclasses.dataclass
class Settings:
    rate: float
    layers: tuple[int, ...]


# Values and arrays.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"a": {"b": 0.1}}, ConfigDict({"a": {"b": 0.1}})),
        ({"a": np.float64(0.1), "b": np.int8(3)}, {"a": 0.1, "b": 3}),
        (Settings(0.1, (1, 2)), Settings(0.1, (1, 2))),
    ],
)
def test_equal_values_have_one_digest(one, other):
    assert keys.of_values(one) == keys.of_values(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 0.1}, {"a": math.nextafter(0.1, 1)}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ({"a": [1, [2]]}, {"a": [[1], 2]}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        (Settings(0.1, (1,)), Settings(0.1, (2,))),
        ({"a": np.zeros(2)}, {"a": np.zeros(3)}),
    ],
)
def test_unlike_values_have_two(one, other):
    assert keys.of_values(one) != keys.of_values(other)


@pytest.mark.parametrize("value", [object(), {1: "a"}, {"a": {1, 2}}, Settings])
def test_what_has_no_stable_form_is_refused(value):
    with pytest.raises(TypeError):
        keys.of_values(value)


TREE = {"b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "a": np.int32(4), "c": {}}


def test_equal_arrays_have_one_digest():
    other = {
        "c": {},
        "a": np.array(4, np.int32),
        "b": {"kernel": np.asfortranarray(TREE["b"]["kernel"]).astype(">f4")},
    }
    assert keys.of_arrays(TREE) == keys.of_arrays(other)


@pytest.mark.parametrize(
    "change",
    [
        {"a": np.int32(5)},
        {"a": np.int64(4)},
        {"a": np.full(1, 4, np.int32)},
        {"b": {"kernel": TREE["b"]["kernel"].reshape(3, 2)}},
        {"b": {"kernels": TREE["b"]["kernel"]}},
        {"b": TREE["b"]["kernel"]},
        {"d": {}},
    ],
)
def test_names_types_shapes_and_bytes_of_arrays_count(change):
    assert keys.of_arrays(TREE | change) != keys.of_arrays(TREE)


@pytest.mark.parametrize("leaf", [None, [np.zeros(1)], object(), {1: np.zeros(1)}])
def test_what_is_not_nested_dicts_of_arrays_is_refused(leaf):
    with pytest.raises(TypeError):
        keys.of_arrays({"a": leaf})


# Keys.


def test_the_order_of_a_key_s_parts_does_not_matter():
    parts = {"config": "1", "inputs/zoo": "2", "code": "3"}
    assert StageKey(parts).digest == StageKey(dict(reversed(parts.items()))).digest
    assert StageKey(parts).digest != StageKey({**parts, "code": "4"}).digest
    assert StageKey({"a": "b"}).digest != StageKey({"b": "a"}).digest


def test_changes_are_named():
    key = StageKey({"config": "1", "inputs/zoo": "2", "code": "3"})
    changes = key.changes({"config": "1", "inputs/zoo": "5", "images": "4", "code": "3"})
    assert changes == ["images", "inputs/zoo"]
    assert keys.in_words(changes) == "its images and its input zoo changed since"
    assert keys.in_words([]) == ""


# Source code.

SOURCE = '''
"""A module."""
RATE = 0.5
"""Of learning."""
def step(x):
    """Goes on."""
    return x * RATE  # a comment
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """``package(files)``: the digest of a package of these files, as a new process would see it."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(files, *modules):
        for name, text in files.items():
            path = tmp_path / "planted" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        keys._first_code.cache_clear()
        return keys.of_source(*(modules or ("planted",)))

    yield digest
    keys._first_code.cache_clear()


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("  # a comment", "", False),
        ("A module.", "Another.", False),
        ("Of learning.", "Of forgetting.", False),
        ("Goes on.", "Stops.", False),
        ('    """Goes on."""\n', "", False),
        ("x * RATE", "(x  *\n        RATE)", False),
        ("0.5", "0.50", False),
        ("0.5", "0.25", True),
        ("x * RATE", "RATE * x", True),
        ("return", "yield", True),
    ],
)
def test_code_counts_and_what_is_said_about_it_does_not(package, tmp_path, old, new, counts):
    file = tmp_path / "generator.py"
    file.write_text(SOURCE)
    before = package({"__init__.py": "", "steps.py": SOURCE}), keys.of_file(file)
    file.write_text(SOURCE.replace(old, new))
    after = package({"steps.py": SOURCE.replace(old, new)}), keys.of_file(file)
    assert [a != b for a, b in zip(after, before, strict=True)] == [counts] * 2


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [("// fast\n", "\n\n", False), ("/* a\nb */", "", False), ("  x", " x", False), ("1.0f", "2.0f", True)],
)
def test_cuda_counts_without_its_comments(package, old, new, counts):
    source = '#define A "//"  // fast\n/* a\nb */ int  x = 1.0f;\n'
    before = package({"__init__.py": "", "gpu/epoch.cu": source}, "planted.gpu")
    after = package({"gpu/epoch.cu": source.replace(old, new)}, "planted.gpu")
    assert (after != before) == counts


def test_a_package_is_all_files_below_it_and_a_module_only_itself(package):
    files = {"__init__.py": "", "a.py": "A = 1", "b/__init__.py": "", "b/c.py": "C = 1"}
    digests = {name: package(files, name) for name in ("planted", "planted.a", "planted.b", "planted.b.c")}
    changed = {name: package({"b/c.py": "C = 2"}, name) for name in digests}
    assert {name for name in digests if digests[name] != changed[name]} == set(digests) - {"planted.a"}
    assert package({}, "planted.a", "planted.b") == package({}, "planted.b", "planted.b.c", "planted.a")


def test_what_a_module_imports_counts_and_what_that_imports(package):
    files = {
        "first.py": "import planted.second\nfrom planted.inner import third, fourth as other\nimport os",
        "second.py": "def f():\n    from planted import inner, fifth",
        "inner/__init__.py": "from planted import unrelated",
        "inner/third.py": "from ..first import x\nfrom . import fourth",  # in a circle
        "inner/fourth.py": "from planted.apart import y",
        "fifth.py": "raise RuntimeError('is not run')",
        "apart.py": "from planted import behind",
        "behind.py": "",
        "unrelated.py": "",
    }
    package({"__init__.py": "", **files})
    found = keys.imported("planted.first", apart=("planted.apart",))
    names = ("fifth", "first", "inner.fourth", "inner.third", "second")
    assert found == tuple(f"planted.{name}" for name in names)


def test_a_generator_rests_on_what_it_imports_and_on_no_other_generator():
    cyclegan, mixed = (keys.imported(f"kernelgan.generators.{name}") for name in ("cyclegan", "reduce_noise"))
    needed = {f"kernelgan.{name}" for name in ("generators.mixing", "generators.backfitting", "refit")}
    assert needed <= set(mixed)
    assert not needed & set(cyclegan)
    assert "kernelgan.kernels" in cyclegan


def test_source_is_read_and_not_imported(package):
    package({"__init__.py": "raise SystemExit"})
    assert "planted" not in sys.modules
    assert keys.of_source("kernelgan.ops") != keys.of_source("kernelgan.keys")


def test_a_module_that_is_not_there_is_an_error():
    with pytest.raises(ModuleNotFoundError, match=r"kernelgan\.nowhere"):
        keys.of_source("kernelgan.nowhere")


@pytest.mark.parametrize("content", [None, b"def f(:", b"\0", b"\xff\xfe = 1"])
def test_a_file_without_code_is_named(tmp_path, content):
    file = tmp_path / "generator.py"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"generator\.py"):
        keys.of_file(file)


# Measurements.

KEY = StageKey({"config": "1", "code": "2"})
MADE = ({"auroc": 0.1, "kind": "null"}, {"worst": np.array([0.25, 0.5]), "scores": np.zeros((2, 3), np.int8)})


@pytest.fixture
def file(tmp_path):
    """Where measurements are kept."""
    return tmp_path / "black_cat" / "random.npz"


@pytest.fixture
def keep(file):
    """``keep(key)``: the measurements, and whether they were taken."""

    def run(key=KEY):
        taken = []

        def work():
            taken.append(True)
            return MADE

        record, arrays = keys.kept(file, key, work)
        assert record == MADE[0]
        assert arrays.keys() == MADE[1].keys()
        for name, values in MADE[1].items():
            assert arrays[name].dtype == values.dtype
            np.testing.assert_array_equal(arrays[name], values)
        return bool(taken)

    return run


def test_measurements_are_taken_once(keep):
    assert [keep(), keep(), keep()] == [True, False, False]


def test_with_another_key_they_are_taken_again(keep):
    assert keep()
    assert keep(StageKey({"config": "1", "code": "3"}))


def test_what_could_not_be_measured_is_not_kept(file):
    assert keys.kept(file, KEY, lambda: None) is None
    assert not file.exists()


def _truncate(content):
    return content[:-100]


def _flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda content: b"", lambda content: b"PK nothing"])
def test_damaged_measurements_are_moved_aside_and_taken_again(keep, file, damage, caplog):
    keep()
    damaged = damage(file.read_bytes())
    for aside in ("damaged-random.npz", "damaged-random.npz-2"):
        file.write_bytes(damaged)
        assert keep()
        assert (file.parent / aside).read_bytes() == damaged
        assert str(file) in caplog.text
    assert not keep()


def test_measurements_of_another_content_are_damaged(keep, file):
    keep()
    with np.load(file) as saved:
        arrays = dict(saved)
    np.savez(file, **arrays | {"worst": np.array([0.25, 0.75])})
    assert keep()


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "EIO"), MemoryError()]
)
def test_what_cannot_be_read_stays_and_is_an_error(keep, file, error, monkeypatch):
    keep()

    def fail(path):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(file), "read_bytes", fail)
        with pytest.raises(UserError, match=r"random\.npz cannot be read"):
            keep()
    assert [path.name for path in file.parent.iterdir()] == ["random.npz"]
    assert not keep()


def test_a_full_disk_is_told(keep, file, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys, "write_atomically", full)
    with pytest.raises(UserError, match=r"random\.npz cannot be written \(No space"):
        keep()


def test_the_key_is_in_the_file(keep, file):
    keep()
    with np.load(file) as saved:
        assert json.loads(str(saved["key"]))["parts"] == KEY.parts
