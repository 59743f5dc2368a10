"""Step 6: fine-tune where that is worth it, and have it judged by examples that chose nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.errors import BudgetError, RegraftError
from regraft.modalities import Suited
from regraft.recipe import Section
from regraft.steps.beside import Aside
from regraft.steps.context import Context
from regraft.steps.engine import Frozen
from regraft.steps.evaluate import out_of_fold
from regraft.steps.finetune.explore import WITHOUT_DECAY, explore
from regraft.steps.finetune.forecast import Signs, begun
from regraft.steps.finetune.judge import Comparison, compare, compare_beside, cross_fit
from regraft.steps.finetune.rules import Tuning, folds, learns_again, settled, settled_idle
from regraft.steps.finetune.tune import Finetuned, Tuner
from regraft.steps.freeze import planned
from regraft.steps.train import Heads, apply_head
from regraft.tasks import Held, Metric, Task, counted
from regraft.training import FreezePlan

PROBED = 512  # training examples by which a probe tells whether a way of augmentation suits the data
SURE = 1.64  # standard errors that the gain of that trial must reach: val also chose its epoch and its share
TRIAL = 4  # the length of fine-tuning is divided by it for the trial of `prefer: speed`
LEAST = 0.005  # a gain in loss below it is not worth the time, however sure: the classes are told apart nearly without fault

Predict = Callable[[Backbone, nn.Module, Part], np.ndarray]  # (N, K) logits, by the code that predicts


@dataclass(frozen=True)
class Ground:
    """What step 6 goes on: train and val, their frozen `features` in this order, and the head trained on
    them.

    `facts` are what the modality knows of the examples; `metric` is what fine-tuning must not clearly lose
    in, `aside` what stands beside the networks, `signs` what step 2 saw of fine-tuning.
    """

    backbone: Backbone
    fit: Part
    val: Part
    features: Part
    heads: Heads
    facts: pa.Table
    task: Task
    metric: Metric
    aside: Aside | None = None
    signs: Signs | None = None

    @property
    def both(self) -> Part:
        """Train, followed by val."""
        return self.fit.then(self.val)

    def data(self, part: Part) -> Part:
        """What fine-tuning is given of a part: its weights count classes equally where the head's do."""
        weights = self.task.weighted(part.labels, part.weights, self.heads.chosen.class_weights)
        return replace(part, weights=weights)


@dataclass(frozen=True)
class HeadOnly:
    """The candidate without fine-tuning: the frozen backbone with the head refitted on train and val."""

    backbone: Backbone
    head: nn.Module
    name: str = "head only"


@dataclass(frozen=True)
class Tried:
    """What step 6 trained: a fine-tuned model, or None; `compared` is the evidence of folds, where these
    judged it.

    Where the user stopped it, `tuned` is the best so far.
    """

    tuned: Finetuned | None = None
    tuner: Tuner | None = None
    compared: Comparison | None = None
    stopped: bool = False


def finetune(ground: Ground, plan: FreezePlan | None, frozen: Frozen, context: Context) -> Tried:
    """Fine-tune by the plan, or by the best of several where it is None.

    Folds of train and val judge it up to about a thousand examples, val where there are more or time is
    short. Raises KeyboardInterrupt where the user stops it before there is a model to hand over.
    """
    asked, count = context.recipe.finetune, len(ground.fit)
    size = ground.backbone.preprocess.size
    suited = context.modality.settings(ground.facts, size)
    if asked.epochs == 0 or (plan is not None and plan.strategy == "head"):
        context.settle("finetune.begin", False, "the head alone was asked for")
        return _idle("the head alone was asked for", suited, context)
    signs = ground.signs if context.recipe.freeze.strategy == "full" else None
    begins, why = begun(signs, ground.both, ground.task, context)
    context.settle("finetune.begin", begins, why)
    if not begins:
        return _idle(why, suited, context)
    if not len(ground.val) and plan is None:
        return _idle("there is no val set to compare strategies on", suited, context)
    settings = settled(asked, count, suited, size)
    for name, value in settings.items():
        context.settle(f"finetune.{name}", value, "by rule from the number of examples and what they are")
    try:
        augment = _augmentation(suited, _probed(ground, frozen, context), context)
    except BudgetError as error:
        return _idle(str(error), suited, context)
    several = _folds(ground, plan, context)
    usual = plan or planned(ground.backbone, "full", context.recipe.freeze.norm_statistics)[0]
    tuning = Tuning.of(asked, augment, ground.heads.chosen.class_weights, **settings)
    tuner = Tuner(ground.backbone, usual, tuning, ground.task, frozen.engine.name)
    if plan is not None and (several > 1 or not len(ground.val)):
        return _by_folds(tuner, several, ground, context)
    try:
        return _explored(tuner, ground, context) if plan is None else _by_val(tuner, ground, context)
    except BudgetError as error:
        return _not_done(str(error), context)


