"""CycleGANs in kernel space, the original's generators: for each convolutional layer, a translator.

Losses are those of CycleGAN (Zhu et al., arXiv:1703.10593) as the original (Jain, 2024) uses them: least
squares on a patch discriminator, L1 cycle consistency times 10, and an identity loss by weight. Domain A is
the attribute's zoo, domain B the object's. Layers, whose shapes differ, are trained side by side.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from kernelgan import assemble, fields, kernels, models
from kernelgan.fields import per_layer, setting
from kernelgan.generators.base import Generator, Metrics, Networks, Parents, Probes
from kernelgan.types import Array, Key, Params

LABELS = {
    "a2b": (
        "{attribute} kernels translated",
        "the attribute's kernels translated to the object's zoo, both heads",
    ),
    "b2a": (
        "{object} kernels translated",
        "the object's kernels translated to the attribute's zoo, both heads",
    ),
}
"""By key, what a row is for a reader, and a line more."""

NOISE = {"a2b": ("attribute", "noise_a2b"), "b2a": ("object", "noise_b2a")}
"""By key, the parents that are changed, and the row of these parents with noise of the size of the change."""

SHOWN = "cycle"
"""The metric that the progress shows, of each layer."""

LOSSES = ("generator_a2b", "generator_b2a", "cycle", "identity", "discriminator_a", "discriminator_b")


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of ``config.generators.cyclegan``."""

    normalisation: str = setting(
        "range",
        fields.one_of(*kernels.NORMALISATIONS),
        "of each layer's kernels in each zoo: 'none' (the original), 'standard' (zero mean, 3 sd to 1) or "
        "'range' (into [-1, 1])",
    )
    bias: str = setting(
        "zero",
        fields.one_of(*assemble.BIASES),
        "biases of generated networks: 'zero' (the original), or 'parent': of the translated parent",
    )
    hidden: int = setting(
        64, fields.whole(1), "channels between the two convolutions of generator and discriminator"
    )
    epochs: tuple[int, ...] = setting((250,), per_layer(fields.whole(1)), "passes over the larger zoo")
    batch_size: tuple[int, ...] = setting(
        (8,), per_layer(fields.whole(1)), "kernel sets of each zoo in a batch"
    )
    learning_rate: tuple[float, ...] = setting((2e-4,), per_layer(fields.positive), "of Adam")
    cycle_weight: float = setting(10.0, fields.not_negative, "weight of the cycle loss")
    identity_weight: float = setting(
        0.0, fields.not_negative, "weight of the identity loss; the original defines it and never uses it"
    )


