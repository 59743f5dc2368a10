"""A baseline on request: the same network from random weights, to see what pre-training is worth."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from regraft.backbones import Backbone, build, cut_short, cut_stages
from regraft.steps.context import Context
from regraft.steps.finetune.prefix import Data
from regraft.steps.finetune.rules import length
from regraft.steps.finetune.tune import finetune
from regraft.training import Checkpoint, make_head, plan_freeze

LONGER = 2  # nothing is known yet, so training goes on for twice the epochs of fine-tuning
RATE = 1e-3  # AdamW's usual peak for a network that starts from nothing


def from_scratch(
    backbone: Backbone, data: Data, classes: int, context: Context, checkpoint: Checkpoint
) -> tuple[Backbone, nn.Module] | None:
    """The network of `backbone` and a linear head, trained from random weights on all of `data`; None where
    time is short.

    Everything moves, norm statistics too, at one rate for all layers; augmentation, batches and precision are
    those of fine-tuning. Raises KeyboardInterrupt when the user stops it: half a training is no baseline.
    """
    trial = context.trial()
    recipe = trial.recipe.finetune
    trial.recipe.freeze.strategy, trial.recipe.freeze.norm_statistics = "full", "moving"
    torch.manual_seed(context.recipe.run.seed)
    module = build(backbone.architecture, 0, backbone.config)
    if backbone.depth is not None:
        cut_short(module, backbone.depth)
    empty = replace(backbone, module=module.eval(), stages=cut_stages(module))
    recipe.epochs = LONGER * length(len(data.items), backbone.preprocess.size)
    recipe.lr, recipe.layer_decay, recipe.interpolation, recipe.precision = RATE, 1.0, 1.0, "auto"
    found = finetune(
        empty,
        plan_freeze(module, empty.stages, "full", "moving"),
        make_head("linear", backbone.width, classes),
        data,
        None,
        trial,
        checkpoint=checkpoint,
    )
    if found is not None and found.trained.stopped == "interrupted":
        raise KeyboardInterrupt
    return None if found is None or found.trained.stopped == "budget" else (found.backbone, found.head)
