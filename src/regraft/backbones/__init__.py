"""Where weights come from, and how a model is cut into stages."""

from regraft.backbones.arithmetic import PRECISIONS, Arithmetic, find_folds, pick_arithmetic, plain, seconds_a_step
from regraft.backbones.base import Backbone, Provenance, Stage, cut_stages, make_base
from regraft.backbones.sources import Obtained, at_hand, build, obtain_weights
from regraft.backbones.taps import Suffix, Tapped, entrance

__all__ = [
    "PRECISIONS", "Arithmetic", "Backbone", "Obtained", "Provenance", "Stage", "Suffix", "Tapped", "at_hand", "build",
    "cut_stages", "entrance", "find_folds", "make_base", "obtain_weights", "pick_arithmetic", "plain", "seconds_a_step",
]  # fmt: skip
