"""What each example counts in training, and what is done about classes of different sizes."""

from __future__ import annotations

import numpy as np

from regraft.errors import UsageError


def class_offset(labels: np.ndarray, class_weights: str, classes: int) -> np.ndarray | None:
    """(K,) log shares of the classes among (N,) `labels` where `class_weights` is "adjusted", else None.

    Logit adjustment (Menon et al. 2021). A loss that is computed on logits plus this offset trains a
    network whose own logits are for classes of equal size; what was trained without it gets there by
    subtracting the offset from its bias. A class without examples counts as one example.
    """
    if class_weights != "adjusted":
        return None
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    offset: np.ndarray = np.log(counts / counts.sum()).astype(np.float32)
    return offset


def class_weighted(labels: np.ndarray, weights: np.ndarray, balanced: bool, classes: int) -> np.ndarray:
    """(N,) weights of mean 1: the examples' own, times n / (K n_c) where `balanced` (King and Zeng 2001).

    An example of weight 0 counts nowhere. Where all are 0, they stay so. Raises UsageError for weights that
    are negative or no numbers.
    """
    result = weights.astype(np.float64)
    if not np.isfinite(result).all() or (result < 0).any():
        raise UsageError("example weights are numbers from 0 up; some of these are not.")
    result = result / (result.max(initial=0.0) or 1.0)  # no sum overflows
    if balanced:
        counts = np.bincount(labels[result > 0], minlength=classes)
        result *= (counts.sum() / (classes * np.maximum(counts, 1)))[labels]
    return np.asarray(result / (result.mean() or 1.0)) if len(result) else result
