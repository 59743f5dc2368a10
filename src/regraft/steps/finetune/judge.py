"""Head alone or fine-tuned model? Judged on held-out examples that chose nothing else, the simpler one
inside the noise.

Up to about a thousand examples the evidence is cross-fitted: head and fine-tuned model are trained on a
part of train and val together and compared on the rest, fold after fold, until enough examples have been
held out, or the folds that are left would hardly change the answer. What wins is then fitted once more on
all of them, for the same number of epochs, as VTAB does (Zhai et al. 2019). Beyond that, val judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from regraft.data.part import Part
from regraft.evaluation import Metric, fewest_blocks, folds_of, standard_error
from regraft.steps.beside import Aside
from regraft.steps.context import Context
from regraft.steps.evidence import by_metric, foreseen, halves
from regraft.steps.finetune.mix import SHARES, mixtures
from regraft.steps.finetune.rules import GROUPS, HELD
from regraft.steps.finetune.tune import Tuner
from regraft.steps.train import Candidate, fit_chosen
from regraft.steps.trials import side_by_side, trials
from regraft.tasks import Task
from regraft.training import Checkpoint

# The folds that are left are not tried where their answer would be another with a probability below this
DOUBT = 0.05  # docs/decisions.md
# Blocks of held-out examples from which that is asked: a fine-tuned winner's also set its temperature and thresholds,
# while the head alone has its out-of-fold predictions of all
LOST_FROM, WON_FROM = 50, 100


@dataclass(frozen=True)
class Comparison:
    """How the head alone and the fine-tuned model did on the same held-out examples.

    `share` is how far the winner lies from the head-only weights to the fine-tuned ones, 0 for the head
    alone. `logits` (M, K) are held-out predictions of the winner, of the positions `rows` (M,). Those of a
    fine-tuned model are cross-fitted: the share of each half of the blocks was chosen on the other half.
    `gain` is by how much its loss is lower, with the standard `error` of that, which counts `blocks` of rows.
    `weight` is that of what stands beside the winner's network, `bare` are the logits (M, K) without it.
    """

    share: float
    rows: np.ndarray
    logits: np.ndarray
    why: str
    gain: float
    error: float
    blocks: int
    weight: float = 0.0
    bare: np.ndarray | None = None

    def chance(self, planned: int) -> float:
        """The probability that the fine-tuned model wins once `planned` examples are held out; 0 or 1 where they
        are.
        """
        done = len(self.rows)
        if done >= planned:
            return float(self.share > 0)
        return float(foreseen(self.gain, self.error, done / planned))

    def settled(self, planned: int) -> bool:
        """Whether no further fold has to be tried: `planned` examples are held out, or what would come of them
        is clear enough.
        """
        chance = self.chance(planned)
        lost = self.blocks >= LOST_FROM and not self.share and chance < DOUBT
        won = self.blocks >= WON_FROM and self.share > 0 and chance > 1 - DOUBT
        return len(self.rows) >= planned or lost or won


def compare(
    task: Task,
    metric: Metric,
    targets: np.ndarray,
    logits: Mapping[float, np.ndarray],
    blocks: np.ndarray | None,
    rows: np.ndarray,
) -> Comparison:
    """Compare the head alone, `logits[0]` (M, K), with fine-tuned models, by share, on (M, ...) targets of
    the positions `rows`.

    The fine-tuned model wins if its loss is lower by more than one standard error of the paired difference,
    which counts `blocks`, and if it is not worse in the metric by more than one either. Losses are those
    after the best calibration, since what is handed over gets one: without it a fine-tuned model, surer of
    itself, looks worse than it is. Where there are several shares, the loss of each half of the blocks is
    that of the share with the lowest loss on the other half, so that what is compared chose nothing.
    """
    losses = {share: task.losses(targets, outputs, refined=True) for share, outputs in logits.items()}
    shares = [share for share in logits if share]
    crossed, loss = np.empty_like(logits[0.0]), np.empty(len(targets))
    half = halves(len(targets), blocks)
    for own in (0, 1):
        here, there = half == own, half != own
        best = min(shares, key=lambda share: float(losses[share][there].mean()) if there.any() else 0.0)
        crossed[here], loss[here] = logits[best][here], losses[best][here]
    gains = losses[0.0] - loss
    gain, error = float(gains.mean()), standard_error(gains, blocks)
    before, after, noise = by_metric(
        metric, task.facts(targets, logits[0.0]), task.facts(targets, crossed), blocks
    )
    wins = gain > error and not before - after > noise  # a metric that these do not define has no say
    noise_said = f"{error:.3f}" if np.isfinite(error) else "unknown"
    why = (
        f"{task.loss_name} {losses[0.0].mean():.3f} head only, {loss.mean():.3f} fine-tuned (a gain of "
        f"{gain:.3f}, standard error {noise_said})"
    )
    if np.isfinite([before, after]).all():
        why += f", {metric.words} {metric.of_score(before):.3f} and {metric.of_score(after):.3f}"
    if gain > error and not wins:
        why += f", which is worse by more than one standard error ({noise:.3f})"
    if not np.isfinite(error):
        why += "; all were held out of one group, which does not tell of others"
    share = min(shares, key=lambda share: float(losses[share].mean())) if wins else 0.0
    units = len(rows) if blocks is None else len(np.unique(blocks))
    return Comparison(share, rows, crossed if wins else logits[0.0], why, gain, error, units)


def compare_beside(
    task: Task,
    metric: Metric,
    targets: np.ndarray,
    logits: Mapping[float, np.ndarray],
    blocks: np.ndarray | None,
    rows: np.ndarray,
    aside: Aside | None,
    answers: np.ndarray | None,
) -> Comparison:
    """`compare` of models that may have something beside their networks, with (M, K) `answers` of that."""
    if aside is None or answers is None:
        return compare(task, metric, targets, logits, blocks, rows)
    mixed = aside.beside(logits, answers, rows)
    found = compare(
        task, metric, targets, {share: each.logits for share, each in mixed.items()}, blocks, rows
    )
    return replace(found, weight=mixed[found.share].weight, bare=logits[found.share])


def cross_fit(
    tuner: Tuner,
    chosen: Candidate,
    data: Part,
    known: Part,
    metric: Metric,
    folds: int,
    context: Context,
    aside: Aside | None = None,
) -> Comparison | None:
    """Head and fine-tuned model, each with what stands `aside` it, compared by `folds` of `data`, whose frozen
    features are `known`: on HELD examples, or all.

    Fewer are held out where the folds that are left would hardly change the answer, which `why` says. It is
    None where a class has a single block, so that no fold can spare it, or where the time is up. The context's
    keeper has a checkpoint of each fold's training. Raises KeyboardInterrupt when the user stops it.
    """
    task, recipe = tuner.task, context.recipe
    strata = task.strata(data.labels)
    if fewest_blocks(strata, data.blocks) < 2:
        return None
    logits = {share: np.zeros((len(data.labels), task.outputs), dtype=np.float32) for share in (0.0, *SHARES)}
    answers = np.zeros_like(logits[0.0])
    splits = folds_of(strata, folds, recipe.run.seed, data.blocks)
    rows, comparison = np.zeros(0, dtype=np.int64), None
    some = splits[: _needed([held for _, held in splits], data.blocks)]
    planned = sum(len(held) for _, held in some)
    if side_by_side(context, len(some)):  # else the first fold finds out how the others are trained
        tuner = tuner.settled(fit_chosen(chosen, known, task, context), data, context)
    checkpoints = [context.keeper.checkpoint(str(number)) for number in range(len(some))]
    found = trials(_Fold(tuner, chosen, data, known), some, context, "folds", checkpoints)
    for number, ((fit, held), made) in enumerate(zip(some, found, strict=True)):
        if made is None:
            return None
        for share, each in made.items():
            logits[share][held] = each
        if aside is not None:
            answers[held] = aside.answers(fit, held)
        rows = np.sort(np.concatenate([rows, held]))
        tried = {share: values[rows] for share, values in logits.items()}
        blocks = data.blocks_at(rows)
        comparison = compare_beside(
            task, metric, data.labels[rows], tried, blocks, rows, aside, answers[rows]
        )
        context.events.emit("note", text=f"fold {number + 1} of {len(splits)} fine-tuned: {comparison.why}")
        if comparison.settled(planned):
            found.close()
            ended = _ended(comparison, planned, number + 1, len(some))
            return replace(comparison, why=f"{comparison.why}; {ended}")
    return comparison


def _needed(held: Sequence[np.ndarray], blocks: np.ndarray | None) -> int:
    """How many folds, of these held-out positions each, hold out HELD examples of GROUPS blocks; or all."""
    for number in range(1, len(held) + 1):
        rows = np.concatenate(held[:number])
        of = len(rows) if blocks is None else len(np.unique(blocks[rows]))
        if len(rows) >= HELD and of >= GROUPS:
            return number
    return len(held)


def _ended(comparison: Comparison, planned: int, tried: int, folds: int) -> str:
    """How many of the `folds` that were to hold out `planned` examples were tried, and why no more."""
    if tried == folds:
        return f"{tried} fold{'s' * (tried > 1)} tried, as planned"
    chance = comparison.chance(planned)
    other = 1 - chance if comparison.share else chance
    return (
        f"{tried} of {folds} folds tried: those that are left would change the answer with a probability of "
        f"{100 * other:.0f} %"
    )


@dataclass(frozen=True)
class _Fold:
    """A trial of positions to train on and positions that are held out: (M, K) logits of these by share."""

    tuner: Tuner
    chosen: Candidate
    data: Part
    known: Part

    def __call__(
        self, context: Context, checkpoint: Checkpoint, rows: tuple[np.ndarray, np.ndarray]
    ) -> dict[float, np.ndarray] | None:
        """None where the time is up. Raises KeyboardInterrupt where the user stops it."""
        if context.out_of_time():
            return None
        fit, held = rows
        head = fit_chosen(self.chosen, self.known.some(fit), self.tuner.task, context)
        tuned = self.tuner.fit(head, self.data.some(fit), None, context.trial(), checkpoint)
        if tuned.interrupted:
            raise KeyboardInterrupt
        if tuned.trained.stopped == "budget":
            return None
        return mixtures(self.tuner.backbone, head, tuned, self.data.some(held), context)
