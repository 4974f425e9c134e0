"""Tests for kernelgan.data.tfds: every spec on records of its documented features, and prepared CIFAR-10."""

import builtins
import dataclasses
import os
import sys
from pathlib import Path

import absl.logging
import numpy as np
import pytest

from kernelgan.data import colour, tfds
from kernelgan.types import UserError

_SIBLING = Path(__file__).parents[2] / "shared" / "tfds"
_DATA_DIR = os.environ.get("TFDS_DATA_DIR", str(_SIBLING))
needs_cifar10 = pytest.mark.skipif(
    not (Path(_DATA_DIR) / "cifar10").is_dir(),
    reason=f"CIFAR-10 is not prepared in {_DATA_DIR}; set TFDS_DATA_DIR to where it is",
)

BLACK, RED = (np.full((48, 40, 3), rgb, np.uint8) for rgb in ((5, 5, 5), (210, 20, 20)))


def _pet(kind, *colours):
    return {
        "PetID": b"id",
        "attributes": {
            "Type": kind,
            "Age": 3,
            **dict(zip(("Color1", "Color2", "Color3"), colours, strict=True)),
        },
        "image": BLACK,
        "image/filename": f"{kind}-{colours[0]}.jpg".encode(),
        "label": 2,
    }


def _face(**held):
    return {
        "image": np.zeros((218, 178, 3), np.uint8),
        "landmarks": {"lefteye_x": 1},
        "attributes": dict.fromkeys(tfds.CELEB_A_ATTRIBUTES, False) | held,
        "identity": {"Identity_No": 7},
    }


def _shape(hue, shape):
    return {"image": np.zeros((64, 64, 3), np.uint8), "label_object_hue": hue, "label_shape": shape}


RECORDS = {
    "cifar10": (
        [
            {"id": b"train_cat_1", "image": BLACK[:32, :32], "label": 3},
            {"id": b"train_truck_2", "image": RED[:32, :32], "label": 9},
        ],
        {"black": [1, 0], "red": [0, 1]},
        {"cat": [1, 0], "truck": [0, 1], "frog": [0, 0]},
        ("x/train_cat_1", "x/train_truck_2"),
    ),
    "pet_finder": (
        [_pet(2, 1, 0, 0), _pet(1, 1, 7, 0), _pet(1, 2, 7, 0), _pet(2, 7, 0, 0), _pet(2, 0, 0, 0)],
        {"black": [1, -1, 0, 0, -1], "white": [0, -1, -1, 1, -1]},
        {"cat": [1, 0, 0, 1, 1], "dog": [0, 1, 1, 0, 0]},
        ("x/2-1.jpg", "x/1-1.jpg", "x/1-2.jpg", "x/2-7.jpg", "x/2-0.jpg"),
    ),
    "shapes3d": (
        [_shape(0, 0), _shape(7, 2)],
        {"red": [1, 0], "blue": [0, 1]},
        {"cube": [1, 0], "sphere": [0, 1]},
        ("x/0", "x/1"),
    ),
    "celeb_a": (
        [_face(Black_Hair=True), _face(Eyeglasses=True, Black_Hair=True), _face()],
        {"Black_Hair": [1, 1, 0]},
        {"Eyeglasses": [0, 1, 0]},
        ("x/0", "x/1", "x/2"),
    ),
    "oxford_iiit_pet": (
        [
            {"file_name": "Bombay_1.jpg", "image": BLACK, "label": 7, "species": 0},
            {"file_name": "beagle_1.jpg", "image": RED, "label": 4, "species": 1},
        ],
        {"black": [1, 0]},
        {"cat": [1, 0], "dog": [0, 1], "Bombay": [1, 0], "beagle": [0, 1]},
        ("x/Bombay_1.jpg", "x/beagle_1.jpg"),
    ),
}


def _image_set(name, records, attributes, objects, **options):
    return tfds.image_set(
        tfds.SPECS[name],
        iter(records),
        count=len(records),
        attributes=tuple(attributes),
        objects=tuple(objects),
        image_size=16,
        prefix="x",
        **options,
    )


