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


class Sigmoids:
    """The link of K questions of yes or no, side by side: the sum of their log losses, in nats. A target that
    is NaN is not known, and counts nowhere.

    `positive` (K,) is how often each yes counts. The outputs stay log odds all the same: their logarithms are
    added in the loss alone, by as much as the weights would move the outputs (the prior correction of King and
    Zeng 2001).
    """

    curvature = 0.25  # that at a probability of one half

    def __init__(self, positive: np.ndarray | None = None) -> None:
        self.positive = positive

    def tensor(self, targets: np.ndarray) -> Tensor:
        """(N, K) float32."""
        import torch

        return torch.from_numpy(targets.astype(np.float32))

    def slope(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[float, Tensor]:
        """Probabilities less the targets, times the shares."""
        import torch
        from torch.nn.functional import softplus

        known = targets.isfinite()[:, None, :]
        wanted = targets.nan_to_num(0.0)[:, None, :]
        share = shares[:, :, None] * known
        if self.positive is not None:
            weights = torch.as_tensor(self.positive, dtype=outputs.dtype)
            outputs = outputs.add_(weights.log())
            share = torch.where(wanted > 0, share * weights, share)
        value = float((share * (softplus(outputs) - wanted * outputs)).double().sum())
        return value, outputs.sigmoid().sub_(wanted).mul_(share)

    def losses(self, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """(N,) sums of log losses in nats."""
        known = np.isfinite(targets)
        wanted = np.where(known, targets, 0).astype(outputs.dtype)
        weights: np.ndarray = known.astype(outputs.dtype)
        if self.positive is not None:
            outputs = outputs + np.log(self.positive).astype(outputs.dtype)
            weights = np.where(wanted > 0, weights * self.positive, weights).astype(outputs.dtype)
        each = np.logaddexp(0, outputs).astype(outputs.dtype) - wanted * outputs
        return np.asarray((each * weights).sum(axis=1))


class Squares:
    """The link of K numbers: half the sum of their squared errors (ridge regression), or of Huber's loss (1964),
    which from an error of `turn` on is linear. `mean` and `scale` (K,) say what of a target is 0 and what is 1.
    A target that is NaN is not known, and counts nowhere.
    """

    curvature = 1.0

    def __init__(self, mean: np.ndarray, scale: np.ndarray, turn: float = float("inf")) -> None:
        self.mean, self.scale, self.turn = mean, scale, turn

    def tensor(self, targets: np.ndarray) -> Tensor:
        """(N, K) float32, standardised."""
        import torch

        return torch.from_numpy(((targets - self.mean) / self.scale).astype(np.float32))

    def slope(self, outputs: Tensor, targets: Tensor, shares: Tensor) -> tuple[float, Tensor]:
        """The errors, cut off at the turn, times the shares."""
        known = targets.isfinite()[:, None, :]
        share = shares[:, :, None] * known
        error = outputs.sub_(targets.nan_to_num(0.0)[:, None, :])
        near = error.clamp(-self.turn, self.turn)
        value = float((share * near * (error - 0.5 * near)).double().sum())
        return value, near.mul_(share)

    def losses(self, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """(N,) sums of the losses, in the deviations of the targets."""
        error = np.nan_to_num((targets - self.mean) / self.scale - outputs)
        near = np.clip(error, -self.turn, self.turn)
        return np.asarray((near * (error - 0.5 * near)).sum(axis=1).astype(outputs.dtype))
