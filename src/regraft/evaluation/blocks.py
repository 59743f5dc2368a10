"""Examples that belong together: folds that do not part them, and standard errors that count them as one.

A block is a set of rows that are not independent evidence: a group that the user named (a patient, a film),
copies, near-duplicates. A model that has seen one row of a block has nearly seen the others, so no fold may
part them. Labels are (N,) integers in [0, K); blocks are (N,) integers, equal for the rows of one block, or
None where every row stands alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Fold = tuple[Ints, Ints]  # positions that are fitted, positions that are held out


def numbered(blocks: ArrayLike) -> Ints:
    """(N,) the same blocks, or any other names, numbered from 0 without gaps."""
    return np.asarray(np.unique(np.asarray(blocks), return_inverse=True)[1].reshape(-1), dtype=np.int64)


def all_alone(blocks: ArrayLike | None) -> bool:
    """Whether every row is a block of its own."""
    return blocks is None or len(np.unique(np.asarray(blocks))) == len(np.asarray(blocks))


def fewest_blocks(labels: ArrayLike, blocks: ArrayLike | None) -> int:
    """The number of blocks of the class that has the fewest; 0 without labels. Below 2 no fold can spare
    the class.
    """
    y = np.asarray(labels, dtype=np.int64)
    if not len(y):
        return 0
    pairs = y if blocks is None else np.unique(np.stack([y, numbered(blocks)], axis=1), axis=0)[:, 0]
    counts = np.bincount(pairs)
    return int(counts[counts > 0].min())


def folds_of(labels: ArrayLike, folds: int, seed: int, blocks: ArrayLike | None = None) -> list[Fold]:
    """`folds` pairs of positions (fitted, held out), stratified by class as far as blocks allow.

    There are fewer folds where a class has fewer blocks, and 2 at least.
    """
    y = np.asarray(labels, dtype=np.int64)
    place = assign_folds(y, max(2, min(folds, fewest_blocks(y, blocks))), seed, blocks)
    return [
        (np.flatnonzero(place != number), np.flatnonzero(place == number))
        for number in range(int(place.max()) + 1)
    ]


def assign_folds(labels: ArrayLike, folds: int, seed: int, blocks: ArrayLike | None = None) -> Ints:
    """(N,) the number, from 0, of the fold that holds each row out. A block lies in one fold.

    Without blocks these are scikit-learn's stratified folds. With them, blocks of several rows are dealt
    first, the largest before the others, each to the fold that has the fewest of its classes; single rows
    then level the classes out. A class of two blocks or more is never held out wholly. scikit-learn's
    StratifiedGroupKFold promises neither that nor level classes, and takes a loop in Python for every group
    of one row.
    """
    y = np.asarray(labels, dtype=np.int64)
    if all_alone(blocks):
        from sklearn.model_selection import StratifiedKFold

        place = np.empty(len(y), dtype=np.int64)
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for number, (_, held) in enumerate(splitter.split(np.zeros(len(y)), y)):
            place[held] = number
        return place
    return _dealt(
        y, numbered(blocks if blocks is not None else np.arange(len(y))), folds, np.random.default_rng(seed)
    )


def _dealt(y: Ints, block: Ints, folds: int, rng: np.random.Generator) -> Ints:
    sizes, totals = np.bincount(block), np.bincount(y).astype(np.float64)
    have, rows = np.zeros((folds, len(totals))), np.zeros(folds)
    place = np.full(len(y), -1, dtype=np.int64)
    members = np.argsort(block, kind="stable")
    starts = np.r_[0, np.cumsum(sizes)]
    several = rng.permutation(np.flatnonzero(sizes > 1))
    for number in several[np.argsort(-sizes[several], kind="stable")]:
        own = members[starts[number] : starts[number + 1]]
        classes, counts = np.unique(y[own], return_counts=True)
        # Growth of the sum of squares
        cost = ((2 * have[:, classes] + counts) * counts / totals[classes]).sum(axis=1)
        fold = int(np.lexsort((rows, np.round(cost, 9)))[0])
        place[own], rows[fold] = fold, rows[fold] + len(own)
        have[fold, classes] += counts
    lone = rng.permutation(np.flatnonzero(place < 0))
    lone = lone[np.argsort(y[lone], kind="stable")]
    for own in np.split(lone, np.flatnonzero(np.diff(y[lone])) + 1) if len(lone) else []:
        label = int(y[own[0]])
        taken = _levelled(have[:, label], len(own), rows)
        place[own], rows = np.repeat(np.arange(folds), taken), rows + taken
        have[:, label] += taken
    _spread(y, block, place, folds)
    return place


def _levelled(have: NDArray[np.float64], count: int, rows: NDArray[np.float64]) -> Ints:
    """How many of `count` more rows each fold takes so that all folds end as level as can be. What is left
    over goes to the smallest folds.
    """
    order = np.lexsort((rows, have))
    low = have[order]
    for filled in range(len(low), 0, -1):  # the lowest so many folds end at one level
        level = (low[:filled].sum() + count) / filled
        if level >= low[filled - 1]:
            break
    taken = np.zeros(len(low), dtype=np.int64)
    taken[order[:filled]] = np.maximum(np.floor(level - low[:filled]), 0).astype(np.int64)
    for fold in order[np.lexsort((rows[order], have[order] + taken[order]))][: count - int(taken.sum())]:
        taken[fold] += 1
    return taken


def _spread(y: Ints, block: Ints, place: Ints, folds: int) -> None:
    """Where all blocks of a class lie in one fold and there are several, its smallest block moves to the
    next fold.
    """
    first, last = np.full(int(y.max()) + 1, folds), np.full(int(y.max()) + 1, -1)
    np.minimum.at(first, y, place)
    np.maximum.at(last, y, place)
    for label in np.flatnonzero(first == last):
        own = np.unique(block[y == label])
        if len(own) > 1:
            place[block == own[np.bincount(block)[own].argmin()]] = (int(first[label]) + 1) % folds


def standard_error(values: ArrayLike, blocks: ArrayLike | None = None) -> float:
    """The standard error of the mean of (N,) values when blocks are drawn at random, not rows: the
    linearised error of a mean over clusters (Cochran 1977, 3.12).

    With one row a block it is the usual one. It is infinite for a single block.
    """
    x = np.asarray(values, dtype=np.float64)
    if blocks is None:
        return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.inf
    sums = np.bincount(numbered(blocks), weights=x - x.mean())
    if len(sums) < 2:
        return math.inf
    return float(math.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(x))


def per_block(values: ArrayLike, blocks: ArrayLike | None = None) -> NDArray[np.float64]:
    """(B,) one value for each block, independent of the others. Their mean is that of the (N,) values."""
    x = np.asarray(values, dtype=np.float64)
    if blocks is None:
        return x
    sums = np.bincount(numbered(blocks), weights=x)
    return np.asarray(sums * len(sums) / len(x))


def effective_count(right: ArrayLike, blocks: ArrayLike | None = None) -> float:
    """The number of independent examples that say as much about a share as these (N,) truths in blocks do;
    N without blocks.

    It is the number at which the share has the variance that it has over blocks (Kish 1965), from 1 to N.
    Where nothing varies it is the number of blocks.
    """
    x = np.asarray(right, dtype=np.float64)
    if all_alone(blocks):
        return float(len(x))
    count, share = len(np.unique(np.asarray(blocks))), float(x.mean())
    variance = standard_error(x, blocks) ** 2
    if not 0 < variance < math.inf:
        return float(count)
    return float(min(len(x), max(1.0, share * (1 - share) / variance)))


def with_error(value: float, error: float | None) -> str:
    """A value with its standard error where that is known: 0.300 ± 0.012."""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"
