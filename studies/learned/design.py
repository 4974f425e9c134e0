"""What a design of learned generators is, and the designs by name."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from kernelgan import models
from kernelgan.types import Key, Params
from studies.learned import hypernetwork, learned_probes


class Design(Protocol):
    """A generator with weights that are learned.

    Attributes:
      pairs: of parents in a step of its training.
      rate: of learning, at its highest.
      decay: of weights.
      code: modules that it is written in.
    """

    @property
    def pairs(self) -> int: ...  # noqa: D102

    @property
    def rate(self) -> float: ...  # noqa: D102

    @property
    def decay(self) -> float: ...  # noqa: D102

    @property
    def code(self) -> tuple[str, ...]: ...  # noqa: D102

    def look(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """What all trainings know of the probes, uint8 ``(N, H, W, C)``."""
        ...

    def describe(self, params: Params, seen: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """What it knows of a network: worked out once."""
        ...

    def initialise(self, key: Key, like: Any, seen: tuple[Any, ...]) -> Params:  # noqa: ANN401
        """The weights that it begins with; ``like`` is what it knows of one network."""
        ...

    def generate(self, weights: Params, parents: tuple[Any, Any], seen: tuple[Any, ...]) -> Params:
        """One network with two logits for each concept, of what it knows of both parents."""
        ...

    def bounded(self, weights: Params) -> Params:
        """The nearest weights that may be; asked after every step."""
        ...

    def for_use(self) -> Design:
        """As it makes networks once it has learned."""
        ...


def of_name(name: str, network: models.ConvNet, probes: int) -> Design:
    """A design of `studies.learned.DESIGNS` for these networks, with so many probes."""
    made: dict[str, Design] = {
        "hypernetwork": hypernetwork.Hypernetwork(network, probes),
        "probes": learned_probes.LearnedProbes(network),
    }
    return made[name]
