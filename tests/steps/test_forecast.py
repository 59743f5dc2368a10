"""Whether fine-tuning is begun: as asked, or by a forecast from the frozen features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.run.asked import asked
from regraft.steps.context import Context
from regraft.steps.finetune.forecast import FEWEST, Signs, begun
from regraft.tasks import task_of

TASK = task_of("single", ("a", "b"))
KNOWN, FAR, ODD = Signs(0.111, -0.002), Signs(0.073, 0.058), Signs(0.254, 0.008)


def context(modality: str = "image", **finetune: Any) -> Context:
    recipe = Recipe.build({"finetune": finetune, "run": {"device": "cpu"}})
    return Context.begin(recipe, None, Events(None, ()), modality_of(modality))


def part(count: int = FEWEST, labels: Any = None) -> Part:
    return Part(
        ids=tuple(map(str, range(count))), labels=np.zeros(count, np.int64) if labels is None else labels
    )


@pytest.mark.parametrize(("signs", "expected"), [(KNOWN, False), (FAR, True), (ODD, True)])
def test_photographs_of_what_the_network_knows_are_not_fine_tuned(signs: Signs, expected: bool) -> None:
    begins, why = begun(signs, part(), TASK, context())
    assert begins is expected
    assert why.startswith("a forecast of its gain in log loss is ")
    assert f"{signs.loss:.3f} out of fold from the last depth" in why
    assert ("finetune.begin asks for it" in why) is not expected


@pytest.mark.parametrize("wanted", [True, False])
def test_what_is_asked_is_done(wanted: bool) -> None:
    assert begun(FAR if not wanted else KNOWN, part(), TASK, context(begin=wanted))[0] is wanted


@pytest.mark.parametrize(
    ("signs", "some", "modality"),
    [
        (None, part(), "image"),
        (KNOWN, part(FEWEST - 1), "image"),
        (KNOWN, part(labels=np.zeros((FEWEST, 2), np.int64)), "image"),
        (KNOWN, part(), "text"),
    ],
)
def test_where_nothing_is_foreseen_it_is_begun(signs: Signs | None, some: Part, modality: str) -> None:
    assert begun(signs, some, TASK, context(modality)) == (True, "there is no forecast of what it gains")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, "auto"),
        ({"finetune": {"lr": 1e-3}}, "auto"),
        ({"finetune": {"epochs": 0}}, "auto"),
        ({"freeze": {"strategy": "full"}}, True),
        ({"finetune": {"epochs": 3}}, True),
        ({"finetune": {"epochs": 3, "begin": False}}, False),
        ({"freeze": {"strategy": "full"}, "finetune": {"begin": "auto"}}, "auto"),
    ],
)
def test_who_names_a_strategy_or_epochs_wants_fine_tuning(recipe: Any, expected: Any) -> None:
    assert asked(recipe).finetune.begin == expected
