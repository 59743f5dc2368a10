"""The table of settings: what goes out comes back, and every fault is named at once."""

from __future__ import annotations

import pytest
import yaml

from regraft.errors import RecipeError
from regraft.recipe import Recipe, parse_settings


def test_a_recipe_survives_its_yaml() -> None:
    for recipe in (Recipe(), Recipe.build({"train": {"l2": 0.5}, "freeze": {"strategy": ["blocks.5", "blocks.6"]}})):
        assert Recipe.build(yaml.safe_load(recipe.to_yaml())) == recipe


def test_every_setting_has_a_reason() -> None:
    for name in Recipe.model_fields:
        for field in type(getattr(Recipe(), name)).model_fields.values():
            assert field.description


@pytest.mark.parametrize(
    ("pair", "word"),
    [("finetune.epoch=3", "finetune.epochs"), ("train.l2=-1", "greater than 0"), ("finetune.batch_size=0", "greater than"),
     ("base.size=abc", "base.size"), ("finetune=3", "section.name=value"), ("nothing.at=all", "nothing")],
)  # fmt: skip
def test_faults_say_where_and_what(pair: str, word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        Recipe.build(parse_settings([pair]))


def test_all_faults_come_together() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.build(parse_settings(["finetune.epoch=3", "head.kind=tree", "run.metric=beauty"]))
    assert len(caught.value.faults) == 3


def test_no_choice_stays_open_unseen() -> None:
    assert "base.size" in Recipe().open_choices()
    recipe = Recipe()
    recipe.pin("base.size", 96)
    assert "base.size" not in recipe.open_choices()
