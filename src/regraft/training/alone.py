"""A linear head on features of any origin: what is given is checked, for nothing before it did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks
from regraft.tasks import task_of
from regraft.training.linear import fit_path
from regraft.training.network import linear_head


def head_alone(
    features: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    l2: float | None,
    seed: int,
    blocks: np.ndarray | None,
) -> nn.Sequential:
    """A linear head (B, D) -> (B, K) on (N, D) features and (N,) integer labels from 0, K of them.

    Without `l2` it is chosen by the out-of-fold log loss of folds that part none of the `blocks` (N,).
    Raises UsageError for what no head can be fitted to, with the reason.
    """
    values, targets = np.asarray(features), np.asarray(labels)
    if values.ndim != 2 or not values.size or targets.shape != values.shape[:1]:
        raise UsageError(
            f"a head takes (N, D) features and (N,) labels; found {values.shape} and {targets.shape}."
        )
    if targets.dtype.kind not in "iub" or int(targets.min()) < 0 or int(targets.max()) == 0:
        raise UsageError("labels are whole numbers from 0 up, of two classes at least.")
    if blocks is not None and len(blocks) != len(targets):
        raise UsageError(f"there are {len(targets)} examples and {len(blocks)} groups: each example has one.")
    if l2 is not None and not 0 < l2 < float("inf"):
        raise UsageError(f"l2 is a number above 0; found {l2}.")
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and is refused as such
        values, targets = np.ascontiguousarray(values, dtype=np.float32), targets.astype(np.int64)
    task = task_of("single", [str(number) for number in range(int(targets.max()) + 1)])
    weights = np.ones(len(targets))
    if l2 is None:
        if fewest_blocks(targets, blocks) < 2:
            raise UsageError(
                "a class has a single example, or examples of one group only: "
                "no fold can spare it. Name an l2."
            )
        path = fit_path(values, targets, weights, task, seed=seed, blocks=blocks)
        l2 = path.l2[path.chosen]
    return linear_head(values, targets, weights, task, l2)
