import dataclasses
import json
import threading
import time

import jax
import numpy as np
import pytest
from rows import ROWS

from kernelgan import baselines, keys, models
from kernelgan.evaluation import clustering, features, measurement, null_test, pairs, parentage, scores

SETTINGS = measurement.Settings(bootstrap=20, chunk_size=2, seed=0, umap_images=12, umap_neighbours=5)
FIGURES = {"accuracy", "precision", "recall", "cluster_entropy", "cluster_purity", "as_printed"}
QUADRANT = (np.arange(24) % 4).astype(np.int8)


@pytest.fixture(scope="module")
def pictures(images):
    return images[:24]


@pytest.fixture(scope="module")
def context(make_context, make_parents):
    return make_context(objects=4, trained={"trained_on_conjunction": make_parents(2, seed=6)})


@pytest.fixture(scope="module")
def measure(context, pictures):
    """``measure(name)``: the record and arrays of a method of the table."""

    def run(name, settings=SETTINGS, networks=None):
        method = ROWS[name]
        return measurement.evaluate_method(
            method, networks or method.networks(context), pictures, QUADRANT, settings
        )

    return run


@pytest.fixture(scope="module")
def evaluate(context, pictures):
    def run(directory, progress=lambda done: None, context=context, methods=ROWS, at_once=1):
        return pairs.evaluate_pair(
            context,
            pictures,
            QUADRANT,
            SETTINGS,
            directory=directory,
            keys=lambda name: keys.StageKey({"method": name}),
            progress=progress,
            methods=methods,
            at_once=at_once,
        )

    return run


# The images that are embedded.


@pytest.mark.parametrize(
    ("sizes", "most", "chosen"),
    [((10, 20, 30, 40), 20, (5, 5, 5, 5)), ((3, 0, 0, 0, 50), 20, (3, 0, 0, 0, 10)), ((6, 6), 12, (6, 6))],
)
def test_the_first_images_of_each_quadrant_are_embedded_in_equal_numbers(sizes, most, chosen):
    quadrant = np.repeat(np.arange(len(sizes)), sizes)
    found = measurement.embedded_images(quadrant, most)
    np.testing.assert_array_equal(np.bincount(quadrant[found]), chosen)
    firsts = np.cumsum((0, *sizes[:-1]))
    expected = [np.arange(first, first + count) for first, count in zip(firsts, chosen, strict=True)]
    np.testing.assert_array_equal(found, np.concatenate(expected))


# One method.


@pytest.fixture(scope="module")
def measured(measure):
    return measure("and_ensemble")


def test_a_record_has_the_protocols_keys(measured):
    record, _ = measured
    assert record["kind"] == "two nets"
    assert record["networks"] == 4
    assert record["parameters"] == 2 * (56 + 57 + 26)  # two convolutions and a dense layer, twice
    assert set(record["auroc"]) == {*scores.versus_present(QUADRANT), "worst", "worst_of_means"}
    assert set(record["clustering"]) == {"kmeans_raw"}
    assert set(record["clustering"]["kmeans_raw"]) == FIGURES
    assert set(record["clustering"]["kmeans_raw"]["as_printed"]) == FIGURES - {"accuracy", "as_printed"}
    assert set(record["cosine_similarity"]) == {"within", "across", "margin"}
    summaries = [
        record["balanced_accuracy"],
        record["average_precision"],
        *record["auroc"].values(),
        *record["cosine_similarity"].values(),
        record["clustering"]["kmeans_raw"]["accuracy"],
    ]
    for summary in summaries:
        low, high = summary["ci95"]
        assert low <= summary["mean"] <= high
        assert summary["networks"] == 4
    json.dumps(record, allow_nan=False)


def test_a_record_is_of_all_networks_answers(measured, context, network, pictures):
    record, arrays = measured
    logits = [
        features.population_logits(network, zoo, pictures, chunk_size=4)
        for zoo in (context.attribute, context.objects)
    ]
    answers, threshold = features.score(np.concatenate(logits, axis=-1))
    np.testing.assert_allclose(arrays["scores"], answers, atol=1e-5)
    assert arrays["threshold"] == pytest.approx(threshold)
    by_quadrant = scores.auroc_by_quadrant(arrays["scores"], QUADRANT)
    np.testing.assert_allclose(arrays["worst"], by_quadrant["worst"])
    for key, values in by_quadrant.items():
        assert record["auroc"][key]["mean"] == pytest.approx(values.mean())
    answered = scores.zero_shot(arrays["scores"], QUADRANT, threshold=threshold)
    assert record["balanced_accuracy"]["mean"] == pytest.approx(answered["balanced_accuracy"].mean())


