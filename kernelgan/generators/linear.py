"""A linear map for each layer between kernels that weight matching pairs.

The filters of parent ``i`` of the object's zoo are matched to those of parent ``i`` of the attribute's
(Ainsworth et al., "Git Re-Basin", arXiv:2209.04836). In each layer an affine map takes a filter of the
attribute's zoo to its match; Adam fits it to the mean squared error over all parents. The networks are the
attribute's parents with mapped kernels and both heads, the object's in the order of the match.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
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
        both = _matched(parents)
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
        attribute, matched = _matched(parents)
        made = {}
        for layer in layers:
            kernel = attribute[layer]["kernel"]
            made[layer] = _mapped(state[layer], _filters(kernel)).reshape(kernels.to_volume(kernel).shape)
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


def _matched(parents: Parents) -> tuple[Params, Params]:
    """As many parents of the attribute as of the object, these with their filters in the matched order."""
    attribute, objects = assemble.paired(*parents)
    return attribute, merges.reordered(objects, merges.match_weights(attribute, objects))


def _filters(kernel: Array) -> Array:
    """``(M, h, w, I, O)`` as a row for each filter, ``(M, O, h * w * I)``."""
    volumes = kernels.to_volume(kernel)
    return volumes.reshape(*volumes.shape[:2], -1)


def _mapped(affine: Params, filters: Array) -> jax.Array:
    return jnp.matmul(filters, affine["kernel"]) + affine["bias"]
