"""Step 7 of a run: test is read once, and all that is to be scored on it is scored in this one sitting."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from regraft.data import Examples, readings
from regraft.data.audit import IN_TEST, contradicting_test
from regraft.data.part import Part
from regraft.errors import BudgetError
from regraft.evaluation import Estimate
from regraft.model import Model
from regraft.run.record import Record
from regraft.steps.audit import without_near_duplicates
from regraft.steps.beside import answered
from regraft.steps.context import Context
from regraft.steps.engine import Frozen
from regraft.steps.evaluate import Verdict, cross_validate, evaluate_test, from_folds, out_of_fold, predicted
from regraft.steps.finetune.step import Ground, Judged
from regraft.steps.scratch import from_scratch
from regraft.steps.train import apply_head
from regraft.tasks import Calibration, Known, Task


@dataclass(frozen=True)
class Finished:
    """What step 7 judges: the finished model of a task, why it won, and its calibration.

    `nearly_known` are the sources of test examples with a near-duplicate in train or val.
    """

    task: Task
    model: Model
    judged: Judged
    calibration: Calibration
    nearly_known: frozenset[str]


def evaluate(
    examples: Examples, finished: Finished, ground: Ground, frozen: Frozen, record: Record, context: Context
) -> None:
    """Judge the model by test; without test, by cross-validation of all steps, or of the head where nothing
    was held out.
    """
    task, metrics, calibration = finished.task, record.metrics, finished.calibration
    if examples.counts()["test"]:
        _read_test(examples, finished, ground, frozen, record, context)
    elif "cv" in metrics:
        folds, estimate = context.recipe.data.folds, Estimate(**metrics["cv"][task.headline.name])
        text = f"{task.headline.said(estimate)} on {estimate.n} examples"
        why = f"each was predicted by one of {folds} walks that had not seen it; this model is made of all"
        context.decide("evaluate", f"cross-validated {text}", why)
    elif len(ground.val):
        asked = record.state["data"].get("no_test")
        context.decide(
            "evaluate", "no test set", "none was to be set apart" if asked else "the data hold none"
        )
    elif finished.judged.name == "fine-tuned":
        metrics["cv"] = from_folds(task, finished.judged.held, calibration, context)
    else:
        metrics["cv"] = cross_validate(
            task, ground.metric, ground.heads.layers, ground.features, context, ground.aside
        )


def _read_test(
    examples: Examples, finished: Finished, ground: Ground, frozen: Frozen, record: Record, context: Context
) -> None:
    """Break the seal and score the model, in full whatever the budget, and the baselines that there is time
    for.
    """
    scratch = None
    if context.recipe.run.scratch:
        scratch = record.optional("from scratch", lambda: _from_scratch(finished.model, ground, context))
    reason = "step 7 of the run" + (", again after it was stopped" if record.state["readings"] else "")
    test = examples.unseal(reason, context.events.emit)
    record.state["readings"] = readings(record.folder)
    record.write()
    if contradictions := contradicting_test(examples, test, finished.task.said):
        record.optional(
            "contradictions in test", lambda: record.add_findings(contradictions, frozenset({IN_TEST}))
        )
    rows = predicted(finished.model, test, context, record.say)
    task, calibration, clusters = finished.task, finished.calibration, test.clusters()
    baselines = _baselines(finished, ground, frozen, test, scratch, record, context)
    baselines |= _without_beside(finished, ground, test, rows, record)
    verdict = Verdict(test.labels, rows, clusters)
    record.metrics.update(evaluate_test(task, verdict, calibration, baselines, context))
    calibrated = Verdict(test.labels, calibration.applied(rows), clusters)
    task = task.decided(calibration)
    record.metrics.update(without_near_duplicates(task, calibrated, test.sources, finished.nearly_known))
    record.predictions.append((test, rows))


def _baselines(
    finished: Finished,
    ground: Ground,
    frozen: Frozen,
    test: Part,
    scratch: Model | None,
    record: Record,
    context: Context,
) -> dict[str, np.ndarray]:
    """(N, K) logits of test by what the model has to beat; what fails, or there is no time for, is left out
    and said.
    """
    task, heads, known = finished.task, ground.heads, ground.features
    features = functools.cache(lambda: frozen(test))
    made = task.baselines(
        Known(
            known.values,
            known.labels,
            len(test),
            features,
            context.events.tick,
            lambda: context.seconds_left <= 0,
        )
    )
    for evidence in context.modality.evidence if known.labels.ndim == 1 else ():
        made[evidence.name] = functools.partial(
            evidence.answers, known.items, known.labels, known.weights, test.items, task.outputs
        )
    if finished.judged.name == "fine-tuned":
        of_head = task.calibrate(out_of_fold(heads, ground.both))
        made["head only"] = lambda: of_head.applied(apply_head(heads.refitted, features()))
    if scratch is not None:
        made["from scratch"] = lambda: predicted(scratch, test, context, record.say)
    outputs = dict([task.guess(known.labels, len(test))])
    for name, make in made.items():
        logits = record.in_time(name, make)
        if logits is not None:
            outputs[name] = logits
    return outputs


def _without_beside(
    finished: Finished, ground: Ground, test: Part, rows: np.ndarray, record: Record
) -> dict[str, np.ndarray]:
    """(N, K) calibrated logits of test by the network alone, where something stands beside it."""
    model, aside = finished.model, ground.aside
    module = model.beside
    if module is None or aside is None:
        return {}
    name = f"the network without {aside.maker.name} beside it"
    beside = record.in_time(name, lambda: answered(module, model.backbone.preprocess, test))
    bare = finished.task.calibrate(finished.judged.bare)
    return {} if beside is None else {name: bare.applied(rows - beside)}


def _from_scratch(model: Model, ground: Ground, context: Context) -> Model:
    """A model of the same network, trained from random weights.

    Raises BudgetError, and KeyboardInterrupt when the user stops it.
    """
    made = from_scratch(ground.backbone, ground.data(ground.both), ground.task, context)
    if made is None:
        raise BudgetError("no time was left for it")
    return Model(*made, "linear", model.task)
