"""CycleGANs in kernel space: for each convolutional layer, a translator between two zoos.

Losses are those of CycleGAN (Zhu et al., arXiv:1703.10593) as the reference uses them: least squares on a
patch discriminator, L1 cycle consistency times 10, and an identity loss by weight. Domain A is the
attribute's zoo, domain B the object's. The step is written for one layer of one pair; layers (whose shapes
differ) stand side by side in one program, steps are scanned, `parallel.Spread` adds the pairs.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from kernelgan import assemble, cluster, fields, kernels, models, parallel
from kernelgan.engine import Saver
from kernelgan.fields import per_layer, setting
from kernelgan.types import Array, Key, Params, UserError


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
        (16,), per_layer(fields.whole(1)), "kernel sets of each zoo in a batch"
    )
    learning_rate: tuple[float, ...] = setting((2e-4,), per_layer(fields.positive), "of Adam")
    cycle_weight: float = setting(10.0, fields.not_negative, "weight of the cycle loss")
    identity_weight: float = setting(
        0.0, fields.not_negative, "weight of the identity loss; the original defines it and never uses it"
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


LOSSES = ("generator_a2b", "generator_b2a", "cycle", "identity", "discriminator_a", "discriminator_b")


@dataclasses.dataclass(frozen=True)
class Translation:
    """How the translators of one layer are trained.

    Attributes:
      epochs: passes over the larger zoo.
      batch_size: kernel sets drawn of EACH domain for a step, so that no batch is ever one-sided.
      learning_rate: of Adam (betas 0.5 and 0.999), for generators and discriminators.
    """

    epochs: int
    batch_size: int
    learning_rate: float

    def steps(self, models_a: int, models_b: int) -> int:
        """Optimizer steps ``S`` for zoos of these sizes."""
        return self.epochs * -(-max(models_a, models_b) // self.batch_size)


def _optimizer(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate, b1=0.5, b2=0.999)


def initialise(hidden: int, volumes: Array, learning_rate: float, key: Key) -> Params:
    """Generators, discriminators and their optimizers for kernel sets ``(M, O, h, w, I)`` of one layer."""
    example = jnp.zeros((1, *volumes.shape[1:]))
    keys = jax.random.split(key, 4)
    generator, discriminator = models.KernelGenerator(hidden), models.KernelDiscriminator(hidden)
    generators = {
        "a2b": generator.init(keys[0], example)["params"],
        "b2a": generator.init(keys[1], example)["params"],
    }
    discriminators = {
        "a": discriminator.init(keys[2], example)["params"],
        "b": discriminator.init(keys[3], example)["params"],
    }
    optimizer = _optimizer(learning_rate)
    return {
        "generators": generators,
        "discriminators": discriminators,
        "generator_moments": optimizer.init(generators),
        "discriminator_moments": optimizer.init(discriminators),
    }


def losses_of(
    state: Params, real_a: jax.Array, real_b: jax.Array, *, hidden: int, cycle: float, identity: float
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """All losses of one layer on one pair of batches ``(B, O, h, w, I)``.

    The generators' loss does not reach the discriminators, nor the other way round, so that one backward
    pass through the sum of both serves each: see `step`.

    Returns:
      The generators' loss, the discriminators' loss, and each term by its name in `LOSSES`.
    """
    frozen = lax.stop_gradient(state["discriminators"])

    def generate(direction: str, volumes: jax.Array) -> jax.Array:
        return models.generate_volumes(hidden, state["generators"][direction], volumes)

    def judge(discriminators: Params, domain: str, volumes: jax.Array) -> jax.Array:
        return models.judge_volumes(hidden, discriminators[domain], volumes)

    fake_b, fake_a = generate("a2b", real_a), generate("b2a", real_b)
    terms = {
        "generator_a2b": jnp.mean(jnp.square(judge(frozen, "b", fake_b) - 1.0)),
        "generator_b2a": jnp.mean(jnp.square(judge(frozen, "a", fake_a) - 1.0)),
        "cycle": jnp.mean(jnp.abs(generate("b2a", fake_b) - real_a))
        + jnp.mean(jnp.abs(generate("a2b", fake_a) - real_b)),
        "identity": jnp.float32(0.0),
    }
    if identity:
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
    generators += cycle * terms["cycle"] + identity * terms["identity"]
    return generators, terms["discriminator_a"] + terms["discriminator_b"], terms


def step(
    state: Params,
    real_a: jax.Array,
    real_b: jax.Array,
    *,
    hidden: int,
    learning_rate: float,
    cycle: float,
    identity: float,
) -> tuple[Params, dict[str, jax.Array]]:
    """One step of Adam for both generators and both discriminators, from the same forward pass."""
    optimizer = _optimizer(learning_rate)

    def total(players: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
        generators, discriminators, terms = losses_of(
            players, real_a, real_b, hidden=hidden, cycle=cycle, identity=identity
        )
        return generators + discriminators, terms

    players = {name: state[name] for name in ("generators", "discriminators")}
    gradients, terms = jax.grad(total, has_aux=True)(players)
    new = {}
    for name, moments in (
        ("generators", "generator_moments"),
        ("discriminators", "discriminator_moments"),
    ):
        updates, new[moments] = optimizer.update(gradients[name], state[moments])
        new[name] = optax.apply_updates(state[name], updates)
    return new, terms


def draw(key: Key, size: int, batch_size: int) -> jax.Array:
    """``batch_size`` of ``size`` members, without replacement."""
    return jax.random.permutation(key, size)[:batch_size]


@dataclasses.dataclass(frozen=True)
class Programs:
    """What is compiled for one pair; `parallel.Spread.map` adds the others.

    A pair is ``{"number": int32, "volumes": {layer: (domain A (M_A, O, h, w, I), domain B)}}``; what pairs
    share is ``{"seed": int32, "first": int32}``, the run's seed and the number of the first step.

    Attributes:
      initialise: ``(pair, shared) -> {layer: state}``.
      advance: ``(states, pair, shared) -> (states, {layer: {loss: (S,)}})``.
    """

    initialise: Callable[[Params, Params], Params]
    advance: Callable[[Params, Params, Params], tuple[Params, Params]]


def programs(
    translations: dict[str, Translation],
    total: dict[str, int],
    *,
    hidden: int,
    cycle: float,
    identity: float,
    steps_per_call: int,
) -> Programs:
    """The first state of one pair's translators, and ``steps_per_call`` steps of all its layers.

    Args:
      translations: see `train`, as all others but ``total``.
      total: steps of each layer; one that has had them rests, and its losses are NaN.
      hidden: see there.
      cycle: see there.
      identity: see there.
      steps_per_call: see there.
    """
    layers = tuple(translations)

    def pair_key(pair: Params, shared: Params, layer: str) -> Key:
        of_run = jax.random.key(shared["seed"])  # no constant: another seed is not another program
        key = jax.random.fold_in(jax.random.fold_in(of_run, 1), pair["number"])
        return jax.random.fold_in(key, layers.index(layer))

    def initialise_pair(pair: Params, shared: Params) -> Params:
        return {
            layer: initialise(
                hidden,
                pair["volumes"][layer][0],
                translations[layer].learning_rate,
                jax.random.fold_in(pair_key(pair, shared, layer), 0),
            )
            for layer in layers
        }

    def advance_layer(
        layer: str, number: jax.Array, state: Params, pair: Params, shared: Params
    ) -> tuple[Params, dict[str, jax.Array]]:
        translation = translations[layer]
        keys = jax.random.split(jax.random.fold_in(pair_key(pair, shared, layer), 1 + number))
        real_a, real_b = (
            domain[draw(key, len(domain), translation.batch_size)]
            for key, domain in zip(keys, pair["volumes"][layer], strict=True)
        )
        return step(
            state,
            real_a,
            real_b,
            hidden=hidden,
            learning_rate=translation.learning_rate,
            cycle=cycle,
            identity=identity,
        )

    def advance(states: Params, pair: Params, shared: Params) -> tuple[Params, Params]:
        def all_layers(states: Params, number: jax.Array) -> tuple[Params, Params]:
            new, terms = {}, {}
            for layer in layers:

                def work(state: Params, layer: str = layer) -> tuple[Params, Params]:
                    return advance_layer(layer, number, state, pair, shared)

                def rest(state: Params) -> tuple[Params, Params]:
                    return state, {name: jnp.float32(jnp.nan) for name in LOSSES}

                new[layer], terms[layer] = lax.cond(number < total[layer], work, rest, states[layer])
            return new, terms

        return lax.scan(all_layers, states, shared["first"] + jnp.arange(steps_per_call))

    return Programs(initialise_pair, advance)


@cluster.together
def train(
    volumes: dict[str, tuple[np.ndarray, np.ndarray]],
    translations: dict[str, Translation],
    *,
    pairs: tuple[int, ...],
    hidden: int,
    cycle: float,
    identity: float,
    steps_per_call: int,
    seed: int,
    saver: Saver,
    progress: Callable[[int, int, dict[str, float]], None],
) -> tuple[Params, dict[str, dict[str, np.ndarray]]]:
    """Trains the translators of every layer of every pair in one program.

    Args:
      volumes: for each layer, the normalised kernel sets of domain A ``(P, M_A, O, h, w, I)`` and of domain
        B ``(P, M_B, O, h, w, I)``.
      translations: for each layer.
      pairs: ``P`` numbers; with the seed they fix a pair's random numbers, whoever is trained beside it.
      hidden: channels of generators and discriminators.
      cycle: weight of the cycle loss.
      identity: weight of the identity loss.
      steps_per_call: steps between two looks at the losses.
      seed: of the run.
      saver: keeps the state between calls.
      progress: called with (steps done, steps in all, latest losses).

    Returns:
      ``{layer: {"a2b": generator, "b2a": generator}}`` with a leading ``P``, and ``{layer: {loss: (P, S)}}``,
      all as numpy arrays.

    Raises:
      UserError: a loss that is not finite, with the layer, the pair, the step and the last good checkpoint.
    """
    layers = tuple(translations)
    total = {
        layer: translations[layer].steps(volumes[layer][0].shape[1], volumes[layer][1].shape[1])
        for layer in layers
    }
    calls = -(-max(total.values()) // steps_per_call)
    one = programs(
        translations,
        total,
        hidden=hidden,
        cycle=cycle,
        identity=identity,
        steps_per_call=steps_per_call,
    )
    spread = parallel.Spread(len(pairs))
    members = spread.deal({"number": np.asarray(pairs, np.int32), "volumes": volumes})
    run = spread.map(one.advance, donate_first=True)

    def shared(first: int) -> Params:
        return spread.share({"seed": np.int32(seed), "first": np.int32(first)})

    states = spread.map(one.initialise)(members, shared(0))
    structure = jax.tree.structure(states)
    history = {
        layer: {name: np.zeros((len(pairs), calls * steps_per_call), np.float32) for name in LOSSES}
        for layer in layers
    }
    first = 0
    saved = saver.restore()
    stamp = np.uint32(zlib.crc32(models.arithmetic("auto").encode()))
    if saved is not None and saved.get("arithmetic") != stamp:
        print(
            "the state was computed in another way (device, or version); this stage starts over",
            file=sys.stderr,
        )
        saved = None
    if saved is not None:
        leaves = [saved["leaves"][name] for name in sorted(saved["leaves"])]
        states, history = spread.deal(jax.tree.unflatten(structure, leaves)), saved["history"]
        first = int(saved["calls"])

    def snapshot(states: Params, number: int) -> dict[str, Any]:
        leaves = jax.tree.leaves(spread.collect(states))
        return {
            "leaves": {f"{n:04d}": leaf for n, leaf in enumerate(leaves)},
            "history": history,
            "calls": np.int32(number),
            "arithmetic": stamp,
        }

    for number in range(first, calls):
        begin = number * steps_per_call
        states, terms = run(states, members, shared(begin))
        terms = spread.collect(terms)
        for layer in layers:
            for name in LOSSES:
                values = terms[layer][name]
                _check_finite(values[:, : max(0, total[layer] - begin)], layer, name, begin, saver)
                history[layer][name][:, begin : begin + steps_per_call] = values
        saver.save(functools.partial(snapshot, states, number + 1), number + 1)
        latest = {}
        for layer in layers:
            cycles = terms[layer]["cycle"]
            if np.isfinite(cycles).any():  # a layer that rests has none
                latest[layer] = float(np.nanmean(cycles))
        progress(min(begin + steps_per_call, max(total.values())), max(total.values()), latest)
    generators = spread.collect({layer: states[layer]["generators"] for layer in layers})
    trimmed = {
        layer: {name: values[:, : total[layer]] for name, values in history[layer].items()}
        for layer in layers
    }
    return generators, trimmed


def _check_finite(values: np.ndarray, layer: str, name: str, begin: int, saver: Saver) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        pair, offset = bad[np.argmin(bad[:, 1])]
        raise UserError(
            f"the {name} loss of the CycleGAN of {layer} is {values[pair, offset]} in step "
            f"{begin + offset + 1} (pair {pair}), so the run stopped. Last good checkpoint: "
            f"{saver.last_good}. In config.generators.cyclegan, a smaller learning_rate or "
            "normalisation='range' usually mends it: delete checkpoints/cyclegan in the work directory and "
            "run again with that; the zoos are kept."
        )
