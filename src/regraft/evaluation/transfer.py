"""Scores of transferability: how well frozen features (N, D) suit labels (N,), integers from 0, without
training a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from regraft.errors import BudgetError
from regraft.evaluation.blocks import numbered
from regraft.evaluation.finite import require_finite
from regraft.evaluation.neighbours import EXACT, Floats32, Lists, compact

Floats = NDArray[np.float64]
ITERATIONS = 100  # iterations of the fixed point, which mostly takes a dozen
CLOSE = 1e-6  # relative change of alpha / beta that ends them
BLOCK = 1 << 22  # similarities held at once
NEIGHBOURS = (1, 3, 5, 9, 15)
VOTES = 1 << 20  # held at once
LOGME_SAMPLE = 5_000
ROWS = 8_192  # of features looked at at once
LARGE = 1 << 28  # bytes


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """LogME (You, Liu, Wang and Long, ICML 2021): the logarithm of the maximum evidence divided by N, its
    mean over the classes.

    The evidence of the 0/1 indicator y of a class is p(y | F), the integral of N(y; F w, 1/beta) N(w; 0,
    1/alpha) over w, at the alpha and beta that make it largest. One eigendecomposition of F'F serves all
    classes and iterations. Raises UsageError for features that hold nan or infinity.
    """
    classes = numbered(labels)
    counts = np.bincount(classes).astype(np.float64)  # (K,): each indicator's squared length
    squares, z2 = _spectrum(np.asarray(features), classes, len(counts))
    outside = np.maximum(counts - z2.sum(axis=0), 0.0)  # what of y no linear map of F reaches
    return float(
        np.mean([_evidence(squares, z2[:, k], outside[k], len(classes)) for k in range(len(counts))])
        / len(classes)
    )


def _spectrum(f: NDArray[Any], classes: NDArray[np.int64], k: int) -> tuple[Floats, Floats]:
    """(r,) squared singular values of F above rounding, and (r, K) squared coordinates of the classes'
    indicators in the basis of F's left singular vectors.

    F, which may be memory-mapped, is read a chunk at a time where it has more rows than columns. Raises
    UsageError for one that holds nan or infinity.
    """
    n, width = f.shape
    if n <= width:
        require_finite(f)
        f, y = f.astype(np.float64), (classes[:, None] == np.arange(k)).astype(np.float64)
        values, vectors = np.linalg.eigh(f @ f.T)
        real = values > 1e-10 * max(float(values[-1]), 1e-300)
        return values[real], (vectors[:, real].T @ y) ** 2
    square, sums = np.zeros((width, width)), np.zeros((k, width))
    for start in range(0, n, ROWS):
        x, own = f[start : start + ROWS].astype(np.float64), classes[start : start + ROWS]
        square += x.T @ x
        sums += (
            scipy.sparse.csr_matrix((np.ones(len(own)), (own, np.arange(len(own)))), shape=(k, len(own))) @ x
        )
    if not np.isfinite(square).all():
        require_finite(f)
    values, vectors = np.linalg.eigh(square)
    real = values > 1e-10 * max(float(values[-1]), 1e-300)
    return values[real], (vectors[:, real].T @ sums.T) ** 2 / values[real][:, None]


def _evidence(squares: Floats, z2: Floats, outside: float, n: int) -> float:
    """The largest log evidence of one class, by MacKay's fixed point of alpha and beta."""
    alpha = beta = 1.0
    for _ in range(ITERATIONS):
        curved = alpha + beta * squares
        effective = float((beta * squares / curved).sum())
        weight = max(float((squares * z2 * (beta / curved) ** 2).sum()), 1e-12)  # |m|^2
        error = max(float((z2 * (alpha / curved) ** 2).sum()) + outside, 1e-12)  # |F m - y|^2
        before, alpha, beta = alpha / beta, max(effective, 1e-12) / weight, max(n - effective, 1e-12) / error
        if abs(alpha / beta - before) <= CLOSE * before:
            break
    curved = alpha + beta * squares
    weight = float((squares * z2 * (beta / curved) ** 2).sum())
    error = float((z2 * (alpha / curved) ** 2).sum()) + outside
    determinant = float(np.log1p(beta / alpha * squares).sum())  # of 1 + beta / alpha F'F
    return 0.5 * (n * float(np.log(beta / (2 * np.pi))) - beta * error - alpha * weight - determinant)


