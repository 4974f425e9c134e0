"""Merges: two networks into one of the same size, without training, with both parents' heads.

`concatenate` and `zipit` choose groups: which filters of the two parents become one filter. A filter of the
merge is the mean of its group; what read a parent's filter reads the group's (`_combine`). With groups as
matrices that is the algebra of Stoica et al. ("ZipIt! Merging Models from Different Tasks without Training",
arXiv:2305.03053): weights ``M (W_A (+) W_B) U``, with the unmerge matrix ``U``, and the merge matrix ``M``,
its transpose with rows that sum to 1. The heads answer different questions, so they are never mixed: each
reads its own parent's filters through ``U``, and both stand side by side (`assemble.two_concept_head`).

All functions take and give stacked parameters, a leading ``M``: merge ``i`` is of the two networks ``i``.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernelgan import assemble, models, parallel
from kernelgan.evaluation import novelty
from kernelgan.ops import products
from kernelgan.types import Params

Groups = Mapping[str, np.ndarray]
"""By layer, the first nearest the image, float32 ``(M, 2, O, O)`` of 0 and 1: whether a filter (first ``O``)
of the attribute's or the object's network is in the group that makes a filter of the merge (second ``O``)."""

_IMAGES_AT_ONCE = 128
_PAIRS_AT_ONCE = 32
_CONSTANT = 1e-6  # of its mean square: a feature with less variance does not vary
_NO_GAIN = 1e-9  # of the products' size: rounding, no better matching


def average(attribute: Params, objects: Params) -> Params:
    """The mean of both parents' weights (Wortsman et al., arXiv:2203.05482), with both heads.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.

    Returns:
      Stacked parameters with two-concept heads.

    Raises:
      ValueError: the parents' shapes disagree, or a parameter is not finite.
    """
    attribute, objects = _checked(attribute, objects)
    trunks = [{layer: parent[layer] for layer in layers_of(parent)} for parent in (attribute, objects)]
    mean = jax.tree.map(lambda own, other: (own + other) / 2, *trunks)
    return {**mean, "dense": assemble.two_concept_head(attribute["dense"], objects["dense"])}


def rebasin_average(attribute: Params, objects: Params) -> Params:
    """The mean of both parents' weights after the object's filters are matched to the attribute's.

    See `match_weights`.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.

    Returns:
      Stacked parameters with two-concept heads.

    Raises:
      ValueError: see `average`.
    """
    return average(attribute, reordered(objects, match_weights(attribute, objects)))


def match_weights(attribute: Params, objects: Params) -> dict[str, np.ndarray]:
    """Weight matching (Ainsworth, Hayase and Srinivasa, "Git Re-Basin", arXiv:2209.04836).

    Maximises the inner product of the attribute's kernels and biases with the object's, reordered, by
    coordinate descent: one layer after another by linear assignment, until none gains. It starts from each
    layer matched by itself, the first to the last, which finds a reordered copy. The heads are left out:
    their outputs answer different questions, so the products of their weights do not say which features
    are alike.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.

    Returns:
      For each convolutional layer int64 ``(M, O)``: the object's filter for each of the attribute's.

    Raises:
      ValueError: see `average`.
    """
    parents = _checked(attribute, objects)
    names = layers_of(attribute)
    own, other = (
        [{key: leaf.astype(np.float64) for key, leaf in parent[name].items()} for name in names]
        for parent in parents
    )
    orders = [np.indices(layer["bias"].shape)[1] for layer in own]

    def reorder(number: int, *, with_next: bool) -> bool:
        """Reorders the object's filters of a layer as is best, the other layers given; whether any gain."""
        kernels = own[number]["kernel"], other[number]["kernel"]
        products = np.einsum("mhwio,mhwip->mop", *kernels, optimize=True)
        products += own[number]["bias"][:, :, None] * other[number]["bias"][:, None, :]
        is_read = number + 1 < len(names)
        if with_next and is_read:
            following = own[number + 1]["kernel"], other[number + 1]["kernel"]
            products += np.einsum("mhwoq,mhwpq->mop", *following, optimize=True)
        order = novelty.best_orders(products)
        gain = np.take_along_axis(products, order[:, :, None], axis=2).sum(axis=(1, 2))
        gain -= np.trace(products, axis1=1, axis2=2)
        better = gain > _NO_GAIN * np.abs(products).sum(axis=(1, 2))
        order = np.where(better[:, None], order, np.arange(order.shape[1]))
        orders[number] = np.take_along_axis(orders[number], order, axis=1)
        other[number] = {
            "kernel": np.take_along_axis(other[number]["kernel"], order[:, None, None, None, :], axis=4),
            "bias": np.take_along_axis(other[number]["bias"], order, axis=1),
        }
        if is_read:
            kernel = other[number + 1]["kernel"]
            other[number + 1]["kernel"] = np.take_along_axis(kernel, order[:, None, None, :, None], axis=3)
        return bool(better.any())

    for number in range(len(names)):
        reorder(number, with_next=False)
    while any(reorder(number, with_next=True) for number in range(len(names))):
        pass
    return dict(zip(names, orders, strict=True))


