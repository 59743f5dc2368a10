"""Freezing strategies against each other: same split, same seed, shared caches, successive halving over
training length.

Full fine-tuning is the usual way, and its place at the end is kept. Every other strategy gets a
thirty-sixth of the length, the three best on val a twelfth, the best of these all of it (Jamieson and
Talwalkar 2016), as full fine-tuning does. That one is taken if its val loss is lower by more than a
standard error of the difference: short trials favour what learns fast, and some dozens of val examples tell
little apart. Eight strategies cost about two and a half trainings, and val. Less than an epoch is one epoch
of a part of the examples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
from torch import nn

from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.errors import BudgetError, UsageError
from regraft.evaluation import all_alone, estimate_of, per_block, standard_error
from regraft.runtime import PeakMemory
from regraft.steps.context import Context, Keeper
from regraft.steps.finetune.tune import Finetuned, Tuner
from regraft.steps.freeze import planned
from regraft.steps.rank import stratified_order
from regraft.steps.trials import trials
from regraft.tasks import Task
from regraft.training import Checkpoint, within_error

RUNGS = ((36, 3), (12, 1), (1, 0))  # the length is divided by the first; so many go on
USUAL = "full"
WITHOUT_DECAY = " without layer decay"
STRATEGIES = ("last-1", "last-2", "half", "full", f"full{WITHOUT_DECAY}", "norm", "bias", "lora")


@dataclass(frozen=True)
class Trial:
    """A strategy trained for so many epochs: its val loss with its standard error, the value of the
    task's headline with its 95 % interval, the cost.

    Less than one epoch is one of a part of the examples; a budget may have made them fewer than were due.
    The loss is that after the best calibration, as the model that is handed over has one. Its standard error is
    not known, None, where all of val is of one group.
    """

    strategy: str
    epochs: float
    loss: float
    standard_error: float | None
    value: float
    low: float
    high: float
    trained: int  # parameters that moved, those of the head included
    seconds: float
    memory: int  # bytes, the peak of the process meanwhile


@dataclass
class Explored:
    """All trials, the name of the strategy that was chosen, its model where it is not the head alone, and
    advice in words.

    `checkpoint` is where the chosen training is kept. A comparison that was `stopped` by the user has only
    what to hand over for now.
    """

    trials: list[Trial]
    chosen: str
    advice: str
    tuned: Finetuned | None = None
    tuner: Tuner | None = None
    checkpoint: Checkpoint | None = None
    stopped: bool = False


def explore(
    usual: Tuner,
    head: nn.Module,
    head_logits: np.ndarray,
    data: Part,
    val: Part,
    context: Context,
    strategies: tuple[str, ...] = STRATEGIES,
) -> Explored:
    """Try the strategies, each with the settings of the `usual` one.

    `head_logits` (V, K) are those of the head alone on val. All trials are kept after each by the context's
    keeper; of those of an earlier, stopped run the shorter ones are not repeated, and those at full length
    go on from their checkpoints. What was trained on a part of the examples is handed over only by a run
    that the user stopped, whose recipe stays open. A strategy that this backbone does not take, or whose
    library is not installed, is left out with a note.
    """
    cost = sum(p.numel() for p in head.parameters()), 0.0, 0
    alone = _trial("head", 0, usual.task, head_logits, val, cost)
    trials = [Trial(**values) for values in context.keeper.strategies()] or [alone]
    race = _Race(usual, head, data, val, context, trials)
    tuners = {name: tuner for name in strategies if (tuner := _tuner(name, usual, context)) is not None}
    going = [name for name in tuners if name != USUAL]
    for part, survivors in RUNGS:
        last = part == 1
        if not last and len(going) <= survivors:
            continue
        names = [name for name in tuners if name == USUAL and last] + going
        rung = race.rung({name: tuners[name] for name in names}, part)
        going = sorted((n for n in going if n in rung), key=lambda name: rung[name].loss)[:survivors]
    best = race.best
    if best is None:
        return Explored(race.trials, "head", advice(race.trials, "head", usual.task))
    chosen = best.trial.strategy
    why = "stopped by the user before the strategies were compared"
    why = why if race.stopped else advice(race.trials, chosen, usual.task)
    assert best.tuned is not None
    if race.stopped:
        best.tuned.trained.stopped = "interrupted"
    return Explored(race.trials, chosen, why, best.tuned, tuners[chosen], best.checkpoint, race.stopped)


class _Race:
    """The trials so far, and the best of those that were trained to the end."""

    def __init__(
        self, usual: Tuner, head: nn.Module, data: Part, val: Part, context: Context, trials: list[Trial]
    ) -> None:
        self.length, self.head, self.data, self.val, self.context = (
            usual.tuning.epochs,
            head,
            data,
            val,
            context,
        )
        self.trials, self.task, self.backbone = trials, usual.task, usual.backbone
        self.best: _Tried | None = None
        self.stopped = False

    def rung(self, tuners: Mapping[str, Tuner], part: int) -> dict[str, Trial]:
        """Train each strategy for a `part`th of the length; gives the trials of this length by strategy.

        Strategies are left out where the time is up or the user stopped the comparison.
        """
        last, epochs = part == 1, max(1, self.length // part)
        examples = self._part(self.length / (part * epochs))
        share, keeper = len(examples.labels) / len(self.data.labels), self.context.keeper
        known = {trial.strategy: trial for trial in self.trials if trial.epochs == round(epochs * share, 2)}
        open_ = [name for name in tuners if not self.stopped and (last or name not in known)]
        due = [(number, name) for number, name in enumerate(tuners) if name in open_]
        work = _Strategy(self.backbone, self.head, examples, self.val, epochs, share, last)
        jobs = [(name, replace(tuners[name], backbone=None)) for _, name in due]  # type: ignore[arg-type]
        kept = [keeper.checkpoint(str(number)) if last else Checkpoint() for number, _ in due]
        made = trials(work, jobs, self.context, "strategies", kept)
        try:
            for (number, name), checkpoint, tried in zip(due, kept, made, strict=True):
                if tried is None:
                    continue
                if last and tried.first is not None:
                    keeper.first_batch(tried.first)
                tried = replace(tried, checkpoint=checkpoint if last else None)
                self.stopped = tried.interrupted
                if (last or self.stopped) and (self.best is None or tried.takes_the_place_of(self.best)):
                    self.best = tried
                if self.stopped:
                    made.close()
                    break
                known[name] = self._kept(tried.trial, known.get(name), number + 1, len(tuners))
        except KeyboardInterrupt:  # outside of training itself
            if self.best is None:
                raise
            self.stopped = True
        return known

    def _part(self, share: float) -> Part:
        """A stratified share of the examples; all of them from 1 on."""
        data = self.data
        if share >= 1:
            return data
        order = stratified_order(self.task.strata(data.labels), self.context.recipe.run.seed)
        return data.some(np.sort(order[: max(2, round(share * len(data.labels)))]))

    def _kept(self, trial: Trial, before: Trial | None, number: int, of: int) -> Trial:
        """The trial, kept and told. Most of one that goes on was paid for before the run was stopped."""
        if before:
            seconds, memory = max(trial.seconds, before.seconds), max(trial.memory, before.memory)
            trial = replace(trial, seconds=seconds, memory=memory)
        others = [t for t in self.trials if (t.strategy, t.epochs) != (trial.strategy, trial.epochs)]
        self.trials = [*others, trial]
        metric = self.task.headline.described()
        self.context.keeper.keep_strategies({"trials": [asdict(t) for t in self.trials], "metric": metric})
        told = {"metric": metric, **asdict(trial)}
        self.context.events.emit("trial", step="finetune", number=number, of=of, **told)
        return trial


@dataclass(frozen=True)
class _Tried:
    """What came of a strategy: `tuned` where it may be handed over, and the `first` batch that was augmented."""

    trial: Trial
    tuned: Finetuned | None
    losses: np.ndarray  # of val, one a block
    interrupted: bool
    first: dict[str, np.ndarray] | None = None
    checkpoint: Checkpoint | None = None

    def takes_the_place_of(self, usual: _Tried) -> bool:
        """Whether it is better by more than a standard error of the paired difference."""
        return not within_error(usual.losses, self.losses)


class _Shown(Keeper):
    """Keeps the first augmented batch that it is shown, and nothing else."""

    def __init__(self) -> None:
        self.first: dict[str, np.ndarray] | None = None

    def first_batch(self, batch: dict[str, np.ndarray]) -> None:
        """Keep it, in place of one before."""
        self.first = batch


@dataclass(frozen=True)
class _Strategy:
    """A trial of a strategy by its name and its tuner, whose backbone is given here: so many epochs of `data`,
    which are a `share` of all examples.

    The last trials tell their epochs, others only their result. Mixtures with the head-only weights are
    tried of the last alone: after an epoch or two they cost half of what training does.
    """

    backbone: Backbone
    head: nn.Module
    data: Part
    val: Part
    epochs: int
    share: float
    last: bool

    def __call__(self, context: Context, checkpoint: Checkpoint, job: tuple[str, Tuner]) -> _Tried | None:
        """None where the time does not allow it. Raises KeyboardInterrupt outside of training itself."""
        if context.out_of_time():
            return None
        name, bare = job
        shown = _Shown()
        here = context.trial(quiet=not self.last, keeper=shown)
        here.events = here.events.about(strategy=name)
        interpolation = bare.tuning.interpolation if self.last else 1.0
        tuning = replace(bare.tuning, epochs=self.epochs, interpolation=interpolation)
        tuner, began = replace(bare, backbone=self.backbone, tuning=tuning), time.monotonic()
        try:
            with PeakMemory() as memory:
                tuned = tuner.fit(self.head, self.data, self.val, here, checkpoint)
        except BudgetError:
            return None
        assert tuned.logits is not None
        passes = round(tuned.tuning.epochs * self.share, 2)  # of all examples
        cost = tuned.parameters, time.monotonic() - began, memory.peak
        trial = _trial(name, passes, tuner.task, tuned.logits, self.val, cost)
        losses = tuner.task.losses(self.val.labels, tuned.logits, refined=True)
        losses, over = per_block(losses, self.val.blocks), self.last or tuned.interrupted
        return _Tried(trial, tuned if over else None, losses, tuned.interrupted, shown.first)


def _tuner(name: str, usual: Tuner, context: Context) -> Tuner | None:
    """The usual settings with another strategy; None where there is no such strategy for this backbone."""
    strategy, tuning = name.removesuffix(WITHOUT_DECAY), usual.tuning
    try:
        plan, _ = planned(usual.backbone, strategy, context.recipe.freeze.norm_statistics)
    except UsageError as error:
        context.events.emit("note", text=f"{name} is left out: {error}")
        return None
    if name.endswith(WITHOUT_DECAY):
        if tuning.layer_decay == 1:
            return None
        tuning = replace(tuning, layer_decay=1.0)
    return replace(usual, plan=plan, tuning=tuning) if plan.trainable else None


def _trial(
    name: str, epochs: float, task: Task, outputs: np.ndarray, val: Part, cost: tuple[int, float, int]
) -> Trial:
    """The trial by its (V, K) outputs for val; `cost` are the parameters trained, the seconds and the
    memory.
    """
    losses, blocks = task.losses(val.labels, outputs, refined=True), val.blocks
    groups = None if blocks is None or all_alone(blocks) else blocks
    headline = estimate_of(task.headline, task.facts(val.labels, outputs), groups)
    error = standard_error(losses, blocks) if len(per_block(losses, blocks)) > 1 else None
    return Trial(
        name, epochs, float(losses.mean()), error, headline.value, headline.low, headline.high, *cost
    )


def advice(trials: list[Trial], chosen: str, task: Task) -> str:
    """One sentence: what the chosen strategy gained, what was tried to the end beside it, and what comes
    close for less.
    """
    longest = {trial.strategy: trial for trial in sorted(trials, key=lambda trial: trial.epochs)}
    best, head = longest[chosen], longest["head"]
    if chosen == "head":
        return "no strategy was trained to the end, so the trained head on the frozen backbone is kept"
    shown = task.headline.shown(best.value)
    said = f"{chosen} reached a val {task.loss_name} of {best.loss:.3f}"
    said += f" ({task.headline.words} {shown})" if shown else ""
    gain = head.loss - best.loss
    error = best.standard_error
    if gain <= 0:
        said += f"; the head alone has {head.loss:.3f}: fine-tuning gained nothing here on val"
    elif error is None or head.standard_error is None:  # both are of the same val
        said += f", {gain:.3f} below the head alone, but all of val is of one group, which does not tell of others"
    elif gain < max(error, head.standard_error):
        said += (
            f"; the head alone has {head.loss:.3f}, "
            "a difference inside the noise: fine-tuning is hardly worth it"
        )
    else:
        said += f", {gain:.3f} below the head alone: fine-tuning is worth it here"
    others = [trial for trial in longest.values() if trial.strategy != "head"]
    lower = [trial for trial in others if trial.epochs > best.epochs / 2 and trial.loss < best.loss]
    if lower:
        noise = "" if error is None else ", within a standard error"
        return f"{said}; {lower[0].strategy} reached {lower[0].loss:.3f}{noise}, so the usual way is kept"
    if error is None:
        return said
    near = best.loss + min(error, gain / 2)
    cheap = [trial for trial in others if trial.loss <= near and trial.seconds < best.seconds / 2]
    if cheap:
        other = min(cheap, key=lambda trial: trial.seconds)
        return (
            f"{said}; {other.strategy} comes within a standard "
            f"error ({other.loss:.3f}) in {other.seconds:.0f} s"
        )
    return said
