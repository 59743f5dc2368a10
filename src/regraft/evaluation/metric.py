"""What a metric is, for any task: a record with its name, how it is computed under weights, and how its
interval is made.

The metrics of one task are estimated together, from the same resamples. A task gives what it knows of its
examples, its targets and outputs, as one object of any kind with a length, called `facts` here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regraft.errors import UsageError
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.resampling import bca, draws, gathered, left_out

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
PROPER = frozenset(
    ("R", "Spearman", "Brier", "Cohen's", "Matthews")
)  # names that keep their capital in a sentence
Each = Callable[[Any], Floats]


@dataclass(frozen=True)
class Sample:
    """One metric on N examples: its `value`, its (R,) values on resamples, and the BCa interval of these.

    `units` (N,) are the numbers of the groups that were drawn whole; None where examples were drawn. Of a
    metric without a value under weights only `facts`, `n` and `units` are known.
    """

    facts: Any
    n: int
    units: Ints | None
    value: float = math.nan
    rows: Floats | None = None
    low: float = math.nan
    high: float = math.nan

    @property
    def over(self) -> str:
        """What was drawn."""
        return "examples" if self.units is None else "groups"

    @property
    def variance(self) -> float:
        """The variance of the metric over the resamples."""
        return 0.0 if self.rows is None else float(np.nanvar(self.rows))


@dataclass(frozen=True)
class Metric:
    """One number that says how good answers are.

    `value(facts, weights)` gives the (R,) values under weights (R, N), which count each example so often;
    it is None for a metric that resampling does not suit. `interval` makes the estimate with its 95 %
    interval, from resamples unless it is not `resampled`: then it makes one of the facts. `unit` is "%" for a
    share, which is shown in per cent, "" for a plain number, else the unit itself. `hub` is the metric's name on
    model hubs. `main` metrics are shown where there is room for few.
    """

    name: str
    title: str
    interval: Callable[[Sample], Estimate]
    value: Callable[[Any, Floats], Floats] | None = None
    higher: bool = True  # is better
    unit: str = ""
    hub: str = ""
    main: bool = False
    resampled: bool = True

    @property
    def words(self) -> str:
        """The title as it stands inside a sentence: "accuracy", "log loss", "ROC AUC", "R squared"."""
        named = self.title[1:2].isupper() or self.title.partition(" ")[0] in PROPER
        return self.title if named else self.title[:1].lower() + self.title[1:]

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1 and reads best in per cent."""
        return self.unit == "%"

    def shown(self, value: float | None) -> str:
        """A value in words: 93.2% for a share, 0.214 for a number, 3.140 cm with a unit; "" for NaN and None."""
        if value is None or not math.isfinite(value):
            return ""
        return f"{100 * value:.1f}%" if self.is_share else f"{value:.3f} {self.unit}".rstrip()

    def step(self, difference: float) -> str:
        """How far two values lie apart: 1.2 points of a share, 0.014 of a plain number."""
        return f"{100 * difference:.1f} points" if self.is_share else self.shown(difference)

    def said(self, estimate: Estimate) -> str:
        """The metric with its interval, if it has one: "accuracy 93.2% [90.1%, 95.4%]"."""
        if not math.isfinite(estimate.value):
            return f"{self.words} not defined"
        text, (low, high) = (
            f"{self.words} {self.shown(estimate.value)}",
            self.ends(estimate.low, estimate.high),
        )
        return f"{text} [{low}, {high}]" if low else text

    def ends(self, low: float, high: float) -> tuple[str, str]:
        """The ends of an interval in words, which stand behind the value, and so without its unit."""
        plain = self if self.is_share else replace(self, unit="")
        return plain.shown(low), plain.shown(high)

    def described(self) -> dict[str, Any]:
        """What it takes to show its values, as plain values; `Metric.shown_as` reads them back."""
        return {"name": self.name, "title": self.title, "higher": self.higher, "unit": self.unit}

    @classmethod
    def shown_as(cls, described: Mapping[str, Any]) -> Metric:
        """The metric that `described` tells of, with what it takes to show it, not to compute it."""
        name, title, unit = (str(described[key]) for key in ("name", "title", "unit"))
        return cls(name, title, unknown, higher=bool(described["higher"]), unit=unit)

    def valued(self, facts: Any) -> float:
        """The metric of N examples, each counted once.

        Raises UsageError for a metric without a value under weights.
        """
        return self.of_score(float(self.scores(facts, np.ones((1, len(facts))))[0]))

    def of_score(self, score: float) -> float:
        """The value that `scores` has turned into this score."""
        return score if self.higher else -score

    def scores(self, facts: Any, weights: Floats) -> Floats:
        """(R,) values under weights (R, N), turned so that higher is better.

        Raises UsageError for a metric without a value under weights.
        """
        if self.value is None:
            raise UsageError(f"{self.words} has no value under weights: nothing can be chosen by it.")
        scores = self.value(facts, weights)
        return scores if self.higher else -scores


def named(metrics: Sequence[Metric], name: str) -> Metric:
    """The metric of that name, or a plain one of that title where there is none."""
    known = next((metric for metric in metrics if metric.name == name), None)
    return known or Metric(name, name.replace("_", " ").capitalize(), unknown)


