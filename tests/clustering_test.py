import warnings

import numpy as np
import pytest
from sklearn import cluster as sklearn_cluster
from sklearn import metrics

from kernelgan import environment
from kernelgan.evaluation import clustering, loops

SETTINGS = {"seed": 0, "neighbours": 15, "radius": 0.5, "minimum_samples": 5, "nu": 0.1}
METHODS = ("kmeans", "dbscan", "one_class_svm")


def _blobs(seed=0, networks=3, images=80, gap=1.0):
    rng = np.random.default_rng(seed)
    quadrant = np.arange(images) % 4
    features = rng.normal(size=(networks, images, 400)) + gap * (quadrant == 0)[:, None]
    return np.maximum(features, 0).astype(np.float32), quadrant


def _from_counts(conjunction, others):
    """Clusters and quadrants of a table of counts: images of each class in cluster 0, 1, ..."""
    clusters = np.repeat(np.tile(np.arange(len(conjunction)), 2), [*conjunction, *others])
    return clusters, np.repeat([0, 4], [sum(conjunction), sum(others)])


# Rows of the reference's report (34 black cats among 89 images): clusterer, network and domain; a confusion
# matrix (conjunction, others; a column a cluster) that gives the row; accuracy, "precision", "recall",
# entropy, purity as printed there, rounded or cut to 3 digits. The figures do not tell which further column
# of a DBSCAN row is noise.
REPORTED = [
    ("kmeans 229 A", [29, 5], [6, 49], (0.876, 0.852, 0.828, 0.537, 0.876)),
    ("kmeans 1486 A", [28, 6], [5, 50], (0.876, 0.823, 0.848, 0.528, 0.876)),
    ("kmeans 1540 B", [25, 9], [26, 29], (0.606, 0.735, 0.490, 0.935, 0.606)),
    ("one_class_svm 1311 A", [31, 3], [29, 26], (0.640, 0.911, 0.516, 0.781, 0.674)),
    ("one_class_svm 229 B", [32, 2], [51, 4], (0.404, 0.941, 0.385, 0.355, 0.932)),
    ("dbscan 229 A", [29, 5], [5, 50], (0.887, 0.852, 0.852, 0.501, 0.887)),
    ("dbscan 1486 A", [28, 0, 6], [4, 1, 50], (0.887, 0.823, 0.875, 0.568, 0.876)),
    ("dbscan 1330 A", [24, 1, 9], [4, 1, 50], (0.842, 0.705, 0.857, 0.698, 0.831)),
    ("dbscan 478 B", [20, 1, 13], [4, 16, 35], (0.797, 0.588, 0.833, 1.178, 0.617)),
]


@pytest.mark.parametrize(("conjunction", "others", "printed"), [row[1:] for row in REPORTED])
def test_as_printed_reproduces_the_reference_s_report(conjunction, others, printed):
    clusters, quadrant = _from_counts(conjunction, others)
    found = clustering.cluster_scores(clusters, quadrant)
    as_printed = found["as_printed"]
    values = [found["accuracy"], *(as_printed[key] for key in as_printed)]
    assert list(as_printed) == ["precision", "recall", "cluster_entropy", "cluster_purity"]
    np.testing.assert_allclose(values, printed, rtol=0, atol=1.05e-3)
    assert found["precision"] == as_printed["recall"]
    assert found["recall"] == as_printed["precision"]


def test_standard_figures_agree_with_sklearn():
    clusters, quadrant = _from_counts([20, 3, 11], [4, 30, 16])
    truth = quadrant == 0
    found = clustering.cluster_scores(clusters, quadrant)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, clusters == 0))
    assert found["precision"] == pytest.approx(metrics.precision_score(truth, clusters == 0))
    assert found["recall"] == pytest.approx(metrics.recall_score(truth, clusters == 0))
    table = metrics.cluster.contingency_matrix(truth, clusters)
    assert found["cluster_purity"] == pytest.approx(table.max(axis=0).sum() / truth.size)
    # H(class | cluster) = H(class) - I(class; cluster), in bits.
    class_entropy = -sum(share * np.log2(share) for share in (truth.mean(), 1 - truth.mean()))
    mutual = metrics.mutual_info_score(truth, clusters) / np.log(2)
    assert found["cluster_entropy"] == pytest.approx(class_entropy - mutual)
    cluster_entropy = -sum(share * np.log2(share) for share in table.sum(axis=0) / truth.size)
    assert found["as_printed"]["cluster_entropy"] == pytest.approx(cluster_entropy - mutual)


