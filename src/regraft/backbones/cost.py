"""What a backbone costs at each depth: parameters, multiply-accumulates and time, all measured on the
network itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from regraft.backbones.base import Backbone
from regraft.backbones.batches import tensors
from regraft.backbones.sources.obtained import build
from regraft.backbones.taps import Tapped, entrance

BATCH = 4
PASSES = 3


@dataclass(frozen=True)
class Cost:
    """What the first stages of a backbone cost: their parameters, the multiply-accumulates of an example in
    units of 10^9 and its seconds, both in float32.
    """

    parameters: int
    gmacs: float
    seconds: float


def costs(backbone: Backbone, depths: Sequence[int], device: torch.device) -> dict[int, Cost]:
    """The cost at each of `depths` (numbers of first stages) and of the whole (the number of all stages).

    MACs count convolutions and products of matrices (attention included), as is usual. Times are those of
    eager PyTorch on a small batch: good for comparing the depths of one backbone.
    """
    training, whole = backbone.module.training, len(backbone.stages)
    tapped = Tapped(backbone).eval().to(device)
    one, some = (tensors(backbone.preprocess.blank(count), device) for count in (1, BATCH))

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    try:
        with torch.no_grad(), _no_gradients(tapped):
            counter = FlopCounterMode(display=False)
            with counter:
                flops = _at_depths(backbone, depths, counter.get_total_flops, lambda: tapped(one))
            times = [_at_depths(backbone, depths, clock, lambda: tapped(some)) for _ in range(PASSES)]
    finally:
        backbone.module.train(training)
    sizes = {name: parameter.numel() for name, parameter in backbone.module.named_parameters()}
    own = [sum(sizes[name] for name in stage.parameters) for stage in backbone.stages]
    return {
        depth: Cost(sum(own[:depth]), flops[depth] / 2e9, min(t[depth] for t in times) / BATCH)
        for depth in (*depths, whole)
    }


@contextlib.contextmanager
def _no_gradients(module: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient meanwhile: the counter of operations cannot follow one that is handed
    to a layer as it is, as the latent vector of an attention pool.
    """
    asking = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


SMALL = {
    "convnet": ("convnext_atto", 0.547),
    "vit": ("vit_tiny_patch16_224", 1.254),
}  # and their GMACs at 224 pixels


@cache
def pace(kind: str, device: torch.device) -> float:
    """10^9 multiply-accumulates a second that a network of a kind (of the catalogue) does here in eager
    float32, by a few passes of a small untrained one; a hybrid is taken for a convnet,
    any transformer for one of images.
    """
    architecture, gmacs = SMALL["vit" if kind in ("vit", "transformer") else "convnet"]
    with torch.random.fork_rng(devices=[]):
        module = build(architecture, 0, {}).eval().to(device)
    batch, times = torch.zeros(BATCH, 3, 224, 224, device=device), []
    with torch.no_grad():
        for _ in range(PASSES + 1):
            began = time.perf_counter()
            module(batch).sum().item()  # the answer is waited for
            times.append(time.perf_counter() - began)
    return BATCH * gmacs / min(times)


def _at_depths(
    backbone: Backbone, depths: Sequence[int], read: Callable[[], float], run: Callable[[], object]
) -> dict[int, float]:
    """What `read` has gone up by when a pass comes to the end of each depth, and of the whole."""
    seconds: dict[int, float] = {}
    start = read()

    def note(depth: int) -> Callable[[nn.Module, object], None]:
        return lambda *_: seconds.update({depth: read() - start})

    handles = [
        backbone.module.get_submodule(entrance(backbone, depth)).register_forward_pre_hook(note(depth))
        for depth in depths
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return {**seconds, len(backbone.stages): read() - start}
