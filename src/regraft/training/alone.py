"""A linear head on features of any origin: what is given is checked, for nothing before it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks
from regraft.tasks import given_in
from regraft.training.linear import fit_path
from regraft.training.network import linear_head


def head_alone(
    features: np.ndarray,
    targets: Sequence[Any] | np.ndarray,
    l2: float | None,
    seed: int,
    blocks: np.ndarray | None,
    kind: str = "single",
) -> nn.Sequential:
    """A linear head (B, D) -> (B, K) on (N, D) features and (N, ...) targets of a kind of task (`given_in`): it gives
    logits of classes or labels, and numbers in their own units.

    Without `l2` it is chosen by the out-of-fold loss of folds that part none of the `blocks` (N,).
    Raises UsageError for what no head can be fitted to, with the reason.
    """
    values, answers = np.asarray(features), np.asarray(targets)
    if values.ndim != 2 or not values.size or answers.shape[:1] != values.shape[:1]:
        raise UsageError(
            f"a head takes (N, D) features and a label or target for each; found {values.shape} and "
            f"{answers.shape}."
        )
    if blocks is not None and len(blocks) != len(answers):
        raise UsageError(f"there are {len(answers)} examples and {len(blocks)} groups: each example has one.")
    if l2 is not None and not 0 < l2 < float("inf"):
        raise UsageError(f"l2 is a number above 0; found {l2}.")
    given = given_in(answers, kind)
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and is refused as such
        values = np.ascontiguousarray(values, dtype=np.float32)
    weights = np.ones(len(answers))
    if l2 is None:
        if fewest_blocks(given.task.strata(given.targets), blocks) < 2:
            raise UsageError(
                "a class has a single example, or examples of one group only: "
                "no fold can spare it. Name an l2."
            )
        path = fit_path(values, given.targets, weights, given.task, seed=seed, blocks=blocks)
        l2 = path.l2[path.chosen]
    head = linear_head(values, given.targets, weights, given.task, l2)
    last = head[-1]
    assert isinstance(last, nn.Linear)
    scale, shift = (torch.as_tensor(one, dtype=torch.float32) for one in (given.scale, given.shift))
    with torch.no_grad():
        last.weight.mul_(scale[:, None])
        last.bias.mul_(scale).add_(shift)
    return head