def test_noise_is_never_the_conjunction():
    quadrant = np.array([0, 0, 0, 1, 2])
    found = clustering.cluster_scores(np.array([-1, -1, 4, 4, 4]), quadrant)
    assert found["recall"] == pytest.approx(1 / 3)
    assert found["precision"] == pytest.approx(1 / 3)
    found = clustering.cluster_scores(np.full(5, -1), quadrant)
    assert (found["accuracy"], found["precision"], found["recall"]) == (0.4, 0, 0)


@pytest.mark.parametrize("gap", [0.3, 1.0])
def test_two_means_is_as_good_as_sklearn_s(gap):
    features, _ = _blobs(gap=gap)
    for points in (features[0], features[0, :, :2]):
        labels = clustering._two_means(points, np.random.default_rng(0))
        assert set(labels) == {0, 1}
        assert labels[0] == 0
        inertia = sum(np.sum((points[labels == k] - points[labels == k].mean(0)) ** 2) for k in (0, 1))
        model = sklearn_cluster.KMeans(2, n_init=10, random_state=0).fit(points)
        assert inertia <= model.inertia_ * 1.003
        if gap == 1.0 and points.shape[1] == 400:
            assert metrics.adjusted_rand_score(labels, model.labels_) == 1


def test_two_means_of_two_points_and_repeated_points():
    points = np.array([[0, 0], [1, 1]], np.float32)
    np.testing.assert_array_equal(clustering._two_means(points, np.random.default_rng(0)), [0, 1])
    points = np.repeat(points, [30, 1], axis=0)
    np.testing.assert_array_equal(clustering._two_means(points, np.random.default_rng(0)), [0] * 30 + [1])


def test_kmeans_many_is_that_of_each_network_and_degenerate_ones_are_one_cluster():
    features, quadrant = _blobs(networks=5, gap=0.3)
    features[1] = 3.0
    features[2, 4, 5] = np.nan
    features[3] = 0.0
    found = clustering.kmeans_many(features, quadrant, seed=7)
    for m in range(5):
        labels = np.zeros(80, int)
        if m in (0, 4):
            labels = clustering._two_means(features[m], np.random.default_rng(7))
        expected = clustering.cluster_scores(labels, quadrant)
        for key in ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity"):
            assert found[key][m] == expected[key]
        assert found["as_printed"]["recall"][m] == expected["as_printed"]["recall"]


def test_kmeans_many_does_not_depend_on_cores_or_neighbours(monkeypatch):
    features, quadrant = _blobs(networks=37, gap=0.4)
    monkeypatch.setattr(environment, "cores", lambda: 3)
    whole = clustering.kmeans_many(features, quadrant, seed=1)
    assert len(set(whole["accuracy"])) > 3
    monkeypatch.setattr(environment, "cores", lambda: 1)
    some = clustering.kmeans_many(features[13:19], quadrant, seed=1)
    for key in ("accuracy", "precision", "recall", "cluster_entropy", "cluster_purity"):
        np.testing.assert_array_equal(some[key], whole[key][13:19])


@pytest.mark.parametrize("shape", [(60, 400), (300, 2), (50, 3)])
def test_lloyd_is_sklearn_s_from_the_same_centres(shape):
    points = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    points -= points.mean(axis=0)
    for first, second in ((0, 1), (7, 30), (12, 5)):
        side = np.zeros(len(points), bool)
        gain = loops.lloyd(points, first, second, 300, side)
        model = sklearn_cluster.KMeans(2, init=points[[first, second]], n_init=1, tol=0).fit(points)
        np.testing.assert_array_equal(side, model.labels_)
        assert np.sum(points.astype(float) ** 2) - gain == pytest.approx(model.inertia_, rel=1e-5)


def test_lloyd_from_one_place_finds_one_cluster():
    points = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], np.float32)
    side = np.zeros(4, bool)
    assert loops.lloyd(points, 0, 1, 300, side) == 0
    assert not side.any()


def test_scale_does_not_matter_to_kmeans():
    features, quadrant = _blobs()
    for scale in (1e-25, 1e25):
        found = clustering.kmeans_many(features * np.float32(scale), quadrant, seed=0)
        np.testing.assert_array_equal(found["accuracy"], [1, 1, 1])


