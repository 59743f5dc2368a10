"""Part of step 5: names of classes as examples. Of texts the name of a class is one too: what "card_arrival" means is
known before anybody has labelled a text. Where labels are few, the head may learn from it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regraft.data.part import Part
from regraft.evaluation import standard_error
from regraft.steps.beside import SHARPER
from regraft.steps.context import Context
from regraft.steps.engine import Frozen
from regraft.steps.evidence import by_metric
from regraft.steps.train import Candidate, Heads, apply_head, fit_chosen
from regraft.tasks import Metric, Task
from regraft.training import tried_folds

LETTERS = 3  # of a word that tells more than a number or a letter does
FEW = 20  # examples a class up to which a name is asked: among more it is one of many


def with_names(
    heads: Heads, known: Part, count: int, frozen: Frozen, metric: Metric, context: Context
) -> Heads:
    """The heads, taught the names of the classes too where these are words, unless that raises the out-of-fold
    loss, or harms the metric, by more than one standard error. Names without words ("a", "17") have to lower the
    loss by more than one standard error.

    Ten examples cannot tell what a name is worth; drawn sets of few texts did (docs/decisions.md). `known` are
    train and val with their frozen features, of which the first `count` are train. A name counts as one example,
    is learnt from in every fold and held out in none. The outputs of both
    are made larger by what suits them (`SHARPER`) before they are compared, so that neither gains by being surer.
    """
    refused = _refused(heads, known, context)
    if refused:
        context.settle("head.names", False, refused)
        return heads
    task = heads.task
    taught = replace(heads.chosen, named=_named(task, frozen))
    logits = _out_of_fold(taught, known, heads.oof_rows, task, context)
    targets, blocks = known.labels[heads.oof_rows], known.blocks_at(heads.oof_rows)
    own = heads.oof_logits
    assert own is not None
    before, after = (
        min((task.losses(targets, k * each, refined=True) for k in SHARPER), key=lambda loss: loss.mean())
        for each in (own, logits)
    )
    gain, error = float((before - after).mean()), standard_error(before - after, blocks)
    better, worse, noise = by_metric(metric, task.facts(targets, own), task.facts(targets, logits), blocks)
    needed = -error if are_words(task.classes) else error
    wins = context.recipe.head.names is True or (gain > needed and better - worse <= noise)
    why = (
        f"out-of-fold {task.loss_name} {before.mean():.3f} without the names of the classes, {after.mean():.3f} with "
        f"them as examples (a gain of {gain:.3f}, standard error {error:.3f})"
    )
    context.settle("head.names", wins, why)
    context.events.note(f"the head {'learns' if wins else 'does not learn'} from names of classes: {why}")
    if not wins:
        return heads
    on_train = fit_chosen(taught, known.cut(0, count), task, context)
    refitted = on_train if count == len(known) else fit_chosen(taught, known, task, context, on_train)
    return replace(heads, on_train=on_train, refitted=refitted, oof_logits=logits, chosen=taught)


def are_words(names: Sequence[str]) -> bool:
    """Whether each name holds a word, of LETTERS letters or more."""
    return all(re.search(rf"[^\W\d_]{{{LETTERS}}}", name) for name in names)


def _refused(heads: Heads, known: Part, context: Context) -> str:
    """Why no name is an example; empty where names are asked."""
    asked, classes = context.recipe.head.names, heads.task.outputs
    if asked is False:
        return "as asked"
    if context.modality.item_of_name is None:
        return "a name is no example of this modality"
    if heads.oof_logits is None or heads.layers.kind != "linear":
        return "there is nothing to choose by, or no linear head"
    if heads.task.probabilities(heads.oof_logits[:1]) is None or known.labels.ndim != 1:
        return "an answer is not one of several classes"
    if asked == "auto" and len(known) > FEW * classes:
        return f"there are more than {FEW} examples a class"
    return "no time was left for it" if context.out_of_time() else ""


def _named(task: Task, frozen: Frozen) -> Part:
    """The names of the classes as examples with their frozen features."""
    make = frozen.context.modality.item_of_name
    assert make is not None
    items = tuple(make(name) for name in task.classes)
    ids = tuple(hashlib.sha256(item).hexdigest()[:32] for item in items)
    part = Part("names of classes", ids, items=items, labels=task.encode(task.classes))
    return replace(part, weights=np.ones(len(items)), values=frozen(part))


def _out_of_fold(
    taught: Candidate, known: Part, rows: np.ndarray, task: Task, context: Context
) -> np.ndarray:
    """(M, K) logits of the `rows` that the head's own folds held out, less what class weights add."""
    recipe = context.recipe
    logits = np.zeros((len(known), task.outputs), dtype=np.float32)
    for fit, held in tried_folds(
        task.strata(known.labels), recipe.train.folds, recipe.run.seed, known.blocks
    ):
        logits[held] = apply_head(fit_chosen(taught, known.some(fit), task, context), known.values[held])
    return np.asarray(logits[rows])
