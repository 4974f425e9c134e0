import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kernelgan.generators import cyclegan
from kernelgan.types import UserError

HIDDEN = 4


def _volumes(seed, members=5, filters=3, size=3, channels=2):
    shape = (members, filters, size, size, channels)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def state():
    make = jax.jit(lambda key: cyclegan.initialise(HIDDEN, _volumes(0), 2e-3, key))
    return make(jax.random.key(0))


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
    ours = jax.jit(lambda *given: cyclegan.losses_of(*given, hidden=HIDDEN, cycle=cycle, identity=identity))
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


@pytest.mark.parametrize(
    ("which", "own", "other"), [(0, "generators", "discriminators"), (1, "discriminators", "generators")]
)
def test_each_side_learns_from_its_own_loss_alone(state, batches, which, own, other):
    def loss(players):
        return cyclegan.losses_of(players, *batches, hidden=HIDDEN, cycle=10.0, identity=1.0)[which]

    gradients = jax.jit(jax.grad(loss))({name: state[name] for name in (own, other)})
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients[other]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients[own]))


def test_one_step_is_two_separate_updates_of_adam(state, batches, assert_trees_close):
    """Each side's update comes from its own loss, before either has moved."""

    def generators_loss(generators):
        terms = _terms(generators, state["discriminators"], *batches)
        adversarial = terms["generator_a2b"] + terms["generator_b2a"]
        return adversarial + 10.0 * terms["cycle"] + 5.0 * terms["identity"]

    def discriminators_loss(discriminators):
        terms = _terms(state["generators"], discriminators, *batches)
        return terms["discriminator_a"] + terms["discriminator_b"]

    new, _ = jax.jit(
        lambda *given: cyclegan.step(*given, hidden=HIDDEN, learning_rate=2e-3, cycle=10.0, identity=5.0)
    )(state, *batches)
    for name, loss in (("generators", generators_loss), ("discriminators", discriminators_loss)):
        optimizer = optax.adam(2e-3, b1=0.5, b2=0.999)
        updates, _ = optimizer.update(jax.jit(jax.grad(loss))(state[name]), optimizer.init(state[name]))
        assert_trees_close(new[name], optax.apply_updates(state[name], updates), atol=1e-5)
    assert set(new) == set(state)


def test_draw_is_without_replacement_and_reaches_everyone():
    draws = np.array([cyclegan.draw(jax.random.key(seed), 5, 3) for seed in range(12)])
    assert all(len(set(row)) == 3 for row in draws.tolist())
    assert set(draws.ravel().tolist()) == set(range(5))


@pytest.mark.parametrize(("a", "b", "steps"), [(10, 4, 9), (4, 10, 9), (9, 9, 9), (8, 8, 6)])
def test_an_epoch_is_a_pass_over_the_larger_zoo(a, b, steps):
    assert cyclegan.Translation(epochs=3, batch_size=4, learning_rate=1.0).steps(a, b) == steps


# Training.

TRANSLATIONS = {
    "conv1": cyclegan.Translation(epochs=8, batch_size=2, learning_rate=2e-2),
    "conv2": cyclegan.Translation(epochs=2, batch_size=3, learning_rate=2e-2),
}
STEPS = {"conv1": 24, "conv2": 4}  # of 5 kernel sets against 4


