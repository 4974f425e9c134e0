"""Merges that read second moments of what each layer reads: RegMean and REPAIR.

All functions take and give stacked parameters, a leading ``M``: merge ``i`` is of the two networks ``i``.
Both parents' heads stand side by side, as in `merges`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from jax import lax

from kernelgan import assemble, models, parallel
from kernelgan.baselines import merges
from kernelgan.evaluation import clustering
from kernelgan.ops import products
from kernelgan.types import Params

SHRINKAGE = 0.9
"""What RegMean multiplies the moments of two different inputs by; the paper's value for most models."""

_NETWORKS_AT_ONCE = 32
_EVERY = 2  # of the positions of a convolution, along each side: neighbours say nearly the same
_RIDGE = 1e-6  # of the mean square of an input: what no parent reads gets the weight 0
_SILENT = 1e-6  # of its mean square: a filter with less variance is left as it is


def regmean(attribute: Params, objects: Params, images: np.ndarray) -> Params:
    """Weights that give both parents' pre-activations best, each on its own inputs, by least squares.

    Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models" (arXiv:2212.09849), equation
    2: ``W = (G_A + G_B)^-1 (G_A W_A + G_B W_B)`` with ``G`` the second moments of a layer's inputs in each
    parent, those of different inputs multiplied by `SHRINKAGE`. Biases are averaged, as are the weights of
    the first layer, whose inputs are the same for both.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.
      images: uint8 ``(N, H, W, C)``.

    Returns:
      Stacked parameters with two-concept heads.
    """
    merged = merges.average(attribute, objects)
    for number, layer in enumerate(merges.layers_of(attribute)):
        if number == 0:
            continue
        grams, sums = [], []
        for parent in (attribute, objects):
            gram = input_moments(parent, images, number)[:, :-1, :-1]
            diagonal = np.eye(gram.shape[1]) * gram
            grams.append(SHRINKAGE * gram + (1 - SHRINKAGE) * diagonal)
            sums.append(grams[-1] @ _flat(parent[layer]["kernel"]))
        gram = grams[0] + grams[1]
        scale = np.trace(gram, axis1=1, axis2=2) / gram.shape[1]
        with threadpoolctl.threadpool_limits(1), clustering.ALONE:  # threads cost more than they do here
            solved = np.linalg.solve(gram + _RIDGE * scale[:, None, None] * np.eye(gram.shape[1]), sum(sums))
        kernel = attribute[layer]["kernel"]
        merged[layer] = {**merged[layer], "kernel": solved.reshape(kernel.shape).astype(kernel.dtype)}
    return merged


def repair(attribute: Params, objects: Params, images: np.ndarray) -> Params:
    """The average after matching filters, with each filter's mean and spread put right.

    Jordan et al., "REPAIR: REnormalizing Permuted Activations for Interpolation Repair" (arXiv:2211.08403):
    each pre-activation of the average is scaled and moved to have the mean of both parents' means, and the
    mean of their standard deviations; the first layer first. The heads are left as they are.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes; matched by `merges.match_weights`.
      images: uint8 ``(N, H, W, C)``.

    Returns:
      Stacked parameters with two-concept heads.
    """
    matched = merges.reordered(objects, merges.match_weights(attribute, objects))
    merged = merges.average(attribute, matched)
    for number, layer in enumerate(merges.layers_of(attribute)):
        networks = (attribute, matched, merged)
        if number == 0:  # all read the same
            moments = [input_moments(attribute, images, 0)] * 3
        else:
            moments = [input_moments(params, images, number) for params in networks]
        *goals, (own_mean, own) = map(_spread, [params[layer] for params in networks], moments)
        mean, deviation = np.mean(goals, axis=0)
        factor = np.where(own > 0, deviation / np.where(own > 0, own, 1), 1)
        kernel, bias = merged[layer]["kernel"], merged[layer]["bias"]
        repaired = {
            "kernel": kernel * factor[:, None, None, None, :],
            "bias": (bias - own_mean) * factor + mean,
        }
        merged[layer] = jax.tree.map(lambda leaf, dtype=kernel.dtype: leaf.astype(dtype), repaired)
    return merged