def test_cluster_embeds_and_scores_and_threads_as_one_without_a_warning():
    features, quadrant = _blobs(gap=1.5)

    def of(network):
        return clustering.cluster(features[network], quadrant, **SETTINGS)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = of(0)
        again, *_ = loops.on_all_cores(of, range(3))
    assert tuple(found.scores) == METHODS
    assert found.embedding.shape == (80, 2)
    assert found.embedding.dtype == np.float32
    np.testing.assert_array_equal(found.embedding, again.embedding)
    for method in METHODS:
        assert found.clusters[method].shape == (80,)
        np.testing.assert_array_equal(found.clusters[method], again.clusters[method])
        assert found.scores[method] == clustering.cluster_scores(
            found.clusters[method], quadrant, conjunction=1 if method == "one_class_svm" else None
        )
    for method in ("kmeans", "dbscan"):
        assert found.scores[method]["accuracy"] == 1
    assert found.scores["one_class_svm"]["recall"] >= 0.7
    assert found.scores["one_class_svm"]["precision"] == 1


def test_radius_is_in_standard_deviations():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(60, 2)).astype(np.float32)
    expected = clustering._dbscan(embedding, radius=0.4, minimum_samples=4)
    stretched = embedding * np.float32([8, 0.25])
    np.testing.assert_array_equal(clustering._dbscan(stretched, radius=0.4, minimum_samples=4), expected)
    line = np.stack([embedding[:, 0], np.zeros(60, np.float32)], axis=1)
    assert clustering._dbscan(line, radius=0.4, minimum_samples=4).max() >= 0


def test_svm_names_its_own_conjunction_even_when_most_of_it_is_outside():
    clusters, quadrant = np.array([0, 0, 1, 0]), np.array([0, 0, 0, 1])
    assert clustering.cluster_scores(clusters, quadrant, conjunction=1)["recall"] == pytest.approx(1 / 3)
    assert clustering.cluster_scores(clusters, quadrant)["recall"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "features", [np.full((8, 400), 2.5), np.full((8, 400), np.nan), np.full((8, 400), np.inf), np.eye(3, 400)]
)
def test_degenerate_features_are_one_cluster(features):
    quadrant = np.arange(len(features)) % 4
    found = clustering.cluster(features.astype(np.float32), quadrant, **SETTINGS)
    assert found.embedding is None
    assert tuple(found.scores) == METHODS
    for scores in found.scores.values():
        assert scores["recall"] == 1
        assert scores["accuracy"] == scores["precision"] == np.mean(quadrant == 0)


def test_nearly_degenerate_features_do_not_crash():
    rng = np.random.default_rng(0)
    quadrant = np.arange(40) % 4
    dead = np.zeros((40, 400), np.float32)
    dead[:5] = rng.normal(size=(5, 400))
    one_live = np.zeros((40, 400), np.float32)
    one_live[:, 0] = rng.normal(size=40)
    islands = rng.normal(size=(40, 400)).astype(np.float32) + 1e4 * (quadrant == 1)[:, None]
    huge = rng.normal(size=(40, 400)) * 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for features in (dead, one_live, islands, huge):
            found = clustering.cluster(features, quadrant, **SETTINGS)
            assert np.isfinite(found.embedding).all()
        few = clustering.cluster(rng.normal(size=(5, 400)), np.array([0, 1, 2, 3, 3]), **SETTINGS)
    assert few.embedding.shape == (5, 2)


@pytest.mark.parametrize(
    "change", [{"neighbours": 1}, {"radius": 0.0}, {"minimum_samples": 0}, {"nu": 0.0}, {"nu": 1.5}]
)
def test_settings_out_of_range(change):
    features, quadrant = _blobs()
    with pytest.raises(ValueError, match="need neighbours >= 2"):
        clustering.cluster(features[0], quadrant, **SETTINGS | change)


def test_shapes_that_disagree():
    features, quadrant = _blobs()
    with pytest.raises(ValueError, match=r"features must be \(N, F\)"):
        clustering.cluster(features, quadrant, **SETTINGS)
    with pytest.raises(ValueError, match=r"features must be \(M, N, F\)"):
        clustering.kmeans_many(features[0], quadrant, seed=0)
    with pytest.raises(ValueError, match=r"clusters must be \(N,\)"):
        clustering.cluster_scores(np.zeros(3, int), quadrant)
