"""A number with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, the number of examples it rests on, and how the interval was made."""

    value: float
    low: float
    high: float
    n: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Estimate:
        """The estimate that `to_dict` described. Null, which stands for NaN in JSON, becomes NaN again, and
        unknown keys are passed over.
        """
        value, low, high = (
            math.nan if values[key] is None else float(values[key]) for key in ("value", "low", "high")
        )
        return cls(value, low, high, int(values["n"]), str(values["method"]))


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, JASA 1927); (NaN, NaN) for n = 0.

    Both may be fractions, as an effective number of examples is one; `scipy.stats.binomtest` takes whole
    numbers only.
    """
    if n == 0:
        return math.nan, math.nan
    share, z2 = successes / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (0.0 if successes == 0 else max(0.0, centre - half)), (
        1.0 if successes == n else min(1.0, centre + half)
    )


def percentiles(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws, shape (R,)."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)
