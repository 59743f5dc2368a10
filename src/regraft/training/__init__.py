"""The one training loop, and the modules it trains."""

from regraft.training.adapters import add_adapters, merge_adapters
from regraft.training.alone import head_alone
from regraft.training.checkpoint import Checkpoint
from regraft.training.freezing import FreezePlan, plan_freeze
from regraft.training.imbalance import class_offset
from regraft.training.logistic import Path, fit_logistic, fit_path, softmax_logits
from regraft.training.loop import Batch, Batches, Trained, class_weighted, shuffled, train, within_error
from regraft.training.mlp import OutOfFold, mlp_head, mlp_out_of_fold
from regraft.training.network import Layers, Network, linear_head, make_head

__all__ = [
    "Batch",
    "Batches",
    "Checkpoint",
    "FreezePlan",
    "Layers",
    "Network",
    "OutOfFold",
    "Path",
    "Trained",
    "add_adapters",
    "class_offset",
    "class_weighted",
    "fit_logistic",
    "fit_path",
    "head_alone",
    "linear_head",
    "make_head",
    "merge_adapters",
    "mlp_head",
    "mlp_out_of_fold",
    "plan_freeze",
    "shuffled",
    "softmax_logits",
    "train",
    "within_error",
]
