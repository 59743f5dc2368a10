"""What the model that is handed over was trained on: by this it tells what is unlike all of it."""

from __future__ import annotations

from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.errors import BudgetError
from regraft.evaluation import Familiarity, some_rows
from regraft.inference import makers
from regraft.steps.context import Context
from regraft.steps.engine import Frozen


def familiarity(backbone: Backbone, features: Part, frozen: Frozen, context: Context) -> Familiarity | None:
    """How far the examples that the model was made with lie from one another, by the features of its own
    `backbone`.

    `features` are train and val with those of the frozen base, which serve where the model has kept it.
    Where it was fine-tuned, a bounded number of examples passes once more. None where all examples are one
    block. Raises BudgetError where there is no time for these passes.
    """
    rows = some_rows(len(features))
    sample = features.some(rows)
    if backbone is not frozen.backbone:
        if context.out_of_time():
            raise BudgetError("no time was left for it")
        made = makers(backbone, context.device, context.feature_batch, cache=context.store.folder)
        some_values = Frozen(backbone, made[frozen.engine.name](), context)(sample)
    else:
        some_values = sample.values
    return Familiarity.of(some_values, sample.blocks)
