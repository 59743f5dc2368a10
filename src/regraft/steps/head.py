"""Step 4: the few new layers."""

from __future__ import annotations

from regraft.recipe import HeadRecipe
from regraft.steps.context import Context
from regraft.tasks import Task, counted
from regraft.training import Layers

WIDTHS = {128: 1_000, 512: 5_000}  # width of an MLP's hidden layer: examples from which on it is worth asking
DROPOUT = 0.3


def options(recipe: HeadRecipe, examples: int) -> tuple[Layers, ...]:
    """The new layers that the recipe allows, the simplest first. An MLP is among them where it may gain, or
    where it is named.

    An MLP is asked from so many examples on as it was better than the linear head on (docs/decisions.md).
    """
    dropout = recipe.dropout
    widths = (
        [width for width, least in WIDTHS.items() if examples >= least]
        if recipe.hidden == "auto"
        else [recipe.hidden]
    )
    if recipe.kind == "mlp" and not widths:
        widths = [min(WIDTHS)]
    linear = Layers("linear", 0, 0.0 if dropout == "auto" else dropout)
    mlps = tuple(Layers("mlp", width, DROPOUT if dropout == "auto" else dropout) for width in widths)
    if recipe.kind == "mlp":
        return mlps
    return (linear, *mlps) if recipe.kind == "auto" and examples >= min(WIDTHS.values()) else (linear,)


def head(width: int, task: Task, examples: int, context: Context) -> tuple[Layers, ...]:
    """What new layers step 5 is to choose from, by predictions on features that there are none of yet."""
    recipe = context.recipe.head
    choices = options(recipe, examples)
    counts = [f"{layers.parameters(width, task.outputs):,}" for layers in choices]
    if len(choices) > 1:
        said = " or ".join(
            f"{layers} ({count} new parameters)" for layers, count in zip(choices, counts, strict=True)
        )
        why = (
            "step 5 compares them by out-of-fold predictions: "
            "the simplest within one standard error of the best is taken"
        )
    else:
        said = f"{choices[0]}, {counts[0]} new parameters"
        why = "few new layers first" if choices[0].kind == "linear" else "the recipe names it"
        why += (
            f"; of fewer than {min(WIDTHS.values()):,} examples an MLP has learnt no more"
            if recipe.kind == "auto"
            else ""
        )
    context.decide("head", f"{said} for {counted(task.noun, max(task.outputs, len(task.classes)))}", why)
    return choices
