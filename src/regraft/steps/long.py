"""Part of step 2: what becomes of items that are longer than the network takes."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.steps.join import gain_of, probed
from regraft.tasks import Task


def long(
    backbone: Backbone, part: Part, facts: pa.Table, count: int, task: Task, context: Context
) -> Backbone:
    """The backbone as the recipe wants it, which cuts long items or sees them in windows that are averaged;
    where that is open, what predicts better out of fold on train and val together, `part` with these `facts`.
    `count` are the examples of all splits.

    Windows win only if their loss is lower by more than one standard error of the paired difference: to cut is
    simpler, and faster. Raises UsageError for windows where items have none.
    """
    asked, modality = context.recipe.base.long, context.modality
    if modality.longer is None:
        if asked == "windows":
            raise UsageError(
                f"base.long is windows: {modality.noun}s are not cut in windows by this setting."
            )
        context.settle("base.long", "cut", f"{modality.noun}s are never longer than what is taken")
        return backbone
    found = None
    if asked != "cut":
        found = modality.longer(backbone.preprocess, facts, context.device.type == "cpu")
    if found is None:
        why = (
            "the user named it"
            if asked == "cut"
            else f"no {modality.noun} is longer, or there is no time for more"
        )
        context.settle("base.long", "cut", why)
        return backbone
    windowed, why = replace(backbone, preprocess=found[0]), found[1]
    if context.recipe.base.join == "deviations":
        if asked == "windows":
            raise UsageError("base.long is windows: deviations (base.join) are not those of several windows.")
        context.settle("base.long", "cut", "deviations are joined, which are not those of several windows")
        return backbone
    if asked == "auto":
        better, compared = _better(backbone, windowed, part, count, task, context)
        why = f"{compared}; {why}" if better else compared
        if not better:
            context.settle("base.long", "cut", why)
            return backbone
    context.settle("base.long", "windows", why)
    before = context.decisions.steps.get("base", {}).get("decided")
    said = f"long {modality.noun}s in windows that are averaged"
    context.decisions.amend("base", ", ".join(filter(None, (before, said))), why, {})
    return windowed


def _better(
    backbone: Backbone, windowed: Backbone, part: Part, count: int, task: Task, context: Context
) -> tuple[bool, str]:
    """Whether windows are better out of fold, and why."""
    if fewest_blocks(task.strata(part.labels), part.blocks) < 2 or context.out_of_time():
        return False, "there is nothing, or no time, to choose by"
    paths = []
    for one in (backbone, windowed):
        values = Frozen(one, choose_engine(one, part.items, count, context.trial()), context)(part)
        paths.append(probed(values, part, task, context))
    less, error = gain_of(paths[0], paths[1], part, task)
    change = "lower" if less > 0 else "higher"
    why = (
        f"out-of-fold {task.loss_name} of windows that are averaged is {change} by {abs(less):.3f} \u00b1 {error:.3f} "
        "than that of cut ones"
    )
    return less > error, why if less > error else f"{why}, which is not clearly better"
