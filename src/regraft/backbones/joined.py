"""Features of all depths of a network, joined: what the early stages know is not in the last one (Head2Toe,
Evci et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regraft.backbones.base import Backbone, Stage, measured_width
from regraft.backbones.taps import entrance, pooled, spread, tapped


class Joined(nn.Module):
    """What a network takes to (B, sum of the depths' channels): its features after each stage, pooled, and at
    the end, those of each depth divided by their length, so that none drowns the others. With `deviations`,
    the standard deviations over the positions after each stage but the last follow, which tell how much it
    varies within an example (as statistics pooling does for speech, Snyder et al. 2018).
    """

    def __init__(self, backbone: Backbone, deviations: bool = False) -> None:
        super().__init__()
        self.network, self.deviations = backbone.module, deviations
        self.entrances = {depth: entrance(backbone, depth) for depth in range(1, len(backbone.stages))}

    def extra_repr(self) -> str:
        """Part of what the backbone's fingerprint goes by."""
        return "deviations" if self.deviations else ""

    def forward(self, given: Any) -> torch.Tensor:
        """Joined features of one batch, the shallowest first, the means before the deviations."""
        last, caught = tapped(self.network, given, self.entrances)
        means = [pooled(self.network, caught[depth], given) for depth in self.entrances]
        every = [*means, last]
        if self.deviations:
            every += [
                spread(self.network, caught[depth], given, mean)
                for depth, mean in zip(self.entrances, means, strict=True)
            ]
        return torch.cat([nn.functional.normalize(values, dim=1) for values in every], dim=1)


def joined(backbone: Backbone, deviations: bool = False) -> Backbone:
    """A backbone whose features are those of all its depths, with standard deviations beside the means where
    these are asked for; it shares its network with the given one. Raises ValueError where it has a single
    stage.
    """
    if len(backbone.stages) < 2:
        raise ValueError("it has a single stage: there is nothing to join")
    module = Joined(backbone, deviations)
    return replace(
        backbone,
        module=module,
        stages=tuple(_within(stage) for stage in backbone.stages),
        width=measured_width(module, backbone.preprocess),
        classifier="",
        join="deviations" if deviations else True,
    )


def _within(stage: Stage) -> Stage:
    return Stage(
        stage.name,
        tuple(f"network.{name}" for name in stage.parameters),
        tuple(f"network.{name}" for name in stage.modules),
    )
