"""The original's generated networks, assembled from its weights, and the nulls and parents beside them."""

from __future__ import annotations

import jax
import numpy as np

from kernelgan import assemble, generators, kernels, models, probes, refit
from kernelgan.generators import Parents, cyclegan
from kernelgan.types import Key, Params
from studies.jain2024.data import DOMAINS, HIDDEN, IMAGE_SIZE, LAYERS, NETWORK, Reference

_CONFIG = cyclegan.Config(normalisation="none", bias="zero", hidden=HIDDEN)


def generate(reference: Reference, domain: str, count: int) -> Params:
    """The first ``count`` generated networks of a domain, biases zero, with both parents' heads.

    Network ``i`` of domain A is B2A of cat network ``i``, of domain B it is A2B of black network ``i``.
    The original has no heads; they only serve to ask the networks.
    """
    zoos = (assemble.take_members(zoo, np.arange(count)) for zoo in (reference.black, reference.cat))
    networks = cyclegan.translate(DOMAINS[domain], reference.generators, Parents(*zoos), _CONFIG)
    return jax.device_get(networks)


PROBES = {"noise": "dead leaves, no picture of anything", "rendered": "rendered images without a black cat"}
"""Images that networks are composed with; the package makes them."""
IMAGES = 1536
"""How many."""


def composed(reference: Reference, count: int, made: str, trunks: Params | None = None) -> Params:
    """Network ``i`` for black cats, of black network ``i`` and cat network ``i``, by least squares.

    Args:
      reference: the original's data, whose photographs are not read.
      count: networks.
      made: probe images, of `PROBES`.
      trunks: None, or networks that only get heads by the same least squares: the null.
    """
    black, cat = (assemble.take_members(zoo, np.arange(count)) for zoo in (reference.black, reference.cat))
    if made == "noise":
        images = probes.noise(IMAGES, size=IMAGE_SIZE)
    else:
        images = probes.rendered(IMAGES, size=IMAGE_SIZE, exclude=(("black", "cat"),))
    if trunks is not None:
        chosen = assemble.take_members(trunks, np.arange(count))
        return refit.refit_heads(chosen, refit.answers((black, cat), images), images)
    return jax.device_get(generators.compose(black, cat, probes=images, sweeps=0))


def untranslated(reference: Reference, domain: str, count: int) -> Params:
    """The kernels of a zoo as they are (A: black, B: cat), biases zero, with both parents' heads."""
    zoo = reference.black if domain == "A" else reference.cat
    return _with_heads(reference, assemble.take_members(zoo, np.arange(count)), count)


def random(reference: Reference, count: int, key: Key) -> Params:
    """Kernels from the initialiser (uniform in +-1/sqrt(fan_in)), biases zero, with parents' heads."""
    draw = jax.jit(jax.vmap(lambda one: models.initialise_convnet(NETWORK, IMAGE_SIZE, one)))
    return _with_heads(reference, jax.device_get(draw(jax.random.split(key, count))), count)


def gaussian(reference: Reference, count: int, key: Key) -> Params:
    """Kernels drawn from each parameter's mean and standard deviation over a zoo, black and cat in turn."""
    drawn: Params = {}
    for number, layer in enumerate(LAYERS):
        # A stream for each layer: a network is the same in a population of any size.
        rng = np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), number])
        sets = [zoo[layer]["kernel"] for zoo in (reference.black, reference.cat)]
        mean, sd = (np.stack([getattr(one, name)(axis=0) for one in sets]) for name in ("mean", "std"))
        which = np.arange(count) % 2
        noise = rng.standard_normal((count, *mean.shape[1:]), np.float32)
        drawn[layer] = {"kernel": mean[which] + sd[which] * noise, "bias": np.zeros((count, sd.shape[-1]))}
    return _with_heads(reference, drawn, count)


def _with_heads(reference: Reference, params: Params, count: int) -> Params:
    volumes = kernels.extract(params, LAYERS)
    heads = assemble.heads_for(np.arange(count), reference.black, reference.cat)
    return assemble.assemble(params, volumes, heads, bias="zero", layers=LAYERS)


def source_similarity(reference: Reference, generated: dict[str, Params]) -> dict[str, float]:
    """By layer, mean cosine similarity of generated kernel sets (by domain) with their sources."""
    cosines: dict[str, list[np.ndarray]] = {layer: [] for layer in LAYERS}
    for domain, sources in (("A", reference.cat), ("B", reference.black)):
        for layer in LAYERS:
            ours = generated[domain][layer]["kernel"]
            ours = ours.reshape(len(ours), -1)
            theirs = np.asarray(sources[layer]["kernel"][: len(ours)]).reshape(len(ours), -1)
            norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            cosines[layer].append((ours * theirs).sum(axis=1) / norms)
    return {layer: float(np.concatenate(values).mean()) for layer, values in cosines.items()}
