"""Lengths that items of any length are padded to: few shapes, so that engines prepare few, and little padding."""

from __future__ import annotations

SHORTEST = 8  # a shorter item costs no less
STEPS = 4  # lengths an octave: an eighth of a batch is padding on average, and a fifth at most


def bucket_of(length: int) -> int:
    """The least length of the grid that is no shorter: 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48 and so on.

    `collate` of a preprocessing whose items have lengths of their own pads to it. It depends on the item
    alone, so an item goes in the same shape whatever stands beside it.
    """
    if length <= SHORTEST:
        return SHORTEST
    step = 1 << max(0, (length - 1).bit_length() - 1 - (STEPS.bit_length() - 1))
    return -(-length // step) * step
