"""Part of step 2: whether the features of all depths of a backbone are joined."""

from __future__ import annotations

import numpy as np

from regraft.backbones import Backbone, joined
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks, standard_error
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.tasks import Task
from regraft.training import Path, fit_path


def join(backbone: Backbone, part: Part, count: int, task: Task, context: Context) -> Backbone:
    """The backbone as the recipe wants it, its depths joined or not; where that is open, what predicts better
    out of fold on train and val together, `part`. `count` are the examples of all splits.

    Joined features win only if their loss is lower by more than one standard error of the paired difference:
    the last ones alone are the simpler.
    """
    asked = context.recipe.base.join
    wanted, why = asked, "the user named it"
    if asked == "auto":
        wanted, why = _better(backbone, part, count, task, context)
    if wanted is not False:
        try:
            backbone = joined(backbone)
        except ValueError as error:
            raise UsageError(f"base.join: {backbone.provenance.id} cannot be joined: {error}.") from None
    context.settle("base.join", wanted is not False, why)
    if wanted is not False:
        said = f"{len(backbone.stages)} depths joined, {backbone.width:,} features, input size {backbone.preprocess.size}"
        context.decide("base", said, why, width=backbone.width)
    return backbone


def _better(backbone: Backbone, part: Part, count: int, task: Task, context: Context) -> tuple[bool, str]:
    """Whether joined features are better out of fold, and why."""
    if not context.modality.joins or len(backbone.stages) < 2:
        return False, f"features of {context.modality.noun}s are those of the last stage"
    if fewest_blocks(task.strata(part.labels), part.blocks) < 2 or context.out_of_time():
        return False, "there is nothing, or no time, to choose by"
    every = joined(backbone)
    values = Frozen(every, choose_engine(every, part.items, count, context), context)(part)
    alone, together = (_probed(x, part, task, context) for x in (values[:, -backbone.width :], values))
    gain, error = _gain(alone, together, part, task)
    better = gain > error
    change = "lower" if gain > 0 else "higher"
    why = (
        f"out-of-fold {task.loss_name} of all {len(backbone.stages)} depths joined is {change} by {abs(gain):.3f} ± {error:.3f} "
        "than that of the last alone"
    )
    return better, why if better else f"{why}, which is not clearly better"


def _probed(values: np.ndarray, part: Part, task: Task, context: Context) -> Path:
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


def _gain(alone: Path, together: Path, part: Part, task: Task) -> tuple[float, float]:
    """By how much the loss of joined features is lower on the rows that both have, and its standard error."""
    rows, first, second = np.intersect1d(alone.rows, together.rows, return_indices=True)
    losses = [
        task.losses(part.labels[rows], path.logits[some])
        for path, some in ((alone, first), (together, second))
    ]
    difference = losses[0] - losses[1]
    return float(difference.mean()), standard_error(difference, part.blocks_at(rows))
