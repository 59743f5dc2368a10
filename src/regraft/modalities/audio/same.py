"""Which sounds may be the same recording: by the print of their tones, confirmed by laying them over each
other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import scipy

from regraft.data.kind import Likeness
from regraft.errors import ChangedError, Unreadable
from regraft.modalities.audio.inspect import BANDS
from regraft.modalities.audio.reading import waveform

RATE = 4_000  # Hz at which two recordings are laid over each other
MOST = 4 * RATE  # samples of each, four seconds
LEAST_SECONDS = 0.1  # of recordings that can be told from each other
OVERLAP = 0.5  # of the shorter one that must lie under the other
ALIKE = 0.95  # correlation of what overlaps: two takes of a spoken digit reach 0.94
BLOCK = 64  # pairs at once


def likeness(facts: pa.Table) -> Likeness:
    """How near-duplicates are found among sounds."""
    return Likeness(vectors, tellable, lengths, small_or_none, overlapping, 0.97, 0.99, 0.9995, 0.99999)


def vectors(facts: pa.Table) -> np.ndarray:
    """(N, 1, 2 * BANDS) prints of length 1, whatever the gain; zeros without one."""
    prints = np.zeros((facts.num_rows, 2 * BANDS), dtype=np.float32)
    for row, text in zip(prints, facts["tones"].to_pylist(), strict=True):
        if text:
            row[:] = np.frombuffer(bytes.fromhex(text), dtype=np.float16)
    prints[:, BANDS:] -= prints[:, BANDS:].mean(axis=1, keepdims=True)
    return np.asarray(prints / np.maximum(np.linalg.norm(prints, axis=1, keepdims=True), 1e-6))[:, None]


def tellable(facts: pa.Table) -> np.ndarray:
    """(N,) whether there is anything to tell a recording by: not of a click, nor of silence."""
    values = {
        name: np.array([value or 0 for value in facts[name].to_pylist()]) for name in ("seconds", "peak")
    }
    return np.asarray((values["seconds"] >= LEAST_SECONDS) & (values["peak"] > 0))


def lengths(facts: pa.Table) -> Sequence[Hashable]:
    """Rate, channels and samples of each: recordings of equal samples have the same."""
    columns = (facts[name].to_pylist() for name in ("seconds", "rate", "channels"))
    return [
        (rate, channels, round((length or 0) * (rate or 0)))
        for length, rate, channels in zip(*columns, strict=True)
    ]


def small_or_none(item: Any) -> np.ndarray | None:
    """(2 * MOST,) float32: the samples of the first seconds at RATE with silence behind them, then 1 where
    there are samples; None where it cannot be read.
    """
    try:
        samples = waveform(item, RATE, 1, MOST)
    except (Unreadable, ChangedError):
        return None
    made = np.zeros(2 * MOST, dtype=np.float32)
    made[: len(samples)] = samples - samples.mean()
    made[MOST : MOST + len(samples)] = 1
    return made


def overlapping(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) correlation, from ALIKE to 1, of (P, 2 * MOST) recordings that are the same but for gain and a
    shift in time; 0 of those that are not.
    """
    alike = np.zeros(len(first))
    for start in range(0, len(first), BLOCK):
        some = slice(start, start + BLOCK)
        alike[some] = _block(first[some], second[some])
    return alike


def _block(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The best correlation over all shifts at which enough overlaps."""
    (a, there_a), (b, there_b) = ((made[:, :MOST], made[:, MOST:]) for made in (first, second))

    def correlated(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        size = scipy.fft.next_fast_len(2 * MOST, real=True)
        spectra = scipy.fft.rfft(one, size) * np.conj(scipy.fft.rfft(other, size))
        return np.asarray(scipy.fft.irfft(spectra, size))

    together = correlated(there_a, there_b)
    power = np.maximum(correlated(a**2, there_b), 0) * np.maximum(correlated(there_a, b**2), 0)
    shorter = np.minimum(there_a.sum(axis=1), there_b.sum(axis=1))[:, None]
    whole = (a**2).sum(axis=1, keepdims=True) * (b**2).sum(axis=1, keepdims=True)
    enough = (together >= OVERLAP * shorter) & (power >= OVERLAP**2 * whole) & (power > 0)
    close = np.where(enough, correlated(a, b) / np.sqrt(np.maximum(power, 1e-30)), 0)
    best = np.abs(close).max(axis=1)  # a recording turned upside down sounds the same
    return np.where(best >= ALIKE, np.minimum(best, 1.0), 0.0)
