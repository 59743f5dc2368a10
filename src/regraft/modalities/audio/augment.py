"""Augmentation of sounds in training: each draw depends on the generator given only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHIFT = 0.1  # of the clip's length that a sound comes earlier or later, at most
GAIN = 6.0  # decibels louder or softer, at most
TIME, TONES = 0.15, 0.2  # of the length, and of the tones on a logarithmic scale, that a mask hides at most
LOWEST = 50.0 / 8_000  # of half the sampling rate: where the logarithmic scale of tones begins
NOISE = (20.0, 40.0)  # decibels below the clip's own power


@dataclass(frozen=True)
class Augment:
    """A shift in time, a gain, a mask over time and one over tones (SpecAugment, Park et al. 2019), and white
    noise; each where it is on.
    """

    shift: bool = False
    gain: bool = False
    masks: bool = False
    noise: bool = False

    def __call__(self, samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """As many samples; the draw depends on `rng` only, and is the same whatever is on."""
        drawn = rng.uniform(size=8)
        seed = int(rng.integers(2**63))
        heard = samples
        if self.shift:
            heard = shifted(heard, round((2 * drawn[0] - 1) * SHIFT * len(heard)))
        if self.masks:
            heard = without_tones(heard, drawn[1] * TONES, drawn[2])
            heard = without_time(heard, drawn[3] * TIME, drawn[4])
        if self.noise:
            heard = noisy(heard, NOISE[0] + drawn[5] * (NOISE[1] - NOISE[0]), seed)
        if self.gain:
            heard = heard * 10 ** ((2 * drawn[6] - 1) * GAIN / 20)
        return np.asarray(heard, dtype=np.float32)


def shifted(samples: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    """The sound later by so many samples, or earlier, silence in their place."""
    if by >= 0:
        return np.concatenate([np.zeros(by, dtype=np.float32), samples[: len(samples) - by]])
    return np.concatenate([samples[-by:], np.zeros(-by, dtype=np.float32)])


def without_time(samples: NDArray[np.float32], share: float, place: float) -> NDArray[np.float32]:
    """Silent for a `share` of the length, which begins at `place`, from 0 to 1, of where it can."""
    count = round(share * len(samples))
    start = round(place * (len(samples) - count))
    heard = samples.copy()
    heard[start : start + count] = 0
    return heard


def without_tones(samples: NDArray[np.float32], share: float, place: float) -> NDArray[np.float32]:
    """Without the tones of a `share` of the logarithmic scale, which begins at `place` of where it can."""
    spectrum = np.fft.rfft(samples)
    low = LOWEST ** (1 - place * (1 - share))
    high = LOWEST ** (1 - place * (1 - share) - share)
    spectrum[round(low * len(spectrum)) : round(high * len(spectrum))] = 0
    return np.fft.irfft(spectrum, len(samples)).astype(np.float32)


def noisy(samples: NDArray[np.float32], below: float, seed: int) -> NDArray[np.float32]:
    """With white noise so many decibels below the clip's own power."""
    power = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) * 10 ** (-below / 20)
    return samples + (power * np.random.default_rng(seed).standard_normal(len(samples))).astype(np.float32)
