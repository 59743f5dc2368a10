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
    f, y = np.asarray(features, dtype=np.float32), np.asarray(labels, dtype=np.int64)
    unit = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
    classes, predicted = int(y.max()) + 1, np.full(len(y), -1, dtype=np.int64)
    for fit, held in folds:
        many, rows = min(k, len(fit)), max(1, BLOCK // len(fit))
        for start in range(0, len(held), rows):
            some = held[start : start + rows]
            near = unit[some] @ unit[fit].T
            best = np.argpartition(-near, many - 1, axis=1)[:, :many]
            closeness = np.take_along_axis(near, best, axis=1).astype(np.float64)
            votes = np.zeros((len(some), classes))
            lines = np.repeat(np.arange(len(some)), many)
            np.add.at(votes, (lines, y[fit[best]].ravel()), (1 + 1e-3 * closeness).ravel())
            predicted[some] = votes.argmax(axis=1)
    return predicted