def estimates(
    metrics: Sequence[Metric],
    facts: Any,
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Estimate]:
    """Every metric that the N examples of `facts` define, by name, with its 95 % interval.

    All come from the same `resamples`; examples are drawn, or with `groups` (N,) whole groups.
    """
    n = len(facts)
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    samples = _samples(metrics, facts, n, units, seed, resamples)
    intervals = {}
    for metric in metrics:
        if metric.value is None or not metric.resampled:
            intervals[metric.name] = metric.interval(Sample(facts, n, units))
        elif metric.name in samples:
            intervals[metric.name] = metric.interval(samples[metric.name])
    return {name: estimate for name, estimate in intervals.items() if np.isfinite(estimate.value)}


def estimate_of(metric: Metric, facts: Any, groups: ArrayLike | None = None) -> Estimate:
    """The metric of N examples with its 95 % interval; NaN where they do not define it, as the average precision
    of a label that none of them has.
    """
    undefined = Estimate(math.nan, math.nan, math.nan, len(facts), "not defined on these examples")
    return estimates((metric,), facts, groups).get(metric.name, undefined)


def _samples(
    metrics: Sequence[Metric], facts: Any, n: int, units: Ints | None, seed: int, resamples: int
) -> dict[str, Sample]:
    """The metrics that have a value under weights and are defined, on resamples they share."""
    once = np.ones((1, n))
    known = [
        (metric.name, metric.value) for metric in metrics if metric.value is not None and metric.resampled
    ]
    whole = [(name, value, float(value(facts, once)[0])) for name, value in known]
    defined = [(name, value, v) for name, value, v in whole if np.isfinite(v)]
    if not defined:
        return {}

    def statistic(weights: Floats) -> Floats:
        return np.stack([value(facts, weights) for _, value, _ in defined], axis=1)

    rng = np.random.default_rng(seed)
    rows = gathered(statistic, draws(n, resamples, rng, units))
    values = np.array([v for _, _, v in defined])
    lows, highs = bca(values, rows, gathered(statistic, left_out(n, rng, units)))
    return {
        name: Sample(facts, n, units, v, rows[:, s], float(lows[s]), float(highs[s]))
        for s, (name, _, v) in enumerate(defined)
    }


def mean_of(each: Each) -> Callable[[Any, Floats], Floats]:
    """The value under weights of a metric that is the mean of (N,) values, one an example."""

    def value(facts: Any, weights: Floats) -> Floats:
        return np.asarray((weights @ each(facts)) / weights.sum(axis=1))

    return value


@dataclass(frozen=True)
class Repeats:
    """The facts of the same N examples by R models: `each` holds those of one model."""

    each: Sequence[Any]

    def __len__(self) -> int:
        return len(self.each[0])


def repeated(metric: Metric) -> Metric:
    """The mean of a metric over `Repeats`.

    Of a share the interval is Wilson's for the number of examples, which does not count repeats as more
    evidence, or with groups that of `proportion`; of any other metric BCa. Raises UsageError, when it is
    computed, for a metric without a value under weights.
    """

    def value(facts: Repeats, weights: Floats) -> Floats:
        mean = np.mean([metric.scores(repeat, weights) for repeat in facts.each], axis=0)
        return np.asarray(mean if metric.higher else -mean)

    return replace(
        metric, value=value, resampled=True, interval=_whole_share if metric.is_share else bootstrapped
    )


def _whole_share(sample: Sample) -> Estimate:
    if sample.units is not None:
        return proportion(sample)
    ends = wilson(sample.value * sample.n, sample.n)
    return Estimate(sample.value, *ends, sample.n, f"Wilson interval for {sample.n} examples")


def bootstrapped(sample: Sample) -> Estimate:
    """BCa (Efron 1987)."""
    return Estimate(sample.value, sample.low, sample.high, sample.n, f"BCa bootstrap over {sample.over}")


def bootstrapped_index(sample: Sample) -> Estimate:
    """BCa; where no resample differs, Wilson's interval of a value between 0 and 1."""
    if sample.high - sample.low < 1e-9 and 0 <= sample.value <= 1:
        low, high = as_proportion(sample.value, 0.0, sample.n, sample.units)
        return Estimate(sample.value, low, high, sample.n, f"BCa bootstrap over {sample.over}")
    return bootstrapped(sample)


def proportion(sample: Sample) -> Estimate:
    """Wilson's interval at the number of examples that has the variance of a bootstrap.

    It holds the truth more often than BCa does near 1 (Franco, Little, Louis and Slud 2019).
    """
    ends = as_proportion(sample.value, sample.variance, sample.n, sample.units)
    return Estimate(
        sample.value, *ends, sample.n, f"Wilson at the variance of a bootstrap over {sample.over}"
    )


def counted(each: Each) -> Callable[[Sample], Estimate]:
    """Wilson's interval of (N,) values that count 0 to 1 an example; with groups that of `proportion`."""

    def interval(sample: Sample) -> Estimate:
        if sample.units is not None:
            return proportion(sample)
        hits, n = float(each(sample.facts).sum()), sample.n
        return Estimate(hits / n, *wilson(hits, n), n, "Wilson")

    return interval


def unknown(sample: Sample) -> Estimate:
    """The value without an interval."""
    return Estimate(sample.value, math.nan, math.nan, sample.n, "no interval")


def as_proportion(value: float, variance: float, n: int, units: Ints | None) -> tuple[float, float]:
    """Wilson's interval at the number of examples, n at most, that has this variance; n or the groups
    without any.
    """
    if variance < 1e-12:
        count = float(n if units is None else units.max() + 1)
    else:
        count = min(float(n), value * (1 - value) / variance)
    return wilson(value * count, count)


SHARE = Metric("share", "Share", unknown, unit="%")  # a share that is no metric of a task
