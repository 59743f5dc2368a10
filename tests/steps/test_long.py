"""What becomes of items that are longer than the network takes: cut, or windows where these predict better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import texts
from bases import IMAGES
from regraft.artifacts import Events
from regraft.backbones import Backbone, make_base, obtain_weights
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.inference import FeatureStore
from regraft.modalities import Modality, modality_of
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.long import long
from regraft.tasks import Single

TEXTS = modality_of("text")
LABELS = tuple(texts.SAYINGS)
TASK = Single(LABELS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = texts.tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert")
    obtained = obtain_weights(f"path:{folder}", modality="text")
    return make_base(obtained, TEXTS.preprocess(obtained.config, 62, None, 16, True)[0])


def part(each: int, before: int) -> Part:
    """Texts whose last words tell the label, behind so many that do not."""
    rng, rows = np.random.default_rng(0), []
    for number in range(each):
        for label in LABELS:
            words = [*rng.choice(texts.FILLERS, before), *rng.choice(texts.SAYINGS[label].split(), 6)]
            rows.append((f"{' '.join(words)} {number}", label))
    labels = np.array([LABELS.index(label) for _, label in rows])
    ids = tuple(f"{number:032x}" for number in range(len(rows)))
    items = tuple(text for text, _ in rows)
    return Part(items=items, ids=ids, labels=labels, weights=np.ones(len(rows)))


def decided(base: Backbone, data: Part, modality: Modality = TEXTS, **asked: str) -> tuple[Backbone, Context]:
    recipe = Recipe.build({"base": asked, "run": {"engine": "torch-float32"}})
    context = Context(recipe, FeatureStore(None), torch.device("cpu"), Events(None, ()), modality)
    facts = TEXTS.table([TEXTS.inspect(item) for item in data.items])
    return long(base, data, facts, len(data), TASK, context), context


def test_windows_are_taken_where_they_predict_better_out_of_fold(base: Backbone) -> None:
    found, context = decided(base, part(20, 30))
    assert context.decisions.settled["base.long"].value == "windows"
    assert "lower" in context.decisions.settled["base.long"].why
    assert found.preprocess.windows > 1  # type: ignore[attr-defined]
    assert found.preprocess.size == base.preprocess.size


def test_texts_are_cut_where_their_beginning_tells_as_much(base: Backbone) -> None:
    data = part(20, 0)
    rng = np.random.default_rng(1)
    behind = [
        " ".join(rng.choice([*texts.FILLERS, *texts.SAYINGS["kitchen"].split()], 30)) for _ in data.items
    ]
    longer = replace(data, items=tuple(map(" ".join, zip(data.items, behind, strict=True))))
    found, context = decided(base, longer)
    assert context.decisions.settled["base.long"].value == "cut"
    assert "clearly better" in context.decisions.settled["base.long"].why
    assert found is base


def test_what_the_user_names_is_not_tried(base: Backbone) -> None:
    for asked in ("cut", "windows"):
        found, context = decided(base, part(3, 30), long=asked)
        assert context.decisions.settled["base.long"].value == asked
        assert (found.preprocess.windows > 1) == (asked == "windows")  # type: ignore[attr-defined]
    found, context = decided(base, part(3, 2), long="windows")
    assert context.decisions.settled["base.long"].value == "cut"
    assert "longer" in context.decisions.settled["base.long"].why


def test_windows_of_what_is_never_cut_are_refused(base: Backbone) -> None:
    with pytest.raises(UsageError, match=r"base\.long"):
        decided(base, part(3, 2), IMAGES, long="windows")
    _, context = decided(base, part(3, 2), IMAGES)
    assert context.decisions.settled["base.long"].value == "cut"
