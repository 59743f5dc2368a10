"""How a network's passes are computed while it is trained: the precision, and two shortcuts on a CPU.

Both shortcuts keep the mathematics, and both catch the calls as they are made, so that no module is
changed:

- A norm layer with fixed statistics is an affine map of each channel. It is folded into the convolution
  before it anew in every pass, so the same gradients reach the same parameters and no pass over the
  activations is spent on it. (`torch.nn.utils.fusion` folds into new leaf tensors, from which no gradient
  reaches the layers' own.)
- Depthwise convolutions in bfloat16 get those gradients for which oneDNN falls back to reference code in a
  way that it is fast at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight
from torch.overrides import TorchFunctionMode

PRECISIONS = ("float32", "bfloat16")
TRIAL_STEPS = 3  # the first warms up
WORTH = 1.1  # bfloat16 rounds, so it has to be clearly faster
EMULATED = ("NO AVX", "AVX2")  # x86 processors on which a step in bfloat16 takes over ten times as long
CLOSE = 1e-3  # of the largest output: folding may change the last bits and no more

Inputs = Tensor | Mapping[str, Tensor]  # what the network takes; the first axis of each tensor is the example


@dataclass(frozen=True)
class Norm:
    """A norm layer that directly follows a convolution, by the arguments of `nn.functional.batch_norm`."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(C,) factors and (C,) offsets, differentiable in the layer's weight and bias. The statistics are
        fixed.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = torch.rsqrt(self.running_var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.running_mean * scale
        return scale, shift if self.bias is None else shift + self.bias


@dataclass(frozen=True)
class Arithmetic:
    """The context of forward passes. Weights, their gradients and the optimiser stay float32.

    `folds` holds the norm of each convolution that one can be folded into, by the id of the convolution's
    weight.
    """

    precision: str
    device: torch.device
    folds: dict[int, Norm]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Forward passes inside it are computed so."""
        with contextlib.ExitStack() as stack:
            if self.precision == "bfloat16":
                stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
            depthwise = self.device.type == "cpu" and self.precision == "bfloat16"
            if self.folds or depthwise:
                stack.enter_context(_Shortcuts(self.folds, depthwise))
            yield


def plain(device: torch.device) -> Arithmetic:
    """The arithmetic that changes nothing: float32 as PyTorch computes it."""
    return Arithmetic("float32", device, {})


def may_gain_from_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 is worth a trial: not on MPS, whose autocast knows float16 only, nor where a CPU
    emulates it.
    """
    if device.type == "cpu":
        return torch.backends.cpu.get_cpu_capability() not in EMULATED
    return device.type != "mps"


def pick_arithmetic(
    network: nn.Module, inputs: Inputs, precision: str = "auto", folded: bool | None = None
) -> tuple[Arithmetic, dict[str, float]]:
    """The arithmetic to train `network` with on batches like `inputs`, and the examples/s of each way tried.

    `precision` "auto" takes bfloat16 where a trial finds it clearly faster. On a CPU norms are folded where that
    gives the same outputs. On a GPU that saves passes over the activations and costs calls, so a trial of it
    tells, unless `folded` does. Where nothing is open nothing is tried.
    """
    device, count = _any_of(inputs).device, len(_any_of(inputs))
    folds = find_folds(network, inputs) if device.type != "mps" and folded is not False else {}
    options = ways(device, folds, precision, folded)
    if len(options) == 1:
        return next(iter(options.values())), {}
    speed = {name: count / seconds_a_step(network, inputs, option) for name, option in options.items()}
    return options[fastest_way(speed)], speed


def ways(
    device: torch.device, folds: dict[int, Norm], precision: str, folded: bool | None
) -> dict[str, Arithmetic]:
    """What of precision and folding is open on a device, by names."""
    names: tuple[str, ...] = (precision,)
    if precision == "auto":
        names = PRECISIONS if may_gain_from_bfloat16(device) else PRECISIONS[:1]
    if device.type != "cuda":
        return {name: Arithmetic(name, device, folds) for name in names}
    options = {}
    for name in names:
        if not folded or not folds:
            options[name] = Arithmetic(name, device, {})
        if folds and (folded or name == names[-1]):  # a trial of all four takes longer than it gains
            options[f"{name} with norms folded"] = Arithmetic(name, device, folds)
    return options


def fastest_way(speed: dict[str, float]) -> str:
    """The fastest way; one in bfloat16, which rounds, only where it is WORTH it."""
    exact = [name for name in speed if not name.startswith("bfloat16")]
    best = max(speed, key=lambda name: speed[name])
    if not exact or best in exact:
        return best
    alike = max(exact, key=lambda name: speed[name])
    return best if speed[best] > WORTH * speed[alike] else alike


def seconds_a_step(network: nn.Module, inputs: Inputs, arithmetic: Arithmetic) -> float:
    """The time of a forward and a backward pass, the least of a few. The gradients are thrown away."""
    seconds = []
    with _same_buffers_after(network):
        for _ in range(TRIAL_STEPS):
            began = time.perf_counter()
            with arithmetic():
                outputs = network(inputs)
            outputs.float().square().mean().backward()
            if arithmetic.device.type == "cuda":
                torch.cuda.synchronize(arithmetic.device)
            seconds.append(time.perf_counter() - began)
    network.zero_grad(set_to_none=True)
    return min(seconds[1:])


def find_folds(network: nn.Module, inputs: Inputs) -> dict[int, Norm]:
    """The norms that can be folded, found by watching a pass over two examples; none where folding would
    change the outputs.

    `network` is watched in the mode it is in, and left as it was.
    """
    training, watch = network.training, _Watch()
    few = inputs[:2] if isinstance(inputs, Tensor) else {name: value[:2] for name, value in inputs.items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _same_buffers_after(network):
        with watch:
            network(few)
        network.eval()
        expected = _first(network(few))
        with _Shortcuts(watch.folds, bfloat16=False):
            folded = _first(network(few))
        network.train(training)
    same = float((folded - expected).abs().max()) <= CLOSE * float(expected.abs().max())
    return watch.folds if same else {}


@contextlib.contextmanager
def _same_buffers_after(network: nn.Module) -> Iterator[None]:
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    yield
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])


