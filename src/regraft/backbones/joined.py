"""Features of all depths of a network, joined: what the early stages know is not in the last one (Head2Toe,
Evci et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from regraft.backbones.base import Backbone, Stage, measured_width
from regraft.backbones.batches import tensors
from regraft.backbones.taps import Tapped, entrance, pooled, spread, tapped

FADED = 0.5  # what a depth counts beside the next, where early ones count less
Way = bool | Literal["faded", "deviations"]


class Joined(nn.Module):
    """What a network takes to (B, sum of the depths' channels): its features after each stage, pooled, and at
    the end, those of each depth divided by their length, so that none drowns the others. "faded", each depth is
    FADED as long as the next: a penalty on the weights of a head then holds for early depths the more. With
    "deviations", the standard deviations over the positions after each stage but the last follow, which tell how
    much it varies within an example (as statistics pooling does for speech, Snyder et al. 2018).
    """

    def __init__(self, backbone: Backbone, way: Way = True) -> None:
        super().__init__()
        self.network, self.way = backbone.module, way
        self.entrances = {depth: entrance(backbone, depth) for depth in range(1, len(backbone.stages))}

    def extra_repr(self) -> str:
        """Part of what the backbone's fingerprint goes by."""
        return {"faded": f"faded {FADED:g}", "deviations": "deviations"}.get(str(self.way), "")

    def forward(self, given: Any) -> torch.Tensor:
        """Joined features of one batch, the shallowest first, the means before the deviations."""
        last, caught = tapped(self.network, given, self.entrances)
        means = [pooled(self.network, caught[depth], given) for depth in self.entrances]
        every = [*means, last]
        if self.way == "deviations":
            every += [
                spread(self.network, caught[depth], given, mean)
                for depth, mean in zip(self.entrances, means, strict=True)
            ]
        every = [nn.functional.normalize(values, dim=1) for values in every]
        if self.way == "faded":
            every = [values * share for values, share in zip(every, shares(len(every)), strict=True)]
        return torch.cat(every, dim=1)


def shares(depths: int) -> list[float]:
    """How long each depth is where early ones count less, the shallowest first."""
    return [FADED**later for later in reversed(range(depths))]


def widths_of(backbone: Backbone) -> list[int]:
    """The width of the features at each depth of a backbone that is not joined, the shallowest first."""
    device, depths = next(backbone.module.parameters()).device, tuple(range(1, len(backbone.stages)))
    training = backbone.module.training
    with torch.no_grad():
        drawn = tensors(backbone.preprocess.blank(1), device)
        last, *shallow = Tapped(backbone, depths).to(device).eval()(drawn)
    backbone.module.train(training)
    return [values.shape[1] for values in (*shallow, last)]


def joined(backbone: Backbone, way: Way = True) -> Backbone:
    """A backbone whose features are those of all its depths, by this way of joining them (see `Joined`); it shares
    its network with the given one. Raises ValueError where it has a single stage.
    """
    if len(backbone.stages) < 2:
        raise ValueError("it has a single stage: there is nothing to join")
    module = Joined(backbone, way)
    return replace(
        backbone,
        module=module,
        stages=tuple(_within(stage) for stage in backbone.stages),
        width=measured_width(module, backbone.preprocess),
        classifier="",
        join=way,
    )


def _within(stage: Stage) -> Stage:
    return Stage(
        stage.name,
        tuple(f"network.{name}" for name in stage.parameters),
        tuple(f"network.{name}" for name in stage.modules),
    )
