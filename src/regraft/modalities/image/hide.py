"""Places of an image, hidden one after another: what shows where a model looks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = 7  # places a side: on a CPU, 50 passes of a 224-pixel network are about half a second
GREY = 128  # what a hidden place is filled with: near the mean of any pre-training data


def hide(image: NDArray[np.uint8], grid: int = GRID) -> NDArray[np.uint8]:
    """(G, G, S, S, 3): copies of a (S, S, 3) image, each with a grey square over another place.

    The squares are two places wide, so that neighbours overlap: what lies on the border of one lies within
    another.
    """
    size = image.shape[0]
    centres = (np.arange(grid) + 0.5) * size / grid
    lows, highs = (np.clip(np.rint(centres + side * size / grid), 0, size).astype(int) for side in (-1, 1))
    copies = np.tile(image, (grid, grid, 1, 1, 1))
    for row, column in np.ndindex(grid, grid):
        copies[row, column, lows[row] : highs[row], lows[column] : highs[column]] = GREY
    return copies
