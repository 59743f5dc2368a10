"""The one training loop, and the modules it trains."""

from regraft.training.freezing import FreezePlan, plan_freeze
from regraft.training.logistic import Path, fit_logistic, fit_path, folds_of, softmax_logits
from regraft.training.loop import Trained, class_weighted, shuffled, train
from regraft.training.network import Network, make_head

__all__ = [
    "FreezePlan",
    "Network",
    "Path",
    "Trained",
    "class_weighted",
    "fit_logistic",
    "fit_path",
    "folds_of",
    "make_head",
    "plan_freeze",
    "shuffled",
    "softmax_logits",
    "train",
]
