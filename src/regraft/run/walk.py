"""The seven calls, in order: examples in, a finished run folder out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from regraft.backbones import Backbone
from regraft.data import Examples
from regraft.data.audit import LATER, fatal
from regraft.data.lineage import in_sample
from regraft.data.part import Part
from regraft.errors import DataError, RegraftError
from regraft.evaluation import Familiarity
from regraft.model import Model
from regraft.run.record import Record
from regraft.run.sitting import Finished, evaluate
from regraft.steps.apart import Cut, keep_apart
from regraft.steps.audit import audit, nearly_known
from regraft.steps.base import base
from regraft.steps.beside import stand
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.steps.evaluate import calibrate, out_of_fold, predicted, val_scores
from regraft.steps.familiarity import familiarity
from regraft.steps.finetune.forecast import Signs
from regraft.steps.finetune.step import Ground, Tried, finetune, judge, refit
from regraft.steps.form import formed
from regraft.steps.freeze import freeze
from regraft.steps.head import head
from regraft.steps.long import long
from regraft.steps.names import with_names
from regraft.steps.obtain import Choice, obtain
from regraft.steps.pool import pool
from regraft.steps.train import Heads, train_head
from regraft.tasks import Calibration, Metric, Task


def walk(
    examples: Examples,
    task: Task,
    metric: Metric,
    about: Mapping[str, Any],
    record: Record,
    context: Context,
    until: str = "evaluate",
) -> None:
    """Walk the seven steps, or those before `evaluate`: then the test set stays sealed and no model is
    handed back.

    `metric` is what fine-tuning must not clearly lose in, `about` what was found when the data were opened.
    Raises KeyboardInterrupt once the best so far is kept.
    """
    counts, facts = examples.counts(), examples.facts()
    both, total = examples.part("train").then(examples.part("val")), sum(counts.values())
    with record.step("obtain"):
        choice = obtain(both, facts, counts, task, context)
    record.provenance(choice.obtained.provenance, choice.ranking)
    with record.step("base"):
        backbone, signs = _based(choice, both, facts, total, task, context)
    with record.step("freeze"):
        plan = freeze(backbone, context)
    with record.step("head"):
        layers = head(backbone.width, task, len(both), context)

    engine = choose_engine(backbone, examples.part("train").items, total, context)
    frozen = Frozen(backbone, engine, context)
    with record.step("features"):
        values = frozen(both)
    with record.step("near-duplicates"):
        cut = keep_apart(examples, values, frozen, not about.get("val_given"), record.leave_out, context)
    fit, val = cut.examples.part("train"), cut.examples.part("val")
    with record.step("train"):
        heads = with_names(
            train_head(layers, cut.features, len(fit), task, context, metric),
            *(cut.features, len(fit), frozen, metric, context),
        )
        task = heads.task
        aside = stand(heads, cut.features, backbone.preprocess, task, metric, context)
    with record.step("audit"):
        known = _audited(cut, heads, task, about, record, context)

    ground = Ground(backbone, fit, val, cut.features, heads, cut.examples.facts(), task, metric, aside, signs)
    handed_over = functools.partial(_model, task=task, heads=heads, record=record)
    _keep_head_only(ground, handed_over, about, until, record)
    try:
        with record.step("finetune"):
            tried = finetune(ground, plan, frozen, context)
    except KeyboardInterrupt:
        tried = Tried(stopped=True)
    if until == "finetune" and not tried.stopped:
        return record.explored()

    def predict(network: Backbone, layers: nn.Module, part: Part) -> np.ndarray:
        return predicted(handed_over(network, layers), part, context, record.say)

    judged = judge(ground, tried, predict, context)
    calibration = calibrate(task, judged.held, in_sample(dict(about)))
    record.held_out(judged.shown, judged.logits, val_scores(task, judged.shown, judged.logits, calibration))
    record.chosen(judged.name, judged.why)
    last = refit(judged, tried, ground, context)
    model = handed_over(
        last.winner.backbone, last.winner.head, beside=aside.module(judged.weight) if aside else None
    )
    model.familiarity = _familiarity(model, cut.features, frozen, record, context)
    model = record.model(calibrated(model, calibration, record))
    if last.stopped:
        raise KeyboardInterrupt
    _all_settled(context)

    finished = Finished(task, model, judged, calibration, known)
    with record.step("evaluate"):
        evaluate(cut.examples, finished, ground, frozen, record, context)
    return record.finish(model, task, calibration)


def _based(
    choice: Choice, both: Part, facts: pa.Table, total: int, task: Task, context: Context
) -> tuple[Backbone, Signs | None]:
    """The parts of step 2, one after another, and what they decided told once."""
    backbone = pool(base(choice.obtained, facts, context, choice.ranked), both, task, context)
    backbone, signs = formed(backbone, both, facts, total, task, context, choice.free)
    backbone = long(backbone, both, facts, total, task, context)
    context.tell("base")
    return backbone, signs


def _keep_head_only(
    ground: Ground, handed_over: Callable[..., Model], about: Mapping[str, Any], until: str, record: Record
) -> None:
    """Keep the model with the frozen backbone and the head refitted on train and val, calibrated out of fold,
    where the run is to hand over a model.
    """

    def made() -> Model:
        aside, held = ground.aside, out_of_fold(ground.heads, ground.both)
        beside = aside.module(aside.weight) if aside else None
        model = handed_over(ground.backbone, ground.heads.refitted, beside=beside)
        if aside is not None and beside is not None:
            held = aside.held or held
        model.calibration = calibrate(ground.task, held, in_sample(dict(about)))
        return model

    if until == "evaluate":
        record.head_only(made)


def _all_settled(context: Context) -> None:
    """Raises RegraftError where a choice of the recipe is still open."""
    if left := context.decisions.merged(context.recipe).open_choices():
        raise RegraftError(
            f"not decided at the end of the run: {', '.join(left)}; a fault of regraft, please report it"
        )


def _audited(
    cut: Cut, heads: Heads, task: Task, about: Mapping[str, Any], record: Record, context: Context
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
        findings = audit(cut.examples, cut.features, heads, cut.test, cut.near, kept, task, context)
        record.add_findings(findings, LATER)
        if context.recipe.data.strict and (faults := fatal(findings)):
            sources = f"Sources: {record.folder.audit}."
            raise DataError("the audit found what --strict does not let pass:", faults, sources)
        return nearly_known(findings, cut.test)

    if context.recipe.data.strict:
        return look()
    return record.optional("audit of the features", look) or frozenset()


def _familiarity(
    model: Model, known: Part, frozen: Frozen, record: Record, context: Context
) -> Familiarity | None:
    """How near to each other the examples of train and val lie; None where that could not be told."""

    def told() -> Familiarity | None:
        with record.step("familiarity"):
            return familiarity(model.backbone, known, frozen, context)

    return record.optional("familiarity", told)


def _model(
    backbone: Backbone,
    layers: nn.Module,
    *,
    task: Task,
    heads: Heads,
    record: Record,
    beside: nn.Module | None = None,
) -> Model:
    """A model of this run's task, not calibrated yet."""
    merged = record.context.decisions.merged(record.context.recipe).head
    settings = {"hidden": merged.hidden, "dropout": merged.dropout}
    kind, name, seen = heads.layers.kind, record.state["name"], record.folder.seen
    return Model(backbone, layers, kind, task, name, head_settings=settings, seen=seen, beside=beside)


def calibrated(model: Model, calibration: Calibration, record: Record) -> Model:
    """The model with the temperature and thresholds of the winner's held-out predictions; metrics.json gets
    the same.

    However a run ends, its model comes through here, and nothing else sets these.
    """
    model.calibration = calibration
    record.metrics.update(calibration.to_metrics())
    return model
