"""The baselines that stand beside every generator. A new one is a function and an entry in `BASELINES`.

A method makes networks from a `Context`: one or more populations, whose outputs and features are put side by
side, so that two parents with a head each answer as one network with two heads does. Network ``i`` of a
method that is made from parents is made from parents ``i``, counted round: methods are compared network by
network. (A generator may take more parents for a network.)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType

import jax
import numpy as np

from kernelgan import assemble, refit
from kernelgan.baselines import FLOOR, PARENTS, REFERENCE, YARDSTICK, merges, moments, nulls, readouts
from kernelgan.baselines.context import Context, Networks
from kernelgan.evaluation.features import ConvNets
from kernelgan.generators import backfitting, base, placebo
from kernelgan.generators.base import Generator, Parents, stateless
from kernelgan.types import Key, Params, UserError

_ALIGNING_IMAGES = 384  # seen images that features are correlated over
_FITTED_NULLS = placebo.NETWORKS  # of random kernels that are fitted to parents, the first of each zoo
_RENDERED_REFIT, _RENDERED_BACKFITTED = "random_refit_rendered", "random_backfitted_rendered"
_READOUT_IMAGES = 1000  # of each side that a readout is fitted on


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
      kind: one of `results.KINDS`.
      label: what it is, for a reader; "{attribute}" and "{object}" are filled in.
      description: how it is made, in one line.
      networks: makes them; None if what it needs is missing.
      family: of its generator; "" for a baseline.
      inputs: stages beside the zoos whose results it is made from.
      tier: what it reads: "W", "S", "U", or "G" for gradient steps; "" where that says nothing.
      placebos: of a generated row, by name the networks made from placebo parents.
    """

    kind: str
    label: str
    description: str
    networks: Callable[[Context], Networks | None]
    family: str = ""
    tier: str = ""
    inputs: tuple[str, ...] = ()
    placebos: Callable[[Context], dict[str, Networks]] | None = None


def _by(make: Callable[[Context], Generator]) -> Callable[[Context], Networks]:
    """A baseline that is a generator which learns nothing."""

    def networks(context: Context) -> Networks:
        generator = make(context)
        made = generator.generate(context.key, {}, context.parents, context.probes(generator))
        return context.convnets(made[""])

    return networks


def _merge(merge: Callable[[Params, Params], Params]) -> Callable[[Context], Networks]:
    generator = stateless(lambda key, parents, images: merge(*assemble.paired(*parents)))
    return _by(lambda context: generator)


def _random(context: Context) -> Generator:
    return nulls.random(
        context.network, context.image_size, count=context.random_networks, bias=context.random_bias
    )


def _gaussian(context: Context) -> Generator:
    return nulls.gaussian(context.network, count=context.random_networks)


def _seen_merge(merge: Callable[[Params, Params, np.ndarray], Params]) -> Callable[[Context], Networks]:
    """A merge that reads seen images."""
    generator = stateless(
        lambda key, parents, images: merge(*assemble.paired(*parents), images),
        reads="U",
        images=_ALIGNING_IMAGES,
    )
    return _by(lambda context: generator)


def _refit(
    trunks: Callable[[Context, Key, Parents, np.ndarray], Params], reads: base.Tier = "U"
) -> Callable[[Context], Networks]:
    """Networks with heads fitted to the parents' answers, as `generators.reduce` fits its own."""

    def make(context: Context) -> Generator:
        def generate(key: Key, parents: Parents, images: np.ndarray) -> Params:
            both = Parents(*assemble.paired(*parents))
            made = trunks(context, key, both, images)
            return refit.refit_heads(made, _wanted(context, generator, made, images), images)

        generator = stateless(generate, reads=reads, images=base.IMAGES)
        return generator

    return _by(make)


def _wanted(context: Context, generator: Generator, trunks: Params, images: np.ndarray) -> np.ndarray:
    """The answers of the parents of these networks, the first of each zoo."""
    return context.answers(generator, images)[: len(trunks["conv1"]["bias"])]


def _random_trunks(context: Context, key: Key, parents: Parents, images: np.ndarray) -> Params:
    del images
    count, bias = min(len(parents.attribute["dense"]["bias"]), _FITTED_NULLS), context.random_bias
    generator = nulls.random(context.network, context.image_size, count=count, bias=bias)
    return generator.generate(key, {}, parents, None)[""]


def _backfitted(reads: base.Tier) -> Callable[[Context], Networks]:
    """`_refit` of random kernels, which are then mixed with as many others, as `reduce` does."""

    def make(context: Context) -> Generator:
        def generate(key: Key, parents: Parents, images: np.ndarray) -> Params:
            both = Parents(*assemble.paired(*parents))
            drawn = key, jax.random.fold_in(key, 1)
            own, other = (_random_trunks(context, of, both, images) for of in drawn)
            wanted = _wanted(context, generator, own, images)
            refitted = refit.refit_heads(own, wanted, images)
            made = backfitting.backfit_networks(context.network, refitted, other, wanted, images)
            return jax.device_get(made)

        generator = stateless(generate, reads=reads, images=base.IMAGES)
        return generator

    return _by(make)


