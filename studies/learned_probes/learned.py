"""`reduce` with learned probes: the closed form is differentiated, and its probe images are trained.

The images that the closed form looks at are parameters. They start as pictures that the package makes and
are trained so that the reduced networks give their parents' answers on images of the training pairs. What is
trained is used on parents that it never saw: weights in, weights out. Heads are shrunk towards the parents'
own heads, and refitted kernels towards the parents' own kernels, where `reduce` shrinks towards 0.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from kernelgan import models, refit
from kernelgan.generators import reduce
from kernelgan.ops import products
from kernelgan.types import Array, Params


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of the reduction.

    Attributes:
      patches: positions of each probe that a convolution is fitted on.
      ridge: of a convolution's fit, in units of a filter's mean variance.
      head_ridge: of the heads' fit.
    """

    patches: int = 8
    ridge: float = 0.01
    head_ridge: float = 0.5


def compose(
    network: models.ConvNet, probes: Array, attribute: Params, objects: Params, settings: Settings
) -> Params:
    """One network of a parent's size, differentiable in the probes.

    The chosen filters are those of `reduce`; no gradient goes through the choice.

    Args:
      network: the parents' module.
      probes: float32 ``(N, H, W, C)`` in [-1, 1], a multiple of 64.
      attribute: parameters of one parent.
      objects: of the other.
      settings: of the reduction.

    Returns:
      Parameters with two-concept heads.
    """
    laid_out, count = network.lay_out(jnp.clip(probes, -1, 1)), len(probes)
    names = models.layer_names(network.filters)
    group = reduce.unite(network, [attribute, objects], laid_out, count)
    importance = reduce.importances(names, lax.stop_gradient(group))
    made: Params = {}
    firsts = [parent[names[0]] for parent in group.params]
    layer = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *firsts)
    maps = _side_by_side(group, 0)
    for number, filters in enumerate(network.filters[:-1]):
        following = names[number + 1]
        targets = _targets(group, number, following, settings.patches)
        candidates = layer["kernel"].shape[-1]
        side = group.params[0][following]["kernel"].shape[0]
        read = lax.stop_gradient(reduce.patches(maps, side, settings.patches))
        found = refit.moments(read, lax.stop_gradient(targets), candidates, reduce.Config().ridge)
        weights = _balanced(importance[number + 1], found.variance)
        kept = reduce.exchange(found, weights, candidates, reduce.select(found, weights, candidates, filters))
        made[names[number]] = jax.tree.map(lambda leaf, kept=kept: leaf[..., kept], layer)
        kernels = [parent[following]["kernel"].transpose(2, 0, 1, 3) for parent in group.params]
        own = [kernel.reshape(len(kernel), side * side, -1) for kernel in kernels]
        towards = _block_diagonal(own)[kept].reshape(filters * side * side, -1)
        maps = jnp.take(maps, kept, axis=-4)
        read = reduce.patches(maps, side, settings.patches)
        fitted, intercepts = _fit(read, targets, filters, settings.ridge, towards)
        kernel = fitted.reshape(filters, side, side, -1).transpose(1, 2, 0, 3)
        layer = {"kernel": kernel, "bias": intercepts}
        maps, before = refit.run_layer(lax.stop_gradient(layer), lax.stop_gradient(maps)), maps
    last = refit.batch_minor(maps, count)
    difference = lax.stop_gradient(group.difference)
    found = refit.moments(last.reshape(-1, count), difference, len(last), settings.head_ridge)
    weights = jnp.where(found.variance > 0, 1 / jnp.where(found.variance > 0, found.variance, 1), 0)
    kept = reduce.select(found, weights, len(last), network.filters[-1])
    made[names[-1]] = jax.tree.map(lambda leaf: leaf[..., kept], layer)
    features = refit.batch_minor(refit.run_layer(made[names[-1]], before), count)
    heads = [parent["dense"]["kernel"] for parent in group.params]
    own = [(head[:, 1] - head[:, 0]).reshape(len(last) // 2, -1, 1) for head in heads]
    towards = _block_diagonal(own)[kept].reshape(-1, 2)
    fit = _fit(features.reshape(-1, count), group.difference, len(kept), settings.head_ridge, towards)
    return {**made, "dense": refit.two_concept_head(*fit)}


def loss(
    network: models.ConvNet,
    probes: Array,
    attribute: Params,
    objects: Params,
    images: Array,
    settings: Settings,
) -> jax.Array:
    """What the reduced network loses of its parents' answers, as a share of their variance.

    Args:
      network: the parents' module.
      probes: see `compose`.
      attribute: parameters of one parent.
      objects: of the other.
      images: float32 ``(B, H, W, C)`` in [-1, 1], on which answers are compared.
      settings: of the reduction.

    Returns:
      The mean over both concepts; what does not vary has no share.
    """
    made = compose(network, probes, attribute, objects, settings)
    answers = models.run_convnet(network.clone(outputs=4), made, jnp.asarray(images))[0]
    shares = []
    for place, parent in enumerate((attribute, objects)):
        wanted = models.run_convnet(network, parent, jnp.asarray(images))[0]
        target = wanted[:, 1] - wanted[:, 0]
        given = answers[:, 2 * place + 1] - answers[:, 2 * place]
        variance = jnp.var(target)
        varies = variance > 0
        error = jnp.mean(jnp.square(given - target))
        shares.append(jnp.where(varies, error / jnp.where(varies, variance, 1), 0))
    return jnp.mean(jnp.stack(shares))


def _fit(
    features: jax.Array, targets: jax.Array, groups: int, ridge: float, towards: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Ridge regression that shrinks towards weights ``(d, t)``; weights ``(d, t)`` and intercepts ``(t,)``.

    Features and targets are as in `refit.moments`. Shrinking towards ``W0`` is the regression of what
    ``W0`` leaves of the targets, plus ``W0``.
    """
    rest = targets - jnp.matmul(towards.T, features, precision=products.PRECISION)
    found = refit.moments(features, rest, groups, ridge)
    weights, intercepts = refit.solve(found, jnp.arange(groups), len(features) // groups)
    return weights + towards, intercepts


def _side_by_side(group: reduce.Group, number: int) -> jax.Array:
    """Maps that a layer of both parents gives, ``(F, ...)``."""
    return jnp.concatenate([maps[number] for maps in group.hidden], axis=-4)


def _targets(group: reduce.Group, number: int, following: str, each: int) -> jax.Array:
    """Pre-activations ``(t, N * each)`` of the parents' next layer, at the places of `reduce.patches`."""
    wanted = []
    for parent, maps in zip(group.params, group.hidden, strict=True):
        taps = parent[following]["kernel"].transpose(3, 2, 0, 1)
        read = reduce.patches(maps[number], taps.shape[-1], each)
        found = jnp.matmul(taps.reshape(len(taps), -1), read, precision=products.PRECISION)
        wanted.append(found + parent[following]["bias"][:, None])
    return jnp.concatenate(wanted)


def _balanced(importance: jax.Array, variance: jax.Array) -> jax.Array:
    """Weights of squared errors ``(t,)``, with which what is to be explained of each parent sums to 1."""
    total = jnp.sum((importance * variance).reshape(2, -1), axis=1)
    share = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
    return importance * jnp.repeat(share, len(importance) // 2)


def _block_diagonal(blocks: list[jax.Array]) -> jax.Array:
    """``(F, q, t)`` of each parent as ``(all F, q, all t)``, zero where one would read another's."""
    total = sum(block.shape[-1] for block in blocks)
    rows, before = [], 0
    for block in blocks:
        width = block.shape[-1]
        rows.append(jnp.pad(block, ((0, 0), (0, 0), (before, total - before - width))))
        before += width
    return jnp.concatenate(rows)
