"""Metrics of single-label classification, each with a 95 % interval. Arrays in, estimates out.

Shapes: labels (N,) integers in [0, K); logits (N, K) unnormalised; confusion (K, K), rows true, columns
predicted; groups (N,) numbers of the groups, where examples belong together.

Which classes count: the macro average of recall (balanced accuracy) goes over the classes that occur in the
labels; the macro average of F1 over the classes that occur in the labels or in the predictions. Both as
scikit-learn does.
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
from regraft.evaluation.calibration import ece, pieces, predicted_classes, probabilities
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.resampling import TAILS, bca, draws, gathered, left_out

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "top5_accuracy",
    "log_loss",
    "brier",
    "roc_auc",
    "average_precision",
    "kappa",
    "mcc",
    "ece",
)
TOP = 5
COLUMNS = 16  # of probabilities held at once: a cache line of logits
SHARES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "top5_accuracy",
)  # between 0 and 1, as proportions are
CURVES = ("roc_auc", "average_precision")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def log_losses(labels: ArrayLike, logits: ArrayLike) -> Floats:
    """Each example's -log softmax(logits)[label] in nats, shape (N,); stable for logits of any size."""
    return _log_losses(*_checked(labels, logits))


def _log_losses(y: Ints, z: np.ndarray, temperature: float = 1.0) -> Floats:
    found = np.empty(len(y))
    for some, rows in pieces(z):
        shifted = rows / temperature if temperature != 1 else rows
        shifted = shifted - shifted.max(axis=1, keepdims=True)
        found[some] = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(rows)), y[some]]
    return found


def refined_log_losses(labels: ArrayLike, logits: ArrayLike) -> Floats:
    """(N,) log losses at the temperature from 1 up that is best for these very examples: how well classes are
    told apart.

    Early stopping on their mean does not mistake growing confidence, which a temperature mends afterwards,
    for growing error (Berta, Holzmüller, Jordan and Bach, "Rethinking early stopping: refine, then
    calibrate", 2025). Temperatures below 1 are left out: where every example is right they would make any
    model look perfect.
    """
    y, z = _checked(labels, logits)
    found = optimize.minimize_scalar(
        lambda log_t: float(_log_losses(y, z, np.exp(log_t)).mean()),
        bounds=(0.0, np.log(20.0)),
        method="bounded",
    )
    return min(_log_losses(y, z, np.exp(found.x)), _log_losses(y, z), key=lambda losses: float(losses.mean()))


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
    return float(weighted_scores(labels, logits, metric, np.ones((1, len(np.asarray(labels)))))[0])


def weighted_scores(labels: ArrayLike, logits: ArrayLike, metric: str, weights: Floats) -> Floats:
    """(R,) values of one metric, higher being better, under weights (R, N): of R resamples, say."""
    y, z = _checked(labels, logits)
    if metric == "log_loss":
        return -scores.mean_of(weights, _log_losses(y, z))
    if metric not in _OF_COUNTS:
        raise UsageError(f"metric {metric!r} is not known; choose one of log_loss, {', '.join(_OF_COUNTS)}.")
    return _OF_COUNTS[metric](scores.counts(weights, y, predicted_classes(z), z.shape[1]))


def evaluate_single(
    labels: ArrayLike,
    logits: ArrayLike,
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Estimate]:
    """Every metric of METRICS that these data define, with its 95 % interval; log loss in nats, Brier score
    from 0 to 2.

    Where classes tie for the largest logit, the answer is the first of them, as in `Model.predict`, and
    accuracy, F1 and all that count answers are about it. Metrics of ranks favour none: a label that ties for
    the last of five places counts by its chance to have one, and a pair of examples that tie by half in the
    ROC AUC.

    Accuracy and top-5 (with more than five classes): Wilson. Balanced accuracy and F1: Wilson's at the number
    of examples that has the variance of a bootstrap, which holds the truth more often than BCa does near 1
    (Franco, Little, Louis and Slud 2019). ROC AUC and average precision, one class against the rest and the
    mean of the classes: the logit interval (Boyd, Eng and Page 2013) from influences. The others: BCa (Efron
    1987). Drawn are examples, or with `groups` whole groups, for all metrics. Calibration error has no
    interval.
    """
    y, z = _checked(labels, logits)
    units = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    n, values = len(y), _of_examples(y, z)
    found = _drawn(y, z, values, units, seed, resamples) | _of_curves(y, z, units)
    if units is None:
        for name in ("accuracy", "top5_accuracy"):
            if name in values:
                hits = float(values[name].sum())
                found[name] = Estimate(hits / n, *wilson(hits, n), n, "Wilson")
    found["ece"] = Estimate(ece(y, z), np.nan, np.nan, n, "equal-mass bins, no interval")
    return {name: found[name] for name in METRICS if name in found and np.isfinite(found[name].value)}


