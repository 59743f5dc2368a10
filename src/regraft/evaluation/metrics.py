"""Metrics of single-label classification, each with a 95 % interval. Arrays in, estimates out.

Shapes: labels (N,) integers in [0, K); logits (N, K) unnormalised; confusion (K, K), rows true, columns predicted.
Which classes count: the macro average of recall (balanced accuracy) goes over the classes that occur in the labels;
the macro average of F1 over the classes that occur in the labels or in the predictions. Both as scikit-learn does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from regraft.errors import UsageError
from regraft.evaluation.estimate import Estimate, percentiles, wilson

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BLOCK = 4_000_000  # indices drawn at once in the bootstrap over examples: 32 MB


def log_losses(labels: ArrayLike, logits: ArrayLike) -> Floats:
    """Each example's -log softmax(logits)[label] in nats, shape (N,); stable for logits of any size."""
    y, z = _checked(labels, logits)
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y])


def refined_log_losses(labels: ArrayLike, logits: ArrayLike) -> Floats:
    """(N,) log losses at the temperature from 1 up that is best for these very examples: how well classes are told apart.

    Early stopping on their mean does not mistake growing confidence, which a temperature mends afterwards, for growing error
    (Berta, Holzmüller, Jordan and Bach, "Rethinking early stopping: refine, then calibrate", 2025). Temperatures below 1 are
    left out: where every example is right they would make any model look perfect.
    """
    y, z = _checked(labels, logits)
    found = optimize.minimize_scalar(
        lambda log_t: float(log_losses(y, z / np.exp(log_t)).mean()), bounds=(0.0, np.log(20.0)), method="bounded"
    )
    return min(log_losses(y, z / np.exp(found.x)), log_losses(y, z), key=lambda losses: float(losses.mean()))


def confusion(labels: ArrayLike, predicted: ArrayLike, k: int) -> Ints:
    """Counts by true class (row) and predicted class (column), shape (k, k)."""
    y, p = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if y.shape != p.shape or y.ndim != 1:
        raise UsageError(f"labels {y.shape} and predictions {p.shape} must be two lists of one length.")
    if len(y) and (min(y.min(), p.min()) < 0 or max(y.max(), p.max()) >= k):
        raise UsageError(f"labels and predictions must lie in 0..{k - 1}.")
    return np.bincount(y * k + p, minlength=k * k).reshape(k, k).astype(np.int64)


def score(labels: ArrayLike, logits: ArrayLike, metric: str) -> float:
    """One metric's value, turned so that higher is better: log loss is returned negated."""
    y, z = _checked(labels, logits)
    if metric == "log_loss":
        return -float(log_losses(y, z).mean())
    if metric == "accuracy":
        return float((z.argmax(axis=1) == y).mean())
    table = confusion(y, z.argmax(axis=1), z.shape[1])
    hits, support, called = np.diag(table).astype(float), table.sum(axis=1), table.sum(axis=0).astype(float)
    if metric == "balanced_accuracy":
        return float(_balanced_accuracy(hits, support))
    if metric == "macro_f1":
        return float(_macro_f1(hits, support, called))
    raise UsageError(f"metric {metric!r} is not known; choose one of {', '.join(METRICS)}.")


def evaluate_single(labels: ArrayLike, logits: ArrayLike, seed: int = 0, resamples: int = 2000) -> dict[str, Estimate]:
    """Every metric of METRICS with its 95 % interval; log loss as it is, in nats (lower is better).

    Accuracy: Wilson. Balanced accuracy and macro F1: bootstrap within each true class. Log loss: over all examples.
    """
    y, z = _checked(labels, logits)
    n, k = z.shape
    rng = np.random.default_rng(seed)
    table = confusion(y, z.argmax(axis=1), k)
    hits, support, called = np.diag(table).astype(float), table.sum(axis=1), table.sum(axis=0).astype(float)
    right = int(hits.sum())
    drawn_hits, drawn_called = _resample_within_classes(table, resamples, rng)
    losses = log_losses(y, z)
    return {
        "accuracy": Estimate(right / n, *wilson(right, n), n, "Wilson"),
        "balanced_accuracy": _within_classes(
            float(_balanced_accuracy(hits, support)), _balanced_accuracy(drawn_hits, support), n
        ),
        "macro_f1": _within_classes(
            float(_macro_f1(hits, support, called)), _macro_f1(drawn_hits, support, drawn_called), n
        ),
        "log_loss": Estimate(
            float(losses.mean()), *percentiles(_resampled_means(losses, resamples, rng)), n, "bootstrap over examples"
        ),
    }


