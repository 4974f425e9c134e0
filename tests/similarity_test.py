import numpy as np
import pytest

from kernelgan import environment
from kernelgan.evaluation import similarity


def _brute_force(features, quadrant):
    """Mean cosines over all pairs of different images, ``(Q, Q)``, and within and across the conjunction."""
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    unit = np.divide(features, norm, out=np.zeros_like(features), where=norm > 0)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, np.nan)
    values = np.unique(quadrant)
    with np.errstate(invalid="ignore"):
        matrix = np.array(
            [[_nanmean(cosine[np.ix_(quadrant == a, quadrant == b)]) for b in values] for a in values]
        )
    return matrix, matrix[0, 0], _nanmean(cosine[np.ix_(quadrant == 0, quadrant != 0)])


def _nanmean(values):
    values = values[~np.isnan(values)]
    return values.mean() if values.size else np.nan


def _features(seed=0):
    rng = np.random.default_rng(seed)
    quadrant = rng.permutation(np.repeat([0, 1, 2, 3], [9, 7, 11, 5]))
    return rng.normal(size=(3, 32, 20)) + (quadrant == 0)[:, None], quadrant


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_all_pairs(dtype):
    features, quadrant = _features()
    features[1, 3:8] = 0  # dead images count as cosine 0
    found = similarity.cosine_similarity(features.astype(dtype), quadrant)
    for m in range(3):
        matrix, within, across = _brute_force(features[m], quadrant)
        np.testing.assert_allclose(found.matrix[m], matrix, atol=1e-6)
        np.testing.assert_allclose([found.within[m], found.across[m]], [within, across], atol=1e-6)
    np.testing.assert_allclose(found.margin, found.within - found.across)


def test_dead_network_is_all_zeros_and_scale_does_not_matter():
    features, quadrant = _features()
    features = features.astype(np.float32)
    expected = similarity.cosine_similarity(features, quadrant)
    for scale in (np.float32(1e-30), np.float32(1e30)):
        found = similarity.cosine_similarity(features * scale, quadrant)
        np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-6)
    found = similarity.cosine_similarity(np.zeros_like(features), quadrant)
    np.testing.assert_array_equal(found.matrix, 0)
    np.testing.assert_array_equal(found.margin, 0)


def test_neither_other_networks_nor_cores_show(monkeypatch):
    rng = np.random.default_rng(0)
    features, quadrant = rng.normal(size=(37, 32, 20)).astype(np.float32), np.arange(32) % 4
    monkeypatch.setattr(environment, "cores", lambda: 3)
    whole = similarity.cosine_similarity(features, quadrant).matrix
    monkeypatch.setattr(environment, "cores", lambda: 1)
    np.testing.assert_array_equal(
        similarity.cosine_similarity(features[13:19], quadrant).matrix, whole[13:19]
    )


def test_a_quadrant_of_one_image_has_no_own_similarity():
    features, quadrant = _features()
    quadrant = np.where(quadrant == 3, 2, quadrant)
    quadrant[np.flatnonzero(quadrant == 2)[0]] = 3
    found = similarity.cosine_similarity(features, quadrant)
    assert np.isnan(found.matrix[:, 3, 3]).all()
    assert np.isfinite(found.matrix).sum() == 3 * 15
    assert np.isfinite(found.across).all()


def test_failures():
    features, quadrant = _features()
    with pytest.raises(ValueError, match=r"features must be \(M, N, F\)"):
        similarity.cosine_similarity(features[0], quadrant)
    with pytest.raises(ValueError, match="the conjunction has one image"):
        similarity.cosine_similarity(features, (np.arange(32) > 0).astype(int))
    features[2, 0, 0] = -np.inf
    with pytest.raises(ValueError, match="features of network 2 are not finite"):
        similarity.cosine_similarity(features, quadrant)
    features[2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="features of network 2 are not finite"):
        similarity.cosine_similarity(features, quadrant)
