"""Step 7: evaluate, on examples nothing has seen; or by cross-validation where there are too few to spare."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import Estimate, Repeats, all_alone, estimate_of, folds_of, holm, in_words, repeated
from regraft.model import Model
from regraft.recipe import Recipe
from regraft.steps.beside import Aside
from regraft.steps.context import Context
from regraft.steps.train import Heads, apply_head, train_head
from regraft.tasks import Calibration, Held, Metric, Task, evaluated
from regraft.training import Layers

REPEATS = 5
NO_TEST = "there are too few examples to spare a test set"
ENOUGH = 64  # predictions after which the time of the rest is foreseen; half of them where there are few


def out_of_fold(heads: Heads, both: Part) -> Held:
    """The out-of-fold outputs of the head alone; `both` are train and val. It holds no rows where a class
    has a single block.
    """
    if heads.oof_logits is None:
        return Held("out-of-fold", both.labels[:0], np.zeros((0, 0)))
    return Held("out-of-fold", both.labels[heads.oof_rows], heads.oof_logits, both.blocks_at(heads.oof_rows))


@dataclass(frozen=True)
class Verdict:
    """What is told of one set of examples: (N, ...) targets, (N, K) calibrated outputs of a model, (N,)
    numbers of groups where there are any.
    """

    targets: np.ndarray
    outputs: np.ndarray
    clusters: np.ndarray | None = None

    def estimates(self, task: Task) -> dict[str, Any]:
        """Metrics with intervals as plain values."""
        estimates = evaluated(task, self.targets, self.outputs, self.clusters)
        return {name: asdict(estimate) for name, estimate in estimates.items()}

    def tables(self, task: Task) -> dict[str, Any]:
        """The tables of the task, and the number of groups where there are any."""
        tables = task.tables(self.targets, self.outputs, self.clusters)
        return tables if self.clusters is None else {**tables, "groups": len(np.unique(self.clusters))}


def calibrate(task: Task, held: Held, learnt: str) -> Calibration:
    """Temperature and thresholds by the winner's held-out outputs. Without a promise where `learnt` says why
    the backbone has seen the examples.
    """
    calibration = task.calibrate(held)
    return calibration.promising_nothing(learnt) if learnt else calibration


def val_scores(task: Task, part: Part, outputs: np.ndarray, calibration: Calibration) -> dict[str, Any]:
    """Metrics with intervals of the examples of val that were held out, as plain values; none without any."""
    if not len(part):
        return {}
    decided = task.decided(calibration)
    return Verdict(part.labels, calibration.applied(outputs), part.clusters()).estimates(decided)


def predicted(model: Model, part: Part, context: Context, say: Callable[[str], None]) -> np.ndarray:
    """(N, K) float32 logits of a part, by the very code that predicts; `say` is told where test takes
    longer than the budget.

    Raises UsageError for a file that has gone bad.
    """
    began = time.monotonic()
    rows = np.empty((len(part), model.task.outputs), dtype=np.float32)
    for number, row in enumerate(model.outputs(part.items, context.device), start=1):
        if not isinstance(row, np.ndarray):
            raise UsageError(
                f"{part.sources[number - 1]} could be read when the run began and cannot be now: {row}."
            )
        rows[number - 1] = row
        context.events.tick(label=f"predicting {part.name}", done=number, total=len(part), passes=1)
        if number == min(ENOUGH, (len(part) + 1) // 2) and part.name == "test":
            needed, left = (time.monotonic() - began) / number * (len(part) - number), context.seconds_left
            if needed > left:
                say(
                    f"predicting test takes about {needed:.0f} s more and the budget "
                    f"leaves {max(0.0, left):.0f} s: it is predicted in full all the same"
                )
    return rows


def evaluate_test(
    task: Task, test: Verdict, calibration: Calibration, baselines: dict[str, np.ndarray], context: Context
) -> dict[str, Any]:
    """The one reading of test, as metrics.json holds it.

    `test` has the (N, K) outputs of the final model as they come from it, not yet calibrated; `baselines`
    are (N, K) calibrated outputs by name.
    """
    targets, clusters, task = test.targets, test.clusters, task.decided(calibration)
    ours = Verdict(targets, calibration.applied(test.outputs), clusters)
    metrics: dict[str, Any] = {"test": ours.estimates(task)}
    metrics["baselines"] = {
        name: Verdict(targets, outputs, clusters).estimates(task) for name, outputs in baselines.items()
    }
    pairs = [
        task.versus(targets, ours.outputs, outputs, name, clusters) for name, outputs in baselines.items()
    ]
    adjusted = holm([pair.p_value for pair in pairs])
    pairs = [replace(pair, p_adjusted=p) for pair, p in zip(pairs, adjusted, strict=True)]
    metrics["versus"] = [asdict(pair) for pair in pairs]
    metrics |= ours.tables(task)
    metrics |= calibration.tested(targets, test.outputs)
    said = task.headline.said(Estimate(**metrics["test"][task.headline.name]))
    context.decide(
        "evaluate", f"test {said} on {len(targets)} examples", "; ".join(in_words(pair) for pair in pairs)
    )
    return metrics


def evaluate_folds(task: Task, verdict: Verdict, folds: int) -> dict[str, Any]:
    """Metrics of examples that were each predicted by a walk that did not see it."""
    oof = verdict.estimates(task)
    for estimate in oof.values():
        estimate["method"] += f"; {folds}-fold cross-validation of the whole walk"
    return {"cv": oof, **verdict.tables(task)}


def from_folds(task: Task, held: Held, calibration: Calibration, context: Context) -> dict[str, Any]:
    """Metrics of the held-out predictions that chose fine-tuning, where there is neither val nor test."""
    folds = context.decisions.merged(context.recipe).finetune.folds
    clusters = None if all_alone(held.blocks) else held.blocks
    task = task.decided(calibration)
    oof = Verdict(held.targets, calibration.applied(held.outputs), clusters).estimates(task)
    for estimate in oof.values():
        estimate["method"] += f"; {folds}-fold cross-validation, which also chose to fine-tune"
    estimate = Estimate(**oof[task.headline.name])
    context.decide(
        "evaluate",
        f"cross-validated {task.headline.said(estimate)} on {estimate.n} examples, no test",
        NO_TEST,
    )
    return oof


def cross_validate(
    task: Task, metric: Metric, layers: Layers, data: Part, context: Context, aside: Aside | None = None
) -> dict[str, Any]:
    """Repeated cross-validation of the head on frozen features, by block, stratified, its L2 chosen anew
    inside each fold; what stands `aside` learns anew too and keeps its weight. `metric` is the run's; what is
    told is the task's headline.
    """
    seed = context.recipe.run.seed
    repeats = [
        folds_of(task.strata(data.labels), 5, (REPEATS * seed + number) % 2**32, data.blocks)
        for number in range(REPEATS)
    ]
    folds, count = len(repeats[0]), len(data.labels)
    outputs = np.zeros((REPEATS, count, task.outputs))
    settled = context.decisions.merged(context.recipe).model_dump()
    anew = Recipe.build(settled, {"train": {"l2": "auto"}} if layers.kind == "linear" else {})
    quiet = context.trial(recipe=anew, events=Events())
    splits = [(number, *fold) for number, some in enumerate(repeats) for fold in some]
    for done, (number, fit, held) in enumerate(splits, start=1):
        some = data.some(fit)
        head = train_head((layers,), some, len(some), task, quiet, metric).refitted
        outputs[number, held] = apply_head(head, data.values[held])
        if aside is not None and aside.weight:
            outputs[number, held] += aside.weight * aside.answers(fit, held)
        context.events.tick(label="cross-validating", done=done, total=len(splits))
    headline = task.headline
    facts = Repeats([task.facts(data.labels, each) for each in outputs])
    groups = None if data.blocks is None or all_alone(data.blocks) else data.blocks
    estimate = estimate_of(repeated(headline), facts, groups)
    method = f"{REPEATS} times {folds}-fold cross-validation of the head; {estimate.method}"
    estimate = replace(estimate, method=method)
    context.decide(
        "evaluate", f"cross-validated {headline.said(estimate)} on {count} examples, no test", NO_TEST
    )
    return {headline.name: asdict(estimate)}
