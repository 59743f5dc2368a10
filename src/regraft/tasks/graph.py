"""What of reading a model's outputs is part of an exported graph."""

from __future__ import annotations

import torch
from torch import nn


class CalibratedSoftmax(nn.Module):
    """(B, K) logits to (B, K) probabilities, at a temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """The probabilities of one batch."""
        return torch.softmax(logits / self.temperature, dim=1)


class CalibratedSigmoid(nn.Module):
    """(B, K) logits to (B, K) probabilities, each label at a temperature of its own."""

    temperatures: torch.Tensor

    def __init__(self, temperatures: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("temperatures", torch.tensor(temperatures, dtype=torch.float32))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """The probabilities of one batch."""
        return torch.sigmoid(logits / self.temperatures)


class Scaled(nn.Module):
    """(B, K) outputs to (B, K) numbers in their own units."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: tuple[float, ...], scale: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """The numbers of one batch."""
        return outputs * self.scale + self.mean
