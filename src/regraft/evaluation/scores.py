"""Metrics under weights: for R ways (R, N) of counting N examples, each metric's R values. No intervals
here.

Checked against scikit-learn, whose definitions these are, with its sample_weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """What the confusion matrix comes to: (R, K) right ones, (R, K) of each true class, (R, K) of each
    predicted class.
    """

    hits: Floats
    support: Floats
    called: Floats

    @property
    def n(self) -> Floats:
        """(R,) the sum of the weights."""
        return np.asarray(self.support.sum(axis=1))


class Cells:
    """The cells of the confusion matrix that hold any of N examples, found once for all weights."""

    def __init__(self, labels: Ints, predicted: Ints, k: int) -> None:
        cell = labels * k + predicted
        self.k, self.order = k, np.argsort(cell, kind="stable")
        held, self.starts = np.unique(cell[self.order], return_index=True)
        self.true, self.called = held // k, held % k
        self.by_called = np.argsort(self.called, kind="stable")

    def counts(self, weights: Floats) -> Counts:
        """Counts under weights (R, N)."""
        sums = np.add.reduceat(weights[:, self.order], self.starts, axis=1)  # (R, cells)
        hits, right = np.zeros((len(weights), self.k)), self.true == self.called
        hits[:, self.true[right]] = sums[:, right]
        return Counts(
            hits,
            self._by_class(sums, self.true),
            self._by_class(sums[:, self.by_called], self.called[self.by_called]),
        )

    def _by_class(self, sums: Floats, classes: Ints) -> Floats:
        """(R, k) totals of (R, cells) sums, the classes of the cells in rising order."""
        present, starts = np.unique(classes, return_index=True)
        totals = np.zeros((len(sums), self.k))
        totals[:, present] = np.add.reduceat(sums, starts, axis=1)
        return totals


def counts(weights: Floats, labels: Ints, predicted: Ints, k: int) -> Counts:
    """Counts under weights (R, N)."""
    return Cells(labels, predicted, k).counts(weights)


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
    """Mean F1 of the classes that occur or are predicted; no number where there are none."""
    return _divided(f1(c).sum(axis=1), (c.support + c.called > 0).sum(axis=1))


def weighted_f1(c: Counts) -> Floats:
    """Mean F1 of the classes, each by its share of the examples; no number where there are none."""
    return _divided((f1(c) * c.support).sum(axis=1), c.n)


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


def curves(labels: Ints, shares: Floats | Callable[[int], Floats]) -> tuple[Floats, Floats]:
    """(2,) ROC AUC and average precision, one class against the rest, the mean of the classes; and (N, 2)
    influences.

    `shares` is (N, K), or gives the (N,) shares of a class, asked for in rising order. Classes count that
    have both members and others; no number where none has. An influence is the derivative in the example's
    weight, so that the sum of their squares is the variance (infinitesimal jackknife, Jaeckel 1972; of the
    ROC AUC nearly that of DeLong 1988). Shares that tie are one step of the curves.
    """
    n, held = len(labels), np.bincount(labels)
    known = np.flatnonzero((held > 0) & (held < n))
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(held)
    values, influences = np.zeros(2), np.zeros((n, 2))
    for k in known.tolist():
        scored = shares(k) if callable(shares) else shares[:, k]
        area, precision, gained, sharper = curves_of(scored, order[ends[k] - held[k] : ends[k]])
        values += area / len(known), precision / len(known)
        influences[:, 0] += gained / len(known)
        influences[:, 1] += sharper / len(known)
    return (values, influences) if len(known) else (values * np.nan, influences)


def curves_of(scored: Floats, own: Ints) -> tuple[float, float, Floats, Floats]:
    """ROC AUC and average precision of one class by (N,) scores, `own` its members; and the (N,) influences
    on each.

    Only members are sorted, as the curves turn at their scores alone; all others are looked up among them.
    """
    n = len(scored)
    levels, step = np.unique(scored[own], return_inverse=True)  # the scores of members, rising
    inside = np.bincount(step).astype(np.float64)
    reached = np.searchsorted(levels, scored, side="right")  # how many of these an example's score reaches
    ties = (reached > 0) & (levels[np.maximum(reached, 1) - 1] == scored)
    others = np.ones(n)
    others[own] = 0
    outside = np.bincount(reached[ties] - 1, others[ties], len(levels))
    # Others that reach so many levels, or more
    above = np.bincount(reached, others, len(levels) + 1)[::-1].cumsum()[::-1]
    positives, negatives = float(len(own)), float(n - len(own))
    true, false = inside[::-1].cumsum()[::-1], above[1:]  # members, and others, at a level or higher
    called = true + false
    below = (
        negatives - false + outside / 2
    ) / negatives  # share of others ranked lower, half of those that tie
    area, precision = (
        float((inside * below).sum() / positives),
        float((inside * true / called).sum() / positives),
    )
    # Of the levels up to one's own
    lift, drag = ((inside * side / called**2).cumsum() for side in (false, true))
    # Members above, by the number of levels reached
    higher = np.r_[positives, positives - inside.cumsum()] / positives
    gained = higher[reached]
    gained[ties] += (inside / (2 * positives))[reached[ties] - 1]
    gained = (gained - area) / negatives
    sharper = (-np.r_[0.0, drag] / positives)[reached]
    gained[own] = ((below - area) / positives)[step]
    sharper[own] = ((true / called + lift - precision) / positives)[step]
    return area, precision, gained, sharper
