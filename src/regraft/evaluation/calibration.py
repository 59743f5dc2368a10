"""Probabilities that mean what they say: one temperature for all logits (Guo, Pleiss, Sun and Weinberger 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.special import log_softmax

BOUNDS = (0.05, 20.0)


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """What to divide (N, K) logits by for the least log loss on (N,) labels the model has not learnt from; 1 for none.

    Targets are smoothed as by Platt (1999): (N + 1) / (N + 2) for the label, the rest shared by the others, so that a model
    that is right on every one of a few examples is not made certain of everything.
    """
    y, z = np.asarray(labels, dtype=np.int64), np.asarray(logits, dtype=np.float64)
    if len(y) == 0:
        return 1.0
    n, k = z.shape
    targets = np.full((n, k), 1 / (n + 2) / max(1, k - 1))
    targets[np.arange(n), y] = (n + 1) / (n + 2)

    def loss(log_temperature: float) -> float:
        return -float((targets * log_softmax(z / np.exp(log_temperature), axis=1)).sum() / n)

    found = optimize.minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))
