"""Part of step 2: how the tokens of a text become one row of features, where the weights do not say it."""

from __future__ import annotations

from regraft.backbones import Backbone, every_pooling, open_poolings, pooled_by
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.steps.join import gain_of, probed
from regraft.tasks import Task

ENOUGH = 2_000  # examples of train and val that choose, at most


def pool(backbone: Backbone, part: Part, task: Task, context: Context) -> Backbone:
    """The backbone with the pooling that the recipe names, else with its own; where its weights say none, with
    the mean, or with the first token if that predicts better out of fold on train and val, `part`.

    The mean is the simpler: the first token wins only if its loss is lower by more than one standard error of
    the paired difference. Raises UsageError for a network that pools in a way of its own.
    """
    asked, choices = context.recipe.base.pooling, open_poolings(backbone)
    wanted, why = str(asked), "as asked"
    if asked == "auto":
        wanted, why = _better(backbone, part, task, context) if choices else ("own", "the weights' own")
    if wanted != "own":
        if not choices and "pooling" not in backbone.config:
            raise UsageError(
                f"base.pooling is {wanted}: {backbone.provenance.id} is no encoder of texts. Leave it out."
            )
        backbone = pooled_by(backbone, wanted)
    context.settle("base.pooling", wanted, why)
    if choices:
        context.events.note(f"tokens are pooled by {wanted}: {why}")
    return backbone


def _better(backbone: Backbone, part: Part, task: Task, context: Context) -> tuple[str, str]:
    """The better of the open poolings out of fold, and why; one pass gives the features of all."""
    first, second = open_poolings(backbone)
    some = part.every(-(-len(part) // ENOUGH))
    if fewest_blocks(task.strata(some.labels), some.blocks) < 2 or context.out_of_time():
        return first, "there is nothing, or no time, to choose by"
    every = every_pooling(backbone)
    values = Frozen(every, choose_engine(every, some.items, len(some), context.trial()), context)(some)
    width = backbone.width
    alone, other = (probed(each, some, task, context) for each in (values[:, :width], values[:, width:]))
    gain, error = gain_of(alone, other, some, task)
    change = "lower" if gain > 0 else "higher"
    why = (
        f"the weights do not say; out-of-fold {task.loss_name} of {second} is {change} by {abs(gain):.3f} ± {error:.3f} than "
        f"that of {first}"
    )
    return (second, why) if gain > error else (first, f"{why}, which is not clearly better")
