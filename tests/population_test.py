import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sklearn_metrics

from kernelgan import losses, models, ops, population
from kernelgan.ops import gpu
from kernelgan.types import UserError

TRAINING = population.Training(
    epochs=3, images_per_epoch=40, batch_size=16, learning_rate=0.01, shares=(1.0, 1.0)
)


def _indices(*arguments):
    return np.arange(*arguments, dtype=np.int32)


def _population(names, *, index=None):
    """Networks that tell bright (odd) from dark (even) images; the first 48 train, the rest validate."""
    count = len(names)
    return population.Population(
        name=tuple(names),
        index=_indices(count) if index is None else np.asarray(index, np.int32),
        grouping=np.zeros(count, np.int32),
        target=np.zeros(count, np.int32),
        groups=((_indices(1, 48, 2), _indices(0, 48, 2)),),
        validation=((_indices(49, 64, 2), _indices(48, 64, 2)),),
        targets=(np.arange(64) % 2).astype(np.int8)[None],
    )


@pytest.fixture(scope="module")
def run(network, images, silent):
    """Trains with the losses of a zoo unless told otherwise."""

    def train(people, training=TRAINING, *, saver, chunk_size=2, given=images, seed=0, **functions):
        functions = {"loss": losses.cross_entropy, "metrics": population.binary_metrics} | functions
        return population.train(
            network,
            given,
            people,
            training,
            seed=seed,
            chunk_size=chunk_size,
            saver=saver,
            progress=silent,
            **functions,
        )

    return train


@pytest.fixture
def fresh(new_saver):
    return new_saver()


@pytest.fixture(scope="module")
def trained(run, new_saver):
    """Four networks, two at a time, never interrupted."""
    return run(_population(["bright"] * 4), saver=new_saver())


# Batches.


@pytest.mark.parametrize("shares", [(1, 1), (3, 1, 1, 1), (2, 1), (1,), (0.25, 0.25, 0.5)])
def test_a_batch_pattern_keeps_the_shares_and_interleaves(shares):
    size = 24
    pattern = population.batch_pattern(shares, size)
    weights = np.array(shares) / sum(shares)
    np.testing.assert_array_equal(np.bincount(pattern), size * weights)
    for group, weight in enumerate(weights):  # also in each beginning of it, as far as whole numbers go
        drawn = np.cumsum(pattern == group)
        assert np.abs(drawn - weight * np.arange(1, size + 1)).max() < 1.01


def test_a_batch_that_the_shares_do_not_divide_is_off_by_less_than_one():
    counts = np.bincount(population.batch_pattern((3, 1, 1, 1), 16), minlength=4)
    assert counts.sum() == 16
    assert np.abs(counts - np.array([8, 8 / 3, 8 / 3, 8 / 3])).max() < 1


@pytest.fixture(scope="module")
def drawn():
    """Five batches of 6 from groups of 7, 30 and 15 (of places for 30), with shares 1 : 3 : 2."""
    members = np.full((3, 30), 999)
    members[0, :7], members[1], members[2, :15] = np.arange(7), np.arange(100, 130), np.arange(200, 215)
    pattern = population.batch_pattern((1, 3, 2), 6)
    draw = jax.jit(
        lambda key: population.draw_epoch(key, members, np.array([7, 30, 15]), pattern=pattern, steps=5)
    )
    return pattern, draw


