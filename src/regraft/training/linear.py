"""Linear heads of any task by preconditioned L-BFGS over a path of L2 strengths, with out-of-fold outputs.

The task's link tells the loss: of the softmax it is multinomial logistic regression.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from regraft.evaluation import folds_of, standard_error
from regraft.evaluation.blocks import Fold
from regraft.evaluation.finite import require_finite
from regraft.tasks import Link, Task

# Per-example mean loss + l2/2 |W|^2 on scaled features
GRID = tuple(float(v) for v in np.logspace(0.5, -4.5, 11))
# The path only compares strengths: to 1e-6 it takes 1.6 times the passes and makes the same choices
PATH_FLAT = 1e-5
ITERATIONS = 500  # iterations
ROUND = 10  # iterations between two looks at the gradient
# Held-out examples that tell strengths apart: with more than five times as many, not every fold is tried
ENOUGH = 2_000
NEARLY = 0.95  # of ENOUGH is enough: a fold more would double the work for a hundred examples
HELD = 20_000  # held-out examples that are predicted: of 1,000 classes, 80 MB of logits
CHUNK = 1 << 24  # bytes of features looked at at once
LOGITS = 1 << 20  # outputs computed at once: what fits a cache is three times as fast
HUGE = 1e30  # a scale above which float32 does not hold differences
ALIVE = 1e-10  # of the largest variance: below it a feature does not vary but for rounding
# Bytes of features kept scaled; more are streamed from their memory map and scaled in each pass
WHOLE = 1 << 28


@dataclass(frozen=True)
class Path:
    """The out-of-fold result of an L2 path: (S,) strengths, mean losses and their standard errors, the
    number of the chosen one, and its (M, K) logits of the held-out `rows`: all examples, or those of the
    folds that were tried, or HELD of these.
    """

    l2: tuple[float, ...]
    losses: np.ndarray
    errors: np.ndarray
    chosen: int
    rows: np.ndarray
    logits: np.ndarray


def _chunks(features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The features, a bounded number at a time, with their positions."""
    step = max(1, CHUNK // (features.shape[1] * 4))
    for start in range(0, len(features), step):
        span = slice(start, min(start + step, len(features)))
        yield span, features[span]


def pareto_scaling(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) mean, and what to divide by: the square root of each feature's deviation, times that of all
    together.

    Pareto scaling (van den Berg et al. 2006) lies between none, where loud features drown the others, and
    unit variance, where those that hardly ever fire count as much as any. Out of fold on training sets, log
    loss by unit variance, by this and without: flowers 0.284, 0.261, 0.256; leaves 0.114, 0.071, 0.072;
    hand signs 0.242, 0.206, 0.222.

    What does not vary beyond the rounding of float32 is divided by infinity: it is 0 when scaled, and so is
    its weight. Raises UsageError for features that hold nan or infinity.
    """
    total, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for _, x in _chunks(features):
        total += x.sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    if not np.isfinite(mean).all():
        require_finite(features)
    for _, x in _chunks(features):
        square += ((x - mean) ** 2).sum(axis=0, dtype=np.float64)
    deviation = np.sqrt(square / len(features))
    together = float(np.sqrt((deviation**2).mean())) or 1.0
    scale = np.sqrt(np.maximum(deviation, 1e-6 * together) * together)
    scale[deviation <= np.maximum(1e-7 * np.abs(mean), 1e-20)] = np.inf
    return mean.astype(np.float32), scale.astype(np.float32)


def scaled(x: np.ndarray, scaling: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
    """(n, D) float32 features less their mean, divided by their scale. The memory is torch's own: aligned,
    so bits repeat.
    """
    mean, scale = (torch.from_numpy(values) for values in scaling)
    large = bool((scale[scale.isfinite()] > HUGE).any())  # then float32 may not hold the differences
    kind = torch.float64 if large else torch.float32
    return torch.tensor(x, dtype=kind).sub_(mean).div_(scale).float()


def linear_outputs(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(N, K) float32 logits of (N, D) features, (K, D) weight and (K,) bias."""
    outputs = np.empty((len(features), len(bias)), dtype=np.float32)
    for span, x in _chunks(features):
        outputs[span] = x @ weight.T + bias
    return outputs


@dataclass(frozen=True)
class _Preconditioner:
    """A change of the variables (F, K, D + 1) that makes the curvature about the same in all directions.

    L-BFGS then takes 37 passes over the data where it took 239 (10,000 examples, 1,280 features, 100
    classes).
    """

    root: torch.Tensor | None  # (D, D), symmetric; None changes nothing
    inverse: torch.Tensor | None
    bias: float

    def back(self, phi: torch.Tensor) -> torch.Tensor:
        """To the weights; gradients by these go the same way to gradients by the variables."""
        return (
            phi
            if self.root is None
            else torch.cat([phi[:, :, :-1] @ self.root, phi[:, :, -1:] * self.bias], dim=2)
        )

    def into(self, theta: torch.Tensor) -> torch.Tensor:
        """To the variables."""
        if self.inverse is None:
            return theta.clone()
        return torch.cat([theta[:, :, :-1] @ self.inverse, theta[:, :, -1:] / self.bias], dim=2)


class _Problem:
    """F linear heads on the same (N, D) features that differ in the (F, N) shares of the examples,
    solved as one.

    One product gives the logits of all F, so five folds of a few classes cost little more than one.
    """

    def __init__(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        shares: np.ndarray,
        task: Task,
        scaling: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self.features, self.scaling = features, scaling
        self.link: Link = task.link
        self.targets = self.link.tensor(targets)
        self.shares = torch.from_numpy(np.ascontiguousarray(shares.T, dtype=np.float32))  # (N, F)
        self.shape = (shares.shape[0], task.outputs, features.shape[1] + 1)
        self.whole = scaled(features, self.scaling) if 4 * features.size <= WHOLE else None

    @cached_property
    def _spectrum(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(D,) eigenvalues and (D, D) eigenvectors of the features' covariance, float64; None for fewer
        examples than features.

        None too where there is no decomposition: it speeds the search up, and the search ends without it.
        """
        if len(self.targets) < self.shape[2]:
            return None
        covariance = torch.zeros(self.shape[2] - 1, self.shape[2] - 1)
        for _, x in self._parts():
            covariance.addmm_(x.T, x, alpha=1 / len(self.targets))
        diagonal = covariance.diagonal()
        # What hardly varies is an axis of its own
        alive = (diagonal > ALIVE * diagonal.max()).nonzero()[:, 0]
        values, vectors = (
            torch.zeros(len(covariance), dtype=torch.float64),
            torch.eye(len(covariance), dtype=torch.float64),
        )
        with contextlib.suppress(RuntimeError):  # LinAlgError is one
            eigenvalues, turned = torch.linalg.eigh(covariance[alive][:, alive].double())
            values[alive] = eigenvalues.clamp_min_(0)
            vectors[alive[:, None], alive] = turned
            return (values, vectors) if bool(values.isfinite().all() and vectors.isfinite().all()) else None
        return None

    def _preconditioner(self, l2: float) -> _Preconditioner:
        """For the link's curvature times the covariance, plus the penalty's."""
        curvature = self.link.curvature
        if self._spectrum is None or curvature <= 0:
            return _Preconditioner(None, None, 1.0)
        values, vectors = self._spectrum
        curved = curvature * values + l2
        root = curved.clamp_min_(ALIVE * float(curved.max())).sqrt_()
        there, back = (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
        return _Preconditioner(there.float(), back.float(), curvature**-0.5)

    def _parts(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The scaled features, as many rows at a time as have LOGITS logits, with their positions."""
        folds, classes, width = self.shape
        step = max(1, min(LOGITS // (folds * classes), CHUNK // (4 * width)))
        for start in range(0, len(self.targets), step):
            span = slice(start, min(start + step, len(self.targets)))
            yield span, scaled(self.features[span], self.scaling) if self.whole is None else self.whole[span]

    def _logits(self, x: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        """(n, F, K)."""
        folds, classes, width = self.shape
        flat = theta.view(folds * classes, width)
        return torch.addmm(flat[:, -1], x, flat[:, :-1].T).view(len(x), folds, classes)

    def slope(self, theta: torch.Tensor, l2: float) -> tuple[float, torch.Tensor]:
        """The sum of the objectives at (F, K, D + 1) `theta`, and its gradient."""
        weight = theta[:, :, :-1]
        value, gradient = 0.5 * l2 * float(weight.double().square().sum()), torch.zeros_like(theta)
        gradient[:, :, :-1] = l2 * weight
        flat = gradient.view(-1, self.shape[2])
        for span, x in self._parts():
            loss, error = self.link.slope(self._logits(x, theta), self.targets[span], self.shares[span])
            value += loss
            error = error.view(len(x), -1)
            flat[:, :-1].addmm_(error.T, x)
            flat[:, -1] += error.sum(dim=0)
        return value, gradient

    def solve(self, l2: float, start: torch.Tensor | None, tolerance: float, flat: float) -> torch.Tensor:
        """(F, K, D + 1) at a gradient of norm `tolerance` at most in each problem, or where the objective
        falls by < `flat`.
        """
        change = self._preconditioner(l2)
        phi = change.into(torch.zeros(self.shape) if start is None else start).requires_grad_(True)
        optimiser = torch.optim.LBFGS(
            [phi],
            max_iter=ROUND,
            max_eval=1000,
            history_size=10,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=flat * self.shape[0],
        )
        norm = float("inf")

        def closure() -> float:
            nonlocal norm
            with torch.no_grad():
                value, gradient = self.slope(change.back(phi.detach()), l2)
                norm = float(gradient.flatten(1).norm(dim=1).max())
                phi.grad = change.back(gradient)
            return value

        for round_ in range(1, ITERATIONS // ROUND + 1):
            optimiser.step(closure)  # type: ignore[arg-type]
            if norm <= tolerance or optimiser.state[phi]["n_iter"] < round_ * ROUND:
                break
        return change.back(phi.detach())

    def logits(self, theta: torch.Tensor, place: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(M, K) logits of the examples at (M,) rising `rows`, each by the problem whose number is its
        `place` (N,).
        """
        logits, fold = np.empty((len(rows), self.shape[1]), dtype=np.float32), torch.from_numpy(place)
        for span, x in self._parts():
            first, last = np.searchsorted(rows, (span.start, span.stop))
            if first < last:
                inside = torch.from_numpy(rows[first:last])
                given = self._logits(x[inside - span.start], theta)
                logits[first:last] = given[torch.arange(len(given)), fold[inside]].numpy()
        return logits


def _shares(weights: np.ndarray) -> np.ndarray:
    """(N,) what each example's loss is multiplied by: its part of the whole weight, 0 where there is none."""
    total = weights.sum()
    return np.asarray(weights / total) if total > 0 else np.zeros(len(weights))


def fit_linear(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    task: Task,
    l2: float,
    *,
    scaling: tuple[np.ndarray, np.ndarray] | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = 1e-4,
    flat: float = 1e-9,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (K, D) and bias (K,) on raw features: the scaling (Pareto, where none is given) is folded in.

    Minimises sum(w_i * loss_i) / sum(w_i) + l2 / 2 * |W|^2 over scaled features, the bias free; where all
    weights are 0, that is 0, and so is what comes out. Features larger than WHOLE are streamed in
    mini-batches whose gradients add up, so a memory-mapped array of any length will do and the result is
    that of the whole. Ends at a gradient of norm `tolerance` or a fall of the objective below `flat`.
    `start` is a weight and a bias as they are returned: what a fit on similar data gave.
    """
    mean, scale = scaling if scaling is not None else pareto_scaling(features)
    problem = _Problem(features, targets, _shares(weights)[None], task, (mean, scale))
    begin: torch.Tensor | None = None
    if start is not None:
        weight, bias = start
        known = weight * np.where(np.isfinite(scale), scale, 0)
        begin = torch.from_numpy(np.column_stack([known, bias + weight @ mean]).astype(np.float32))[None]
    solution = problem.solve(l2, begin, tolerance, flat)[0].double().numpy()
    weight = solution[:, :-1] / scale
    return weight.astype(np.float32), (solution[:, -1] - weight @ mean).astype(np.float32)


def tried_folds(strata: np.ndarray, folds: int, seed: int, blocks: np.ndarray | None = None) -> list[Fold]:
    """Folds, stratified and by block, as many as hold out ENOUGH examples or nearly so. Of very many held-out
    examples a sample of HELD in all stays.
    """
    splits = folds_of(strata, folds, seed, blocks)
    splits = splits[: max(1, math.ceil(NEARLY * ENOUGH * len(splits) / len(strata)))]
    most, rng = HELD // len(splits), np.random.default_rng(seed)
    return [
        (train, held if len(held) <= most else np.sort(rng.permutation(held)[:most]))
        for train, held in splits
    ]


def fit_path(
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    task: Task,
    folds: int = 5,
    seed: int = 0,
    tick: Callable[..., None] = lambda **_: None,
    stop: Callable[[], bool] = lambda: False,
    l2: float | None = None,
    blocks: np.ndarray | None = None,
) -> Path:
    """Out-of-fold log loss from the strongest L2 to the weakest; ends two steps after the best, or at the
    `l2` that is named.

    The chosen one is the strongest within one standard error of the best (Breiman et al. 1984), the error
    being that of the paired difference to the best. As many folds are tried as hold out ENOUGH examples; no
    fold parts one of the `blocks` (N,), and errors count blocks. The features' scaling, which knows no
    labels, is that of all examples. One that is named is reached by the same way, and so with the same
    bits, as when it is chosen.
    """
    splits = tried_folds(task.strata(targets), folds, seed, blocks)
    grid = GRID if l2 is None else (*(strength for strength in GRID if strength > l2), l2)
    rows = np.sort(np.concatenate([held for _, held in splits]))
    shares, place = (
        np.zeros((len(splits), len(targets)), dtype=np.float32),
        np.zeros(len(targets), dtype=np.int64),
    )
    for number, (train, held_out) in enumerate(splits):
        shares[number, train], place[held_out] = _shares(weights[train]), number
    problem = _Problem(features, targets, shares, task, pareto_scaling(features))
    thetas: list[torch.Tensor] = []
    losses: list[np.ndarray] = []
    for step, strength in enumerate(grid):
        thetas.append(problem.solve(strength, thetas[-1] if thetas else None, 1e-4, PATH_FLAT))
        losses.append(task.link.losses(targets[rows], problem.logits(thetas[-1], place, rows)))
        tick(label="choosing L2", done=step + 1, total=len(grid))
        means = [float(loss.mean()) for loss in losses]
        if stop() or (l2 is None and step - int(np.argmin(means)) >= 2):
            break
    best = int(np.argmin(means)) if l2 is None else len(means) - 1
    units = None if blocks is None else blocks[rows]
    errors = [standard_error(loss - losses[best], units) for loss in losses]
    chosen = next(n for n in range(best + 1) if means[n] - means[best] <= errors[n]) if l2 is None else best
    spread = np.array([standard_error(loss, units) for loss in losses])
    return Path(
        grid[: len(means)], np.array(means), spread, chosen, rows, problem.logits(thetas[chosen], place, rows)
    )
