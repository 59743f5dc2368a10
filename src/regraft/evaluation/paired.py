"""Paired comparisons: whether one of two classifiers is better on the same examples. Functions take arrays
and return a difference with its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from regraft.errors import UsageError
from regraft.evaluation.blocks import numbered
from regraft.evaluation.estimate import percentiles
from regraft.evaluation.resampling import BLOCK, Floats, bca, draws, gathered, left_out

FEW_GROUPS = 20  # with fewer groups, intervals and tests by group say little
CLEAR = 0.05  # p value below which a difference is called one
FLIPS = 9_999  # random sign flips where not all can be tried


@dataclass(frozen=True)
class PairedDifference:
    """By how much this model is better than `against` on the same n examples: its accuracy, or what else `of`
    names. `unit` is "%" of a share, else that of the difference.
    """

    against: str
    difference: float
    low: float
    high: float
    p_value: float
    n: int
    method: str
    p_adjusted: float | None = None  # Holm's, where several models were compared
    unit: str = "%"
    of: str = ""

    @property
    def p(self) -> float:
        """The p value, adjusted where several models were compared."""
        return self.p_value if self.p_adjusted is None else self.p_adjusted

    @property
    def clear(self) -> bool:
        """Whether one is better: the interval lies on one side of zero, and the p value below CLEAR."""
        return (self.low > 0 or self.high < 0) and self.p < CLEAR

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PairedDifference:
        """The difference that `to_dict` described. Unknown keys are passed over."""
        return cls(
            against=str(values["against"]),
            difference=float(values["difference"]),
            low=float(values["low"]),
            high=float(values["high"]),
            p_value=float(values["p_value"]),
            n=int(values["n"]),
            method=str(values["method"]),
            p_adjusted=None if values.get("p_adjusted") is None else float(values["p_adjusted"]),
            unit=str(values.get("unit", "%")),
            of=str(values.get("of", "")),
        )


def paired_accuracy(
    labels: ArrayLike,
    predicted: ArrayLike,
    other_predicted: ArrayLike,
    against: str,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> PairedDifference:
    """The accuracy of `predicted` minus that of `other_predicted`, all (N,), with its 95 % paired bootstrap
    interval and a p value.

    An example counts +1 where only this model is right, -1 where only the other is, and 0 otherwise, so a
    resample of the examples is a draw from a multinomial of three outcomes. The p value is McNemar's mid-p
    (Fagerland, Lydersen and Laake 2013). With `groups` (N,) whole groups are drawn, and the p value is that
    of a permutation test which flips the sign of each group's sum. Raises UsageError for lists of different
    lengths and for empty ones.
    """
    y, mine, other = (np.asarray(values) for values in (labels, predicted, other_predicted))
    if not (y.ndim == 1 and y.shape == mine.shape == other.shape):
        raise UsageError(
            f"a paired comparison needs lists of one length: {y.shape}, {mine.shape}, {other.shape}."
        )
    n = len(y)
    if n == 0:
        raise UsageError("there are no examples to compare on.")
    gains = (mine == y).astype(np.int64) - (other == y)
    rng = np.random.default_rng(seed)
    if groups is not None:
        units = numbered(groups)
        value = np.array([gains.mean()])

        def statistic(weights: Floats) -> Floats:
            return np.asarray((weights @ gains) / weights.sum(axis=1))[:, None]

        rows = gathered(statistic, draws(n, 4_000, rng, units))
        lows, highs = bca(value, rows, gathered(statistic, left_out(n, rng, units)))
        p = sign_flip(np.bincount(units, weights=gains), rng)
        method = f"bootstrap and sign flips of {int(units.max()) + 1} groups"
        return PairedDifference(against, float(value[0]), float(lows[0]), float(highs[0]), p, n, method)
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    shares = np.array([wins, losses, n - wins - losses]) / n
    drawn = rng.multinomial(n, shares, size=10_000)
    low, high = percentiles((drawn[:, 0] - drawn[:, 1]) / n)
    return PairedDifference(
        against, (wins - losses) / n, low, high, _mid_p(wins, losses), n, "paired bootstrap; McNemar mid-p"
    )


def paired_mean(
    gains: ArrayLike,
    against: str,
    groups: ArrayLike | None = None,
    unit: str = "%",
    of: str = "",
    seed: int = 0,
) -> PairedDifference:
    """The mean of (N,) gains, how much better each answer is than that of `against`, with its BCa interval and
    the p value of a permutation test that flips the signs of examples, or of whole `groups` (N,).

    Raises UsageError where there are no gains.
    """
    each, rng = np.asarray(gains, dtype=np.float64), np.random.default_rng(seed)
    if not len(each):
        raise UsageError("there are no examples to compare on.")
    units = np.arange(len(each)) if groups is None else numbered(groups)

    def statistic(weights: Floats) -> Floats:
        return np.asarray((weights @ each) / weights.sum(axis=1))[:, None]

    own = None if groups is None else units
    rows = gathered(statistic, draws(len(each), 4_000, rng, own))
    lows, highs = bca(np.array([each.mean()]), rows, gathered(statistic, left_out(len(each), rng, own)))
    p = sign_flip(np.bincount(units, weights=each), rng)
    method = (
        f"bootstrap and sign flips of {int(units.max()) + 1} {'examples' if groups is None else 'groups'}"
    )
    ends = float(lows[0]), float(highs[0])
    return PairedDifference(against, float(each.mean()), *ends, p, len(each), method, None, unit, of)


def sign_flip(sums: ArrayLike, rng: np.random.Generator) -> float:
    """The two-sided p value of the total of (G,) sums, one for each group, under random signs.

    All signs are tried where there are fewer than FLIPS of them, that is up to 13 groups whose sum is not
    zero; else FLIPS random ones, a bounded number at a time.
    """
    moved = np.asarray(sums, dtype=np.float64)
    moved = moved[moved != 0]
    if len(moved) < 2:
        return 1.0  # either sign lies as far from zero
    test = scipy.stats.permutation_test(
        (moved,),
        np.sum,
        permutation_type="samples",
        n_resamples=FLIPS,
        batch=max(1, BLOCK // (8 * len(moved))),
        vectorized=True,
        random_state=rng,
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for their number (Holm 1979), in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def in_words(diff: PairedDifference) -> str:
    """The verdict (better, worse, no clear difference), the difference, of a share in percentage points, and the
    p value. Above zero is better, also of a metric of which less is better.
    """
    p = diff.p
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"
    points = f"{100 * diff.difference:+.1f} points [{100 * diff.low:.1f}, {100 * diff.high:.1f}], {said}"
    what, low, high = diff.of, diff.low, diff.high
    if diff.unit != "%":
        size = diff.difference
        if size < 0 and what.endswith(" lower"):
            what, size, low, high = f"{what.removesuffix('lower')}higher", -size, -high, -low
        points = f"by {size:.3g} {diff.unit}".rstrip() + f" [{low:.3g}, {high:.3g}], {said}"
    if what:
        points = f"{what} {points}"
    against = f"one {diff.against}" if diff.against.startswith("from ") else diff.against  # "from scratch"
    if diff.clear and diff.low > 0:
        return f"better than {against}: {points}"
    if diff.clear:
        return f"worse than {against}: {points}"
    return f"no clear difference from {against}: {points}"


def _mid_p(wins: int, losses: int) -> float:
    """McNemar's exact two-sided p value in which the observed outcome has half its weight."""
    few, pairs = min(wins, losses), wins + losses
    return float(
        min(1.0, 2 * scipy.stats.binom.cdf(few, pairs, 0.5) - scipy.stats.binom.pmf(few, pairs, 0.5))
    )