def per_class(labels: ArrayLike, logits: ArrayLike, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row a class, in the order given: precision, recall (with Wilson 95 % low and high), f1, support.

    A recall without examples, or a precision without predictions, is None, and so is the F1 of a class with neither.
    """
    y, z = _checked(labels, logits)
    if z.shape[1] != len(classes):
        raise UsageError(f"logits have {z.shape[1]} columns, but {len(classes)} classes are named.")
    table = confusion(y, z.argmax(axis=1), len(classes))
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(classes):
        hits, support, called = int(table[index, index]), int(table[index].sum()), int(table[:, index].sum())
        rows.append(
            {
                "class": name,
                **_proportion("precision", hits, called),
                **_proportion("recall", hits, support),
                "f1": 2 * hits / (support + called) if support + called else None,
                "support": support,
            }
        )
    return rows


def _proportion(name: str, hits: int, n: int) -> dict[str, float | None]:
    if n == 0:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = wilson(hits, n)
    return {name: hits / n, f"{name}_low": low, f"{name}_high": high}


def _balanced_accuracy(hits: Floats, support: Ints) -> Floats:
    """Mean recall over the classes with support; hits (..., K), support (K,)."""
    seen = support > 0
    return np.asarray((hits[..., seen] / support[seen]).mean(axis=-1))


def _macro_f1(hits: Floats, support: Ints, called: Floats) -> Floats:
    """Mean F1 over the classes in labels or predictions; hits and called (..., K), support (K,)."""
    total = support + called
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return np.asarray(f1.sum(axis=-1) / (total > 0).sum(axis=-1))


def _resample_within_classes(table: Ints, resamples: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Hits and predictions a class, (R, K) each, when every true class's examples are drawn anew with replacement.

    Metrics of the confusion matrix need no examples: drawing n_c of class c's examples is drawing row c from a
    multinomial with the row's own shares.
    """
    k = len(table)
    hits, called = np.zeros((resamples, k)), np.zeros((resamples, k))
    for index, row in enumerate(table):
        columns = np.flatnonzero(row)
        if not len(columns):
            continue
        drawn = rng.multinomial(row.sum(), row[columns] / row.sum(), size=resamples)
        called[:, columns] += drawn
        hits[:, index] = drawn[:, columns == index].sum(axis=1)
    return hits, called


def _within_classes(value: float, draws: Floats, n: int) -> Estimate:
    """The percentile interval; where resampling cannot vary (no error to draw) Wilson's, never a width of zero."""
    low, high = percentiles(draws)
    if high - low < 1e-12:
        return Estimate(value, *wilson(value * n, n), n, "Wilson (resampling cannot vary)")
    return Estimate(value, low, high, n, "bootstrap within classes")


def _resampled_means(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Means of `resamples` draws with replacement of values (N,), made in blocks to bound the memory."""
    n = len(values)
    block = max(1, _BLOCK // n)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    return np.concatenate([values[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in sizes])


def _checked(labels: ArrayLike, logits: ArrayLike) -> tuple[Ints, Floats]:
    """Labels (N,) and logits (N, K) as arrays of one length, N > 0, all finite and in range."""
    y, z = np.asarray(labels, dtype=np.int64), np.asarray(logits, dtype=np.float64)
    if y.ndim != 1 or z.ndim != 2 or len(y) != len(z):
        raise UsageError(f"labels must be (N,) and logits (N, K); found {y.shape} and {z.shape}.")
    if len(y) == 0:
        raise UsageError("there are no examples to evaluate.")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise UsageError(f"labels must lie in 0..{z.shape[1] - 1}; found {y.min()}..{y.max()}.")
    if not np.isfinite(z).all():
        raise UsageError(f"{int((~np.isfinite(z)).any(axis=1).sum())} of {len(z)} rows of logits are not finite.")
    return y, z
