"""Metrics of answers that are several labels at once, each with a 95 % interval. Arrays in, estimates out.

Shapes: N examples, K labels; targets (N, K) are 1, 0, or NaN where a label is not known: such a cell counts
nowhere. Answers (N, K) are truths. The F1 means are scikit-learn's, over the labels that occur or are said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from regraft.evaluation import scores
from regraft.evaluation.blocks import all_alone, effective_count, numbered
from regraft.evaluation.estimate import Estimate, wilson
from regraft.evaluation.metric import (
    Metric,
    Sample,
    as_proportion,
    bootstrapped,
    bootstrapped_index,
    counted,
    mean_of,
)
from regraft.evaluation.paired import PairedDifference
from regraft.evaluation.thresholds import GRID, counted_blocks, lower_bound

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Flagged:
    """N answers to K questions of yes or no: (N, K) targets, (N, K) logits that rank the examples of a label,
    and (N, K) answers; with what the metrics are made of.
    """

    def __init__(self, targets: np.ndarray, logits: np.ndarray, answers: np.ndarray) -> None:
        self.known = np.isfinite(targets)
        self.held = np.where(self.known, targets, 0).astype(np.float64)
        self.logits, self.said = np.asarray(logits, dtype=np.float64), answers.astype(np.float64) * self.known
        self._counted: tuple[Floats, scores.Counts] | None = None

    def __len__(self) -> int:
        return len(self.held)

    @cached_property
    def wrong(self) -> Floats:
        """(N,) the share of wrong answers among an example's known labels."""
        return np.asarray((self.held != self.said).sum(axis=1) / np.maximum(1, self.known.sum(axis=1)))

    @cached_property
    def exact(self) -> Floats:
        """(N,) 1 where all known labels of an example are told right, else 0."""
        return np.asarray(self.wrong == 0, dtype=np.float64)

    @cached_property
    def losses(self) -> Floats:
        """(N,) log losses in nats, the mean over an example's known labels."""
        signs = 1 - 2 * self.held
        each = np.logaddexp(0, signs * self.logits) * self.known
        return np.asarray(each.sum(axis=1) / np.maximum(1, self.known.sum(axis=1)))

    def counts(self, weights: Floats) -> scores.Counts:
        """(R, K) right, held and said labels under weights (R, N)."""
        if self._counted is None or self._counted[0] is not weights:
            table = scores.Counts(weights @ (self.held * self.said), weights @ self.held, weights @ self.said)
            self._counted = weights, table
        return self._counted[1]

    @cached_property
    def told(self) -> tuple[int, ...]:
        """The labels that some examples have and some have not: those that an average precision is of."""
        have, lack = self.held.sum(axis=0), (self.known & (self.held == 0)).sum(axis=0)
        return tuple(np.flatnonzero((have > 0) & (lack > 0)).tolist())

    def precisions(self, weights: Floats) -> Floats:
        """(R, T) average precisions of the `told` labels under weights (R, N); NaN where none has a label."""
        found = np.full((len(weights), len(self.told)), np.nan)
        for place, k in enumerate(self.told):
            order, ends, own = self._ranked[k]
            drawn = weights[:, order]
            reached = drawn.cumsum(axis=1)[:, ends]
            hits = (drawn * own).cumsum(axis=1)[:, ends]
            total, share = hits[:, -1:], np.divide(hits, reached, out=np.zeros_like(hits), where=reached > 0)
            steps = np.diff(hits, axis=1, prepend=0)
            np.divide((steps * share).sum(axis=1), total[:, 0], out=found[:, place], where=total[:, 0] > 0)
        return found

    @cached_property
    def _ranked(self) -> dict[int, tuple[np.ndarray, np.ndarray, Floats]]:
        """Of each label: its known examples by falling logits, the last of each tie, and which have it."""
        ranked = {}
        for k in self.told:
            rows = np.flatnonzero(self.known[:, k])
            order = rows[np.argsort(-self.logits[rows, k], kind="stable")]
            sizes = self.logits[order, k]
            ends = np.flatnonzero(np.r_[sizes[1:] != sizes[:-1], True])
            ranked[k] = order, ends, self.held[order, k]
        return ranked

    @cached_property
    def curves(self) -> tuple[Floats, Floats]:
        """(2, K) ROC AUC and average precision of each label, NaN where it is not told, and (N, 2, K) how much
        each example moves them.
        """
        count, labels = self.held.shape
        values, influences = np.full((2, labels), np.nan), np.zeros((count, 2, labels))
        for k in self.told:
            rows = np.flatnonzero(self.known[:, k])
            own = np.flatnonzero(self.held[rows, k])
            area, precision, gained, sharper = scores.curves_of(self.logits[rows, k], own)
            values[:, k] = area, precision
            influences[rows, 0, k], influences[rows, 1, k] = gained, sharper
        return values, influences