def knn_out_of_fold(
    features: ArrayLike,
    labels: ArrayLike,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    k: int = 5,
) -> NDArray[np.int64]:
    """(N,) out-of-fold predictions of `k` nearest neighbours by cosine.

    `folds` are pairs of positions (fitted, held out); a row that no fold holds out gets -1. Each neighbour
    has one vote, and a tie goes to the class whose neighbours are nearer. Raises UsageError for features
    that hold nan or infinity.
    """
    f, y = np.asarray(features), np.asarray(labels, dtype=np.int64)
    require_finite(f)
    unit, predicted = compact(f, centre=False)(f), np.full(len(y), -1, dtype=np.int64)
    for fit, held in folds:
        rows, close = _nearest(unit[fit], unit[held], k)
        predicted[held] = np.concatenate(
            [votes.argmax(axis=1) for _, votes in _votes(rows, close, y[fit], int(y.max()) + 1, k)]
        )
    return predicted


def knn_logits(
    features: ArrayLike,
    labels: ArrayLike,
    queries: ArrayLike,
    classes: int,
    tick: Callable[..., None] = lambda **_: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[NDArray[Any], int]:
    """(Q, classes) logarithms of the shares of the votes of each query's k nearest neighbours by cosine,
    and k.

    k is the one of NEIGHBOURS that is right most often about the (N, D) `features` themselves, each left
    out in turn; of more than LOGME_SAMPLE examples, so many of them chosen at random. A tie goes to the
    smaller k. One further vote is shared by all classes, so that no share is zero. Of more than EXACT
    examples the nearest are looked up in an index, which misses one in a hundred. Features and queries may
    be memory-mapped. The logits are float64, or float32 where they would take more than LARGE bytes. Raises
    BudgetError where `stop` says that time is out, and UsageError for features that hold nan or infinity.
    """
    known, asked, y = np.asarray(features), np.asarray(queries), np.asarray(labels, dtype=np.int64)
    require_finite((known, asked))
    ks = tuple(k for k in NEIGHBOURS if k < len(y)) or (1,)
    sample = np.sort(np.random.default_rng(0).permutation(len(y))[:LOGME_SAMPLE])
    alike = compact(known, centre=False)
    unit = alike(known)
    index = Lists(unit) if len(unit) > EXACT else None
    rows, close = _nearest(unit, unit[sample], max(ks), sample, index, stop=stop)
    right = []
    for k in ks:
        answers = [votes.argmax(axis=1) for _, votes in _votes(rows, close, y, classes, k)]
        right.append((np.concatenate(answers) == y[sample]).mean())
    k = ks[int(np.argmax(right))]
    rows, close = _nearest(unit, alike(asked), k, None, index, tick, stop)
    del unit, index  # before there are logits
    logits = np.empty(
        (len(asked), classes), dtype=np.float64 if 8 * len(asked) * classes <= LARGE else np.float32
    )
    for lines, votes in _votes(rows, close, y, classes, k):
        logits[lines] = np.log((votes + 1 / classes) / (k + 1))
    return logits, k


def knn_means(
    features: ArrayLike,
    targets: ArrayLike,
    queries: ArrayLike,
    tick: Callable[..., None] = lambda **_: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Floats, int]:
    """(Q, K) means of the (N, K) targets of each query's k nearest neighbours by cosine, and k.

    k is the one of NEIGHBOURS with the least squared error about the (N, D) `features` themselves, each column
    of the targets in its own deviation and each example left out in turn; of more than LOGME_SAMPLE, so many of
    them chosen at random. A target that is NaN is not known; where none of the neighbours knows one, it is the
    mean of all. Raises BudgetError where `stop` says that time is out, and UsageError for features that hold
    nan or infinity.
    """
    known, asked, y = np.asarray(features), np.asarray(queries), np.asarray(targets, dtype=np.float64)
    require_finite((known, asked))
    usual = np.nan_to_num(np.nanmean(y, axis=0))
    spread = np.maximum(np.nan_to_num(np.nanstd(y, axis=0)), 1e-12)
    ks = tuple(k for k in NEIGHBOURS if k < len(y)) or (1,)
    sample = np.sort(np.random.default_rng(0).permutation(len(y))[:LOGME_SAMPLE])
    alike = compact(known, centre=False)
    unit = alike(known)
    index = Lists(unit) if len(unit) > EXACT else None
    rows, _ = _nearest(unit, unit[sample], max(ks), sample, index, stop=stop)
    errors = [np.nanmean(((_means(rows[:, :k], y, usual) - y[sample]) / spread) ** 2) for k in ks]
    k = ks[int(np.argmin(errors))]
    rows, _ = _nearest(unit, alike(asked), k, None, index, tick, stop)
    return _means(rows, y, usual), k


def _means(rows: NDArray[np.int64], targets: Floats, usual: Floats) -> Floats:
    """(Q, K) means of the (N, K) targets that are known at (Q, k) rows; `usual` (K,) where none is."""
    near = targets[np.maximum(rows, 0)]
    there = np.isfinite(near) & (rows >= 0)[:, :, None]
    count = there.sum(axis=1)
    total = np.where(there, near, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), usual)


