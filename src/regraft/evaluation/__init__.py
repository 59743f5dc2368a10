"""Metrics with intervals, calibration, thresholds and paired comparisons: plain arrays in, numbers with
their doubt out.
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
from regraft.evaluation.calibration import (
    ece,
    fit_temperature,
    predicted_classes,
    probabilities,
    reliability,
    softmax,
)
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.familiarity import Familiarity, some_rows
from regraft.evaluation.metric import (
    SHARE,
    Metric,
    Repeats,
    Sample,
    bootstrapped,
    bootstrapped_index,
    counted,
    estimates,
    mean_of,
    named,
    proportion,
    repeated,
    unknown,
)
from regraft.evaluation.metrics import (
    METRICS,
    Classified,
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
    "SHARE",
    "Classified",
    "Estimate",
    "Familiarity",
    "Metric",
    "PairedDifference",
    "Repeats",
    "Sample",
    "Threshold",
    "all_alone",
    "assign_folds",
    "bootstrapped",
    "bootstrapped_index",
    "choose_thresholds",
    "confusion",
    "counted",
    "draws",
    "ece",
    "effective_count",
    "estimates",
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
    "mean_of",
    "named",
    "paired_accuracy",
    "per_block",
    "per_class",
    "predicted_classes",
    "probabilities",
    "proportion",
    "refined_log_losses",
    "reliability",
    "repeated",
    "score",
    "sign_flip",
    "softmax",
    "some_rows",
    "standard_error",
    "unknown",
    "verify",
    "weighted_scores",
    "wilson",
]
