"""What the engine is compared with: PyTorch, one model at a time, and its own way of mapping over models.

PyTorch is optional, and imported only where it is asked for. Float32 products stay float32 on a GPU here, as
they do in the engine: cuDNN would run convolutions in TF32 by default.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import jax
import numpy as np

from benchmarks.check import Snapshot
from kernelgan import interop
from kernelgan.types import Params


def missing() -> str:
    """Why there is no PyTorch for this process's device; empty if there is."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    if jax.default_backend() != "cpu" and not _torch().cuda.is_available():
        return "this PyTorch finds no GPU"
    return ""


@functools.cache
def _torch() -> Any:  # noqa: ANN401  (a module that need not be there)
    torch = importlib.import_module("torch")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return torch


def use_threads(threads: int) -> None:
    """How many threads PyTorch computes with, on CPUs."""
    _torch().set_num_threads(threads)


def _device() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def _wait() -> None:
    if _device() == "cuda":
        _torch().cuda.synchronize()


def _tensor(array: Any) -> Any:  # noqa: ANN401
    return _torch().from_numpy(np.array(array)).to(_device())


def _members(params: Params) -> list[dict[str, np.ndarray]]:
    """Stacked parameters as one state dict for each member."""
    arrays = interop.to_torch(params)
    return [{name: array[m] for name, array in arrays.items()} for m in range(interop.count_of(params))]


def _ours(arrays: dict[str, np.ndarray], like: Params) -> Params:
    """Arrays in PyTorch's names and layout as parameters of the structure of ``like``."""
    found: Params = {}
    for layer in like:
        (weight, bias) = interop.to_torch({layer: like[layer]})
        rank = like[layer]["kernel"].ndim - like[layer]["bias"].ndim + 1  # without the members' axis
        value = arrays[weight]
        value = np.moveaxis(value, (value.ndim - rank, value.ndim - rank + 1), (-1, -2))
        found[layer] = {"kernel": value, "bias": arrays[bias]}
    return found


def _stacked(dicts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([arrays[name] for arrays in dicts]) for name in dicts[0]}


def _numpy(tensor: Any) -> np.ndarray:  # noqa: ANN401
    return tensor.detach().cpu().contiguous().numpy().copy()


def _convnet(filters: tuple[int, ...], kernel_size: int, features: int, outputs: int) -> Any:  # noqa: ANN401
    """The network as a reader of the PyTorch documentation writes it; the names are `interop`'s."""
    nn = _torch().nn
    network, inputs = nn.Sequential(), 3
    for layer, count in enumerate(filters, start=1):
        network.add_module(f"conv{layer}", nn.Conv2d(inputs, count, kernel_size))
        network.add_module(f"relu{layer}", nn.ReLU())
        network.add_module(f"pool{layer}", nn.MaxPool2d(2))
        inputs = count
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc1", nn.Linear(features, outputs))
    return network.to(_device())


def _convnet_like(params: Params) -> Any:  # noqa: ANN401
    layers = sorted(layer for layer in params if layer != "dense")
    filters = tuple(int(params[layer]["bias"].shape[-1]) for layer in layers)
    *_, features, outputs = params["dense"]["kernel"].shape
    return _convnet(filters, params["conv1"]["kernel"].shape[-4], features, outputs)


def _load(module: Any, arrays: dict[str, np.ndarray]) -> None:  # noqa: ANN401
    module.load_state_dict({name: _tensor(array) for name, array in arrays.items()})


class ZooLoop:
    """Networks one after the other, each with an Adam of its own; the fused one, which is the fastest."""

    def __init__(
        self, params: Params, images: np.ndarray, labels: np.ndarray, rate: float, *, channels_last: bool
    ) -> None:
        """Images float32 ``(M, B, H, W, C)`` and labels ``(M, B)``; they are laid out once, here."""
        torch = _torch()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self._like, self._steps = params, 0
        self._models, self._optimizers = [], []
        for arrays in _members(params):
            model = _convnet_like(params)
            _load(model, arrays)
            model = model.to(memory_format=layout)
            self._models.append(model)
            self._optimizers.append(torch.optim.Adam(model.parameters(), rate, fused=True))
        self._images = [
            _tensor(batch.transpose(0, 3, 1, 2)).contiguous(memory_format=layout) for batch in images
        ]
        self._labels = [_tensor(batch.astype(np.int64)) for batch in labels]

    def run(self, steps: int) -> None:
        """``steps`` of each network."""
        cross_entropy = _torch().nn.functional.cross_entropy
        for model, optimizer, images, labels in zip(
            self._models, self._optimizers, self._images, self._labels, strict=True
        ):
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(model(images), labels).backward()
                optimizer.step()
        self._steps += steps
        _wait()

    def snapshot(self, members: np.ndarray) -> Snapshot:
        """The state of some networks."""
        return _snapshot([(self._models[m], self._optimizers[m]) for m in members], self._like, self._steps)