def _concatenated(context: Context, key: Key, parents: Parents, images: np.ndarray) -> Params:
    del context, key, images
    return merges.concatenate(*parents)


def _zipped(context: Context, key: Key, parents: Parents, images: np.ndarray) -> Params:
    del context, key
    return merges.zipit(*parents, images[:_ALIGNING_IMAGES])


def and_ensemble(context: Context) -> Networks:
    """Both parents run; the product of their probabilities."""
    return tuple(ConvNets(context.network, zoo) for zoo in assemble.paired(*context.parents))


def half_width_pair(context: Context) -> Networks | None:
    """Two narrower parents, side by side."""
    if context.half_width is None:
        return None
    network, *zoos = context.half_width
    return tuple(ConvNets(network, zoo) for zoo in zoos)


def _colour_rule_object(context: Context) -> Networks | None:
    if not context.ruled:
        return None
    count = len(context.objects["dense"]["bias"])
    return readouts.colour_rule(context.names[0], count), ConvNets(context.network, context.objects)


def _trained(name: str) -> Callable[[Context], Networks | None]:
    return lambda context: context.convnets(context.trained[name]) if name in context.trained else None


def _readout(describe: readouts.Describe) -> Callable[[Context], Networks]:
    def networks(context: Context) -> Networks:
        images = context.images
        fit = functools.partial(readouts.fit, describe, images, most=_READOUT_IMAGES, seed=context.seed)
        heads = [
            context.fits(
                (describe, id(images), id(groups)), functools.partial(fit, groups), kept=(images, groups)
            )
            for groups in (context.attribute_images, context.object_images)
        ]
        attribute, objects = (jax.tree.map(lambda leaf: leaf[None], head) for head in heads)
        return (readouts.Readouts(describe, {"dense": assemble.two_concept_head(attribute, objects)}),)

    return networks


BASELINES: dict[str, Method] = {
    FLOOR: Method(
        "null",
        "random networks",
        "kernels drawn from the initialiser, parents' heads",
        _by(_random),
        tier="W",
    ),
    "gaussian": Method(
        "null",
        "random networks with the parents' means and spreads",
        "each parameter drawn with its mean and spread over a parent's zoo, parents' heads",
        _by(_gaussian),
        tier="W",
    ),
    "constant": Method(
        "null",
        "one score for every image",
        "no network: one score for every image",
        lambda context: (readouts.constant(),),
        tier="W",
    ),
    "random_refit": Method(
        "null",
        "random kernels with heads fitted on seen images",
        "kernels drawn from the initialiser, heads fitted to the parents' answers on seen images",
        _refit(_random_trunks),
        tier="U",
    ),
    _RENDERED_REFIT: Method(
        "null",
        "random kernels with heads fitted on rendered images",
        "kernels drawn from the initialiser, heads fitted to the parents' answers on rendered images",
        _refit(_random_trunks, "S"),
        tier="S",
    ),
    "random_backfitted": Method(
        "null",
        "random kernels that are backfitted on seen images",
        "random kernels, mixed with as many others for the parents' answers on seen images as `reduce` does",
        _backfitted("U"),
        tier="U",
    ),
    _RENDERED_BACKFITTED: Method(
        "null",
        "random kernels that are backfitted on rendered images",
        "random kernels, mixed with as many others for the parents' answers on rendered images",
        _backfitted("S"),
        tier="S",
    ),
    "pixels": Method(
        "null",
        "linear classifiers of the pixels",
        "no network: linear classifiers of both concepts on the pixels",
        _readout(readouts.pixels),
    ),
    "colour_histogram": Method(
        "null",
        "linear classifiers of the colours",
        "no network: linear classifiers of both concepts on the histogram of colours",
        _readout(readouts.colour_histogram),
    ),
    PARENTS[0]: Method(
        "parent",
        "the {attribute} parents alone",
        "the attribute's networks, untranslated",
        lambda context: context.convnets(context.attribute),
    ),
    PARENTS[1]: Method(
        "parent",
        "the {object} parents alone",
        "the object's networks, untranslated",
        lambda context: context.convnets(context.objects),
    ),
    "average": Method(
        "merge",
        "the average of both parents' weights",
        "mean of both parents' weights, both heads",
        _merge(merges.average),
        tier="W",
    ),
    "rebasin_average": Method(
        "merge",
        "the average of weights after matching filters",
        "the same after matching the parents' filters by weight",
        _merge(merges.rebasin_average),
        tier="W",
    ),
    "concatenate": Method(
        "merge",
        "a network of half the filters of each parent",
        "half the filters of each parent, those of largest norm",
        _merge(merges.concatenate),
        tier="W",
    ),
    "zipit": Method(
        "merge",
        "a merge of both parents' correlated filters",
        "features of both parents that correlate are merged",
        _seen_merge(merges.zipit),
        tier="U",
    ),
    "regmean": Method(
        "merge",
        "a merge of weights by least squares",
        "weights that keep both parents' pre-activations best, by least squares",
        _seen_merge(moments.regmean),
        tier="U",
    ),
    "repair": Method(
        "merge",
        "the average after matching, its activations put right",
        "the average after matching filters, each filter's mean and spread restored",
        _seen_merge(moments.repair),
        tier="U",
    ),
    "concatenate_refit": Method(
        "merge",
        "half the filters of each parent with heads fitted on seen images",
        "half the filters of each parent, heads fitted to the parents' answers on seen images",
        _refit(_concatenated),
        tier="U",
    ),
    "zipit_refit": Method(
        "merge",
        "a merge of correlated filters with heads fitted on seen images",
        "features that correlate are merged, heads fitted to the parents' answers on seen images",
        _refit(_zipped),
        tier="U",
    ),
    "distilled": Method(
        "trained apart",
        "one network trained to imitate both parents",
        "one network trained to give both parents' logits on the seen quadrants",
        _trained("distilled"),
        tier="G",
        inputs=("distilled",),
    ),
    "half_width_pair": Method(
        "same size",
        "two narrower parents side by side",
        "two narrower parents, trained, side by side: no more parameters than one network",
        half_width_pair,
        inputs=("half_width",),
    ),
    "colour_rule_object": Method(
        "two nets",
        "the rule that labels {attribute}, and the {object} parents",
        "the rule on pixels that labels the attribute, times the object's parents",
        _colour_rule_object,
    ),
    YARDSTICK: Method(
        "two nets",
        "both parents run side by side",
        "both parents run, product of probabilities",
        and_ensemble,
    ),
    REFERENCE: Method(
        "reference",
        "networks trained on the conjunction itself",
        "the same network trained on all four quadrants",
        _trained("trained_on_conjunction"),
        inputs=("trained_on_conjunction",),
    ),
}
"""By name, in the order of every table (within a kind)."""


