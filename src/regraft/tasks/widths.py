"""What a task of numbers knows of its targets, and how far these lie from what is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from regraft.evaluation import ErrorSizes

PROMISED = 0.9  # of the numbers that are to lie in their intervals


def medians(values: np.ndarray) -> np.ndarray:
    """(K,) medians of what is known of each column of (N, K) values; 0 where nothing is."""
    known = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(column) if len(column) else 0.0 for column in known])


@dataclass(frozen=True)
class Widths:
    """How far each number lies from what is told at most, as often as `share` promises (K,); None where too few
    held-out examples could tell. Split conformal prediction: the quantile of the errors of held-out examples.
    `sizes` (K,) says where errors are larger or smaller than that, by what is told; None, or nothing at all, where
    they are not.
    """

    fitted_on: str
    widths: tuple[float | None, ...]
    share: float = PROMISED
    n: int = 0
    sizes: tuple[ErrorSizes | None, ...] = ()

    @property
    def promises(self) -> None:
        """Numbers are right or wrong by degrees: no precision is promised of them."""

    def keeping(self, precision: float) -> Widths:
        """As it is."""
        return self

    def around(self, values: np.ndarray) -> np.ndarray:
        """(N, K) how far the truth lies from (N, K) values at most, as promised; NaN where nothing is."""
        found = np.full(values.shape, np.nan)
        for k, width in enumerate(self.widths):
            if width is not None:
                sizes = self.sizes[k] if self.sizes else None
                found[:, k] = width * (1.0 if sizes is None else sizes.at(values[:, k]))
        return found

    def applied(self, outputs: np.ndarray) -> np.ndarray:
        """(N, K) outputs as they are."""
        return outputs

    def promising_nothing(self, why: str) -> Widths:
        """No intervals: the examples were seen before, and prove nothing."""
        return replace(self, widths=(None,) * len(self.widths), sizes=())

    def saved(self) -> dict[str, Any]:
        """`intervals` of regraft.json."""
        kept: dict[str, Any] = {"share": self.share, "widths": list(self.widths)}
        kept |= {"fitted_on": self.fitted_on, "n": self.n}
        return {"intervals": kept | ({"sizes": self._sizes()} if any(self.sizes) else {})}

    def _sizes(self) -> list[dict[str, list[float]] | None]:
        return [
            None if one is None else {"told": list(one.told), "size": list(one.size)} for one in self.sizes
        ]

    @classmethod
    def restored(cls, kept: Mapping[str, Any], count: int) -> Widths:
        """What `saved` told under `intervals`, of so many numbers."""
        widths = tuple(None if width is None else float(width) for width in kept.get("widths") or ())
        sizes = tuple(
            None if one is None else ErrorSizes(tuple(one["told"]), tuple(one["size"]))
            for one in kept.get("sizes") or ()
        )
        share, n = float(kept.get("share", PROMISED)), int(kept.get("n", 0))
        return cls(str(kept.get("fitted_on", "")), widths or (None,) * count, share, n, sizes)

    def to_metrics(self) -> dict[str, Any]:
        """`intervals` of metrics.json, before test."""
        return {"intervals": {**self.saved()["intervals"], "indicative": self.fitted_on == "val"}}

    def tested(self, targets: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """The same: how often they held on test stands in the tables."""
        return self.to_metrics()


@dataclass(frozen=True)
class Each:
    """The intervals of N examples, each by the calibration of its own fold: `of` (N,) says by which."""

    calibrations: tuple[Widths, ...]
    of: tuple[int, ...]

    def around(self, values: np.ndarray) -> np.ndarray:
        """(N, K) how far the truth lies from (N, K) values at most."""
        each = np.stack([one.around(values) for one in self.calibrations])
        return np.asarray(each[list(self.of), np.arange(len(values))])


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
