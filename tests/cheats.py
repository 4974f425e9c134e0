"""A small world in which two concepts hold, networks that know them, and generators that cheat.

Scenes are red or blue (the attribute), with a square or stripes as bright (the object). A parent's detector
is made of two filters of each layer; its other filters are larger, and its head does not read them. A true
composer takes the detectors of both parents: one network of a parent's size, made of real convolutions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kernelgan import assemble, models
from kernelgan.data.quadrants import Groups
from kernelgan.generators import base, check, placebo, stateless
from kernelgan.generators.base import Parents

SIZE = 16
NETWORK = models.ConvNet(filters=(4, 4), kernel_size=3, form="tiles")
COUNT = 8
HALF = 2


def scenes(each, seed, colour=0, other=2, upright=True):
    """Pictures of each quadrant in turn, and their quadrants.

    Args:
      each: pictures of a quadrant.
      seed: of the noise.
      colour: the channel that the attribute lifts.
      other: the channel that is lifted without it.
      upright: whether the object is a square (it has upright edges), not level stripes.
    """
    rng = np.random.default_rng(seed)
    quadrant = np.repeat(np.arange(4, dtype=np.int8), each)
    pictures = rng.integers(30, 110, (4 * each, SIZE, SIZE, 3))
    has, is_object = quadrant < 2, quadrant % 2 == 0
    pictures[has, ..., colour] += rng.integers(8, 40, has.sum())[:, None, None]
    pictures[~has, ..., other] += rng.integers(8, 40, (~has).sum())[:, None, None]
    shape = np.zeros((2, SIZE, SIZE), bool)
    shape[0, 4:12, 4:12] = True  # as many bright pixels as the stripes, so that colour does not tell
    shape[1, ::4] = True
    sign = rng.choice([-1, 1], 4 * each)[:, None, None, None]
    size = rng.integers(14, 50, 4 * each)[:, None, None, None]
    pictures += sign * size * shape[np.where(is_object == upright, 0, 1)][..., None]
    return pictures.clip(0, 255).astype(np.uint8), quadrant


def _colours(up, down):
    kernel = np.zeros((3, 3, 3, HALF))
    kernel[..., up, 0] = kernel[..., down, 1] = 1 / 9
    kernel[..., down, 0] = kernel[..., up, 1] = -1 / 9
    return kernel


def _edges(axis):
    kernel = np.zeros((3, 3, 3, HALF))
    step = np.array([-1.0, 0, 1])[:, None, None] if axis == 0 else np.array([-1.0, 0, 1])[None, :, None]
    kernel[..., 0], kernel[..., 1] = step / 6, -step / 6
    return kernel


DETECTORS = {"red": _colours(0, 2), "green": _colours(1, 0), "square": _edges(1), "stripes": _edges(0)}


def zoo(concept, pictures, holds, seed):
    """Parents of a concept: its detector, their own noise, filters that nothing reads, a fitted head."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape, scale: rng.normal(scale=scale, size=(COUNT, *shape))  # noqa: E731
    first = np.concatenate(
        [DETECTORS[concept] + draw(3, 3, 3, HALF, scale=0.02), draw(3, 3, 3, 2, scale=1)], -1
    )
    second = draw(3, 3, 4, 4, scale=1.0)
    second[..., :HALF] = 0
    second[..., :HALF, :HALF] = np.eye(2) / 9 + draw(3, 3, 2, 2, scale=0.01)
    params = {
        "conv1": {"kernel": first, "bias": np.zeros((COUNT, 4))},
        "conv2": {"kernel": second, "bias": np.zeros((COUNT, 4))},
        "dense": {"kernel": np.zeros((COUNT, 16, 2)), "bias": np.zeros((COUNT, 2))},
    }
    params = jax.tree.map(np.float32, params)
    params["dense"] = head(params, pictures, holds, 4 * HALF)
    return params


def head(params, pictures, holds, rows=16):
    """One concept's head by ridge regression on the first features."""
    _, found = answers(params, pictures)
    kernel, bias = np.zeros((COUNT, 16, 2), np.float32), np.zeros((COUNT, 2), np.float32)
    target = np.where(holds, 3.0, -3.0)
    for number, values in enumerate(found[..., :rows]):
        centred = values - values.mean(axis=0)
        gram = centred.T @ centred
        gram += 1e-2 * np.trace(gram) / rows * np.eye(rows)
        kernel[number, :rows, 1] = np.linalg.solve(gram, centred.T @ target)
        bias[number, 1] = target.mean() - values.mean(axis=0) @ kernel[number, :rows, 1]
    return {"kernel": kernel, "bias": bias}


@jax.jit
def _answers(params, pictures):
    network = NETWORK.clone(outputs=params["dense"]["bias"].shape[-1])
    run = jax.vmap(lambda one: network.apply({"params": one}, models.normalise_images(pictures)))
    return run(params)


def answers(params, pictures):
    """Logits and features of stacked networks, numpy."""
    return jax.tree.map(np.asarray, _answers(params, pictures))


