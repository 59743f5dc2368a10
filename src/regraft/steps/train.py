"""Step 5: train the new layers, on features computed once."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from regraft.evaluation import log_losses, score
from regraft.steps.context import Context
from regraft.training import Path, class_weighted, fit_path, folds_of, linear_head, shuffled, train

IMBALANCE = 3.0


@dataclass
class Features:
    """Frozen features with what is known of them: (N, D), (N,) labels and weights."""

    values: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def part(self, start: int, end: int | None = None) -> Features:
        """Some rows, as views."""
        return Features(self.values[start:end], self.labels[start:end], self.weights[start:end])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class Heads:
    """The trained head (on train), the same refitted on train and val; out-of-fold logits over both, where all have one."""

    on_train: nn.Module
    refitted: nn.Module
    oof_logits: np.ndarray | None


def train_head(head: nn.Module, everything: Features, count: int, classes: int, context: Context) -> Heads:
    """Fit the head to convergence. The first `count` rows are train, the rest is val.

    L2 and class weights are chosen out of fold over train and val (rule 12).
    """
    fit, val = everything.part(0, count), everything.part(count)
    if context.recipe.head.kind == "mlp":
        trained = _mlp(copy.deepcopy(head), fit, val, classes, context)
        context.decide("train", "MLP head trained on frozen features", "AdamW, early stopping on val")
        return Heads(trained, trained, None)
    recipe, oof = context.recipe.train, None
    counts = np.bincount(everything.labels, minlength=classes)
    if recipe.l2 == "auto":
        ratio = counts.max() / max(1, counts.min())
        options = [recipe.class_weights] if recipe.class_weights != "auto" else ["none"]
        if recipe.class_weights == "auto" and ratio >= IMBALANCE:
            options.append("balanced")
        paths: dict[str, Path] = {}
        for option in options:
            weights = class_weighted(everything.labels, everything.weights, option == "balanced", classes)
            paths[option] = fit_path(
                everything.values, everything.labels, weights, classes, recipe.folds, context.recipe.run.seed,
                context.events.tick, context.out_of_time,
            )  # fmt: skip
            found = paths[option]
            for l2, loss, error in zip(found.l2, found.losses, found.errors, strict=True):
                context.events.emit("l2", step="train", l2=l2, log_loss=loss, standard_error=error, class_weights=option)
        option = _by_macro_f1(paths, everything.labels)
        chosen = paths[option]
        recipe.l2, recipe.class_weights = chosen.l2[chosen.chosen], option  # type: ignore[assignment]
        oof = chosen.logits if len(chosen.rows) == len(everything) else None
        why = f"lowest out-of-fold log loss ({chosen.losses[chosen.chosen]:.3f}) within one standard error"
        if ratio >= IMBALANCE:
            why += f"; the largest class is {ratio:.1f} times the smallest"
    else:
        why = "the user named it"
        if recipe.class_weights == "auto":
            recipe.class_weights = "none"
    on_train = _linear(fit, classes, context)
    refitted = on_train if not len(val) else _linear(everything, classes, context, on_train)
    text = f"linear head converged, L2 {float(recipe.l2):.2g}, class weights {recipe.class_weights}"
    context.decide("train", text, why)
    return Heads(on_train, refitted, oof)


def _by_macro_f1(paths: dict[str, Path], labels: np.ndarray) -> str:
    """Balanced weights only where they lift out-of-fold macro F1 by more than one standard error of the difference."""
    if "balanced" not in paths or "none" not in paths:
        return next(iter(paths))
    plain, balanced = paths["none"].logits, paths["balanced"].logits
    labels = labels[paths["none"].rows]
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(100):
        some = rng.integers(0, len(labels), len(labels))
        gains.append(score(labels[some], balanced[some], "macro_f1") - score(labels[some], plain[some], "macro_f1"))
    gain = score(labels, balanced, "macro_f1") - score(labels, plain, "macro_f1")
    return "balanced" if gain > float(np.std(gains)) else "none"


def _linear(data: Features, classes: int, context: Context, start: nn.Module | None = None) -> nn.Module:
    recipe = context.recipe.train
    weights = class_weighted(data.labels, data.weights, recipe.class_weights == "balanced", classes)
    return linear_head(data.values, data.labels, weights, classes, float(recipe.l2), context.recipe.head.dropout, start)


def _mlp(head: nn.Module, fit: Features, val: Features, classes: int, context: Context) -> nn.Module:
    """AdamW on the cached features; without val, a stratified fifth of train serves early stopping."""
    recipe, seed = context.recipe, context.recipe.run.seed
    recipe.train.l2 = 1e-2 if recipe.train.l2 == "auto" else recipe.train.l2
    recipe.train.class_weights = "none" if recipe.train.class_weights == "auto" else recipe.train.class_weights
    if not len(val):
        keep, held = folds_of(fit.labels, 5, seed)[0]
        fit, val = (Features(fit.values[i], fit.labels[i], fit.weights[i]) for i in (keep, held))
    weights = class_weighted(fit.labels, fit.weights, recipe.train.class_weights == "balanced", classes)
    torch.manual_seed(seed)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=float(recipe.train.l2))
    order = [shuffled(len(fit.labels), seed, e, 64) for e in range(recipe.train.epochs + 1)]

    def batches(epoch: int, skip: int = 0, /) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        return [
            (torch.from_numpy(fit.values[i]), torch.from_numpy(fit.labels[i]), torch.from_numpy(weights[i]).float())
            for i in order[epoch][skip:]
        ]

    def val_loss() -> tuple[float, float]:
        logits = apply_head(head, val.values)
        return float(log_losses(val.labels, logits).mean()), float((logits.argmax(1) == val.labels).mean())

    train(head, optimiser, batches, len(order[1]), recipe.train.epochs, val_loss, warmup=0.1, patience=8,
          tick=lambda **f: context.events.tick(label="training the head", **f), on_epoch=lambda **_: None,
          out_of_time=context.out_of_time)  # fmt: skip
    return head


def apply_head(head: nn.Module, features: np.ndarray) -> np.ndarray:
    """(N, K) float32 logits."""
    head.eval()
    with torch.inference_mode():
        parts = [head(torch.from_numpy(np.ascontiguousarray(features[i : i + 4096]))) for i in range(0, len(features), 4096)]
    return torch.cat(parts).numpy()
