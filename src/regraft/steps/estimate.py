"""What a whole run would take on this machine, from what an image's forward pass and training step take
here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from regraft.backbones import Backbone, pick_arithmetic, seconds_a_step, tensors
from regraft.modalities import Suited
from regraft.recipe import Recipe
from regraft.steps.finetune.rules import batch_size, folds, learns_again, length, trainings
from regraft.training import FreezePlan, Network, make_head, plan_freeze

# Images: on a CPU an image of a batch of 8 takes what one of 32 does, and the trial is a quarter as long
SMALL = 8
TRIES = 2.5  # trainings' worth that strategies against each other take


def usual_plan(backbone: Backbone, recipe: Recipe) -> FreezePlan:
    """What moves in a training step; where strategies are tried against each other, or adapters added, as
    if all did.

    Raises UsageError for a strategy the backbone does not take.
    """
    strategy = "full" if recipe.freeze.strategy in ("auto", "lora") else recipe.freeze.strategy
    return plan_freeze(backbone.module, backbone.stages, strategy, recipe.freeze.norm_statistics)


def epochs_of(recipe: Recipe, counts: Mapping[str, int], size: int, suited: Suited | None = None) -> int:
    """The epochs of fine-tuning that step 6 would take; those that are usual where what is `suited` to the
    modality's examples is not known.
    """
    if recipe.finetune.epochs != "auto":
        return int(recipe.finetune.epochs)
    judged = counts["val"] or recipe.freeze.strategy != "auto"  # strategies are compared on val only
    usual = (suited and suited.epochs) or length(counts["train"], size)
    return usual if recipe.freeze.strategy != "head" and judged else 0


def step_seconds(
    backbone: Backbone, counts: Mapping[str, int], classes: int, recipe: Recipe, device: torch.device
) -> float:
    """Seconds an image of a training step on the device, measured on a copy, in the precision that training
    would take.
    """
    wanted = recipe.finetune.batch_size
    batch = min(batch_size(counts["train"]) if wanted == "auto" else wanted, counts["train"])
    batch = min(batch, SMALL) if device.type == "cpu" else batch
    network = Network(copy.deepcopy(backbone), make_head("linear", backbone.width, classes))
    usual_plan(backbone, recipe).apply(network.backbone)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = tensors(backbone.preprocess.blank(batch), device)
    arithmetic, speed = pick_arithmetic(network.train(), inputs, recipe.finetune.precision)
    if speed:
        return 1 / speed[arithmetic.precision]
    return seconds_a_step(network, inputs, arithmetic) / batch


def run_seconds(
    recipe: Recipe,
    counts: Mapping[str, int],
    size: int,
    forward: float,
    step: float,
    suited: Suited | None = None,
) -> float:
    """Seconds of the run at an input `size`, from seconds an example of a forward pass and of a training
    step; as is usual where what is `suited` to the modality's examples is not known.

    Under `data.folds` those of all walks: features are computed once, a fold trains on all examples but its
    own.
    """
    k = recipe.data.folds
    of_fold = {split: round(n * (k - 1) / k) for split, n in counts.items()} if k else {}
    rest = size, forward, step, suited
    training = k * _training_seconds(recipe, of_fold, *rest) if k else 0.0
    return 1.2 * forward * sum(counts.values()) + training + _training_seconds(recipe, counts, *rest)


def _training_seconds(
    recipe: Recipe, counts: Mapping[str, int], size: int, forward: float, step: float, suited: Suited | None
) -> float:
    """Seconds of fine-tuning in one walk, with what judges it."""
    both = counts["train"] + counts["val"]
    refit, _ = learns_again(recipe.finetune, recipe.run.prefer, both, suited)
    unhurried = recipe.run.budget_seconds is None and recipe.run.prefer == "accuracy"
    parts = (
        folds(counts["train"], counts["val"], unhurried)
        if recipe.finetune.folds == "auto"
        else recipe.finetune.folds
    )
    tries = TRIES + refit if recipe.freeze.strategy == "auto" else trainings(both, parts, refit)
    epoch = 1.1 * step * counts["train"] + forward * counts["val"]
    return tries * epochs_of(recipe, counts, size, suited) * epoch
