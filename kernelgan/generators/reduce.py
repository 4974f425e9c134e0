"""Unite both parents into one wide network, then reduce it to a parent's size by least squares.

Side by side, the filters of two parents are one network of twice the width, and it answers both concepts. It
is reduced layer by layer. Of a layer's candidates those are picked from whose maps the next layer's
pre-activations are recovered best (`kernelgan.generators.selection`); then each is mixed with all others, to
recover them better (`kernelgan.generators.mixing`). The same least squares gives the next layer's kernels and
biases; of the last layer's maps, the parents' logit differences are recovered, which gives the heads. Then
every layer is mixed once more, for the whole network's answers (`kernelgan.generators.backfitting`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernelgan import fields, models, refit
from kernelgan.fields import setting
from kernelgan.generators import backfitting, mixing, selection
from kernelgan.generators.base import Generator, Parents, Tier, stateless
from kernelgan.ops import products
from kernelgan.types import Array, Key, Params, UserError

LABELS = {
    "": (
        "both parents united and reduced",
        "the parents' filters united and reduced to a parent's number by least squares on seen images",
    )
}

BLOCK = backfitting.BLOCK
"""Images that are read at the same places."""

_PLACES = 0  # seed of the places of patches
_LEAST = 0.1  # of the highest cost, so that no concept is given up


PARENTS = (fields.whole(1), "parents of each concept whose filters are united")
WHOLE_ZOO = (fields.truth, "whether heads imitate the mean answer of the whole zoo, not of these parents")


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of ``config.generators.reduce`` and of the families that are named after it."""

    images: int = setting(
        1536,
        fields.whole(2),
        "probe images that filters are picked and mixed on; with sweeps three times as many are handed over",
    )
    patches: int = setting(4, fields.whole(1), "positions of each image that a convolution is fitted on")
    parents: int = setting(1, *PARENTS)
    whole_zoo: bool = setting(False, *WHOLE_ZOO)
    rounds: int = setting(
        3,
        fields.whole(0),
        "of mixing a layer's filters, the last one's only without sweeps; 0 picks them only",
    )
    sweeps: int = setting(1, fields.whole(0), "of backfitting, over all layers; 0: none")
    ridge: float = setting(1e-2, fields.positive, "of a convolution's fit, in units of a filter's variance")
    head_ridge: float = setting(
        refit.HEAD_RIDGE,
        fields.positive,
        "of the heads' fit before backfitting, in units of a filter's mean variance",
    )


def problems(config: Config, *, layers: int, models: Sequence[int]) -> Iterator[str]:
    """Fields that contradict the rest of the config, see `cyclegan.problems`."""
    del layers
    if config.parents > min(models):
        yield (
            f"parents is {config.parents}, but the smaller zoo has {min(models)} networks; expected at most "
            "that, or a larger zoo.models"
        )


class Group(NamedTuple):
    """The united network: parents, concept by concept.

    Attributes:
      images: as `refit.lay_out` lays them out.
      params: of each parent; those of a concept stand together, as many of each.
      hidden: for each parent, the maps that each layer gives, as the next layer reads them.
      difference: ``(K, N)``, the mean logit difference of each concept's parents.
      target: ``(K, N)``, what the network is to answer: the same, or the mean of each concept's whole zoo.
    """

    images: jax.Array
    params: list[Params]
    hidden: list[list[jax.Array]]
    difference: jax.Array
    target: jax.Array


class Reader(NamedTuple):
    """What reads a layer's maps in all parents: the next layer's kernels at some places, or the heads.

    Attributes:
      cut: ``(C, H, W, N)`` maps to ``(C * q, n)``, what is read of them, map after map.
      around: what the layer reads of its input ``(I, H, W, N)`` for these maps, ``(I, h, w, n)``.
      values: ``(t, n)``, what the parents make of their own: pre-activations or logit differences.
      weights: ``(C, q, t)``, by which kernels or heads, of all parents side by side.
      ridge: of a fit.
    """

    cut: Callable[[jax.Array], jax.Array]
    around: Callable[[jax.Array], jax.Array]
    values: jax.Array
    weights: jax.Array
    ridge: float


