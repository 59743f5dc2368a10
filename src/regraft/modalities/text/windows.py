"""Windows of long texts, cut apart on the network's device."""

from __future__ import annotations

import torch
from torch import nn


class Windows(nn.Module):
    """{"ids": (B, L), "mask": (B, L)} to the same of (B, windows, places): one window of what has no more than
    `size` places, else L / size. Traced and exported with the network, it takes any L.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The windows of one batch."""
        examples, length = batch["ids"].shape
        count = (length + self.size - 1) // self.size
        return {name: batch[name].reshape(examples, count, length // count) for name in ("ids", "mask")}
