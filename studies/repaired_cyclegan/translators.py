"""Translators of kernels between two zoos, from the package's CycleGAN to one that is told what to answer.

A trunk is a network without its head: by layer ``{"kernel": (O, h, w, I), "bias": (O,)}``, kernels as
`kernels.to_volume` has them. The translators see trunks divided, layer by layer, by the zoo's largest weight.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from kernelgan import assemble, engine, kernels, models, refit
from kernelgan.baselines import merges
from kernelgan.types import Array, Key, Params

WAYS = {"a2b": ("a", "b"), "b2a": ("b", "a")}
"""By way, the zoo that is translated and where to: a, the attribute's; b, the object's."""


@dataclasses.dataclass(frozen=True)
class Ingredients:
    """What a translator has.

    Attributes:
      canonical: zoos are brought to one order and scale first, see `canonical`.
      joint: a dense path from all weights of a network to all, biases too, and a score of whole networks.
      function: weight of the function loss, see `lost`.
      cyclegan: adversarial and cycle losses.
    """

    canonical: bool = False
    joint: bool = False
    function: float = 0.0
    cyclegan: bool = True


@dataclasses.dataclass(frozen=True)
class Training:
    """How translators are trained.

    Attributes:
      steps: of Adam.
      learning_rate: of Adam.
      batch: networks of each zoo in a step; the function loss takes the first of each.
      hidden: channels of generators and discriminators.
      units: of the dense paths.
      cycle_weight: of the cycle loss.
      fitted: images of a step that heads are fitted on.
      judged: other images, on which what these heads answer is compared.
      ridge: of these heads.
    """

    steps: int = 300
    learning_rate: float = 2e-3
    batch: int = 8
    hidden: int = 16
    units: int = 64
    cycle_weight: float = 10.0
    fitted: int = 320
    judged: int = 64
    ridge: float = 0.5


class View(NamedTuple):
    """What a translator learns from and translates.

    Attributes:
      trunks: by zoo, all networks, scaled; those that are learned from come first.
      scales: by zoo, what they were divided by.
      answers: by zoo, logit differences ``(M, N)`` on the probes.
      probes: uint8 ``(N, H, W, C)``, unlabelled.
    """

    trunks: dict[str, Params]
    scales: dict[str, Params]
    answers: dict[str, Array]
    probes: Array


def unit_scale(zoo: Params) -> Params:
    """The same functions with filters of norm 1, biases among their weights; silent filters stay.

    Args:
      zoo: stacked parameters.
    """
    names = [*models.layer_names(models.network_of(zoo).filters), "dense"]
    for name, following in itertools.pairwise(names):
        kernel, bias = zoo[name]["kernel"], zoo[name]["bias"]
        norms = np.sqrt(np.sum(np.square(kernel), axis=(1, 2, 3)) + np.square(bias))
        norms = np.where(norms > 0, norms, 1)
        layer = {"kernel": kernel / norms[:, None, None, None], "bias": bias / norms}
        reads = zoo[following]["kernel"]  # of the head, channels come first in its rows
        taken = np.repeat(norms, reads.shape[-2] // norms.shape[1], axis=1)
        reads = reads * taken.reshape(len(taken), *[1] * (reads.ndim - 3), -1, 1)
        zoo = {**zoo, name: layer, following: {**zoo[following], "kernel": reads}}
    return zoo


def canonical(attribute: Params, objects: Params) -> tuple[Params, Params]:
    """Both zoos in one order and scale; no function changes.

    Filters have norm 1. Each network is matched to its zoo's first (`merges.match_weights`), and the
    object's first to the attribute's.

    Args:
      attribute: stacked parameters.
      objects: of the same shapes.
    """
    zoos, reference = [], None
    for zoo in map(unit_scale, (attribute, objects)):
        first = assemble.take_members(zoo, np.array([0]))
        if reference is not None:
            first = merges.reordered(first, merges.match_weights(reference, first))
        reference = first
        copies = assemble.take_members(first, np.zeros(len(zoo["dense"]["bias"]), int))
        zoos.append(merges.reordered(zoo, merges.match_weights(copies, zoo)))
    return zoos[0], zoos[1]


def view(
    attribute: Params,
    objects: Params,
    known: int,
    ingredients: Ingredients,
    answers: Sequence[Array],
    probes: Array,
) -> View:
    """What a translator of these zoos is given; the first ``known`` networks set the scales."""
    zoos = canonical(attribute, objects) if ingredients.canonical else (attribute, objects)
    trunks, scales = {}, {}
    for side, zoo in zip("ab", zoos, strict=True):
        names = models.layer_names(models.network_of(zoo).filters)
        own = {n: {"kernel": kernels.to_volume(zoo[n]["kernel"]), "bias": zoo[n]["bias"]} for n in names}
        scales[side] = jax.tree.map(lambda leaf: np.float32(np.abs(leaf[:known]).max() or 1), own)
        trunks[side] = jax.tree.map(np.divide, own, scales[side])
    return View(trunks, scales, dict(zip("ab", answers, strict=True)), probes)


def translate(generator: Params, seen: Params, training: Training) -> Params:
    """Scaled trunks, stacked, through a generator; biases only through its dense path."""
    made = {
        name: {**layer, "kernel": models.generate_volumes(training.hidden, generator[name], layer["kernel"])}
        for name, layer in seen.items()
    }
    if "joint" in generator:
        path = generator["joint"]
        change = jax.nn.relu(_flat(seen) @ path["in"]) @ path["out"]
        restore = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], seen))[1]
        made = jax.tree.map(jnp.add, made, jax.vmap(restore)(change))
    return made


def judge(discriminator: Params, seen: Params, training: Training) -> list[jax.Array]:
    """Scores of scaled trunks: of each layer's places, and with a dense path of whole networks."""
    scores = [
        models.judge_volumes(training.hidden, discriminator[name], layer["kernel"])
        for name, layer in seen.items()
    ]
    if "joint" in discriminator:
        path = discriminator["joint"]
        scores.append(jax.nn.sigmoid(jax.nn.leaky_relu(_flat(seen) @ path["in"], 0.2) @ path["out"]))
    return scores


