"""How a network's passes are computed while it is trained: the precision, and two shortcuts on a CPU.

Both shortcuts keep the mathematics. A norm layer with fixed statistics is an affine map of each channel, so
it is folded into the convolution before it anew in every pass, differentiably: the same gradients reach the
same parameters, and no pass over the activations is spent on it. Depthwise convolutions get their gradients
in float32 where oneDNN's bfloat16 falls back to reference code. The calls are caught as they are made, so no
module is changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

PRECISIONS = ("float32", "bfloat16")
TRIAL_STEPS = 3  # the first warms up
WORTH = 1.1  # bfloat16 rounds: it has to be clearly faster
EMULATED = (
    "NO AVX",
    "AVX2",
)  # x86 without bfloat16 instructions: a training step in it takes over ten times as long
CLOSE = 1e-3  # of the largest logit: folding may change the last bits and no more

_CONV = ("bias", "stride", "padding", "dilation", "groups")
_CONV_DEFAULTS: dict[str, Any] = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_NORM = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


@dataclass(frozen=True)
class Norm:
    """A norm layer with fixed statistics that directly follows a convolution."""

    mean: torch.Tensor
    variance: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    eps: float

    def scale_and_shift(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(C,) factors and (C,) offsets; differentiable in the layer's weight and bias."""
        scale = torch.rsqrt(self.variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.mean * scale
        return scale, shift if self.bias is None else shift + self.bias


@dataclass(frozen=True)
class Arithmetic:
    """The context of forward passes. Weights, their gradients and the optimiser stay float32.

    `folds`: the norm of each convolution, by the id of the convolution's weight.
    """

    precision: str
    device: torch.device
    folds: dict[int, Norm]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Forward passes inside compute so."""
        with contextlib.ExitStack() as stack:
            if self.precision == "bfloat16":
                stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16))
            if self.device.type == "cpu" and (self.folds or self.precision == "bfloat16"):
                stack.enter_context(_Shortcuts(self.folds, self.precision == "bfloat16"))
            yield


def plain(device: torch.device) -> Arithmetic:
    """float32 as PyTorch does it."""
    return Arithmetic("float32", device, {})


def may_gain_from_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth a trial: not on MPS, whose autocast knows float16 only, nor where a CPU
    emulates it.
    """
    if device.type == "cpu":
        return torch.backends.cpu.get_cpu_capability() not in EMULATED
    return device.type != "mps"


def pick_arithmetic(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, precision: str = "auto"
) -> tuple[Arithmetic, dict[str, float]]:
    """The fastest right arithmetic for training `network` on batches like `images`, and the images/s of each
    tried.

    Norms are folded only if that gives the same logits. `precision` "auto" takes bfloat16 where a trial finds
    it faster.
    """
    device = images.device
    folds = find_folds(network, images) if device.type == "cpu" else {}
    if precision == "auto" and not may_gain_from_bfloat16(device):
        precision = "float32"
    if precision != "auto":
        return Arithmetic(precision, device, folds), {}
    options = {name: Arithmetic(name, device, folds) for name in PRECISIONS}
    speed = {
        name: len(images) / seconds_a_step(network, images, labels, option)
        for name, option in options.items()
    }
    return options["bfloat16" if speed["bfloat16"] > WORTH * speed["float32"] else "float32"], speed


def seconds_a_step(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, arithmetic: Arithmetic
) -> float:
    """The time of one training step (forward and backward): the least of a few on throw-away gradients."""
    seconds = []
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    for _ in range(TRIAL_STEPS):
        began = time.perf_counter()
        with arithmetic():
            logits = network(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        seconds.append(time.perf_counter() - began)
    network.zero_grad(set_to_none=True)
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    return min(seconds[1:])


def find_folds(network: nn.Module, images: torch.Tensor) -> dict[int, Norm]:
    """The norms that can be folded, by watching a pass over two images; none where folding would change the
    result.

    `network` is watched in the mode it is in, and left as it was.
    """
    training, watch = network.training, _Watch()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        with watch:
            network(images[:2])
        network.eval()
        expected = _first(network(images[:2]))
        with _Shortcuts(watch.folds, False):
            found = _first(network(images[:2]))
        network.train(training)
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    same = float((found - expected).abs().max()) <= CLOSE * float(expected.abs().max())
    return watch.folds if same else {}


def _first(result: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result


def _call(names: tuple[str, ...], args: Any, kwargs: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


class _Watch(TorchFunctionMode):
    """Notes which norm with fixed statistics is given the very output of which convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[
            int, tuple[torch.Tensor, int]
        ] = {}  # the output is held, so that no other gets its id
        self.folds: dict[int, Norm] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.conv2d and len(args) >= 2:
            self.made[id(result)] = (result, id(args[1]))
        elif func is nn.functional.batch_norm and id(args[0]) in self.made:
            call = _call(
                _NORM, args[1:], kwargs or {}, {"weight": None, "bias": None, "training": False, "eps": 1e-5}
            )
            if not call["training"] and call["running_mean"] is not None:
                self.folds[self.made[id(args[0])][1]] = Norm(
                    call["running_mean"], call["running_var"], call["weight"], call["bias"], call["eps"]
                )
        return result


class _Shortcuts(TorchFunctionMode):
    """Folds norms into convolutions, and sends depthwise ones through `_Depthwise` in bfloat16."""

    def __init__(self, folds: dict[int, Norm], bfloat16: bool) -> None:
        super().__init__()
        self.folds, self.bfloat16 = folds, bfloat16
        self.means = {id(norm.mean) for norm in folds.values()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and len(args) >= 2:
            return self._convolve(args[0], args[1], _call(_CONV, args[2:], kwargs, _CONV_DEFAULTS))
        if func is nn.functional.batch_norm and len(args) >= 2 and id(args[1]) in self.means:
            return args[0]
        return func(*args, **kwargs)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        norm, bias = self.folds.get(id(weight)), call["bias"]
        if norm is not None:
            scale, shift = norm.scale_and_shift()
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else shift + bias * scale
        depthwise = 1 < call["groups"] == weight.shape[0] and not isinstance(call["padding"], str)
        if not (self.bfloat16 and depthwise):
            return torch.conv2d(
                x, weight, bias, call["stride"], call["padding"], call["dilation"], call["groups"]
            )
        pairs = (
            [v, v] if isinstance(v, int) else list(v)
            for v in (call[n] for n in ("stride", "padding", "dilation"))
        )
        bias = None if bias is None else bias.bfloat16()
        return _Depthwise.apply(x.bfloat16(), weight.bfloat16(), bias, *pairs, call["groups"])  # type: ignore[no-any-return]


class _Depthwise(torch.autograd.Function):
    """A bfloat16 depthwise convolution whose gradients avoid what oneDNN is slow at in bfloat16.

    That is the gradient of the input at strides above 1, taken in float32 here, and of the weight of kernels
    above 3x3, put together from blocks of 3x3 here: it falls back to reference code for them. Of
    EfficientNet-Lite0 they took 840 of the 1,150 ms of a training step of 32 images.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> torch.Tensor:
        """(B, C, H, W) bfloat16 to the convolution's output."""
        ctx.save_for_backward(x, weight)
        ctx.shape = (stride, padding, dilation, groups)
        return torch.ops.aten.convolution(  # type: ignore[no-any-return]
            x, weight, bias, stride, padding, dilation, False, [0, 0], groups
        )

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Gradients of input, weight and bias; None for the settings."""
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        gradient = gradients[0]
        found: list[Any] = [None] * 7
        if of_x:
            slow = max(stride) > 1
            tensors = (gradient.float(), x.float(), weight.float()) if slow else (gradient, x, weight)
            found[0] = _back(*tensors, stride, padding, dilation, groups, of_x=True).to(x.dtype)
        if of_weight:
            found[1] = _weight_gradient(gradient, x, weight, stride, padding, dilation, groups)
        if of_bias:
            found[2] = gradient.sum((0, 2, 3))
        return tuple(found)


def _back(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    of_x: bool,
) -> torch.Tensor:
    back = torch.ops.aten.convolution_backward
    mask = [of_x, not of_x, False]
    both = back(gradient, x, weight, None, stride, padding, dilation, False, [0, 0], groups, mask)
    return both[0 if of_x else 1]  # type: ignore[no-any-return]


def _weight_gradient(
    gradient: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> torch.Tensor:
    """(C, 1, k, k), each 3x3 block of it being the gradient of a 3x3 kernel on a shifted input."""
    high, wide = weight.shape[2:]
    if max(high, wide) <= 3 or min(high, wide) < 3 or max(dilation) > 1:
        return _back(gradient, x, weight, stride, padding, dilation, groups, of_x=False)
    x = nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (s * (n - 1) + 3 for s, n in zip(stride, gradient.shape[2:], strict=True))
    block, result = weight[:, :, :3, :3].contiguous(), torch.empty_like(weight)
    for top in (*range(0, high - 3, 3), high - 3):
        for left in (*range(0, wide - 3, 3), wide - 3):
            shifted = x[:, :, top : top + rows, left : left + columns]
            part = _back(gradient, shifted, block, stride, [0, 0], dilation, groups, of_x=False)
            result[:, :, top : top + 3, left : left + 3] = part
    return result
