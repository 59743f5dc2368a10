"""The engine that predictions go by: the fastest that agrees with float32, or the one that the user names."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regraft.backbones import Backbone, Batch
from regraft.errors import UsageError
from regraft.inference.predictor import SHAPES, shapes_on
from regraft.inference.trial import FEWEST_ITEMS, REFERENCE, makers, pick_engine, trial_key
from regraft.modalities import Unreadable

__all__ = ["FEWEST_ITEMS", "SHAPES", "fastest", "require_engine"]


def fastest(backbone: Backbone, device: torch.device, items: Sequence[Any], cache: Path | None) -> str:
    """The name of the fastest engine whose features of the items agree with those of float32 PyTorch, for
    a long list; what a trial found is remembered in the cache for this machine.
    """
    preprocess = backbone.preprocess

    def sample() -> Batch:
        raws = []
        for item in items:
            with contextlib.suppress(Unreadable):
                raws.append(preprocess.host(item))
        if raws:
            return preprocess.collate(raws)
        return preprocess.blank(max(1, len(items)), np.random.default_rng(0))

    size = shapes_on(device)[-1]
    made, key = makers(backbone, device, size, cache=cache), trial_key(backbone, device, size)
    return pick_engine(made, sample, FEWEST_ITEMS, key, cache)[0]


def require_engine(name: str, backbone: Backbone, device: torch.device) -> None:
    """Raises UsageError for an engine that does not run here; "auto" always does."""
    made = makers(backbone, device, SHAPES[-1])
    if name not in ("auto", *made):
        raise UsageError(f"the engine {name!r} does not run on {device}; these do: auto, {', '.join(made)}.")
    try:
        made.get(name, made[REFERENCE])()
    except ImportError:
        raise UsageError(
            f"the engine {name!r} needs a library that is not installed: pip install openvino"
        ) from None