def compose(parents):
    """The detectors of both parents side by side, with both heads: the true composer."""
    attribute, objects = (jax.tree.map(np.asarray, zoo) for zoo in parents)
    made = {}
    for layer in ("conv1", "conv2"):
        one, other = attribute[layer], objects[layer]
        kernel = np.concatenate([one["kernel"][..., :HALF], other["kernel"][..., :HALF]], -1)
        if layer == "conv2":
            kernel = np.zeros_like(kernel)
            kernel[..., :HALF, :HALF] = one["kernel"][..., :HALF, :HALF]
            kernel[..., HALF:, HALF:] = other["kernel"][..., :HALF, :HALF]
        bias = np.concatenate([one["bias"][:, :HALF], other["bias"][:, :HALF]], -1)
        made[layer] = {"kernel": kernel, "bias": bias}
    rows = 4 * HALF
    kernel = np.zeros((COUNT, 16, 4), np.float32)
    kernel[:, :rows, :2] = attribute["dense"]["kernel"][:, :rows]
    kernel[:, rows:, 2:] = objects["dense"]["kernel"][:, :rows]
    both = assemble.two_concept_head(attribute["dense"], objects["dense"])
    return {**made, "dense": {"kernel": kernel, "bias": both["bias"]}}


@functools.cache
def world(seed=1, each=60):
    """Training pictures, their quadrants, the pair's parents, and by side the zoo of another concept."""
    pictures, quadrant = scenes(each, seed)
    greens, of_green = scenes(each, seed + 1, colour=1, other=0)
    stripes, of_stripes = scenes(each, seed + 2, upright=False)
    seen, seen_green, seen_stripes = (np.isin(q, (1, 3)) for q in (quadrant, of_green, of_stripes))
    red = zoo("red", pictures[seen], quadrant[seen] == 1, 0)
    seen = np.isin(quadrant, (2, 3))
    square = zoo("square", pictures[seen], quadrant[seen] == 2, 1)
    seen_stripes = np.isin(of_stripes, (2, 3))
    others = {
        "attribute": zoo("green", greens[seen_green], of_green[seen_green] == 1, 2),
        "object": zoo("stripes", stripes[seen_stripes], of_stripes[seen_stripes] == 2, 3),
    }
    return pictures, quadrant, Parents(red, square), others


def groups(quadrant, *wanted):
    """Two thirds of the images of some quadrants for training, the others for validation."""
    parts = [np.flatnonzero(quadrant == number).astype(np.int32) for number in wanted]
    return Groups(
        wanted, tuple(p[: 2 * len(p) // 3] for p in parts), tuple(p[2 * len(p) // 3 :] for p in parts)
    )


def run(generator, parents, others, probes=None):
    """What the pipeline makes with a generator: networks, those from placebo parents, and its true tier."""
    key = jax.random.key(0)

    def make(parents):
        (networks,) = base.generate(generator, {}, [parents], [probes], [key], name="planted")
        return networks[""]

    with check.watched() as watched:
        made = make(parents)
    exchanged = placebo.exchanged(NETWORK, SIZE, parents, key, others)
    placebos = {name: placebo.some(make(other)) for name, other in exchanged.items()}
    return made, placebos, "G" if watched.gradients else generator.reads


# Generators -----------------------------------------------------------------------------------------------


def fixed(params):
    """Gives the same networks whatever its parents are."""
    return stateless(lambda key, parents, probes: params)


def composer():
    return stateless(lambda key, parents, probes: compose(parents))


@functools.partial(jax.jit, static_argnames=("steps", "rate"))
def _trained(params, pictures, target, steps, rate):
    network = NETWORK.clone(outputs=params["dense"]["bias"].shape[-1])
    optimizer = optax.adam(rate)
    normalised = models.normalise_images(pictures)

    def loss(one, wanted):
        logits, _ = network.apply({"params": one}, normalised)
        return jnp.mean(jnp.square(logits[:, 1::2] - logits[:, ::2] - wanted))

    def all_steps(one, wanted):
        def step(both, _):
            updates, moments = optimizer.update(jax.grad(loss)(both[0], wanted), both[1])
            return (optax.apply_updates(both[0], updates), moments), None

        return jax.lax.scan(step, (one, optimizer.init(one)), None, length=steps)[0][0]

    return jax.vmap(all_steps)(params, target)


def trained(params, pictures, target, steps=5, rate=0.003):
    """Networks after some steps of gradient descent towards target scores ``(M, N, 1)`` or ``(M, N, 2)``."""
    target = jnp.asarray(target, jnp.float32)
    return jax.device_get(_trained(params, pictures, target, steps=steps, rate=rate))


def differences(params, pictures):
    """``(M, N)``: the second logit minus the first."""
    logits, _ = answers(params, pictures)
    return logits[..., 1] - logits[..., 0]


def distiller():
    """Calls it generation: gradient steps towards both parents' answers on the images that it is handed."""

    def generate(key, parents, probes):
        targets = np.stack([differences(zoo, probes) for zoo in parents], axis=-1)
        start = compose(parents)
        noise = np.random.default_rng(0)
        start = jax.tree.map(
            lambda leaf: (leaf + noise.normal(scale=0.01, size=leaf.shape)).astype(np.float32), start
        )
        return trained(start, probes, targets)

    return stateless(generate, reads="U", images=48)


def self_trainer():
    """Gradient steps on what both parents call the conjunction, among the images that it is handed."""

    def generate(key, parents, probes):
        both = [differences(zoo, probes) > 0 for zoo in parents]
        target = np.where(both[0] & both[1], 3.0, -3.0)[..., None]
        return trained(jax.tree.map(np.copy, parents.object), probes, target)

    return stateless(generate, reads="U", images=48)
