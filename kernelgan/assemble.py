"""Assemble networks from translated kernels: pure functions, no gradient, no image.

Everything takes stacked parameters, a leading ``M`` on each leaf, so that all networks are made at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import kernels, models
from kernelgan.types import Array, Params

BIASES = ("zero", "parent")
_TRANSLATED_AT_ONCE = 256


def two_concept_head(attribute: Params, objects: Params) -> Params:
    """Both parents' dense heads side by side: logits (attribute no, yes, object no, yes).

    Args:
      attribute: dense layer ``{"kernel": (M, F, 2), "bias": (M, 2)}``.
      objects: likewise.

    Returns:
      A dense layer ``{"kernel": (M, F, 4), "bias": (M, 4)}``.
    """
    return {name: np.concatenate([attribute[name], objects[name]], axis=-1) for name in ("kernel", "bias")}


def take_members(params: Params, members: np.ndarray | int) -> Params:
    """These members of a stacked population, in this order; one number gives one network, not stacked."""
    return jax.tree.map(lambda leaf: leaf[members], params)


def assemble(
    parents: Params, volumes: Mapping[str, Array], head: Params | None, *, bias: str, layers: Sequence[str]
) -> Params:
    """Networks with these kernel sets.

    Args:
      parents: stacked parameters that the kernel sets came from; they give the biases, if any.
      volumes: for each layer, network-scale kernel sets ``(M, O, h, w, I)``.
      head: a dense layer, see `two_concept_head`; None leaves it out, as the reference does.
      bias: ``"zero"`` (as the reference) or ``"parent"``.
      layers: the convolutional layers.

    Returns:
      Stacked parameters of ``M`` networks.

    Raises:
      ValueError: another ``bias``.
    """
    if bias not in BIASES:
        raise ValueError(f"unknown bias {bias!r}; known are {', '.join(BIASES)}")
    network = kernels.insert({layer: parents[layer] for layer in layers}, volumes)
    if bias == "zero":
        network = {
            layer: {**network[layer], "bias": jnp.zeros_like(network[layer]["bias"])} for layer in layers
        }
    if head is not None:
        network = {**network, "dense": head}
    return jax.device_get(network)


def translate(
    volumes: Array,
    generator: Params,
    *,
    hidden: int,
    source: kernels.Normaliser,
    target: kernels.Normaliser,
) -> np.ndarray:
    """Kernel sets of one zoo as those of the other: normalise, generate, undo the other zoo's normalisation.

    Args:
      volumes: ``(M, O, h, w, I)`` at network scale.
      generator: of this layer and direction.
      hidden: channels of the generator.
      source: fitted to the zoo that ``volumes`` come from.
      target: fitted to the zoo that they are translated to.

    Returns:
      ``(M, O, h, w, I)`` at network scale.
    """
    run = jax.jit(models.generate_volumes, static_argnums=0)
    parts = [
        run(hidden, generator, source.apply(volumes[start : start + _TRANSLATED_AT_ONCE]))
        for start in range(0, len(volumes), _TRANSLATED_AT_ONCE)
    ]
    return np.asarray(target.invert(np.concatenate([np.asarray(part) for part in parts])))


def generate(
    direction: str,
    attribute: Params,
    objects: Params,
    generators: dict[str, Params],
    normalisers: dict[str, tuple[kernels.Normaliser, kernels.Normaliser]],
    *,
    hidden: int,
    bias: str,
) -> Params:
    """Generates networks from every parent of one zoo.

    Network ``i`` comes from parent ``i`` of the translated zoo and carries the heads of parent ``i`` of both
    (counted round, if the zoos differ in size).

    Args:
      direction: ``"a2b"`` translates the attribute's zoo, ``"b2a"`` the object's.
      attribute: stacked parents of the attribute's zoo.
      objects: stacked parents of the object's zoo.
      generators: for each layer ``{"a2b": ..., "b2a": ...}``.
      normalisers: for each layer, those of the attribute's and of the object's zoo.
      hidden: channels of the generators.
      bias: see `assemble`.

    Returns:
      Stacked parameters with two-concept heads.
    """
    parents = attribute if direction == "a2b" else objects
    layers = tuple(generators)
    members = np.arange(len(parents["dense"]["bias"]))
    volumes = {}
    for layer, volume in kernels.extract(parents, layers).items():
        of_attribute, of_object = normalisers[layer]
        source, target = (of_attribute, of_object) if direction == "a2b" else (of_object, of_attribute)
        volumes[layer] = translate(
            volume, generators[layer][direction], hidden=hidden, source=source, target=target
        )
    return assemble(parents, volumes, heads_for(members, attribute, objects), bias=bias, layers=layers)


def heads_for(members: np.ndarray, attribute: Params, objects: Params) -> Params:
    """Two-concept heads of parents ``members``, counted round in each zoo."""
    dense = [parents["dense"] for parents in (attribute, objects)]
    return two_concept_head(*(take_members(layer, members % len(layer["bias"])) for layer in dense))
