"""Networks that know nothing but the parents' heads: what generation must beat."""

from __future__ import annotations

import functools

import jax
import numpy as np

from kernelgan import assemble, models
from kernelgan.generators.base import Generator, Parents, Probes, stateless
from kernelgan.types import Key, Params

_AT_ONCE = 8


def random(network: models.ConvNet, image_size: int, *, count: int, bias: str) -> Generator:
    """Kernels drawn from the initialiser.

    Args:
      network: the module.
      image_size: pixels a side.
      count: networks.
      bias: "zero", or "parent": the attribute's parents' biases, where generated networks have theirs too.
    """
    layers = models.layer_names(network.filters)

    def generate(key: Key, parents: Parents, probes: Probes) -> Params:
        del probes
        drawn = initialise(network, image_size, jax.random.split(key, count))
        volumes = {name: drawn[name]["kernel"] for name in layers}
        made = {}
        for name in layers:
            own = assemble.counted_round(parents.attribute[name]["bias"], count)
            made[name] = {"kernel": volumes[name], "bias": own if bias == "parent" else np.zeros_like(own)}
        return {**made, "dense": assemble.heads_for(np.arange(count), *parents)}

    return stateless(generate)


def initialise(network: models.ConvNet, image_size: int, keys: Key) -> Params:
    """Untrained networks, one for each key, numpy.

    They are drawn a few at a time: XLA takes ten seconds to compile the program for each number of keys.
    """
    count = len(keys)
    places = np.minimum(np.arange(-(-count // _AT_ONCE) * _AT_ONCE), count - 1).reshape(-1, _AT_ONCE)
    parts = [jax.device_get(_initialise(network, image_size, keys[rows])) for rows in places]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initialise(network: models.ConvNet, image_size: int, keys: Key) -> Params:
    return jax.vmap(lambda key: models.initialise_convnet(network, image_size, key))(keys)


def gaussian(network: models.ConvNet, *, count: int) -> Generator:
    """Each parameter drawn with its mean and standard deviation over a zoo, even networks the attribute's.

    Args:
      network: the module.
      count: networks.
    """
    layers = models.layer_names(network.filters)

    def generate(key: Key, parents: Parents, probes: Probes) -> Params:
        del probes
        rng = numpy_generator(key, 1)
        of_object = np.arange(count) % 2 == 1

        def draw(attribute: np.ndarray, objects: np.ndarray) -> np.ndarray:
            noise = rng.normal(size=(count, *attribute.shape[1:])).astype(np.float32)
            which = of_object.reshape(-1, *[1] * (attribute.ndim - 1))
            mean = np.where(which, objects.mean(axis=0), attribute.mean(axis=0))
            spread = np.where(which, objects.std(axis=0), attribute.std(axis=0))
            return mean + spread * noise

        trunks = [{name: zoo[name] for name in layers} for zoo in parents]
        return {**jax.tree.map(draw, *trunks), "dense": assemble.heads_for(np.arange(count), *parents)}

    return stateless(generate)


def numpy_generator(key: Key, stream: int) -> np.random.Generator:
    """NumPy's random numbers for one use of a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, stream))))