def test_features_of_both_networks_are_clustered_side_by_side(measured, context, network, pictures):
    record, arrays = measured
    streams = [
        np.concatenate(
            [found for *_, found in features.population_outputs(network, zoo, pictures, chunk_size=4)]
        )
        for zoo in (context.attribute, context.objects)
    ]
    few = measurement.embedded_images(QUADRANT, SETTINGS.umap_images)
    both = np.concatenate(streams, axis=-1)[:, few]
    found = clustering.kmeans_many(both, QUADRANT[few], seed=SETTINGS.seed)
    mean = record["clustering"]["kmeans_raw"]["accuracy"]["mean"]
    assert mean == pytest.approx(found["accuracy"].mean())
    assert arrays["cosine"].shape == (4, 4)


def test_the_first_networks_are_embedded_on_the_stratified_images(
    context, network, pictures, measure, monkeypatch
):
    seen = []

    def cluster(found, quadrant, **options):
        seen.append((found, quadrant, options))
        labels = (quadrant == 0).astype(int)
        scored = clustering.cluster_scores(labels, quadrant)
        return clustering.ClusterResult(
            scores={"kmeans": scored},
            clusters={"kmeans": labels + 10 * len(seen)},
            embedding=np.full((len(found), 2), len(seen), np.float32),
        )

    monkeypatch.setattr(measurement.clustering, "cluster", cluster)
    record, arrays = measure("attribute_only", dataclasses.replace(SETTINGS, umap_networks=3))
    assert len(seen) == 3
    few = measurement.embedded_images(QUADRANT, SETTINGS.umap_images)
    parts = features.population_outputs(network, context.attribute, pictures, chunk_size=4)
    expected = np.concatenate([found for *_, found in parts])[:3, few]
    for (found, quadrant, options), own in zip(seen, expected, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-5)
        np.testing.assert_array_equal(quadrant, QUADRANT[few])
        assert options["neighbours"] == SETTINGS.umap_neighbours
    assert set(record["clustering"]) == {"kmeans_raw", "kmeans"}
    assert record["clustering"]["kmeans"]["accuracy"]["mean"] == 1
    assert record["clustering"]["kmeans"]["accuracy"]["networks"] == 3
    assert record["clustering"]["kmeans_raw"]["accuracy"]["networks"] == 4  # of all networks, all images
    assert (arrays["embedding"] == 1).all()  # the first network's
    assert set(arrays["cluster"].tolist()) == {10, 11}


def test_angles_and_clusters_are_of_the_first_networks_and_scores_of_all(measure):
    count = 3
    whole, few = (
        measure("attribute_only", dataclasses.replace(SETTINGS, clustered_networks=most))
        for most in (9, count)
    )
    for name, found in (("clustering", "kmeans_raw"), ("cosine_similarity", "margin")):
        records = [one[0][name][found] for one in (whole, few)]
        counts = [one.get("accuracy", one)["networks"] for one in records]
        assert counts == [4, count]
    assert few[0]["auroc"] == whole[0]["auroc"]
    np.testing.assert_array_equal(few[1]["scores"], whole[1]["scores"])


# Between methods.


def _record(mean):
    return {"auroc": {"worst": {"mean": mean}}}


@pytest.mark.parametrize(("random", "floor"), [(0.6, 0.6), (0.5, 0.5), (0.4, 0.5)])
def test_recovered_is_nothing_for_the_better_of_random_and_chance_and_all_for_the_reference(random, floor):
    means = {"random": random, "constant": 0.5, "x": 0.7, "trained_on_conjunction": 0.9}
    found = measurement.recovered({name: _record(mean) for name, mean in means.items()})
    for name, mean in means.items():
        assert found[name]["mean"] == pytest.approx((mean - floor) / (0.9 - floor))


@pytest.mark.parametrize(
    "records",
    [
        {"random": _record(0.5), "x": _record(0.6)},
        {"x": _record(0.6), "trained_on_conjunction": _record(0.9)},
        {"random": _record(0.5), "trained_on_conjunction": _record(0.5)},
        {"random": _record(0.4), "trained_on_conjunction": _record(0.45)},  # below chance
        {"random": _record(0.4), "trained_on_conjunction": _record(0.54)},  # hardly any way
    ],
)
def test_recovered_is_unknown_without_a_way_from_random_to_the_reference(records):
    assert measurement.recovered(records) == dict.fromkeys(records)


GENERATED = ["cyclegan_a2b", "cyclegan_b2a"]


