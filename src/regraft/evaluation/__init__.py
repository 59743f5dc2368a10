"""Metrics with intervals and paired comparisons: plain arrays in, numbers with their uncertainty out."""

from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.metrics import METRICS, confusion, evaluate_single, log_losses, per_class, refined_log_loss, score
from regraft.evaluation.paired import PairedDifference, in_words, paired_accuracy

__all__ = [
    "METRICS",
    "Estimate",
    "PairedDifference",
    "confusion",
    "evaluate_single",
    "in_words",
    "log_losses",
    "paired_accuracy",
    "per_class",
    "refined_log_loss",
    "score",
    "wilson",
]
