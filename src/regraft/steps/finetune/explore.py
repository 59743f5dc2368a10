"""Freezing strategies against each other: same split, same seed, shared caches, successive halving over
training length.

Full fine-tuning is the usual way, and its place at the end is kept. Every other strategy gets a thirty-sixth
of the length, the three best on val a twelfth, the best of these all of it (Jamieson and Talwalkar 2016), as
full fine-tuning does. That one is taken if its val log loss is lower by more than a standard error of the
difference: short trials favour what learns fast, and some dozens of val examples tell little apart. Eight
strategies cost about two and a half trainings, and val. Less than an epoch is one epoch of a part of the examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from regraft.backbones import Backbone
from regraft.errors import UsageError
from regraft.evaluation import effective_count, per_block, refined_log_losses, standard_error, wilson
from regraft.recipe import Recipe
from regraft.runtime import PeakMemory
from regraft.steps.context import Context
from regraft.steps.finetune.prefix import Data
from regraft.steps.finetune.tune import Finetuned, finetune
from regraft.steps.freeze import planned
from regraft.steps.rank import stratified_order
from regraft.training import Checkpoint, within_error

RUNGS = ((36, 3), (12, 1), (1, 0))  # the length is divided by the first; so many go on
USUAL = "full"
WITHOUT_DECAY = " without layer decay"
STRATEGIES = ("last-1", "last-2", "half", "full", f"full{WITHOUT_DECAY}", "norm", "bias", "lora")


@dataclass(frozen=True)
class Trial:
    """A strategy trained for so many epochs: val log loss with its standard error, accuracy with a 95 %
    interval, the cost.

    Less than one epoch is one of a part of the examples; a budget may have made them fewer than were due. The
    log loss is that at the best temperature (`refined_log_losses`), as the model that is handed over has one.
    """

    strategy: str
    epochs: float
    log_loss: float
    standard_error: float
    accuracy: float
    low: float
    high: float
    trained: int  # parameters that moved, those of the head included
    seconds: float
    memory: int  # bytes, the peak of the process meanwhile


@dataclass
class Explored:
    """All trials, the strategy that was chosen, its model where it is not the head alone, and advice in
    words.

    `checkpoint` is where the chosen training is kept. A comparison that was `stopped` by the user has only
    what to hand over for now.
    """

    trials: list[Trial]
    chosen: str
    advice: str
    tuned: Finetuned | None = None
    checkpoint: Checkpoint | None = None
    stopped: bool = False


def explore(
    backbone: Backbone,
    head: nn.Module,
    head_logits: np.ndarray,
    data: Data,
    val: Data,
    context: Context,
    show: Callable[[np.ndarray], None],
    keeper: Callable[[int], Checkpoint],
    known: list[dict[str, Any]],
    keep: Callable[[list[dict[str, Any]]], None],
    strategies: tuple[str, ...] = STRATEGIES,
) -> Explored:
    """Try the strategies. `known` are trials of an earlier, stopped run (as dictionaries): shorter ones are
    not repeated, those at full length go on from their checkpoints, which `keeper` gives. `keep` receives all
    trials after each.

    What is chosen leaves its settings in the recipe. What was trained on a part of the examples is handed
    over only by a run that the user stopped, whose recipe stays open. A strategy that this backbone does not
    take, or whose library is not installed, is left out with a note.
    """
    length = int(context.recipe.finetune.epochs)
    trials = [Trial(**values) for values in known]
    if not trials:
        trials.append(_trial("head", 0, head_logits, val, sum(p.numel() for p in head.parameters()), 0.0, 0))
    going = [name for name in strategies if _takes(name, backbone, context)]
    usual, going = [name for name in going if name == USUAL], [name for name in going if name != USUAL]
    best: _Tried | None = None
    stopped = False
    for part, survivors in RUNGS:
        last = part == 1
        if not last and len(going) <= survivors:
            continue
        names = [*usual, *going] if last else going
        epochs = max(1, length // part)
        some = _part(data, length / (part * epochs), context.recipe.run.seed)
        share = len(some.labels) / len(data.labels)
        found = {trial.strategy: trial for trial in trials if trial.epochs == round(epochs * share, 2)}
        for number, name in enumerate(names):
            if context.out_of_time() or stopped:
                break
            before = found.get(name)
            if before and not last:
                continue
            try:
                tried = _try(
                    name,
                    epochs,
                    share,
                    backbone,
                    head,
                    some,
                    val,
                    context,
                    show,
                    keeper(number) if last else None,
                )
            except KeyboardInterrupt:  # outside of training itself
                if best is None:
                    raise
                stopped = True
                break
            if tried is None:
                continue
            stopped = tried.tuned.trained.stopped == "interrupted"
            if (last or stopped) and (best is None or tried.takes_the_place_of(best)):
                best = tried
            if stopped:
                break
            trial = tried.trial
            if before:  # most of it was paid for before the run was stopped
                trial = replace(
                    trial, seconds=max(trial.seconds, before.seconds), memory=max(trial.memory, before.memory)
                )
            found[name] = trial
            trials = [t for t in trials if (t.strategy, t.epochs) != (name, trial.epochs)] + [trial]
            keep([asdict(t) for t in trials])
            context.events.emit("trial", step="finetune", number=number + 1, of=len(names), **asdict(trial))
        going = sorted((name for name in going if name in found), key=lambda name: found[name].log_loss)[
            :survivors
        ]
    if best is None:
        context.recipe.freeze.strategy, context.recipe.finetune.epochs = "head", 0
        return Explored(trials, "head", advice(trials, "head"))
    chosen = best.trial.strategy
    why = "stopped by the user before the strategies were compared" if stopped else advice(trials, chosen)
    said = best.said["finetune"]
    context.said["finetune"] = {**said, "decided": f"{chosen}: {said['decided']}", "why": why}
    if stopped:
        best.tuned.trained.stopped = "interrupted"
    else:
        context.recipe.freeze, context.recipe.finetune = best.recipe.freeze, best.recipe.finetune
    return Explored(trials, chosen, why, best.tuned, best.checkpoint, stopped)


def _part(data: Data, share: float, seed: int) -> Data:
    """A stratified share of the examples; all of them from 1 on."""
    if share >= 1:
        return data
    return data.some(np.sort(stratified_order(data.labels, seed)[: max(2, round(share * len(data.labels)))]))


@dataclass
class _Tried:
    trial: Trial
    tuned: Finetuned
    recipe: Recipe
    said: dict[str, dict[str, Any]]
    losses: np.ndarray  # of val, one a block
    checkpoint: Checkpoint | None

    def takes_the_place_of(self, usual: _Tried) -> bool:
        """Whether it is better by more than a standard error of the paired difference."""
        return not within_error(usual.losses, self.losses)


def _try(
    name: str,
    epochs: int,
    share: float,
    backbone: Backbone,
    head: nn.Module,
    data: Data,
    val: Data,
    context: Context,
    show: Callable[[np.ndarray], None],
    checkpoint: Checkpoint | None,
) -> _Tried | None:
    """One strategy for so many epochs of `data`, which are a share of all examples.

    The last trials (there is a checkpoint) tell their epochs, others only their result. Mixtures with the
    head-only weights are tried of the last alone: after an epoch or two they cost half of what training does.
    """
    here = context.trial(quiet=checkpoint is None)
    here.events = here.events.about(strategy=name)
    here.recipe.freeze.strategy = name.removesuffix(WITHOUT_DECAY)
    here.recipe.finetune.epochs = epochs
    if checkpoint is None:
        here.recipe.finetune.interpolation = 1.0
    if name.endswith(WITHOUT_DECAY):
        here.recipe.finetune.layer_decay = 1.0
    began = time.monotonic()
    with PeakMemory() as memory:
        tuned = finetune(backbone, planned(backbone, here)[0], head, data, val, here, show, checkpoint)
    if tuned is None or tuned.logits is None:
        return None
    seconds = time.monotonic() - began
    passes = round(int(here.recipe.finetune.epochs) * share, 2)  # of all examples
    trial = _trial(name, passes, tuned.logits, val, tuned.parameters, seconds, memory.peak)
    losses = per_block(refined_log_losses(val.labels, tuned.logits), val.blocks)
    return _Tried(trial, tuned, here.recipe, here.said, losses, checkpoint)


def _takes(name: str, backbone: Backbone, context: Context) -> bool:
    trial = context.trial()
    trial.recipe.freeze.strategy = name.removesuffix(WITHOUT_DECAY)
    try:
        plan, _ = planned(backbone, trial)
    except UsageError as error:
        context.events.emit("note", text=f"{name} is left out: {error}")
        return False
    decays = float(context.recipe.finetune.layer_decay) < 1 or not name.endswith(WITHOUT_DECAY)
    return bool(plan.trainable) and decays


def _trial(
    name: str, epochs: float, logits: np.ndarray, val: Data, trained: int, seconds: float, memory: int
) -> Trial:
    losses, right = refined_log_losses(val.labels, logits), logits.argmax(axis=1) == val.labels
    share, count = float(right.mean()), effective_count(right, val.blocks)
    low, high = wilson(share * count, count)
    error = standard_error(losses, val.blocks) if len(per_block(losses, val.blocks)) > 1 else 0.0
    return Trial(name, epochs, float(losses.mean()), error, share, low, high, trained, seconds, memory)


def advice(trials: list[Trial], chosen: str) -> str:
    """One sentence: what the chosen strategy gained, what was tried to the end beside it, and what comes
    close for less.
    """
    longest = {trial.strategy: trial for trial in sorted(trials, key=lambda trial: trial.epochs)}
    best, head = longest[chosen], longest["head"]
    if chosen == "head":
        return "no strategy was trained to the end, so the trained head on the frozen backbone is kept"
    said = f"{chosen} reached a val log loss of {best.log_loss:.3f} ({best.accuracy:.1%} right)"
    gain = head.log_loss - best.log_loss
    if gain <= 0:
        said += f"; the head alone has {head.log_loss:.3f}: fine-tuning gained nothing here on val"
    elif gain < max(best.standard_error, head.standard_error):
        said += f"; the head alone has {head.log_loss:.3f}, a difference inside the noise: fine-tuning is hardly worth it"
    else:
        said += f", {gain:.3f} below the head alone: fine-tuning is worth it here"
    others = [trial for trial in longest.values() if trial.strategy != "head"]
    lower = [trial for trial in others if trial.epochs > best.epochs / 2 and trial.log_loss < best.log_loss]
    if lower:
        return f"{said}; {lower[0].strategy} reached {lower[0].log_loss:.3f}, within a standard error, so the usual way is kept"
    near = best.log_loss + min(best.standard_error, gain / 2)
    cheap = [trial for trial in others if trial.log_loss <= near and trial.seconds < best.seconds / 2]
    if cheap:
        other = min(cheap, key=lambda trial: trial.seconds)
        return f"{said}; {other.strategy} comes within a standard error ({other.log_loss:.3f}) in {other.seconds:.0f} s"
    return said
