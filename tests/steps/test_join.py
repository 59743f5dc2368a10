"""Whether depths are joined: as the recipe names it, or what predicts better out of fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from regraft.artifacts import Events
from regraft.backbones import make_base, obtain_weights
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps import join as steps
from regraft.steps.context import Context
from regraft.steps.join import join
from regraft.tasks import task_of


@pytest.fixture
def backbone(tiny: str) -> Any:
    obtained = obtain_weights(tiny)
    return make_base(obtained, modality_of("image").preprocess(obtained.config, 32, None, 32, True)[0])


def context(wanted: Any, joins: bool) -> Context:
    class Candid:
        def __getattr__(self, name: str) -> Any:
            return joins if name == "joins" else getattr(modality_of("image"), name)

    recipe = Recipe.build({"base": {"join": wanted}, "run": {"device": "cpu"}})
    return Context.begin(recipe, None, Events(None, ()), Candid())  # type: ignore[arg-type]


def part(count: int = 60) -> Part:
    rng = np.random.default_rng(0)
    items = tuple(rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(count))
    return Part(
        items=items,
        ids=tuple(f"{n:032x}" for n in range(count)),
        labels=np.arange(count) % 2,
        weights=np.ones(count),
    )


TASK = task_of("single", ("a", "b"))


@pytest.mark.parametrize(("wanted", "joins"), [(True, False), (False, True), ("auto", False)])
def test_what_is_named_or_not_asked_is_settled_without_features(
    backbone: Any, wanted: Any, joins: bool
) -> None:
    at = context(wanted, joins)
    found = join(backbone, part(), 60, TASK, at)
    assert found.join is (wanted is True)
    assert at.decisions.settled["base.join"].value is (wanted is True)


@pytest.mark.parametrize("clear", [True, False])
def test_they_win_only_where_they_are_clearly_better(
    backbone: Any, clear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(self: Any, some: Part) -> np.ndarray:
        """Noise, in which the first column of the shallow ones knows the label, or nothing does."""
        rng = np.random.default_rng(1)
        values = rng.normal(size=(len(some.labels), self.backbone.width)).astype(np.float32)
        if clear:
            values[:, 0] += 6 * some.labels
        return values

    monkeypatch.setattr(steps.Frozen, "__call__", features)
    at = context("auto", True)
    found = join(backbone, part(), 60, TASK, at)
    assert found.join is clear
    assert "out-of-fold log loss of all" in at.decisions.settled["base.join"].why


def test_a_network_of_one_stage_has_nothing_to_join(backbone: Any) -> None:
    lone = replace(backbone, stages=backbone.stages[:1])
    with pytest.raises(UsageError, match="a single stage"):
        join(lone, part(), 60, TASK, context(True, False))