def _worst(a2b=0.0, b2a=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "random": rng.normal(0.5, 0.05, 200),
        "cyclegan_a2b": rng.normal(0.5 + a2b, 0.05, 10),
        "cyclegan_b2a": rng.normal(0.5 + b2a, 0.05, 10),
        "average": np.ones(10),  # no generation, so of no account
    }


def test_better_networks_are_told_from_the_null():
    found = null_test.matched(_worst(b2a=0.2), GENERATED, seed=0)
    assert found["method"] == "cyclegan_b2a"
    assert found["statistic"] == "auroc.worst"
    assert found["candidates"] == 2
    assert found["observed"] == pytest.approx(0.7, abs=0.05)
    assert found["p_value"] < 0.005
    assert found["p_value"] == 2 * found["by_method"]["cyclegan_b2a"]["mean_p_value"]
    assert found["by_method"]["cyclegan_a2b"]["mean_p_value"] > 0.01
    assert found["best_network"]["candidates"] == 20
    assert found["best_network"]["p_value"] < 0.2


def test_worse_networks_are_no_finding():
    found = null_test.matched(_worst(a2b=-0.2, b2a=-0.2), GENERATED, seed=0)
    assert found["p_value"] == 1  # doubled, and no more than 1


@pytest.mark.parametrize("missing", ["random", "cyclegan"])
def test_there_is_no_null_test_without_both_sides(missing):
    worst = {name: values for name, values in _worst().items() if not name.startswith(missing)}
    assert null_test.matched(worst, GENERATED, seed=0) is None


def test_a_copy_of_a_parent_is_not_new(context, measure):
    rivals = [measure(name)[1] for name in baselines.PARENTS]
    parents = parentage.parentage((context.attribute, context.objects), rivals, QUADRANT)
    copy, distances = parentage.novelty(
        context.convnets(context.objects), parents, rivals[1], QUADRANT, SETTINGS
    )
    assert copy["distance"]["mean"] == pytest.approx(0, abs=1e-3)
    assert copy["error_overlap"]["mean"] == copy["error_overlap_nearest"]["mean"] == 1
    fellows = []
    for zoo in np.split(parents.wrong, 2):  # what two parents share that were trained apart
        for number, errors in enumerate(zoo):
            both = [
                (errors & other).sum() / (errors | other).sum() for other in np.delete(zoo, number, axis=0)
            ]
            fellows.append(max(both))
    assert copy["error_overlap_parents"]["mean"] == pytest.approx(np.median(fellows))
    assert distances.shape == (4,)
    turned = context.convnets(jax.tree.map(lambda leaf: -leaf, context.objects))
    fresh, _ = parentage.novelty(turned, parents, rivals[1], QUADRANT, SETTINGS)
    assert fresh["distance"]["mean"] > 0.5


# One pair.


@pytest.fixture(scope="module")
def pair(evaluate, tmp_path_factory):
    directory, seen = tmp_path_factory.mktemp("pair"), []
    return directory, evaluate(directory, seen.append), seen


def test_a_pair_has_a_record_of_every_method_that_could_be_made(pair):
    _, (record, arrays), seen = pair
    records = record["methods"]
    assert set(records) == set(ROWS) - {"distilled"}
    assert seen == list(range(1, len(ROWS) + 1))
    assert all("recovered" in one for one in records.values())
    of_one_shape = {*records} - {"constant", "pixels", "colour_histogram", "colour_rule_object"}
    with_novelty = of_one_shape - {*baselines.PARENTS, "half_width_pair", "and_ensemble"}
    assert {name for name, one in records.items() if "novelty" in one} == with_novelty
    one_head = {"constant", "attribute_only", "object_only", "trained_on_conjunction"}
    assert {name for name, one in records.items() if "worst_calibrated" not in one["auroc"]} == one_head
    for one in records.values():
        means = [one["auroc"][key]["mean"] for key in scores.versus_present(QUADRANT)]
        assert one["auroc"]["worst_of_means"]["mean"] == pytest.approx(min(means))
        assert one["auroc"]["worst"]["mean"] <= min(means) + 1e-12
    constant = records["constant"]
    assert [one["mean"] for one in constant["auroc"].values()] == [0.5] * 5
    assert not {"clustering", "cosine_similarity", "novelty"} & constant.keys()  # it has no features
    assert set(record["binding"]["quadrants"]) == {"and_ensemble", "trained_on_conjunction"}
    assert record["null_test"]["statistic"] == "auroc.worst"
    np.testing.assert_array_equal(np.unique(arrays["test_quadrant"]), np.arange(4))
    assert all(f"worst/{name}" in arrays for name in records)
    assert all(arrays[f"replicates/{name}"].shape == (SETTINGS.bootstrap,) for name in records)


