"""Frozen activations, each computed once: engines and the store."""

from regraft.features.engines import TorchEngine
from regraft.features.feed import batched, prefetch
from regraft.features.store import FeatureStore

__all__ = ["FeatureStore", "TorchEngine", "batched", "prefetch"]