def _snapshot(parts: list[tuple[Any, Any]], like: Params, steps: int) -> Snapshot:
    """Parameters and moments of modules that are alike, stacked."""

    def stacked(read: Any) -> Params:  # noqa: ANN401
        return _ours(
            _stacked(
                [
                    {name: _numpy(read(optimizer, tensor)) for name, tensor in model.named_parameters()}
                    for model, optimizer in parts
                ]
            ),
            like,
        )

    return Snapshot(
        stacked(lambda optimizer, tensor: tensor),
        stacked(lambda optimizer, tensor: optimizer.state[tensor]["exp_avg"]),
        stacked(lambda optimizer, tensor: optimizer.state[tensor]["exp_avg_sq"]),
        steps,
    )


class ZooMap:
    """`torch.func.vmap` over the networks' gradients; Adam is elementwise, so one serves stacked arrays."""

    def __init__(self, params: Params, images: np.ndarray, labels: np.ndarray, rate: float) -> None:
        """As for `ZooLoop`."""
        torch = _torch()
        self._like, self._steps = params, 0
        model = _convnet_like(params)
        self._params = {name: _tensor(array) for name, array in interop.to_torch(params).items()}
        self._optimizer = torch.optim.Adam(list(self._params.values()), rate, fused=True)
        self._images = _tensor(images.transpose(0, 1, 4, 2, 3))
        self._labels = _tensor(labels.astype(np.int64))

        def loss(params: Any, images: Any, labels: Any) -> Any:  # noqa: ANN401
            logits = torch.func.functional_call(model, params, (images,))
            return torch.nn.functional.cross_entropy(logits, labels)

        self._gradients = torch.func.vmap(torch.func.grad(loss))

    def run(self, steps: int) -> None:
        """``steps`` of all networks side by side."""
        for _ in range(steps):
            found = self._gradients(self._params, self._images, self._labels)
            for name, tensor in self._params.items():
                tensor.grad = found[name]
            self._optimizer.step()
        self._steps += steps
        _wait()

    def snapshot(self, members: np.ndarray) -> Snapshot:
        """The state of some networks."""

        def read(key: str) -> Params:
            tensors = {
                name: tensor if key == "params" else self._optimizer.state[tensor][key]
                for name, tensor in self._params.items()
            }
            return _ours({name: _numpy(tensor)[members] for name, tensor in tensors.items()}, self._like)

        return Snapshot(read("params"), read("exp_avg"), read("exp_avg_sq"), self._steps)


def evaluate(params: Params, images: np.ndarray, batch: int) -> Any:  # noqa: ANN401
    """A function that gives all logits ``(M, N, K)`` of uint8 images, one network after the other."""
    torch = _torch()
    loaded = []
    for arrays in _members(params):
        model = _convnet_like(params)
        _load(model, arrays)
        loaded.append(model.eval())
    resident = _tensor(images.transpose(0, 3, 1, 2)).float().div_(255).sub_(0.5).div_(0.5)

    def run() -> np.ndarray:
        with torch.inference_mode():
            logits = [torch.cat([model(part) for part in resident.split(batch)]) for model in loaded]
            return torch.stack(logits).cpu().numpy()

    return run


def _translator(channels: int, hidden: int, *, generates: bool) -> Any:  # noqa: ANN401
    nn = _torch().nn
    network = nn.Sequential()
    network.add_module("main", nn.Sequential())
    last = channels if generates else 1
    for name, module in (
        ("0", nn.Conv3d(channels, hidden, 3, padding=1)),
        ("1", nn.ReLU() if generates else nn.LeakyReLU(0.2)),
        ("2", nn.Conv3d(hidden, last, 3, padding=1)),
        ("3", nn.Tanh() if generates else nn.Sigmoid()),
    ):
        network.main.add_module(name, module)
    return network.to(_device())


