"""The library as docs/library.py shows it: the script itself, with smaller numbers."""

import contextlib
import importlib.util
import io
from pathlib import Path

import jax
import numpy as np
import pytest

import kernelgan as kg
from kernelgan import models
from kernelgan.data import quadrants
from kernelgan.data.pairs import ConceptImages

SCRIPT = Path(__file__).parents[1] / "docs" / "library.py"
SMALLER = {
    "train=12000": "train=320",
    "test=600": "test=160, image_size=16",
    "filters=(6, 16)": "filters=(2, 3)",
    "models=8": "models=2",
    '"epochs": 16': '"epochs": 1',
    '"images_per_epoch": 2560, "batch_size": 64': '"images_per_epoch": 32, "batch_size": 16',
    "kg.compose(*parents)": "kg.compose(*parents, images=64, rounds=0, sweeps=0)",
    "random_networks=64": "random_networks=4, resamples=20",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The names that the script defines, and what it printed."""
    text = SCRIPT.read_text()
    for number, smaller in SMALLER.items():
        assert number in text
        text = text.replace(number, smaller)
    folder = tmp_path_factory.mktemp("library")
    names = {}

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        exec(compile(text, str(SCRIPT), "exec"), names)
    return names, said.getvalue(), folder


def test_it_prints_the_table_and_saves_networks_that_come_back(ran):
    names, said, folder = ran
    assert "and_ensemble" in said
    assert "P-values cover" in " ".join(said.split())  # all of it is here, for there is no report
    assert "The report" not in said
    zoo = kg.load_zoo(folder / "black_cat.safetensors", network=names["network"].clone(outputs=4))
    made = names["networks"]["composed"]
    np.testing.assert_array_equal(zoo.params["conv1"]["kernel"], made["conv1"]["kernel"])
    np.testing.assert_array_equal(zoo.params["dense"]["bias"], made["dense"]["bias"])


def test_every_row_is_measured_and_there_is_a_verdict(ran):
    pair = ran[0]["evaluation"].pair
    assert {"composed", "random", "attribute_only", "object_only", "zipit"} <= set(pair.methods)
    assert all(pair.figure(name).known for name in pair.methods)
    assert pair.verdict.best == "composed"
    assert pair.data.leaked == 0


def test_networks_that_their_maker_does_not_give_again_are_refused(ran):
    names = ran[0]
    with pytest.raises(kg.UserError, match="again"):
        kg.evaluate(
            names["pair"],
            names["parents"],
            names["networks"],
            again=lambda parents: jax.tree.map(lambda leaf: 2 * leaf, names["networks"]),
        )


def test_zoos_have_the_shapes_of_the_glossary(ran):
    black = ran[0]["black"]
    assert {len(leaf) for leaf in jax.tree.leaves(black.params)} == {2}  # M
    assert black.history["train_loss"].shape == (2, 1)  # M, E


@pytest.mark.parametrize(
    ("networks", "fact"),
    [({}, "a dict"), ({"average": None}, r"nothing for conv1.kernel"), ({"": {"conv1": 3}}, "conv1.kernel")],
)
def test_what_are_no_networks_is_refused(ran, networks, fact):
    with pytest.raises(kg.UserError, match=f"^kernelgan.evaluate is given .*{fact}"):
        kg.evaluate(ran[0]["pair"], ran[0]["parents"], networks)


def test_a_name_of_a_baseline_is_refused(ran):
    """Zoos serve as well as their parameters."""
    names = ran[0]
    zoos = kg.Parents(names["black"], names["cat"])
    with pytest.raises(kg.UserError, match="zipit"):
        kg.evaluate(names["pair"], zoos, {"zipit": names["black"]})


@pytest.mark.parametrize("form", [lambda zoo: zoo, lambda zoo: zoo.params, lambda zoo: {"": zoo}])
def test_networks_need_no_name_when_they_are_given_or_made_again(ran, form):
    """They come as far as networks with one: to what makes them again, which here gives others."""
    names, made = ran[0], ran[0]["networks"]["composed"]
    with pytest.raises(kg.UserError, match=r"other networks \(generated\)"):
        kg.evaluate(names["pair"], names["parents"], made, again=lambda zoos: form(names["black"]))


def test_what_is_made_again_must_be_networks(ran):
    names, made = ran[0], ran[0]["networks"]["composed"]
    with pytest.raises(kg.UserError, match=r"^again gives nothing"):
        kg.evaluate(names["pair"], names["parents"], made, again=lambda zoos: None)


def test_a_zoo_is_printed_in_a_line(ran):
    assert repr(ran[0]["black"]) == "Zoo(2 networks of filters=(2, 3), kernel_size=5, outputs=2)"


@pytest.mark.parametrize(
    ("spoil", "fact"), [(lambda zoo: None, "nothing"), (lambda zoo: jax.tree.map(np.log, zoo), "not finite")]
)
def test_what_are_no_parents_is_refused(ran, spoil, fact):
    names = ran[0]
    with np.errstate(invalid="ignore"), pytest.raises(kg.UserError, match=f"zoo 2 of 2.*{fact}"):
        kg.evaluate(names["pair"], kg.Parents(names["black"], spoil(names["cat"].params)), names["networks"])


# What callers hand in is checked.


@pytest.fixture(scope="module")
def concept():
    """What a zoo may read: four images of 32 pixels."""
    groups = quadrants.Groups((), (np.arange(2), np.arange(2, 4)), (np.arange(2), np.arange(2, 4)))
    return ConceptImages("attribute", "black", ("cat",), groups, np.zeros((4, 32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("network", "given", "fact"),
    [
        ({}, {"models": 0}, "models is 0"),
        ({}, {"epochs": 0}, "epochs is 0"),
        ({}, {"batch_size": 0}, "batch_size is 0"),
        ({}, {"batch_size": 8.0}, r"batch_size is 8\.0"),
        ({}, {"images_per_epoch": -1}, "images_per_epoch is -1"),
        ({}, {"validation_images": 0}, "validation_images is 0"),
        ({"outputs": 4}, {}, "outputs=4"),
        ({"kernel_size": 40}, {}, "kernel_size=40"),
        ({"filters": (2, 3, 4)}, {}, "3 convolutions"),
    ],
)
def test_a_zoo_that_cannot_be_trained_is_refused(concept, network, given, fact):
    with pytest.raises(kg.UserError, match=fact):
        kg.train_zoo(kg.ConvNet(**network), concept, **given)


@pytest.mark.parametrize("take", [lambda pair: pair, lambda pair: pair.source.train.images])
def test_a_zoo_reads_the_images_of_a_concept(ran, take):
    given = take(ran[0]["pair"])
    with pytest.raises(kg.UserError, match=rf"{type(given).__name__}.*pair\.attribute"):
        kg.train_zoo(kg.ConvNet(), given)


@pytest.mark.parametrize("given", [lambda zoo: zoo, lambda zoo: {"": zoo}, lambda zoo: {"": zoo.params}])
def test_a_zoo_is_saved(make_parents, assert_trees_equal, tmp_path, given):
    params = make_parents(2, seed=1)
    path = kg.save(given(models.Zoo(params, models.network_of(params))), tmp_path / "zoo.npz")
    assert_trees_equal(kg.load_zoo(path).params, params)


@pytest.mark.parametrize("given", [lambda zoo: kg.Parents(zoo, zoo), lambda zoo: {"a": 3}, lambda zoo: {}])
def test_what_is_no_network_is_not_saved(make_parents, tmp_path, given):
    params = given(make_parents(2))
    with pytest.raises(kg.UserError, match=type(params).__name__):
        kg.save(params, tmp_path / "zoo.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "concepts"), [(14, 1), (16, 3)])
def test_probabilities_are_the_softmax_of_each_concepts_logits(network, images, size, concepts):
    module = network.clone(outputs=2 * concepts)
    initialise = jax.jit(jax.vmap(lambda key: models.initialise_convnet(module, size, key)))
    params = initialise(jax.random.split(jax.random.key(0), 2))
    shown = images[:, :size, :size]
    found = kg.probabilities(models.Zoo(params, models.network_of(params)), shown)
    assert found.shape == (2, len(shown), concepts)
    for member in range(2):
        one = jax.tree.map(lambda leaf, member=member: leaf[member], params)
        logits, _ = models.run_convnet(module, one, models.normalise_images(shown))
        expected = jax.nn.softmax(logits.reshape(len(shown), concepts, 2), axis=-1)[..., 1]
        np.testing.assert_allclose(found[member], expected, atol=1e-6)
        np.testing.assert_allclose(kg.probabilities(one, shown), found[member], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "show", "fact"),
    [
        (lambda params: params["conv1"], lambda images: images, "networks has nothing for conv1.kernel"),
        (lambda params: params, lambda images: images[:0], "images is .*at least 1"),
        (lambda params: params, lambda images: images / 255, "images is .*float64"),
        (
            lambda params: {**params, "dense": jax.tree.map(lambda leaf: leaf[..., :1], params["dense"])},
            lambda images: images,
            "1 logits",
        ),
    ],
)
def test_what_cannot_answer_is_refused(make_parents, images, change, show, fact):
    with pytest.raises(kg.UserError, match=fact):
        kg.probabilities(change(make_parents(2)), show(images))


@pytest.mark.parametrize(
    ("family", "settings", "fact"),
    [
        ("cyclegans", {}, "cyclegan"),
        ("cyclegan", {"hiden": 3}, "hiden"),
        ("cyclegan", {"hidden": 0}, "hidden is 0"),
    ],
)
def test_a_family_or_setting_that_is_not_known_is_refused(family, settings, fact):
    with pytest.raises(kg.UserError, match=fact):
        kg.generators.make(family, kg.ConvNet(), **settings)


def test_a_generator_of_tier_u_needs_probes(ran):
    generator = kg.generators.stateless(lambda key, parents, probes: {}, reads="U")
    with pytest.raises(kg.UserError, match="tier U"):
        kg.fit(generator, ran[0]["parents"])


def test_a_generator_is_fitted_to_zoos_as_to_their_parameters(make_parents):
    zoos = [models.Zoo(zoo, models.network_of(zoo)) for zoo in (make_parents(2), make_parents(2, seed=1))]
    generator = kg.generators.stateless(lambda key, parents, probes: {})._replace(
        view=lambda parents, probes: {
            "shift": parents.object["dense"]["bias"] - parents.attribute["dense"]["bias"]
        },
        init=lambda key, view: view,
    )
    expected = zoos[1].params["dense"]["bias"] - zoos[0].params["dense"]["bias"]
    for parents in (zoos, kg.Parents(*zoos), kg.Parents(*(zoo.params for zoo in zoos))):
        np.testing.assert_allclose(kg.fit(generator, parents).state["shift"], expected)


@pytest.mark.parametrize("given", ["reduce", None])
def test_what_is_no_generator_is_not_fitted(make_parents, given):
    with pytest.raises(kg.UserError, match=r"fit\(generator, parents\)"):
        kg.fit(given, [make_parents(2)] * 2)
    with pytest.raises(kg.UserError, match="as its generator"):
        kg.fit(make_parents(2), make_parents(2))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda zoo: (zoo,), "1 concepts"),
        (lambda zoo: (zoo, {**zoo, "conv1": None}), "zoo 2 of 2"),
        (lambda zoo: (zoo, jax.tree.map(lambda leaf: leaf * np.nan, zoo)), "finite"),
    ],
)
def test_parents_that_fit_cannot_take_are_refused(make_parents, change, fact):
    generator = kg.generators.stateless(lambda key, parents, probes: {})
    with pytest.raises(kg.UserError, match=fact):
        kg.fit(generator, change(make_parents(2)))


def test_a_zoo_of_more_images_than_there_are_takes_all_and_warns(ran):
    network, images = ran[0]["network"], ran[0]["pair"].attribute
    available = sum(map(len, images.groups.train))
    with pytest.warns(UserWarning, match=f"images_per_epoch is {available} instead of 1000000"):
        made = kg.train_zoo(
            network,
            images,
            models=np.int64(2),
            epochs=1,
            batch_size=8,
            images_per_epoch=10**6,
            validation_images=8,
        )
    assert made.history["train_loss"].shape == (2, 1)
    assert made.network == network


@pytest.mark.parametrize("exclude", [(), (("black", "cat"),)])
def test_rendered_probes_are_the_seeds_and_leave_the_conjunction_out(exclude):
    first = kg.probes.rendered(40, seed=3, size=16, exclude=exclude)
    assert first.shape == (40, 16, 16, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, kg.probes.rendered(40, seed=3, size=16, exclude=exclude))
    assert (first != kg.probes.rendered(40, seed=4, size=16, exclude=exclude)).any()


@pytest.mark.parametrize("name", ["automobile", "Automobiles", "car"])
def test_the_conjunction_is_never_drawn_under_any_of_its_names(monkeypatch, name):
    drawn = []

    def render(thing, colour, rng, size, exclude):
        assert exclude == {("red", "car")}
        drawn.append((colour, thing))
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(kg.probes.rendered_lib, "render", render)
    kg.probes._rendered.cache_clear()
    kg.probes.rendered(2000, seed=91, size=4, exclude=[("red", name)])
    assert ("red", "car") not in drawn
    assert len(set(drawn)) == 8 * len(kg.probes.rendered_lib.OBJECTS) - 1


def test_noise_has_the_spectrum_of_photographs_edges_and_colour_casts():
    images = kg.probes.noise(200, seed=0, size=32).astype(np.float64)
    assert images.shape == (200, 32, 32, 3)
    power = np.abs(np.fft.rfft2(images - images.mean(axis=(1, 2), keepdims=True), axes=(1, 2))) ** 2
    mean = power.mean(axis=(0, 3))
    slope = np.log(mean[0, 8] / mean[0, 2]) / np.log(8 / 2)
    assert -2.8 < slope < -1.6  # amplitude about 1 / f
    assert images.mean(axis=(1, 2)).std(axis=0).min() > 30
    steps = np.abs(np.diff(images.mean(axis=-1), axis=1)).reshape(200, -1)
    edges = np.percentile(steps, 95, axis=1) / np.maximum(np.median(steps, axis=1), 0.5)
    assert np.median(edges) > 5  # few large steps; of pink noise alone it is 2.9


def _example(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPT.parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_three_concepts_takes_the_worst_combination_and_refuses_an_empty_one():
    worst = _example("three_concepts").worst_combination
    rng = np.random.default_rng(0)
    holds = rng.random((400, 3)) < 0.5
    knows = 1 / (1 + np.exp(np.where(holds, -4.0, 4.0)[None] + rng.normal(size=(3, 400, 3))))
    assert worst(knows, holds) > 0.95
    assert worst(np.where([False, True, True], knows, 0.5), holds) == pytest.approx(
        0.5, abs=0.1
    )  # one is missing
    with pytest.raises(ValueError, match="'cat': True"):
        worst(knows[:, ~holds[:, 1]], holds[~holds[:, 1]])
