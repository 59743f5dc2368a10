"""Strata of targets that are no classes: what should be as frequent in every split and fold."""

from __future__ import annotations

import numpy as np

FEWEST = 20  # examples of a stratum, for which a test set of a fifth still has some
FEW = 50  # examples below which strata are small, so that they are too many for a test set to be cut
SMALL = 5  # examples of a stratum then, which five folds can spare


def strata_of_labels(targets: np.ndarray) -> np.ndarray:
    """(N,) int64 numbers from 0 of strata of (N, K) targets, 1 where an example has a label.

    A set of labels that FEWEST examples have (of fewer than FEW examples SMALL) is a stratum; other examples go
    by the rarest label they have, as the first round of iterative stratification does (Sechidis, Tsoumakas and
    Vlahavas 2011), and what is still too few is one stratum, or joins the largest. Of fewer than FEW examples
    there is more than one for ten: where sets are too many for that, parts of sets that are alike.
    """
    has = np.nan_to_num(targets) > 0
    if not len(has):
        return np.zeros(0, dtype=np.int64)
    sets, number = np.unique(has, axis=0, return_inverse=True)
    number = number.reshape(-1)
    small = (np.bincount(number) < fewest(len(has)))[number]
    frequency = np.where(has.sum(axis=0) > 0, has.sum(axis=0), len(has) + 1)
    rarest = np.where(has, frequency, len(has) + 1).argmin(axis=1)
    strata = np.where(small, len(sets) + np.where(has.any(axis=1), rarest, has.shape[1]), number)
    found = _gathered(strata)
    if len(has) < FEW and (int(found.max()) + 1) * 10 <= len(has):  # as many as parts of numbers have
        alike = np.unique(np.column_stack([has.sum(axis=1), has]), axis=0, return_inverse=True)[1]
        return strata_of_numbers(alike.reshape(-1, 1).astype(np.float64))
    return found


def strata_of_numbers(targets: np.ndarray, most: int = 10) -> np.ndarray:
    """(N,) int64 numbers from 0 of strata of (N, K) targets: parts of about equal size by their rank, `most` at
    most, and of fewer than FEW examples more than one for ten; of several numbers by the mean of their ranks.
    What is not known lies in the middle.
    """
    if not len(targets):
        return np.zeros(0, dtype=np.int64)
    ranks = np.full(targets.shape, 0.5)
    for k, column in enumerate(np.asarray(targets, dtype=np.float64).T):
        known = np.isfinite(column)
        values, place = np.unique(column[known], return_inverse=True)
        middle = np.cumsum(np.bincount(place)) - np.bincount(place) / 2
        ranks[known, k] = middle[place] / max(1, known.sum()) if len(values) else 0.5
    mean = ranks.mean(axis=1)
    parts = len(mean) // 10 + 1 if len(mean) < FEW else min(most, len(mean) // FEWEST)
    edges = np.unique(np.quantile(mean, np.arange(1, parts) / parts)) if parts > 1 else np.zeros(0)
    return _gathered(np.searchsorted(edges, mean, side="left"), beside=True)


def fewest(count: int) -> int:
    """The least examples of a stratum of so many."""
    return FEWEST if count >= FEW else SMALL


def _gathered(strata: np.ndarray, beside: bool = False) -> np.ndarray:
    """The strata numbered from 0, none with fewer examples than `fewest` where that can be: small ones become one,
    and if that is small too, part of the largest; or with `beside` each becomes part of the one before it.
    """
    names, number = np.unique(strata, return_inverse=True)
    number = number.reshape(-1)
    counts, least = np.bincount(number), fewest(len(strata))
    if beside:
        home = np.arange(len(names))
        for place in range(1, len(names)):
            if counts[place] < least or counts[home[place - 1]] < least:
                home[place] = home[place - 1]
                counts[home[place]] += counts[place]
        return np.asarray(np.unique(home[number], return_inverse=True)[1].reshape(-1), dtype=np.int64)
    small = counts < least
    target = int(counts.argmax()) if counts[small].sum() < least else len(names)
    merged = np.where(small[number], target, number)
    return np.asarray(np.unique(merged, return_inverse=True)[1].reshape(-1), dtype=np.int64)
