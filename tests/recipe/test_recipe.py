"""The table of settings: what goes out comes back, and every fault is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from regraft.errors import RecipeError
from regraft.modalities import modality_of, names
from regraft.recipe import Recipe, parse_settings, read_recipe


def test_a_recipe_survives_its_yaml() -> None:
    for recipe in (
        Recipe(),
        Recipe.build({"train": {"l2": 0.5}, "freeze": {"strategy": ["blocks.5", "blocks.6"]}}),
    ):
        assert Recipe.build(yaml.safe_load(recipe.to_yaml())) == recipe


def test_every_setting_has_a_reason() -> None:
    sections = [type(getattr(Recipe(), name)) for name in Recipe.model_fields if name != "augment"]
    for section in [*sections, *(modality_of(name).augmentation for name in names())]:
        for field in section.model_fields.values():
            assert field.description


@pytest.mark.parametrize(
    ("pair", "word"),
    [
        ("finetune.epoch=3", "finetune.epochs"),
        ("train.l2=-1", "greater than 0"),
        ("finetune.batch_size=0", "greater than"),
        ("base.size=abc", "base.size"),
        ("finetune=3", "section.name=value"),
        ("nothing.at=all", "nothing"),
        ("a.b={", "a.b={' gives no value in YAML"),
        ("data.seed=2001-13-45", "month must be"),
        ("run.seed=" + "9" * 5000, "digits"),
        ("a.b=" + "[" * 5000, "no value in YAML"),
        ("obtain.backbone=run:\udce9", "not allowed"),
        ("run.seed=-1", "greater than"),
        ("run.seed=4294967296", "less than"),
        ("data.seed=-1", "greater than"),
        ("data.seed=5000000000", "less than"),
        ("data.folds=1", "data.folds: one fold leaves nothing"),
        ("finetune.folds=1", "finetune.folds: one fold"),
        ("run.budget_seconds=.inf", "finite"),
        ("finetune.lr=.nan", "finite"),
        ("finetune.weight_decay=.inf", "finite"),
        ("run.feature_batch=1000000", "1024"),
        ("head.hidden=1000000", "16384"),
        ("train.l2=1e9", "1000"),
        ("run.threads=1000000", "1024"),
        ("finetune.batch_size=1000000", "4096"),
        ("finetune.lr=1e300", "10"),
        ("finetune.weight_decay=1e30", "1000"),
    ],
)
def test_faults_say_where_and_what(pair: str, word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        Recipe.build(parse_settings([pair]))


@pytest.mark.parametrize("name", ["label_smoothing", "warmup", "average", "mixup", "cutmix", "mirror"])
def test_what_no_measurement_supported_is_no_setting_any_more(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"finetune\.{name}: is not a setting"):
        Recipe.build(parse_settings([f"finetune.{name}=0.1"]))


@pytest.mark.parametrize("text", ["{", "run: {seed: 2001-13-45}", "[" * 5000, "- 1", "run: \x00"])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        read_recipe(tmp_path / "recipe.yaml")


def test_all_faults_come_together() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.build(parse_settings(["finetune.epoch=3", "head.kind=tree", "run.prefer=beauty"]))
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    "pairs",
    [
        ["data.test_share=0.7", "data.val_share=0.3"],
        ["data.test_share=0.9"],
        ["data.val_share=0.8", "data.folds=5"],
        ["freeze.norm_statistics=moving", "finetune.batch_size=1"],
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_words(pairs: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.build(parse_settings(pairs))
    (words,) = caught.value.faults
    assert "leave nothing to train on" in words or "norm_statistics moving" in words
    assert "alue error" not in words
    assert "{" not in words


def test_no_choice_stays_open_unseen() -> None:
    assert "base.size" in Recipe().open_choices()
    assert "base.size" not in Recipe.build({"base": {"size": 96}}).open_choices()
