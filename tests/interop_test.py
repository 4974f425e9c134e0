"""Tests for kernelgan.interop and kernelgan.weights: layouts, zoos from elsewhere, files, refusals."""

import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import signal

from kernelgan import interop, models, weights
from kernelgan.types import UserError

ROOT = Path(__file__).parents[1]
SIZE = 16

REFERENCE = Path(os.environ.get("KERNELGAN_REFERENCE", ROOT.parent / "shared" / "seed_reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "zoo_black.npz").is_file(),
    reason=f"the reference's weights are not in {REFERENCE}; set KERNELGAN_REFERENCE to where they are",
)


@pytest.fixture
def arrays(make_parents):
    """PyTorch's arrays of three small networks."""
    return interop.to_torch(make_parents(3))


def _one(stacked, number=0):
    return jax.tree.map(lambda leaf: leaf[number], stacked)


def _floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


# Layout ---------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_pytorchs(make_parents):
    found = interop.to_torch(make_parents(5))
    assert {name: array.shape for name, array in found.items()} == {
        "conv1.weight": (5, 2, 3, 3, 3),
        "conv1.bias": (5, 2),
        "conv2.weight": (5, 3, 2, 3, 3),
        "conv2.bias": (5, 3),
        "fc1.weight": (5, 2, 12),
        "fc1.bias": (5, 2),
    }
    assert next(iter(found)) == "conv1.weight"
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


def test_imported_networks_answer_as_their_arrays_by_hand(network, tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (2, 3, 3, 3), "conv1.bias": (2,), "conv2.weight": (3, 2, 3, 3)}
    shapes |= {"conv2.bias": (3,), "fc1.weight": (2, 12), "fc1.bias": (2,)}
    arrays = {name: _floats(rng, *shape) for name, shape in shapes.items()}
    images = rng.uniform(-1, 1, (3, SIZE, SIZE, 3)).astype(np.float32)
    path = weights.write_arrays(tmp_path / "one.npz", arrays)
    loaded = interop.load_zoo(path, image_size=SIZE)
    assert loaded.network == network
    logits, features = models.run_convnet(network, _one(loaded.params), images)
    for number, image in enumerate(images):
        expected_logits, expected_features = _by_hand(arrays, np.float64(image).transpose(2, 0, 1))
        np.testing.assert_allclose(features[number], expected_features, atol=1e-4)
        np.testing.assert_allclose(logits[number], expected_logits, atol=1e-4)


# Zoos from elsewhere --------------------------------------------------------------------------------------


def _renamed(arrays, *names):
    """Arrays whose layers conv1, conv2, ... and fc1 have these names."""
    layers = dict(zip(dict.fromkeys(name.partition(".")[0] for name in arrays), names, strict=True))
    return {f"{layers[name.partition('.')[0]]}.{name.partition('.')[2]}": a for name, a in arrays.items()}


@pytest.mark.parametrize(
    "names",
    [
        ("module.conv1", "module.conv2", "module.fc1"),
        ("features.0", "features.10", "classifier.1"),
        ("stem", "body", "head"),  # in the order that the channels ask for
        ("conv1", "conv2", "dense"),
        ("0", "1", "2"),
    ],
)
@pytest.mark.parametrize("stacked", [True, False])
def test_layers_are_recognised_by_shape_and_order(
    names, stacked, arrays, make_parents, network, tmp_path, assert_trees_equal
):
    given = _renamed(arrays if stacked else _one(arrays), *names)
    path = weights.write_arrays(
        tmp_path / "zoo.npz", dict(reversed(given.items()) if names[0] == "0" else given)
    )
    loaded = interop.load_zoo(path)
    assert_trees_equal(loaded.params, make_parents(3) if stacked else _one(make_parents(3), np.s_[:1]))
    assert loaded.network == network


@pytest.mark.parametrize("separator", [".", "/"])
def test_our_own_layout_is_read(separator, make_parents, tmp_path, assert_trees_equal):
    params = make_parents(3)
    given = {
        separator.join((layer, leaf)): a for layer, leaves in params.items() for leaf, a in leaves.items()
    }
    assert_trees_equal(
        interop.load_zoo(weights.write_arrays(tmp_path / "z.safetensors", given)).params, params
    )


@pytest.mark.parametrize("filters", [(5,), (2, 3, 4)])
def test_networks_of_any_depth_go_both_ways(filters, tmp_path, assert_trees_equal):
    network = models.ConvNet(filters=filters, kernel_size=3, outputs=4)
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.device_get(jax.jit(jax.vmap(lambda key: models.initialise_convnet(network, 32, key)))(keys))
    loaded = interop.load_zoo(interop.save(params, tmp_path / "deep.npz"), image_size=32)
    assert loaded.network == network
    assert_trees_equal(loaded.params, params)


def test_several_sets_go_into_one_file_and_each_comes_out(suffix, make_parents, tmp_path, assert_trees_equal):
    sets = {"a2b": make_parents(3, seed=1, outputs=4), "b2a": make_parents(2, seed=2, outputs=4)}
    path = interop.save(sets, str(tmp_path / f"both.{suffix}"))
    for name, params in sets.items():
        assert_trees_equal(interop.load_zoo(path, name=name).params, params)
    _refused(r"both\.\w+ .*dense layers: a2b\.fc1, b2a\.fc1", interop.load_zoo, path)
    _refused(r"both\.\w+ has no set 'c'; .*a2b, b2a", interop.load_zoo, path, name="c")


def test_where_logit_0_says_yes_the_logits_change_places(arrays, make_parents, tmp_path):
    path = weights.write_arrays(tmp_path / "zoo.npz", arrays)
    loaded, params = interop.load_zoo(path, positive=0).params, make_parents(3)
    for leaf in ("kernel", "bias"):
        np.testing.assert_array_equal(loaded["dense"][leaf], params["dense"][leaf][..., ::-1])
    np.testing.assert_array_equal(loaded["conv2"]["kernel"], params["conv2"]["kernel"])
    _refused(r"positive is 2 .*2 logits; expected 1, or", interop.load_zoo, path, positive=2)
    four = interop.save(make_parents(2, outputs=4), tmp_path / "four.npz")
    _refused(r"positive is 0 .*4 logits", interop.load_zoo, four, positive=0)


def test_parents_are_the_first_so_many_and_must_be_enough(
    make_parents, network, tmp_path, assert_trees_equal
):
    params = make_parents(5)
    path = interop.save(params, tmp_path / "zoo.npz")
    for number in range(5):
        interop.save(_one(params, number), tmp_path / f"zoo/{number}.npz")
    for place in (path, tmp_path / "zoo"):
        assert_trees_equal(interop.load_parents(place, network, SIZE, 3), _one(params, np.s_[:3]))
        _refused(r"holds 5 networks; .* 6 .*zoo\.models", interop.load_parents, place, network, SIZE, 6)
    _refused(
        r"fc1\.weight is \(5, 2, 12\), expected \(5, 2, 108\)", interop.load_parents, path, network, 32, 3
    )
    wider = network.clone(filters=(4, 3))
    _refused(r"conv1\.weight is \(5, 2, 3, 3, 3\), .*\(5, 4", interop.load_parents, path, wider, SIZE, 3)
    four = interop.save(make_parents(3, outputs=4), tmp_path / "four.npz")
    _refused(r"fc1\.bias is \(3, 4\), expected \(3, 2\)", interop.load_parents, four, network, SIZE, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"a": (2, 3, 3, 3), "b": (3, 2, 3, 3), "c": (2, 12), "d": (2, 2)},
            r"dense layers: c, d; others: none",
        ),
        ({"a": (2, 3, 3, 3)}, r"holds no network.*dense layers: none"),
        ({"c": (2, 12)}, r"holds no network.*convolutions: none"),
        ({"b": (3, 3, 3, 3), "a": (3, 3, 3, 3), "c": (2, 12)}, r"which order .*\(a, b\)"),
        (
            {"a": (2, 3, 3, 3), "b": (3, 4, 3, 3), "c": (2, 12)},
            r"b\.weight is \(3, 4, 3, 3\), expected \(3, 2,",
        ),
        ({"a": (2, 3, 3, 3), "b": (3, 2, 5, 5), "c": (2, 12)}, r"b\.weight is .* expected \(3, 2, 3, 3\)"),
        ({"a": (2, 3, 3, 3), "b": (3, 2, 3, 3), "c": (2, 15)}, r"c\.weight is \(2, 15\), expected \(2, 12\)"),
        ({"a": (2, 1, 3, 3), "b": (3, 2, 3, 3), "c": (2, 12)}, r"a\.weight is \(2, 1, 3, 3\)"),
        ({"a": (2, 3, 3, 3), "b": (0, 2, 3, 3), "c": (2, 0)}, r"holds no network"),
        ({"a": (2, 3, 3, 3), "norm": (2,), "c": (2, 8)}, r"others: norm"),
    ],
)
def test_what_is_no_such_network_is_refused(given, message, tmp_path):
    arrays = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in given.items()}
    arrays |= {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in given.items()}
    _refused(message, interop.load_zoo, weights.write_arrays(tmp_path / "x.npz", arrays))


