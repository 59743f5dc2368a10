"""What a pass of the network gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What one pass gives: of one item its (K,) outputs and (width,) features, of N items (N, K) and (N,
    width). float32.
    """

    outputs: np.ndarray
    features: np.ndarray
