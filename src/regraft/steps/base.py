"""Step 2: the base model, the input size it is used at, and how many of its stages."""

from __future__ import annotations

import pyarrow as pa

from regraft.backbones import Backbone, Obtained, make_base, truncated
from regraft.errors import UsageError
from regraft.steps.context import Context


def base(obtained: Obtained, facts: pa.Table, context: Context) -> Backbone:
    """The backbone without its classifier. `facts` are the modality's facts of train and val."""
    recipe, native = context.recipe.base, obtained.provenance.input_size
    named = None if recipe.size == "auto" else int(recipe.size)
    preprocess, why = context.modality.preprocess(
        obtained.config, native, facts, named, context.device.type == "cpu"
    )
    size = recipe.size = preprocess.size
    backbone = make_base(obtained, preprocess)
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
