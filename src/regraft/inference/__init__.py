"""Frozen activations, each computed once: engines, their trial, and the store."""

from regraft.inference.engines import Engine, OpenVinoEngine, TorchEngine, feature_key
from regraft.inference.feed import alike, batched, prefetch
from regraft.inference.occlusion import Occluded, occlusion
from regraft.inference.predictor import Outcome, Predictor
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

__all__ = [
    "ENGINES",
    "REFERENCE",
    "Engine",
    "FeatureStore",
    "Kept",
    "Occluded",
    "OpenVinoEngine",
    "Outcome",
    "Predictor",
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
