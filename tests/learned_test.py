"""Tests for studies.learned: order and scale of filters change nothing; what is learned, from what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic_sources
from conftest import KilledError

from kernelgan import config, models
from kernelgan.data.images import Source
from kernelgan.evaluation import features
from kernelgan.generators import reduce, selection
from kernelgan.population import Training
from kernelgan.types import UserError
from studies.learned import CELLS, DESIGNS, hypernetwork, study, tasks
from studies.learned import __main__ as command
from studies.learned.design import of_name
from studies.learned.loss import lost

COUNT = 24


@pytest.fixture(scope="module")
def generated(network, make_parents, images):
    """``generated(first, second)``: what the same untrained hypernetwork makes of two parents."""
    design = hypernetwork.Hypernetwork(network, COUNT, width=8, heads=2, blocks=1)
    seen = design.look(images[:COUNT])
    canonical = jax.jit(lambda params: design.describe(params, seen))
    one = jax.tree.map(lambda leaf: leaf[0], make_parents(1, seed=1))
    weights = jax.jit(lambda key, like: design.initialise(key, like, seen))(jax.random.key(0), canonical(one))
    make = jax.jit(lambda a, o: design.generate(weights, (a, o), seen))
    return lambda first, second: make(canonical(first), canonical(second))


@pytest.fixture
def parents(make_parents):
    rng = np.random.default_rng(0)

    def loud(zoo):  # untrained biases are 0
        return jax.tree.map(
            lambda leaf: (leaf[0] + 0.1 * rng.normal(size=leaf[0].shape)).astype(np.float32), zoo
        )

    return loud(make_parents(1, seed=1)), loud(make_parents(1, seed=2))


def _reordered(params):
    """The same function: filters of both layers in another order."""
    first, second = (
        np.arange(params["conv1"]["bias"].size)[::-1],
        np.roll(np.arange(params["conv2"]["bias"].size), 1),
    )
    head = params["dense"]["kernel"].reshape(len(second), -1, 2)[second].reshape(-1, 2)
    return {
        "conv1": jax.tree.map(lambda leaf: leaf[..., first], params["conv1"]),
        "conv2": {
            "kernel": params["conv2"]["kernel"][:, :, first][..., second],
            "bias": params["conv2"]["bias"][second],
        },
        "dense": {"kernel": head, "bias": params["dense"]["bias"]},
    }


def _rescaled(params):
    """The same function: filters louder, what reads them softer."""
    scales = 2.0 ** np.arange(params["conv1"]["bias"].size)
    return {
        **params,
        "conv1": jax.tree.map(lambda leaf: leaf * scales, params["conv1"]),
        "conv2": {**params["conv2"], "kernel": params["conv2"]["kernel"] / scales[:, None]},
    }


@pytest.mark.parametrize("change", [_reordered, _rescaled])
@pytest.mark.parametrize("side", [0, 1])
def test_what_changes_no_parent_s_function_changes_no_network(
    network, generated, parents, images, change, side
):
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), parents[side], change(parents[side]))
    own, same = features.population_logits(network, stacked, images)
    np.testing.assert_allclose(own, same, atol=1e-4)
    changed = tuple(change(params) if place == side else params for place, params in enumerate(parents))
    made, again = generated(*parents), generated(*changed)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-3), made, again)


def test_heads_are_the_ridge_regression_that_is_shrunk_towards_the_mixed_ones():
    rng = np.random.default_rng(0)
    maps, heads, answers = (rng.normal(size=size) for size in ((3, 4, 20), (3, 4, 2), (20, 2)))
    slopes, intercepts = hypernetwork._fitted(*map(jnp.asarray, (maps, heads, answers)), 0.5)
    scale = np.sqrt(maps.var(axis=2).mean(axis=1))
    own = (maps / scale[:, None, None]).reshape(12, 20).T
    prior = (heads * scale[:, None, None]).reshape(12, 2)
    centred, wanted = own - own.mean(axis=0), answers - answers.mean(axis=0)
    gram = centred.T @ centred / 20 + 0.5 * np.eye(12)
    expected = prior + np.linalg.solve(gram, centred.T @ (wanted - centred @ prior) / 20)
    np.testing.assert_allclose(slopes, expected / np.repeat(scale, 4)[:, None], atol=1e-4)
    given = maps.reshape(12, 20).T @ np.asarray(slopes) + np.asarray(intercepts)
    np.testing.assert_allclose(given.mean(axis=0), answers.mean(axis=0), atol=1e-4)


@pytest.fixture(scope="module")
def designs(network):
    return {name: of_name(name, network, 64) for name in DESIGNS}


def _dead(params):
    return {**params, "conv1": {**params["conv1"], "bias": params["conv1"]["bias"] - 100}}


def _assert_finite(value, gradient):
    assert np.isfinite(value)
    leaves = jax.tree.leaves(gradient)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(np.abs(leaf).max() > 0 for leaf in leaves)


def test_the_hypernetwork_s_loss_has_a_finite_gradient_also_of_dead_filters(network, parents, images):
    design = hypernetwork.Hypernetwork(network, 64, width=8, heads=2, blocks=1)
    seen = design.look(images)

    @jax.jit
    def slope(*parents):
        known = tuple(design.describe(params, seen) for params in parents)

        def loss(weights):
            return lost(network, design.generate(weights, known, seen), parents, images[:16])

        return jax.value_and_grad(loss)(design.initialise(jax.random.key(0), known[0], seen))

    _assert_finite(*slope(_dead(parents[0]), parents[1]))


def test_the_gradient_of_learned_probes_is_the_slope_of_the_loss(
    network, designs, parents, images, monkeypatch
):
    """Against differences, in two directions; what is chosen, and the weights of errors, are held.

    It is finite also of dead filters.
    """
    design = designs["probes"]
    start, kept, left = jnp.asarray(design.look(images)[0]), [], None

    def held(function):
        def call(*given):
            if left is None:
                kept.append(function(*given))
            return kept[-1] if left is None else left.pop(0)

        return call

    for module, names in ((selection, ("select", "exchange")), (reduce, ("_balanced", "_cost"))):
        for name in names:
            monkeypatch.setattr(module, name, held(getattr(module, name)))

    def loss(seen, parents):
        made = design.generate({"images": seen}, parents, ())
        return lost(network, made, parents, images[:16]), tuple(kept)

    slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, _), gradient = slope(start, (_dead(parents[0]), parents[1]))
    _assert_finite(value, gradient)
    (_, left), gradient = slope(start, parents)
    left, gradient = list(left), np.asarray(gradient)
    held_loss = jax.jit(lambda seen: loss(seen, parents)[0])
    rng = np.random.default_rng(0)
    for _ in range(2):
        along = np.abs(gradient) * rng.choice([-1, 1], gradient.shape) + 0.5 * gradient
        along /= np.linalg.norm(along)
        low, high = (float(held_loss(start + step * along)) for step in (-0.05, 0.05))
        assert (high - low) / 0.1 == pytest.approx(np.sum(gradient * along), rel=0.1)


def test_probes_that_are_no_whole_blocks_are_refused(designs, images):
    with pytest.raises(UserError, match="10 probes; expected a multiple of 64"):
        designs["probes"].look(images[:10])


@pytest.mark.parametrize("flags", [["--steps=30"], ["--seeds=0"], ["--concepts=0"], ["--cells=parent"]])
def test_settings_that_cannot_be_are_refused(capsys, flags):
    assert command.main(flags) == 2
    assert flags[0].split("=")[0] in capsys.readouterr().err


def test_the_table_has_all_rows():
    rows = {
        "and_ensemble": {"black cat": {"worst": [0.9, 0.8]}},
        "both": {"black cat": {"worst": [0.7, 0.6], "correlation": [0.5, 0.7]}},
    }
    lines = command.table(rows, {"both": "both new"}).splitlines()
    assert lines[2] == "| and_ensemble | 0.850 | 1.00 |  |"
    assert lines[3] == "| both new | 0.650 | 0.43 | 0.600 |"


# What is learned from ---------------------------------------------------------------------------------------

HELD_OUT = [("black", "cat")]


@pytest.fixture(scope="module")
def part():
    train, test = (
        synthetic_sources.noise_images(count, seed, "image", unknown)
        for count, seed, unknown in ((1600, 0, 0.1), (400, 1, 0.1))
    )
    for images, rng in ((train, np.random.default_rng(2)), (test, np.random.default_rng(3))):
        for name in ("green", "blue"):
            images.attributes[name] = rng.integers(0, 2, len(images)).astype(np.int8)
    return synthetic_sources.partition(Source("noise", train, test))


@pytest.fixture(scope="module")
def concepts(part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "_FEWEST", 100)
        return tasks.concepts(part, HELD_OUT, count=3, own=6, other=1)


@pytest.mark.parametrize("block", ["black", "black:", "black:cat:dog", ":cat"])
def test_a_block_that_is_none_is_refused(block):
    with pytest.raises(UserError, match="--block"):
        study.read(config.parse(config.default("reduce")), block)


def test_no_concept_is_told_from_images_of_the_block_or_for_validation(part, concepts):
    train = part.source.train
    both = (train.attributes["black"] != 0) & (train.objects["cat"] != 0)  # surely or perhaps
    assert both.any()
    for concept in concepts:
        assert (concept.holds[both | part.validation] == -1).all()
        assert (concept.holds == 1).any()
        assert (concept.holds == 0).any()


def test_concepts_are_the_block_s_own_then_others_without_them(part, concepts):
    assert [(c.side, c.name, c.models) for c in concepts[:4]] == [
        ("attribute", "black", 6),
        ("attribute", "red", 1),
        ("attribute", "green", 1),
        ("attribute", "blue", 1),
    ]
    objects = [c.name for c in concepts if c.side == "object"]
    assert objects == ["cat", "dog", "car", "dog or car"] or objects == ["cat", "dog", "car", "car or dog"]
    union, dog, car = concepts[-1].holds, concepts[-3].holds, concepts[-2].holds
    np.testing.assert_array_equal(union == 1, (dog == 1) | (car == 1))
    np.testing.assert_array_equal(union == 0, (dog == 0) & (car == 0))


def test_more_concepts_than_can_be_made_are_refused(part):
    with pytest.raises(UserError, match="--concepts=9; no more than 7 can be made of 3 attributes"):
        tasks.concepts(part, HELD_OUT, count=9, own=6, other=1)


@pytest.mark.parametrize("cell", CELLS)
def test_a_training_draws_nothing_that_is_judged_or_new(part, concepts, cell, monkeypatch):
    monkeypatch.setattr(study, "FEW", 1)
    block = study.Block(part, HELD_OUT, concepts, {}, np.zeros(0, np.uint8))
    pairs, images = study.learned_from(block, cell)
    train = part.source.train
    known = {"attribute": cell in ("parents", "object"), "object": cell in ("parents", "attribute")}
    for side, concept, drawn in zip(("attribute", "object"), HELD_OUT[0], pairs.T, strict=True):
        own = block.numbers(block.own(side)[concept])
        judged = own[: study._JUDGED]
        assert not np.isin(drawn, judged).any()
        assert np.isin(own[study._JUDGED :], drawn).all() == known[side]
        assert np.isin(drawn, own).any() == known[side]
        of_side = np.concatenate([block.numbers(n) for n, c in enumerate(concepts) if c.side == side])
        assert np.isin(drawn, of_side).all()
        several = len({n for n, c in enumerate(concepts) if np.isin(block.numbers(n), drawn).any()}) > 1
        assert several == (cell != "few")
        shown = getattr(train, f"{side}s")[concept][images]
        assert (shown == 1).any() if known[side] else (shown == 0).all()  # surely not
    assert ((train.attributes["black"][images] == 0) | (train.objects["cat"][images] == 0)).all()


@pytest.fixture(scope="module")
def block(part, concepts, make_parents):
    """Of two attributes and two objects, with untrained networks."""
    held_out = [(colour, thing) for colour in ("black", "red") for thing in ("cat", "dog")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "_FEWEST", 100)
        concepts = tasks.concepts(part, held_out, count=1, own=6, other=1)
    networks = make_parents(sum(concept.models for concept in concepts), seed=3)
    networks = jax.tree.map(
        lambda leaf: leaf + np.random.default_rng(4).normal(0, 0.1, leaf.shape).astype(np.float32), networks
    )
    return study.Block(part, held_out, concepts, networks, study.probes_of(part, held_out, 64))


def test_probes_show_no_concept_of_the_block(part, block):
    train = part.source.train
    photographs, noise = np.split(block.probes, 2)
    for image in photographs:
        (number,) = np.flatnonzero((train.images == image).all(axis=(1, 2, 3)))
        for pair in block.held_out:
            assert train.attributes[pair[0]][number] == 0
            assert train.objects[pair[1]][number] == 0
    assert len(noise) == 32
    with pytest.raises(UserError, match="photographs show no concept of the block; expected 5000"):
        study.probes_of(part, block.held_out, 10_000)


class _Averages:
    """The smallest design: the parents' mean, scaled; its scale is learned, and stays under a bound."""

    pairs, rate, decay = 2, 0.5, 0.0

    def look(self, images):
        return (images.mean(keepdims=True),)

    def describe(self, params, seen):
        return params

    def initialise(self, key, like, seen):
        return {"scale": jnp.ones(()) + 0.01 * jax.random.normal(key)}

    def generate(self, weights, parents, seen):
        mean = jax.tree.map(lambda *leaves: weights["scale"] * sum(leaves) / 2, *parents)
        head = [
            jnp.concatenate([leaf, leaf], axis=-1)
            for leaf in (mean["dense"]["kernel"], mean["dense"]["bias"])
        ]
        return {**mean, "dense": {"kernel": head[0], "bias": head[1]}}

    def bounded(self, weights):
        return {"scale": jnp.clip(weights["scale"], 0.9, 1.1)}


