"""What two models' outputs of the same held-out examples say of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from regraft.evaluation import draws
from regraft.tasks import Metric

RESAMPLES = 200  # of the error of a metric
CLEAR_ERRORS = 2.0  # standard errors of a paired difference from which on it is clear


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


def foreseen(gain: ArrayLike, error: ArrayLike, share: float) -> np.ndarray:
    """The probability that a gain will be above its standard error once all examples are held out, by what is
    known of a `share` of them, between 0 and 1: its (...) mean and the (...) `error` of that.

    This is predictive power without an opinion before (Spiegelhalter, Freedman and Blackburn 1986), the rule by
    which a trial that cannot change its verdict is ended (stochastic curtailment, Lan, Simon and Halperin 1982).
    The mean over all is normal about the mean so far with a variance of (1 - share) error^2, and its error is
    sqrt(share) error. One half where the error is not finite.
    """
    gain, error = np.asarray(gain, dtype=np.float64), np.asarray(error, dtype=np.float64)
    above = gain - np.sqrt(share) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = np.where(above == 0, 0.0, above / (np.sqrt(1 - share) * error))
    return np.where(np.isfinite(error), scipy.special.ndtr(standard), 0.5)


def halves(count: int, blocks: np.ndarray | None) -> np.ndarray:
    """(N,) 0 or 1, as many blocks of each, by lot."""
    number = np.arange(count) if blocks is None else np.unique(blocks, return_inverse=True)[1].reshape(-1)
    return np.asarray((np.random.default_rng(0).permutation(int(number.max()) + 1) % 2)[number])