def test_each_batch_holds_each_groups_share(drawn):
    pattern, draw = drawn
    np.testing.assert_array_equal(np.asarray(draw(jax.random.key(0))) // 100, np.tile(pattern, (5, 1)))


def test_an_epoch_draws_without_replacement_and_never_what_fills_up(drawn):
    _, draw = drawn
    for seed in range(5):
        found = np.asarray(draw(jax.random.key(seed))).reshape(-1)
        assert len(np.unique(found)) == len(found) == 30
        assert 999 not in found


def test_a_group_that_is_used_up_is_drawn_anew():
    draw = population.draw_epoch(
        jax.random.key(0), np.array([[5, 6, 7, 999]]), np.array([3]), pattern=np.zeros(4, np.int32), steps=3
    )
    np.testing.assert_array_equal(np.bincount(np.asarray(draw).reshape(-1), minlength=8)[5:8], [4, 4, 4])
    np.testing.assert_array_equal(np.unique(np.asarray(draw).reshape(-1)[:3]), [5, 6, 7])


def test_every_key_draws_another_order(drawn):
    _, draw = drawn
    assert (np.asarray(draw(jax.random.key(0))) != np.asarray(draw(jax.random.key(1)))).any()


# Metrics.


def test_binary_metrics_agree_with_sklearn_and_ignore_places_of_no_weight():
    rng = np.random.default_rng(0)
    logits = np.round(rng.normal(size=(60, 2)), 0).astype(np.float32)  # many ties
    labels, losses = rng.integers(0, 2, 60), rng.random(60).astype(np.float32)
    weights = (np.arange(60) < 45).astype(np.float32)
    found = jax.jit(population.binary_metrics)(*map(jnp.asarray, (logits, losses, labels, weights)))
    kept = slice(0, 45)
    score = (logits[:, 1] - logits[:, 0])[kept]
    assert len(np.unique(score)) < 12
    assert found["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels[kept], score), abs=1e-6)
    expected = sklearn_metrics.balanced_accuracy_score(labels[kept], score > 0)
    assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert found["loss"] == pytest.approx(losses[kept].mean(), rel=1e-5)


def test_loss_metrics_is_the_weighted_mean():
    found = population.loss_metrics(None, jnp.array([1.0, 3.0, 50.0]), None, jnp.array([1.0, 1.0, 0.0]))
    assert set(found) == {"loss"}
    assert found["loss"] == 2


def test_losses_by_hand():
    logits = np.array([[0.3, -1.2], [2.0, 0.5]], np.float32)
    expected = [np.log1p(np.exp(1.5)), np.log1p(np.exp(-1.5))]
    np.testing.assert_allclose(losses.cross_entropy(logits, np.array([1, 0])), expected, rtol=1e-6)
    np.testing.assert_allclose(
        losses.squared_error(logits, np.zeros((2, 2))), [1.53 / 2, 4.25 / 2], rtol=1e-6
    )


# Training.


def test_a_separable_problem_is_learnt(trained):
    params, history = trained
    assert set(history) == {
        "train_loss",
        "validation_loss",
        "validation_balanced_accuracy",
        "validation_auroc",
    }
    assert all(values.shape == (4, 3) for values in history.values())
    assert (history["train_loss"][:, -1] < history["train_loss"][:, 0]).all()
    assert (history["validation_auroc"][:, -1] > 0.9).all()
    assert all(isinstance(leaf, np.ndarray) and len(leaf) == 4 for leaf in jax.tree.leaves(params))


def test_validation_figures_are_those_of_the_networks_at_the_end(trained, network, images):
    params, history = trained
    odd = np.arange(48, 64) % 2
    for m in range(2):
        member = jax.tree.map(lambda leaf, m=m: leaf[m], params)
        logits = np.asarray(_logits(network, member, images[48:]))
        score = logits[:, 1] - logits[:, 0]
        assert history["validation_auroc"][m, -1] == pytest.approx(
            sklearn_metrics.roc_auc_score(odd, score), abs=1e-6
        )
        assert history["validation_loss"][m, -1] == pytest.approx(
            float(np.mean(losses.cross_entropy(logits, odd))), rel=1e-4
        )


def test_a_network_does_not_depend_on_the_chunk_size(trained, run, fresh, assert_trees_equal):
    assert_trees_equal(run(_population(["bright"] * 4), saver=fresh, chunk_size=4), trained)


def test_a_network_does_not_depend_on_those_beside_it(trained, run, fresh, assert_trees_equal):
    """Networks 0 to 3 again, among others and in another order; the last chunk is filled up."""
    people = _population(["other", "bright", "bright", "bright", "bright"], index=[5, 3, 1, 0, 2])
    found = run(people, saver=fresh)
    assert_trees_equal(jax.tree.map(lambda leaf: leaf[[3, 2, 4, 1]], found), trained)


def test_networks_of_another_index_name_or_seed_differ(trained, run, fresh, new_saver):
    params, _ = trained
    kernel = params["conv1"]["kernel"]
    assert len(np.unique(kernel.reshape(4, -1), axis=0)) == 4
    named, _ = run(_population(["dark"] * 2), saver=fresh)
    seeded, _ = run(_population(["bright"] * 2), saver=new_saver(), seed=1)
    assert (named["conv1"]["kernel"][0] != kernel[0]).any()
    assert (seeded["conv1"]["kernel"][0] != kernel[0]).any()


@pytest.mark.parametrize("saves", [1, 3, 6])  # within, and at the end of, a chunk; at the very end
def test_a_killed_training_goes_on_to_the_same_end(
    trained, run, new_saver, killed, saves, assert_trees_equal
):
    saver = new_saver(killed_after=saves)
    with pytest.raises(killed):
        run(_population(["bright"] * 4), saver=saver)
    assert_trees_equal(run(_population(["bright"] * 4), saver=saver), trained)
    assert saver.saves == 6


# One step, against Adam on the textbook network.


@functools.partial(jax.jit, static_argnums=0)
def _logits(network, params, images):
    return network.apply({"params": params}, models.normalise_images(images))[0]


def _one_group(size):
    """Two networks on the first ``size`` images, no validation."""
    return dataclasses.replace(
        _population(["bright"] * 2), groups=((_indices(size),),), validation=((_indices(0),),)
    )


STEP = population.Training(epochs=1, images_per_epoch=12, batch_size=8, learning_rate=0.0, shares=(1.0,))


@pytest.fixture(scope="module")
def at_rest(run, new_saver):
    """What training by 0 gives: the initial networks, and their loss on 12 images, read as 8 and 4."""
    return run(_one_group(12), STEP, saver=new_saver())


def _adam(network, params, batches, learning_rate):
    optimizer = optax.adam(learning_rate)

    def loss(params, images, labels):
        logits, _ = network.clone(form="plain").apply({"params": params}, images)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])

    @jax.jit
    def step(params, moments, images, labels):
        gradient = jax.grad(loss)(params, models.normalise_images(images), labels)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments

    moments = jax.jit(optimizer.init)(params)
    for images, labels in batches:
        params, moments = step(params, moments, images, labels)
    return params


