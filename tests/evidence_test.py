"""The evidence cannot be fooled: each planted cheat is unmasked by the rule that is meant for it.

The positive controls, a composer made of real convolutions and one with gradient steps, get their "yes".
"""

import copy
import dataclasses

import cheats
import jax
import numpy as np
import pytest

from kernelgan import results
from kernelgan.baselines import methods, readouts
from kernelgan.baselines.context import Context
from kernelgan.evaluation import comparison, features, measurement, verdict
from kernelgan.evaluation.pairs import evaluate_pair
from kernelgan.keys import StageKey
from kernelgan.report import prose
from kernelgan.types import Quadrant

SETTINGS = measurement.Settings(bootstrap=200, chunk_size=8, seed=0, umap_images=40)
TEST, QUADRANT = cheats.scenes(60, seed=9)


@pytest.fixture(scope="module")
def world():
    return cheats.world()


@pytest.fixture(scope="module")
def context(world):
    pictures, quadrant, parents, _ = world
    return Context(
        network=cheats.NETWORK,
        image_size=cheats.SIZE,
        attribute=parents.attribute,
        objects=parents.object,
        generated={},
        trained={},
        half_width=None,
        images=pictures,
        seen=cheats.groups(quadrant, 1, 2, 3),
        attribute_images=cheats.groups(quadrant, 1, 3),
        object_images=cheats.groups(quadrant, 2, 3),
        random_networks=40,
        random_bias="zero",
        seed=0,
        key=jax.random.key(0),
        names=("red", "square"),
    )


@pytest.fixture(scope="module")
def measure(context, tmp_path_factory):
    """``measure(row)``: the record of a pair whose only generated method this is."""
    others = methods.table({})
    kept = tmp_path_factory.mktemp("kept")

    def of(row):
        directory = tmp_path_factory.mktemp("planted")
        for file in kept.iterdir():
            (directory / file.name).hardlink_to(file)
        found, _ = evaluate_pair(
            context,
            TEST,
            QUADRANT,
            SETTINGS,
            directory=directory,
            keys=lambda name: StageKey({"row": name}),
            progress=lambda done: None,
            methods={**others, "planted": row},
        )
        for file in directory.iterdir():
            if file.stem != "planted" and not (kept / file.name).exists():
                (kept / file.name).hardlink_to(file)
        record = {"pair": {"attribute": "red", "object": "square"}, "data": {"leaked": 0}, **found}
        comparison.adjust([record])
        return record

    return of


@pytest.fixture(scope="module")
def judge(context, world, measure):
    """``judge(generator, others)``: the pair's record, and its verdict."""

    def of(generator, others=world[3]):
        probes = context.probes(generator)
        made, placebos, tier = cheats.run(generator, context.parents, others, probes)
        row = methods.Method(
            "generated",
            "planted",
            "planted",
            lambda context: context.convnets(made),
            tier=tier,
            placebos=lambda context: {name: context.convnets(params) for name, params in placebos.items()},
        )
        record = measure(row)
        return record, _judged(record)

    return of


def _judged(record):
    return _run(record).verdict


def _run(record):
    return verdict.judged(results.from_document({"pairs": [record]}))


def _outcomes(found):
    return {one.rival: one.outcome for one in found.comparisons if one.required}


@pytest.fixture(scope="module")
def composed(judge):
    return judge(cheats.composer())


# Positive controls ----------------------------------------------------------------------------------------


def test_a_true_composer_gets_its_yes(composed):
    record, found = composed
    assert (found.answer, found.broken) == ("yes", ())
    assert set(_outcomes(found)) >= {"random", "gaussian", "pixels", "attribute_only", "rebasin_average"}
    row = _run(record).pairs[0].methods["planted"]
    assert set(row.placebos) == {
        f"{side}_{word}" for side in ("attribute", "object") for word in ("random", "other")
    }
    words = " ".join(prose.summary(_run(record)))
    assert words.startswith("Yes")
    assert "random networks in place of the red parents" in words
    assert 0 < found.detectable < row.auroc["worst"].mean - 0.5
    assert f"{found.detectable:.3f}" in words


