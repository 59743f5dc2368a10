"""Features that hold what is no number are refused, with the place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regraft.errors import UsageError

ROWS = 4_096  # looked at at once


def require_finite(features: np.ndarray | Sequence[np.ndarray]) -> None:
    """Raise UsageError where rows of (N, D) features, or of several such arrays in turn, hold nan or
    infinity.
    """
    parts = (features,) if isinstance(features, np.ndarray) else features
    wrong, count = [], 0
    for part in parts:
        for start in range(0, len(part), ROWS):
            rows = np.asarray(part[start : start + ROWS])
            wrong += (count + start + np.flatnonzero(~np.isfinite(rows).all(axis=1))).tolist()
        count += len(part)
    if wrong:
        raise UsageError(
            f"the features of {len(wrong)} of {count} examples "
            f"hold nan or infinity; the first is row {wrong[0]}."
        )
