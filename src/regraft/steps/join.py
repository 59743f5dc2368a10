"""Part of step 2: whether the features of all depths of a backbone are joined, and how."""

from __future__ import annotations

from typing import Literal

import numpy as np

from regraft.backbones import Backbone, joined
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks, standard_error
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.tasks import Task
from regraft.training import Path, fit_path

Way = bool | Literal["deviations"]
WAYS: dict[Way, str] = {
    False: "the last depth alone",
    True: "all depths joined",
    "deviations": "all depths joined with their deviations",
}


def join(backbone: Backbone, part: Part, count: int, task: Task, context: Context) -> Backbone:
    """The backbone as the recipe wants it, its depths joined or not; where that is open, what predicts better
    out of fold on train and val together, `part`. `count` are the examples of all splits.

    Where the modality's networks may gain by it, means of all depths are the usual; the last depth alone, or
    deviations beside the means, win only if their loss is lower by more than one standard error of the paired
    difference (docs/decisions.md).
    """
    asked = context.recipe.base.join
    if asked == "auto":
        wanted, why = _better(backbone, part, count, task, context)
    else:
        wanted, why = asked, "the user named it"
    if wanted is not False:
        backbone = _joined(backbone, wanted)
    context.settle("base.join", wanted, why)
    if wanted is not False:
        said = f"{WAYS[wanted]} ({len(backbone.stages)}), {backbone.width:,} features, input size {backbone.preprocess.size}"
        context.decide("base", said, why, width=backbone.width)
    return backbone


def as_compared(backbone: Backbone, context: Context) -> Backbone:
    """The backbone as several are compared: with all depths joined where they may be in the end. Cut short at a
    depth that the user named, it is compared as it is.
    """
    asked = context.recipe.base.join
    if context.recipe.base.depth not in ("auto", len(backbone.stages)):
        return backbone
    if asked == "auto":
        asked = "deviations" if context.modality.joins and len(backbone.stages) > 1 else False
    return backbone if asked is False else _joined(backbone, asked)


def _joined(backbone: Backbone, way: Way) -> Backbone:
    try:
        return joined(backbone, way == "deviations")
    except ValueError as error:
        raise UsageError(f"base.join: {backbone.provenance.id} cannot be joined: {error}.") from None


def _better(backbone: Backbone, part: Part, count: int, task: Task, context: Context) -> tuple[Way, str]:
    """The way of joining that is better out of fold, and why. All ways are columns of one pass."""
    if not context.modality.joins or len(backbone.stages) < 2:
        return False, f"features of {context.modality.noun}s are those of the last stage"
    if fewest_blocks(task.strata(part.labels), part.blocks) < 2 or context.out_of_time():
        return False, "there is nothing, or no time, to choose by"
    every = joined(backbone, deviations=True)
    values = Frozen(every, choose_engine(every, part.items, count, context), context)(part)
    means, last = (every.width + backbone.width) // 2, backbone.width
    columns: dict[Way, slice] = {
        False: slice(means - last, means),
        True: slice(means),
        "deviations": slice(None),
    }
    usual = probed(values[:, columns[True]], part, task, context)
    chosen, least, told = True, usual, []  # type: Way, Path, list[str]
    for way in (False, "deviations"):  # type: Way
        if context.out_of_time():
            break
        path = probed(values[:, columns[way]], part, task, context)
        gain, error = gain_of(least, path, part, task)
        told.append(
            f"that of {WAYS[way]} is {'lower' if gain > 0 else 'higher'} by {abs(gain):.3f} ± {error:.3f} than "
            f"that of {WAYS[chosen]}"
        )
        if gain > error:
            chosen, least = way, path
    return chosen, f"out-of-fold {task.loss_name}: {'; '.join(told)}"


def probed(values: np.ndarray, part: Part, task: Task, context: Context) -> Path:
    """Out-of-fold outputs of a linear head on (N, D) features."""
    weights = task.weighted(part.labels, part.weights, "none")
    recipe = context.recipe
    return fit_path(
        np.ascontiguousarray(values),
        part.labels,
        weights,
        task,
        recipe.train.folds,
        recipe.run.seed,
        context.events.tick,
        blocks=part.blocks,
    )


def gain_of(alone: Path, together: Path, part: Part, task: Task) -> tuple[float, float]:
    """By how much the loss of the second is lower on the rows that both have, and its standard error."""
    rows, first, second = np.intersect1d(alone.rows, together.rows, return_indices=True)
    losses = [
        task.losses(part.labels[rows], path.logits[some])
        for path, some in ((alone, first), (together, second))
    ]
    difference = losses[0] - losses[1]
    return float(difference.mean()), standard_error(difference, part.blocks_at(rows))
