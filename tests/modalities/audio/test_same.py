"""The same recording, louder, cut or moved, is found; another of the same kind is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regraft.modalities import modality_of
from regraft.modalities.audio.inspect import Sound, in_rows, inspect_sound
from regraft.modalities.audio.same import likeness
from sounds import hiss, tone, write

SOUNDS = modality_of("audio")


def voice(seed: int, seconds: float = 1.0) -> np.ndarray:
    """Noise in syllables: neither steady nor a tone."""
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.uniform(0, 1, 10), round(seconds * 1_600))
    spectrum = np.fft.rfft(rng.normal(size=len(loud)))
    spectrum *= np.exp(-np.linspace(0, rng.uniform(8, 20), len(spectrum)))
    return (np.fft.irfft(spectrum, len(loud)) * loud).astype(np.float32)


def test_equal_samples_have_one_identity_whatever_holds_them(tmp_path: Path) -> None:
    samples = np.rint(32_767 * tone(440)).astype(np.int16)
    kept = [
        inspect_sound(write(tmp_path / name, samples, subtype=subtype)).identity
        for name, subtype in (("a.wav", "PCM_16"), ("a.flac", "PCM_16"))
    ]
    assert kept[0] == kept[1]
    assert inspect_sound(write(tmp_path / "b.wav", samples[1:], subtype="PCM_16")).identity != kept[0]
    assert inspect_sound(write(tmp_path / "c.wav", samples, 8_000, "PCM_16")).identity != kept[0]


def test_louder_moved_and_noisy_copies_are_confirmed_and_others_are_not(tmp_path: Path) -> None:
    one = voice(0)
    quiet = 0.3 * one
    moved = np.concatenate([np.zeros(1_600, np.float32), one[:-1_600]])
    noisy = one + 0.02 * np.abs(one).max() * hiss(1.0, seed=5) / 0.1
    part = one[3_000:13_000]
    facts, items = [], []
    for number, samples in enumerate((one, quiet, moved, noisy, part, voice(1), hiss(1.0), voice(2))):
        place = write(tmp_path / f"{number}.wav", samples)
        facts.append(inspect_sound(place))
        items.append(place)
    table = SOUNDS.table(facts)
    found = likeness(table)
    read = [found.read(item) for item in items]
    first, second = np.stack([read[0]] * 7), np.stack(read[1:])
    alike = found.confirm(first, second)
    assert (alike[:4] > 0.95).all()
    assert (alike[4:] == 0).all()
    vectors = found.vectors(table)[:, 0]
    assert (vectors[1:3] @ vectors[0] > found.alone).all()
    assert found.tellable(table).all()


def test_facts_of_odd_sounds(tmp_path: Path) -> None:
    def known(name: str, samples: np.ndarray) -> Sound:
        return inspect_sound(write(tmp_path / f"{name}.wav", samples))

    time = np.arange(16_000) / 16_000
    beep = known("beep", 0.5 * np.sin(2 * np.pi * 1_000 * time))
    assert beep.pure > 0.95
    assert beep.lasting < 1
    assert known("hiss", hiss()).pure < 0.2
    assert known("clipped", np.clip(3 * np.sin(2 * np.pi * 200 * time), -1, 1)).clipped > 0.1
    assert known("silent", np.zeros(8_000, np.float32)).peak == 0
    assert known("click", np.zeros(10, np.float32)).seconds == 10 / 16_000
    assert in_rows(np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1], bool)) == 7
