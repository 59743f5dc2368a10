"""A linear model of sparse features, of which there are tens of thousands: none is scaled, all are penalised
alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse

    from regraft.tasks import Link

ITERATIONS, CLOSE = 50, 1e-4  # more of either moves no answer to speak of
FLAT = 1e-6  # of the loss: an iteration that lowers it by less is the last
REMEMBERED = 3  # steps that L-BFGS goes by: each takes the memory of two sets of weights


def solved(
    features: sparse.csr_matrix,
    targets: np.ndarray,
    weights: np.ndarray,
    link: Link,
    outputs: int,
    l2: float,
    iterations: int = ITERATIONS,
    slope: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) float32 weights and (K,) bias for (N, R) features: the least mean loss, each example by its
    weight, and l2 / 2 times the squared weights, by L-BFGS.

    It ends after so many `iterations`, or where no derivative is larger than `slope`. All is held in float32,
    about fourteen times the memory of the weights: SciPy's own takes twice as much for each number, and most of
    its time goes into them.
    """
    import torch

    count, wide = features.shape
    features = features.astype(np.float32, copy=False)
    shares = torch.from_numpy((weights / weights.sum()).astype(np.float32))[:, None]
    truth, columns = link.tensor(targets), features.T.tocsr()
    theta = torch.zeros(wide + 1, outputs)
    optimiser = torch.optim.LBFGS(
        [theta],
        max_iter=iterations,
        max_eval=10 * iterations,
        history_size=REMEMBERED,
        line_search_fn="strong_wolfe",
        tolerance_grad=CLOSE / count**0.5 if slope is None else slope,
        tolerance_change=FLAT,
    )

    def closure() -> float:
        matrix = theta.numpy()
        scores = torch.from_numpy(features @ matrix[:-1]).add_(theta[-1])
        value, error = link.slope(scores[:, None], truth, shares)
        errors = error[:, 0].numpy()
        gradient = np.empty_like(matrix)
        np.multiply(matrix[:-1], l2, out=gradient[:-1])
        gradient[:-1] += columns @ errors
        gradient[-1] = errors.sum(axis=0)
        theta.grad = torch.from_numpy(gradient)
        return value + l2 / 2 * float(theta[:-1].square().sum(dtype=torch.float64))

    with torch.no_grad():
        optimiser.step(closure)  # type: ignore[arg-type]
    matrix = theta.numpy()
    return matrix[:-1].copy(), matrix[-1].copy()
