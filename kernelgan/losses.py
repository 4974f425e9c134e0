"""Losses of image classifiers, for each image of a batch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""``(logits (B, K), targets (B, ...)) -> losses (B,)``."""


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, ``(B, K)`` and integer ``(B,)`` to ``(B,)``."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the logits of the squared difference to a teacher's, ``(B, K)`` twice to ``(B,)``.

    Matching logits is distillation in the limit of a high temperature (Hinton et al., arXiv:1503.02531).
    """
    return jnp.mean(jnp.square(logits - targets), axis=-1)
