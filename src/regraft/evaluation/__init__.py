"""Metrics with intervals, calibration, thresholds and paired comparisons: plain arrays in, numbers with their doubt out."""

from regraft.evaluation.calibration import ece, fit_temperature, probabilities, reliability
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.metrics import METRICS, confusion, evaluate_single, log_losses, per_class, refined_log_losses, score
from regraft.evaluation.paired import FEW_GROUPS, PairedDifference, holm, in_words, paired_accuracy, sign_flip
from regraft.evaluation.thresholds import Threshold, choose_thresholds, verify
from regraft.evaluation.transfer import knn_logits, knn_out_of_fold, logme

__all__ = [
    "FEW_GROUPS",
    "METRICS",
    "Estimate",
    "PairedDifference",
    "Threshold",
    "choose_thresholds",
    "confusion",
    "ece",
    "evaluate_single",
    "fit_temperature",
    "holm",
    "in_words",
    "knn_logits",
    "knn_out_of_fold",
    "log_losses",
    "logme",
    "paired_accuracy",
    "per_class",
    "probabilities",
    "refined_log_losses",
    "reliability",
    "score",
    "sign_flip",
    "verify",
    "wilson",
]
