"""Settings as users hand them in: every fault at once, those in the eyes of task and modality among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bases import IMAGES
from commands import call
from regraft.errors import RecipeError
from regraft.recipe import Recipe
from regraft.run.asked import asked, check_against
from regraft.tasks import task_of

SINGLE = task_of("single", ["a", "b"])


def faults_of(*layers: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        asked(*layers)
    return caught.value.faults


def test_what_is_right_is_the_recipe_itself() -> None:
    settings = {"run": {"metric": "macro_f1"}, "train": {"class_weights": "adjusted"}, "base": {"size": 32}}
    layers = settings, {"augment": {"mirror": False}}, {"augment": {"colour": 0.5}}
    assert asked(*layers) == Recipe.build(*layers)
    assert asked(*layers).augment == {"mirror": False, "colour": 0.5}
    check_against(asked(*layers), SINGLE, IMAGES)


def test_all_faults_come_together_whoever_tells_them() -> None:
    wrong = {
        "run": {"metric": "acuracy", "seeds": 1},
        "train": {"class_weights": "balance"},
        "base": {"size": 7},
        "augment": {"miror": True, "colour": 2},
    }
    found = faults_of(wrong)
    assert len(found) == 6
    assert "run.seeds: is not a setting; did you mean run.seed, run.threads, run.prefer?" in found
    assert (
        "train.class_weights: 'balance' is none of auto, none, adjusted, balanced; did you mean balanced?"
        in found
    )
    (size,) = (one for one in found if one.startswith("base.size"))
    assert size.startswith("base.size: 7 is no input size of any modality: image 32 to 4,096, text 8 to ")
    assert "augment.miror: is not a setting of the modality image; did you mean augment.mirror?" in found
    assert "augment.colour: input should be less than 1 (found 2)" in found
    assert any(one.startswith("run.metric: 'acuracy' is no metric") and "accuracy?" in one for one in found)


@pytest.mark.parametrize("size", [7, 4_097])
def test_images_go_in_at_sizes_of_some_sense(size: int) -> None:
    (fault,) = faults_of({"base": {"size": size}})
    assert "image 32 to 4,096" in fault
    recipe = Recipe.build({"base": {"size": size}})
    with pytest.raises(RecipeError, match="32 to 4,096"):
        check_against(recipe, SINGLE, IMAGES)


def test_a_size_that_is_none_is_told_once() -> None:
    assert len(faults_of({"base": {"size": -1}})) == 1


def test_a_setting_that_moved_is_found_by_its_name() -> None:
    assert faults_of({"finetune": {"mirror": False}}) == (
        "finetune.mirror: is not a setting; did you mean augment.mirror?",
    )


def test_a_task_that_nobody_knows_is_told_alone() -> None:
    (unknown,) = faults_of({"data": {"task": "singel"}, "run": {"metric": "accuracy"}})
    assert unknown.startswith("data.task: 'singel' is no kind of task that is known here; there are single")


@pytest.mark.parametrize("augment", ["all", ["mirror"], {"mirror": None}])
def test_what_is_no_section_or_no_value_is_a_fault(augment: Any) -> None:
    assert faults_of({"augment": augment})[0].startswith("augment")


def test_the_command_tells_them_before_it_reads_data(tmp_path: Path) -> None:
    options = ["--metric", "nothing", "--set", "augment.miror=1", "--size", "7"]
    said = call("fit", tmp_path / "none", *options, cwd=tmp_path)
    assert said.returncode == 2
    assert all(
        word in said.stderr for word in ("run.metric", "augment.miror", "base.size: 7", "docs/recipe.md")
    )
    assert not list(tmp_path.iterdir())
