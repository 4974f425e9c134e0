"""The hypernetwork: two parents of two convolutional layers in, one network of the same size out.

Filters are tokens. A token knows its weights, its answers to fixed probe images and, in the last layer, its
head. Messages pass along the kernels between layers (Navon et al., arXiv:2301.12780, have other layers of the
kind), attention among all tokens of both parents; learned queries then mix the parents' filters into new
ones. The order of a parent's filters and their scale change nothing. Heads are the ridge regression of the
parents' answers to the probes, shrunk towards the heads that the queries mix.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernelgan import models, refit
from kernelgan.types import Key, Params

_LEAST = 1e-6  # of a variance
_PLACES = 8  # of each probe, that the second layer's scale is measured at
_BIASES = (-1.5, 3.0)  # in standard deviations of the pre-activations: no filter is silent
_FREE = 0.003  # of the weights that the queries add freely, at the start


class Probes(NamedTuple):
    """Images that all networks are run on.

    Attributes:
      images: as `refit.lay_out` lays them out.
      mean: of their patches ``(q,)``, as kernels of the first layer read them.
      covariance: of these ``(q, q)``.
    """

    images: jax.Array
    mean: jax.Array
    covariance: jax.Array


class Parent(NamedTuple):
    """A network in canonical scale: pre-activations have variance 1 on the probes.

    Attributes:
      first: kernels ``(F, q)``.
      first_bias: in standard deviations of the pre-activations, their mean with it ``(F,)``.
      second: kernels ``(F, G, q)``, from each filter of the first layer to each of the second.
      second_bias: ``(G,)``.
      head: of the logit difference, ``(G, p)`` by filter and place.
      answer: ``(N,)``, the logit difference on the probes.
      loudness: its standard deviation.
      described: what the tokens of both layers know, ``(F, a)`` and ``(G, b)``.
    """

    first: jax.Array
    first_bias: jax.Array
    second: jax.Array
    second_bias: jax.Array
    head: jax.Array
    answer: jax.Array
    loudness: jax.Array
    described: tuple[jax.Array, jax.Array]


def _spread(probes: Probes, kernels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Standard deviations and means of what kernels ``(F, q)`` give on the probes, ``(F,)``."""
    variance = jnp.einsum("fa,ab,fb->f", kernels, probes.covariance, kernels)
    return jnp.sqrt(variance + _LEAST), kernels @ probes.mean