def _any_of(inputs: Inputs) -> Tensor:
    return inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


class _Watch(TorchFunctionMode):
    """Notes which norm with fixed statistics is given the very output of which convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[int, int] = {}  # the id of a convolution's output to that of its weight
        self.outputs: list[Tensor] = []  # held, so that no other tensor gets the id of one
        self.folds: dict[int, Norm] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.conv2d and len(args) >= 2:
            self.weights[id(result)] = id(args[1])
            self.outputs.append(result)
        elif func is nn.functional.batch_norm and id(args[0]) in self.weights:
            norm = Norm(*args[1:], **kwargs)
            if not norm.training and norm.running_mean is not None:
                self.folds[self.weights[id(args[0])]] = norm
        return result


@dataclass(frozen=True)
class _Convolution:
    """What `torch.conv2d` is given beside its input and its weight."""

    bias: Tensor | None = None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def pairs(self) -> tuple[list[int], ...]:
        """Stride, padding and dilation, each of height and width."""
        given = (self.stride, self.padding, self.dilation)
        return tuple([value] * 2 if isinstance(value, int) else list(value) for value in given)


class _Shortcuts(TorchFunctionMode):
    """Folds norms into convolutions, and sends depthwise ones through `_Depthwise` in bfloat16."""

    def __init__(self, folds: dict[int, Norm], bfloat16: bool) -> None:
        super().__init__()
        self.folds, self.bfloat16 = folds, bfloat16
        self.means = {id(norm.running_mean) for norm in folds.values()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and len(args) >= 2:
            return self._convolve(args[0], args[1], _Convolution(*args[2:], **kwargs))
        if func is nn.functional.batch_norm and len(args) >= 2 and id(args[1]) in self.means:
            return args[0]  # what it would do was done by the convolution before it
        return func(*args, **kwargs)

    def _convolve(self, x: Tensor, weight: Tensor, call: _Convolution) -> Tensor:
        norm, bias = self.folds.get(id(weight)), call.bias
        if norm is not None:
            scale, shift = norm.scale_and_shift()
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else shift + bias * scale
        depthwise = 1 < call.groups == weight.shape[0] and not isinstance(call.padding, str)
        if not (self.bfloat16 and depthwise):
            return torch.conv2d(x, weight, bias, call.stride, call.padding, call.dilation, call.groups)  # type: ignore[no-any-return]
        bias = None if bias is None else bias.bfloat16()
        return _Depthwise.apply(x.bfloat16(), weight.bfloat16(), bias, call.pairs())  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    """A bfloat16 depthwise convolution whose gradients avoid what oneDNN is slow at in bfloat16.

    That is the gradient of the input at strides above 1, taken in float32 here, and of the weight of
    kernels above 3x3, put together from blocks of 3x3 here: it falls back to reference code for them. Of
    EfficientNet-Lite0 they took 840 of the 1,150 ms of a training step of 32 images.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Any) -> Tensor:
        """(B, C, H, W) bfloat16 to the convolution's output. `shape` holds pairs: stride, padding and
        dilation.
        """
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        stride, padding, dilation = shape
        return torch.conv2d(x, weight, bias, stride, padding, dilation, len(weight))  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of input, weight and bias, and None for the settings."""
        x, weight = ctx.saved_tensors
        gradient, (stride, padding, dilation) = gradients[0], ctx.shape
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_x = of_weight = None
        if needs_x:  # torch.nn.grad.conv2d_input loses the channels-last layout and takes twice as long
            exact = torch.float32 if max(stride) > 1 else x.dtype
            of_x = torch.ops.aten.convolution_backward(
                *(tensor.to(exact) for tensor in (gradient, x, weight)),
                *(None, stride, padding, dilation, False, [0, 0], len(weight), [True, False, False]),
            )[0].to(x.dtype)
        if needs_weight:
            of_weight = _weight_gradient(gradient, x, weight, ctx.shape)
        return of_x, of_weight, gradient.sum((0, 2, 3)) if needs_bias else None, None


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, shape: Any) -> Tensor:
    """(C, 1, k, k), each 3x3 block of it being the gradient of a 3x3 kernel on a shifted input."""
    stride, padding, dilation = shape
    high, wide = weight.shape[2:]
    if max(high, wide) <= 3 or min(high, wide) < 3 or max(dilation) > 1:
        return conv2d_weight(x, weight.shape, gradient, stride, padding, dilation, len(weight))  # type: ignore[no-any-return]
    x = nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (s * (n - 1) + 3 for s, n in zip(stride, gradient.shape[2:], strict=True))
    block, result = (len(weight), 1, 3, 3), torch.empty_like(weight)
    for top in (*range(0, high - 3, 3), high - 3):
        for left in (*range(0, wide - 3, 3), wide - 3):
            shifted = x[:, :, top : top + rows, left : left + columns]
            part = conv2d_weight(shifted, block, gradient, stride, 0, dilation, len(weight))
            result[:, :, top : top + 3, left : left + 3] = part
    return result
