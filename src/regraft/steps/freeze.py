"""Step 3: which parameters may move."""

from __future__ import annotations

from regraft.backbones import Backbone
from regraft.steps.context import Context
from regraft.training import FreezePlan, plan_freeze


def freeze(backbone: Backbone, context: Context) -> FreezePlan:
    """The plan for fine-tuning; until then everything is frozen."""
    recipe = context.recipe.freeze
    plan = plan_freeze(backbone.module, backbone.stages, recipe.strategy, recipe.norm_statistics)
    sizes = {name: p.numel() for name, p in backbone.module.named_parameters()}
    moving = sum(sizes[name] for name in plan.trainable)
    context.decide(
        "freeze", f"{plan.strategy}: {moving:,} of {sum(sizes.values()):,} backbone parameters released when fine-tuning",
        f"all are frozen while the head is trained; running norm statistics stay {recipe.norm_statistics}",
        trainable=moving,
    )  # fmt: skip
    return plan
