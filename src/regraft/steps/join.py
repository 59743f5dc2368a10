"""Part of step 2: whether the features of all depths of a backbone are joined, and how."""

from __future__ import annotations

import numpy as np

from regraft.backbones import Backbone, Way, joined, shares, widths_of
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks, standard_error
from regraft.modalities import BY_USER
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.tasks import Task
from regraft.training import Path, fit_path

WAYS: dict[Way, str] = {
    False: "the last depth",
    "faded": "all depths with early ones counting less",
    True: "all depths",
    "deviations": "all depths and their deviations",
}
JOINED: dict[Way, str] = {
    "faded": "joined, early ones counting less",
    True: "joined",
    "deviations": "joined with their deviations",
}
ENOUGH = 1_000  # examples of train and val that choose, at most


def join(backbone: Backbone, part: Part, count: int, task: Task, context: Context) -> Backbone:
    """The backbone as the recipe wants it, its depths joined or not; where that is open, what predicts better
    out of fold on train and val together, `part`. `count` are the examples of all splits.

    Of the ways that the modality's networks may gain by, the first is the usual; another wins only if its loss is
    lower by more than one standard error of the paired difference (docs/decisions.md).
    """
    asked = context.recipe.base.join
    if asked == "auto":
        wanted, why, compared = _better(backbone, part, count, task, context)
    else:
        wanted, why, compared = asked, BY_USER, False
    said = str(context.decisions.steps.get("base", {}).get("decided", ""))
    if wanted is not False:
        backbone = _joined(backbone, wanted)
        size = f"{backbone.width:,} features, input size {backbone.preprocess.size}"
        said = f"all {len(backbone.stages)} depths {JOINED[wanted]}, {size}"
    context.settle("base.join", wanted, why)
    if compared or wanted is not False:
        context.decisions.amend("base", said, why, {"width": backbone.width})
    return backbone


def as_compared(backbone: Backbone, context: Context) -> Backbone:
    """The backbone as several are compared: with all depths joined where that is usual. Cut short at a depth that
    the user named, it is compared as it is.
    """
    asked = context.recipe.base.join
    if context.recipe.base.depth not in ("auto", len(backbone.stages)):
        return backbone
    if asked == "auto":
        modality = context.modality
        usual = modality.joins[:1] == (True,) and modality.joined_up_to is None
        asked = "deviations" if usual and len(backbone.stages) > 1 else False
    return backbone if asked is False else _joined(backbone, asked)


def _joined(backbone: Backbone, way: Way) -> Backbone:
    try:
        return joined(backbone, way)
    except ValueError as error:
        raise UsageError(f"base.join: {backbone.provenance.id} cannot be joined: {error}.") from None


def _better(
    backbone: Backbone, part: Part, count: int, task: Task, context: Context
) -> tuple[Way, str, bool]:
    """The way of joining that is better out of fold, why, and whether ways were compared. All are columns of one
    pass.
    """
    ways: tuple[Way, ...] = context.modality.joins  # type: ignore[assignment]
    if not ways or len(backbone.stages) < 2:
        return False, f"features of {context.modality.noun}s are those of the last stage", False
    few = context.modality.joined_up_to
    if few is not None and len(part) > few * task.outputs:
        why = f"there are more than {few} examples a class, whose features are those of the last stage"
        return False, why, False
    some = part.every(-(-len(part) // ENOUGH))
    if fewest_blocks(task.strata(some.labels), some.blocks) < 2 or context.out_of_time():
        return ways[0], "there is nothing, or no time, to choose by", False
    every = joined(backbone, "deviations" if "deviations" in ways else True)
    engine = choose_engine(every, some.items, count, context.trial())  # told when the features are computed
    values = Frozen(every, engine, context)(some)
    chosen, least = ways[0], probed(columns(values, ways[0], backbone), some, task, context)
    told = [f"{_loss(least, some, task):.3f} by features of {WAYS[chosen]}"]
    for way in ways[1:]:
        if context.out_of_time():
            break
        path = probed(columns(values, way, backbone), some, task, context)
        gain, error = gain_of(least, path, some, task)
        beside = f"{'lower' if gain > 0 else 'higher'} by {abs(gain):.3f} ± {error:.3f}"
        told.append(f"{_loss(path, some, task):.3f} by those of {WAYS[way]} ({beside})")
        if gain > error:
            chosen, least = way, path
    return chosen, f"out-of-fold {task.loss_name} {', '.join(told)}", True


def _loss(path: Path, part: Part, task: Task) -> float:
    """The mean out-of-fold loss."""
    return float(task.losses(part.labels[path.rows], path.logits).mean())


def columns(values: np.ndarray, way: Way, backbone: Backbone) -> np.ndarray:
    """(N, D) features by one way of joining, of those of all depths of `backbone`, joined with deviations or
    without.
    """
    widths = widths_of(backbone)
    means = sum(widths)
    if way is False:
        return values[:, means - widths[-1] : means]
    if way == "faded":
        strengths = np.array(shares(len(widths)), dtype=np.float32)
        return np.asarray(values[:, :means] * np.repeat(strengths, widths))
    return values if way == "deviations" else values[:, :means]


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