def _spread_of(read: jax.Array, kernels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same of kernels ``(G, d)`` that read samples ``(d, n)``."""
    mean = read.mean(axis=1)
    given = kernels @ (read - mean[:, None])
    return jnp.sqrt(jnp.mean(given * given, axis=1) + _LEAST), kernels @ mean


def _read(maps: jax.Array, side: int) -> jax.Array:
    """What the next kernels read of maps ``(F, H, W, N)`` at some places: ``(F q, n)``."""
    height, width = maps.shape[1:3]
    rng = np.random.default_rng(4)
    places = zip(
        *(rng.integers(0, length - side + 1, size=_PLACES) for length in (height, width)), strict=True
    )
    cut = [maps[:, i : i + side, j : j + side] for i, j in places]
    return jnp.concatenate([one.reshape(len(maps) * side * side, -1) for one in cut], axis=1)


def _maps(params: Params, hidden: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """What a layer gives, as the next layer takes it and as ``(F, H, W, N)``."""
    given = refit.run_layer(params, hidden)
    return given, refit.batch_minor(given, count)


def _dense(key: Key, inputs: int, outputs: int, gain: float = 1.0) -> Params:
    weights = jax.random.normal(key, (inputs, outputs)) * gain / np.sqrt(inputs)
    return {"kernel": weights, "bias": jnp.zeros(outputs)}


def _apply(layer: Params, values: jax.Array) -> jax.Array:
    return values @ layer["kernel"] + layer["bias"]


def _normalised(values: jax.Array) -> jax.Array:
    centred = values - values.mean(axis=-1, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)


def _attend(block: Params, tokens: jax.Array, to: jax.Array, heads: int) -> jax.Array:
    width = tokens.shape[-1]

    def split(values: jax.Array) -> jax.Array:
        return values.reshape(len(values), heads, -1).swapaxes(0, 1)

    asked = split(_apply(block["read"], _normalised(tokens))[:, :width])
    found = _apply(block["read"], _normalised(to))
    keys, values = split(found[:, width : 2 * width]), split(found[:, 2 * width :])
    scores = jnp.einsum("hqe,hke->hqk", asked, keys) / np.sqrt(width / heads)
    read = jnp.einsum("hqk,hke->hqe", jax.nn.softmax(scores, axis=-1), values)
    return _apply(block["write"], read.swapaxes(0, 1).reshape(len(tokens), width))


def _thought(block: Params, tokens: jax.Array) -> jax.Array:
    return _apply(block["narrow"], jax.nn.gelu(_apply(block["wide"], _normalised(tokens))))


def _coefficients(mixer: Params, new: jax.Array, old: jax.Array) -> jax.Array:
    """With which old filters are mixed into new ones, ``(new, old)``: picked by softmax, and changed."""
    left, right = _normalised(new), _normalised(old)

    def products(one: str, other: str) -> jax.Array:
        return _apply(mixer[one], left) @ _apply(mixer[other], right).T / np.sqrt(left.shape[-1])

    return jax.nn.softmax(2 * products("new", "old"), axis=-1) + products("new_linear", "old_linear")


def _fitted(
    maps: jax.Array, heads: jax.Array, answers: jax.Array, ridge: float
) -> tuple[jax.Array, jax.Array]:
    """Heads ``(G p, 2)`` and intercepts: the ridge regression that is shrunk towards ``heads``.

    In the space of the samples, of which there are fewer than features.

    Args:
      maps: ``(G, p, N)``.
      heads: ``(G, p, 2)``.
      answers: ``(N, 2)``.
      ridge: in units of a filter's variance.
    """
    count = maps.shape[-1]
    scale = jnp.sqrt(maps.var(axis=2).mean(axis=1) + _LEAST)[:, None]
    features = (maps / scale[..., None]).reshape(-1, count).T
    prior = (heads * scale[..., None]).reshape(-1, heads.shape[-1])
    mean, centre = features.mean(axis=0), answers.mean(axis=0)
    centred = features - mean
    left = answers - centre - centred @ prior
    gram = centred @ centred.T / count + ridge * jnp.eye(count)
    weights = prior + centred.T @ jnp.linalg.solve(gram, left) / count
    slopes = weights.reshape(heads.shape) / scale[..., None]
    return slopes.reshape(prior.shape), centre - mean @ weights


@dataclasses.dataclass(frozen=True)
class Hypernetwork:
    """A design, see `studies.learned.design`.

    Attributes:
      network: the parents' module, of two layers and two logits.
      count: probes.
      width: of a token.
      heads: of attention.
      blocks: of the encoder; the decoder has two.
      ridge: of the heads, in units of a filter's variance.
    """

    network: models.ConvNet
    count: int
    width: int = 96
    heads: int = 4
    blocks: int = 3
    ridge: float = 0.05
    pairs: int = 16
    rate: float = 5e-4
    decay: float = 1e-3
    code: ClassVar[tuple[str, ...]] = ("studies.learned.hypernetwork",)

    def look(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The fields of `Probes`."""
        normalised = np.asarray(models.normalise_images(jnp.asarray(images)))
        size, side = normalised.shape[1], self.network.kernel_size
        places = np.random.default_rng(3).integers(0, size - side + 1, size=(60, 2))
        patches = np.concatenate(
            [normalised[:, i : i + side, j : j + side].reshape(len(images), -1) for i, j in places]
        )
        covariance = np.cov(patches.T) + 1e-4 * np.eye(patches.shape[1])
        laid_out = refit.lay_out(jnp.asarray(normalised))
        looked_at = laid_out, patches.mean(axis=0), covariance.astype(np.float32)
        return tuple(map(np.asarray, looked_at))

    def describe(self, params: Params, seen: tuple[Any, ...]) -> Parent:
        """The network in canonical scale."""
        probes = Probes(*seen)
        kernel, side = params["conv1"]["kernel"], params["conv2"]["kernel"].shape[0]
        own = kernel.transpose(3, 0, 1, 2).reshape(kernel.shape[-1], -1)
        scale, mean = _spread(probes, own)
        hidden, maps = _maps(params["conv1"], probes.images, self.count)
        kernel = params["conv2"]["kernel"].transpose(3, 2, 0, 1)
        rows = kernel.reshape(len(kernel), -1)
        second_scale, second_mean = _spread_of(_read(maps, side), rows)
        _, last = _maps(params["conv2"], hidden, self.count)
        maps, last = maps / scale[:, None, None, None], last / second_scale[:, None, None, None]
        second = (rows / second_scale[:, None]).reshape(*kernel.shape[:2], -1).swapaxes(0, 1) * scale[
            :, None, None
        ]
        dense = params["dense"]["kernel"]
        head = (dense[:, 1] - dense[:, 0]).reshape(len(last), -1) * second_scale[:, None]
        bias = params["dense"]["bias"][1] - params["dense"]["bias"][0]
        says = jnp.einsum("gp,gpn->gn", head, last.reshape(*head.shape, -1))
        answer = says.sum(axis=0) + bias
        loudness = answer.std() + _LEAST
        first, first_bias = own / scale[:, None], (params["conv1"]["bias"] + mean) / scale
        second_bias = (params["conv2"]["bias"] + second_mean) / second_scale
        half = maps.shape[1] // 2  # of an odd side the last row and column are left out
        quarters = maps[:, : 2 * half, : 2 * half].reshape(len(maps), 2, half, 2, half, -1).mean(axis=(2, 4))
        told = (says - says.mean(axis=1, keepdims=True)) / loudness
        described = (
            jnp.concatenate([quarters.reshape(len(maps), -1), 3 * first, first_bias[:, None]], axis=1),
            jnp.concatenate(
                [last.mean(axis=(1, 2)), told, 3 * head / loudness, second_bias[:, None]], axis=1
            ),
        )
        return Parent(first, first_bias, second, second_bias, head, answer, loudness, described)

    def initialise(self, key: Key, like: Parent, seen: tuple[Any, ...]) -> Params:
        """Drawn weights."""
        del seen
        keys = iter(jax.random.split(key, 256))
        width = self.width

        def dense(inputs: int, outputs: int, gain: float = 1.0) -> Params:
            return _dense(next(keys), inputs, outputs, gain)

        def block() -> Params:
            sides = {"from_first": dense(width, width), "from_second": dense(width, width)}
            attention = {"read": dense(width, 3 * width), "write": dense(width, width, 0.5)}
            wide = {"wide": dense(width, 2 * width), "narrow": dense(2 * width, width, 0.5)}
            return {**sides, "message": dense(width, width, 0.5), **attention, **wide}

        def mixer() -> Params:
            names = {"new": 1.0, "old": 1.0, "new_linear": 0.05, "old_linear": 1.0}
            return {name: dense(width, width, gain) for name, gain in names.items()}

        (filters, taps), (following, places) = like.first.shape, like.head.shape
        queries = {
            n: jax.random.normal(next(keys), (c, width))
            for n, c in (("first", filters), ("second", following))
        }
        return {
            "described": [dense(known.shape[1], width) for known in like.described],
            "parent": jax.random.normal(next(keys), (2, 2, width)) * 0.5,
            "edge": dense(like.second.shape[-1], width, 3.0),
            "queries": queries,
            "encoder": [block() for _ in range(self.blocks)],
            "decoder": [block() for _ in range(2)],
            "mix": {name: mixer() for name in ("first", "through", "second", "head")},
            "free": {
                "first": dense(width, taps + 1, _FREE),
                "second": dense(width, like.second.shape[-1] + 1, _FREE),
                "head": dense(width, 2 * places, _FREE),
            },
        }

    def generate(self, weights: Params, parents: tuple[Parent, Parent], seen: tuple[Any, ...]) -> Params:
        """One network with two logits for each concept."""
        filters, following = parents[0].second.shape[:2]
        first, second = (
            jnp.concatenate(
                [
                    _apply(weights["described"][layer], parent.described[layer])
                    + weights["parent"][layer, side]
                    for side, parent in enumerate(parents)
                ]
            )
            for layer in range(2)
        )
        edges = [_apply(weights["edge"], parent.second) for parent in parents]
        for block in weights["encoder"]:
            left, right = _apply(block["from_first"], first), _apply(block["from_second"], second)
            down, up = [], []
            for side, edge in enumerate(edges):
                mine = left[side * filters : (side + 1) * filters]
                theirs = right[side * following : (side + 1) * following]
                down.append(jnp.einsum("fge,fe->ge", edge, mine) / filters)
                up.append(jnp.einsum("fge,ge->fe", edge, theirs) / following)
            first += _apply(block["message"], jnp.concatenate(up))
            second += _apply(block["message"], jnp.concatenate(down))
            tokens = jnp.concatenate([first, second])
            tokens += _attend(block, tokens, tokens, self.heads)
            tokens += _thought(block, tokens)
            first, second = tokens[: 2 * filters], tokens[2 * filters :]
        old = jnp.concatenate([first, second])
        new = jnp.concatenate([weights["queries"]["first"], weights["queries"]["second"]])
        for block in weights["decoder"]:
            new += _attend(block, new, jnp.concatenate([old, new]), self.heads)
            new += _thought(block, new)
        return self._written(weights, parents, Probes(*seen), (first, second), (new[:filters], new[filters:]))

    def _written(
        self,
        weights: Params,
        parents: tuple[Parent, Parent],
        probes: Probes,
        old: tuple[jax.Array, jax.Array],
        new: tuple[jax.Array, jax.Array],
    ) -> Params:
        """The network that new tokens stand for."""
        mix, free = weights["mix"], weights["free"]
        added = [_apply(free[name], _normalised(new[layer])) for name, layer in (("first", 0), ("second", 1))]
        lowest, highest = _BIASES

        coefficients = _coefficients(mix["first"], new[0], old[0])
        kernels = coefficients @ jnp.concatenate([parent.first for parent in parents]) + added[0][:, :-1]
        bias = coefficients @ jnp.concatenate([parent.first_bias for parent in parents]) + added[0][:, -1]
        scale, mean = _spread(probes, kernels)
        side = round(np.sqrt(parents[0].second.shape[-1]))
        inputs = kernels.shape[1] // side**2
        first = {
            "kernel": (kernels / scale[:, None]).reshape(-1, side, side, inputs).transpose(1, 2, 3, 0),
            "bias": jnp.clip(bias, lowest, highest) - mean / scale,
        }
        hidden, maps = _maps(first, probes.images, self.count)

        through = _coefficients(mix["through"], old[0], new[0])  # how old maps are made of the new
        coefficients = _coefficients(mix["second"], new[1], old[1])
        filters, following = parents[0].second.shape[:2]
        rows = sum(
            jnp.einsum(
                "fs,gh,fhq->gsq",
                through[place * filters : (place + 1) * filters],
                coefficients[:, place * following : (place + 1) * following],
                parent.second,
            )
            for place, parent in enumerate(parents)
        )
        rows = (rows + added[1][:, None, :-1]).reshape(following, -1)
        bias = coefficients @ jnp.concatenate([parent.second_bias for parent in parents]) + added[1][:, -1]
        scale, mean = _spread_of(_read(maps, side), rows)
        second = {
            "kernel": (rows / scale[:, None]).reshape(following, filters, side, side).transpose(2, 3, 1, 0),
            "bias": jnp.clip(bias, lowest, highest) - mean / scale,
        }
        _, last = _maps(second, hidden, self.count)

        mixed = _coefficients(mix["head"], old[1], new[1])
        heads = jnp.stack(
            [
                mixed[place * following : (place + 1) * following].T @ (parent.head / parent.loudness)
                for place, parent in enumerate(parents)
            ],
            axis=-1,
        )
        heads += _apply(free["head"], _normalised(new[1])).reshape(heads.shape)
        answers = jnp.stack([parent.answer / parent.loudness for parent in parents], axis=-1)
        slopes, intercepts = _fitted(last.reshape(following, -1, self.count), heads, answers, self.ridge)
        loudness = jnp.stack([parent.loudness for parent in parents])
        return {
            "conv1": first,
            "conv2": second,
            "dense": refit.concepts_head(slopes * loudness, intercepts * loudness),
        }

    def bounded(self, weights: Params) -> Params:
        """The same."""
        return weights

    def for_use(self) -> Hypernetwork:
        """The same."""
        return self
