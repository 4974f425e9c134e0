"""A user's generator on untrained networks, before anything trains: a mistake in it then costs seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from kernelgan import models
from kernelgan.generators import base, check, fitting, loading
from kernelgan.generators.base import Parents, Probes
from kernelgan.types import Key

TWO_LOGITS = (
    "has two logits, taken as no and yes to the conjunction; a network that answers each concept has four, "
    "see kernelgan.assemble.two_concept_head"
)


def rehearse(
    loaded: loading.Loaded,
    network: models.ConvNet,
    image_size: int,
    parents: Parents,
    probes: Probes,
    key: Key,
) -> tuple[loading.Loaded, list[str]]:
    """Calls each function of a generator that is not joint, once; what JAX can trace is only traced.

    Args:
      loaded: the generator.
      network: the parents' module.
      image_size: pixels a side.
      parents: any networks.
      probes: what its tier allows.
      key: any.

    Returns:
      The same, with what it was seen to do: a program that has been traced is not seen again. And what to
      say of its networks, line by line.

    Raises:
      UserError: one of its functions raises, or gives what it cannot give.
    """
    generator, name = loaded.generator, loaded.name
    with check.watched() as seen:
        task = fitting.Task(name, generator, fitting.views(name, generator, [parents], [probes]), (name,))
        steps, shared = task.steps, {"seed": np.int32(0)}
        if steps:
            program = fitting.program(generator, name, steps, 1)
            member = {"number": task.numbers[0], "view": task.views[0]}
            begun = jax.eval_shape(program.init, member, shared)
            jax.eval_shape(program.advance, begun, member, shared, np.int32(0))
        with check.named(name, "init"):
            states = fitting.untrained(task, 0)
        if generator.host:
            (networks,) = base.generate(generator, states, [parents], [probes], [key], name=name)
        else:
            state = jax.tree.map(lambda leaf: leaf[0], states)
            with check.named(name, "generate"):
                networks = jax.eval_shape(generator.generate, key, state, parents, probes)
        # Of untrained parents the numbers say nothing, only the shapes.
        check.check_networks(
            jax.tree.map(_zeros, networks), network, image_size, f"the generator {name} gives"
        )
    rows = {"": networks} if "dense" in networks else networks
    said = [f"{base.row_name(name, key)} {words}" for key, row in rows.items() for words in _doubts(row)]
    return dataclasses.replace(loaded, watched=loaded.watched | seen), said


def _doubts(params: Any) -> Iterator[str]:  # noqa: ANN401
    """What is no mistake for sure in a row's networks, or their shapes."""
    if params["dense"]["bias"].shape[-1] == 2:
        yield TWO_LOGITS
    numbers = [leaf for leaf in jax.tree.leaves(params) if not isinstance(leaf, jax.ShapeDtypeStruct)]
    if not all(np.isfinite(leaf).all() for leaf in numbers):
        yield "is not finite for these; for trained networks that would be refused"


def _zeros(leaf: object) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else np.zeros_like(leaf)
