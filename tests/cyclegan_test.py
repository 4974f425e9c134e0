import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kernelgan import kernels
from kernelgan.generators import Parents, base, check, cyclegan, fitting
from kernelgan.types import UserError

HIDDEN = 4
CONFIG = cyclegan.Config(
    normalisation="none", hidden=HIDDEN, epochs=(8, 2), batch_size=(2, 3), learning_rate=(2e-2, 2e-2)
)
LAYERS = ("conv1", "conv2")


def _volumes(seed, members=5, filters=3, size=3, channels=2):
    shape = (members, filters, size, size, channels)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(4)
    shapes = jax.eval_shape(
        lambda key: cyclegan.initialise(HIDDEN, _volumes(0), 2e-3, key), jax.random.key(0)
    )
    return {
        name: jax.tree.map(
            lambda leaf, scale=0 if "moments" in name else 0.2: rng.normal(0, scale, leaf.shape).astype(
                leaf.dtype
            ),
            leaves,
        )
        for name, leaves in shapes.items()
    }


@pytest.fixture(scope="module")
def batches():
    return _volumes(1, members=3), _volumes(2, members=3)


# The losses, written out.


def _generate(params, volumes):
    hidden = nn.relu(nn.Conv(HIDDEN, (3, 3, 3)).apply({"params": params["encode"]}, volumes))
    return jnp.tanh(nn.Conv(volumes.shape[-1], (3, 3, 3)).apply({"params": params["decode"]}, hidden))


def _judge(params, volumes):
    hidden = nn.leaky_relu(nn.Conv(HIDDEN, (3, 3, 3)).apply({"params": params["encode"]}, volumes), 0.2)
    return nn.sigmoid(nn.Conv(1, (3, 3, 3)).apply({"params": params["decode"]}, hidden))


def _terms(generators, discriminators, a, b):
    fake_b, fake_a = _generate(generators["a2b"], a), _generate(generators["b2a"], b)

    def against(domain, real, fake):
        right = jnp.mean((_judge(discriminators[domain], real) - 1) ** 2)
        return (right + jnp.mean(_judge(discriminators[domain], fake) ** 2)) / 2

    return {
        "generator_a2b": jnp.mean((_judge(discriminators["b"], fake_b) - 1) ** 2),
        "generator_b2a": jnp.mean((_judge(discriminators["a"], fake_a) - 1) ** 2),
        "cycle": jnp.mean(jnp.abs(_generate(generators["b2a"], fake_b) - a))
        + jnp.mean(jnp.abs(_generate(generators["a2b"], fake_a) - b)),
        "identity": jnp.mean(jnp.abs(_generate(generators["a2b"], b) - b))
        + jnp.mean(jnp.abs(_generate(generators["b2a"], a) - a)),
        "discriminator_a": against("a", a, fake_a),
        "discriminator_b": against("b", b, fake_b),
    }


@pytest.mark.parametrize(("cycle", "identity"), [(10.0, 0.0), (3.0, 5.0)])
def test_losses_are_those_of_the_paper(state, batches, cycle, identity):
    config = dataclasses.replace(CONFIG, cycle_weight=cycle, identity_weight=identity)
    ours = jax.jit(lambda *given: cyclegan.losses_of(*given, config))
    generators, discriminators, terms = ours(state, *batches)
    expected = jax.jit(_terms)(state["generators"], state["discriminators"], *batches)
    assert set(terms) == set(cyclegan.LOSSES) == set(expected)
    for name in expected:
        if name == "identity" and not identity:
            assert terms[name] == 0
        else:
            np.testing.assert_allclose(terms[name], expected[name], rtol=1e-5)
    np.testing.assert_allclose(
        generators,
        expected["generator_a2b"]
        + expected["generator_b2a"]
        + cycle * expected["cycle"]
        + identity * expected["identity"],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        discriminators, expected["discriminator_a"] + expected["discriminator_b"], rtol=1e-5
    )


def test_one_step_is_two_separate_updates_of_adam(state, batches, assert_trees_close):
    """Each side's update comes from its own loss, before either has moved."""

    def generators_loss(generators):
        terms = _terms(generators, state["discriminators"], *batches)
        adversarial = terms["generator_a2b"] + terms["generator_b2a"]
        return adversarial + 10.0 * terms["cycle"] + 5.0 * terms["identity"]

    def discriminators_loss(discriminators):
        terms = _terms(state["generators"], discriminators, *batches)
        return terms["discriminator_a"] + terms["discriminator_b"]

    config = dataclasses.replace(CONFIG, identity_weight=5.0)
    new, _ = jax.jit(lambda *given: cyclegan.step(*given, 2e-3, config))(state, *batches)
    gradients = jax.jit(lambda g, d: (jax.grad(generators_loss)(g), jax.grad(discriminators_loss)(d)))
    names = ("generators", "discriminators")
    for name, gradient in zip(names, gradients(*(state[name] for name in names)), strict=True):
        optimizer = optax.adam(2e-3, b1=0.5, b2=0.999)
        updates, _ = optimizer.update(gradient, optimizer.init(state[name]))
        assert_trees_close(new[name], optax.apply_updates(state[name], updates), atol=1e-5)
    assert set(new) == set(state)