def _nearest(
    known: Floats32,
    asked: Floats32,
    many: int,
    leaving_out: NDArray[np.int64] | None = None,
    index: Lists | None = None,
    tick: Callable[..., None] = lambda **_: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[NDArray[np.int64], Floats32]:
    """(Q, many) positions of the nearest rows of `known` to each of `asked`, the nearest first, and their
    cosines.

    `leaving_out` (Q,) holds for each query the row of `known` that is the query itself and does not count.
    Raises BudgetError where `stop` says that time is out.
    """
    if index is None and len(known) > EXACT:
        index = Lists(known)
    if index is not None:
        neighbours = index.search(asked, many, own=leaving_out, tick=tick, stop=stop)
        _in_time(stop)
        return neighbours
    many = min(many, len(known) - (leaving_out is not None))
    rows, close = np.empty((len(asked), many), dtype=np.int64), np.empty((len(asked), many), dtype=np.float32)
    step = max(1, BLOCK // len(known))
    for start in range(0, len(asked), step):
        _in_time(stop)
        near = asked[start : start + step] @ known.T
        count = len(near)
        if leaving_out is not None:
            near[np.arange(count), leaving_out[start : start + count]] = -np.inf
        best = np.argpartition(-near, many - 1, axis=1)[:, :many]
        closeness = np.take_along_axis(near, best, axis=1)
        order = np.argsort(-closeness, axis=1, kind="stable")
        rows[start : start + count] = np.take_along_axis(best, order, axis=1)
        close[start : start + count] = np.take_along_axis(closeness, order, axis=1)
        tick(label="looking for neighbours", done=start + count, total=len(asked))
    return rows, close


def _in_time(stop: Callable[[], bool]) -> None:
    if stop():
        raise BudgetError("no time was left to look for the nearest neighbours")


def _votes(
    rows: NDArray[np.int64], close: Floats32, labels: NDArray[np.int64], classes: int, k: int
) -> Iterator[tuple[slice, Floats]]:
    """Yields the (q, classes) votes of the k nearest, a bounded number of queries at a time. A nearer
    neighbour's vote weighs a little more, which decides ties.
    """
    step = max(1, VOTES // classes)
    for start in range(0, len(rows), step):
        span = slice(start, start + step)
        near, closeness = rows[span, :k], close[span, :k].astype(np.float64)
        votes, known = np.zeros((len(near), classes)), near >= 0
        lines = np.nonzero(known)[0]
        np.add.at(votes, (lines, labels[near[known]]), 1 + 1e-3 * closeness[known])
        yield span, votes
