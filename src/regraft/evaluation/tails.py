"""Intervals of squared errors, whose tails may be so long that their variance is hardly known.

The interval is a bootstrap-t (Efron 1982): of the logarithm of the statistic, by standard errors from how much each
unit moves it, symmetric (Hall 1988). Units, which are examples or whole groups, are drawn semi-parametrically
(Davidson and Flachaire, Journal of Econometrics 141, 2007): one that was among those of the largest squared errors
has its errors drawn anew from the Pareto distribution that these follow, since a sample from a long tail rarely holds
the large errors that make the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft.evaluation.resampling import BLOCK

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST = 5  # units that the tail is measured by, at least
MEASURED = 1.5  # times the square root of the number of units: so many measure the tail
DRAWN = 0.7  # of these have their errors drawn from it (both by benchmarks/coverage_tasks.py)
LONGEST = 1.2  # Pareto's exponent at least: from 1 down there is no mean
LEVEL = 0.95
FAR = 1e6  # how far a resample lies whose statistic is not defined
WIDEST = 50.0  # half an interval of the logarithm, beyond which it says nothing


@dataclass(frozen=True)
class Units:
    """What U units add to the sums of one number: how many `values` (what was told), their sum and that of their
    squares, the sums of errors (the truth less what was told), of squared errors, and of values times errors.
    Each (U,), or (R, U) of R resamples.
    """

    count: Floats
    values: Floats
    values2: Floats
    errors: Floats
    errors2: Floats
    both: Floats

    @classmethod
    def of(cls, values: Floats, errors: Floats, known: NDArray[np.bool_], units: Ints | None) -> Units:
        """Of (N,) values and errors, those of a unit together; one that is not `known` adds nothing."""
        values = np.where(known, values - values[known].mean() if known.any() else 0.0, 0.0)
        errors = np.where(known, errors, 0.0)
        parts = (known.astype(np.float64), values, values**2, errors, errors**2, values * errors)
        if units is None:
            return cls(*parts)
        return cls(*(_gathered(part, units) for part in parts))

    def drawn(self, rows: Ints, factor: Floats) -> Units:
        """Those of (R, U) `rows`, with their errors times `factor` (R, U)."""
        return Units(
            self.count[rows],
            self.values[rows],
            self.values2[rows],
            self.errors[rows] * factor,
            self.errors2[rows] * factor**2,
            self.both[rows] * factor,
        )

    def expected(self, mean: Floats, square: Floats) -> Units:
        """What they add in the mean where errors are taken times factors of this `mean` and mean `square`."""
        return Units(
            self.count, self.values, self.values2, self.errors * mean, self.errors2 * square, self.both * mean
        )


@dataclass(frozen=True)
class Tail:
    """The units of the largest squared errors, and the Pareto distribution of these: `least` and `exponent`."""

    large: NDArray[np.bool_]
    least: float
    exponent: float

    @classmethod
    def of(cls, squares: Floats) -> Tail:
        """By Hill's estimate (1975) on the square root of the number of units."""
        order = np.argsort(-squares, kind="stable")
        many = min(len(squares) - 1, max(FEWEST, round(MEASURED * math.sqrt(len(squares)))))
        some = max(1, round(DRAWN * many))
        large, least = np.zeros(len(squares), dtype=bool), float(squares[order[some]])
        if least <= 0 or squares[order[many]] <= 0:
            return cls(large, 0.0, math.inf)
        large[order[:some]] = True
        steep = float(np.log(squares[order[:many]] / squares[order[many]]).mean())
        return cls(large, least, max(LONGEST, 1 / steep) if steep > 0 else math.inf)

    def factors(self, squares: Floats, rows: Ints, rng: np.random.Generator) -> Floats:
        """(R, U) what the errors of the drawn `rows` are taken times."""
        found, large = np.ones(rows.shape), self.large[rows]
        drawn = self.least * (1 - rng.random(int(large.sum()))) ** (-1 / self.exponent)
        found[large] = np.sqrt(drawn / squares[rows[large]])
        return found

    def means(self, squares: Floats) -> tuple[Floats, Floats]:
        """(U,) means of these factors, and of their squares."""
        a, scale = self.exponent, self.least / np.where(self.large, squares, 1.0)
        of_root, of_square = (1.0, 1.0) if math.isinf(a) else (2 * a / (2 * a - 1), a / (a - 1))
        return (
            np.where(self.large, np.sqrt(scale) * of_root, 1.0),
            np.where(self.large, scale * of_square, 1.0),
        )


