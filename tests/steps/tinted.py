"""Shared by the tests of the steps: noise in two tints, and a context with quick settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bases import IMAGES
from regraft.artifacts import Events
from regraft.backbones import Backbone
from regraft.data.part import Part
from regraft.inference import REFERENCE, FeatureStore
from regraft.recipe import Recipe
from regraft.steps.context import Context
from regraft.steps.finetune.rules import Tuning
from regraft.steps.finetune.tune import Tuner
from regraft.tasks import Single
from regraft.training import FreezePlan

TASK = Single(("one", "other"))


def data(count: int, seed: int) -> Part:
    """Noise in two tints."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = rng.integers(0, 120, (count, 64, 64, 3))
    pixels[..., 0] += 120 * labels[:, None, None]
    images = tuple(image.astype(np.uint8) for image in pixels)
    return Part(
        items=images,
        ids=tuple(f"{seed:016x}{n:016x}" for n in range(count)),
        labels=labels.astype(np.int64),
        weights=np.ones(count),
    )


def context(folder: Path | None, notes: list[str] | None = None, **settings: object) -> Context:
    usual = {"epochs": 3, "batch_size": 8, "lr": 3e-4, "layer_decay": 0.8, "patience": 4}
    finetune = {**usual, "precision": "float32", **settings}
    recipe = Recipe.build({"finetune": finetune, "augment": {"crop_scale": 0.8, "mirror": True}})
    heard = [] if notes is None else notes
    events = Events(None, (lambda event: heard.append(event["text"]) if event["kind"] == "note" else None,))
    return Context(recipe, FeatureStore(folder), torch.device("cpu"), events, IMAGES)


def tuner(
    base: Backbone, plan: FreezePlan, here: Context, engine: str = REFERENCE, **changes: object
) -> Tuner:
    """One way to fine-tune `base` by the settings of the context's recipe, with `changes`."""
    return Tuner(base, plan, Tuning.of(here.recipe.finetune, here.augmentation, **changes), TASK, engine)
