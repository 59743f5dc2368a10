"""How well frozen features suit a task, without training a network: scores of transferability. Arrays in, numbers out.

Shapes: features (N, D), labels (N,) integers from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MOST = 100  # iterations of the fixed point, which mostly takes a dozen
CLOSE = 1e-6  # relative change of alpha / beta that ends them
BLOCK = 1 << 22  # similarities held at once
NEIGHBOURS = (1, 3, 5, 9, 15)
SAMPLE = 5_000


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """The logarithm of maximum evidence an example, the mean over the classes (You, Liu, Wang and Long, ICML 2021).

    For each class's 0/1 indicator y: the evidence p(y | F) = integral of N(y; F w, 1/beta) N(w; 0, 1/alpha) over w, at the
    alpha and beta that make it largest. One decomposition of F serves all classes and iterations.
    """
    f, classes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    y = (classes[:, None] == np.unique(classes)).astype(np.float64)  # (N, K)
    squares, z2 = _spectrum(f, y)
    energy = (y**2).sum(axis=0)
    outside = np.maximum(energy - z2.sum(axis=0), 0.0)  # what of y no linear map of F reaches
    return float(np.mean([_evidence(squares, z2[:, k], outside[k], len(f)) for k in range(y.shape[1])]) / len(f))


def _spectrum(f: Floats, y: Floats) -> tuple[Floats, Floats]:
    """(r,) squared singular values of F above rounding, and (r, K) squared coordinates of Y by the left singular vectors."""
    tall = f.shape[0] > f.shape[1]
    values, vectors = np.linalg.eigh(f.T @ f if tall else f @ f.T)
    real = values > 1e-10 * max(float(values[-1]), 1e-300)
    values, vectors = values[real], vectors[:, real]
    z = (vectors.T @ (f.T @ y)) / np.sqrt(values)[:, None] if tall else vectors.T @ y
    return values, z**2


def _evidence(squares: Floats, z2: Floats, outside: float, n: int) -> float:
    """The largest log evidence of one class, by MacKay's fixed point of alpha and beta."""
    alpha = beta = 1.0
    for _ in range(MOST):
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
    features: ArrayLike, labels: ArrayLike, folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], k: int = 5
) -> NDArray[np.int64]:
    """(N,) predictions, each by the `k` nearest by cosine among the examples of its fold's other part.

    `folds` are (fit, held) positions; what no fold holds out is -1. Each neighbour has one vote; ties go to the class
    whose neighbours are nearer.
    """
    unit, y = _unit(features), np.asarray(labels, dtype=np.int64)
    predicted = np.full(len(y), -1, dtype=np.int64)
    for fit, held in folds:
        predicted[held] = _votes(unit[fit], y[fit], unit[held], int(y.max()) + 1, (k,))[0].argmax(axis=1)
    return predicted


def knn_logits(features: ArrayLike, labels: ArrayLike, queries: ArrayLike, classes: int) -> tuple[Floats, int]:
    """(Q, classes) log shares of the votes of each query's k nearest by cosine, and k.

    k is the one of NEIGHBOURS that is right most often about the (N, D) `features` themselves, each left out in turn (of many
    the first 5,000 in a fixed random order); the fewest in a tie. A class no neighbour votes for shares one vote with the
    others.
    """
    unit, y = _unit(features), np.asarray(labels, dtype=np.int64)
    ks = tuple(k for k in NEIGHBOURS if k < len(y)) or (1,)
    some = np.sort(np.random.default_rng(0).permutation(len(y))[:SAMPLE])
    right = [(f.argmax(axis=1) == y[some]).mean() for f in _votes(unit, y, unit[some], classes, ks, leaving_out=some)]
    k = ks[int(np.argmax(right))]
    return np.log((_votes(unit, y, _unit(queries), classes, (k,))[0] + 1 / classes) / (k + 1)), k


def _unit(features: ArrayLike) -> NDArray[np.float32]:
    f = np.asarray(features, dtype=np.float32)
    return np.asarray(f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12))


def _votes(
    known: NDArray[np.float32], labels: NDArray[np.int64], asked: NDArray[np.float32], classes: int, ks: tuple[int, ...],
    leaving_out: NDArray[np.int64] | None = None,
) -> list[Floats]:  # fmt: skip
    """For each k, (Q, classes) votes of the k nearest; a nearer neighbour's weighs a trifle more.

    `leaving_out` (Q,) are rows of `known`, one for each of `asked`, that have no vote for it: itself.
    """
    many, rows = min(max(ks), len(known) - (leaving_out is not None)), max(1, BLOCK // len(known))
    found = [np.zeros((len(asked), classes)) for _ in ks]
    for start in range(0, len(asked), rows):
        near = asked[start : start + rows] @ known.T
        count = len(near)
        if leaving_out is not None:
            near[np.arange(count), leaving_out[start : start + count]] = -np.inf
        best = np.argpartition(-near, many - 1, axis=1)[:, :many]
        closeness = np.take_along_axis(near, best, axis=1).astype(np.float64)
        order = np.argsort(-closeness, axis=1, kind="stable")
        best, closeness = np.take_along_axis(best, order, axis=1), np.take_along_axis(closeness, order, axis=1)
        for votes, k in zip(found, ks, strict=True):
            some = min(k, many)
            lines = np.repeat(np.arange(start, start + count), some)
            np.add.at(votes, (lines, labels[best[:, :some]].ravel()), (1 + 1e-3 * closeness[:, :some]).ravel())
    return found
