"""Probabilities that mean what they say: one temperature for all logits (Guo, Pleiss, Sun and Weinberger
2017).

How well they do is read off the most probable class: its probability, the confidence, against how often it
is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from regraft.evaluation.estimate import wilson

BOUNDS = (0.05, 20.0)
BINS, BIN_EXAMPLES = 15, 10  # of a reliability diagram, and the examples each holds
PIECE = 1 << 21  # logits looked at at once

Floats = NDArray[np.float64]


def probabilities(logits: ArrayLike) -> Floats:
    """(N, K) softmax of (N, K) logits."""
    z = np.asarray(logits, dtype=np.float64)
    shares = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> Floats:
    """(N, K) probabilities of (N, K) logits divided by a temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponents = np.exp(scaled)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def pieces(logits: np.ndarray) -> Iterator[tuple[slice, Floats]]:
    """(N, K) logits as float64, a bounded number of rows at a time, with their positions."""
    step = max(1, PIECE // max(1, logits.shape[1]))
    for start in range(0, len(logits), step):
        yield slice(start, start + step), np.asarray(logits[start : start + step], dtype=np.float64)


def answers(logits: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """(N,) confidences and (N,) answers: the largest probability, and the first class that has it, as
    `Model.predict` says.
    """
    z = np.asarray(logits)
    confidence, answer = np.empty(len(z)), np.empty(len(z), dtype=np.int64)
    for span, rows in pieces(z):
        shares = probabilities(rows)
        confidence[span], answer[span] = shares.max(axis=1), shares.argmax(axis=1)
    return confidence, answer


def predicted_classes(logits: ArrayLike) -> NDArray[np.int64]:
    """(N,) answers alone. Of logits that are one row seen N times, argmax of all would make a copy first."""
    z, highest = np.asarray(logits), np.empty(len(logits), dtype=np.int64)  # type: ignore[arg-type]
    for span, rows in pieces(z):
        highest[span] = rows.argmax(axis=1)
    return highest


def fit_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """What to divide (N, K) logits by for the least log loss on (N,) labels the model has not learnt from;
    1 for none.

    Targets are smoothed as by Platt (1999): (N + 1) / (N + 2) for the label, the rest shared by the others,
    so that a model that is right on every one of a few examples is not made certain of everything.
    """
    y, z = np.asarray(labels, dtype=np.int64), np.asarray(logits)
    if len(y) == 0:
        return 1.0
    n, k = z.shape
    rest = 1 / (n + 2) / max(1, k - 1)  # the share of each other class

    def loss(log_temperature: float) -> float:
        total = 0.0
        for span, rows in pieces(z):
            logs = scipy.special.log_softmax(rows / np.exp(log_temperature), axis=1)
            own = float(logs[np.arange(len(rows)), y[span]].sum())
            total += rest * float(logs.sum()) + ((n + 1) / (n + 2) - rest) * own
        return float(-total / n)

    minimum = scipy.optimize.minimize_scalar(
        loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-4}
    )
    return float(np.exp(minimum.x))


def _bins(labels: ArrayLike, logits: ArrayLike) -> list[tuple[Floats, Floats]]:
    """Confidences and rights of bins that hold about as many examples each, the least confident first.

    Examples of one confidence are in one bin: apart, their order in the list would decide what a bin says.
    """
    confidence, answer = answers(logits)
    right = answer == np.asarray(labels)
    order = np.argsort(confidence, kind="stable")
    ranked, count = confidence[order], max(1, min(BINS, len(order) // BIN_EXAMPLES))
    cuts = np.cumsum([len(part) for part in np.array_split(order, count)])[:-1]
    # Of those that tie
    first, last = (np.searchsorted(ranked, ranked[cuts], side=side) for side in ("left", "right"))
    cuts = np.where(cuts - first <= last - cuts, first, last)
    parts = np.split(order, np.unique(cuts[(cuts > 0) & (cuts < len(order))]))
    return [(confidence[part], right[part].astype(np.float64)) for part in parts if len(part)]


def ece(labels: ArrayLike, logits: ArrayLike) -> float:
    """Expected calibration error: the mean gap of confidence and accuracy, by bins of equal mass (Nguyen
    and O'Connor 2015).

    (N,) labels, (N, K) logits; at most 15 bins, of about 10 examples at least. It is biased upwards on few
    examples, even of a model that is calibrated, so it carries no interval; NaN of none.
    """
    bins = _bins(labels, logits)
    total = sum(len(confidence) for confidence, _ in bins)
    if not total:
        return float("nan")
    return float(sum(len(c) / total * abs(c.mean() - right.mean()) for c, right in bins))


def reliability(labels: ArrayLike, logits: ArrayLike) -> list[dict[str, Any]]:
    """The bins of `ece`: mean confidence, accuracy with its Wilson 95 % low and high, and the number of
    examples.
    """
    rows = []
    for confidence, right in _bins(labels, logits):
        low, high = wilson(right.sum(), len(right))
        rows.append(
            {
                "confidence": float(confidence.mean()),
                "accuracy": float(right.mean()),
                "low": low,
                "high": high,
                "n": len(right),
            }
        )
    return rows
