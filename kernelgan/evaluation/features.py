"""What networks answer: logits and features of a whole population on one set of images, in mapped calls."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax import lax

from kernelgan import assemble, models, parallel
from kernelgan.generators import check
from kernelgan.types import Params, UserError

IMAGES_AT_ONCE = 128
_COPIES = 3
"""How often what a network computes is in device memory at once, about."""
NO, YES = 0, 1
"""Which of a concept's two logits says what."""
PRODUCT_THRESHOLD = float(np.log(0.5))
"""Two concepts: the product of their probabilities is at least 1/2."""


Outputs = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Numbers of a chunk's networks ``(m,)``, their logits ``(m, N, K)`` and features ``(m, N, F)``."""


class Population(Protocol):
    """Anything that answers to images: stacked parameters and how they are run."""

    @property
    def params(self) -> Params:
        """Stacked parameters, a leading ``M``."""

    def outputs(self, images: np.ndarray, *, chunk_size: int | None = None) -> Outputs:
        """Runs every member on the same uint8 images ``(N, H, W, C)``, a chunk of members at a time."""


@dataclasses.dataclass(frozen=True)
class ConvNets:
    """A population of networks.

    Attributes:
      network: the module.
      params: stacked parameters, a leading ``M``.
    """

    network: models.ConvNet
    params: Params

    def outputs(self, images: np.ndarray, *, chunk_size: int | None = None) -> Outputs:
        """See `population_outputs`."""
        for members, logits, found in population_outputs(
            self.network, self.params, images, chunk_size=chunk_size
        ):
            assert found is not None
            yield members, logits, found


