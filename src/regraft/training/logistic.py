"""Multinomial logistic regression by L-BFGS over a path of L2 strengths, with warm starts and out-of-fold logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold

GRID = tuple(float(v) for v in np.logspace(0.5, -4.5, 11))  # per-example mean loss + l2/2 |W|^2 on standardised features
CHUNK = 1 << 28  # bytes of features held at once; larger sets are streamed from their memory map in mini-batches


@dataclass(frozen=True)
class Path:
    """The out-of-fold result of an L2 path: (S,) strengths, mean losses, their standard errors, (S, N, K) logits."""

    l2: tuple[float, ...]
    losses: np.ndarray
    errors: np.ndarray
    logits: np.ndarray
    chosen: int


def _chunks(features: np.ndarray) -> Iterator[slice]:
    step = max(1, CHUNK // (features.shape[1] * 4))
    for start in range(0, len(features), step):
        yield slice(start, min(start + step, len(features)))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) mean and standard deviation, a constant feature's deviation taken as 1."""
    total, square = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for some in _chunks(features):
        total += features[some].sum(axis=0, dtype=np.float64)
    mean = total / len(features)
    for some in _chunks(features):
        square += ((features[some] - mean) ** 2).sum(axis=0, dtype=np.float64)
    deviation = np.sqrt(square / len(features))
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)


def softmax_logits(features: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(N, K) float32 logits of (N, D) features, (K, D) weight and (K,) bias."""
    return features @ weight.T + bias  # type: ignore[no-any-return]


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int, l2: float,
    start: np.ndarray | None = None, scaling: tuple[np.ndarray, np.ndarray] | None = None, tolerance: float = 1e-4,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Weight (K, D) and bias (K,) on raw features (the scaling is folded in), and the parameters to start the next from.

    Minimises sum(w_i * loss_i) / sum(w_i) + l2 / 2 * |W|^2 over standardised features, the bias free.
    """
    mean, deviation = scaling if scaling is not None else moments(features)
    count, width = features.shape
    share = (weights / weights.sum()).astype(np.float32)
    whole = ((features - mean) / deviation).astype(np.float32) if count * width * 4 <= CHUNK else None

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = flat.reshape(classes, width + 1)
        weight, bias = matrix[:, :width].astype(np.float32), matrix[:, width].astype(np.float32)
        value = 0.5 * l2 * float((matrix[:, :width] ** 2).sum())
        slope = np.zeros_like(matrix)
        slope[:, :width] = l2 * matrix[:, :width]
        for some in _chunks(features):
            x = whole[some] if whole is not None else (features[some] - mean) / deviation
            logits = x @ weight.T + bias
            logits -= logits.max(axis=1, keepdims=True)
            exponents = np.exp(logits)
            total = exponents.sum(axis=1, keepdims=True)
            row = np.arange(len(x))
            own = labels[some]
            value += float((share[some] * (np.log(total[:, 0]) - logits[row, own])).sum(dtype=np.float64))
            error = exponents / total
            error[row, own] -= 1
            error *= share[some, None]
            slope[:, :width] += error.T @ x
            slope[:, width] += error.sum(axis=0)
        return value, slope.ravel()

    begin = np.zeros(classes * (width + 1)) if start is None else start
    options = {"maxiter": 500, "gtol": tolerance / classes, "ftol": 1e-9, "maxcor": 20}
    found: Any = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload,unused-ignore]
    matrix = found.x.reshape(classes, width + 1)
    weight = (matrix[:, :width] / deviation).astype(np.float32)
    bias = (matrix[:, width] - (matrix[:, :width] / deviation) @ mean).astype(np.float32)
    return weight, bias, found.x


def folds_of(labels: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds; fewer where the smallest class has fewer examples, at least 2."""
    least = int(np.bincount(labels)[np.unique(labels)].min())
    splitter = StratifiedKFold(max(2, min(folds, least)), shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(labels)), labels))


def fit_path(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, classes: int, folds: int = 5, seed: int = 0,
    tick: Callable[..., None] = lambda **_: None, stop: Callable[[], bool] = lambda: False,
) -> Path:  # fmt: skip
    """Out-of-fold log loss from the strongest L2 to the weakest; ends two steps after the best.

    The chosen one is the strongest within one standard error of the best (Breiman et al. 1984), the error being that of
    the paired difference to the best.
    """
    splits = folds_of(labels, folds, seed)
    scalings = [moments(features[train]) for train, _ in splits]
    parts = [(features[train], features[held]) for train, held in splits] if features.nbytes <= CHUNK * 4 else None
    starts: list[np.ndarray | None] = [None] * len(splits)
    used: list[float] = []
    logits: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    for step, l2 in enumerate(GRID):
        out = np.zeros((len(labels), classes), dtype=np.float32)
        for number, (train, held) in enumerate(splits):
            known, unknown = parts[number] if parts else (features[train], features[held])
            weight, bias, starts[number] = fit_logistic(
                known, labels[train], weights[train], classes, l2, starts[number], scalings[number]
            )
            out[held] = softmax_logits(unknown, weight, bias)
        used.append(l2)
        logits.append(out)
        losses.append(_log_losses(out, labels))
        tick(label="choosing L2", done=step + 1, total=len(GRID))
        means = [float(loss.mean()) for loss in losses]
        if stop() or step - int(np.argmin(means)) >= 2:
            break
    best = int(np.argmin(means))
    chosen = best
    for candidate in range(best):
        difference = losses[candidate] - losses[best]
        if difference.mean() <= difference.std(ddof=1) / np.sqrt(len(labels)):
            chosen = candidate
            break
    errors = np.array([loss.std(ddof=1) / np.sqrt(len(labels)) for loss in losses])
    return Path(tuple(used), np.array(means), errors, np.stack(logits), chosen)


def _log_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return total - logits[np.arange(len(labels)), labels]  # type: ignore[no-any-return]