@functools.lru_cache(maxsize=16)
def make(network: models.ConvNet, config: Config) -> Generator:
    """CycleGANs of every convolutional layer of such networks."""
    layers = models.layer_names(network.filters)
    rates, batches, epochs = (
        dict(zip(layers, fields.each_layer(values, len(layers)), strict=True))
        for values in (config.learning_rate, config.batch_size, config.epochs)
    )

    def steps_of(view: Params, layer: str) -> int:
        larger = max(len(domain) for domain in view[layer])
        return epochs[layer] * -(-larger // batches[layer])

    def view(parents: Parents, probes: Probes) -> Params:
        del probes
        sides = [kernels.extract(zoo, layers) for zoo in parents]
        return {
            layer: tuple(
                kernels.fit_normaliser(side[layer], config.normalisation).apply(side[layer]) for side in sides
            )
            for layer in layers
        }

    def init(key: Key, view: Params) -> Params:
        states = {}
        for number, layer in enumerate(layers):
            own = jax.random.fold_in(key, number)
            states[layer] = {
                **initialise(config.hidden, view[layer][0], rates[layer], jax.random.fold_in(own, 0)),
                "key": jax.random.key_data(own),
                "losses": {name: jnp.float32(0.0) for name in LOSSES},
            }
        return {"layers": states, "step": jnp.int32(0)}

    def update(key: Key, state: Params, view: Params) -> tuple[Params, Metrics]:
        # Each layer draws from a key of its own, so that what it draws does not depend on the other layers.
        del key
        longest = max(steps_of(view, layer) for layer in layers)
        new = {}
        for layer in layers:

            def work(own: Params, layer: str = layer) -> Params:
                fresh = jax.random.fold_in(jax.random.wrap_key_data(own["key"]), 1 + state["step"])
                real_a, real_b = (
                    domain[draw(half, len(domain), batches[layer])]
                    for half, domain in zip(jax.random.split(fresh), view[layer], strict=True)
                )
                moved, losses = step(own, real_a, real_b, rates[layer], config)
                return {**moved, "key": own["key"], "losses": losses}

            own, steps = state["layers"][layer], steps_of(view, layer)
            rests = steps < longest  # a layer that has had its steps keeps its last losses
            works = _any(state["step"] < steps)
            new[layer] = lax.cond(works, work, lambda own: own, own) if rests else work(own)
        shown = {
            layer: {n: v for n, v in own["losses"].items() if config.identity_weight or n != "identity"}
            for layer, own in new.items()
        }
        return {"layers": new, "step": state["step"] + 1}, shown

    def generate(key: Key, state: Params, parents: Parents, probes: Probes) -> Networks:
        del key, probes
        return {way: translate(way, state, parents, config) for way in ("a2b", "b2a")}

    return Generator(
        view=view,
        init=init,
        update=update,
        generate=generate,
        steps=lambda view: max(steps_of(view, layer) for layer in layers),
        keep=lambda state: {layer: own["generators"] for layer, own in state["layers"].items()},
    )


def problems(config: Config, *, layers: int, models: tuple[int, int]) -> Iterator[str]:
    """Fields that contradict the rest of the config.

    Args:
      config: of this family.
      layers: convolutional layers ``L``.
      models: networks in an attribute's and in an object's zoo.

    Yields:
      Lines that begin with a field's name.
    """
    for layer, batch in enumerate(fields.each_layer(config.batch_size, layers), start=1):
        if batch > min(models):
            yield (
                f"batch_size is {batch} for layer {layer}, but the smaller zoo has {min(models)} networks; "
                "expected a batch of at most that, or a larger zoo.models"
            )


@jax.custom_batching.custom_vmap
def _any(flag: jax.Array) -> jax.Array:
    """A flag that pairs share, for they train in step: mapped over pairs it stays one.

    Of a flag for each pair `lax.cond` would make a choice between both branches' results, and compute both.
    """
    return flag


@_any.def_vmap
def _(axis_size: int, in_batched: list[bool], flag: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size
    return (jnp.any(flag, axis=0), False) if in_batched[0] else (flag, False)


def translate(way: str, generators: Params, parents: Parents, config: Config) -> Params:
    """Networks with the kernels of one zoo, translated to the other.

    Network ``i`` comes from parent ``i`` of the translated zoo and carries the heads of parent ``i`` of both
    (counted round, if the zoos differ in size).

    Args:
      way: "a2b" translates the attribute's zoo, "b2a" the object's.
      generators: for each layer ``{"a2b": ..., "b2a": ...}``.
      parents: of the pair.
      config: of the family.

    Returns:
      Stacked parameters with two-concept heads.
    """
    source, target = parents if way == "a2b" else parents[::-1]
    layers = tuple(generators)
    to, volumes = kernels.extract(target, layers), kernels.extract(source, layers)
    translated = {}
    for layer, volume in volumes.items():
        into = kernels.fit_normaliser(to[layer], config.normalisation)
        seen = kernels.fit_normaliser(volume, config.normalisation).apply(volume)
        translated[layer] = into.invert(models.generate_volumes(config.hidden, generators[layer][way], seen))
    heads = assemble.heads_for(np.arange(len(source["dense"]["bias"])), *parents)
    return assemble.assemble(source, translated, heads, bias=config.bias, layers=layers)


def _optimizer(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate, b1=0.5, b2=0.999)


def initialise(hidden: int, volumes: Array, learning_rate: float, key: Key) -> Params:
    """Generators, discriminators and their optimizers for kernel sets ``(M, O, h, w, I)`` of one layer."""
    example = jnp.zeros((1, *volumes.shape[1:]))
    keys = jax.random.split(key, 4)
    generator, discriminator = models.KernelGenerator(hidden), models.KernelDiscriminator(hidden)
    made = [
        module.init(own, example)["params"]
        for module, own in zip((generator, generator, discriminator, discriminator), keys, strict=True)
    ]
    generators, discriminators = {"a2b": made[0], "b2a": made[1]}, {"a": made[2], "b": made[3]}
    optimizer = _optimizer(learning_rate)
    return {
        "generators": generators,
        "discriminators": discriminators,
        "generator_moments": optimizer.init(generators),
        "discriminator_moments": optimizer.init(discriminators),
    }


def losses_of(
    state: Params, real_a: jax.Array, real_b: jax.Array, config: Config
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """All losses of one layer on one pair of batches ``(B, O, h, w, I)``.

    The generators' loss does not reach the discriminators, nor the other way round, so that one backward
    pass through the sum of both serves each: see `step`.

    Returns:
      The generators' loss, the discriminators' loss, and each term by its name in `LOSSES`.
    """
    frozen = lax.stop_gradient(state["discriminators"])

    def generate(direction: str, volumes: jax.Array) -> jax.Array:
        return models.generate_volumes(config.hidden, state["generators"][direction], volumes)

    def judge(discriminators: Params, domain: str, volumes: jax.Array) -> jax.Array:
        return models.judge_volumes(config.hidden, discriminators[domain], volumes)

    fake_b, fake_a = generate("a2b", real_a), generate("b2a", real_b)
    terms = {
        "generator_a2b": jnp.mean(jnp.square(judge(frozen, "b", fake_b) - 1.0)),
        "generator_b2a": jnp.mean(jnp.square(judge(frozen, "a", fake_a) - 1.0)),
        "cycle": jnp.mean(jnp.abs(generate("b2a", fake_b) - real_a))
        + jnp.mean(jnp.abs(generate("a2b", fake_a) - real_b)),
        "identity": jnp.float32(0.0),
    }
    if config.identity_weight:
        terms["identity"] = jnp.mean(jnp.abs(generate("a2b", real_b) - real_b)) + jnp.mean(
            jnp.abs(generate("b2a", real_a) - real_a)
        )
    for domain, real, fake in (("a", real_a, fake_a), ("b", real_b, fake_b)):
        # Apart: the translated ones' forward pass is the generators' too, and XLA computes it once.
        scores_real, scores_fake = (
            judge(state["discriminators"], domain, volumes) for volumes in (real, lax.stop_gradient(fake))
        )
        terms[f"discriminator_{domain}"] = 0.5 * (
            jnp.mean(jnp.square(scores_real - 1.0)) + jnp.mean(jnp.square(scores_fake))
        )
    generators = terms["generator_a2b"] + terms["generator_b2a"]
    generators += config.cycle_weight * terms["cycle"] + config.identity_weight * terms["identity"]
    return generators, terms["discriminator_a"] + terms["discriminator_b"], terms


def step(
    state: Params, real_a: jax.Array, real_b: jax.Array, learning_rate: float, config: Config
) -> tuple[Params, dict[str, jax.Array]]:
    """One step of Adam for both generators and both discriminators of a layer, from one forward pass."""
    optimizer = _optimizer(learning_rate)

    def total(players: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
        generators, discriminators, terms = losses_of(players, real_a, real_b, config)
        return generators + discriminators, terms

    players = {name: state[name] for name in ("generators", "discriminators")}
    gradients, terms = jax.grad(total, has_aux=True)(players)
    new = {}
    for name in players:
        moments = f"{name[:-1]}_moments"
        updates, new[moments] = optimizer.update(gradients[name], state[moments])
        new[name] = optax.apply_updates(state[name], updates)
    return new, terms


def draw(key: Key, size: int, batch_size: int) -> jax.Array:
    """``batch_size`` of ``size`` members, without replacement."""
    return jax.random.permutation(key, size)[:batch_size]
