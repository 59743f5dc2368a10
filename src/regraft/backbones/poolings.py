"""How an encoder's tokens become one row of features, where its folder does not say so."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from regraft.backbones.base import Backbone, Stage, measured_width
from regraft.backbones.encoders import PooledEncoder

TRIED = ("mean", "cls")  # the first is taken where nothing tells


class _Every(nn.Module):
    """What an encoder takes to (B, sum of widths): the same states, pooled in several ways."""

    def __init__(self, encoder: PooledEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, given: Any) -> torch.Tensor:
        """Features of one batch by each pooling in turn."""
        states = self.encoder.states(given)
        return torch.cat([self.encoder.pooled(states, given, name) for name in TRIED], dim=1)


def open_poolings(backbone: Backbone) -> tuple[str, ...]:
    """The poolings to choose between; none where the weights say theirs, or are no encoder's."""
    says_nothing = backbone.config.get("pooling") == "" and isinstance(backbone.module, PooledEncoder)
    return TRIED if says_nothing else ()


def every_pooling(backbone: Backbone) -> Backbone:
    """A backbone with the features of all open poolings side by side; it shares its network with the given
    one.
    """
    module = _Every(cast(PooledEncoder, backbone.module))
    stages = tuple(
        Stage(
            stage.name,
            tuple(f"encoder.{name}" for name in stage.parameters),
            tuple(f"encoder.{name}" for name in stage.modules),
        )
        for stage in backbone.stages
    )
    width = measured_width(module, backbone.preprocess)
    return replace(backbone, module=module, stages=stages, width=width)


def pooled_by(backbone: Backbone, pooling: str) -> Backbone:
    """The backbone with this pooling; its config tells of it, so that the weights are loaded with it again."""
    module = copy.copy(backbone.module)
    module.pooling = pooling  # type: ignore[assignment]
    return replace(backbone, module=module, config={**backbone.config, "pooling": pooling})
