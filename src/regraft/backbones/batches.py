"""Batches as a preprocessing's `collate` makes them: arrays by name, the examples along the first axis of
each.
"""

from __future__ import annotations

import numpy as np
import torch

Batch = dict[str, np.ndarray]


def length(batch: Batch) -> int:
    """The number of examples."""
    return len(next(iter(batch.values())))


def padded(batch: Batch, count: int) -> Batch:
    """The batch with its last example repeated until there are `count`."""
    lacking = count - length(batch)
    if lacking <= 0:
        return batch
    return {
        name: np.concatenate([array, np.repeat(array[-1:], lacking, axis=0)]) for name, array in batch.items()
    }


def split(batch: Batch, size: int) -> list[Batch]:
    """Batches of `size` examples, the last one shorter."""
    return [
        {name: array[start : start + size] for name, array in batch.items()}
        for start in range(0, length(batch), size)
    ]


def tensors(batch: Batch, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The arrays of a batch as tensors on a device, by the same names."""
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
