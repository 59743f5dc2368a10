"""Sounds of eight kinds, computed: no two are the same, and each has noise of its own behind it."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE, SECONDS = 16_000, 1.0
EACH = 30  # clips of a kind
NOISE = (-8.0, 12.0)  # decibels of the background below the sound
Samples = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Samples], Samples]


def write_sounds(folder: Path) -> None:
    """EACH clips a kind as WAV files of 16 bits, in a folder a kind."""
    time = np.arange(round(RATE * SECONDS)) / RATE
    for kind, draw in KINDS.items():
        place = folder / kind
        place.mkdir(parents=True, exist_ok=True)
        for number in range(EACH):
            rng = np.random.default_rng([number, *kind.encode()])
            sound = draw(rng, time)
            sound = sound / (np.sqrt(np.mean(sound**2)) + 1e-9)
            behind = rng.normal(size=len(time)) * 10 ** (-rng.uniform(*NOISE) / 20)
            mixed = sound + behind
            mixed *= rng.uniform(0.3, 0.9) / np.abs(mixed).max()
            with wave.open(str(place / f"{number:02}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes(np.rint(mixed * 32_767).astype("<i2").tobytes())


def _after(time: Samples, start: float, decay: float) -> Samples:
    """A fall from 1 at `start`, to a third of it every `decay` seconds; 0 before."""
    since = time - start
    return np.where(since >= 0, np.exp(-np.maximum(since, 0) / decay), 0.0)


def _tone(pitch: Samples | float, time: Samples) -> Samples:
    """A sine of a pitch that may change over the (n,) times."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(pitch, time.shape)) / RATE)


def _bell(rng: np.random.Generator, time: Samples) -> Samples:
    pitch, start = rng.uniform(300, 1_200), rng.uniform(0, 0.3)
    partials = zip((1.0, 2.76, 5.4, 8.93), (1.0, 0.6, 0.4, 0.2), strict=True)
    struck = [share * _tone(pitch * k, time) * _after(time, start, 0.4 / k) for k, share in partials]
    return np.asarray(np.sum(struck, axis=0))


def _drum(rng: np.random.Generator, time: Samples) -> Samples:
    sound = np.zeros_like(time)
    for start in np.arange(rng.uniform(0, 0.2), SECONDS, rng.uniform(0.15, 0.5)):
        skin = _tone(rng.uniform(60, 110) * (1 + _after(time, start, 0.04)), time)
        sound += skin * _after(time, start, 0.12) + 0.4 * rng.normal(size=len(time)) * _after(
            time, start, 0.02
        )
    return sound


def _whistle(rng: np.random.Generator, time: Samples) -> Samples:
    pitch = rng.uniform(900, 2_500) * (1 + 0.02 * np.sin(2 * np.pi * rng.uniform(4, 8) * time))
    start, end = rng.uniform(0, 0.3), rng.uniform(0.6, 1.0)
    return _tone(pitch, time) * ((time > start) & (time < end))


def _bird(rng: np.random.Generator, time: Samples) -> Samples:
    sound = np.zeros_like(time)
    for start in np.sort(rng.uniform(0, 0.9, rng.integers(3, 8))):
        since = np.maximum(time - start, 0)
        rising = rng.uniform(2_000, 3_500) + rng.uniform(5_000, 20_000) * since
        sound += _tone(np.minimum(rising, 7_000), time) * _after(time, start, 0.04)
    return sound


def _engine(rng: np.random.Generator, time: Samples) -> Samples:
    turns = rng.uniform(40, 120) * (1 + rng.uniform(-0.3, 0.3) * time)
    harmonics = np.sum([_tone(turns * k, time) / k for k in range(1, 20)], axis=0)
    return np.asarray(harmonics * (1 + 0.5 * _tone(turns / 4, time)))


def _siren(rng: np.random.Generator, time: Samples) -> Samples:
    swing = np.abs((time * rng.uniform(0.8, 2) + rng.uniform(0, 1)) % 2 - 1)
    pitch = rng.uniform(400, 700) + rng.uniform(400, 900) * swing
    return _tone(pitch, time) + 0.3 * _tone(2 * pitch, time)


def _rain(rng: np.random.Generator, time: Samples) -> Samples:
    spectrum = np.fft.rfft(rng.normal(size=len(time)))
    spectrum *= np.linspace(rng.uniform(0.2, 1), rng.uniform(0.5, 2), len(spectrum))
    drops = rng.normal(size=len(time)) * (rng.uniform(size=len(time)) < 0.002) * rng.uniform(10, 40)
    return np.fft.irfft(spectrum, len(time)) + np.convolve(drops, np.exp(-np.arange(40) / 6), "same")


def _clock(rng: np.random.Generator, time: Samples) -> Samples:
    every, sound = rng.uniform(0.12, 0.4), np.zeros_like(time)
    for number, start in enumerate(np.arange(rng.uniform(0, every), SECONDS, every)):
        pitch = 2_800 if number % 2 else 3_300
        sound += _after(time, start, 0.005) * _tone(pitch, time)
    return sound


KINDS: dict[str, Draw] = {
    "bell": _bell,
    "bird": _bird,
    "clock": _clock,
    "drum": _drum,
    "engine": _engine,
    "rain": _rain,
    "siren": _siren,
    "whistle": _whistle,
}
