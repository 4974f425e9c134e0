import copy
import dataclasses

import jax
import numpy as np
import pytest
from rows import ROWS

from kernelgan import assemble, models, refit, results, stages
from kernelgan.baselines import methods, readouts
from kernelgan.baselines.once import Once
from kernelgan.data import colour
from kernelgan.evaluation import features, scores
from kernelgan.generators import base, reduce, stateless
from kernelgan.types import UserError


@pytest.fixture(scope="module")
def context(make_context):
    """Four parents of the attribute, three of the object."""
    return make_context()


NETWORKS = {
    "random": 6,
    "gaussian": 6,
    "constant": 1,
    "random_refit": 3,
    "random_backfitted": 3,
    "pixels": 1,
    "colour_histogram": 1,
    "colour_rule_object": 3,
    "attribute_only": 4,
    "object_only": 3,
    "average": 3,
    "rebasin_average": 3,
    "concatenate": 3,
    "zipit": 3,
    "regmean": 3,
    "repair": 3,
    "concatenate_refit": 3,
    "zipit_refit": 3,
    "noise_a2b": 4,
    "noise_b2a": 3,
    "cyclegan_a2b": 4,
    "cyclegan_b2a": 3,
    "distilled": 2,
    "half_width_pair": 2,
    "and_ensemble": 3,
    "trained_on_conjunction": 2,
}


def _logits(networks, images):
    """Of a method's populations side by side, ``(M, N, K)``."""
    streams = [
        np.concatenate([logits for _, logits, _ in population.outputs(images, chunk_size=8)])
        for population in networks
    ]
    return np.concatenate(streams, axis=-1)


def test_the_table_has_the_parents_first_and_every_row_a_known_kind_and_a_label():
    assert set(ROWS) == set(NETWORKS)
    assert list(ROWS)[:2] == ["attribute_only", "object_only"]
    assert {method.kind for method in ROWS.values()} == set(results.KINDS)
    labels = [method.label.format(attribute="black", object="cat") for method in ROWS.values()]
    assert len(set(labels)) == len(ROWS)


def test_a_generator_whose_row_has_the_name_of_a_baseline_is_refused():
    with pytest.raises(UserError, match="average"):
        methods.table(methods.generated_rows("average", ("",), "W"))


def test_rows_that_are_chosen_come_with_those_that_every_comparison_needs():
    names = [name for name in ROWS if name in ("random", "attribute_only", "object_only", "zipit")]
    others = [name for name in ROWS if name not in methods.BASELINES]  # generated, and noise of their size
    assert list(methods.chosen(ROWS, ("zipit",))) == [name for name in ROWS if name in (*names, *others)]
    assert methods.chosen(ROWS, ()) == ROWS


def test_rows_of_a_family_without_labels_are_called_by_their_names():
    rows = methods.generated_rows("mine", ("", "b"), "U")
    assert list(rows) == ["mine", "mine_b"]
    assert {(row.family, row.tier, row.kind) for row in rows.values()} == {("mine", "U", "generated")}


@pytest.mark.parametrize("name", ROWS)
def test_every_method_gives_networks_that_answer_and_reads_no_image_of_the_conjunction(name, context, images):
    """Images that are in no group may change as they like."""
    changed = images.copy()
    changed[::4] = 255 - changed[::4]
    logits, again = (
        _logits(ROWS[name].networks(one), images[:8])
        for one in (context, dataclasses.replace(context, images=changed))
    )
    np.testing.assert_array_equal(logits, again)
    found, _ = features.score(logits)
    assert found.shape == (NETWORKS[name], 8)
    assert np.isfinite(found).all()


def test_a_method_that_reads_the_conjunction_would_be_noticed(context, images):
    """What the test above compares differs for a planted one."""

    def networks(one):
        shift = one.images[::4].mean() / 255 - 0.5
        head = {**one.objects["dense"], "bias": one.objects["dense"]["bias"] + [0, shift]}
        return one.convnets({**one.objects, "dense": head})

    changed = images.copy()
    changed[::4] = 255 - changed[::4]
    logits, again = (
        _logits(networks(one), images[:8]) for one in (context, dataclasses.replace(context, images=changed))
    )
    assert not np.array_equal(logits, again)


