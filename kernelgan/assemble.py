"""Assemble networks from kernels and heads: pure functions, no gradient, no image.

Everything takes stacked parameters, a leading ``M`` on each leaf, numpy arrays or traced ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kernelgan import kernels
from kernelgan.types import Array, Params

BIASES = ("zero", "parent")


def two_concept_head(attribute: Params, objects: Params) -> Params:
    """Both parents' dense heads side by side: logits (attribute no, yes, object no, yes).

    Args:
      attribute: dense layer ``{"kernel": (M, F, 2), "bias": (M, 2)}``.
      objects: likewise.

    Returns:
      A dense layer ``{"kernel": (M, F, 4), "bias": (M, 4)}``.
    """
    traced = not isinstance(attribute["bias"], np.ndarray)
    concatenate = jnp.concatenate if traced else np.concatenate
    return {name: concatenate([attribute[name], objects[name]], axis=-1) for name in ("kernel", "bias")}


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
        network = {layer: {**network[layer], "bias": 0 * parents[layer]["bias"]} for layer in layers}
    if head is not None:
        network = {**network, "dense": head}
    return network


def heads_for(members: np.ndarray, attribute: Params, objects: Params) -> Params:
    """Two-concept heads of parents ``members``, counted round in each zoo."""
    dense = [parents["dense"] for parents in (attribute, objects)]
    return two_concept_head(*(take_members(layer, members % len(layer["bias"])) for layer in dense))


def paired(attribute: Params, objects: Params) -> tuple[Params, Params]:
    """As many parents of the attribute as of the object: those of the smaller zoo."""
    members = np.arange(min(len(zoo["dense"]["bias"]) for zoo in (attribute, objects)))
    first, second = (take_members(zoo, members) for zoo in (attribute, objects))
    return first, second


def counted_round(leaf: np.ndarray, count: int) -> np.ndarray:
    """``count`` members of ``(M, ...)``, beginning anew after the last."""
    return leaf[np.arange(count) % len(leaf)]
