"""Where the model looks: what hiding a place of an item does to its answer. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Predict = Callable[
    [NDArray[np.generic]], NDArray[np.float64]
]  # (B, ...) prepared items to (B, K) probabilities

# A fall of the log odds by so much is shown in full, smaller ones fainter: noise looks like nothing
FULL_HEAT = 1.0


@dataclass(frozen=True)
class Occluded:
    """One answer: its probability for the whole item, and what was left of it with each place hidden, in
    the shape of the places.
    """

    whole: float
    hidden: NDArray[np.float64]

    def fall(self) -> NDArray[np.float64]:
        """By how much the log odds of the answer fell, for each place; 0 where hiding did not harm it."""
        return np.maximum(_log_odds(np.asarray(self.whole)) - _log_odds(self.hidden), 0.0)

    def heat(self) -> NDArray[np.float64]:
        """The same from 0 to 1, as a map shows it."""
        fall = self.fall()
        return fall / max(FULL_HEAT, float(fall.max()))


def occlusion(
    raw: NDArray[np.generic], hidden: NDArray[np.generic], answer: int, predict: Predict
) -> Occluded:
    """What hiding each place of an item does to the probability of class `answer` (Zeiler and Fergus 2014).

    `raw` is the item as the preprocessing's `host` makes it, and `hidden` (*places, *raw.shape) are the
    copies that the modality's `hide` makes of it. This works with any network and head, as it only asks for
    predictions.
    """
    places = hidden.shape[: hidden.ndim - raw.ndim]
    copies = hidden.reshape(-1, *raw.shape)
    shares = predict(np.concatenate([raw[None], copies]))[:, answer]
    return Occluded(float(shares[0]), shares[1:].reshape(places))


def _log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(shares, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))