def test_one_step_is_adams_on_the_textbook_network(at_rest, run, fresh, network, images, assert_trees_close):
    training = dataclasses.replace(STEP, batch_size=12, learning_rate=0.01)
    found, _ = run(_one_group(12), training, saver=fresh)
    for m in range(2):
        initial = jax.tree.map(lambda leaf, m=m: leaf[m], at_rest[0])
        expected = _adam(network, initial, [(images[:12], np.arange(12) % 2)], 0.01)
        assert_trees_close(
            jax.tree.map(lambda leaf, m=m: leaf[m], found), jax.device_get(expected), atol=2e-5
        )


@pytest.fixture(params=[False, True], ids=["stepwise", "fused"])
def decayed(request, run, fresh, with_fused):
    """Two networks trained for 3 epochs of one step on the same 12 images, the rate falling from 0.01."""
    if request.param:
        with_fused(_stand_in(), checked=False)
    training = dataclasses.replace(STEP, epochs=3, batch_size=12, learning_rate=0.01, decay=True)
    return run(_one_group(12), training, saver=fresh)[0]


def test_a_rate_that_decays_falls_linearly_over_the_epochs(
    decayed, at_rest, network, images, assert_trees_close
):
    batches = [(images[:12], np.arange(12) % 2)] * 3
    rates = np.float32([0.01, 0.01 * 2 / 3, 0.01 / 3])
    for m in range(2):
        initial = jax.tree.map(lambda leaf, m=m: leaf[m], at_rest[0])
        found = jax.tree.map(lambda leaf, m=m: leaf[m], decayed)
        expected = jax.device_get(_adam(network, initial, batches, lambda count: jnp.asarray(rates)[count]))
        assert_trees_close(found, expected, atol=5e-5)
        constant = jax.device_get(_adam(network, initial, batches, 0.01))
        kernels = found["conv1"]["kernel"], constant["conv1"]["kernel"]
        assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_a_rate_that_decays_needs_no_program_of_each_epoch(monkeypatch, run, fresh):
    traced = []
    rate_in = population.Training.rate_in
    monkeypatch.setattr(
        population.Training, "rate_in", lambda self, epoch: traced.append(epoch) or rate_in(self, epoch)
    )
    run(_one_group(12), dataclasses.replace(STEP, epochs=4, decay=True), saver=fresh)
    assert len(traced) == 1


