"""Step 5: train the new layers, on features computed once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.evaluation import fewest_blocks, standard_error
from regraft.steps.context import Context
from regraft.steps.head import WIDTHS
from regraft.tasks import Metric, Task
from regraft.training import Layers, fit_path, linear_head, mlp_head, mlp_out_of_fold

RESAMPLES = 100
WAYS = 5_000  # examples by which losses of training are compared
ROWS = 4_096  # features that the head is shown at once
LONE_L2, LONE_EPOCHS = 0.1, 20  # where a class has a single block, which no fold can spare
DECAY = 5.0  # of an MLP: the lowest out-of-fold log loss of five (docs/decisions.md)


@dataclass
class Heads:
    """The trained head (on train), the same refitted on train and val, and what layers these have.

    `oof_logits` (M, K) are out-of-fold predictions of such a head for the rows `oof_rows` (M,) of train and
    val together: all, or those of the folds that were tried; None where a class has a single block, so that
    no fold could spare it. `task` is the one whose loss they were trained by.
    """

    on_train: nn.Module
    refitted: nn.Module
    oof_logits: np.ndarray | None
    oof_rows: np.ndarray
    chosen: Candidate
    task: Task

    @property
    def layers(self) -> Layers:
        """What the head is made of."""
        return self.chosen.layers


@dataclass(frozen=True)
class Candidate:
    """New layers and their settings, with (M, K) out-of-fold logits of `rows`, and the (M,) log losses of
    these.

    `class_weights` says what is done about classes of different sizes: "none", "adjusted" or "balanced".
    `named` are names of the classes, with features, that are learnt from beside the examples (`steps.names`).
    """

    layers: Layers
    l2: float
    epochs: int
    rows: np.ndarray
    logits: np.ndarray
    losses: np.ndarray
    class_weights: str = "none"
    named: Part | None = None


def train_head(
    options: tuple[Layers, ...],
    everything: Part,
    count: int,
    task: Task,
    context: Context,
    metric: Metric | None = None,
) -> Heads:
    """The head of the simplest of `options` that is as good as any. The first `count` rows are train, the
    rest is val. `metric` is the run's; None stands for the task's headline.

    L2, class weights and layers are chosen out of fold over train and val (rule 12); what is chosen is then
    fitted to train, and to train and val.
    """
    if fewest_blocks(task.strata(everything.labels), everything.blocks) < 2:
        best, why = _without_folds(options[0], task.outputs, context)
    else:
        task, by = _way(everything, task, context)
        weighting, linear, unequal = _weigh(options, everything, task, metric or task.headline, context)
        best, why = _choose(options, linear, everything, weighting, task, context)
        best, why = replace(best, class_weights=weighting), "; ".join(filter(None, (why, unequal, by)))
    _settle(best, why, context)
    on_train = fit_chosen(best, everything.cut(0, count), task, context)
    refitted = on_train if count == len(everything) else fit_chosen(best, everything, task, context, on_train)
    offset = task.offset(everything.labels, best.class_weights)
    logits = best.logits if offset is None else best.logits - offset
    made = f"linear head converged, L2 {best.l2:.2g}"
    if best.layers.kind == "mlp":
        made = f"{best.layers}, {best.epochs} epoch{'s' * (best.epochs != 1)}"
    if len(task.known_weightings) > 1:
        made += f", class weights {best.class_weights}"
    context.decide("train", made, why)
    return Heads(on_train, refitted, logits if len(best.rows) else None, best.rows, best, task)


def _way(everything: Part, task: Task, context: Context) -> tuple[Task, str]:
    """The task with the loss that suits the data, and why: the simplest within one standard error of the best
    by the out-of-fold losses of linear heads. Of many examples WAYS are asked.
    """
    ways = task.ways()
    if len(ways) < 2 or context.out_of_time():
        return task, ""
    quiet = context.trial(events=Events())
    some = everything if len(everything) <= WAYS else everything.every(-(-len(everything) // WAYS))
    heads = {name: _linear(Layers("linear"), some, "none", way, quiet) for name, way in ways.items()}
    losses = {name: task.losses(some.labels[head.rows], head.logits) for name, head in heads.items()}
    best = min(heads, key=lambda name: float(losses[name].mean()))

    def close(name: str) -> bool:
        gaps = losses[name] - losses[best]
        return float(gaps.mean()) <= standard_error(gaps, some.blocks_at(heads[name].rows))

    chosen = next(name for name in heads if close(name))
    said = ", ".join(f"{each.mean():.3f} by {name}" for name, each in losses.items())
    return ways[chosen], f"{task.loss_name} out of fold {said}"


def _settle(best: Candidate, why: str, context: Context) -> None:
    layers, hidden = best.layers, context.recipe.head.hidden
    if layers.kind == "mlp":
        hidden = layers.hidden
    elif hidden == "auto":
        hidden = min(WIDTHS)
    settings = {
        "head.kind": layers.kind,
        "head.hidden": hidden,
        "head.dropout": layers.dropout,
        "train.l2": best.l2,
        "train.class_weights": best.class_weights,
    }
    for name, value in settings.items():
        context.settle(name, value, why)


def _without_folds(layers: Layers, classes: int, context: Context) -> tuple[Candidate, str]:
    """What to take where there is nothing to choose by."""
    recipe = context.recipe.train
    weighting = "none" if recipe.class_weights == "auto" else recipe.class_weights
    usual = LONE_L2 if layers.kind == "linear" else DECAY
    l2 = usual if recipe.l2 == "auto" else recipe.l2
    rows, logits = np.zeros(0, dtype=np.int64), np.zeros((0, classes), dtype=np.float32)
    candidate = Candidate(layers, l2, LONE_EPOCHS, rows, logits, np.zeros(0), weighting)
    return (
        candidate,
        "a class has a single example, or examples of a single group: there is nothing to choose by",
    )


def _weigh(
    options: tuple[Layers, ...], everything: Part, task: Task, metric: Metric, context: Context
) -> tuple[str, Candidate | None, str]:
    """What is done about answers that are more frequent than others, the linear head with it where there is
    to be one, and why.

    Where the task sees several ways, linear heads are compared out of fold by the metric that suits it and
    the run's. The simplest within one standard error (paired bootstrap over blocks) of the best is taken.
    """
    named, (ways, unequal) = context.recipe.train.class_weights, task.weightings(everything.labels)
    layers = options[0] if options[0].kind == "linear" else None
    if named != "auto" or len(ways) < 2 or context.out_of_time():
        chosen: str = ways[0] if named == "auto" else named
        return chosen, _linear(layers, everything, chosen, task, context) if layers else None, ""
    heads = _heads(layers or Layers("linear"), everything, ways, task, context)
    rows, metric = heads[ways[0]].rows, task.weighed_by(metric)
    facts = []
    for way, head in heads.items():
        offset = task.offset(everything.labels, way)
        outputs = head.logits if offset is None else head.logits - offset
        facts.append(task.facts(everything.labels[rows], outputs))
    rng = np.random.default_rng(0)
    members = _members(None if everything.blocks is None else everything.blocks[rows], len(rows))
    drawn = [
        np.concatenate([members[b] for b in rng.integers(0, len(members), len(members))])
        for _ in range(RESAMPLES)
    ]
    counts = np.array([np.bincount(resample, minlength=len(rows)) for resample in drawn], dtype=np.float64)
    draws = np.array([metric.scores(folded, counts) for folded in facts])
    scores = np.array([metric.scores(folded, np.ones((1, len(rows))))[0] for folded in facts])
    best = int(scores.argmax())
    close = scores[best] - scores <= (draws[best] - draws).std(axis=1)
    chosen = ways[int(close.argmax())]
    said = ", ".join(
        f"{metric.of_score(value):.3f} {name}" for name, value in zip(heads, scores, strict=True)
    )
    return (chosen, heads[chosen] if layers else None, f"{unequal}: {metric.words} by class weights {said}")


def _heads(
    layers: Layers, everything: Part, ways: tuple[str, ...], task: Task, context: Context
) -> dict[str, Candidate]:
    """The linear head of each way; those whose weights are the same are one."""
    heads: dict[str, Candidate] = {}
    for way in ways:
        weights = task.weighted(everything.labels, everything.weights, way)
        same = [
            head
            for other, head in heads.items()
            if np.array_equal(weights, task.weighted(everything.labels, everything.weights, other))
        ]
        heads[way] = same[0] if same else _linear(layers, everything, way, task, context)
    return heads


def _choose(
    options: tuple[Layers, ...],
    linear: Candidate | None,
    everything: Part,
    weighting: str,
    task: Task,
    context: Context,
) -> tuple[Candidate, str]:
    """The simplest layers within one standard error of the best by out-of-fold log loss, and why.

    The error is that of the paired difference. A wider MLP is tried only where the narrower is better than
    the linear head by more than that.
    """
    candidates, blocks = [linear] if linear else [], everything.blocks
    for layers in (layers for layers in options if layers.kind == "mlp"):
        if candidates and context.out_of_time():
            break
        tried = _mlp(layers, everything, weighting, task, context)
        if candidates and context.out_of_time():  # cut short
            break
        candidates.append(tried)
        loss, error = _beside(tried, candidates[0], blocks)
        if linear and loss >= -error:
            break
    best = min(candidates, key=lambda candidate: float(candidate.losses.mean()))
    beside = {id(candidate): _beside(candidate, best, blocks) for candidate in candidates}
    chosen = next(
        candidate for candidate in candidates if beside[id(candidate)][0] <= beside[id(candidate)][1]
    )
    text = f"out-of-fold {task.loss_name} {chosen.losses.mean():.3f}"
    for other in candidates:
        loss, error = _beside(other, chosen, blocks)
        if other is not chosen:
            text += f", {other.layers} would {'lose' if loss > 0 else 'gain'} {abs(loss):.3f} ± {error:.3f}"
        if len(candidates) > 1:
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
                parameters=layers.parameters(everything.values.shape[1], task.outputs),
                loss=float(other.losses.mean()),
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


def _beside(candidate: Candidate, other: Candidate, blocks: np.ndarray | None) -> tuple[float, float]:
    """How much higher the log loss of one is than that of the other, and the standard error of that, which
    counts blocks.
    """
    differences = candidate.losses - other.losses
    return float(differences.mean()), standard_error(
        differences, None if blocks is None else blocks[candidate.rows]
    )


def _linear(layers: Layers, everything: Part, weighting: str, task: Task, context: Context) -> Candidate:
    """The linear head of the L2 the user named, or of the one chosen out of fold."""
    recipe = context.recipe
    named = None if recipe.train.l2 == "auto" or recipe.head.kind == "mlp" else recipe.train.l2
    weights = task.weighted(everything.labels, everything.weights, weighting)
    path = fit_path(
        everything.values,
        everything.labels,
        weights,
        task,
        recipe.train.folds,
        recipe.run.seed,
        context.events.tick,
        context.out_of_time,
        named,
        everything.blocks,
        context.crew,
    )
    for l2, loss, error in zip(path.l2, path.losses, path.errors, strict=True):
        context.events.emit(
            "l2", step="train", l2=l2, loss=loss, standard_error=error, class_weights=weighting
        )
    losses = task.losses(everything.labels[path.rows], path.logits)
    return Candidate(
        layers, path.l2[path.chosen] if named is None else named, 0, path.rows, path.logits, losses
    )


def _mlp(layers: Layers, everything: Part, weighting: str, task: Task, context: Context) -> Candidate:
    """The MLP after the number of epochs that is best out of fold."""
    recipe = context.recipe
    decay = DECAY if recipe.train.l2 == "auto" else recipe.train.l2
    weights = task.weighted(everything.labels, everything.weights, weighting)
    oof = mlp_out_of_fold(
        everything.values,
        everything.labels,
        weights,
        task,
        layers,
        decay,
        recipe.train.epochs,
        recipe.train.folds,
        recipe.run.seed,
        context.events.tick,
        context.out_of_time,
        everything.blocks,
    )
    losses = task.losses(everything.labels[oof.rows], oof.logits)
    return Candidate(layers, decay, oof.epochs, oof.rows, oof.logits, losses)


def fit_chosen(
    best: Candidate, data: Part, task: Task, context: Context, start: nn.Sequential | None = None
) -> nn.Sequential:
    """The chosen head on `data`."""
    layers = best.layers
    if best.named is not None:
        columns = ("labels", "weights", "values")
        data = Part(**{name: getattr(data, name) for name in columns}).then(best.named)
    weights = task.weighted(data.labels, data.weights, best.class_weights)
    if layers.kind == "linear":
        fitted = data.values, data.labels, weights, task, best.l2, layers.dropout, start
        module = linear_head(*fitted, crew=context.crew)
    else:
        module = mlp_head(
            data.values,
            data.labels,
            weights,
            task,
            layers,
            best.l2,
            best.epochs,
            context.recipe.run.seed,
            context.events.tick,
            context.out_of_time,
        )
    offset = task.offset(data.labels, best.class_weights)
    if offset is not None:
        module[-1].bias.data -= torch.from_numpy(offset)  # type: ignore[operator]
    return module


def apply_head(head: nn.Module, features: np.ndarray) -> np.ndarray:
    """(N, K) float32 logits."""
    head.eval()
    outputs = np.zeros((0, 0), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(features), ROWS):
            answered = head(torch.from_numpy(np.ascontiguousarray(features[start : start + ROWS]))).numpy()
            if not start:
                outputs = np.empty((len(features), answered.shape[1]), dtype=np.float32)
            outputs[start : start + len(answered)] = answered
    return outputs
