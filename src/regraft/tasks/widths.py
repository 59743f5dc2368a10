"""What a task of numbers knows of its targets, and how far these lie from what is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

PROMISED = 0.9  # of the numbers that are to lie in their intervals


@dataclass(frozen=True)
class Widths:
    """How far each number lies from what is told at most, as often as `share` promises (K,); None where too few
    held-out examples could tell. Split conformal prediction: the quantile of the errors of held-out examples.
    """

    fitted_on: str
    widths: tuple[float | None, ...]
    share: float = PROMISED
    n: int = 0

    def applied(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) outputs as they are."""
        return outputs

    def promising_nothing(self, why: str) -> Widths:
        """No intervals: the examples were seen before, and prove nothing."""
        return replace(self, widths=(None,) * len(self.widths))

    def saved(self) -> dict[str, Any]:
        """`intervals` of regraft.json."""
        return {"intervals": {"share": self.share, "widths": list(self.widths)}}

    def to_metrics(self) -> dict[str, Any]:
        """`intervals` of metrics.json, before test."""
        return {
            "intervals": {
                "share": self.share,
                "widths": list(self.widths),
                "fitted_on": self.fitted_on,
                "n": self.n,
                "indicative": self.fitted_on == "val",
            }
        }

    def tested(self, targets: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """The same: how often they held on test stands in the tables."""
        return self.to_metrics()


@dataclass(frozen=True)
class Scale:
    """What the task knows of the targets of train and val, each (K,): mean and deviation, median, least and
    largest.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    median: tuple[float, ...]
    least: tuple[float, ...]
    largest: tuple[float, ...]

    @classmethod
    def of(cls, targets: np.ndarray) -> Scale:
        """Of (N, K) targets, of each of which some are known."""
        columns = [column[np.isfinite(column)] for column in np.asarray(targets, dtype=np.float64).T]
        columns = [column if len(column) else np.zeros(1) for column in columns]

        def each(of: Callable[[np.ndarray], Any]) -> tuple[float, ...]:
            return tuple(float(of(column)) for column in columns)

        deviations = tuple(one or 1.0 for one in each(np.std))
        return cls(each(np.mean), deviations, each(np.median), each(np.min), each(np.max))
