"""The rows of a linear problem: (N, D) features, scaled, with targets and shares; in this process, or a part in
each of several workers.

One pass over workers is one call of each: what comes back are sums over its rows, so that nothing of N x D moves
once they hold their parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch

from regraft.crew import Crew, Held
from regraft.evaluation.finite import require_finite
from regraft.tasks import Link, Task

CHUNK = 1 << 24  # bytes of features looked at at once
LOGITS = 1 << 20  # outputs computed at once: what fits a cache is three times as fast
HUGE = 1e30  # a scale above which float32 does not hold differences
# Bytes of features kept scaled; more are streamed from their memory map and scaled in each pass
WHOLE = 1 << 28
# Bytes of features from which on workers hold them: as many as the store no longer holds in memory. On one machine
# two workers take twice as long as two threads of one process up to 500 MB (benchmarks/team.py); more was not measured
SPREAD = 2 << 30

Scaling = tuple[np.ndarray, np.ndarray]  # (D,) mean, and (D,) what to divide by
# Features an example from which on the rows are turned: a path took 3.8 times as long without where there were 6.9 (185
# examples of 37 classes), 1.3 times where there were 2.6 (496 of ten), and 0.7 times where there were 1.8 (700 of five)
FEW = 2
LEVEL = 1e-12  # of the largest variance: an axis of rows that varies less is one of rounding


def chunks(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The features, a bounded number at a time, with their positions."""
    step = max(1, CHUNK // (features.shape[1] * 4))
    for start in range(0, len(features), step):
        span = slice(start, min(start + step, len(features)))
        yield span, features[span]


def total(features: np.ndarray) -> np.ndarray:
    """(D,) float64 sum over the rows."""
    found = np.zeros(features.shape[1])
    for _, x in chunks(features):
        found += x.sum(axis=0, dtype=np.float64)
    return found


def squares(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(D,) float64 sum over the rows of the squared distance from (D,) `mean`."""
    found = np.zeros(features.shape[1])
    for _, x in chunks(features):
        found += ((x - mean) ** 2).sum(axis=0, dtype=np.float64)
    return found


def scaled(x: np.ndarray, scaling: Scaling) -> torch.Tensor:
    """(n, D) float32 features less their mean, divided by their scale. The memory is torch's own: aligned,
    so bits repeat.
    """
    mean, scale = (torch.from_numpy(np.array(values)) for values in scaling)
    large = bool((scale[scale.isfinite()] > HUGE).any())  # then float32 may not hold the differences
    kind = torch.float64 if large else torch.float32
    return torch.tensor(x, dtype=kind).sub_(mean).div_(scale).float()


class Rows(Protocol):
    """The rows of F problems of K outputs that differ in the examples' shares."""

    shape: tuple[int, int, int]  # F, K, D + 1

    def __len__(self) -> int: ...

    def slope(self, theta: torch.Tensor, value: float, gradient: torch.Tensor) -> float:
        """`value` and the sum of the losses at (F, K, D + 1) `theta`, whose gradient is added to `gradient`."""
        ...

    def covariance(self) -> torch.Tensor:
        """(D, D) of the scaled features."""
        ...

    @property
    def axes(self) -> torch.Tensor | None:
        """(D,) variances where the features are uncorrelated, as those of `turned` are; None where that is not
        known.
        """
        ...

    def logits(self, theta: torch.Tensor, folds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(M, K) logits of the examples at (M,) rising `rows`, each by the problem of its number in `folds`."""
        ...


@dataclass(frozen=True)
class Space:
    """What the solver's features are: raw ones less their `mean`, divided by their `scale` (both (D,)), and where
    examples are few, turned into the space of the rows by a (D, R) `basis`.
    """

    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray | None = None

    def raw(self, solution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(K, D) float32 weight and (K,) bias on raw features of a (K, R + 1) float64 solution."""
        weight = solution[:, :-1] if self.basis is None else solution[:, :-1] @ self.basis.T
        weight = weight / self.scale
        return weight.astype(np.float32), (solution[:, -1] - weight @ self.mean).astype(np.float32)

    def solved(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """(K, R + 1) float32: the reverse of `raw`, as near as the space of the rows comes."""
        known = weight * np.where(np.isfinite(self.scale), self.scale, 0)
        known = known if self.basis is None else known @ self.basis
        return np.column_stack([known, bias + weight @ self.mean]).astype(np.float32)


def turned(features: np.ndarray, scaling: Scaling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, R) float32 features in the space that the N rows span when scaled, with (R,) their variances and the
    (D, R) basis that they are coordinates in.

    A penalty on the squares of the weights leaves nothing outside this space (the representer theorem), so the
    solution is the same with R numbers a row, at most N, in place of D. The axes are those of the singular value
    decomposition, by the eigenvectors of the (N, N) products of the rows.
    """
    x = scaled(features, scaling).double()
    values, vectors = torch.linalg.eigh(x @ x.T)
    alive = values > LEVEL * float(values[-1])
    lengths, vectors = values[alive].sqrt(), vectors[:, alive]
    basis = x.T @ (vectors / lengths)
    return (vectors * lengths).float().numpy(), (values[alive] / len(x)).numpy(), basis.numpy()


class Here:
    """Rows in this process."""

    def __init__(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        shares: np.ndarray,
        task: Task,
        scaling: Scaling,
        most: float | None = None,
        axes: np.ndarray | None = None,
    ) -> None:
        self.features, self.scaling = features, scaling
        self.axes = None if axes is None else torch.from_numpy(axes)
        self.link: Link = task.link
        self.targets = self.link.tensor(targets)
        self.shares = torch.from_numpy(np.ascontiguousarray(shares.T, dtype=np.float32))  # (N, F)
        self.shape = (shares.shape[0], task.outputs, features.shape[1] + 1)
        self.whole = scaled(features, self.scaling) if 4 * features.size <= (most or WHOLE) else None

    def __len__(self) -> int:
        return len(self.targets)

    def parts(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The scaled features, as many rows at a time as have LOGITS logits, with their positions."""
        folds, classes, width = self.shape
        step = max(1, min(LOGITS // (folds * classes), CHUNK // (4 * width)))
        for start in range(0, len(self), step):
            span = slice(start, min(start + step, len(self)))
            yield span, scaled(self.features[span], self.scaling) if self.whole is None else self.whole[span]

    def slope(self, theta: torch.Tensor, value: float, gradient: torch.Tensor) -> float:
        """See `Rows.slope`."""
        flat = gradient.view(-1, self.shape[2])
        for span, x in self.parts():
            loss, error = self.link.slope(self._outputs(x, theta), self.targets[span], self.shares[span])
            value += loss
            error = error.view(len(x), -1)
            flat[:, :-1].addmm_(error.T, x)
            flat[:, -1] += error.sum(dim=0)
        return value

    def covariance(self, count: int | None = None) -> torch.Tensor:
        """See `Rows.covariance`; these rows' part of it where `count` says how many there are in all."""
        found = torch.zeros(self.shape[2] - 1, self.shape[2] - 1)
        for _, x in self.parts():
            found.addmm_(x.T, x, alpha=1 / (count or len(self)))
        return found

    def logits(self, theta: torch.Tensor, folds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Rows.logits`."""
        logits, fold = (
            np.empty((len(rows), self.shape[1]), dtype=np.float32),
            torch.from_numpy(np.array(folds)),
        )
        for span, x in self.parts():
            first, last = np.searchsorted(rows, (span.start, span.stop))
            if first < last:
                inside = torch.from_numpy(np.array(rows[first:last]))
                given = self._outputs(x[inside - span.start], theta)
                logits[first:last] = given[torch.arange(len(given)), fold[first:last]].numpy()
        return logits

    def _outputs(self, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """(n, F, K)."""
        folds, classes, width = self.shape
        flat = theta.view(folds * classes, width)
        return torch.addmm(flat[:, -1], x, flat[:, :-1].T).view(len(x), folds, classes)


@dataclass(frozen=True)
class Piece:
    """The rows from `start` on that one worker holds: (n, D) features, their targets and (F, n) shares."""

    start: int
    features: np.ndarray
    targets: np.ndarray
    shares: np.ndarray
    task: Task


class Shard:
    """What a worker holds: its piece, scaled by the moments of all rows as soon as these are known. Every
    question brings all that is needed for its answer, so that a successor needs nothing but the piece.
    """

    def __init__(self, piece: Piece) -> None:
        self.piece, self.scaling = piece, (np.zeros(0), np.zeros(0))
        self.rows: Here | None = None

    def total(self) -> np.ndarray:
        """See `total`."""
        return total(self.piece.features)

    def squares(self, mean: np.ndarray) -> np.ndarray:
        """See `squares`."""
        return squares(self.piece.features, mean)

    def slope(self, scaling: Scaling, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum of the losses of these rows, and its gradient."""
        at = torch.from_numpy(np.array(theta))
        gradient = torch.zeros_like(at)
        return self._scaled(scaling).slope(at, 0.0, gradient), gradient.numpy()

    def covariance(self, scaling: Scaling, count: int) -> np.ndarray:
        """These rows' part of the covariance of `count` rows."""
        return self._scaled(scaling).covariance(count).numpy()

    def logits(self, scaling: Scaling, theta: np.ndarray, folds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(m, K) logits of those of the rows that are here."""
        here, start = self._scaled(scaling), self.piece.start
        first, last = np.searchsorted(rows, (start, start + len(here)))
        return here.logits(torch.from_numpy(np.array(theta)), folds[first:last], rows[first:last] - start)

    def _scaled(self, scaling: Scaling) -> Here:
        if self.rows is None or not all(map(np.array_equal, scaling, self.scaling)):
            piece, self.rows, self.scaling = self.piece, None, scaling
            self.rows = Here(piece.features, piece.targets, piece.shares, piece.task, scaling, float("inf"))
        return self.rows


class Spread:
    """Rows that workers hold."""

    def __init__(self, held: Held, count: int, shape: tuple[int, int, int], scaling: Scaling) -> None:
        self.held, self.count, self.shape, self.scaling, self.axes = held, count, shape, scaling, None

    def __len__(self) -> int:
        return self.count

    def slope(self, theta: torch.Tensor, value: float, gradient: torch.Tensor) -> float:
        """See `Rows.slope`."""
        found = self.held.ask("slope", self.scaling, theta.numpy())
        for _, part in found:
            gradient += torch.from_numpy(np.array(part))
        return value + sum(float(losses) for losses, _ in found)

    def covariance(self) -> torch.Tensor:
        """See `Rows.covariance`."""
        return torch.from_numpy(np.sum(self.held.ask("covariance", self.scaling, self.count), axis=0))

    def logits(self, theta: torch.Tensor, folds: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Rows.logits`."""
        return np.concatenate(self.held.ask("logits", self.scaling, theta.numpy(), folds, rows))


def pareto_scaling(features: np.ndarray, held: Held | None = None) -> Scaling:
    """(D,) mean, and what to divide by: the square root of each feature's deviation, times that of all
    together.

    Pareto scaling (van den Berg et al. 2006) lies between none, where loud features drown the others, and
    unit variance, where those that hardly ever fire count as much as any. Out of fold on training sets, log
    loss by unit variance, by this and without: flowers 0.284, 0.261, 0.256; leaves 0.114, 0.071, 0.072;
    hand signs 0.242, 0.206, 0.222.

    What does not vary beyond the rounding of float32 is divided by infinity: it is 0 when scaled, and so is
    its weight. The sums are those of the workers that hold the rows, where some do. Raises UsageError for
    features that hold nan or infinity.
    """
    count = len(features)
    sums = total(features) if held is None else np.sum(held.ask("total"), axis=0)
    mean = sums / count
    if not np.isfinite(mean).all():
        require_finite(features)
    apart = squares(features, mean) if held is None else np.sum(held.ask("squares", mean), axis=0)
    deviation = np.sqrt(apart / count)
    together = float(np.sqrt((deviation**2).mean())) or 1.0
    scale = np.sqrt(np.maximum(deviation, 1e-6 * together) * together)
    scale[deviation <= np.maximum(1e-7 * np.abs(mean), 1e-20)] = np.inf
    return mean.astype(np.float32), scale.astype(np.float32)


@contextlib.contextmanager
def rows_of(
    features: np.ndarray,
    targets: np.ndarray,
    shares: np.ndarray,
    task: Task,
    scaling: Scaling | None = None,
    crew: Crew | None = None,
) -> Iterator[tuple[Rows, Space]]:
    """The rows of (N, D) features, (N, ...) targets and (F, N) shares, and the space they are in: scaled (Pareto,
    where no scaling is given), and of FEW times as many features as examples that of the rows. Several workers hold them
    where there are some and the features are large.
    """
    if crew is None or crew.workers < 2 or 4 * features.size < SPREAD:
        scaling = scaling or pareto_scaling(features)
        yield _here(features, targets, shares, task, scaling)
        return
    edges = [round(number * len(features) / crew.workers) for number in range(crew.workers + 1)]
    pieces = [
        Piece(a, np.asarray(features[a:b]), targets[a:b], shares[:, a:b], task) for a, b in pairwise(edges)
    ]
    with crew.hold(Shard, pieces) as held:
        scaling = scaling or pareto_scaling(features, held)
        shape = shares.shape[0], task.outputs, features.shape[1] + 1
        yield Spread(held, len(features), shape, scaling), Space(*scaling)


def _here(
    features: np.ndarray, targets: np.ndarray, shares: np.ndarray, task: Task, scaling: Scaling
) -> tuple[Here, Space]:
    """The rows in this process, and their space."""
    if FEW * len(features) <= features.shape[1] and 8 * features.size <= WHOLE:
        with contextlib.suppress(RuntimeError):  # there is no decomposition: LinAlgError is one
            found, axes, basis = turned(features, scaling)
            plain = np.zeros(len(axes), dtype=np.float32), np.ones(len(axes), dtype=np.float32)
            if len(axes) and np.isfinite(found).all():
                return Here(found, targets, shares, task, plain, axes=axes), Space(*scaling, basis)
    return Here(features, targets, shares, task, scaling), Space(*scaling)
