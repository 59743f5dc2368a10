"""Step 5: train the new layers, on features computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from regraft.data.part import Part
from regraft.evaluation import fewest_blocks, log_losses, score, standard_error, weighted_scores
from regraft.steps.context import Context
from regraft.steps.head import WIDTHS
from regraft.tasks.imbalance import class_offset, class_weighted
from regraft.training import Layers, fit_path, linear_head, mlp_head, mlp_out_of_fold

IMBALANCE = 3.0
RESAMPLES = 100
ROWS = 4_096  # features that the head is shown at once
LONE_L2, LONE_EPOCHS = 0.1, 20  # where a class has a single block, which no fold can spare
DECAY = 5.0  # of an MLP. Log loss on packages by 0.01, 1, 3, 5, 20: 0.424, 0.417, 0.402, 0.394, 0.476; linear 0.402


@dataclass
class Heads:
    """The trained head (on train), the same refitted on train and val, and what layers these have.

    `oof_logits` (M, K) are out-of-fold predictions of such a head for the rows `oof_rows` (M,) of train and
    val together: all, or those of the folds that were tried; None where a class has a single block, so that
    no fold could spare it.
    """

    on_train: nn.Module
    refitted: nn.Module
    oof_logits: np.ndarray | None
    oof_rows: np.ndarray
    chosen: Candidate

    @property
    def layers(self) -> Layers:
        """What the head is made of."""
        return self.chosen.layers


@dataclass(frozen=True)
class Candidate:
    """New layers and their settings, with (M, K) out-of-fold logits of `rows`, and the (M,) log losses of
    these.

    `class_weights` says what is done about classes of different sizes: "none", "adjusted" or "balanced".
    """

    layers: Layers
    l2: float
    epochs: int
    rows: np.ndarray
    logits: np.ndarray
    losses: np.ndarray
    class_weights: str = "none"


def train_head(
    options: tuple[Layers, ...], everything: Part, count: int, classes: int, context: Context
) -> Heads:
    """The head of the simplest of `options` that is as good as any. The first `count` rows are train, the
    rest is val.

    L2, class weights and layers are chosen out of fold over train and val (rule 12); what is chosen is then
    fitted to train, and to train and val.
    """
    sizes = np.bincount(everything.labels, minlength=classes)
    if fewest_blocks(everything.labels, everything.blocks) < 2:
        best, why = _without_folds(options[0], classes, context)
    else:
        weighting, linear, unequal = _weigh(options, everything, sizes, context)
        best, why = _choose(options, linear, everything, weighting, classes, context)
        best, why = replace(best, class_weights=weighting), "; ".join(filter(None, (why, unequal)))
    _settle(best, why, context)
    on_train = fit_chosen(best, everything.cut(0, count), classes, context)
    refitted = (
        on_train if count == len(everything) else fit_chosen(best, everything, classes, context, on_train)
    )
    offset = class_offset(everything.labels, best.class_weights, classes)
    logits = best.logits if offset is None else best.logits - offset
    made = f"linear head converged, L2 {best.l2:.2g}"
    if best.layers.kind == "mlp":
        made = f"{best.layers}, {best.epochs} epoch{'s' * (best.epochs != 1)}"
    context.decide("train", f"{made}, class weights {best.class_weights}", why)
    return Heads(on_train, refitted, logits if len(best.rows) else None, best.rows, best)


def _settle(best: Candidate, why: str, context: Context) -> None:
    layers, hidden = best.layers, context.recipe.head.hidden
    if layers.kind == "mlp":
        hidden = layers.hidden
    elif hidden == "auto":
        hidden = min(WIDTHS)
    found = {
        "head.kind": layers.kind,
        "head.hidden": hidden,
        "head.dropout": layers.dropout,
        "train.l2": best.l2,
        "train.class_weights": best.class_weights,
    }
    for name, value in found.items():
        context.settle(name, value, why)


def _without_folds(layers: Layers, classes: int, context: Context) -> tuple[Candidate, str]:
    """What to take where there is nothing to choose by."""
    recipe = context.recipe.train
    weighting = "none" if recipe.class_weights == "auto" else recipe.class_weights
    usual = LONE_L2 if layers.kind == "linear" else DECAY
    l2 = usual if recipe.l2 == "auto" else recipe.l2
    rows, logits = np.zeros(0, dtype=np.int64), np.zeros((0, classes), dtype=np.float32)
    found = Candidate(layers, l2, LONE_EPOCHS, rows, logits, np.zeros(0), weighting)
    return found, "a class has a single example, or examples of a single group: there is nothing to choose by"


def _weigh(
    options: tuple[Layers, ...], everything: Part, sizes: np.ndarray, context: Context
) -> tuple[str, Candidate | None, str]:
    """What is done about classes of different sizes, the linear head with it where there is to be one, and
    why.

    Where the largest class is IMBALANCE times the smallest, linear heads are compared out of fold by the
    run's metric, or by macro F1 where that is accuracy, which small classes hardly touch. The simplest within
    one standard error (paired bootstrap over blocks) of the best is taken.
    """
    named, ratio, classes = context.recipe.train.class_weights, sizes.max() / max(1, sizes.min()), len(sizes)
    layers = options[0] if options[0].kind == "linear" else None
    if named != "auto" or ratio < IMBALANCE or context.out_of_time():
        chosen: str = "none" if named == "auto" else named
        return chosen, _linear(layers, everything, chosen, classes, context) if layers else None, ""
    plain, balanced = (
        _linear(layers or Layers("linear"), everything, w, classes, context) for w in ("none", "balanced")
    )
    heads = {"none": plain, "adjusted": plain, "balanced": balanced}
    offset = class_offset(everything.labels, "adjusted", classes)
    logits = [plain.logits, plain.logits - offset, balanced.logits]
    labels, rng = everything.labels[plain.rows], np.random.default_rng(0)
    members = _members(everything.blocks_at(plain.rows), len(labels))
    metric = "macro_f1" if context.recipe.run.metric in ("auto", "accuracy") else context.recipe.run.metric
    drawn = [
        np.concatenate([members[b] for b in rng.integers(0, len(members), len(members))])
        for _ in range(RESAMPLES)
    ]
    counts = np.array([np.bincount(some, minlength=len(labels)) for some in drawn], dtype=np.float64)
    draws = np.array([weighted_scores(labels, found, metric, counts) for found in logits])
    scores = np.array([score(labels, found, metric) for found in logits])
    best = int(scores.argmax())
    close = scores[best] - scores <= (draws[best] - draws).std(axis=1)
    chosen = list(heads)[int(close.argmax())]
    said = ", ".join(f"{abs(value):.3f} {name}" for name, value in zip(heads, scores, strict=True))
    why = f"the largest class is {ratio:.1f} times the smallest: {metric.replace('_', ' ')} by class weights {said}"
    return chosen, heads[chosen] if layers else None, why


def _choose(
    options: tuple[Layers, ...],
    linear: Candidate | None,
    everything: Part,
    weighting: str,
    classes: int,
    context: Context,
) -> tuple[Candidate, str]:
    """The simplest layers within one standard error of the best by out-of-fold log loss, and why.

    The error is that of the paired difference. A wider MLP is tried only where the narrower is better than
    the linear head by more than that.
    """
    found, blocks = [linear] if linear else [], everything.blocks
    for layers in (layers for layers in options if layers.kind == "mlp"):
        if found and context.out_of_time():
            break
        tried = _mlp(layers, everything, weighting, classes, context)
        if found and context.out_of_time():  # cut short
            break
        found.append(tried)
        loss, error = _beside(tried, found[0], blocks)
        if linear and loss >= -error:
            break
    best = min(found, key=lambda candidate: float(candidate.losses.mean()))
    beside = {id(candidate): _beside(candidate, best, blocks) for candidate in found}
    chosen = next(candidate for candidate in found if beside[id(candidate)][0] <= beside[id(candidate)][1])
    text = f"out-of-fold log loss {chosen.losses.mean():.3f}"
    for other in found:
        loss, error = _beside(other, chosen, blocks)
        if other is not chosen:
            text += f", {other.layers} would {'lose' if loss > 0 else 'gain'} {abs(loss):.3f} ± {error:.3f}"
        if len(found) > 1:
            layers, spread = (
                other.layers,
                standard_error(other.losses, None if blocks is None else blocks[other.rows]),
            )
            context.events.emit(
                "head",
                step="train",
                layers=layers.kind,
                hidden=layers.hidden,
                dropout=layers.dropout,
                epochs=other.epochs,
                parameters=layers.parameters(everything.values.shape[1], classes),
                log_loss=float(other.losses.mean()),
                standard_error=spread,
                difference=loss,
                difference_error=error,
                chosen=other is chosen,
            )
    return chosen, text


def _members(blocks: np.ndarray | None, count: int) -> list[np.ndarray]:
    """The positions of each block's rows."""
    if blocks is None:
        return list(np.arange(count)[:, None])
    order = np.argsort(blocks, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1)


