"""Metrics of answers that are numbers, each with a 95 % interval, and the intervals that are promised to hold
them. Arrays in, estimates out.

Shapes: N examples, K numbers of each; targets (N, K) are NaN where one is not known: such a cell counts nowhere.
With one number errors are in its own unit; with several they are in the deviations of the targets, and R squared
and rank correlation are the means over the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from regraft.evaluation import tails
from regraft.evaluation.blocks import all_alone, effective_count
from regraft.evaluation.estimate import Z95, Estimate, wilson
from regraft.evaluation.metric import Metric, Sample, bootstrapped, mean_of

Floats = NDArray[np.float64]
PARTS = 3  # of the range of targets, by which the coverage of intervals is told
FEWEST = 10  # examples of a part or group whose coverage is told
GROUPS = 20  # groups, the largest, whose coverage is told


class Told:
    """N answers that are K numbers each: (N, K) targets and values, what an error is divided by (K,), and where
    each is promised to lie, `ends` of (N, K) lows and highs, NaN where nothing is promised of a number.
    """

    def __init__(
        self,
        targets: np.ndarray,
        values: np.ndarray,
        scale: np.ndarray | None = None,
        ends: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self.targets, self.values = np.asarray(targets, np.float64), np.asarray(values, np.float64)
        self.known = np.isfinite(self.targets)
        self.scale = np.ones(self.targets.shape[1]) if scale is None else scale
        self.ends = ends

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def errors(self) -> Floats:
        """(N, K) errors, 0 where a target is not known."""
        return np.asarray(np.where(self.known, self.values - self.targets, 0) / self.scale)

    @cached_property
    def absolute(self) -> Floats:
        """(N,) mean absolute errors of an example's known numbers."""
        return self._mean(np.abs(self.errors))

    @cached_property
    def squared(self) -> Floats:
        """(N,) mean squared errors of an example's known numbers."""
        return self._mean(self.errors**2)

    @cached_property
    def by_size(self) -> tuple[np.ndarray, Floats]:
        """The positions of examples by rising absolute error, and these errors."""
        order = np.argsort(self.absolute, kind="stable")
        return order, self.absolute[order]

    @cached_property
    def ranks(self) -> list[tuple[np.ndarray, Floats, Floats]]:
        """Of each number the known rows, and the ranks of its targets and values there."""
        rank = scipy.stats.rankdata
        rows = [np.flatnonzero(known) for known in self.known.T]
        return [(own, rank(self.targets[own, k]), rank(self.values[own, k])) for k, own in enumerate(rows)]

    def _mean(self, cells: Floats) -> Floats:
        return np.asarray((cells * self.known).sum(axis=1) / np.maximum(1, self.known.sum(axis=1)))


def _root_mean(facts: Told, weights: Floats) -> Floats:
    mean: Floats = (weights @ facts.squared) / weights.sum(axis=1)
    return np.sqrt(mean)


def _determination(facts: Told, weights: Floats) -> Floats:
    """1 less the squared errors by the squared distances from the mean, as scikit-learn has it."""
    found = []
    for k in range(facts.targets.shape[1]):
        known = facts.known[:, k]
        w, y, error = (
            weights[:, known],
            facts.targets[known, k],
            facts.values[known, k] - facts.targets[known, k],
        )
        y = y - y.mean() if len(y) else y
        total = w.sum(axis=1)
        mean = np.divide(w @ y, total, out=np.zeros(len(w)), where=total > 0)
        spread = w @ y**2 - total * mean**2
        part = np.divide(
            w @ error**2, spread, out=np.full(len(w), np.nan), where=spread > 1e-12 * (w @ y**2 + 1e-300)
        )
        found.append(1 - part)
    return np.asarray(np.mean(found, axis=0))


def _rank_correlation(facts: Told, weights: Floats) -> Floats:
    """Spearman's; under weights that of the ranks among all examples."""
    found = []
    for rows, first, second in facts.ranks:
        if not len(rows):
            found.append(np.full(len(weights), np.nan))
            continue
        w = weights[:, rows]
        total = np.maximum(w.sum(axis=1), 1e-300)
        a, b = first - first.mean(), second - second.mean()
        ma, mb = (w @ a) / total, (w @ b) / total
        together = (w @ (a * b)) / total - ma * mb
        spread = ((w @ a**2) / total - ma**2) * ((w @ b**2) / total - mb**2)
        known = spread > 1e-12
        found.append(
            np.divide(together, np.sqrt(np.maximum(spread, 1e-300)), out=np.full(len(w), np.nan), where=known)
        )
    return np.asarray(np.mean(found, axis=0))


def _of_squares(sample: Sample) -> Estimate:
    """The root of a mean of squares, with the ends of `tails.interval`."""
    squares = sample.facts.squared
    value = math.sqrt(float(squares.mean()))
    units = tails.Units.of(np.zeros_like(squares), np.sqrt(squares), squares >= 0, sample.units)
    low, high = tails.interval([units], tails.squared_error)
    return Estimate(value, math.sqrt(low), math.sqrt(high), sample.n, f"{LONG_TAILS} over {sample.over}")


