import jax
import numpy as np
import pytest

from kernelgan import models
from kernelgan.evaluation import features


def test_one_logit_pair_scores_its_difference():
    found, threshold = features.score(np.array([[[1.0, 3.5], [2.0, -1.0]]], np.float32))
    np.testing.assert_allclose(found, [[2.5, -3.0]])
    assert threshold == 0


def test_two_concepts_score_the_log_of_the_product_of_their_probabilities():
    logits = np.random.default_rng(0).normal(0, 2, (3, 5, 4)).astype(np.float32)
    attribute = np.exp(logits[..., 1]) / np.exp(logits[..., :2]).sum(axis=-1)
    objects = np.exp(logits[..., 3]) / np.exp(logits[..., 2:]).sum(axis=-1)
    found, threshold = features.score(logits)
    np.testing.assert_allclose(found, np.log(attribute * objects), rtol=1e-4)
    assert found.dtype == np.float32
    assert np.exp(threshold) == pytest.approx(0.5)


@pytest.mark.parametrize("outputs", [2, 4])
def test_extreme_logits_give_finite_scores_in_order(outputs):
    no, yes = [1e4, -1e4] * (outputs // 2), [-1e4, 1e4] * (outputs // 2)
    with np.errstate(all="raise", under="ignore"):
        found, threshold = features.score(np.array([no, [0.0] * outputs, yes], np.float32))
    assert np.isfinite(found).all()
    assert found[0] < found[1] < found[2]
    assert found[0] < threshold < found[2]


def test_another_number_of_outputs_is_refused():
    with pytest.raises(ValueError, match="2 or 4 outputs, got 3"):
        features.score(np.zeros((1, 3)))


@pytest.fixture(scope="module")
def one_at_a_time(network, make_parents, images):
    """Parameters of five networks, and what each gives alone on 10 images."""
    params = make_parents(5)
    run = jax.jit(network.apply)
    alone = [
        run({"params": jax.tree.map(lambda leaf, m=m: leaf[m], params)}, models.normalise_images(images[:10]))
        for m in range(5)
    ]
    return params, *(np.stack(part) for part in zip(*alone, strict=True))


@pytest.mark.parametrize(("chunk_size", "at_once"), [(1, 4), (2, 4), (5, 5), (64, 128)])
def test_each_network_comes_once_and_as_if_alone(
    one_at_a_time, network, images, monkeypatch, chunk_size, at_once
):
    monkeypatch.setattr(features, "IMAGES_AT_ONCE", at_once)
    params, logits, found = one_at_a_time
    parts = list(features.population_outputs(network, params, images[:10], chunk_size=chunk_size))
    np.testing.assert_array_equal(np.concatenate([members for members, _, _ in parts]), np.arange(5))
    assert all(len(members) == len(answers) <= chunk_size for members, answers, _ in parts)
    np.testing.assert_allclose(np.concatenate([answers for _, answers, _ in parts]), logits, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([values for _, _, values in parts]), found, atol=1e-5)


def test_features_are_left_out_on_request(one_at_a_time, network, images):
    params, logits, _ = one_at_a_time
    parts = features.population_outputs(network, params, images[:10], chunk_size=3, features=False)
    assert all(values is None for _, _, values in parts)
    found = features.population_logits(network, params, images[:10], chunk_size=3)
    np.testing.assert_allclose(found, logits, atol=1e-5)


def test_probabilities_cross_one_half_at_the_threshold():
    for logits in (np.array([[0.0, 0.0]], np.float32), np.log(np.array([[1.0, 3.0, 1.0, 2.0]], np.float32))):
        scores, threshold = features.score(logits)
        assert features.probability(scores, threshold) == pytest.approx(0.5)
        assert scores == pytest.approx(threshold, abs=1e-6)