def _mean_precision(facts: Flagged, weights: Floats) -> Floats:
    if not facts.told:
        return np.full(len(weights), np.nan)
    found = facts.precisions(weights)
    known = np.isfinite(found)
    total: Floats = np.where(known, found, 0).sum(axis=1)
    found_mean: Floats = np.divide(
        total, known.sum(axis=1), out=np.full(len(total), np.nan), where=known.any(axis=1)
    )
    return found_mean


def _curve(place: int) -> Callable[[Sample], Estimate]:
    """The mean over the labels of ROC AUC (0) or average precision (1), with the logit interval of `_logit_ends`
    from how much each example, or group, moves it.
    """

    def interval(sample: Sample) -> Estimate:
        facts, over = sample.facts, sample.over
        if not facts.told:
            return Estimate(np.nan, np.nan, np.nan, sample.n, "no label is held by some and not by others")
        values, influences = facts.curves[0][place], facts.curves[1][:, place]
        value, moved = float(np.nanmean(values)), influences.sum(axis=1) / len(facts.told)
        low, high = _logit_ends(value, moved, sample.units, sample.n)
        return Estimate(value, low, high, sample.n, f"logit, infinitesimal jackknife over {over}")

    return interval


def _logit_ends(value: float, moved: Floats, units: np.ndarray | None, n: int) -> tuple[float, float]:
    """The ends of the logit interval (Boyd, Eng and Page 2013) of a value between 0 and 1 that (N,) influences
    move.
    """
    error, freedom = _error_of(moved, units)
    if error < 1e-6 or not 0 < value < 1:
        return as_proportion(value, 0.0, n, units)
    half = scipy.special.stdtrit(freedom, 0.975) * error / (value * (1 - value))
    ends = scipy.special.logit(value) + np.array([-half, half])
    low, high = scipy.special.expit(ends).tolist()
    return low, high


def _error_of(moved: Floats, units: np.ndarray | None) -> tuple[float, float]:
    """The standard error of what (N,) influences move, by the sum of their squares (infinitesimal jackknife, Efron
    1982), of groups where `units` (N,) number them; and the degrees of freedom of Student's quantile for it.

    Few examples, those with a rare label, bring most of that sum, so it is uncertain itself: with v_i the squares
    these degrees are (sum v_i)^2 / sum v_i^2 (Satterthwaite 1946, of squares with one degree each).
    """
    together = moved if units is None else np.bincount(units, moved)
    total, fourth = float((together**2).sum()), float((together**4).sum())
    error = float(np.sqrt(total * len(together) / max(1, len(together) - 1)))
    return error, total**2 / fourth if fourth > 0 else 1.0


def paired_precisions(
    facts: Flagged, others: Flagged, against: str, groups: ArrayLike | None = None
) -> PairedDifference:
    """By how much the mean average precision of `facts` is higher than that of `others`, the same N examples; the
    interval and the p value are Student's, from how much each example, or group of `groups` (N,), moves the
    difference (`_error_of`).
    """
    units, count = None if groups is None else numbered(groups), len(facts.told)
    values, influences = (ours - theirs for ours, theirs in zip(facts.curves, others.curves, strict=True))
    difference = float(np.nanmean(values[1]))
    error, freedom = _error_of(influences[:, 1].sum(axis=1) / count, units)
    half, p = float(scipy.special.stdtrit(freedom, 0.975)) * error, 1.0
    if abs(difference) > 1e-12:
        p = float(2 * scipy.special.stdtr(freedom, -abs(difference) / error)) if error > 1e-9 else 0.0
    method = f"infinitesimal jackknife over {'examples' if units is None else 'groups'}"
    ends = difference - half, difference + half
    words, unit = MEAN_PRECISION.words, MEAN_PRECISION.unit
    return PairedDifference(against, difference, *ends, p, len(facts), method, None, unit, words)


def _micro_f1(facts: Flagged, weights: Floats) -> Floats:
    c = facts.counts(weights)
    total = (c.support + c.called).sum(axis=1)
    none = np.full(len(weights), np.nan)  # where no label occurs or is said, as of the other means
    found: Floats = np.divide(2 * c.hits.sum(axis=1), total, out=none, where=total > 0)
    return found


def _of_counts(of: Callable[[scores.Counts], Floats]) -> Callable[[Any, Floats], Floats]:
    return lambda facts, weights: of(facts.counts(weights))