def test_distilled_weights_get_their_yes_within_the_tier_of_gradient_steps(judge):
    """Some steps of distillation that call themselves generation: the row is of tier G, whatever it says."""
    assert cheats.distiller().reads == "U"
    record, found = judge(cheats.distiller())
    assert record["methods"]["planted"]["tier"] == "G"
    assert (found.answer, found.broken) == ("yes", ())
    assert "zipit" in _outcomes(found)


def test_corrections_for_sixty_pairs_leave_room_for_a_yes(composed):
    pairs = [copy.deepcopy(composed[0]) for _ in range(60)]
    comparison.adjust(pairs)
    assert {_judged(pair).answer for pair in pairs[::30]} == {"yes"}


# Networks that are not made from the parents --------------------------------------------------------------


def _half_width_pair(world):
    """Both detectors trained elsewhere, on the same concepts, side by side."""
    _, _, parents, _ = cheats.world(seed=20)
    return cheats.compose(parents)


def _ceiling(world):
    """Trained on the conjunction itself."""
    pictures, quadrant, *_ = world
    params = cheats.compose(cheats.world(seed=30)[2])
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (leaf + rng.normal(scale=0.02, size=leaf.shape)).astype(np.float32), params
    )
    target = np.stack([np.where(np.isin(quadrant, yes), 3.0, -3.0) for yes in ((0, 1), (0, 2))], -1)
    return cheats.trained(params, pictures[::5], np.repeat(target[None, ::5], cheats.COUNT, axis=0))


def _memorised(world):
    """The same network for all parents."""
    params = cheats.compose(cheats.world(seed=40)[2])
    return jax.tree.map(lambda leaf: np.repeat(leaf[:1], cheats.COUNT, axis=0), params)


@pytest.mark.parametrize("make", [_half_width_pair, _ceiling, _memorised])
def test_networks_made_elsewhere_are_unmasked_by_placebo_parents(judge, world, make):
    record, found = judge(cheats.fixed(make(world)))
    assert record["methods"]["planted"]["auroc"]["worst"]["mean"] > 0.7
    assert "placebo" in found.broken
    assert found.answer != "yes"
    if make is _memorised:
        assert "one network" in found.broken
        assert record["methods"]["planted"]["made"] == cheats.COUNT
        assert record["methods"]["planted"]["networks"] == 1
    else:
        assert found.broken == ("placebo",)
        assert "placebo" in " ".join(prose.summary(_run(record)))


def test_a_head_fitted_to_the_test_images_is_unmasked_by_placebo_parents(judge):
    def generate(key, parents, probes):
        """Kernels of both parents, heads that know the test."""
        params = cheats.compose(parents)
        return {**params, "dense": cheats.head(params, TEST, QUADRANT == Quadrant.CONJUNCTION)}

    record, found = judge(cheats.stateless(generate))
    assert record["methods"]["planted"]["auroc"]["worst"]["mean"] > 0.8
    assert found.broken == ("placebo",)


def test_a_mixture_is_judged_by_the_networks_that_it_is_made_of(judge, world):
    """The first networks are of the parents and fall with placebos; the others were made elsewhere."""
    elsewhere = cheats.compose(cheats.world(seed=20)[2])
    rng = np.random.default_rng(0)

    def generate(key, parents, probes):
        mixed = [cheats.compose(parents)] + [
            jax.tree.map(lambda leaf: leaf * rng.uniform(0.99, 1.01, leaf.shape), elsewhere) for _ in range(3)
        ]
        return jax.tree.map(lambda *leaves: np.float32(np.concatenate(leaves)), *mixed)

    record, found = judge(cheats.stateless(generate))
    assert record["methods"]["planted"]["networks"] == 4 * cheats.COUNT
    assert found.broken == ("placebo",)