def test_a_pair_s_tests_are_of_its_means(pair):
    _, (record, arrays), _ = pair
    tests = record["tests"]
    assert all(set(tests[name]) == set(record["methods"]) - {name} for name in GENERATED)
    assert set(tests["average"]) == {"and_ensemble"}
    for rival, test in tests["cyclegan_a2b"].items():
        means = [arrays[f"worst/{name}"].mean() for name in ("cyclegan_a2b", rival)]
        assert test["difference"]["mean"] == pytest.approx(means[0] - means[1])


def test_methods_measured_at_the_same_time_are_measured_as_one_after_another(evaluate, tmp_path):
    names = (baselines.YARDSTICK, "average", "random", "object_only", "pixels", "attribute_only")
    rows, seen = {name: ROWS[name] for name in names}, []
    together = evaluate(tmp_path / "together", seen.append, methods=rows, at_once=3)
    alone = evaluate(tmp_path / "alone", methods=rows)
    assert seen == list(range(1, len(names) + 1))
    assert list(together[0]["methods"]) == list(names)
    assert json.dumps(together[0]) == json.dumps(alone[0])
    assert "novelty" in together[0]["methods"]["average"]  # though the parents come last
    jax.tree.map(np.testing.assert_array_equal, together[1], alone[1])


def test_an_error_in_one_method_begins_no_other(evaluate, tmp_path):
    """The methods before it are still at work."""
    begun, failed = [], threading.Event()

    def slow(context):
        begun.append("slow")
        failed.wait(5)
        return ROWS["average"].networks(context)

    def bad(context):
        failed.set()
        raise ValueError("of this method")

    makes = {"slow": slow, "bad": bad, **dict.fromkeys("abcdef", lambda context: begun.append("other"))}
    rows = {name: ROWS[name] for name in baselines.PARENTS}
    rows |= {name: dataclasses.replace(ROWS["average"], networks=make) for name, make in makes.items()}
    with pytest.raises(ValueError, match="of this method"):
        evaluate(tmp_path, methods=rows, at_once=2)
    assert begun == ["slow"]


def test_pairs_come_in_order_and_progress_counts_all(context):
    seen, several = [], {"x": ROWS["random"], "y": ROWS["gaussian"]}

    def work(pair, progress):
        for done in (1, 2):
            progress(done)
        return pair.upper()

    found = pairs.evaluate_pairs(
        work, "abc", progress=lambda done, total: seen.append((done, total)), methods=several
    )
    assert found == ["A", "B", "C"]
    assert seen == [(done, 6) for done in range(1, 7)]


def test_an_error_in_one_pair_stops_the_others():
    started, failed = threading.Event(), threading.Event()

    def work(pair, progress):
        if pair == "bad":
            started.wait(2)
            raise ValueError("of this pair")
        started.set()
        for done in range(100_000):
            progress(done)
            time.sleep(0.001)
        failed.set()

    given = ["bad", *["good"] * 50]
    with pytest.raises(ValueError, match="of this pair"):
        pairs.evaluate_pairs(work, given, progress=lambda done, total: None, methods={})
    assert not failed.is_set()


def test_a_repeated_evaluation_reads_what_was_measured(pair, evaluate, monkeypatch):
    directory, (record, arrays), _ = pair

    def never(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(measurement, "evaluate_method", never)
    again = evaluate(directory)
    assert again[0] == record
    for name, values in arrays.items():
        np.testing.assert_array_equal(again[1][name], values)


def test_networks_of_another_depth_have_a_novelty(evaluate, make_context, tmp_path):
    module = models.ConvNet(filters=(3, 4, 5), kernel_size=2)
    keys_of = jax.random.split(jax.random.key(7), 8)
    initialise = jax.jit(jax.vmap(lambda key: models.initialise_convnet(module, 16, key)))
    every = jax.device_get(initialise(keys_of))
    zoos = [jax.tree.map(lambda leaf, part=part: leaf[part], every) for part in (slice(4), slice(4, 8))]
    deep = make_context(network=module, half_width=None)
    deep = dataclasses.replace(deep, attribute=zoos[0], objects=zoos[1], generated={}, trained={})
    rows = {name: ROWS[name] for name in (*baselines.PARENTS, "random", "average")}
    of_pair, _ = evaluate(tmp_path, context=deep, methods=rows)
    found = {name: record["novelty"] for name, record in of_pair["methods"].items() if "novelty" in record}
    assert found.keys() == {"random", "average"}
    assert 0.5 < found["random"]["distance"]["mean"] < 1.5
