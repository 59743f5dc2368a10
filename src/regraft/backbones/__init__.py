"""Where weights come from, and how a model is cut into stages."""

from regraft.backbones.arithmetic import (
    PRECISIONS,
    Arithmetic,
    find_folds,
    pick_arithmetic,
    plain,
    seconds_a_step,
)
from regraft.backbones.base import Backbone, Provenance, Stage, cut_stages, make_base
from regraft.backbones.batches import Batch, length, padded, split, tensors
from regraft.backbones.catalogue import Entry, Licence, entries, entry_of, licence_of, licences
from regraft.backbones.cost import Cost, costs, pace
from regraft.backbones.joined import Way, joined, shares, widths_of
from regraft.backbones.moving import Answers, Card, computes_aside, one_ahead, sent
from regraft.backbones.poolings import every_pooling, open_poolings, pooled_by
from regraft.backbones.sources import (
    Obtained,
    WeightSource,
    at_hand,
    build,
    candidates,
    earlier_runs,
    obtain_weights,
    register_source,
    usual,
)
from regraft.backbones.taps import Suffix, Tapped, entrance
from regraft.backbones.truncate import cut_short, truncated

__all__ = [
    "PRECISIONS",
    "Answers",
    "Arithmetic",
    "Backbone",
    "Batch",
    "Card",
    "Cost",
    "Entry",
    "Licence",
    "Obtained",
    "Provenance",
    "Stage",
    "Suffix",
    "Tapped",
    "Way",
    "WeightSource",
    "at_hand",
    "build",
    "candidates",
    "computes_aside",
    "costs",
    "cut_short",
    "cut_stages",
    "earlier_runs",
    "entrance",
    "entries",
    "entry_of",
    "every_pooling",
    "find_folds",
    "joined",
    "length",
    "licence_of",
    "licences",
    "make_base",
    "obtain_weights",
    "one_ahead",
    "open_poolings",
    "pace",
    "padded",
    "pick_arithmetic",
    "plain",
    "pooled_by",
    "register_source",
    "seconds_a_step",
    "sent",
    "shares",
    "split",
    "tensors",
    "truncated",
    "usual",
    "widths_of",
]