def test_a_training_that_was_killed_goes_on_to_the_same_generators(block, new_saver, monkeypatch):
    monkeypatch.setattr(study, "PACE", 2)
    drawn, training = study.draws(block, ["both", "parents"], 2), study.Training(6, images=8)

    def trained(saver):
        return study.train(block, _Averages(), drawn, training, saver, list("abcd"))

    saver = new_saver(killed_after=1)
    with pytest.raises(KilledError):
        trained(saver)
    resumed, whole = trained(saver), trained(new_saver())
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert whole["lost"].shape == (4, 3)
    scales = whole["weights"]["scale"]
    assert len(set(scales.tolist())) > 1
    assert ((scales >= 0.9) & (scales <= 1.1)).all()


def test_probes_that_have_learned_nothing_are_the_closed_form_s_row(network, block):
    """The same rounds, patches and ridges."""
    design = of_name("probes", network, 64)
    images = design.look(block.probes)[0][None]
    block = block._replace(held_out=block.held_out[:1])
    rows = study.evaluate(block, design, {"images": images}, ["both"], 1, most=64)
    for pair, figures in rows["reduce, the same 64 images"].items():
        np.testing.assert_allclose(rows["both"][pair]["correlation"], figures["correlation"], atol=5e-4)
        np.testing.assert_allclose(rows["both"][pair]["worst"], figures["worst"], atol=2e-3)
    assert {"reduce, 64 images that both may see", "reduce_noise, 64 images", "and_ensemble"} <= rows.keys()


