"""What is known of a sound file: its length, rate, loudness, and a print of its tones, from one decoding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.modalities.audio.reading import blocks, opened

FRAME = 1_024  # samples of a frame of the print
BANDS = 32  # tones of the print, evenly spaced on a logarithmic scale
TONES = (60.0, 3_800.0)  # Hz: what recordings of 8 kHz have too
FULL = 0.999  # of full scale: samples there in a row are clipped
ROW = 3  # samples in a row that make it clipping rather than a peak
ROOM = 4  # bands of the quietest frame
FLOOR = 1e-10  # power of a band that counts as nothing


@dataclass(frozen=True)
class Sound:
    """What one decoding tells of a file.

    `codec` is its format and how samples are stored; `peak` and `loudness` (root mean square) are of full
    scale, 1; `clipped` is the share of samples in rows at full scale, `lasting` how loud frames differ in
    decibels (standard deviation), `pure` the share of the power in the strongest tone, `room` the powers in
    ROOM bands, in powers of ten, of the quietest frame, which is what a room or a device sounds like; `tones` (2 * BANDS,)
    float16 bytes are mean and standard deviation over time of the power by band, in powers of ten, the means
    less their mean: the same whatever the gain.
    """

    seconds: float
    rate: int
    channels: int
    codec: str
    peak: float
    loudness: float
    clipped: float
    lasting: float
    pure: float
    room: tuple[float, ...]
    tones: bytes
    identity: str


def inspect_sound(item: Any) -> Sound:
    """Decode a file wholly, a bounded number of samples at a time. Raises Unreadable."""
    with opened(item) as sound:
        rate, channels, codec = sound.samplerate, sound.channels, f"{sound.format} {sound.subtype}"
        digest = hashlib.sha256(f"{rate} {channels}".encode())
        count, square, clipped, peak = 0, 0.0, 0, 0.0
        spectra = _Spectra(rate)
        for block in blocks(sound):
            digest.update(np.ascontiguousarray(block).data)
            count += len(block)
            square += float((block.astype(np.float64) ** 2).sum()) / channels
            top = np.abs(block).max(axis=1)
            peak = max(peak, float(top.max()))
            clipped += in_rows(top >= FULL)
            spectra.add(block.mean(axis=1))
    return Sound(
        count / rate,
        rate,
        channels,
        codec,
        peak,
        float(np.sqrt(square / count)),
        clipped / count,
        spectra.lasting(),
        spectra.pure(),
        spectra.room(),
        spectra.tones().astype(np.float16).tobytes(),
        digest.hexdigest()[:32],
    )


def in_rows(which: NDArray[np.bool_]) -> int:
    """How many of (N,) truths stand in rows of ROW or more."""
    if not which.any():
        return 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]]).astype(np.int8)))
    rows = edges[1::2] - edges[::2]
    return int(rows[rows >= ROW].sum())


class _Spectra:
    """Sums over the frames of a recording; what is left of a block goes before the next."""

    def __init__(self, rate: int) -> None:
        tones = np.fft.rfftfreq(FRAME, 1 / rate)
        edges = np.geomspace(*TONES, BANDS + 1)
        centres = np.sqrt(edges[:-1] * edges[1:])
        near = np.abs(np.log(np.maximum(tones, 1.0)) - np.log(centres)[:, None]).argmin(axis=1)
        inside = (tones >= edges[:-1, None]) & (tones < edges[1:, None])
        inside[np.arange(BANDS), near] |= ~inside.any(axis=1)  # a narrow band takes the tone next to it
        self.bands = (inside / inside.sum(axis=1, keepdims=True)).T
        self.window = np.hanning(FRAME)
        self.rest = np.zeros(0, dtype=np.float32)
        self.frames = 0
        self.sums, self.squares = np.zeros(BANDS), np.zeros(BANDS)
        self.power = np.zeros(len(tones))
        self.louds = [0.0, 0.0]
        self.least, self.quietest = np.inf, np.zeros(BANDS)

    def add(self, samples: NDArray[np.float32]) -> None:
        """More samples of the recording."""
        samples = np.concatenate([self.rest, samples])
        count = len(samples) // FRAME
        self.rest = samples[count * FRAME :]
        if count:
            self._frames(samples[: count * FRAME].reshape(count, FRAME))

    def _frames(self, frames: NDArray[np.float32]) -> None:
        power = np.abs(np.fft.rfft(frames * self.window)) ** 2 / FRAME
        logs = np.log10(power @ self.bands + FLOOR)
        self.sums += logs.sum(axis=0)
        self.squares += (logs**2).sum(axis=0)
        self.power += power.sum(axis=0)
        loud = 10 * np.log10(power.sum(axis=1) + FLOOR)
        self.louds = [self.louds[0] + float(loud.sum()), self.louds[1] + float((loud**2).sum())]
        self.frames += len(frames)
        quiet = int(loud.argmin())
        if loud[quiet] < self.least:
            self.least, self.quietest = float(loud[quiet]), logs[quiet]

    def _close(self) -> None:
        """A recording shorter than a frame is one, with silence behind it."""
        if not self.frames:
            self._frames(np.pad(self.rest, (0, FRAME - len(self.rest)))[None])

    def lasting(self) -> float:
        """Standard deviation of the loudness of frames, in decibels."""
        self._close()
        mean = self.louds[0] / self.frames
        return float(np.sqrt(max(0.0, self.louds[1] / self.frames - mean**2)))

    def pure(self) -> float:
        """The share of the power in the strongest tone and those beside it."""
        self._close()
        total, top = float(self.power.sum()), int(self.power.argmax())
        return float(self.power[max(0, top - 2) : top + 3].sum()) / total if total > 0 else 0.0

    def room(self) -> tuple[float, ...]:
        """The quietest frame's powers in ROOM bands, in powers of ten."""
        self._close()
        return tuple(self.quietest.reshape(ROOM, -1).mean(axis=1).tolist())

    def tones(self) -> NDArray[np.float64]:
        """(2 * BANDS,) means less their mean, and standard deviations."""
        self._close()
        mean = self.sums / self.frames
        spread = np.sqrt(np.maximum(0, self.squares / self.frames - mean**2))
        return np.concatenate([mean - mean.mean(), spread])