class TranslatorLoop:
    """The CycleGAN of one layer of one pair: the translations are made once and serve both players.

    Discriminators are frozen in the generators' turn, so that no gradient is computed which nobody takes.
    """

    def __init__(
        self,
        generators: Params,
        discriminators: Params,
        real_a: np.ndarray,
        real_b: np.ndarray,
        rate: float,
        cycle: float,
    ) -> None:
        """Networks ``{name: params}`` without a leading axis; kernel sets ``(B, O, h, w, I)``."""
        torch = _torch()
        self._likes = {"generators": generators, "discriminators": discriminators}
        self._cycle, self._steps = cycle, 0
        self._modules: dict[str, dict[str, Any]] = {}
        self._optimizers = {}
        channels = real_a.shape[-1]
        for player, networks in self._likes.items():
            self._modules[player] = {}
            for name, params in networks.items():
                hidden = params["encode"]["bias"].shape[-1]
                module = _translator(channels, hidden, generates=player == "generators")
                _load(module, interop.to_torch(params))
                self._modules[player][name] = module
            self._optimizers[player] = torch.optim.Adam(
                self._parameters(player), rate, betas=(0.5, 0.999), fused=True
            )
        self._a, self._b = (_tensor(real.transpose(0, 4, 1, 2, 3)) for real in (real_a, real_b))

    def _parameters(self, player: str) -> list[Any]:
        return [tensor for module in self._modules[player].values() for tensor in module.parameters()]

    def run(self, steps: int) -> dict[str, float]:
        """Some steps; the losses of the last."""
        terms: dict[str, Any] = {}
        for _ in range(steps):
            terms = self._step()
        self._steps += steps
        _wait()
        return {name: float(value) for name, value in terms.items()}

    def _step(self) -> dict[str, Any]:
        def square(scores: Any, target: float) -> Any:  # noqa: ANN401
            return (scores - target).square().mean()

        a2b, b2a = (self._modules["generators"][name] for name in ("a2b", "b2a"))
        judge_a, judge_b = (self._modules["discriminators"][name] for name in ("a", "b"))
        fake_b, fake_a = a2b(self._a), b2a(self._b)
        for tensor in self._parameters("discriminators"):
            tensor.requires_grad_(False)
        terms = {
            "generator_a2b": square(judge_b(fake_b), 1),
            "generator_b2a": square(judge_a(fake_a), 1),
            "cycle": (b2a(fake_b) - self._a).abs().mean() + (a2b(fake_a) - self._b).abs().mean(),
        }
        self._optimizers["generators"].zero_grad(set_to_none=True)
        total = terms["generator_a2b"] + terms["generator_b2a"] + self._cycle * terms["cycle"]
        total.backward()
        self._optimizers["generators"].step()
        for tensor in self._parameters("discriminators"):
            tensor.requires_grad_(True)
        for domain, judge, real, fake in (("a", judge_a, self._a, fake_a), ("b", judge_b, self._b, fake_b)):
            right, wrong = square(judge(real), 1), square(judge(fake.detach()), 0)
            terms[f"discriminator_{domain}"] = 0.5 * (right + wrong)
        self._optimizers["discriminators"].zero_grad(set_to_none=True)
        (terms["discriminator_a"] + terms["discriminator_b"]).backward()
        self._optimizers["discriminators"].step()
        return {name: value.detach() for name, value in terms.items()}

    def snapshot(self) -> Snapshot:
        """The state of all four networks, ``{player: {name: params}}``."""
        parts: dict[str, dict[str, Snapshot]] = {
            player: {
                name: _snapshot(
                    [(module, self._optimizers[player])],
                    _with_axis(self._likes[player][name]),
                    self._steps,
                )
                for name, module in modules.items()
            }
            for player, modules in self._modules.items()
        }

        def read(field: str) -> Params:
            return {
                player: {name: getattr(part, field) for name, part in found.items()}
                for player, found in parts.items()
            }

        return Snapshot(read("params"), read("first"), read("second"), self._steps)


def _with_axis(params: Params) -> Params:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
