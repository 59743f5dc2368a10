"""Metrics with intervals and paired comparisons: plain arrays in, numbers with their uncertainty out."""

from regraft.evaluation.calibration import fit_temperature
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.metrics import METRICS, confusion, evaluate_single, log_losses, per_class, refined_log_losses, score
from regraft.evaluation.paired import PairedDifference, in_words, paired_accuracy
from regraft.evaluation.transfer import knn_out_of_fold, logme

__all__ = [
    "METRICS",
    "Estimate",
    "PairedDifference",
    "confusion",
    "evaluate_single",
    "fit_temperature",
    "in_words",
    "knn_out_of_fold",
    "log_losses",
    "logme",
    "paired_accuracy",
    "per_class",
    "refined_log_losses",
    "score",
    "wilson",
]