def _flat(seen: Params) -> jax.Array:
    return jax.vmap(lambda one: ravel_pytree(one)[0])(seen)


def networks(generators: Params, given: View, way: str, members: Array, training: Training) -> Params:
    """Translated networks without heads, stacked, as `models.ConvNet` takes their layers."""
    source, target = WAYS[way]
    seen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[members], given.trunks[source])
    made = jax.tree.map(jnp.multiply, translate(generators[way], seen, training), given.scales[target])
    if "joint" not in generators[way]:  # then a bias is its parent's own
        own = given.scales[source]
        made = {n: {**layer, "bias": seen[n]["bias"] * own[n]["bias"]} for n, layer in made.items()}
    return {n: {**layer, "kernel": kernels.from_volume(layer["kernel"])} for n, layer in made.items()}


def features(network: models.ConvNet, trunk: Params, images: Array) -> jax.Array:
    """What one trunk's head would read, ``(F, N)``, of uint8 images."""
    pixels = models.normalise_images(images)
    size = pixels.shape[1]
    for _ in network.filters:
        size = (size - network.kernel_size + 1) // 2
    count = network.filters[-1] * size**2
    head = {"kernel": jnp.zeros((count, network.outputs)), "bias": jnp.zeros(network.outputs)}
    return models.run_convnet(network, {**trunk, "dense": head}, pixels)[1].T


def head(
    network: models.ConvNet, read: jax.Array, wanted: jax.Array, ridge: float
) -> tuple[jax.Array, jax.Array]:
    """Both concepts' weights ``(F, 2)`` and intercepts ``(2,)``, as `refit.refit_heads` fits them."""
    filters = network.filters[-1]
    found = refit.moments(read, wanted, filters, ridge)
    return refit.solve(found, jnp.arange(filters), len(read) // filters)


def lost(
    network: models.ConvNet, trunk: Params, images: Array, wanted: jax.Array, training: Training
) -> jax.Array:
    """The function loss: what a network loses of both parents' answers, as a share of their variance.

    The head is fitted in closed form on the first images and compared on the others. It is held fixed where
    the gradient is taken, an approximation.

    Args:
      network: the parents' module.
      trunk: of one network.
      images: uint8 ``(fitted + judged, H, W, C)``.
      wanted: the parents' logit differences ``(2, fitted + judged)``.
      training: says how many.
    """
    fitted = training.fitted
    fixed = lax.stop_gradient(features(network, lax.stop_gradient(trunk), images[:fitted]))
    weights, intercepts = lax.stop_gradient(head(network, fixed, wanted[:, :fitted], training.ridge))
    given = weights.T @ features(network, trunk, images[fitted:]) + intercepts[:, None]
    errors = jnp.mean(jnp.square(given - wanted[:, fitted:]), axis=1)
    return jnp.mean(errors / (jnp.var(wanted, axis=1) + 1e-6))


def initialise(key: Key, given: View, ingredients: Ingredients, training: Training) -> dict[str, Params]:
    """Generators of both ways, and discriminators of both zoos where there are adversarial losses."""
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:1], given.trunks["a"])
    weights = _flat(example).shape[1]
    modules = {"generators": models.KernelGenerator, "discriminators": models.KernelDiscriminator}
    players: dict[str, Params] = {}
    for number, (kind, names) in enumerate((("generators", "a2b b2a"), ("discriminators", "a b"))):
        players[kind] = {}
        for own, name in zip(
            jax.random.split(jax.random.fold_in(key, number), 2), names.split(), strict=True
        ):
            module = modules[kind](training.hidden)
            players[kind][name] = {
                layer: module.init(jax.random.fold_in(own, place), example[layer]["kernel"])["params"]
                for place, layer in enumerate(example)
            }
            if ingredients.joint:
                into = models.uniform_fan_in(weights)(jax.random.fold_in(own, 99), (weights, training.units))
                out = jnp.zeros((training.units, weights if kind == "generators" else 1))
                players[kind][name]["joint"] = {"in": into, "out": out}
    return players if ingredients.cyclegan else {"generators": players["generators"]}


