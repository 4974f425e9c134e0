"""Tests for kernelgan.baselines.moments: RegMean and REPAIR against independent arithmetic."""

import jax
import numpy as np
import pytest

from kernelgan import models
from kernelgan.baselines import merges, moments
from kernelgan.evaluation import features

FILTERS, SIZE = (3, 5), 3


@pytest.fixture(scope="module")
def network():
    return models.ConvNet(filters=FILTERS, kernel_size=SIZE)


@pytest.fixture(scope="module")
def parents(network):
    """Three pairs."""

    def made(seed):
        keys = jax.random.split(jax.random.key(seed), 3)
        return jax.device_get(
            jax.jit(jax.vmap(lambda key: models.initialise_convnet(network, 16, key)))(keys)
        )

    return made(1), made(2)


def _patches(maps):
    """``(N, H, W, I)`` to ``(n, 9 I)``, every second position, one at a time."""
    _, height, width, _ = maps.shape
    return np.concatenate(
        [
            maps[:, down : down + SIZE, right : right + SIZE].reshape(len(maps), -1)
            for down in range(0, height - SIZE + 1, 2)
            for right in range(0, width - SIZE + 1, 2)
        ]
    )


def _read(params, member, images, number):
    """What a layer of one network reads, as patches, by plain numpy."""
    maps = (images / 255.0 - 0.5) / 0.5
    for name in ("conv1", "conv2")[:number]:
        kernel, bias = (params[name][leaf][member].astype(float) for leaf in ("kernel", "bias"))
        height, width = (side - SIZE + 1 for side in maps.shape[1:3])
        summed = np.zeros((len(maps), height, width, kernel.shape[-1]))
        for down, right in np.ndindex(SIZE, SIZE):
            window = maps[:, down : down + height, right : right + width]
            summed += window @ kernel[down, right]
        active = np.maximum(summed + bias, 0)[:, : height // 2 * 2, : width // 2 * 2]
        maps = active.reshape(len(maps), height // 2, 2, width // 2, 2, -1).max(axis=(2, 4))
    return _patches(maps)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("count", [64, 37])
def test_moments_are_of_the_patches_that_a_layer_reads(parents, images, number, count):
    found = moments.input_moments(parents[0], images[:count], number)
    assert len(found) == (3 if number else 1)
    for member, moment in enumerate(found):
        patches = _read(parents[0], member, images[:count], number)
        joint = np.concatenate([patches, np.ones((len(patches), 1))], axis=1)
        np.testing.assert_allclose(moment, joint.T @ joint / len(joint), rtol=1e-4, atol=1e-5)


def test_regmean_is_the_papers_closed_form(parents, images):
    merged = moments.regmean(*parents, images)
    for member in range(3):
        grams, sums = [], []
        for parent in parents:
            patches = _read(parent, member, images, 1)
            gram = patches.T @ patches / len(patches)
            gram = np.where(np.eye(len(gram)), gram, 0.9 * gram)
            grams.append(gram)
            sums.append(gram @ parent["conv2"]["kernel"][member].reshape(len(gram), -1))
        expected = np.linalg.solve(sum(grams), sum(sums))
        kernel = merged["conv2"]["kernel"][member].reshape(expected.shape)
        np.testing.assert_allclose(kernel, expected, rtol=1e-3, atol=1e-4)


def test_regmean_averages_what_it_has_no_moments_of(parents, images):
    merged, average = moments.regmean(*parents, images), merges.average(*parents)
    for layer, leaf in (("conv1", "kernel"), ("conv1", "bias"), ("conv2", "bias"), ("dense", "kernel")):
        np.testing.assert_array_equal(merged[layer][leaf], average[layer][leaf])


def test_filters_in_another_order_compute_the_same(network, parents, images):
    rng = np.random.default_rng(0)
    orders = {
        layer: rng.permuted(np.tile(np.arange(count), (3, 1)), axis=1)
        for layer, count in zip(("conv1", "conv2"), FILTERS, strict=True)
    }
    answers = [
        features.population_logits(network, params, images[:8], chunk_size=8)
        for params in (parents[0], merges.reordered(parents[0], orders))
    ]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_repair_gives_each_filter_the_mean_of_its_parents_means_and_spreads(parents, images):
    attribute, objects = parents
    matched = merges.reordered(objects, merges.match_weights(*parents))
    merged = moments.repair(attribute, objects, images)

    def spread(params, member, number):
        layer = params[f"conv{number + 1}"]
        patches = _read(params, member, images, number)
        before = patches @ layer["kernel"][member].reshape(patches.shape[1], -1) + layer["bias"][member]
        return np.stack([before.mean(axis=0), before.std(axis=0)])

    for member in range(3):
        for number in (0, 1):
            goal = (spread(attribute, member, number) + spread(matched, member, number)) / 2
            np.testing.assert_allclose(spread(merged, member, number), goal, rtol=1e-3, atol=1e-4)


def test_repair_only_scales_and_moves_the_rebasin_average(parents, images):
    merged, average = moments.repair(*parents, images), merges.rebasin_average(*parents)
    for layer in ("conv1", "conv2"):
        ratio = merged[layer]["kernel"] / average[layer]["kernel"]
        np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1, :1], ratio.shape), rtol=1e-3)
    for leaf in ("kernel", "bias"):
        np.testing.assert_allclose(merged["dense"][leaf], average["dense"][leaf], atol=1e-6)


@pytest.mark.parametrize("merge", [moments.regmean, moments.repair])
def test_a_parent_and_itself_are_merged_without_loss(network, parents, images, merge):
    attribute = parents[0]
    merged = merge(attribute, attribute, images)
    own = features.population_logits(network, attribute, images[:8], chunk_size=8)
    both = features.population_logits(network, merged, images[:8], chunk_size=8)
    np.testing.assert_allclose(both, np.concatenate([own, own], axis=-1), atol=2e-4)


@pytest.mark.parametrize("merge", [moments.regmean, moments.repair])
def test_a_filter_that_is_silent_on_every_image_does_no_harm(parents, images, merge):
    silent = jax.tree.map(np.copy, parents[0])
    silent["conv1"]["bias"][:, 0] = -100.0
    merged = merge(silent, silent, images)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(merged))