def _augmentation(suited: Suited, probed: Mapping[str, tuple[bool, str]], context: Context) -> Section:
    """The settings of augmentation: as they were asked for, by rule, or by what was `probed`, with why.

    A way of augmentation that was not probed is not used.
    """
    values: dict[str, Any] = {}
    known = {name: (value, "by rule from what the examples are") for name, value in suited.augment.items()}
    known |= {probe.setting: (False, "nothing was probed") for probe in context.modality.probes}
    known |= probed
    for name, value in context.augmentation.model_dump().items():
        if value == "auto" and name not in known:
            raise RegraftError(f"the modality {context.modality.name} has no rule for augment.{name}.")
        values[name], why = known[name] if value == "auto" else (value, "as asked, or as usual")
        context.settle(f"augment.{name}", values[name], why)
    return context.modality.augmentation(**values)


def _probed(ground: Ground, frozen: Frozen, context: Context) -> dict[str, tuple[bool, str]]:
    """Which ways of augmentation are used and why, by the names of their settings: a probe tells whether
    what they show is like the data.

    Raises BudgetError where there is no time to find out.
    """
    probed, step = {}, -(-len(ground.fit) // PROBED)
    for probe in context.modality.probes:
        if getattr(context.augmentation, probe.setting) != "auto":
            continue
        viewed = frozen(ground.fit.every(step), probe.setting)
        probed[probe.setting] = probe.allowed(ground.features.values[: len(ground.fit) : step], viewed)
        context.events.note(probed[probe.setting][1])
    return probed


def _folds(ground: Ground, plan: FreezePlan | None, context: Context) -> int:
    """Into how many folds train and val are cut; 0: val judges, as where it compares strategies."""
    recipe = context.recipe
    if plan is None:  # a resumed run, its strategy decided, is not to judge them anew
        count, why = 0, "val compares freezing strategies"
    elif recipe.finetune.folds != "auto":
        return int(recipe.finetune.folds)
    else:
        unhurried = recipe.run.budget_seconds is None and recipe.run.prefer == "accuracy"
        blocks = None if ground.val.blocks is None else len(np.unique(ground.val.blocks))
        count = folds(len(ground.fit), len(ground.val), unhurried, blocks)
        why = "by the number of examples" if blocks != 1 else "val is of a single group, which cannot judge"
    context.settle("finetune.folds", count, why)
    return count


def _by_folds(tuner: Tuner, several: int, ground: Ground, context: Context) -> Tried:
    """Fine-tune on all of train and val where folds of them say that it is worth it."""
    data = ground.data(ground.both)
    chosen = ground.heads.chosen
    compared = cross_fit(tuner, chosen, data, ground.features, ground.metric, several, context, ground.aside)
    if compared is None:
        return _not_done("too few examples, or too little time, to judge it by cross-validation", context)
    if not compared.share:
        return replace(_not_done(compared.why, context), compared=compared)
    context.settle("finetune.interpolation", compared.share, "the best share on held-out examples")
    context.settle("finetune.refit", False, "the model is trained on train and val already")
    tuner = replace(tuner, tuning=replace(tuner.tuning, interpolation=compared.share))
    tuned = tuner.fit(ground.heads.refitted, data, None, context, context.keeper.checkpoint("finetune"))
    return replace(_done(tuned, tuner, context), compared=compared)


def _by_val(tuner: Tuner, ground: Ground, context: Context) -> Tried:
    """Fine-tune on train; val tells the epoch and the share, and judges afterwards."""
    data, val, head = ground.data(ground.fit), ground.data(ground.val), ground.heads.on_train
    if context.recipe.run.prefer == "speed" and not context.keeper.strategies():
        epochs = max(1, round(tuner.tuning.epochs / TRIAL))
        short = replace(tuner, tuning=replace(tuner.tuning, epochs=epochs))
        tried = short.fit(head, data, val, context.trial())
        assert tried.logits is not None
        before = apply_head(head, ground.features.values[len(ground.fit) :])
        logits, rows = {0.0: before, 1.0: tried.logits}, np.arange(len(val.labels))
        comparison = compare(ground.task, ground.metric, val.labels, logits, val.blocks, rows)
        if not comparison.share or comparison.gain <= max(SURE * comparison.error, LEAST):
            return _not_done(
                f"a trial of {counted('epoch', epochs)} shows no gain: {comparison.why}", context
            )
    tuned = tuner.fit(head, data, val, context, context.keeper.checkpoint("finetune"))
    return _done(tuned, tuner, context)


def _explored(usual: Tuner, ground: Ground, context: Context) -> Tried:
    """Try freezing strategies against each other.

    All trials are kept, so that a stopped run does not repeat them.
    """
    head, keeper = ground.heads.on_train, context.keeper
    before = apply_head(head, ground.features.values[len(ground.fit) :])
    race = explore(usual, head, before, ground.data(ground.fit), ground.data(ground.val), context)
    trials = [asdict(trial) for trial in race.trials]
    kept = {"trials": trials, "chosen": race.chosen, "advice": race.advice}
    keeper.keep_strategies({**kept, "metric": ground.task.headline.described()})
    context.events.emit("advice", step="finetune", chosen=race.chosen, text=race.advice)
    if race.tuned is None or race.tuner is None:
        return _not_done(race.advice, context)
    tuned = replace(race.tuned, decided=f"{race.chosen}: {race.tuned.decided}", why=race.advice)
    if not race.stopped:
        context.settle("freeze.strategy", race.chosen.removesuffix(WITHOUT_DECAY), race.advice)
        context.settle("finetune.layer_decay", tuned.tuning.layer_decay, race.advice)
        if race.checkpoint is not None:  # what a resumed run, its strategy decided, goes on from
            race.checkpoint.move_to(keeper.checkpoint("finetune"))
    return _done(tuned, race.tuner, context)


def _done(tuned: Finetuned, tuner: Tuner, context: Context) -> Tried:
    """Say what came of a training, and settle what it decided.

    What a run that was stopped had not decided stays open.
    """
    used = tuned.tuning
    for name, value in (("epochs", used.epochs), ("precision", used.precision)):
        if not (tuned.interrupted and context.recipe.freeze.strategy == "auto"):
            context.settle(f"finetune.{name}", value, "as training took it")
    if used.interpolation != "auto" and not tuned.interrupted:
        context.settle("finetune.interpolation", used.interpolation, "the lowest val loss, or as asked")
    context.decide("finetune", tuned.decided, tuned.why, frozen_digest=tuned.frozen_digest)
    return Tried(tuned, tuner, stopped=tuned.interrupted)


def _idle(why: str, suited: Suited, context: Context) -> Tried:
    """Say that nothing is fine-tuned, where not even the augmentation was settled yet."""
    _augmentation(suited, {}, context)
    return _not_done(why, context)


def _not_done(why: str, context: Context) -> Tried:
    """Say so, and settle what is left open for a step that is not taken."""
    for name, value in settled_idle(context.recipe.finetune).items():
        if name == "epochs" or f"finetune.{name}" not in context.decisions.settled:
            context.settle(f"finetune.{name}", value, "nothing is fine-tuned")
    if context.recipe.freeze.strategy == "auto":
        context.settle("freeze.strategy", "head", why)
    context.decide("finetune", "not done", why)
    return Tried()


@dataclass(frozen=True)
class Judged:
    """The winner, held-out predictions of it, and why it won.

    `held` has what calibration goes by; `shown` are the examples of val among it, `logits` (V, K) theirs.
    `final` says that the winner has learnt from train and val already. `weight` is that of what stands beside
    its network, `bare` are its held-out predictions without it.
    """

    winner: HeadOnly | Finetuned
    held: Held
    why: str
    shown: Part
    logits: np.ndarray
    final: bool
    weight: float
    bare: Held

    @property
    def name(self) -> str:
        """ "head only" or "fine-tuned"."""
        return self.winner.name


def judge(ground: Ground, tried: Tried, predict: Predict, context: Context) -> Judged:
    """The fine-tuned model where it is better than the head alone outside the noise, else the head alone."""
    heads, fit, val, both, aside = ground.heads, ground.fit, ground.val, ground.both, ground.aside
    alone = HeadOnly(ground.backbone, heads.refitted)
    shown, logits = val, np.zeros((0, ground.task.outputs))
    compared, why, source = tried.compared, "nothing else was trained", "out-of-fold"
    if compared is None and len(val):
        source, place = "val", len(fit) + np.arange(len(val))
        answers = aside.answers(np.arange(len(fit)), place) if aside else None
        of_head = {0.0: predict(ground.backbone, heads.on_train, val)}
        logits = of_head[0.0] if answers is None else of_head[0.0] + aside.weight * answers  # type: ignore[union-attr]
        if tried.tuned is not None:
            of_both = {**of_head, 1.0: predict(tried.tuned.backbone, tried.tuned.head, val)}
            ask = ground.task, ground.metric, val.labels
            compared = compare_beside(*ask, of_both, val.blocks, place, aside, answers)
    if compared is not None:
        of_val = compared.rows >= len(fit)
        shown, logits = val.some(compared.rows[of_val] - len(fit)), compared.logits[of_val]
        folds_ = f"{len(compared.rows):,} examples held out of train and val in turn"
        why = f"{source if source == 'val' else folds_}: {compared.why}"
    if compared is None or not compared.share or tried.tuned is None:
        bare = out_of_fold(heads, both)
        weight, held = (aside.weight, aside.held or bare) if aside and aside.weight else (0.0, bare)
        if (
            source == "out-of-fold" and not weight and heads.oof_logits is not None
        ):  # of all, not of some folds
            of_val = heads.oof_rows >= len(fit)
            shown, logits = val.some(heads.oof_rows[of_val] - len(fit)), heads.oof_logits[of_val]
        return Judged(alone, held, why, shown, logits, True, weight, bare)
    rows = compared.rows
    held = Held(source, both.labels[rows], compared.logits, both.blocks_at(rows))
    bare = held if compared.bare is None else replace(held, outputs=compared.bare)
    if compared.weight:
        why += f"; with {aside.maker.name} beside it, weight {compared.weight:g}"  # type: ignore[union-attr]
    return Judged(tried.tuned, held, why, shown, logits, source == "out-of-fold", compared.weight, bare)


@dataclass(frozen=True)
class Refitted:
    """The model that is handed over; `stopped` says that the user broke off its second training."""

    winner: HeadOnly | Finetuned
    stopped: bool = False


def refit(judged: Judged, tried: Tried, ground: Ground, context: Context) -> Refitted:
    """The winner trained once more, on train and val together, for the whole length, where that is due.

    Nothing is left to judge it by: as VTAB does (Zhai et al. 2019), the settings that val chose are
    trusted.
    """
    asked, tuned = context.recipe.finetune, tried.tuned
    if judged.final or tuned is None or tried.tuner is None:
        if not tried.stopped and "finetune.refit" not in context.decisions.settled:
            context.settle("finetune.refit", False, "the model has learnt from train and val already")
        return Refitted(judged.winner, tried.stopped)
    if tried.stopped:
        return Refitted(judged.winner, stopped=True)
    suited = context.modality.settings(ground.facts, ground.backbone.preprocess.size)
    wanted, why = learns_again(asked, context.recipe.run.prefer, len(ground.both), suited)
    if not wanted or not tuned.trained.epoch or context.out_of_time():
        context.settle("finetune.refit", False, why if not wanted else "no time was left for it")
        return Refitted(judged.winner)
    context.settle("finetune.refit", True, why)
    data, tuner = ground.data(ground.both), replace(tried.tuner, tuning=tuned.tuning)
    keeper = context.keeper.checkpoint("refit")
    again = tuner.fit(ground.heads.refitted, data, None, context.trial(), keeper)
    if again.interrupted:
        return Refitted(judged.winner, stopped=True)
    if again.trained.stopped != "length":
        context.settle("finetune.refit", False, f"the second training did not reach its length: {again.why}")
        return Refitted(judged.winner)
    context.events.note(f"trained once more on train and val, {len(data.items)} examples, as val chose")
    return Refitted(again)
