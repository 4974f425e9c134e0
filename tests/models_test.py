import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from kernelgan import models


def _size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.fixture(scope="module")
def whole():
    """The network at its real size, its parameters, and images."""
    network = models.ConvNet()
    params = jax.jit(lambda key: models.initialise_convnet(network, 32, key))(jax.random.key(3))
    images = jax.random.uniform(jax.random.key(4), (4, 32, 32, 3), minval=-1.0, maxval=1.0)
    return network, params, images


def _by_hand(params, image):
    """The network on one image ``(H, W, C)``, filter by filter, in float64."""
    maps = np.asarray(image, np.float64).transpose(2, 0, 1)
    for layer in ("conv1", "conv2"):
        kernel, bias = (np.asarray(params[layer][name], np.float64) for name in ("kernel", "bias"))
        convolved = [
            sum(signal.correlate2d(plane, kernel[:, :, i, o], mode="valid") for i, plane in enumerate(maps))
            + bias[o]
            for o in range(kernel.shape[-1])
        ]
        activated = np.maximum(np.stack(convolved), 0)
        outputs, height, width = activated.shape
        maps = activated.reshape(outputs, height // 2, 2, width // 2, 2).max(axis=(2, 4))
    features = np.array([maps[c, y, x] for c in range(16) for y in range(5) for x in range(5)])
    dense = params["dense"]
    return features @ np.asarray(dense["kernel"], np.float64) + dense["bias"], features


def test_convnet_equals_a_computation_by_hand_with_features_in_chw_order(whole):
    network, params, images = whole
    logits, features = jax.jit(network.apply)({"params": params}, images)
    for image, found_logits, found_features in zip(images, logits, features, strict=True):
        expected_logits, expected_features = _by_hand(params, image)
        np.testing.assert_allclose(found_features, expected_features, atol=1e-5)
        np.testing.assert_allclose(found_logits, expected_logits, atol=1e-5)


def test_plain_convnet_has_the_same_logits_and_gradients(whole):
    network, params, images = whole
    labels = jnp.array([0, 1, 1, 0])

    def loss(params, module):
        logits, _ = module.apply({"params": params}, images)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), labels]), logits

    (_, ours), our_gradients = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(
        params, network
    )
    (_, plain), plain_gradients = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(
        params, network.clone(form="plain")
    )
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-6)
    for found, expected in zip(jax.tree.leaves(our_gradients), jax.tree.leaves(plain_gradients), strict=True):
        assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(("outputs", "parameters"), [(2, 3674), (4, 4476)])
def test_convnet_has_the_references_parameters(outputs, parameters):
    network = models.ConvNet(outputs=outputs)
    shapes = jax.eval_shape(lambda key: models.initialise_convnet(network, 32, key), jax.random.key(0))
    assert _size(shapes) == parameters


def test_initialiser_is_uniform_within_one_over_the_root_of_fan_in(whole):
    _, params, _ = whole
    for layer, fan_in in (("conv1", 75), ("conv2", 150), ("dense", 400)):
        bound = fan_in**-0.5
        for name in ("kernel", "bias"):
            assert np.abs(params[layer][name]).max() <= bound
        kernel = np.asarray(params[layer]["kernel"])
        assert np.abs(kernel).max() > 0.97 * bound
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.08)
        assert params[layer]["bias"].any()


def test_normalise_images_maps_bytes_to_minus_one_to_one():
    found = models.normalise_images(np.array([0, 51, 255], np.uint8))
    np.testing.assert_allclose(found, [-1.0, -0.6, 1.0], atol=1e-6)
    assert found.dtype == jnp.float32


@pytest.mark.parametrize(("inputs", "generator", "discriminator"), [(3, 10_435, 6_977), (6, 20_806, 12_161)])
def test_kernel_space_networks_have_the_references_parameters(inputs, generator, discriminator):
    volumes = jnp.zeros((1, 2, 5, 5, inputs))
    for module, expected in (
        (models.KernelGenerator(), generator),
        (models.KernelDiscriminator(), discriminator),
    ):
        shapes = jax.eval_shape(module.init, jax.random.key(0), volumes)["params"]
        assert _size(shapes) == expected


@pytest.mark.parametrize(
    ("module", "channels", "low", "high"),
    [(models.KernelGenerator(4), 3, -1, 1), (models.KernelDiscriminator(4), 1, 0, 1)],
)
def test_kernel_space_networks_keep_the_shape_and_stay_in_range(module, channels, low, high):
    volumes = 30 * jax.random.normal(jax.random.key(0), (2, 6, 5, 5, 3))
    found, _ = jax.jit(module.init_with_output)(jax.random.key(1), volumes)
    assert found.shape == (2, 6, 5, 5, channels)
    assert float(found.min()) >= low
    assert float(found.max()) <= high
    assert float(found.max() - found.min()) > 0.5 * (high - low)  # both ends are reached


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_kernel_space_networks_equal_plain_flax_convolutions(kind):
    module = models.KernelGenerator(5) if kind == "generator" else models.KernelDiscriminator(5)
    volumes = jax.random.normal(jax.random.key(0), (2, 6, 4, 4, 3))
    found, variables = jax.jit(module.init_with_output)(jax.random.key(1), volumes)
    params = variables["params"]
    hidden = nn.Conv(5, (3, 3, 3)).apply({"params": params["encode"]}, volumes)
    hidden = jnp.maximum(hidden, 0) if kind == "generator" else jnp.where(hidden > 0, hidden, 0.2 * hidden)
    last = nn.Conv(3 if kind == "generator" else 1, (3, 3, 3)).apply({"params": params["decode"]}, hidden)
    expected = jnp.tanh(last) if kind == "generator" else 1 / (1 + jnp.exp(-last))
    np.testing.assert_allclose(found, expected, atol=1e-5)
