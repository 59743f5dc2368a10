"""Features of all depths of a network, joined: what the early stages know is not in the last one (Head2Toe,
Evci et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regraft.backbones.base import Backbone, Stage, measured_width
from regraft.backbones.taps import entrance, pooled, tapped


class Joined(nn.Module):
    """What a network takes to (B, sum of the depths' channels): its features after each stage, pooled, and at
    the end, those of each depth divided by their length, so that none drowns the others.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.network = backbone.module
        self.entrances = {depth: entrance(backbone, depth) for depth in range(1, len(backbone.stages))}

    def forward(self, given: Any) -> torch.Tensor:
        """Joined features of one batch, the shallowest first."""
        last, caught = tapped(self.network, given, self.entrances)
        every = [*(pooled(self.network, caught[depth], given) for depth in self.entrances), last]
        return torch.cat([nn.functional.normalize(values, dim=1) for values in every], dim=1)


def joined(backbone: Backbone) -> Backbone:
    """A backbone whose features are those of all its depths; it shares its network with the given one. Raises
    ValueError where it has a single stage.
    """
    if len(backbone.stages) < 2:
        raise ValueError("it has a single stage: there is nothing to join")
    module = Joined(backbone)
    return replace(
        backbone,
        module=module,
        stages=tuple(_within(stage) for stage in backbone.stages),
        width=measured_width(module, backbone.preprocess),
        classifier="",
        join=True,
    )


def _within(stage: Stage) -> Stage:
    return Stage(
        stage.name,
        tuple(f"network.{name}" for name in stage.parameters),
        tuple(f"network.{name}" for name in stage.modules),
    )
