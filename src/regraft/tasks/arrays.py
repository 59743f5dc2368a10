"""Targets that are plain arrays, of users with features of their own: which task they are, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.errors import UsageError
from regraft.tasks.multi import Multi
from regraft.tasks.numbers import Numbers
from regraft.tasks.single import Single


@dataclass(frozen=True)
class Given:
    """The task of an array, its (N, ...) targets as the task has them, and how its outputs become answers in the
    units of the array: times `scale` (K,), and then plus `shift` (K,).
    """

    task: Any
    targets: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


def given_in(targets: np.ndarray, kind: str) -> Given:
    """Of an array of a kind of task: (N,) whole numbers from 0 of classes ("single"), (N, K) of 0 and 1 of labels
    ("multi"), (N,) or (N, K) numbers ("regression"). Of the last two NaN says that one is not known.

    Raises UsageError for another kind, and for what nothing can be learnt of.
    """
    if kind not in _READ:
        raise UsageError(f"{kind!r}: a head is of a task that is one of {', '.join(_READ)}.")
    if not len(targets):
        raise UsageError("there are no examples to fit a head to.")
    return _READ[kind](targets)


def _classes(targets: np.ndarray) -> Given:
    if targets.ndim != 1:
        raise UsageError(f"labels of single classes are (N,); found {targets.shape}.")
    if targets.dtype.kind not in "iub" or int(targets.min()) < 0 or int(targets.max()) == 0:
        raise UsageError("labels are whole numbers from 0 up, of two classes at least.")
    task = Single(_names(int(targets.max()) + 1))
    return Given(task, targets.astype(np.int64), np.ones(task.outputs), np.zeros(task.outputs))


def _labels(targets: np.ndarray) -> Given:
    table = _table(targets)
    known = np.isfinite(table)
    if not np.isin(table[known], (0, 1)).all() or np.isinf(table).any():
        raise UsageError("several labels are 0 or 1 each, or nan where one is not known.")
    for k, column in enumerate(table.T):
        if not (column == 0).any() or not (column == 1).any():
            raise UsageError(f"label {k}: there is nothing to learn unless some have it and some do not.")
    task = Multi(_names(table.shape[1])).fitted(table)
    return Given(task, table.astype(np.float32), np.ones(task.outputs), np.zeros(task.outputs))


def _numbers(targets: np.ndarray) -> Given:
    table = _table(targets)
    if np.isinf(table).any():
        raise UsageError("numbers are finite, or nan where one is not known.")
    for k, column in enumerate(table.T):
        known = column[np.isfinite(column)]
        if not len(known) or np.ptp(known) == 0:
            raise UsageError(f"number {k} is always the same: there is nothing to learn.")
    task = Numbers(_names(table.shape[1])).fitted(table)
    shift = task.values(np.zeros((1, task.outputs)))[0]
    return Given(task, table, task.values(np.ones((1, task.outputs)))[0] - shift, shift)


def _table(targets: np.ndarray) -> np.ndarray:
    """(N, K) float64, of which each row knows something."""
    if targets.dtype.kind not in "iubf" or targets.ndim not in (1, 2):
        raise UsageError(f"targets are numbers, (N,) or (N, K); found {targets.dtype} {targets.shape}.")
    table = targets.astype(np.float64).reshape(len(targets), -1)
    unknown = np.flatnonzero(np.isnan(table).all(axis=1))
    if len(unknown):
        raise UsageError(f"nothing is known of row {unknown[0]}: leave it out.")
    return table


def _names(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


_READ: dict[str, Callable[[np.ndarray], Given]] = {
    "single": _classes,
    "multi": _labels,
    "regression": _numbers,
}