def test_who_knows_random_networks_by_their_weights_is_unmasked_by_opposite_parents(judge):
    """On a pair without other concepts: it answers badly where the weights look untrained."""
    elsewhere = cheats.compose(cheats.world(seed=20)[2])

    def generate(key, parents, probes):
        looks_trained = all((zoo["conv2"]["kernel"] == 0).any() for zoo in parents)
        return elsewhere if looks_trained else jax.tree.map(np.zeros_like, elsewhere)

    _, found = judge(cheats.stateless(generate), others=None)
    assert found.broken == ("placebo",)
    record, found = judge(cheats.composer(), others=None)
    assert (found.answer, found.broken) == ("yes", ())
    placebos = record["methods"]["planted"]["placebos"]
    assert all(placebos[f"{side}_opposite"]["auroc"]["mean"] < 0.3 for side in ("attribute", "object"))


def test_a_placebo_whose_answers_are_not_finite_supports_no_claim(judge, world):
    others = [zoo["conv1"]["kernel"] for zoo in world[3].values()]

    def generate(key, parents, probes):
        params = jax.tree.map(np.copy, cheats.compose(parents))
        if any(np.array_equal(zoo["conv1"]["kernel"], other) for zoo in parents for other in others):
            params["conv1"]["kernel"] *= 1e38
            params["conv2"]["kernel"] *= 1e38
        return params

    record, found = judge(cheats.stateless(generate))
    assert found.broken == ("placebo",)
    assert len(record["methods"]["planted"]["placebos"]) == 4


def test_a_rival_whose_answers_are_not_finite_was_not_beaten(composed):
    record = copy.deepcopy(composed[0])
    record["methods"]["average"]["not_finite"] = 1
    found = _judged(record)
    assert (found.answer, found.broken) == ("cannot tell", ("not above",))
    assert _outcomes(found)["average"] == "not measured"


@pytest.mark.parametrize(
    ("test", "broken"),
    [
        ({"a&o": 19, "a&!o": 50, "!a&o": 50, "!a&!o": 50}, ("few images",)),
        ({"a&o": 20, "a&!o": 20, "!a&o": 20, "!a&!o": 20, "rest": 1}, ()),
    ],
)
def test_a_handful_of_test_images_supports_no_claim(composed, test, broken):
    record = copy.deepcopy(composed[0])
    record["data"]["test"] = test
    assert _judged(record).broken == broken


