"""What the engine is compared with: PyTorch, one model at a time, and its own way of mapping over models.

PyTorch is optional, and imported only where it is asked for. Float32 products stay float32 on a GPU here, as
they do in the engine: cuDNN would run convolutions in TF32 by default.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.contest import LeftOutError
from kernelgan import interop
from kernelgan.types import Params

_Arrays = dict[str, np.ndarray]


@functools.cache
def torch() -> Any:  # noqa: ANN401  (a module that need not be there)
    """PyTorch for this process's device.

    Raises:
      LeftOutError: it is not here.
    """
    if importlib.util.find_spec("torch") is None:
        raise LeftOutError("PyTorch is not installed")
    module = importlib.import_module("torch")
    if _device() == "cuda" and not module.cuda.is_available():
        raise LeftOutError("this PyTorch finds no GPU")
    module.backends.cuda.matmul.allow_tf32 = False
    module.backends.cudnn.allow_tf32 = False
    module.backends.cudnn.benchmark = True
    return module


def _device() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "cuda"


def _wait() -> None:
    if _device() == "cuda":
        torch().cuda.synchronize()


def _tensor(array: Any) -> Any:  # noqa: ANN401
    return torch().from_numpy(np.array(array)).to(_device())


def _loaded(module: Any, arrays: Mapping[str, np.ndarray]) -> Any:  # noqa: ANN401
    module.load_state_dict({name: _tensor(array) for name, array in arrays.items()})
    return module.to(_device())


def _modules(*parts: tuple[str, Any]) -> Any:  # noqa: ANN401
    network = torch().nn.Sequential()
    for name, module in parts:
        network.add_module(name, module)
    return network


def _convnet(params: Params) -> Any:  # noqa: ANN401
    """The network as a reader of the PyTorch documentation writes it; the names are `interop`'s."""
    nn, parts, inputs = torch().nn, [], 3
    for layer in range(1, len(params)):
        size, *_, outputs = params[f"conv{layer}"]["kernel"].shape[-4:]
        convolution = nn.Conv2d(inputs, outputs, size)
        parts += [(f"conv{layer}", convolution), (f"relu{layer}", nn.ReLU())]
        parts += [(f"pool{layer}", nn.MaxPool2d(2))]
        inputs = outputs
    return _modules(
        *parts, ("flatten", nn.Flatten()), ("fc1", nn.Linear(*params["dense"]["kernel"].shape[-2:]))
    )


def _convnets(params: Params) -> list[Any]:
    """A network for each member of stacked parameters."""
    arrays = interop.to_torch(params)
    count = len(params["dense"]["bias"])
    return [
        _loaded(_convnet(params), {name: array[m] for name, array in arrays.items()}) for m in range(count)
    ]


def _ours(arrays: _Arrays, like: Params) -> Params:
    """Arrays in PyTorch's names and layout, stacked, as parameters of the structure of ``like``."""
    found: Params = {}
    for layer in like:
        (weight, bias) = interop.to_torch({layer: like[layer]})
        rank = like[layer]["kernel"].ndim - like[layer]["bias"].ndim + 1  # without the members' axis
        value = arrays[weight]
        value = np.moveaxis(value, (value.ndim - rank, value.ndim - rank + 1), (-1, -2))
        found[layer] = {"kernel": value, "bias": arrays[bias]}
    return found


def _gradients(modules: Sequence[Any], like: Params) -> Params:
    """Of networks' last step, stacked."""
    dicts = [{name: _array(t.grad) for name, t in module.named_parameters()} for module in modules]
    return _ours({name: np.stack([arrays[name] for arrays in dicts]) for name in dicts[0]}, like)


def _array(tensor: Any) -> np.ndarray:  # noqa: ANN401
    return tensor.detach().cpu().contiguous().numpy().copy()


class ZooLoop:
    """Networks one after the other, each with an Adam of its own; the fused one, which is the fastest."""

    def __init__(
        self, params: Params, images: np.ndarray, labels: np.ndarray, rate: float, *, channels_last: bool
    ) -> None:
        """Images float32 ``(M, B, H, W, C)`` and labels ``(M, B)``; they are laid out once, here."""
        layout = torch().channels_last if channels_last else torch().contiguous_format
        self._like = params
        self._models = [model.to(memory_format=layout) for model in _convnets(params)]
        self._optimizers = [torch().optim.Adam(m.parameters(), rate, fused=True) for m in self._models]
        moved = [_tensor(batch.transpose(0, 3, 1, 2)) for batch in images]
        self._images = [batch.contiguous(memory_format=layout) for batch in moved]
        self._labels = [_tensor(batch.astype(np.int64)) for batch in labels]

    def run(self, steps: int) -> None:
        """``steps`` of each network."""
        cross_entropy = torch().nn.functional.cross_entropy
        for model, optimizer, images, labels in zip(
            self._models, self._optimizers, self._images, self._labels, strict=True
        ):
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(model(images), labels).backward()
                optimizer.step()
        _wait()

    def gradients(self, members: np.ndarray) -> Params:
        """Of some networks' last step."""
        return _gradients([self._models[m] for m in members], self._like)