def networks_at_once(network: models.ConvNet, images: np.ndarray, *, calls: int = 1) -> int:
    """How many networks `population_outputs` runs at a time unless it is told; see `parallel.room`.

    Args:
      network: the module.
      images: uint8 ``(N, H, W, C)``.
      calls: how many populations are run at the same time, by threads.
    """
    size = images.shape[1]
    params = jax.eval_shape(lambda: models.initialise_convnet(network, size, jax.random.key(0)))
    outputs = 4 * len(images) * sum(params["dense"]["kernel"].shape)
    in_flight = min(IMAGES_AT_ONCE, len(images)) * models.bytes_on_the_way(network, size)
    return max(1, parallel.room(_COPIES * (in_flight + outputs)) // calls)


def population_outputs(
    network: models.ConvNet,
    params: Params,
    images: np.ndarray,
    *,
    chunk_size: int | None = None,
    features: bool = True,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Runs every network of a population on the same images, a chunk of networks at a time.

    Args:
      network: the module; its number of outputs is read off the parameters.
      params: stacked parameters, a leading ``M``.
      images: uint8 ``(N, H, W, C)``.
      chunk_size: networks at a time; None or 0: see `networks_at_once`.
      features: whether the features are wanted too.

    Yields:
      The numbers of the chunk's networks ``(m,)``, their logits ``(m, N, K)`` and features ``(m, N, F)`` (or
      None), all numpy.
    """
    count = len(params["dense"]["bias"])
    batch = min(IMAGES_AT_ONCE, len(images))
    padded = images[np.arange(-(-len(images) // batch) * batch) % len(images)]
    chunks = parallel.chunks(count, chunk_size or networks_at_once(network, images))
    network = network.clone(outputs=params["dense"]["bias"].shape[-1])
    spread, run = _compiled(network, features, len(chunks[0]))
    resident = spread.share(padded.reshape(-1, batch, *images.shape[1:]))
    for chunk in chunks:
        logits, found = spread.collect(run(spread.deal(assemble.take_members(params, chunk)), resident))
        # The last chunk repeats its last network; give each only once.
        members = chunk[: len(np.unique(chunk))]
        kept = slice(0, len(members))
        yield (
            members,
            logits[kept, : len(images)],
            None if found is None else found[kept, : len(images)],
        )


@functools.cache
def _compiled(
    network: models.ConvNet, features: bool, members: int
) -> tuple[parallel.Spread, Callable[[Params, jax.Array], tuple[jax.Array, ...]]]:
    """``(stacked params, images (b, B, H, W, C)) -> (m, b * B, K) logits, (m, b * B, F) features``.

    The images are normalised and laid out once for all networks of a device.
    """
    spread = parallel.Spread(members)

    def lay_out(images: jax.Array) -> jax.Array:
        return lax.map(lambda batch: network.lay_out(models.normalise_images(batch)), images)

    def outputs(member: Params, images: tuple[jax.Array, int]) -> tuple[jax.Array, jax.Array | None]:
        laid_out, count = images

        def one_batch(batch: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            logits, found = models.answer_convnet(network, member, batch, count)
            return logits, found if features else None

        return jax.tree.map(lambda part: part.reshape(-1, part.shape[-1]), lax.map(one_batch, laid_out))

    def prepare(images: jax.Array) -> tuple[jax.Array, int]:
        return lay_out(images), images.shape[1]

    return spread, spread.map(outputs, prepare=prepare)


def population_logits(
    network: models.ConvNet, params: Params, images: np.ndarray, *, chunk_size: int | None = None
) -> np.ndarray:
    """Logits ``(M, N, K)`` of a population."""
    parts = population_outputs(network, params, images, chunk_size=chunk_size, features=False)
    return np.concatenate([logits for _, logits, _ in parts])


def probabilities(networks: Any, images: np.ndarray) -> np.ndarray:  # noqa: ANN401
    """How likely networks hold each of their concepts to be: the softmax of its two logits.

    Args:
      networks: a zoo, or parameters of one network or stacked ones ``(M, ...)``, with two logits for each of
        ``K`` concepts, no and yes.
      images: uint8 ``(N, H, W, 3)`` of the size that the networks take.

    Returns:
      float64 ``(N, K)``, of stacked networks ``(M, N, K)``.

    Raises:
      UserError: these are no such networks, or the images do not fit them.
    """
    params, alone = check.networks_of(networks, "networks")
    check.check_images(images, params, "images")
    network = models.network_of(params)
    if network.outputs % 2:
        raise UserError(f"networks have {network.outputs} logits; expected two for each concept, no and yes.")
    logits = population_logits(network, params, np.asarray(images)).astype(np.float64)
    found = np.exp(-np.logaddexp(0.0, logits[..., NO::2] - logits[..., YES::2]))
    return found[0] if alone else found


def probability(scores: np.ndarray, threshold: float) -> np.ndarray:
    """The probability of the conjunction that `score`'s scores stand for, of the same shape."""
    if np.isclose(threshold, PRODUCT_THRESHOLD):
        return np.exp(scores)
    return np.exp(-np.logaddexp(0.0, -scores))


def score(logits: np.ndarray) -> tuple[np.ndarray, float]:
    """How strongly a network says "conjunction", and from what score on it says yes.

    One logit pair (2 outputs): the logits' difference, threshold 0. Two concepts (4 outputs): log of the
    product of both probabilities, log sigmoid(lA) + log sigmoid(lB), threshold log(1/2).

    Args:
      logits: ``(..., 2)`` or ``(..., 4)``.

    Returns:
      float32 ``(...)`` and the threshold.

    Raises:
      ValueError: another number of outputs.
    """
    if logits.shape[-1] == 2:
        return logits[..., YES] - logits[..., NO], 0.0
    if logits.shape[-1] == 4:
        differences = logits[..., 1::2] - logits[..., 0::2]
        with np.errstate(invalid="ignore"):  # of networks whose answers are not finite
            return -np.logaddexp(np.float32(0.0), -differences).sum(axis=-1), PRODUCT_THRESHOLD
    raise ValueError(f"logits must have 2 or 4 outputs, got {logits.shape[-1]}")
