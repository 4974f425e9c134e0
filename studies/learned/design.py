"""The designs of learned generators, by name.

A design is a frozen dataclass. Its fields say how it is trained: ``pairs`` of parents in a step, ``rate`` of
learning at its highest, ``decay`` of weights; ``code`` names the modules that it is written in. Its methods:

- ``look(images)``: what all trainings know of the probes, uint8 ``(N, H, W, C)``: a tuple, ``seen``;
- ``describe(params, seen)``: what it knows of a network, worked out once;
- ``initialise(key, like, seen)``: the weights that it begins with; ``like`` is what it knows of one network;
- ``generate(weights, parents, seen)``: one network with two logits for each concept, of what it knows of both
  parents;
- ``bounded(weights)``: the nearest weights that may be; asked after every step;
- ``for_use()``: the design as it makes networks once it has learned.
"""

from __future__ import annotations

from kernelgan import models
from studies.learned.hypernetwork import Hypernetwork
from studies.learned.learned_probes import LearnedProbes

Design = Hypernetwork | LearnedProbes


def of_name(name: str, network: models.ConvNet, probes: int) -> Design:
    """A design of `studies.learned.DESIGNS` for these networks, with so many probes."""
    return Hypernetwork(network, probes) if name == "hypernetwork" else LearnedProbes(network)