def test_every_spec_has_records_to_test_it_on():
    assert set(RECORDS) == set(tfds.SPECS)


@pytest.mark.parametrize("name", RECORDS)
def test_documented_records_are_labelled(name):
    records, attributes, objects, names = RECORDS[name]
    images = _image_set(name, records, attributes, objects)
    assert images.images.shape == (len(records), 16, 16, 3)
    assert images.images.dtype == np.uint8
    assert {key: labels.tolist() for key, labels in images.attributes.items()} == attributes
    assert {key: labels.tolist() for key, labels in images.objects.items()} == objects
    assert all(labels.dtype == np.int8 for labels in (*images.attributes.values(), *images.objects.values()))
    assert images.names == names
    assert not images.rest.any()


def test_specs_name_the_concepts_of_the_catalogue():
    sizes = {name: (len(spec.attributes.names), len(spec.objects.names)) for name, spec in tfds.SPECS.items()}
    assert sizes == {
        "cifar10": (len(colour.TERMS), 10),
        "pet_finder": (7, 2),
        "shapes3d": (10, 4),
        "celeb_a": (40, 40),
        "oxford_iiit_pet": (len(colour.TERMS), 39),
    }


def test_a_missing_feature_is_named():
    with pytest.raises(
        UserError, match=r"A record of x lacks the feature 'species'; it has image, file_name"
    ):
        _image_set("oxford_iiit_pet", [{"image": BLACK, "file_name": "a"}], (), ("cat",))


def _load(name="cifar10", data_dir="", attributes=("black",), objects=("cat",), **options):
    return tfds.load(
        name, data_dir=data_dir, attributes=attributes, objects=objects, image_size=8, seed=0, **options
    )


def test_unknown_names_list_the_known_ones():
    with pytest.raises(
        UserError, match=r"no data set 'cifar'; known are cifar10, pet_finder, shapes3d, celeb_a"
    ):
        _load("cifar")
    with pytest.raises(
        UserError, match=r"no attribute 'pink'; it has black, white, .* Mend pairs.attributes"
    ):
        _load(attributes=("black", "pink"))
    with pytest.raises(
        UserError, match=r"no object 'cow'; it has airplane, automobile, .* Mend pairs.objects"
    ):
        _load(objects=("cow",))


