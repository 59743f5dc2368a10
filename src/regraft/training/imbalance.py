"""What is done about classes of different sizes."""

from __future__ import annotations

import numpy as np


def class_offset(labels: np.ndarray, class_weights: str, classes: int) -> np.ndarray | None:
    """(K,) log shares of the classes among (N,) `labels` where `class_weights` is "adjusted", else None.

    Logit adjustment (Menon et al. 2021). A loss that is computed on logits plus this offset trains a network
    whose own logits are for classes of equal size; what was trained without it gets there by subtracting the
    offset from its bias. A class without examples counts as one example.
    """
    if class_weights != "adjusted":
        return None
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    offset: np.ndarray = np.log(counts / counts.sum()).astype(np.float32)
    return offset
