"""Metrics of single-label classification, each with a 95 % interval. Arrays in, estimates out.

Shapes: labels (N,) integers in [0, K); logits (N, K) unnormalised; confusion (K, K), rows true, columns
predicted; groups (N,) numbers of the groups, where examples belong together.

Which classes count: the macro average of recall (balanced accuracy) goes over the classes that occur in the
labels; the macro average of F1 over the classes that occur in the labels or in the predictions. Both as
scikit-learn does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from regraft.errors import UsageError
from regraft.evaluation import scores
from regraft.evaluation.calibration import ece, pieces, predicted_classes, probabilities
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.metric import (
    Metric,
    Sample,
    as_proportion,
    bootstrapped,
    bootstrapped_index,
    counted,
    estimates,
    mean_of,
    proportion,
)
from regraft.evaluation.resampling import TAILS, draws, gathered

TOP = 5
COLUMNS = 16  # of probabilities held at once: a cache line of logits

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def log_losses(labels: ArrayLike, logits: ArrayLike) -> Floats:
    """Each example's -log softmax(logits)[label] in nats, shape (N,); stable for logits of any size."""
    return _log_losses(*_checked(labels, logits))


def _log_losses(y: Ints, z: np.ndarray, temperature: float = 1.0) -> Floats:
    losses = np.empty(len(y))
    for span, rows in pieces(z):
        shifted = rows / temperature if temperature != 1 else rows
        shifted = shifted - shifted.max(axis=1, keepdims=True)
        losses[span] = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(rows)), y[span]]
    return losses


def refined_log_losses(labels: ArrayLike, logits: ArrayLike) -> Floats:
    """(N,) log losses at the temperature from 1 up that is best for these very examples: how well classes
    are told apart.

    Early stopping on their mean does not mistake growing confidence, which a temperature mends afterwards,
    for growing error (Berta, Holzmüller, Jordan and Bach, "Rethinking early stopping: refine, then
    calibrate", 2025). Temperatures below 1 are left out: where every example is right they would make any
    model look perfect.
    """
    y, z = _checked(labels, logits)
    minimum = scipy.optimize.minimize_scalar(
        lambda log_t: float(_log_losses(y, z, np.exp(log_t)).mean()),
        bounds=(0.0, np.log(20.0)),
        method="bounded",
    )
    return min(
        _log_losses(y, z, np.exp(minimum.x)), _log_losses(y, z), key=lambda losses: float(losses.mean())
    )


def confusion(labels: ArrayLike, predicted: ArrayLike, k: int) -> Ints:
    """Counts by true class (row) and predicted class (column), shape (k, k)."""
    y, p = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if y.shape != p.shape or y.ndim != 1:
        raise UsageError(f"labels {y.shape} and predictions {p.shape} must be two lists of one length.")
    if len(y) and (min(y.min(), p.min()) < 0 or max(y.max(), p.max()) >= k):
        raise UsageError(f"labels and predictions must lie in 0..{k - 1}.")
    return np.bincount(y * k + p, minlength=k * k).reshape(k, k).astype(np.int64)