# Files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [None, 3])
def test_networks_come_back_to_the_bit(suffix, count, make_parents, network, tmp_path, assert_trees_equal):
    params = _one(make_parents(1)) if count is None else make_parents(count)
    path = weights.write_arrays(tmp_path / f"deep/{count}.{suffix}", interop.to_torch(params))
    expected = jax.tree.map(lambda leaf: leaf[None], params) if count is None else params
    assert_trees_equal(interop.load_zoo(path, network=network, image_size=SIZE).params, expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_directory_is_read_in_the_order_of_names(suffix, make_parents, tmp_path, assert_trees_equal):
    params, told = make_parents(3), []
    for number in (2, 0, 1):
        one = interop.to_torch(_one(params, number))
        weights.write_arrays(tmp_path / f"black_model_{number:04d}.{suffix}", one)
    (tmp_path / ".hidden").write_text("")
    found = interop.load_zoo(tmp_path, progress=lambda done, of: told.append((done, of))).params
    assert_trees_equal(found, params)
    assert told == [(1, 3), (2, 3), (3, 3)]


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
    "missing": (lambda a: a.pop("conv2.bias"), r"zoo\.npz .*conv2\.bias is missing"),
    "extra layer": (
        lambda a: a.update({"fc2.weight": np.zeros(3), "fc2.bias": np.zeros(3)}),
        r"zoo\.npz .*others: fc2",
    ),
    "extra array": (lambda a: a.update({"fc1.scale": np.zeros(3)}), r"zoo\.npz .*fc1\.scale is not expected"),
    "depth": (
        lambda a: a.update({"conv3.weight": a["conv2.weight"], "conv3.bias": a["conv2.bias"]}),
        r"zoo\.npz has 3 convolutions \(conv1, conv2, conv3\); expected 2",
    ),
    "misshapen": (
        lambda a: a.update({"conv1.weight": np.zeros((3, 2, 3, 5, 5), np.float32)}),
        r"conv1\.weight is \(3, 2, 3, 5, 5\), expected \(3, 2, 3, 3, 3\)",
    ),
    "unlike": (lambda a: a.update({"fc1.bias": a["fc1.bias"][0]}), r"fc1\.bias is \(2,\), expected \(3, 2\)"),
    "lengths": (
        lambda a: a.update({"conv1.bias": a["conv1.bias"][:2]}),
        r"conv1\.bias is \(2, 2\), expected \(3, 2\)",
    ),
    "empty": (lambda a: a.update({name: array[:0] for name, array in a.items()}), r"holds no network"),
    "integers": (
        lambda a: a.update({"fc1.bias": np.zeros((3, 2), np.int64)}),
        r"fc1\.bias is int64, expected floating point",
    ),
    "not finite": (
        _poison,
        r"conv2\.weight is not finite in network 1, 2; fc1\.bias is not finite in network 1\.",
    ),
    "overflow": (_overflow, r"zoo\.npz .*conv1\.bias is not finite in network 2"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_networks_that_do_not_fit_are_refused(case, arrays, network, tmp_path):
    change, message = MISFITS[case]
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(arrays)
    np.savez(tmp_path / "zoo.npz", **arrays)
    _refused(message, interop.load_zoo, tmp_path / "zoo.npz", network=network, image_size=SIZE)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"is empty"),
        (["a.npz", "b.safetensors"], r"holds \.npz, \.safetensors"),
        (["a.npz", "README"], r"holds \.npz, README"),
        (["a.npz", "more/c.npz"], r"holds \.npz, directories"),
        (["a.npz", "zoo.npz"], r"zoo\.npz holds 3 networks; expected one in each file"),
        (["a.npz", "generator.npz"], r"generator\.npz holds no network.*others: main\.0"),
        (["a.npz", "outputs.npz"], r"outputs\.npz .*fc1\.weight is \(4, 12\), expected \(2, 12\)"),
    ],
)
def test_directories_that_are_not_of_networks_are_refused(files, message, arrays, tmp_path):
    four = {name: np.concatenate([array[0]] * 2) for name, array in arrays.items() if name.startswith("fc1")}
    content = {"zoo.npz": arrays, "generator.npz": {"main.0.bias": np.zeros(3)}}
    content["outputs.npz"] = _one(arrays) | four
    for name in files:
        if name == "README":
            (tmp_path / name).write_text("")
        else:
            weights.write_arrays(tmp_path / name, content.get(name, _one(arrays)))
    _refused(message, interop.load_zoo, tmp_path)


