"""Intervals that are promised to hold a share of numbers: how wide they are, and where wider than elsewhere.

Shapes: M held-out examples of one number, what was told of them and the absolute errors of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.evaluation.blocks import all_alone, assign_folds, numbered, standard_error

Floats = NDArray[np.float64]
ArrayOf = NDArray[Any] | Sequence[float]

FEWEST = 80  # held-out examples, and blocks, by which errors of different sizes are told apart
KNOT = 20  # examples by which one knot is placed
KNOTS = 8  # at most
SHRUNK = 3.0  # examples of a usual error that each knot is given on top of its own
FOLDS = 5


@dataclass(frozen=True)
class ErrorSizes:
    """How large errors usually are by what is `told`, (B,) rising numbers: `size` (B,) times as large as on
    average. Straight lines lie in between, and beyond the ends it is as at the ends.
    """

    told: tuple[float, ...]
    size: tuple[float, ...]

    def at(self, told: np.ndarray) -> Floats:
        """(N,) how large errors usually are where (N,) numbers are told."""
        return np.asarray(np.interp(told, self.told, self.size))

    @classmethod
    def of(cls, told: np.ndarray, errors: np.ndarray) -> ErrorSizes | None:
        """By the mean absolute errors of as many parts of the (M,) numbers told as there are examples for, drawn
        to the mean of all; None where the numbers told are too few or too much alike.
        """
        parts = min(KNOTS, len(told) // KNOT)
        mean = float(np.mean(errors)) if len(errors) else 0.0
        if parts < 2 or mean <= 0:
            return None
        edges = np.unique(np.quantile(told, np.arange(1, parts) / parts))
        part = np.searchsorted(edges, told, side="left")
        counts = np.bincount(part)
        kept = np.flatnonzero(counts)
        places = np.bincount(part, told)[kept] / counts[kept]
        sizes = (np.bincount(part, errors)[kept] + SHRUNK * mean) / (counts[kept] + SHRUNK) / mean
        return cls(tuple(places.tolist()), tuple(sizes.tolist())) if len(kept) > 1 else None


def conformal_width(errors: ArrayOf, share: float, blocks: np.ndarray | None = None) -> float | None:
    """How far from what is said a new number lies at most in a `share` of cases, by the (M,) absolute errors of
    held-out examples; None where they are too few to say (split conformal prediction, Lei et al. 2018).

    It is the ceil((M + 1) share)-th of the errors. Rows of one of the `blocks` (M,) count as one together.
    """
    size = np.abs(np.asarray(errors, dtype=np.float64))
    if not len(size):
        return None
    if all_alone(blocks):
        place = math.ceil((len(size) + 1) * share)
        return float(np.sort(size)[place - 1]) if place <= len(size) else None
    number = numbered(blocks if blocks is not None else np.arange(len(size)))
    weights = 1 / np.bincount(number)[number]
    order = np.argsort(size, kind="stable")
    reached = weights[order].cumsum()
    count = int(number.max()) + 1
    place = int(np.searchsorted(reached, (count + 1) * share - 1e-9))
    return float(size[order][place]) if place < len(size) else None


def interval_scores(errors: np.ndarray, widths: np.ndarray | float, share: float) -> Floats:
    """(M,) the interval score (Gneiting and Raftery 2007) of intervals that reach `widths` to both sides: how wide
    they are, and what lies outside, dearly. Low is good.
    """
    return np.asarray(2 * widths + 2 / (1 - share) * np.maximum(np.abs(errors) - widths, 0))


def conformal_widths(
    told: np.ndarray, errors: np.ndarray, share: float, blocks: np.ndarray | None = None
) -> tuple[float | None, ErrorSizes | None]:
    """The width of intervals around (M,) numbers told, by their errors, and by how much wider and narrower they
    are where (normalised residuals: Papadopoulos et al. 2002, Lei et al. 2018): the width is to be multiplied by
    `ErrorSizes.at`. None where they are as wide everywhere.

    They differ only where that lowers the interval score out of fold by more than one standard error. Each error
    is divided by what is usual by the other folds, so that none makes its own interval.
    """
    errors = np.abs(np.asarray(errors, dtype=np.float64))
    plain = conformal_width(errors, share, blocks)
    alone = len(errors) if blocks is None else len(np.unique(blocks))
    if plain is None or alone < FEWEST:
        return plain, None
    fold, gains, scaled = (
        assign_folds(np.zeros(len(errors)), FOLDS, 0, blocks),
        np.zeros(len(errors)),
        errors.copy(),
    )
    for number in range(int(fold.max()) + 1):
        rest, here = fold != number, fold == number
        sizes = ErrorSizes.of(told[rest], errors[rest])
        if sizes is None:
            return plain, None
        rows = None if blocks is None else blocks[rest]
        alike = conformal_width(errors[rest], share, rows)
        own = conformal_width(errors[rest] / sizes.at(told[rest]), share, rows)
        if alike is None or own is None:
            return plain, None
        scaled[here] = errors[here] / sizes.at(told[here])
        gains[here] = interval_scores(errors[here], alike, share) - interval_scores(
            errors[here], own * sizes.at(told[here]), share
        )
    if gains.mean() <= standard_error(gains, blocks):
        return plain, None
    return conformal_width(scaled, share, blocks), ErrorSizes.of(told, errors)
