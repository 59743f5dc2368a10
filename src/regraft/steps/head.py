"""Step 4: the few new layers."""

from __future__ import annotations

from torch import nn

from regraft.steps.context import Context
from regraft.training import make_head


def head(width: int, classes: int, context: Context) -> nn.Module:
    """An untrained head."""
    recipe = context.recipe.head
    module = make_head(recipe.kind, width, classes, recipe.hidden, recipe.dropout)
    count = sum(p.numel() for p in module.parameters())
    why = "few new layers first" if recipe.kind == "linear" else "the user named it"
    context.decide("head", f"{recipe.kind}, {count:,} new parameters for {classes} classes", why)
    return module
