"""Step 1: obtain a pre-trained model."""

from __future__ import annotations

from regraft.backbones import Obtained, obtain_weights
from regraft.backbones.sources import DEFAULT
from regraft.steps.context import Context


def obtain(context: Context) -> Obtained:
    """The pre-trained model the recipe names; "auto" takes the packaged one."""
    recipe = context.recipe.obtain
    auto = recipe.backbone == "auto"
    if auto:
        recipe.backbone = DEFAULT
    found = obtain_weights(recipe.backbone, context.recipe.run.offline)
    p = found.provenance
    context.decide(
        "obtain", f"{p.id}: {p.parameters / 1e6:.1f} M parameters, {p.licence}",
        "it is at hand and needs no network" if auto else "the user named it", sha256=p.sha256, source=p.source,
    )  # fmt: skip
    return found