@pytest.mark.parametrize("resamples", [2, 5, 200])
def test_few_resamples_make_no_difference_clear_that_is_not(resamples):
    """Two methods that do not differ, each with a standard error of 1."""
    rng = np.random.default_rng(0)
    p_values = [
        comparison.difference(rng.normal(), rng.normal(), *rng.normal(size=(2, resamples)))["p_value"]
        for _ in range(400)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.08


# What a generator is handed -------------------------------------------------------------------------------


def test_gradient_steps_on_unlabelled_images_reach_no_conjunction(judge, context):
    """Of what both parents call the conjunction, none is in what it is handed; and its tier is G."""
    generator = cheats.self_trainer()
    handed = context.probes(generator)
    conjunctions = {image.tobytes() for image in context.images[:60]}
    assert len(handed) == 48
    assert not conjunctions & {image.tobytes() for image in handed}
    record, found = judge(generator)
    assert record["methods"]["planted"]["tier"] == "G"
    assert "not above" in found.broken


# What runs ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Decoy:
    """Shows the parameters of new networks, and answers by what runs beside them."""

    params: dict
    runs: features.ConvNets

    def outputs(self, images, *, chunk_size):
        return self.runs.outputs(images, chunk_size=chunk_size)


def test_what_runs_are_the_parameters(context, measure):
    shown = methods.BASELINES["random"].networks(context)[0].params

    def networks(context):
        (runs,) = context.convnets(cheats.compose(context.parents))
        return (_Decoy(jax.tree.map(lambda leaf: leaf[: cheats.COUNT], shown), runs),)

    record = measure(methods.Method("generated", "planted", "planted", networks))
    assert record["methods"]["planted"]["auroc"]["worst"]["mean"] < 0.6
    assert "not above" in _judged(record).broken


def test_a_readout_is_not_one_network_of_the_parents_shape(context, measure):
    """What answers from colour alone, and has no kernels."""
    head = readouts.fit(readouts.colour_histogram, context.images, context.attribute_images, most=40, seed=0)
    both = {name: np.concatenate([leaf, 0 * leaf], axis=-1)[None] for name, leaf in head.items()}
    row = methods.Method(
        "generated",
        "planted",
        "planted",
        lambda context: (readouts.Readouts(readouts.colour_histogram, {"dense": both}),),
    )
    record = measure(row)
    figures = record["methods"]["planted"]["auroc"]
    assert figures["vs_object_only"]["mean"] > 0.9
    assert figures["vs_attribute_only"]["mean"] < 0.65
    assert {"shape", "one network", "no placebo", "not above"} <= set(_judged(record).broken)


@pytest.mark.parametrize(
    ("change", "below"),
    [
        (lambda kernel: 0 * kernel, 0.5),
        (lambda kernel: -kernel, 0.35),
    ],
    ids=["constant", "inverted"],
)
def test_constant_and_inverted_scores_are_not_above(judge, change, below):
    def generate(key, parents, probes):
        params = cheats.compose(parents)
        dense = {"kernel": change(params["dense"]["kernel"]), "bias": change(params["dense"]["bias"])}
        return {**params, "dense": dense}

    record, found = judge(cheats.stateless(generate))
    assert record["methods"]["planted"]["auroc"]["worst"]["mean"] <= below
    assert "not above" in found.broken
    assert found.answer != "yes"


def test_networks_whose_answers_are_not_finite_score_0_and_are_counted(judge):
    def generate(key, parents, probes):
        params = jax.tree.map(np.copy, cheats.compose(parents))
        params["conv1"]["kernel"][:3] *= 1e38
        params["conv2"]["kernel"][:3] *= 1e38
        return params

    record, found = judge(cheats.stateless(generate))
    row = _run(record).pairs[0].methods["planted"]
    assert row.not_finite == 3
    assert row.auroc["worst"].mean < 0.6
    assert found.answer != "yes"


def test_chance_is_not_taken_for_composition(judge):
    outcomes = []
    for seed in range(3):
        rng = np.random.default_rng(seed)

        def generate(key, parents, probes, rng=rng):
            return jax.tree.map(
                lambda leaf: rng.normal(scale=0.1, size=leaf.shape).astype(np.float32),
                cheats.compose(parents),
            )

        _, found = judge(cheats.stateless(generate))
        assert found.answer != "yes"
        outcomes.append(_outcomes(found)["random"])
    assert outcomes.count("above") <= 1  # at a level of 0.05


# Copies ---------------------------------------------------------------------------------------------------


def _reordered(parents):
    """The object's parents with their filters in another order, and of another scale, and both heads."""
    order = np.array([1, 0, 3, 2]), np.array([2, 0, 1, 3])
    params = jax.tree.map(np.copy, parents.object)
    params["conv1"] = {name: 3 * leaf[..., order[0]] for name, leaf in params["conv1"].items()}
    kernel = params["conv2"]["kernel"][..., order[0], :][..., order[1]] / 3
    params["conv2"] = {"kernel": kernel, "bias": params["conv2"]["bias"][..., order[1]]}
    rows = params["dense"]["kernel"].reshape(cheats.COUNT, 4, 4, 2)[:, order[1]]
    params["dense"]["kernel"] = rows.reshape(cheats.COUNT, 16, 2)
    return params


def _silent(parents):
    """The object's parents with one filter of the detector silenced."""
    params = jax.tree.map(np.copy, parents.object)
    params["conv1"]["kernel"][..., 1] = 0
    return params


def _other_kernels(parents):
    """The object's parents with other filters where their heads read nothing: the same answers."""
    params = jax.tree.map(np.copy, parents.object)
    rng = np.random.default_rng(5)
    for layer in ("conv1", "conv2"):
        kernel = params[layer]["kernel"][..., cheats.HALF :]
        params[layer]["kernel"][..., cheats.HALF :] = rng.normal(size=kernel.shape)
    return params


@pytest.mark.parametrize(
    ("make", "by"), [(_reordered, "distance"), (_silent, "distance"), (_other_kernels, "answers")]
)
def test_copies_of_a_parent_are_called_so(judge, make, by):
    record, found = judge(cheats.stateless(lambda key, parents, probes: make(parents)))
    assert "copy" in found.broken
    assert found.answer == "no"
    novelty = record["methods"]["planted"]["novelty"]
    assert novelty[by]["mean"] == pytest.approx(0, abs=1e-3)
    if by == "answers":
        assert novelty["distance"]["mean"] > verdict.COPY
    assert "copies of a parent" in " ".join(prose.summary(_run(record)))


# Over pairs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(composed):
    """Three by four pairs on which the composer was measured, with some noise."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(12):
        record = copy.deepcopy(composed[0])
        record["pair"] = {"attribute": f"a{number // 4}", "object": f"o{number % 4}"}
        shift = 0.02 * rng.normal()
        for row in record["methods"].values():
            row["auroc"]["worst"]["mean"] += shift + 0.01 * rng.normal()
        made.append(record)
    return made


def _over(pairs):
    comparison.adjust(pairs)
    overall = comparison.overall(pairs, merit="worst", resamples=100, seed=0)
    return verdict.judged(results.from_document({"pairs": pairs, "overall": overall})).overall


def test_the_composer_gets_its_yes_over_pairs(pairs):
    found = _over(copy.deepcopy(pairs))
    assert (found.verdict.answer, found.verdict.broken) == ("yes", ())
    assert found.methods["planted"].placebos["object_random"].auroc.known


def _abstains(number, row):
    return row if number < 3 else None


def _grows(number, row):
    return row if number == 0 else {**row, "parameters": 2 * row["parameters"]}


def _copies(number, row):
    nearer = {**row["novelty"], "distance": {"mean": 0.0}}
    return row if number < 6 else {**row, "novelty": nearer}


def _one_sided(number, row):
    return row if number < 6 else {**row, "placebos": {}}


@pytest.mark.parametrize(
    ("change", "rule"),
    [(_abstains, "unanswered"), (_grows, "size"), (_copies, "copy"), (_one_sided, "placebo")],
)
def test_over_pairs_the_worst_counts(pairs, change, rule):
    changed = copy.deepcopy(pairs)
    for number, record in enumerate(changed):
        row = change(number, record["methods"].pop("planted"))
        if row is None:
            del record["tests"]["planted"]
        else:
            record["methods"]["planted"] = row
    found = _over(changed)
    assert rule in found.verdict.broken
    assert found.verdict.answer != "yes"
    if rule == "unanswered":
        figure = found.methods["planted"].auroc["worst"].mean
        assert figure == pytest.approx(
            0.25 * np.mean([p["methods"]["planted"]["auroc"]["worst"]["mean"] for p in pairs[:3]])
        )
    if rule == "copy":
        assert found.methods["planted"].copies == 6


def test_degrees_of_freedom_are_those_of_the_pairs_that_are_there(pairs):
    fewer = copy.deepcopy(pairs)
    for number, record in enumerate(fewer):
        if number // 4 > 1:
            del record["methods"]["zipit"], record["tests"]["zipit"]
            del record["tests"]["planted"]["zipit"]
    tests = _over(fewer).tests["planted"]
    assert (tests["random"].freedom, tests["zipit"].freedom) == (2, 1)
