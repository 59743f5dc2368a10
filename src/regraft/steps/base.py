"""Step 2: the base model, the input size it is used at, and how many of its stages."""

from __future__ import annotations

import pyarrow as pa

from regraft.backbones import Backbone, Obtained, make_base, truncated
from regraft.errors import UsageError
from regraft.modalities import BY_USER
from regraft.steps.context import Context


def base(
    obtained: Obtained, facts: pa.Table, context: Context, ranked: tuple[int, int] | None = None
) -> Backbone:
    """The backbone without its classifier. `facts` are the modality's facts of train and val.

    `ranked` are the input size and the number of stages that a ranking of several models chose, where there
    was one. What is decided is recorded and not told yet: the parts of step 2 that follow may amend it.
    """
    recipe, native = context.recipe.base, obtained.provenance.input_size
    named = ranked[0] if ranked is not None else None if recipe.size == "auto" else int(recipe.size)
    preprocess, why = context.modality.preprocess(
        obtained.config, native, facts, named, context.device.type == "cpu"
    )
    if ranked is not None:
        why = f"the ranking chose it{why.removeprefix(BY_USER)}"
    size, backbone = preprocess.size, make_base(obtained, preprocess)
    whole = len(backbone.stages)
    depth = whole if recipe.depth == "auto" else int(recipe.depth)
    depth = depth if ranked is None else ranked[1]
    if depth > whole:
        raise UsageError(f"base.depth is {depth}, and {obtained.provenance.id} has {whole} stages.")
    if depth < whole:
        try:
            backbone = truncated(backbone, depth)
        except ValueError as error:
            raise UsageError(f"base.depth is {depth}: {obtained.provenance.id} {error}.") from None
    context.settle("base.size", size, why)
    cut = "the ranking chose it" if ranked is not None else BY_USER
    context.settle("base.depth", depth, "all stages" if depth == whole else cut)
    names = ", ".join(stage.name for stage in backbone.stages)
    kept = f"{depth} stages" if depth == whole else f"{depth} of {whole} stages"
    said = f"{kept}, {backbone.width:,} features, input size {size}"
    context.decisions.decide("base", said, why, {"stages": names, "width": backbone.width})
    return backbone
