"""Whether depths are joined: as the recipe names it, or what predicts better out of fold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from regraft.artifacts import Events
from regraft.backbones import Tapped, joined, make_base, obtain_weights, tensors, widths_of
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps import form as steps
from regraft.steps import scratch
from regraft.steps.base import base
from regraft.steps.context import Context
from regraft.steps.form import cuts_of, formed
from regraft.steps.join import as_compared, columns
from regraft.steps.rank import rank
from regraft.tasks import task_of


@pytest.fixture
def backbone(tiny: str) -> Any:
    obtained = obtain_weights(tiny)
    return make_base(obtained, modality_of("image").preprocess(obtained.config, 32, None, 32, True)[0])


SOUNDS, PICTURES = (True, False, "deviations"), (False, "faded", True)


def context(wanted: Any, joins: tuple[Any, ...], few: int | None = None) -> Context:
    class Candid:
        joined_up_to = few

        def __getattr__(self, name: str) -> Any:
            return joins if name == "joins" else getattr(modality_of("image"), name)

    recipe = Recipe.build({"base": {"join": wanted}, "run": {"device": "cpu"}})
    return Context.begin(recipe, None, Events(None, ()), Candid())  # type: ignore[arg-type]


def join(backbone: Any, some: Part, count: int, at: Context, free: bool = False) -> Any:
    return formed(backbone, some, None, count, TASK, at, free)[0]  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("wanted", "joins", "expected"),
    [(True, (), True), ("faded", (), "faded"), (False, SOUNDS, False), ("auto", (), False)],
)
def test_what_is_named_or_not_asked_is_settled_without_features(
    backbone: Any, wanted: Any, joins: tuple[Any, ...], expected: Any
) -> None:
    at = context(wanted, joins)
    found = join(backbone, part(), 60, at)
    assert found.join == at.decisions.settled["base.join"].value == expected


@pytest.mark.parametrize(
    ("ways", "wanted"), [*((SOUNDS, way) for way in SOUNDS), *((PICTURES, way) for way in PICTURES)]
)
def test_the_first_way_is_the_usual_and_others_have_to_be_clearly_better(
    backbone: Any, wanted: Any, ways: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = widths_of(backbone)
    means, last, rng = sum(widths), widths[-1], np.random.default_rng(2)

    def features(self: Any, some: Part, _: Any) -> list[np.ndarray]:
        """Noise; the last depth, or the one before it with it, or the first, or the first deviation knows the
        label.
        """
        values = rng.normal(size=(len(some.labels), self.backbone.width)).astype(np.float32)
        label = some.labels[:, None]
        if wanted is False:
            values[:, : means - last] *= 8
        if wanted in (False, "faded"):
            values[:, means - last : means] += label * (0.7 if wanted is False else 0.3)
        if wanted == "faded":
            values[:, means - last - widths[-2] : means - last] += label
        if wanted is True and ways == PICTURES:
            values[:, : widths[0]] += 2 * label
        if wanted == "deviations":
            values[:, means] += 6 * some.labels
        ends = np.cumsum(widths)
        depths = (*cuts_of(len(ends)), len(ends))
        return [values, *(values[:, ends[d - 1] - widths[d - 1] : ends[d - 1]] for d in depths)]

    monkeypatch.setattr(steps.Frozen, "columns", features)
    at = context("auto", ways)
    found = join(backbone, part(200), 200, at)
    assert found.join == wanted
    why = at.decisions.settled["base.join"].why
    assert why.startswith("out-of-fold log loss 0.")
    assert why.count("±") == len(ways) - 1
    assert at.decisions.steps["base"]["why"] == why  # told whichever won
    if found.join:
        assert at.decisions.steps["base"]["decided"].startswith(f"all {len(backbone.stages)} depths joined")
    assert found.width == (joined(backbone, found.join) if found.join else backbone).width


def test_what_a_ranking_chose_is_not_said_to_be_the_user_s(tiny: str) -> None:
    obtained, at = obtain_weights(tiny), context("auto", ())
    base(obtained, None, at, (64, 1))
    why = {name: settled.why for name, settled in at.decisions.settled.items()}
    assert why["base.size"].startswith("the ranking chose it")
    assert why["base.depth"] == "the ranking chose it"


def test_columns_of_one_pass_are_the_features_of_each_way(backbone: Any) -> None:
    drawn, widths = tensors(backbone.preprocess.blank(3, np.random.default_rng(0))), widths_of(backbone)
    with torch.no_grad():
        every = Tapped(joined(backbone, "deviations")).eval()(drawn)[0].numpy()
        for way in ("faded", True, "deviations"):
            found = columns(every, way, widths, len(widths))
            expected = Tapped(joined(backbone, way)).eval()(drawn)[0].numpy()
            np.testing.assert_allclose(found, expected, atol=1e-6)
        last = Tapped(backbone).eval()(drawn)[0].numpy()
        own = Tapped(joined(backbone), (len(widths),)).eval()(drawn)[1].numpy()
    assert np.array_equal(own, last), "the network's own features come beside the joined ones"


@pytest.mark.parametrize(("count", "expected"), [(40, True), (41, False)])
def test_depths_are_joined_up_to_so_many_examples_a_class(
    backbone: Any, count: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(self: Any, some: Part, names: Any) -> list[np.ndarray]:
        shape = len(some.labels), self.backbone.width
        return [np.random.default_rng(2).normal(size=shape).astype(np.float32) for _ in names]

    monkeypatch.setattr(steps.Frozen, "columns", noise)
    at = context("auto", (True, False), few=20)
    assert join(backbone, part(count), count, at).join is expected
    why = at.decisions.settled["base.join"].why
    assert ("more than 20 examples a class" in why) is not expected
    assert as_compared(backbone, at).join is False


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [({}, "deviations"), ({"join": True}, True), ({"join": False}, False), ({"depth": 2}, False)],
)
def test_networks_are_compared_by_what_may_be_used(backbone: Any, recipe: Any, expected: Any) -> None:
    at = context("auto", SOUNDS)
    at = replace(at, recipe=Recipe.build({"base": recipe, "run": {"device": "cpu"}}))
    assert as_compared(backbone, at).join == expected


def test_a_ranking_looks_at_all_depths_joined(tiny: str) -> None:
    at = context("auto", SOUNDS)
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
        scratch.from_scratch(joined(backbone), part(), TASK, context("auto", SOUNDS))
    names = {name for name, _ in seen[0].backbone.module.named_parameters()}
    assert seen[0].plan.trainable == names


def test_a_network_of_one_stage_has_nothing_to_join(backbone: Any) -> None:
    lone = replace(backbone, stages=backbone.stages[:1])
    with pytest.raises(UsageError, match="a single stage"):
        join(lone, part(), 60, context(True, ()))