class ZooMap:
    """`torch.func.vmap` over the networks' gradients; Adam is elementwise, so one serves stacked arrays."""

    def __init__(self, params: Params, images: np.ndarray, labels: np.ndarray, rate: float) -> None:
        """As for `ZooLoop`."""
        func = torch().func
        self._like = params
        model = _convnet(params).to(_device())
        self._params = {name: _tensor(array) for name, array in interop.to_torch(params).items()}
        self._optimizer = torch().optim.Adam(list(self._params.values()), rate, fused=True)
        self._images = _tensor(images.transpose(0, 1, 4, 2, 3))
        self._labels = _tensor(labels.astype(np.int64))

        def loss(params: Any, images: Any, labels: Any) -> Any:  # noqa: ANN401
            return torch().nn.functional.cross_entropy(func.functional_call(model, params, (images,)), labels)

        self._gradients = func.vmap(func.grad(loss))

    def run(self, steps: int) -> None:
        """``steps`` of all networks side by side."""
        for _ in range(steps):
            found = self._gradients(self._params, self._images, self._labels)
            for name, tensor in self._params.items():
                tensor.grad = found[name]
            self._optimizer.step()
        _wait()

    def gradients(self, members: np.ndarray) -> Params:
        """Of some networks' last step."""
        return _ours({name: _array(t.grad)[members] for name, t in self._params.items()}, self._like)


def evaluate(params: Params, images: np.ndarray) -> Callable[[], np.ndarray]:
    """A function that gives all logits ``(M, N, K)`` of uint8 images, one network after the other."""
    networks = [model.eval() for model in _convnets(params)]
    resident = _tensor(images.transpose(0, 3, 1, 2)).float().div_(255).sub_(0.5).div_(0.5)

    def run() -> np.ndarray:
        with torch().inference_mode():
            return torch().stack([model(resident) for model in networks]).cpu().numpy()

    return run


def _translator(params: Params, *, generates: bool) -> Any:  # noqa: ANN401
    nn = torch().nn
    *_, inputs, hidden = params["encode"]["kernel"].shape
    main = _modules(
        ("0", nn.Conv3d(inputs, hidden, 3, padding=1)),
        ("1", nn.ReLU() if generates else nn.LeakyReLU(0.2)),
        ("2", nn.Conv3d(hidden, params["decode"]["bias"].shape[-1], 3, padding=1)),
        ("3", nn.Tanh() if generates else nn.Sigmoid()),
    )
    return _loaded(_modules(("main", main)), interop.to_torch(params))


class TranslatorLoop:
    """The CycleGAN of one layer of one pair: the translations are made once and serve both players.

    Discriminators are frozen in the generators' turn, so that no gradient is computed which nobody takes.
    """

    def __init__(
        self, players: Params, real_a: np.ndarray, real_b: np.ndarray, rate: float, cycle: float
    ) -> None:
        """Networks ``{player: {name: params}}`` of one pair; kernel sets ``(B, O, h, w, I)``."""
        self._likes, self._cycle = players, cycle
        self._modules = {
            player: {name: _translator(p, generates=player == "generators") for name, p in named.items()}
            for player, named in players.items()
        }
        self._optimizers = {
            player: torch().optim.Adam(self._parameters(player), rate, betas=(0.5, 0.999), fused=True)
            for player in players
        }
        self._a, self._b = (_tensor(real.transpose(0, 4, 1, 2, 3)) for real in (real_a, real_b))

    def _parameters(self, player: str) -> list[Any]:
        return [tensor for module in self._modules[player].values() for tensor in module.parameters()]

    def run(self, steps: int) -> None:
        """Some steps."""
        for _ in range(steps):
            self._step()
        _wait()

    def _step(self) -> None:
        def square(scores: Any, target: float) -> Any:  # noqa: ANN401
            return (scores - target).square().mean()

        def optimise(player: str, loss: Any) -> None:  # noqa: ANN401
            self._optimizers[player].zero_grad(set_to_none=True)
            loss.backward()
            self._optimizers[player].step()

        a2b, b2a = (self._modules["generators"][name] for name in ("a2b", "b2a"))
        judge_a, judge_b = (self._modules["discriminators"][name] for name in ("a", "b"))
        fake_b, fake_a = a2b(self._a), b2a(self._b)
        for tensor in self._parameters("discriminators"):
            tensor.requires_grad_(False)
        cycle = (b2a(fake_b) - self._a).abs().mean() + (a2b(fake_a) - self._b).abs().mean()
        optimise("generators", square(judge_b(fake_b), 1) + square(judge_a(fake_a), 1) + self._cycle * cycle)
        for tensor in self._parameters("discriminators"):
            tensor.requires_grad_(True)
        of_a = square(judge_a(self._a), 1) + square(judge_a(fake_a.detach()), 0)
        of_b = square(judge_b(self._b), 1) + square(judge_b(fake_b.detach()), 0)
        optimise("discriminators", 0.5 * (of_a + of_b))

    def gradients(self) -> Params:
        """Of the last step of all four networks, ``{player: {name: params}}``, with a leading axis of 1."""
        return {
            player: {
                name: _gradients([module], self._likes[player][name]) for name, module in modules.items()
            }
            for player, modules in self._modules.items()
        }
