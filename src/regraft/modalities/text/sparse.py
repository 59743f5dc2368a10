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
REMEMBERED = 5  # steps that L-BFGS goes by: each takes the memory of two sets of weights


def solved(
    features: sparse.csr_matrix, targets: np.ndarray, weights: np.ndarray, link: Link, outputs: int, l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) float32 weights and (K,) bias for (N, R) features: the least mean loss, each example by its
    weight, and l2 / 2 times the squared weights, by L-BFGS.
    """
    import torch
    from scipy.optimize import minimize

    count, wide = features.shape
    shares = torch.from_numpy((weights / weights.sum()).astype(np.float32))[:, None]
    truth, columns = link.tensor(targets), features.T.tocsr()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix = flat.reshape(wide + 1, outputs).astype(np.float32)
        scores = torch.from_numpy(features @ matrix[:-1] + matrix[-1])
        value, slope = link.slope(scores[:, None], truth, shares)
        errors = slope[:, 0].numpy()
        gradient = np.concatenate([columns @ errors + l2 * matrix[:-1], errors.sum(0, keepdims=True)])
        return value + l2 / 2 * float((matrix[:-1] ** 2).sum()), gradient.astype(np.float64).reshape(-1)

    start = np.zeros((wide + 1) * outputs)
    settings = {"maxiter": ITERATIONS, "maxcor": REMEMBERED, "gtol": CLOSE / count**0.5, "ftol": 1e-6}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=settings)
    matrix = found.x.reshape(wide + 1, outputs).astype(np.float32)
    return matrix[:-1], matrix[-1]
