"""Metrics under weights: for R ways (R, N) of counting N examples, each metric's R values. No intervals here.

Checked against scikit-learn, whose definitions these are, with its sample_weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DENSE = 128  # classes up to which a product of dense matrices is faster than a sparse one


@dataclass(frozen=True)
class Counts:
    """What the confusion matrix comes to: (R, K) right ones, (R, K) of each true class, (R, K) of each predicted class."""

    hits: Floats
    support: Floats
    called: Floats

    @property
    def n(self) -> Floats:
        """(R,) the sum of the weights."""
        return np.asarray(self.support.sum(axis=1))


def counts(weights: Floats, labels: Ints, predicted: Ints, k: int) -> Counts:
    """Counts under weights (R, N)."""
    right = labels == predicted
    return Counts(_by_class(weights, labels, k, right), _by_class(weights, labels, k), _by_class(weights, predicted, k))


def _by_class(weights: Floats, classes: Ints, k: int, counted: NDArray[np.bool_] | None = None) -> Floats:
    """(R, k) sums of the weights of each class's examples, of those `counted` only where given."""
    n, ones = len(classes), np.ones(len(classes)) if counted is None else counted.astype(np.float64)
    if k <= DENSE:
        member = np.zeros((n, k))
        member[np.arange(n), classes] = ones
        return np.asarray(weights @ member)
    held = sparse.csr_matrix((ones, (classes, np.arange(n))), shape=(k, n))
    return np.ascontiguousarray((held @ weights.T).T)


def mean_of(weights: Floats, values: Floats) -> Floats:
    """(R,) weighted means of (N,) values."""
    return np.asarray((weights @ values) / weights.sum(axis=1))


def accuracy(c: Counts) -> Floats:
    """Share of right answers."""
    return np.asarray(c.hits.sum(axis=1) / c.n)


def balanced_accuracy(c: Counts) -> Floats:
    """Mean recall of the classes that occur."""
    seen = c.support > 0
    recall = np.divide(c.hits, c.support, out=np.zeros_like(c.hits), where=seen)
    return np.asarray(recall.sum(axis=1) / seen.sum(axis=1))


def f1(c: Counts) -> Floats:
    """(R, K) F1; 0 of a class that neither occurs nor is predicted."""
    total = c.support + c.called
    return np.divide(2 * c.hits, total, out=np.zeros_like(c.hits), where=total > 0)


def macro_f1(c: Counts) -> Floats:
    """Mean F1 of the classes that occur or are predicted."""
    return np.asarray(f1(c).sum(axis=1) / (c.support + c.called > 0).sum(axis=1))


def weighted_f1(c: Counts) -> Floats:
    """Mean F1 of the classes, each by its share of the examples."""
    return np.asarray((f1(c) * c.support).sum(axis=1) / c.n)


def kappa(c: Counts) -> Floats:
    """Cohen's kappa: agreement beyond that of chance; no number where chance alone agrees always."""
    n = c.n
    chance = (c.support * c.called).sum(axis=1) / n**2
    return _divided(c.hits.sum(axis=1) / n - chance, 1 - chance)


def mcc(c: Counts) -> Floats:
    """Matthews correlation for K classes (Gorodkin 2004); 0 where labels or predictions are all one class."""
    n, right = c.n, c.hits.sum(axis=1)
    top = right * n - (c.support * c.called).sum(axis=1)
    bottom = np.sqrt((n**2 - (c.support**2).sum(axis=1)) * (n**2 - (c.called**2).sum(axis=1)))
    return np.nan_to_num(_divided(top, bottom))


def _divided(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 1e-12)


def ranking(weights: Floats, labels: Ints, shares: Floats) -> tuple[Floats, Floats]:
    """(R,) ROC AUC and (R,) average precision, one class against the rest, the mean of the classes.

    `shares` (N, K). Classes count that have both members and others under a row's weights; no number where none has.
    """
    areas, precisions = [], []
    for k in np.unique(labels):
        order = np.argsort(-shares[:, k], kind="stable")
        values = shares[order, k]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])  # equal scores are one step of the curves
        own = (labels[order] == k).astype(np.float64)
        sorted_weights = weights[:, order]
        inside = np.add.reduceat(sorted_weights * own, starts, axis=1)
        outside = np.add.reduceat(sorted_weights, starts, axis=1) - inside
        true, false = inside.cumsum(axis=1), outside.cumsum(axis=1)
        positives, negatives = true[:, -1], false[:, -1]
        below = negatives[:, None] - false + outside / 2  # others ranked lower, half of those that tie
        areas.append(_divided((inside * below).sum(axis=1), positives * negatives))
        called = true + false
        precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
        precisions.append(np.where(negatives > 0, _divided((inside * precision).sum(axis=1), positives), np.nan))
    return _mean_known(np.array(areas)), _mean_known(np.array(precisions))


def _mean_known(values: Floats) -> Floats:
    """(R,) means over the first axis of what is a number."""
    known = np.isfinite(values)
    return _divided(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))