def test_the_images_of_a_smaller_last_batch_count_as_much_as_others(at_rest, network, images):
    params, history = at_rest
    assert set(history) == {"train_loss"}
    for m in range(2):
        logits = _logits(network, jax.tree.map(lambda leaf, m=m: leaf[m], params), images[:12])
        expected = float(np.mean(losses.cross_entropy(logits, np.arange(12) % 2)))
        assert history["train_loss"][m, 0] == pytest.approx(expected, rel=1e-5)


def test_every_epoch_draws_other_images(run, fresh):
    """Networks at rest have another loss only on other images, here 8 of 12."""
    training = dataclasses.replace(STEP, epochs=3, images_per_epoch=8)
    _, history = run(_one_group(12), training, saver=fresh)
    assert all(len(set(losses.tolist())) == 3 for losses in history["train_loss"])


def test_the_gradient_of_a_smaller_last_batch_is_a_mean_over_its_images(
    at_rest, run, fresh, network, images, assert_trees_close
):
    same = np.repeat(images[:1], 64, axis=0)  # so that the batches are known
    people = dataclasses.replace(_one_group(12), targets=np.ones((1, 64), np.int8))
    found, _ = run(people, dataclasses.replace(STEP, learning_rate=0.01), saver=fresh, given=same)
    initial = jax.tree.map(lambda leaf: leaf[0], at_rest[0])
    expected = _adam(network, initial, [(same[:8], np.ones(8, int)), (same[:4], np.ones(4, int))], 0.01)
    assert_trees_close(jax.tree.map(lambda leaf: leaf[0], found), jax.device_get(expected), atol=2e-5)


def test_a_loss_that_is_not_finite_names_the_network_and_the_epoch(run, fresh, images):
    targets = np.zeros((2, 64, 2), np.float32)
    targets[1] = np.nan
    people = dataclasses.replace(
        _population(["good", "bad"], index=[0, 7]), targets=targets, target=np.array([0, 1], np.int32)
    )
    with pytest.raises(UserError, match=r"train_loss of network 7 of bad is nan in epoch 1"):
        run(people, saver=fresh, loss=losses.squared_error, metrics=population.loss_metrics)
    assert fresh.state is None  # nothing that is not finite is ever saved


# The fused kernel, by a stand-in: tests run without a GPU.


def _stand_in(error=0.0):
    """What `fused.train_epoch` computes, by JAX, with its gradients off by ``error``."""

    def train_epoch(state, images, index, targets, weights, *, network, loss, learning_rate):
        optimizer = optax.adam(learning_rate)

        def step(state, batch):
            index, targets, weight = batch

            def mean(params):
                logits, _ = models.run_convnet(network, params, models.normalise_images(images[index]))
                return jnp.sum(loss(logits, targets) * weight) / jnp.sum(weight)

            value, gradients = jax.value_and_grad(mean)(state["params"])
            gradients = jax.tree.map(lambda leaf: leaf * (1 + error), gradients)
            updates, moments = optimizer.update(gradients, state["optimizer"])
            params = optax.apply_updates(state["params"], updates)
            return {"params": params, "optimizer": moments}, value * jnp.sum(weight)

        def one(state, index, targets):
            return jax.lax.scan(step, state, (index, targets, jnp.asarray(weights)))

        return jax.vmap(one)(state, index, targets)

    return train_epoch


@pytest.fixture
def with_fused(monkeypatch):
    """``with_fused(train_epoch)``: the kernel is there, and it is this; gives how often it was traced."""

    def put(train_epoch, *, checked=True):
        if not checked:
            monkeypatch.setattr(population, "_kernel_error", lambda *_: 0.0)
        calls = []

        def counted(*arguments, **options):
            calls.append(len(arguments[2]))
            return train_epoch(*arguments, **options)

        monkeypatch.setattr(ops, "epoch_kernel", lambda *_: counted)
        population.checked_kernel.cache_clear()
        return calls

    yield put
    population.checked_kernel.cache_clear()


