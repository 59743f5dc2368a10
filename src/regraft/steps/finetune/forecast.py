"""Part of step 6: a forecast, by what frozen features have told already, of whether fine-tuning would gain anything."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.data.part import Part
from regraft.steps.context import Context
from regraft.tasks import Task

WORTH = 0.015  # a foreseen gain in log loss below it is not worth the time
FEWEST = 100  # examples of train and val: of fewer it was not measured


@dataclass(frozen=True)
class Signs:
    """What the features of step 2 say: the out-of-fold loss of a head on the last depth, and by how much the best
    way of joining depths lowers it, which is negative where none does.
    """

    loss: float
    joined: float


def begun(signs: Signs | None, part: Part, task: Task, context: Context) -> tuple[bool, str]:
    """Whether fine-tuning is begun on train and val, `part`, and why.

    Where the recipe leaves that open, and names no strategy and no epochs, a linear forecast of the gain in log
    loss decides, for modalities that have one (`Modality.foresight`): photographs of things that the network
    knows are told apart with little loss, and early depths add nothing (docs/decisions.md). Of other tasks than
    one class of several, few examples, and where there are no `signs`, nothing is foreseen.
    """
    asked, foresight = context.recipe.finetune.begin, context.modality.foresight
    if asked != "auto":
        return bool(asked), "as asked" if asked else "finetune.begin is false"
    one_of_several = part.labels.ndim == 1 and task.loss_name == "log loss"
    if foresight is None or signs is None or len(part) < FEWEST or not one_of_several:
        return True, "there is no forecast of what it gains"
    start, by_loss, by_joined = foresight
    gain = start + by_loss * signs.loss + by_joined * signs.joined
    said = (
        f"a forecast of its gain in {task.loss_name} is {gain:.3f}, by {signs.loss:.3f} out of fold from the last depth "
        f"and {abs(signs.joined):.3f} {'less' if signs.joined > 0 else 'more'} from joined ones"
    )
    if gain >= WORTH:
        return True, said
    return False, f"{said}; below {WORTH} it is not begun unless --freeze or finetune.begin asks for it"
