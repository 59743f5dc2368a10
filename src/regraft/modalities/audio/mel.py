"""Log-mel frames as a module, which is traced and exported with a network: a convolution with fixed bases in
place of a Fourier transform, so that every engine takes it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

RATE = 16_000  # Hz of what a network is given
WIDE, HOP = 400, 160  # samples of a frame, and from one to the next: 25 and 10 ms
RANGE = 8.0  # powers of ten below the loudest place of a clip, at which its frames are cut off
QUIET = 1e-10  # the least power


class LogMel(nn.Module):
    """A batch's `samples` (B, L) float32 and `lengths` (B,) whole numbers to (B, mels, L / HOP) logarithms of
    power (base 10), RANGE below the loudest place of each at the least, and (B, 1, L / HOP): 1 where a frame
    begins before the end of its sound.

    Frames are those of Whisper's feature extractor: Hann windows, the beginning mirrored, silence after the
    end. They do not depend on how far a batch is padded.
    """

    bases: torch.Tensor
    filters: torch.Tensor
    mirrored: torch.Tensor

    def __init__(self, mels: int) -> None:
        super().__init__()
        turns = 2 * np.pi * np.outer(np.arange(WIDE // 2 + 1), np.arange(WIDE)) / WIDE
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WIDE) / WIDE)
        bases = np.concatenate([np.cos(turns), np.sin(turns)]) * window
        self.register_buffer("bases", torch.from_numpy(bases).float().unsqueeze(1), persistent=False)
        filters = torch.from_numpy(slaney(mels)).float().unsqueeze(2)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("mirrored", torch.arange(WIDE // 2, 0, -1), persistent=False)

    def frames(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logarithms and truths of one batch, in float32 whatever is the precision around."""
        samples, lengths = batch["samples"], batch["lengths"]
        with torch.autocast(samples.device.type, enabled=False):
            around = torch.cat([samples[:, self.mirrored], samples], dim=1).float()
            around = nn.functional.pad(around, (0, WIDE // 2 - HOP)).unsqueeze(1)
            parts = nn.functional.conv1d(around, self.bases, stride=HOP)
            half = WIDE // 2 + 1
            power = parts[:, :half] ** 2 + parts[:, half:] ** 2
            mel = nn.functional.conv1d(power, self.filters)
            logs = mel.clamp(min=QUIET).log10()
            logs = torch.maximum(logs, logs.amax(dim=(1, 2), keepdim=True) - RANGE)
            places = torch.arange(logs.shape[2], device=logs.device) * HOP
            there = (places.unsqueeze(0) < lengths.unsqueeze(1)).float().unsqueeze(1)
        return logs, there


class Frames(LogMel):
    """The same scaled as Whisper takes it, (B, mels + 1, T), the truths as the last row."""

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Frames of one batch."""
        logs, there = self.frames(batch)
        return torch.cat([(logs + 4) / 4, there], dim=1)


class Picture(LogMel):
    """The same as a picture for networks of images, (B, 3, mels, T): black RANGE below the loudest place,
    white there; low tones above. `mean` and `std` are the network's own, in units of 0 to 1.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mels)
        deviation = torch.tensor(std)
        self.register_buffer("scale", (1 / deviation).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / deviation).view(1, -1, 1, 1), persistent=False)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Pictures of one batch."""
        logs, _ = self.frames(batch)
        grey = (logs - logs.amax(dim=(1, 2), keepdim=True)) / RANGE + 1
        return grey.unsqueeze(1) * self.scale + self.shift


def slaney(mels: int) -> np.ndarray:
    """(mels, WIDE / 2 + 1) float64 triangular filters up to half of RATE, each of the same area, on Slaney's
    mel scale (1998): linear up to 1,000 Hz, logarithmic above.
    """
    step, knee = 200 / 3, 1_000.0
    base, growth = knee / step, np.log(6.4) / 27
    top = base + np.log(RATE / 2 / knee) / growth
    places = np.linspace(0, top, mels + 2)
    edges = np.where(places < base, step * places, knee * np.exp(growth * (places - base)))
    tones = np.linspace(0, RATE / 2, WIDE // 2 + 1)
    rising = (tones - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - tones) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(filters * (2 / (edges[2:] - edges[:-2]))[:, None])