Statistic = Callable[[Units], tuple[Floats, Floats]]


def squared_error(units: Units) -> tuple[Floats, Floats]:
    """The mean squared error (R,), and how much each unit moves it (R, U)."""
    total = units.count.sum(axis=-1, keepdims=True)
    mean = units.errors2.sum(axis=-1, keepdims=True) / total
    return mean[..., 0], (units.errors2 - mean * units.count) / total


def unexplained(units: Units) -> tuple[Floats, Floats]:
    """The squared errors by the squared distances of the targets from their mean, which is 1 less R squared (R,),
    and how much each unit moves it (R, U).
    """
    total = units.count.sum(axis=-1, keepdims=True)
    targets, squares = units.values + units.errors, units.values2 + 2 * units.both + units.errors2
    mean = targets.sum(axis=-1, keepdims=True) / total
    spread = np.maximum(squares.sum(axis=-1, keepdims=True) / total - mean**2, 1e-300)
    away = squares - 2 * mean * targets + mean**2 * units.count
    error, moved = squared_error(units)
    part = error[..., None] / spread
    return part[..., 0], (moved - part * (away - spread * units.count) / total) / spread


def interval(
    numbers: Sequence[Units], statistic: Statistic, resamples: int = 400, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mean over `numbers` of a `statistic`, `squared_error` or `unexplained`, that is not
    below 0; NaN twice where the units are too few or say nothing of it, and twice the value where none moves it.
    """
    count = len(numbers[0].count)
    if count < FEWEST:
        return math.nan, math.nan
    tails = [Tail.of(one.errors2) for one in numbers]
    found, error = _whole([statistic(one) for one in numbers])
    value, spread = float(found), float(error)
    if value <= 0 or spread < 1e-12 * value:
        return value, value
    centre = np.mean(
        [
            statistic(one.expected(*tail.means(one.errors2)))[0]
            for one, tail in zip(numbers, tails, strict=True)
        ]
    )
    rng, away, step = np.random.default_rng(seed), [], max(1, BLOCK // (8 * count))
    for start in range(0, resamples, step):
        rows = rng.integers(0, count, (min(step, resamples - start), count))
        drawn = [
            one.drawn(rows, tail.factors(one.errors2, rows, rng))
            for one, tail in zip(numbers, tails, strict=True)
        ]
        with np.errstate(
            all="ignore"
        ):  # of few units a resample may have no errors, or targets that do not vary
            theirs, spreads = _whole([statistic(one) for one in drawn])
            far = np.abs(np.log(theirs / centre)) * theirs / np.maximum(spreads, 1e-300)
        away.append(np.nan_to_num(far, nan=FAR, posinf=FAR))
    half = float(np.quantile(np.concatenate(away), LEVEL)) * spread / value
    if half > WIDEST:
        return math.nan, math.nan
    return value * math.exp(-half), value * math.exp(half)


def _whole(parts: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The mean over the numbers (R,), and its standard error (R,)."""
    value = np.mean([one for one, _ in parts], axis=0)
    moved = np.mean([each for _, each in parts], axis=0)
    count = moved.shape[-1]
    return value, np.sqrt((moved**2).sum(axis=-1) * count / (count - 1))


def _gathered(values: Floats, units: Ints) -> Floats:
    """(U,) the sums of (N,) values, those of a unit together."""
    sums = np.zeros(int(units.max()) + 1)
    np.add.at(sums, units, values)
    return sums
