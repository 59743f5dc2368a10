"""Weights between those of the head alone and those that fine-tuning reached (WiSE-FT, Wortsman et al. 2022)."""

from __future__ import annotations

import torch

from regraft.training import State

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way to the fine-tuned weights; 0 is the head alone


def between(start: State, end: State, share: float) -> State:
    """The weights a share of the way from one state to another; counters are those of the end.

    Such a mixture often holds better on new examples than either end.
    """
    return {
        name: torch.lerp(start[name].to(value), value, share)
        if value.is_floating_point() and share != 1
        else value
        for name, value in end.items()
    }
