"""The methods that stand side by side in every table. A new one is a function and an entry in `METHODS`.

A method makes networks from a `Context`. It gives one or more populations: the outputs and features of
several are put side by side, so that two parents with a head each answer as one network with two heads does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from kernelgan import assemble, models
from kernelgan.types import Key, Params

Networks = tuple[Params, ...]


@dataclasses.dataclass(frozen=True)
class Context:
    """What a method may build networks from; all parameters are stacked, on their own ``M``.

    Attributes:
      network: the module.
      image_size: pixels a side.
      attribute: parents, from the attribute's zoo.
      objects: parents, from the object's zoo.
      generated: networks by direction, ``a2b`` and ``b2a``.
      opponents: networks trained by gradient, by name; one that could not be trained is missing.
      random_networks: how many random ones.
      bias: of generated networks, ``zero`` or ``parent``; random ones have the attribute's parents' then.
      key: for random networks.
    """

    network: models.ConvNet
    image_size: int
    attribute: Params
    objects: Params
    generated: dict[str, Params]
    opponents: dict[str, Params]
    random_networks: int
    bias: str
    key: Key


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
      kind: ``null``, ``parent``, ``merge``, ``generated``, ``trained apart``, ``two nets`` or ``ceiling``.
      description: in one line.
      networks: makes them; None if what it needs is missing.
    """

    kind: str
    description: str
    networks: Callable[[Context], Networks | None]


def random(context: Context) -> Networks:
    """Kernels drawn from the initialiser, with the parents' heads: what generation must beat."""
    keys = jax.random.split(context.key, context.random_networks)
    drawn = jax.jit(jax.vmap(lambda key: models.initialise_convnet(context.network, context.image_size, key)))
    params = jax.device_get(drawn(keys))
    layers = models.layer_names(context.network.filters)
    members = np.arange(context.random_networks)
    biased = assemble.take_members(context.attribute, members % len(context.attribute["dense"]["bias"]))
    for name in layers:
        bias = biased[name]["bias"]
        params[name] = {**params[name], "bias": np.zeros_like(bias) if context.bias == "zero" else bias}
    heads = assemble.heads_for(members, context.attribute, context.objects)
    return ({**{name: params[name] for name in layers}, "dense": heads},)


def attribute_only(context: Context) -> Networks:
    """The attribute's zoo as it is."""
    return (context.attribute,)


def object_only(context: Context) -> Networks:
    """The object's zoo as it is."""
    return (context.objects,)


def average(context: Context) -> Networks:
    """The mean of both parents' weights (Wortsman et al., arXiv:2203.05482), with both heads."""
    members = np.arange(pair_count(context))
    parents = [assemble.take_members(zoo, members) for zoo in (context.attribute, context.objects)]
    layers = models.layer_names(context.network.filters)
    trunks = [{layer: parent[layer] for layer in layers} for parent in parents]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *trunks)
    return ({**mean, "dense": assemble.heads_for(members, context.attribute, context.objects)},)


def and_ensemble(context: Context) -> Networks:
    """Both parents run; the product of their probabilities."""
    members = np.arange(pair_count(context))
    return tuple(assemble.take_members(zoo, members) for zoo in (context.attribute, context.objects))


def pair_count(context: Context) -> int:
    """How many pairs of parents there are: the size of the smaller zoo."""
    return min(len(zoo["dense"]["bias"]) for zoo in (context.attribute, context.objects))


def _generated(direction: str) -> Callable[[Context], Networks]:
    return lambda context: (context.generated[direction],)


def _opponent(name: str) -> Callable[[Context], Networks | None]:
    return lambda context: (context.opponents[name],) if name in context.opponents else None


METHODS: dict[str, Method] = {
    "random": Method("null", "kernels drawn from the initialiser, parents' heads", random),
    "attribute_only": Method("parent", "the attribute's networks, untranslated", attribute_only),
    "object_only": Method("parent", "the object's networks, untranslated", object_only),
    "average": Method("merge", "mean of both parents' weights, both heads", average),
    "cyclegan_a2b": Method(
        "generated", "the attribute's kernels translated to the object's zoo, both heads", _generated("a2b")
    ),
    "cyclegan_b2a": Method(
        "generated", "the object's kernels translated to the attribute's zoo, both heads", _generated("b2a")
    ),
    "distilled": Method(
        "trained apart",
        "one network trained to give both parents' logits on the seen quadrants",
        _opponent("distilled"),
    ),
    "and_ensemble": Method("two nets", "both parents run, product of probabilities", and_ensemble),
    "trained_on_conjunction": Method(
        "ceiling", "the same network trained on all four quadrants", _opponent("trained_on_conjunction")
    ),
}


def parameter_count(networks: Networks) -> int:
    """Parameters of ONE network of a method (of both, where two run)."""
    return sum(leaf[0].size for population in networks for leaf in jax.tree.leaves(population))
