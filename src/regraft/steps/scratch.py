"""A baseline on request: the same network from random weights, to see what pre-training is worth."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from regraft.backbones import Backbone, build, cut_short, cut_stages, joined
from regraft.data.part import Part
from regraft.steps.context import Context
from regraft.steps.finetune.rules import Tuning, length
from regraft.steps.finetune.tune import Tuner
from regraft.tasks import Task
from regraft.training import make_head, plan_freeze

LONGER = 2  # nothing is known yet, so training goes on for twice the epochs of fine-tuning
RATE = 1e-3  # AdamW's usual peak for a network that starts from nothing


def from_scratch(
    backbone: Backbone, data: Part, task: Task, context: Context
) -> tuple[Backbone, nn.Module] | None:
    """The network of `backbone` and a linear head, trained from random weights on all of `data`; None where
    time is short.

    Everything moves, norm statistics too, at one rate for all layers; augmentation and batches are those of
    fine-tuning. Raises KeyboardInterrupt when the user stops it: half a training is no baseline.
    """
    torch.manual_seed(context.recipe.run.seed)
    module = build(backbone.architecture, 0, backbone.config)
    if backbone.depth is not None:
        cut_short(module, backbone.depth)
    empty = replace(backbone, module=module.eval(), stages=cut_stages(module), join=False)
    empty = joined(empty, backbone.join) if backbone.join else empty
    plan = plan_freeze(empty.module, empty.stages, "full", "moving")
    own = {
        "epochs": LONGER * length(len(data.items), backbone.preprocess.size),
        "lr": RATE,
        "layer_decay": 1.0,
        "interpolation": 1.0,
        "precision": "auto",
    }
    merged = context.decisions.merged(context.recipe)
    augment = context.modality.augmentation(**merged.augment)
    tuning = Tuning.of(merged.finetune, augment, merged.train.class_weights, **own)
    tuner = Tuner(empty, plan, tuning, task)
    head = make_head("linear", backbone.width, task.outputs)
    tuned = tuner.fit(head, data, None, context.trial(), context.keeper.checkpoint("scratch"))
    if tuned.interrupted:
        raise KeyboardInterrupt
    return None if tuned.trained.stopped == "budget" else (tuned.backbone, tuned.head)