def test_draw_is_without_replacement_and_reaches_everyone():
    draws = np.array([cyclegan.draw(jax.random.key(seed), 5, 3) for seed in range(12)])
    assert all(len(set(row)) == 3 for row in draws.tolist())
    assert set(draws.ravel().tolist()) == set(range(5))


# Training.

STEPS = {"conv1": 24, "conv2": 4}  # of 5 networks against 4: 8 epochs of 3 batches, 2 of 2


def _parents(make_parents, pair):
    """Domain A's kernels are positive, domain B's negative; each pair has its own."""
    sides = make_parents(5, seed=pair), make_parents(4, seed=100 + pair)
    signs = (np.abs, lambda kernel: -np.abs(kernel))
    return Parents(
        *(
            {name: {**zoo[name], "kernel": sign(zoo[name]["kernel"])} for name in zoo}
            for zoo, sign in zip(sides, signs, strict=True)
        )
    )


@pytest.fixture(scope="module")
def task(make_parents, network):
    """``task(pairs)``: the generators of these pairs."""
    generator = cyclegan.make(network, CONFIG)

    def make(pairs, numbers=None):
        parents = [_parents(make_parents, n) for n in pairs]
        views = fitting.views("cyclegan", generator, parents, [None] * len(pairs))
        return fitting.Task("cyclegan", generator, views, tuple(str(n) for n in numbers or pairs))

    return make


@pytest.fixture(scope="module")
def run(task):
    def train(pairs, numbers=None, **options):
        return fitting.fit(task(pairs, numbers), steps_per_call=5, **options)

    return train


@pytest.fixture(scope="module")
def both(run):
    return run((7, 9))


@pytest.mark.parametrize(("a", "b", "steps"), [(10, 4, 9), (4, 10, 9), (9, 9, 9), (8, 8, 6)])
def test_an_epoch_is_a_pass_over_the_larger_zoo(network, make_parents, a, b, steps):
    config = dataclasses.replace(CONFIG, epochs=(3,), batch_size=(4,))
    generator = cyclegan.make(network, config)
    sides = (
        jax.tree.map(lambda leaf, n=n: np.resize(leaf, (n, *leaf.shape[1:])), make_parents(5)) for n in (a, b)
    )
    assert generator.steps(generator.view(Parents(*sides), None)) == steps


def test_each_layer_has_its_steps_and_then_keeps_its_losses(both):
    for layer, steps in STEPS.items():
        assert set(both.history[layer]) == set(cyclegan.LOSSES) - {"identity"}
        for values in both.history[layer].values():
            assert values.shape == (2, 24)
            assert np.isfinite(values).all()
            assert (np.diff(values[:, steps - 1 :]) == 0).all()
            assert (np.diff(values[:, :steps]) != 0).all()


@pytest.fixture
def planted(task, network, monkeypatch):
    """Two pairs' translators that count their steps, and whose losses show what was drawn."""

    def look(own, real_a, real_b, rate, config):
        shown = dict.fromkeys(cyclegan.LOSSES, jnp.mean(real_a)) | {"cycle": jnp.mean(real_b)}
        return {"generators": own["generators"] + 1}, shown

    monkeypatch.setattr(cyclegan, "initialise", lambda *_: {"generators": jnp.float32(0)})
    monkeypatch.setattr(cyclegan, "step", look)
    return task((7, 9))._replace(generator=cyclegan.make.__wrapped__(network, CONFIG))  # not yet compiled


def test_a_layer_that_rests_is_not_touched(planted):
    """One by one, as CPUs have them."""
    counts = fitting.fit(planted, steps_per_call=5).state
    assert {layer: count.tolist() for layer, count in counts.items()} == {
        layer: [steps] * 2 for layer, steps in STEPS.items()
    }


def test_mapped_over_pairs_a_layer_that_rests_is_not_computed(planted):
    """Side by side, as GPUs have them, pairs share the question; else both answers would be computed."""
    views = jax.tree.map(lambda *leaves: np.stack(leaves), *planted.views)
    keys = jax.random.split(jax.random.key(0), 2)
    states = jax.vmap(planted.generator.init)(keys, views)
    rests = {**states, "step": jnp.full(2, STEPS["conv2"], jnp.int32)}
    traced = jax.jit(jax.vmap(planted.generator.update)).trace(keys, rests, views)
    assert "cond[" in str(traced.jaxpr)
    after = traced.lower().compile()(keys, rests, views)[0]["layers"]
    assert [after[layer]["generators"].tolist() for layer in LAYERS] == [[1, 1], [0, 0]]


