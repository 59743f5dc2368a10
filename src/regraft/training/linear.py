"""Linear heads of any task by preconditioned L-BFGS over a path of L2 strengths, with out-of-fold outputs.

The task's link tells the loss: of the softmax it is multinomial logistic regression.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from regraft.crew import Crew
from regraft.evaluation import folds_of, standard_error
from regraft.evaluation.blocks import Fold
from regraft.tasks import Link, Task
from regraft.training.rows import Rows, chunks, rows_of

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
ALIVE = 1e-10  # of the largest variance: below it a feature does not vary but for rounding


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


def linear_outputs(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(N, K) float32 logits of (N, D) features, (K, D) weight and (K,) bias."""
    outputs = np.empty((len(features), len(bias)), dtype=np.float32)
    for span, x in chunks(features):
        outputs[span] = x @ weight.T + bias
    return outputs


@dataclass(frozen=True)
class _Preconditioner:
    """A change of the variables (F, K, D + 1) that makes the curvature about the same in all directions.

    L-BFGS then takes 37 passes over the data where it took 239 (10,000 examples, 1,280 features, 100
    classes).
    """

    root: torch.Tensor | None  # (D, D), symmetric, or (D,), its diagonal; None changes nothing
    inverse: torch.Tensor | None
    bias: float

    def back(self, phi: torch.Tensor) -> torch.Tensor:
        """To the weights; gradients by these go the same way to gradients by the variables."""
        return (
            phi
            if self.root is None
            else torch.cat([_times(phi[:, :, :-1], self.root), phi[:, :, -1:] * self.bias], dim=2)
        )

    def into(self, theta: torch.Tensor) -> torch.Tensor:
        """To the variables."""
        if self.inverse is None:
            return theta.clone()
        return torch.cat([_times(theta[:, :, :-1], self.inverse), theta[:, :, -1:] / self.bias], dim=2)


def _times(weight: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """The product with a symmetric matrix, or one that is told by its diagonal."""
    return weight * root if root.ndim == 1 else weight @ root


class _Problem:
    """F linear heads on the same rows that differ in the shares of the examples, solved as one.

    One product gives the logits of all F, so five folds of a few classes cost little more than one.
    """

    def __init__(self, rows: Rows, link: Link) -> None:
        self.rows, self.link, self.shape = rows, link, rows.shape

    @cached_property
    def _spectrum(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(D,) eigenvalues and (D, D) eigenvectors of the features' covariance, float64; None for fewer
        examples than features.

        None too where there is no decomposition: it speeds the search up, and the search ends without it.
        """
        if len(self.rows) < self.shape[2]:
            return None
        covariance = self.rows.covariance()
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
        curvature, axes = self.link.curvature, self.rows.axes
        if axes is not None and curvature > 0:
            root = self._root(axes, l2)
            return _Preconditioner((1 / root).float(), root.float(), curvature**-0.5)
        if self._spectrum is None or curvature <= 0:
            return _Preconditioner(None, None, 1.0)
        values, vectors = self._spectrum
        root = self._root(values, l2)
        there, back = (vectors / root) @ vectors.T, (vectors * root) @ vectors.T
        return _Preconditioner(there.float(), back.float(), curvature**-0.5)

    def _root(self, variances: torch.Tensor, l2: float) -> torch.Tensor:
        """The root of the curvature along axes of these variances."""
        curved = self.link.curvature * variances + l2
        return curved.clamp_min_(ALIVE * float(curved.max())).sqrt_()

    def slope(self, theta: torch.Tensor, l2: float) -> tuple[float, torch.Tensor]:
        """The sum of the objectives at (F, K, D + 1) `theta`, and its gradient."""
        weight = theta[:, :, :-1]
        value, gradient = 0.5 * l2 * float(weight.double().square().sum()), torch.zeros_like(theta)
        gradient[:, :, :-1] = l2 * weight
        return self.rows.slope(theta, value, gradient), gradient

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
    crew: Crew | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (K, D) and bias (K,) on raw features: the scaling (Pareto, where none is given) is folded in.

    Minimises sum(w_i * loss_i) / sum(w_i) + l2 / 2 * |W|^2 over scaled features, the bias free; where all
    weights are 0, that is 0, and so is what comes out. Features larger than WHOLE are streamed in
    mini-batches whose gradients add up, so a memory-mapped array of any length will do and the result is
    that of the whole. Ends at a gradient of norm `tolerance` or a fall of the objective below `flat`.
    `start` is a weight and a bias as they are returned: what a fit on similar data gave. Of large features
    the workers of a `crew` hold a part each, and a pass is one call of each.
    """
    with rows_of(features, targets, _shares(weights)[None], task, scaling, crew) as (rows, space):
        begin = None if start is None else torch.from_numpy(space.solved(*start))[None]
        solution = _Problem(rows, task.link).solve(l2, begin, tolerance, flat)[0].double().numpy()
    return space.raw(solution)


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
    crew: Crew | None = None,
) -> Path:
    """Out-of-fold log loss from the strongest L2 to the weakest; ends two steps after the best, or at the
    `l2` that is named.

    The chosen one is the strongest within one standard error of the best (Breiman et al. 1984), the error
    being that of the paired difference to the best. As many folds are tried as hold out ENOUGH examples; no
    fold parts one of the `blocks` (N,), and errors count blocks. The features' scaling, which knows no
    labels, is that of all examples. One that is named is reached by the same way, and so with the same
    bits, as when it is chosen. Of large features the workers of a `crew` hold a part each.
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
    with rows_of(features, targets, shares, task, crew=crew) as (held, _):
        problem, thetas, losses = _Problem(held, task.link), list[torch.Tensor](), list[np.ndarray]()
        for step, strength in enumerate(grid):
            thetas.append(problem.solve(strength, thetas[-1] if thetas else None, 1e-4, PATH_FLAT))
            logits = held.logits(thetas[-1], place[rows], rows)
            losses.append(task.link.losses(targets[rows], logits))
            tick(label="choosing L2", done=step + 1, total=len(grid))
            means = [float(loss.mean()) for loss in losses]
            if stop() or (l2 is None and step - int(np.argmin(means)) >= 2):
                break
        best = int(np.argmin(means)) if l2 is None else len(means) - 1
        units = None if blocks is None else blocks[rows]
        errors = [standard_error(loss - losses[best], units) for loss in losses]
        near = next(n for n in range(best + 1) if means[n] - means[best] <= errors[n])
        chosen = near if l2 is None else best
        spread = np.array([standard_error(loss, units) for loss in losses])
        logits = held.logits(thetas[chosen], place[rows], rows)
    return Path(grid[: len(means)], np.array(means), spread, chosen, rows, logits)
