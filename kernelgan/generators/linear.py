"""A linear map for each layer between kernels that weight matching pairs.

The filters of parent ``i`` of the object's zoo are matched to those of parent ``i`` of the attribute's
(Ainsworth et al., "Git Re-Basin", arXiv:2209.04836). In each layer an affine map takes a filter of the
attribute's zoo to its match; Adam fits it to the mean squared error over all parents. The networks are the
attribute's parents with mapped kernels and both heads, the object's in the order of the match.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kernelgan import assemble, fields, kernels, models
from kernelgan.baselines import merges
from kernelgan.fields import setting
from kernelgan.generators.base import Generator, Metrics, Networks, Parents, Probes
from kernelgan.types import Array, Key, Params

LABELS = {
    "": (
        "{attribute} kernels mapped linearly",
        "the attribute's kernels, mapped linearly to the object's that they match, both heads",
    )
}
NOISE = {"": ("attribute", "noise_linear")}


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of ``config.generators.linear``."""

    steps: int = setting(300, fields.whole(1), "steps of Adam")
    learning_rate: float = setting(0.01, fields.positive, "of Adam")
    bias: str = setting(
        "zero",
        fields.one_of(*assemble.BIASES),
        "biases of generated networks: 'zero', or 'parent': of the mapped parent",
    )


def make(network: models.ConvNet, config: Config) -> Generator:
    """Linear maps for every convolutional layer of such networks."""
    layers = models.layer_names(network.filters)
    optimizer = optax.adam(config.learning_rate)

    def view(parents: Parents, probes: Probes) -> Params:
        del probes
        both = _matched(parents, layers)
        return {layer: tuple(_filters(zoo[layer]["kernel"]) for zoo in both) for layer in layers}

    def init(key: Key, view: Params) -> Params:
        del key
        maps = {}
        for layer, (source, _) in view.items():
            size = source.shape[-1]
            maps[layer] = {"kernel": jnp.eye(size), "bias": jnp.zeros(size)}
        return {"maps": maps, "moments": optimizer.init(maps)}

    def update(key: Key, state: Params, view: Params) -> tuple[Params, Metrics]:
        del key

        def loss(maps: Params) -> tuple[jax.Array, Metrics]:
            errors = {
                layer: jnp.mean(jnp.square(_mapped(maps[layer], source) - target))
                for layer, (source, target) in view.items()
            }
            return sum(errors.values(), jnp.float32(0.0)), errors

        gradients, errors = jax.grad(loss, has_aux=True)(state["maps"])
        updates, moments = optimizer.update(gradients, state["moments"])
        return {"maps": optax.apply_updates(state["maps"], updates), "moments": moments}, errors

    def generate(key: Key, state: Params, parents: Parents, probes: Probes) -> Networks:
        del key, probes
        attribute, matched = _matched(parents, layers)
        made = {}
        for layer in layers:
            kernel = attribute[layer]["kernel"]
            mapped = _mapped(state[layer], _filters(kernel)).reshape(kernels.to_volume(kernel).shape)
            made[layer] = mapped
        heads = assemble.two_concept_head(attribute["dense"], matched["dense"])
        return {"": assemble.assemble(attribute, made, heads, bias=config.bias, layers=layers)}

    return Generator(
        view=view,
        init=init,
        update=update,
        generate=generate,
        steps=config.steps,
        keep=lambda state: state["maps"],
        host=True,
    )


def _matched(parents: Parents, layers: Sequence[str]) -> tuple[Params, Params]:
    """As many parents of the attribute as of the object, these with their filters in the matched order."""
    attribute, objects = assemble.paired(*parents)
    matched = dict(objects)
    reads: np.ndarray | None = None
    for layer, order in merges.match_weights(attribute, objects).items():
        kernel = np.take_along_axis(objects[layer]["kernel"], order[:, None, None, None, :], axis=4)
        if reads is not None:
            kernel = np.take_along_axis(kernel, reads[:, None, None, :, None], axis=3)
        bias = np.take_along_axis(objects[layer]["bias"], order, axis=1)
        matched[layer], reads = {"kernel": kernel, "bias": bias}, order
    assert reads is not None
    dense = objects["dense"]["kernel"]
    by_filter = dense.reshape(len(dense), reads.shape[1], -1, dense.shape[-1])  # features are CHW
    rows = np.take_along_axis(by_filter, reads[:, :, None, None], axis=1).reshape(dense.shape)
    return attribute, {**matched, "dense": {"kernel": rows, "bias": objects["dense"]["bias"]}}


def _filters(kernel: Array) -> Array:
    """``(M, h, w, I, O)`` as a row for each filter, ``(M, O, h * w * I)``."""
    volumes = kernels.to_volume(kernel)
    return volumes.reshape(*volumes.shape[:2], -1)


def _mapped(affine: Params, filters: Array) -> jax.Array:
    return jnp.matmul(filters, affine["kernel"]) + affine["bias"]
