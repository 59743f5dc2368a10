"""Whether depths are joined: as the recipe names it, or what predicts better out of fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from regraft.artifacts import Events
from regraft.backbones import joined, make_base, obtain_weights
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps import join as steps
from regraft.steps import scratch
from regraft.steps.context import Context
from regraft.steps.join import as_compared, join
from regraft.steps.rank import rank
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


@pytest.mark.parametrize("wanted", [False, True, "deviations"])
def test_means_of_all_depths_are_the_usual_and_others_have_to_be_clearly_better(
    backbone: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = joined(backbone).width

    def features(self: Any, some: Part) -> np.ndarray:
        """Noise; the last depth, or the first deviation, or nothing knows the label."""
        rng = np.random.default_rng(2)
        values = rng.normal(size=(len(some.labels), self.backbone.width)).astype(np.float32)
        if wanted is False:
            values[:, means - backbone.width : means] += some.labels[:, None]
        elif wanted == "deviations":
            values[:, means] += 6 * some.labels
        return values

    monkeypatch.setattr(steps.Frozen, "__call__", features)
    at = context("auto", True)
    found = join(backbone, part(), 60, TASK, at)
    assert found.join == wanted
    why = at.decisions.settled["base.join"].why
    assert "out-of-fold log loss: that of the last depth alone" in why
    assert "deviations" in why


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [({}, "deviations"), ({"join": True}, True), ({"join": False}, False), ({"depth": 2}, False)],
)
def test_networks_are_compared_by_what_may_be_used(backbone: Any, recipe: Any, expected: Any) -> None:
    at = context("auto", True)
    at = replace(at, recipe=Recipe.build({"base": recipe, "run": {"device": "cpu"}}))
    assert as_compared(backbone, at).join == expected


def test_a_ranking_looks_at_all_depths_joined(tiny: str) -> None:
    at = context("auto", True)
    counts = {"train": 60, "val": 0, "test": 0}
    found = rank(part(), None, counts, TASK, [tiny], at, named=True)  # type: ignore[arg-type]
    for row in found.rows:  # one for each input size
        assert row.joined
        assert row.depth == row.stages, "no cut is on offer where all depths are joined"
        assert row.name.endswith("depths joined")


def test_random_weights_of_joined_features_move_everywhere(
    backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline from random weights once trained nothing but the head where depths were joined."""
    seen = []

    def fit(self: Any, *_: Any) -> Any:
        seen.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(scratch.Tuner, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        scratch.from_scratch(joined(backbone), part(), TASK, context("auto", True))
    names = {name for name, _ in seen[0].backbone.module.named_parameters()}
    assert seen[0].plan.trainable == names


def test_a_network_of_one_stage_has_nothing_to_join(backbone: Any) -> None:
    lone = replace(backbone, stages=backbone.stages[:1])
    with pytest.raises(UsageError, match="a single stage"):
        join(lone, part(), 60, TASK, context(True, False))
