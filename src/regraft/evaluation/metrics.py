"""Metrics of single-label classification, each with a 95 % interval. Arrays in, estimates out.

Shapes: labels (N,) integers in [0, K); logits (N, K) unnormalised; confusion (K, K), rows true, columns predicted; groups
(N,) numbers of the groups, where examples belong together.

Which classes count: the macro average of recall (balanced accuracy) goes over the classes that occur in the labels; the
macro average of F1 over the classes that occur in the labels or in the predictions. Both as scikit-learn does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy.special import expit, logit

from regraft.errors import UsageError
from regraft.evaluation import scores
from regraft.evaluation.calibration import ece, probabilities
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.resampling import TAILS, bca, draws, gathered, left_out

METRICS = (
    "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "top5_accuracy", "log_loss", "brier", "roc_auc",
    "average_precision", "kappa", "mcc", "ece",
)  # fmt: skip
TOP = 5
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "top5_accuracy")  # between 0 and 1, as proportions are
CURVES = ("roc_auc", "average_precision")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
    if metric not in _OF_COUNTS:
        raise UsageError(f"metric {metric!r} is not known; choose one of log_loss, {', '.join(_OF_COUNTS)}.")
    return float(_OF_COUNTS[metric](scores.counts(np.ones((1, len(y))), y, z.argmax(axis=1), z.shape[1]))[0])


def evaluate_single(
    labels: ArrayLike, logits: ArrayLike, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 2000
) -> dict[str, Estimate]:
    """Every metric of METRICS that these data define, with its 95 % interval; log loss in nats, Brier score from 0 to 2.

    Accuracy and top-5 (with more than five classes): Wilson. Balanced accuracy and F1: Wilson's at the number of examples
    that has the variance of a bootstrap, which holds the truth more often than BCa does near 1 (Franco, Little, Louis and
    Slud 2019). ROC AUC and average precision, one class against the rest and the mean of the classes: the logit interval (Boyd,
    Eng and Page 2013) from influences. The others: BCa (Efron 1987). Drawn are examples, or with `groups` whole groups, for all
    metrics. Calibration error has no interval.
    """
    y, z = _checked(labels, logits)
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    n, values = len(y), _of_examples(y, z)
    found = _drawn(y, z, values, units, seed, resamples) | _of_curves(y, z, units)
    if units is None:
        for name in ("accuracy", "top5_accuracy"):
            if name in values:
                hits = int(values[name].sum())
                found[name] = Estimate(hits / n, *wilson(hits, n), n, "Wilson")
    found["ece"] = Estimate(ece(y, z), np.nan, np.nan, n, "equal-mass bins, no interval")
    return {name: found[name] for name in METRICS if name in found and np.isfinite(found[name].value)}


def _of_examples(y: Ints, z: Floats) -> dict[str, Floats]:
    """Metrics that are means over examples: (N,) values of each."""
    shares, k = probabilities(z), z.shape[1]
    own = shares[np.arange(len(y)), y]
    found = {
        "accuracy": (z.argmax(axis=1) == y).astype(np.float64), "log_loss": log_losses(y, z),
        "brier": (shares**2).sum(axis=1) - 2 * own + 1,
    }  # fmt: skip
    if k > TOP:
        above = (z > z[np.arange(len(y)), y][:, None]).sum(axis=1)
        found["top5_accuracy"] = (above < TOP).astype(np.float64)
    return found


_OF_COUNTS: dict[str, Callable[[scores.Counts], Floats]] = {
    "accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy, "macro_f1": scores.macro_f1,
    "weighted_f1": scores.weighted_f1, "kappa": scores.kappa, "mcc": scores.mcc,
}  # fmt: skip


def _drawn(y: Ints, z: Floats, values: dict[str, Floats], units: Ints | None, seed: int, resamples: int) -> dict[str, Estimate]:
    """Metrics of counts and of means, with intervals from the same resamples."""
    n, k = z.shape
    names = [name for name in METRICS if name in values or name in _OF_COUNTS]
    predicted = z.argmax(axis=1)

    def statistic(weights: Floats) -> Floats:
        table = scores.counts(weights, y, predicted, k)
        rows = [scores.mean_of(weights, values[name]) if name in values else _OF_COUNTS[name](table) for name in names]
        return np.stack(rows, axis=1)

    rng = np.random.default_rng(seed)
    value = statistic(np.ones((1, n)))[0]
    rows = gathered(statistic, draws(n, resamples, rng, units))
    lows, highs = bca(value, rows, gathered(statistic, left_out(n, rng, units)))
    drawn = f"bootstrap over {'examples' if units is None else 'groups'}"
    found = {}
    for s, name in enumerate(names):
        v, ends, method = float(value[s]), (float(lows[s]), float(highs[s])), f"BCa {drawn}"
        if name in SHARES:
            ends, method = _as_proportion(v, float(np.nanvar(rows[:, s])), n, units), f"Wilson at the variance of a {drawn}"
        elif ends[1] - ends[0] < 1e-9 and 0 <= v <= 1 and name not in ("log_loss", "brier"):
            ends = _as_proportion(v, 0.0, n, units)
        found[name] = Estimate(v, *ends, n, method)
    return found


def _of_curves(y: Ints, z: Floats, units: Ints | None) -> dict[str, Estimate]:
    """ROC AUC and average precision, with intervals from how much each example, or group, moves them."""
    n, (values, influences) = len(y), scores.curves(y, probabilities(z))
    together = influences if units is None else np.stack([np.bincount(units, column) for column in influences.T], axis=1)
    variances = (together**2).sum(axis=0) * len(together) / max(1, len(together) - 1)
    method = f"logit, infinitesimal jackknife over {'examples' if units is None else 'groups'}"
    found = {}
    for name, v, variance in zip(CURVES, values.tolist(), variances.tolist(), strict=True):
        low, high = _as_proportion(v, 0.0, n, units) if np.isfinite(v) else (v, v)
        if variance > 1e-12 and 0 < v < 1:
            low, high = expit(logit(v) + TAILS * np.sqrt(variance) / (v * (1 - v))).tolist()
        found[name] = Estimate(v, low, high, n, method)
    return found


def _as_proportion(value: float, variance: float, n: int, units: Ints | None) -> tuple[float, float]:
    """Wilson's interval at the number of examples, n at most, that has this variance; n or the groups without any."""
    if variance < 1e-12:
        count = float(n if units is None else units.max() + 1)
    else:
        count = min(float(n), value * (1 - value) / variance)
    return wilson(value * count, count)