def losses(
    network: models.ConvNet,
    players: dict[str, Params],
    key: Key,
    given: View,
    known: int,
    ingredients: Ingredients,
    training: Training,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The losses of `cyclegan.losses_of` and the function loss, on one batch: sum, and each by name."""
    keys = jax.random.split(key, 3)
    drawn = {
        s: jax.random.permutation(k, known)[: training.batch] for s, k in zip("ab", keys[:2], strict=True)
    }
    real = {s: jax.tree.map(lambda leaf, s=s: jnp.asarray(leaf)[drawn[s]], given.trunks[s]) for s in "ab"}
    terms: dict[str, Any] = dict.fromkeys(
        ("generators", "cycle", "discriminators", "function"), jnp.float32(0)
    )
    for way, (source, target) in WAYS.items():
        if ingredients.cyclegan:
            fake = translate(players["generators"][way], real[source], training)
            back = translate(players["generators"][f"{target}2{source}"], fake, training)
            terms["cycle"] += _total(jax.tree.map(lambda x, y: jnp.mean(jnp.abs(x - y)), back, real[source]))
            own = players["discriminators"][target]
            judged = judge(lax.stop_gradient(own), fake, training)
            terms["generators"] += _total([jnp.mean(jnp.square(score - 1)) for score in judged])
            for seen, label in ((real[target], 1), (lax.stop_gradient(fake), 0)):
                scores = judge(own, seen, training)
                terms["discriminators"] += 0.5 * _total([jnp.mean(jnp.square(s - label)) for s in scores])
        if ingredients.function:
            made = networks(players["generators"], given, way, drawn[source][:1], training)
            rows = jax.random.permutation(keys[2], len(given.probes))[: training.fitted + training.judged]
            wanted = jnp.stack([jnp.asarray(given.answers[s])[drawn[s][0], rows] for s in "ab"])
            trunk = jax.tree.map(lambda leaf: leaf[0], made)
            terms["function"] += lost(network, trunk, jnp.asarray(given.probes)[rows], wanted, training)
    total = terms["generators"] + training.cycle_weight * terms["cycle"] + terms["discriminators"]
    return total + ingredients.function * terms["function"], terms


def _total(values: Any) -> jax.Array:  # noqa: ANN401
    return jnp.sum(jnp.stack(jax.tree.leaves(values)))


def program(
    network: models.ConvNet, known: int, ingredients: Ingredients, training: Training, pace: int
) -> engine.Program:
    """The training of a translator: a member is a `View` and the data of a key, a call so many steps."""
    optimizer = optax.adam(training.learning_rate, b1=0.5, b2=0.999)

    def init(member: Any, shared: Any) -> Params:  # noqa: ANN401
        del shared
        players = initialise(
            jax.random.wrap_key_data(member["key"]), View(*member["view"]), ingredients, training
        )
        return {"players": players, "moments": optimizer.init(players)}

    def advance(state: Params, member: Any, shared: Any, call: jax.Array) -> Any:  # noqa: ANN401
        del shared
        key = jax.random.fold_in(jax.random.wrap_key_data(member["key"]), 7)

        def step(state: Params, number: jax.Array) -> tuple[Params, dict[str, jax.Array]]:
            gradient, terms = jax.grad(
                lambda players: losses(
                    network,
                    players,
                    jax.random.fold_in(key, number),
                    View(*member["view"]),
                    known,
                    ingredients,
                    training,
                ),
                has_aux=True,
            )(state["players"])
            updates, moments = optimizer.update(gradient, state["moments"])
            return {"players": optax.apply_updates(state["players"], updates), "moments": moments}, terms

        state, terms = lax.scan(step, state, call * pace + jnp.arange(pace))
        return state, jax.tree.map(jnp.mean, terms)

    return engine.Program(init, advance, lambda state: state["players"]["generators"])
