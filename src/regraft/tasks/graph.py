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
