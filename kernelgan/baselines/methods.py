"""The methods that stand side by side in every table. A new one is a function and an entry in `METHODS`.

A method makes networks from a `Context`, a pure function. It gives one or more populations: the outputs and
features of several are put side by side, so that two parents with a head each answer as one network with two
heads does. Network i of a method that is made from parents is made from parents i, counted round: differences
between two methods can be taken network by network.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from kernelgan import assemble, models
from kernelgan.baselines import merges, readouts
from kernelgan.data.quadrants import Groups
from kernelgan.evaluate.features import ConvNets, Population
from kernelgan.types import Key, Params

Networks = tuple[Population, ...]

_ALIGNING_IMAGES = 384  # seen images that features are correlated over
_READOUT_IMAGES = 1000  # of each side that a readout is fitted on


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
      half_width: two zoos at half width, the attribute's and the object's, and their module.
      images: training images, uint8 ``(N, H, W, C)``; only what the groups below name may be read.
      seen: the three seen quadrants of the pair.
      attribute_images: what the attribute's zoo reads, positives first.
      object_images: what the object's zoo reads, positives first.
      fits: makes the readouts, one fit for all pairs with a zoo in common.
      random_networks: how many of each null.
      bias: of generated networks, ``zero`` or ``parent``; random ones have the attribute's parents' then.
      seed: of the run.
      key: for random networks.
    """

    network: models.ConvNet
    image_size: int
    attribute: Params
    objects: Params
    generated: dict[str, Params]
    opponents: dict[str, Params]
    half_width: tuple[models.ConvNet, Params, Params] | None
    images: np.ndarray
    seen: Groups
    attribute_images: Groups
    object_images: Groups
    random_networks: int
    bias: str
    seed: int
    key: Key
    fits: readouts.Fits = dataclasses.field(default_factory=readouts.Fits)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the convolutional layers."""
        return models.layer_names(self.network.filters)

    def convnets(self, params: Params) -> Networks:
        """A method's answer where it makes networks of the usual module."""
        return (ConvNets(self.network, params),)

    def paired_parents(self) -> tuple[Params, Params]:
        """As many parents of the attribute as of the object: those of the smaller zoo."""
        members = np.arange(min(len(zoo["dense"]["bias"]) for zoo in (self.attribute, self.objects)))
        first, second = (assemble.take_members(zoo, members) for zoo in (self.attribute, self.objects))
        return first, second


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
      kind: ``null``, ``parent``, ``merge``, ``generated``, ``trained apart``, ``same size``, ``two nets`` or
        ``ceiling``.
      description: in one line.
      networks: makes them; None if what it needs is missing.
    """

    kind: str
    description: str
    networks: Callable[[Context], Networks | None]


def random(context: Context) -> Networks:
    """Kernels drawn from the initialiser, with the parents' heads: what generation must beat."""
    keys = jax.random.split(context.key, context.random_networks)
    params = jax.device_get(_initialise(context.network, context.image_size, keys))
    members = np.arange(context.random_networks)
    biased = assemble.take_members(context.attribute, members % len(context.attribute["dense"]["bias"]))
    for name in context.layers:
        bias = biased[name]["bias"]
        params[name] = {**params[name], "bias": np.zeros_like(bias) if context.bias == "zero" else bias}
    return context.convnets({**{name: params[name] for name in context.layers}, "dense": _heads(context)})


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initialise(network: models.ConvNet, image_size: int, keys: Key) -> Params:
    return jax.vmap(lambda key: models.initialise_convnet(network, image_size, key))(keys)


def gaussian(context: Context) -> Networks:
    """Each parameter drawn with its own mean and spread over a zoo, even networks the attribute's."""
    rng = _draws(context, 1)
    of_object = np.arange(context.random_networks) % 2 == 1

    def draw(attribute: np.ndarray, objects: np.ndarray) -> np.ndarray:
        noise = rng.normal(size=(context.random_networks, *attribute.shape[1:])).astype(np.float32)
        which = of_object.reshape(-1, *[1] * (attribute.ndim - 1))
        mean = np.where(which, objects.mean(axis=0), attribute.mean(axis=0))
        spread = np.where(which, objects.std(axis=0), attribute.std(axis=0))
        return mean + spread * noise

    trunks = [{name: zoo[name] for name in context.layers} for zoo in (context.attribute, context.objects)]
    return context.convnets({**jax.tree.map(draw, *trunks), "dense": _heads(context)})


def attribute_only(context: Context) -> Networks:
    """The attribute's zoo as it is."""
    return context.convnets(context.attribute)


