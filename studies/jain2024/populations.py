"""The reference's generated networks, assembled from its weights, and the nulls and parents beside them."""

from __future__ import annotations

import jax
import numpy as np

from kernelgan import assemble, kernels, models
from kernelgan.types import Key, Params
from studies.jain2024.data import CHANNELS, DOMAINS, HIDDEN, IMAGE_SIZE, NETWORK, Check, Reference

LAYERS = tuple(CHANNELS)
_UNCHANGED = kernels.Normaliser(0.0, 1.0)


def generate(reference: Reference, domain: str, count: int) -> Params:
    """The first ``count`` generated networks of a domain, biases zero, with both parents' heads.

    Network ``i`` of domain A is B2A of cat network ``i``, of domain B it is A2B of black network ``i``. The
    reference's own have no heads: its output is the features. The heads only serve to ask them outright.

    Args:
      reference: see there.
      domain: ``"A"`` or ``"B"``.
      count: at most `pairs_of`.

    Returns:
      Stacked parameters, ``M = count``.
    """
    members = np.arange(count)
    return assemble.generate(
        DOMAINS[domain],
        assemble.take_members(reference.black, members),
        assemble.take_members(reference.cat, members),
        reference.generators,
        dict.fromkeys(LAYERS, (_UNCHANGED, _UNCHANGED)),
        hidden=HIDDEN,
        bias="zero",
    )


def pairs_of(reference: Reference) -> int:
    """Networks that each domain has: as many as the smaller zoo (1,749 of the published weights)."""
    return min(len(zoo["dense"]["bias"]) for zoo in (reference.black, reference.cat))


def untranslated(reference: Reference, domain: str, count: int) -> Params:
    """The kernels of a zoo as they are (A: black, B: cat), biases zero, with both parents' heads."""
    members = np.arange(count)
    zoo = reference.black if domain == "A" else reference.cat
    parents = assemble.take_members(zoo, members)
    volumes = kernels.extract(parents, LAYERS)
    return assemble.assemble(parents, volumes, _heads(reference, count), bias="zero", layers=LAYERS)


def random(reference: Reference, count: int, key: Key) -> Params:
    """Kernels from the initialiser (uniform in +-1/sqrt(fan_in)), biases zero, with parents' heads."""
    drawn = jax.jit(jax.vmap(lambda one: models.initialise_convnet(NETWORK, IMAGE_SIZE, one)))
    return _with_kernels(reference, jax.device_get(drawn(jax.random.split(key, count))), count)


def gaussian(reference: Reference, count: int, key: Key) -> Params:
    """Kernels drawn from each parameter's mean and standard deviation over a zoo, black and cat in turn."""
    drawn: Params = {}
    for number, layer in enumerate(LAYERS):
        # A stream for each layer: a network is the same however many there are.
        rng = np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), number])
        sets = [zoo[layer]["kernel"] for zoo in (reference.black, reference.cat)]
        mean = np.stack([one.mean(axis=0) for one in sets])
        sd = np.stack([one.std(axis=0) for one in sets])
        which = np.arange(count) % 2
        noise = rng.standard_normal((count, *mean.shape[1:]), np.float32)
        drawn[layer] = {"kernel": mean[which] + sd[which] * noise, "bias": np.zeros((count, sd.shape[-1]))}
    return _with_kernels(reference, drawn, count)


def _with_kernels(reference: Reference, drawn: Params, count: int) -> Params:
    volumes = kernels.extract(drawn, LAYERS)
    return assemble.assemble(drawn, volumes, _heads(reference, count), bias="zero", layers=LAYERS)


def _heads(reference: Reference, count: int) -> Params:
    return assemble.heads_for(np.arange(count), reference.black, reference.cat)


def source_similarity(reference: Reference, generated: dict[str, Params]) -> dict[str, float]:
    """By layer, mean cosine similarity of generated kernel sets (by domain) with their sources."""
    found: dict[str, list[np.ndarray]] = {layer: [] for layer in LAYERS}
    for domain, sources in (("A", reference.cat), ("B", reference.black)):
        for layer in LAYERS:
            ours = generated[domain][layer]["kernel"]
            ours = ours.reshape(len(ours), -1)
            theirs = np.asarray(sources[layer]["kernel"][: len(ours)]).reshape(len(ours), -1)
            norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            found[layer].append((ours * theirs).sum(axis=1) / norms)
    return {layer: float(np.concatenate(values).mean()) for layer, values in found.items()}


def kernel_difference(params: Params, check: Check) -> float:
    """`difference` of one network's kernels from an independent computation."""
    return max(
        difference(params[layer]["kernel"].transpose(3, 2, 0, 1), check.kernels[layer]) for layer in LAYERS
    )


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; infinite where the shapes disagree or something is not a number."""
    largest = float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf
    return np.inf if np.isnan(largest) else largest