@pytest.mark.parametrize("name", ["distilled", "half_width_pair", "trained_on_conjunction"])
def test_an_opponent_that_was_not_trained_is_missing(name, context):
    untrained = dataclasses.replace(context, trained={}, half_width=None)
    assert ROWS[name].networks(untrained) is None


def test_a_constant_scores_every_image_alike(context, images):
    found, _ = features.score(_logits(ROWS["constant"].networks(context), images[:8]))
    quadrant = np.arange(8) % 4
    for figure, values in scores.auroc_by_quadrant(found, quadrant).items():
        assert values == [0.5], figure


def test_the_colour_rule_answers_exactly_where_it_labels_and_the_object_as_its_parents(context):
    shades = np.array([5, 5, 120, 250, 5, 120])[:, None, None, None]
    images = np.broadcast_to(shades, (6, 16, 16, 3)).astype(np.uint8)
    logits = _logits(ROWS["colour_rule_object"].networks(context), images)
    says_black = logits[..., 1] > logits[..., 0]
    np.testing.assert_array_equal(says_black, np.tile(colour.holds(images)["black"] == 1, (3, 1)))
    certainty = 1 / (1 + np.exp(-np.abs(logits[..., 1] - logits[..., 0])))
    assert certainty.min() > readouts.CERTAIN - 1e-6
    own = features.population_logits(context.network, context.objects, images, chunk_size=8)
    np.testing.assert_allclose(logits[..., 2:], own, atol=1e-6)


def test_the_colour_rule_is_no_row_where_no_rule_labels_the_attribute(context):
    assert ROWS["colour_rule_object"].networks(dataclasses.replace(context, ruled=False)) is None


def test_parents_are_asked_once_and_other_parents_anew(context, monkeypatch):
    asked, answers = [], refit.answers
    monkeypatch.setattr(refit, "answers", lambda *of: asked.append(of) or answers(*of))
    own, other = dataclasses.replace(context), dataclasses.replace(context, attribute=context.objects)
    for row in ("random_refit", "random_backfitted", "concatenate_refit", "zipit_refit"):
        methods.BASELINES[row].networks(own)
    assert len(asked) == 1
    methods.BASELINES["random_refit"].networks(other)
    assert len(asked) == 2


def test_random_kernels_are_fitted_to_no_more_parents_than_placebos_have(
    context, monkeypatch, assert_trees_equal
):
    monkeypatch.setattr(methods, "_FITTED_NULLS", 2)
    few = [jax.tree.map(lambda leaf: leaf[:2], zoo) for zoo in context.parents]
    few = dataclasses.replace(context, attribute=few[0], objects=few[1])
    made, expected = (methods.BASELINES["random_refit"].networks(of)[0].params for of in (context, few))
    assert_trees_equal(made, expected)
    assert len(made["dense"]["bias"]) == 2


def test_readouts_are_fitted_once_for_pairs_with_the_same_images(context, monkeypatch):
    asked, fit = [], readouts.fit
    monkeypatch.setattr(readouts, "fit", lambda *of, **how: asked.append(of) or fit(*of, **how))
    context = dataclasses.replace(context, fits=Once())
    other = dataclasses.replace(context, object_images=copy.copy(context.object_images))
    for of in (context, context, other):
        methods.BASELINES["pixels"].networks(of)
    assert len(asked) == 3


@pytest.mark.parametrize("chunk_size", [2, None])
def test_readouts_come_in_the_chunks_of_networks(context, images, chunk_size):
    rule, nets = ROWS["colour_rule_object"].networks(context)
    parts = [list(one.outputs(images[:4], chunk_size=chunk_size)) for one in (rule, nets)]
    assert [list(members) for members, *_ in parts[0]] == [list(members) for members, *_ in parts[1]]


def _random(context, **changes):
    (population,) = ROWS["random"].networks(dataclasses.replace(context, **changes))
    return population.params


def test_random_networks_are_the_keys(context, assert_trees_equal):
    first = _random(context)
    assert_trees_equal(_random(context), first)
    other = _random(context, key=jax.random.key(1))
    for layer in ("conv1", "conv2"):
        kernel = first[layer]["kernel"]
        assert (other[layer]["kernel"] != kernel).any()
        assert len(np.unique(kernel.reshape(6, -1), axis=0)) == 6