def _zoos(pairs):
    """Domain A is positive, domain B negative; each pair has its own."""
    shapes = {"conv1": {"channels": 3, "filters": 2}, "conv2": {"channels": 2, "filters": 3}}
    return {
        layer: (
            np.stack([np.abs(_volumes(pair, 5, **shape)) for pair in pairs]),
            np.stack([-np.abs(_volumes(100 + pair, 4, **shape)) for pair in pairs]),
        )
        for layer, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def run(silent):
    def train(pairs, *, saver, volumes=None, progress=silent):
        return cyclegan.train(
            _zoos(pairs) if volumes is None else volumes,
            TRANSLATIONS,
            pairs=pairs,
            hidden=HIDDEN,
            cycle=10.0,
            identity=0.0,
            steps_per_call=5,
            seed=0,
            saver=saver,
            progress=progress,
        )

    return train


@pytest.fixture(scope="module")
def watched(run, new_saver):
    """Pairs 7 and 9, never interrupted, what their progress showed, and their last state."""
    seen = []

    def progress(done, total, figures):
        seen.append((done, total, *figures))

    saver = new_saver()
    return run((7, 9), saver=saver, progress=progress), seen, saver.state


@pytest.fixture(scope="module")
def both(watched):
    return watched[0]


def test_each_layer_has_as_many_steps_as_it_should_and_then_rests(both):
    _, history = both
    for layer, steps in STEPS.items():
        assert set(history[layer]) == set(cyclegan.LOSSES)
        for values in history[layer].values():
            assert values.shape == (2, steps)
            assert np.isfinite(values).all()


def test_adam_counts_each_layers_own_steps(watched):
    """Those of generators and discriminators, for each pair: a layer that rests is not touched."""
    leaves = watched[2]["leaves"].values()
    counts = [leaf.tolist() for leaf in leaves if np.issubdtype(leaf.dtype, np.integer)]
    assert sorted(counts) == [[4, 4], [4, 4], [24, 24], [24, 24]]


def test_progress_counts_the_longest_layers_steps(watched):
    _, seen, _ = watched
    assert [done for done, *_ in seen] == [5, 10, 15, 20, 24]
    assert seen[0] == (5, 24, "conv1", "conv2")
    assert seen[-1] == (24, 24, "conv1")


def test_a_translator_learns_to_come_back(both):
    cycle = both[1]["conv1"]["cycle"]
    assert (cycle[:, -4:].mean(axis=1) < 0.8 * cycle[:, :4].mean(axis=1)).all()


def test_generators_come_as_numpy_with_a_leading_pair_axis(both):
    generators, _ = both
    assert set(generators) == {"conv1", "conv2"}
    assert all(set(directions) == {"a2b", "b2a"} for directions in generators.values())
    assert generators["conv1"]["a2b"]["encode"]["kernel"].shape == (2, 3, 3, 3, 3, HIDDEN)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(generators))
    kernel = generators["conv2"]["a2b"]["encode"]["kernel"]
    assert (kernel[0] != kernel[1]).any()


def test_a_pair_does_not_depend_on_the_pair_beside_it(both, run, new_saver, assert_trees_equal):
    generators, history = run((7,), saver=new_saver())
    assert_trees_equal((generators, history), jax.tree.map(lambda leaf: leaf[:1], both))


def test_every_step_draws_other_members_of_both_domains(run, new_saver, monkeypatch):
    def look(state, real_a, real_b, **options):
        shown = dict.fromkeys(cyclegan.LOSSES, jnp.mean(real_a))
        return state, shown | {"cycle": jnp.mean(real_b)}

    monkeypatch.setattr(cyclegan, "step", look)
    volumes = _zoos((7, 9))
    _, history = run((7, 9), volumes=volumes, saver=new_saver())
    for name, domain in (("identity", 0), ("cycle", 1)):
        means = volumes["conv1"][domain].mean(axis=(2, 3, 4, 5))  # of each member
        possible = (means[:, :, None] + means[:, None, :]) / 2
        for pair in range(2):
            drawn = history["conv1"][name][pair]
            gaps = np.abs(possible[pair].reshape(-1, 1) - drawn)
            np.testing.assert_allclose(gaps.min(axis=0), 0, atol=1e-6)
            assert len(np.unique(gaps.argmin(axis=0))) >= 5


def test_pairs_of_another_number_differ(both, run, new_saver):
    same_data = jax.tree.map(lambda leaf: leaf[[0, 0]], _zoos((7, 9)))
    numbered, _ = run((7, 8), volumes=same_data, saver=new_saver())
    kernel = numbered["conv1"]["a2b"]["encode"]["kernel"]
    np.testing.assert_array_equal(kernel[0], both[0]["conv1"]["a2b"]["encode"]["kernel"][0])
    assert (kernel[0] != kernel[1]).any()


@pytest.mark.parametrize("saves", [1, 5])  # when the shorter layer has had its steps, and at the end
def test_a_killed_training_goes_on_to_the_same_end(both, run, new_saver, killed, saves, assert_trees_equal):
    saver = new_saver(killed_after=saves)
    with pytest.raises(killed):
        run((7, 9), saver=saver)
    assert_trees_equal(run((7, 9), saver=saver), both)
    assert saver.saves == 5


def test_a_loss_that_is_not_finite_names_layer_step_pair_and_checkpoint(run, new_saver):
    volumes = _zoos((7, 9))
    volumes["conv2"][0][1] = np.nan  # the second pair's
    with pytest.raises(UserError, match=r"CycleGAN of conv2 is nan in step 1 \(pair 1\)") as caught:
        run((7, 9), volumes=volumes, saver=new_saver())
    assert "memory/latest" in str(caught.value)
    assert "learning_rate" in str(caught.value)
