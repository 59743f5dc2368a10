"""The seven calls, in order: examples in, a finished run folder out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from regraft.backbones import Backbone
from regraft.data import Examples
from regraft.data.audit import LATER, fatal
from regraft.data.lineage import in_sample
from regraft.data.part import Part
from regraft.errors import DataError, RegraftError
from regraft.model import Model
from regraft.run.record import Record
from regraft.run.sitting import Finished, evaluate
from regraft.steps.apart import Cut, keep_apart
from regraft.steps.audit import audit, nearly_known
from regraft.steps.base import base
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.steps.evaluate import Verdict, predicted
from regraft.steps.familiarity import familiarity
from regraft.steps.finetune.step import Ground, Judged, Tried, finetune, judge, refit
from regraft.steps.freeze import freeze
from regraft.steps.head import head
from regraft.steps.obtain import obtain
from regraft.steps.train import Heads, train_head
from regraft.tasks import Calibration, Task, chosen_by, task_of


def walk(
    examples: Examples, about: Mapping[str, Any], record: Record, context: Context, until: str = "evaluate"
) -> None:
    """Walk the seven steps, or those before `evaluate`: then the test set stays sealed and no model is
    handed back.

    `about` is what was found when the data were opened. Raises KeyboardInterrupt once the best so far is
    kept.
    """
    task, counts = task_of(examples.task.kind, examples.task.classes), examples.counts()
    both = examples.part("train").then(examples.part("val"))
    metric = chosen_by(task, context.recipe.run.metric)
    context.settle("run.metric", metric.name, "the task's headline, or as asked")
    facts = examples.facts()
    choice = record.step("obtain", lambda: obtain(both, facts, counts, task, context))
    record.provenance(choice.obtained.provenance, choice.ranking)
    backbone = record.step("base", lambda: base(choice.obtained, facts, context, choice.ranked))
    plan = record.step("freeze", lambda: freeze(backbone, context))
    layers = record.step("head", lambda: head(backbone.width, task.outputs, len(both), context))

    engine = choose_engine(backbone, examples.part("train").items, sum(counts.values()), context)
    frozen = Frozen(backbone, engine, context)
    values = record.step("features", lambda: frozen(both))
    recut = not about.get("val_given")
    cut = record.step(
        "near-duplicates",
        lambda: _cut(keep_apart(examples, values, frozen, recut, record.leave_out, context), record),
    )
    fit, val = cut.examples.part("train"), cut.examples.part("val")
    heads = record.step("train", lambda: train_head(layers, cut.features, len(fit), task, context))
    known = record.step("audit", lambda: _audited(cut, heads, about, record, context))

    ground = Ground(backbone, fit, val, cut.features, heads, cut.examples.facts(), task, metric)
    try:
        tried = record.step("finetune", lambda: finetune(ground, plan, frozen, context))
    except KeyboardInterrupt:
        tried = Tried(stopped=True)
    if until == "finetune" and not tried.stopped:
        return record.explored()

    handed_over = functools.partial(_model, task=task, heads=heads, record=record)

    def predict(some: Backbone, layers: nn.Module, part: Part) -> np.ndarray:
        return predicted(handed_over(some, layers), part, context, record.say)

    judged = judge(ground, tried, predict, context)
    calibration = _calibration(task, judged, about)
    _note_val(task, judged, calibration, record)
    record.chosen(judged.name, judged.why)
    last = refit(judged, tried, ground, context)
    model = handed_over(last.winner.backbone, last.winner.head)
    model.familiarity = record.optional(
        "familiarity",
        lambda: record.step(
            "familiarity", lambda: familiarity(model.backbone, cut.features, frozen, context)
        ),
    )
    model = record.model(calibrated(model, calibration, record))
    if last.stopped:
        raise KeyboardInterrupt
    if left := context.decisions.merged(context.recipe).open_choices():
        raise RegraftError(
            f"not decided at the end of the run: {', '.join(left)}; a fault of regraft, please report it"
        )

    finished = Finished(task, model, judged, calibration, known)
    record.step("evaluate", lambda: evaluate(cut.examples, finished, ground, frozen, record, context))
    return record.finish(model, task, calibration)


def _cut(cut: Cut, record: Record) -> Cut:
    """Keep the examples as they are learnt from."""
    cut.examples.save(record.folder.examples)
    record.counted(cut.examples)
    return cut


def _audited(
    cut: Cut, heads: Heads, about: Mapping[str, Any], record: Record, context: Context
) -> frozenset[str]:
    """Audit the data by their features; gives the sources of test examples that train or val nearly hold.

    Raises DataError for what `--strict` does not let pass; else whatever goes wrong leaves the run as it
    is.
    """

    def look() -> frozenset[str]:
        if cut.near is None or context.out_of_time():
            record.leave_out("audit of features", "no time was left for it")
            return frozenset()
        kept = frozenset((source, kind) for source, kind in about.get("fixes", {}).get("kept", []))
        findings = audit(cut.examples, cut.features, heads, cut.test, cut.near, kept, context)
        record.add_findings(findings, LATER)
        if context.recipe.data.strict and (faults := fatal(findings)):
            sources = f"Sources: {record.folder.audit}."
            raise DataError("the audit found what --strict does not let pass:", faults, sources)
        return nearly_known(findings, cut.test)

    if context.recipe.data.strict:
        return look()
    return record.optional("audit of the features", look) or frozenset()


def _model(backbone: Backbone, layers: nn.Module, *, task: Task, heads: Heads, record: Record) -> Model:
    """A model of this run's task, not calibrated yet."""
    merged = record.context.decisions.merged(record.context.recipe).head
    settings = {"hidden": merged.hidden, "dropout": merged.dropout}
    kind, name, seen = heads.layers.kind, record.state["name"], record.folder.seen
    return Model(backbone, layers, kind, task, name, head_settings=settings, seen=seen)


def _calibration(task: Task, judged: Judged, about: Mapping[str, Any]) -> Calibration:
    """Temperature and thresholds by the winner's held-out predictions; no promise where the backbone saw
    them.
    """
    calibration = task.calibrate(judged.held)
    learnt = in_sample(dict(about))
    return calibration.promising_nothing(learnt) if learnt else calibration


def _note_val(task: Task, judged: Judged, calibration: Calibration, record: Record) -> None:
    """Keep what the winner's predictions say of the examples of val that were held out."""
    if not len(judged.shown):
        return
    shown = judged.shown
    verdict = Verdict(shown.labels, calibration.applied(judged.logits), shown.clusters())
    record.metrics["val"] = verdict.estimates(task)
    record.predictions.append((judged.shown, judged.logits))


def calibrated(model: Model, calibration: Calibration, record: Record) -> Model:
    """The model with the temperature and thresholds of the winner's held-out predictions; metrics.json gets
    the same.

    However a run ends, its model comes through here, and nothing else sets these.
    """
    model.calibration = calibration
    record.metrics.update(calibration.to_metrics())
    return model
