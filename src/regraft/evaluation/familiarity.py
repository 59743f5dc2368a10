"""How familiar an item is: how far its features lie from those of the examples that were learnt from, among
the distances of these examples to one another.

The distance is the mean cosine distance to the nearest rows (as in Sun et al. 2022, "Out-of-distribution
detection with deep nearest neighbors", with a percentile in place of a threshold).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import ThreadpoolController

from regraft.evaluation.blocks import numbered

# With 5 neighbours, 83 % of the pictures of six other sets lay above the 99th percentile, and 1.3 % of
# held-out pictures of the set itself (seven sets, EfficientNet-Lite0). Less the mean feature it were 69 %,
# on standardised features 61 %, on 128 principal directions 31 %; with one neighbour 82 %, with ten 83 %
NEAREST = 5
ROWS = 1_000  # examples that are kept: 2.5 MB at 1,280 features
TAIL = 0.9  # the quantile from which on the distances are taken to fall off exponentially
BLOCK = 1 << 22  # similarities held at once


@dataclass(frozen=True)
class Familiarity:
    """(n, D) float16 features of length 1 of examples that were learnt from, and the (n,) float32 distances
    of each to the others, in rising order, those of its own block left out.
    """

    rows: NDArray[np.float16]
    distances: NDArray[np.float32]

    @classmethod
    def of(cls, features: np.ndarray, blocks: ArrayLike | None = None) -> Familiarity | None:
        """By the (N, D) features of examples; `blocks` (N,) number those that belong together. None where
        there are not two blocks.
        """
        rows = _of_length_1(features).astype(np.float16)
        block = numbered(np.arange(len(rows)) if blocks is None else blocks)
        if len(rows) == 0 or block.max() == 0:
            return None
        base = _columns(rows)
        return cls(rows, np.sort(_distances(base.T, base, block)))

    @cached_property
    def base(self) -> NDArray[np.float32]:
        """(D, n) the same rows, as products take them."""
        return _columns(self.rows)

    def __call__(self, features: np.ndarray) -> NDArray[np.float64]:
        """(N,) percentiles from 0 to 100 of (N, D) features: the share of the examples that lie nearer to
        the others than these.

        Beyond TAIL of the distances the rest is taken to fall off exponentially, as peaks over a high
        threshold do: so few examples tell more than that something is farther than the farthest of them.
        """
        distances = _distances(_of_length_1(features), self.base)
        percentiles = (
            100 * np.searchsorted(self.distances, distances, side="left") / (len(self.distances) + 1)
        ).astype(np.float64)
        start = float(np.quantile(self.distances, TAIL))
        above = self.distances[self.distances > start] - start
        if len(above):
            beyond = distances > start
            rest = np.exp(-(distances[beyond] - start) / float(above.mean()))
            percentiles[beyond] = 100 * (1 - (1 - TAIL) * rest)
        return percentiles


def some_rows(count: int) -> NDArray[np.int64]:
    """The positions of at most ROWS of `count` examples, in rising order, drawn at random."""
    return np.sort(np.random.default_rng(0).permutation(count)[:ROWS])


def _columns(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows.astype(np.float32).T)


def _distances(
    asked: NDArray[np.float32], base: NDArray[np.float32], block: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """(Q,) mean cosine distances of (Q, D) to the nearest of the rows that are the columns of (D, n) `base`;
    where these themselves are asked for, to the nearest of other blocks.
    """
    distances, step = np.empty(len(asked), np.float32), max(1, BLOCK // max(1, base.shape[1]))
    for start in range(0, len(asked), step):
        with _turn, _libraries().limit(limits=1, user_api="blas"):
            close = asked[start : start + step] @ base
        if block is not None:
            close[block[start : start + step, None] == block[None]] = -np.inf
        many = min(NEAREST, close.shape[1])
        nearest = np.partition(close, -many, axis=1)[:, -many:]
        known = np.isfinite(nearest)
        total, counts = np.where(known, nearest, 0).sum(axis=1), known.sum(axis=1)
        distances[start : start + step] = 1 - total / np.maximum(counts, 1)
    return distances


_turn = Lock()  # the number of threads is the process's


@cache
def _libraries() -> ThreadpoolController:
    """Products are made on one thread: the threads of a BLAS library wait for each other in a loop, so
    beside a network that has all processors a small product costs eighteen times as much on two of them.
    """
    return ThreadpoolController()


def _of_length_1(features: np.ndarray) -> NDArray[np.float32]:
    """(N, D) rows divided by their lengths; a row of zeros stays one, and what is no number becomes zero."""
    x = np.nan_to_num(np.asarray(features, dtype=np.float32), posinf=1e18, neginf=-1e18)
    x = x / np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-30) if x.size else x
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), dtype=np.float32)
