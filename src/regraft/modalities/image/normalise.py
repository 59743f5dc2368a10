"""What of the preprocessing of images is part of every graph that is run or exported."""

from __future__ import annotations

import torch
from torch import nn


class Normalise(nn.Module):
    """A batch's `pixels` (B, H, W, 3) uint8 to (B, 3, H, W) float32, channels last in memory: (x / 255 -
    mean) / std.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        deviation = torch.tensor(std)
        self.register_buffer("scale", (1 / (255 * deviation)).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Normalise one batch."""
        return batch["pixels"].permute(0, 3, 1, 2).float() * self.scale + self.shift