@pytest.mark.parametrize("name", tfds.SPECS)
def test_a_data_set_that_is_not_prepared_gives_the_command(name, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    spec = tfds.SPECS[name]
    command = f"pip install tensorflow && tfds build {name} --data_dir={tmp_path} --file_format=array_record"
    with pytest.raises(UserError, match=f"{name} is not prepared for random access in {tmp_path}") as error:
        _load(name, str(tmp_path), spec.attributes.names[:1], spec.objects.names[:1])
    assert str(error.value).endswith(command)


def test_a_missing_package_gives_the_command(monkeypatch):
    original = builtins.__import__

    def without_tfds(name, *args, **kwargs):
        if name == "tensorflow_datasets":
            raise ModuleNotFoundError("No module named 'tensorflow_datasets'", name=name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tfds)
    with pytest.raises(
        UserError, match=r"tensorflow_datasets, which is not installed. Run: pip install tensorflow-d"
    ):
        _load()


def test_a_data_set_of_one_split_is_cut_by_content(monkeypatch):
    rng = np.random.default_rng(0)
    records = [
        _shape(i % 10, i % 4) | {"image": rng.integers(0, 256, (8, 8, 3), np.uint8)} for i in range(100)
    ]
    records += records  # exact duplicates fall on the same side
    asked = []
    monkeypatch.setattr(tfds, "_records", lambda name, split, data_dir: asked.append(split) or records)
    source = _load("shapes3d", "", ("red",), ("cube",))
    train, test = ({image.tobytes() for image in part.images} for part in (source.train, source.test))
    assert asked == ["train[:60000]"]
    assert not train & test
    assert len(train | test) == 100
    assert 10 <= len(test) <= 30
    assert source.train.names[0].startswith("shapes3d/train[:60000]/")


class _Cut:
    """Records as TFDS gives them of a file that ends too early."""

    def __len__(self):
        return 5

    def __getitem__(self, number):
        if number == 3:
            raise RuntimeError("Corrupted Riegeli/records file: chunk header hash mismatch\nmore")
        return RECORDS["cifar10"][0][0]


def test_a_cut_file_names_the_record_the_place_and_the_command(monkeypatch):
    monkeypatch.setattr(tfds, "_records", lambda name, split, data_dir: _Cut())
    with pytest.raises(UserError) as error:
        _load(data_dir="there")
    command = tfds.prepare_command("cifar10", "there")
    for fact in ("Record 3 of 5", "cifar10/train", " there ", "hash mismatch)", command):
        assert fact in str(error.value)


@pytest.mark.parametrize("size", [0, 3_000_000, None])
@needs_cifar10
def test_a_cut_or_missing_shard_of_cifar10_is_no_traceback(monkeypatch, tmp_path, size):
    pytest.importorskip("tensorflow_datasets")
    (version,) = (Path(_DATA_DIR) / "cifar10").iterdir()
    copy = tmp_path / "cifar10" / version.name
    copy.mkdir(parents=True)
    for path in version.iterdir():
        if "test.array_record" not in path.name:
            (copy / path.name).symlink_to(path)
        elif size is not None:
            (copy / path.name).write_bytes(path.read_bytes()[:size])
    monkeypatch.setitem(
        tfds.SPECS, "cifar10", dataclasses.replace(tfds.SPECS["cifar10"], train="test", test=None)
    )
    with pytest.raises(UserError, match=r"cifar10/test") as error:
        _load(data_dir=str(tmp_path))
    assert str(copy) in str(error.value)


@needs_cifar10
@pytest.mark.parametrize(
    ("words", "shown"), [("OpenCV is not installed. We recommend it", False), ("damaged", True)]
)
def test_tfds_gives_no_advice_and_its_warnings_are_shown(words, shown, caplog):
    tfds._records("cifar10", "test", _DATA_DIR)
    logger = absl.logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    try:
        absl.logging.warning(words)
    finally:
        logger.removeHandler(caplog.handler)
    assert any(record.getMessage() == words for record in caplog.records) is shown


@needs_cifar10
def test_cifar10_is_read_without_tensorflow_and_has_many_pairs(monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    had_tensorflow = "tensorflow" in sys.modules
    only_test = tfds.DatasetSpec(
        tfds.SPECS["cifar10"].attributes,
        tfds.SPECS["cifar10"].objects,
        train="test",
        test="train[:100]",
        name_key="id",
    )
    monkeypatch.setitem(tfds.SPECS, "cifar10", only_test)
    told = []
    source = tfds.load(
        "cifar10",
        data_dir=_DATA_DIR,
        attributes=colour.TERMS,
        objects=tfds.CIFAR10_CLASSES,
        image_size=32,
        seed=0,
        progress=lambda done, of: told.append((done, of)),
    )
    assert ("tensorflow" in sys.modules) == had_tensorflow
    assert source.name == "tfds:cifar10"
    assert (len(source.train), len(source.test)) == (10_000, 100)
    assert told[-1] == (10_100, 10_100)
    assert source.train.images.shape == (10_000, 32, 32, 3)
    assert source.train.names[0] == "cifar10/test/test_truck_0053"
    assert all(labels.sum() == 1000 for labels in source.train.objects.values())
    conjunctions = {
        (attribute, name): int(((a == 1) & (o == 1)).sum())
        for attribute, a in source.train.attributes.items()
        for name, o in source.train.objects.items()
    }
    assert sum(count >= 30 for count in conjunctions.values()) == 55
    assert conjunctions["black", "cat"] == 156
    assert conjunctions["red", "automobile"] == 149
    assert conjunctions["brown", "horse"] == 210