class Classified:
    """N answers to single-label questions: (N,) labels, (N, K) logits, and what their metrics are made of.

    Everything is computed when it is first asked for. Raises UsageError for shapes that do not fit, labels
    out of range and logits that are not finite.
    """

    def __init__(self, labels: ArrayLike, logits: ArrayLike) -> None:
        self.labels, self.logits = _checked(labels, logits)
        self._counted: tuple[Floats, scores.Counts] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def right(self) -> Floats:
        """(N,) 1 for a right answer, else 0. Where classes tie for the largest logit, the answer is the
        first of them, as in `Model.predict`."""
        return np.asarray(predicted_classes(self.logits) == self.labels, dtype=np.float64)

    @cached_property
    def losses(self) -> Floats:
        """(N,) log losses in nats."""
        return _log_losses(self.labels, self.logits)

    @cached_property
    def briers(self) -> Floats:
        """(N,) squared distances, 0 to 2, of the probabilities from the label."""
        scores = np.empty(len(self))
        for span, rows in pieces(self.logits):
            shares, own = probabilities(rows), (np.arange(len(rows)), self.labels[span])
            scores[span] = (shares**2).sum(axis=1) - 2 * shares[own] + 1
        return scores

    @cached_property
    def in_top(self) -> Floats:
        """(N,) 1 where the label is among the five largest logits; one that ties for the last place counts
        by its chance to have it. NaN with five classes or fewer."""
        shares = np.full(len(self), np.nan)
        if self.logits.shape[1] <= TOP:
            return shares
        for span, rows in pieces(self.logits):
            own = rows[np.arange(len(rows)), self.labels[span]][:, None]
            above, ties = ((compare(rows, own)).sum(axis=1) for compare in (np.greater, np.equal))
            shares[span] = np.clip((TOP - above) / ties, 0, 1)
        return shares

    @cached_property
    def cells(self) -> scores.Cells:
        """The cells of the confusion matrix."""
        return scores.Cells(self.labels, predicted_classes(self.logits), self.logits.shape[1])

    def counts(self, weights: Floats) -> scores.Counts:
        """The confusion matrix under weights (R, N), counted once for the metrics that ask for it in turn."""
        if self._counted is None or self._counted[0] is not weights:
            self._counted = weights, self.cells.counts(weights)
        return self._counted[1]

    @cached_property
    def curves(self) -> tuple[Floats, Floats]:
        """(2,) ROC AUC and average precision, and (N, 2) how much each example moves them."""
        return scores.curves(self.labels, _columns(self.logits))

    def variances(self, units: Ints | None) -> Floats:
        """(2,) variances of the curves, by examples or by groups whose numbers are `units` (N,)."""
        together = influences = self.curves[1]
        if units is not None:
            together = np.stack([np.bincount(units, column) for column in influences.T], axis=1)
        return np.asarray((together**2).sum(axis=0) * len(together) / max(1, len(together) - 1))


def _of_counts(of: Callable[[scores.Counts], Floats]) -> Callable[[Classified, Floats], Floats]:
    return lambda facts, weights: of(facts.counts(weights))


def _curve(place: int) -> Callable[[Sample], Estimate]:
    """ROC AUC (0) or average precision (1), with the logit interval (Boyd, Eng and Page 2013) from how much
    each example, or group, moves it.
    """

    def interval(sample: Sample) -> Estimate:
        n, units = sample.n, sample.units
        v, variance = float(sample.facts.curves[0][place]), float(sample.facts.variances(units)[place])
        low, high = as_proportion(v, 0.0, n, units) if np.isfinite(v) else (v, v)
        if variance > 1e-12 and 0 < v < 1:
            low, high = scipy.special.expit(
                scipy.special.logit(v) + TAILS * np.sqrt(variance) / (v * (1 - v))
            ).tolist()
        return Estimate(v, low, high, n, f"logit, infinitesimal jackknife over {sample.over}")

    return interval


def _calibration_error(sample: Sample) -> Estimate:
    value = ece(sample.facts.labels, sample.facts.logits)
    return Estimate(value, np.nan, np.nan, sample.n, "equal-mass bins, no interval")


_RIGHT, _IN_TOP = attrgetter("right"), attrgetter("in_top")
# Of single-label classification, in the order they are shown in
METRICS = (
    Metric("accuracy", "Accuracy", counted(_RIGHT), mean_of(_RIGHT), unit="%", main=True),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        proportion,
        _of_counts(scores.balanced_accuracy),
        unit="%",
        main=True,
    ),
    Metric("macro_f1", "Macro F1", proportion, _of_counts(scores.macro_f1), unit="%", hub="f1", main=True),
    Metric("weighted_f1", "Weighted F1", proportion, _of_counts(scores.weighted_f1), unit="%", hub="f1"),
    Metric("top5_accuracy", "Top-5 accuracy", counted(_IN_TOP), mean_of(_IN_TOP), unit="%"),
    Metric("log_loss", "Log loss", bootstrapped, mean_of(attrgetter("losses")), higher=False, main=True),
    Metric(
        "brier", "Brier score", bootstrapped, mean_of(attrgetter("briers")), higher=False, hub="brier_score"
    ),
    Metric("roc_auc", "ROC AUC", _curve(0)),
    Metric("average_precision", "Average precision", _curve(1)),
    Metric("kappa", "Cohen's kappa", bootstrapped_index, _of_counts(scores.kappa)),
    Metric(
        "mcc", "Matthews correlation", bootstrapped_index, _of_counts(scores.mcc), hub="matthews_correlation"
    ),
    Metric("ece", "Calibration error (ECE)", _calibration_error, higher=False),
)


def score(labels: ArrayLike, logits: ArrayLike, metric: str) -> float:
    """One metric's value, turned so that higher is better: log loss is returned negated."""
    return float(weighted_scores(labels, logits, metric, np.ones((1, len(np.asarray(labels)))))[0])


