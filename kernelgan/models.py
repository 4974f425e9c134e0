"""The three networks: a small image classifier, and the kernel-space generator and discriminator.

Architectures and initialisers are the reference's (Jain, "mlusingml", 2024, PyTorch), whose default
initialiser is uniform in +-1/sqrt(fan_in) for kernels and biases alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernelgan.ops import cpu, products
from kernelgan.types import Array, Key, Params

Initialiser = Callable[..., jax.Array]

FORMS = ("auto", "tiles", "direct", "plain")
"""How a convolution is computed: as a product of tiles (see `products.convolve_and_pool`), by
`kernelgan.ops.cpu` (CPUs only), or with XLA's convolution and ``reduce_window``, the textbook form; "auto" is
the fastest on the device at hand, see `form_here`."""


def form_here(form: str) -> str:
    """What "auto" stands for on JAX's default device; any other form is itself."""
    if form != "auto":
        return form
    return "direct" if jax.default_backend() == "cpu" and cpu.is_available() else "tiles"


def arithmetic(form: str) -> str:
    """How results are computed, in words; another way rounds otherwise, and training amplifies that."""
    found = form_here(form)
    flags = xla_flags()
    told = f", XLA_FLAGS={flags}" if flags else ""
    if found != "direct":
        return f"{found} on {jax.default_backend()}{told}"
    from kernelgan.ops.cpu.microkernels import WIDTH

    return f"direct, vectors of {WIDTH}{told}"


def xla_flags() -> str:
    """The flags in ``XLA_FLAGS`` that may change figures, in order: all but device counts and dumps."""
    harmless = ("--xla_force_host_platform_device_count", "--xla_dump")
    given = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(sorted(flag for flag in given if not flag.startswith(harmless)))


