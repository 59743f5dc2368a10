"""Pillow's resizing as a part of a graph: pixels of any height and width, resampled by two matrices.

The graphs of ONNX, OpenVINO and PyTorch have resizing operators, but these agree neither with Pillow nor
with each other. Here the weights of all pixels for all places are computed in the graph itself, by
arithmetic alone, and applied as matrix products, with Pillow's rounding after each pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

FACTORS = (2, 4, 8)  # at which `reading.load_rgb` averages large images before they are resized


class Resize(nn.Module):
    """(B, H, W, 3) uint8 to `pixels` (B, size, size, 3) uint8: the centre square, as
    `ImagePreprocess.host` gives it of an array.

    It goes over the rows first, as Pillow does but for images whose height shrinks by more than twice as
    many pixels as their width: these Pillow takes by columns first, from its version 13 on, so where the
    first pass is clipped at black or white they come out a little differently. What `host` averages before
    it resizes is averaged here by the same weights, without rounding between the two, so single grey levels
    may differ.
    """

    places: torch.Tensor

    def __init__(self, size: int, crop: float, interpolation: str) -> None:
        super().__init__()
        self.size, self.crop, self.least = size, crop, max(1, round(size / crop))
        self.kernel, self.stretched = KERNELS[interpolation], interpolation != "nearest"
        places = torch.arange(size) + 0.5 - size / 2  # of the result's pixels, from its centre
        self.register_buffer("places", places[:, None], persistent=False)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Resize one batch, all of one height and width."""
        height, width = pixels.shape[1], pixels.shape[2]
        short = torch.scalar_tensor(torch.sym_min(height, width), dtype=torch.float32)
        factor = torch.ones(())
        for larger in FACTORS:
            factor = torch.where(short >= larger * 2 * self.least, float(larger), factor)
        scale = torch.ceil(short / factor) * self.crop / self.size
        across, down = self._weights(width, factor, scale), self._weights(height, factor, scale)
        values = pixels.permute(0, 3, 1, 2).float()
        values = _rounded(_rounded(values @ across.T).transpose(2, 3) @ down.T)
        return {"pixels": values.permute(0, 3, 2, 1).to(torch.uint8)}

    def _weights(self, length: int, factor: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """(size, length): what each pixel of a row (or column) counts for each pixel of the result.

        `scale` is how many pixels, averaged by `factor`, make one of the result.
        """
        pixels = torch.arange(length, dtype=torch.float32)
        total = torch.scalar_tensor(length, dtype=torch.float32)
        blocks = torch.floor(pixels / factor)
        members = torch.minimum(total - blocks * factor, factor)  # pixels in each one's block
        centred = blocks + 0.5 - torch.ceil(total / factor) / 2
        distance = centred[None] - self.places * scale
        wide = torch.clamp(scale, min=1.0) if self.stretched else torch.ones(())
        weights = self.kernel(distance / wide) / members
        return weights / weights.sum(dim=1, keepdim=True)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Whole grey levels, halves up, as Pillow rounds."""
    return torch.clamp(torch.floor(values + 0.5), 0.0, 255.0)


def _box(x: torch.Tensor) -> torch.Tensor:
    return ((x > -0.5) & (x <= 0.5)).float()


def _bilinear(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(1 - x.abs(), min=0.0)


def _hamming(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 1, _sinc(x) * (0.54 + 0.46 * torch.cos(math.pi * x)), 0.0)


def _bicubic(x: torch.Tensor) -> torch.Tensor:
    """Keys's kernel with a = -0.5."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, -0.5 * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 3, _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: torch.Tensor) -> torch.Tensor:
    angle = math.pi * x
    safe = torch.where(x == 0, 1.0, angle)
    return torch.where(x == 0, 1.0, torch.sin(safe) / safe)


KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nearest": _box,
    "box": _box,
    "bilinear": _bilinear,
    "hamming": _hamming,
    "bicubic": _bicubic,
    "lanczos": _lanczos,
}