def weighted_scores(labels: ArrayLike, logits: ArrayLike, metric: str, weights: Floats) -> Floats:
    """(R,) values of one metric, higher being better, under weights (R, N): of R resamples, say.

    Raises UsageError for a metric that is not known, or has no value under weights.
    """
    of_name = next((each for each in METRICS if each.name == metric and each.value is not None), None)
    if of_name is None:
        known = ", ".join(each.name for each in METRICS if each.value is not None)
        raise UsageError(f"metric {metric!r} is not known; choose one of {known}.")
    return of_name.scores(Classified(labels, logits), weights)


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
    accuracy, F1 and all that count answers are about it. Metrics of ranks favour none: a label that ties
    for the last of five places counts by its chance to have one, and a pair of examples that tie by half in
    the ROC AUC.

    Accuracy and top-5 (with more than five classes): Wilson. Balanced accuracy and F1: Wilson's at the
    number of examples that has the variance of a bootstrap. ROC AUC and average precision, one class
    against the rest and the mean of the classes: the logit interval from influences. The others: BCa. Drawn
    are examples, or with `groups` whole groups, for all metrics. Calibration error has no interval.
    """
    return estimates(METRICS, Classified(labels, logits), groups, seed, resamples)


def _columns(z: np.ndarray) -> Callable[[int], Floats]:
    """What gives the (N,) probabilities of a class, for classes in rising order: a few columns at a time
    are held.
    """
    top, total = np.empty(len(z)), np.empty(len(z))
    for span, rows in pieces(z):
        top[span] = rows.max(axis=1)
        total[span] = np.exp(rows - top[span][:, None]).sum(axis=1)
    begin, held = 0, np.zeros((0, len(z)))

    def column(k: int) -> Floats:
        nonlocal begin, held
        if not begin <= k < begin + len(held):
            begin, held = k, np.exp(z[:, k : k + COLUMNS].T.astype(np.float64) - top) / total
        return np.asarray(held[k - begin])

    return column


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

    Intervals: Wilson; of F1 by way of the Jaccard index J, a proportion, as F1 = 2 J / (1 + J); with
    `groups` at the variance of a bootstrap over them. A recall without examples, or a precision without
    predictions, is None, and so is the F1 of a class with neither.
    """
    y, z = _checked(labels, logits)
    k = len(classes)
    if z.shape[1] != k:
        raise UsageError(f"logits have {z.shape[1]} columns, but {k} classes are named.")
    predicted = predicted_classes(z)
    statistic, table = _of_classes(y, predicted, k), confusion(y, predicted, k)
    hits, support, called = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    value = statistic(np.ones((1, len(y))))[0]
    if groups is None:
        ends = _wilson_of_classes(hits, support, called)
    else:
        units, rng = (
            np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1),
            np.random.default_rng(seed),
        )
        rows = gathered(statistic, draws(len(y), resamples, rng, units))
        ends = [
            (v, v) if np.isnan(v) else as_proportion(float(v), float(np.nanvar(rows[:, s])), len(y), units)
            for s, v in enumerate(value)
        ]
    table_rows: list[dict[str, Any]] = []
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
        table_rows.append({**row, "support": int(support[index])})
    return table_rows


def _of_classes(y: Ints, predicted: Ints, k: int) -> Callable[[Floats], Floats]:
    """The statistic of weights (R, N) that gives (R, 3 K): precision, recall and F1 of each of K classes."""
    cells = scores.Cells(y, predicted, k)

    def statistic(weights: Floats) -> Floats:
        c = cells.counts(weights)
        shares = [
            np.divide(c.hits, of, out=np.full_like(c.hits, np.nan), where=of > 0)
            for of in (c.called, c.support)
        ]
        return np.concatenate([*shares, scores.f1(c)], axis=1)

    return statistic


def _wilson_of_classes(hits: Ints, support: Ints, called: Ints) -> list[tuple[float, float]]:
    """95 % low and high of precision, then recall, then F1, each for K classes, from their (K,) counts."""
    ends = [wilson(h, of) for counted in (called, support) for h, of in zip(hits, counted, strict=True)]
    jaccard = [wilson(h, s + c - h) for h, s, c in zip(hits, support, called, strict=True)]
    return ends + [(2 * low / (1 + low), 2 * high / (1 + high)) for low, high in jaccard]


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
