"""The table of settings: what goes out comes back, and every fault is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from regraft.errors import RecipeError
from regraft.recipe import Recipe, parse_settings, read_recipe


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
     ("base.size=abc", "base.size"), ("finetune=3", "section.name=value"), ("nothing.at=all", "nothing"),
     ("a.b={", "a.b={' gives no value in YAML"), ("data.seed=2001-13-45", "month must be"), ("run.seed=" + "9" * 5000, "digits"),
     ("a.b=" + "[" * 5000, "no value in YAML"), ("obtain.backbone=run:\udce9", "not allowed"), ("run.seed=-1", "greater than"),
     ("run.seed=4294967296", "less than"), ("data.seed=-1", "greater than"), ("data.seed=5000000000", "less than")],
)  # fmt: skip
def test_faults_say_where_and_what(pair: str, word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        Recipe.build(parse_settings([pair]))


@pytest.mark.parametrize("text", ["{", "run: {seed: 2001-13-45}", "[" * 5000, "- 1", "run: \x00"])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        read_recipe(tmp_path / "recipe.yaml")


def test_all_faults_come_together() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.build(parse_settings(["finetune.epoch=3", "head.kind=tree", "run.metric=beauty"]))
    assert len(caught.value.faults) == 3


def test_no_choice_stays_open_unseen() -> None:
    assert "base.size" in Recipe().open_choices()
    recipe = Recipe()
    recipe.pin("base.size", 96)
    assert "base.size" not in recipe.open_choices()