def _of_determination(sample: Sample) -> Estimate:
    """R squared, with the ends of `tails.interval` of what is not explained."""
    facts = sample.facts
    value = float(_determination(facts, np.ones((1, sample.n)))[0])
    if not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, sample.n, "the targets do not vary")
    units = [
        tails.Units.of(values, truth - values, known, sample.units)
        for truth, values, known in zip(facts.targets.T, facts.values.T, facts.known.T, strict=True)
    ]
    low, high = tails.interval(units, tails.unexplained)
    return Estimate(value, 1 - high, 1 - low, sample.n, f"{LONG_TAILS} over {sample.over}")


def _fisher(sample: Sample) -> Estimate:
    """Fisher's z with the variance of Bonett and Wright (2000); of groups BCa."""
    n, value = sample.n, sample.value
    if sample.units is not None:
        return bootstrapped(sample)
    if n < 5 or abs(value) >= 1:
        return Estimate(value, math.nan, math.nan, n, "too few examples for an interval")
    half = Z95 * math.sqrt((1 + value**2 / 2) / (n - 3))
    ends = math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
    return Estimate(value, *ends, n, "Fisher's z")


def _median_error(facts: Told, weights: Floats) -> Floats:
    order, errors = facts.by_size
    reached = weights[:, order].cumsum(axis=1)
    return np.asarray(errors[(reached >= reached[:, -1:] / 2).argmax(axis=1)])


def _of_ranks(sample: Sample) -> Estimate:
    """The errors between which the median lies by the binomial distribution; of groups BCa."""
    if sample.units is not None:
        return bootstrapped(sample)
    errors, n = sample.facts.by_size[1], sample.n
    low, high = scipy.stats.binom.ppf((0.025, 0.975), n, 0.5)
    ends = errors[max(0, int(low) - 1)], errors[min(n - 1, int(high))]
    return Estimate(sample.value, float(ends[0]), float(ends[1]), n, "order statistics")


ABSOLUTE = attrgetter("absolute")
DEVIATIONS = "standard deviations"
LONG_TAILS = "bootstrap-t of the logarithm, the tail drawn from Pareto's distribution,"


def numbers_metrics(unit: str) -> tuple[Metric, ...]:
    """The metrics of numbers whose errors are in this unit, in the order they are shown in."""
    return (
        Metric(
            "mae", "Mean absolute error", bootstrapped, mean_of(ABSOLUTE), higher=False, unit=unit, main=True
        ),
        Metric(
            "rmse",
            "Root mean squared error",
            _of_squares,
            _root_mean,
            higher=False,
            unit=unit,
            main=True,
            resampled=False,
        ),
        Metric("r2", "R squared", _of_determination, _determination, hub="r2", main=True, resampled=False),
        Metric("spearman", "Spearman rank correlation", _fisher, _rank_correlation, hub="spearmanr"),
        Metric("median_error", "Median absolute error", _of_ranks, _median_error, higher=False, unit=unit),
    )


def coverage(
    facts: Told, k: int, groups: np.ndarray | None = None, names: Callable[[float], str] = "{:.4g}".format
) -> dict[str, Any]:
    """How often number `k` lies in its interval, with Wilson's 95 % interval; the same by the thirds of its
    targets, and by group where there are some of FEWEST examples.
    """
    if facts.ends is None or np.isnan(facts.ends[0][:, k]).any():
        return {}
    rows = np.flatnonzero(facts.known[:, k])
    target, low, high = (column[rows, k] for column in (facts.targets, *facts.ends))
    inside = (target >= low) & (target <= high)
    own = None if groups is None else groups[rows]
    found = {**_share(inside, own), "width": float(np.mean(high - low)) if len(rows) else None}
    edges = np.quantile(target, (1 / PARTS, 2 / PARTS)) if len(rows) else np.zeros(2)
    part = np.searchsorted(edges, target)
    told = (f"up to {names(edges[0])}", f"{names(edges[0])} to {names(edges[1])}", f"above {names(edges[1])}")
    found["parts"] = [
        {"of": told[p], **_share(inside[part == p], None if own is None else own[part == p])}
        for p in range(PARTS)
        if (part == p).sum() >= FEWEST
    ]
    if own is not None:
        number, counts = np.unique(own, return_counts=True)
        large = number[np.argsort(-counts, kind="stable")][:GROUPS]
        shares = [float(inside[own == one].mean()) for one in large if (own == one).sum() >= FEWEST]
        found["groups"] = (
            {"count": len(shares), "lowest": min(shares), "highest": max(shares)} if shares else None
        )
    return found


def _share(inside: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    """A share of truths with its interval."""
    if not len(inside):
        return {"value": None, "low": None, "high": None, "n": 0}
    value = float(inside.mean())
    count = float(len(inside)) if all_alone(groups) else effective_count(inside, groups)
    low, high = wilson(value * count, count)
    return {"value": value, "low": low, "high": high, "n": len(inside)}
