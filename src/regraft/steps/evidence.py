"""What two models' outputs of the same held-out examples say of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from regraft.evaluation import draws
from regraft.tasks import Metric

RESAMPLES = 200  # of the error of a metric


def by_metric(
    metric: Metric, before: Any, after: Any, blocks: np.ndarray | None
) -> tuple[float, float, float]:
    """A metric of two models' facts of the same examples, turned so that higher is better, and the standard
    error of the difference by a bootstrap over blocks.
    """
    once, rng = np.ones((1, len(before))), np.random.default_rng(0)
    units = None if blocks is None else np.unique(blocks, return_inverse=True)[1].reshape(-1)
    differences = [
        metric.scores(before, weights) - metric.scores(after, weights)
        for weights in draws(len(before), RESAMPLES, rng, units)
    ]
    noise = float(np.std(np.concatenate(differences)))
    return float(metric.scores(before, once)[0]), float(metric.scores(after, once)[0]), noise


def halves(count: int, blocks: np.ndarray | None) -> np.ndarray:
    """(N,) 0 or 1, as many blocks of each, by lot."""
    number = np.arange(count) if blocks is None else np.unique(blocks, return_inverse=True)[1].reshape(-1)
    return np.asarray((np.random.default_rng(0).permutation(int(number.max()) + 1) % 2)[number])
