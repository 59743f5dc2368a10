"""Two classifiers on the same examples: is one better? Arrays in, a difference with its interval out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from regraft.errors import UsageError
from regraft.evaluation.estimate import percentiles


@dataclass(frozen=True)
class PairedDifference:
    """How much more accurate (a share, not points) this model is than `against`, on the same n examples."""

    against: str
    difference: float
    low: float
    high: float
    p_value: float
    n: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PairedDifference:
        """The difference `to_dict` described; unknown keys are passed over."""
        return cls(
            against=str(values["against"]),
            difference=float(values["difference"]),
            low=float(values["low"]),
            high=float(values["high"]),
            p_value=float(values["p_value"]),
            n=int(values["n"]),
            method=str(values["method"]),
        )


def paired_accuracy(
    labels: ArrayLike, predicted: ArrayLike, other_predicted: ArrayLike, against: str, seed: int = 0
) -> PairedDifference:
    """Accuracy of `predicted` minus that of `other_predicted`, all (N,), with a 95 % paired percentile interval.

    An example counts +1 (only this one right), -1 (only the other) or 0, so resampling examples is drawing from a
    multinomial of three outcomes. The p value is McNemar's, mid-p (Fagerland, Lydersen and Laake, 2013).
    """
    y, mine, other = (np.asarray(values) for values in (labels, predicted, other_predicted))
    if not (y.ndim == 1 and y.shape == mine.shape == other.shape):
        raise UsageError(f"a paired comparison needs lists of one length: {y.shape}, {mine.shape}, {other.shape}.")
    n = len(y)
    if n == 0:
        raise UsageError("there are no examples to compare on.")
    wins = int(((mine == y) & (other != y)).sum())
    losses = int(((mine != y) & (other == y)).sum())
    shares = np.array([wins, losses, n - wins - losses]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=10_000)
    low, high = percentiles((drawn[:, 0] - drawn[:, 1]) / n)
    return PairedDifference(
        against, (wins - losses) / n, low, high, _mid_p(wins, losses), n, "paired bootstrap; McNemar mid-p"
    )


def in_words(diff: PairedDifference) -> str:
    """The verdict the interval allows, in percentage points: better, worse or no clear difference."""
    points = f"{100 * diff.difference:+.1f} points [{100 * diff.low:.1f}, {100 * diff.high:.1f}]"
    if diff.low > 0:
        return f"better than {diff.against}: {points}"
    if diff.high < 0:
        return f"worse than {diff.against}: {points}"
    return f"no clear difference from {diff.against}: {points}"


def _mid_p(wins: int, losses: int) -> float:
    """McNemar's exact two-sided p value with half the weight on what was seen."""
    few, pairs = min(wins, losses), wins + losses
    return float(min(1.0, 2 * stats.binom.cdf(few, pairs, 0.5) - stats.binom.pmf(few, pairs, 0.5)))