def make(network: models.ConvNet, config: Config) -> Generator:
    """Reduces with unlabelled images of the seen quadrants (tier U)."""
    return reducer(network, config, "U")


def reducer(network: models.ConvNet, config: Config, reads: Tier, made: str = "rendered") -> Generator:
    """A generator that unites and reduces.

    Network ``i`` is made of parents ``i k`` to ``i k + k - 1`` of each zoo, ``k = config.parents``, counted
    round; there are as many networks as the larger zoo has such groups. With ``config.whole_zoo`` all
    imitate the mean answer of each zoo.

    Args:
      network: the parents' module.
      config: of the family.
      reads: tier of its probes, "S" or "U".
      made: in tier S, which images of `kernelgan.probes`.
    """

    def generate(key: Key, parents: Parents, probes: Array) -> Params:
        del key
        return compose_zoos(network, config, parents, probes)

    alone = config.parents == 1 and not config.whole_zoo
    return stateless(
        jax.jit(generate), reads=reads, images=probes_of(config), made=made, host=False, separable=alone
    )


def probes_of(config: Config) -> int:
    """How many probe images a generator is handed."""
    return config.images * (backfitting.PARTS if config.sweeps else 1)


def compose_zoos(
    network: models.ConvNet,
    config: Config,
    zoos: Sequence[Params],
    probes: Array,
    firsts: Params | None = None,
) -> Params:
    """Networks with two logits for each concept, made as `reducer` says.

    Args:
      network: the parents' module.
      config: of the family.
      zoos: of each concept, stacked parameters.
      probes: uint8 images ``(N, H, W, C)``, in random order.
      firsts: in place of the parents' filters of the first layer others, ``{"kernel", "bias"}`` stacked along
        the networks, any number of filters: the null of what the parents' own are worth.

    Raises:
      UserError: a zoo has fewer networks than there are to be parents of one.
    """
    sizes = [len(zoo["dense"]["bias"]) for zoo in zoos]
    for problem in problems(config, layers=len(network.filters), models=sizes):
        raise UserError(problem)
    groups = np.arange(max(1, max(sizes) // config.parents) * config.parents).reshape(-1, config.parents)
    layers = models.layer_names(network.filters)
    parts: list[np.ndarray] = []
    picked = np.arange(len(probes))
    if config.sweeps:
        parts = backfitting.in_parts(len(probes))
        picked = picked[:: max(1, len(probes) // config.images)][: config.images]
    picked = backfitting.in_blocks(picked)

    def lay_out(numbers: np.ndarray) -> jax.Array:
        return refit.lay_out(models.normalise_images(jnp.asarray(probes)[numbers]))

    laid_out = lay_out(picked)  # of as many probes as it asks for, these are the first part
    shown = [laid_out if np.array_equal(part, picked) else lay_out(part) for part in parts]

    def answers(of: Sequence[Params], images: jax.Array, count: int) -> jax.Array:
        """The mean logit difference of each concept's networks, ``(K, N)``."""
        return jnp.stack([refit.mean_answer(networks, layers, images, count) for networks in of])

    def of_parts(of: Sequence[Params], target: jax.Array) -> list[jax.Array]:
        """The same to each part, given those to the picked ones."""
        return [
            target if images is laid_out else answers(of, images, len(part))
            for images, part in zip(shown, parts, strict=True)
        ]

    whole = answers(zoos, laid_out, len(picked)) if config.whole_zoo else None
    whole_parts = [] if whole is None else of_parts(zoos, whole)

    def one(of: tuple[jax.Array, Params | None]) -> Params:
        group, others = of
        members = [
            jax.tree.map(lambda leaf, size=size: leaf[group % size], zoo)
            for zoo, size in zip(zoos, sizes, strict=True)
        ]
        parents = [
            jax.tree.map(lambda leaf, n=n: leaf[n], of_concept)
            for of_concept in members
            for n in range(config.parents)
        ]
        united = unite(network, parents, len(zoos), laid_out, len(picked))
        if whole is not None:
            united = united._replace(target=whole)
        made = reduce(network, config, united, mixes_last=not config.sweeps, firsts=others)
        if config.sweeps:
            wanted = whole_parts or of_parts(members, united.target)
            first, second, third = map(backfitting.Answers, shown, wanted)
            made = backfitting.backfit(made, first, second, third, config.sweeps)
        return backfitting.parameters(made)

    return lax.map(one, (jnp.asarray(groups), firsts))


def unite(
    network: models.ConvNet, parents: list[Params], concepts: int, laid_out: jax.Array, count: int
) -> Group:
    """Runs parents side by side.

    Args:
      network: their module.
      parents: concept by concept, as many of each.
      concepts: how many.
      laid_out: images, see `refit.lay_out`.
      count: how many.
    """
    layers = models.layer_names(network.filters)
    hidden = [refit.run_layers(parent, layers, laid_out) for parent in parents]
    answers = jnp.stack(
        [
            refit.difference(parent["dense"], refit.batch_minor(maps[-1], count))
            for parent, maps in zip(parents, hidden, strict=True)
        ]
    )
    difference = answers.reshape(concepts, -1, count).mean(axis=1)
    return Group(laid_out, parents, hidden, difference, difference)


def reduce(
    network: models.ConvNet,
    config: Config,
    group: Group,
    *,
    mixes_last: bool = True,
    firsts: Params | None = None,
) -> backfitting.Made:
    """One network of the parents' size, not backfitted.

    Args:
      network: the parents' module.
      config: of the family.
      group: the united network.
      mixes_last: whether the last layer's filters are mixed, not picked alone: backfitting mixes them for the
        same target, the answers.
      firsts: candidates of the first layer; None: the parents' filters.

    Returns:
      The network, and what its filters are mixed of.
    """
    names, concepts = models.layer_names(network.filters), len(group.difference)
    # Errors in what the heads read count by concept, in pre-activations by what they do to the logits.
    important = [*importances(names, group)[1:], jnp.ones(concepts)]
    # The united layer's filters are the candidates: at first the parents', then fitted to what was made of
    # the layer before.
    own = [parent[names[0]] for parent in group.params]
    layer = firsts or jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=-1), *own)
    inputs, candidates_of, made = group.images, [], []
    for number, (name, filters) in enumerate(zip(names, network.filters, strict=True)):
        reader, last = _reader(group, number, config), name == names[-1]
        if firsts and name == names[0]:  # the parents do nothing with these
            count = layer["bias"].shape[-1]
            reader = reader._replace(weights=jnp.zeros((count, *reader.weights.shape[1:])))
        windows = _windows(refit.batch_minor(inputs, group.difference.shape[1]), layer, reader)
        maps, candidates = mixing.maps_of(windows), windows.shape[1]
        found = refit.moments(maps.reshape(-1, maps.shape[-1]), reader.values, candidates, reader.ridge)
        # Where this is differentiated, weights and choices are constants: roots have no derivative at 0.
        weights = lax.stop_gradient(_balanced(important[number], found.variance, concepts))
        target = mixing.Target(reader.values, weights, reader.weights, reader.ridge)
        chosen = selection.select(found, weights, candidates, filters)
        if not last:
            chosen = selection.exchange(found, weights, candidates, chosen)
            picked = mixing.mix(windows, chosen, target, 0)
            target = target._replace(weights=weights * _cost(group, number, inputs, layer, picked, weights))
            chosen = selection.exchange(found, target.weights, candidates, chosen)
        mixed = mixing.mix(windows, chosen, target, config.rounds if mixes_last or not last else 0)
        candidates_of.append(layer)
        made.append(_mixture(layer, mixed))
        inputs = refit.run_layer(made[-1], inputs)
        if not last:
            layer = _following(group, number, mixed)
    return backfitting.Made(tuple(made), tuple(candidates_of), mixed.weights, mixed.intercepts)


def _mixture(layer: Params, mixed: mixing.Mixed) -> Params:
    return jax.tree.map(lambda leaf: refit.product(leaf, mixed.mixture.T), layer)


def _following(group: Group, number: int, mixed: mixing.Mixed) -> Params:
    """The next layer of all parents, fitted to the mixed filters' maps."""
    height, width, *_ = group.params[0][f"conv{number + 2}"]["kernel"].shape
    kernel = mixed.weights.reshape(len(mixed.mixture), height, width, -1).transpose(1, 2, 0, 3)
    return {"kernel": kernel, "bias": mixed.intercepts}


def _cost(
    group: Group, number: int, inputs: jax.Array, layer: Params, mixed: mixing.Mixed, weights: jax.Array
) -> jax.Array:
    """What a unit of the weighted error costs each concept's logits, ``(t,)``.

    The next layer of each parent is exchanged for its fit; the share of the logit differences' variance that
    is lost thereby is divided by the concept's weighted error, 0 where nothing is lost.
    """
    group, inputs, layer, mixed = lax.stop_gradient((group, inputs, layer, mixed))
    concepts, count = group.difference.shape
    maps = refit.run_layer(_mixture(layer, mixed), inputs)
    following, parents = _following(group, number, mixed), len(group.params)
    answers = []
    for place, parent in enumerate(group.params):
        own = jax.tree.map(lambda leaf, place=place: jnp.split(leaf, parents, axis=-1)[place], following)
        hidden = refit.run_layer(own, maps)
        for name in models.layer_names(range(len(group.hidden[0])))[number + 2 :]:
            hidden = refit.run_layer(parent[name], hidden)
        answers.append(refit.difference(parent["dense"], refit.batch_minor(hidden, count)))
    answer = jnp.stack(answers).reshape(concepts, -1, count).mean(axis=1)
    lost, error = (
        jnp.square(answer - group.difference).mean(axis=1),
        (weights * mixed.left).reshape(concepts, -1).sum(axis=1),
    )
    scale = group.difference.var(axis=1) * error
    cost = jnp.where(scale > 0, lost / jnp.where(scale > 0, scale, 1), 0)
    return jnp.repeat(jnp.maximum(cost, _LEAST * cost.max()), len(weights) // concepts)


def importances(names: tuple[str, ...], group: Group) -> list[jax.Array]:
    """How much the logits hang on each united filter's pre-activations: mean squared derivatives.

    Of the last layer the squared weights of the head, where the filter is active; of a layer before,
    those of the next layer times the squared kernels between (without the covariance of paths).

    Args:
      names: of the layers.
      group: the united network.

    Returns:
      For each layer ``(filters of all parents,)``.
    """
    by_parent = []
    for parent, hidden in zip(group.params, group.hidden, strict=True):
        images = (-1,) if hidden[0].ndim == 4 else (0, -1)
        active = [jnp.mean(maps > 0, axis=images) for maps in hidden]  # (C, H, W)
        head = parent["dense"]["kernel"]
        slope = jnp.square(head[:, 1] - head[:, 0]).reshape(active[-1].shape)
        found = [jnp.sum(slope * active[-1], axis=(1, 2))]
        for number in range(len(names) - 1, 0, -1):
            kernel = parent[names[number]]["kernel"]
            through = jnp.einsum("hwio,o->i", jnp.square(kernel), found[0], precision=products.PRECISION)
            found.insert(0, through * active[number - 1].mean(axis=(1, 2)))
        by_parent.append(found)
    return [jnp.concatenate(layer) for layer in zip(*by_parent, strict=True)]


def _balanced(importance: jax.Array, variance: jax.Array, concepts: int) -> jax.Array:
    """Weights of squared errors ``(t,)``, with which what is to be explained of each concept sums to 1."""
    total = jnp.sum((importance * variance).reshape(concepts, -1), axis=1)
    share = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)
    return importance * jnp.repeat(share, len(importance) // concepts)


def _reader(group: Group, number: int, config: Config) -> Reader:
    """What reads the maps of layer ``number``, from 0."""
    parents, (concepts, count) = group.params, group.difference.shape
    if number + 1 == len(group.hidden[0]):
        each = len(parents) // concepts
        heads = [parent["dense"]["kernel"] for parent in parents]
        slopes = [(head[:, 1] - head[:, 0])[:, None] / each for head in heads]
        filters = group.hidden[0][-1].shape[-4]
        blocks = [
            jnp.zeros((filters, len(head) // filters, concepts))
            .at[..., place // each]
            .set(head.reshape(filters, -1))
            for place, head in enumerate(slopes)
        ]
        return Reader(
            lambda maps: maps.reshape(-1, maps.shape[-1]),
            lambda inputs: inputs,
            group.target,
            jnp.concatenate(blocks),
            config.head_ridge,
        )
    layers = [parent[f"conv{number + 2}"] for parent in parents]
    own_side = parents[0][f"conv{number + 1}"]["kernel"].shape[0]
    side = layers[0]["kernel"].shape[0]
    _, height, width, _ = refit.batch_minor(group.hidden[0][number], count).shape
    rows, columns = places((height, width), side, count // BLOCK, config.patches)

    def cut(maps: jax.Array) -> jax.Array:
        found = patches(maps, side, rows, columns)
        return found.reshape(-1, found.shape[-1])

    def around(inputs: jax.Array) -> jax.Array:
        return patches(inputs, 2 * side + own_side - 1, 2 * rows, 2 * columns)  # pooled by two

    values, blocks = [], []
    for place, (layer, hidden) in enumerate(zip(layers, group.hidden, strict=True)):
        taps = layer["kernel"].transpose(2, 0, 1, 3)
        filters, *_, targets = taps.shape
        taps = taps.reshape(filters, -1, targets)
        read = cut(refit.batch_minor(hidden[number], count))
        values.append(refit.product(taps.reshape(-1, targets).T, read) + layer["bias"][:, None])
        own = slice(place * targets, (place + 1) * targets)
        blocks.append(jnp.zeros((*taps.shape[:2], targets * len(parents))).at[..., own].set(taps))
    return Reader(cut, around, jnp.concatenate(values), jnp.concatenate(blocks), config.ridge)


def _windows(inputs: jax.Array, layer: Params, reader: Reader) -> jax.Array:
    """Candidates' pre-activations ``(4, C, q, n)``, four of each pooling window, where they are read."""
    around = reader.around(inputs)
    found = products.convolve_windows(around, layer["kernel"]) + layer["bias"][:, None, None, None]
    return found.reshape(*found.shape[:2], -1, found.shape[-1])


def places(size: tuple[int, int], side: int, blocks: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Where kernels read maps: first rows and columns, drawn for every `BLOCK` images.

    Args:
      size: height and width of the maps.
      side: of the kernels.
      blocks: of images, ``b``.
      each: places of an image, ``k``.

    Returns:
      Two ``(b, k)``, of places that the pooling after the kernels reads.
    """
    rng = np.random.default_rng(_PLACES)
    rows, columns = (rng.integers((length - side + 1) // 2 * 2, size=(blocks, each)) for length in size)
    return rows, columns


def patches(maps: jax.Array, side: int, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Squares of maps.

    Args:
      maps: ``(C, H, W, N)``, ``N`` images in ``b`` blocks.
      side: of a square.
      rows: the first rows ``(b, k)``, those of a block's images; see `places`.
      columns: the same of columns.

    Returns:
      ``(C, side, side, N * k)``.
    """
    blocks = maps.reshape(*maps.shape[:3], len(rows), -1).transpose(3, 0, 1, 2, 4)
    channels, images = len(maps), blocks.shape[-1]

    def cut(block: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        return lax.dynamic_slice(block, (0, row, column, 0), (channels, side, side, images))

    found = jax.vmap(jax.vmap(cut, in_axes=(None, 0, 0)))(blocks, jnp.asarray(rows), jnp.asarray(columns))
    return found.transpose(2, 3, 4, 0, 1, 5).reshape(channels, side, side, -1)