def generated_rows(
    family: str, keys: Iterable[str], tier: str, module: ModuleType | None = None
) -> dict[str, Method]:
    """The rows of a family's generator, and its noise controls.

    Args:
      family: its name.
      keys: of the networks that it gives.
      tier: of the generator.
      module: of the family, which may have ``LABELS`` and ``NOISE``, see `generators.cyclegan`.
    """
    labels, controls = getattr(module, "LABELS", {}), getattr(module, "NOISE", {})
    rows = {}
    for key in keys:
        row = base.row_name(family, key)
        label, description = labels.get(key, (f"networks of the generator {row}", f"the generator {row}"))
        inputs = (f"generate/{family}",)
        of_both = (*inputs, f"placebos/{family}")
        networks, placebos = _generated(row), _of_placebos(row)
        rows[row] = Method("generated", label, description, networks, family, tier, of_both, placebos)
        if key in controls:
            side, noise_row = controls[key]
            rows[noise_row] = Method(
                "merge",
                f"the {{{side}}} parents with noise",
                f"the {side}'s kernels with noise of the size of the change in {row}",
                _noise(side, row),
                tier="W",
                inputs=inputs,
            )
    return rows


def _generated(row: str) -> Callable[[Context], Networks]:
    return lambda context: context.convnets(context.generated[row])


def _of_placebos(row: str) -> Callable[[Context], dict[str, Networks]]:
    return lambda context: {
        name: context.convnets(params) for name, params in context.placebos.get(row, {}).items()
    }


def _noise(side: str, row: str) -> Callable[[Context], Networks | None]:
    def networks(context: Context) -> Networks | None:
        changed = context.generated[row]
        members = np.arange(len(changed["dense"]["bias"]))
        zoo = getattr(context.parents, side)
        parents = assemble.take_members(zoo, members % len(zoo["dense"]["bias"]))
        if any(changed[name]["kernel"].shape != parents[name]["kernel"].shape for name in context.layers):
            return None  # of another shape there is no size of a change
        seed = int(nulls.numpy_generator(context.key, 2).integers(2**31))
        return context.convnets(merges.noise(parents, changed, seed))

    return networks


def chosen(rows: Mapping[str, Method], names: Sequence[str]) -> dict[str, Method]:
    """The baselines of these names, those that every comparison needs, and other rows; without names all."""
    kept = {*names, FLOOR, *PARENTS}
    return {name: row for name, row in rows.items() if not names or name in kept or name not in BASELINES}


def table(generated: Mapping[str, Method]) -> dict[str, Method]:
    """Every row of a run, those that others are measured against first.

    The nulls of tier S are there where a generator of tier S is.

    Raises:
      UserError: a generator's row has the name of a baseline.
    """
    for row, method in generated.items():
        if row in BASELINES:
            raise UserError(
                f"the generator {method.family or row} gives the row {row}, which is a baseline's."
            )
    rows = {**BASELINES, **generated}
    if all(method.tier != "S" for method in generated.values()):
        del rows[_RENDERED_REFIT], rows[_RENDERED_BACKFITTED]
    return {name: rows[name] for name in (*PARENTS, *(name for name in rows if name not in PARENTS))}


def parameter_count(networks: Networks) -> int:
    """Parameters of ONE network of a method (of both, where two run)."""
    return sum(leaf[0].size for population in networks for leaf in jax.tree.leaves(population.params))
