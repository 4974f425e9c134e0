import jax
import numpy as np
import pytest

from kernelgan import assemble, kernels, models

LAYERS = ("conv1", "conv2")
HIDDEN = 4


@pytest.fixture(scope="module")
def parents(make_parents):
    """Three networks of the attribute's zoo, five of the object's."""
    return make_parents(3, seed=1), make_parents(5, seed=2)


@pytest.fixture(scope="module")
def generators(parents):
    made = {}
    for layer, volume in kernels.extract(parents[0], LAYERS).items():
        keys = jax.random.split(jax.random.key(len(made)))
        initialise = jax.jit(models.KernelGenerator(HIDDEN).init)
        made[layer] = {
            direction: jax.device_get(initialise(key, volume)["params"])
            for direction, key in zip(("a2b", "b2a"), keys, strict=True)
        }
    return made


@pytest.fixture(scope="module")
def normalisers():
    """All four different."""
    return {
        "conv1": (kernels.Normaliser(0.1, 2.0), kernels.Normaliser(-0.2, 0.5)),
        "conv2": (kernels.Normaliser(0.3, 0.7), kernels.Normaliser(0.0, 3.0)),
    }


def test_a_head_holds_the_attributes_logits_and_then_the_objects():
    attribute = {"kernel": np.full((2, 12, 2), 1.0), "bias": np.array([[1.0, 2.0], [3.0, 4.0]])}
    objects = {"kernel": np.full((2, 12, 2), 5.0), "bias": np.array([[6.0, 7.0], [8.0, 9.0]])}
    found = assemble.two_concept_head(attribute, objects)
    np.testing.assert_array_equal(found["kernel"], np.broadcast_to([1.0, 1.0, 5.0, 5.0], (2, 12, 4)))
    np.testing.assert_array_equal(found["bias"], [[1, 2, 6, 7], [3, 4, 8, 9]])


def test_heads_are_counted_round_in_each_zoo(parents):
    found = assemble.heads_for(np.arange(7), *parents)
    for i in range(7):
        np.testing.assert_array_equal(found["bias"][i, :2], parents[0]["dense"]["bias"][i % 3])
        np.testing.assert_array_equal(found["kernel"][i, :, 2:], parents[1]["dense"]["kernel"][i % 5])


def test_members_are_taken_in_the_order_asked(parents):
    found = assemble.take_members(parents[0], np.array([2, 0, 2]))
    np.testing.assert_array_equal(found["conv1"]["kernel"], parents[0]["conv1"]["kernel"][[2, 0, 2]])


@pytest.mark.parametrize("bias", assemble.BIASES)
def test_networks_have_the_kernels_and_head_given_and_the_bias_asked_for(parents, bias):
    volumes = kernels.extract(parents[1], LAYERS)
    head = assemble.heads_for(np.arange(5), *parents)
    found = assemble.assemble(parents[1], volumes, head, bias=bias, layers=LAYERS)
    assert set(found) == {*LAYERS, "dense"}
    for layer in LAYERS:
        np.testing.assert_array_equal(found[layer]["kernel"], parents[1][layer]["kernel"])
        own = parents[1][layer]["bias"]
        np.testing.assert_array_equal(found[layer]["bias"], own if bias == "parent" else np.zeros_like(own))
    np.testing.assert_array_equal(found["dense"]["kernel"], head["kernel"])


def test_an_unknown_bias_is_refused(parents):
    with pytest.raises(ValueError, match="unknown bias 'mean'; known are zero, parent"):
        assemble.assemble(parents[0], {}, {}, bias="mean", layers=LAYERS)


def test_translation_in_parts_is_translation_at_once(parents, generators, normalisers, monkeypatch):
    volumes = kernels.extract(parents[1], LAYERS)["conv1"]
    source, target = normalisers["conv1"]

    def translate():
        generator = generators["conv1"]["a2b"]
        return assemble.translate(volumes, generator, hidden=HIDDEN, source=source, target=target)

    whole = translate()
    monkeypatch.setattr(assemble, "_TRANSLATED_AT_ONCE", 2)
    np.testing.assert_allclose(translate(), whole, atol=1e-6)


@pytest.mark.parametrize(("direction", "translated", "to"), [("a2b", 0, 1), ("b2a", 1, 0)])
def test_generation_is_normalise_translate_invert_and_carry_the_heads(
    parents, generators, normalisers, direction, translated, to
):
    found = assemble.generate(direction, *parents, generators, normalisers, hidden=HIDDEN, bias="parent")
    count = (3, 5)[translated]
    run = jax.jit(models.KernelGenerator(HIDDEN).apply)
    assert {len(leaf) for leaf in jax.tree.leaves(found)} == {count}
    for layer in LAYERS:
        source, target = normalisers[layer][translated], normalisers[layer][to]
        for i in range(count):
            kernel = parents[translated][layer]["kernel"][i]
            volume = (kernel.transpose(3, 0, 1, 2) - source.shift) / source.scale
            made = run({"params": generators[layer][direction]}, volume[None])[0]
            expected = np.asarray(made).transpose(1, 2, 3, 0) * target.scale + target.shift
            np.testing.assert_allclose(found[layer]["kernel"][i], expected, atol=1e-5)
            np.testing.assert_array_equal(found[layer]["bias"][i], parents[translated][layer]["bias"][i])
    expected = assemble.heads_for(np.arange(count), *parents)
    np.testing.assert_array_equal(found["dense"]["kernel"], expected["kernel"])
    np.testing.assert_array_equal(found["dense"]["bias"], expected["bias"])


def test_generation_leaves_its_inputs_as_they_were(parents, generators, normalisers, assert_trees_equal):
    before = jax.tree.map(np.array, (parents, generators))
    found = assemble.generate("a2b", *parents, generators, normalisers, hidden=HIDDEN, bias="parent")
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    assert_trees_equal((parents, generators), before)