def test_where_the_fused_kernel_is_it_trains_whole_chunks_and_validates_some_at_a_time(
    trained, run, fresh, with_fused, assert_trees_close, monkeypatch
):
    monkeypatch.setattr(population, "_VALIDATED", 1)  # images in flight: a network after the other
    calls = with_fused(_stand_in())
    found = run(_population(["bright"] * 4), saver=fresh)
    assert calls == [150, 2]  # the check of its first steps, and the training of chunks of 2
    assert_trees_close(found, trained, rtol=1e-4, atol=1e-5)


def test_memory_is_estimated_by_images_in_flight_and_by_parameters_alone_in_the_fused_kernel():
    def estimate(network, batch, fused):
        training = population.Training(1, 2 * batch, batch, 0.01, (1.0,))
        arrays = population.shared_arrays(np.zeros((64, 32, 32, 3), np.uint8), _population(["bright"]), 0)
        return population.bytes_each(network, training, arrays, fused=fused)

    network = models.ConvNet()
    # As measured on a GPU: 16.3 MB a network and batch of 128, and at most 0.14 MB in the kernel.
    assert 16.3e6 < estimate(network, 128, False) < 2 * 16.3e6
    assert estimate(network, 256, False) / estimate(network, 128, False) == pytest.approx(2, rel=0.05)
    assert 3 * 4 * 3674 < estimate(network, 128, True) < 0.3e6
    assert estimate(models.ConvNet((12, 32)), 128, False) > estimate(network, 128, False)


def test_a_fused_kernel_of_wrong_gradients_is_not_used(network, with_fused, capsys):
    with_fused(_stand_in(error=0.01))
    assert population.checked_kernel(network, 16, losses.cross_entropy) is None
    assert "differs from XLA by" in capsys.readouterr().err


def test_a_fused_kernel_that_fails_is_not_used(network, with_fused, capsys):
    def fails(*_, **__):
        raise RuntimeError("CUDA_ERROR_INVALID_IMAGE\nand more")

    with_fused(fails)
    assert population.checked_kernel(network, 16, losses.cross_entropy) is None
    assert "fails (CUDA_ERROR_INVALID_IMAGE); training goes on without it" in capsys.readouterr().err


def test_a_network_of_another_form_is_not_fused(monkeypatch):
    monkeypatch.setattr(gpu, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "supports", lambda *_: True)
    tiles = models.ConvNet((2, 3), 3, form="tiles")
    assert ops.epoch_kernel(tiles, 16, losses.cross_entropy) is None
    assert ops.epoch_kernel(models.ConvNet((2, 3), 3, 4), 16, losses.squared_error) is gpu.train_epoch


@pytest.mark.parametrize("shares", [(3, 1, 1, 1), (1, 1, 1)])
def test_a_batch_without_a_place_for_a_group_is_refused(shares):
    with pytest.raises(UserError, match=r"zoo\.batch_size is 2"):
        population.batch_pattern(shares, 2)
    smallest = int(re.search(r"at least (\d+)", _message(shares))[1])
    assert (np.bincount(population.batch_pattern(shares, smallest), minlength=len(shares)) > 0).all()


def test_an_epoch_smaller_than_a_batch_counts_the_places_that_it_has():
    assert len(np.unique(population.batch_pattern((3, 1, 1, 1), 12, 8))) == 4
    with pytest.raises(UserError, match="an epoch has 2 images"):
        population.batch_pattern((3, 1, 1, 1), 12, 2)


@pytest.mark.parametrize("shares", [(1.0, 0.0), (1.0, -1.0)])
def test_a_share_that_is_not_positive_is_refused(shares):
    with pytest.raises(ValueError, match="positive"):
        population.batch_pattern(shares, 8)


def test_a_group_without_images_is_refused_and_its_network_named():
    people = dataclasses.replace(_population(["bright"]), groups=((_indices(4), _indices(0)),))
    with pytest.raises(UserError, match="bright"):
        population.shared_arrays(np.zeros((64, 8, 8, 3), np.uint8), people, 0)


def _message(shares):
    with pytest.raises(UserError) as caught:
        population.batch_pattern(shares, 2)
    return str(caught.value)