def _beside(one: Candidate, other: Candidate, blocks: np.ndarray | None) -> tuple[float, float]:
    """How much higher the log loss of one is than that of the other, and the standard error of that, which
    counts blocks.
    """
    differences = one.losses - other.losses
    return float(differences.mean()), standard_error(
        differences, None if blocks is None else blocks[one.rows]
    )


def _linear(layers: Layers, everything: Part, weighting: str, classes: int, context: Context) -> Candidate:
    """The linear head of the L2 the user named, or of the one chosen out of fold."""
    recipe = context.recipe
    named = None if recipe.train.l2 == "auto" or recipe.head.kind == "mlp" else recipe.train.l2
    weights = class_weighted(everything.labels, everything.weights, weighting == "balanced", classes)
    path = fit_path(
        everything.values,
        everything.labels,
        weights,
        classes,
        recipe.train.folds,
        recipe.run.seed,
        context.events.tick,
        context.out_of_time,
        named,
        everything.blocks,
    )
    for l2, loss, error in zip(path.l2, path.losses, path.errors, strict=True):
        context.events.emit(
            "l2", step="train", l2=l2, log_loss=loss, standard_error=error, class_weights=weighting
        )
    losses = log_losses(everything.labels[path.rows], path.logits)
    return Candidate(
        layers, path.l2[path.chosen] if named is None else named, 0, path.rows, path.logits, losses
    )


