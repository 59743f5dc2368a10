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


def curves(labels: Ints, shares: Floats) -> tuple[Floats, Floats]:
    """(2,) ROC AUC and average precision, one class against the rest, the mean of the classes; and (N, 2) influences.

    `shares` (N, K). Classes count that have both members and others; no number where none has. An influence is the derivative
    in the example's weight, so that the sum of their squares is the variance (infinitesimal jackknife, Jaeckel 1972; of the ROC
    AUC nearly that of DeLong 1988).
    """
    n, known = len(labels), [k for k in np.unique(labels) if 0 < (labels == k).sum() < len(labels)]
    values, influences = np.zeros(2), np.zeros((n, 2))
    for k in known:
        order = np.argsort(-shares[:, k], kind="stable")
        scored, own = shares[order, k], (labels[order] == k).astype(np.float64)
        step = np.cumsum(np.r_[True, scored[1:] != scored[:-1]]) - 1  # equal scores are one step of the curves
        inside, outside = np.bincount(step, own), np.bincount(step, 1 - own)
        true, false = inside.cumsum(), outside.cumsum()
        positives, negatives, called = true[-1], false[-1], true + false
        below = (negatives - false + outside / 2) / negatives  # share of others ranked lower, half of those that tie
        above = (true - inside / 2) / positives
        area, precision = (inside * below).sum() / positives, (inside * true / called).sum() / positives
        lift, drag = (np.cumsum((inside * some / called**2)[::-1])[::-1] for some in (false, true))
        gained = np.where(own, (below - area)[step] / positives, (above - area)[step] / negatives)
        sharper = np.where(own, (true / called + lift - precision)[step] / positives, -drag[step] / positives)
        values += area / len(known), precision / len(known)
        influences[order] += np.stack([gained, sharper], axis=1) / len(known)
    return (values, influences) if known else (values * np.nan, influences)