def reordered(params: Params, orders: Mapping[str, np.ndarray]) -> Params:
    """Networks that compute the same with their filters in another order.

    Args:
      params: stacked parameters.
      orders: for each convolutional layer int64 ``(M, O)``, see `match_weights`.
    """
    found: Params = {}
    kernel = params["dense"]["kernel"]
    before = np.tile(np.arange(params["conv1"]["kernel"].shape[3]), (len(kernel), 1))
    for layer, order in orders.items():
        read = np.take_along_axis(params[layer]["kernel"], before[:, None, None, :, None], axis=3)
        found[layer] = {
            "kernel": np.take_along_axis(read, order[:, None, None, None, :], axis=4),
            "bias": np.take_along_axis(params[layer]["bias"], order, axis=1),
        }
        before = order
    by_filter = kernel.reshape(*before.shape, -1, kernel.shape[2])  # features are CHW
    rows = np.take_along_axis(by_filter, before[:, :, None, None], axis=1)
    return {**found, "dense": {**params["dense"], "kernel": rows.reshape(kernel.shape)}}


def concatenate(attribute: Params, objects: Params) -> Params:
    """Half the filters of each parent side by side, with no connection between them.

    Kept are the filters of largest L1 norm (Li et al., "Pruning Filters for Efficient ConvNets",
    arXiv:1608.08710), in the parent's order; the norm is over the inputs that were kept, their greedy
    strategy. Of an odd number the attribute's parent keeps one more than the object's. Biases are kept with
    their filters, and each head reads its own parent's.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.

    Returns:
      Stacked parameters with two-concept heads; attribute's filters first.

    Raises:
      ValueError: see `average`.
    """
    attribute, objects = _checked(attribute, objects)
    groups = {}
    inputs = [np.ones(attribute["conv1"]["kernel"].shape[:1] + attribute["conv1"]["kernel"].shape[3:4])] * 2
    for layer in layers_of(attribute):
        members, filters = attribute[layer]["bias"].shape
        halves = np.split(np.arange(filters), [-(-filters // 2)])
        writes = np.zeros((members, 2, filters, filters), np.float32)
        for side, (parent, half) in enumerate(zip((attribute, objects), halves, strict=True)):
            norms = np.einsum("mhwio,mi->mo", np.abs(parent[layer]["kernel"]), inputs[side])
            largest = np.sort(np.argsort(-norms, axis=1, kind="stable")[:, : len(half)], axis=1)
            writes[np.arange(members)[:, None], side, largest, half] = 1
        groups[layer] = writes
        inputs = [writes[:, side].sum(axis=2) for side in (0, 1)]
    return _combine(attribute, objects, groups)


def zipit(attribute: Params, objects: Params, images: np.ndarray) -> Params:
    """Merges the features that correlate most, within a parent as well as across (arXiv:2305.03053).

    A feature is a filter's activation as the next layer reads it, after ReLU and pooling, in the parent on
    its own. Of both parents' ``2 O`` features the two of highest correlation, over images and positions, are
    merged, and so on with the others until all are, each once: the paper's greedy matching without
    replacement, with no limit on pairs within a parent (alpha 0, beta 1). A feature that does not vary on
    these images correlates 0 with every other.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.
      images: uint8 ``(N, H, W, C)``, to correlate on.

    Returns:
      Stacked parameters with two-concept heads.

    Raises:
      ValueError: see `average`.
    """
    attribute, objects = _checked(attribute, objects)
    groups = {}
    for layer, correlations in feature_correlations(attribute, objects, images).items():
        writes = np.zeros((*correlations.shape[:2], correlations.shape[2] // 2), np.float32)
        for member, correlation in enumerate(correlations):
            for merged, pair in enumerate(_greedy_pairs(correlation)):
                writes[member, pair, merged] = 1
        groups[layer] = writes.reshape(len(writes), 2, -1, writes.shape[2])
    return _combine(attribute, objects, groups)


def feature_correlations(attribute: Params, objects: Params, images: np.ndarray) -> dict[str, np.ndarray]:
    """Pearson correlations of both parents' features of each layer, over images and positions; see `zipit`.

    Args:
      attribute: parents, stacked.
      objects: as many, of the same shapes.
      images: uint8 ``(N, H, W, C)``.

    Returns:
      By layer float64 ``(M, 2 O, 2 O)``, the attribute's features first; 0 for a feature that does not vary.

    Raises:
      ValueError: see `zipit`.
    """
    attribute, objects = _checked(attribute, objects)
    count = len(attribute["dense"]["bias"])
    chunks = parallel.chunks(count, _PAIRS_AT_ONCE)
    spread, run = _compiled_moments(len(chunks[0]))
    resident = spread.share(in_batches(images))
    parts = []
    for chunk in chunks:
        first, second = (spread.deal(assemble.take_members(parent, chunk)) for parent in (attribute, objects))
        parts.append(spread.collect(run(first, second, resident)))
    return {
        layer: _correlations(np.concatenate([part[layer] for part in parts])[:count])
        for layer in layers_of(attribute)
    }


def in_batches(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(b, B, H, W, C)``, some of them twice so that batches are full, and 0 for these ``(b, B)``.

    Raises:
      ValueError: no images, or images that are not uint8.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be uint8 (N, H, W, C), N > 0; got {images.dtype} {images.shape}")
    batch = min(_IMAGES_AT_ONCE, len(images))
    places = np.arange(-(-len(images) // batch) * batch)
    present = (places < len(images)).astype(np.float32).reshape(-1, batch)
    return images[places % len(images)].reshape(-1, batch, *images.shape[1:]), present


@functools.cache
def _compiled_moments(
    members: int,
) -> tuple[parallel.Spread, Callable[[Params, Params, tuple[jax.Array, jax.Array]], dict[str, jax.Array]]]:
    """``(parents, parents, (images (b, B, H, W, C), present (b, B))) -> {layer: (m, b, 2 O + 1, 2 O + 1)}``.

    Sums of products of the features, and of a last one that is 1 wherever there is an image.
    """
    spread = parallel.Spread(members)

    def moments(attribute: Params, objects: Params, shared: tuple[jax.Array, jax.Array]) -> Params:
        def of_batch(batch: tuple[jax.Array, jax.Array]) -> Params:
            images, present = batch
            hidden = [models.ConvNet().lay_out(models.normalise_images(images))] * 2
            found = {}
            for layer in layers_of(attribute):
                size, *_, filters = attribute[layer]["kernel"].shape
                module = models.ConvPool(filters, size)
                hidden = [
                    cast("jax.Array", module.apply({"params": parent[layer]}, inputs))
                    for parent, inputs in zip((attribute, objects), hidden, strict=True)
                ]
                # (K, 2 O, P, Q, images of a block), or one block; places without an image are zero.
                blocks = jnp.concatenate(hidden, axis=-4).reshape(-1, 2 * filters, *hidden[0].shape[-3:])
                places = len(blocks) * blocks.shape[-1]
                here = jnp.pad(present, (0, places - len(present))).reshape(len(blocks), 1, 1, 1, -1)
                ones = jnp.ones_like(blocks[:, :1])
                joint = (jnp.concatenate([blocks, ones], axis=1) * here).swapaxes(0, 1)
                joint = joint.reshape(len(joint), -1)
                found[layer] = jnp.matmul(joint, joint.T, precision=products.PRECISION)
            return found

        return lax.map(of_batch, shared)

    return spread, spread.map(moments)


def _correlations(moments: np.ndarray) -> np.ndarray:
    """Sums of products ``(M, b, F + 1, F + 1)``, see `_compiled_moments`, to correlations ``(M, F, F)``."""
    summed = moments.astype(np.float64).sum(axis=1)
    square, mean = (part / summed[:, -1:, -1:] for part in (summed[:, :-1, :-1], summed[:, :-1, -1:]))
    covariance = square - mean * mean.swapaxes(1, 2)
    variance, size = (np.diagonal(part, axis1=1, axis2=2) for part in (covariance, square))
    varies = variance > _CONSTANT * size
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1)), 0)
    return covariance * scale[:, :, None] * scale[:, None, :]


def _greedy_pairs(correlation: np.ndarray) -> list[tuple[int, int]]:
    """Features ``(2 O, 2 O)`` in pairs, the most correlated first, each feature once; by first number."""
    left = correlation.copy()
    np.fill_diagonal(left, -np.inf)
    pairs = []
    for _ in range(len(left) // 2):
        pair = np.unravel_index(np.argmax(left), left.shape)
        left[pair, :] = left[:, pair] = -np.inf
        pairs.append((int(min(pair)), int(max(pair))))
    return sorted(pairs)


def noise(parents: Params, translated: Params, seed: int) -> Params:
    """The parents' kernels with Gaussian noise of the size of the translation.

    Per network and layer the noise has exactly the L2 norm of ``translated - parents``.

    Args:
      parents: stacked parameters, whose convolutional kernels are taken.
      translated: the networks that were generated from them; everything else is theirs.
      seed: the noise of network ``i`` depends on it and ``i`` alone.

    Returns:
      Stacked parameters.

    Raises:
      ValueError: the kernels' shapes disagree, or one is not finite.
    """
    layers = layers_of(translated)
    before, after = _checked(
        *({layer: params[layer]["kernel"] for layer in layers} for params in (parents, translated))
    )
    found = dict(translated)
    for number, layer in enumerate(layers):
        kernel = before[layer].astype(np.float64)
        for member in range(len(kernel)):
            rng = np.random.default_rng([seed, zlib.crc32(b"noise"), number, member])
            drawn = rng.normal(size=kernel[member].shape)
            size = np.linalg.norm(after[layer][member] - kernel[member])
            kernel[member] += size / np.linalg.norm(drawn) * drawn
        found[layer] = {**translated[layer], "kernel": kernel.astype(before[layer].dtype)}
    return found


def _combine(attribute: Params, objects: Params, groups: Groups) -> Params:
    """Networks of one filter for each group, see the head of this file; a filter in no group is dropped."""
    parents = (attribute, objects)
    merged: Params = {}
    members, *_, channels, _ = attribute[next(iter(groups))]["kernel"].shape
    reads = np.broadcast_to(np.eye(channels, dtype=np.float32), (members, 2, channels, channels))  # the image
    for layer, writes in groups.items():
        shares = writes / writes.sum(axis=(1, 2), keepdims=True)
        kernels, biases = [], []
        for side, parent in enumerate(parents):
            read = np.einsum("mhwio,miu->mhwuo", parent[layer]["kernel"], reads[:, side])
            kernels.append(np.einsum("mhwuo,mok->mhwuk", read, shares[:, side]))
            biases.append(np.einsum("mo,mok->mk", parent[layer]["bias"], shares[:, side]))
        merged[layer] = {"kernel": kernels[0] + kernels[1], "bias": biases[0] + biases[1]}
        reads = writes
    heads = []
    for side, parent in enumerate(parents):
        kernel = parent["dense"]["kernel"]
        by_filter = kernel.reshape(members, reads.shape[2], -1, kernel.shape[2])  # features are CHW
        read = np.einsum("mopl,mok->mkpl", by_filter, reads[:, side])
        heads.append({"kernel": read.reshape(kernel.shape), "bias": parent["dense"]["bias"]})
    merged["dense"] = assemble.two_concept_head(*heads)
    return merged


def layers_of(params: Params) -> tuple[str, ...]:
    """The convolutional layers, the first nearest the image."""
    return models.layer_names(range(len(params) - ("dense" in params)))


def _checked(first: Params, second: Params) -> tuple[Params, Params]:
    """Both as numpy, if they are alike."""
    first, second = (jax.tree.map(np.asarray, params) for params in (first, second))
    shapes = [jax.tree.map(np.shape, params) for params in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"both must have parameters of the same shapes, got {shapes[0]} and {shapes[1]}")
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((first, second))):
        raise ValueError("a parameter is not finite: merges are of networks whose training succeeded")
    return first, second