def input_moments(params: Params, images: np.ndarray, number: int) -> np.ndarray:
    """Second moments of what a convolutional layer reads, and of a last input that is always 1.

    Args:
      params: stacked parameters.
      images: uint8 ``(N, H, W, C)``, ``N`` above 0.
      number: of the layer, 0 the first.

    Returns:
      float64 ``(M, K + 1, K + 1)``, means over images and positions; ``K`` inputs in the order of the
      kernel's ``(h, w, I)``. For the first layer ``M`` is 1, for all networks read the same.
    """
    names = merges.layers_of(params)
    size = params[names[number]]["kernel"].shape[1]
    before = {name: params[name] for name in names[:number]} or {"": np.zeros((1, 1), np.float32)}
    count = len(jax.tree.leaves(before)[0])
    chunks = parallel.chunks(count, _NETWORKS_AT_ONCE)
    spread, run = _compiled_moments(len(chunks[0]), names[:number], size)
    resident = spread.share(merges.in_batches(images))
    parts = [
        spread.collect(run(spread.deal(assemble.take_members(before, chunk)), resident)) for chunk in chunks
    ]
    summed = np.concatenate(parts)[:count].astype(np.float64).sum(axis=1)
    return summed / summed[:, -1:, -1:]


@functools.cache
def _compiled_moments(
    members: int, before: tuple[str, ...], size: int
) -> tuple[parallel.Spread, Callable[[Params, tuple[jax.Array, jax.Array]], jax.Array]]:
    """``(params, (images (b, B, H, W, C), present (b, B))) -> sums of products (m, b, K + 1, K + 1)``."""
    spread = parallel.Spread(members)

    def moments(params: Params, shared: tuple[jax.Array, jax.Array]) -> jax.Array:
        def of_batch(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            images, present = batch
            hidden = models.ConvNet().lay_out(models.normalise_images(images))
            for name in before:
                kernel = params[name]["kernel"]
                module = models.ConvPool(kernel.shape[-1], kernel.shape[0])
                hidden = cast("jax.Array", module.apply({"params": params[name]}, hidden))
            # (blocks, I, H, W, images of a block), or one block; places without an image count nothing.
            blocks = hidden.reshape(-1, *hidden.shape[-4:])
            height, width = (side - size + 1 for side in blocks.shape[2:4])
            patches = jnp.stack(
                [
                    blocks[:, :, down : down + height : _EVERY, right : right + width : _EVERY]
                    for down, right in itertools.product(range(size), repeat=2)
                ]
            )
            inputs = patches.swapaxes(1, 2).reshape(-1, len(blocks), *patches.shape[3:])
            here = jnp.pad(present, (0, len(blocks) * blocks.shape[-1] - len(present)))
            joint = jnp.concatenate([inputs, jnp.ones_like(inputs[:1])])
            joint = (joint * here.reshape(len(blocks), 1, 1, -1)).reshape(len(joint), -1)
            return jnp.matmul(joint, joint.T, precision=products.PRECISION)

        return lax.map(of_batch, shared)

    return spread, spread.map(moments)


def _spread(layer: Params, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation ``(M, O)`` of a layer's pre-activations; 0 for what hardly varies.

    Args:
      layer: ``{"kernel", "bias"}``, stacked.
      moments: of what it reads, see `input_moments`.
    """
    weights = np.concatenate([_flat(layer["kernel"]), layer["bias"][:, None]], axis=1).astype(np.float64)
    mean = np.einsum("mk,mko->mo", np.broadcast_to(moments[:, -1], weights.shape[:2]), weights)
    square = np.einsum("mko,mko->mo", moments @ weights, weights)
    variance = square - mean**2
    return mean, np.sqrt(np.where(variance > _SILENT * square, variance, 0))


def _flat(kernel: np.ndarray) -> np.ndarray:
    """``(M, h, w, I, O)`` to ``(M, h w I, O)``."""
    return kernel.reshape(len(kernel), -1, kernel.shape[-1])
