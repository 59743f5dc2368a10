"""Images' settings by rule from the data: the input size, and what suits fine-tuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from regraft.modalities import BY_USER, Suited
from regraft.modalities.image.augment import Augment
from regraft.modalities.image.levels import levels_in
from regraft.modalities.image.preprocess import ImagePreprocess
from regraft.modalities.image.reading import STANDARD
from regraft.recipe import Auto, Section, Share

SIZES = range(32, 4_097)  # pixels a side that a user may name
SMALLEST_SIZE = 64
ENLARGED = 4  # times their short side that small images are enlarged
# Image passes at native size that a CPU is asked for: about a quarter of an hour on two cores
PASSES = 20_000
CHIRAL = 0.75  # share of pairs whose mirror image is found out


def short_sides(facts: pa.Table) -> np.ndarray:
    """(N,) pixels of the shorter sides."""
    return np.asarray(np.minimum(facts["width"].to_numpy(), facts["height"].to_numpy()))


def preprocess(
    config: dict[str, Any], native: int, facts: pa.Table | None, size: int | None, cpu: bool
) -> tuple[ImagePreprocess, str]:
    """The weights' own preprocessing (timm's `config`), with an input size and levels that suit a set, and
    why it has that size.

    Images smaller than the input have no border to spare: of them the centre crop takes the whole short
    side.
    """
    why, upscaled = BY_USER, False
    if facts is None:
        size, why = size or native, why if size else "it is the weights' own"
    else:
        short = short_sides(facts)
        if size is None:
            size, why = input_size(native, bool(config.get("fixed_input_size")), short, len(short), cpu)
        upscaled = is_upscaled(short, size)
    made = ImagePreprocess(
        size=size,
        crop=1.0 if upscaled else float(config.get("crop_pct") or 0.875),
        interpolation=str(config.get("interpolation") or "bicubic"),
        mean=tuple(float(v) for v in config["mean"]),  # type: ignore[arg-type]
        std=tuple(float(v) for v in config["std"]),  # type: ignore[arg-type]
        levels=STANDARD if facts is None else levels_in(facts),
    )
    return made, why


def input_size(native: int, fixed: bool, short_sides: np.ndarray, images: int, cpu: bool) -> tuple[int, str]:
    """The size and why: four times the images' median short side, from 64 to native, lower where a CPU
    would take too long.

    Small pictures gain from enlarging (a stride-32 network sees 2x2 cells of a 64-pixel input) but hold no
    detail worth the native size. Multiples of 32 keep the grid whole.
    """
    if fixed:
        return native, "the network takes its native size only"
    median = float(np.median(short_sides))
    wanted = int(min(native, max(SMALLEST_SIZE, 32 * round(ENLARGED * median / 32))))
    why = f"images are {median:.0f} pixels on the short side"
    why += "" if wanted == native else f", enlarged {wanted / median:.3g} times"
    if cpu:
        while wanted > 128 and images * 8 * (wanted / native) ** 2 > PASSES:
            wanted = max(128, wanted - 32)
            why = f"{images} images at more would take a CPU too long"
    return wanted, why


def is_upscaled(short_sides: np.ndarray, size: int) -> bool:
    """True if most images are smaller than the input: they have no border to crop."""
    return float(np.median(short_sides)) < size


class ImageAugment(Section):
    """How images are varied in training."""

    mirror: bool | Auto = Field(
        "auto", description="mirror images; auto: unless a probe can tell them from the data"
    )
    crop_scale: Share | Auto = Field(
        "auto",
        description="smallest share a random crop keeps; auto: 0.5, or 0.8 where images are below input size",
    )
    colour: float = Field(0.2, ge=0, lt=1, description="range of random brightness and contrast")


def settings(facts: pa.Table, size: int) -> Suited:
    """What suits fine-tuning on images with these facts at this input size."""
    short = short_sides(facts)
    rate, decay = rates(short, size)
    return Suited(rate, decay, {"crop_scale": crop_scale(short, size)})


def views(augment: ImageAugment) -> Augment:
    """The augmentation by its settled settings."""
    return Augment(float(augment.crop_scale), augment.mirror is True, augment.colour)


def crop_scale(short_sides: np.ndarray, size: int) -> float:
    """The smallest share a random crop keeps: half of a photograph, more of images smaller than the input.

    Those are framed closely, as scans and icons are (measured in docs/decisions.md).
    """
    return 0.8 if float(np.median(short_sides)) < size else 0.5


def rates(short_sides: np.ndarray, size: int) -> tuple[float, float]:
    """AdamW's peak rate, and its decay a layer towards the input: gentle with photographs, as they were in
    pre-training.

    Smaller, enlarged images look unlike anything the first layers have learnt, so these move as far as the last
    ones (measured in docs/decisions.md).
    """
    return (5e-4, 1.0) if float(np.median(short_sides)) < size else (2e-4, 0.8)


def mirror_allowed(plain: np.ndarray, mirrored: np.ndarray) -> tuple[bool, str]:
    """Whether mirror images look like the data, and that in words, by (N, D) features of images and of
    their mirror images.

    A linear map is asked which of each pair was mirrored (ridge regression on the differences, leave one
    out): visual chirality (Lin et al. 2020). Where it knows in three cases of four, as with writing and
    signs, mirror images do not occur. What it finds on eight sets stands in docs/decisions.md.
    """
    difference = plain.astype(np.float64) - mirrored
    difference /= np.sqrt((difference**2).mean(axis=0)) + 1e-6
    kernel = difference @ difference.T
    inverse = np.linalg.inv(kernel + (np.trace(kernel) / len(kernel) + 1e-9) * np.eye(len(kernel)))
    known = float((1 - inverse.sum(axis=1) / np.diag(inverse) > 0).mean())
    used = "used" if known < CHIRAL else "not used"
    return (
        known < CHIRAL,
        f"mirror images are {used} in training: a probe tells them apart in {known:.0%} of pairs (by chance in 50%)",
    )