def _of_examples(y: Ints, z: np.ndarray) -> dict[str, Floats]:
    """Metrics that are means over examples: (N,) values of each."""
    found = {
        "accuracy": (predicted_classes(z) == y).astype(np.float64),
        "log_loss": _log_losses(y, z),
        "brier": np.empty(len(y)),
    }
    if z.shape[1] > TOP:
        found["top5_accuracy"] = np.empty(len(y))
    for some, rows in pieces(z):
        shares, own = probabilities(rows), (np.arange(len(rows)), y[some])
        found["brier"][some] = (shares**2).sum(axis=1) - 2 * shares[own] + 1
        if z.shape[1] > TOP:
            above, ties = (
                (compare(rows, rows[own][:, None])).sum(axis=1) for compare in (np.greater, np.equal)
            )
            found["top5_accuracy"][some] = np.clip((TOP - above) / ties, 0, 1)
    return found


_OF_COUNTS: dict[str, Callable[[scores.Counts], Floats]] = {
    "accuracy": scores.accuracy,
    "balanced_accuracy": scores.balanced_accuracy,
    "macro_f1": scores.macro_f1,
    "weighted_f1": scores.weighted_f1,
    "kappa": scores.kappa,
    "mcc": scores.mcc,
}


def _drawn(
    y: Ints, z: np.ndarray, values: dict[str, Floats], units: Ints | None, seed: int, resamples: int
) -> dict[str, Estimate]:
    """Metrics of counts and of means, with intervals from the same resamples."""
    n, k = z.shape
    names = [name for name in METRICS if name in values or name in _OF_COUNTS]
    cells = scores.Cells(y, predicted_classes(z), k)

    def statistic(weights: Floats) -> Floats:
        table = cells.counts(weights)
        rows = [
            scores.mean_of(weights, values[name]) if name in values else _OF_COUNTS[name](table)
            for name in names
        ]
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
            ends, method = (
                _as_proportion(v, float(np.nanvar(rows[:, s])), n, units),
                f"Wilson at the variance of a {drawn}",
            )
        elif ends[1] - ends[0] < 1e-9 and 0 <= v <= 1 and name not in ("log_loss", "brier"):
            ends = _as_proportion(v, 0.0, n, units)
        found[name] = Estimate(v, *ends, n, method)
    return found


def _of_curves(y: Ints, z: np.ndarray, units: Ints | None) -> dict[str, Estimate]:
    """ROC AUC and average precision, with intervals from how much each example, or group, moves them."""
    n, (values, influences) = len(y), scores.curves(y, _columns(z))
    together = (
        influences
        if units is None
        else np.stack([np.bincount(units, column) for column in influences.T], axis=1)
    )
    variances = (together**2).sum(axis=0) * len(together) / max(1, len(together) - 1)
    method = f"logit, infinitesimal jackknife over {'examples' if units is None else 'groups'}"
    found = {}
    for name, v, variance in zip(CURVES, values.tolist(), variances.tolist(), strict=True):
        low, high = _as_proportion(v, 0.0, n, units) if np.isfinite(v) else (v, v)
        if variance > 1e-12 and 0 < v < 1:
            low, high = expit(logit(v) + TAILS * np.sqrt(variance) / (v * (1 - v))).tolist()
        found[name] = Estimate(v, low, high, n, method)
    return found