def test_random_networks_have_the_initialisers_kernels_and_the_parents_heads(context):
    found = _random(context)
    for layer, fan_in in (("conv1", 27), ("conv2", 18)):
        assert 0.9 * fan_in**-0.5 < np.abs(found[layer]["kernel"]).max() <= fan_in**-0.5
    heads = assemble.heads_for(np.arange(6), context.attribute, context.objects)
    np.testing.assert_array_equal(found["dense"]["kernel"], heads["kernel"])
    np.testing.assert_array_equal(found["dense"]["bias"], heads["bias"])


@pytest.mark.parametrize("bias", assemble.BIASES)
def test_random_networks_have_biases_if_generated_ones_have(context, bias):
    found = _random(context, random_bias=bias)
    for layer in ("conv1", "conv2"):
        assert found[layer]["bias"].any() == (bias == "parent")


def test_gaussian_parameters_have_their_zoo_s_mean_and_spread(context):
    (found,) = ROWS["gaussian"].networks(dataclasses.replace(context, random_networks=4000))
    for name in ("kernel", "bias"):
        drawn = found.params["conv1"][name]
        for zoo, start in ((context.attribute, 0), (context.objects, 1)):
            own = zoo["conv1"][name]
            spread = own.std(axis=0)
            np.testing.assert_allclose(
                drawn[start::2].mean(axis=0), own.mean(axis=0), atol=0.12 * spread.max()
            )
            np.testing.assert_allclose(drawn[start::2].std(axis=0), spread, rtol=0.1)


def test_the_and_ensemble_answers_as_both_parents(context, images):
    def logits(params):
        return features.population_logits(context.network, params, images[:6], chunk_size=8)

    both = _logits(methods.and_ensemble(context), images[:6])
    np.testing.assert_allclose(both[..., :2], logits(context.attribute)[:3], atol=1e-6)
    np.testing.assert_allclose(both[..., 2:], logits(context.objects), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"), [("attribute_only", 3674), ("average", 4476), ("and_ensemble", 7348)]
)
def test_parameters_of_one_network_of_the_references_size(context, name, parameters):
    network = models.ConvNet()
    shapes = jax.eval_shape(lambda key: models.initialise_convnet(network, 32, key), jax.random.key(0))
    zoo = jax.tree.map(lambda leaf: np.zeros((3, *leaf.shape), leaf.dtype), shapes)
    whole = dataclasses.replace(context, network=network, image_size=32, attribute=zoo, objects=zoo)
    assert methods.parameter_count(ROWS[name].networks(whole)) == parameters


@pytest.mark.parametrize("filters", [(6, 16), (4, 6), (12, 32), (5,)])
def test_two_narrow_networks_fill_the_budget_and_no_more(filters):
    def parameters(widths, outputs):
        total, inputs, side = 0, 3, 32
        for width in widths:
            total, inputs, side = total + (25 * inputs + 1) * width, width, (side - 4) // 2
        return total + (inputs * side**2 + 1) * outputs

    narrow, budget = stages.budget_filters(models.ConvNet(filters), 32), parameters(filters, 4)
    assert 0.8 * budget < 2 * parameters(narrow, 2) <= budget
    wider = [width + 1 for width in narrow]
    assert 2 * parameters(wider, 2) > budget


def test_probes_are_equally_many_of_each_seen_quadrant_in_random_order_and_a_copy(context):
    generator = stateless(lambda key, parents, probes: {}, reads="U", images=30)
    handed = context.probes(generator)
    assert handed.shape == (30, 16, 16, 3)
    places = [np.flatnonzero((context.images == image).all(axis=(1, 2, 3)))[0] for image in handed]
    quadrant = np.array(places) % 4  # see `make_context`
    np.testing.assert_array_equal(np.bincount(quadrant, minlength=4), [0, 10, 10, 10])
    assert len(set(places)) == 30
    assert (np.diff(quadrant) != 0).sum() > 4  # in groups there are two changes
    handed[:] = 0
    assert context.images.any()
    assert context.probes(stateless(lambda key, parents, probes: {})) is None


def test_heads_of_rivals_are_fitted_on_as_many_images_as_reduce_is_handed():
    assert reduce.probes_of(reduce.Config()) == base.IMAGES
