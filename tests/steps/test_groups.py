"""Random labels in groups teach nothing, and every path that holds examples out must say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bases import IMAGES, single
from regraft.artifacts import Events
from regraft.data.part import Part
from regraft.evaluation import choose_thresholds, log_losses
from regraft.inference import FeatureStore
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.evaluate import cross_validate
from regraft.steps.rank.entrants import Entrant, Entrants
from regraft.steps.rank.probing import probe
from regraft.steps.train import train_head
from regraft.tasks import Held
from regraft.training import Layers

PATIENTS, EACH, CLASSES = 60, 6, 3


@pytest.fixture(scope="module")
def patients() -> Part:
    """Six pictures of each of 60 patients, who are easily told apart and whose labels were drawn by lot."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(PATIENTS), EACH)
    faces = rng.normal(size=(PATIENTS, 64)) * 4
    values = (faces[blocks] + rng.normal(size=(len(blocks), 64))).astype(np.float32)
    labels = rng.integers(0, CLASSES, PATIENTS)[blocks]
    return Part(values=values, labels=labels, weights=np.ones(len(labels)), blocks=blocks)


def _context(asked: dict[str, Any] | None = None) -> Context:
    recipe = Recipe.build({"run": {"threads": 1}}, asked or {})
    return Context(recipe, FeatureStore(None), torch.device("cpu"), Events(), IMAGES)


def _at_chance(labels: np.ndarray, logits: np.ndarray) -> bool:
    return float(log_losses(labels, logits).mean()) > 0.9 * np.log(CLASSES)


@pytest.mark.parametrize("layers", [Layers("linear"), Layers("mlp", 16, 0.3)])
def test_out_of_fold_predictions_are_at_chance_and_promise_nothing(patients: Part, layers: Layers) -> None:
    context = _context({"head": {"kind": layers.kind}})
    heads = train_head((layers,), patients, 300, single(CLASSES), context)
    assert heads.oof_logits is not None
    assert _at_chance(patients.labels[heads.oof_rows], heads.oof_logits)
    held = Held(
        "out-of-fold", patients.labels[heads.oof_rows], heads.oof_logits, patients.blocks[heads.oof_rows]
    )  # type: ignore[index]
    assert [offer.threshold for offer in single(CLASSES).calibrate(held).offers] == [None, None]
    blind = train_head(
        (layers,),
        Part(values=patients.values, labels=patients.labels, weights=patients.weights),
        300,
        single(CLASSES),
        _context(),
    )
    assert blind.oof_logits is not None
    assert not _at_chance(patients.labels[blind.oof_rows], blind.oof_logits)  # what the blocks are for


def test_cross_validation_of_the_head_is_at_chance(patients: Part) -> None:
    task = single(CLASSES)
    accuracy = cross_validate(task, task.headline, Layers("linear"), patients, _context())["accuracy"]
    assert accuracy["low"] < 1 / CLASSES < accuracy["high"]
    assert accuracy["high"] - accuracy["low"] > 0.15  # of 60 patients, not of 360 pictures


def test_the_ranking_probes_by_block(patients: Part) -> None:
    n = len(patients)
    names = tuple(f"{i:032x}" for i in range(n))
    part = Part("train", names, names, names, patients.labels, patients.weights, (None,) * n, patients.blocks)  # type: ignore[arg-type]
    entrants = Entrants(part, np.full(n, 64), {"train": n, "val": 0, "test": 0}, single(CLASSES), _context())
    features = {1: patients.values[entrants.order]}
    entrant = Entrant("made", 64, 1, (), "torch-float32", 1e-3, 1e-2, {}, "", "", n, features)
    (found,) = probe([entrant], part.some(entrants.order), single(CLASSES), _context())
    assert found.losses.mean() > 0.9 * np.log(CLASSES)
    accuracy, near, _ = found.scores
    assert near.low < 1 / CLASSES < near.high
    assert accuracy.high - accuracy.low > 0.15


def test_a_promise_counts_groups_and_not_their_pictures() -> None:
    labels, logits = np.ones(400, dtype=int), np.tile([0.0, 5.0], (400, 1))
    assert choose_thresholds(labels, logits, (0.95,))[0].threshold == 0
    together = choose_thresholds(labels, logits, (0.95,), np.repeat(np.arange(20), 20))[0]
    assert together.threshold is None
    assert "groups" in together.why
    many = choose_thresholds(
        np.ones(1600, dtype=int), np.tile([0.0, 5.0], (1600, 1)), (0.95,), np.repeat(np.arange(400), 4)
    )[0]
    assert many.threshold == 0


def test_a_class_of_one_group_leaves_nothing_to_choose_by(patients: Part, tmp_path: Path) -> None:
    labels = np.where(patients.blocks == 0, CLASSES, patients.labels)
    heads = train_head(
        (Layers("linear"),),
        Part(values=patients.values, labels=labels, weights=patients.weights, blocks=patients.blocks),
        300,
        single(CLASSES + 1),
        _context(),
    )
    assert heads.oof_logits is None