def object_only(context: Context) -> Networks:
    """The object's zoo as it is."""
    return context.convnets(context.objects)


def zipit(context: Context) -> Networks:
    """See `merges.zipit`; features are correlated over seen images."""
    rng = _draws(context, 3)
    groups = context.seen.train
    each = -(-_ALIGNING_IMAGES // len(groups))
    chosen = np.concatenate([rng.permutation(group)[:each] for group in groups])
    merged = merges.zipit(*context.paired_parents(), context.images[chosen])
    return context.convnets(merged)


def and_ensemble(context: Context) -> Networks:
    """Both parents run; the product of their probabilities."""
    return tuple(ConvNets(context.network, parents) for parents in context.paired_parents())


def half_width_pair(context: Context) -> Networks | None:
    """Two parents of half the width, side by side."""
    if context.half_width is None:
        return None
    network, *zoos = context.half_width
    return tuple(ConvNets(network, zoo) for zoo in zoos)


def _draws(context: Context, stream: int) -> np.random.Generator:
    """NumPy's random numbers for one use, of the pair's key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(context.key, stream))))


def _heads(context: Context) -> Params:
    """Two-concept heads for the nulls' networks, the parents' counted round."""
    return assemble.heads_for(np.arange(context.random_networks), context.attribute, context.objects)


def _merged(merge: Callable[[Params, Params], Params]) -> Callable[[Context], Networks]:
    return lambda context: context.convnets(merge(*context.paired_parents()))


def _noise(direction: str) -> Callable[[Context], Networks]:
    def networks(context: Context) -> Networks:
        parents = context.attribute if direction == "a2b" else context.objects
        seed = int(_draws(context, 2).integers(2**31))
        return context.convnets(merges.noise(parents, context.generated[direction], seed))

    return networks


def _generated(direction: str) -> Callable[[Context], Networks]:
    return lambda context: context.convnets(context.generated[direction])


def _opponent(name: str) -> Callable[[Context], Networks | None]:
    return lambda context: context.convnets(context.opponents[name]) if name in context.opponents else None


def _readout(describe: readouts.Describe) -> Callable[[Context], Networks]:
    def networks(context: Context) -> Networks:
        heads = [
            context.fits(describe, context.images, groups, most=_READOUT_IMAGES, seed=context.seed)
            for groups in (context.attribute_images, context.object_images)
        ]
        attribute, objects = (jax.tree.map(lambda leaf: leaf[None], head) for head in heads)
        return (readouts.Readouts(describe, {"dense": assemble.two_concept_head(attribute, objects)}),)

    return networks


METHODS: dict[str, Method] = {
    "attribute_only": Method("parent", "the attribute's networks, untranslated", attribute_only),
    "object_only": Method("parent", "the object's networks, untranslated", object_only),
    "random": Method("null", "kernels drawn from the initialiser, parents' heads", random),
    "gaussian": Method(
        "null", "each parameter drawn with its mean and spread over a parent's zoo, parents' heads", gaussian
    ),
    "pixels": Method(
        "null", "no network: linear classifiers of both concepts on the pixels", _readout(readouts.pixels)
    ),
    "colour_histogram": Method(
        "null",
        "no network: linear classifiers of both concepts on the histogram of colours",
        _readout(readouts.colour_histogram),
    ),
    "average": Method("merge", "mean of both parents' weights, both heads", _merged(merges.average)),
    "rebasin_average": Method(
        "merge", "the same after matching the parents' filters by weight", _merged(merges.rebasin_average)
    ),
    "concatenate": Method(
        "merge", "half the filters of each parent, those of largest norm", _merged(merges.concatenate)
    ),
    "zipit": Method("merge", "features of both parents that correlate are merged", zipit),
    "noise_a2b": Method(
        "merge", "the attribute's kernels with noise of the size of their translation", _noise("a2b")
    ),
    "noise_b2a": Method(
        "merge", "the object's kernels with noise of the size of their translation", _noise("b2a")
    ),
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
    "half_width_pair": Method(
        "same size", "two parents trained at half width, side by side", half_width_pair
    ),
    "and_ensemble": Method("two nets", "both parents run, product of probabilities", and_ensemble),
    "trained_on_conjunction": Method(
        "ceiling", "the same network trained on all four quadrants", _opponent("trained_on_conjunction")
    ),
}
"""The parents come first: the novelty of the others is taken against them. Tables have their own order."""


def parameter_count(networks: Networks) -> int:
    """Parameters of ONE network of a method (of both, where two run)."""
    return sum(leaf[0].size for population in networks for leaf in jax.tree.leaves(population.params))
