"""Tests for studies.jain2024.protocol: the original's clusterers and its naming of clusters."""

import dataclasses

import numpy as np
import pytest
from jain2024_archive import REFERENCE, needs_reference, silent
from sklearn import metrics, svm

from kernelgan import assemble
from kernelgan.evaluation import features
from studies.jain2024 import data, populations, protocol

SETTINGS = protocol.Settings((47,), (1, 7), radii=(3.0, 30.0), minimum_samples=(3, 40), nu=0.1)
POSITIVE = np.arange(30) < 12


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
def test_the_original_s_best_network_comes_near_its_figure_under_umap():
    """A229, reported 0.876; another program's UMAP and K-means gave 0.888 with seed 0.

    UMAP's figure depends on the seed and, for one seed, on the processor:
    0.79 to 0.89 over twenty, median 0.876.
    """
    real = data.load(REFERENCE, silent)
    chosen = (assemble.take_members(zoo, np.array([229])) for zoo in (real.black, real.cat))
    few = dataclasses.replace(real, **dict(zip(("black", "cat"), chosen, strict=True)))
    params = populations.generate(few, "A", 1)
    ((_, _, values),) = features.population_outputs(data.NETWORK, params, real.images, chunk_size=1)
    settings = protocol.Settings((0, 1, 2), (1,), (3.0,), (3,), 0.1)
    assert np.median(protocol.measure(values[0], real.positive, settings)[:, 0, 0]) >= 0.8
