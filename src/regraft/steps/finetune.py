"""Step 6: fine-tune the released layers, gently, from the trained head (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.backbones import Backbone
from regraft.errors import RegraftError
from regraft.evaluation import log_losses
from regraft.features import batched, prefetch
from regraft.modalities.image import Augment
from regraft.steps.context import Context
from regraft.training import Batch, FreezePlan, Network, Trained, shuffled, train


@dataclass
class Data:
    """Examples to train on: anything the preprocessing reads, (N,) labels and weights of mean 1."""

    items: tuple[Any, ...]
    labels: np.ndarray
    weights: np.ndarray


@dataclass
class Finetuned:
    """The fine-tuned copy of the base, its head, and how training went."""

    backbone: Backbone
    head: nn.Module
    trained: Trained


def length(examples: int) -> int:
    """Epochs by the number of training examples, in the spirit of BiT-HyperRule (Kolesnikov et al. 2020)."""
    for most, epochs in ((500, 12), (2_000, 8), (10_000, 6), (50_000, 4)):
        if examples <= most:
            return epochs
    return 2


def batch_size(examples: int) -> int:
    """Small data get more steps an epoch: on handwritten digits 16 reached a val log loss of 0.020, 32 of 0.033."""
    return 16 if examples <= 2_000 else 32


def crop_scale(short_sides: np.ndarray, size: int) -> float:
    """The smallest share a random crop keeps: half of a photograph, more of images smaller than the input.

    Those are framed closely, as scans and icons are: on handwritten digits 0.8 reached a val log loss of 0.033, 0.5 of 0.039.
    """
    return 0.8 if float(np.median(short_sides)) < size else 0.5


def peak_rate(short_sides: np.ndarray, size: int) -> float:
    """AdamW's peak rate: gentle where the images are photographs as in pre-training, higher for smaller, enlarged ones.

    What an enlarged picture looks like to the network is further from what it has learnt. On held-out parts of training
    sets, 5e-4 took handwritten digits from 95.8 to 97.2 %; on ants and bees it ended at a log loss of 0.16, 2e-4 at 0.02.
    """
    return 5e-4 if float(np.median(short_sides)) < size else 2e-4


def mirror_allowed(agreement_plain: np.ndarray, agreement_mirrored: np.ndarray) -> tuple[bool, str]:
    """Whether mirror images keep their class, by the head: (N,) booleans, right on the picture and on its mirror image.

    Refused if the mirror images are recognised worse by more than two standard errors of the paired difference and by a point.
    """
    difference = agreement_mirrored.astype(float) - agreement_plain.astype(float)
    drop, error = -float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
    allowed = drop <= max(0.01, 2 * error)
    verb = "still recognises" if allowed else "no longer recognises"
    return allowed, f"the head {verb} mirror images ({agreement_mirrored.mean():.1%} against {agreement_plain.mean():.1%})"


def _groups(network: Network, context: Context) -> list[dict[str, Any]]:
    """Parameter groups with layer-wise decay by timm's fine groups; no weight decay on norms and biases."""
    recipe = context.recipe.finetune
    groups: list[dict[str, Any]] = []
    if any(p.requires_grad for p in network.backbone.parameters()):
        from timm.optim import param_groups_layer_decay

        for group in param_groups_layer_decay(network.backbone, recipe.weight_decay, layer_decay=recipe.layer_decay):
            scale = float(group.get("lr_scale", 1.0))
            groups.append({"params": group["params"], "lr": float(recipe.lr) * scale, "weight_decay": group["weight_decay"]})
    groups.append({"params": list(network.head.parameters()), "lr": float(recipe.lr), "weight_decay": 0.0})
    return groups


def _batches(data: Data, backbone: Backbone, augment: Augment, context: Context) -> Callable[[int], Iterator[Batch]]:
    """Augmented batches of an epoch; the draw for an example depends on (seed, epoch, example) only, not on threads."""
    seed, size, device = context.recipe.run.seed, int(context.recipe.finetune.batch_size), context.device

    def epoch_of(epoch: int) -> Iterator[Batch]:
        def read(index: int) -> np.ndarray:
            return backbone.preprocess.host(data.items[index], np.random.default_rng([seed, epoch, index]), augment)

        for some, raws in prefetch([order.tolist() for order in shuffled(len(data.items), seed, epoch, size)], read):
            images = torch.from_numpy(backbone.preprocess.collate(raws)).to(device)
            labels = torch.from_numpy(data.labels[some]).to(device)
            yield images, labels, torch.from_numpy(data.weights[some]).float().to(device)

    return epoch_of


