"""A finished model tells what is unlike all it was made with, whether its backbone was fine-tuned or not."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import regraft
from bases import base_of
from conftest import Fitted
from regraft.artifacts import Events
from regraft.backbones import obtain_weights
from regraft.data.part import Part
from regraft.inference import TorchEngine
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.engine import Frozen
from regraft.steps.familiarity import familiarity


def test_a_finished_model_marks_what_it_was_not_trained_on(fitted: Fitted, tmp_path: Path) -> None:
    model = regraft.load(fitted.run)
    assert (fitted.run / "model" / "familiarity.safetensors").stat().st_size < 1_000_000
    files = sorted(fitted.data.rglob("*.png"))
    own, stripes = model.predict(files), np.zeros((48, 48, 3), np.uint8)
    stripes[::2] = 255
    (strange,) = model.predict(stripes)
    assert strange.unfamiliar
    assert strange.to_dict()["unfamiliar"] is True
    assert sum(answer.unfamiliar for answer in own) <= 5
    raw = model.backbone.preprocess.host(stripes)
    assert abs(model.answers([raw])[0].familiarity - strange.familiarity) < 0.01  # type: ignore[operator]
    # Saved again it is there; a model of an earlier regraft has none, and predicts all the same
    model.save(tmp_path / "again")
    assert regraft.load(tmp_path / "again").predict(stripes)[0].familiarity == strange.familiarity
    shutil.copytree(fitted.run / "model", tmp_path / "older")
    (tmp_path / "older" / "familiarity.safetensors").unlink()
    older = regraft.load(tmp_path / "older").predict(stripes)[0]
    assert (older.label, older.familiarity, older.unfamiliar) == (strange.label, None, False)


def test_of_a_fine_tuned_backbone_it_goes_by_its_own_features(tiny: str, quick: dict[str, Any]) -> None:
    frozen_base = base_of(obtain_weights(tiny), 32)
    tuned = copy.deepcopy(frozen_base)
    for parameter in tuned.module.parameters():
        parameter.data.mul_(0.7)
    context = Context.begin(Recipe.build(quick), None, Events(), modality_of("image"))
    frozen = Frozen(frozen_base, TorchEngine(frozen_base, context.device, 8), context)
    items = tuple(np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8))
    ids = tuple(f"{number:032x}" for number in range(20))
    part = Part("train", ids, ids, items)
    features = Part("train", ids, ids, items, values=frozen(part))
    kept, anew = (familiarity(base, features, frozen, context) for base in (frozen_base, tuned))
    assert kept is not None
    assert anew is not None
    expected = TorchEngine(tuned, context.device, 8)
    own = Frozen(tuned, expected, context)(part)
    np.testing.assert_allclose(anew.rows, own / np.linalg.norm(own, axis=1, keepdims=True), atol=2e-3)
    assert not np.allclose(kept.rows, anew.rows, atol=2e-3)
