"""Where weights come from, and how a model is cut into stages."""

from regraft.backbones.base import Backbone, Provenance, Stage, cut_stages, make_base
from regraft.backbones.sources import Obtained, at_hand, build, obtain_weights

__all__ = [
    "Backbone", "Obtained", "Provenance", "Stage", "at_hand", "build", "cut_stages", "make_base", "obtain_weights",
]  # fmt: skip
