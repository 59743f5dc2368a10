"""Part of step 4: what stands beside the network, of texts a linear model of their words. Its logits are added to
those of the head, or of the fine-tuned network, where held-out examples say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from regraft.backbones import tensors
from regraft.data.part import Part
from regraft.evaluation import standard_error
from regraft.inference import alike
from regraft.modalities import Beside, Preprocess, Small
from regraft.steps.context import Context
from regraft.steps.evidence import by_metric, halves
from regraft.steps.train import Heads
from regraft.tasks import Held, Metric, Task
from regraft.training import tried_folds

WEIGHTS = (0.25, 0.5, 1.0, 2.0)  # of its logits beside the network's, which a temperature scales together
SHARPER = (1.0, 1.5, 2.0, 3.0)  # what a network's own logits may be multiplied by, before anything is added
ENOUGH = 1_000  # held-out examples that tell whether it is worth it; no more folds are tried
MOST = 20_000  # examples that it learns from: what it knows of more is worth no more memory
BATCH = 64  # examples that it is asked about at once


@dataclass(frozen=True)
class Mixed:
    """What held-out examples say of it beside a network: its `weight`, 0 for none, (N, K) `logits` that
    chose nothing (the weight of each half of the blocks was chosen on the other half), and by how much the
    `loss` with it is lower than without, with the standard error.
    """

    weight: float
    logits: np.ndarray
    loss: float = 0.0
    gain: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Aside:
    """What stands beside the networks of a run. `both` are train and val, `weight` is that beside the head
    alone; with `always` it counts whatever held-out examples say. `held` are out-of-fold outputs of the head
    with it.
    """

    maker: Beside
    preprocess: Preprocess
    both: Part
    weights: np.ndarray
    offset: np.ndarray | None
    task: Task
    metric: Metric
    always: bool
    weight: float = 0.0
    held: Held | None = None

    def answers(self, learnt_from: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """(M, K) logits of the rows `asked`, by what the rows `learnt_from` teach."""
        return answered(self._learnt(learnt_from), self.preprocess, self.both.some(asked))

    def module(self, weight: float) -> nn.Module | None:
        """What is handed over: it has learnt from train and val. None where it counts nothing."""
        return self._learnt(np.arange(len(self.both)), weight) if weight else None

    def _learnt(self, rows: np.ndarray, weight: float = 1.0) -> nn.Module:
        rows = rows[:: -(-len(rows) // MOST)]
        raws = [self.preprocess.host(self.both.items[row]) for row in rows]
        made: Small = self.maker.learnt(raws, self.both.labels[rows], self.weights[rows], self.task)
        return made.scaled(weight, self.offset)

    def beside(
        self, logits: Mapping[float, np.ndarray], answers: np.ndarray, rows: np.ndarray
    ) -> dict[float, Mixed]:
        """By share of the fine-tuned weights (`judge.compare`), each with what stands beside it, for (M, K)
        logits of `rows` of train and val and the `answers` to these of what has not learnt from them. Beside
        the head alone, share 0, it has the weight that is known.
        """
        targets, blocks = self.both.labels[rows], self.both.blocks_at(rows)
        found = {
            share: mix(self.task, self.metric, targets, each, answers, blocks, self.always)
            for share, each in logits.items()
            if share
        }
        alone = Mixed(self.weight, logits[0.0] + self.weight * answers)
        return {0.0: alone, **found}


def answered(module: nn.Module, preprocess: Preprocess, part: Part) -> np.ndarray:
    """(N, K) logits of what stands beside a network."""
    logits: dict[int, np.ndarray] = {}
    for rows, raws in alike(((row, preprocess.host(item)) for row, item in enumerate(part.items)), BATCH):
        with torch.inference_mode():
            each = module(tensors(preprocess.collate(raws), torch.device("cpu"))).numpy()
        logits |= dict(zip(rows, each, strict=True))
    return np.stack([logits[row] for row in range(len(part))])


def stand(
    heads: Heads, both: Part, preprocess: Preprocess, task: Task, metric: Metric, context: Context
) -> Aside | None:
    """What the modality has beside its networks, with its weight beside the head alone by out-of-fold outputs
    of both; `both` are train and val. None where there is none, or nothing to choose by.
    """
    asked, maker = context.recipe.head.beside, context.modality.beside
    refused = _refused(heads, task, context)
    if maker is None or refused:
        context.settle("head.beside", False, refused or "this modality has nothing beside its networks")
        return None
    way = heads.chosen.class_weights
    offset, weights = task.offset(both.labels, way), task.weighted(both.labels, both.weights, way)
    aside = Aside(maker, preprocess, both, weights, offset, task, metric, asked is True)
    mixed, held = _out_of_fold(aside, heads, context)
    before, after = mixed.loss + mixed.gain, mixed.loss
    why = (
        f"out-of-fold {task.loss_name} {before:.3f} of the head alone, {after:.3f} with {maker.name} beside it "
        f"(a gain of {mixed.gain:.3f}, standard error {mixed.error:.3f})"
    )
    context.settle("head.beside", mixed.weight > 0, why)
    said = f"{maker.name} beside the head, weight {mixed.weight:g}" if mixed.weight else f"no {maker.name}"
    context.events.note(f"{said}: {why}")
    return replace(aside, weight=mixed.weight, held=held)


def _refused(heads: Heads, task: Task, context: Context) -> str:
    """Why nothing stands beside; empty where something may."""
    if context.recipe.head.beside is False:
        return "as asked"
    if heads.oof_logits is None:
        return "there is nothing to choose by"
    if task.probabilities(heads.oof_logits[:1]) is None:
        return "the task has no logits to add to"
    return "no time was left for it" if context.out_of_time() else ""


def _out_of_fold(aside: Aside, heads: Heads, context: Context) -> tuple[Mixed, Held]:
    """What the head's folds say of it beside the head, and the held-out outputs of both."""
    recipe, both, task = context.recipe, aside.both, aside.task
    answers = np.zeros((len(both), task.outputs), dtype=np.float32)
    held = np.zeros(len(both), dtype=bool)
    for learnt_from, asked in tried_folds(
        task.strata(both.labels), recipe.train.folds, recipe.run.seed, both.blocks
    ):
        answers[asked], held[asked] = aside.answers(learnt_from, asked), True
        if held.sum() >= ENOUGH:
            break
    assert heads.oof_logits is not None
    place = held[heads.oof_rows]
    rows, logits = heads.oof_rows[place], heads.oof_logits[place]
    targets, blocks = both.labels[rows], both.blocks_at(rows)
    mixed = mix(task, aside.metric, targets, logits, answers[rows], blocks, aside.always)
    return mixed, Held("out-of-fold", targets, mixed.logits, blocks)


