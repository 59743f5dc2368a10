"""From the outputs of linear heads to their losses and slopes: what the one solver of linear heads asks of
a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 1 << 20  # outputs whose losses are computed at once: what fits a cache is three times as fast


class Link(Protocol):
    """A convex loss of K outputs, with its slope.

    Shapes: n examples of a chunk, F heads solved together, K outputs of each.
    """

    @property
    def curvature(self) -> float:
        """The second derivative of an example's loss in one output where nothing is learnt yet, which is
        all outputs at 0; 0 where that tells nothing, so that the search goes without it.
        """

    def tensor(self, targets: np.ndarray) -> Tensor:
        """(N, ...) targets as `slope` takes them."""

    def slope(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[float, Tensor]:
        """The sum of the losses of (n, F, K) outputs, each times its share (n, F), and the derivative by
        each output, (n, F, K). The outputs may be written over.
        """

    def losses(self, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """(N,) losses of (N, K) outputs in the precision of these; what is no number stays none."""


class Softmax:
    """The link of one class in K: the log loss of the softmax, in nats."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @property
    def curvature(self) -> float:
        """That at equal probabilities, (K - 1) / K^2."""
        return (self.classes - 1) / self.classes**2

    def tensor(self, targets: np.ndarray) -> Tensor:
        """(N,) int64."""
        import torch

        return torch.from_numpy(targets.astype(np.int64))

    def slope(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[float, Tensor]:
        """Probabilities less 1 of the true class, times the shares."""
        share = shares[:, :, None]
        own = targets[:, None, None].expand(-1, outputs.shape[1], 1)
        top, mine = outputs.amax(dim=2, keepdim=True), outputs.gather(2, own)
        error = outputs.sub_(top).exp_()
        total = error.sum(dim=2, keepdim=True)
        value = float((share * (total.log() + top - mine)).double().sum())
        error *= share / total
        error.scatter_add_(2, own, -share)
        return value, error

    def losses(self, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """(N,) log losses in nats."""
        losses = np.empty(len(targets), dtype=outputs.dtype)
        step = max(1, AT_ONCE // max(1, outputs.shape[1]))
        for start in range(0, len(targets), step):
            logits = outputs[start : start + step]
            top = logits.max(axis=1, keepdims=True)
            total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
            losses[start : start + step] = (
                total - logits[np.arange(len(logits)), targets[start : start + step]]
            )
        return losses