def test_networks_are_known_by_the_order_of_their_concepts(part, monkeypatch, tmp_path):
    """Two blocks of the same pairs: networks of one are not taken for those of the other."""
    monkeypatch.setattr(tasks, "_FEWEST", 100)
    trained = []

    def train(network, images, learned, training, *, saver, progress):
        trained.append([concept.name for concept in learned])
        return {"numbers": np.zeros(1)}

    monkeypatch.setattr(tasks, "train", train)
    settings = config.parse(config.default("reduce"))
    for names in (("black", "red"), ("red", "black"), ("black", "red")):
        held_out = [(name, "cat") for name in names]
        study.load(settings, part, held_out, 1, study.Training(25, probes=4), tmp_path)
    assert trained == [
        ["black", "red", "green", "cat", "dog"],
        ["red", "black", "green", "cat", "dog"],
    ]


def test_networks_of_concepts_are_trained_and_tell_them(part, concepts):
    """Planted: the images of a concept are bright."""
    concept = concepts[1]
    images = part.source.train.images // 2
    images[concept.holds == 1] += 100
    network = models.ConvNet((2, 3), 5)
    training = Training(3, 320, 32, 0.01, (1.0, 1.0))
    made = tasks.train(network, images, [concept], training, saver=tasks.engine.NOWHERE, progress=_silent)
    logits = features.population_logits(network, made, images)
    told = (logits[0, :, 1] > logits[0, :, 0]) == (concept.holds == 1)
    assert told[concept.holds >= 0].mean() > 0.9


def _silent(done, total, metrics):
    pass
