"""Places of a sound, hidden one after another: what shows what a model listens to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regraft.modalities.audio.augment import LOWEST

TONES, TIMES = 4, 8  # bands of tones, and parts of the time


def hide(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(TONES, TIMES, n): copies of (n,) samples, each without the tones of another band in another part of the
    time; high tones first, as a picture shows them. Bands are evenly spaced on a logarithmic scale.
    """
    count = len(samples)
    copies = np.tile(samples, (TONES, TIMES, 1))
    edges = np.rint(np.linspace(0, count, TIMES + 1)).astype(int)
    spectrum = np.fft.rfft(samples)
    tones = np.rint(np.geomspace(LOWEST, 1, TONES + 1) * len(spectrum)).astype(int)
    tones[0] = 0
    for row in range(TONES):
        some = spectrum.copy()
        low, high = tones[TONES - 1 - row], tones[TONES - row]
        some[low:high] = 0
        without = np.fft.irfft(some, count).astype(np.float32)
        for column in range(TIMES):
            part = slice(edges[column], edges[column + 1])
            copies[row, column, part] = without[part]
    return copies
