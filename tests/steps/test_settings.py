"""Fine-tuning by any accepted recipe, on a few made pictures, ends with numbers; so does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bases import IMAGES, base_of
from regraft.artifacts import Events
from regraft.backbones import Backbone, Way, joined, obtain_weights
from regraft.data.part import Part
from regraft.errors import RegraftError
from regraft.inference import FeatureStore
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.finetune.rules import Tuning
from regraft.steps.finetune.tune import Tuner
from regraft.steps.freeze import planned
from regraft.tasks import Single
from regraft.training import make_head

COUNT, CLASSES = 10, 2
TASK = Single(("one", "other"))


@pytest.fixture(scope="module")
def backbone(tiny: str) -> Backbone:
    return base_of(obtain_weights(tiny), 32)


def data(count: int, weights: list[float]) -> Part:
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8) for _ in range(count))
    given_ = np.array(weights)
    return Part(
        items=pictures,
        ids=tuple(f"{k:032x}" for k in range(count)),
        labels=np.arange(count) % CLASSES,
        weights=given_ / (given_.mean() or 1),
    )


def tuned(backbone: Backbone, recipe: dict, weights: list[float], val: bool) -> tuple[dict, bool]:
    """What the step said, and whether all weights and logits are numbers."""
    usual = {
        "epochs": 2,
        "batch_size": 4,
        "lr": 1e-3,
        "layer_decay": 0.8,
        "patience": 4,
        "interpolation": 1.0,
        "precision": "float32",
    }
    augment = {"mirror": False, "crop_scale": 0.8}
    context = Context(
        Recipe.build({"run": {"threads": 1}, "finetune": usual, "augment": augment}, recipe),
        FeatureStore(None),
        torch.device("cpu"),
        Events(),
        IMAGES,
    )
    torch.manual_seed(0)
    head = make_head("linear", backbone.width, CLASSES)
    recipe_ = context.recipe
    plan, _ = planned(backbone, recipe_.freeze.strategy, recipe_.freeze.norm_statistics)
    tuner = Tuner(backbone, plan, Tuning.of(recipe_.finetune, context.augmentation), TASK)
    held = data(6, [1.0] * 6) if val else None
    found = tuner.fit(head, data(COUNT, weights), held, context)
    numbers = [*found.backbone.module.state_dict().values(), *found.head.state_dict().values()]
    sound = all(bool(value.isfinite().all()) for value in numbers)
    return {"decided": found.decided, "why": found.why}, sound and (
        found.logits is None or bool(np.isfinite(found.logits).all())
    )


def test_without_val_no_loss_is_told(backbone: Backbone) -> None:
    said, sound = tuned(
        backbone, {"finetune": {"interpolation": 0.75, "epochs": 1}}, [1.0] * COUNT, val=False
    )
    assert sound
    assert said["decided"] == "1 of 1 epochs, 0.75 of the way there"


def test_examples_of_weight_zero_do_not_change_what_is_learnt(backbone: Backbone) -> None:
    """A batch of them alone was 0 / 0, and threw fine-tuning away."""
    said, sound = tuned(backbone, {"finetune": {"batch_size": 1}}, [1.0, 0.0] * (COUNT // 2), val=True)
    assert sound
    assert said["why"] == "went its whole length"


@pytest.mark.parametrize("strategy", ["full", "last-1", "bias", "lora"])
@pytest.mark.parametrize("way", ["faded", "deviations"])
def test_depths_stay_joined_in_what_is_fine_tuned(backbone: Backbone, strategy: str, way: Way) -> None:
    """The head goes on reading all depths; a tuner sees to it that what is frozen stays as it was."""
    every = joined(backbone, way)
    said, sound = tuned(every, {"freeze": {"strategy": strategy}}, [1.0] * COUNT, val=True)
    assert sound
    assert said["why"] == "went its whole length"


values = {
    "lr": [1e-30, 1e-3, 10.0],
    "weight_decay": [0.0, 1e3],
    "batch_size": [1, 4, 4096],
    "layer_decay": [1e-30, 1.0],
    "patience": [1, 10**30],
    "interpolation": ["auto", 1e-30, 0.5],
}
varied = {"mirror": [True], "crop_scale": [1e-30, 1.0], "colour": [0.0, 0.999]}


def some(values: dict) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(several) for name, several in values.items()}
    )


strategies = ["last-1", "last-99", "half", "full", "norm", "bias", "", [], ["nothing"]]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    some(values),
    some(varied),
    st.sampled_from(strategies),
    st.sampled_from(["frozen", "moving"]),
    st.booleans(),
    st.sampled_from([[1.0] * COUNT, [0.0] * 9 + [1.0], [1e300] + [1.0] * 9, [0.0] * COUNT]),
    st.sampled_from([0, 2**32 - 1]),
)
@example(
    {"lr": 10.0, "weight_decay": 1e3}, {}, "last-1", "moving", False, [0.0] * 9 + [1.0], 0
)  # statistics overflow
def test_any_recipe_that_is_accepted_ends_with_numbers(
    backbone: Backbone,
    recipe: dict,
    augment: dict,
    strategy: str | list[str],
    moving: str,
    val: bool,
    weights: list[float],
    seed: int,
) -> None:
    try:
        said, sound = tuned(
            backbone,
            {
                "finetune": recipe,
                "augment": augment,
                "freeze": {"strategy": strategy, "norm_statistics": moving},
                "run": {"seed": seed},
            },
            weights,
            val,
        )
    except RegraftError:  # no traceback of anything else
        return
    assert sound
    assert "nan" not in said["decided"] + said["why"]
