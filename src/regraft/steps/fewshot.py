"""Too few examples for a val set: cross-validation decides whether to fine-tune, then everything is trained on.

With fewer than ten training examples a class one small val split is mostly luck. So head and fine-tuned model are compared on
the out-of-fold predictions of all of them, and what wins is fitted once more on all, for the same number of epochs, as VTAB
does (Zhai et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regraft.backbones import Backbone
from regraft.evaluation import log_losses
from regraft.steps.context import Context
from regraft.steps.finetune import MIXTURES, finetune, mixtures
from regraft.steps.prefix import Data
from regraft.steps.train import Candidate, Features, fit_chosen
from regraft.training import FreezePlan, folds_of

FOLDS = 5


@dataclass(frozen=True)
class OutOfFold:
    """(N, K) logits of every training example by a model that has not seen it; share 0 is the head alone."""

    share: float
    logits: np.ndarray
    why: str


def compare_out_of_fold(
    backbone: Backbone, plan: FreezePlan, chosen: Candidate, data: Data, known: Features, classes: int, context: Context
) -> OutOfFold | None:
    """The share of fine-tuned weights of the lowest out-of-fold log loss; 0 unless the gain is above its standard error.

    None where a class has a single example, or the time is up.
    """
    counts = np.bincount(data.labels, minlength=classes)
    if counts[counts > 0].min() < 2:
        return None
    recipe = context.recipe
    rows = {share: np.zeros((len(data.labels), classes), dtype=np.float32) for share in (0.0, *MIXTURES)}
    splits = folds_of(data.labels, FOLDS, recipe.run.seed)
    for number, (fit, held) in enumerate(splits):
        if context.out_of_time():
            return None
        head = fit_chosen(chosen, known.some(fit), classes, context)
        trial = context.trial()
        trial.recipe.finetune.interpolation = 1.0
        tuned = finetune(backbone, plan, head, data.some(fit), None, trial)
        if tuned is None:
            return None
        for share, logits in mixtures(backbone, head, tuned, data.some(held), context).items():
            rows[share][held] = logits
        context.events.emit("note", text=f"fold {number + 1} of {len(splits)} fine-tuned")
    losses = {share: log_losses(data.labels, logits) for share, logits in rows.items()}
    best = min(MIXTURES, key=lambda share: float(losses[share].mean()))
    gain = losses[0.0] - losses[best]
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    share = best if gain.mean() > error else 0.0
    why = f"{len(splits)}-fold cross-validation of {len(gain)} examples: log loss {losses[0.0].mean():.3f} head only, "
    why += f"{losses[best].mean():.3f} fine-tuned (a gain of {gain.mean():.3f}, standard error {error:.3f})"
    return OutOfFold(share, rows[share], why)
