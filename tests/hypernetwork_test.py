"""Tests for studies.hypernetwork: order and scale of filters change nothing; what a training may draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import small_config

from kernelgan import config
from kernelgan.evaluation import features
from kernelgan.types import UserError
from studies.hypernetwork import __main__ as command
from studies.hypernetwork import model, study

SIZE = model.Size(width=8, heads=2, blocks=1)
COUNT = 24


@pytest.fixture(scope="module")
def looked_at(network, images):
    return model.look(network, images[:COUNT])


@pytest.fixture(scope="module")
def generated(network, make_parents, looked_at):
    """``generated(first, second)``: what the same untrained hypernetwork makes of two parents."""
    canonical = jax.jit(lambda params: model.canonical(params, looked_at, COUNT))
    one = jax.tree.map(lambda leaf: leaf[0], make_parents(1, seed=1))
    weights = model.initialise(jax.random.key(0), canonical(one), SIZE)
    make = jax.jit(lambda a, o: model.generate(weights, (a, o), looked_at, COUNT, SIZE))
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


def test_a_network_hangs_on_both_parents(generated, parents, make_parents):
    made = generated(*parents)
    other = jax.tree.map(lambda leaf: leaf[0], make_parents(1, seed=9))
    for changed in ((other, parents[1]), (parents[0], other)):
        gaps = jax.tree.map(lambda x, y: np.abs(x - y).max(), made, generated(*changed))
        assert min(jax.tree.leaves(gaps["conv1"])) > 1e-3


def test_heads_are_the_ridge_regression_that_is_shrunk_towards_the_mixed_ones():
    rng = np.random.default_rng(0)
    maps, heads, answers = (rng.normal(size=size) for size in ((3, 4, 20), (3, 4, 2), (20, 2)))
    slopes, intercepts = model._fitted(*map(jnp.asarray, (maps, heads, answers)), 0.5)
    scale = np.sqrt(maps.var(axis=2).mean(axis=1))
    own = (maps / scale[:, None, None]).reshape(12, 20).T
    prior = (heads * scale[:, None, None]).reshape(12, 2)
    centred, wanted = own - own.mean(axis=0), answers - answers.mean(axis=0)
    gram = centred.T @ centred / 20 + 0.5 * np.eye(12)
    expected = prior + np.linalg.solve(gram, centred.T @ (wanted - centred @ prior) / 20)
    np.testing.assert_allclose(slopes, expected / np.repeat(scale, 4)[:, None], atol=1e-4)
    given = maps.reshape(12, 20).T @ np.asarray(slopes) + np.asarray(intercepts)
    np.testing.assert_allclose(given.mean(axis=0), answers.mean(axis=0), atol=1e-4)


def test_the_loss_has_a_finite_gradient_also_of_dead_filters(network, looked_at, parents, images):
    dead = {**parents[0], "conv1": {**parents[0]["conv1"], "bias": parents[0]["conv1"]["bias"] - 100}}
    canonical = [model.canonical(params, looked_at, COUNT) for params in (dead, parents[1])]
    weights = model.initialise(jax.random.key(0), canonical[0], SIZE)

    def loss(weights):
        made = model.generate(weights, tuple(canonical), looked_at, COUNT, SIZE)
        return model.lost(network, made, (dead, parents[1]), images[:16])

    value, gradient = jax.jit(jax.value_and_grad(loss))(weights)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("flags", [["--steps=30"], ["--seeds=0"], ["--cells=parent"]])
def test_settings_that_cannot_be_are_refused(capsys, flags):
    assert command.main(["--run=nowhere", *flags]) == 2
    assert flags[0].split("=")[0] in capsys.readouterr().err


def test_the_table_has_all_rows():
    rows = {
        "and_ensemble": {"black cat": {"worst": [0.9, 0.8]}},
        "both": {"black cat": {"worst": [0.7, 0.6], "correlation": [0.5, 0.7]}},
    }
    lines = command.table(rows, {"both": "both new"}).splitlines()
    assert lines[2] == "| and_ensemble | 0.850 | 1.00 |  |"
    assert lines[3] == "| both new | 0.650 | 0.43 | 0.600 |"


def test_a_pair_that_the_run_has_not_is_refused():
    settings = config.parse(small_config())
    with pytest.raises(UserError, match="no pair"):
        study.load(None, settings, {"pairs": [], "zoos": []}, [("black", "cat")], study.Training())
