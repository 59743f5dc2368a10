"""The bootstrap, in one place: whole numbers that say how often each example counts, and intervals from what
comes of them.

A statistic is a function of weights (R, N), one row a resample, to values (R,) or (R, S). So one way of
drawing, and one of making intervals, serves every metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

BLOCK = 4_000_000  # weights held at once: 32 MB
JACKKNIFE = 250  # parts left out in turn, at most
TAILS = ndtri(np.array([0.025, 0.975]))


def draws(n: int, resamples: int, rng: np.random.Generator, units: Ints | None = None) -> Iterator[Floats]:
    """Weights (r, n) a block at a time, `resamples` rows in all.

    Drawn with replacement are examples, or whole `units` (n,): numbers from 0 of groups whose examples belong
    together.
    """
    rows = max(1, BLOCK // max(1, n))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        yield _drawn(n, count, rng) if units is None else _drawn(int(units.max()) + 1, count, rng)[:, units]


def _drawn(n: int, rows: int, rng: np.random.Generator) -> Floats:
    """(rows, n) counts of n draws with replacement from n."""
    flat = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def left_out(n: int, rng: np.random.Generator, units: Ints | None = None) -> Iterator[Floats]:
    """Weights of the jackknife, a block at a time: 1 but for one example, unit, or random part where there
    are many.
    """
    given = np.arange(n) if units is None else units
    count = int(given.max()) + 1
    part = given if count <= JACKKNIFE else rng.permutation(np.arange(count) % JACKKNIFE)[given]
    total = int(part.max()) + 1
    rows = max(1, BLOCK // max(1, n))
    for start in range(0, total, rows):
        yield (part != np.arange(start, min(total, start + rows))[:, None]).astype(np.float64)


def gathered(statistic: Statistic, blocks: Iterator[Floats]) -> Floats:
    """The statistic of every row of all blocks."""
    return np.concatenate([statistic(weights) for weights in blocks])


def bca(value: Floats, drawn: Floats, jackknife: Floats) -> tuple[Floats, Floats]:
    """95 % intervals, bias-corrected and accelerated (Efron 1987), of S statistics.

    `value` (S,), `drawn` (R, S) of the bootstrap, `jackknife` (J, S). A draw that is no number is passed
    over. Where nothing varies both ends are the value.
    """
    lows, highs = np.empty_like(value), np.empty_like(value)
    for s in range(len(value)):
        d, j = drawn[np.isfinite(drawn[:, s]), s], jackknife[np.isfinite(jackknife[:, s]), s]
        if not len(d) or np.ptp(d) < 1e-12:
            lows[s] = highs[s] = value[s]
            continue
        below = (np.sum(d < value[s] - 1e-12) + 0.5 * np.sum(np.abs(d - value[s]) <= 1e-12)) / len(d)
        bias = float(ndtri(np.clip(below, 0.5 / len(d), 1 - 0.5 / len(d))))
        away = j.mean() - j if len(j) else np.zeros(1)
        scale = float((away**2).sum()) ** 1.5
        skew = float((away**3).sum()) / (6 * scale) if scale > 0 else 0.0
        shifted = bias + TAILS
        share = ndtr(bias + shifted / np.maximum(1 - skew * shifted, 1e-3))
        lows[s], highs[s] = np.quantile(d, share)
    return lows, highs