def uniform_fan_in(fan_in: int) -> Initialiser:
    """Uniform in +-1/sqrt(fan_in), PyTorch's default for convolutions and dense layers."""
    bound = 1.0 / math.sqrt(fan_in)

    def initialise(key: Key, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialise


def normalise_images(images: Array) -> jax.Array:
    """Uint8 images to float32 in [-1, 1], as the reference: x / 255, then (x - 0.5) / 0.5."""
    return (jnp.asarray(images, jnp.float32) / 255.0 - 0.5) / 0.5


class ConvPool(nn.Module):
    """Convolution (valid), ReLU and 2 x 2 max-pooling.

    Bias and ReLU commute with max-pooling, so pooling comes first: a quarter of the elementwise work.

    Attributes:
      filters: output channels ``O``.
      kernel_size: pixels a side.
      form: one of `FORMS`.
      first: whether its images are given, so that nothing asks for their gradient.
    """

    filters: int
    kernel_size: int = 5
    form: str = "auto"
    first: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """``(I, H, W, B)`` to ``(O, (H - k + 1) // 2, (W - k + 1) // 2, B)``; if direct, blocks of that."""
        size, inputs = self.kernel_size, images.shape[-4]
        initialise = uniform_fan_in(size * size * inputs)
        kernel = self.param("kernel", initialise, (size, size, inputs, self.filters))
        bias = self.param("bias", initialise, (self.filters,))
        form = form_here(self.form)
        if form == "direct":
            from kernelgan.ops.cpu import operation  # numba takes a second to import

            return operation.convolve_pool_relu(images, kernel, bias, self.first)
        if form == "plain":
            convolved = lax.conv_general_dilated(
                images,
                kernel,
                (1, 1),
                "VALID",
                dimension_numbers=("CHWN", "HWIO", "CHWN"),
                precision=products.PRECISION,
            )
            activated = nn.relu(convolved + bias[:, None, None, None])
            window = (1, 2, 2, 1)
            return lax.reduce_window(activated, -jnp.inf, lax.max, window, window, "VALID")
        return nn.relu(products.convolve_and_pool(images, kernel) + bias[:, None, None, None])


class Dense(nn.Module):
    """A dense layer with PyTorch's initialiser for kernel and bias."""

    outputs: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """``(B, F)`` to ``(B, outputs)``."""
        initialise = uniform_fan_in(features.shape[-1])
        kernel = self.param("kernel", initialise, (features.shape[-1], self.outputs))
        bias = self.param("bias", initialise, (self.outputs,))
        return jnp.matmul(features, kernel, precision=products.PRECISION) + bias


class ConvNet(nn.Module):
    """The member of a zoo: two convolutions with pooling, 400 features, a dense head.

    Attributes:
      filters: output channels of each convolution.
      kernel_size: pixels a side.
      outputs: 2 for one concept (the second logit says that it holds), 4 for two concepts' heads
        side by side (attribute, then object).
      form: one of `FORMS`.
    """

    filters: tuple[int, ...] = (6, 16)
    kernel_size: int = 5
    outputs: int = 2
    form: str = "auto"

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits and features of a batch.

        Args:
          images: float32 ``(B, H, W, C)`` in [-1, 1].

        Returns:
          Logits ``(B, outputs)``, and features ``(B, F)`` flattened in the reference's CHW order.
        """
        return self.answer(self.lay_out(images), len(images))

    def lay_out(self, images: jax.Array) -> jax.Array:
        """Images as the layers take them, the same for every network: batch-minor, or if direct in blocks."""
        if form_here(self.form) == "direct":
            from kernelgan.ops.cpu import operation

            return operation.to_blocks(images)
        return images.transpose(3, 1, 2, 0)

    @nn.compact
    def answer(self, hidden: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        """The same as a call, of ``count`` images that are laid out already."""
        form = form_here(self.form)
        for layer, filters in enumerate(self.filters, start=1):
            hidden = ConvPool(filters, self.kernel_size, form, layer == 1, name=f"conv{layer}")(hidden)
        if form == "direct":
            from kernelgan.ops.cpu import operation

            features = operation.from_blocks(hidden, count)
        else:
            features = hidden.reshape(-1, hidden.shape[-1]).T
        return Dense(self.outputs, name="dense")(features), features


def bytes_on_the_way(network: ConvNet, image_size: int) -> int:
    """Device memory that one image takes on its way through a network, in the tiles form."""
    size, inputs, floats = image_size, 3, 3 * image_size**2
    for filters in network.filters:
        floats += products.floats_on_the_way(size, inputs, network.kernel_size, filters)
        size, inputs = (size - network.kernel_size + 1) // 2, filters
    return 4 * floats


def layer_names(filters: Sequence[int]) -> tuple[str, ...]:
    """Names of the convolutional layers, the first nearest the image."""
    return tuple(f"conv{layer}" for layer in range(1, len(filters) + 1))


class Zoo(NamedTuple):
    """A population of networks, trained here or read from a file.

    Attributes:
      params: stacked parameters, a leading ``M``; kernels ``HWIO``, dense rows in CHW order.
      network: the module that runs them.
      history: metrics ``(M, E)`` of their training, see `population.train`; of a file none.
    """

    params: Params
    network: ConvNet
    history: Mapping[str, np.ndarray] = {}

    def __repr__(self) -> str:
        """What it is, not the thousands of numbers in it."""
        count = len(self.params["dense"]["bias"])
        form = f"filters={self.network.filters}, kernel_size={self.network.kernel_size}"
        return f"Zoo({count} networks of {form}, outputs={self.network.outputs})"


def params_of(zoo: Any) -> Any:  # noqa: ANN401
    """The parameters of what `kernelgan.train_zoo` or `kernelgan.load_zoo` gives; others as they are."""
    return getattr(zoo, "params", zoo)


def network_of(params: Params) -> ConvNet:
    """The module of stacked parameters ``(M, ...)``, read off their shapes."""
    filters: list[int] = []
    while (name := f"conv{len(filters) + 1}") in params:
        filters.append(int(params[name]["kernel"].shape[-1]))
    size, outputs = params["conv1"]["kernel"].shape[-3], params["dense"]["bias"].shape[-1]
    return ConvNet(tuple(filters), int(size), int(outputs))


def image_size_of(params: Params) -> int:
    """The smallest image side that stacked networks take, read off the shapes."""
    network = network_of(params)
    size = round((params["dense"]["kernel"].shape[-2] / network.filters[-1]) ** 0.5)
    for _ in network.filters:
        size = 2 * size + network.kernel_size - 1
    return size


def last_side(network: ConvNet, image_size: int) -> int:
    """Pixels a side of the last layer's maps; below 1 where nothing is left of an image."""
    for _ in network.filters:
        image_size = (image_size - network.kernel_size + 1) // 2
    return image_size


def run_convnet(network: ConvNet, params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits ``(B, outputs)`` and features ``(B, F)`` of float32 images ``(B, H, W, C)``."""
    return cast("tuple[jax.Array, jax.Array]", network.apply({"params": params}, images))


def answer_convnet(
    network: ConvNet, params: Params, laid_out: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """`run_convnet` of ``count`` images that `ConvNet.lay_out` has laid out."""
    answered = network.apply({"params": params}, laid_out, count, method="answer")
    return cast("tuple[jax.Array, jax.Array]", answered)


def initialise_convnet(network: ConvNet, image_size: int, key: Key) -> Params:
    """Parameters of one network for images of ``image_size`` pixels a side."""
    return network.init(key, jnp.zeros((1, image_size, image_size, 3)))["params"]


class VolumeConv(nn.Module):
    """A 3 x 3 x 3 convolution over a kernel set's (filter, height, width), with PyTorch's initialiser."""

    channels: int

    @nn.compact
    def weights(self, inputs: int) -> tuple[jax.Array, jax.Array]:
        """Kernel ``(3, 3, 3, inputs, channels)`` and bias ``(channels,)``."""
        initialise = uniform_fan_in(27 * inputs)
        kernel = self.param("kernel", initialise, (3, 3, 3, inputs, self.channels))
        return kernel, self.param("bias", initialise, (self.channels,))

    def __call__(self, volumes: jax.Array, form: str) -> jax.Array:
        """``(C, O, H, W, B)`` to ``(channels, O, H, W, B)``, batch-minor; ``form`` is not "direct"."""
        kernel, bias = self.weights(volumes.shape[0])
        if form == "plain":
            convolved = lax.conv_general_dilated(
                volumes,
                kernel,
                (1, 1, 1),
                "SAME",
                dimension_numbers=("CDHWN", "DHWIO", "CDHWN"),
                precision=products.PRECISION,
            )
        else:
            convolved = products.convolve_volume(volumes, kernel)
        return convolved + bias[:, None, None, None, None]


def _encode_decode(
    encode: VolumeConv, decode: VolumeConv, volumes: jax.Array, slope: float, form: str
) -> jax.Array:
    """Kernel sets ``(B, O, H, W, I)`` through two convolutions with a leaky ReLU between, channels last."""
    form = form_here(form)
    if form == "direct":
        from kernelgan.ops.cpu import volume_operation

        weights = encode.weights(volumes.shape[-1]), decode.weights(encode.channels)
        found = volume_operation.encode_decode(volume_operation.to_blocks(volumes), *weights, slope)
        return volume_operation.from_blocks(found, len(volumes), decode.channels)
    hidden = encode(volumes.transpose(4, 1, 2, 3, 0), form)
    hidden = nn.leaky_relu(hidden, slope) if slope else nn.relu(hidden)
    return decode(hidden, form).transpose(4, 1, 2, 3, 0)


class KernelGenerator(nn.Module):
    """Translates kernel sets: two 3-D convolutions, ReLU between, tanh at the end.

    A kernel set is seen as a volume ``(O, H, W)`` with the layer's ``I`` input channels as channels.

    Attributes:
      hidden: channels between the convolutions.
      form: one of `FORMS`.
    """

    hidden: int = 64
    form: str = "auto"

    @nn.compact
    def __call__(self, volumes: jax.Array) -> jax.Array:
        """``(B, O, H, W, I)`` to the same shape, in (-1, 1)."""
        encode = VolumeConv(self.hidden, name="encode")
        decode = VolumeConv(volumes.shape[-1], name="decode")
        return jnp.tanh(_encode_decode(encode, decode, volumes, 0.0, self.form))


class KernelDiscriminator(nn.Module):
    """Scores each position of a kernel set as real (1) or translated (0); a patch output.

    Attributes:
      hidden: channels between the convolutions.
      form: one of `FORMS`.
    """

    hidden: int = 64
    form: str = "auto"

    @nn.compact
    def __call__(self, volumes: jax.Array) -> jax.Array:
        """``(B, O, H, W, I)`` to ``(B, O, H, W, 1)`` in (0, 1)."""
        encode, decode = VolumeConv(self.hidden, name="encode"), VolumeConv(1, name="decode")
        return nn.sigmoid(_encode_decode(encode, decode, volumes, 0.2, self.form))


def generate_volumes(hidden: int, params: Params, volumes: Array, form: str = "auto") -> jax.Array:
    """Kernel sets ``(B, O, H, W, I)`` through a generator of ``hidden`` channels."""
    return cast("jax.Array", KernelGenerator(hidden, form).apply({"params": params}, volumes))


def judge_volumes(hidden: int, params: Params, volumes: Array) -> jax.Array:
    """A discriminator's scores ``(B, O, H, W, 1)`` of kernel sets ``(B, O, H, W, I)``."""
    return cast("jax.Array", KernelDiscriminator(hidden).apply({"params": params}, volumes))