def _mlp(layers: Layers, everything: Part, weighting: str, classes: int, context: Context) -> Candidate:
    """The MLP after the number of epochs that is best out of fold."""
    recipe = context.recipe
    decay = DECAY if recipe.train.l2 == "auto" else recipe.train.l2
    weights = class_weighted(everything.labels, everything.weights, weighting == "balanced", classes)
    found = mlp_out_of_fold(
        everything.values,
        everything.labels,
        weights,
        classes,
        layers,
        decay,
        recipe.train.epochs,
        recipe.train.folds,
        recipe.run.seed,
        context.events.tick,
        context.out_of_time,
        everything.blocks,
    )
    losses = log_losses(everything.labels[found.rows], found.logits)
    return Candidate(layers, decay, found.epochs, found.rows, found.logits, losses)


def fit_chosen(
    best: Candidate, data: Part, classes: int, context: Context, start: nn.Sequential | None = None
) -> nn.Sequential:
    """The chosen head on `data`."""
    layers = best.layers
    weights = class_weighted(data.labels, data.weights, best.class_weights == "balanced", classes)
    if layers.kind == "linear":
        module = linear_head(data.values, data.labels, weights, classes, best.l2, layers.dropout, start)
    else:
        module = mlp_head(
            data.values,
            data.labels,
            weights,
            classes,
            layers,
            best.l2,
            best.epochs,
            context.recipe.run.seed,
            context.events.tick,
            context.out_of_time,
        )
    offset = class_offset(data.labels, best.class_weights, classes)
    if offset is not None:
        module[-1].bias.data -= torch.from_numpy(offset)  # type: ignore[operator]
    return module


def apply_head(head: nn.Module, features: np.ndarray) -> np.ndarray:
    """(N, K) float32 logits."""
    head.eval()
    found = np.zeros((0, 0), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(features), ROWS):
            some = head(torch.from_numpy(np.ascontiguousarray(features[start : start + ROWS]))).numpy()
            if not start:
                found = np.empty((len(features), some.shape[1]), dtype=np.float32)
            found[start : start + len(some)] = some
    return found
