"""Metrics with intervals, calibration, thresholds and paired comparisons: plain arrays in, numbers with their
doubt out.
"""

from regraft.evaluation.blocks import (
    all_alone,
    assign_folds,
    effective_count,
    fewest_blocks,
    folds_of,
    per_block,
    standard_error,
)
from regraft.evaluation.calibration import ece, fit_temperature, predicted_classes, probabilities, reliability
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.metrics import (
    METRICS,
    confusion,
    evaluate_single,
    log_losses,
    per_class,
    refined_log_losses,
    score,
    weighted_scores,
)
from regraft.evaluation.paired import FEW_GROUPS, PairedDifference, holm, in_words, paired_accuracy, sign_flip
from regraft.evaluation.resampling import draws
from regraft.evaluation.thresholds import Threshold, choose_thresholds, verify
from regraft.evaluation.transfer import knn_logits, knn_out_of_fold, logme

__all__ = [
    "FEW_GROUPS",
    "METRICS",
    "Estimate",
    "PairedDifference",
    "Threshold",
    "all_alone",
    "assign_folds",
    "choose_thresholds",
    "confusion",
    "draws",
    "ece",
    "effective_count",
    "evaluate_single",
    "fewest_blocks",
    "fit_temperature",
    "folds_of",
    "holm",
    "in_words",
    "knn_logits",
    "knn_out_of_fold",
    "log_losses",
    "logme",
    "paired_accuracy",
    "per_block",
    "per_class",
    "predicted_classes",
    "probabilities",
    "refined_log_losses",
    "reliability",
    "score",
    "sign_flip",
    "standard_error",
    "verify",
    "weighted_scores",
    "wilson",
]