def _columns(z: np.ndarray) -> Callable[[int], Floats]:
    """What gives the (N,) probabilities of a class, for classes in rising order: a few columns at a time are
    held.
    """
    top, total = np.empty(len(z)), np.empty(len(z))
    for some, rows in pieces(z):
        top[some] = rows.max(axis=1)
        total[some] = np.exp(rows - top[some][:, None]).sum(axis=1)
    begin, held = 0, np.zeros((0, len(z)))

    def column(k: int) -> Floats:
        nonlocal begin, held
        if not begin <= k < begin + len(held):
            begin, held = k, np.exp(z[:, k : k + COLUMNS].T.astype(np.float64) - top) / total
        return np.asarray(held[k - begin])

    return column


def _as_proportion(value: float, variance: float, n: int, units: Ints | None) -> tuple[float, float]:
    """Wilson's interval at the number of examples, n at most, that has this variance; n or the groups without
    any.
    """
    if variance < 1e-12:
        count = float(n if units is None else units.max() + 1)
    else:
        count = min(float(n), value * (1 - value) / variance)
    return wilson(value * count, count)


def per_class(
    labels: ArrayLike,
    logits: ArrayLike,
    classes: tuple[str, ...],
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> list[dict[str, Any]]:
    """One row a class, in the order given: precision, recall and F1, each with its 95 % low and high, and
    support.

    Intervals: Wilson; of F1 by way of the Jaccard index J, a proportion, as F1 = 2 J / (1 + J); with `groups`
    at the variance of a bootstrap over them. A recall without examples, or a precision without predictions,
    is None, and so is the F1 of a class with neither.
    """
    y, z = _checked(labels, logits)
    k = len(classes)
    if z.shape[1] != k:
        raise UsageError(f"logits have {z.shape[1]} columns, but {k} classes are named.")
    predicted = predicted_classes(z)
    cells = scores.Cells(y, predicted, k)

    def statistic(weights: Floats) -> Floats:
        c = cells.counts(weights)
        shares = [
            np.divide(c.hits, of, out=np.full_like(c.hits, np.nan), where=of > 0)
            for of in (c.called, c.support)
        ]
        return np.concatenate([*shares, scores.f1(c)], axis=1)

    table = confusion(y, predicted, k)
    hits, support, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    value = statistic(np.ones((1, len(y))))[0]
    if groups is None:
        ends = [wilson(h, of) for counted in (called, support) for h, of in zip(hits, counted, strict=True)]
        jaccard = [wilson(h, s + c - h) for h, s, c in zip(hits, support, called, strict=True)]
        ends += [(2 * low / (1 + low), 2 * high / (1 + high)) for low, high in jaccard]
    else:
        units, rng = (
            np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1),
            np.random.default_rng(seed),
        )
        rows = gathered(statistic, draws(len(y), resamples, rng, units))
        ends = [
            (v, v) if np.isnan(v) else _as_proportion(float(v), float(np.nanvar(rows[:, s])), len(y), units)
            for s, v in enumerate(value)
        ]
    rows_found: list[dict[str, Any]] = []
    for index, name in enumerate(classes):
        row: dict[str, Any] = {"class": name}
        for place, metric, n in (
            (0, "precision", called),
            (k, "recall", support),
            (2 * k, "f1", support + called),
        ):
            known = n[index] > 0
            low, high = ends[place + index]
            row |= {
                metric: float(value[place + index]) if known else None,
                f"{metric}_low": low if known else None,
                f"{metric}_high": high if known else None,
            }
        rows_found.append({**row, "support": int(support[index])})
    return rows_found


def _checked(labels: ArrayLike, logits: ArrayLike) -> tuple[Ints, np.ndarray]:
    """Labels (N,) and logits (N, K), float32 or float64, as arrays of one length, N > 0, all finite and in
    range.
    """
    y, z = np.asarray(labels, dtype=np.int64), np.asarray(logits)
    if y.ndim != 1 or z.ndim != 2 or len(y) != len(z):
        raise UsageError(f"labels must be (N,) and logits (N, K); found {y.shape} and {z.shape}.")
    if len(y) == 0:
        raise UsageError("there are no examples to evaluate.")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise UsageError(f"labels must lie in 0..{z.shape[1] - 1}; found {y.min()}..{y.max()}.")
    if z.dtype not in (np.float32, np.float64):
        z = z.astype(np.float64)
    faulty = sum(int((~np.isfinite(rows)).any(axis=1).sum()) for _, rows in pieces(z))
    if faulty:
        raise UsageError(f"{faulty} of {len(z)} rows of logits are not finite.")
    return y, z