def test_a_translator_learns_to_come_back(both):
    cycle = both.history["conv1"]["cycle"]
    assert (cycle[:, -4:].mean(axis=1) < 0.8 * cycle[:, :4].mean(axis=1)).all()


def test_a_pair_does_not_depend_on_the_pair_beside_it_and_of_another_name_differs(
    both, run, assert_trees_equal
):
    again = run((7, 7), numbers=(7, 8))
    first, second = (jax.tree.map(lambda leaf, n=n: leaf[n], tuple(again)) for n in range(2))
    assert_trees_equal(first, jax.tree.map(lambda leaf: leaf[0], tuple(both)))
    kernels_of = [one[0]["conv1"]["a2b"]["encode"]["kernel"] for one in (first, second)]
    assert (kernels_of[0] != kernels_of[1]).any()


def test_every_step_draws_other_members_of_both_domains(planted):
    history, views = fitting.fit(planted, steps_per_call=5).history, planted.views
    for name, domain in (("generator_a2b", 0), ("cycle", 1)):
        for pair in range(2):
            means = views[pair]["conv1"][domain].mean(axis=(1, 2, 3, 4))  # of each member
            possible = (means[:, None] + means[None, :]) / 2
            gaps = np.abs(possible.reshape(-1, 1) - history["conv1"][name][pair])
            np.testing.assert_allclose(gaps.min(axis=0), 0, atol=1e-6)
            assert len(np.unique(gaps.argmin(axis=0))) >= 5


def test_a_killed_training_goes_on_to_the_same_end(both, run, new_saver, killed, assert_trees_equal):
    """It is killed when the shorter layer has had its steps."""
    saver = new_saver(killed_after=1)
    with pytest.raises(killed):
        run((7, 9), saver=saver)
    assert_trees_equal(tuple(run((7, 9), saver=saver)), tuple(both))
    assert saver.saves == 5


def test_a_loss_that_is_not_finite_names_layer_step_pair_and_checkpoint(task, new_saver):
    planted = task((7, 9))
    planted.views[1]["conv2"][0][:] = np.nan
    with pytest.raises(UserError, match=r"conv2 \w+ of cyclegan, 9 is nan in step 1,") as caught:
        fitting.fit(planted, steps_per_call=5, saver=new_saver())
    assert "memory/latest" in str(caught.value)


# Networks from kernels.


def test_what_was_trained_gives_networks_that_fit(task, both, make_parents, network):
    parents, keys = [_parents(make_parents, n) for n in (7, 9)], list(jax.random.split(jax.random.key(0), 2))
    made = base.generate(task((7,)).generator, both.state, parents, [None] * 2, keys, name="cyclegan")
    assert [set(networks) for networks in made] == [set(cyclegan.LABELS)] * 2
    for networks in made:
        check.check_networks(networks, network, 16, "cyclegan")


@pytest.mark.parametrize("normalisation", kernels.NORMALISATIONS)
@pytest.mark.parametrize(("way", "translated"), [("a2b", 0), ("b2a", 1)])
def test_networks_are_normalised_translated_and_scaled_back_with_both_heads(
    make_parents, both, normalisation, way, translated
):
    config = dataclasses.replace(CONFIG, normalisation=normalisation, bias="parent")
    parents = _parents(make_parents, 7)
    generators = jax.tree.map(lambda leaf: leaf[0], both.state)
    made = jax.device_get(cyclegan.translate(way, generators, parents, config))
    count = (5, 4)[translated]
    assert {len(leaf) for leaf in jax.tree.leaves(made)} == {count}
    for layer in LAYERS:
        sides = [kernels.to_volume(zoo[layer]["kernel"]) for zoo in parents]
        in_order = (sides, sides[::-1])[translated]
        source, target = (kernels.fit_normaliser(side, normalisation) for side in in_order)
        seen = (sides[translated] - source.shift) / source.scale
        expected = _generate(generators[layer][way], seen) * target.scale + target.shift
        np.testing.assert_allclose(kernels.to_volume(made[layer]["kernel"]), expected, atol=1e-5)
        np.testing.assert_array_equal(made[layer]["bias"], parents[translated][layer]["bias"])
    for place in range(count):
        own = parents.attribute["dense"]["kernel"][place % 5], parents.object["dense"]["kernel"][place % 4]
        np.testing.assert_array_equal(made["dense"]["kernel"][place], np.concatenate(own, axis=-1))
