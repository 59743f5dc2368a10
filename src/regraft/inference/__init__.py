"""Frozen activations, each computed once: engines, their trial, and the store.

Names are fetched when they are first used, so that what needs no torch loads none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.inference.engines import Engine, OpenVinoEngine, TorchEngine, feature_key
    from regraft.inference.feed import Feed, alike, batched, prefetch
    from regraft.inference.occluded import Occluded, occlusion
    from regraft.inference.outcome import Outcome
    from regraft.inference.predictor import Predictor
    from regraft.inference.store import FeatureStore, Kept
    from regraft.inference.trial import (
        ENGINES,
        REFERENCE,
        Trial,
        agree,
        agreement,
        makers,
        pick_engine,
        recall,
        remember,
        trial_key,
        try_engines,
    )
    from regraft.inference.workers import Reading

_MODULES = {
    "engines": ("Engine", "OpenVinoEngine", "TorchEngine", "feature_key"),
    "feed": ("Feed", "alike", "batched", "prefetch"),
    "occluded": ("Occluded", "occlusion"),
    "outcome": ("Outcome",),
    "predictor": ("Predictor",),
    "workers": ("Reading",),
    "store": ("FeatureStore", "Kept"),
    "trial": (
        "ENGINES",
        "REFERENCE",
        "Trial",
        "agree",
        "agreement",
        "makers",
        "pick_engine",
        "recall",
        "remember",
        "trial_key",
        "try_engines",
    ),
}

__all__ = [
    "ENGINES",
    "REFERENCE",
    "Engine",
    "FeatureStore",
    "Feed",
    "Kept",
    "Occluded",
    "OpenVinoEngine",
    "Outcome",
    "Predictor",
    "Reading",
    "TorchEngine",
    "Trial",
    "agree",
    "agreement",
    "alike",
    "batched",
    "feature_key",
    "makers",
    "occlusion",
    "pick_engine",
    "prefetch",
    "recall",
    "remember",
    "trial_key",
    "try_engines",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"regraft.inference.{module}"), name)
    raise AttributeError(f"module 'regraft.inference' has no attribute {name!r}")
