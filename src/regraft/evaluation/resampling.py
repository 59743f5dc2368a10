"""The bootstrap: weights that say how often each example counts in a resample, and intervals from the
statistics of the resamples.

A statistic is a function of weights (R, N), one row a resample, to values (R,) or (R, S). So one way of
drawing and one of making intervals serve every metric. `scipy.stats.bootstrap` hands over resampled
examples in place of weights, knows no groups and leaves out every single example for its acceleration,
which is quadratic in N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

BLOCK = 4_000_000  # weights held at once: 32 MB
JACKKNIFE = 250  # parts left out in turn, at most
TAILS = np.array([-1.9599639845400545, 1.959963984540054])  # of the normal distribution, 2.5 % each


def draws(n: int, resamples: int, rng: np.random.Generator, units: Ints | None = None) -> Iterator[Floats]:
    """Yields weights (r, n), a bounded number of rows at a time and `resamples` in all.

    Examples are drawn with replacement, or whole groups where `units` (n,) numbers each example's group
    from 0.
    """
    rows = max(1, BLOCK // max(1, n))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        yield _drawn(n, count, rng) if units is None else _drawn(int(units.max()) + 1, count, rng)[:, units]


def _drawn(n: int, rows: int, rng: np.random.Generator) -> Floats:
    """(rows, n) counts, each row of n draws with replacement from n."""
    flat = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def left_out(n: int, rng: np.random.Generator, units: Ints | None = None) -> Iterator[Floats]:
    """Yields the jackknife's weights (r, n), a bounded number of rows at a time: 0 for what is left out,
    else 1.

    One example or group is left out in turn; of more than JACKKNIFE, one of as many random parts of them. A lone
    one stays.
    """
    given = np.arange(n) if units is None else units
    count = int(given.max()) + 1
    part = given if count <= JACKKNIFE else rng.permutation(np.arange(count) % JACKKNIFE)[given]
    total = int(part.max()) + 1
    if total == 1:  # nothing would be left
        yield np.ones((1, n))
        return
    rows = max(1, BLOCK // max(1, n))
    for start in range(0, total, rows):
        yield (part != np.arange(start, min(total, start + rows))[:, None]).astype(np.float64)


def gathered(statistic: Statistic, blocks: Iterator[Floats]) -> Floats:
    """The (R,) or (R, S) statistics of all rows of weights."""
    return np.concatenate([statistic(weights) for weights in blocks])


def bca(value: Floats, drawn: Floats, jackknife: Floats) -> tuple[Floats, Floats]:
    """95 % intervals, bias-corrected and accelerated (Efron 1987), of S statistics.

    They are made of the statistics `value` (S,), those of the bootstrap `drawn` (R, S) and those of the
    jackknife (J, S). A draw that is NaN or infinite is passed over. Where nothing varies both ends are the
    value.
    """
    lows, highs = np.empty_like(value), np.empty_like(value)
    for s in range(len(value)):
        d, j = drawn[np.isfinite(drawn[:, s]), s], jackknife[np.isfinite(jackknife[:, s]), s]
        if not len(d) or np.ptp(d) < 1e-12:
            lows[s] = highs[s] = value[s]
            continue
        below = (np.sum(d < value[s] - 1e-12) + 0.5 * np.sum(np.abs(d - value[s]) <= 1e-12)) / len(d)
        bias = float(scipy.special.ndtri(np.clip(below, 0.5 / len(d), 1 - 0.5 / len(d))))
        away = j.mean() - j if len(j) else np.zeros(1)
        scale = float((away**2).sum()) ** 1.5
        skew = float((away**3).sum()) / (6 * scale) if scale > 0 else 0.0
        shifted = bias + TAILS
        share = scipy.special.ndtr(bias + shifted / np.maximum(1 - skew * shifted, 1e-3))
        lows[s], highs[s] = np.quantile(d, share)
    return lows, highs
