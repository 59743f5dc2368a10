"""Engines: the fastest right way to run a frozen backbone over batches. PyTorch eager is the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from regraft.backbones import Backbone
from regraft.backbones.normalise import Normalise


class TorchEngine:
    """Eager PyTorch in float32, channels last, in inference mode."""

    def __init__(self, backbone: Backbone, device: torch.device, batch: int = 32) -> None:
        self.device, self.batch = device, batch
        normalise = Normalise(backbone.preprocess.mean, backbone.preprocess.std)
        self.module = nn.Sequential(normalise, backbone.module).to(device)
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.numerics = f"torch-{torch.__version__}-float32-{device.type}-channels_last-b{batch}"

    def run(self, images: np.ndarray) -> np.ndarray:
        """(B, size, size, 3) uint8 to (B, width) float32. The batch is padded to its static shape."""
        given = len(images)
        if given < self.batch:
            images = np.concatenate([images, np.repeat(images[-1:], self.batch - given, axis=0)])
        self.module.eval()
        with torch.inference_mode():
            features = self.module(torch.from_numpy(images).to(self.device))
        return features[:given].float().cpu().numpy()  # type: ignore[no-any-return]
