"""Step 2: the base model, the input size it is used at, and how many of its stages."""

from __future__ import annotations

import numpy as np

from regraft.backbones import Backbone, Obtained, make_base, truncated
from regraft.errors import UsageError
from regraft.steps.context import Context

LEAST = 64
ENLARGED = 4  # times their short side that small images are enlarged
PASSES = (
    20_000  # image passes at native size that a CPU is asked for: about a quarter of an hour on two cores
)


def input_size(native: int, fixed: bool, short_sides: np.ndarray, images: int, cpu: bool) -> tuple[int, str]:
    """The size and why: four times the images' median short side, from 64 to native, lower where a CPU would
    take too long.

    Small pictures gain from enlarging (a stride-32 network sees 2x2 cells of a 64-pixel input) but hold no
    detail worth the native size. Multiples of 32 keep the grid whole.
    """
    if fixed:
        return native, "the network takes its native size only"
    median = float(np.median(short_sides))
    wanted = int(min(native, max(LEAST, 32 * round(ENLARGED * median / 32))))
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


def base(obtained: Obtained, sizes: np.ndarray, context: Context) -> Backbone:
    """The backbone without its classifier. `sizes` (N, 2) are the images' widths and heights."""
    recipe, native = context.recipe.base, obtained.provenance.input_size
    short = sizes.min(axis=1)
    why = "the user named it"
    if recipe.size == "auto":
        fixed = bool(obtained.config.get("fixed_input_size"))
        size, why = input_size(native, fixed, short, len(sizes), context.device.type == "cpu")
        recipe.size = size
    size = int(recipe.size)
    backbone = make_base(obtained, size, is_upscaled(short, size), context.levels)
    whole = len(backbone.stages)
    depth = recipe.depth = whole if recipe.depth == "auto" else int(recipe.depth)
    if depth > whole:
        raise UsageError(f"base.depth is {depth}, and {obtained.provenance.id} has {whole} stages.")
    if depth < whole:
        try:
            backbone = truncated(backbone, depth)
        except ValueError as error:
            raise UsageError(f"base.depth is {depth}: {obtained.provenance.id} {error}.") from None
    names = ", ".join(stage.name for stage in backbone.stages)
    kept = f"{depth} stages" if depth == whole else f"{depth} of {whole} stages"
    context.decide(
        "base",
        f"{kept}, {backbone.width} features, input {size}x{size}",
        why,
        stages=names,
        width=backbone.width,
    )
    return backbone
