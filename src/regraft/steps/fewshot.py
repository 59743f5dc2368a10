"""Too few examples for a val set to be trusted: cross-validation decides whether to fine-tune, then all are trained on.

A val set of some dozens is mostly luck. So head and fine-tuned model are compared on the out-of-fold predictions of train and
val together, and what wins is fitted once more on all, for the same number of epochs, as VTAB does (Zhai et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regraft.backbones import Backbone
from regraft.evaluation import fewest_blocks, folds_of, refined_log_losses, standard_error
from regraft.steps.context import Context
from regraft.steps.finetune import MIXTURES, finetune, mixtures
from regraft.steps.prefix import Data
from regraft.steps.train import Candidate, Features, fit_chosen
from regraft.training import Checkpoint, FreezePlan

ENOUGH = 50  # val examples that are trusted
FOLDS, FEWER = 5, 3  # without a val set, with a small one


def folds(val: int, unhurried: bool) -> int:
    """How many folds judge fine-tuning beside so many val examples; 0: val does, as it does where time is short."""
    if not val:
        return FOLDS
    return FEWER if val < ENOUGH and unhurried else 0


@dataclass(frozen=True)
class OutOfFold:
    """(N, K) logits of every example by a model that has not seen it; share 0 is the head alone."""

    share: float
    logits: np.ndarray
    why: str


def compare_out_of_fold(
    backbone: Backbone, plan: FreezePlan, chosen: Candidate, data: Data, known: Features, classes: int, context: Context,
    keeper: Callable[[int], Checkpoint] = lambda _: Checkpoint(),
) -> OutOfFold | None:  # fmt: skip
    """The share of fine-tuned weights of the lowest out-of-fold log loss; 0 unless the gain is above its standard error.

    Losses are those at the best temperature for each share, since the model gets one from these very logits: without it a
    fine-tuned model, surer of itself, looks worse than what is handed over.

    None where a class has a single example, or the time is up. `keeper` gives the checkpoint of each fold's training. Raises
    KeyboardInterrupt when the user stops it.
    """
    if fewest_blocks(data.labels, data.blocks) < 2:
        return None
    recipe = context.recipe
    rows = {share: np.zeros((len(data.labels), classes), dtype=np.float32) for share in (0.0, *MIXTURES)}
    splits = folds_of(data.labels, int(recipe.finetune.folds), recipe.run.seed, data.blocks)
    for number, (fit, held) in enumerate(splits):
        if context.out_of_time():
            return None
        head = fit_chosen(chosen, known.some(fit), classes, context)
        trial = context.trial()
        trial.recipe.finetune.interpolation = 1.0
        tuned = finetune(backbone, plan, head, data.some(fit), None, trial, checkpoint=keeper(number))
        if tuned is None or tuned.trained.stopped == "interrupted":
            raise KeyboardInterrupt
        if tuned.trained.stopped == "budget":
            return None
        for share, logits in mixtures(backbone, head, tuned, data.some(held), context).items():
            rows[share][held] = logits
        context.events.emit("note", text=f"fold {number + 1} of {len(splits)} fine-tuned")
    losses = {share: refined_log_losses(data.labels, logits) for share, logits in rows.items()}
    best = min(MIXTURES, key=lambda share: float(losses[share].mean()))
    gain = losses[0.0] - losses[best]
    error = standard_error(gain, data.blocks)
    share = best if gain.mean() > error else 0.0
    why = f"{len(splits)}-fold cross-validation of {len(gain)} examples: log loss {losses[0.0].mean():.3f} head only, "
    why += f"{losses[best].mean():.3f} fine-tuned (a gain of {gain.mean():.3f}, standard error {error:.3f})"
    return OutOfFold(share, rows[share], why)
