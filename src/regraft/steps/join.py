"""Part of step 2: whether the features of all depths of a backbone are joined, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from regraft.backbones import Backbone, Way, joined, shares
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import standard_error
from regraft.modalities import BY_USER
from regraft.steps.context import Context
from regraft.tasks import Task
from regraft.training import Path, fit_path

if TYPE_CHECKING:
    from regraft.steps.form import Looks

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


def way_of(looks: Looks) -> tuple[Way, str, bool]:
    """How the depths of a backbone are joined as the recipe wants it, or, where that is open, as predicts better
    out of fold; why, and whether ways were compared.

    Of the ways that the modality's networks may gain by, the first is the usual; another wins only if its loss is
    lower by more than one standard error of the paired difference (docs/decisions.md). Raises UsageError where what
    was named cannot be had.
    """
    asked = looks.context.recipe.base.join
    if asked != "auto":
        if asked is not False:
            joined_by(looks.backbone, asked)
        return asked, BY_USER, False
    return _better(looks)


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
    return backbone if asked is False else joined_by(backbone, asked)


def joined_by(backbone: Backbone, way: Way) -> Backbone:
    """The backbone with its depths joined. Raises UsageError where they cannot be."""
    try:
        return joined(backbone, way)
    except ValueError as error:
        raise UsageError(f"base.join: {backbone.provenance.id} cannot be joined: {error}.") from None


def _better(looks: Looks) -> tuple[Way, str, bool]:
    """The way of joining that is better out of fold, why, and whether ways were compared."""
    modality, task, stages = looks.context.modality, looks.task, looks.stages
    ways: tuple[Way, ...] = modality.joins  # type: ignore[assignment]
    if not ways or stages < 2:
        return False, f"features of {modality.noun}s are those of the last stage", False
    few = modality.joined_up_to
    if few is not None and looks.examples > few * task.outputs:
        why = f"there are more than {few} examples a class, whose features are those of the last stage"
        return False, why, False
    if not looks.able:
        return ways[0], "there is nothing, or no time, to choose by", False
    chosen = looks.whole(ways[0])
    told = [f"{looks.loss(chosen):.3f} by features of {WAYS[chosen.way]}"]
    for way in ways[1:]:
        if looks.context.out_of_time():
            break
        other = looks.whole(way)
        gain, error = looks.gain(chosen, other)
        beside = f"{'lower' if gain > 0 else 'higher'} by {abs(gain):.3f} ± {error:.3f}"
        told.append(f"{looks.loss(other):.3f} by those of {WAYS[way]} ({beside})")
        if gain > error:
            chosen = other
    return chosen.way, f"out-of-fold {task.loss_name} {', '.join(told)}", True


def columns(values: np.ndarray, way: Way, widths: Sequence[int], depth: int) -> np.ndarray:
    """(N, D) features of the first `depth` stages by one way of joining them, of those of all depths, of these
    `widths`, joined with deviations or without.
    """
    upto, means = sum(widths[:depth]), sum(widths)
    if way == "faded":
        strengths = np.array(shares(depth), dtype=np.float32)
        return np.asarray(values[:, :upto] * np.repeat(strengths, widths[:depth]))
    if way == "deviations":
        return np.hstack([values[:, :upto], values[:, means : means + sum(widths[: depth - 1])]])
    return values[:, :upto]


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
