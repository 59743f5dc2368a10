"""Two classifiers on the same examples: is one better? Arrays in, a difference with its interval out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from regraft.errors import UsageError
from regraft.evaluation.estimate import percentiles
from regraft.evaluation.resampling import BLOCK, Floats, bca, draws, gathered, left_out

FEW_GROUPS = 20  # below it intervals and tests by group say little
EXACT, FLIPS = 12, 10_000


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
    p_adjusted: float | None = None  # by Holm, where several were compared

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
            p_adjusted=None if values.get("p_adjusted") is None else float(values["p_adjusted"]),
        )


def paired_accuracy(
    labels: ArrayLike,
    predicted: ArrayLike,
    other_predicted: ArrayLike,
    against: str,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> PairedDifference:
    """Accuracy of `predicted` minus that of `other_predicted`, all (N,), with a 95 % paired interval and a p
    value.

    An example counts +1 (only this one right), -1 (only the other) or 0, so resampling examples is drawing
    from a multinomial of three outcomes; the p value is McNemar's, mid-p (Fagerland, Lydersen and Laake
    2013). With `groups` (N,) whole groups are drawn, and the p value is that of a permutation test that flips
    the sign of each group's sum.
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
        units = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
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


def sign_flip(sums: ArrayLike, rng: np.random.Generator) -> float:
    """Two-sided p value of (G,) sums by group: how often a sum with random signs lies as far from zero as
    theirs.

    Exact up to 12 groups that are not zero, else of 10,000 random flips, theirs among them.
    """
    moved = np.asarray(sums, dtype=np.float64)
    moved = moved[moved != 0]
    if not len(moved):
        return 1.0
    far = abs(moved.sum()) - 1e-9
    if len(moved) <= EXACT:
        signs = 1 - 2 * ((np.arange(1 << len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((np.abs(signs @ moved) >= far).mean())
    step, as_far = max(1, BLOCK // len(moved)), 1
    for start in range(0, FLIPS - 1, step):
        signs = rng.choice((-1.0, 1.0), size=(min(step, FLIPS - 1 - start), len(moved)))
        as_far += int((np.abs(signs @ moved) >= far).sum())
    return as_far / FLIPS


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979), in the order given."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def in_words(diff: PairedDifference) -> str:
    """The verdict the interval allows, in percentage points, and the p value: better, worse or no clear
    difference.
    """
    p = diff.p_value if diff.p_adjusted is None else diff.p_adjusted
    said = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"
    points = f"{100 * diff.difference:+.1f} points [{100 * diff.low:.1f}, {100 * diff.high:.1f}], {said}"
    if diff.low > 0:
        return f"better than {diff.against}: {points}"
    if diff.high < 0:
        return f"worse than {diff.against}: {points}"
    return f"no clear difference from {diff.against}: {points}"


def _mid_p(wins: int, losses: int) -> float:
    """McNemar's exact two-sided p value with half the weight on what was seen."""
    few, pairs = min(wins, losses), wins + losses
    return float(min(1.0, 2 * stats.binom.cdf(few, pairs, 0.5) - stats.binom.pmf(few, pairs, 0.5)))