MEAN_PRECISION = Metric(
    "map", "Mean average precision", _curve(1), _mean_precision, unit="%", main=True, resampled=False
)
EXACT, WRONG, LOSSES = attrgetter("exact"), attrgetter("wrong"), attrgetter("losses")
# Of answers that are several labels, in the order they are shown in
SEVERAL: tuple[Metric, ...] = (
    MEAN_PRECISION,
    Metric(
        "macro_f1", "Macro F1", bootstrapped_index, _of_counts(scores.macro_f1), unit="%", hub="f1", main=True
    ),
    Metric("micro_f1", "Micro F1", bootstrapped_index, _micro_f1, unit="%", hub="f1", main=True),
    Metric(
        "weighted_f1", "Weighted F1", bootstrapped_index, _of_counts(scores.weighted_f1), unit="%", hub="f1"
    ),
    Metric("subset_accuracy", "All labels right", counted(EXACT), mean_of(EXACT), unit="%", hub="accuracy"),
    Metric(
        "hamming_loss",
        "Wrong labels (Hamming loss)",
        bootstrapped_index,
        mean_of(WRONG),
        higher=False,
        unit="%",
    ),
    Metric("log_loss", "Log loss", bootstrapped, mean_of(LOSSES), higher=False),
    Metric("roc_auc", "ROC AUC", _curve(0), resampled=False),
)


def per_label(facts: Flagged, names: Sequence[str], groups: np.ndarray | None = None) -> list[dict[str, Any]]:
    """One row a label: precision, recall, F1 and average precision, each with its 95 % low and high (None where
    it is not defined), `support`, and `known`, the number of examples of which the label is known.

    Intervals are Wilson's, of F1 by way of the Jaccard index; with `groups` (N,) at the number of independent
    examples that their shares say.
    """
    table = []
    for k, name in enumerate(names):
        held, said = facts.held[:, k] > 0, facts.said[:, k] > 0
        row: dict[str, Any] = {"class": name}
        for metric, rows in (("precision", said), ("recall", held), ("f1", held | said)):
            value, low, high = _share((held & said)[rows], None if groups is None else groups[rows])
            if metric == "f1" and value is not None:
                value, low, high = (2 * end / (1 + end) for end in (value, low, high))
            row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        row |= dict.fromkeys(("ap", "ap_low", "ap_high"))
        if k in facts.told:
            value, moved = float(facts.curves[0][1, k]), facts.curves[1][:, 1, k]
            units = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
            low, high = _logit_ends(value, moved, units, int(facts.known[:, k].sum()))
            row |= {"ap": value, "ap_low": low, "ap_high": high}
        table.append({**row, "support": int(held.sum()), "known": int(facts.known[:, k].sum())})
    return table


def _share(right: Flags, groups: np.ndarray | None) -> tuple[Any, Any, Any]:
    """A share with its interval; None three times without an example."""
    if not len(right):
        return None, None, None
    value = float(right.mean())
    count = float(len(right)) if all_alone(groups) else effective_count(right, groups)
    return value, *wilson(value * count, count)


def best_threshold(held: Flags, shares: Floats) -> float:
    """The probability from which on saying a label has the highest F1 on (N,) examples: half way between two
    that there are, of equally good ones the nearest to one half; one half where no example has the label.
    """
    if not held.any() or held.all():
        return 0.5
    order = np.argsort(-shares, kind="stable")
    ranked, hits = shares[order], held[order].cumsum()
    last = np.r_[ranked[1:] != ranked[:-1], True]
    values = (2 * hits / (np.arange(1, len(hits) + 1) + hits[-1]))[last]
    cuts = np.r_[(ranked[:-1] + ranked[1:]) / 2, ranked[-1] / 2][last]
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])


def promised_threshold(
    held: Flags, shares: Floats, wanted: float, blocks: np.ndarray | None = None
) -> float | None:
    """The lowest of a few probabilities from which on saying a label is promised to be right in a share
    `wanted` of cases, by (N,) examples; None where they do not prove it.

    The lower end of a Clopper-Pearson interval has to reach what is wanted, its error divided by the number of
    probabilities looked at; a block of examples that belong together counts once.
    """
    if not held.any():
        return None
    cuts = np.unique(np.quantile(shares[held], np.arange(GRID) / GRID))
    for cut in cuts:  # the lowest first: it says the label most
        said = shares >= cut
        hits, count = counted_blocks(held[said], None if blocks is None else blocks[said])
        if lower_bound(hits, count, len(cuts)) >= wanted:
            return float(cut)
    return None
