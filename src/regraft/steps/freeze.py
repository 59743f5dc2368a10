"""Step 3: which parameters may move."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from regraft.backbones import Backbone
from regraft.steps.context import Context
from regraft.training import FreezePlan, add_adapters, plan_freeze


def freeze(backbone: Backbone, context: Context) -> FreezePlan | None:
    """The plan for fine-tuning; None where strategies will be tried against each other. Until then
    everything is frozen.
    """
    recipe = context.recipe.freeze
    if recipe.strategy == "auto":
        context.decide(
            "freeze", "strategies are tried against each other in step 6", "auto; all are frozen until then"
        )
        return None
    plan, moving = planned(backbone, recipe.strategy, recipe.norm_statistics)
    everything = sum(p.numel() for p in backbone.module.parameters())
    context.decide(
        "freeze",
        f"{plan.strategy}: {moving:,} of {everything:,} backbone parameters released when fine-tuning",
        f"all are frozen while the head is trained; running norm statistics stay {recipe.norm_statistics}",
        trainable=moving,
        released_of_each_stage=released(backbone, plan, moving / everything),
    )
    return plan


def released(backbone: Backbone, plan: FreezePlan, adapters: float) -> list[float]:
    """The share of each stage's parameters that may move; `adapters` lie in all stages and have names of
    their own.
    """
    sizes = {name: p.numel() for name, p in backbone.module.named_parameters()}
    shares = []
    for stage in backbone.stages:
        whole = sum(sizes[name] for name in stage.parameters)
        share = sum(sizes[name] for name in stage.parameters if name in plan.trainable) / max(1, whole)
        shares.append(round(adapters if plan.strategy == "lora" else share, 4))
    return shares


def planned(
    backbone: Backbone, strategy: str | Sequence[str], norm_statistics: str
) -> tuple[FreezePlan, int]:
    """The plan of a strategy and how many parameters it lets move; the backbone stays as it is.

    Raises UsageError for a strategy the backbone does not take, or whose library is not installed.
    """
    module = backbone.module
    if strategy == "lora":
        module = copy.deepcopy(module)
        add_adapters(module)
    plan = plan_freeze(module, backbone.stages, strategy, norm_statistics)
    return plan, sum(p.numel() for name, p in module.named_parameters() if name in plan.trainable)