def per_class(
    labels: ArrayLike, logits: ArrayLike, classes: tuple[str, ...], groups: ArrayLike | None = None, seed: int = 0,
    resamples: int = 2000,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row a class, in the order given: precision, recall and F1, each with its 95 % low and high, and support.

    Intervals: Wilson; of F1 by way of the Jaccard index J, a proportion, as F1 = 2 J / (1 + J); with `groups` at the variance
    of a bootstrap over them. A recall without examples, or a precision without predictions, is None, and so is the F1 of a
    class with neither.
    """
    y, z = _checked(labels, logits)
    k = len(classes)
    if z.shape[1] != k:
        raise UsageError(f"logits have {z.shape[1]} columns, but {k} classes are named.")
    predicted = z.argmax(axis=1)

    def statistic(weights: Floats) -> Floats:
        c = scores.counts(weights, y, predicted, k)
        shares = [np.divide(c.hits, of, out=np.full_like(c.hits, np.nan), where=of > 0) for of in (c.called, c.support)]
        return np.concatenate([*shares, scores.f1(c)], axis=1)

    table = confusion(y, predicted, k)
    hits, support, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    value = statistic(np.ones((1, len(y))))[0]
    if groups is None:
        ends = [wilson(h, of) for counted in (called, support) for h, of in zip(hits, counted, strict=True)]
        jaccard = [wilson(h, s + c - h) for h, s, c in zip(hits, support, called, strict=True)]
        ends += [(2 * low / (1 + low), 2 * high / (1 + high)) for low, high in jaccard]
    else:
        units, rng = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1), np.random.default_rng(seed)
        rows = gathered(statistic, draws(len(y), resamples, rng, units))
        ends = [_as_proportion(float(v), float(np.nanvar(rows[:, s])), len(y), units) for s, v in enumerate(value)]
    rows_found: list[dict[str, Any]] = []
    for index, name in enumerate(classes):
        row: dict[str, Any] = {"class": name}
        for place, metric, n in ((0, "precision", called), (k, "recall", support), (2 * k, "f1", support + called)):
            known = n[index] > 0
            low, high = ends[place + index]
            row |= {metric: float(value[place + index]) if known else None, f"{metric}_low": low if known else None,
                    f"{metric}_high": high if known else None}  # fmt: skip
        rows_found.append({**row, "support": int(support[index])})
    return rows_found


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
