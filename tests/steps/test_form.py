"""Which input size and how many stages: what predicts clearly better out of fold, where nobody has named them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regraft.artifacts import Events
from regraft.backbones import Backbone, make_base, obtain_weights, widths_of
from regraft.data.part import Part
from regraft.inference import FeatureStore
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps import form as steps
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.steps.form import Form, Looks, cuts_of, formed, smaller_than
from regraft.tasks import task_of

TASK = task_of("single", ("a", "b"))
SIZE = 96


@pytest.fixture
def backbone(tiny: str) -> Backbone:
    obtained = obtain_weights(tiny)
    obtained = replace(obtained, provenance=replace(obtained.provenance, input_size=SIZE))
    return make_base(obtained, modality_of("image").preprocess(obtained.config, SIZE, None, SIZE, True)[0])


def part(count: int) -> Part:
    rng = np.random.default_rng(0)
    items = tuple(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(count))
    ids = tuple(f"{n:032x}" for n in range(count))
    return Part(items=items, ids=ids, labels=np.arange(count) % 2, weights=np.ones(count))


def context(cache: Path | None = None, **recipe: Any) -> Context:
    told = {"run": {"device": "cpu"}, **recipe}
    return Context.begin(Recipe.build(told), cache, Events(None, ()), modality_of("image"))


def known(backbone: Backbone, best: Form, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that know the label a little, at one depth and size by `share` better."""
    ends = np.cumsum(widths_of(backbone))

    def features(self: Frozen, some: Part, _: Any) -> list[np.ndarray]:
        rng, size = np.random.default_rng(3), self.backbone.preprocess.size
        values = 0.001 * rng.normal(size=(len(some), ends[-1])).astype(np.float32)
        noise = rng.normal(size=len(some))
        for depth, end in enumerate(ends, start=1):
            mine = 1.0 + share * ((size, depth) == (best.size, best.depth))
            values[:, end - 1] += noise + 0.5 * rng.normal(size=len(some)) + mine * some.labels
        depths = (*cuts_of(len(ends)), len(ends))
        return [values, *(values[:, ends[d - 2] : ends[d - 1]] for d in depths)]

    monkeypatch.setattr(steps.Frozen, "columns", features)


@pytest.mark.parametrize(
    ("share", "recipe", "wins"),
    [(2.0, {}, True), (0.0, {}, False), (2.0, {"base": {"depth": 8, "size": SIZE}}, False)],
)
@pytest.mark.parametrize("size", [SIZE, 64])
def test_what_is_clearly_better_wins(
    backbone: Backbone, size: int, share: float, recipe: Any, wins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, told = len(backbone.stages), []
    depth = cuts_of(stages)[-1]
    known(backbone, Form(size, depth, False), share, monkeypatch)
    at = context(**{**recipe, "base": {"join": False, **recipe.get("base", {})}})
    at.events.listeners = (told.append,)
    found, _ = formed(backbone, part(160), None, 160, TASK, at, free=True)  # type: ignore[arg-type]
    expected = (size, depth) if wins else (SIZE, stages)
    assert (found.preprocess.size, len(found.stages)) == expected
    settled = at.decisions.settled
    if wins:
        assert (settled["base.size"].value, settled["base.depth"].value) == expected
        assert f"by {depth} of {stages} stages at input size {size}, lower by 0." in settled["base.depth"].why
    forms = [event for event in told if event["kind"] == "form"]
    assert [(e["size"], e["depth"]) for e in forms if e["chosen"]] == ([expected] if forms else [])
    assert len(forms) == (0 if "base" in recipe else 2 * (1 + len(cuts_of(stages))))


@pytest.mark.parametrize("free", [False, True])
def test_what_the_user_or_a_ranking_named_is_not_compared(
    backbone: Backbone, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(backbone, Form(64, cuts_of(len(backbone.stages))[-1], False), 2.0, monkeypatch)
    found, _ = formed(backbone, part(160), None, 160, TASK, context(), free)  # type: ignore[arg-type]
    assert (found.preprocess.size == SIZE) is not free


@pytest.mark.parametrize("recipe", [{}, {"freeze": {"strategy": "head"}}])
def test_one_standard_error_is_not_enough(
    backbone: Backbone, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    depth, told = cuts_of(len(backbone.stages))[-1], []
    known(backbone, Form(SIZE, depth, False), 0.2, monkeypatch)
    at = context(**recipe, base={"join": False, "size": SIZE})
    at.events.listeners = (told.append,)
    found, _ = formed(backbone, part(160), None, 160, TASK, at, free=True)  # type: ignore[arg-type]
    cut = next(event for event in told if event["kind"] == "form" and event["depth"] == depth)
    assert cut["difference"] < -cut["difference_error"]
    assert len(found.stages) == len(backbone.stages)
    assert "no other size or depth is clearly better" in at.decisions.steps["base"]["why"]


@pytest.mark.parametrize("way", [False, "faded", True])
def test_features_that_chose_are_not_computed_again(backbone: Backbone, way: Any, tmp_path: Path) -> None:
    at, some = context(tmp_path), part(12)
    looks = Looks(backbone, some, None, 12, TASK, at)  # type: ignore[arg-type]
    looks.path(looks.whole(False))
    passes: list[int] = []
    at.events.listeners = (lambda event: passes.append(event.get("passes", 0)),)
    body = looks.made(looks.whole(way))
    frozen = Frozen(body, choose_engine(body, some.items, 12, at), at)
    found = frozen(some)
    assert sum(passes) == 0
    anew = Frozen(body, frozen.engine, replace(at, store=FeatureStore(None)))(some)
    np.testing.assert_allclose(found, anew, rtol=1e-5, atol=1e-6)


def test_sizes_and_depths_on_offer() -> None:
    assert cuts_of(8) == (4, 5, 6, 7)
    assert cuts_of(2) == (1,)
    assert cuts_of(1) == ()
    assert smaller_than(224, False, True) == 160
    assert smaller_than(64, False, True) is None
    assert smaller_than(224, True, True) is smaller_than(224, False, False) is None
