"""Tests for kernelgan.generators.mixing: planted mixtures, finite differences, degenerate input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernelgan.generators import mixing

CANDIDATES, FILTERS, PLACES, SAMPLES, TARGETS = 5, 2, 3, 384, 4
CHOSEN = jnp.arange(FILTERS)
RIDGE = 1e-6


@functools.partial(jax.jit, static_argnums=3)
def _mix(windows, chosen, target, rounds):
    return mixing.mix(windows, chosen, target._replace(ridge=RIDGE), rounds)


@pytest.fixture
def windows():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4, 1, PLACES, SAMPLES))
    found = shared + 1.5 * rng.normal(size=(4, CANDIDATES, PLACES, SAMPLES))
    return jnp.asarray(found * 10.0 ** np.arange(-2, 3)[:, None, None], jnp.float32)


def _target(windows, mixture):
    """What some weights make of the maps of a mixture."""
    rng = np.random.default_rng(1)
    maps = np.maximum(np.einsum("fc,kcqn->kfqn", mixture, windows).max(axis=0), 0)
    maps /= maps.std(axis=(1, 2), keepdims=True)
    weights = rng.normal(size=(maps.shape[0] * PLACES, TARGETS))
    values = weights.T @ maps.reshape(len(weights), -1) + 3
    prior = jnp.zeros((CANDIDATES, PLACES, TARGETS))
    return mixing.Target(jnp.asarray(values, jnp.float32), jnp.ones(TARGETS), prior, RIDGE)


def _planted(windows):
    """Filters that are near the first two candidates, in the scale of each."""
    mixture = np.eye(FILTERS, CANDIDATES) + 0.4 * np.random.default_rng(2).normal(size=(FILTERS, CANDIDATES))
    return mixture / np.asarray(windows).std(axis=(0, 2, 3))


def test_a_planted_mixture_is_recovered(windows):
    target = _target(windows, _planted(windows))
    lost = [
        np.asarray(_mix(windows, CHOSEN, target, rounds).left).sum()
        / np.asarray(target.values).var(axis=1).sum()
        for rounds in (0, 1, 12)
    ]
    assert lost[0] > 0.02
    assert lost[1] < 0.7 * lost[0]
    assert lost[2] < 0.02 * lost[0]


def test_without_rounds_the_candidates_stay(windows):
    mixed = _mix(windows, jnp.array([3, 1]), _target(windows, _planted(windows)), 0)
    np.testing.assert_allclose(mixed.mixture != 0, np.eye(CANDIDATES)[[3, 1]] > 0)


@pytest.mark.parametrize("rounds", [1, 2])
def test_no_round_makes_the_error_larger(windows, rounds):
    target = _target(windows, np.random.default_rng(5).normal(size=(4, CANDIDATES)))
    before, after = (_mix(windows, CHOSEN, target, n).left.sum() for n in (rounds - 1, rounds))
    assert after <= before


def test_filters_and_weights_give_what_is_said_to_be_left(windows):
    target = _target(windows, _planted(windows))
    mixed = _mix(windows, CHOSEN, target, 2)
    maps = mixing.maps_of(jnp.einsum("fc,kcqn->kfqn", mixed.mixture, windows)).reshape(FILTERS * PLACES, -1)
    left = target.values - mixed.weights.T @ maps - mixed.intercepts[:, None]
    np.testing.assert_allclose(jnp.square(left).mean(axis=1), mixed.left, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("by_sample", [False, True])
def test_the_change_is_the_least_squares_solution_by_finite_differences(windows, monkeypatch, by_sample):
    """Of the errors as a function of the coefficients, gates free: their slopes at the start."""
    monkeypatch.setattr(mixing, "_DAMPING", 1e-9)
    windows = mixing._few(windows / windows.std(axis=(0, 2, 3), keepdims=True))
    target = _target(windows, _planted(windows))
    weights = jnp.array([1.0, 2.0, 0.5, 1.0])
    start = np.eye(FILTERS, CANDIDATES)
    fitted = _mix(windows, CHOSEN, target._replace(weights=weights), 0)

    def left(mixture):
        maps = np.maximum(np.einsum("fc,kcqn->kfqn", mixture, np.asarray(windows, np.float64)).max(axis=0), 0)
        found = np.asarray(target.values) - np.asarray(fitted.weights).T @ maps.reshape(FILTERS * PLACES, -1)
        return ((found - found.mean(axis=1, keepdims=True)) * np.sqrt(weights)[:, None]).ravel()

    slopes = []
    for place in np.ndindex(FILTERS, CANDIDATES):
        step = np.zeros_like(start)
        step[place] = 1e-6
        slopes.append((left(start - step) - left(start + step)) / 2e-6)
    expected = np.linalg.lstsq(np.stack(slopes, axis=1), left(start), rcond=None)[0]
    top = mixing.maps_of(windows)[:FILTERS]
    now = mixing._Fitted(
        fitted.weights,
        fitted.intercepts,
        jnp.asarray(left(start).reshape(TARGETS, -1) / np.sqrt(weights)[:, None]),
        0.0,
        mixing._gates(windows[:, :FILTERS], top),
    )
    found = jax.jit(mixing._change)(mixing._arranged(windows, by_sample=by_sample), now, weights)
    np.testing.assert_allclose(np.asarray(found).ravel(), expected, atol=0.02 * np.abs(expected).max())


def test_slopes_are_the_same_in_both_arrangements_also_of_equal_pre_activations(windows):
    windows = mixing._few(windows)
    windows = windows.at[2].set(windows[1])
    gates = mixing._gates(windows[:, :FILTERS], mixing.maps_of(windows[:, :FILTERS]))
    assert gates.sum(axis=0).max() == 1
    assert not gates[1].any()
    read = jnp.asarray(np.random.default_rng(0).normal(size=(FILTERS, TARGETS, PLACES)), jnp.float32)
    found = [
        slopes(mixing._arranged(windows, by_sample=by_sample)[0], mixing._blocks(gates)[0], read)
        for slopes, by_sample in ((mixing._by_filter, False), (mixing._by_sample, True))
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5 * np.abs(found[0]).max())


@pytest.mark.parametrize("spoil", ["silent", "constant targets", "equal"])
def test_degenerate_candidates_and_targets_give_finite_filters(windows, spoil):
    target = _target(windows, _planted(windows))
    if spoil == "silent":
        windows = windows.at[:, 1].set(-1.0)
    elif spoil == "equal":
        windows = jnp.broadcast_to(windows[:, :1], windows.shape)
    else:
        target = target._replace(values=jnp.ones_like(target.values), weights=jnp.zeros(TARGETS))
    for leaf in jax.tree.leaves(_mix(windows, CHOSEN, target, 2)):
        assert np.isfinite(leaf).all()
