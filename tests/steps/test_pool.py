"""How tokens are pooled: as the recipe names it, as the weights say, or by what predicts better out of fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from regraft.artifacts import Events
from regraft.backbones import Backbone, every_pooling, make_base, obtain_weights, pooled_by
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.inference import makers
from regraft.modalities import modality_of
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.pool import pool
from regraft.tasks import task_of

TASK = task_of("single", ("early", "late"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts.tiny_encoder(tmp_path_factory.mktemp("bert") / "bert", layers=1)


def backbone_of(folder: Path) -> Backbone:
    obtained = obtain_weights(f"path:{folder}", modality="text")
    return make_base(obtained, modality_of("text").preprocess(obtained.config, 64, None, 16, True)[0])


def context(wanted: str) -> Context:
    recipe = Recipe.build({"base": {"pooling": wanted}, "run": {"device": "cpu", "engine": "torch-float32"}})
    return Context.begin(recipe, None, Events(None, ()), modality_of("text"))


def part(count: int = 120) -> Part:
    """Texts of one filler often or seldom, which their mean tells best."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    items = tuple(
        " ".join(rng.permutation(["rain"] * (2 + 4 * int(label)) + ["the"] * (6 - 4 * int(label))))
        for label in labels
    )
    ids = tuple(f"{number:032x}" for number in range(count))
    return Part(items=items, ids=ids, labels=labels, weights=np.ones(count))


def features(backbone: Backbone, items: Any) -> np.ndarray:
    import torch

    engine = makers(backbone, torch.device("cpu"), 8)["torch-float32"]()
    raws = [backbone.preprocess.host(item) for item in items]
    return engine.run(backbone.preprocess.collate(raws))[0]


def test_what_is_named_is_taken_and_kept_in_the_config(folder: Path) -> None:
    at = context("cls")
    found = pool(backbone_of(folder), part(8), TASK, at)
    assert (found.module.pooling, found.config["pooling"]) == ("cls", "cls")
    assert at.decisions.settled["base.pooling"].value == "cls"


def test_where_the_weights_do_not_say_the_better_of_both_is_taken_and_the_reason_has_the_figures(
    folder: Path,
) -> None:
    at = context("auto")
    found = pool(backbone_of(folder), part(), TASK, at)
    settled = at.decisions.settled["base.pooling"]
    assert settled.value == found.module.pooling == found.config["pooling"]
    assert "out-of-fold log loss of cls is" in settled.why


def test_one_pass_gives_what_each_pooling_gives(folder: Path) -> None:
    backbone, items = backbone_of(folder), part(5).items
    both = features(every_pooling(backbone), items)
    each = [features(pooled_by(backbone, name), items) for name in ("mean", "cls")]
    np.testing.assert_allclose(both, np.concatenate(each, axis=1), atol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_features_are_stored_by_their_pooling(folder: Path) -> None:
    backbone = backbone_of(folder)
    assert pooled_by(backbone, "cls").fingerprint() != pooled_by(backbone, "mean").fingerprint()


def test_weights_that_say_theirs_keep_it_and_others_have_none(folder: Path, tiny: str) -> None:
    at = context("auto")
    told = pooled_by(backbone_of(folder), "max")
    assert pool(told, part(8), TASK, at).module.pooling == "max"
    assert at.decisions.settled["base.pooling"].value == "own"
    obtained = obtain_weights(tiny)
    image = make_base(obtained, modality_of("image").preprocess(obtained.config, 32, None, 32, True)[0])
    with pytest.raises(UsageError, match="no encoder of texts"):
        pool(image, part(8), TASK, context("cls"))
