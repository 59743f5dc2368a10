"""Where the model looks: what hiding a place of the picture does to its answer. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from regraft.evaluation import softmax
from regraft.inference import Predictor
from regraft.model import Model

GRID = 7  # places a side: on a CPU, 50 passes of a 224-pixel network are about half a second
GREY = 128  # what a hidden place is filled with: near the mean of any pre-training data

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float64]]  # (B, S, S, 3) images to (B, K) probabilities


@dataclass(frozen=True)
class Occluded:
    """One answer: its probability for the whole picture, and (G, G) what was left of it with each place
    hidden.
    """

    whole: float
    hidden: NDArray[np.float64]

    def fall(self) -> NDArray[np.float64]:
        """(G, G) by how much the log odds of the answer fell; 0 where hiding did not harm it."""
        return np.maximum(_log_odds(np.asarray(self.whole)) - _log_odds(self.hidden), 0.0)


def occlusion(
    images: NDArray[np.uint8], answers: NDArray[np.int64], predict: Predict, grid: int = GRID
) -> Iterator[Occluded]:
    """For each of (N, S, S, 3) images, what a grey square laid over it does to the answer (N,) (Zeiler and
    Fergus 2014).

    Works with any network and head, as it only asks for predictions. The squares are two places wide, so that
    neighbours overlap: what lies on the border of one lies within another.
    """
    for image, answer in zip(images, answers, strict=True):
        shares = predict(np.concatenate([image[None], hide(image, grid)]))[:, answer]
        yield Occluded(float(shares[0]), shares[1:].reshape(grid, grid))


def hide(image: NDArray[np.uint8], grid: int = GRID) -> NDArray[np.uint8]:
    """(G * G, S, S, 3): copies of a (S, S, 3) image, each with another place hidden, row by row."""
    size = image.shape[0]
    centres = (np.arange(grid) + 0.5) * size / grid
    lows, highs = (np.clip(np.rint(centres + side * size / grid), 0, size).astype(int) for side in (-1, 1))
    copies = np.repeat(image[None], grid * grid, axis=0)
    for number in range(grid * grid):
        row, column = divmod(number, grid)
        copies[number, lows[row] : highs[row], lows[column] : highs[column]] = GREY
    return copies


def predictor(model: Model, device: torch.device, precision: str = "float32") -> Predict:
    """The model's calibrated probabilities for images that have been through its preprocessing already."""
    runs = model.predictor(device) if precision == "float32" else Predictor(model, device, precision)
    return lambda images: softmax(runs.of_raws(images), model.temperature)


def _log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    bounded = np.clip(shares, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))