# docs/weights.md ------------------------------------------------------------------------------------------


def test_the_snippets_of_the_documentation_run(torch, tmp_path, monkeypatch):
    out_of, into = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "weights.md").read_text(), re.DOTALL)
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.device_get(
        jax.jit(jax.vmap(lambda key: models.initialise_convnet(models.ConvNet(), 32, key)))(keys)
    )
    monkeypatch.chdir(tmp_path)
    weights.write_arrays(Path("black.safetensors"), interop.to_torch(params))
    found = {}
    exec(compile(out_of, "weights.md", "exec"), found)
    images = found["images"].permute(0, 2, 3, 1).numpy()
    logits, _ = models.run_convnet(models.ConvNet(), _one(params), images)
    answers = jax.nn.softmax(logits)[:, 1]
    np.testing.assert_allclose(found["answers"].detach().numpy(), answers, atol=1e-5)

    for number in range(3):
        weights.write_arrays(Path(f"black_models/{number}.pth"), interop.to_torch(_one(params, number)))
    four = jax.jit(lambda key: models.initialise_convnet(models.ConvNet(outputs=4), 32, key))(keys[0])
    weights.write_arrays(Path("networks/0.safetensors"), interop.to_torch(jax.device_get(four)))
    exec(compile(into, "weights.md", "exec"), found)
    assert found["generated"].params["dense"]["bias"].shape == (1, 4)
    again = interop.load_zoo("black_models.safetensors").params
    for leaf, expected in zip(jax.tree.leaves(again), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(leaf, expected)


# The reference's own weights ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    """Its arrays, whole."""
    return {
        name: weights.read_arrays(REFERENCE / f"{name}.npz")
        for name in ("zoo_black", "zoo_cat", "generators")
    }


@needs_reference
@pytest.mark.parametrize(("concept", "count"), [("black", 2749), ("cat", 1749)])
def test_the_references_zoos_go_both_ways_to_the_bit(reference, concept, count):
    params = interop.load_zoo(REFERENCE / f"zoo_{concept}.npz", image_size=32).params
    assert params["conv1"]["kernel"].shape == (count, 5, 5, 3, 6)
    for name, array in interop.to_torch(params).items():
        np.testing.assert_array_equal(array, reference[f"zoo_{concept}"][name])


@needs_reference
def test_the_references_pytorch_files_equal_its_arrays(torch, reference):
    files = sorted((REFERENCE / "pth").iterdir())
    assert len(files) >= 5
    for path in files:
        found = weights.read_arrays(path)
        if concept := re.fullmatch(r"(\w+)_model_(\d+)", path.stem):
            expected = {name: a[int(concept[2])] for name, a in reference[f"zoo_{concept[1]}"].items()}
        else:
            prefix = f"conv{2 if path.stem.startswith('2_') else 1}/{path.stem[-3:]}/"
            expected = {name: reference["generators"][prefix + name] for name in found}
        assert set(found) == set(expected)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=str(path))


@needs_reference
@pytest.mark.parametrize("name", ["A229", "A1234", "B229"])
def test_the_references_generated_networks_have_the_features_that_pytorch_computed(name, tmp_path):
    found = weights.read_arrays(REFERENCE / "reference_features.npz")
    arrays = {f"{layer}.weight": found[f"{name}/{layer}"] for layer in ("conv1", "conv2")}
    arrays |= {"conv1.bias": np.zeros(6), "conv2.bias": np.zeros(16)}
    arrays |= {"fc1.weight": np.zeros((2, 400)), "fc1.bias": np.zeros(2)}
    loaded = interop.load_zoo(weights.write_arrays(tmp_path / "network.npz", arrays))
    params, network = _one(loaded.params), loaded.network
    _, features = models.run_convnet(network, params, found["images"].transpose(0, 2, 3, 1))
    np.testing.assert_allclose(features, found[f"{name}/features"], atol=1e-4)
