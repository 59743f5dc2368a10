"""Near-duplicates, between the extraction of features and step 5: one block each, and none in train and in
val.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from regraft.data import Examples
from regraft.data.audit import Near, find_near
from regraft.data.part import Part
from regraft.errors import BudgetError
from regraft.steps.audit import apart
from regraft.steps.context import Context
from regraft.steps.engine import Frozen


@dataclass(frozen=True)
class Cut:
    """The examples as they are learnt from, and the frozen `features` of train and val in this order.

    `near` are the near-duplicates that were found, None where none were looked for; `test` are the inputs
    of test, None where these were not searched.
    """

    examples: Examples
    features: Part
    near: Near | None = None
    test: Part | None = None


def keep_apart(
    examples: Examples,
    values: np.ndarray,
    frozen: Frozen,
    recut: bool,
    leave_out: Callable[[str, str], None],
    context: Context,
) -> Cut:
    """Make one block of near-duplicates; a val set that was cut here (`recut`) then holds none of what
    train has one of.

    `values` (N, D) are the features of train and val. Those of test are the ones that step 7 asks for.
    `leave_out` is told what there was no time for, and why.
    """
    events, test, ahead = context.events, None, None
    if context.out_of_time():
        leave_out("near-duplicates", "no time was left to look for them")
        return _cut(examples, values, context)
    if examples.counts()["test"]:
        test = examples.audit_view("near-duplicates of train and val", events.emit)
        try:
            ahead = frozen(test)
        except BudgetError as error:
            leave_out("near-duplicates of test examples", str(error))
            test = None
    likeness, inputs = context.modality.likeness(examples.facts()), examples.inputs()
    near = find_near(inputs, test, (values, ahead), likeness, events.tick, context.out_of_time)
    separated = apart(examples, near, recut, context.recipe.data.seed)
    if separated.moved:
        events.note(
            f"{separated.moved:,} examples changed between train and val, "
            "so that no near-duplicates lie in both"
        )
        if isinstance(values, np.memmap):  # the rows lie in the store: reading them again copies nothing
            values = frozen(separated.examples.part("train").then(separated.examples.part("val")))
        else:
            values = values[separated.order]
    return replace(_cut(separated.examples, values, context), near=separated.near, test=test)


def _cut(examples: Examples, values: np.ndarray, context: Context) -> Cut:
    """Have the table kept as it is learnt from, and join it with the features of train and val."""
    context.keeper.keep_examples(examples)
    both = examples.part("train").then(examples.part("val"))
    return Cut(examples, replace(both, values=values))
