"""Augmentation of images in training: each draw depends on the generator given only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


@dataclass(frozen=True)
class Augment:
    """Random resized crop (Szegedy et al. 2015), mirror image, brightness and contrast; before normalising."""

    scale: float
    mirror: bool
    colour: float

    def __call__(
        self, image: Image.Image, size: int, resample: Image.Resampling, rng: np.random.Generator
    ) -> np.ndarray:
        """(size, size, 3) uint8; the draw depends on `rng` only."""
        width, height = image.size
        area = width * height * rng.uniform(self.scale, 1.0)
        ratio = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
        wide, high = min(width, float(np.sqrt(area * ratio))), min(height, float(np.sqrt(area / ratio)))
        left, top = rng.uniform(0, width - wide + 1e-9), rng.uniform(0, height - high + 1e-9)
        box = (left, top, min(left + wide, width), min(top + high, height))
        crop = image.resize((size, size), resample, box=box)
        if rng.random() < 0.5 and self.mirror:
            crop = ImageOps.mirror(crop)
        if self.colour:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast):
                crop = enhance(crop).enhance(rng.uniform(1 - self.colour, 1 + self.colour))
        return np.asarray(crop)
