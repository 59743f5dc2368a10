"""Step 6: fine-tune the released layers, gently, from the trained head (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.backbones import Backbone
from regraft.evaluation import log_losses
from regraft.modalities.image import Augment
from regraft.steps.context import Context
from regraft.training import FreezePlan, Network, Trained, class_weighted, shuffled, train


@dataclass
class Data:
    """Examples to train on: anything the preprocessing reads, (N,) labels and weights."""

    items: tuple[Any, ...]
    labels: np.ndarray
    weights: np.ndarray


@dataclass
class Finetuned:
    """The fine-tuned copy of the base, its head, and how training went."""

    backbone: Backbone
    head: nn.Module
    trained: Trained
    frozen_before: str
    frozen_after: str


def length(examples: int) -> int:
    """Epochs by the number of training examples, in the spirit of BiT-HyperRule (Kolesnikov et al. 2020)."""
    for most, epochs in ((500, 12), (2_000, 8), (10_000, 6), (50_000, 4)):
        if examples <= most:
            return epochs
    return 2


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
            groups.append({"params": group["params"], "lr": recipe.lr * scale, "weight_decay": group["weight_decay"]})
    groups.append({"params": list(network.head.parameters()), "lr": recipe.head_lr, "weight_decay": 0.0})
    return groups


def _batches(
    data: Data, backbone: Backbone, weights: np.ndarray, augment: Augment, context: Context
) -> Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """Augmented batches; the draw for an example depends on (seed, epoch, example) only, not on threads."""
    seed, size = context.recipe.run.seed, context.recipe.finetune.batch_size

    def epoch_of(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        def read(index: int) -> np.ndarray:
            rng = np.random.default_rng([seed, epoch, index])
            return backbone.preprocess.host(data.items[index], rng, augment)

        order = shuffled(len(data.items), seed, epoch, size)
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            ahead = [[pool.submit(read, int(i)) for i in some] for some in order[:2]]
            for number, some in enumerate(order):
                raws = [future.result() for future in ahead.pop(0)]
                if number + 2 < len(order):
                    ahead.append([pool.submit(read, int(i)) for i in order[number + 2]])
                images = torch.from_numpy(backbone.preprocess.collate(raws)).to(context.device)
                labels = torch.from_numpy(data.labels[some]).to(context.device)
                yield images, labels, torch.from_numpy(weights[some]).float().to(context.device)

    return epoch_of


def seconds_a_step(network: Network, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> float:
    """Measured on a throw-away copy: the time of one training step."""
    trial = copy.deepcopy(network)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        nn.functional.cross_entropy(trial(batch[0]), batch[1]).backward()
        times.append(time.perf_counter() - began)
    return times[-1]


def finetune(
    backbone: Backbone, plan: FreezePlan, head: nn.Module, data: Data, val: Data, classes: int, context: Context,
    show: Callable[[np.ndarray], None],
) -> Finetuned | None:  # fmt: skip
    """The fine-tuned model, or None where the recipe or the budget says so. The given backbone and head stay as they are.

    `show` receives the first augmented batch, (B, size, size, 3) uint8.
    """
    recipe = context.recipe.finetune
    if recipe.epochs == "auto":
        recipe.epochs = 0 if plan.strategy == "head" else length(len(data.items))
    if not recipe.epochs:
        context.decide("finetune", "not done", "the head alone was asked for")
        return None
    torch.manual_seed(context.recipe.run.seed)
    tuned = copy.deepcopy(backbone)
    network = Network(tuned, copy.deepcopy(head)).to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    plan.apply(tuned.module)
    for parameter in network.head.parameters():
        parameter.requires_grad_(True)
    before = plan.digest(tuned.module)
    augment = Augment(recipe.crop_scale, recipe.mirror is True, recipe.colour)
    weights = class_weighted(data.labels, data.weights, context.recipe.train.class_weights == "balanced", classes)
    batches = _batches(data, tuned, weights, augment, context)
    first = next(iter(batches(1)))
    show(first[0].cpu().numpy())
    steps = len(shuffled(len(data.items), 0, 1, recipe.batch_size))
    left = context.seconds_left
    if left != float("inf"):
        network.train()
        epoch_seconds = seconds_a_step(network, first) * steps * 1.1 + 0.35 * seconds_a_step(network, first) * len(val.items) / 32
        fitting = int(0.8 * left / epoch_seconds)
        if fitting < recipe.epochs:
            recipe.epochs = max(0, fitting)
        if not recipe.epochs:
            context.decide("finetune", "not done", f"one epoch takes about {epoch_seconds:.0f} s, the budget leaves {left:.0f} s")
            return None
    reader = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    seen = np.stack(list(reader.map(tuned.preprocess.host, val.items)))
    reader.shutdown()

    def val_loss() -> tuple[float, float]:
        network.eval()
        with torch.inference_mode():
            logits = torch.cat([
                network(torch.from_numpy(seen[i : i + 32]).to(context.device)).float().cpu() for i in range(0, len(seen), 32)
            ]).numpy()  # fmt: skip
        return float(log_losses(val.labels, logits).mean()), float((logits.argmax(1) == val.labels).mean())

    optimiser = torch.optim.AdamW(_groups(network, context), lr=recipe.lr)
    trained = train(
        network, optimiser, batches, steps, int(recipe.epochs), val_loss, warmup=recipe.warmup, patience=recipe.patience,
        tick=lambda **f: context.events.tick(label="fine-tuning", **f),
        on_epoch=lambda **f: context.events.emit("epoch", step="finetune", **f), out_of_time=context.out_of_time,
    )  # fmt: skip
    after = plan.digest(tuned.module)
    context.decide(
        "finetune",
        f"{trained.epochs_run} of {recipe.epochs} epochs, best after {trained.epoch} (val log loss {trained.log_loss:.3f})",
        {"length": "went its whole length", "patience": f"no better val log loss in {recipe.patience} epochs",
         "budget": "the time was up", "interrupted": "stopped by the user"}[trained.stopped],
        frozen_unchanged=before == after,
    )  # fmt: skip
    network.to("cpu")
    return Finetuned(tuned, network.head.eval(), trained, before, after)
