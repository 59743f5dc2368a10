"""The one training loop, and the modules it trains."""

from regraft.training.adapters import add_adapters, merge_adapters
from regraft.training.alone import head_alone
from regraft.training.checkpoint import Checkpoint
from regraft.training.freezing import FreezePlan, plan_freeze
from regraft.training.linear import Path, fit_linear, fit_path, linear_outputs, tried_folds
from regraft.training.loop import (
    Batch,
    Batches,
    Inputs,
    Judge,
    Learner,
    Listeners,
    Loop,
    Loss,
    Schedule,
    State,
    Trained,
    within_error,
)
from regraft.training.mlp import OutOfFold, mlp_head, mlp_out_of_fold
from regraft.training.network import ACTIVATION, Layers, Network, linear_head, make_head
from regraft.training.ranks import Ranks, shuffled
from regraft.training.rates import layer_groups

__all__ = [
    "ACTIVATION",
    "Batch",
    "Batches",
    "Checkpoint",
    "FreezePlan",
    "Inputs",
    "Judge",
    "Layers",
    "Learner",
    "Listeners",
    "Loop",
    "Loss",
    "Network",
    "OutOfFold",
    "Path",
    "Ranks",
    "Schedule",
    "State",
    "Trained",
    "add_adapters",
    "fit_linear",
    "fit_path",
    "head_alone",
    "layer_groups",
    "linear_head",
    "linear_outputs",
    "make_head",
    "merge_adapters",
    "mlp_head",
    "mlp_out_of_fold",
    "plan_freeze",
    "shuffled",
    "tried_folds",
    "within_error",
]
