"""Tests for studies.jain2024.protocol: the original's figures written out again, and its clusterers."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from jain2024_archive import REFERENCE, needs_reference, silent
from sklearn import cluster, metrics, svm

from kernelgan import assemble
from kernelgan.evaluate import features
from studies.jain2024 import data, populations, protocol

SETTINGS = protocol.Settings((47,), (1, 7), radii=(3.0, 30.0), minimum_samples=(3, 40), nu=0.1)
POSITIVE = np.arange(30) < 12


def _entropy(counts):
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts if n)


def _written_out(labels, positive):
    """The original's arithmetic, image by image; and the standard definitions beside it."""
    own = [label for label, yes in zip(labels, positive, strict=True) if yes]
    others = [label for label, yes in zip(labels, positive, strict=True) if not yes]
    named = max(own, key=lambda label: (own.count(label), -own.index(label)))
    true_positive = own.count(named)
    missed = len(own) - true_positive  # it calls these false positives
    wrong = others.count(named)  # and these false negatives
    total = len(labels)
    in_classes = [Counter(own), Counter(others)]
    in_clusters = [
        Counter(yes for label, yes in zip(labels, positive, strict=True) if label == one)
        for one in set(labels)
    ]
    return {
        "accuracy": (true_positive + len(others) - wrong) / total,
        "precision": true_positive / (true_positive + wrong),
        "recall": true_positive / (true_positive + missed),
        "cluster_entropy": sum(_entropy(c.values()) * c.total() / total for c in in_clusters),
        "cluster_purity": sum(max(c.values()) for c in in_clusters) / total,
        "entropy_as_printed": sum(_entropy(c.values()) * c.total() / total for c in in_classes),
        "purity_as_printed": sum(max(c.values()) for c in in_classes) / total,
    }


def test_figures_are_the_original_s_arithmetic():
    rng = np.random.default_rng(0)
    for trial in range(300):
        positive = rng.permutation(np.arange(25) < rng.integers(1, 24))
        labels = rng.integers(-1, rng.integers(0, 5), 25)
        if trial % 3 == 0:  # mostly right
            labels = np.where(rng.random(25) < 0.8, positive, labels)
        expected = _written_out(labels.tolist(), positive.tolist())
        found = dict(zip(protocol.FIGURES, protocol.judge(labels, positive), strict=True))
        assert found == pytest.approx(expected), (labels, positive)


@pytest.mark.parametrize(
    ("labels", "accuracy"),
    [
        ([2, 1, 1, 2, 2, 2], 2 / 6),  # a tie: 2 was met first; both others are in it
        ([1, 2, 2, 1, 2, 2], 4 / 6),  # the same with the lower label first
        ([-1, -1, 0, 0, 3, 3], 4 / 6),  # noise, met first
        ([-1, -1, -1, -1, -1, -1], 4 / 6),
        ([7, 7, 7, 7, -1, -1], 1),
    ],
)
def test_the_first_met_of_equally_common_labels_is_the_black_cats_noise_included(labels, accuracy):
    positive = np.array([True] * 4 + [False] * 2)
    assert protocol.judge(np.array(labels), positive)[0] == pytest.approx(accuracy)


def test_settings():
    assert SETTINGS.dbscans == ((3.0, 3), (3.0, 40), (30.0, 3), (30.0, 40))
    assert SETTINGS.shape == (1, 2 + 1 + 4, 7)
    more = dataclasses.replace(SETTINGS, seeds=(47, 0))
    assert more.shape[0] == 2
    assert more.fixed() == dataclasses.replace(SETTINGS, kmeans_seeds=(1,))


@pytest.fixture
def planes(monkeypatch):
    """``planes(points)``: UMAP gives this; the seeds that it was called with."""

    def give(points):
        calls = []
        monkeypatch.setattr(protocol, "embed", lambda features, seed: calls.append(seed) or points)
        return calls

    return give


def test_each_clusterer_is_judged_in_its_place(planes):
    rng = np.random.default_rng(0)
    points = np.float32(rng.normal(size=(30, 2)) + np.where(POSITIVE, 0, 12)[:, None])
    calls = planes(points)
    (found,) = protocol.measure(rng.random((30, 5), np.float32), POSITIVE, SETTINGS)
    assert calls == [47]
    assert found.shape == (7, len(protocol.FIGURES))
    np.testing.assert_array_equal(found[:2], [[1, 1, 1, 0, 1, 0, 1]] * 2)
    inside = svm.OneClassSVM(nu=0.1).fit(points[POSITIVE]).predict(points) > 0
    assert found[2, 0] == pytest.approx(metrics.accuracy_score(POSITIVE, inside))
    assert found[2, 2] == pytest.approx(metrics.recall_score(POSITIVE, inside))
    # Radius 3: both blobs; with 40 neighbours, which none has, all is noise. Radius 30: one cluster.
    share = POSITIVE.mean()
    assert found[3:, 0] == pytest.approx([1, share, share, share])


def test_kmeans_is_run_under_each_of_its_seeds_in_their_order(planes):
    rng = np.random.default_rng(0)
    points = np.float32(rng.random((30, 2)))  # no structure: what is found is the seed's
    calls = planes(points)
    settings = dataclasses.replace(SETTINGS, seeds=(4, 47), kmeans_seeds=(5, 0, 9, 1, 2))
    values = rng.random((30, 5), np.float32)
    found = protocol.measure(values, POSITIVE, settings)
    assert calls == [4, 47]  # one UMAP serves all K-means seeds
    for figures, seed in zip(found[0], settings.kmeans_seeds, strict=False):
        labels = cluster.KMeans(n_clusters=2, random_state=seed).fit_predict(points)
        np.testing.assert_array_equal(figures, protocol.judge(labels, POSITIVE))
    assert len(np.unique(found[0, :5], axis=0)) > 1
    first = protocol.measure(values, POSITIVE, settings.fixed())
    np.testing.assert_array_equal(first, found[:1, [0, *range(5, found.shape[1])]])


@pytest.mark.parametrize("value", [0.0, 2.5, np.nan, np.inf])
def test_features_that_tell_nothing_are_one_cluster(planes, value):
    calls = planes(np.zeros((30, 2)))
    values = np.full((30, 5), value, np.float32)
    if not np.isfinite(value):
        values = np.random.default_rng(0).random((30, 5), np.float32)
        values[3, 2] = value
    found = protocol.measure(values, POSITIVE, SETTINGS)
    assert calls == []
    expected = protocol.judge(np.zeros(30, int), POSITIVE)
    np.testing.assert_array_equal(found, [[expected] * 7])
    assert expected[:3] == pytest.approx([0.4, 0.4, 1])


@needs_reference
def test_the_original_s_best_network_repeats_under_umap():
    """A229, reported 0.876; another program's UMAP and K-means gave 0.888 with seed 0."""
    real = data.load(REFERENCE, silent)
    chosen = (assemble.take_members(zoo, np.array([229])) for zoo in (real.black, real.cat))
    few = dataclasses.replace(real, **dict(zip(("black", "cat"), chosen, strict=True)))
    params = populations.generate(few, "A", 1)
    ((_, _, values),) = features.population_outputs(data.NETWORK, params, real.images, chunk_size=1)
    settings = protocol.Settings((0,), (1,), (3.0,), (3,), 0.1)
    assert protocol.measure(values[0], real.positive, settings)[0, 0, 0] >= 0.85
