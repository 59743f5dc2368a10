"""Freezing strategies against each other: same split, same seed, shared caches, successive halving over training length.

Every strategy gets a twelfth of the full length, the two best on val a third, the better of these all of it (Jamieson and
Talwalkar 2016): ten strategies cost at most two and a half times one, and val. A twelfth of less than twelve epochs is one epoch
of a part of the examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from regraft.backbones import Backbone
from regraft.errors import UsageError
from regraft.evaluation import refined_log_losses, score, wilson
from regraft.recipe import Recipe
from regraft.runtime import PeakMemory
from regraft.steps.context import Context
from regraft.steps.finetune import Finetuned, finetune
from regraft.steps.freeze import planned
from regraft.steps.prefix import Data
from regraft.steps.rank import stratified_order
from regraft.training import Checkpoint

RUNGS = ((12, 2), (3, 1), (1, 1))  # the length is divided by the first; so many go on
WITHOUT_DECAY = " without layer decay"
STRATEGIES = ("last-1", "last-2", "half", "full", f"full{WITHOUT_DECAY}", "norm", "bias", "first", "gradual", "lora")


@dataclass(frozen=True)
class Trial:
    """A strategy trained for so many epochs: val log loss with its standard error, accuracy with a 95 % interval, the cost.

    Less than one epoch is one of a part of the examples.
    The log loss is that at the best temperature (`refined_log_losses`), as the model that is handed over has one.
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
    """All trials, the strategy of the lowest val log loss, its model where it is not the head alone, and advice in words."""

    trials: list[Trial]
    chosen: str
    tuned: Finetuned | None
    advice: str


def explore(
    backbone: Backbone, head: nn.Module, head_logits: np.ndarray, data: Data, val: Data, context: Context,
    show: Callable[[np.ndarray], None], checkpoint: Checkpoint, known: list[dict[str, Any]],
    keep: Callable[[list[dict[str, Any]]], None], strategies: tuple[str, ...] = STRATEGIES,
) -> Explored:  # fmt: skip
    """Try the strategies. `known` are trials of an earlier, stopped run (as dictionaries), which are not repeated; `keep` is
    given all trials after each. The winner, trained at full length, leaves its settings in the recipe; what was trained on a
    part of the examples is handed over only by a run that was interrupted.

    A strategy that this backbone does not take, or whose library is not installed, is left out with a note.
    """
    length = int(context.recipe.finetune.epochs)
    trials = [Trial(**values) for values in known]
    if not trials:
        trials.append(_trial("head", 0, head_logits, val.labels, sum(p.numel() for p in head.parameters()), 0.0, 0))
    going = [name for name in strategies if _takes(name, backbone, context)]
    best: _Tried | None = None
    stopped = False
    for part, survivors in RUNGS:
        epochs = max(1, length // part)
        some = _part(data, length / (part * epochs), context.recipe.run.seed)
        passes = round(epochs * len(some.labels) / len(data.labels), 2)
        last = part == 1
        found = {trial.strategy: trial for trial in trials if trial.epochs == passes}
        for number, name in enumerate(going):
            if context.out_of_time() or stopped:
                break
            if name in found and not last:
                continue
            tried = _try(name, epochs, passes, backbone, head, some, val, context, show, checkpoint if last else None)
            if tried is None:
                continue
            found[name] = tried.trial
            trials = [t for t in trials if (t.strategy, t.epochs) != (name, passes)] + [tried.trial]
            keep([asdict(t) for t in trials])
            context.events.emit("trial", step="finetune", number=number + 1, of=len(going), **asdict(tried.trial))
            stopped = tried.tuned.trained.stopped == "interrupted"
            whole = some is data or stopped
            if whole and (best is None or tried.trial.log_loss < best.trial.log_loss):
                best = tried
        going = sorted((name for name in going if name in found), key=lambda name: found[name].log_loss)[:survivors]
    recipe, tuned = context.recipe, None
    if best is None:
        recipe.freeze.strategy, recipe.finetune.epochs = "head", 0
    else:
        recipe.freeze, recipe.finetune, tuned = best.recipe.freeze, best.recipe.finetune, best.tuned
        if stopped:
            tuned.trained.stopped = "interrupted"
        said = best.said["finetune"]
        context.said["finetune"] = {**said, "decided": f"{best.trial.strategy}: {said['decided']}", "why": advice(trials)}
    return Explored(trials, best.trial.strategy if best else "head", tuned, advice(trials))


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


def _try(
    name: str, epochs: int, passes: float, backbone: Backbone, head: nn.Module, data: Data, val: Data, context: Context,
    show: Callable[[np.ndarray], None], checkpoint: Checkpoint | None,
) -> _Tried | None:  # fmt: skip
    """One strategy for so many epochs of `data`, which are `passes` of all examples.

    The last trial (there is a checkpoint) tells its epochs, others only their result. Mixtures with the head-only weights are
    tried of the last alone: after an epoch or two they cost half of what training does.
    """
    here = context.trial(quiet=checkpoint is None)
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
    trial = _trial(name, passes, tuned.logits, val.labels, tuned.parameters, seconds, memory.peak)
    return _Tried(trial, tuned, here.recipe, here.said)


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
    name: str, epochs: float, logits: np.ndarray, labels: np.ndarray, trained: int, seconds: float, memory: int
) -> Trial:
    losses, right = refined_log_losses(labels, logits), score(labels, logits, "accuracy")
    low, high = wilson(round(right * len(labels)), len(labels))
    error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else 0.0
    return Trial(name, epochs, float(losses.mean()), error, right, low, high, trained, seconds, memory)


def advice(trials: list[Trial]) -> str:
    """One sentence: what reached the lowest val log loss, and what comes close to it for less."""
    longest = {trial.strategy: trial for trial in sorted(trials, key=lambda trial: trial.epochs)}
    best = min(longest.values(), key=lambda trial: trial.log_loss)
    head = longest["head"]
    said = f"{best.strategy} reached the lowest val log loss, {best.log_loss:.3f} ({best.accuracy:.1%} right)"
    if best.strategy == "head":
        return f"{said}: fine-tuning gained nothing here, the trained head on the frozen backbone is enough"
    gain = head.log_loss - best.log_loss
    noise = max(best.standard_error, head.standard_error)
    if gain < noise:
        return f"{said}; the head alone has {head.log_loss:.3f}, a difference inside the noise: fine-tuning is hardly worth it"
    cheap = [t for t in longest.values() if t.log_loss <= best.log_loss + best.standard_error and t.seconds < best.seconds / 2]
    if cheap and (other := min(cheap, key=lambda trial: trial.seconds)).strategy != best.strategy:
        return f"{said}; {other.strategy} comes within a standard error ({other.log_loss:.3f}) in {other.seconds:.0f} s"
    return f"{said}, {gain:.3f} below the head alone: fine-tuning is worth it here"
