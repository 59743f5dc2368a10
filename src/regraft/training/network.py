"""The network that is fine-tuned: normalisation, backbone and head in one module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from regraft.backbones import Backbone, Suffix
from regraft.crew import Crew
from regraft.tasks import Task
from regraft.training.linear import fit_linear


@dataclass(frozen=True)
class Layers:
    """What new layers there could be: "linear", or "mlp" with a hidden layer of that width; dropout before
    the last layer.
    """

    kind: Literal["linear", "mlp"]
    hidden: int = 0
    dropout: float = 0.0

    def parameters(self, width: int, classes: int) -> int:
        """How many are trained, on `width` features."""
        return (
            (width + 1) * classes
            if self.kind == "linear"
            else (width + 1) * self.hidden + (self.hidden + 1) * classes
        )

    def __str__(self) -> str:
        drop = f", dropout {self.dropout:g}" if self.dropout else ""
        return self.kind + drop if self.kind == "linear" else f"MLP of {self.hidden}{drop}"


def make_head(kind: str, width: int, classes: int, hidden: int = 512, dropout: float = 0.0) -> nn.Sequential:
    """(B, width) features to (B, classes) logits: a linear layer, or an MLP with one hidden layer.

    Neither normalises: the scaling of the features in training is folded into the first layer, so what is
    predicted for an example does not depend on others, nor on whether the module is in training.
    """
    if kind == "linear":
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def linear_head(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    task: Task,
    l2: float,
    dropout: float = 0.0,
    start: nn.Sequential | None = None,
    crew: Crew | None = None,
) -> nn.Sequential:
    """A linear head fitted to convergence on (N, D) features, (N, ...) targets and (N,) weights; `start`, a
    head of similar data. The workers of a `crew` hold features that are large.
    """
    begin = None
    if start is not None:
        begin = start[-1].weight.detach().numpy(), start[-1].bias.detach().numpy()  # type: ignore[operator]
    weight, bias = fit_linear(features, targets, weights, task, l2, start=begin, crew=crew)
    last = nn.Linear(features.shape[1], task.outputs)
    last.weight.data.copy_(torch.from_numpy(weight))
    last.bias.data.copy_(torch.from_numpy(bias))
    return nn.Sequential(nn.Dropout(dropout), last).eval()


ACTIVATION = "activation"  # its name beside the arrays of a batch


class Network(nn.Module):
    """A batch of B examples to (B, outputs); with `suffix`, from their activations at its cut instead: these
    alone, or beside the batch, by the name ACTIVATION.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, suffix: Suffix | None = None) -> None:
        super().__init__()
        self.prepare = backbone.preprocess.device()
        self.backbone = backbone.module
        self.head = head
        self.suffix = suffix

    def forward(self, given: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
        """The outputs of one batch."""
        if self.suffix is None:
            features = self.backbone(self.prepare(given))
        elif isinstance(given, dict):
            batch = {name: tensor for name, tensor in given.items() if name != ACTIVATION}
            features = self.suffix(given[ACTIVATION], batch)
        else:
            features = self.suffix(given)
        return self.head(features)  # type: ignore[no-any-return]