def _val_loss(network: Network, backbone: Backbone, val: Data, context: Context) -> tuple[float, float]:
    """(log loss, accuracy) on val as the network stands."""
    network.eval()
    rows = []
    for _, raws in prefetch(batched(val.items, context.recipe.run.feature_batch), backbone.preprocess.host):
        images = torch.from_numpy(backbone.preprocess.collate(raws)).to(context.device)
        with torch.inference_mode():
            rows.append(network(images).float().cpu().numpy())
    logits = np.concatenate(rows)
    return float(log_losses(val.labels, logits).mean()), float((logits.argmax(1) == val.labels).mean())


def seconds_a_step(network: Network, batch: Batch) -> float:
    """The time of one training step, measured on a throw-away copy after one to warm up."""
    trial, seconds = copy.deepcopy(network), 0.0
    for _ in range(2):
        began = time.perf_counter()
        nn.functional.cross_entropy(trial(batch[0]), batch[1]).backward()
        seconds = time.perf_counter() - began
    return seconds


def _epochs_in_budget(network: Network, first: Batch, steps: int, val: int, epochs: int, context: Context) -> tuple[int, str]:
    """The epochs that fit the time left, a fifth of which is kept for the last step; and why fewer, if so."""
    left = context.seconds_left
    if left == float("inf"):
        return epochs, ""
    step = seconds_a_step(network, first)
    epoch = 1.1 * steps * step + 0.3 * step * val / len(first[1])
    return max(0, min(epochs, int(0.8 * left / epoch))), f"an epoch takes about {epoch:.0f} s and the budget leaves {left:.0f} s"


def finetune(
    backbone: Backbone, plan: FreezePlan, head: nn.Module, data: Data, val: Data, context: Context,
    show: Callable[[np.ndarray], None],
) -> Finetuned | None:  # fmt: skip
    """The fine-tuned model, or None where the recipe or the budget says so. The given backbone and head stay as they are.

    `show` receives the first augmented batch, (B, size, size, 3) uint8. Raises RegraftError should anything frozen have moved.
    """
    recipe = context.recipe.finetune
    if recipe.epochs == "auto":
        recipe.epochs = 0 if plan.strategy == "head" else length(len(data.items))
    if recipe.batch_size == "auto":
        recipe.batch_size = batch_size(len(data.items))
    if not recipe.epochs:
        context.decide("finetune", "not done", "the head alone was asked for")
        return None
    torch.manual_seed(context.recipe.run.seed)
    tuned = copy.deepcopy(backbone)
    network = Network(tuned, copy.deepcopy(head)).to(context.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan.apply(tuned.module)
    before = plan.digest(tuned.module)
    batches = _batches(data, tuned, Augment(float(recipe.crop_scale), recipe.mirror is True, recipe.colour), context)
    first = next(iter(batches(1)))
    show(first[0].cpu().numpy())
    steps = len(shuffled(len(data.items), 0, 1, int(recipe.batch_size)))
    recipe.epochs, shortage = _epochs_in_budget(network, first, steps, len(val.items), recipe.epochs, context)
    if not recipe.epochs:
        context.decide("finetune", "not done", shortage)
        return None
    fused = context.device.type in ("cpu", "cuda")
    trained = train(
        network, torch.optim.AdamW(_groups(network, context), fused=fused), batches, steps, recipe.epochs,
        lambda: _val_loss(network, tuned, val, context), warmup=recipe.warmup, patience=recipe.patience,
        smoothing=recipe.label_smoothing,
        tick=lambda **f: context.events.tick(label="fine-tuning", **f),
        on_epoch=lambda **f: context.events.emit("epoch", step="finetune", **f), out_of_time=context.out_of_time,
    )  # fmt: skip
    if plan.digest(tuned.module) != before:
        raise RegraftError("something frozen moved during fine-tuning: a fault of regraft, please report it")
    context.decide(
        "finetune",
        f"{trained.epochs_run} of {recipe.epochs} epochs, best after {trained.epoch} (val log loss {trained.log_loss:.3f})",
        {"length": "went its whole length", "patience": f"no better val log loss in {recipe.patience} epochs",
         "budget": "the time was up", "interrupted": "stopped by the user",
         "diverged": "the loss was no number any more; the best before is kept"}[trained.stopped],
        frozen_digest=before,
    )  # fmt: skip
    network.to("cpu")
    return Finetuned(tuned, network.head.eval(), trained)