def mix(
    task: Task,
    metric: Metric,
    targets: np.ndarray,
    logits: np.ndarray,
    answers: np.ndarray,
    blocks: np.ndarray | None,
    always: bool = False,
) -> Mixed:
    """Whether (N, K) `answers` beside a network's `logits` lower the loss of examples held out from both by
    more than one standard error of the paired difference, which counts `blocks`, without being worse in the
    metric by more than one either; and by which weight.

    It is a product of experts (Hinton 2002): logarithms of probabilities are added. A network that is not
    sure enough of itself is held against its own logits made larger, lest adding anything looked like a gain.
    """
    tried = {weight: logits + weight * answers for weight in (0.0, *WEIGHTS)}
    losses = {weight: task.losses(targets, each, refined=True) for weight, each in tried.items()}
    sharper = (task.losses(targets, factor * logits, refined=True) for factor in SHARPER)
    losses[0.0] = min(sharper, key=lambda each: float(each.mean()))
    crossed, loss, half = np.empty_like(logits), np.empty(len(targets)), halves(len(targets), blocks)
    choices = WEIGHTS if always else tuple(tried)
    for own in (0, 1):
        here, there = half == own, half != own
        best = min(choices, key=lambda weight: float(losses[weight][there].mean()) if there.any() else 0.0)
        crossed[here], loss[here] = tried[best][here], losses[best][here]
    gains = losses[0.0] - loss
    told = float(loss.mean()), float(gains.mean()), standard_error(gains, blocks)
    _, gain, error = told
    of_both = task.facts(targets, logits), task.facts(targets, crossed)
    before, after, noise = by_metric(metric, *of_both, blocks)
    if not always and (gain <= error or before - after > noise):
        return Mixed(0.0, logits, *told)
    weight = min(choices, key=lambda weight: float(losses[weight].mean()))
    return Mixed(weight, crossed if weight else logits, *told)
